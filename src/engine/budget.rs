//! How an instance's memory and file descriptors are shared out at the start.

use super::api::Options;
use crate::config::Config;
use crate::error::{Error, ErrorKind};
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The least memory that an instance runs with.
const LEAST: u64 = 4 << 20;
/// The limit when neither the options nor the config sets one.
const DEFAULT: u64 = if cfg!(target_os = "ios") { 32 << 20 } else { 64 << 20 };

/// Descriptors kept for everything that is not an accepted connection.
const RESERVED_DESCRIPTORS: u64 = 64;
/// Descriptors that an accepted connection takes: the client's and the outbound's.
const DESCRIPTORS_EACH: u32 = 2;
/// The part of the descriptors that flows beyond a connection's first leave to new connections.
const KEPT_PART: usize = 8;

/// The limits of one instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Budget {
    /// Bytes of payload buffers: half of the whole. The rest is for what is not pooled: flows and their tasks (a
    /// few kilobytes each), the carriers' state, caches, tables, and what the allocator wastes.
    pub(crate) pool_bytes: usize,
    /// Bytes of what the VMess inbounds remember against replays: a quarter of the whole.
    pub(crate) replay_bytes: usize,
}

impl Budget {
    /// Shares the memory limit out: the options' own, else the config's, else 32 MiB on iOS and 64 MiB elsewhere.
    ///
    /// # Errors
    /// `Misuse` for an option, `ConfigInvalid` for a config, below 4 MiB.
    pub(crate) fn new(options: &Options, config: &Config) -> Result<Self, Error> {
        let limit = match (options.memory_limit_bytes, config.vmesskit.memory_limit) {
            (Some(limit), _) if limit < LEAST => {
                return Err(too_small(ErrorKind::Misuse, "memory_limit_bytes"));
            }
            (None, Some(limit)) if limit < LEAST => {
                return Err(
                    too_small(ErrorKind::ConfigInvalid, "memoryLimit").with_path("vmesskit.memoryLimit")
                );
            }
            (Some(limit), _) | (None, Some(limit)) => limit,
            (None, None) => DEFAULT,
        };
        let bytes = |part: u64| usize::try_from(part).unwrap_or(usize::MAX);
        Ok(Self { pool_bytes: bytes(limit / 2), replay_bytes: bytes(limit / 4) })
    }
}

/// What is left of the process's descriptors for clients, on all shards together: two for each accepted connection, its
/// own and its outbound's, and one for each further flow that it carries (the sessions of a mux carrier, the sockets of a
/// full cone).
#[derive(Debug, Clone)]
pub(crate) struct Descriptors {
    free: Arc<Semaphore>,
    kept: usize,
}

/// Descriptors in use; dropping it gives them back.
pub(crate) type Taken = OwnedSemaphorePermit;

impl Descriptors {
    /// As many as the process's limit allows.
    pub(crate) fn of_process() -> Self {
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        let room = limit.unwrap_or(u64::MAX).saturating_sub(RESERVED_DESCRIPTORS);
        Self::new(usize::try_from(room).unwrap_or(usize::MAX).clamp(32, 1 << 21))
    }

    fn new(limit: usize) -> Self {
        Self { free: Arc::new(Semaphore::new(limit)), kept: limit / KEPT_PART }
    }

    /// Waits for those of one more connection.
    pub(crate) async fn for_connection(&self) -> Taken {
        let taken = Arc::clone(&self.free).acquire_many_owned(DESCRIPTORS_EACH).await;
        taken.expect("nobody closes the semaphore")
    }

    /// The one of a further flow; `None` when so few are left that new connections need them.
    pub(crate) fn for_flow(&self) -> Option<Taken> {
        let taken = Arc::clone(&self.free).try_acquire_owned().ok()?;
        (self.free.available_permits() >= self.kept).then_some(taken)
    }

    /// For how many more connections there are enough.
    pub(crate) fn connections_left(&self) -> usize {
        self.free.available_permits() / DESCRIPTORS_EACH as usize
    }

    /// Leaves enough for so many connections, and for no flow.
    #[cfg(test)]
    pub(crate) fn leave(&self, connections: usize) {
        let left = connections * DESCRIPTORS_EACH as usize;
        self.free.forget_permits(self.free.available_permits() - left);
    }
}

fn too_small(kind: ErrorKind, name: &str) -> Error {
    Error::new(kind, format!("{name} is below the least that a tunnel runs with"))
        .with_hint("give at least 4 MiB (4194304)")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::tests::config;

    #[tokio::test]
    async fn flows_leave_the_last_descriptors_to_connections() {
        let descriptors = Descriptors::new(16);
        let connection = descriptors.for_connection().await;
        let flows: Vec<_> = std::iter::from_fn(|| descriptors.for_flow()).collect();
        assert_eq!((flows.len(), descriptors.connections_left()), (12, 1));
        let last = descriptors.for_connection().await;
        assert!(descriptors.for_flow().is_none());
        drop((connection, last));
        assert_eq!(descriptors.connections_left(), 2);
        assert!(descriptors.for_flow().is_some());
    }

    #[test]
    fn the_options_win_over_the_config_and_both_over_the_default() {
        let options = |limit| Options { memory_limit_bytes: limit, ..Options::default() };
        let pool =
            |limit, config: &Config| Budget::new(&options(limit), config).map(|budget| budget.pool_bytes);
        let mut config = config();
        assert_eq!(pool(None, &config), Ok(32 << 20));
        config.vmesskit.memory_limit = Some(16 << 20);
        assert_eq!(pool(None, &config), Ok(8 << 20));
        assert_eq!(pool(Some(4 << 20), &config), Ok(2 << 20));
        assert_eq!(pool(Some((4 << 20) - 1), &config).map_err(|error| error.kind), Err(ErrorKind::Misuse));
        config.vmesskit.memory_limit = Some(1);
        assert_eq!(pool(None, &config).map_err(|error| error.kind), Err(ErrorKind::ConfigInvalid));
    }
}
