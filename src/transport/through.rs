//! A stream of another outbound as a carrier: what a connection rides on that is dialled through that outbound
//! (`proxySettings`).
//!
//! One copy each way beyond what that outbound costs. What it cannot do is told with its name, since nobody else knows
//! which of the outbounds in a row has failed.

use super::dial::DialError;
use super::queue::class_for;
use super::{Carrier, Stream, StreamError};
use crate::addr::Target;
use crate::buffer::{Buffer, Class, Pool, Turn};
use crate::engine::{OpenError, Outbound, Shard};
use crate::error::{Error, ErrorKind, Stage};
use std::future::Future;
use std::io::{self, IoSlice};
use std::net::IpAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
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
) -> Result<ThroughCarrier, DialError> {
    let started = Instant::now();
    let opening = Rc::clone(outbound).open_stream(Rc::clone(shard), server.clone());
    let hop = outbound.tag();
    match timeout_at(deadline, opening).await {
        Ok(Ok(opened)) => Ok(ThroughCarrier::new(opened.stream, shard.pool.clone(), Arc::clone(hop))),
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

/// A stream of another outbound.
pub(super) struct ThroughCarrier {
    stream: Box<dyn Stream>,
    pool: Pool,
    /// The outbound's tag.
    hop: Arc<str>,
    /// Payload that no reader has had room for.
    received: Buffer,
    ended: bool,
    /// Whether something that was taken waits for a flush.
    waits: bool,
    turn: Turn,
    started: Instant,
}

impl ThroughCarrier {
    fn new(stream: Box<dyn Stream>, pool: Pool, hop: Arc<str>) -> Self {
        Self {
            stream,
            pool,
            hop,
            received: Buffer::empty(),
            ended: false,
            waits: false,
            turn: Turn::default(),
            started: Instant::now(),
        }
    }

    /// What the layers above are told. What a peer at the far end can cause as well keeps its kind; what has kept the
    /// outbound from carrying anything is told with its name.
    fn explain(&self, error: StreamError) -> io::Error {
        let kind = match &error {
            StreamError::Setup(failed) => {
                let failed = DialError { error: named(&self.hop, failed.error.clone()), kind: failed.kind };
                return io::Error::other(failed);
            }
            StreamError::Reset => return io::ErrorKind::ConnectionReset.into(),
            StreamError::Unread => return io::ErrorKind::BrokenPipe.into(),
            StreamError::Timeout(_) => io::ErrorKind::TimedOut,
            StreamError::Io(kind) => *kind,
            StreamError::Truncated => io::ErrorKind::UnexpectedEof,
            _ => io::ErrorKind::ConnectionAborted,
        };
        if self.stream.answered() {
            return kind.into();
        }
        let failed = match error {
            StreamError::Rejected => Error::new(ErrorKind::AuthRejected, error.to_string()),
            error => DialError::new(Stage::Connect, kind, self.started, error).error,
        };
        io::Error::other(DialError { error: named(&self.hop, failed), kind })
    }

    /// Moves on what has been taken. An error is told to whoever writes or reads next.
    fn move_on(&mut self, cx: &mut Context<'_>) {
        if self.waits && self.stream.poll_flush(cx).is_ready() {
            self.waits = false;
        }
    }

    /// Sees to it that there is payload, or the end.
    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.received.is_empty() || self.ended {
            return Poll::Ready(Ok(()));
        }
        self.move_on(cx);
        match ready!(self.stream.poll_recv(cx, Class::Large.capacity())) {
            Ok(Some(buffer)) => self.received = buffer,
            Ok(None) => self.ended = true,
            Err(error) => return Poll::Ready(Err(self.explain(error))),
        }
        Poll::Ready(Ok(()))
    }
}

impl Carrier for ThroughCarrier {
    fn poll_read_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_receive(cx)
    }

    fn poll_read(&mut self, cx: &mut Context<'_>, out: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut filled = 0;
        while filled < out.len() {
            match self.poll_receive(cx) {
                Poll::Ready(Ok(())) => {}
                _ if filled > 0 => break,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return Poll::Pending,
            }
            let n = self.received.len().min(out.len() - filled);
            if n == 0 {
                break;
            }
            if let (Some(room), Some(piece)) = (out.get_mut(filled..filled + n), self.received.get(..n)) {
                room.copy_from_slice(piece);
            }
            self.received.advance(n);
            filled += n;
            if self.received.is_empty() {
                self.received = Buffer::empty();
            }
        }
        Poll::Ready(Ok(filled))
    }

    fn poll_write_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.move_on(cx);
        self.stream.poll_ready(cx).map_err(|error| self.explain(error))
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        ready!(self.poll_write_ready(cx))?;
        let all: usize = slices.iter().map(|slice| slice.len()).sum();
        if all == 0 {
            return Poll::Ready(Ok(0));
        }
        let class = class_for(all.min(self.stream.send_limit().max(1)));
        let mut buffer = match self.pool.take(class) {
            Some(buffer) => buffer,
            None => ready!(self.pool.poll_take(cx, Class::Small, &mut self.turn)),
        };
        self.turn.pass();
        let mut room = all.min(self.stream.send_limit().max(1)).min(buffer.spare());
        for slice in slices {
            let n = slice.len().min(room);
            buffer.append(slice.get(..n).unwrap_or_default());
            room -= n;
        }
        let taken = buffer.len();
        self.stream.send(buffer).map_err(|error| self.explain(error))?;
        self.waits = true;
        match self.stream.poll_flush(cx) {
            Poll::Ready(Ok(())) => self.waits = false,
            Poll::Ready(Err(error)) => return Poll::Ready(Err(self.explain(error))),
            Poll::Pending => {}
        }
        Poll::Ready(Ok(taken))
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.stream.poll_flush(cx)).map_err(|error| self.explain(error))?;
        self.waits = false;
        Poll::Ready(Ok(()))
    }

    fn poll_drained(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.stream.poll_drained(cx)
    }

    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.poll_finish(cx).map_err(|error| self.explain(error))
    }

    fn reset(&mut self) -> Pin<Box<dyn Future<Output = ()> + '_>> {
        self.stream.reset()
    }

    fn local_ip(&self) -> Option<IpAddr> {
        self.stream.local_ip()
    }

    fn abort(&mut self) {
        self.turn.pass();
        self.received = Buffer::empty();
        self.stream.abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::Plain;
    use crate::transport::testing::{Script, noop_context};
    use std::cell::RefCell;

    fn through() -> (ThroughCarrier, Rc<RefCell<Script>>, Pool) {
        let (carrier, script) = Script::carrier();
        let pool = Pool::new(1 << 20);
        let stream = Box::new(Plain::new(carrier, pool.clone()));
        (ThroughCarrier::new(stream, pool.clone(), "hop".into()), script, pool)
    }

    #[test]
    fn bytes_pass_in_any_segmentation_and_an_idle_carrier_holds_no_memory() {
        for limit in [1, 7, 5000] {
            let (mut ours, script, pool) = through();
            let sent: Vec<u8> = (0..20_000_u32).map(|i| (i % 251) as u8).collect();
            script.borrow_mut().feed(&sent);
            let (mut got, mut out) = (Vec::new(), vec![0; limit]);
            while let Poll::Ready(read) = ours.poll_read(&mut noop_context(), &mut out) {
                let n = read.expect("it reads");
                assert!(n > 0);
                got.extend_from_slice(&out[..n]);
            }
            assert!(got == sent, "{limit}");
            assert_eq!(pool.used(), 0, "nothing is held");
            let mut left = &sent[..];
            while !left.is_empty() {
                let (one, two) = left.split_at(left.len().min(limit));
                let slices = [IoSlice::new(one), IoSlice::new(two)];
                let Poll::Ready(Ok(n)) = ours.poll_write(&mut noop_context(), &slices) else {
                    panic!("it takes everything")
                };
                left = &left[n..];
            }
            assert!(ours.poll_flush(&mut noop_context()).is_ready() && script.borrow().written == sent);
            assert!(ours.poll_close(&mut noop_context()).is_ready() && script.borrow().closed);
            script.borrow_mut().end(Ok(()));
            assert!(matches!(ours.poll_read(&mut noop_context(), &mut out), Poll::Ready(Ok(0))));
        }
    }

    #[test]
    fn what_a_blocked_stream_took_leaves_on_a_later_call() {
        let (mut ours, script, _pool) = through();
        script.borrow_mut().open_writes(3);
        let taken = ours.poll_write(&mut noop_context(), &[IoSlice::new(b"payload")]);
        assert!(matches!(taken, Poll::Ready(Ok(7))));
        assert!(ours.poll_flush(&mut noop_context()).is_pending());
        script.borrow_mut().open_writes(100);
        assert!(ours.poll_read_ready(&mut noop_context()).is_pending());
        assert_eq!(script.borrow().written, b"payload");
    }

    #[test]
    fn errors_keep_their_kind() {
        for kind in [io::ErrorKind::ConnectionReset, io::ErrorKind::UnexpectedEof, io::ErrorKind::TimedOut] {
            let (mut ours, script, _pool) = through();
            script.borrow_mut().end(Err(kind));
            let Poll::Ready(Err(error)) = ours.poll_read(&mut noop_context(), &mut [0; 9]) else {
                panic!("no error")
            };
            assert_eq!(error.kind(), kind);
        }
    }
}
