//! Errors as Kotlin and Swift see them.

use vmesskit::Error;

/// Which step of setting up a connection to a server failed.
#[derive(Debug, Clone, PartialEq, Eq, uniffi::Enum)]
pub enum Stage {
    /// The server's name was being resolved.
    Resolve,
    /// The socket was being connected.
    Connect,
    /// The TLS handshake was under way.
    Tls,
    /// The HTTP upgrade, or what the transport has in its place, was under way.
    Upgrade,
    /// The VMess header had been sent, its answer had not come.
    Vmess,
    /// A step that these bindings do not know yet.
    Unknown {
        /// Its name.
        name: String,
    },
}

impl From<vmesskit::Stage> for Stage {
    fn from(stage: vmesskit::Stage) -> Self {
        match stage {
            vmesskit::Stage::Resolve => Self::Resolve,
            vmesskit::Stage::Connect => Self::Connect,
            vmesskit::Stage::Tls => Self::Tls,
            vmesskit::Stage::Upgrade => Self::Upgrade,
            vmesskit::Stage::Vmess => Self::Vmess,
            other => Self::Unknown { name: other.name().into() },
        }
    }
}

/// What went wrong, by where the fault lies.
#[derive(Debug, Clone, PartialEq, Eq, uniffi::Enum)]
pub enum ErrorKind {
    /// The config has errors; `path` says where.
    ConfigInvalid,
    /// No connection to the server could be made.
    ServerUnreachable {
        /// The step that failed.
        stage: Stage,
    },
    /// The TLS handshake or the certificate failed.
    TlsFailed,
    /// The server closed without a valid answer, as it does for an unknown id or a wrong clock.
    AuthRejected,
    /// This device's clock is off.
    ClockSkew {
        /// By so many seconds; positive: it is fast.
        seconds: i64,
    },
    /// The platform refused to protect a socket.
    ProtectFailed,
    /// Reading or writing the tun device failed.
    TunIo,
    /// The tun device is gone.
    TunGone,
    /// A limit was reached.
    ResourceLimit {
        /// What ran out.
        what: String,
    },
    /// The tunnel has been started before.
    AlreadyRunning,
    /// The tunnel has been stopped.
    Stopped,
    /// Something took longer than it may.
    Timeout {
        /// What was waited for.
        what: String,
    },
    /// The call is not legal here, or an argument is out of its range.
    Misuse,
    /// Not built into this version.
    Unsupported,
    /// A defect of the library.
    Internal,
    /// A kind that these bindings do not know yet.
    Unknown {
        /// Its stable number.
        code: u32,
    },
}

impl From<vmesskit::ErrorKind> for ErrorKind {
    fn from(kind: vmesskit::ErrorKind) -> Self {
        use vmesskit::ErrorKind as Kind;
        match kind {
            Kind::ConfigInvalid => Self::ConfigInvalid,
            Kind::ServerUnreachable { stage } => Self::ServerUnreachable { stage: stage.into() },
            Kind::TlsFailed => Self::TlsFailed,
            Kind::AuthRejected => Self::AuthRejected,
            Kind::ClockSkew { seconds } => Self::ClockSkew { seconds },
            Kind::ProtectFailed => Self::ProtectFailed,
            Kind::TunIo => Self::TunIo,
            Kind::TunGone => Self::TunGone,
            Kind::ResourceLimit { what } => Self::ResourceLimit { what: what.into() },
            Kind::AlreadyRunning => Self::AlreadyRunning,
            Kind::Stopped => Self::Stopped,
            Kind::Timeout { what } => Self::Timeout { what: what.into() },
            Kind::Misuse => Self::Misuse,
            Kind::Unsupported => Self::Unsupported,
            Kind::Internal => Self::Internal,
            other => Self::Unknown { code: other.code() },
        }
    }
}

/// What a call throws, and what a state or a status carries.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, uniffi::Error)]
pub enum TunnelError {
    /// The call failed.
    #[error("{text}")]
    Failed {
        /// What went wrong, for a program.
        kind: ErrorKind,
        /// What went wrong and where, for a person: one sentence.
        text: String,
        /// What to do about it; may be empty.
        hint: String,
        /// The technical reason below it; may be empty.
        reason: String,
        /// The JSON path of a `ConfigInvalid`; else empty.
        path: String,
    },
}

impl TunnelError {
    /// Makes a `Misuse` by an argument.
    pub(crate) fn misuse(text: impl Into<String>) -> Self {
        Error::new(vmesskit::ErrorKind::Misuse, text.into()).into()
    }
}

impl From<Error> for TunnelError {
    fn from(error: Error) -> Self {
        Self::Failed {
            kind: error.kind.into(),
            text: error.text.into(),
            hint: error.hint.into(),
            reason: error.reason.into(),
            path: error.path,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_is_carried_over() {
        let error = Error::new(vmesskit::ErrorKind::Timeout { what: "stop" }, "a")
            .with_hint("b")
            .with_reason("c")
            .with_path("d");
        assert_eq!(
            TunnelError::from(error),
            TunnelError::Failed {
                kind: ErrorKind::Timeout { what: "stop".into() },
                text: "a".into(),
                hint: "b".into(),
                reason: "c".into(),
                path: "d".into(),
            }
        );
    }
}
