//! The users, and finding the one who made an auth id.

use super::keyring::{Keyring, LANES, Maker, RoundKeys, Sought};
use super::tags::SECONDS;
use crate::vmess::Id;
use crate::vmess::auth::AuthId;
use crate::vmess::id::CmdKey;
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

/// A user as the config or the interface gives it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// The id.
    pub id: Id,
    /// How many alter ids the user has. With none, only AEAD headers are taken.
    pub alter_id: u16,
    /// The policy level.
    pub level: u32,
    /// The name in counters and rules; may be empty.
    pub email: Arc<str>,
    /// Leaves out the terminating chunk of this user's downlinks.
    pub no_termination_signal: bool,
}

/// Legacy ids would need more tags than the limit allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the users' alter ids need {needed} legacy tags, {limit} are allowed")]
pub struct TooManyTags {
    /// How many tags they need.
    pub needed: usize,
    /// How many are allowed.
    pub limit: usize,
}

/// All users of one gate: an immutable snapshot, swapped whole when users come or go.
///
/// A user takes 176 bytes of round keys, 16 of command key and 56 for [`User`], plus the e-mail's text.
#[derive(Default)]
pub struct Users {
    users: Box<[User]>,
    cmd_keys: Box<[CmdKey]>,
    keyring: Keyring,
}

/// What a user costs, of the 250 bytes that the documentation says.
const _: () = assert!(176 + size_of::<CmdKey>() + size_of::<User>() <= 250);

impl Users {
    /// Prepares the keys of `users`: some 2 µs each. Users may share an id; the first one is found then.
    pub fn new(users: Vec<User>) -> Self {
        Self::after(users, &Self::default())
    }

    /// The same, but takes over the keys of those who are among `before`, which costs a tenth.
    pub fn after(users: Vec<User>, before: &Self) -> Self {
        let known: HashMap<&Id, usize> =
            before.users.iter().enumerate().map(|(index, user)| (&user.id, index)).collect();
        // Room for all at once: what grows leaves copies of keys behind.
        let mut cmd_keys = Vec::with_capacity(users.len());
        let mut keyring = Keyring::with_capacity(users.len());
        for user in &users {
            let known = known.get(&user.id).and_then(|&index| before.keys(index));
            let (cmd_key, round_keys) = known.unwrap_or_else(|| {
                let cmd_key = user.id.cmd_key();
                let round_keys = RoundKeys::new(&cmd_key);
                (cmd_key, round_keys)
            });
            cmd_keys.push(cmd_key);
            keyring.push(&round_keys);
        }
        Self { users: users.into(), cmd_keys: cmd_keys.into(), keyring }
    }

    fn keys(&self, index: usize) -> Option<(CmdKey, RoundKeys)> {
        Some((self.cmd_keys.get(index)?.clone(), self.keyring.get(index)?))
    }

    /// The user at `index`.
    pub fn get(&self, index: usize) -> Option<&User> {
        self.users.get(index)
    }

    /// Every user, in order.
    pub fn iter(&self) -> std::slice::Iter<'_, User> {
        self.users.iter()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.users.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.users.is_empty()
    }

    /// How many tags the legacy table needs for these users: every id, main and alter, of those with alter
    /// ids, in each of the 274 seconds that the table covers.
    pub fn legacy_tags_needed(&self) -> usize {
        legacy_tags_needed(self.users.iter().map(|user| user.alter_id))
    }

    /// Holds [`Users::legacy_tags_needed`] against a limit.
    ///
    /// # Errors
    /// [`TooManyTags`].
    pub fn check_legacy_tags(&self, limit: usize) -> Result<(), TooManyTags> {
        check_legacy_tags(self.users.iter().map(|user| user.alter_id), limit)
    }

    pub(super) fn cmd_key(&self, index: usize) -> Option<&CmdKey> {
        self.cmd_keys.get(index)
    }

    /// The position of the first user with this id.
    pub(super) fn position(&self, id: &Id) -> Option<usize> {
        self.users.iter().position(|user| user.id == *id)
    }

    /// Finds the user who made `auth_id` at a time that is acceptable `now`, trying the one at `hint` first,
    /// together with the few whose keys are tried at once.
    ///
    /// Whoever made it too early or too late is not found. A miss tries every key, and those of the hint twice,
    /// whatever `auth_id` is.
    pub(super) fn find(&self, auth_id: &AuthId, now: i64, hint: usize) -> Option<Found> {
        let sought = Sought::new(auth_id, now);
        let found = |group, tried| {
            let Maker { index, sent } = self.keyring.find_in(group, &sought)?;
            Some(Found { index, sent, tried })
        };
        found(hint / LANES, 1)
            .or_else(|| (0..self.keyring.groups()).find_map(|group| found(group, group + 2)))
    }

    /// How many times a miss of [`Users::find`] tries.
    pub(super) const fn tries(&self) -> usize {
        self.keyring.groups() + 1
    }

    /// Tries as often as [`Users::find`] left out after `tried` times, for the time that it takes.
    pub(super) fn try_rest(&self, auth_id: &AuthId, tried: usize, now: i64) {
        self.keyring.feign(tried.saturating_sub(1), &Sought::new(auth_id, now));
    }
}

impl fmt::Debug for Users {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Users").field("len", &self.len()).finish_non_exhaustive()
    }
}

impl<'a> IntoIterator for &'a Users {
    type Item = &'a User;
    type IntoIter = std::slice::Iter<'a, User>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// Who made an auth id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Found {
    /// The user.
    pub(super) index: usize,
    /// When, by the user's clock, in unix seconds.
    pub(super) sent: i64,
    /// How many times keys were tried, that of the hint included.
    pub(super) tried: usize,
}

/// How many tags users with these numbers of alter ids need: what [`Users::legacy_tags_needed`] says, before
/// there are [`Users`].
pub fn legacy_tags_needed(alter_ids: impl IntoIterator<Item = u16>) -> usize {
    let with = alter_ids.into_iter().filter(|&count| count > 0);
    with.fold(0, |sum: usize, count| sum.saturating_add((usize::from(count) + 1) * SECONDS))
}

/// Holds [`legacy_tags_needed`] against a limit: the one rule for configs, the interface and gates.
///
/// # Errors
/// [`TooManyTags`].
pub fn check_legacy_tags(alter_ids: impl IntoIterator<Item = u16>, limit: usize) -> Result<(), TooManyTags> {
    match legacy_tags_needed(alter_ids) {
        needed if needed > limit => Err(TooManyTags { needed, limit }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vmess::auth::AuthCipher;
    use crate::vmess::gate::testing::{NOW, user};

    #[test]
    fn every_user_is_found_whatever_the_hint() {
        let users = Users::new((0..80).map(|n| user(n, 0)).collect());
        for index in [0, 1, 19, 31, 32, 63, 64, 79] {
            let auth_id = AuthCipher::new(&users.cmd_keys[index]).seal(NOW, [1, 2, 3, 4]);
            for hint in (0..100).step_by(3).chain([index]) {
                let found = users.find(&auth_id, NOW, hint).expect("a user's");
                assert_eq!((found.index, found.sent), (index, NOW), "hint {hint}");
                let group = index / LANES;
                assert_eq!(found.tried, if hint / LANES == group { 1 } else { group + 2 });
            }
            assert_eq!(users.find(&auth_id, NOW + 120, 0).map(|found| found.index), Some(index));
            assert_eq!(users.find(&auth_id, NOW - 120, 0).map(|found| found.index), Some(index));
            assert_eq!(users.find(&auth_id, NOW + 121, 0), None);
            assert_eq!(users.find(&auth_id, NOW - 121, 0), None);
        }
    }

    #[test]
    fn of_users_who_share_an_id_the_first_is_found() {
        let users = Users::new(vec![user(1, 0), user(2, 0), user(1, 4)]);
        let auth_id = AuthCipher::new(&users.cmd_keys[2]).seal(NOW, [0; 4]);
        assert_eq!(users.find(&auth_id, NOW, 1).map(|found| found.index), Some(0));
    }

    #[test]
    fn who_comes_and_goes_leaves_the_others_their_keys() {
        let all = |range: std::ops::Range<u32>| range.map(|n| user(n, 0)).collect::<Vec<_>>();
        let before = Users::new(all(0..50));
        let mut next = all(5..70);
        next.rotate_left(7);
        let after = Users::after(next.clone(), &before);
        assert_eq!(after.iter().cloned().collect::<Vec<_>>(), next);
        for (index, user) in next.iter().enumerate() {
            let auth_id = AuthCipher::new(&user.id.cmd_key()).seal(NOW, [1, 2, 3, 4]);
            assert_eq!(after.find(&auth_id, NOW, 0).map(|found| found.index), Some(index));
            assert_eq!(after.cmd_key(index).map(CmdKey::as_bytes), Some(user.id.cmd_key().as_bytes()));
        }
        let gone = AuthCipher::new(&user(0, 0).id.cmd_key()).seal(NOW, [1, 2, 3, 4]);
        assert_eq!(after.find(&gone, NOW, 0), None);
    }

    #[test]
    fn tags_are_counted_before_they_are_made() {
        let users = Users::new(vec![user(1, 0), user(2, 1), user(3, u16::MAX)]);
        assert_eq!(users.legacy_tags_needed(), (2 + 65_536) * SECONDS);
        let needed = users.legacy_tags_needed();
        assert_eq!(users.check_legacy_tags(needed), Ok(()));
        assert_eq!(users.check_legacy_tags(needed - 1), Err(TooManyTags { needed, limit: needed - 1 }));
        // What the default limit of two million is good for.
        assert_eq!(2_000_000 / SECONDS, 7299);
    }
}
