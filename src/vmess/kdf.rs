//! Key derivation of the AEAD header: HMAC-SHA-256 nested once for every element of a path.
//!
//! Level 0 is HMAC-SHA-256 under a fixed salt. Level *n* is an HMAC whose hash function is level *n - 1* and
//! whose key is the *n*th path element. What is called the key elsewhere is the *message* here. A hash
//! function is a state that can be copied, so a level absorbs its key once and no message is hashed twice, and
//! the two levels that are the same for everybody, root and salt, are worked out once a process: three elements
//! cost 20 SHA-256 blocks.

use sha2::block_api::compress256;
use std::sync::LazyLock;

/// Salt of an auth id's AES key.
pub const AUTH_ID: &[u8] = b"AES Auth ID Encryption";
/// Salt of the key that seals a request header's length.
pub const REQUEST_LENGTH_KEY: &[u8] = b"VMess Header AEAD Key_Length";
/// Salt of the nonce that goes with [`REQUEST_LENGTH_KEY`].
pub const REQUEST_LENGTH_NONCE: &[u8] = b"VMess Header AEAD Nonce_Length";
/// Salt of the key that seals a request header.
pub const REQUEST_KEY: &[u8] = b"VMess Header AEAD Key";
/// Salt of the nonce that goes with [`REQUEST_KEY`].
pub const REQUEST_NONCE: &[u8] = b"VMess Header AEAD Nonce";
/// Salt of the key that seals a response header's length.
pub const RESPONSE_LENGTH_KEY: &[u8] = b"AEAD Resp Header Len Key";
/// Salt of the nonce that goes with [`RESPONSE_LENGTH_KEY`].
pub const RESPONSE_LENGTH_NONCE: &[u8] = b"AEAD Resp Header Len IV";
/// Salt of the key that seals a response header.
pub const RESPONSE_KEY: &[u8] = b"AEAD Resp Header Key";
/// Salt of the nonce that goes with [`RESPONSE_KEY`].
pub const RESPONSE_NONCE: &[u8] = b"AEAD Resp Header IV";
/// Salt of the key that seals chunk lengths.
pub const CHUNK_LENGTH: &[u8] = b"auth_len";

/// The hash function that a path of one salt begins with.
type Salted = Hmac<Hmac<Sha>>;

/// The salts, and the hash function that each of them begins a path with.
static SALTED: LazyLock<[(&[u8], Salted); 10]> = LazyLock::new(|| {
    let root = root();
    [
        AUTH_ID,
        REQUEST_LENGTH_KEY,
        REQUEST_LENGTH_NONCE,
        REQUEST_KEY,
        REQUEST_NONCE,
        RESPONSE_LENGTH_KEY,
        RESPONSE_LENGTH_NONCE,
        RESPONSE_KEY,
        RESPONSE_NONCE,
        CHUNK_LENGTH,
    ]
    .map(|salt| (salt, Hmac::new(&root, salt)))
});

const ROOT: &[u8] = b"VMess AEAD KDF";
const BLOCK: usize = 64;

/// Derives from `material` under a path of one element. Sixteen or twelve leading bytes serve as key or
/// nonce.
pub fn derive(material: &[u8], salt: &[u8]) -> [u8; 32] {
    salted(salt).finish(material)
}

/// Derives from `material` under the path that a connection's header keys have: salt, auth id, connection
/// nonce.
pub fn derive_for(material: &[u8], salt: &[u8], auth_id: &[u8], nonce: &[u8]) -> [u8; 32] {
    Hmac::new(&Hmac::new(&salted(salt), auth_id), nonce).finish(material)
}

/// The first `N` bytes of a derived value.
pub fn prefix<const N: usize>(derived: [u8; 32]) -> [u8; N] {
    const { assert!(N <= 32) };
    std::array::from_fn(|i| derived[i])
}

/// A hash function that has taken whole blocks, and takes the rest of its message at once.
trait Hash: Copy {
    fn block(&mut self, block: &[u8; BLOCK]);
    fn finish(self, rest: &[u8]) -> [u8; 32];
}

/// SHA-256 between two blocks. A key derivation copies dozens of them, so each holds what it must and no more.
#[derive(Clone, Copy)]
struct Sha {
    state: [u32; 8],
    blocks: u64,
}

impl Sha {
    /// FIPS 180-4, section 5.3.3.
    const NEW: Self = Self {
        state: [
            0x6A09_E667,
            0xBB67_AE85,
            0x3C6E_F372,
            0xA54F_F53A,
            0x510E_527F,
            0x9B05_688C,
            0x1F83_D9AB,
            0x5BE0_CD19,
        ],
        blocks: 0,
    };
}

impl Hash for Sha {
    fn block(&mut self, block: &[u8; BLOCK]) {
        compress256(&mut self.state, std::slice::from_ref(block));
        self.blocks += 1;
    }

    fn finish(mut self, rest: &[u8]) -> [u8; 32] {
        let (whole, rest) = rest.as_chunks();
        whole.iter().for_each(|block| self.block(block));
        let bits = (self.blocks * BLOCK as u64 + rest.len() as u64) * 8;
        let mut last = [0; BLOCK];
        last[..rest.len()].copy_from_slice(rest);
        last[rest.len()] = 0x80;
        if rest.len() >= BLOCK - 8 {
            self.block(&last);
            last = [0; BLOCK];
        }
        last[BLOCK - 8..].copy_from_slice(&bits.to_be_bytes());
        self.block(&last);
        let mut out = [0; 32];
        out.as_chunks_mut()
            .0
            .iter_mut()
            .zip(self.state)
            .for_each(|(place, word)| *place = word.to_be_bytes());
        out
    }
}

/// HMAC over any hash function with blocks of 64 bytes; a hash function itself.
#[derive(Clone, Copy)]
struct Hmac<H> {
    inner: H,
    outer: H,
}

impl<H: Hash> Hmac<H> {
    fn new(hash: &H, key: &[u8]) -> Self {
        let mut padded = [0; BLOCK];
        if let Some(head) = padded.get_mut(..key.len()) {
            head.copy_from_slice(key);
        } else {
            padded[..32].copy_from_slice(&hash.finish(key));
        }
        let (mut inner, mut outer) = (*hash, *hash);
        inner.block(&padded.map(|byte| byte ^ 0x36));
        outer.block(&padded.map(|byte| byte ^ 0x5C));
        Self { inner, outer }
    }
}

impl<H: Hash> Hash for Hmac<H> {
    fn block(&mut self, block: &[u8; BLOCK]) {
        self.inner.block(block);
    }

    fn finish(self, rest: &[u8]) -> [u8; 32] {
        self.outer.finish(&self.inner.finish(rest))
    }
}

/// The hash function that a path with this first element begins with.
fn salted(salt: &[u8]) -> Salted {
    let known = SALTED.iter().find(|(known, _)| *known == salt);
    known.map_or_else(|| Hmac::new(&root(), salt), |(_, hash)| *hash)
}

fn root() -> Hmac<Sha> {
    Hmac::new(&Sha::NEW, ROOT)
}

#[cfg(test)]
mod tests {
    use super::*;
    use sha2::{Digest, Sha256};

    #[test]
    fn the_hash_is_sha_256_at_every_length() {
        let message: Vec<u8> = (0..200).collect();
        for len in 0..200 {
            assert_eq!(Sha::NEW.finish(&message[..len]), *Sha256::digest(&message[..len]), "{len}");
        }
    }

    /// The definition, read literally: nothing precomputed, every level hashes concatenations.
    fn literal(material: &[u8], path: &[&[u8]]) -> [u8; 32] {
        fn level(salts: &[&[u8]], message: &[u8]) -> [u8; 32] {
            let Some((salt, below)) = salts.split_last() else { return Sha256::digest(message).into() };
            let mut key = if salt.len() > BLOCK { level(below, salt).to_vec() } else { salt.to_vec() };
            key.resize(BLOCK, 0);
            let keyed = |pad: u8, rest: &[u8]| {
                let mut all: Vec<u8> = key.iter().map(|byte| byte ^ pad).collect();
                all.extend_from_slice(rest);
                level(below, &all)
            };
            keyed(0x5C, &keyed(0x36, message))
        }
        level(&[&[ROOT], path].concat(), material)
    }

    /// Level 0 alone has no use of its own, but everything is built of it.
    #[test]
    fn the_root_is_plain_hmac() {
        let material = 0xB50D_916A_C0CE_C067_981A_F8E5_F38A_758F_u128.to_be_bytes();
        assert_eq!(root().finish(&material)[..8], 0x1E38_58C2_ACB5_E533_u64.to_be_bytes());
    }

    #[test]
    fn nesting_follows_the_definition() {
        let long = [7; 65];
        for salt in SALTED.iter().map(|(salt, _)| *salt).chain([&[9; 64][..], &long]) {
            assert_eq!(derive(b"material", salt), literal(b"material", &[salt]));
            let path: [&[u8]; 3] = [salt, &[1; 16], &[2; 8]];
            assert_eq!(derive_for(b"m", path[0], path[1], path[2]), literal(b"m", &path));
        }
        let path: [&[u8]; 3] = [b"salt", &long, &long];
        assert_eq!(derive_for(&[3; 200], path[0], path[1], path[2]), literal(&[3; 200], &path));
    }
}
