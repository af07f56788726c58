//! A client whose upgrade waits for the first bytes, and takes as many of them along as may travel in it.

use super::super::Carrier;
use super::super::behind::Behind;
use super::super::dial::DialError;
use super::super::upgrade::{Upgrade, UpgradeError};
use super::carrier::WsCarrier;
use super::handshake::Handshake;
use crate::engine::Shard;
use std::future::Future;
use std::io::{self, IoSlice};
use std::net::IpAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;
use tokio::time::{Instant, Sleep, sleep};

/// A WebSocket whose upgrade begins with the first write.
pub(super) struct Delayed<C>(State<C>);

enum State<C> {
    /// Nothing has been written.
    Waiting(Box<Waiting<C>>),
    /// The upgrade, with the first bytes in it, is under way.
    Upgrading(Box<Upgrading<C>>),
    /// It is over.
    Open(WsCarrier<C>),
    /// It failed.
    Failed(DialError),
}

struct Waiting<C> {
    carrier: Behind<C>,
    handshake: Handshake,
    shard: Rc<Shard>,
    /// How long the upgrade may take.
    budget: Duration,
    /// Who waits for something to read.
    reader: Option<Waker>,
}

struct Upgrading<C> {
    carrier: Behind<C>,
    handshake: Handshake,
    shard: Rc<Shard>,
    upgrade: Upgrade,
    started: Instant,
    timer: Pin<Box<Sleep>>,
}

impl<C: Carrier> Delayed<C> {
    /// On a connected carrier; the upgrade will have as long as is left until `deadline` now.
    pub(super) fn new(carrier: Behind<C>, handshake: Handshake, shard: Rc<Shard>, deadline: Instant) -> Self {
        let budget = deadline.saturating_duration_since(Instant::now());
        Self(State::Waiting(Box::new(Waiting { carrier, handshake, shard, budget, reader: None })))
    }

    /// Begins the upgrade with the first of the bytes in it; returns how many.
    fn begin(&mut self, slices: &[IoSlice<'_>]) -> usize {
        self.0 = match std::mem::replace(&mut self.0, State::Failed(gone())) {
            State::Waiting(waiting) => {
                let Waiting { carrier, handshake, shard, budget, reader } = *waiting;
                let bytes = slices.iter().flat_map(|slice| slice.iter().copied());
                let early: Vec<u8> = bytes.take(handshake.max_early_data()).collect();
                let upgrade = Upgrade::new(handshake.request(&early));
                let timer = Box::pin(sleep(budget));
                let started = Instant::now();
                if let Some(reader) = reader {
                    reader.wake();
                }
                self.0 = State::Upgrading(Box::new(Upgrading {
                    carrier,
                    handshake,
                    shard,
                    upgrade,
                    started,
                    timer,
                }));
                return early.len();
            }
            other => other,
        };
        0
    }

    /// Waits for the end of the upgrade, if it has begun. `None`: it has not.
    fn poll_open(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<&mut WsCarrier<C>>>> {
        if let State::Upgrading(upgrading) = &mut self.0 {
            let result = ready!(upgrading.poll(cx));
            let started = upgrading.started;
            self.0 = match (result, std::mem::replace(&mut self.0, State::Failed(gone()))) {
                (Ok(()), State::Upgrading(upgrading)) => {
                    let Upgrading { carrier, handshake, shard, .. } = *upgrading;
                    State::Open(WsCarrier::client(carrier, shard, handshake.heartbeat()))
                }
                (Err(error), _) => State::Failed(error.into_dial(started)),
                (Ok(()), other) => other,
            };
        }
        Poll::Ready(match &mut self.0 {
            State::Open(carrier) => Ok(Some(carrier)),
            State::Failed(error) => Err(io::Error::other(error.clone())),
            State::Waiting(_) | State::Upgrading(_) => Ok(None),
        })
    }

    /// The same for one who wants to read, and is woken when the upgrade begins.
    fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<&mut WsCarrier<C>>> {
        if let State::Waiting(waiting) = &mut self.0 {
            waiting.reader = Some(cx.waker().clone());
        }
        match ready!(self.poll_open(cx))? {
            Some(carrier) => Poll::Ready(Ok(carrier)),
            None => Poll::Pending,
        }
    }

    /// The carrier below.
    fn below(&mut self) -> Option<&mut dyn Carrier> {
        match &mut self.0 {
            State::Waiting(waiting) => Some(&mut waiting.carrier),
            State::Upgrading(upgrading) => Some(&mut upgrading.carrier),
            State::Open(carrier) => Some(carrier),
            State::Failed(_) => None,
        }
    }
}

/// What is never seen: the state between two others.
fn gone() -> DialError {
    UpgradeError::Closed.into_dial(Instant::now())
}

impl<C: Carrier> Upgrading<C> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), UpgradeError>> {
        match self.upgrade.poll(cx, &mut self.carrier) {
            Poll::Ready(answer) => Poll::Ready(answer.and_then(|answer| self.handshake.check(&answer))),
            Poll::Pending => self.timer.as_mut().poll(cx).map(|()| Err(UpgradeError::Silent)),
        }
    }
}

impl<C: Carrier> Carrier for Delayed<C> {
    fn poll_read_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_readable(cx))?.poll_read_ready(cx)
    }

    fn poll_read(&mut self, cx: &mut Context<'_>, out: &mut [u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_readable(cx))?.poll_read(cx, out)
    }

    fn poll_write_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match ready!(self.poll_open(cx))? {
            Some(carrier) => carrier.poll_write_ready(cx),
            None => self.below().map_or(Poll::Ready(Ok(())), |below| below.poll_write_ready(cx)),
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        match ready!(self.poll_open(cx))? {
            Some(carrier) => carrier.poll_write(cx, slices),
            None => {
                let taken = self.begin(slices);
                // As far as it goes at once; it is driven by every later call.
                if let Poll::Ready(Err(error)) = self.poll_open(cx) {
                    return Poll::Ready(Err(error));
                }
                Poll::Ready(Ok(taken))
            }
        }
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.0 {
            State::Waiting(_) => Poll::Ready(Ok(())),
            // What was taken has gone when the request has.
            State::Upgrading(upgrading) => upgrading.upgrade.poll_request(cx, &mut upgrading.carrier),
            State::Open(carrier) => carrier.poll_flush(cx),
            State::Failed(error) => Poll::Ready(Err(io::Error::other(error.clone()))),
        }
    }

    fn poll_drained(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let State::Open(carrier) = &mut self.0 {
            return carrier.poll_drained(cx);
        }
        // The rest is a request, or nothing at all.
        self.poll_flush(cx).map(drop)
    }

    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match ready!(self.poll_open(cx))? {
            Some(carrier) => carrier.poll_close(cx),
            None => self.below().map_or(Poll::Ready(Ok(())), |below| below.poll_close(cx)),
        }
    }

    fn reset(&mut self) -> Pin<Box<dyn Future<Output = ()> + '_>> {
        match self.below() {
            Some(below) => below.reset(),
            None => Box::pin(std::future::pending()),
        }
    }

    fn closed(&mut self) -> Pin<Box<dyn Future<Output = ()> + '_>> {
        match self.below() {
            Some(below) => below.closed(),
            None => Box::pin(std::future::pending()),
        }
    }

    fn local_ip(&self) -> Option<IpAddr> {
        match &self.0 {
            State::Waiting(waiting) => waiting.carrier.local_ip(),
            State::Upgrading(upgrading) => upgrading.carrier.local_ip(),
            State::Open(carrier) => carrier.local_ip(),
            State::Failed(_) => None,
        }
    }

    fn abort(&mut self) {
        if let Some(below) = self.below() {
            below.abort();
        }
    }
}
