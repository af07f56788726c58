//! Inbounds: what every one has (tag, port, listen, sniffing, transport), and the table of their protocols.

use super::diagnostic::Diagnostic;
use super::model::{Inbound, InboundProtocol, Listen};
use super::nearest::{MOST_COMPARED, nearest};
use super::shown::{offer, quote};
use super::stream::{self, Side};
use super::transport::{StreamSettings, Transport};
use super::walk::{Node, Object};
use super::{socks, tun, vmess};
use crate::addr::Network;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

const KEYS: &[&str] =
    &["protocol", "tag", "port", "listen", "settings", "streamSettings", "sniffing", "allocate"];

/// Reads one protocol's settings.
type Reader = fn(&Object<'_>, &Around) -> Option<InboundProtocol>;

/// What the settings of a protocol depend on and others say.
#[derive(Debug, Clone)]
pub(super) struct Around {
    /// The first and the last port, if there are any.
    pub(super) ports: Option<(u16, u16)>,
    /// What connections ride on; `None` after an error.
    pub(super) stream: Option<StreamSettings>,
}

impl Around {
    /// The port, if there is one.
    pub(super) fn port(&self) -> Option<u16> {
        self.ports.map(|(first, _)| first)
    }
}

/// The protocols that V2Ray and we know; those without a reader come in a later version.
const PROTOCOLS: &[(&str, Option<Reader>)] = &[
    ("tun", Some(tun::read)),
    ("socks", Some(socks::read)),
    ("http", None),
    ("dokodemo-door", None),
    ("vmess", Some(vmess::read_inbound)),
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
    node: Node<'a>,
}

impl Entry<'_> {
    /// The e-mails of its users.
    pub(super) fn emails(&self) -> impl Iterator<Item = String> {
        let clients = match self.inbound.as_ref().map(|inbound| &inbound.protocol) {
            Some(InboundProtocol::Vmess(vmess)) => vmess.clients.as_slice(),
            _ => &[],
        };
        clients.iter().map(|client| client.email.clone()).filter(|email| !email.is_empty())
    }

    /// The inbound and the path of its users, if it may have some.
    pub(super) fn users(&self) -> Option<(&Inbound, String)> {
        let inbound = self.inbound.as_ref()?;
        let key = if self.node.value()["settings"]["clients"].is_null() { "users" } else { "clients" };
        Some((inbound, format!("{}.settings.{key}", self.node.path())))
    }
}

/// Reads all inbounds (`global` is the top-level `transport`): the old `inbound` and `inboundDetour`, then `inbounds`, as V2Ray orders them.
pub(super) fn read_all<'a>(top: &Object<'a>, global: Option<&Object<'_>>) -> Vec<Entry<'a>> {
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
    let entries: Vec<_> = nodes.iter().filter_map(|node| read(node, global, old_port.take())).collect();
    check_unique(&entries, top);
    check_users(&entries, top);
    entries
}

/// Reads an inbound; `default_port` is the old top-level `port`, which the first one takes if it has none.
fn read<'a>(node: &Node<'a>, global: Option<&Object<'_>>, default_port: Option<u16>) -> Option<Entry<'a>> {
    let object = node.object(KEYS)?;
    let allowed: Vec<&str> =
        PROTOCOLS.iter().filter(|(_, reader)| reader.is_some()).map(|(name, _)| *name).collect();
    let protocol = object.required("protocol", &allowed.join(", "));
    let name = protocol.as_ref().and_then(|node| node.text()).unwrap_or_default();
    let mut tag = object.text("tag");
    let known = PROTOCOLS.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
    let kind = known.map(|(name, _)| *name);
    let stream = match object.get("streamSettings") {
        Some(node) if kind != Some("tun") => stream::read(&node, Side::Inbound, global),
        None if kind == Some("vmess") => stream::absent(Side::Inbound, global),
        _ => Some(StreamSettings::default()),
    };
    if let (Some("socks"), Some(stream), Some(node)) = (kind, &stream, object.get("streamSettings"))
        && (stream.tls.is_some() || stream.transport != Transport::default())
    {
        node.unsupported("a transport below SOCKS", "remove `streamSettings`");
    }
    let around = |range| {
        let ports = ports(&object, range).or(default_port.map(|port| (port, port)));
        Around { ports, stream: stream.clone() }
    };
    let protocol = match (protocol, known) {
        (_, Some((name, Some(reader)))) => reader(&object, &around(*name == "vmess")),
        (Some(node), Some((name, None))) => {
            let hint = format!("this version has {}", allowed.join(", "));
            node.unsupported(&format!("the inbound protocol `{name}`"), &hint);
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
    if kind == Some("tun") {
        if tag.is_empty() {
            tag = "tun";
        }
        for key in ["port", "listen", "streamSettings", "allocate"] {
            if let Some(node) = object.get(key) {
                node.no_effect("a tun inbound reads packets from a device");
            }
        }
    } else if let Some(node) = object.get("allocate").filter(|_| kind != Some("vmess")) {
        check_allocate(&node);
    }
    let tag: Arc<str> = tag.into();
    let inbound = protocol.map(|protocol| Inbound { tag: Arc::clone(&tag), protocol });
    let sniffing = object.get("sniffing").filter(is_sniffing);
    Some(Entry { tag, inbound, sniffing, node: node.clone() })
}

/// Reads `port`: a number, or a text with one number or, if `range` allows it, with the two ends of a range. Environment
/// variables are refused.
fn ports(object: &Object<'_>, range: bool) -> Option<(u16, u16)> {
    let allowed = match range {
        false => "a number, 0 to 65535, or such a number as a text",
        true => "a number, 0 to 65535, or a text such as \"1000\" or \"1000-1010\"",
    };
    let node = object.get("port")?;
    let Some(text) = node.value().as_str() else {
        if node.value().is_number() {
            return node.number_u16(0).map(|port| (port, port));
        }
        node.error("wrong type", |finding| finding.allowed(allowed));
        return None;
    };
    let text = text.trim();
    if text.starts_with("env:") {
        node.unsupported("a port from an environment variable", "write the number");
        return None;
    }
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    match (first.trim().parse::<u16>(), last.trim().parse::<u16>()) {
        (Ok(first), Ok(last)) if first == last || (range && first < last) => return Some((first, last)),
        (Ok(first), Ok(last)) if first < last => {
            node.unsupported("a range of ports", "write one port, or an inbound for each");
        }
        (Ok(_), Ok(_)) if range => {
            node.error("the range ends before it begins", |finding| finding.allowed(allowed));
        }
        _ => node.error("not a port", |finding| finding.allowed(allowed)),
    }
    None
}

/// The address to listen on; V2Ray's default is every address.
pub(super) fn listen_ip(inbound: &Object<'_>) -> Option<IpAddr> {
    let Some(node) = inbound.get("listen") else { return Some(Ipv4Addr::UNSPECIFIED.into()) };
    let text = node.text()?.trim();
    if text.eq_ignore_ascii_case("localhost") {
        return Some(Ipv4Addr::LOCALHOST.into());
    }
    if text.starts_with(['/', '@']) {
        node.unsupported("a unix socket", "listen on 127.0.0.1");
        return None;
    }
    read_ip(&node, "the address to listen on")
}

/// Reads an IP address; `what` names it.
pub(super) fn read_ip(node: &Node<'_>, what: &str) -> Option<IpAddr> {
    let text = node.text()?.trim();
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    let ip = bare.parse().ok();
    if ip.is_none() {
        node.error(format!("{what} must be an IP address"), |finding| {
            finding.allowed("an IPv4 or IPv6 address")
        });
    }
    ip
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
    let (mut listens, mut unixes) = (Listens::default(), HashSet::new());
    let mut tuns = 0;
    for entry in entries {
        let path = |member: &str| format!("{}.{member}", entry.node.path());
        if !entry.tag.is_empty() && !tags.insert(&entry.tag) {
            let text = "this tag is used by an inbound before";
            let finding = Diagnostic::error(path("tag"), text).found(quote(&entry.tag));
            top.report(finding.hint("give each its own tag"));
        }
        let mut network = Network::Tcp;
        let listen = match entry.inbound.as_ref().map(|inbound| &inbound.protocol) {
            Some(InboundProtocol::Tun(_)) => {
                tuns += 1;
                if tuns == 2 {
                    let finding = Diagnostic::error(path("protocol"), "a second tun inbound");
                    top.report(finding.allowed("at most one"));
                }
                continue;
            }
            Some(InboundProtocol::Socks(socks)) => {
                Listen { ip: socks.listen.ip(), ports: (socks.listen.port(), socks.listen.port()) }
            }
            Some(InboundProtocol::Vmess(vmess)) if vmess.unix().is_some() => {
                let unix = vmess.unix().map(|unix| (&unix.path, unix.is_abstract));
                if !unixes.insert(unix) {
                    let finding = Diagnostic::error(
                        path("streamSettings.dsSettings.path"),
                        "an inbound before listens on the same socket",
                    );
                    top.report(finding.hint("give each its own path"));
                }
                continue;
            }
            // Ports that are taken at random leave out those that are in use.
            Some(InboundProtocol::Vmess(vmess)) if vmess.allocate.is_none() => {
                if vmess.stream.transport.is_over_udp() {
                    network = Network::Udp;
                }
                vmess.listen
            }
            _ => continue,
        };
        if listen.ports != (0, 0)
            && let Some(port) = listens.insert(network, listen)
        {
            let text = "an inbound before listens on the same address";
            let found = SocketAddr::new(listen.ip, port);
            top.report(Diagnostic::error(path("port"), text).found(found.to_string()));
        }
    }
}

/// The ports that are listened on, of TCP and of UDP, by address: disjoint ranges, the last port of each by its first.
#[derive(Debug, Default)]
struct Listens(HashMap<(Network, IpAddr), BTreeMap<u16, u16>>);

impl Listens {
    /// Adds a range; if it meets one before, it is left out and a port of both is returned.
    fn insert(&mut self, network: Network, listen: Listen) -> Option<u16> {
        let (first, last) = listen.ports;
        let taken = self.0.entry((network, listen.ip)).or_default();
        if let Some((low, high)) = taken.range(..=last).next_back()
            && *high >= first
        {
            return Some(first.max(*low));
        }
        taken.insert(first, last);
        None
    }
}

/// Refuses detours that lead back, and warns about those that lead nowhere and about users that nobody can be.
fn check_users(entries: &[Entry<'_>], top: &Object<'_>) {
    let servers = || {
        entries.iter().filter_map(|entry| match &entry.inbound.as_ref()?.protocol {
            InboundProtocol::Vmess(vmess) => Some((entry, vmess)),
            _ => None,
        })
    };
    let tags: HashSet<&str> = servers().map(|(entry, _)| &*entry.tag).filter(|tag| !tag.is_empty()).collect();
    let detours = servers().filter(|(entry, _)| !entry.tag.is_empty());
    let next = detours.filter_map(|(entry, vmess)| Some((&*entry.tag, vmess.detour.as_deref()?))).collect();
    let mut back = circular(&next);
    let handed_out: HashSet<&str> = servers().filter_map(|(_, vmess)| vmess.detour.as_deref()).collect();
    for (entry, vmess) in servers() {
        let path_of_detour = || {
            let settings = &entry.node.value()["settings"];
            let old = settings["detour"].is_null() && !settings["features"].is_null();
            let member = if old { "features.detour.to" } else { "detour.to" };
            format!("{}.settings.{member}", entry.node.path())
        };
        if let Some(tag) = vmess.detour.as_deref().filter(|_| back.contains(&*entry.tag)) {
            // Once for all of them.
            let mut at = &*entry.tag;
            while back.remove(at) {
                at = next.get(at).copied().unwrap_or(at);
            }
            let text = "the detour leads back to this inbound, so clients would be sent round in circles";
            let finding = Diagnostic::error(path_of_detour(), text).found(quote(tag));
            top.report(finding.hint("name an inbound from which no detour leads back"));
        }
        if let Some(tag) = vmess.detour.as_deref().filter(|tag| !tags.contains(tag)) {
            let text = "no vmess inbound has this tag, so nothing is handed out";
            let finding = Diagnostic::warning(path_of_detour(), text);
            let near = if tags.len() <= MOST_COMPARED { nearest(tag, tags.iter().copied()) } else { None };
            top.report(finding.found(quote(tag)).hint(offer(near)));
        }
        if vmess.clients.is_empty() && !handed_out.contains(&*entry.tag) {
            let path = format!("{}.settings.clients", entry.node.path());
            let text = "there is no user, so nobody is served until one is added";
            top.report(
                Diagnostic::warning(path, text).hint("list the users: { \"id\": ..., \"email\": ... }"),
            );
        }
    }
}

/// The names from which their successors lead back to them. Each name is looked at once or twice.
fn circular<'a>(next: &HashMap<&'a str, &'a str>) -> HashSet<&'a str> {
    let (mut seen, mut circular) = (HashMap::new(), HashSet::new());
    for (round, start) in next.keys().enumerate() {
        let mut at = *start;
        while let (Some(to), None) = (next.get(at), seen.get(at)) {
            seen.insert(at, round);
            at = to;
        }
        // Seen in this walk: the walk has come round.
        while seen.get(at) == Some(&round) && circular.insert(at) {
            at = next.get(at).copied().unwrap_or(at);
        }
    }
    circular
}
