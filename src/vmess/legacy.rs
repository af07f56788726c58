//! The legacy header of users with an alter id: an MD5 signature of the time, then the header in AES-CFB.
//!
//! `auth(16) header`, the same header as under AEAD. The signature says who asks and when, and covers nothing
//! else: only the header's checksum is there to notice a change. A server finds the user by comparing with the
//! signatures of every second in its window, so the time itself is not sent.

use super::cfb::{Decryptor, Encryptor};
use super::id::{CmdKey, Id};
use super::keys::BodyKeys;
use md5::block_api::compress;
use md5::{Digest, Md5};
use std::fmt;
use zeroize::{Zeroize, ZeroizeOnDrop};

/// Bytes of a signature.
pub const AUTH_LEN: usize = 16;

/// Signs `unix_secs` with an id: HMAC-MD5 of the eight bytes of the time.
pub fn auth(id: &Id, unix_secs: i64) -> [u8; AUTH_LEN] {
    AuthKey::new(id).auth(unix_secs)
}

/// What MD5 begins with.
const MD5_START: [u32; 4] = [0x6745_2301, 0xEFCD_AB89, 0x98BA_DCFE, 0x1032_5476];

/// An id made ready to sign many times: the hash states behind HMAC's two pads, 32 bytes. Overwritten when
/// dropped.
///
/// A signature then costs two rounds of MD5 and nothing else; a server makes millions of them.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct AuthKey {
    inner: [u32; 4],
    outer: [u32; 4],
}

impl AuthKey {
    /// Prepares the signatures of one id.
    pub fn new(id: &Id) -> Self {
        let absorbed = |pad: u8| {
            let mut block = [pad; 64];
            block.iter_mut().zip(id.as_bytes()).for_each(|(byte, key)| *byte ^= key);
            let mut state = MD5_START;
            compress(&mut state, &[block]);
            block.zeroize();
            state
        };
        Self { inner: absorbed(0x36), outer: absorbed(0x5C) }
    }

    /// Signs `unix_secs`.
    pub fn auth(&self, unix_secs: i64) -> [u8; AUTH_LEN] {
        finish(self.outer, finish(self.inner, unix_secs.to_be_bytes()))
    }
}

impl fmt::Debug for AuthKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AuthKey(..)")
    }
}

/// The digest of one block that is already in `state` and `N` bytes behind it, fewer than 56.
fn finish<const N: usize>(mut state: [u32; 4], message: [u8; N]) -> [u8; 16] {
    const { assert!(N < 56) };
    let mut block = [0; 64];
    block[..N].copy_from_slice(&message);
    block[N] = 0x80;
    block[56..].copy_from_slice(&((64 + N as u64) * 8).to_le_bytes());
    compress(&mut state, &[block]);
    let mut digest = [0; 16];
    for (bytes, word) in digest.chunks_exact_mut(4).zip(state) {
        bytes.copy_from_slice(&word.to_le_bytes());
    }
    digest
}

/// Signs and encrypts a request header into its wire form.
///
/// The signature is made with `auth_id`, an alter id of the user whose command key is `cmd_key`: not every
/// server takes one of the user's own id.
pub fn seal_request(cmd_key: &CmdKey, auth_id: &Id, unix_secs: i64, plain: &[u8]) -> Vec<u8> {
    let mut wire = Vec::with_capacity(AUTH_LEN + plain.len());
    wire.extend_from_slice(&auth(auth_id, unix_secs));
    wire.extend_from_slice(plain);
    HeaderCipher::new(cmd_key, unix_secs).encrypt(wire.get_mut(AUTH_LEN..).unwrap_or_default());
    wire
}

/// The cipher of one request header, either way: any number of bytes at a time, in order.
///
/// Its stream ends with the header; the body behind it has its own.
#[derive(Debug)]
pub struct HeaderCipher {
    encryptor: Encryptor,
    decryptor: Decryptor,
}

impl HeaderCipher {
    /// Makes the cipher of a header that was signed for `unix_secs`. The key is that of the user's own id,
    /// never an alter id's.
    pub fn new(cmd_key: &CmdKey, unix_secs: i64) -> Self {
        let time = unix_secs.to_be_bytes();
        let iv = (0..4).fold(Md5::new(), |hash, _| hash.chain_update(time)).finalize().into();
        let keys = BodyKeys { key: *cmd_key.as_bytes(), iv };
        Self { encryptor: Encryptor::new(&keys), decryptor: Decryptor::new(&keys) }
    }

    /// Encrypts the next bytes of the header in place.
    pub fn encrypt(&mut self, data: &mut [u8]) {
        self.encryptor.encrypt(data);
    }

    /// Decrypts the next bytes of the header in place.
    pub fn decrypt(&mut self, data: &mut [u8]) {
        self.decryptor.decrypt(data);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id() -> Id {
        Id::parse("b831381d-6324-4d53-ad4f-8cda48b30811").expect("uuid").0
    }

    /// RFC 2104 read literally, with a hash of the whole message.
    fn literal(key: &[u8; 16], message: &[u8]) -> [u8; 16] {
        let keyed = |pad: u8, rest: &[u8]| {
            let mut all = [pad; 64].to_vec();
            all.iter_mut().zip(key).for_each(|(byte, key)| *byte ^= key);
            all.extend_from_slice(rest);
            <[u8; 16]>::from(Md5::digest(&all))
        };
        keyed(0x5C, &keyed(0x36, message))
    }

    #[test]
    fn signatures_are_hmac_md5() {
        let key = AuthKey::new(&id());
        assert_eq!(key.auth(1_700_000_000)[..8], 0xCB4C_9843_1253_A6F4_u64.to_be_bytes());
        for secs in [0, 1, -1, 1_700_000_000, i64::MAX, i64::MIN] {
            assert_eq!(key.auth(secs), literal(id().as_bytes(), &secs.to_be_bytes()), "{secs}");
            assert_eq!(auth(&id(), secs), key.auth(secs));
        }
    }

    #[test]
    fn headers_are_read_back_at_every_cut() {
        let cmd_key = id().cmd_key();
        let plain: Vec<u8> = (0..64).collect();
        let mut wire = plain.clone();
        HeaderCipher::new(&cmd_key, 5).encrypt(&mut wire);
        assert_ne!(wire, plain);
        for step in 1..=plain.len() {
            let (mut cipher, mut data) = (HeaderCipher::new(&cmd_key, 5), wire.clone());
            data.chunks_mut(step).for_each(|piece| cipher.decrypt(piece));
            assert_eq!(data, plain, "pieces of {step}");
        }
        HeaderCipher::new(&cmd_key, 6).decrypt(&mut wire);
        assert_ne!(wire[..16], plain[..16]);
    }

    #[test]
    fn debug_output_holds_no_key() {
        let cipher = HeaderCipher::new(&id().cmd_key(), 5);
        assert_eq!(
            format!("{:?} {cipher:?}", AuthKey::new(&id())),
            "AuthKey(..) HeaderCipher { encryptor: Encryptor(..), decryptor: Decryptor(..) }"
        );
    }
}
