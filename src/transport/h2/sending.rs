//! The direction away from us of one stream.

use super::chunk::{Chunk, Queued};
use super::failure::Failure;
use super::framing::Framing;
use h2::{Reason, SendStream};
use http::{HeaderMap, HeaderValue};
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::marker::PhantomData;
use std::task::{Context, Poll, ready};

/// The most bytes of one piece: with the head of its frame it fills a record of TLS, and begins no second one.
const PIECE: usize = (16 << 10) - 9;

/// The direction away from us of one stream.
pub(super) struct Sending<F> {
    stream: SendStream<Chunk>,
    queued: Queued,
    /// Whether we are the server.
    serves: bool,
    ended: bool,
    framing: PhantomData<F>,
}

impl<F> Sending<F> {
    /// Whether we have ended it.
    pub(super) const fn is_ended(&self) -> bool {
        self.ended
    }
}

impl<F: Framing> Sending<F> {
    /// Of a new stream.
    pub(super) const fn new(stream: SendStream<Chunk>, queued: Queued, serves: bool) -> Self {
        Self { stream, queued, serves, ended: false, framing: PhantomData }
    }

    /// Copies a prefix of `slices` to the connection's queue, as much as the peer's windows take.
    pub(super) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let wanted = slices.iter().map(|slice| slice.len()).fold(0, usize::saturating_add);
        let wanted = wanted.min(PIECE - F::PREFIX);
        if self.ended {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        if wanted == 0 {
            return Poll::Ready(Ok(0));
        }
        ready!(self.queued.poll_room(cx));
        let room = ready!(self.poll_capacity(cx, wanted + F::PREFIX)).map_err(Failure::into_io)?;
        let len = wanted.min(room.saturating_sub(F::PREFIX).max(1));
        let mut data = Vec::with_capacity(len + F::PREFIX);
        F::begin(&mut data, len);
        let mut left = len;
        for slice in slices {
            let part = slice.get(..left).unwrap_or(slice);
            data.extend_from_slice(part);
            left -= part.len();
        }
        let sent = self.stream.send_data(self.queued.chunk(data), false);
        if sent.is_err() {
            return Poll::Ready(Err(self.failure(cx).into_io()));
        }
        Poll::Ready(Ok(len))
    }

    /// Waits until the peer's windows take something, `wanted` bytes if possible.
    fn poll_capacity(&mut self, cx: &mut Context<'_>, wanted: usize) -> Poll<Result<usize, Failure>> {
        self.stream.reserve_capacity(wanted);
        loop {
            let capacity = self.stream.capacity();
            if capacity > 0 {
                return Poll::Ready(Ok(capacity));
            }
            match ready!(self.stream.poll_capacity(cx)) {
                Some(Ok(_)) => {}
                Some(Err(error)) => return Poll::Ready(Err(error.into())),
                None => return Poll::Ready(Err(self.failure(cx))),
            }
        }
    }

    /// Why nothing can be sent any more.
    fn failure(&mut self, cx: &mut Context<'_>) -> Failure {
        match self.stream.poll_reset(cx) {
            Poll::Ready(Ok(reason)) => Failure::Reset(reason),
            Poll::Ready(Err(error)) => error.into(),
            Poll::Pending => Failure::Io(io::ErrorKind::BrokenPipe),
        }
    }

    /// Waits until what was written has left.
    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.queued.poll_empty(cx).map(Ok)
    }

    /// Ends it behind what was written.
    pub(super) fn end(&mut self) -> io::Result<()> {
        if self.ended {
            return Ok(());
        }
        self.ended = true;
        let sent = if self.serves && F::TRAILERS {
            self.stream.send_trailers(HeaderMap::from_iter([(
                http::HeaderName::from_static("grpc-status"),
                HeaderValue::from_static("0"),
            )]))
        } else {
            self.stream.send_data(self.queued.chunk(Vec::new()), true)
        };
        sent.map_err(|_| io::ErrorKind::BrokenPipe.into())
    }

    /// Waits until the peer has reset the stream, or the connection has failed.
    pub(super) async fn reset(&mut self) {
        // How it failed is what reading and writing say.
        let _ = poll_fn(|cx| self.stream.poll_reset(cx)).await;
    }

    /// Resets the stream.
    pub(super) fn abort(&mut self) {
        self.stream.send_reset(Reason::CANCEL);
    }
}
