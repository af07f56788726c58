//! `streamSettings` and `transport`: which carrier a connection rides on, as far as this version serves it.

use super::walk::{Node, Object};

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

/// What `network` may say, and the key of its settings; those that are not served come in a later version.
const NETWORKS: &[(&str, (&str, bool))] = &[
    ("tcp", ("tcpSettings", true)),
    ("raw", ("tcpSettings", true)),
    ("kcp", ("kcpSettings", false)),
    ("mkcp", ("kcpSettings", false)),
    ("ws", ("wsSettings", false)),
    ("websocket", ("wsSettings", false)),
    ("h2", ("httpSettings", false)),
    ("http", ("httpSettings", false)),
    ("ds", ("dsSettings", false)),
    ("domainsocket", ("dsSettings", false)),
    ("quic", ("quicSettings", false)),
    ("grpc", ("grpcSettings", false)),
    ("gun", ("grpcSettings", false)),
    ("httpupgrade", ("httpupgradeSettings", false)),
    ("xhttp", ("xhttpSettings", false)),
    ("splithttp", ("splithttpSettings", false)),
];

/// Which end of a connection the settings are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    /// Ours is the listening end.
    Inbound,
    /// Ours is the dialling end.
    Outbound,
}

/// What the settings say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Carrier {
    /// Whether TLS (or something like it) is asked for.
    pub(super) tls: bool,
}

/// Reads `streamSettings`; what this version does not serve is an error. `None` if it is no object.
pub(super) fn read(node: &Node<'_>, side: Side) -> Option<Carrier> {
    let object = node.object(KEYS)?;
    let network = object.get("network").and_then(|node| {
        let (settings, served) = node.choice("transport", NETWORKS)?;
        if !served {
            let name = node.value().as_str().unwrap_or_default().to_ascii_lowercase();
            node.unsupported(&format!("the transport `{name}`"), "this version has raw TCP (`tcp`) only");
        }
        Some(settings)
    });
    let tls = security(&object);
    for key in ["tlsSettings", "xtlsSettings", "realitySettings"] {
        if let Some(node) = object.get(key).filter(|node| !tls && !node.is_empty()) {
            node.no_effect("`security` does not turn it on");
        }
    }
    let used = network.unwrap_or("tcpSettings");
    for (_, (key, served)) in NETWORKS {
        if let Some(node) = object.get(key).filter(|node| !served && *key != used && !node.is_empty()) {
            node.no_effect("`network` is another transport");
        }
    }
    for key in ["tcpSettings", "rawSettings"] {
        if let Some(node) = object.get(key).filter(|_| used == "tcpSettings") {
            check_tcp(&node, side);
        }
    }
    if let Some(node) = object.get("sockopt") {
        check_sockopt(&node, side);
    }
    Some(Carrier { tls })
}

/// Checks the top-level `transport`, which fills what `streamSettings` leave out.
pub(super) fn check_global(node: &Node<'_>) {
    const KEYS: &[&str] = &[
        "tcpSettings",
        "kcpSettings",
        "wsSettings",
        "httpSettings",
        "dsSettings",
        "quicSettings",
        "grpcSettings",
        "gunSettings",
    ];
    let Some(object) = node.object(KEYS) else { return };
    if let Some(node) = object.get("tcpSettings") {
        check_tcp(&node, Side::Outbound);
    }
}

/// Whether `security` asks for TLS. Texts that V2Ray would silently take for "none" are errors.
fn security(object: &Object<'_>) -> bool {
    const SECURITIES: &[(&str, bool)] =
        &[("none", false), ("", false), ("tls", true), ("xtls", true), ("reality", true)];
    let Some(node) = object.get("security") else { return false };
    let tls = node.choice("security of the transport", SECURITIES);
    if tls == Some(true) {
        let name = node.value().as_str().unwrap_or_default().to_ascii_lowercase();
        node.unsupported(&format!("the transport security `{name}`"), "this version has `none` only");
    }
    tls.unwrap_or(false)
}

/// Checks `tcpSettings`: the disguise as HTTP is not served.
fn check_tcp(node: &Node<'_>, side: Side) {
    let Some(object) = node.object(&["acceptProxyProtocol", "header"]) else { return };
    check_proxy_protocol(&object, side);
    let Some(header) = object.get("header") else { return };
    let Some(header) = header.object(&["type", "request", "response"]) else { return };
    if let Some(node) = header.required("type", "none, http")
        && node.choice("disguise", &[("none", false), ("http", true)]) == Some(true)
    {
        node.unsupported("the disguise as HTTP (`http`)", "use `none` on both ends");
    }
}

/// Checks `acceptProxyProtocol`, which means something to a listener alone.
fn check_proxy_protocol(object: &Object<'_>, side: Side) {
    if let Some(node) = object.get("acceptProxyProtocol")
        && node.flag() == Some(true)
    {
        match side {
            Side::Inbound => node.unsupported("the PROXY protocol", "set it to false"),
            Side::Outbound => node.no_effect("it is for inbounds"),
        }
    }
}

/// Checks `sockopt`: what changes where packets go is an error, what tunes is ignored with a warning.
fn check_sockopt(node: &Node<'_>, side: Side) {
    const KEYS: &[&str] = &[
        "mark",
        "tcpFastOpen",
        "tproxy",
        "acceptProxyProtocol",
        "bindToDevice",
        "interface",
        "dialerProxy",
        "domainStrategy",
        "tcpKeepAliveInterval",
        "tcpKeepAliveIdle",
        "tcpFastOpenQueueLength",
        "tcpNoDelay",
        "tcpCongestion",
        "tcpUserTimeout",
        "tcpMaxSeg",
        "tcpWindowClamp",
        "tcpMptcp",
        "mptcp",
        "V6Only",
    ];
    const STEERING: [(&str, &str); 4] = [
        ("mark", "marking packets (`mark`)"),
        ("bindToDevice", "binding to a device"),
        ("interface", "binding to a device"),
        ("dialerProxy", "dialling through another outbound"),
    ];
    let Some(object) = node.object(KEYS) else { return };
    check_proxy_protocol(&object, side);
    for (key, what) in STEERING {
        if let Some(node) = object.get(key).filter(|node| !node.is_empty()) {
            let hint = "the host keeps our sockets out of the tunnel with its protect callback";
            node.unsupported(what, hint);
        }
    }
    if let Some(node) = object.get("tproxy")
        && node.choice("kind of transparent proxy", &[("off", false), ("redirect", true), ("tproxy", true)])
            == Some(true)
    {
        node.unsupported("a transparent proxy", "set it to `off`");
    }
    let steering = STEERING.iter().map(|(key, _)| *key).chain(["tproxy", "acceptProxyProtocol"]);
    let steering: Vec<_> = steering.collect();
    for key in KEYS.iter().filter(|key| !steering.contains(key)) {
        if let Some(node) = object.get(key).filter(|node| !node.is_empty()) {
            node.ignored(&format!("the socket option `{key}`"), "connections work without it");
        }
    }
}
