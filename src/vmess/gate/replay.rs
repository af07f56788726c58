//! What was seen lately, exactly: a bounded set of marks that forgets by age alone.
//!
//! A mark is 16 bytes under a secret of this gate, so that nobody can choose where it lies. Marks are filed
//! under their user's stripe: a quota is exact, and an accept locks one stripe once. A stripe keeps four
//! generations of 100 seconds and drops the oldest whole, so a mark is remembered for 300 to 400 seconds. When there is no room the newcomer is turned away;
//! nothing is forgotten for it.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// For how long a mark is remembered at least, in seconds.
pub(super) const REMEMBERED: i64 = (GENERATIONS as i64 - 1) * TURN;

const GENERATIONS: usize = 4;
/// Seconds between two turns.
const TURN: i64 = 100;
const STRIPES: usize = 64;

/// 16 bytes that stand for something seen, or for a user, under the gate's secret.
pub(super) type Mark = u128;

/// What a memory made of a mark.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It was not known and is now.
    New,
    /// It was known.
    Seen,
    /// It was not known and is not now: the user has as many marks as one may have.
    Quota,
    /// It was not known and is not now: the memory is full.
    Full,
}

/// A striped set of marks.
#[derive(Debug)]
pub(super) struct Memory {
    stripes: Box<[Mutex<Stripe>]>,
    held: AtomicUsize,
    swept_at: AtomicI64,
    bound: AtomicUsize,
    per_user: AtomicUsize,
}

impl Memory {
    /// Makes a memory of at most `bound` marks, and `per_user` of one user.
    ///
    /// A mark takes 17 to 35 bytes (a hash set, 7/16 to 7/8 full), and a user in a generation 37 to 75.
    /// Nothing is allocated before there are marks.
    pub(super) fn new(bound: usize, per_user: usize, now: i64) -> Self {
        let stripe = || Mutex::new(Stripe { generations: Default::default(), turned_at: now });
        Self {
            stripes: (0..STRIPES).map(|_| stripe()).collect(),
            held: AtomicUsize::new(0),
            swept_at: AtomicI64::new(now),
            bound: AtomicUsize::new(bound),
            per_user: AtomicUsize::new(per_user),
        }
    }

    /// Changes how many marks there may be, in all and of one user. What is remembered stays; beyond the bound newcomers
    /// are turned away.
    pub(super) fn set_bounds(&self, bound: usize, per_user: usize) {
        self.bound.store(bound, Ordering::Relaxed);
        self.per_user.store(per_user, Ordering::Relaxed);
    }

    /// Remembers `mark` of `user`, unless it is known or there is no room for it.
    pub(super) fn insert(&self, user: Mark, mark: Mark, now: i64) -> Verdict {
        self.sweep(now);
        let mut stripe = self.stripe(user);
        self.release(stripe.turn(now));
        if stripe.contains(mark) {
            return Verdict::Seen;
        }
        if stripe.held_by(user) >= self.per_user.load(Ordering::Relaxed) {
            return Verdict::Quota;
        }
        let bound = self.bound.load(Ordering::Relaxed);
        let admit = |held: usize| (held < bound).then_some(held + 1);
        if self.held.fetch_update(Ordering::Relaxed, Ordering::Relaxed, admit).is_err() {
            return Verdict::Full;
        }
        stripe.add(user, mark);
        Verdict::New
    }

    /// Whether `mark` of `user` is known.
    pub(super) fn contains(&self, user: Mark, mark: Mark) -> bool {
        self.stripe(user).contains(mark)
    }

    /// How many marks are held.
    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    /// Once a turn, by whoever comes first, frees what every stripe need not remember any more.
    fn sweep(&self, now: i64) {
        let swept_at = self.swept_at.load(Ordering::Relaxed);
        if (swept_at..swept_at.saturating_add(TURN)).contains(&now)
            || self.swept_at.compare_exchange(swept_at, now, Ordering::Relaxed, Ordering::Relaxed).is_err()
        {
            return;
        }
        for stripe in &self.stripes {
            let freed = locked(stripe).turn(now);
            self.release(freed);
        }
    }

    fn release(&self, freed: usize) {
        self.held.fetch_sub(freed, Ordering::Relaxed);
    }

    fn stripe(&self, user: Mark) -> MutexGuard<'_, Stripe> {
        let index = (user >> 64) as usize % STRIPES;
        locked(self.stripes.get(index).expect("the remainder is below the number of stripes"))
    }
}

/// A panic elsewhere leaves a stripe that is as good as before: every change to it is one call.
fn locked(stripe: &Mutex<Stripe>) -> MutexGuard<'_, Stripe> {
    stripe.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The marks of some of the users.
#[derive(Debug)]
struct Stripe {
    /// The newest first.
    generations: [Generation; GENERATIONS],
    /// When the newest one began.
    turned_at: i64,
}

/// The marks of a hundred seconds.
#[derive(Debug, Default)]
struct Generation {
    marks: HashSet<Mark, Keyed>,
    users: HashMap<Mark, u32, Keyed>,
}

impl Stripe {
    /// Begins new generations if it is time; returns how many marks were forgotten.
    ///
    /// Nothing is forgotten while a clock that was set back catches up. One that was set back by more than the
    /// memory lasts is not waited for: [`super::clock`] answers for what was before.
    fn turn(&mut self, now: i64) -> usize {
        if self.turned_at.saturating_sub(now) > REMEMBERED {
            self.turned_at = now;
        }
        let turns = now.saturating_sub(self.turned_at).max(0) / TURN;
        self.turned_at = self.turned_at.saturating_add(turns.saturating_mul(TURN));
        let turns = usize::try_from(turns).unwrap_or(GENERATIONS).min(GENERATIONS);
        self.generations.rotate_right(turns);
        let gone = self.generations.iter_mut().take(turns).map(std::mem::take);
        gone.map(|generation| generation.marks.len()).sum()
    }

    fn contains(&self, mark: Mark) -> bool {
        self.generations.iter().any(|generation| generation.marks.contains(&mark))
    }

    fn held_by(&self, user: Mark) -> usize {
        let counts = self.generations.iter().filter_map(|generation| generation.users.get(&user));
        counts.map(|&count| count as usize).sum()
    }

    fn add(&mut self, user: Mark, mark: Mark) {
        let [newest, ..] = &mut self.generations;
        newest.marks.insert(mark);
        let count = newest.users.entry(user).or_default();
        *count = count.saturating_add(1);
    }
}

/// The hash of a [`Mark`]: marks are random to everybody but this gate, their low half will do.
#[derive(Debug, Default)]
struct Low(u64);

type Keyed = BuildHasherDefault<Low>;

impl Hasher for Low {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0 = bytes.iter().fold(self.0, |hash, &byte| hash << 8 | u64::from(byte));
    }

    fn write_u128(&mut self, mark: u128) {
        self.0 = mark as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entropy::{Entropy, SeededEntropy};

    fn marks(seed: u64) -> impl Iterator<Item = Mark> {
        let mut entropy = SeededEntropy::new(seed);
        std::iter::repeat_with(move || u128::from(entropy.next_u64()) << 64 | u128::from(entropy.next_u64()))
    }

    #[test]
    fn a_mark_is_known_for_300_seconds_and_gone_after_400() {
        for inserted in 0..TURN {
            let memory = Memory::new(10, 10, 0);
            assert_eq!(memory.insert(1, 2, inserted), Verdict::New);
            for age in [0, 1, 120, 239, 240, 299, REMEMBERED] {
                let verdict = memory.insert(1, 2, inserted + age);
                assert_eq!(verdict, Verdict::Seen, "inserted at {inserted}, {age} s ago");
            }
            assert_eq!(memory.insert(1, 2, inserted + 400), Verdict::New, "inserted at {inserted}");
            assert_eq!(memory.held(), 1);
        }
    }

    #[test]
    fn being_seen_does_not_make_it_younger() {
        let memory = Memory::new(10, 10, 0);
        memory.insert(1, 2, 0);
        for now in (50..400).step_by(50) {
            assert_eq!(memory.insert(1, 2, now), Verdict::Seen);
        }
        assert_eq!(memory.insert(1, 2, 400), Verdict::New);
    }

    #[test]
    fn a_clock_that_is_set_back_forgets_nothing() {
        let memory = Memory::new(10, 10, 1000);
        memory.insert(1, 2, 1000);
        for now in [700, 800, 999, 1000, 1300] {
            assert_eq!(memory.insert(1, 2, now), Verdict::Seen, "{now}");
        }
        assert_eq!(memory.insert(1, 2, 1400), Verdict::New);
        // Far back, time begins anew, and marks age again.
        for now in [-5000, -4700] {
            assert_eq!(memory.insert(1, 2, now), Verdict::Seen, "{now}");
        }
        assert_eq!(memory.insert(1, 2, -4600), Verdict::New);
        for now in [i64::MIN, i64::MAX, i64::MIN] {
            memory.insert(1, 3, now);
        }
        assert!(memory.held() <= 2);
    }

    #[test]
    fn at_the_bound_the_newcomer_is_turned_away_and_age_makes_room() {
        let memory = Memory::new(1000, 1000, 0);
        let known: Vec<(Mark, Mark)> = marks(1).zip(marks(2)).take(1000).collect();
        for &(user, mark) in &known {
            assert_eq!(memory.insert(user, mark, 5), Verdict::New);
        }
        for (user, mark) in marks(3).zip(marks(4)).take(100) {
            assert_eq!(memory.insert(user, mark, 300), Verdict::Full);
        }
        assert!(known.iter().all(|&(user, mark)| memory.insert(user, mark, 304) == Verdict::Seen));
        assert_eq!(memory.held(), 1000);
        // Stripes that nobody asks for give back as well: the first accept of a turn sees to it.
        assert_eq!(memory.insert(1, 1, 405), Verdict::New);
        assert_eq!(memory.held(), 1);
    }

    #[test]
    fn a_bound_that_sinks_forgets_nothing() {
        let memory = Memory::new(100, 100, 0);
        assert!(marks(1).take(100).all(|mark| memory.insert(7, mark, 0) == Verdict::New));
        memory.set_bounds(50, 25);
        assert!(marks(1).take(100).all(|mark| memory.insert(7, mark, 300) == Verdict::Seen));
        assert_eq!((memory.insert(7, 1, 300), memory.insert(8, 2, 300)), (Verdict::Quota, Verdict::Full));
        memory.set_bounds(101, 101);
        assert_eq!((memory.insert(7, 1, 300), memory.insert(8, 2, 300)), (Verdict::New, Verdict::Full));
    }

    #[test]
    fn a_quota_is_one_users_own() {
        let memory = Memory::new(1000, 50, 0);
        for mark in marks(1).take(50) {
            assert_eq!(memory.insert(7, mark, 0), Verdict::New);
        }
        assert_eq!(memory.insert(7, 1, 200), Verdict::Quota);
        let known = marks(1).nth(3).expect("endless");
        assert_eq!(memory.insert(7, known, 200), Verdict::Seen, "known goes before quota");
        // The same stripe, another user.
        assert_eq!(memory.insert(8, 3, 200), Verdict::New);
        assert_eq!(memory.insert(7, 1, 400), Verdict::New);
    }

    #[test]
    fn threads_agree_on_who_was_first() {
        let memory = Memory::new(20_000, 20_000, 0);
        let all: Vec<Mark> = marks(5).take(5000).collect();
        let new = std::thread::scope(|scope| {
            let run = || all.iter().filter(|&&mark| memory.insert(mark % 7, mark, 1) == Verdict::New).count();
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(run)).collect();
            threads.into_iter().map(|thread| thread.join().expect("no panic")).sum::<usize>()
        });
        assert_eq!((new, memory.held()), (5000, 5000));
    }
}
