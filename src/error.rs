//! The one list of errors that reaches an application, the same in Rust, C, Kotlin and Swift.
//!
//! Layers have error enums of their own; at the edge of the engine each becomes an [`Error`]: a stable [`ErrorKind`]
//! and three texts. No text ever holds a key, an id or a user's host name.

use std::borrow::Cow;
use std::fmt;

/// Which step of setting up a connection to a server failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Stage {
    /// The server's name was being resolved.
    Resolve,
    /// The TCP (or UDP) socket was being connected.
    Connect,
    /// The TLS handshake was under way.
    Tls,
    /// The HTTP upgrade, or what the transport has in its place, was under way.
    Upgrade,
    /// The VMess header had been sent, its answer had not come.
    Vmess,
}

impl Stage {
    /// The stage's name in texts: `resolve`, `connect`, `tls`, `upgrade`, `vmess`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Resolve => "resolve",
            Self::Connect => "connect",
            Self::Tls => "tls",
            Self::Upgrade => "upgrade",
            Self::Vmess => "vmess",
        }
    }
}

/// What went wrong, by where the fault lies. The numbers of [`ErrorKind::code`] never change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
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
    /// This device's clock is off by so many seconds (positive: it is fast).
    ClockSkew {
        /// The offset in seconds.
        seconds: i64,
    },
    /// The host refused to protect a socket.
    ProtectFailed,
    /// Reading or writing the tun device failed.
    TunIo,
    /// The tun device is gone.
    TunGone,
    /// A limit was reached: memory, file descriptors, flows.
    ResourceLimit {
        /// What ran out.
        what: &'static str,
    },
    /// The tunnel has been started before.
    AlreadyRunning,
    /// The tunnel has been stopped.
    Stopped,
    /// Something took longer than it may.
    Timeout {
        /// What was waited for.
        what: &'static str,
    },
    /// The call is not legal here, or an argument is out of its range.
    Misuse,
    /// Not built into this version.
    Unsupported,
    /// A defect of the library.
    Internal,
}

impl ErrorKind {
    /// The stable number of the kind, as C, Kotlin and Swift see it. Never 0.
    pub const fn code(self) -> u32 {
        match self {
            Self::ConfigInvalid => 1,
            Self::ServerUnreachable { .. } => 2,
            Self::TlsFailed => 3,
            Self::AuthRejected => 4,
            Self::ClockSkew { .. } => 5,
            Self::ProtectFailed => 6,
            Self::TunIo => 7,
            Self::TunGone => 8,
            Self::ResourceLimit { .. } => 9,
            Self::AlreadyRunning => 10,
            Self::Stopped => 11,
            Self::Timeout { .. } => 12,
            Self::Misuse => 13,
            Self::Unsupported => 14,
            Self::Internal => 15,
        }
    }

    /// The kind's name, as in the documentation.
    pub const fn name(self) -> &'static str {
        match self {
            Self::ConfigInvalid => "ConfigInvalid",
            Self::ServerUnreachable { .. } => "ServerUnreachable",
            Self::TlsFailed => "TlsFailed",
            Self::AuthRejected => "AuthRejected",
            Self::ClockSkew { .. } => "ClockSkew",
            Self::ProtectFailed => "ProtectFailed",
            Self::TunIo => "TunIo",
            Self::TunGone => "TunGone",
            Self::ResourceLimit { .. } => "ResourceLimit",
            Self::AlreadyRunning => "AlreadyRunning",
            Self::Stopped => "Stopped",
            Self::Timeout { .. } => "Timeout",
            Self::Misuse => "Misuse",
            Self::Unsupported => "Unsupported",
            Self::Internal => "Internal",
        }
    }
}

/// An error as an application sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    /// What went wrong, for a program.
    pub kind: ErrorKind,
    /// What went wrong and where, for a person: one sentence.
    pub text: Cow<'static, str>,
    /// What to do about it; may be empty.
    pub hint: Cow<'static, str>,
    /// The technical reason below it (an OS error, a peer's answer); may be empty.
    pub reason: Cow<'static, str>,
    /// The JSON path of a config error (`outbounds[0].settings.vnext[0].port`); empty for every other kind.
    pub path: String,
}

impl Error {
    /// Makes an error with a text and nothing else.
    pub fn new(kind: ErrorKind, text: impl Into<Cow<'static, str>>) -> Self {
        Self {
            kind,
            text: text.into(),
            hint: Cow::Borrowed(""),
            reason: Cow::Borrowed(""),
            path: String::new(),
        }
    }

    /// Adds what to do about it.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<Cow<'static, str>>) -> Self {
        self.hint = hint.into();
        self
    }

    /// Adds the technical reason.
    #[must_use]
    pub fn with_reason(mut self, reason: impl Into<Cow<'static, str>>) -> Self {
        self.reason = reason.into();
        self
    }

    /// Adds the JSON path of the value at fault.
    #[must_use]
    pub fn with_path(mut self, path: impl Into<String>) -> Self {
        self.path = path.into();
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.text)?;
        if !self.reason.is_empty() {
            write!(f, " ({})", self.reason)?;
        }
        if !self.hint.is_empty() {
            write!(f, "; {}", self.hint)?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {}
