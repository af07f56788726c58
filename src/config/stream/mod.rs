//! `streamSettings` and the top-level `transport` that fills what they leave out: which carrier a connection rides on.
//!
//! [`read`] settles transport, TLS and socket options, with the transports in files of their kind: [`http`] for those
//! that speak HTTP, [`packet`] for those over UDP, [`tls`] and [`sockopt`].

mod http;
mod packet;
mod sockopt;
mod tls;

use super::transport::{StreamSettings, Tcp, Tls, Transport, Unix};
use super::walk::{Node, Object, given};
use std::path::PathBuf;

const KEYS: &[&str] = &[
    "network",
    "security",
    "tlsSettings",
    "xtlsSettings",
    "realitySettings",
    "tcpSettings",
    "rawSettings",
    "kcpSettings",
    "wsSettings",
    "httpSettings",
    "dsSettings",
    "quicSettings",
    "grpcSettings",
    "gunSettings",
    "httpupgradeSettings",
    "xhttpSettings",
    "splithttpSettings",
    "sockopt",
];

const GLOBAL_KEYS: &[&str] = &[
    "tcpSettings",
    "kcpSettings",
    "wsSettings",
    "httpSettings",
    "dsSettings",
    "quicSettings",
    "grpcSettings",
    "gunSettings",
    "httpupgradeSettings",
];

/// Reads one transport's settings, which may be absent.
type Reader = fn(Option<&Node<'_>>, Side) -> Option<Transport>;

/// What `network` may say: the name, the keys of its settings (the first is the usual one), and their reader; without
/// one it is a transport that this version does not have.
const NETWORKS: &[(&str, &[&str], Option<Reader>)] = &[
    ("tcp", &["tcpSettings", "rawSettings"], Some(tcp)),
    ("raw", &["tcpSettings", "rawSettings"], Some(tcp)),
    ("ws", &["wsSettings"], Some(http::ws)),
    ("websocket", &["wsSettings"], Some(http::ws)),
    ("h2", &["httpSettings"], Some(http::h2)),
    ("http", &["httpSettings"], Some(http::h2)),
    ("grpc", &["grpcSettings", "gunSettings"], Some(http::grpc)),
    ("gun", &["grpcSettings", "gunSettings"], Some(http::grpc)),
    ("httpupgrade", &["httpupgradeSettings"], Some(http::upgrade)),
    ("kcp", &["kcpSettings"], Some(packet::kcp)),
    ("mkcp", &["kcpSettings"], Some(packet::kcp)),
    ("quic", &["quicSettings"], Some(packet::quic)),
    ("ds", &["dsSettings"], Some(unix)),
    ("domainsocket", &["dsSettings"], Some(unix)),
    ("xhttp", &["xhttpSettings"], None),
    ("splithttp", &["splithttpSettings"], None),
];

/// Which end of a connection the settings are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    /// Ours is the listening end.
    Inbound,
    /// Ours is the dialling end.
    Outbound,
}

/// Reads the top-level `transport`; its members are checked where they are used.
pub(super) fn global<'a>(top: &Object<'a>) -> Option<Object<'a>> {
    top.get("transport")?.object(GLOBAL_KEYS)
}

/// Reads `streamSettings` and what `global` adds to them. `None` after an error.
pub(super) fn read(node: &Node<'_>, side: Side, global: Option<&Object<'_>>) -> Option<StreamSettings> {
    let object = node.object(KEYS)?;
    let transport = match object.get("network") {
        Some(network) => transport(&object, &network, side, global),
        None => tcp(settings(&object, global, NETWORKS[0].1).as_ref(), side),
    };
    let tls = given(security(&object).map(|node| {
        if node.is_none() && side == Side::Inbound {
            object.missing("tlsSettings", "a server's certificate: { \"certificates\": [...] }");
            return None;
        }
        tls::read(node.as_ref(), side)
    }));
    let sockopt = match object.get("sockopt") {
        Some(node) => sockopt::read(&node, side),
        None => Some(<_>::default()),
    };
    let (transport, mut tls, sockopt) = (transport?, tls?, sockopt?);
    check_together(&object, &transport, tls.is_some(), side);
    if let (Transport::H2(_) | Transport::Grpc(_), Some(tls)) = (&transport, &mut tls) {
        agree_on_http2(tls);
    }
    Some(StreamSettings { transport, tls: tls.map(Box::new), sockopt })
}

/// What holds without `streamSettings`: raw TCP as `global` has it. `None` after an error.
pub(super) fn absent(side: Side, global: Option<&Object<'_>>) -> Option<StreamSettings> {
    let node = global.and_then(|global| global.get("tcpSettings"));
    Some(StreamSettings { transport: tcp(node.as_ref(), side)?, ..StreamSettings::default() })
}

/// The tag of the outbound that the sockets of `streamSettings` are replaced by (`sockopt.dialerProxy`).
pub(super) fn dialer_proxy<'a>(node: &Node<'a>) -> Option<Node<'a>> {
    node.peek("sockopt")?.peek("dialerProxy").filter(|node| !node.is_empty())
}

/// Reads the transport that `network` names.
fn transport(
    object: &Object<'_>,
    network: &Node<'_>,
    side: Side,
    global: Option<&Object<'_>>,
) -> Option<Transport> {
    let names: Vec<(&str, usize)> =
        NETWORKS.iter().enumerate().map(|(index, (name, ..))| (*name, index)).collect();
    let (name, keys, reader) = NETWORKS.get(network.choice("transport", &names)?)?;
    for (_, other, _) in NETWORKS {
        for key in other.iter().filter(|key| !keys.contains(key)) {
            if let Some(node) = object.get(key).filter(|node| !node.is_empty()) {
                node.no_effect("`network` is another transport");
            }
        }
    }
    let Some(reader) = reader else {
        network.unsupported(
            &format!("the transport `{name}`"),
            "use `ws`, `grpc` or `httpupgrade` on both ends",
        );
        return None;
    };
    let settings = settings(object, global, keys);
    if settings.is_none() && *keys == ["dsSettings"] {
        object.missing("dsSettings", "where the socket is: { \"path\": ... }");
    }
    reader(settings.as_ref(), side)
}

/// The settings under the first of `keys` that is there, else in `global`.
fn settings<'a>(object: &Object<'a>, global: Option<&Object<'a>>, keys: &[&str]) -> Option<Node<'a>> {
    let own = keys.iter().find_map(|key| object.get(key));
    own.or_else(|| keys.iter().find_map(|key| global?.get(key)))
}

/// Whether `security` asks for TLS: `Some` with its settings, if there are any. Texts that V2Ray would silently take for
/// "none" are errors.
fn security<'a>(object: &Object<'a>) -> Option<Option<Node<'a>>> {
    const SECURITIES: &[(&str, &str)] =
        &[("none", ""), ("", ""), ("tls", "tls"), ("xtls", "xtls"), ("reality", "reality")];
    let name = object.get("security").and_then(|node| {
        let name = node.choice("security of the transport", SECURITIES)?;
        if matches!(name, "xtls" | "reality") {
            node.unsupported(&format!("the transport security `{name}`"), "use `tls`");
        }
        Some(name)
    });
    for (key, owner) in [("tlsSettings", "tls"), ("xtlsSettings", "xtls"), ("realitySettings", "reality")] {
        if let Some(node) = object.get(key).filter(|node| name != Some(owner) && !node.is_empty()) {
            node.no_effect("`security` does not turn it on");
        }
    }
    (name == Some("tls")).then(|| object.get("tlsSettings"))
}

/// Puts HTTP/2 among what is agreed on by TLS, as V2Ray does it whatever the config says.
fn agree_on_http2(tls: &mut Tls) {
    if let Some(names) = tls.alpn.as_mut().filter(|names| !names.iter().any(|name| name == "h2")) {
        names.insert(0, "h2".to_owned());
    }
}

/// Reports what does not go together.
fn check_together(object: &Object<'_>, transport: &Transport, tls: bool, side: Side) {
    let Some(network) = object.get("network") else { return };
    match transport {
        Transport::H2(_) if !tls && side == Side::Outbound => network
            .error("HTTP/2 needs TLS, by which it is agreed on", |finding| {
                finding.hint("set `security` to `tls`")
            }),
        Transport::Unix(_) if cfg!(not(unix)) => {
            network.unsupported("a Unix domain socket here", "use `tcp`")
        }
        _ => {}
    }
}

/// Reads `tcpSettings`.
fn tcp(node: Option<&Node<'_>>, side: Side) -> Option<Transport> {
    let Some(node) = node else { return Some(Transport::default()) };
    let object = node.object(&["acceptProxyProtocol", "header"])?;
    let accept_proxy_protocol = proxy_protocol(&object, side);
    let header = given(object.get("header").map(|node| http::header(&node)))?.flatten();
    Some(Transport::Tcp(Tcp { header: header.map(Box::new), accept_proxy_protocol }))
}

/// Reads `dsSettings`.
fn unix(node: Option<&Node<'_>>, _side: Side) -> Option<Transport> {
    const ALLOWED: &str = "the path of a socket, or its name if it is abstract";
    let object = node?.object(&["path", "abstract", "padding"])?;
    let path = object.required("path", ALLOWED)?;
    if path.text()?.trim().is_empty() {
        path.error("there is no path", |finding| finding.allowed(ALLOWED));
        return None;
    }
    let is_abstract = object.flag("abstract", false);
    if let Some(node) = object
        .get("abstract")
        .filter(|_| is_abstract && cfg!(not(any(target_os = "linux", target_os = "android"))))
    {
        node.unsupported("an abstract socket on this system", "use a path");
        return None;
    }
    Some(Transport::Unix(Unix {
        path: PathBuf::from(path.text()?.trim()),
        is_abstract,
        padding: object.flag("padding", false),
    }))
}

/// Reads `acceptProxyProtocol`, which means something to a listener alone.
fn proxy_protocol(object: &Object<'_>, side: Side) -> bool {
    let asked = object.flag("acceptProxyProtocol", false);
    if let Some(node) = object.get("acceptProxyProtocol").filter(|_| asked && side == Side::Outbound) {
        node.no_effect("it is for inbounds");
    }
    asked && side == Side::Inbound
}
