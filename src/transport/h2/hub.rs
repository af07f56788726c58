//! What the streams of a connection share with the task that drives it.

use super::chunk::{Backlog, Queued};
use super::failure::Failure;
use super::wire::Pulse;
use crate::engine::clock::Clock;
use h2::{FlowControl, RecvStream};
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

/// How long a stream that both ends have done with waits for the peer's end of it.
const SEEN_OFF: Duration = Duration::from_secs(2);
/// The most streams that wait for that. The one that has waited the longest is reset for another.
const MOST_LEAVING: usize = 256;

/// What the streams of a connection share with the task that drives it.
pub(super) struct Hub {
    /// What waits to be written.
    backlog: Rc<Backlog>,
    /// What has come.
    pub(super) pulse: Rc<Pulse>,
    /// How many streams are open.
    streams: Cell<usize>,
    /// Since when there are none.
    idle_since: Cell<Instant>,
    /// The windows of the streams, to see how much waits in them; `None` is free.
    windows: RefCell<Vec<Option<FlowControl>>>,
    /// Streams that are over but for the peer's end.
    leaving: RefCell<VecDeque<Leaving>>,
    /// Told when there is room for another stream.
    freed: Rc<Notify>,
    /// Why the connection was given up, if we did that.
    failure: RefCell<Option<Failure>>,
    task: RefCell<Waker>,
}

impl Hub {
    /// Of a new connection; `freed` is told of room for another stream.
    pub(super) fn new(clock: &Clock, freed: Rc<Notify>) -> Rc<Self> {
        Rc::new(Self {
            backlog: Rc::default(),
            pulse: Pulse::new(clock),
            streams: Cell::new(0),
            idle_since: Cell::new(Instant::now()),
            windows: RefCell::default(),
            leaving: RefCell::default(),
            freed,
            failure: RefCell::default(),
            task: RefCell::new(Waker::noop().clone()),
        })
    }

    /// How many streams are open.
    pub(super) const fn streams(&self) -> usize {
        self.streams.get()
    }

    /// Since when no stream is open; `None` while one is.
    pub(super) fn idle_since(&self) -> Option<Instant> {
        (self.streams() == 0).then(|| self.idle_since.get())
    }

    /// How many bytes have come that nobody has read.
    pub(super) fn held(&self) -> usize {
        let windows = self.windows.borrow();
        windows.iter().flatten().map(FlowControl::used_capacity).fold(0, usize::saturating_add)
    }

    /// Counts another stream.
    pub(super) fn slot(self: &Rc<Self>) -> Slot {
        self.streams.set(self.streams.get().saturating_add(1));
        Slot { hub: Rc::clone(self), at: None, left: false }
    }

    /// Reads to their ends the streams that nobody else reads any more. What is dropped before is a reset, and what the peer
    /// still sends on it is an error that the library forgives but so often.
    pub(super) fn see_off(&self, cx: &mut Context<'_>) {
        let mut leaving = self.leaving.take();
        if leaving.is_empty() {
            return;
        }
        let now = Instant::now();
        leaving.retain_mut(|stream| {
            let stays = stream.by > now && !stream.is_over(cx);
            if !stays {
                self.free(stream.at.take());
            }
            stays
        });
        self.leaving.replace(leaving);
    }

    /// When the first of them is to be given up.
    pub(super) fn seen_off_by(&self) -> Option<Instant> {
        self.leaving.borrow().front().map(|stream| stream.by)
    }

    /// Lets go of a stream's place.
    fn free(&self, at: Option<usize>) {
        let window = at.and_then(|at| self.windows.borrow_mut().get_mut(at)?.take());
        drop(window);
        let left = self.streams.get().saturating_sub(1);
        self.streams.set(left);
        self.freed.notify_one();
        if left == 0 {
            self.windows.take();
            self.idle_since.set(Instant::now());
            self.wake();
        }
    }

    /// What waits on a new stream.
    pub(super) fn queued(&self) -> Queued {
        Queued::new(&self.backlog)
    }

    /// Says why the connection ends.
    pub(super) fn fail(&self, failure: Failure) {
        self.failure.borrow_mut().get_or_insert(failure);
    }

    /// Registers the driving task.
    pub(super) fn driven_by(&self, cx: &Context<'_>) {
        self.task.borrow_mut().clone_from(cx.waker());
    }

    /// Wakes the driving task.
    pub(super) fn wake(&self) {
        self.task.borrow().wake_by_ref();
    }
}

/// A stream that is over but for the peer's end.
struct Leaving {
    body: RecvStream,
    at: Option<usize>,
    by: Instant,
}

impl Leaving {
    /// Whether the peer's end has come, in whichever way.
    fn is_over(&mut self, cx: &mut Context<'_>) -> bool {
        loop {
            match self.body.poll_data(cx) {
                Poll::Ready(Some(Ok(data))) => {
                    // Fails only if more is given back than has come.
                    let _ = self.body.flow_control().release_capacity(data.len());
                }
                Poll::Ready(_) => return true,
                Poll::Pending => return false,
            }
        }
    }
}

/// A stream's place on its connection.
pub(super) struct Slot {
    hub: Rc<Hub>,
    at: Option<usize>,
    /// Whether its place is kept for a stream that is leaving.
    left: bool,
}

impl Slot {
    /// Makes what waits in this stream's window count.
    pub(super) fn watch(&mut self, body: &mut RecvStream) {
        let mut windows = self.hub.windows.borrow_mut();
        let at = windows.iter().position(Option::is_none).unwrap_or(windows.len());
        if at == windows.len() {
            windows.push(None);
        }
        if let Some(window) = windows.get_mut(at) {
            *window = Some(body.flow_control().clone());
        }
        self.at = Some(at);
    }

    /// Leaves the rest of a stream that is over to the connection: the peer's end is still on its way.
    pub(super) fn leave(&mut self, body: RecvStream) {
        self.left = true;
        let stream = Leaving { body, at: self.at.take(), by: Instant::now() + SEEN_OFF };
        let mut leaving = self.hub.leaving.borrow_mut();
        leaving.push_back(stream);
        let first = if leaving.len() > MOST_LEAVING { leaving.pop_front() } else { None };
        drop(leaving);
        if let Some(first) = first {
            self.hub.free(first.at);
        }
        self.hub.wake();
    }

    /// The reason behind a failure, where we know better.
    pub(super) fn explain(&self, failure: Failure) -> Failure {
        match &*self.hub.failure.borrow() {
            Some(known) if matches!(failure, Failure::Io(_)) => known.clone(),
            _ => failure,
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if !self.left {
            self.hub.free(self.at.take());
        }
    }
}
