//! The two primitives of a chunk stream: an AEAD that counts its nonces, and the stream of size masks.

use super::TAG;
use crate::vmess::keys::{BodyKeys, chacha_key};
use ring::aead::{AES_128_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use shake::{ExtendableOutput, Shake128, Shake128Reader, Update, XofReader};
use std::fmt;

/// Which AEAD seals chunks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Algorithm {
    Aes128Gcm,
    Chacha20Poly1305,
}

/// An AEAD key with the nonces of one direction: `counter(2) iv[2..12]`.
///
/// The counter wraps after 65,536 messages, as every peer's does, and then repeats nonces: the format offers
/// no more.
pub(super) struct CountingAead {
    key: LessSafeKey,
    iv: [u8; 10],
    count: u16,
}

impl CountingAead {
    pub(super) fn new(algorithm: Algorithm, keys: &BodyKeys) -> Self {
        let key = match algorithm {
            Algorithm::Aes128Gcm => UnboundKey::new(&AES_128_GCM, &keys.key),
            Algorithm::Chacha20Poly1305 => UnboundKey::new(&CHACHA20_POLY1305, &*chacha_key(&keys.key)),
        };
        let key = LessSafeKey::new(key.expect("the key has the algorithm's length"));
        Self { key, iv: std::array::from_fn(|i| keys.iv[i + 2]), count: 0 }
    }

    fn next_nonce(&mut self) -> Nonce {
        let [high, low] = self.count.to_be_bytes();
        self.count = self.count.wrapping_add(1);
        let mut nonce = [high, low, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        nonce[2..].copy_from_slice(&self.iv);
        Nonce::assume_unique_for_key(nonce)
    }

    /// Seals `data` in place and returns its tag.
    #[inline]
    pub(super) fn seal(&mut self, data: &mut [u8]) -> [u8; TAG] {
        let nonce = self.next_nonce();
        let tag = self.key.seal_in_place_separate_tag(nonce, Aad::empty(), data);
        let mut out = [0; TAG];
        out.copy_from_slice(tag.expect("chunks are far below the algorithms' limits").as_ref());
        out
    }

    /// Opens `sealed`, which ends with its tag, in place. `None` if it does not authenticate.
    #[inline]
    pub(super) fn open<'a>(&mut self, sealed: &'a mut [u8]) -> Option<&'a mut [u8]> {
        let nonce = self.next_nonce();
        self.key.open_within(nonce, Aad::empty(), sealed, 0..).ok()
    }
}

impl fmt::Debug for CountingAead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CountingAead").field("count", &self.count).finish_non_exhaustive()
    }
}

/// The SHAKE128 output that masks sizes and says how long paddings are, one per direction.
///
/// The sponge permutes once for 168 bytes and its state is the block that is read from: a draw is a copy of
/// two bytes.
pub(super) struct MaskStream(Shake128Reader);

impl MaskStream {
    pub(super) fn new(iv: &[u8; 16]) -> Self {
        let mut shake = Shake128::default();
        shake.update(iv);
        Self(shake.finalize_xof())
    }

    #[inline]
    pub(super) fn next_u16(&mut self) -> u16 {
        let mut bytes = [0; 2];
        self.0.read(&mut bytes);
        u16::from_be_bytes(bytes)
    }
}

impl fmt::Debug for MaskStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MaskStream(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_run_on_across_sponge_blocks() {
        let mut whole = vec![0; 168 * 3];
        let mut shake = Shake128::default();
        shake.update(&[5; 16]);
        shake.finalize_xof().read(&mut whole);
        let mut masks = MaskStream::new(&[5; 16]);
        for pair in whole.chunks_exact(2) {
            assert_eq!(masks.next_u16().to_be_bytes(), pair);
        }
    }

    #[test]
    fn debug_output_holds_no_key() {
        let keys = BodyKeys { key: [0xAB; 16], iv: [0xCD; 16] };
        let aead = CountingAead::new(Algorithm::Aes128Gcm, &keys);
        assert_eq!(format!("{aead:?} {keys:?}"), "CountingAead { count: 0, .. } BodyKeys(..)");
    }
}
