//! A stream whose first payload has been read already.

use crate::buffer::Buffer;
use crate::transport::{Stream, StreamError};
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

/// A SOCKS client's stream with what the client sent right behind its request.
pub(super) struct Early<S> {
    early: Buffer,
    stream: S,
}

impl<S> Early<S> {
    /// Puts `early` before what `stream` receives.
    pub(super) const fn new(early: Buffer, stream: S) -> Self {
        Self { early, stream }
    }
}

impl<S: Stream> Stream for Early<S> {
    fn poll_recv(&mut self, cx: &mut Context<'_>, max: usize) -> Poll<Result<Option<Buffer>, StreamError>> {
        if self.early.is_empty() {
            return self.stream.poll_recv(cx, max);
        }
        let n = self.early.len().min(max.max(1));
        if n == self.early.len() {
            return Poll::Ready(Ok(Some(std::mem::take(&mut self.early))));
        }
        let piece = self.early.slice(0..n);
        self.early.advance(n);
        Poll::Ready(Ok(Some(piece)))
    }

    fn reset(&mut self) -> Pin<Box<dyn Future<Output = ()> + '_>> {
        self.stream.reset()
    }

    fn pass_turn(&mut self) {
        self.stream.pass_turn();
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamError>> {
        self.stream.poll_ready(cx)
    }

    fn send(&mut self, data: Buffer) -> Result<(), StreamError> {
        self.stream.send(data)
    }

    fn send_limit(&self) -> usize {
        self.stream.send_limit()
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamError>> {
        self.stream.poll_flush(cx)
    }

    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamError>> {
        self.stream.poll_finish(cx)
    }

    fn poll_drained(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.stream.poll_drained(cx)
    }

    fn abort(&mut self) {
        self.early = Buffer::empty();
        self.stream.abort();
    }
}
