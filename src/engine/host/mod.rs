//! The host's callbacks, kept away from the shards: one thread (`vmk-host`) protects sockets and wakes the host's futures,
//! and at most two more (`vmk-help`), made on demand, resolve names.
//!
//! A shard waits for an answer like for a peer's: with a deadline, after which the answer is discarded. All shards of an
//! instance share these threads.

mod helpers;
mod queue;
#[cfg(test)]
mod tests;

use self::helpers::Helpers;
use super::api::{NetworkInfo, Platform, Refused};
use super::crew::Crew;
use crate::error::{Error, ErrorKind, Stage};
pub(crate) use queue::HostQueue;
use std::io;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::timeout;

/// How long a dial waits for `protect_socket`.
const PROTECT: Duration = Duration::from_secs(2);
/// How long a look-up waits for `resolve`.
const RESOLVE: Duration = Duration::from_secs(5);

/// The shards' line to the host's callbacks. No lock of it is held across foreign code.
pub(crate) struct HostLink {
    /// `None` once closed.
    platform: Mutex<Option<Arc<dyn Platform>>>,
    queue: Arc<HostQueue>,
    helpers: Helpers,
    crew: Crew,
    protects: bool,
    resolves: AtomicBool,
    network: Mutex<Option<NetworkInfo>>,
}

impl HostLink {
    /// Starts the host thread. `protects`: whether the platform wants to be shown sockets.
    ///
    /// # Errors
    /// If the operating system gives no thread.
    pub(crate) fn open(
        platform: Arc<dyn Platform>,
        protects: bool,
        queue: Arc<HostQueue>,
    ) -> io::Result<Self> {
        let crew = Crew::new();
        let (served, desk) = (Arc::clone(&platform), Arc::clone(&queue));
        queue.open();
        if let Err(error) = crew.spawn("vmk-host", move || desk.serve(served)) {
            queue.close();
            return Err(error);
        }
        let helpers = Helpers::new(Arc::clone(&queue));
        Ok(Self {
            platform: Mutex::new(Some(platform)),
            queue,
            helpers,
            crew,
            protects,
            resolves: AtomicBool::new(true),
            network: Mutex::default(),
        })
    }

    /// Asks the host to keep a socket out of the tunnel, and waits 2 s at most. The host sees a duplicate of the
    /// descriptor, which stays open until its callback returns.
    ///
    /// # Errors
    /// `ProtectFailed` if it refuses, panics or does not answer in time; `ResourceLimit` without a descriptor to spare.
    pub(crate) async fn protect(&self, socket: &impl AsFd) -> Result<(), Error> {
        if !self.protects {
            return Ok(());
        }
        let socket = socket.as_fd().try_clone_to_owned().map_err(|error| {
            Error::new(
                ErrorKind::ResourceLimit { what: "file descriptors" },
                "no descriptor left to protect a socket",
            )
            .with_reason(error.to_string())
        })?;
        let Some(ask) = self.queue.protect(socket) else {
            return Err(protect_failed("too many sockets wait for the host's protect_socket"));
        };
        match timeout(PROTECT, ask).await {
            Ok(Some(Ok(()))) => Ok(()),
            Ok(Some(Err(refused))) => {
                Err(protect_failed("the host refused to protect a socket").with_reason(refused.reason))
            }
            Ok(None) => Err(Error::new(ErrorKind::Stopped, "the tunnel is stopping")),
            Err(_) => Err(protect_failed("the host's protect_socket did not answer within 2 s")),
        }
    }

    /// Asks the host to resolve a name outside the tunnel, and waits 5 s at most. `None`: it does not offer that.
    ///
    /// # Errors
    /// `ServerUnreachable` at the stage `resolve` if it fails, panics or finds nothing; `Timeout` if it does not answer
    /// in time.
    pub(crate) async fn resolve(&self, name: &str) -> Option<Result<Vec<IpAddr>, Error>> {
        if !self.resolves.load(Relaxed) {
            return None;
        }
        let platform = lock(&self.platform).clone()?;
        let network = lock(&self.network).clone();
        let (answer, answered) = oneshot::channel();
        let name = name.to_owned();
        let job = move || {
            let found = catch_unwind(AssertUnwindSafe(|| platform.resolve(&name, network.as_ref())));
            drop(platform);
            let panicked = || Some(Err(Refused { reason: "resolve panicked".into() }));
            // The look-up may have been given up.
            let _ = answer.send(found.unwrap_or_else(|_| panicked()));
        };
        if let Err(error) = self.helpers.run(&self.crew, Box::new(job)) {
            return Some(Err(
                unresolved("no helper thread for the host's resolve").with_reason(error.to_string())
            ));
        }
        Some(match timeout(RESOLVE, answered).await {
            Ok(Ok(None)) => {
                self.resolves.store(false, Relaxed);
                return None;
            }
            Ok(Ok(Some(Ok(found)))) if !found.is_empty() => Ok(found),
            Ok(Ok(Some(Ok(_)))) => Err(unresolved("the host's resolve found no address")),
            Ok(Ok(Some(Err(refused)))) => {
                Err(unresolved("the host's resolve failed").with_reason(refused.reason))
            }
            Ok(Err(_)) => Err(Error::new(ErrorKind::Stopped, "the tunnel is stopping")),
            Err(_) => {
                let what = ErrorKind::Timeout { what: "resolve" };
                Err(Error::new(what, "the host's resolve did not answer within 5 s"))
            }
        })
    }

    /// Does work that blocks on a helper thread, and waits for its result. Whoever gives up waiting leaves it to end by
    /// itself.
    ///
    /// # Errors
    /// `ResourceLimit` if too much of it waits, `Internal` if it panics, `Stopped` if the instance ends before.
    pub(crate) async fn work<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Error> {
        let (answer, answered) = oneshot::channel();
        let job = move || {
            // Nobody may be waiting any more.
            let _ = answer.send(catch_unwind(AssertUnwindSafe(work)).ok());
        };
        self.helpers.run(&self.crew, Box::new(job)).map_err(|error| {
            Error::new(ErrorKind::ResourceLimit { what: "helper threads" }, "no thread for work that blocks")
                .with_reason(error.to_string())
        })?;
        match answered.await {
            Ok(Some(done)) => Ok(done),
            Ok(None) => Err(Error::new(ErrorKind::Internal, "work on a helper thread panicked")),
            Err(_) => Err(Error::new(ErrorKind::Stopped, "the tunnel is stopping")),
        }
    }

    /// Takes up the network that `resolve` is told of.
    pub(crate) fn set_network(&self, network: Option<NetworkInfo>) {
        *lock(&self.network) = network;
    }

    /// Ends the threads as soon as their callbacks return; what they have not begun is dropped.
    pub(crate) fn close(&self) {
        let platform = lock(&self.platform).take();
        drop(platform);
        self.helpers.close();
        self.queue.close();
    }

    /// Waits until every thread is gone.
    pub(crate) async fn gone(&self) {
        self.crew.gone().await;
    }

    /// Which callback keeps a thread from ending.
    pub(crate) fn stuck_in(&self) -> &'static str {
        if self.queue.is_busy() { "the host's protect_socket" } else { "the host's resolve" }
    }
}

impl Drop for HostLink {
    /// The threads end even if nobody waits for them.
    fn drop(&mut self) {
        self.close();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn protect_failed(text: &'static str) -> Error {
    Error::new(ErrorKind::ProtectFailed, text)
}

fn unresolved(text: &'static str) -> Error {
    Error::new(ErrorKind::ServerUnreachable { stage: Stage::Resolve }, text)
}
