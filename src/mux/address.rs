//! Port, address type and address, as the VMess request header has them too: one reader and one writer for the mux
//! formats.

use crate::addr::{Host, Target};
use std::net::IpAddr;

const IPV4: u8 = 1;
const DOMAIN: u8 = 2;
const IPV6: u8 = 3;

/// What is left of something that is being read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Input<'a>(pub(super) &'a [u8]);

impl Input<'_> {
    /// The next `N` bytes; `None` if there are fewer.
    pub(super) fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*head)
    }

    /// Port, address type, address. The inner `None` is a name that is none; the outer one, that something is missing or
    /// of an unknown type.
    pub(super) fn target(&mut self) -> Option<Option<Target>> {
        let port = u16::from_be_bytes(self.take()?);
        let host = match self.take()? {
            [IPV4] => Some(Host::from(IpAddr::from(self.take::<4>()?))),
            [IPV6] => Some(Host::from(IpAddr::from(self.take::<16>()?))),
            [DOMAIN] => {
                let [len] = self.take()?;
                let (name, rest) = self.0.split_at_checked(usize::from(len))?;
                self.0 = rest;
                std::str::from_utf8(name).ok().and_then(Host::parse)
            }
            _ => return None,
        };
        Some(host.map(|host| Target { host, port }))
    }
}

/// Appends port, address type and address. A name longer than 255 bytes is none, and is cut; [`Host::parse`] makes none.
pub(super) fn encode(target: &Target, out: &mut Vec<u8>) {
    out.extend_from_slice(&target.port.to_be_bytes());
    match &target.host {
        Host::Ip(IpAddr::V4(ip)) => {
            out.push(IPV4);
            out.extend_from_slice(&ip.octets());
        }
        Host::Ip(IpAddr::V6(ip)) => {
            out.push(IPV6);
            out.extend_from_slice(&ip.octets());
        }
        Host::Domain(name) => {
            let name = name.as_bytes().get(..255).unwrap_or(name.as_bytes());
            out.extend_from_slice(&[DOMAIN, name.len() as u8]);
            out.extend_from_slice(name);
        }
    }
}
