//! The state of a tunnel.

use crate::error::TunnelError;

/// The state of a tunnel.
#[derive(Debug, Clone, PartialEq, Eq, uniffi::Enum)]
pub enum State {
    /// Made, not started.
    Idle,
    /// `start` is under way.
    Starting,
    /// Started; no server has answered yet.
    Connecting,
    /// A server has answered, or there is none to dial.
    Connected,
    /// There is no network.
    NoNetwork,
    /// Running, with a fault that may pass.
    Degraded {
        /// What is wrong.
        reason: String,
    },
    /// `stop` is under way.
    Stopping,
    /// Over, for good.
    Stopped {
        /// Why, if it was not asked for.
        error: Option<TunnelError>,
    },
}

impl From<vmesskit::State> for State {
    fn from(state: vmesskit::State) -> Self {
        match state {
            vmesskit::State::Idle => Self::Idle,
            vmesskit::State::Starting => Self::Starting,
            vmesskit::State::Connecting => Self::Connecting,
            vmesskit::State::Connected => Self::Connected,
            vmesskit::State::NoNetwork => Self::NoNetwork,
            vmesskit::State::Degraded { reason } => Self::Degraded { reason },
            vmesskit::State::Stopping => Self::Stopping,
            vmesskit::State::Stopped { error } => Self::Stopped { error: error.map(TunnelError::from) },
        }
    }
}

/// The state, since when, and the newest error.
#[derive(Debug, Clone, PartialEq, Eq, uniffi::Record)]
pub struct Status {
    /// The state.
    pub state: State,
    /// For how many milliseconds it has been so.
    pub since_millis: u64,
    /// The newest error, if there was one.
    pub last_error: Option<TunnelError>,
}

impl From<vmesskit::Status> for Status {
    fn from(status: vmesskit::Status) -> Self {
        Self {
            state: status.state.into(),
            since_millis: u64::try_from(status.since.as_millis()).unwrap_or(u64::MAX),
            last_error: status.last_error.map(TunnelError::from),
        }
    }
}
