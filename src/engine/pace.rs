//! How often a shard's thread looks for what has come, while much comes in small pieces.
//!
//! A fast sender wakes its receiver for every piece, and pays for that as the receiver does: V2Ray's server on TLS writes
//! 8 KiB at a time, and half of a download's processor time went into waking up. So while a thread moves much in small
//! pieces it waits for a moment before it sleeps, and what comes meanwhile comes in one piece. That it does only while there
//! is more to find after the wait: ends that wait for each other's answers would be slowed down for nothing.

use std::cell::RefCell;
use std::time::{Duration, Instant};

/// How long the thread waits before it sleeps. The system makes it a little longer.
const WAIT: Duration = Duration::from_micros(200);
/// How long is looked at before anything is decided.
const WINDOW: Duration = Duration::from_millis(2);
/// The least that moves in a second, in bytes, for waiting to be worth while.
const MUCH: u64 = 40 << 20;
/// Pieces of this size, in bytes, are large enough.
const LARGE: u64 = 64 << 10;
/// For how long waiting is given up, at first and at most, after it has brought nothing.
const GIVEN_UP: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(3));

thread_local! {
    static PACE: RefCell<Pace> = RefCell::new(Pace::new(now()));
}

/// Counts payload that this thread has moved.
pub(super) fn moved(bytes: usize) {
    PACE.with_borrow_mut(|pace| pace.moved = pace.moved.saturating_add(bytes as u64));
}

/// Waits for a moment where that is worth while; the runtime calls it before the thread sleeps.
pub(super) fn before_sleep() {
    if PACE.with_borrow_mut(|pace| pace.waits(now())) {
        #[allow(clippy::disallowed_methods, reason = "nothing is to happen on this thread meanwhile")]
        std::thread::sleep(WAIT);
    }
}

/// The time, which no test turns: the thread really sleeps.
#[allow(clippy::disallowed_methods, reason = "a shard's clock stands still in tests")]
fn now() -> Instant {
    Instant::now()
}

/// What has been seen of a thread.
struct Pace {
    /// Since when `moved` and `sleeps` count.
    since: Instant,
    moved: u64,
    sleeps: u64,
    waiting: Option<Waiting>,
    /// Until when waiting is given up, and for how long the next time.
    given_up: (Instant, Duration),
}

/// How waiting goes.
struct Waiting {
    /// How much moved between two sleeps before it began, in bytes.
    before: u64,
    /// Whether more has moved since.
    pays: bool,
}

impl Pace {
    const fn new(now: Instant) -> Self {
        Self { since: now, moved: 0, sleeps: 0, waiting: None, given_up: (now, GIVEN_UP.0) }
    }

    /// Whether the thread, which is about to sleep, should wait first.
    fn waits(&mut self, now: Instant) -> bool {
        self.sleeps += 1;
        let time = now.saturating_duration_since(self.since);
        if time >= WINDOW {
            self.decide(now, time);
            (self.since, self.moved, self.sleeps) = (now, 0, 0);
        }
        self.waiting.is_some()
    }

    fn decide(&mut self, now: Instant, time: Duration) {
        let piece = self.moved / self.sleeps.max(1);
        let is_much = u128::from(self.moved) * 1_000_000 >= u128::from(MUCH) * time.as_micros();
        match &mut self.waiting {
            None if is_much && piece < LARGE && now >= self.given_up.0 => {
                self.waiting = Some(Waiting { before: piece, pays: false });
            }
            None => {}
            Some(waiting) if is_much && piece >= waiting.before * 3 / 2 => {
                waiting.pays = true;
                self.given_up.1 = GIVEN_UP.0;
            }
            Some(waiting) => {
                let again = self.given_up.1;
                self.given_up = (now + again, if waiting.pays { again } else { (again * 2).min(GIVEN_UP.1) });
                self.waiting = None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A thread that sleeps every `gap`, and in between moves `piece` bytes, or what `more` makes of them while it waits.
    struct Thread {
        pace: Pace,
        now: Instant,
    }

    impl Thread {
        fn new() -> Self {
            let now = now();
            Self { pace: Pace::new(now), now }
        }

        /// Lives for a while; how often it slept, and how often it waited before.
        fn live(&mut self, time: Duration, (piece, gap): (u64, u64), more: u64) -> (u32, u32) {
            let (until, mut sleeps, mut waits) = (self.now + time, 0, 0);
            let mut waited = false;
            while self.now < until {
                self.pace.moved += if waited { piece * more } else { piece };
                self.now += Duration::from_micros(gap) + if waited { WAIT } else { Duration::ZERO };
                waited = self.pace.waits(self.now);
                sleeps += 1;
                waits += u32::from(waited);
            }
            (sleeps, waits)
        }
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_fast_sender_of_small_pieces_is_waited_for() {
        let mut thread = Thread::new();
        let (sleeps, waits) = thread.live(SECOND, (8192, 40), 6);
        assert!(waits > sleeps * 9 / 10, "{waits} of {sleeps}");
        // It ends with the haste.
        let (sleeps, waits) = thread.live(SECOND, (8192, 1000), 1);
        assert!(waits < 20 && sleeps > 900, "{waits} of {sleeps}");
    }

    #[test]
    fn little_large_pieces_and_nothing_are_not_waited_for() {
        for (piece, gap) in [(8192, 400), (100_000, 40), (0, 10), (1400, 100)] {
            assert_eq!(Thread::new().live(SECOND, (piece, gap), 6).1, 0, "{piece} bytes in {gap} us");
        }
    }

    #[test]
    fn waiting_that_brings_nothing_is_given_up_for_longer_and_longer() {
        let mut thread = Thread::new();
        // Two ends that wait for each other: nothing more comes, however long one waits.
        let (sleeps, waits) = thread.live(SECOND * 30, (8192, 40), 1);
        assert!(waits * 100 < sleeps, "{waits} of {sleeps}");
        assert_eq!(thread.pace.given_up.1, GIVEN_UP.1);
        // One success, and the next failure is forgiven sooner.
        thread.now += GIVEN_UP.1;
        thread.live(SECOND, (8192, 40), 6);
        assert_eq!(thread.pace.given_up.1, GIVEN_UP.0);
    }
}
