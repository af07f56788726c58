//! The life of a UDP flow between an inbound and an outbound: its queue while the carrier is blocked, its idle time, and
//! its end.

mod table;

pub(crate) use table::Table;

use crate::addr::Target;
use crate::buffer::Buffer;
use crate::config::LogLevel;
use crate::engine::Shard;
use crate::engine::connections::Connection;
use crate::engine::dispatch::{self, Flow};
use crate::engine::outbound::{Answer, Outbound};
use crate::time::Moment;
use crate::transport::{Datagram, Datagrams, StreamError};
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

/// How many datagrams wait for a carrier at most; beyond it the oldest is dropped.
const MAX_QUEUE: usize = 64;
/// How long a datagram waits for a carrier that is open and blocked.
const MAX_WAIT: Duration = Duration::from_millis(500);
/// How long a flow may be silent before its first answer.
const IDLE_UNANSWERED: Duration = Duration::from_secs(30);
/// How long a flow may be silent after that.
const IDLE_ANSWERED: Duration = Duration::from_secs(120);
/// How many datagrams a flow moves each way before it yields.
const BUDGET: usize = 64;

/// A UDP flow under way. Dropping it ends the flow at once.
pub(crate) struct UdpFlow {
    state: Rc<State>,
    task: JoinHandle<()>,
}

struct State {
    queue: RefCell<VecDeque<(Moment, Datagram)>>,
    waker: RefCell<Option<Waker>>,
    active: Cell<Moment>,
    answered: Cell<bool>,
    limit: Cell<usize>,
}

impl UdpFlow {
    /// Starts a flow: the outbound is opened in a task. What comes back goes to `deliver`; `ended` is called when the flow
    /// is over for a reason other than being dropped, with what to tell the app if it could not be opened.
    pub(crate) fn start(
        shard: &Rc<Shard>,
        flow: Flow,
        outbound: Rc<dyn Outbound>,
        deliver: impl FnMut(Datagram) + 'static,
        ended: impl FnOnce(Option<Answer>) + 'static,
    ) -> Self {
        let state = Rc::new(State {
            queue: RefCell::default(),
            waker: RefCell::default(),
            active: Cell::new(flow.accepted),
            answered: Cell::new(false),
            limit: Cell::new(MAX_QUEUE),
        });
        let (on, served) = (Rc::clone(shard), Rc::clone(&state));
        let task = shard.spawn(async move { ended(serve(on, flow, outbound, served, deliver).await.err()) });
        Self { state, task }
    }

    /// Lets up to `limit` datagrams wait for the carrier.
    pub(crate) fn holding(self, limit: usize) -> Self {
        self.state.limit.set(limit);
        self
    }

    /// Hands over a datagram to `remote`. With the queue full, or memory nearly so, the oldest one is dropped and counted.
    pub(crate) fn push(&self, shard: &Shard, data: Buffer, remote: Target) {
        let now = shard.clock.now();
        if !self.state.is_over(now) {
            self.state.active.set(now);
        }
        let mut queue = self.state.queue.borrow_mut();
        let limit = if shard.pool.is_nearly_full() { 1 } else { self.state.limit.get() };
        if queue.len() >= limit {
            queue.pop_front();
            shard.shared.stats.dropped.fetch_add(1, Relaxed);
        }
        queue.push_back((now, Datagram { data, remote }));
        drop(queue);
        self.state.wake();
    }

    /// How long nothing has moved, either way.
    pub(crate) fn idle(&self, now: Moment) -> Duration {
        now.since(self.state.active.get())
    }
}

impl Drop for UdpFlow {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl State {
    fn wake(&self) {
        let waker = self.waker.borrow_mut().take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn idle_limit(&self) -> Duration {
        if self.answered.get() { IDLE_ANSWERED } else { IDLE_UNANSWERED }
    }

    /// Whether it has been silent for too long, awake or asleep: what comes then does not revive it, since its carrier has
    /// most likely died.
    fn is_over(&self, now: Moment) -> bool {
        now.since(self.active.get()) >= self.idle_limit()
    }

    /// The next datagram to send that has not waited too long.
    fn next(&self, shard: &Shard) -> Option<Datagram> {
        let mut queue = self.queue.borrow_mut();
        let now = shard.clock.now();
        loop {
            let (since, datagram) = queue.pop_front()?;
            if now.since(since) <= MAX_WAIT {
                return Some(datagram);
            }
            shard.shared.stats.dropped.fetch_add(1, Relaxed);
        }
    }

    /// What waited for the outbound to be opened waited for good reason: its time starts now.
    fn refresh(&self, now: Moment) {
        self.queue.borrow_mut().iter_mut().for_each(|(since, _)| *since = now);
    }
}

async fn serve(
    shard: Rc<Shard>,
    flow: Flow,
    outbound: Rc<dyn Outbound>,
    state: Rc<State>,
    deliver: impl FnMut(Datagram),
) -> Result<(), Answer> {
    if !outbound.admits(shard.clock.now()) {
        return Err(Answer::Failed);
    }
    let connection = dispatch::register(&shard, &flow, &*outbound);
    let target = &flow.target;
    let tag = Rc::clone(&outbound);
    let opened = {
        // A server's clients are told who answers.
        let opening = if outbound.cone(target).is_some() || flow.user.is_some() {
            outbound.open_cone(Rc::clone(&shard), target.clone(), flow.source)
        } else {
            outbound.open_datagrams(Rc::clone(&shard), target.clone())
        };
        let mut opening = pin!(opening);
        poll_fn(|cx| match connection.poll_closed(cx) {
            Poll::Ready(()) => Poll::Ready(None),
            Poll::Pending => opening.as_mut().poll(cx).map(Some),
        })
        .await
    };
    let tag = tag.tag();
    let datagrams = match opened {
        Some(Ok(datagrams)) => datagrams,
        Some(Err(failed)) => {
            let error = failed.error;
            shard.shared.log(LogLevel::Debug, format_args!("udp {target} by [{tag}] failed: {error}"));
            return Err(failed.answer);
        }
        None => return Ok(()),
    };
    connection.bound_to(datagrams.local_ip());
    state.refresh(shard.clock.now());
    let result = pump(&shard, &state, &connection, datagrams, deliver).await;
    if shard.shared.logs(LogLevel::Debug) {
        let (up, down) = connection.counted();
        let how: &dyn std::fmt::Display = match &result {
            Ok(()) => &"done",
            Err(error) => error,
        };
        shard
            .shared
            .log(LogLevel::Debug, format_args!("udp {target} by [{tag}]: {how}, {up} bytes up, {down} down"));
    }
    Ok(())
}

/// Moves datagrams both ways until the flow is idle for too long, closed from outside, or ended by the outbound.
async fn pump(
    shard: &Rc<Shard>,
    state: &State,
    connection: &Connection,
    mut datagrams: Box<dyn Datagrams>,
    mut deliver: impl FnMut(Datagram),
) -> Result<(), StreamError> {
    let mut timer = pin!(sleep_until(Instant::now() + IDLE_UNANSWERED));
    poll_fn(move |cx| {
        if connection.poll_closed(cx).is_ready() {
            return Poll::Ready(Ok(()));
        }
        if state.is_over(shard.clock.now()) {
            return Poll::Ready(Ok(()));
        }
        let mut busy = false;
        match poll_downlink(shard, state, connection, &mut *datagrams, &mut deliver, cx) {
            Poll::Ready(Ok(true)) => busy = true,
            Poll::Ready(Ok(false)) => return Poll::Ready(Ok(())),
            Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
            Poll::Pending => {}
        }
        busy |= send(shard, state, connection, &mut *datagrams, cx)?;
        while timer.as_mut().poll(cx).is_ready() {
            let left = state.idle_limit().saturating_sub(shard.clock.now().since(state.active.get()));
            if left.is_zero() {
                return Poll::Ready(Ok(()));
            }
            timer.as_mut().reset(Instant::now() + left);
        }
        if busy {
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    })
    .await
}

/// Delivers what has come. `true`: the budget is used up; `false`: the outbound has ended the flow.
fn poll_downlink(
    shard: &Shard,
    state: &State,
    connection: &Connection,
    datagrams: &mut dyn Datagrams,
    deliver: &mut impl FnMut(Datagram),
    cx: &mut Context<'_>,
) -> Poll<Result<bool, StreamError>> {
    let mut bytes = 0;
    let mut result = Poll::Ready(Ok(true));
    for _ in 0..BUDGET {
        match datagrams.poll_recv(cx) {
            Poll::Ready(Ok(Some(datagram))) => {
                bytes += datagram.data.len();
                deliver(datagram);
            }
            Poll::Ready(Ok(None)) => result = Poll::Ready(Ok(false)),
            Poll::Ready(Err(error)) => result = Poll::Ready(Err(error)),
            Poll::Pending => result = Poll::Pending,
        }
        if !matches!(result, Poll::Ready(Ok(true))) {
            break;
        }
    }
    if bytes > 0 {
        state.active.set(shard.clock.now());
        state.answered.set(true);
        connection.count(0, bytes);
    }
    result
}

/// Sends what waits, as far as the carrier takes it. `true`: the budget is used up.
fn send(
    shard: &Shard,
    state: &State,
    connection: &Connection,
    datagrams: &mut dyn Datagrams,
    cx: &mut Context<'_>,
) -> Result<bool, StreamError> {
    let mut bytes = 0;
    let mut sent = 0;
    while sent < BUDGET && !state.queue.borrow().is_empty() {
        if datagrams.poll_ready(cx)?.is_pending() {
            break;
        }
        let Some(datagram) = state.next(shard) else { break };
        bytes += datagram.data.len();
        datagrams.send(datagram)?;
        sent += 1;
    }
    if bytes > 0 {
        connection.count(bytes, 0);
    }
    // Also moves on what an earlier flush has left.
    let _ = datagrams.poll_flush(cx)?;
    let mut waker = state.waker.borrow_mut();
    if !waker.as_ref().is_some_and(|known| known.will_wake(cx.waker())) {
        *waker = Some(cx.waker().clone());
    }
    Ok(sent == BUDGET)
}

#[cfg(test)]
mod tests;
