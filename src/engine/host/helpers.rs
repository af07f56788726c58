//! At most two threads that do slow work for an instance; they come when there is work and leave when there is none.

use super::super::crew::Crew;
use super::queue::HostQueue;
use std::collections::VecDeque;
use std::io;
use std::mem;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How many threads there are at most.
const THREADS: usize = 2;
/// How many jobs wait at most.
const JOBS: usize = 64;
/// How long a thread without work stays.
const IDLE: Duration = Duration::from_secs(5);

/// A job; its result leaves by a channel of its own.
pub(super) type Job = Box<dyn FnOnce() + Send>;

/// The threads and their queue.
pub(super) struct Helpers {
    desk: Arc<Desk>,
}

struct Desk {
    state: Mutex<State>,
    bell: Condvar,
    queue: Arc<HostQueue>,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    threads: usize,
    idle: usize,
    closed: bool,
}

impl Helpers {
    /// No thread yet. While they run they count as callback threads of `queue`.
    pub(super) fn new(queue: Arc<HostQueue>) -> Self {
        Self { desk: Arc::new(Desk { state: Mutex::default(), bell: Condvar::new(), queue }) }
    }

    /// Queues a job, and starts a thread if none is free and there may be one more.
    ///
    /// # Errors
    /// When too many jobs wait, after [`Helpers::close`], or if there is no thread at all to do it.
    pub(super) fn run(&self, crew: &Crew, job: Job) -> io::Result<()> {
        let mut state = self.desk.lock();
        if state.closed || state.jobs.len() >= JOBS {
            return Err(io::ErrorKind::QuotaExceeded.into());
        }
        state.jobs.push_back(job);
        if state.jobs.len() <= state.idle || state.threads == THREADS {
            drop(state);
            self.desk.bell.notify_one();
            return Ok(());
        }
        state.threads += 1;
        drop(state);
        let desk = Arc::clone(&self.desk);
        let started = crew.spawn("vmk-help", move || desk.queue.as_callback_thread(|| desk.work()));
        let Err(error) = started else { return Ok(()) };
        let mut state = self.desk.lock();
        state.threads -= 1;
        if state.threads > 0 {
            return Ok(());
        }
        let jobs = mem::take(&mut state.jobs);
        drop(state);
        drop(jobs);
        Err(error)
    }

    /// Drops the jobs that wait and ends the threads after the ones they are at.
    pub(super) fn close(&self) {
        let mut state = self.desk.lock();
        state.closed = true;
        let jobs = mem::take(&mut state.jobs);
        drop(state);
        self.desk.bell.notify_all();
        drop(jobs);
    }
}

impl Desk {
    /// Does jobs until there is none for a while.
    fn work(&self) {
        let mut state = self.lock();
        loop {
            if let Some(job) = state.jobs.pop_front() {
                drop(state);
                job();
                state = self.lock();
                continue;
            }
            if state.closed {
                break;
            }
            state.idle += 1;
            let (woken, waited) = self.bell.wait_timeout(state, IDLE).unwrap_or_else(PoisonError::into_inner);
            state = woken;
            state.idle -= 1;
            if waited.timed_out() && state.jobs.is_empty() {
                break;
            }
        }
        state.threads -= 1;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
