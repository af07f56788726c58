//! A stream of another outbound as a carrier: what a connection rides on that is dialled through that outbound
//! (`proxySettings`).
//!
//! What that outbound cannot do is told with its name, since nobody else knows which of the outbounds in a row has failed.

use super::StreamError;
use super::dial::DialError;
use super::nested::{Explain, Nested};
use crate::addr::Target;
use crate::engine::{OpenError, Outbound, Shard};
use crate::error::{Error, ErrorKind, Stage};
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use tokio::time::{Instant, timeout_at};

/// Opens a stream to `server` by `outbound`.
///
/// # Errors
/// [`DialError`] that names the outbound, or one behind it, as what has failed.
pub(super) async fn connect(
    shard: &Rc<Shard>,
    outbound: &Rc<dyn Outbound>,
    server: &Target,
    deadline: Instant,
) -> Result<Nested<Hop>, DialError> {
    let started = Instant::now();
    let opening = Rc::clone(outbound).open_stream(Rc::clone(shard), server.clone());
    let hop = outbound.tag();
    match timeout_at(deadline, opening).await {
        Ok(Ok(opened)) => Ok(Nested::new(opened.stream, shard.pool.clone(), Hop::new(hop))),
        Ok(Err(OpenError { error, .. })) => Err(DialError::refused(named(hop, error))),
        Err(_) => {
            let late = DialError::new(Stage::Connect, io::ErrorKind::TimedOut, started, "no answer");
            Err(DialError { error: named(hop, late.error), ..late })
        }
    }
}

/// A failure of an outbound that another one is dialled through.
fn named(hop: &str, error: Error) -> Error {
    Error { text: format!("by way of [{hop}]: {}", error.text).into(), ..error }
}

/// The outbound that a connection rides on.
pub(super) struct Hop {
    tag: Arc<str>,
    started: Instant,
}

impl Hop {
    fn new(tag: &Arc<str>) -> Self {
        Self { tag: Arc::clone(tag), started: Instant::now() }
    }
}

impl Explain for Hop {
    /// What the layers above are told. What a peer at the far end can cause as well keeps its kind; what has kept the
    /// outbound from carrying anything is told with its name.
    fn explain(&self, error: StreamError, answered: bool) -> io::Error {
        if let StreamError::Setup(failed) = &error {
            let failed = DialError { error: named(&self.tag, failed.error.clone()), kind: failed.kind };
            return io::Error::other(failed);
        }
        let kind = error.kind();
        if answered || matches!(error, StreamError::Reset | StreamError::Unread) {
            return kind.into();
        }
        let failed = match error {
            StreamError::Rejected => Error::new(ErrorKind::AuthRejected, error.to_string()),
            error => DialError::new(Stage::Connect, kind, self.started, error).error,
        };
        io::Error::other(DialError { error: named(&self.tag, failed), kind })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_keep_their_kind_and_those_of_the_outbound_name_it() {
        use io::ErrorKind::{BrokenPipe, ConnectionReset, InvalidData, TimedOut, UnexpectedEof};
        let hop = Hop::new(&"hop".into());
        for (error, kind) in [
            (StreamError::Reset, ConnectionReset),
            (StreamError::Unread, BrokenPipe),
            (StreamError::Timeout("anything"), TimedOut),
            (StreamError::Truncated, UnexpectedEof),
            (StreamError::Forged, InvalidData),
        ] {
            assert_eq!(hop.explain(error, true).kind(), kind);
        }
        let rejected = StreamError::from(hop.explain(StreamError::Rejected, false));
        let StreamError::Setup(failed) = rejected else { panic!("{rejected}") };
        assert!(failed.error.text.starts_with("by way of [hop]: "), "{}", failed.error.text);
        assert!(matches!(failed.error.kind, ErrorKind::AuthRejected), "{:?}", failed.error.kind);
    }
}
