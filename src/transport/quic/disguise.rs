//! What V2Ray puts around the datagrams of QUIC: a header as another protocol's, then, if it is wished for, a seal: a nonce,
//! and the datagram under a key that both configs name. Bytes in, bytes out.

use super::super::packet_header::{self, HeaderWriter};
use crate::config::{PacketHeader, Quic, QuicSecurity};
use crate::entropy::Entropy;
use ring::aead::{AES_128_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use sha2::{Digest, Sha256};
use std::ops::Range;
use zeroize::Zeroizing;

/// What is hashed behind the key's text.
const SALT: &[u8] = b"v2ray-quic-salt";
/// The bytes of a tag.
const TAG: usize = 16;

/// The disguise that both ends of a config share.
#[derive(Debug, Clone)]
pub(super) struct Disguise {
    header: PacketHeader,
    key: Option<LessSafeKey>,
}

impl Disguise {
    /// The disguise of a config.
    pub(super) fn new(settings: &Quic) -> Self {
        let hash = || {
            let hash = Sha256::new().chain_update(settings.key.expose()).chain_update(SALT).finalize();
            Zeroizing::new(<[u8; 32]>::from(hash))
        };
        let key = match settings.security {
            QuicSecurity::None => None,
            QuicSecurity::Aes128Gcm => UnboundKey::new(&AES_128_GCM, &hash()[..16]).ok(),
            QuicSecurity::Chacha20Poly1305 => UnboundKey::new(&CHACHA20_POLY1305, &hash()[..]).ok(),
        };
        Self { header: settings.header, key: key.map(LessSafeKey::new) }
    }

    /// By how many bytes a datagram grows.
    pub(super) const fn overhead(&self) -> usize {
        let seal = if self.key.is_some() { NONCE_LEN + TAG } else { 0 };
        packet_header::len(self.header) + seal
    }

    /// What a sender writes its headers with.
    pub(super) fn writer(&self, entropy: &mut dyn Entropy) -> HeaderWriter {
        HeaderWriter::new(self.header, entropy)
    }

    /// Appends a datagram as it goes out.
    pub(super) fn seal(
        &self,
        datagram: &[u8],
        writer: &mut HeaderWriter,
        entropy: &mut dyn Entropy,
        out: &mut Vec<u8>,
    ) {
        writer.append(out);
        let Some(key) = &self.key else { return out.extend_from_slice(datagram) };
        let mut nonce = [0; NONCE_LEN];
        entropy.fill(&mut nonce);
        out.extend_from_slice(&nonce);
        let start = out.len();
        out.extend_from_slice(datagram);
        let body = out.get_mut(start..).unwrap_or_default();
        let tag = key
            .seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), Aad::empty(), body)
            .expect("a datagram is far shorter than what a key can seal");
        out.extend_from_slice(tag.as_ref());
    }

    /// Opens a datagram in place, and says where in it QUIC's is. `None` if it is none of ours.
    pub(super) fn open(&self, datagram: &mut [u8]) -> Option<Range<usize>> {
        let start = packet_header::len(self.header);
        let body = datagram.get_mut(start..).filter(|body| !body.is_empty())?;
        let Some(key) = &self.key else { return Some(start..datagram.len()) };
        let (nonce, sealed) = body.split_first_chunk_mut::<NONCE_LEN>()?;
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let len = key.open_in_place(nonce, Aad::empty(), sealed).ok()?.len();
        let start = start + NONCE_LEN;
        Some(start..start + len)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::config::Secret;
    use crate::entropy::SeededEntropy;

    const HEADERS: [PacketHeader; 6] = [
        PacketHeader::None,
        PacketHeader::Srtp,
        PacketHeader::Utp,
        PacketHeader::WechatVideo,
        PacketHeader::Dtls,
        PacketHeader::Wireguard,
    ];
    const SECURITIES: [QuicSecurity; 3] =
        [QuicSecurity::None, QuicSecurity::Aes128Gcm, QuicSecurity::Chacha20Poly1305];

    /// Every disguise there is.
    pub(in super::super) fn all() -> impl Iterator<Item = Quic> {
        SECURITIES.into_iter().flat_map(|security| {
            HEADERS.into_iter().map(move |header| Quic { security, key: Secret::new("open sesame"), header })
        })
    }

    fn sealed(disguise: &Disguise, datagram: &[u8]) -> Vec<u8> {
        let (mut entropy, mut out) = (SeededEntropy::new(1), Vec::new());
        let mut writer = disguise.writer(&mut entropy);
        disguise.seal(datagram, &mut writer, &mut entropy, &mut out);
        out
    }

    #[test]
    fn what_is_sealed_opens_and_nothing_else_does() {
        for settings in all() {
            let disguise = Disguise::new(&settings);
            let mut datagram = sealed(&disguise, b"a datagram of QUIC");
            assert_eq!(datagram.len(), 18 + disguise.overhead(), "{settings:?}");
            let mut flipped = datagram.clone();
            let range = disguise.open(&mut datagram).expect("ours");
            assert_eq!(datagram.get(range), Some(&b"a datagram of QUIC"[..]), "{settings:?}");
            for len in 0..flipped.len() {
                let mut cut = flipped[..len].to_vec();
                assert!(disguise.open(&mut cut).is_none_or(|range| cut.get(range).is_some()), "{settings:?}");
            }
            if settings.security != QuicSecurity::None {
                *flipped.last_mut().expect("bytes") ^= 1;
                assert_eq!(disguise.open(&mut flipped), None, "{settings:?}");
                let other = Disguise::new(&Quic { key: Secret::new("open, sesame"), ..settings });
                assert_eq!(other.open(&mut sealed(&disguise, b"x")), None);
            }
        }
    }

    #[test]
    fn the_key_is_v2rays() {
        // Made with another implementation: SHA-256("open sesame" || salt), AES-128-GCM under its first half.
        let settings = Quic {
            security: QuicSecurity::Aes128Gcm,
            key: Secret::new("open sesame"),
            header: PacketHeader::None,
        };
        let mut datagram = unhex(KNOWN);
        let range = Disguise::new(&settings).open(&mut datagram).expect("authentic");
        assert_eq!(datagram.get(range), Some(&b"hello"[..]));
    }

    fn unhex(text: &str) -> Vec<u8> {
        let digit = |at: usize| u8::from_str_radix(&text[at..at + 2], 16).expect("hex");
        (0..text.len()).step_by(2).map(digit).collect()
    }

    const KNOWN: &str = "000102030405060708090a0b882f106a1ddeb4d629a2025bcc11f97607f242033c";
}
