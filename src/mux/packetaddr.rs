//! Packetaddr: a VMess UDP connection to a marker name, each chunk of which is `type || address || port || payload`.
//!
//! Its address types are its own: 1 is IPv4 and 2 is IPv6. There are no names.

use crate::vmess::address::Input;
use std::net::{IpAddr, SocketAddr};

/// The name that marks a UDP request as packetaddr, whatever its port.
pub const MARKER: &str = "sp.packet-addr.v2fly.arpa";
/// Bytes of the longest address in front of a payload.
pub const MAX_HEAD: usize = 1 + 16 + 2;

const IPV4: u8 = 1;
const IPV6: u8 = 2;

/// Appends the address that goes in front of a payload.
pub fn encode(addr: SocketAddr, out: &mut Vec<u8>) {
    match addr.ip() {
        IpAddr::V4(ip) => {
            out.push(IPV4);
            out.extend_from_slice(&ip.octets());
        }
        IpAddr::V6(ip) => {
            out.push(IPV6);
            out.extend_from_slice(&ip.octets());
        }
    }
    out.extend_from_slice(&addr.port().to_be_bytes());
}

/// Reads the address in front of a payload; returns it and where the payload begins. `None` if it is cut off or of an
/// unknown type.
pub fn decode(packet: &[u8]) -> Option<(SocketAddr, usize)> {
    let mut input = Input(packet);
    let ip = match input.take()? {
        [IPV4] => IpAddr::from(input.take::<4>()?),
        [IPV6] => IpAddr::from(input.take::<16>()?),
        _ => return None,
    };
    let port = u16::from_be_bytes(input.take()?);
    Some((SocketAddr::new(ip, port), packet.len() - input.0.len()))
}
