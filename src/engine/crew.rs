//! Threads that are accounted for: each can be waited for without blocking a shard.

use std::future::poll_fn;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::thread::{Builder, JoinHandle};
use tokio::sync::mpsc;

/// Threads that were started together, by whichever thread. Their handles are locked for a moment when one comes or goes.
pub(super) struct Crew {
    members: Mutex<Vec<(u64, JoinHandle<()>)>>,
    count: AtomicU64,
    leave: mpsc::UnboundedSender<u64>,
    left: Mutex<mpsc::UnboundedReceiver<u64>>,
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
        Self { members: Mutex::default(), count: AtomicU64::new(0), leave, left: Mutex::new(left) }
    }

    /// Starts a thread.
    ///
    /// # Errors
    /// If the operating system gives none.
    pub(super) fn spawn(&self, name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
        self.reap();
        let id = self.count.fetch_add(1, Relaxed);
        let leave = Leave(self.leave.clone(), id);
        let thread = Builder::new().name(name.into()).spawn(move || {
            let _leave = leave;
            work();
        })?;
        lock(&self.members).push((id, thread));
        Ok(())
    }

    /// Waits until every thread has ended.
    pub(super) async fn gone(&self) {
        poll_fn(|cx| {
            while !lock(&self.members).is_empty() {
                let left = lock(&self.left).poll_recv(cx);
                match left {
                    Poll::Ready(Some(id)) => self.join(id),
                    Poll::Ready(None) => break,
                    Poll::Pending => return Poll::Pending,
                }
            }
            Poll::Ready(())
        })
        .await;
    }

    /// Waits for every thread, and lets the current one do nothing else meanwhile.
    pub(super) fn join_all(&self) {
        let members = std::mem::take(&mut *lock(&self.members));
        for (_, thread) in members {
            // A panic in it is over.
            let _ = thread.join();
        }
    }

    /// Joins those that have ended by themselves.
    fn reap(&self) {
        loop {
            let left = lock(&self.left).try_recv();
            let Ok(id) = left else { return };
            self.join(id);
        }
    }

    fn join(&self, id: u64) {
        let mut members = lock(&self.members);
        let Some(at) = members.iter().position(|(known, _)| *known == id) else { return };
        let (_, thread) = members.swap_remove(at);
        drop(members);
        // It has reported its end, so this takes microseconds; a panic in it was a callback's, and is over.
        let _ = thread.join();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
