//! What handles send to their shard: commands that want an answer, and signals of which only the latest counts.

use super::api::{CheckReport, ConnectionInfo, MemoryPressure, NetworkInfo, ReloadReport, TunHandle};
use crate::config::Config;
use crate::error::Error;
use std::mem;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

/// Where an answer goes.
pub(crate) type Reply<T> = oneshot::Sender<Result<T, Error>>;

/// What a handle asks of its shard.
pub(crate) enum Command {
    /// Swap the tun device.
    SetTun(TunHandle, Reply<()>),
    /// Prove the path to the server within a time.
    Check(Duration, Reply<CheckReport>),
    /// Put another config in force.
    Reload(Box<Config>, Reply<ReloadReport>),
    /// List the open connections.
    Connections(Reply<Vec<ConnectionInfo>>),
    /// Close a connection.
    Close(u64, Reply<bool>),
    /// End; tell the waiter, if there is one.
    Stop(Option<Stopping>),
}

/// One who waits for the end.
pub(crate) struct Stopping {
    /// Until when; `None`: for ever.
    pub(crate) deadline: Option<Instant>,
    /// Where the answer goes.
    pub(crate) reply: Reply<()>,
}

/// What the host has signalled and the shard has not yet seen.
#[derive(Default)]
pub(crate) struct Signals {
    latest: Mutex<Latest>,
    bell: Notify,
}

/// The newest value of each signal.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Latest {
    /// The network below; `Some(None)`: there is none.
    pub(crate) network: Option<Option<NetworkInfo>>,
    /// The device has slept and is awake again.
    pub(crate) wake: bool,
    /// How short memory is.
    pub(crate) pressure: Option<MemoryPressure>,
    /// The clock's correction has been set: the seconds by which the device is fast.
    pub(crate) skew: Option<i64>,
}

impl Signals {
    /// Notes a signal for the shard. Never blocks.
    pub(crate) fn send(&self, note: impl FnOnce(&mut Latest)) {
        note(&mut self.latest.lock().unwrap_or_else(PoisonError::into_inner));
        self.bell.notify_one();
    }

    /// Waits for signals and takes them. Cancel-safe.
    pub(crate) async fn recv(&self) -> Latest {
        loop {
            let latest = mem::take(&mut *self.latest.lock().unwrap_or_else(PoisonError::into_inner));
            if latest != Latest::default() {
                return latest;
            }
            self.bell.notified().await;
        }
    }
}
