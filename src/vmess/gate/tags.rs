//! The legacy signatures that are acceptable now: a rolling hash table, one entry for each id and second.
//!
//! A signature is the HMAC of a second under an id; finding whose and when it is means knowing all of them. The
//! first 64 bits of each are its tag. The table is made of buckets of eight words: 31 bits of the tag say in
//! which bucket an entry lies, 33 are kept in its word, next to the second (9 bits) and the id (22 bits). A
//! second bucket follows from the next 32 bits of the signature, and a new entry goes to the emptier of the
//! two. Looking up reads two buckets, 128 bytes, whatever is looked for and however many users there are; what
//! is found is verified by signing again.
//!
//! Words are atomic: entries are written over expired ones while others look up, and nobody waits. A tag costs
//! 12.8 bytes, and an id 36 besides.

use super::users::{User, Users};
use crate::vmess::Id;
use crate::vmess::account::alter_ids;
use crate::vmess::legacy::{AUTH_LEN, AuthKey};
use std::fmt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

/// How far the second that a legacy client signs may be from the server's clock, either way. V2Ray's clients
/// draw up to 30 seconds on top of what their clocks are off.
pub const LEGACY_TOLERANCE: i64 = 135;

/// Seconds that the table covers beyond what is acceptable, so that it need not be advanced every second.
const AHEAD: i64 = 3;
/// Seconds that the table covers.
pub const SECONDS: usize = (2 * LEGACY_TOLERANCE + 1 + AHEAD) as usize;

/// Words in a bucket: a cache line.
const BUCKET: usize = 8;
/// Entries that a bucket is meant for.
const FILL: usize = 5;
/// Seconds in which every bucket is freed of expired entries, before their nine bits of time come round again.
const SWEEP: i64 = 128;

const ID_BITS: u32 = 22;
const SECOND_BITS: u32 = 9;
/// The part of a word that was the tag's.
const PRINT: u64 = !0 << (ID_BITS + SECOND_BITS);
/// Seconds after which the bits of a second repeat.
const CYCLE: i64 = 1 << SECOND_BITS;

/// Seconds between two advances from which on the table is emptied first: an entry could be older than that.
const LEAP: u64 = (CYCLE - SECONDS as i64 - SWEEP) as u64;

const _: () = assert!(LEAP > 60);

/// A user whose legacy headers are taken.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Member {
    id: Id,
    alter_id: u16,
}

/// The table.
pub(super) struct Tags {
    members: Box<[Member]>,
    /// Every id, and the member it belongs to.
    ids: Box<[(AuthKey, u32)]>,
    words: Box<[AtomicU64]>,
    /// The seconds that are in the table, as first and behind last; whoever changes it advances.
    covered: Mutex<(i64, i64)>,
    /// Unix seconds of the last advance.
    advanced_at: AtomicI64,
}

/// Whose a signature is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Signer<'a> {
    /// The user's own id.
    pub(super) id: &'a Id,
    /// The second that was signed, in unix seconds.
    pub(super) sent: i64,
}

impl Tags {
    /// Makes the table of the users with alter ids, for `now`: about 1 µs for each of
    /// [`Users::legacy_tags_needed`] tags. `None` without such users, and beyond `limit`.
    pub(super) fn new(users: &Users, limit: usize, now: i64) -> Option<Self> {
        let members = members(users.iter());
        let needed = users.legacy_tags_needed();
        let most = limit.min(SECONDS << ID_BITS);
        if members.is_empty() || needed > most {
            return None;
        }
        let ids: Box<[(AuthKey, u32)]> =
            (0..).zip(&members).flat_map(|(n, member)| keys(member, n)).collect();
        let this = Self {
            members,
            ids,
            words: (0..needed.div_ceil(FILL) * BUCKET).map(|_| AtomicU64::new(0)).collect(),
            covered: Mutex::new((now, now)),
            advanced_at: AtomicI64::new(now),
        };
        this.advance(now);
        Some(this)
    }

    /// Whether the table serves exactly these users, so that it can stay when they are swapped for others.
    pub(super) fn serves(&self, users: &Users) -> bool {
        self.members == members(users.iter())
    }

    /// When the table was last advanced, in unix seconds.
    pub(super) fn advanced_at(&self) -> i64 {
        self.advanced_at.load(Ordering::Relaxed)
    }

    /// When the table is to be advanced next, in unix seconds: one second before it has to be.
    pub(super) fn next_advance(&self) -> i64 {
        self.advanced_at().saturating_add(AHEAD - 1)
    }

    /// Brings the table to `now` if that is due. Somebody else at it already is left to it.
    pub(super) fn advance_if_due(&self, now: i64) {
        if !(self.advanced_at()..self.next_advance()).contains(&now) {
            self.advance(now);
        }
    }

    /// Whose `auth` is, if it is acceptable `now`.
    pub(super) fn find(&self, auth: &[u8; AUTH_LEN], now: i64) -> Option<Signer<'_>> {
        let place = Place::of(auth, self.buckets());
        let words = place.buckets.into_iter().flat_map(|bucket| self.bucket(bucket));
        let words = words.map(|word| word.load(Ordering::Relaxed));
        let mut alike = words.filter(|word| word & PRINT == place.print);
        alike.find_map(|word| self.verify(word, auth, now))
    }

    /// Signs again what an entry says was signed.
    fn verify(&self, word: u64, auth: &[u8; AUTH_LEN], now: i64) -> Option<Signer<'_>> {
        let sent = second(word, now.checked_sub(LEGACY_TOLERANCE)?)?;
        let index = (word & ((1 << ID_BITS) - 1)) as usize;
        let (key, member) = self.ids.get(index)?;
        if sent.checked_sub(now)? > LEGACY_TOLERANCE || key.auth(sent) != *auth {
            return None;
        }
        let member = self.members.get(*member as usize)?;
        Some(Signer { id: &member.id, sent })
    }

    fn advance(&self, now: i64) {
        let Ok(mut covered) = self.covered.try_lock() else { return };
        let first = now.saturating_sub(LEGACY_TOLERANCE);
        let last = now.saturating_add(LEGACY_TOLERANCE + AHEAD);
        let before = self.advanced_at();
        if now.abs_diff(before) > LEAP {
            self.words.iter().for_each(|word| word.store(0, Ordering::Relaxed));
            *covered = (first, first);
        } else {
            self.sweep(before, now, first);
        }
        let (from, until) = *covered;
        for sent in (first..=last).filter(|sent| !(from..until).contains(sent)) {
            (0..).zip(&self.ids).for_each(|(n, (key, _))| self.insert(&key.auth(sent), sent, n, first));
        }
        *covered = (first, last.saturating_add(1));
        self.advanced_at.store(now, Ordering::Relaxed);
    }

    /// Frees the share of the buckets that is due after the time between two advances.
    fn sweep(&self, before: i64, now: i64, first: i64) {
        let elapsed = now.abs_diff(before) as usize;
        let buckets = self.buckets() as usize;
        let share = (buckets * elapsed).div_ceil(SWEEP as usize);
        let start = buckets * (before.rem_euclid(SWEEP) as usize) / SWEEP as usize;
        for bucket in (0..buckets).cycle().skip(start).take(share) {
            let expired = |word: &&AtomicU64| is_free(word.load(Ordering::Relaxed), first);
            self.bucket(bucket as u64).filter(expired).for_each(|word| word.store(0, Ordering::Relaxed));
        }
    }

    /// Writes an entry over a free or expired one. With both buckets full, which takes luck of the order of
    /// 2^-40, it is left out, and one id cannot be used in one second.
    fn insert(&self, auth: &[u8; AUTH_LEN], sent: i64, id: u64, first: i64) {
        let place = Place::of(auth, self.buckets());
        let free = |bucket: u64| {
            let free = self.bucket(bucket).filter(|word| is_free(word.load(Ordering::Relaxed), first));
            let mut free = free.peekable();
            let slot = free.peek().copied();
            (free.count(), slot)
        };
        let [one, other] = place.buckets.map(free);
        if let Some(slot) = if one.0 >= other.0 { one.1 } else { other.1 } {
            let second = (sent.rem_euclid(CYCLE) as u64) << ID_BITS;
            slot.store(place.print | second | id, Ordering::Relaxed);
        }
    }

    fn buckets(&self) -> u64 {
        (self.words.len() / BUCKET) as u64
    }

    fn bucket(&self, bucket: u64) -> std::slice::Iter<'_, AtomicU64> {
        let start = bucket as usize * BUCKET;
        self.words.get(start..start + BUCKET).unwrap_or_default().iter()
    }
}

impl fmt::Debug for Tags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tags").field("ids", &self.ids.len()).finish_non_exhaustive()
    }
}

fn members<'a>(users: impl Iterator<Item = &'a User>) -> Box<[Member]> {
    let legacy = users.filter(|user| user.alter_id > 0);
    legacy.map(|user| Member { id: user.id.clone(), alter_id: user.alter_id }).collect()
}

/// The keys of a member's own id and of its alter ids.
fn keys(member: &Member, n: u32) -> impl Iterator<Item = (AuthKey, u32)> {
    let all = std::iter::once(member.id.clone()).chain(alter_ids(&member.id, member.alter_id));
    all.map(move |id| (AuthKey::new(&id), n))
}

/// Where a signature's entry lies, and what is kept of its tag.
struct Place {
    buckets: [u64; 2],
    print: u64,
}

impl Place {
    fn of(auth: &[u8; AUTH_LEN], buckets: u64) -> Self {
        let bits = u128::from_be_bytes(*auth);
        let tag = (bits >> 64) as u64;
        // Both products stay below 2^64: there are fewer than 2^32 buckets.
        let within = |part: u64, width: u32| (part * buckets) >> width;
        let one = within(tag & !PRINT, 64 - PRINT.count_ones());
        let other = within((bits as u64) >> 32, 32);
        Self { buckets: [one, other], print: tag & PRINT }
    }
}

/// The second of an entry, as the first one at or behind `first` that its nine bits fit. `None` outside `i64`.
fn second(word: u64, first: i64) -> Option<i64> {
    let bits = (word >> ID_BITS) as i64 & (CYCLE - 1);
    first.checked_add((bits - first.rem_euclid(CYCLE)).rem_euclid(CYCLE))
}

/// Whether nothing of the window that begins with `first` is in this word.
fn is_free(word: u64, first: i64) -> bool {
    word == 0 || second(word, first).is_none_or(|sent| sent - first >= SECONDS as i64)
}
