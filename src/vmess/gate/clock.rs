//! Which times of auth ids a memory of some minutes can answer for, whatever the clock does.
//!
//! The memory is exact for what was made in the last minutes. An older auth id may have been used and
//! forgotten; while the clock runs as clocks do, it is long expired, but a clock that is set back makes it fresh
//! again. So it is noted when this gate was in use by its own clock, and times that belong to a period whose
//! memory has faded are refused. After a leap ahead and back that is two minutes; after a clock was set back
//! in error, until it has caught up.

use super::replay::REMEMBERED;
use crate::vmess::auth::CLOCK_TOLERANCE;

const TOLERANCE: i64 = CLOCK_TOLERANCE.cast_signed();
/// Seconds without use after which a new period begins: the memory has faded.
const PAUSE: i64 = 600;
/// How far a clock may be set back without leaving its period: what is acceptable then is still remembered.
const STEP: i64 = REMEMBERED - 2 * TOLERANCE;
/// Periods that are told apart; the oldest are taken for one.
const PERIODS: usize = 16;

const _: () = assert!(STEP > 0);

/// When this gate was in use, by its own clock, in unix seconds.
#[derive(Debug)]
pub(super) struct Clock {
    /// Nothing from before this is accepted: another gate may have seen it.
    began: i64,
    /// The period of now, as its first and latest moment.
    period: (i64, i64),
    past: Vec<(i64, i64)>,
}

impl Clock {
    pub(super) const fn new(now: i64) -> Self {
        Self { began: now, period: (now, now), past: Vec::new() }
    }

    /// The latest moment of the period that the clock is in.
    pub(super) const fn latest(&self) -> i64 {
        self.period.1
    }

    /// Notes that the gate is in use `now`.
    pub(super) fn observe(&mut self, now: i64) {
        let (first, latest) = self.period;
        let set_back = now.saturating_add(STEP) < first;
        if !set_back && now <= latest.saturating_add(PAUSE) {
            self.period.1 = latest.max(now);
            return;
        }
        if set_back {
            self.began = now;
        }
        if self.past.len() == PERIODS {
            let (first, latest) = self.past.remove(0);
            if let Some(next) = self.past.first_mut() {
                *next = (next.0.min(first), next.1.max(latest));
            }
        }
        self.past.push(self.period);
        self.period = (now, now);
    }

    /// By how many seconds the clock is behind what it was before, if that is more than a small step: then users are
    /// refused for it.
    pub(super) fn set_back(&self, now: i64) -> Option<i64> {
        let latest = self.past.iter().map(|&(_, latest)| latest).fold(self.period.1, i64::max);
        Some(latest.saturating_sub(now)).filter(|&seconds| seconds > STEP)
    }

    /// Whether the memory knows of everything that was made at `sent`, with `draw` seconds of grace at the start.
    pub(super) fn answers_for(&self, sent: i64, draw: i64) -> bool {
        let faded = |&(first, latest): &(i64, i64)| {
            (first.saturating_sub(TOLERANCE)..=latest.saturating_add(TOLERANCE)).contains(&sent)
        };
        sent >= self.began.saturating_sub(draw)
            && sent >= self.period.1.saturating_sub(REMEMBERED - TOLERANCE)
            && !self.past.iter().any(faded)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether an auth id that was made at `sent` is taken `now`.
    fn at(clock: &mut Clock, sent: i64, now: i64) -> bool {
        clock.observe(now);
        clock.answers_for(sent, 0)
    }

    #[test]
    fn a_clock_that_runs_on_is_not_in_the_way() {
        let mut clock = Clock::new(-1000);
        let mut now = -800;
        for pause in [0, 1, 60, 599, 600, 601, 602, 10_000, 1, 100_000] {
            now += pause;
            assert!(at(&mut clock, now - TOLERANCE, now) && at(&mut clock, now + TOLERANCE, now), "{pause}");
        }
    }

    #[test]
    fn a_small_step_back_is_not_in_the_way() {
        let mut clock = Clock::new(0);
        assert!(at(&mut clock, 1000, 500) && at(&mut clock, 500 - TOLERANCE, 500));
        assert!(at(&mut clock, 440 - TOLERANCE, 500 - STEP));
        assert!(!at(&mut clock, 439 - TOLERANCE, 500 - STEP));
    }

    #[test]
    fn a_clock_set_back_in_error_has_to_catch_up() {
        let mut clock = Clock::new(0);
        (0..100).for_each(|n| clock.observe(n * 100));
        assert_eq!(clock.period, (0, 9900));
        for now in (5000..9900 - 180).step_by(10) {
            assert!(!at(&mut clock, now, now), "{now}");
            assert_eq!(clock.set_back(now), Some(9900 - now));
        }
        assert!(at(&mut clock, 9900, 9900));
        assert_eq!(clock.set_back(9900 - STEP), None);
    }

    #[test]
    fn a_leap_ahead_and_back_costs_two_minutes() {
        let mut clock = Clock::new(0);
        clock.observe(1000);
        assert!(at(&mut clock, 50_000, 50_000));
        assert!(!at(&mut clock, 1001, 1001) && !at(&mut clock, 1120, 1002));
        assert!(at(&mut clock, 1121, 1002) && at(&mut clock, 1300, 1300));
        assert!(!at(&mut clock, 50_000, 50_000));
    }

    #[test]
    fn a_start_with_a_clock_far_ahead_is_mended() {
        let mut clock = Clock::new(1_000_000);
        assert!(!at(&mut clock, 999, 1000), "it may have been seen before the start");
        assert!(at(&mut clock, 1000, 1000));
    }

    #[test]
    fn periods_are_bounded_and_none_is_lost() {
        let mut clock = Clock::new(0);
        (0..100).for_each(|n| clock.observe(n * 1000));
        assert_eq!(clock.past.len(), PERIODS);
        clock.observe(-10_000);
        assert!((0..99).all(|n| !clock.answers_for(n * 1000, 0)));
        (0..1000).for_each(|n| clock.observe(if n % 2 == 0 { i64::MIN } else { i64::MAX }));
        assert!(clock.past.len() <= PERIODS);
    }
}
