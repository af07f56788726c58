//! What the streams of a connection share with the task that drives it.

use super::chunk::{Backlog, Queued};
use super::failure::Failure;
use super::wire::Pulse;
use crate::engine::clock::Clock;
use h2::{FlowControl, RecvStream};
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::{Context, Waker};
use tokio::time::Instant;

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
    /// Why the connection was given up, if we did that.
    failure: RefCell<Option<Failure>>,
    task: RefCell<Waker>,
}

impl Hub {
    /// Of a new connection.
    pub(super) fn new(clock: &Clock) -> Rc<Self> {
        Rc::new(Self {
            backlog: Rc::default(),
            pulse: Pulse::new(clock),
            streams: Cell::new(0),
            idle_since: Cell::new(Instant::now()),
            windows: RefCell::default(),
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
        Slot { hub: Rc::clone(self), at: None }
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

/// A stream's place on its connection.
pub(super) struct Slot {
    hub: Rc<Hub>,
    at: Option<usize>,
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
        let window = self.at.and_then(|at| self.hub.windows.borrow_mut().get_mut(at)?.take());
        drop(window);
        let left = self.hub.streams.get().saturating_sub(1);
        self.hub.streams.set(left);
        if left == 0 {
            self.hub.windows.take();
            self.hub.idle_since.set(Instant::now());
            self.hub.wake();
        }
    }
}
