//! Where traffic goes: hosts, targets and networks, shared by every protocol.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// The transport protocol of a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Network {
    /// A byte stream.
    Tcp,
    /// Datagrams.
    Udp,
}

impl Network {
    /// The name used in configs and logs: `tcp` or `udp`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// An IP address or a domain name. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Host {
    /// An IP address.
    Ip(IpAddr),
    /// A domain name of 1 to 255 bytes, in lower case, without a trailing dot.
    Domain(Arc<str>),
}

impl Host {
    /// Reads an address or a domain name.
    ///
    /// One trailing dot means nothing. IP literals (an IPv6 one may stand in brackets) become [`Host::Ip`], so that no
    /// rule for addresses is passed by under a name. Anything else is taken as a domain name if it is 1 to 255 bytes of
    /// ASCII letters, digits, `-`, `_` and `.`; `None` otherwise.
    pub fn parse(text: &str) -> Option<Self> {
        let name = text.strip_suffix('.').unwrap_or(text);
        let bare = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(name);
        if let Ok(ip) = bare.parse() {
            return Some(Self::Ip(ip));
        }
        let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
        if name.is_empty() || name.ends_with('.') || name.len() > 255 || !name.bytes().all(legal) {
            return None;
        }
        Some(Self::Domain(name.to_ascii_lowercase().into()))
    }

    /// The domain name, if it is one.
    pub fn domain(&self) -> Option<&str> {
        match self {
            Self::Ip(_) => None,
            Self::Domain(name) => Some(name),
        }
    }

    /// The IP address, if it is one.
    pub fn ip(&self) -> Option<IpAddr> {
        match self {
            Self::Ip(ip) => Some(*ip),
            Self::Domain(_) => None,
        }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(ip) => ip.fmt(f),
            Self::Domain(name) => f.write_str(name),
        }
    }
}

impl From<IpAddr> for Host {
    fn from(ip: IpAddr) -> Self {
        Self::Ip(ip)
    }
}

/// A host and a port: where a stream or a datagram goes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Target {
    /// The host.
    pub host: Host,
    /// The port.
    pub port: u16,
}

impl Target {
    /// Makes a target.
    pub fn new(host: impl Into<Host>, port: u16) -> Self {
        Self { host: host.into(), port }
    }

    /// The socket address, if the host is an IP address.
    pub fn socket_addr(&self) -> Option<SocketAddr> {
        self.host.ip().map(|ip| SocketAddr::new(ip, self.port))
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::Ip(IpAddr::V6(ip)) => write!(f, "[{ip}]:{}", self.port),
            host => write!(f, "{host}:{}", self.port),
        }
    }
}

impl From<SocketAddr> for Target {
    fn from(addr: SocketAddr) -> Self {
        Self { host: Host::Ip(addr.ip()), port: addr.port() }
    }
}

/// An IP network in CIDR form. A missing prefix length means a single address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Cidr {
    /// The address, host bits as written.
    pub addr: IpAddr,
    /// The length of the prefix in bits, 0 to 32 or 0 to 128.
    pub prefix: u8,
}

impl Cidr {
    /// Reads `10.0.0.0/8`, `fd00::/8` or a bare address; `None` if it is neither.
    pub fn parse(text: &str) -> Option<Self> {
        let (addr, prefix) = match text.split_once('/') {
            Some((addr, prefix)) => (addr.parse().ok()?, Some(prefix.parse::<u8>().ok()?)),
            None => (text.parse().ok()?, None),
        };
        let width = if matches!(addr, IpAddr::V4(_)) { 32 } else { 128 };
        let prefix = prefix.unwrap_or(width);
        (prefix <= width).then_some(Self { addr, prefix })
    }

    /// Whether `ip` lies in this network. An IPv4-mapped IPv6 address is not an IPv4 address here.
    pub fn contains(&self, ip: IpAddr) -> bool {
        match (self.addr, ip) {
            (IpAddr::V4(net), IpAddr::V4(ip)) => {
                let shift = 32 - u32::from(self.prefix.min(32));
                u32::from(net).checked_shr(shift).unwrap_or(0)
                    == u32::from(ip).checked_shr(shift).unwrap_or(0)
            }
            (IpAddr::V6(net), IpAddr::V6(ip)) => {
                let shift = 128 - u32::from(self.prefix.min(128));
                u128::from(net).checked_shr(shift).unwrap_or(0)
                    == u128::from(ip).checked_shr(shift).unwrap_or(0)
            }
            _ => false,
        }
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.addr, self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_read_as_ip_first() {
        assert_eq!(Host::parse("1.2.3.4"), Some(Host::Ip([1, 2, 3, 4].into())));
        assert_eq!(Host::parse("[::1]"), Some(Host::Ip("::1".parse().expect("literal"))));
        assert_eq!(Host::parse("Example.COM."), Some(Host::Domain("example.com".into())));
        assert_eq!(Host::parse("a b"), None);
        assert_eq!(Host::parse(""), None);
    }

    /// What a peer hands on is read again by the next one: it must stay what it was judged as here.
    #[test]
    fn a_host_reads_as_itself() {
        assert_eq!(Host::parse("1.2.3.4."), Some(Host::Ip([1, 2, 3, 4].into())));
        for text in [".", "..", "a..", "1.2.3.4..", "[::1]..", "[1.2.3.4.]"] {
            assert_eq!(Host::parse(text), None, "{text}");
        }
        for text in ["a.", "a..b.", "-", "1.2.3", "::1.", "[::1]."] {
            let host = Host::parse(text).expect(text);
            assert_eq!(Host::parse(&host.to_string()), Some(host), "{text}");
        }
    }

    #[test]
    fn cidr_bounds() {
        let all = Cidr::parse("0.0.0.0/0").expect("cidr");
        assert!(all.contains([255, 0, 0, 1].into()));
        assert!(!all.contains("::1".parse().expect("ip")));
        let net = Cidr::parse("10.1.0.0/16").expect("cidr");
        assert!(net.contains([10, 1, 255, 255].into()) && !net.contains([10, 2, 0, 0].into()));
        assert!(Cidr::parse("::/0").expect("cidr").contains("ff::1".parse().expect("ip")));
        assert_eq!(Cidr::parse("10.0.0.0/33"), None);
    }
}
