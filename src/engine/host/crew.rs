//! Threads that are accounted for: each can be waited for without blocking the shard.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::task::Poll;
use std::thread::{Builder, JoinHandle};
use tokio::sync::mpsc;

/// The threads that a shard has started.
pub(super) struct Crew {
    members: RefCell<Vec<(u64, JoinHandle<()>)>>,
    count: Cell<u64>,
    leave: mpsc::UnboundedSender<u64>,
    left: RefCell<mpsc::UnboundedReceiver<u64>>,
}

/// Reports the end of a thread, however it ends.
struct Leave(mpsc::UnboundedSender<u64>, u64);

impl Drop for Leave {
    fn drop(&mut self) {
        // Nobody listens when the shard has gone first.
        let _ = self.0.send(self.1);
    }
}

impl Crew {
    /// A crew of nobody.
    pub(super) fn new() -> Self {
        let (leave, left) = mpsc::unbounded_channel();
        Self { members: RefCell::default(), count: Cell::new(0), leave, left: RefCell::new(left) }
    }

    /// Starts a thread.
    ///
    /// # Errors
    /// If the operating system gives none.
    pub(super) fn spawn(&self, name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
        self.reap();
        let id = self.count.replace(self.count.get() + 1);
        let leave = Leave(self.leave.clone(), id);
        let thread = Builder::new().name(name.into()).spawn(move || {
            let _leave = leave;
            work();
        })?;
        self.members.borrow_mut().push((id, thread));
        Ok(())
    }

    /// Waits until every thread has ended.
    pub(super) async fn gone(&self) {
        poll_fn(|cx| {
            while !self.members.borrow().is_empty() {
                match self.left.borrow_mut().poll_recv(cx) {
                    Poll::Ready(Some(id)) => self.join(id),
                    Poll::Ready(None) => break,
                    Poll::Pending => return Poll::Pending,
                }
            }
            Poll::Ready(())
        })
        .await;
    }

    /// Joins those that have ended by themselves.
    fn reap(&self) {
        while let Ok(id) = self.left.borrow_mut().try_recv() {
            self.join(id);
        }
    }

    fn join(&self, id: u64) {
        let mut members = self.members.borrow_mut();
        let Some(at) = members.iter().position(|(known, _)| *known == id) else { return };
        let (_, thread) = members.swap_remove(at);
        drop(members);
        // It has reported its end, so this takes microseconds; a panic in it was a callback's, and is over.
        let _ = thread.join();
    }
}
