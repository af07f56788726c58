//! Auth ids: the 16 bytes that open an AEAD header. They name the user, to whoever has the key, and the time.
//!
//! An auth id is one AES block: `i64` unix seconds, 4 random bytes, CRC-32 of these 12. A server tries the
//! key of each user until the checksum fits.

use super::id::CmdKey;
use super::kdf;
use aes::Aes128;
use aes::cipher::{BlockCipherDecrypt, BlockCipherEncrypt, KeyInit};
use std::fmt;
use zeroize::Zeroizing;

/// How far a client's clock may be from the server's, in seconds either way.
pub const CLOCK_TOLERANCE: u64 = 120;

/// An auth id as it is on the wire. Header keys are derived from it.
pub type AuthId = [u8; 16];

/// One user's cipher for auth ids: round keys, computed once.
#[derive(Clone)]
pub struct AuthCipher(Aes128);

impl AuthCipher {
    /// Derives the cipher from the user's command key.
    pub fn new(cmd_key: &CmdKey) -> Self {
        Self(Aes128::new((&*key(cmd_key)).into()))
    }

    /// Makes an auth id. `unix_secs` is UTC now, `random` four fresh random bytes.
    pub fn seal(&self, unix_secs: i64, random: [u8; 4]) -> AuthId {
        let mut block = [0; 16];
        block[..8].copy_from_slice(&unix_secs.to_be_bytes());
        block[8..12].copy_from_slice(&random);
        let checksum = crc32fast::hash(&block[..12]);
        block[12..].copy_from_slice(&checksum.to_be_bytes());
        self.0.encrypt_block((&mut block).into());
        block
    }

    /// Reads an auth id: the client's unix seconds if this user made it, else `None`.
    ///
    /// Whether that time is acceptable ([`within_tolerance`]) and whether the auth id is new is the caller's
    /// to judge.
    pub fn open(&self, auth_id: &AuthId) -> Option<i64> {
        let mut block = *auth_id;
        self.0.decrypt_block((&mut block).into());
        read(&block, |_| true)
    }
}

impl fmt::Debug for AuthCipher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AuthCipher(..)")
    }
}

/// The key that a user's auth ids are sealed with.
pub(super) fn key(cmd_key: &CmdKey) -> Zeroizing<[u8; 16]> {
    Zeroizing::new(kdf::prefix(kdf::derive(cmd_key.as_bytes(), kdf::AUTH_ID)))
}

/// The unix seconds in a deciphered auth id, if they are acceptable and the checksum fits.
///
/// The time is judged before the checksum, since that is one comparison and turns away whoever else's auth id it
/// is.
pub(super) fn read(block: &[u8; 16], acceptable: impl Fn(i64) -> bool) -> Option<i64> {
    let (body, checksum) = block.split_last_chunk::<4>()?;
    let (secs, _) = body.split_first_chunk::<8>()?;
    let secs = i64::from_be_bytes(*secs);
    (acceptable(secs) && crc32fast::hash(body) == u32::from_be_bytes(*checksum)).then_some(secs)
}

/// Whether a server whose clock says `now` takes an auth id of the time `sent`, both in unix seconds.
pub fn within_tolerance(sent: i64, now: i64) -> bool {
    sent >= 0 && sent.abs_diff(now) <= CLOCK_TOLERANCE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_maker_reads_an_auth_id() {
        let (ours, theirs) = (CmdKey::from_bytes([1; 16]), CmdKey::from_bytes([2; 16]));
        let auth_id = AuthCipher::new(&ours).seal(1_700_000_000, [1, 2, 3, 4]);
        assert_eq!(AuthCipher::new(&ours).open(&auth_id), Some(1_700_000_000));
        assert_eq!(AuthCipher::new(&theirs).open(&auth_id), None);
        for bit in 0..128 {
            let mut flipped = auth_id;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(AuthCipher::new(&ours).open(&flipped), None, "bit {bit}");
        }
    }

    #[test]
    fn tolerance_is_two_minutes_either_way() {
        assert!(within_tolerance(1000, 1120) && within_tolerance(1120, 1000));
        assert!(!within_tolerance(1000, 1121) && !within_tolerance(1121, 1000));
        assert!(!within_tolerance(-1, 0) && !within_tolerance(i64::MIN, i64::MAX));
    }
}
