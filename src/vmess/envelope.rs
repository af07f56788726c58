//! The AEAD envelope of request and response headers: AES-128-GCM under keys that are used once.
//!
//! A request header is `auth id(16) sealed length(18) nonce(8) sealed header(length + 16)`, every key derived
//! from the user's command key, the auth id and the nonce, with the auth id as associated data. A response
//! header is `sealed length(18) sealed header(length + 16)` under keys derived from the response direction's
//! body keys.
//!
//! Keys that serve one message want a cipher with a cheap set-up: this is RustCrypto's, bulk data is not
//! sealed here.

use super::auth::AuthId;
use super::id::CmdKey;
use super::kdf;
use super::keys::BodyKeys;
use aes_gcm::aead::AeadInOut;
use aes_gcm::{Aes128Gcm, KeyInit};
use zeroize::Zeroizing;

/// Bytes of an AES-GCM tag.
pub const TAG: usize = 16;
/// Bytes of a sealed length.
pub const SEALED_LENGTH: usize = 2 + TAG;
/// Bytes of a connection's nonce.
pub const NONCE: usize = 8;
/// Bytes before the sealed request header itself: auth id, sealed length, nonce.
pub const REQUEST_PREFIX: usize = 16 + SEALED_LENGTH + NONCE;

/// A header that was not sealed under these keys, or was changed on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the header does not authenticate")]
pub struct Forged;

/// Seals a request header into its wire form.
///
/// # Panics
/// If `plain` is longer than 65,535 bytes; [`super::header::MAX_LEN`] is far below.
pub fn seal_request(cmd_key: &CmdKey, auth_id: &AuthId, nonce: &[u8; NONCE], plain: &[u8]) -> Vec<u8> {
    let mut wire = Vec::with_capacity(REQUEST_PREFIX + plain.len() + TAG);
    wire.extend_from_slice(auth_id);
    let keys = Once::of_request(cmd_key, kdf::REQUEST_LENGTH_KEY, kdf::REQUEST_LENGTH_NONCE, auth_id, nonce);
    keys.seal(auth_id, &length_of(plain), &mut wire);
    wire.extend_from_slice(nonce);
    let keys = Once::of_request(cmd_key, kdf::REQUEST_KEY, kdf::REQUEST_NONCE, auth_id, nonce);
    keys.seal(auth_id, plain, &mut wire);
    wire
}

/// Opens the length of a request header: how many bytes it has without its tag.
///
/// # Errors
/// [`Forged`].
pub fn open_request_length(
    cmd_key: &CmdKey,
    auth_id: &AuthId,
    nonce: &[u8; NONCE],
    mut sealed: [u8; SEALED_LENGTH],
) -> Result<usize, Forged> {
    let keys = Once::of_request(cmd_key, kdf::REQUEST_LENGTH_KEY, kdf::REQUEST_LENGTH_NONCE, auth_id, nonce);
    keys.open(auth_id, &mut sealed).and_then(read_length)
}

/// Opens a request header in place; `sealed` ends with its tag.
///
/// # Errors
/// [`Forged`].
pub fn open_request<'a>(
    cmd_key: &CmdKey,
    auth_id: &AuthId,
    nonce: &[u8; NONCE],
    sealed: &'a mut [u8],
) -> Result<&'a [u8], Forged> {
    Once::of_request(cmd_key, kdf::REQUEST_KEY, kdf::REQUEST_NONCE, auth_id, nonce).open(auth_id, sealed)
}

/// Seals a response header into its wire form. `keys` are the response direction's.
///
/// # Panics
/// If `plain` is longer than 65,535 bytes; [`super::response::MAX_LEN`] is far below.
pub fn seal_response(keys: &BodyKeys, plain: &[u8]) -> Vec<u8> {
    let mut wire = Vec::with_capacity(SEALED_LENGTH + plain.len() + TAG);
    let length = Once::of_response(keys, kdf::RESPONSE_LENGTH_KEY, kdf::RESPONSE_LENGTH_NONCE);
    length.seal(&[], &length_of(plain), &mut wire);
    Once::of_response(keys, kdf::RESPONSE_KEY, kdf::RESPONSE_NONCE).seal(&[], plain, &mut wire);
    wire
}

/// Opens the length of a response header: how many bytes it has without its tag.
///
/// # Errors
/// [`Forged`].
pub fn open_response_length(keys: &BodyKeys, mut sealed: [u8; SEALED_LENGTH]) -> Result<usize, Forged> {
    let length = Once::of_response(keys, kdf::RESPONSE_LENGTH_KEY, kdf::RESPONSE_LENGTH_NONCE);
    length.open(&[], &mut sealed).and_then(read_length)
}

/// Opens a response header in place; `sealed` ends with its tag.
///
/// # Errors
/// [`Forged`].
pub fn open_response<'a>(keys: &BodyKeys, sealed: &'a mut [u8]) -> Result<&'a [u8], Forged> {
    Once::of_response(keys, kdf::RESPONSE_KEY, kdf::RESPONSE_NONCE).open(&[], sealed)
}

fn length_of(plain: &[u8]) -> [u8; 2] {
    u16::try_from(plain.len()).expect("headers are shorter than 64 KiB").to_be_bytes()
}

fn read_length(opened: &[u8]) -> Result<usize, Forged> {
    opened.first_chunk().map(|&bytes| usize::from(u16::from_be_bytes(bytes))).ok_or(Forged)
}

/// Key and nonce of one message.
struct Once {
    cipher: Aes128Gcm,
    nonce: [u8; 12],
}

impl Once {
    fn of_request(
        cmd_key: &CmdKey,
        key: &[u8],
        nonce: &[u8],
        auth_id: &AuthId,
        random: &[u8; NONCE],
    ) -> Self {
        let derive = |salt: &[u8]| kdf::derive_for(cmd_key.as_bytes(), salt, auth_id, random);
        Self::new(derive(key), derive(nonce))
    }

    fn of_response(keys: &BodyKeys, key: &[u8], nonce: &[u8]) -> Self {
        Self::new(kdf::derive(&keys.key, key), kdf::derive(&keys.iv, nonce))
    }

    fn new(key: [u8; 32], nonce: [u8; 32]) -> Self {
        let key: Zeroizing<[u8; 16]> = Zeroizing::new(kdf::prefix(key));
        Self { cipher: Aes128Gcm::new((&*key).into()), nonce: kdf::prefix(nonce) }
    }

    /// Appends `plain`, sealed, and its tag to `out`.
    fn seal(&self, aad: &[u8], plain: &[u8], out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(plain);
        let tag = self
            .cipher
            .encrypt_inout_detached((&self.nonce).into(), aad, (&mut out[start..]).into())
            .expect("AES-GCM takes messages of this size");
        out.extend_from_slice(&tag);
    }

    fn open<'a>(&self, aad: &[u8], sealed: &'a mut [u8]) -> Result<&'a [u8], Forged> {
        let (data, tag) = sealed.split_last_chunk_mut::<TAG>().ok_or(Forged)?;
        self.cipher
            .decrypt_inout_detached((&self.nonce).into(), aad, (&mut *data).into(), (&*tag).into())
            .map_err(|_| Forged)?;
        Ok(data)
    }
}
