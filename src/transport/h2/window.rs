//! How large flow-control windows have to be for a link: what arrives within one round trip, and as much again.

/// The window of a stream before anything is known of the link.
pub(super) const FIRST: u32 = 256 << 10;
/// What a connection has received before the link is measured for the first time.
const BEFORE_FIRST: u64 = 64 << 10;

/// The measuring of one connection. A ping goes out while much is arriving; what has come until it is answered is what
/// the link holds. Nothing is sent on a connection that is idle, or whose windows are as large as they may be.
#[derive(Debug)]
pub(super) struct Bandwidth {
    window: u32,
    most: u32,
    /// How much had come when the ping left that is under way.
    sample: Option<u64>,
    /// The amount from which the next ping is worth it.
    next: u64,
}

impl Bandwidth {
    /// Begins with `window` bytes for each stream; it never becomes more than `most`.
    pub(super) const fn new(window: u32, most: u32) -> Self {
        Self { window, most, sample: None, next: BEFORE_FIRST }
    }

    /// Whether to ping now, with so many bytes received in all. If so, the measuring has begun.
    pub(super) const fn begins(&mut self, received: u64) -> bool {
        let begins = self.window < self.most && self.sample.is_none() && received >= self.next;
        if begins {
            self.sample = Some(received);
        }
        begins
    }

    /// The ping has been answered, with so many bytes received in all. Returns the new window if it is to grow.
    pub(super) fn measured(&mut self, received: u64) -> Option<u32> {
        let came = received.saturating_sub(self.sample.take()?);
        let window = u64::from(self.window);
        self.next = received.saturating_add(window);
        if came.saturating_mul(3) < window.saturating_mul(2) {
            return None;
        }
        let grown = came.max(window).saturating_mul(2).min(u64::from(self.most));
        self.window = u32::try_from(grown).unwrap_or(self.most);
        Some(self.window)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_that_is_filled_in_a_round_trip_grows_to_its_bound() {
        let mut bandwidth = Bandwidth::new(FIRST, 2 << 20);
        let mut received = 0;
        let mut windows = Vec::new();
        while windows.last() != Some(&(2 << 20)) {
            received += u64::from(bandwidth.window);
            assert!(bandwidth.begins(received) && !bandwidth.begins(received), "one at a time");
            received += u64::from(bandwidth.window);
            windows.extend(bandwidth.measured(received));
        }
        assert_eq!(windows, [512 << 10, 1 << 20, 2 << 20]);
        assert!(!bandwidth.begins(u64::MAX), "no ping is worth anything any more");
    }

    #[test]
    fn a_slow_link_keeps_small_windows_and_is_seldom_asked() {
        let mut bandwidth = Bandwidth::new(FIRST, 2 << 20);
        assert!(!bandwidth.begins(1000) && bandwidth.begins(100_000));
        assert_eq!(bandwidth.measured(110_000), None);
        assert!(!bandwidth.begins(110_000 + u64::from(FIRST) - 1));
        assert!(bandwidth.begins(110_000 + u64::from(FIRST)));
        assert_eq!(Bandwidth::new(FIRST, FIRST).measured(1 << 40), None, "nobody asked");
    }
}
