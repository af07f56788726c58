//! A flow that an outbound has opened, as a carrier for what rides on it.

use super::dial::DialError;
use super::tls::TlsClient;
use super::{Carrier, Stream, StreamError};
use crate::addr::Host;
use crate::buffer::{Buffer, Class, Pool, Turn};
use crate::config::Tls;
use crate::engine::Shard;
use crate::error::Error;
use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io::{self, IoSlice};
use std::net::IpAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use tokio::time::Instant;

/// A stream as a carrier.
pub(crate) struct Nested {
    stream: Box<dyn Stream>,
    pool: Pool,
    turn: Turn,
    /// What was received and not read yet.
    received: Buffer,
    ended: bool,
    seen: Rc<Seen>,
}

/// What became of a nested stream, for whoever has given the carrier away.
#[derive(Default)]
pub(crate) struct Seen {
    /// Whether the other end has proved that it understands us.
    pub(crate) answered: Cell<bool>,
    /// Why the stream failed.
    pub(crate) failure: RefCell<Option<StreamError>>,
}

impl Nested {
    /// Wraps a stream whose payload lives in buffers of `pool`.
    pub(crate) fn new(stream: Box<dyn Stream>, pool: Pool) -> (Self, Rc<Seen>) {
        let seen = Rc::<Seen>::default();
        let (turn, received) = (Turn::default(), Buffer::empty());
        (Self { stream, pool, turn, received, ended: false, seen: Rc::clone(&seen) }, seen)
    }

    /// Notes an error, and words it as a carrier does.
    fn note(&self, error: StreamError) -> io::Error {
        let kind = match error {
            StreamError::Reset => io::ErrorKind::ConnectionReset,
            StreamError::Unread => io::ErrorKind::BrokenPipe,
            StreamError::Rejected | StreamError::Truncated => io::ErrorKind::UnexpectedEof,
            StreamError::Timeout(_) => io::ErrorKind::TimedOut,
            StreamError::Forged | StreamError::Protocol(_) => io::ErrorKind::InvalidData,
            StreamError::Io(kind) => kind,
            StreamError::Closed | StreamError::Setup(_) => io::ErrorKind::ConnectionAborted,
        };
        self.seen.failure.borrow_mut().get_or_insert_with(|| error.clone());
        io::Error::new(kind, error)
    }
}

impl Carrier for Nested {
    fn poll_read_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.received.is_empty() || self.ended {
            return Poll::Ready(Ok(()));
        }
        // What is received tells better how it stands than what could not be sent.
        let _ = self.stream.poll_flush(cx);
        let received = self.stream.poll_recv(cx, Class::Small.capacity());
        self.seen.answered.set(self.stream.answered());
        match ready!(received) {
            Ok(Some(buffer)) => self.received = buffer,
            Ok(None) => self.ended = true,
            Err(error) => return Poll::Ready(Err(self.note(error))),
        }
        Poll::Ready(Ok(()))
    }

    fn poll_read(&mut self, cx: &mut Context<'_>, out: &mut [u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_read_ready(cx))?;
        let n = self.received.len().min(out.len());
        if let (Some(out), Some(data)) = (out.get_mut(..n), self.received.get(..n)) {
            out.copy_from_slice(data);
        }
        self.received.advance(n);
        if self.received.is_empty() {
            self.received = Buffer::empty();
        }
        Poll::Ready(Ok(n))
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        if let Err(error) = ready!(self.stream.poll_ready(cx)) {
            return Poll::Ready(Err(self.note(error)));
        }
        let all: usize = slices.iter().map(|slice| slice.len()).sum();
        let class = Class::for_len(all).min(Class::Record);
        let mut buffer = ready!(self.pool.poll_take(cx, class, &mut self.turn));
        let limit = self.stream.send_limit().max(1);
        for slice in slices {
            let room = limit.saturating_sub(buffer.len());
            buffer.append(slice.get(..room).unwrap_or(slice));
        }
        let n = buffer.len();
        if let Err(error) = self.stream.send(buffer) {
            return Poll::Ready(Err(self.note(error)));
        }
        // What does not go now goes with a later call.
        let _ = self.stream.poll_flush(cx);
        Poll::Ready(Ok(n))
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = ready!(self.stream.poll_flush(cx));
        Poll::Ready(flushed.map_err(|error| self.note(error)))
    }

    fn poll_drained(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.stream.poll_drained(cx)
    }

    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let finished = ready!(self.stream.poll_finish(cx));
        Poll::Ready(finished.map_err(|error| self.note(error)))
    }

    fn reset(&mut self) -> Pin<Box<dyn Future<Output = ()> + '_>> {
        self.stream.reset()
    }

    fn local_ip(&self) -> Option<IpAddr> {
        self.stream.local_ip()
    }

    fn abort(&mut self) {
        self.stream.abort();
    }
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
    pub(crate) async fn connect(
        &self,
        shard: &Shard,
        below: Nested,
        deadline: Instant,
    ) -> Result<Box<dyn Carrier>, DialError> {
        let (carrier, _) = self.0.connect(shard, below, deadline).await?;
        Ok(Box::new(carrier))
    }
}
