//! The description of the network below the tunnel, both ways.

use crate::guard::misuse;
use crate::sized::{self, Sized32};
use crate::text;
use std::ffi::{CString, c_char};
use std::net::IpAddr;
use vmesskit::{Error, NetworkInfo};

/// The network carries IPv4.
pub const VMK_NETWORK_HAS_V4: u32 = 1;
/// The network carries IPv6.
pub const VMK_NETWORK_HAS_V6: u32 = 2;
/// Traffic costs money.
pub const VMK_NETWORK_METERED: u32 = 4;
/// The operating system has reached the internet through it.
pub const VMK_NETWORK_VALIDATED: u32 = 8;
/// A captive portal stands in the way.
pub const VMK_NETWORK_CAPTIVE_PORTAL: u32 = 16;

/// The most addresses or DNS servers that one network may list.
const MOST_ADDRESSES: u32 = 256;

/// The network below the tunnel. Addresses are texts, such as `192.0.2.1` or `2001:db8::1`.
///
/// Given to the library, it is copied before the call returns. Lent by the library (an event, the `resolve` callback),
/// its texts live as long as what lent it.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct vmk_network_info {
    /// `sizeof(vmk_network_info)`.
    pub size: u32,
    /// `VMK_NETWORK_` flags, or-ed.
    pub flags: u32,
    /// The host's own name for the network (Android's network handle); equal ids mean the same network.
    pub id: u64,
    /// The interface's index; 0 if unknown.
    pub index: u32,
    /// How many texts `addresses` holds.
    pub addresses_count: u32,
    /// How many texts `dns` holds.
    pub dns_count: u32,
    /// Zero.
    pub reserved: u32,
    /// Our addresses on it; may be NULL if there are none.
    pub addresses: *const *const c_char,
    /// Its DNS servers; may be NULL if there are none. Server names are asked of them, outside the tunnel.
    pub dns: *const *const c_char,
    /// Its NAT64 prefix (of 96 bits, without `/96`); NULL if unknown.
    pub nat64_prefix: *const c_char,
    /// NULL.
    pub reserved_pointer: *const c_char,
}

// SAFETY: integers and raw pointers in C layout; a struct cut after `reserved` reads as one without texts.
unsafe impl Sized32 for vmk_network_info {
    const NAME: &'static str = "vmk_network_info";
    const MIN: usize = 16;
}

const _: () = assert!(size_of::<vmk_network_info>() == 32 + 4 * size_of::<usize>(), "no padding");

/// Reads a network that a host describes; NULL: none.
///
/// # Errors
/// `Misuse` for a wrong size, a NULL text, or an address that is none.
///
/// # Safety
/// `from` is NULL or as the struct's documentation says.
pub(crate) unsafe fn read(from: *const vmk_network_info) -> Result<Option<NetworkInfo>, Error> {
    if from.is_null() {
        return Ok(None);
    }
    // SAFETY: the caller's promise, handed on.
    let raw = unsafe { sized::read(from) }?;
    // SAFETY: the same promise: arrays of as many texts, and a text.
    let (addresses, dns, prefix) = unsafe {
        (
            read_addresses(raw.addresses, raw.addresses_count, "network.addresses")?,
            read_addresses(raw.dns, raw.dns_count, "network.dns")?,
            text::read_optional(raw.nat64_prefix, "network.nat64_prefix")?,
        )
    };
    let has = |flag| raw.flags & flag != 0;
    Ok(Some(NetworkInfo {
        id: raw.id,
        index: raw.index,
        addresses,
        dns,
        has_v4: has(VMK_NETWORK_HAS_V4),
        has_v6: has(VMK_NETWORK_HAS_V6),
        nat64_prefix: prefix.map(|prefix| parse(prefix, "network.nat64_prefix")).transpose()?,
        metered: has(VMK_NETWORK_METERED),
        validated: has(VMK_NETWORK_VALIDATED),
        captive_portal: has(VMK_NETWORK_CAPTIVE_PORTAL),
    }))
}

/// Reads an array of addresses as texts.
///
/// # Errors
/// As [`read`].
///
/// # Safety
/// `from` is NULL or an array of `count` texts.
unsafe fn read_addresses(from: *const *const c_char, count: u32, name: &str) -> Result<Vec<IpAddr>, Error> {
    if count == 0 {
        return Ok(Vec::new());
    }
    if from.is_null() || count > MOST_ADDRESSES {
        return Err(misuse(format!("{name} is NULL, or has more than {MOST_ADDRESSES} texts")));
    }
    // SAFETY: not NULL, and an array of so many by the caller's promise.
    let texts = unsafe { std::slice::from_raw_parts(from, count as usize) };
    texts
        .iter()
        // SAFETY: each is NULL or a text by the same promise.
        .map(|text| parse(unsafe { text::read(*text, name) }?, name))
        .collect()
}

/// Reads an address.
///
/// # Errors
/// `Misuse`, naming the parameter.
pub(crate) fn parse(text: &str, name: &str) -> Result<IpAddr, Error> {
    text.parse().map_err(|_| misuse(format!("{name}: {text:?} is no IP address")))
}

/// A network as C sees it, with the texts that its pointers lead to.
pub(crate) struct Lent {
    info: vmk_network_info,
    _texts: Vec<CString>,
    _pointers: [Vec<*const c_char>; 2],
}

impl Lent {
    /// Copies a network of the core.
    pub(crate) fn new(network: &NetworkInfo) -> Self {
        let mut texts = Vec::new();
        let mut add = |address: &IpAddr| {
            texts.push(text::copy(&address.to_string()));
            texts.last().map_or(std::ptr::null(), |text| text.as_ptr())
        };
        let addresses: Vec<_> = network.addresses.iter().map(&mut add).collect();
        let dns: Vec<_> = network.dns.iter().map(&mut add).collect();
        let nat64_prefix = network.nat64_prefix.as_ref().map_or(std::ptr::null(), &mut add);
        let flags = [
            (network.has_v4, VMK_NETWORK_HAS_V4),
            (network.has_v6, VMK_NETWORK_HAS_V6),
            (network.metered, VMK_NETWORK_METERED),
            (network.validated, VMK_NETWORK_VALIDATED),
            (network.captive_portal, VMK_NETWORK_CAPTIVE_PORTAL),
        ];
        let info = vmk_network_info {
            size: size_of::<vmk_network_info>() as u32,
            flags: flags.iter().filter(|(is, _)| *is).map(|(_, flag)| flag).sum(),
            id: network.id,
            index: network.index,
            addresses_count: addresses.len() as u32,
            dns_count: dns.len() as u32,
            reserved: 0,
            addresses: addresses.as_ptr(),
            dns: dns.as_ptr(),
            nat64_prefix,
            reserved_pointer: std::ptr::null(),
        };
        Self { info, _texts: texts, _pointers: [addresses, dns] }
    }

    /// The struct; its pointers live as long as `self`.
    pub(crate) fn info(&self) -> &vmk_network_info {
        &self.info
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network() -> NetworkInfo {
        NetworkInfo {
            id: u64::MAX,
            index: 3,
            addresses: vec!["192.0.2.7".parse().unwrap(), "2001:db8::7".parse().unwrap()],
            dns: vec!["192.0.2.1".parse().unwrap()],
            has_v4: true,
            has_v6: false,
            nat64_prefix: Some("64:ff9b::".parse().unwrap()),
            metered: false,
            validated: true,
            captive_portal: true,
        }
    }

    #[test]
    fn what_is_lent_reads_back_the_same() {
        let lent = Lent::new(&network());
        // SAFETY: our own struct, and `lent` is still there.
        assert_eq!(unsafe { read(lent.info()) }.unwrap(), Some(network()));
    }

    #[test]
    fn an_older_struct_that_ends_before_the_texts_is_taken() {
        let mut info = *Lent::new(&network()).info();
        (info.size, info.addresses_count, info.dns_count) = (32, 0, 0);
        // SAFETY: what lies behind the size is dangling, and must not be looked at.
        let read = unsafe { read(&info) }.unwrap().unwrap();
        assert_eq!(read, NetworkInfo { addresses: vec![], dns: vec![], nat64_prefix: None, ..network() });
    }

    #[test]
    fn an_address_that_is_none_is_named() {
        let lent = Lent::new(&network());
        let texts = [c"not an address".as_ptr()];
        let mut info = *lent.info();
        (info.dns, info.dns_count) = (texts.as_ptr(), 1);
        // SAFETY: as above, with a literal.
        let error = unsafe { read(&info) }.unwrap_err();
        assert_eq!(error.text, "network.dns: \"not an address\" is no IP address");
    }
}
