//! Port, address type and address: one reader and one writer for the request header and the mux formats.

use crate::addr::{Host, Target};
use std::net::IpAddr;

pub(super) const IPV4: u8 = 1;
pub(super) const DOMAIN: u8 = 2;
pub(super) const IPV6: u8 = 3;

/// What is left of something that is being read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Input<'a>(pub(crate) &'a [u8]);

/// Why there is no target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoTarget {
    /// Something is missing.
    Short,
    /// The address type is unknown.
    Unknown,
}

impl Input<'_> {
    /// The next `N` bytes; `None` if there are fewer.
    pub(crate) fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*head)
    }

    /// Port, address type, address; `None` if the name is no legal one.
    ///
    /// # Errors
    /// [`NoTarget`].
    pub(crate) fn target(&mut self) -> Result<Option<Target>, NoTarget> {
        let port = u16::from_be_bytes(self.take().ok_or(NoTarget::Short)?);
        let host = match self.take().ok_or(NoTarget::Short)? {
            [IPV4] => Some(Host::from(IpAddr::from(self.take::<4>().ok_or(NoTarget::Short)?))),
            [IPV6] => Some(Host::from(IpAddr::from(self.take::<16>().ok_or(NoTarget::Short)?))),
            [DOMAIN] => {
                let [len] = self.take().ok_or(NoTarget::Short)?;
                let (name, rest) = self.0.split_at_checked(usize::from(len)).ok_or(NoTarget::Short)?;
                self.0 = rest;
                std::str::from_utf8(name).ok().and_then(Host::parse)
            }
            _ => return Err(NoTarget::Unknown),
        };
        Ok(host.map(|host| Target { host, port }))
    }
}

/// Appends port, address type and address. A name longer than 255 bytes is none, and is cut; [`Host::parse`] makes none.
pub(crate) fn encode(target: &Target, out: &mut Vec<u8>) {
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
