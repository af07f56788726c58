//! Answers that are still to come: futures that need no runtime, and waits that need no future.

use super::api::Event;
use super::host::HostQueue;
use super::shared::Shared;
use crate::error::Error;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// What is done with an answer before it is handed out.
type Settle<T> = Box<dyn FnOnce(&T) + Send>;

/// An answer of a tunnel that is still to come: await it on any runtime, or [`Pending::wait`] for it on a thread.
///
/// The call itself was made when this was made. Dropping it gives the answer up, which matters for
/// [`Tunnel::start`](crate::Tunnel::start) alone: a start whose answer was never taken is a stop.
#[must_use = "the answer is lost, and a start whose answer is given up is a stop"]
pub struct Pending<T> {
    answer: oneshot::Receiver<T>,
    host: Arc<HostQueue>,
    /// The answer if the instance ends without one.
    lost: fn() -> T,
    /// Runs on the taker's thread just before the answer is handed out.
    settle: Option<Settle<T>>,
    /// Runs if the answer is given up.
    cancel: Option<Box<dyn FnOnce() + Send>>,
}

impl<T> Pending<T> {
    /// An answer and the way to give it; `lost` stands in if it is dropped.
    pub(crate) fn new(host: &Arc<HostQueue>, lost: fn() -> T) -> (oneshot::Sender<T>, Self) {
        let (give, answer) = oneshot::channel();
        (give, Self { answer, host: Arc::clone(host), lost, settle: None, cancel: None })
    }

    /// An answer that is there.
    pub(crate) fn ready(host: &Arc<HostQueue>, lost: fn() -> T, value: T) -> Self {
        let (give, pending) = Self::new(host, lost);
        // The receiver is in `pending`.
        let _ = give.send(value);
        pending
    }

    /// Runs `settle` on the taker's thread just before the answer is handed out.
    pub(crate) fn settled_by(mut self, settle: impl FnOnce(&T) + Send + 'static) -> Self {
        self.settle = Some(Box::new(settle));
        self
    }

    /// Runs `cancel` if the answer is given up.
    pub(crate) fn cancelled_by(mut self, cancel: impl FnOnce() + Send + 'static) -> Self {
        self.cancel = Some(Box::new(cancel));
        self
    }

    /// Blocks the thread until the answer is there; `None` after `timeout`, and the answer is given up.
    pub fn wait(mut self, timeout: Option<Duration>) -> Option<T> {
        block_on(timeout, |waker| self.poll_answer(waker))
    }

    fn poll_answer(&mut self, waker: &Waker) -> Poll<T> {
        let Poll::Ready(answer) = Pin::new(&mut self.answer).poll(&mut Context::from_waker(waker)) else {
            return Poll::Pending;
        };
        let answer = answer.unwrap_or_else(|_| (self.lost)());
        self.cancel = None;
        if let Some(settle) = self.settle.take() {
            settle(&answer);
        }
        Poll::Ready(answer)
    }
}

impl<T> Future for Pending<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        let waker = self.host.divert(cx.waker());
        self.poll_answer(&waker)
    }
}

impl<T> Drop for Pending<T> {
    fn drop(&mut self) {
        if let Some(cancel) = self.cancel.take() {
            cancel();
        }
    }
}

impl<T> fmt::Debug for Pending<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pending").finish_non_exhaustive()
    }
}

/// The answer of an instance that has ended.
pub(crate) fn stopped<T>() -> Result<T, Error> {
    Err(Error::new(crate::error::ErrorKind::Stopped, "the tunnel has been stopped"))
}

/// The next event, still to come: await it on any runtime, or [`NextEvent::wait`] for it on a thread.
///
/// Dropping it loses nothing. Several may wait at once; each event goes to one of them.
#[must_use = "an event is taken only when this is awaited"]
pub struct NextEvent {
    shared: Arc<Shared>,
    waiter: u64,
}

impl NextEvent {
    /// Waits for an event of `shared`.
    pub(crate) fn new(shared: &Arc<Shared>) -> Self {
        Self { shared: Arc::clone(shared), waiter: shared.new_waiter() }
    }

    /// Blocks the thread until there is an event. `None` after `timeout`, `Some(None)` after the last event.
    pub fn wait(self, timeout: Option<Duration>) -> Option<Option<Event>> {
        block_on(timeout, |waker| self.shared.poll_event(self.waiter, || waker.clone()))
    }
}

impl Future for NextEvent {
    type Output = Option<Event>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Event>> {
        self.shared.poll_event(self.waiter, || self.shared.host.divert(cx.waker()))
    }
}

impl Drop for NextEvent {
    fn drop(&mut self) {
        self.shared.forget_waiter(self.waiter);
    }
}

impl fmt::Debug for NextEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NextEvent").field("waiter", &self.waiter).finish_non_exhaustive()
    }
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Parks the thread until `poll` is ready; `None` after `timeout`.
#[expect(clippy::disallowed_methods, reason = "a host's thread that parks, outside any runtime")]
fn block_on<T>(timeout: Option<Duration>, mut poll: impl FnMut(&Waker) -> Poll<T>) -> Option<T> {
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
    loop {
        if let Poll::Ready(value) = poll(&waker) {
            return Some(value);
        }
        match deadline.map(|deadline| deadline.saturating_duration_since(Instant::now())) {
            None => thread::park(),
            Some(Duration::ZERO) => return None,
            Some(left) => thread::park_timeout(left),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_that_is_given_up_cancels_and_one_that_is_taken_does_not() {
        let host = Arc::default();
        let (told, heard) = std::sync::mpsc::channel();
        let make = |number: u8| {
            let told = told.clone();
            let (give, pending) = Pending::new(&host, || 0_u8);
            (give, pending.cancelled_by(move || told.send(number).expect("listening")))
        };
        let (give, pending) = make(1);
        give.send(7).expect("waiting");
        assert_eq!(pending.wait(None), Some(7));
        let (_give, pending) = make(2);
        assert_eq!(pending.wait(Some(Duration::from_millis(5))), None);
        let (give, pending) = make(3);
        drop(give);
        assert_eq!(pending.wait(Some(Duration::MAX)), Some(0), "lost");
        let (give, pending) = make(4);
        give.send(7).expect("waiting");
        drop(pending);
        assert_eq!(heard.try_iter().collect::<Vec<_>>(), [2, 4]);
    }
}
