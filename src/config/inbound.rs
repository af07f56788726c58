//! Inbounds: what every one has (tag, port, listen, sniffing, transport), and the table of their protocols.

use super::diagnostic::Diagnostic;
use super::model::{Inbound, InboundProtocol};
use super::nearest::nearest;
use super::shown::{offer, quote};
use super::stream::{self, Side};
use super::walk::{Node, Object};
use super::{socks, tun};
use std::collections::HashSet;
use std::sync::Arc;

const KEYS: &[&str] =
    &["protocol", "tag", "port", "listen", "settings", "streamSettings", "sniffing", "allocate"];

/// Reads one protocol's settings.
type Reader = fn(&Object<'_>, Option<u16>) -> Option<InboundProtocol>;

/// The protocols that V2Ray and we know; those without a reader come in a later version.
const PROTOCOLS: &[(&str, Option<Reader>)] = &[
    ("tun", Some(tun::read)),
    ("socks", Some(socks::read)),
    ("http", None),
    ("dokodemo-door", None),
    ("vmess", None),
    ("vless", None),
    ("trojan", None),
    ("shadowsocks", None),
    ("mtproto", None),
];

/// What was read of an inbound.
#[derive(Debug)]
pub(super) struct Entry<'a> {
    /// The tag, also when the rest is wrong, so that rules may name it.
    pub(super) tag: Arc<str>,
    /// The inbound; `None` after an error.
    pub(super) inbound: Option<Inbound>,
    /// `sniffing`, if it is on.
    pub(super) sniffing: Option<Node<'a>>,
    /// Where it stands.
    path: String,
}

/// Reads all inbounds: the old `inbound` and `inboundDetour`, then `inbounds`, as V2Ray orders them.
pub(super) fn read_all<'a>(top: &Object<'a>) -> Vec<Entry<'a>> {
    let mut nodes = Vec::new();
    if let Some(node) = top.get("inbound") {
        node.warning("an old key", |finding| finding.hint("move it into the list `inbounds`"));
        nodes.push(node);
    }
    if let Some(node) = top.get("inboundDetour") {
        node.warning("an old key", |finding| finding.hint("move its entries into the list `inbounds`"));
        nodes.extend(node.entries().unwrap_or_default());
    }
    nodes.extend(top.entries("inbounds"));
    let mut old_port = top.get("port").and_then(|node| {
        node.warning("an old key", |finding| finding.hint("write `port` into the inbound"));
        node.number_u16(0)
    });
    let entries: Vec<_> = nodes.iter().filter_map(|node| read(node, old_port.take())).collect();
    check_unique(&entries, top);
    entries
}

/// Reads an inbound; `default_port` is the old top-level `port`, which the first one takes if it has none.
fn read<'a>(node: &Node<'a>, default_port: Option<u16>) -> Option<Entry<'a>> {
    let object = node.object(KEYS)?;
    let allowed: Vec<&str> =
        PROTOCOLS.iter().filter(|(_, reader)| reader.is_some()).map(|(name, _)| *name).collect();
    let protocol = object.required("protocol", &allowed.join(", "));
    let name = protocol.as_ref().and_then(|node| node.text()).unwrap_or_default();
    let mut tag = object.text("tag");
    let known = PROTOCOLS.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
    let protocol = match (protocol, known) {
        (_, Some((_, Some(reader)))) => reader(&object, port(&object).or(default_port)),
        (Some(node), Some((name, None))) => {
            node.unsupported(&format!("the inbound protocol `{name}`"), "use a `tun` or a `socks` inbound");
            None
        }
        (Some(node), None) if node.value().is_string() => {
            let near = nearest(name, PROTOCOLS.iter().map(|(name, _)| *name));
            node.error("unknown inbound protocol", |finding| {
                finding.allowed(allowed.join(", ")).hint(offer(near))
            });
            None
        }
        _ => None,
    };
    let is_tun = known.is_some_and(|(name, _)| *name == "tun");
    if is_tun {
        if tag.is_empty() {
            tag = "tun";
        }
        for key in ["port", "listen", "streamSettings", "allocate"] {
            if let Some(node) = object.get(key) {
                node.no_effect("a tun inbound reads packets from a device");
            }
        }
    } else if let Some(node) = object.get("streamSettings") {
        stream::read(&node, Side::Inbound);
    }
    if let Some(node) = object.get("allocate").filter(|_| !is_tun) {
        check_allocate(&node);
    }
    let tag: Arc<str> = tag.into();
    let inbound = protocol.map(|protocol| Inbound { tag: Arc::clone(&tag), protocol });
    let sniffing = object.get("sniffing").filter(is_sniffing);
    Some(Entry { tag, inbound, sniffing, path: node.path().to_owned() })
}

/// Reads `port`: a number, or a text with one number. Ranges and environment variables are refused.
fn port(object: &Object<'_>) -> Option<u16> {
    const ALLOWED: &str = "a number, 0 to 65535, or such a number as a text";
    let node = object.get("port")?;
    let Some(text) = node.value().as_str() else {
        if node.value().is_number() {
            return node.number_u16(0);
        }
        node.error("wrong type", |finding| finding.allowed(ALLOWED));
        return None;
    };
    let text = text.trim();
    if let Ok(port) = text.parse() {
        return Some(port);
    }
    if text.starts_with("env:") {
        node.unsupported("a port from an environment variable", "write the number");
        return None;
    }
    let ends =
        text.split_once('-').map(|(low, high)| (low.trim().parse::<u16>(), high.trim().parse::<u16>()));
    match ends {
        Some((Ok(low), Ok(high))) if low == high => return Some(low),
        Some((Ok(low), Ok(high))) if low < high => {
            node.unsupported("a range of ports", "write one port, or an inbound for each");
        }
        _ => node.error("not a port", |finding| finding.allowed(ALLOWED)),
    }
    None
}

/// Whether sniffing is on; the section is checked on the way.
fn is_sniffing(node: &Node<'_>) -> bool {
    const KEYS: &[&str] = &["enabled", "destOverride", "metadataOnly", "domainsExcluded", "routeOnly"];
    const PROTOCOLS: [&str; 5] = ["http", "tls", "quic", "fakedns", "fakedns+others"];
    let Some(object) = node.object(KEYS) else { return false };
    for (text, node) in object.get("destOverride").and_then(|node| node.texts()).unwrap_or_default() {
        if !PROTOCOLS.iter().any(|name| name.eq_ignore_ascii_case(&text)) {
            node.error("unknown protocol to sniff", |finding| finding.allowed(PROTOCOLS.join(", ")));
        }
    }
    object.flag("enabled", false)
}

/// Checks `allocate`: with one fixed port only `always` makes sense.
fn check_allocate(node: &Node<'_>) {
    const STRATEGIES: &[(&str, bool)] = &[("always", true), ("random", false), ("external", false)];
    let Some(object) = node.object(&["strategy", "concurrency", "refresh"]) else { return };
    if let Some(node) = object.get("strategy")
        && node.choice("strategy", STRATEGIES) == Some(false)
    {
        node.unsupported("allocating ports at random", "remove `allocate`");
    }
    for key in ["concurrency", "refresh"] {
        if let Some(node) = object.get(key) {
            node.number_u32();
        }
    }
}

/// Reports tags and listening addresses that are used twice, and a second tun inbound.
fn check_unique(entries: &[Entry<'_>], top: &Object<'_>) {
    let mut tags = HashSet::new();
    let mut listens = HashSet::new();
    let mut tuns = 0;
    for entry in entries {
        if !entry.tag.is_empty() && !tags.insert(&entry.tag) {
            let path = format!("{}.tag", entry.path);
            let text = "this tag is used by an inbound before";
            top.report(Diagnostic::error(path, text).found(quote(&entry.tag)).hint("give each its own tag"));
        }
        match entry.inbound.as_ref().map(|inbound| &inbound.protocol) {
            Some(InboundProtocol::Tun(_)) => {
                tuns += 1;
                if tuns == 2 {
                    let path = format!("{}.protocol", entry.path);
                    top.report(Diagnostic::error(path, "a second tun inbound").allowed("at most one"));
                }
            }
            Some(InboundProtocol::Socks(socks))
                if socks.listen.port() != 0 && !listens.insert(socks.listen) =>
            {
                let path = format!("{}.port", entry.path);
                let text = "an inbound before listens on the same address";
                top.report(Diagnostic::error(path, text).found(socks.listen.to_string()));
            }
            _ => {}
        }
    }
}
