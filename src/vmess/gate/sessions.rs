//! What a gate remembers of connections: auth ids, sessions, and legacy signatures that were tampered with.

use super::replay::{Mark, Memory, Verdict};
use crate::entropy::Entropy;
use crate::vmess::Id;
use crate::vmess::auth::AuthId;
use crate::vmess::keys::BodyKeys;
use aes::Aes128Enc;
use aes::cipher::{BlockCipherEncrypt, KeyInit};
use std::fmt;
use zeroize::Zeroizing;

/// The three memories, and the secret that marks are made with.
pub(super) struct History {
    secret: Aes128Enc,
    auth_ids: Memory,
    sessions: Memory,
    tainted: Memory,
}

impl History {
    /// Each memory holds at most `bound` marks, and `per_user` of one user.
    pub(super) fn new(bound: usize, per_user: usize, now: i64, entropy: &mut dyn Entropy) -> Self {
        let mut key = Zeroizing::new([0; 16]);
        entropy.fill(&mut *key);
        let memory = || Memory::new(bound, per_user, now);
        Self {
            secret: Aes128Enc::new((&*key).into()),
            auth_ids: memory(),
            sessions: memory(),
            tainted: memory(),
        }
    }

    /// Changes the bounds of each memory.
    pub(super) fn set_bounds(&self, bound: usize, per_user: usize) {
        for memory in [&self.auth_ids, &self.sessions, &self.tainted] {
            memory.set_bounds(bound, per_user);
        }
    }

    /// Remembers an auth id; [`Verdict::Seen`] is a replay.
    pub(super) fn auth_id(&self, user: &Id, auth_id: &AuthId, now: i64) -> Verdict {
        self.auth_ids.insert(self.user(user), self.mark(&[auth_id]), now)
    }

    /// Remembers a session, which its request's keys name; [`Verdict::Seen`] is a replay.
    pub(super) fn session(&self, user: &Id, keys: &BodyKeys, now: i64) -> Verdict {
        self.sessions.insert(self.user(user), self.mark(&[user.as_bytes(), &keys.key, &keys.iv]), now)
    }

    /// Remembers that a legacy signature came with a bad header: it opens nothing any more. Without room it is
    /// not remembered, but then no session is either, and nothing is accepted.
    pub(super) fn taint(&self, user: &Id, auth: &[u8; 16], now: i64) -> Verdict {
        self.tainted.insert(self.user(user), self.mark(&[auth]), now)
    }

    /// Whether a legacy signature came with a bad header before.
    pub(super) fn is_tainted(&self, user: &Id, auth: &[u8; 16]) -> bool {
        self.tainted.contains(self.user(user), self.mark(&[auth]))
    }

    fn user(&self, id: &Id) -> Mark {
        self.mark(&[id.as_bytes()])
    }

    /// CBC-MAC, which is sound for a fixed number of blocks: no memory has marks of two lengths. Of one block it
    /// is a permutation, so that two auth ids never share a mark.
    fn mark(&self, blocks: &[&[u8; 16]]) -> Mark {
        let mut state = [0; 16];
        for block in blocks {
            state.iter_mut().zip(*block).for_each(|(byte, next)| *byte ^= next);
            self.secret.encrypt_block((&mut state).into());
        }
        Mark::from_be_bytes(state)
    }
}

impl fmt::Debug for History {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("History(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entropy::SeededEntropy;

    #[test]
    fn a_session_is_user_key_and_iv() {
        let history = History::new(100, 100, 0, &mut SeededEntropy::new(1));
        let user = |byte| Id::from_bytes([byte; 16]);
        let keys = |key, iv| BodyKeys { key: [key; 16], iv: [iv; 16] };
        assert_eq!(history.session(&user(1), &keys(2, 3), 0), Verdict::New);
        for (who, keys) in [(2, keys(2, 3)), (1, keys(3, 3)), (1, keys(2, 2)), (1, keys(3, 2))] {
            assert_eq!(history.session(&user(who), &keys, 0), Verdict::New);
        }
        assert_eq!(history.session(&user(1), &keys(2, 3), 300), Verdict::Seen);
    }

    #[test]
    fn a_taint_is_remembered() {
        let history = History::new(100, 100, 0, &mut SeededEntropy::new(1));
        let user = Id::from_bytes([1; 16]);
        assert!(!history.is_tainted(&user, &[9; 16]));
        assert_eq!(history.taint(&user, &[9; 16], 0), Verdict::New);
        assert!(history.is_tainted(&user, &[9; 16]) && !history.is_tainted(&user, &[8; 16]));
    }

    #[test]
    fn marks_differ_between_gates() {
        let [one, two] = [1, 2].map(|seed| History::new(1, 1, 0, &mut SeededEntropy::new(seed)));
        assert_ne!(one.mark(&[&[0; 16]]), two.mark(&[&[0; 16]]));
    }
}
