//! Why a stream over HTTP/2 failed, as a value and as the carriers' error.

use crate::error::Stage;
use crate::transport::dial::DialError;
use h2::Reason;
use std::io;
use tokio::time::Instant;

/// The most of a peer's text that is shown.
const SHOWN: usize = 200;

/// Why a stream failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum Failure {
    /// The answer is not a success.
    #[error("the answer was HTTP status {0}")]
    Status(u16),
    /// The answer is no gRPC, but a page or something else.
    #[error("the answer was no gRPC but {0}")]
    NotGrpc(String),
    /// The call ended with a status of gRPC that is not OK.
    #[error("the answer was gRPC status {0} ({1})")]
    Grpc(u32, String),
    /// The peer reset the stream.
    #[error("the stream was reset: {}", .0.description())]
    Reset(Reason),
    /// The peer gave up the connection, or refused to open another stream on it.
    #[error("the connection was given up: {}", .0.description())]
    GoAway(Reason),
    /// The peer broke HTTP/2 or what rides on it.
    #[error("protocol violation: {0}")]
    Protocol(String),
    /// The stream ended inside a message.
    #[error("the stream was cut off inside a message")]
    Truncated,
    /// The peer said nothing in time.
    #[error("no answer")]
    Silent,
    /// The connection below failed.
    #[error("the connection failed: {0}")]
    Io(io::ErrorKind),
}

impl Failure {
    /// What it is nearest to among the operating system's errors.
    pub(crate) const fn kind(&self) -> io::ErrorKind {
        match self {
            Self::Status(_) | Self::NotGrpc(_) | Self::Grpc(..) => io::ErrorKind::ConnectionRefused,
            Self::Reset(_) => io::ErrorKind::ConnectionReset,
            Self::GoAway(_) => io::ErrorKind::ConnectionAborted,
            Self::Protocol(_) => io::ErrorKind::InvalidData,
            Self::Truncated => io::ErrorKind::UnexpectedEof,
            Self::Silent => io::ErrorKind::TimedOut,
            Self::Io(kind) => *kind,
        }
    }

    /// The failure of a set-up that began at `started`.
    pub(crate) fn into_dial(self, started: Instant) -> DialError {
        DialError::new(Stage::Upgrade, self.kind(), started, &self)
    }

    /// The error of a carrier that had been open.
    pub(super) fn into_io(self) -> io::Error {
        io::Error::new(self.kind(), self)
    }

    /// A text of the peer's, fit to be shown.
    pub(crate) fn shown(text: &[u8]) -> String {
        let text = text.get(..SHOWN).unwrap_or(text);
        String::from_utf8_lossy(text).chars().filter(|c| !c.is_control()).collect()
    }
}

impl From<h2::Error> for Failure {
    fn from(error: h2::Error) -> Self {
        use io::ErrorKind::{BrokenPipe, Other, UnexpectedEof, WriteZero};
        if let Some(io) = error.get_io() {
            return Self::Io(match io.kind() {
                // The library's words for a connection that has ended under its streams.
                BrokenPipe | Other | WriteZero => UnexpectedEof,
                kind => kind,
            });
        }
        match error.reason() {
            Some(reason) if error.is_library() => Self::Protocol(reason.description().to_owned()),
            Some(reason) if error.is_go_away() => Self::GoAway(reason),
            Some(reason) => Self::Reset(reason),
            None => Self::Protocol(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_peers_are_cut_and_bare() {
        assert_eq!(Failure::shown(b"not\r\nfound\x1b"), "notfound");
        assert_eq!(Failure::shown(&[b'x'; 500]).len(), SHOWN);
    }

    #[test]
    fn a_set_up_names_its_stage_and_the_answer() {
        let failed = Failure::Status(404).into_dial(Instant::now());
        assert_eq!(failed.error.kind, crate::error::ErrorKind::ServerUnreachable { stage: Stage::Upgrade });
        assert!(failed.error.reason.contains("404"), "{failed}");
    }
}
