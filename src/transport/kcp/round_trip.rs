//! How long an acknowledgement takes, and when it is late (as RFC 6298 has it, and V2Ray).

use std::time::Duration;

/// When nothing has been measured yet.
const INITIAL: Duration = Duration::from_millis(100);
/// Measurements above are none.
const MOST: u32 = 10_000;

/// What has been measured, in milliseconds.
#[derive(Debug, Clone)]
pub(super) struct RoundTrip {
    smoothed: Option<u32>,
    variation: u32,
    /// What the peer's acknowledgements may wait: those of V2Ray leave at the steps of its clock.
    step: u32,
    late_after: u32,
}

impl RoundTrip {
    /// Nothing measured.
    pub(super) fn new(step: Duration) -> Self {
        let step = u32::try_from(step.as_millis()).unwrap_or(MOST).min(MOST);
        Self { smoothed: None, variation: 0, step, late_after: INITIAL.as_millis() as u32 }
    }

    /// Takes a measurement up.
    pub(super) fn measured(&mut self, millis: u32) {
        if millis > MOST {
            return;
        }
        let smoothed = match self.smoothed {
            None => {
                self.variation = millis / 2;
                millis
            }
            Some(smoothed) => {
                self.variation = (3 * self.variation + smoothed.abs_diff(millis)) / 4;
                (7 * smoothed + millis) / 8
            }
        };
        self.smoothed = Some(smoothed);
        // A segment may have waited a step longer than the one that was measured.
        let late_after = smoothed + (4 * self.variation).max(self.step);
        self.late_after = (late_after * 5 / 4).clamp(20, MOST);
    }

    /// After how long an acknowledgement is late.
    pub(super) const fn late_after(&self) -> Duration {
        Duration::from_millis(self.late_after as u64)
    }

    /// How long one takes.
    pub(super) fn smoothed(&self) -> Duration {
        Duration::from_millis(self.smoothed.unwrap_or(self.late_after).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn late_is_beyond_what_was_measured_and_a_step() {
        let mut trip = RoundTrip::new(Duration::from_millis(50));
        assert_eq!(trip.late_after(), INITIAL);
        for _ in 0..50 {
            trip.measured(30);
        }
        assert_eq!((trip.smoothed().as_millis(), trip.late_after().as_millis()), (30, 100));
        trip.measured(u32::MAX);
        assert_eq!(trip.late_after().as_millis(), 100, "no measurement");
        for millis in [30, 400].into_iter().cycle().take(100) {
            trip.measured(millis);
        }
        assert!(trip.late_after() > Duration::from_millis(400));
        for _ in 0..50 {
            trip.measured(10_000);
        }
        assert_eq!(trip.late_after(), Duration::from_secs(10));
    }
}
