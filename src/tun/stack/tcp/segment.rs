//! TCP segments on the wire: one way in, one way out.

use super::seq::Seq;
use crate::tun::stack::checksum::Checksum;
use crate::tun::stack::ip::{Malformed, Protocol};
use std::net::IpAddr;

/// Length of a TCP header without options.
pub(crate) const HEADER: usize = 20;
/// Length of the longest TCP header.
pub(crate) const MAX_HEADER: usize = 60;
/// Where the checksum lies in the header.
pub(crate) const CHECKSUM_OFFSET: usize = 16;

/// The header's flag bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Flags(u8);

impl Flags {
    pub(crate) const FIN: Self = Self(0x01);
    pub(crate) const SYN: Self = Self(0x02);
    pub(crate) const RST: Self = Self(0x04);
    pub(crate) const PSH: Self = Self(0x08);
    pub(crate) const ACK: Self = Self(0x10);

    /// Whether every bit of `other` is set.
    pub(crate) const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// The bits of both.
    #[must_use]
    pub(crate) const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// Ranges of a SACK option, first to last; the end of each is exclusive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct SackBlocks {
    blocks: [(Seq, Seq); Self::MAX],
    len: u8,
}

impl SackBlocks {
    /// The most that fit into a header without other options.
    pub(crate) const MAX: usize = 4;

    /// Adds a block; a fifth is dropped.
    pub(crate) fn push(&mut self, start: Seq, end: Seq) {
        if let Some(block) = self.blocks.get_mut(usize::from(self.len)) {
            *block = (start, end);
            self.len += 1;
        }
    }

    /// The blocks.
    pub(crate) fn as_slice(&self) -> &[(Seq, Seq)] {
        &self.blocks[..usize::from(self.len)]
    }
}

/// The options that we understand; others are skipped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Options {
    /// Maximum segment size, on a SYN.
    pub(crate) mss: Option<u16>,
    /// Window scale, on a SYN: 14 at most (RFC 7323).
    pub(crate) scale: Option<u8>,
    /// SACK permitted, on a SYN.
    pub(crate) sack_permitted: bool,
    /// What the sender holds out of order.
    pub(crate) sack: SackBlocks,
}

impl Options {
    /// Reads options up to the first that is impossible; what stands before it counts.
    fn parse(mut bytes: &[u8]) -> Self {
        let mut options = Self::default();
        while let [kind, rest @ ..] = bytes {
            match kind {
                0 => break,
                1 => {
                    bytes = rest;
                    continue;
                }
                _ => {}
            }
            let Some((body, after)) = rest
                .split_first()
                .and_then(|(len, rest)| rest.split_at_checked(usize::from(*len).checked_sub(2)?))
            else {
                break;
            };
            bytes = after;
            match (kind, body) {
                (2, [high, low]) => options.mss = Some(u16::from_be_bytes([*high, *low])),
                (3, [shift]) => options.scale = Some((*shift).min(14)),
                (4, []) => options.sack_permitted = true,
                (5, blocks) => {
                    let (words, _) = blocks.as_chunks::<8>();
                    for &[a, b, c, d, e, f, g, h] in words {
                        let (start, end) =
                            (Seq(u32::from_be_bytes([a, b, c, d])), Seq(u32::from_be_bytes([e, f, g, h])));
                        options.sack.push(start, end);
                    }
                }
                _ => {}
            }
        }
        options
    }

    /// Writes the options, padded to a multiple of four, and returns their length.
    fn emit(&self, out: &mut [u8; MAX_HEADER - HEADER]) -> usize {
        let mut at = 0;
        let mut put = |bytes: &[u8]| {
            out[at..at + bytes.len()].copy_from_slice(bytes);
            at += bytes.len();
        };
        if let Some(mss) = self.mss {
            let [high, low] = mss.to_be_bytes();
            put(&[2, 4, high, low]);
        }
        if let Some(shift) = self.scale {
            put(&[1, 3, 3, shift]);
        }
        if self.sack_permitted {
            put(&[1, 1, 4, 2]);
        }
        let blocks = self.sack.as_slice();
        if !blocks.is_empty() {
            put(&[1, 1, 5, 2 + 8 * blocks.len() as u8]);
            for (start, end) in blocks {
                put(&start.0.to_be_bytes());
                put(&end.0.to_be_bytes());
            }
        }
        at
    }
}

/// A segment that came in.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Segment<'a> {
    pub(crate) src_port: u16,
    pub(crate) dst_port: u16,
    pub(crate) seq: Seq,
    pub(crate) ack: Seq,
    pub(crate) flags: Flags,
    /// As in the header, not scaled.
    pub(crate) window: u16,
    pub(crate) options: Options,
    pub(crate) payload: &'a [u8],
}

impl<'a> Segment<'a> {
    /// Takes a segment apart and verifies its checksum unless `trusted`.
    ///
    /// # Errors
    /// [`Malformed`] if it is cut off or damaged.
    pub(crate) fn parse(bytes: &'a [u8], src: IpAddr, dst: IpAddr, trusted: bool) -> Result<Self, Malformed> {
        let (header, _) = bytes.split_first_chunk::<HEADER>().ok_or(Malformed::Truncated)?;
        let header_len = usize::from(header[12] >> 4) * 4;
        let (full, payload) = bytes.split_at_checked(header_len).ok_or(Malformed::Truncated)?;
        let options = full.get(HEADER..).ok_or(Malformed::Header)?;
        if !trusted {
            let mut sum = Checksum::pseudo(src, dst, Protocol::Tcp.number(), bytes.len());
            sum.add(bytes);
            if !sum.is_valid() {
                return Err(Malformed::Checksum);
            }
        }
        let u16_at = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
        let seq_at =
            |at: usize| Seq(u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]));
        Ok(Self {
            src_port: u16_at(0),
            dst_port: u16_at(2),
            seq: seq_at(4),
            ack: seq_at(8),
            flags: Flags(header[13] & 0x1f),
            window: u16_at(14),
            options: if options.is_empty() { Options::default() } else { Options::parse(options) },
            payload,
        })
    }

    /// Sequence numbers that the segment takes: its payload, SYN and FIN.
    pub(crate) const fn len(&self) -> u32 {
        self.payload.len() as u32 + self.flags.has(Flags::SYN) as u32 + self.flags.has(Flags::FIN) as u32
    }
}

/// The header of a segment to be sent.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Outline {
    pub(crate) src_port: u16,
    pub(crate) dst_port: u16,
    pub(crate) seq: Seq,
    pub(crate) ack: Seq,
    pub(crate) flags: Flags,
    pub(crate) window: u16,
    pub(crate) options: Options,
}

impl Outline {
    /// Writes the header with a checksum field of zero and returns its length.
    pub(crate) fn emit(&self, out: &mut [u8; MAX_HEADER]) -> usize {
        let (fixed, options) = out.split_first_chunk_mut::<HEADER>().expect("20 is less than 60");
        let mut len = HEADER;
        if self.options != Options::default() {
            let options = options.first_chunk_mut().expect("40 bytes are left");
            len += self.options.emit(options);
        }
        fixed[0..2].copy_from_slice(&self.src_port.to_be_bytes());
        fixed[2..4].copy_from_slice(&self.dst_port.to_be_bytes());
        fixed[4..8].copy_from_slice(&self.seq.0.to_be_bytes());
        fixed[8..12].copy_from_slice(&self.ack.0.to_be_bytes());
        fixed[12] = ((len / 4) as u8) << 4;
        fixed[13] = self.flags.0;
        fixed[14..16].copy_from_slice(&self.window.to_be_bytes());
        fixed[16..20].fill(0);
        len
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entropy::{Entropy, SeededEntropy};
    use std::net::Ipv4Addr;

    const IP: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    #[test]
    fn what_is_written_is_read_back() {
        let mut sack = SackBlocks::default();
        sack.push(Seq(1), Seq(2));
        sack.push(Seq(u32::MAX), Seq(7));
        for options in [
            Options::default(),
            Options { mss: Some(1460), scale: Some(5), sack_permitted: true, ..Options::default() },
            Options { sack, ..Options::default() },
        ] {
            let flags = Flags::ACK.with(Flags::PSH);
            let outline = Outline {
                src_port: 443,
                dst_port: 50_000,
                seq: Seq(0xfffe_0001),
                ack: Seq(77),
                flags,
                window: 512,
                options,
            };
            let mut out = [0xaa; MAX_HEADER];
            let len = outline.emit(&mut out);
            let segment = Segment::parse(&out[..len], IP, IP, true).expect("legal");
            assert_eq!((segment.src_port, segment.dst_port, segment.window), (443, 50_000, 512));
            assert_eq!((segment.seq, segment.ack, segment.flags), (Seq(0xfffe_0001), Seq(77), flags));
            assert_eq!((segment.options, segment.payload.len()), (options, 0));
        }
    }

    #[test]
    fn options_are_read_up_to_the_first_impossible_one() {
        let mss = Some(1460);
        let table: [(&[u8], Options); 9] = [
            (&[], Options::default()),
            (&[1, 1, 2, 4, 5, 180], Options { mss, ..Options::default() }),
            (&[0, 2, 4, 5, 180], Options::default()),
            (&[2, 4, 5, 180, 3, 0, 4, 2], Options { mss, ..Options::default() }),
            (&[2, 4, 5, 180, 3, 1], Options { mss, ..Options::default() }),
            (&[2, 4, 5], Options::default()),
            (&[2, 3, 5, 4, 2], Options { sack_permitted: true, ..Options::default() }),
            (&[3, 3, 200], Options { scale: Some(14), ..Options::default() }),
            (&[8, 10, 0, 0, 0, 0, 0, 0, 0, 0, 3, 3, 7], Options { scale: Some(7), ..Options::default() }),
        ];
        for (bytes, expected) in table {
            assert_eq!(Options::parse(bytes), expected, "{bytes:?}");
        }
        let blocks: Vec<u8> = [5, 34].into_iter().chain(0..32).collect();
        assert_eq!(Options::parse(&blocks).sack.as_slice().len(), 4);
        let mut entropy = SeededEntropy::new(9);
        for _ in 0..20_000 {
            let mut bytes = vec![0; entropy.below(41) as usize];
            entropy.fill(&mut bytes);
            if let Some(first) = bytes.first_mut() {
                *first %= 10;
            }
            Options::parse(&bytes);
        }
    }

    #[test]
    fn damage_and_short_headers_are_refused() {
        let mut bytes = [0; 60];
        bytes[12] = 5 << 4;
        assert!(matches!(Segment::parse(&bytes, IP, IP, false), Err(Malformed::Checksum)));
        let mut sum = Checksum::pseudo(IP, IP, 6, 60);
        sum.add(&bytes);
        bytes[16..18].copy_from_slice(&sum.finish().to_be_bytes());
        assert_eq!(Segment::parse(&bytes, IP, IP, false).expect("legal").payload.len(), 40);
        assert!(matches!(Segment::parse(&bytes[..19], IP, IP, true), Err(Malformed::Truncated)));
        bytes[12] = 4 << 4;
        assert!(matches!(Segment::parse(&bytes, IP, IP, true), Err(Malformed::Header)));
        bytes[12] = 15 << 4;
        assert!(matches!(Segment::parse(&bytes[..59], IP, IP, true), Err(Malformed::Truncated)));
    }
}
