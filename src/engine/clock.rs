//! The clocks: a monotonic one that runs through sleep, and UTC with the host's correction.

use crate::time::Moment;
use rustix::time::{ClockId, clock_gettime};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The clock that keeps running while the device sleeps. Darwin's CLOCK_MONOTONIC is `mach_continuous_time`.
#[cfg(any(target_os = "linux", target_os = "android"))]
const CONTINUOUS: ClockId = ClockId::Boottime;
#[cfg(not(any(target_os = "linux", target_os = "android")))]
const CONTINUOUS: ClockId = ClockId::Monotonic;

/// The clocks of one instance. Clones share the correction of UTC.
#[derive(Debug, Clone)]
pub(crate) struct Clock {
    /// Seconds to add to the system's UTC.
    offset: Arc<AtomicI64>,
    /// The same moment on the clock that runs through sleep and on the one that does not.
    made: (Moment, Instant),
}

impl Default for Clock {
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the clock that rests in sleep")]
    fn default() -> Self {
        Self { offset: Arc::default(), made: (continuous(), Instant::now()) }
    }
}

impl Clock {
    /// The time on the monotonic clock that runs through sleep.
    pub(crate) fn now(&self) -> Moment {
        continuous()
    }

    /// How long the device has slept since the clock was made. Grows by microseconds while it is awake.
    pub(crate) fn slept(&self) -> Duration {
        let (moment, instant) = self.made;
        // In this order a thread that is held up between both reads sees too little sleep, never too much.
        let passed = self.now().since(moment);
        passed.saturating_sub(instant.elapsed())
    }

    /// UTC in seconds since 1970, with the host's correction.
    pub(crate) fn unix_secs(&self) -> i64 {
        (unix_millis() / 1000).saturating_add(self.offset())
    }

    /// UTC in milliseconds since 1970, with the host's correction.
    pub(crate) fn unix_millis(&self) -> i64 {
        unix_millis().saturating_add(self.offset().saturating_mul(1000))
    }

    /// Sets how many seconds the true time is ahead of the system's.
    pub(crate) fn set_offset(&self, seconds: i64) {
        self.offset.store(seconds, Relaxed);
    }

    /// The correction in seconds.
    pub(crate) fn offset(&self) -> i64 {
        self.offset.load(Relaxed)
    }
}

fn continuous() -> Moment {
    let time = clock_gettime(CONTINUOUS);
    let (secs, nanos) = (u64::try_from(time.tv_sec).unwrap_or(0), u64::try_from(time.tv_nsec).unwrap_or(0));
    Moment::from_nanos(secs.saturating_mul(1_000_000_000).saturating_add(nanos))
}

/// The system's UTC in milliseconds since 1970; negative before that.
#[expect(clippy::disallowed_methods, reason = "the one place that asks the system for UTC")]
fn unix_millis() -> i64 {
    match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_millis()).unwrap_or(i64::MAX),
        Err(before) => i64::try_from(before.duration().as_millis()).map_or(i64::MIN, |millis| -millis),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sleep_is_what_only_one_clock_has_counted() {
        let mut clock = Clock::default();
        assert!(clock.slept() < Duration::from_millis(1), "awake");
        clock.made.0 = clock.made.0 - Duration::from_secs(70);
        let slept = clock.slept();
        assert!((Duration::from_secs(69)..Duration::from_secs(71)).contains(&slept), "{slept:?}");
    }

    #[test]
    fn the_correction_moves_utc_alone() {
        let clock = Clock::default();
        let (now, utc) = (clock.now(), clock.unix_secs());
        clock.clone().set_offset(-3600);
        assert!(clock.unix_secs() <= utc - 3599);
        assert!(clock.now() >= now, "monotonic");
        clock.set_offset(i64::MAX);
        assert_eq!(clock.unix_secs(), i64::MAX, "saturates");
    }
}
