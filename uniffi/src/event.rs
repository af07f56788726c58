//! What a tunnel tells its host.

use crate::network::NetworkInfo;
use crate::status::State;

/// How much is logged, and how grave a line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, uniffi::Enum)]
pub enum LogLevel {
    /// Nothing.
    None,
    /// Errors.
    Error,
    /// And warnings.
    Warning,
    /// And what happened.
    Info,
    /// And host names, flow by flow.
    Debug,
}

impl From<LogLevel> for vmesskit::config::LogLevel {
    fn from(level: LogLevel) -> Self {
        match level {
            LogLevel::None => Self::None,
            LogLevel::Error => Self::Error,
            LogLevel::Warning => Self::Warning,
            LogLevel::Info => Self::Info,
            LogLevel::Debug => Self::Debug,
        }
    }
}

impl From<vmesskit::config::LogLevel> for LogLevel {
    fn from(level: vmesskit::config::LogLevel) -> Self {
        use vmesskit::config::LogLevel as Level;
        match level {
            Level::None => Self::None,
            Level::Error => Self::Error,
            Level::Warning => Self::Warning,
            Level::Info => Self::Info,
            Level::Debug => Self::Debug,
        }
    }
}

/// One line of the log.
#[derive(Debug, Clone, PartialEq, Eq, uniffi::Record)]
pub struct LogLine {
    /// How grave it is.
    pub level: LogLevel,
    /// When, in milliseconds since 1970 (UTC).
    pub unix_millis: i64,
    /// The text.
    pub text: String,
}

impl From<vmesskit::LogLine> for LogLine {
    fn from(line: vmesskit::LogLine) -> Self {
        Self { level: line.level.into(), unix_millis: line.unix_millis, text: line.text }
    }
}

/// What may be at fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, uniffi::Enum)]
pub enum CauseKind {
    /// The id is not known to the server, or its alterId differs.
    Id,
    /// This device's clock is off by more than VMess bears.
    Clock,
    /// The server is gone, or something between drops the traffic.
    ServerGone,
    /// The server refuses the security that is configured.
    Security,
    /// The target behind the server does not answer.
    Target,
    /// A cause that these bindings do not know yet.
    Unknown {
        /// Its stable number.
        code: u32,
    },
}

impl From<vmesskit::CauseKind> for CauseKind {
    fn from(kind: vmesskit::CauseKind) -> Self {
        match kind {
            vmesskit::CauseKind::Id => Self::Id,
            vmesskit::CauseKind::Clock => Self::Clock,
            vmesskit::CauseKind::ServerGone => Self::ServerGone,
            vmesskit::CauseKind::Security => Self::Security,
            vmesskit::CauseKind::Target => Self::Target,
            other => Self::Unknown { code: other.code() },
        }
    }
}

/// A cause of a fault and how sure it is.
#[derive(Debug, Clone, PartialEq, Eq, uniffi::Record)]
pub struct Cause {
    /// What it may be.
    pub kind: CauseKind,
    /// How sure, in percent.
    pub confidence: u8,
    /// For a person: what it is and what to do.
    pub text: String,
}

impl From<vmesskit::Cause> for Cause {
    fn from(cause: vmesskit::Cause) -> Self {
        Self { kind: cause.kind.into(), confidence: cause.confidence, text: cause.text }
    }
}

/// What a tunnel tells its host.
#[derive(Debug, Clone, PartialEq, Eq, uniffi::Enum)]
pub enum Event {
    /// The state has changed. Never dropped; the last event of a tunnel is always `Stopped`.
    StateChanged {
        /// The new state.
        state: State,
    },
    /// Log lines, oldest first.
    Log {
        /// The lines.
        lines: Vec<LogLine>,
    },
    /// The network below has changed and has been taken up.
    NetworkChanged {
        /// The new one.
        network: NetworkInfo,
    },
    /// Several flows in a row have sent data to an outbound and received nothing, and none has succeeded since.
    OutboundUnhealthy {
        /// The outbound's tag.
        outbound: String,
        /// What it may be, surest first.
        likely: Vec<Cause>,
    },
    /// A server closed before a valid answer.
    AuthRejected {
        /// The outbound's tag.
        outbound: String,
        /// What it may be, surest first.
        likely: Vec<Cause>,
    },
    /// This device's clock is off.
    ClockSkew {
        /// By so many seconds; positive: it is fast.
        seconds: i64,
    },
    /// A limit was reached.
    ResourceLimit {
        /// What ran out.
        what: String,
    },
    /// Something is wrong that may pass; traffic goes on.
    Degraded {
        /// What.
        reason: String,
    },
    /// The host was too slow.
    EventsDropped {
        /// So many events other than states were dropped.
        count: u64,
    },
    /// An event that these bindings do not know yet.
    Unknown {
        /// Its stable number.
        code: u32,
    },
}

impl From<vmesskit::Event> for Event {
    fn from(event: vmesskit::Event) -> Self {
        use vmesskit::Event as Core;
        let causes = |likely: Vec<vmesskit::Cause>| likely.into_iter().map(Cause::from).collect();
        match event {
            Core::State(state) => Self::StateChanged { state: state.into() },
            Core::Log(lines) => Self::Log { lines: lines.into_iter().map(LogLine::from).collect() },
            Core::NetworkChanged(network) => Self::NetworkChanged { network: (&network).into() },
            Core::OutboundUnhealthy { outbound, likely } => {
                Self::OutboundUnhealthy { outbound, likely: causes(likely) }
            }
            Core::AuthRejected { outbound, likely } => {
                Self::AuthRejected { outbound, likely: causes(likely) }
            }
            Core::ClockSkew { seconds } => Self::ClockSkew { seconds },
            Core::ResourceLimit { what } => Self::ResourceLimit { what },
            Core::Degraded { reason } => Self::Degraded { reason },
            Core::EventsDropped { count } => Self::EventsDropped { count },
            other => Self::Unknown { code: other.code() },
        }
    }
}
