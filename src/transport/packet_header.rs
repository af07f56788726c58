//! What a datagram of mKCP or QUIC starts with, so that it looks like another protocol's. It protects nothing.
//!
//! Bytes in, bytes out: no socket, no clock. The forms are V2Ray's (`transport/internet/headers`).

use crate::config::PacketHeader;
use crate::entropy::Entropy;

/// Writes the headers of one sender.
#[derive(Debug, Clone)]
pub(crate) struct HeaderWriter(State);

/// What changes from datagram to datagram.
#[derive(Debug, Clone)]
enum State {
    None,
    Srtp { number: u16 },
    Utp { connection: u16 },
    WechatVideo { number: u32 },
    Dtls { epoch: u16, sequence: u32, length: u16 },
    Wireguard,
}

/// Bytes of a header. Every receiver skips so many, and looks at none of them.
pub(crate) const fn len(kind: PacketHeader) -> usize {
    match kind {
        PacketHeader::None => 0,
        PacketHeader::Srtp | PacketHeader::Utp | PacketHeader::Wireguard => 4,
        PacketHeader::WechatVideo | PacketHeader::Dtls => 13,
    }
}

impl HeaderWriter {
    /// Starts the headers of a sender, where each kind starts anew.
    pub(crate) fn new(kind: PacketHeader, entropy: &mut dyn Entropy) -> Self {
        let mut random = || {
            let mut bytes = [0; 2];
            entropy.fill(&mut bytes);
            u16::from_be_bytes(bytes)
        };
        Self(match kind {
            PacketHeader::None => State::None,
            PacketHeader::Srtp => State::Srtp { number: random() },
            PacketHeader::Utp => State::Utp { connection: random() },
            PacketHeader::WechatVideo => State::WechatVideo { number: random().into() },
            PacketHeader::Dtls => State::Dtls { epoch: random(), sequence: 0, length: 17 },
            PacketHeader::Wireguard => State::Wireguard,
        })
    }

    /// Appends the next datagram's header.
    pub(crate) fn append(&mut self, out: &mut Vec<u8>) {
        match &mut self.0 {
            State::None => {}
            State::Srtp { number } => {
                *number = number.wrapping_add(1);
                out.extend([0xB5, 0xE8]);
                out.extend(number.to_be_bytes());
            }
            State::Utp { connection } => {
                out.extend(connection.to_be_bytes());
                out.extend([1, 0]);
            }
            State::WechatVideo { number } => {
                *number = number.wrapping_add(1);
                out.extend([0xA1, 0x08]);
                out.extend(number.to_be_bytes());
                out.extend([0x00, 0x10, 0x11, 0x18, 0x30, 0x22, 0x30]);
            }
            State::Dtls { epoch, sequence, length } => {
                out.extend([0x17, 0xFE, 0xFD]);
                out.extend(epoch.to_be_bytes());
                out.extend([0, 0]);
                out.extend(sequence.to_be_bytes());
                out.extend(length.to_be_bytes());
                *sequence = sequence.wrapping_add(1);
                *length += 17;
                if *length > 100 {
                    *length -= 50;
                }
            }
            State::Wireguard => out.extend([4, 0, 0, 0]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entropy::SeededEntropy;

    const ALL: [PacketHeader; 6] = [
        PacketHeader::None,
        PacketHeader::Srtp,
        PacketHeader::Utp,
        PacketHeader::WechatVideo,
        PacketHeader::Dtls,
        PacketHeader::Wireguard,
    ];

    fn writer(kind: PacketHeader) -> impl FnMut() -> Vec<u8> {
        let mut writer = HeaderWriter::new(kind, &mut SeededEntropy::new(1));
        move || {
            let mut out = Vec::new();
            writer.append(&mut out);
            out
        }
    }

    #[test]
    fn every_header_has_its_length() {
        for kind in ALL {
            let mut next = writer(kind);
            assert!((0..200).all(|_| next().len() == len(kind)), "{kind:?}");
        }
    }

    #[test]
    fn counters_count_from_a_random_start_and_wrap() {
        let mut srtp = writer(PacketHeader::Srtp);
        let numbers: Vec<u16> =
            (0..70_000).map(|_| srtp()).map(|h| u16::from_be_bytes([h[2], h[3]])).collect();
        assert!(numbers.windows(2).all(|pair| pair[1] == pair[0].wrapping_add(1)));
        let mut video = writer(PacketHeader::WechatVideo);
        let (first, second) = (video(), video());
        assert_eq!(first[..2], [0xA1, 0x08]);
        assert_eq!(first[6..], [0x00, 0x10, 0x11, 0x18, 0x30, 0x22, 0x30]);
        let number = |h: &[u8]| u32::from_be_bytes([h[2], h[3], h[4], h[5]]);
        assert_eq!(number(&second), number(&first) + 1);
    }

    #[test]
    fn the_feigned_length_of_dtls_stays_where_v2ray_keeps_it() {
        let mut dtls = writer(PacketHeader::Dtls);
        let headers: Vec<Vec<u8>> = (0..9).map(|_| dtls()).collect();
        let lengths: Vec<u16> = headers.iter().map(|h| u16::from_be_bytes([h[11], h[12]])).collect();
        assert_eq!(lengths, [17, 34, 51, 68, 85, 52, 69, 86, 53]);
        for (number, header) in headers.iter().enumerate() {
            assert_eq!(header[..3], [0x17, 0xFE, 0xFD]);
            assert_eq!(header[3..5], headers[0][3..5], "the epoch stays");
            assert_eq!(header[5..11], (number as u64).to_be_bytes()[2..]);
        }
    }

    #[test]
    fn the_others_say_the_same_each_time() {
        assert_eq!(writer(PacketHeader::Wireguard)(), [4, 0, 0, 0]);
        let mut utp = writer(PacketHeader::Utp);
        let first = utp();
        assert_eq!((first[2..].to_vec(), &utp()), (vec![1, 0], &first));
    }
}
