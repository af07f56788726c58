//! The internet checksum (RFC 1071): one's complement sums over one slice or over many, whatever their lengths.
//!
//! Words are added in the machine's own byte order and swapped once at the end, 32 bits at a time into 64-bit lanes
//! that cannot overflow within a packet; the compiler makes vector code of it.

use std::net::IpAddr;

/// Bytes that the main loop takes a turn: eight lanes of 32 bits.
const BLOCK: usize = 32;

/// A running checksum. Slices are added in the order in which they lie in the packet.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Checksum {
    /// The sum of 16-bit words in machine order, not folded.
    sum: u64,
    /// Whether an odd number of bytes has been added, so that the next byte is the low half of a word.
    odd: bool,
}

impl Checksum {
    /// The checksum of nothing.
    pub(crate) const fn new() -> Self {
        Self { sum: 0, odd: false }
    }

    /// Starts with the pseudo header of TCP, UDP or ICMPv6: `len` is the length of the transport header and its data.
    ///
    /// Mixed address families, which no packet has, count the bytes of both.
    pub(crate) fn pseudo(src: IpAddr, dst: IpAddr, protocol: u8, len: usize) -> Self {
        let mut sum = Self::new();
        for ip in [src, dst] {
            match ip {
                IpAddr::V4(ip) => sum.add(&ip.octets()),
                IpAddr::V6(ip) => sum.add(&ip.octets()),
            }
        }
        sum.add(&(len as u32).to_be_bytes());
        sum.add(&[0, protocol]);
        sum
    }

    /// Adds the next slice of the packet.
    pub(crate) fn add(&mut self, data: &[u8]) {
        let mut sum = u64::from(fold(sum_words(data)));
        if self.odd {
            sum = u64::from((sum as u16).swap_bytes());
        }
        self.sum += sum;
        self.odd ^= data.len() % 2 == 1;
    }

    /// The sum as it is, not complemented: what a checksum field holds that the device is to complete.
    pub(crate) const fn partial(self) -> u16 {
        u16::from_be(fold(self.sum))
    }

    /// The value for the checksum field: the complement of the sum.
    pub(crate) const fn finish(self) -> u16 {
        !self.partial()
    }

    /// Whether the sum over data that includes its checksum field shows no damage.
    pub(crate) const fn is_valid(self) -> bool {
        self.partial() == 0xffff
    }
}

/// The checksum of one slice, for the field of a header without a pseudo header.
pub(crate) fn of(data: &[u8]) -> u16 {
    let mut sum = Checksum::new();
    sum.add(data);
    sum.finish()
}

/// Sums 16-bit words in machine order; a last odd byte counts as a word with a zero behind it.
fn sum_words(data: &[u8]) -> u64 {
    let mut lanes = [0u64; BLOCK / 4];
    let (blocks, rest) = data.as_chunks::<BLOCK>();
    for block in blocks {
        let (words, _) = block.as_chunks::<4>();
        for (lane, word) in lanes.iter_mut().zip(words) {
            *lane += u64::from(u32::from_ne_bytes(*word));
        }
    }
    // A lane takes less than 2^44 from 128 KiB of data: the lanes need no folding before they are added up.
    let mut sum = lanes.iter().sum::<u64>();
    let (words, rest) = rest.as_chunks::<4>();
    for word in words {
        sum += u64::from(u32::from_ne_bytes(*word));
    }
    sum += match *rest {
        [] => 0,
        [a] => u64::from(u16::from_ne_bytes([a, 0])),
        [a, b] => u64::from(u16::from_ne_bytes([a, b])),
        [a, b, c, ..] => u64::from(u16::from_ne_bytes([a, b])) + u64::from(u16::from_ne_bytes([c, 0])),
    };
    sum
}

/// Folds a sum to 16 bits with end-around carries. Zero only for zero.
const fn fold(sum: u64) -> u16 {
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    let sum = (sum & 0xffff) + ((sum >> 16) & 0xffff) + (sum >> 32);
    let sum = (sum & 0xffff) + (sum >> 16);
    ((sum & 0xffff) + (sum >> 16)) as u16
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entropy::{Entropy, SeededEntropy};
    use smoltcp::wire::{IpAddress, UdpPacket};

    /// The definition, word by word.
    fn slow(data: &[u8]) -> u16 {
        let mut sum = 0u32;
        for pair in data.chunks(2) {
            sum += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !(sum as u16)
    }

    #[test]
    fn agrees_with_the_definition() {
        let mut entropy = SeededEntropy::new(1);
        let mut data = vec![0; 70_000];
        entropy.fill(&mut data);
        for len in (0..200).chain([1459, 1460, 8960, 15_960, 65_534, 65_535]) {
            let start = entropy.below(7) as usize;
            let slice = &data[start..start + len];
            assert_eq!(of(slice), slow(slice), "length {len}");
        }
        assert_eq!(of(&[0xff; 65_535]), slow(&[0xff; 65_535]));
        assert_eq!(of(&[0; 100]), 0xffff);
    }

    #[test]
    fn slices_sum_up_as_one_whatever_their_lengths() {
        let mut entropy = SeededEntropy::new(2);
        let mut data = vec![0; 4000];
        entropy.fill(&mut data);
        for _ in 0..300 {
            let mut sum = Checksum::new();
            let mut rest = &data[..];
            while !rest.is_empty() {
                let (slice, after) = rest.split_at((entropy.below(700) as usize).min(rest.len()));
                sum.add(slice);
                rest = after;
            }
            assert_eq!(sum.finish(), slow(&data));
        }
    }

    #[test]
    fn agrees_with_smoltcp_on_whole_datagrams() {
        let pairs = [("10.0.0.1", "192.168.255.254"), ("fd00::1", "2001:db8::ffff:1")];
        let mut entropy = SeededEntropy::new(5);
        for (src, dst) in pairs {
            let (src, dst): (IpAddr, IpAddr) = (src.parse().expect("ip"), dst.parse().expect("ip"));
            for len in (8..80).chain([1500, 9001, 65_507]) {
                let mut datagram = vec![0; len];
                entropy.fill(&mut datagram);
                let mut packet = UdpPacket::new_unchecked(&mut datagram[..]);
                packet.set_len(len as u16);
                packet.fill_checksum(&IpAddress::from(src), &IpAddress::from(dst));
                let mut sum = Checksum::pseudo(src, dst, 17, len);
                sum.add(&datagram);
                assert!(sum.is_valid(), "length {len}");
            }
        }
    }

    #[test]
    fn a_filled_field_verifies_and_a_flipped_bit_does_not() {
        let mut packet = [0u8; 61];
        SeededEntropy::new(3).fill(&mut packet);
        packet[6..8].fill(0);
        let sum = of(&packet);
        packet[6..8].copy_from_slice(&sum.to_be_bytes());
        let check = |packet: &[u8]| {
            let mut sum = Checksum::new();
            sum.add(packet);
            sum.is_valid()
        };
        assert!(check(&packet));
        packet[60] ^= 0x10;
        assert!(!check(&packet));
    }
}
