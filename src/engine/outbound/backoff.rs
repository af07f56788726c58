//! Back-off from servers that cannot be connected: while it lasts, flows are refused at once instead of late.

use crate::entropy::Entropy;
use crate::time::Moment;
use std::cell::Cell;
use std::time::Duration;

/// The first back-off; each further failure doubles it.
const FIRST: Duration = Duration::from_secs(1);
/// The longest.
const LONGEST: Duration = Duration::from_secs(30);

/// How a set of servers has fared. Jitter keeps many devices from coming back in step.
#[derive(Debug)]
pub(super) struct Backoff {
    /// So many consecutive failures are borne without backing off.
    patience: u32,
    failures: Cell<u32>,
    /// When the last failure was counted, and until when nothing is tried after it.
    window: Cell<(Moment, Moment)>,
}

impl Backoff {
    /// Nothing has failed; `patience` consecutive failures are borne.
    pub(super) const fn new(patience: u32) -> Self {
        Self { patience, failures: Cell::new(0), window: Cell::new((Moment::ZERO, Moment::ZERO)) }
    }

    /// Whether a connection may be tried.
    pub(super) fn admits(&self, now: Moment) -> bool {
        now >= self.window.get().1
    }

    /// Counts a failure of an attempt that began at `began`. Attempts that were under way when another failure was
    /// counted say nothing new once backing off has begun.
    pub(super) fn failed(&self, began: Moment, now: Moment, entropy: &mut dyn Entropy) {
        let (counted, _) = self.window.get();
        let failures = self.failures.get();
        if failures > self.patience && began <= counted {
            return;
        }
        self.failures.set(failures.saturating_add(1));
        let excess = self.failures.get().saturating_sub(self.patience);
        let wait = match excess {
            0 => Duration::ZERO,
            n => {
                let whole = FIRST.saturating_mul(1 << (n - 1).min(10)).min(LONGEST);
                // Three quarters to the whole of it.
                let quarter = u32::try_from(whole.as_millis() / 4).unwrap_or(u32::MAX);
                whole - Duration::from_millis(entropy.below(quarter.max(1)).into())
            }
        };
        self.window.set((now, now + wait));
    }

    /// A connection was made, or the network is another one: all is forgiven.
    pub(super) fn reset(&self) {
        self.failures.set(0);
        self.window.set((Moment::ZERO, Moment::ZERO));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entropy::SeededEntropy;

    fn wait(backoff: &Backoff) -> Duration {
        let (from, until) = backoff.window.get();
        until.since(from)
    }

    #[test]
    fn waits_double_up_to_half_a_minute_and_a_success_ends_them() {
        let (backoff, mut entropy) = (Backoff::new(1), SeededEntropy::new(7));
        let mut now = Moment::from_millis(1000);
        backoff.failed(now, now, &mut entropy);
        assert!(backoff.admits(now), "one failure is borne");
        for whole in [1, 2, 4, 8, 16, 30, 30, 30] {
            let began = now + Duration::from_millis(1);
            now = began + Duration::from_secs(3);
            backoff.failed(began, now, &mut entropy);
            let (wait, whole) = (wait(&backoff), Duration::from_secs(whole));
            assert!(wait <= whole && wait >= whole * 3 / 4, "{wait:?} of {whole:?}");
            assert!(!backoff.admits(now) && backoff.admits(now + wait));
            now = now + wait;
        }
        backoff.reset();
        assert!(backoff.admits(now) && backoff.failures.get() == 0);
    }

    #[test]
    fn attempts_that_fail_together_count_once() {
        let (backoff, mut entropy) = (Backoff::new(1), SeededEntropy::new(7));
        let began = Moment::from_millis(1000);
        for millis in 2000..2100 {
            backoff.failed(began, Moment::from_millis(millis), &mut entropy);
        }
        assert!(wait(&backoff) <= FIRST, "{:?}", wait(&backoff));
    }
}
