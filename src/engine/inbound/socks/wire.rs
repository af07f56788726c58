//! SOCKS5 on the wire (RFC 1928): addresses, replies, and the header of a UDP datagram. Pure.

use crate::addr::{Host, Target};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The protocol's version, the first byte of every message but those of the password exchange.
pub(super) const VERSION: u8 = 5;
/// The longest header of a UDP datagram: that of a domain name of 255 bytes.
pub(super) const MAX_UDP_HEADER: usize = 3 + 1 + 1 + 255 + 2;

const TYPE_V4: u8 = 1;
const TYPE_DOMAIN: u8 = 3;
const TYPE_V6: u8 = 4;

/// The reply to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Reply {
    Succeeded = 0,
    Failed = 1,
    NotAllowed = 2,
    HostUnreachable = 4,
    Refused = 5,
    CommandUnknown = 7,
    AddressTypeUnknown = 8,
}

impl Reply {
    /// The reply without an address: 0.0.0.0 and port 0, which clients of CONNECT ignore.
    pub(super) const fn bytes(self) -> [u8; 10] {
        [VERSION, self as u8, 0, TYPE_V4, 0, 0, 0, 0, 0, 0]
    }

    /// The reply with the address that this end is bound to.
    pub(super) fn with_address(self, bound: SocketAddr) -> Vec<u8> {
        let mut out = Vec::with_capacity(22);
        out.extend_from_slice(&[VERSION, self as u8, 0]);
        match bound.ip() {
            IpAddr::V4(ip) => {
                out.push(TYPE_V4);
                out.extend_from_slice(&ip.octets());
            }
            IpAddr::V6(ip) => {
                out.push(TYPE_V6);
                out.extend_from_slice(&ip.octets());
            }
        }
        out.extend_from_slice(&bound.port().to_be_bytes());
        out
    }
}

/// What an address on the wire turned out to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Address {
    /// A target, and how many bytes it took.
    Target(Target, usize),
    /// More bytes are needed.
    More,
    /// A type that does not exist; its length is unknown.
    UnknownType,
    /// A name that is none. It took so many bytes.
    BadName(usize),
}

impl Address {
    /// Reads type, address and port from the front of `input`. An IPv4-mapped IPv6 address becomes the IPv4 address.
    pub(super) fn parse(input: &[u8]) -> Self {
        let Some((kind, rest)) = input.split_first() else { return Self::More };
        match *kind {
            TYPE_V4 => match rest.first_chunk::<6>() {
                Some([a, b, c, d, port @ ..]) => {
                    let ip = Ipv4Addr::new(*a, *b, *c, *d);
                    Self::Target(Target::new(IpAddr::V4(ip), u16::from_be_bytes(*port)), 7)
                }
                None => Self::More,
            },
            TYPE_V6 => match rest.split_first_chunk::<16>() {
                Some((ip, rest)) => match rest.first_chunk() {
                    Some(port) => {
                        let ip = IpAddr::V6(Ipv6Addr::from(*ip)).to_canonical();
                        Self::Target(Target::new(ip, u16::from_be_bytes(*port)), 19)
                    }
                    None => Self::More,
                },
                None => Self::More,
            },
            TYPE_DOMAIN => Self::parse_domain(rest),
            _ => Self::UnknownType,
        }
    }

    fn parse_domain(input: &[u8]) -> Self {
        let Some((len, rest)) = input.split_first() else { return Self::More };
        let len = usize::from(*len);
        let Some((name, rest)) = rest.split_at_checked(len) else { return Self::More };
        let Some(port) = rest.first_chunk() else { return Self::More };
        let whole = 1 + 1 + len + 2;
        match std::str::from_utf8(name).ok().and_then(Host::parse) {
            Some(host) => Self::Target(Target { host, port: u16::from_be_bytes(*port) }, whole),
            None => Self::BadName(whole),
        }
    }
}

/// Reads a UDP datagram of a client: where it goes, and where its payload starts. `None` if it is malformed, has no
/// payload, or is a fragment, which nobody sends and we do not reassemble.
pub(super) fn parse_datagram(datagram: &[u8]) -> Option<(Target, usize)> {
    let (header, rest) = datagram.split_first_chunk::<3>()?;
    if header[2] != 0 {
        return None;
    }
    match Address::parse(rest) {
        Address::Target(target, len) if len < rest.len() => Some((target, 3 + len)),
        _ => None,
    }
}

/// The header of a datagram to a client: no fragment, from `remote`.
pub(super) struct DatagramHeader {
    bytes: [u8; MAX_UDP_HEADER],
    len: usize,
}

impl DatagramHeader {
    /// Makes the header; `None` if the name is longer than the wire allows.
    pub(super) fn new(remote: &Target) -> Option<Self> {
        let mut header = Self { bytes: [0; MAX_UDP_HEADER], len: 3 };
        match &remote.host {
            Host::Ip(IpAddr::V4(ip)) => {
                header.push(&[TYPE_V4])?;
                header.push(&ip.octets())?;
            }
            Host::Ip(IpAddr::V6(ip)) => {
                header.push(&[TYPE_V6])?;
                header.push(&ip.octets())?;
            }
            Host::Domain(name) => {
                header.push(&[TYPE_DOMAIN, u8::try_from(name.len()).ok()?])?;
                header.push(name.as_bytes())?;
            }
        }
        header.push(&remote.port.to_be_bytes())?;
        Some(header)
    }

    /// The bytes.
    pub(super) fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }

    fn push(&mut self, piece: &[u8]) -> Option<()> {
        let end = self.len + piece.len();
        self.bytes.get_mut(self.len..end)?.copy_from_slice(piece);
        self.len = end;
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(host: &str, port: u16) -> Target {
        Target { host: Host::parse(host).expect("a host"), port }
    }

    fn wire(target: &Target) -> Vec<u8> {
        DatagramHeader::new(target).expect("it fits").as_bytes().to_vec()
    }

    #[test]
    fn addresses_survive_the_wire() {
        for (host, len) in
            [("192.0.2.1", 10), ("2001:db8::1", 22), ("example.com", 18), (&"a".repeat(255), 262)]
        {
            let target = target(host, 4660);
            let mut bytes = wire(&target);
            assert_eq!((bytes.len(), &bytes[bytes.len() - 2..]), (len, &[0x12, 0x34][..]));
            assert_eq!(Address::parse(&bytes[3..]), Address::Target(target.clone(), len - 3));
            for cut in 3..len {
                assert_eq!(Address::parse(&bytes[3..cut]), Address::More);
            }
            assert_eq!(parse_datagram(&bytes), None, "no payload");
            bytes.push(7);
            assert_eq!(parse_datagram(&bytes), Some((target, len)));
            bytes[2] = 1;
            assert_eq!(parse_datagram(&bytes), None, "a fragment");
        }
    }

    #[test]
    fn a_name_may_hold_an_address_and_nothing_odd() {
        let domain = |name: &[u8]| {
            let mut bytes = vec![TYPE_DOMAIN, name.len() as u8];
            bytes.extend_from_slice(name);
            bytes.extend_from_slice(&[0, 80]);
            Address::parse(&bytes)
        };
        assert_eq!(domain(b"192.0.2.1"), Address::Target(target("192.0.2.1", 80), 13));
        assert_eq!(domain(b"EXAMPLE.com."), Address::Target(target("example.com", 80), 16));
        for bad in [&b""[..], b"a b", b"\xff\xfe", b"a\0b", b"a/b"] {
            assert_eq!(domain(bad), Address::BadName(bad.len() + 4));
        }
        assert_eq!(Address::parse(&[2, 0, 0]), Address::UnknownType);
    }

    #[test]
    fn a_mapped_address_is_the_ipv4_address() {
        let mut bytes = vec![TYPE_V6, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 127, 0, 0, 1, 0, 80];
        assert_eq!(Address::parse(&bytes), Address::Target(target("127.0.0.1", 80), 19));
        bytes.pop();
        assert_eq!(Address::parse(&bytes), Address::More);
    }

    #[test]
    fn replies_carry_the_bound_address() {
        assert_eq!(Reply::Refused.bytes(), [5, 5, 0, 1, 0, 0, 0, 0, 0, 0]);
        let bound = "127.0.0.1:513".parse().expect("literal");
        assert_eq!(Reply::Succeeded.with_address(bound), [5, 0, 0, 1, 127, 0, 0, 1, 2, 1]);
        assert_eq!(Reply::Succeeded.with_address("[::1]:513".parse().expect("literal")).len(), 22);
    }
}
