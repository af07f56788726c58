//! A stream that an outbound has opened, as a carrier for what rides on it. One copy each way beyond what that outbound
//! costs.

use super::carrier::forward_carrier;
use super::dial::DialError;
use super::queue::class_for;
use super::tls::TlsClient;
use super::{Carrier, Stream, StreamError};
use crate::addr::Host;
use crate::buffer::{Buffer, Class, Pool, Turn};
use crate::config::Tls;
use crate::engine::Shard;
use crate::error::Error;
use std::io::{self, IoSlice};
use std::task::{Context, Poll, ready};
use tokio::time::Instant;

/// Who knows what a failure of the stream means to those above.
pub(crate) trait Explain {
    /// Words an error as a carrier does. `answered`: whether the outbound's server has proved that it understands us.
    fn explain(&self, error: StreamError, _answered: bool) -> io::Error {
        io::Error::new(error.kind(), error)
    }

    /// Hears that something has come, or that the stream has failed.
    fn heard(&self, _answered: bool, _failure: Option<&StreamError>) {}
}

/// A stream as a carrier.
pub(crate) struct Nested<E> {
    stream: Box<dyn Stream>,
    pool: Pool,
    explain: E,
    /// What was received and not read yet.
    received: Buffer,
    ended: bool,
    /// Whether something that was taken waits for a flush.
    waits: bool,
    turn: Turn,
}

impl<E: Explain> Nested<E> {
    /// Wraps a stream whose payload lives in buffers of `pool`.
    pub(crate) fn new(stream: Box<dyn Stream>, pool: Pool, explain: E) -> Self {
        let (received, turn) = (Buffer::empty(), Turn::default());
        Self { stream, pool, explain, received, ended: false, waits: false, turn }
    }

    fn explain(&self, error: StreamError) -> io::Error {
        let answered = self.stream.answered();
        self.explain.heard(answered, Some(&error));
        self.explain.explain(error, answered)
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
        let received = ready!(self.stream.poll_recv(cx, Class::Large.capacity()));
        self.explain.heard(self.stream.answered(), None);
        match received {
            Ok(Some(buffer)) => self.received = buffer,
            Ok(None) => self.ended = true,
            Err(error) => return Poll::Ready(Err(self.explain(error))),
        }
        Poll::Ready(Ok(()))
    }
}

impl<E: Explain> Carrier for Nested<E> {
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

    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.poll_finish(cx).map_err(|error| self.explain(error))
    }

    fn abort(&mut self) {
        self.turn.pass();
        self.received = Buffer::empty();
        self.stream.abort();
    }

    forward_carrier!(self, self.stream; poll_drained reset local_ip);
}

/// TLS with whoever is behind a nested stream.
pub(crate) struct NestedTls(TlsClient);

impl NestedTls {
    /// Prepares the connections to `host`, for HTTP/1.1; reads files.
    ///
    /// # Errors
    /// `ConfigInvalid`.
    pub(crate) fn new(tls: &Tls, host: &Host) -> Result<Self, Error> {
        TlsClient::new(tls, host, &["http/1.1"]).map(Self)
    }

    /// Makes the handshake.
    ///
    /// # Errors
    /// `TlsFailed`, or `ServerUnreachable` at the stage `tls`.
    pub(crate) async fn connect<E: Explain + 'static>(
        &self,
        shard: &Shard,
        below: Nested<E>,
        deadline: Instant,
    ) -> Result<Box<dyn Carrier>, DialError> {
        let (carrier, _) = self.0.connect(shard, below, deadline).await?;
        Ok(Box::new(carrier))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::Plain;
    use crate::transport::testing::{Script, noop_context};
    use std::cell::RefCell;
    use std::rc::Rc;

    /// Words errors as they come.
    struct Plainly;

    impl Explain for Plainly {}

    fn nested() -> (Nested<Plainly>, Rc<RefCell<Script>>, Pool) {
        let (carrier, script) = Script::carrier();
        let pool = Pool::new(1 << 20);
        let stream = Box::new(Plain::new(carrier, pool.clone()));
        (Nested::new(stream, pool.clone(), Plainly), script, pool)
    }

    #[test]
    fn bytes_pass_in_any_segmentation_and_an_idle_carrier_holds_no_memory() {
        for limit in [1, 7, 5000] {
            let (mut ours, script, pool) = nested();
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
        let (mut ours, script, _pool) = nested();
        script.borrow_mut().open_writes(3);
        let taken = ours.poll_write(&mut noop_context(), &[IoSlice::new(b"payload")]);
        assert!(matches!(taken, Poll::Ready(Ok(7))));
        assert!(ours.poll_flush(&mut noop_context()).is_pending());
        script.borrow_mut().open_writes(100);
        assert!(ours.poll_read_ready(&mut noop_context()).is_pending());
        assert_eq!(script.borrow().written, b"payload");
    }
}
