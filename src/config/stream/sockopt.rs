//! `sockopt`: what is set on sockets. What changes where packets go must be served or is an error; what only tunes and
//! is not served is left out with a warning.

use super::super::transport::SockOpt;
use super::super::walk::{Node, Object, given};
use super::{Side, proxy_protocol};
use std::sync::Arc;
use std::time::Duration;

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

/// Options that connections work without.
const TUNING: &[&str] =
    &["domainStrategy", "tcpFastOpenQueueLength", "tcpMaxSeg", "tcpWindowClamp", "tcpMptcp", "mptcp"];

/// Whether the system has Linux's socket options.
const LINUX: bool = cfg!(any(target_os = "linux", target_os = "android"));

/// Reads `sockopt`. `None` after an error.
pub(super) fn read(node: &Node<'_>, side: Side) -> Option<SockOpt> {
    let object = node.object(KEYS)?;
    proxy_protocol(&object, side);
    check_steering(&object, side);
    let seconds = |key| {
        let read = given(object.get(key).map(|node| node.number_u32()))?;
        Some(read.filter(|seconds| *seconds > 0).map(|seconds| Duration::from_secs(seconds.into())))
    };
    let text = |key| given(object.get(key).map(|node| node.text().map(str::trim)));
    let mark = given(object.get("mark").map(|node| node.number_u32()));
    let (idle, interval) = (seconds("tcpKeepAliveIdle"), seconds("tcpKeepAliveInterval"));
    let timeout = given(object.get("tcpUserTimeout").map(|node| node.number_u32()));
    let (device, interface) = (text("bindToDevice"), text("interface"));
    let congestion = text("tcpCongestion");
    for key in TUNING {
        if let Some(node) = object.get(key).filter(|node| !node.is_empty()) {
            node.ignored(&format!("the socket option `{key}`"), "connections work without it");
        }
    }
    if let Some(node) = object.get("tcpNoDelay")
        && node.flag() == Some(false)
    {
        node.ignored("delaying small segments (`tcpNoDelay`)", "they are always sent at once");
    }
    let device = device?.filter(|name| !name.is_empty()).or(interface?.filter(|name| !name.is_empty()));
    let mark = mark?.filter(|mark| *mark > 0);
    if let Some(node) = object.get("mark").filter(|_| mark.is_some() && !LINUX) {
        node.unsupported("marking packets on this system", "it is for Linux and Android");
    }
    for key in ["bindToDevice", "interface"] {
        if let Some(node) = object.get(key).filter(|node| !node.is_empty() && !LINUX) {
            node.unsupported("binding sockets to a device on this system", "it is for Linux and Android");
        }
    }
    if let Some(node) = object.get("tcpFastOpen").filter(|node| node.flag() == Some(true)) {
        if side == Side::Inbound {
            let effect = "on Linux the system does it for all listeners: sysctl net.ipv4.tcp_fastopen=1027";
            node.ignored("`tcpFastOpen` of a listener", effect);
        } else if !LINUX {
            node.ignored("`tcpFastOpen` on this system", "connections work without it");
        }
    }
    Some(SockOpt {
        mark,
        tcp_fast_open: object.get("tcpFastOpen").and_then(|node| node.flag()),
        keepalive_idle: idle?,
        keepalive_interval: interval?,
        device: device.map(Arc::from),
        user_timeout: timeout?
            .filter(|millis| *millis > 0)
            .map(|millis| Duration::from_millis(millis.into())),
        congestion: congestion?.filter(|name| !name.is_empty()).map(Arc::from),
        v6_only: object.get("V6Only").and_then(|node| node.flag()),
    })
}

/// Reports what steers packets and is not served.
fn check_steering(object: &Object<'_>, side: Side) {
    // An outbound's is read with its `proxySettings`.
    if let Some(node) = object.get("dialerProxy").filter(|node| !node.is_empty() && side == Side::Inbound) {
        node.no_effect("it is for outbounds");
    }
    const KINDS: &[(&str, bool)] = &[("off", false), ("", false), ("redirect", true), ("tproxy", true)];
    if let Some(node) = object.get("tproxy")
        && node.choice("kind of transparent proxy", KINDS) == Some(true)
    {
        node.unsupported("a transparent proxy", "set it to `off`");
    }
}
