//! What a connection may hold, and when it is looked after.

use super::window;
use crate::buffer::Pool;
use std::time::Duration;

/// The most that one stream may hold which is not read: what a link of 160 Mbit/s carries in 100 ms.
const MOST_OF_STREAM: usize = 2 << 20;
/// The most that all streams of a connection may hold.
const MOST_OF_CONNECTION: usize = 8 << 20;
/// The least.
const LEAST_OF_CONNECTION: usize = 1 << 20;

/// What a connection may hold, and when it is looked after.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::transport) struct Options {
    /// The first window of a stream.
    pub(super) first: u32,
    /// The most that it grows to.
    pub(super) most: u32,
    /// The window of a whole connection.
    pub(super) connection: u32,
    /// When a client pings.
    pub(super) keepalive: Option<KeepAlive>,
}

/// When a client pings to see that its server is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::transport) struct KeepAlive {
    /// After so long without a byte.
    pub(in crate::transport) idle: Duration,
    /// How long it waits then.
    pub(in crate::transport) timeout: Duration,
    /// Whether it does so on a connection without streams.
    pub(in crate::transport) without_stream: bool,
}

impl Options {
    /// Windows that fit the memory there is. `first`: the configured window of a stream; 0 for ours.
    pub(in crate::transport) fn new(pool: &Pool, first: u32, keepalive: Option<KeepAlive>) -> Self {
        let connection = (pool.limit() / 4).clamp(LEAST_OF_CONNECTION, MOST_OF_CONNECTION);
        let bytes = |n: usize| u32::try_from(n).unwrap_or(u32::MAX >> 1);
        let most = bytes(MOST_OF_STREAM.min(connection / 2));
        let first = if first == 0 { window::FIRST } else { first };
        Self { first: first.clamp(65_535, most), most, connection: bytes(connection), keepalive }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_fit_the_memory() {
        let of = |pool: usize, first| Options::new(&Pool::new(pool), first, None);
        assert_eq!((of(16 << 20, 0).first, of(16 << 20, 0).most), (256 << 10, 2 << 20));
        assert_eq!((of(1 << 20, 0).connection, of(1 << 20, 0).most), (1 << 20, 512 << 10));
        assert_eq!((of(1 << 30, u32::MAX).first, of(1 << 30, 1).first), (2 << 20, 65_535));
        assert_eq!(of(usize::MAX, 0).connection, 8 << 20);
    }
}
