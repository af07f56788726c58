//! What a connection may hold, and when it is looked after.

use super::window;
use crate::buffer::Pool;
use std::time::Duration;

/// The most that one stream may hold which is not read: what a link of 160 Mbit/s carries in 100 ms.
const MOST_OF_STREAM: usize = 2 << 20;
/// What all streams of a connection may be sent at least, beside what some of them hold.
const CONNECTION: std::ops::RangeInclusive<usize> = (1 << 20)..=(4 << 20);
/// How many times that is the most that a connection's streams may hold.
const HELD: u32 = 2;

/// What a connection may hold, and when it is looked after.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::transport) struct Options {
    /// The first window of a stream.
    pub(super) first: u32,
    /// The most that it grows to.
    pub(super) most: u32,
    /// The window of a whole connection, beside what its streams hold.
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
        let connection = (pool.limit() / 8).clamp(*CONNECTION.start(), *CONNECTION.end());
        let bytes = |n: usize| u32::try_from(n).unwrap_or(u32::MAX >> 1);
        let most = bytes(MOST_OF_STREAM.min(connection / 2));
        let first = if first == 0 { window::FIRST } else { first };
        Self { first: first.clamp(65_535, most), most, connection: bytes(connection), keepalive }
    }

    /// The most that a connection's streams may hold.
    pub(super) const fn most_held(&self) -> u32 {
        self.connection.saturating_mul(HELD)
    }

    /// The window of a connection whose streams hold so much: what nobody reads does not keep others waiting, up to a
    /// bound.
    pub(super) fn window(&self, held: usize) -> u32 {
        let held = u32::try_from(held).unwrap_or(u32::MAX).min(self.most_held());
        self.connection.saturating_add(held)
    }

    /// After how many further bytes that window is set anew.
    pub(super) fn rebalances_after(&self) -> u64 {
        u64::from(self.connection / 4)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_fit_the_memory() {
        let of = |pool: usize, first| Options::new(&Pool::new(pool), first, None);
        let (small, large) = (of(1 << 20, 0), of(1 << 30, 0));
        assert_eq!((small.first, small.most, small.connection), (256 << 10, 512 << 10, 1 << 20));
        assert_eq!((large.first, large.most, large.connection), (256 << 10, 2 << 20, 4 << 20));
        assert_eq!((of(1 << 30, u32::MAX).first, of(1 << 30, 1).first), (2 << 20, 65_535));
        assert_eq!((large.window(0), large.window(1 << 20)), (4 << 20, 5 << 20));
        assert_eq!(large.window(usize::MAX), 12 << 20, "bounded");
    }
}
