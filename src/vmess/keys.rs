//! What the keys in a request header become: keys of the answer, of a body's cipher, of its chunk lengths.

use super::kdf;
use md5::Md5;
use sha2::{Digest, Sha256};
use std::fmt;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// Key and initialisation vector of one direction's body. Overwritten when dropped.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct BodyKeys {
    /// The key.
    pub key: [u8; 16],
    /// The initialisation vector: part of every nonce, and the seed of the size masks.
    pub iv: [u8; 16],
}

impl BodyKeys {
    /// Derives the response direction's keys from the request direction's, as it is done under an AEAD
    /// header.
    #[must_use]
    pub fn response(&self) -> Self {
        let half = |bytes: &[u8; 16]| kdf::prefix(Sha256::digest(bytes).into());
        Self { key: half(&self.key), iv: half(&self.iv) }
    }

    /// Derives the response direction's keys from the request direction's, as it is done under a legacy
    /// header.
    #[must_use]
    pub fn legacy_response(&self) -> Self {
        Self { key: Md5::digest(self.key).into(), iv: Md5::digest(self.iv).into() }
    }

    /// Derives the key that seals chunk lengths under the option AuthenticatedLength.
    ///
    /// Both directions use that of the *request* keys, with the request's initialisation vector.
    #[must_use]
    pub fn chunk_length(&self) -> Self {
        Self { key: kdf::prefix(kdf::derive(&self.key, kdf::CHUNK_LENGTH)), iv: self.iv }
    }
}

impl fmt::Debug for BodyKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BodyKeys(..)")
    }
}

/// Stretches a body key to the 32 bytes that ChaCha20-Poly1305 takes: `MD5(key) || MD5(MD5(key))`.
pub fn chacha_key(key: &[u8; 16]) -> Zeroizing<[u8; 32]> {
    let mut stretched = Zeroizing::new([0; 32]);
    let (first, second) = stretched.split_at_mut(16);
    first.copy_from_slice(&Md5::digest(key));
    second.copy_from_slice(&Md5::digest(&*first));
    stretched
}
