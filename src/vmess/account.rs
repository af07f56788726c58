//! Alter ids: the other names that a user has under legacy headers.
//!
//! Each is a hash of the one before it, the first of the user's id. A legacy client signs with any of them;
//! headers are encrypted under the command key of the user's own id all the same.

use super::id::Id;
use crate::entropy::Entropy;
use md5::{Digest, Md5};

/// What is hashed behind an id to make the next one.
const SALT: &[u8] = b"16167dc8-16b6-4e6d-b8bb-65dd68113a81";

/// What is hashed behind that for as long as the result is the id itself.
const DISTINCT: &[u8] = b"533eff8a-4113-4b10-b5ce-0f5d76b98cd2";

/// The first `count` alter ids of `id`, in order. Each costs one MD5 when it is asked for.
pub fn alter_ids(id: &Id, count: u16) -> impl Iterator<Item = Id> + use<> {
    let mut last = id.clone();
    (0..count).map(move |_| {
        last = next(&last);
        last.clone()
    })
}

/// The most alter ids that a client draws from.
const DRAWN_FROM: u16 = 64;

/// The alter ids that a client signs with.
///
/// These are the first 64 of them at most. The chain can only be walked from its start, a server takes every
/// link of it alike, and which one signed is seen by nobody else: a longer one would cost and give nothing.
#[derive(Debug, Clone)]
pub struct AlterIds(Box<[Id]>);

impl AlterIds {
    /// Derives what a client needs of the `count` alter ids of `id`.
    pub fn new(id: &Id, count: u16) -> Self {
        Self(alter_ids(id, count.min(DRAWN_FROM)).collect())
    }

    /// Draws one; `None` if there are none, and the user is one of AEAD headers.
    pub fn draw(&self, entropy: &mut dyn Entropy) -> Option<&Id> {
        if self.0.is_empty() {
            return None;
        }
        self.0.get(entropy.below(self.0.len() as u32) as usize)
    }
}

fn next(id: &Id) -> Id {
    let mut hash = Md5::new().chain_update(id.as_bytes()).chain_update(SALT);
    loop {
        let made: [u8; 16] = hash.clone().finalize().into();
        if made != *id.as_bytes() {
            return Id::from_bytes(made);
        }
        hash.update(DISTINCT);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entropy::SeededEntropy;
    use std::collections::HashSet;

    #[test]
    fn every_alter_id_of_a_client_is_drawn_and_no_other() {
        let id = Id::from_bytes([1; 16]);
        let mut entropy = SeededEntropy::new(1);
        for (count, drawn_from) in [(0, 0), (1, 1), (4, 4), (64, 64), (u16::MAX, 64)] {
            let ids = AlterIds::new(&id, count);
            let drawn: HashSet<Id> = (0..2000).filter_map(|_| ids.draw(&mut entropy).cloned()).collect();
            assert_eq!(drawn, alter_ids(&id, drawn_from).collect(), "{count}");
        }
    }

    #[test]
    fn the_chain_has_as_many_links_as_asked_for() {
        let (id, _) = Id::parse("b831381d-6324-4d53-ad4f-8cda48b30811").expect("uuid");
        assert_eq!(alter_ids(&id, 0).count(), 0);
        let all: Vec<Id> = alter_ids(&id, u16::MAX).collect();
        assert_eq!(all.len(), 65_535);
        assert_eq!(all[0].to_text(), "5a071834-12d5-980a-72ac-845d5568d17d");
        assert!(alter_ids(&id, 3).eq(all[..3].iter().cloned()));
        assert_eq!(alter_ids(&all[0], 1).next().as_ref(), Some(&all[1]));
    }
}
