//! Outbounds: what every one has (tag, transport, mux), the table of their protocols, and the simple ones.

use super::diagnostic::Diagnostic;
use super::model::{DomainStrategy, Freedom, Mux, Outbound, OutboundProtocol, PacketEncoding};
use super::nearest::nearest;
use super::shown::{offer, quote};
use super::stream::{self, Side};
use super::transport::{SockOpt, StreamSettings, Transport};
use super::vmess::{self, read_mux};
use super::walk::{Node, Object, given};
use crate::addr::Host;
use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::Arc;

const KEYS: &[&str] = &[
    "protocol",
    "tag",
    "settings",
    "streamSettings",
    "sendThrough",
    "proxySettings",
    "mux",
    "domainStrategy",
];

/// Reads one protocol's settings.
type Reader = fn(&Object<'_>, &Around) -> Option<OutboundProtocol>;

/// What the settings of a protocol depend on and others say.
#[derive(Debug, Clone, Copy)]
pub(super) struct Around {
    /// Whether TLS is below it.
    pub(super) tls: bool,
    /// `vmesskit.allowCfb`.
    pub(super) allow_cfb: bool,
    /// How UDP is carried, if `mux` says so.
    pub(super) packet_encoding: Option<PacketEncoding>,
}

/// The protocols that V2Ray and we know; those without a reader come in a later version, or never.
const PROTOCOLS: &[(&str, Option<Reader>)] = &[
    ("vmess", Some(vmess::read_outbound)),
    ("freedom", Some(freedom)),
    ("blackhole", Some(blackhole)),
    ("dns", None),
    ("socks", None),
    ("http", None),
    ("vless", None),
    ("trojan", None),
    ("shadowsocks", None),
    ("mtproto", None),
    ("loopback", None),
    ("wireguard", None),
];

/// What was read of an outbound.
#[derive(Debug)]
pub(super) struct Entry<'a> {
    /// The tag, also when the rest is wrong, so that rules may name it.
    pub(super) tag: Arc<str>,
    /// The outbound; `None` after an error.
    pub(super) outbound: Option<Outbound>,
    /// The name of the outbound that it dials through.
    proxy: Option<Node<'a>>,
}

/// The outbound that another one is dialled through.
struct Proxy<'a> {
    /// Its name.
    tag: Node<'a>,
    /// Whether its streams take the place of the transport too: V2Ray's `proxySettings` without `transportLayer`.
    replaces_transport: bool,
}

/// Reads all outbounds: the old `outbound` and `outboundDetour`, then `outbounds`, as V2Ray orders them. `allow_cfb` is
/// `vmesskit.allowCfb`.
pub(super) fn read_all<'a>(top: &Object<'a>, global: Option<&Object<'_>>, allow_cfb: bool) -> Vec<Entry<'a>> {
    let nodes = nodes(top, true);
    if nodes.is_empty() && top.get("outbounds").is_none_or(|node| node.value().is_array()) {
        let finding =
            Diagnostic::error(top.path_of("outbounds"), "there is no outbound, so traffic has no way out");
        top.report(finding.allowed("a list with at least one outbound; the first is the default route"));
    }
    let mut tags = HashSet::new();
    let mut entries = Vec::with_capacity(nodes.len());
    for node in nodes {
        let Some(object) = node.object(KEYS) else { continue };
        let entry = read(&object, global, allow_cfb);
        if !entry.tag.is_empty() && !tags.insert(Arc::clone(&entry.tag)) {
            let finding = Diagnostic::error(object.path_of("tag"), "this tag is used by an outbound before");
            top.report(finding.found(quote(&entry.tag)).hint("give each its own tag"));
        }
        entries.push(entry);
    }
    link(&mut entries);
    entries
}

/// The nodes of all outbounds; `warn` reports the old keys.
pub(super) fn nodes<'a>(top: &Object<'a>, warn: bool) -> Vec<Node<'a>> {
    let old = |key, hint: &str| {
        let node = top.get(key)?;
        if warn {
            node.warning("an old key", |finding| finding.hint(hint));
        }
        Some(node)
    };
    let mut nodes = Vec::new();
    nodes.extend(old("outbound", "move it into the list `outbounds`"));
    if let Some(node) = old("outboundDetour", "move its entries into the list `outbounds`") {
        nodes.extend(node.entries().unwrap_or_default());
    }
    nodes.extend(top.entries("outbounds"));
    nodes
}

/// Reads an outbound.
fn read<'a>(object: &Object<'a>, global: Option<&Object<'_>>, allow_cfb: bool) -> Entry<'a> {
    let allowed: Vec<&str> =
        PROTOCOLS.iter().filter(|(_, reader)| reader.is_some()).map(|(name, _)| *name).collect();
    let node = object.required("protocol", &allowed.join(", "));
    let name = node.as_ref().and_then(|node| node.text()).unwrap_or_default();
    let tag: Arc<str> = object.text("tag").into();
    let known = PROTOCOLS.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
    let mut stream = Some(StreamSettings::default());
    match (object.get("streamSettings"), known) {
        (Some(node), Some(("blackhole", _))) => node.no_effect("a blackhole connects to nothing"),
        (Some(node), _) => stream = stream::read(&node, Side::Outbound, global),
        (None, Some(("freedom" | "blackhole", _))) => {}
        (None, _) => stream = stream::absent(Side::Outbound, global),
    }
    if let (Some(("freedom", _)), Some(stream), Some(node)) = (known, &stream, object.get("streamSettings"))
        && (stream.tls.is_some() || stream.transport != Transport::default())
    {
        node.no_effect("a freedom outbound takes `sockopt` alone");
    }
    let tls = stream.as_ref().is_some_and(|stream| stream.tls.is_some());
    let proxy = proxy(object);
    if let (Some(proxy), Some(stream)) = (&proxy, &mut stream) {
        match known {
            Some(("blackhole", _)) => proxy.tag.no_effect("a blackhole connects to nothing"),
            _ => settle_proxy(object, proxy, stream),
        }
    }
    let send_through = send_through(object);
    check_common(object);
    let (mux, packet_encoding) = mux(object, known.map(|(name, _)| *name));
    let around = Around { tls, allow_cfb, packet_encoding };
    let protocol = match (node, known) {
        (_, Some((_, Some(reader)))) => reader(object, &around),
        (Some(node), Some((name, None))) => {
            let hint = format!("this version has {}", allowed.join(", "));
            node.unsupported(&format!("the outbound protocol `{name}`"), &hint);
            None
        }
        (Some(node), None) if node.value().is_string() => {
            let near = nearest(name, PROTOCOLS.iter().map(|(name, _)| *name));
            node.error("unknown outbound protocol", |finding| {
                finding.allowed(allowed.join(", ")).hint(offer(near))
            });
            None
        }
        _ => None,
    };
    let via = None;
    let outbound = protocol.zip(stream).map(|(protocol, stream)| Outbound {
        tag: Arc::clone(&tag),
        protocol,
        mux,
        stream,
        send_through,
        via,
    });
    Entry { tag, outbound, proxy: proxy.map(|proxy| proxy.tag) }
}

/// Reads `sendThrough`; unspecified is none.
fn send_through(object: &Object<'_>) -> Option<IpAddr> {
    let node = object.get("sendThrough")?;
    let address = node.text()?.trim().parse::<IpAddr>();
    if address.is_err() {
        node.error("not an IP address", |finding| finding.allowed("an IP address of this device"));
    }
    address.ok().filter(|ip| !ip.is_unspecified())
}

/// Reads `proxySettings`, and `dialerProxy` in `sockopt`, which is Xray's name for it.
fn proxy<'a>(object: &Object<'a>) -> Option<Proxy<'a>> {
    let settings = object.get("proxySettings").and_then(|node| node.object(&["tag", "transportLayer"]));
    let dialer = object.get("streamSettings").and_then(|node| stream::dialer_proxy(&node));
    let Some(settings) = settings else {
        let tag = dialer.filter(|tag| tag.text().is_some())?;
        return Some(Proxy { tag, replaces_transport: false });
    };
    let tag = settings.required("tag", "the tag of an outbound");
    let replaces_transport = !settings.flag("transportLayer", false);
    if let Some(node) = dialer {
        node.error("`proxySettings` names an outbound to dial through already", |finding| {
            finding.hint("remove one of the two")
        });
    }
    tag.filter(|tag| tag.text().is_some()).map(|tag| Proxy { tag, replaces_transport })
}

/// Settles what is left of an outbound's stream settings where another outbound's streams take the place of sockets.
fn settle_proxy(object: &Object<'_>, proxy: &Proxy<'_>, stream: &mut StreamSettings) {
    if proxy.replaces_transport && stream.transport != Transport::default() {
        // V2Ray takes the other outbound's stream as it is, with TLS on it and nothing else.
        let text =
            format!("the transport `{}` is not used: `proxySettings` takes its place", network(stream));
        proxy
            .tag
            .warning(text, |finding| finding.hint("as with V2Ray; set `transportLayer` to true to keep it"));
        stream.transport = Transport::default();
    }
    if matches!(stream.transport, Transport::Kcp(_) | Transport::Quic(_) | Transport::Unix(_)) {
        let hint = "use a transport on TCP, or remove this";
        proxy.tag.unsupported(&format!("the transport `{}` through another outbound", network(stream)), hint);
    }
    if stream.sockopt != SockOpt::default() {
        stream.sockopt = SockOpt::default();
        if let Some(node) = object.get("streamSettings").and_then(|node| node.peek("sockopt")) {
            node.no_effect("the sockets are those of the outbound that this one is dialled through");
        }
    }
    if let Some(node) = object.get("sendThrough").filter(|node| !node.is_empty()) {
        node.no_effect("the sockets are those of the outbound that this one is dialled through");
    }
}

/// What a person calls a transport: raw TCP that is not bare has its header.
fn network(stream: &StreamSettings) -> &'static str {
    match &stream.transport {
        Transport::Tcp(_) => "tcp with a header",
        transport => transport.name(),
    }
}

/// Finds the outbounds that others dial through. A name that nobody has, and a chain that comes back to its start, are
/// errors.
fn link(entries: &mut [Entry<'_>]) {
    let index_of = |tag: &str| entries.iter().position(|entry| !tag.is_empty() && *entry.tag == *tag);
    let via: Vec<Option<usize>> = entries
        .iter()
        .map(|entry| {
            let node = entry.proxy.as_ref()?;
            let tag = node.text()?.trim();
            let found = index_of(tag);
            if found.is_none() {
                let near = nearest(tag, entries.iter().map(|entry| &*entry.tag));
                node.error("no outbound has this tag", |finding| finding.hint(offer(near)));
            }
            found
        })
        .collect();
    let next = |index: &usize| via.get(*index).copied().flatten();
    for (start, entry) in entries.iter_mut().enumerate() {
        let circular = std::iter::successors(next(&start), next).take(via.len()).any(|at| at == start);
        if let Some(node) = entry.proxy.as_ref().filter(|_| circular) {
            node.error("this chain of outbounds comes back to its start", |finding| finding);
        }
        if let Some(outbound) = &mut entry.outbound {
            outbound.via = next(&start);
        }
    }
}

/// Checks `domainStrategy`.
fn check_common(object: &Object<'_>) {
    if let Some(node) = object.get("domainStrategy").filter(|node| !node.is_empty()) {
        node.ignored(
            "`domainStrategy` of an outbound",
            "the server's name is resolved to any of its addresses",
        );
    }
}

/// Reads `mux`, which only a VMess server understands here.
fn mux(object: &Object<'_>, protocol: Option<&str>) -> (Option<Mux>, Option<PacketEncoding>) {
    let Some(node) = object.get("mux") else { return (None, None) };
    let (mux, packet_encoding) = read_mux(&node);
    if let (Some(_), Some("freedom" | "blackhole")) = (mux, protocol) {
        node.no_effect("there is no VMess server that could take the flows apart");
        return (None, None);
    }
    (mux, packet_encoding)
}

/// Reads a `freedom` outbound.
fn freedom(outbound: &Object<'_>, _around: &Around) -> Option<OutboundProtocol> {
    const KEYS: &[&str] = &["domainStrategy", "redirect", "userLevel", "timeout"];
    const STRATEGIES: &[(&str, DomainStrategy)] = &[
        ("AsIs", DomainStrategy::Any),
        ("UseIP", DomainStrategy::Any),
        ("UseIPv4", DomainStrategy::Ipv4),
        ("UseIPv6", DomainStrategy::Ipv6),
        ("", DomainStrategy::Any),
    ];
    let settings = outbound.section("settings", KEYS)?;
    let strategy = settings.get("domainStrategy").map(|node| node.choice("domain strategy", STRATEGIES));
    let redirect = settings.get("redirect").filter(|node| !node.is_empty()).map(|node| redirect(&node));
    let level = settings.level("userLevel");
    if let Some(node) = settings.get("timeout")
        && node.number_u32().is_some_and(|seconds| seconds > 0)
    {
        node.no_effect("`policy` sets the timeouts");
    }
    let strategy = given(strategy)?.unwrap_or(DomainStrategy::Any);
    Some(OutboundProtocol::Freedom(Freedom { strategy, redirect: given(redirect)?, level }))
}

/// Reads `HOST:PORT`, `[IPV6]:PORT` or `:PORT`.
fn redirect(node: &Node<'_>) -> Option<(Option<Host>, u16)> {
    let redirect = split_target(node.text()?.trim());
    if redirect.is_none() {
        let allowed = "\"host:port\", \"[IPv6]:port\" or \":port\", with a port from 1 to 65535";
        node.error("not a target", |finding| finding.allowed(allowed));
    }
    redirect
}

/// Splits `HOST:PORT`; the host may be missing, an IPv6 address stands in brackets. `None` if it is nothing like that.
pub(super) fn split_target(text: &str) -> Option<(Option<Host>, u16)> {
    let (host, port) = text.rsplit_once(':')?;
    let port = port.parse().ok().filter(|port| *port > 0)?;
    let bare_v6 = host.contains(':') && !host.starts_with('[');
    match host {
        "" => Some((None, port)),
        _ if bare_v6 => None,
        _ => Some((Some(Host::parse(host)?), port)),
    }
}

/// Reads a `blackhole` outbound.
fn blackhole(outbound: &Object<'_>, _around: &Around) -> Option<OutboundProtocol> {
    let settings = outbound.section("settings", &["response"])?;
    let Some(response) = settings.get("response") else {
        return Some(OutboundProtocol::Blackhole { http: false });
    };
    let kind = response.object(&["type"])?.required("type", "none, http")?;
    let http = kind.choice("response", &[("none", false), ("http", true)])?;
    Some(OutboundProtocol::Blackhole { http })
}
