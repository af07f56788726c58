//! DNS servers: where the address inside the tunnel forwards to.

use super::walk::{Node, Object};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

const KEYS: &[&str] = &[
    "servers",
    "hosts",
    "clientIp",
    "tag",
    "queryStrategy",
    "disableCache",
    "disableFallback",
    "disableFallbackIfMatch",
];

const SERVER_KEYS: &[&str] =
    &["address", "port", "domains", "expectIps", "expectIPs", "clientIp", "skipFallback", "queryStrategy"];

/// The port of DNS.
const PORT: u16 = 53;

/// Who is asked if the config names nobody.
const DEFAULT_SERVERS: [Ipv4Addr; 2] = [Ipv4Addr::new(1, 1, 1, 1), Ipv4Addr::new(8, 8, 8, 8)];

/// Reads the servers; never empty. `tunnel` is the DNS address inside the tunnel, if there is a tun inbound.
pub(super) fn read(top: &Object<'_>, tunnel: Option<IpAddr>) -> Vec<SocketAddr> {
    let default = || DEFAULT_SERVERS.iter().map(|ip| SocketAddr::new((*ip).into(), PORT)).collect();
    let Some(object) = top.section("dns", KEYS) else { return default() };
    if let Some(node) = object.get("hosts").filter(|node| !node.is_empty()) {
        match tunnel {
            Some(_) => {
                node.unsupported("a table of names (`hosts`)", "remove it: the servers alone are asked")
            }
            None => node.ignored("a table of names (`hosts`)", "apps resolve names on their own"),
        }
    }
    for (key, effect) in [
        ("clientIp", "queries go out as the apps make them"),
        ("tag", "queries are routed like the other traffic of the inbound"),
        ("queryStrategy", "queries go out as the apps make them"),
        ("disableCache", "nothing is cached"),
        ("disableFallback", "the servers are asked in turn"),
        ("disableFallbackIfMatch", "the servers are asked in turn"),
    ] {
        if let Some(node) = object.get(key).filter(|node| !node.is_empty()) {
            node.ignored(&format!("`{key}` of dns"), effect);
        }
    }
    let mut servers: Vec<SocketAddr> = Vec::new();
    for node in object.entries("servers") {
        let Some(server) = server(&node) else { continue };
        if Some(server.ip()) == tunnel {
            let hint = "name a server outside, such as 1.1.1.1";
            node.error(
                "this is the DNS address inside the tunnel: queries would go in a circle",
                |finding| finding.hint(hint),
            );
        } else if server.ip().is_loopback() {
            node.warning(
                "it is asked through the tunnel, where this is the VMess server itself",
                |finding| finding,
            );
        }
        if !servers.contains(&server) {
            servers.push(server);
        }
    }
    if servers.is_empty() { default() } else { servers }
}

/// Reads a server: an address, or an object with an address and a port. `None` after an error.
fn server(node: &Node<'_>) -> Option<SocketAddr> {
    if !node.value().is_object() {
        return Some(SocketAddr::new(address(node)?, PORT));
    }
    let object = node.object(SERVER_KEYS)?;
    for (key, what) in [
        ("domains", "a server for some names only"),
        ("expectIps", "a server for some answers only"),
        ("expectIPs", "a server for some answers only"),
    ] {
        if let Some(node) = object.get(key).filter(|node| !node.is_empty()) {
            node.unsupported(what, "list servers that are asked for every name");
        }
    }
    for key in ["clientIp", "skipFallback", "queryStrategy"] {
        if let Some(node) = object.get(key).filter(|node| !node.is_empty()) {
            node.ignored(&format!("`{key}` of a DNS server"), "queries go out as the apps make them");
        }
    }
    let ip = object.required("address", "an IP address").and_then(|node| address(&node));
    let port = object.get("port").map_or(Some(PORT), |node| node.number_u16(1));
    Some(SocketAddr::new(ip?, port?))
}

/// Reads a server's address; only plain DNS by address is served.
fn address(node: &Node<'_>) -> Option<IpAddr> {
    const ALLOWED: &str = "an IP address, or { \"address\": ..., \"port\": ... }";
    let text = node.text()?.trim();
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    if let Ok(ip) = bare.parse::<IpAddr>() {
        if ip.is_unspecified() || ip.is_multicast() {
            node.error("no address that can be asked", |finding| finding.allowed(ALLOWED));
            return None;
        }
        return Some(ip);
    }
    let lower = text.to_ascii_lowercase();
    if lower == "localhost" {
        node.unsupported("the system's own resolver (`localhost`)", "name a server by its address");
    } else if lower == "fakedns" {
        node.unsupported("fake addresses (`fakedns`)", "name a server by its address");
    } else if lower.contains("://") {
        node.unsupported("DNS over another protocol", "name a server by its address; it is asked over UDP");
    } else if text.parse::<SocketAddr>().is_ok() {
        node.error("an address with a port is written as an object", |finding| finding.allowed(ALLOWED));
    } else {
        node.error("not an IP address", |finding| finding.allowed(ALLOWED));
    }
    None
}
