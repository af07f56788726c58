//! One UDP flow of an outbound, with what waits for it while it is being opened or its carrier is blocked.

use crate::config::LogLevel;
use crate::engine::Shard;
use crate::engine::connections::Connection;
use crate::engine::dispatch::{self, Flow};
use crate::engine::outbound::{Answer, LocalFuture, OpenError, Outbound};
use crate::time::Moment;
use crate::transport::{Datagram, Datagrams};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll};
use std::time::Duration;

/// How many datagrams wait for a carrier, and how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Patience {
    /// The most that wait.
    pub(super) number: usize,
    /// How long one waits before a newer one may push it out.
    pub(super) age: Duration,
}

impl Patience {
    /// What an app's datagrams are given.
    pub(super) const FLOW: Self = Self { number: 64, age: Duration::from_millis(500) };
}

/// Datagrams that wait, oldest first. Both bounds are applied when one is added, so the newest always stays.
#[derive(Debug)]
pub(super) struct Queue<T> {
    entries: VecDeque<(Moment, T)>,
    patience: Patience,
}

impl<T> Queue<T> {
    /// An empty queue.
    pub(super) const fn new(patience: Patience) -> Self {
        Self { entries: VecDeque::new(), patience }
    }

    /// Adds one, and returns how many older ones were dropped for it.
    pub(super) fn push(&mut self, now: Moment, item: T) -> u64 {
        let before = self.entries.len();
        while self.entries.len() >= self.patience.number
            || self.entries.front().is_some_and(|(at, _)| now.since(*at) > self.patience.age)
        {
            self.entries.pop_front();
        }
        let dropped = before - self.entries.len();
        self.entries.push_back((now, item));
        dropped as u64
    }

    /// Takes the oldest.
    pub(super) fn pop(&mut self) -> Option<T> {
        let item = self.entries.pop_front().map(|(_, item)| item);
        if self.entries.is_empty() && self.entries.capacity() > 8 {
            self.entries = VecDeque::new();
        }
        item
    }
}

/// What a pipe has to say.
pub(super) enum Heard {
    /// A datagram from the network.
    Datagram(Datagram),
    /// It is over: it could not be opened, or it has ended.
    Closed(Option<Answer>),
}

/// One UDP flow of an outbound.
pub(super) struct Pipe {
    shard: Rc<Shard>,
    connection: Rc<Connection>,
    waiting: Queue<Datagram>,
    link: Link,
    /// Something was handed over that may still be in the flow's own queue.
    unflushed: bool,
}

enum Link {
    Opening(LocalFuture<Result<Box<dyn Datagrams>, OpenError>>),
    Open(Box<dyn Datagrams>),
    Closed,
}

impl Pipe {
    /// Begins to open the flow, whose first datagram is `first`, and lists it as a connection.
    pub(super) fn open(
        shard: &Rc<Shard>,
        flow: &Flow,
        outbound: Rc<dyn Outbound>,
        first: Datagram,
        patience: Patience,
    ) -> Self {
        let connection = dispatch::register(shard, flow, &*outbound);
        let opening = outbound.open_datagrams(Rc::clone(shard), flow.target.clone());
        let mut waiting = Queue::new(patience);
        waiting.push(shard.clock.now(), first);
        let link = Link::Opening(opening);
        Self { shard: Rc::clone(shard), connection, waiting, link, unflushed: false }
    }

    /// Adds a datagram to be sent at the next poll.
    pub(super) fn push(&mut self, datagram: Datagram) {
        let dropped = self.waiting.push(self.shard.clock.now(), datagram);
        self.shard.shared.stats.dropped.fetch_add(dropped, Relaxed);
    }

    /// Moves what waits to the network and takes one datagram from it. Nothing comes after [`Heard::Closed`].
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Heard> {
        if self.connection.poll_closed(cx).is_ready() {
            self.link = Link::Closed;
        }
        loop {
            let datagrams = match &mut self.link {
                Link::Closed => return Poll::Ready(Heard::Closed(None)),
                Link::Opening(opening) => {
                    match std::task::ready!(opening.as_mut().poll(cx)) {
                        Ok(datagrams) => self.link = Link::Open(datagrams),
                        Err(error) => {
                            let text = &error.error;
                            self.shard.shared.log(LogLevel::Debug, format_args!("a UDP flow failed: {text}"));
                            self.link = Link::Closed;
                            return Poll::Ready(Heard::Closed(Some(error.answer)));
                        }
                    }
                    continue;
                }
                Link::Open(datagrams) => datagrams,
            };
            let sent = send_waiting(datagrams.as_mut(), cx, &mut self.waiting, &mut self.unflushed);
            let Ok(bytes) = sent else {
                self.link = Link::Closed;
                continue;
            };
            self.connection.count(bytes, 0);
            return match std::task::ready!(datagrams.poll_recv(cx)) {
                Ok(Some(datagram)) => {
                    self.connection.count(0, datagram.data.len());
                    Poll::Ready(Heard::Datagram(datagram))
                }
                Ok(None) | Err(_) => {
                    self.link = Link::Closed;
                    Poll::Ready(Heard::Closed(None))
                }
            };
        }
    }
}

/// Hands over what waits while the carrier takes it, and flushes. Returns the bytes of payload that were handed over.
fn send_waiting(
    datagrams: &mut dyn Datagrams,
    cx: &mut Context<'_>,
    waiting: &mut Queue<Datagram>,
    unflushed: &mut bool,
) -> Result<usize, ()> {
    let mut bytes = 0;
    while !waiting.entries.is_empty() {
        match datagrams.poll_ready(cx) {
            Poll::Pending => break,
            Poll::Ready(Err(_)) => return Err(()),
            Poll::Ready(Ok(())) => {}
        }
        if let Some(datagram) = waiting.pop() {
            bytes += datagram.data.len();
            datagrams.send(datagram).map_err(drop)?;
            *unflushed = true;
        }
    }
    if *unflushed {
        match datagrams.poll_flush(cx) {
            Poll::Pending => {}
            Poll::Ready(Err(_)) => return Err(()),
            Poll::Ready(Ok(())) => *unflushed = false,
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_queue_is_bounded_in_number_and_in_age() {
        let mut queue = Queue::new(Patience::FLOW);
        for n in 0..100u64 {
            queue.push(Moment::ZERO, n);
        }
        assert_eq!((queue.entries.len(), queue.pop()), (64, Some(36)));
        assert_eq!(queue.push(Moment::from_millis(501), 100), 63, "the rest is too old");
        assert_eq!((queue.pop(), queue.pop()), (Some(100), None));
        queue.push(Moment::ZERO, 1);
        assert_eq!(queue.push(Moment::from_millis(500), 2), 0);
        assert_eq!(queue.pop(), Some(1));
    }
}
