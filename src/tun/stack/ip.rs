//! IPv4 and IPv6: packets in, headers out. Transport protocols begin where this ends.

use super::checksum;
use smoltcp::wire::{IpProtocol, Ipv4Packet, Ipv6ExtHeader, Ipv6FragmentHeader, Ipv6Packet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Length of an IPv4 header without options, which is how ours are built.
pub(crate) const V4_HEADER: usize = 20;
/// Length of the fixed IPv6 header.
pub(crate) const V6_HEADER: usize = 40;
/// Length of the IPv6 fragment header.
pub(crate) const V6_FRAGMENT_HEADER: usize = 8;
/// The hop limit of what we send.
pub(crate) const HOP_LIMIT: u8 = 64;
/// How many IPv6 extension headers are walked before the packet is given up.
const MAX_EXTENSIONS: usize = 8;

/// A transport protocol, as far as the stack tells them apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Protocol {
    /// TCP (6).
    Tcp,
    /// UDP (17).
    Udp,
    /// ICMP (1).
    Icmp,
    /// ICMPv6 (58).
    Icmpv6,
    /// Any other number.
    Other(u8),
}

impl Protocol {
    /// The protocol of a number.
    pub(crate) const fn new(number: u8) -> Self {
        match number {
            1 => Self::Icmp,
            6 => Self::Tcp,
            17 => Self::Udp,
            58 => Self::Icmpv6,
            other => Self::Other(other),
        }
    }

    /// The number in the header.
    pub(crate) const fn number(self) -> u8 {
        match self {
            Self::Icmp => 1,
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Icmpv6 => 58,
            Self::Other(number) => number,
        }
    }
}

/// Why a packet is no packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum Malformed {
    /// It ends before its headers, or before the length that they give.
    #[error("the packet is cut off")]
    Truncated,
    /// Its version is neither 4 nor 6.
    #[error("the IP version is unknown")]
    Version,
    /// Fields of a header contradict each other.
    #[error("a header is impossible")]
    Header,
    /// A checksum does not verify.
    #[error("a checksum is wrong")]
    Checksum,
    /// It has too many extension headers, or one that must not be there.
    #[error("the extension headers are impossible")]
    Extension,
}

/// One IP packet, taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Packet<'a> {
    /// Where it says it comes from.
    pub(crate) src: IpAddr,
    /// Where it goes.
    pub(crate) dst: IpAddr,
    /// What [`Packet::payload`] is. In a fragment: the first header of the fragmented part, perhaps an extension.
    pub(crate) protocol: Protocol,
    /// The transport header and its data, exactly as long as the headers say.
    pub(crate) payload: &'a [u8],
    /// Whether it must not be fragmented. Always so on IPv6.
    pub(crate) dont_fragment: bool,
    /// Which part of a datagram it is, if not the whole.
    pub(crate) fragment: Option<FragmentInfo>,
}

/// Which part of a datagram a fragment is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FragmentInfo {
    /// Names the datagram, with the addresses and the protocol.
    pub(crate) id: u32,
    /// Where the payload lies in the datagram's, in bytes: a multiple of 8.
    pub(crate) offset: usize,
    /// Whether more follows behind it.
    pub(crate) more: bool,
}

/// Takes one packet apart. Bytes behind the length that the header gives are ignored.
///
/// # Errors
/// [`Malformed`], for anything that cannot be trusted to be what the sender meant.
pub(crate) fn parse(packet: &[u8]) -> Result<Packet<'_>, Malformed> {
    match packet.first().map(|first| first >> 4) {
        Some(4) => parse_v4(packet),
        Some(6) => parse_v6(packet),
        Some(_) => Err(Malformed::Version),
        None => Err(Malformed::Truncated),
    }
}

fn parse_v4(bytes: &[u8]) -> Result<Packet<'_>, Malformed> {
    let packet = Ipv4Packet::new_checked(bytes).map_err(|_| Malformed::Truncated)?;
    let header_len = usize::from(packet.header_len());
    let header =
        bytes.get(..header_len).filter(|header| header.len() >= V4_HEADER).ok_or(Malformed::Header)?;
    if checksum::of(header) != 0 {
        return Err(Malformed::Checksum);
    }
    let payload = bytes.get(header_len..usize::from(packet.total_len())).ok_or(Malformed::Truncated)?;
    let (offset, more) = (usize::from(packet.frag_offset()), packet.more_frags());
    let fragment =
        (more || offset != 0).then(|| FragmentInfo { id: u32::from(packet.ident()), offset, more });
    Ok(Packet {
        src: packet.src_addr().into(),
        dst: packet.dst_addr().into(),
        protocol: Protocol::new(packet.next_header().into()),
        payload,
        dont_fragment: packet.dont_frag(),
        fragment,
    })
}

fn parse_v6(bytes: &[u8]) -> Result<Packet<'_>, Malformed> {
    let packet = Ipv6Packet::new_checked(bytes).map_err(|_| Malformed::Truncated)?;
    let payload = bytes.get(V6_HEADER..packet.total_len()).ok_or(Malformed::Truncated)?;
    let first = packet.next_header();
    let (protocol, payload, fragment) = walk(first, payload, first == IpProtocol::HopByHop)?;
    Ok(Packet {
        src: packet.src_addr().into(),
        dst: packet.dst_addr().into(),
        protocol,
        payload,
        dont_fragment: true,
        fragment,
    })
}

/// Finds the transport header of a reassembled datagram: on IPv6 extension headers may stand before it.
///
/// # Errors
/// [`Malformed`] if the extension headers are.
pub(crate) fn transport(
    protocol: Protocol,
    payload: &[u8],
    v6: bool,
) -> Result<(Protocol, &[u8]), Malformed> {
    if !v6 {
        return Ok((protocol, payload));
    }
    match walk(protocol.number().into(), payload, false)? {
        (protocol, payload, None) => Ok((protocol, payload)),
        (_, _, Some(_)) => Err(Malformed::Extension),
    }
}

type Walked<'a> = (Protocol, &'a [u8], Option<FragmentInfo>);

/// Walks IPv6 extension headers up to the transport header, or to a fragment header of a cut datagram.
fn walk(mut next: IpProtocol, mut rest: &[u8], mut hop_by_hop: bool) -> Result<Walked<'_>, Malformed> {
    for _ in 0..MAX_EXTENSIONS {
        match next {
            IpProtocol::Ipv6Frag => {
                let body = Ipv6ExtHeader::new_unchecked(rest.get(..8).ok_or(Malformed::Truncated)?);
                let fragment =
                    Ipv6FragmentHeader::new_checked(&rest[2..8]).map_err(|_| Malformed::Truncated)?;
                (next, rest) = (body.next_header(), &rest[8..]);
                let (offset, more) = (usize::from(fragment.frag_offset()) * 8, fragment.more_frags());
                if more || offset != 0 {
                    let info = FragmentInfo { id: fragment.ident(), offset, more };
                    return Ok((Protocol::new(next.into()), rest, Some(info)));
                }
            }
            IpProtocol::HopByHop if !hop_by_hop => return Err(Malformed::Extension),
            IpProtocol::HopByHop | IpProtocol::Ipv6Opts | IpProtocol::Ipv6Route => {
                let header = Ipv6ExtHeader::new_checked(rest).map_err(|_| Malformed::Truncated)?;
                // Segments left: the packet is not for its destination address yet.
                if next == IpProtocol::Ipv6Route && rest.get(3) != Some(&0) {
                    return Err(Malformed::Extension);
                }
                let len = (usize::from(header.header_len()) + 1) * 8;
                (next, rest) = (header.next_header(), rest.get(len..).ok_or(Malformed::Truncated)?);
            }
            other => return Ok((Protocol::new(other.into()), rest, None)),
        }
        hop_by_hop = false;
    }
    Err(Malformed::Extension)
}

/// Whether a packet may come from `src`: an address of one host, not the loopback.
pub(crate) fn is_source(src: IpAddr) -> bool {
    match src {
        IpAddr::V4(ip) => {
            !ip.is_unspecified() && !ip.is_multicast() && !ip.is_broadcast() && !ip.is_loopback()
        }
        IpAddr::V6(ip) => !ip.is_unspecified() && !ip.is_multicast() && !ip.is_loopback(),
    }
}

/// Whether a flow to `dst` may be dialled: never multicast, broadcast, unspecified, loopback or link-local.
pub(crate) fn is_dialable(dst: IpAddr) -> bool {
    let v4 = |ip: Ipv4Addr| {
        !(ip.octets()[0] == 0
            || ip.is_multicast()
            || ip.is_broadcast()
            || ip.is_loopback()
            || ip.is_link_local())
    };
    match dst {
        IpAddr::V4(ip) => v4(ip),
        IpAddr::V6(ip) => match ip.to_ipv4_mapped() {
            Some(mapped) => v4(mapped),
            None => {
                !(ip.is_unspecified() || ip.is_multicast() || ip.is_loopback() || ip.is_unicast_link_local())
            }
        },
    }
}

/// The most bytes of headers that [`Header`] takes: IPv6 with a fragment header, ICMPv6 and its quote, or TCP in full.
pub(crate) const HEADER_CAPACITY: usize = 112;

/// The headers of an outgoing packet, in place.
#[derive(Clone, Copy)]
pub(crate) struct Header {
    bytes: [u8; HEADER_CAPACITY],
    len: u8,
}

impl Header {
    /// A header of no bytes.
    pub(crate) const fn new() -> Self {
        Self { bytes: [0; HEADER_CAPACITY], len: 0 }
    }

    /// The bytes so far.
    pub(crate) fn as_slice(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }

    /// Appends `bytes`.
    ///
    /// # Panics
    /// If they do not fit: every header that we build does.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        let start = usize::from(self.len);
        self.bytes[start..start + bytes.len()].copy_from_slice(bytes);
        self.len += bytes.len() as u8;
    }

    /// Overwrites the 16-bit field at `at`.
    ///
    /// # Panics
    /// If it does not lie inside the header.
    pub(crate) fn set_u16(&mut self, at: usize, value: u16) {
        self.bytes[..usize::from(self.len)][at..at + 2].copy_from_slice(&value.to_be_bytes());
    }

    /// Appends an IP header for a packet from `src` to `dst` with `payload_len` bytes behind the IP headers.
    ///
    /// `fragment` goes as it is; without it an IPv4 packet carries `id` 0 and DF. Addresses of mixed families make an
    /// IPv6 header, with the IPv4 one mapped.
    pub(crate) fn push_ip(
        &mut self,
        src: IpAddr,
        dst: IpAddr,
        protocol: Protocol,
        payload_len: usize,
        fragment: Option<FragmentInfo>,
    ) {
        match (src, dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => self.push(&v4(src, dst, protocol, payload_len, fragment)),
            (src, dst) => {
                let wide = |ip| match ip {
                    IpAddr::V4(ip) => ip.to_ipv6_mapped(),
                    IpAddr::V6(ip) => ip,
                };
                let (src, dst) = (wide(src), wide(dst));
                match fragment {
                    None => self.push(&v6(src, dst, protocol.number(), payload_len)),
                    Some(info) => {
                        let len = payload_len + V6_FRAGMENT_HEADER;
                        self.push(&v6(src, dst, IpProtocol::Ipv6Frag.into(), len));
                        let offset = (info.offset as u16 & !7) | u16::from(info.more);
                        self.push(&[protocol.number(), 0]);
                        self.push(&offset.to_be_bytes());
                        self.push(&info.id.to_be_bytes());
                    }
                }
            }
        }
    }
}

impl std::fmt::Debug for Header {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Header").field("len", &self.len).finish_non_exhaustive()
    }
}

/// Builds an IPv4 header without options; DF is set unless it is a fragment.
pub(crate) fn v4(
    src: Ipv4Addr,
    dst: Ipv4Addr,
    protocol: Protocol,
    payload_len: usize,
    fragment: Option<FragmentInfo>,
) -> [u8; V4_HEADER] {
    let mut bytes = [0; V4_HEADER];
    let mut header = Ipv4Packet::new_unchecked(&mut bytes[..]);
    header.set_version(4);
    header.set_header_len(V4_HEADER as u8);
    header.set_total_len((V4_HEADER + payload_len) as u16);
    header.clear_flags();
    match fragment {
        None => header.set_dont_frag(true),
        Some(info) => {
            header.set_ident(info.id as u16);
            header.set_more_frags(info.more);
            header.set_frag_offset(info.offset as u16);
        }
    }
    header.set_hop_limit(HOP_LIMIT);
    header.set_next_header(protocol.number().into());
    header.set_src_addr(src);
    header.set_dst_addr(dst);
    let sum = checksum::of(&bytes);
    bytes[10..12].copy_from_slice(&sum.to_be_bytes());
    bytes
}

/// Builds the fixed IPv6 header; `next` is the number of the header behind it.
pub(crate) fn v6(src: Ipv6Addr, dst: Ipv6Addr, next: u8, payload_len: usize) -> [u8; V6_HEADER] {
    let mut bytes = [0; V6_HEADER];
    let mut header = Ipv6Packet::new_unchecked(&mut bytes[..]);
    header.set_version(6);
    header.set_payload_len(payload_len as u16);
    header.set_next_header(next.into());
    header.set_hop_limit(HOP_LIMIT);
    header.set_src_addr(src);
    header.set_dst_addr(dst);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entropy::{Entropy, SeededEntropy};

    const SRC4: Ipv4Addr = Ipv4Addr::new(172, 19, 0, 1);
    const DST4: Ipv4Addr = Ipv4Addr::new(93, 184, 216, 34);

    fn packet4(payload: &[u8], fragment: Option<FragmentInfo>) -> Vec<u8> {
        let mut header = Header::new();
        header.push_ip(SRC4.into(), DST4.into(), Protocol::Udp, payload.len(), fragment);
        [header.as_slice(), payload].concat()
    }

    fn packet6(next: u8, payload: &[u8]) -> Vec<u8> {
        let (src, dst) = ("fd19::1".parse().expect("ip"), "2001:db8::1".parse().expect("ip"));
        [&v6(src, dst, next, payload.len())[..], payload].concat()
    }

    #[test]
    fn what_we_build_we_read_and_trailing_bytes_are_ignored() {
        let mut bytes = packet4(b"payload!", None);
        bytes.extend([0xaa; 5]);
        let packet = parse(&bytes).expect("legal");
        assert_eq!((packet.src, packet.dst), (SRC4.into(), DST4.into()));
        assert_eq!((packet.protocol, packet.payload), (Protocol::Udp, &b"payload!"[..]));
        assert!(packet.dont_fragment && packet.fragment.is_none());

        let info = FragmentInfo { id: 0xbeef, offset: 1480, more: true };
        let bytes = packet4(b"fragment", Some(info));
        let packet = parse(&bytes).expect("legal");
        assert_eq!((packet.fragment, packet.dont_fragment), (Some(info), false));

        let mut header = Header::new();
        let src: Ipv6Addr = "fd19::1".parse().expect("ip");
        let info = FragmentInfo { id: 0xdead_beef, offset: 65_528, more: false };
        header.push_ip(src.into(), src.into(), Protocol::Icmpv6, 3, Some(info));
        let bytes = [header.as_slice(), b"abc"].concat();
        let packet = parse(&bytes).expect("legal");
        assert_eq!((packet.fragment, packet.payload), (Some(info), &b"abc"[..]));
    }

    #[test]
    fn options_are_skipped_and_the_header_checksum_is_checked() {
        let mut bytes = packet4(b"", None);
        bytes[0] = 0x47;
        bytes.extend([1, 1, 1, 1, 1, 1, 1, 0]);
        bytes.extend(b"data");
        bytes[2..4].copy_from_slice(&32u16.to_be_bytes());
        assert_eq!(parse(&bytes), Err(Malformed::Checksum));
        bytes[10..12].fill(0);
        let sum = checksum::of(&bytes[..28]);
        bytes[10..12].copy_from_slice(&sum.to_be_bytes());
        assert_eq!(parse(&bytes).expect("legal").payload, b"data");
        assert_eq!(parse(&bytes[..31]), Err(Malformed::Truncated));
        bytes[0] = 0x44;
        assert!(parse(&bytes).is_err(), "a header of 16 bytes");
    }

    #[test]
    fn extension_headers_are_walked_within_bounds() {
        let options = |next: u8| [next, 0, 1, 4, 0, 0, 0, 0];
        let bytes =
            packet6(0, &[&options(60)[..], &options(43), &[17, 0, 0, 0, 0, 0, 0, 0], b"udp"].concat());
        let packet = parse(&bytes).expect("legal");
        assert_eq!((packet.protocol, packet.payload), (Protocol::Udp, &b"udp"[..]));

        let late = packet6(60, &[&options(0)[..], &options(17), b"udp"].concat());
        assert_eq!(parse(&late), Err(Malformed::Extension), "hop-by-hop must come first");
        let many = packet6(60, &options(60).repeat(50));
        assert_eq!(parse(&many), Err(Malformed::Extension));
        let segments_left = packet6(43, &[17, 0, 0, 1, 0, 0, 0, 0]);
        assert_eq!(parse(&segments_left), Err(Malformed::Extension));
        let long = packet6(60, &[17, 200, 0, 0, 0, 0, 0, 0]);
        assert_eq!(parse(&long), Err(Malformed::Truncated));
        let atomic = packet6(44, &[&[17, 0, 0, 0, 0, 0, 0, 9][..], b"udp"].concat());
        assert_eq!(parse(&atomic).expect("legal").fragment, None);
        assert_eq!(parse(&packet6(59, b"")).expect("legal").protocol, Protocol::Other(59));
    }

    #[test]
    fn only_unicast_hosts_are_dialled() {
        for bad in ["224.0.0.1", "255.255.255.255", "0.1.2.3", "127.0.0.1", "169.254.1.1"]
            .into_iter()
            .chain(["::", "::1", "ff02::fb", "fe80::1", "::ffff:127.0.0.1", "::ffff:224.0.0.1"])
        {
            assert!(!is_dialable(bad.parse().expect("ip")), "{bad}");
        }
        for good in ["1.1.1.1", "192.168.1.1", "10.0.0.255", "2606:4700::1111", "fd19::2"] {
            assert!(is_dialable(good.parse().expect("ip")) && is_source(good.parse().expect("ip")), "{good}");
        }
        assert!(!is_source("ff02::1".parse().expect("ip")) && !is_source("0.0.0.0".parse().expect("ip")));
    }

    #[test]
    fn no_input_panics() {
        let mut entropy = SeededEntropy::new(4);
        let seeds = [
            packet4(&[0; 40], None),
            packet4(&[0; 16], Some(FragmentInfo { id: 7, offset: 8, more: true })),
            packet6(
                0,
                &[60, 0, 1, 4, 0, 0, 0, 0, 44, 0, 1, 4, 0, 0, 0, 0, 17, 0, 0, 1, 0, 0, 0, 9, 1, 2, 3, 4],
            ),
            packet6(43, &[17, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5, 5]),
        ];
        let mut legal = 0;
        for _ in 0..200_000 {
            let mut bytes = seeds[entropy.below(4) as usize].clone();
            for _ in 0..entropy.below(4) {
                let at = entropy.below(bytes.len() as u32) as usize;
                bytes[at] = entropy.next_u32() as u8;
            }
            bytes.truncate(entropy.below(bytes.len() as u32 + 1) as usize);
            if let Ok(packet) = parse(&bytes) {
                legal += 1;
                assert!(packet.payload.len() <= bytes.len());
                let _ = transport(packet.protocol, packet.payload, packet.src.is_ipv6());
            }
        }
        assert!(legal > 0, "the mutations leave some packets whole");
    }
}
