//! What goes around the segments of a datagram: a header as another protocol's, then a seal. With a seed that is
//! AES-128-GCM; without one a checksum and a scrambling that keep accidents out, and nobody who means it.

use crate::config::PacketHeader;
use crate::entropy::Entropy;
use crate::transport::packet_header::{self, HeaderWriter};
use ring::aead::{AES_128_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use sha2::{Digest, Sha256};
use std::ops::Range;
use zeroize::Zeroizing;

/// Bytes of the checksum and the length.
const CHECK: usize = 6;
/// Bytes of an AES-GCM tag.
const TAG: usize = 16;

/// What both ends of a config wrap datagrams in.
#[derive(Debug, Clone)]
pub(super) struct Wrapping {
    header: PacketHeader,
    key: Option<LessSafeKey>,
}

/// Wraps the datagrams of one sender.
#[derive(Debug)]
pub(super) struct Wrapper {
    wrapping: Wrapping,
    headers: HeaderWriter,
}

impl Wrapping {
    /// The wrapping of a config.
    pub(super) fn new(header: PacketHeader, seed: Option<&str>) -> Self {
        let key = seed.map(|seed| {
            let hash = Zeroizing::new(<[u8; 32]>::from(Sha256::digest(seed)));
            let key = UnboundKey::new(&AES_128_GCM, &hash[..16]).expect("16 bytes are a key");
            LessSafeKey::new(key)
        });
        Self { header, key }
    }

    /// By how many bytes a datagram grows.
    pub(super) const fn overhead(&self) -> usize {
        let seal = if self.key.is_some() { NONCE_LEN + TAG } else { CHECK };
        packet_header::len(self.header) + seal
    }

    /// By how many bytes V2Ray says that it grows: it leaves the nonce out.
    pub(super) const fn counted(&self) -> usize {
        let seal = if self.key.is_some() { TAG } else { CHECK };
        packet_header::len(self.header) + seal
    }

    /// Starts to wrap.
    pub(super) fn wrapper(&self, entropy: &mut dyn Entropy) -> Wrapper {
        Wrapper { wrapping: self.clone(), headers: HeaderWriter::new(self.header, entropy) }
    }

    /// Opens a datagram in place, and says where in it the segments are. `None` if it is none of ours.
    pub(super) fn open(&self, datagram: &mut [u8]) -> Option<Range<usize>> {
        let start = packet_header::len(self.header);
        let body = datagram.get_mut(start..)?;
        let within = match &self.key {
            Some(key) => {
                let (nonce, sealed) = body.split_first_chunk_mut::<NONCE_LEN>()?;
                let nonce = Nonce::assume_unique_for_key(*nonce);
                let len = key.open_in_place(nonce, Aad::empty(), sealed).ok()?.len();
                NONCE_LEN..NONCE_LEN + len
            }
            None => unscramble(body)?,
        };
        // V2Ray takes no empty ones for datagrams either.
        (!within.is_empty()).then(|| start + within.start..start + within.end)
    }
}

impl Wrapper {
    /// What it wraps in.
    pub(super) const fn wrapping(&self) -> &Wrapping {
        &self.wrapping
    }

    /// Makes `out` the datagram of what `fill` appends; whether it has appended anything.
    pub(super) fn wrap(
        &mut self,
        out: &mut Vec<u8>,
        entropy: &mut dyn Entropy,
        fill: impl FnOnce(&mut Vec<u8>) -> bool,
    ) -> bool {
        out.clear();
        let untouched = self.headers.clone();
        self.headers.append(out);
        let header = out.len();
        out.resize(header + if self.wrapping.key.is_some() { NONCE_LEN } else { CHECK }, 0);
        if !fill(out) {
            // The counters of headers count datagrams, not attempts.
            self.headers = untouched;
            return false;
        }
        let body = &mut out[header..];
        match &self.wrapping.key {
            Some(key) => {
                let (nonce, plain) = body.split_first_chunk_mut::<NONCE_LEN>().expect("just made room for");
                entropy.fill(nonce);
                let tag = key
                    .seal_in_place_separate_tag(Nonce::assume_unique_for_key(*nonce), Aad::empty(), plain)
                    .expect("a datagram is far shorter than what a key can seal");
                out.extend_from_slice(tag.as_ref());
            }
            None => scramble(body),
        }
        true
    }
}

/// FNV-1a, 32 bits.
fn checksum(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811C_9DC5, |hash, &byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

/// Puts the length and the checksum into the first six bytes, then adds to each byte the one four before it.
fn scramble(body: &mut [u8]) {
    let len = body.len().saturating_sub(CHECK) as u16;
    body[4..CHECK].copy_from_slice(&len.to_be_bytes());
    let sum = checksum(&body[4..]);
    body[..4].copy_from_slice(&sum.to_be_bytes());
    for at in 4..body.len() {
        body[at] ^= body[at - 4];
    }
}

/// Undoes [`scramble`], and says where the payload is; `None` if it was none.
fn unscramble(body: &mut [u8]) -> Option<Range<usize>> {
    if body.len() < CHECK {
        return None;
    }
    for at in (4..body.len()).rev() {
        body[at] ^= body[at - 4];
    }
    let (sum, rest) = body.split_first_chunk::<4>()?;
    let (len, payload) = rest.split_first_chunk::<2>()?;
    let whole =
        checksum(rest) == u32::from_be_bytes(*sum) && payload.len() == usize::from(u16::from_be_bytes(*len));
    whole.then_some(CHECK..body.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entropy::SeededEntropy;

    const HEADERS: [PacketHeader; 6] = [
        PacketHeader::None,
        PacketHeader::Srtp,
        PacketHeader::Utp,
        PacketHeader::WechatVideo,
        PacketHeader::Dtls,
        PacketHeader::Wireguard,
    ];

    fn wrapped(wrapping: &Wrapping, plain: &[u8]) -> Vec<u8> {
        let (mut entropy, mut out) = (SeededEntropy::new(1), Vec::new());
        let mut wrapper = wrapping.wrapper(&mut entropy);
        assert!(!wrapper.wrap(&mut out, &mut entropy, |_| false));
        assert!(wrapper.wrap(&mut out, &mut entropy, |out| {
            out.extend_from_slice(plain);
            true
        }));
        out
    }

    fn unhex(text: &str) -> Vec<u8> {
        let digit = |at: usize| u8::from_str_radix(&text[at..at + 2], 16).expect("hex");
        (0..text.len()).step_by(2).map(digit).collect()
    }

    #[test]
    fn what_is_scrambled_is_as_v2rays() {
        // V2Ray's own test of its authenticator and two more, made with another implementation.
        for (plain, sealed) in [
            ("61626364656667", "d1972ba8d1904acab2f42facd5"),
            ("6162", "861590708617f112"),
            (
                "12340100000003e800000000000000000003616263",
                "5acbe7695adef55d5bdef55d5836f55d5836f55d5836f55e395496",
            ),
        ] {
            let wrapping = Wrapping::new(PacketHeader::None, None);
            let mut datagram = wrapped(&wrapping, &unhex(plain));
            assert_eq!(datagram, unhex(sealed));
            assert_eq!(wrapping.open(&mut datagram).map(|at| datagram[at].to_vec()), Some(unhex(plain)));
        }
    }

    #[test]
    fn what_is_wrapped_opens_and_nothing_else_does() {
        for (header, seed) in
            HEADERS.into_iter().flat_map(|header| [(header, None), (header, Some("my seed"))])
        {
            let wrapping = Wrapping::new(header, seed);
            let wire = wrapped(&wrapping, b"some segments");
            assert_eq!(wire.len(), 13 + wrapping.overhead());
            let mut whole = wire.clone();
            let within = wrapping.open(&mut whole).expect("ours");
            assert_eq!(whole[within], b"some segments"[..]);
            for len in 0..wire.len() {
                assert_eq!(wrapping.open(&mut wire[..len].to_vec()), None, "{header:?} {seed:?} {len}");
            }
            for at in packet_header::len(header)..wire.len() {
                let mut flipped = wire.clone();
                flipped[at] ^= 0x10;
                assert_eq!(wrapping.open(&mut flipped), None, "{header:?} {seed:?} {at}");
            }
            let other = Wrapping::new(header, Some("my sead"));
            assert_eq!(other.open(&mut wire.clone()), None);
            assert_eq!(wrapping.open(&mut wrapped(&wrapping, b"")), None, "nothing in it");
        }
    }
}
