//! The task of a socket: it receives, and keeps the time of its conversations.

use super::hub::Hub;
use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use tokio::time::{Instant, Sleep, sleep_until};

/// Drives the conversations of a socket until none is left or the socket is closed. Dropping it ends them.
pub(super) struct Driver {
    hub: Rc<RefCell<Hub>>,
    timer: Pin<Box<Sleep>>,
}

impl Driver {
    /// The driver of a hub.
    pub(super) fn new(hub: &Rc<RefCell<Hub>>) -> Self {
        Self { hub: Rc::clone(hub), timer: Box::pin(sleep_until(Instant::now())) }
    }
}

impl Future for Driver {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Self { hub, timer } = &mut *self;
        let mut hub = hub.borrow_mut();
        hub.driver = Some(cx.waker().clone());
        // What follows arms the timer itself.
        hub.armed = hub.deadline();
        hub.poll_receive(cx);
        hub.poll_send(cx);
        loop {
            hub.on_time();
            if hub.is_finished() {
                return Poll::Ready(());
            }
            hub.armed = hub.deadline();
            let Some(at) = hub.armed else { return Poll::Pending };
            let deadline = Instant::now() + at.since(hub.now());
            if timer.deadline() != deadline {
                timer.as_mut().reset(deadline);
            }
            if timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
        }
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.hub.borrow_mut().shut();
    }
}
