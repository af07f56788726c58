//! UDP headers: read with their checksum verified, and built.

use super::checksum::Checksum;
use super::ip::{Malformed, Protocol};
use smoltcp::wire::UdpPacket;
use std::net::{IpAddr, SocketAddr};

/// Length of the UDP header.
pub(crate) const HEADER: usize = 8;

/// One datagram, taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Datagram<'a> {
    /// The port it comes from; 0 if no answer is expected.
    pub(crate) source_port: u16,
    /// The port it goes to, never 0.
    pub(crate) destination_port: u16,
    /// What it carries; may be empty.
    pub(crate) data: &'a [u8],
}

/// Takes the IP payload `bytes` apart. A checksum of zero means none was computed, which only IPv4 allows; with
/// `trusted` none is checked.
///
/// # Errors
/// [`Malformed`] if the lengths contradict each other, the destination port is 0 or the checksum is wrong.
pub(crate) fn parse(
    src: IpAddr,
    dst: IpAddr,
    bytes: &[u8],
    trusted: bool,
) -> Result<Datagram<'_>, Malformed> {
    let packet = UdpPacket::new_checked(bytes).map_err(|_| Malformed::Truncated)?;
    let bytes = bytes.get(..usize::from(packet.len())).ok_or(Malformed::Truncated)?;
    if packet.dst_port() == 0 {
        return Err(Malformed::Header);
    }
    if !trusted {
        match packet.checksum() {
            0 if src.is_ipv4() => {}
            0 => return Err(Malformed::Checksum),
            _ => {
                let mut sum = Checksum::pseudo(src, dst, Protocol::Udp.number(), bytes.len());
                sum.add(bytes);
                if !sum.is_valid() {
                    return Err(Malformed::Checksum);
                }
            }
        }
    }
    let data = bytes.get(HEADER..).ok_or(Malformed::Truncated)?;
    Ok(Datagram { source_port: packet.src_port(), destination_port: packet.dst_port(), data })
}

/// Builds the header of a datagram that carries `data`, checksum and all; `None` if it is too long for UDP.
pub(crate) fn header(source: SocketAddr, destination: SocketAddr, data: &[u8]) -> Option<[u8; HEADER]> {
    let len = u16::try_from(HEADER + data.len()).ok()?;
    let mut bytes = [0; HEADER];
    let mut packet = UdpPacket::new_unchecked(&mut bytes[..]);
    packet.set_src_port(source.port());
    packet.set_dst_port(destination.port());
    packet.set_len(len);
    let protocol = Protocol::Udp.number();
    let mut sum = Checksum::pseudo(source.ip(), destination.ip(), protocol, usize::from(len));
    sum.add(&bytes);
    sum.add(data);
    // A sum of zero goes as its other form: zero means that there is none.
    let sum = match sum.finish() {
        0 => 0xffff,
        sum => sum,
    };
    bytes[6..8].copy_from_slice(&sum.to_be_bytes());
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entropy::{Entropy, SeededEntropy};

    #[test]
    fn what_we_build_verifies_here_and_in_smoltcp() {
        let mut entropy = SeededEntropy::new(6);
        let mut zero_sums = 0;
        for n in 0..70_000u32 {
            let source: SocketAddr = "1.2.3.4:53".parse().expect("addr");
            let destination: SocketAddr = "5.6.7.8:999".parse().expect("addr");
            // The counter runs through all sums, the zero one among them.
            let data = [n.to_be_bytes(), [0; 4]].concat();
            let head = header(source, destination, &data).expect("short");
            let bytes = [&head[..], &data].concat();
            zero_sums += u32::from(head[6..8] == [0xff, 0xff]);
            let datagram = parse(source.ip(), destination.ip(), &bytes, false).expect("valid");
            assert_eq!(
                (datagram.source_port, datagram.destination_port, datagram.data),
                (53, 999, &data[..])
            );
            if n % 1000 == 0 {
                let packet = UdpPacket::new_checked(&bytes[..]).expect("legal");
                assert!(packet.verify_checksum(&source.ip().into(), &destination.ip().into()));
                let mut damaged = bytes.clone();
                damaged[8 + entropy.below(8) as usize] ^= 1 << entropy.below(8);
                assert!(parse(source.ip(), destination.ip(), &damaged, false).is_err());
                assert!(parse(source.ip(), destination.ip(), &damaged, true).is_ok());
            }
        }
        assert!(zero_sums > 0);
        let any: SocketAddr = "[::1]:1".parse().expect("addr");
        assert!(header(any, any, &[0; 65_528]).is_none());
    }

    #[test]
    fn a_missing_checksum_is_legal_on_ipv4_alone() {
        let bytes = [0, 1, 0, 2, 0, 9, 0, 0, 7, 99];
        let (v4, v6): (IpAddr, IpAddr) = ([1, 2, 3, 4].into(), "fd00::1".parse().expect("ip"));
        assert_eq!(parse(v4, v4, &bytes, false).expect("legal").data, [7], "the length field rules");
        assert_eq!(parse(v6, v6, &bytes, false), Err(Malformed::Checksum));
        assert!(parse(v4, v4, &[0, 1, 0, 0, 0, 8, 0, 0], false).is_err(), "port 0");
        assert!(parse(v4, v4, &[0, 1, 0, 2, 0, 7, 0, 0], false).is_err(), "shorter than its header");
        assert!(parse(v4, v4, &[0, 1, 0, 2, 0, 11, 0, 0, 1, 2], false).is_err(), "longer than the packet");
    }
}
