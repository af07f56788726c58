//! The `blackhole` outbound: flows end here. A stream may be told so in HTTP; datagrams vanish.

use super::super::shard::Shard;
use super::{LocalFuture, OpenError, OpenedStream, Outbound};
use crate::addr::Target;
use crate::buffer::{Buffer, Class, Pool, Turn};
use crate::config::Level;
use crate::time::Moment;
use crate::transport::{Datagram, Datagrams, Stream, StreamError};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::{Sleep, sleep};

/// How long a stream stays open before it is closed without a word: apps that retry at once are slowed down.
const PATIENCE: Duration = Duration::from_secs(1);
/// The answer to whatever an HTTP client asks.
const FORBIDDEN: &[u8] = b"HTTP/1.1 403 Forbidden\r\nConnection: close\r\nCache-Control: no-store\r\n\
    Content-Length: 0\r\n\r\n";

/// A blackhole outbound.
pub(super) struct Blackhole {
    tag: Arc<str>,
    http: bool,
}

impl Blackhole {
    /// Makes the outbound; with `http`, streams are answered with a 403 page.
    pub(super) const fn new(tag: Arc<str>, http: bool) -> Self {
        Self { tag, http }
    }
}

impl Outbound for Blackhole {
    fn tag(&self) -> &Arc<str> {
        &self.tag
    }

    fn connects_target(&self) -> bool {
        false
    }

    fn admits(&self, _now: Moment) -> bool {
        true
    }

    fn open_stream(
        self: Rc<Self>,
        shard: Rc<Shard>,
        _: Target,
    ) -> LocalFuture<Result<OpenedStream, OpenError>> {
        let answer = if self.http { Answer::AfterRequest(shard.pool.clone()) } else { Answer::None };
        let stream =
            Hole { answer, asked: false, turn: Turn::default(), patience: Box::pin(sleep(PATIENCE)) };
        // Nothing is worth waiting for once our side has ended.
        let level = Level { uplink_only: Duration::ZERO, ..Level::default() };
        Box::pin(async move { Ok(OpenedStream { stream: Box::new(stream), level }) })
    }

    fn open_datagrams(
        self: Rc<Self>,
        shard: Rc<Shard>,
        _: Target,
    ) -> LocalFuture<Result<Box<dyn Datagrams>, OpenError>> {
        Box::pin(async move { Ok(Box::new(Void(shard)) as Box<dyn Datagrams>) })
    }
}

/// What a stream is told before it is closed.
enum Answer {
    /// Nothing.
    None,
    /// The page, in memory from the pool, once anything has been sent: it is the answer to a request.
    AfterRequest(Pool),
    /// It has been told.
    Given,
}

/// A stream that swallows what it is sent, and ends.
struct Hole {
    answer: Answer,
    asked: bool,
    turn: Turn,
    patience: Pin<Box<Sleep>>,
}

impl Stream for Hole {
    fn poll_recv(&mut self, cx: &mut Context<'_>, _max: usize) -> Poll<Result<Option<Buffer>, StreamError>> {
        match &self.answer {
            Answer::Given => Poll::Ready(Ok(None)),
            Answer::AfterRequest(pool) if self.asked => {
                let mut page = ready!(pool.poll_take(cx, Class::Small, &mut self.turn));
                page.append(FORBIDDEN);
                self.answer = Answer::Given;
                Poll::Ready(Ok(Some(page)))
            }
            Answer::None | Answer::AfterRequest(_) => {
                ready!(self.patience.as_mut().poll(cx));
                self.answer = Answer::Given;
                Poll::Ready(Ok(None))
            }
        }
    }

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), StreamError>> {
        Poll::Ready(Ok(()))
    }

    fn send(&mut self, _data: Buffer) -> Result<(), StreamError> {
        self.asked = true;
        Ok(())
    }

    fn send_limit(&self) -> usize {
        Class::Small.capacity()
    }

    fn poll_flush(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), StreamError>> {
        Poll::Ready(Ok(()))
    }

    fn poll_finish(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), StreamError>> {
        Poll::Ready(Ok(()))
    }

    fn abort(&mut self) {}
}

/// A flow of datagrams that go nowhere.
struct Void(Rc<Shard>);

impl Datagrams for Void {
    fn poll_recv(&mut self, _cx: &mut Context<'_>) -> Poll<Result<Option<Datagram>, StreamError>> {
        Poll::Pending
    }

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), StreamError>> {
        Poll::Ready(Ok(()))
    }

    fn send(&mut self, _datagram: Datagram) -> Result<(), StreamError> {
        self.0.shared.stats.dropped.fetch_add(1, Relaxed);
        Ok(())
    }

    fn poll_flush(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), StreamError>> {
        Poll::Ready(Ok(()))
    }
}
