//! What waits for the host thread: sockets to protect, and wakers of the host's futures, which are foreign code too.

use super::super::api::{Platform, Refused};
use std::collections::VecDeque;
use std::future::Future;
use std::mem;
use std::os::fd::{AsFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker, ready};
use std::thread::{self, ThreadId};
use tokio::sync::oneshot;

/// How many sockets wait for the host at most. Each holds a descriptor.
const SOCKETS: usize = 128;

type Answer = Result<(), Refused>;

/// The queue of the host thread. Its lock is never held across foreign code.
#[derive(Default)]
pub(crate) struct HostQueue {
    state: Mutex<Queued>,
    bell: Condvar,
}

#[derive(Default)]
struct Queued {
    /// Whether there is a host thread; without one wakers are called on the spot.
    open: bool,
    /// Whether the host thread is in foreign code.
    busy: bool,
    wakers: Vec<Waker>,
    sockets: VecDeque<Socket>,
    asked: u64,
    /// The threads that call the host.
    threads: Vec<ThreadId>,
}

struct Socket {
    id: u64,
    fd: OwnedFd,
    answer: oneshot::Sender<Answer>,
}

enum Work {
    Wake(Vec<Waker>),
    Protect(Socket),
}

impl HostQueue {
    /// Takes work for a host thread from now on.
    pub(super) fn open(&self) {
        self.lock().open = true;
    }

    /// Takes no more work, drops the sockets that wait, and calls the wakers that wait.
    pub(super) fn close(&self) {
        let mut state = self.lock();
        state.open = false;
        let (sockets, wakers) = (mem::take(&mut state.sockets), mem::take(&mut state.wakers));
        drop(state);
        self.bell.notify_all();
        drop(sockets);
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Queues a socket; `None` if too many wait or the queue is closed. Dropping the answer takes the socket back unless
    /// the host is looking at it.
    pub(super) fn protect(self: &Arc<Self>, fd: OwnedFd) -> Option<Protecting> {
        let mut state = self.lock();
        if !state.open || state.sockets.len() >= SOCKETS {
            return None;
        }
        state.asked += 1;
        let id = state.asked;
        let (answer, answered) = oneshot::channel();
        state.sockets.push_back(Socket { id, fd, answer });
        drop(state);
        self.bell.notify_one();
        Some(Protecting { id, answered, queue: Arc::clone(self) })
    }

    /// A waker that wakes `inner` on the host thread, or on the spot if that thread is busy or absent.
    pub(crate) fn divert(self: &Arc<Self>, inner: &Waker) -> Waker {
        Arc::new(Diverted { inner: inner.clone(), queue: Arc::clone(self) }).into()
    }

    /// Whether the current thread is one that calls the host.
    pub(crate) fn is_callback_thread(&self) -> bool {
        self.lock().threads.contains(&thread::current().id())
    }

    /// Whether the host thread is in foreign code.
    pub(super) fn is_busy(&self) -> bool {
        self.lock().busy
    }

    /// Counts the current thread among those that call the host, while `work` runs.
    pub(super) fn as_callback_thread(&self, work: impl FnOnce()) {
        let id = thread::current().id();
        self.lock().threads.push(id);
        work();
        self.lock().threads.retain(|known| *known != id);
    }

    /// Does the work until the queue is closed: the body of the host thread. Releases the platform, which is a callback as
    /// well: the tunnel ends after it.
    pub(super) fn serve(&self, platform: Arc<dyn Platform>) {
        self.as_callback_thread(move || {
            while let Some(work) = self.next() {
                match work {
                    Work::Wake(wakers) => wakers.into_iter().for_each(wake),
                    Work::Protect(Socket { fd, answer, .. }) => {
                        let asked = catch_unwind(AssertUnwindSafe(|| platform.protect_socket(fd.as_fd())));
                        drop(fd);
                        let panicked = || Err(Refused { reason: "protect_socket panicked".into() });
                        // The dial may have been given up.
                        let _ = answer.send(asked.unwrap_or_else(|_| panicked()));
                    }
                }
            }
            drop(platform);
        });
    }

    /// Waits for work. Wakers first: no future waits behind a callback that has not begun.
    fn next(&self) -> Option<Work> {
        let mut state = self.lock();
        state.busy = false;
        loop {
            let work = if !state.wakers.is_empty() {
                Some(Work::Wake(mem::take(&mut state.wakers)))
            } else {
                state.sockets.pop_front().map(Work::Protect)
            };
            if work.is_some() {
                state.busy = true;
                return work;
            }
            if !state.open {
                return None;
            }
            state = self.bell.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn wake(&self, waker: Waker) {
        let mut state = self.lock();
        if state.open && !state.busy {
            state.wakers.push(waker);
            drop(state);
            self.bell.notify_one();
        } else {
            drop(state);
            wake(waker);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queued> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Wakes, whatever the foreign code does.
fn wake(waker: Waker) {
    // A panic is the host's own; there is nobody to tell.
    let _ = catch_unwind(AssertUnwindSafe(|| waker.wake()));
}

/// The answer to come; `None` if the queue is closed first.
pub(super) struct Protecting {
    id: u64,
    answered: oneshot::Receiver<Answer>,
    queue: Arc<HostQueue>,
}

impl Future for Protecting {
    type Output = Option<Answer>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Poll::Ready(ready!(Pin::new(&mut self.answered).poll(cx)).ok())
    }
}

impl Drop for Protecting {
    fn drop(&mut self) {
        let mut state = self.queue.lock();
        let at = state.sockets.iter().position(|socket| socket.id == self.id);
        let socket = at.and_then(|at| state.sockets.remove(at));
        drop(state);
        drop(socket);
    }
}

struct Diverted {
    inner: Waker,
    queue: Arc<HostQueue>,
}

impl Wake for Diverted {
    fn wake(self: Arc<Self>) {
        self.queue.wake(self.inner.clone());
    }
}
