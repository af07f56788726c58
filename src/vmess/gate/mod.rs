//! The gate: what stands between a listener and its users, and tells friend from stranger.
//!
//! A [`Gate`] is made once for an inbound and shared by all of its connections, on every thread: the users,
//! the table of legacy signatures, and the memory of what was seen. An [`Acceptor`] reads one connection's
//! header at it. Nothing here reads or writes a socket, and nothing waits: what to do with a stranger is the
//! caller's part.
//!
//! What is refused before it authenticates costs the same, whatever the reason: see [`acceptor`]. The user who
//! was matched last is tried first. That is no oracle: a stranger costs a try of every key in any case, and
//! who is a user learns from the microseconds of an own accept whether the user before was another, which
//! other users' traffic says louder.

pub mod acceptor;
mod clock;
mod keyring;
mod replay;
mod sessions;
mod tags;
#[cfg(test)]
mod testing;
mod users;

pub use acceptor::{Accepted, Acceptor, Refusal, Step};
pub use tags::{LEGACY_TOLERANCE, SECONDS as LEGACY_SECONDS};
pub use users::{TooManyTags, User, Users, check_legacy_tags, legacy_tags_needed};

use super::Id;
use super::auth::AuthId;
use super::id::CmdKey;
use crate::entropy::Entropy;
use acceptor::Refused;
use clock::Clock;
use sessions::History;
use std::fmt;
use std::hint::black_box;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use tags::{Signer, Tags};
use users::Found;

/// Bytes that one of [`GateLimits::replay_entries`] takes at most: the tables of auth ids, sessions and tampered
/// signatures, when each is as empty as one that has just grown.
pub const REPLAY_ENTRY: usize = 3 * 35;

/// How far a drain may end before the handshake's time is up, in milliseconds.
const DRAIN_MILLIS: u32 = 10_000;

/// How old, at a gate's start, what a legacy client signs may be: V2Ray's clients draw 30 seconds.
const LEGACY_DRAW: i64 = 30;

/// How much a gate may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GateLimits {
    /// Auth ids, sessions and tampered signatures that are remembered: so many of each, 17 to 35 bytes each.
    /// With one more, connections are refused until the oldest have had their 300 to 400 seconds.
    pub replay_entries: usize,
    /// The same for one user: how many connections one may make in 300 to 400 seconds.
    pub replay_per_user: usize,
    /// Tags in the table of legacy signatures, 12.8 bytes each. Users who need more are not served under
    /// legacy headers: hold [`Users::check_legacy_tags`] against it first.
    pub legacy_tags: usize,
}

impl Default for GateLimits {
    fn default() -> Self {
        Self { replay_entries: 1 << 20, replay_per_user: 1 << 18, legacy_tags: 2_000_000 }
    }
}

/// What stands between a listener and its users.
pub struct Gate {
    roster: RwLock<Arc<Roster>>,
    /// Held by whoever swaps the roster.
    swapping: Mutex<()>,
    history: History,
    /// [`GateLimits::legacy_tags`], which may change.
    legacy_tags: AtomicUsize,
    clock: Mutex<Clock>,
    /// The user who was matched last.
    hint: AtomicUsize,
    /// Stands in for the key of a user who was not found.
    stranger: CmdKey,
    drain_millis: u64,
}

/// The users and what is made of them; swapped whole.
#[derive(Debug)]
struct Roster {
    users: Arc<Users>,
    tags: Option<Arc<Tags>>,
}

impl Roster {
    /// Takes over another roster's table if it serves the same users with alter ids.
    fn new(users: Users, before: Option<&Arc<Tags>>, limit: usize, now: i64) -> Self {
        let kept = before.filter(|tags| tags.serves(&users)).cloned();
        let tags = kept.or_else(|| Tags::new(&users, limit, now).map(Arc::new));
        Self { users: Arc::new(users), tags }
    }

    /// Does what a look-up left out that found its user after `tried` keys, for the time that it takes.
    fn spend_rest(&self, auth_id: &AuthId, tried: usize, now: i64) {
        self.users.try_rest(auth_id, tried, now);
        black_box(self.tags.as_ref().and_then(|tags| tags.find(auth_id, now)));
    }
}

impl Gate {
    /// Makes a gate that remembers nothing: auth ids from before `started_unix_secs` are refused, since they may
    /// have been used with the gate before it.
    ///
    /// Takes 2 µs a user, and about 1 µs for each of [`Users::legacy_tags_needed`] tags: with thousands of alter ids
    /// not on a thread that serves.
    pub fn new(users: Users, limits: GateLimits, started_unix_secs: i64, entropy: &mut dyn Entropy) -> Self {
        let mut stranger = [0; 16];
        entropy.fill(&mut stranger);
        Self {
            roster: RwLock::new(Arc::new(Roster::new(users, None, limits.legacy_tags, started_unix_secs))),
            swapping: Mutex::new(()),
            history: History::new(limits.replay_entries, limits.replay_per_user, started_unix_secs, entropy),
            legacy_tags: AtomicUsize::new(limits.legacy_tags),
            clock: Mutex::new(Clock::new(started_unix_secs)),
            hint: AtomicUsize::new(0),
            stranger: CmdKey::from_bytes(stranger),
            drain_millis: u64::from(entropy.below(DRAIN_MILLIS)),
        }
    }

    /// The users as they are now.
    pub fn users(&self) -> Arc<Users> {
        Arc::clone(&self.roster().users)
    }

    /// Swaps the users. What is remembered of those who stay, stays; headers that are being read are held
    /// against the new users when they are whole.
    ///
    /// Takes what [`Gate::new`] takes; the table of legacy signatures is made anew only if the users with alter
    /// ids are others than before. Connections go on meanwhile.
    pub fn set_users(&self, users: Users) {
        let _one_at_a_time = self.swapping.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.roster();
        let table = before.tags.as_ref();
        let clock = || self.clock.lock().unwrap_or_else(PoisonError::into_inner).latest();
        let now = table.map_or_else(clock, |tags| tags.advanced_at());
        let after = Arc::new(Roster::new(users, table, self.legacy_tag_limit(), now));
        *self.roster.write().unwrap_or_else(PoisonError::into_inner) = after;
    }

    /// How many tags the table of legacy signatures may have: [`GateLimits::legacy_tags`].
    pub fn legacy_tag_limit(&self) -> usize {
        self.legacy_tags.load(Ordering::Relaxed)
    }

    /// Changes that limit; it counts from the next [`Gate::set_users`] on.
    pub fn set_legacy_tag_limit(&self, limit: usize) {
        self.legacy_tags.store(limit, Ordering::Relaxed);
    }

    /// Changes [`GateLimits::replay_entries`] and [`GateLimits::replay_per_user`]. Nothing that is remembered is forgotten
    /// for it.
    pub fn set_replay_limits(&self, entries: usize, per_user: usize) {
        self.history.set_bounds(entries, per_user);
    }

    /// Brings the table of legacy signatures to `unix_secs`. Cheap when nothing is due; else about 1 µs for each id
    /// and second that is new, and the whole table after a leap of the clock. Nobody who looks something up
    /// waits for it.
    pub fn advance(&self, unix_secs: i64) {
        if let Some(tags) = &self.roster().tags {
            tags.advance_if_due(unix_secs);
        }
    }

    /// When [`Gate::advance`] is due next, in unix seconds; `None` without users who have alter ids.
    pub fn next_advance(&self) -> Option<i64> {
        self.roster().tags.as_ref().map(|tags| tags.next_advance())
    }

    /// This gate's secret of 0 to 10 seconds: by how much the drain of the refused ends before the handshake's
    /// time is up.
    pub fn drain_secret_millis(&self) -> u64 {
        self.drain_millis
    }

    fn roster(&self) -> Arc<Roster> {
        Arc::clone(&self.roster.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whose auth id this is, if it may be used now.
    fn find(&self, roster: &Roster, auth_id: &AuthId, now: i64) -> Result<Found, Refused> {
        let Some(found) = roster.users.find(auth_id, now, self.hint.load(Ordering::Relaxed)) else {
            return Err(Refused { refusal: Refusal::default(), tried: roster.users.tries() });
        };
        match self.judge_time(found.sent, 0, now) {
            Ok(()) => {
                self.hint.store(found.index, Ordering::Relaxed);
                Ok(found)
            }
            Err(refusal) => Err(Refused { refusal, tried: found.tried }),
        }
    }

    /// Whose legacy signature this is, if it may be used now.
    fn find_legacy<'a>(&self, roster: &'a Roster, auth: &[u8; 16], now: i64) -> Result<Signer<'a>, Refusal> {
        let signer =
            roster.tags.as_ref().and_then(|tags| tags.find(auth, now)).ok_or_else(Refusal::default)?;
        let tainted = self.history.is_tainted(signer.id, auth);
        self.judge_time(signer.sent, LEGACY_DRAW, now)?;
        if tainted { Err(Refusal::default()) } else { Ok(signer) }
    }

    /// Whether the memory answers for what was made at `sent`: see [`clock`].
    fn judge_time(&self, sent: i64, draw: i64, now: i64) -> Result<(), Refusal> {
        let mut clock = self.clock.lock().unwrap_or_else(PoisonError::into_inner);
        clock.observe(now);
        if clock.answers_for(sent, draw) {
            return Ok(());
        }
        Err(Refusal { clock_set_back: clock.set_back(now), ..Refusal::default() })
    }

    /// Where this user is now, after the users may have been swapped.
    fn position(&self, roster: &Roster, index: usize) -> Option<(Arc<Users>, usize)> {
        let now = self.roster();
        if Arc::ptr_eq(&now.users, &roster.users) {
            return Some((Arc::clone(&now.users), index));
        }
        let id: &Id = &roster.users.get(index)?.id;
        let index = now.users.position(id)?;
        Some((Arc::clone(&now.users), index))
    }
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gate").field("users", &self.users().len()).finish_non_exhaustive()
    }
}
