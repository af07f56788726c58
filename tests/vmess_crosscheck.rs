//! Chunks made by the codec, beside those that another implementation makes of the same, and opened again.

#[path = "common/vmess_peer.rs"]
mod peer;

use aes::Aes128;
use aes_gcm::Aes128Gcm;
use aes_gcm::aead::{AeadInOut, KeyInit};
use cfb_mode::cipher::KeyIvInit;
use chacha20poly1305::ChaCha20Poly1305;
use peer::{receive, seal};
use vmesskit::entropy::{Entropy, SeededEntropy};
use vmesskit::vmess::chunk::{Framing, Opened, Opener, Sealer};
use vmesskit::vmess::fnv::fnv1a;
use vmesskit::vmess::keys::{BodyKeys, chacha_key};
use vmesskit::vmess::{Command, Options, Security};

const KEYS: BodyKeys = BodyKeys { key: [0x42; 16], iv: [0x17; 16] };

fn nonce(count: u16) -> [u8; 12] {
    let mut nonce: [u8; 12] = KEYS.iv.first_chunk().copied().expect("12 of 16 bytes");
    let [high, low, ..] = &mut nonce;
    [*high, *low] = count.to_be_bytes();
    nonce
}

/// `other` seals data in place under a nonce and returns the tag.
fn check(security: Security, other: impl Fn(&[u8; 12], &mut [u8]) -> [u8; 16]) {
    let framing = Framing::new(security, Options::CHUNK_STREAM, Command::Tcp).expect("legal");
    let mut sealer = Sealer::new(framing, &KEYS, &KEYS);
    let mut opener = Opener::new(framing, &KEYS, &KEYS);
    let mut entropy = SeededEntropy::new(3);
    let lengths = (1..70).chain([127, 128, 129, 255, 256, 1023, 4096, 16_305, 65_519]);
    for (count, len) in lengths.enumerate() {
        let mut payload = vec![0; len];
        entropy.fill(&mut payload);
        let mut wire = ((len + 16) as u16).to_be_bytes().to_vec();
        wire.extend_from_slice(&payload);
        let tag = other(&nonce(count as u16), &mut wire[2..]);
        wire.extend_from_slice(&tag);
        assert_eq!(seal(&mut sealer, &payload, &mut entropy), wire, "{security:?}, {len} bytes");
        let opened = opener.open(&mut wire).expect("authentic");
        assert_eq!(opened, Opened::Data { payload: 2..2 + len, consumed: len + 18 });
        assert_eq!(wire[2..2 + len], payload);
    }
}

#[test]
fn aes_128_gcm() {
    let cipher = Aes128Gcm::new((&KEYS.key).into());
    check(Security::Aes128Gcm, |nonce, data| {
        cipher.encrypt_inout_detached(nonce.into(), &[], data.into()).expect("short").into()
    });
}

#[test]
fn chacha20_poly1305() {
    let cipher = ChaCha20Poly1305::new((&*chacha_key(&KEYS.key)).into());
    check(Security::Chacha20Poly1305, |nonce, data| {
        cipher.encrypt_inout_detached(nonce.into(), &[], data.into()).expect("short").into()
    });
}

/// A whole stream at once, by the mode's own function for that; the codec makes and reads it in pieces.
#[test]
fn aes_128_cfb() {
    for (bits, chunked) in [(0x00, false), (0x01, true)] {
        let framing = Framing::new(Security::Aes128Cfb, Options(bits), Command::Tcp).expect("legal");
        let mut sealer = Sealer::new(framing, &KEYS, &KEYS);
        let mut entropy = SeededEntropy::new(4);
        let (mut made, mut plain, mut payloads) = (Vec::new(), Vec::new(), Vec::new());
        for len in (1..70).chain([127, 128, 129, 1023, 4096, 16_305, 65_531]) {
            let mut payload = vec![0; len];
            entropy.fill(&mut payload);
            made.extend(seal(&mut sealer, &payload, &mut entropy));
            if chunked {
                plain.extend_from_slice(&((len + 4) as u16).to_be_bytes());
                plain.extend_from_slice(&fnv1a(&payload).to_be_bytes());
            }
            plain.extend_from_slice(&payload);
            payloads.extend(payload);
        }
        let mut other = plain.clone();
        cfb_mode::Encryptor::<Aes128>::new((&KEYS.key).into(), (&KEYS.iv).into()).encrypt(&mut other);
        assert!(made == other, "options {bits:#x}");
        let mut sizes = SeededEntropy::new(5);
        let cut = || 1 + sizes.below(3000) as usize;
        let received = receive(Opener::new(framing, &KEYS, &KEYS), &made, cut).expect("a stream");
        assert!(received.bytes() == payloads, "options {bits:#x}");
    }
}
