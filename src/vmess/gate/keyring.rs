//! One auth id under the keys of all users, 32 at a time.
//!
//! A cipher object per user works through one block at a time, and getting ready for many blocks under one key,
//! which a compiler sometimes leaves in, costs several times as much as the block. Here the rounds of eight users
//! go side by side, each under the own key, and those of four times eight in turns, so that one round need not wait for the
//! one before it.
//!
//! That is the inverse cipher of FIPS 197, section 5.3.5, made of its rounds, with one change. What the rounds
//! come from has no last round, which does not mix columns; so all ten mix, under a last key that is mixed too,
//! and what comes out is the plain block with mixed columns. Mixing keeps the columns apart, so the first of them,
//! the upper half of the time, is compared as it is, and whoever passes is unmixed and looked at closely.

use crate::vmess::auth::{self, AuthId, CLOCK_TOLERANCE, within_tolerance};
use crate::vmess::id::CmdKey;
use aes::Block;
use aes::hazmat::{Block8, cipher_round, equiv_inv_cipher_round_par, inv_mix_columns, mix_columns};
use std::fmt;
use std::hint::black_box;
use zeroize::{Zeroize, Zeroizing};

/// Users whose keys are tried together.
pub(super) const LANES: usize = 8 * EIGHTS;
/// Blocks of eight that take turns.
const EIGHTS: usize = 4;
/// Round keys of AES-128.
const ROUND_KEYS: usize = 11;

/// Four bytes of a block.
type Column = [u8; 4];

/// An auth id that is looked for.
pub(super) struct Sought<'a> {
    auth_id: &'a AuthId,
    /// When, in unix seconds.
    now: i64,
    /// The first columns of what it may open to, mixed, as they lie in memory.
    columns: [u32; 2],
}

impl<'a> Sought<'a> {
    /// Prepares the search for whoever made `auth_id` at a time that is acceptable `now`.
    pub(super) fn new(auth_id: &'a AuthId, now: i64) -> Self {
        Self { auth_id, now, columns: upper_halves(now).map(|half| u32::from_ne_bytes(mixed(half))) }
    }

    /// Whether an opened auth id with mixed columns begins as one that is acceptable does. Without a branch: whoever
    /// passes is the maker, or one in two billion.
    #[inline]
    fn may_be(&self, block: &Block) -> bool {
        let [first, last] = self.columns;
        let column = block.first_chunk().map_or(0, |column| u32::from_ne_bytes(*column));
        (column == first) | (column == last)
    }

    /// The unix seconds in an opened auth id with mixed columns, if they are acceptable and the checksum fits.
    fn judge(&self, block: &Block) -> Option<i64> {
        let mut plain = *block;
        mix_columns(&mut plain);
        auth::read(&plain.into(), |sent| within_tolerance(sent, self.now))
    }
}

/// The keys of users, in order. 176 bytes each, in one piece: a stranger costs one pass over them. Overwritten when
/// dropped.
#[derive(Default)]
pub(super) struct Keyring {
    groups: Vec<Group>,
    len: usize,
}

/// The round keys of one user, in the order of use, all but the first with mixed columns.
pub(super) struct RoundKeys(Zeroizing<[Block; ROUND_KEYS]>);

/// One block of each user of a group.
type Blocks = [Block8; EIGHTS];

/// The round keys of so many users: per round, one of each.
struct Group([Blocks; ROUND_KEYS]);

const _: () = assert!(size_of::<Group>() == LANES * 176);

/// Who made an auth id, by position, and when, in unix seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Maker {
    pub(super) index: usize,
    pub(super) sent: i64,
}

impl Keyring {
    /// One of nobody, with room for the keys of so many users.
    pub(super) fn with_capacity(users: usize) -> Self {
        Self { groups: Vec::with_capacity(users.div_ceil(LANES)), len: 0 }
    }

    /// Takes the keys of one more user.
    pub(super) fn push(&mut self, keys: &RoundKeys) {
        let lane = self.len % LANES;
        if lane == 0 {
            self.groups.push(Group([Blocks::default(); ROUND_KEYS]));
        }
        let places = self.groups.last_mut().into_iter().flat_map(|group| &mut group.0);
        for (place, key) in
            places.filter_map(|round| round.get_mut(lane / 8)?.get_mut(lane % 8)).zip(&*keys.0)
        {
            *place = *key;
        }
        self.len += 1;
    }

    /// A copy of a user's keys.
    pub(super) fn get(&self, index: usize) -> Option<RoundKeys> {
        let group = self.groups.get(index / LANES).filter(|_| index < self.len)?;
        let mut keys = Zeroizing::new([Block::default(); ROUND_KEYS]);
        for (key, round) in keys.iter_mut().zip(&group.0) {
            *key = *round.get(index % LANES / 8)?.get(index % 8)?;
        }
        Some(RoundKeys(keys))
    }

    /// How many groups of users there are.
    pub(super) const fn groups(&self) -> usize {
        self.groups.len()
    }

    /// Finds the first user of a group who made the auth id.
    #[inline]
    pub(super) fn find_in(&self, group: usize, sought: &Sought<'_>) -> Option<Maker> {
        let mut opened = Blocks::default();
        self.groups.get(group)?.open(sought.auth_id, &mut opened);
        if !opened.iter().flatten().fold(false, |any, block| any | sought.may_be(block)) {
            return None;
        }
        let maker = |(lane, block): (usize, &Block)| {
            let sent = sought.judge(block)?;
            // Lanes behind the last user hold no key.
            let index = group * LANES + lane;
            (index < self.len).then_some(Maker { index, sent })
        };
        opened.iter().flatten().enumerate().find_map(maker)
    }

    /// Does what [`Keyring::find_in`] does for every group from this one on, for the time that it takes.
    pub(super) fn feign(&self, from: usize, sought: &Sought<'_>) {
        (from..self.groups.len()).for_each(|group| {
            black_box(self.find_in(group, sought));
        });
    }
}

impl RoundKeys {
    /// Derives them from the user's command key.
    pub(super) fn new(cmd_key: &CmdKey) -> Self {
        Self(round_keys(&auth::key(cmd_key)))
    }
}

impl Group {
    /// Opens the auth id under each of the keys, to blocks with mixed columns.
    #[inline]
    fn open(&self, auth_id: &AuthId, blocks: &mut Blocks) {
        let [first, rounds @ ..] = &self.0;
        let sealed = u128::from_ne_bytes(*auth_id);
        for (block, key) in blocks.iter_mut().flatten().zip(first.iter().flatten()) {
            *block = (u128::from_ne_bytes((*key).into()) ^ sealed).to_ne_bytes().into();
        }
        for round in rounds {
            blocks.iter_mut().zip(round).for_each(|(eight, keys)| equiv_inv_cipher_round_par(eight, keys));
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.0.iter_mut().flatten().flatten().for_each(|key| key.as_mut_slice().zeroize());
    }
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keyring").field("len", &self.len).finish_non_exhaustive()
    }
}

/// The upper halves of the first and the last time that is acceptable.
fn upper_halves(now: i64) -> [Column; 2] {
    let tolerance = CLOCK_TOLERANCE as i64;
    [now.saturating_sub(tolerance).max(0), now.saturating_add(tolerance)]
        .map(|sent| ((sent >> 32) as u32).to_be_bytes())
}

fn mixed(column: Column) -> Column {
    let mut block = repeated(column);
    inv_mix_columns(&mut block);
    block.first_chunk().copied().unwrap_or_default()
}

fn repeated(column: Column) -> Block {
    let mut block = Block::default();
    block.chunks_exact_mut(4).for_each(|place| place.copy_from_slice(&column));
    block
}

/// The round keys in the order of use, all but the first with mixed columns.
fn round_keys(key: &[u8; 16]) -> Zeroizing<[Block; ROUND_KEYS]> {
    let mut keys = Zeroizing::new([Block::default(); ROUND_KEYS]);
    let (mut last, mut constant) = (Zeroizing::new(*key), 1_u8);
    for place in keys.iter_mut().rev() {
        *place = (*last).into();
        expand(&mut last, constant);
        // Doubling in the field of AES.
        constant = (constant << 1) ^ if constant & 0x80 == 0 { 0 } else { 0x1B };
    }
    keys.iter_mut().skip(1).for_each(inv_mix_columns);
    keys
}

/// The next round key (FIPS 197, section 5.2).
fn expand(key: &mut [u8; 16], constant: u8) {
    let [.., a, b, c, d] = *key;
    let mut carried = substituted([b, c, d, a]);
    carried[0] ^= constant;
    for word in key.chunks_exact_mut(4) {
        word.iter_mut().zip(&mut carried).for_each(|(byte, carried)| {
            *byte ^= *carried;
            *carried = *byte;
        });
    }
    carried.zeroize();
}

/// A word through the S-box: a round without a key, of which four equal columns show no shifting of rows, and whose
/// mixing is undone.
fn substituted(word: Column) -> Column {
    let mut block = repeated(word);
    cipher_round(&mut block, &Block::default());
    inv_mix_columns(&mut block);
    let substituted = block.first_chunk().copied().unwrap_or_default();
    block.as_mut_slice().zeroize();
    substituted
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vmess::auth::AuthCipher;
    use crate::vmess::gate::testing::NOW;
    use aes::Aes128;
    use aes::cipher::{BlockCipherEncrypt, KeyInit};

    fn keyring(cmd_keys: &[CmdKey]) -> Keyring {
        let mut keyring = Keyring::with_capacity(cmd_keys.len());
        cmd_keys.iter().for_each(|cmd_key| keyring.push(&RoundKeys::new(cmd_key)));
        keyring
    }

    /// FIPS 197, appendix A.1: the first and the last round key of the example.
    #[test]
    fn round_keys_are_those_of_the_standard() {
        let key = 0x2b7e_1516_28ae_d2a6_abf7_1588_09cf_4f3c_u128.to_be_bytes();
        let keys = round_keys(&key);
        assert_eq!(u128::from_be_bytes(keys[0].into()), 0xd014_f9a8_c9ee_2589_e13f_0cc8_b663_0ca6);
        let mut unmixed = keys[10];
        mix_columns(&mut unmixed);
        assert_eq!(unmixed, Block::from(key));
    }

    #[test]
    fn blocks_open_to_what_was_sealed() {
        let cmd_keys: Vec<_> = (0..LANES as u8).map(|n| CmdKey::from_bytes([n; 16])).collect();
        let keyring = keyring(&cmd_keys);
        let [group] = &*keyring.groups else { panic!("they are one group") };
        for (lane, cmd_key) in cmd_keys.iter().enumerate() {
            let plain = Block::from([lane as u8 ^ 0xA5; 16]);
            let mut sealed = plain;
            Aes128::new((&*auth::key(cmd_key)).into()).encrypt_block(&mut sealed);
            let mut opened = Blocks::default();
            group.open(&sealed.into(), &mut opened);
            let opened = &mut opened[lane / 8][lane % 8];
            mix_columns(opened);
            assert_eq!(*opened, plain);
        }
    }

    #[test]
    fn every_user_is_found_in_the_own_group_alone() {
        let cmd_keys: Vec<_> = (0..100).map(|n| CmdKey::from_bytes([n; 16])).collect();
        let keyring = keyring(&cmd_keys);
        assert_eq!(keyring.groups(), 4);
        for (index, cmd_key) in cmd_keys.iter().enumerate() {
            let auth_id = AuthCipher::new(cmd_key).seal(NOW, [1, 2, 3, 4]);
            for group in 0..5 {
                let maker = (group == index / LANES).then_some(Maker { index, sent: NOW });
                assert_eq!(keyring.find_in(group, &Sought::new(&auth_id, NOW)), maker);
            }
        }
    }

    /// Lanes that nobody has are open to whoever knows that their round keys are zero.
    #[test]
    fn nobody_is_found_behind_the_last_user() {
        let mut keyring = keyring(&[CmdKey::from_bytes([1; 16])]);
        let auth_id = AuthCipher::new(&CmdKey::from_bytes([2; 16])).seal(NOW, [0; 4]);
        let stranger = RoundKeys::new(&CmdKey::from_bytes([2; 16]));
        for (round, keys) in keyring.groups[0].0.iter_mut().zip(&*stranger.0) {
            round[1][5] = *keys;
        }
        assert_eq!(keyring.find_in(0, &Sought::new(&auth_id, NOW)), None);
        keyring.len = LANES;
        assert_eq!(keyring.find_in(0, &Sought::new(&auth_id, NOW)), Some(Maker { index: 13, sent: NOW }));
    }

    /// Also where the upper half of the time changes, and at the ends of what a clock can say.
    #[test]
    fn the_whole_window_is_acceptable_whatever_the_time() {
        let cmd_key = CmdKey::from_bytes([1; 16]);
        let keyring = keyring(std::slice::from_ref(&cmd_key));
        let cipher = AuthCipher::new(&cmd_key);
        for now in
            [0, 60, NOW, (1 << 32) - 60, (1 << 32) + 60, 5 << 32, i64::MAX - 60, i64::MAX, -60, i64::MIN]
        {
            for off in [-121, -120, -61, -60, -1, 0, 1, 60, 61, 120, 121] {
                let Some(sent) = now.checked_add(off) else { continue };
                let expected = within_tolerance(sent, now).then_some(Maker { index: 0, sent });
                let auth_id = cipher.seal(sent, [7; 4]);
                assert_eq!(keyring.find_in(0, &Sought::new(&auth_id, now)), expected, "{now} {off}");
            }
        }
    }
}
