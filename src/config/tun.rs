//! The settings of a tun inbound: what the host sets its device up with.

use super::diagnostic::Diagnostic;
use super::inbound::Around;
use super::model::{Icmp, InboundProtocol, Tun};
use super::walk::{Node, Object, given};
use crate::addr::Cidr;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const KEYS: &[&str] =
    &["mtu", "addresses", "routes", "excludedRoutes", "dns", "apps", "metered", "icmp", "udp443"];

/// The smallest MTU that IPv6 allows, and the largest IP packet.
const MTU: (u64, u64) = (1280, 65535);

/// Reads a `tun` inbound; it has no port.
pub(super) fn read(inbound: &Object<'_>, _around: &Around) -> Option<InboundProtocol> {
    let settings = inbound.section("settings", KEYS)?;
    let default = Tun::default();
    let mtu = settings.get("mtu").map(|node| node.number(MTU.0, MTU.1));
    let addresses = addresses(&settings, default.addresses);
    let routes = networks(&settings, "routes", default.routes);
    let excluded_routes = networks(&settings, "excludedRoutes", default.excluded_routes);
    if let Some(node) = settings.get("routes").filter(Node::is_empty) {
        node.warning("nothing is routed into the tunnel", |finding| {
            finding.hint("remove the key to route all")
        });
    }
    let dns = match (&addresses, &routes, &excluded_routes) {
        (Some(addresses), Some(routes), Some(excluded)) => {
            dns(&settings, default.dns, addresses, routes, excluded)
        }
        _ => None,
    };
    let apps = apps(&settings);
    let icmp = [("reply", Icmp::Reply), ("drop", Icmp::Drop)];
    let icmp = settings.get("icmp").map(|node| node.choice("answer to pings", &icmp));
    let udp443 = [("allow", false), ("reject", true)];
    let udp443 = settings.get("udp443").map(|node| node.choice("policy", &udp443));
    let metered = settings.get("metered").map(|node| node.flag());
    let (allow_apps, deny_apps) = apps?;
    Some(InboundProtocol::Tun(Tun {
        mtu: given(mtu)?.and_then(|mtu| u32::try_from(mtu).ok()),
        addresses: addresses?,
        routes: routes?,
        excluded_routes: excluded_routes?,
        dns: dns?,
        allow_apps,
        deny_apps,
        metered: given(metered)?,
        icmp: given(icmp)?.unwrap_or(default.icmp),
        reject_udp443: given(udp443)?.unwrap_or(default.reject_udp443),
    }))
}

/// The device's own addresses. `None` after an error.
fn addresses(settings: &Object<'_>, default: Vec<Cidr>) -> Option<Vec<Cidr>> {
    const ALLOWED: &str = "addresses with prefix lengths, such as \"172.19.0.1/30\"";
    let Some(node) = settings.get("addresses") else { return Some(default) };
    let texts = node.texts()?;
    if texts.is_empty() {
        node.error("the device needs an address", |finding| finding.allowed(ALLOWED));
        return None;
    }
    let count = texts.len();
    let mut addresses: Vec<Cidr> = Vec::new();
    for (text, node) in texts {
        let Some(cidr) = Cidr::parse(&text) else {
            node.error("not an address", |finding| finding.allowed(ALLOWED));
            continue;
        };
        if !is_usable(cidr.addr) {
            node.error("no address that a device can have", |finding| finding.allowed("a unicast address"));
        } else if addresses.iter().any(|known| known.addr == cidr.addr) {
            node.error("this address is given twice", |finding| finding);
        } else {
            addresses.push(cidr);
        }
    }
    (addresses.len() == count).then_some(addresses)
}

/// The networks of `key`. Host bits are cleared, since Android refuses routes that have some. `None` after an
/// error.
fn networks(settings: &Object<'_>, key: &str, default: Vec<Cidr>) -> Option<Vec<Cidr>> {
    let Some(node) = settings.get(key) else { return Some(default) };
    let texts = node.texts()?;
    let count = texts.len();
    let mut networks = Vec::with_capacity(count);
    for (text, node) in texts {
        let Some(cidr) = Cidr::parse(&text) else {
            node.error("not a network", |finding| {
                finding.allowed("networks such as \"10.0.0.0/8\" or \"fd00::/8\"")
            });
            continue;
        };
        let network = network_of(cidr);
        if network != cidr {
            let text = format!("the address has bits below the prefix; the network {network} is used");
            node.warning(text, |finding| finding);
        }
        networks.push(network);
    }
    (networks.len() == count).then_some(networks)
}

/// The DNS address inside the tunnel, which must reach us and be nobody else's. `None` after an error.
fn dns(
    settings: &Object<'_>,
    default: IpAddr,
    addresses: &[Cidr],
    routes: &[Cidr],
    excluded: &[Cidr],
) -> Option<IpAddr> {
    const ALLOWED: &str =
        "an IP address inside the tunnel that is not the device's own, such as \"172.19.0.2\"";
    let given = settings.get("dns");
    let dns = match &given {
        None => default,
        Some(node) => match node.text()?.trim().parse() {
            Ok(dns) => dns,
            Err(_) => {
                node.error("not an IP address", |finding| finding.allowed(ALLOWED));
                return None;
            }
        },
    };
    let report = |finding: Diagnostic| settings.report(finding.found(dns.to_string()).allowed(ALLOWED));
    let path = settings.path_of("dns");
    if !is_usable(dns) {
        report(Diagnostic::error(path, "no address that can be asked"));
        return None;
    }
    if addresses.iter().any(|own| own.addr == dns) {
        report(Diagnostic::error(
            path,
            "the device itself has this address, so queries to it would never reach us",
        ));
        return None;
    }
    if !addresses.iter().any(|own| own.addr.is_ipv4() == dns.is_ipv4()) {
        let family = if dns.is_ipv4() { "IPv4" } else { "IPv6" };
        report(Diagnostic::error(path, format!("the device has no {family} address to ask it from")));
        return None;
    }
    let inside = routes.iter().chain(addresses).any(|network| network.contains(dns));
    if !inside || excluded.iter().any(|network| network.contains(dns)) {
        report(Diagnostic::warning(path, "the routes do not lead there, so queries may miss the tunnel"));
    }
    Some(dns)
}

/// The apps that alone use the tunnel, and those that do not. `None` after an error.
fn apps(settings: &Object<'_>) -> Option<(Vec<String>, Vec<String>)> {
    let Some(node) = settings.get("apps") else { return Some(Default::default()) };
    let object = node.object(&["allow", "deny"])?;
    let mut whole = true;
    let mut list = |key| {
        let texts = object.get(key).map_or_else(|| Some(Vec::new()), |node| node.texts());
        let mut apps = Vec::new();
        for (app, node) in texts.unwrap_or_default() {
            let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_');
            if app.is_empty() || !app.bytes().all(legal) {
                node.error("not a package name", |finding| {
                    finding.allowed("names such as \"org.example.app\"")
                });
                whole = false;
            }
            apps.push(app);
        }
        apps
    };
    let (allow, deny) = (list("allow"), list("deny"));
    if !allow.is_empty() && !deny.is_empty() {
        node.error("`allow` and `deny` exclude each other", |finding| finding.allowed("one of the two"));
        whole = false;
    }
    whole.then_some((allow, deny))
}

/// Whether a host can have this address.
fn is_usable(ip: IpAddr) -> bool {
    let broadcast = matches!(ip, IpAddr::V4(ip) if ip.is_broadcast());
    !(ip.is_unspecified() || ip.is_loopback() || ip.is_multicast() || broadcast)
}

/// The network with the bits below the prefix cleared.
fn network_of(cidr: Cidr) -> Cidr {
    let addr = match cidr.addr {
        IpAddr::V4(ip) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(cidr.prefix.min(32))).unwrap_or(0);
            Ipv4Addr::from(u32::from(ip) & mask).into()
        }
        IpAddr::V6(ip) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(cidr.prefix.min(128))).unwrap_or(0);
            Ipv6Addr::from(u128::from(ip) & mask).into()
        }
    };
    Cidr { addr, prefix: cidr.prefix }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_lose_their_host_bits() {
        for (given, network) in [
            ("10.1.2.3/8", "10.0.0.0/8"),
            ("10.1.2.3/32", "10.1.2.3/32"),
            ("1.2.3.4/0", "0.0.0.0/0"),
            ("fd00::1/126", "fd00::/126"),
            ("ff::1/0", "::/0"),
            ("ff::1/128", "ff::1/128"),
        ] {
            assert_eq!(network_of(Cidr::parse(given).expect("cidr")).to_string(), network);
        }
    }
}
