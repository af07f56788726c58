//! The description of the network below the tunnel, both ways.

use crate::error::TunnelError;
use std::net::IpAddr;

/// The network below the tunnel. Addresses are texts, such as `192.0.2.1` or `2001:db8::1`.
#[derive(Debug, Clone, PartialEq, Eq, uniffi::Record)]
pub struct NetworkInfo {
    /// The host's own name for it (Android's network handle); equal ids mean the same network.
    pub id: u64,
    /// The interface's index; 0 if unknown.
    pub index: u32,
    /// Our addresses on it.
    pub addresses: Vec<String>,
    /// Its DNS servers. Server names are asked of them, outside the tunnel.
    pub dns: Vec<String>,
    /// Whether it carries IPv4.
    pub has_v4: bool,
    /// Whether it carries IPv6.
    pub has_v6: bool,
    /// Its NAT64 prefix (of 96 bits, without `/96`), if known.
    pub nat64_prefix: Option<String>,
    /// Whether traffic costs money.
    pub metered: bool,
    /// Whether the operating system has reached the internet through it.
    pub validated: bool,
    /// Whether a captive portal stands in the way.
    pub captive_portal: bool,
}

/// Reads an address.
///
/// # Errors
/// `Misuse` with the text that is none.
pub(crate) fn address(text: &str) -> Result<IpAddr, TunnelError> {
    text.parse().map_err(|_| TunnelError::misuse(format!("{text:?} is no IP address")))
}

/// Writes a list as texts.
pub(crate) fn texts<T: ToString>(list: &[T]) -> Vec<String> {
    list.iter().map(ToString::to_string).collect()
}

impl TryFrom<NetworkInfo> for vmesskit::NetworkInfo {
    type Error = TunnelError;

    fn try_from(network: NetworkInfo) -> Result<Self, TunnelError> {
        Ok(Self {
            id: network.id,
            index: network.index,
            addresses: network.addresses.iter().map(|text| address(text)).collect::<Result<_, _>>()?,
            dns: network.dns.iter().map(|text| address(text)).collect::<Result<_, _>>()?,
            has_v4: network.has_v4,
            has_v6: network.has_v6,
            nat64_prefix: network.nat64_prefix.as_deref().map(address).transpose()?,
            metered: network.metered,
            validated: network.validated,
            captive_portal: network.captive_portal,
        })
    }
}

impl From<&vmesskit::NetworkInfo> for NetworkInfo {
    fn from(network: &vmesskit::NetworkInfo) -> Self {
        Self {
            id: network.id,
            index: network.index,
            addresses: texts(&network.addresses),
            dns: texts(&network.dns),
            has_v4: network.has_v4,
            has_v6: network.has_v6,
            nat64_prefix: network.nat64_prefix.map(|prefix| prefix.to_string()),
            metered: network.metered,
            validated: network.validated,
            captive_portal: network.captive_portal,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_goes_both_ways() {
        let network = vmesskit::NetworkInfo {
            id: 7,
            index: 3,
            addresses: vec!["2001:db8::7".parse().unwrap()],
            dns: vec!["192.0.2.1".parse().unwrap()],
            has_v4: true,
            has_v6: false,
            nat64_prefix: Some("64:ff9b::".parse().unwrap()),
            metered: false,
            validated: true,
            captive_portal: true,
        };
        assert_eq!(vmesskit::NetworkInfo::try_from(NetworkInfo::from(&network)), Ok(network));
    }

    #[test]
    fn an_address_that_is_none_is_refused() {
        assert_eq!(address("nowhere"), Err(TunnelError::misuse("\"nowhere\" is no IP address")));
    }
}
