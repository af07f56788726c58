//! How an instance's memory and file descriptors are shared out at the start.

use super::api::Options;
use crate::config::Config;
use crate::error::{Error, ErrorKind};

/// The least memory that an instance runs with.
const LEAST: u64 = 4 << 20;
/// The limit when neither the options nor the config sets one.
const DEFAULT: u64 = if cfg!(target_os = "ios") { 32 << 20 } else { 64 << 20 };

/// Descriptors kept for everything that is not an accepted connection.
const RESERVED_DESCRIPTORS: u64 = 64;
/// Descriptors that an accepted connection takes: the client's and the outbound's.
const DESCRIPTORS_EACH: u64 = 2;

/// The limits of one instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Budget {
    /// Bytes of payload buffers: half of the whole. The other half is for what is not pooled: flows and their tasks (a
    /// few kilobytes each), the carriers' state, caches, tables, and what the allocator wastes.
    pub(crate) pool_bytes: usize,
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
        Ok(Self { pool_bytes: usize::try_from(limit / 2).unwrap_or(usize::MAX) })
    }
}

/// How many accepted connections the process's limit of descriptors leaves room for.
pub(crate) fn connection_limit() -> usize {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(u64::MAX);
    let room = limit.saturating_sub(RESERVED_DESCRIPTORS) / DESCRIPTORS_EACH;
    usize::try_from(room).unwrap_or(usize::MAX).clamp(16, 1 << 20)
}

fn too_small(kind: ErrorKind, name: &str) -> Error {
    Error::new(kind, format!("{name} is below the least that a tunnel runs with"))
        .with_hint("give at least 4 MiB (4194304)")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::tests::config;

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
