//! The whole config: its sections in their order, then what they say of each other.

use super::model::{Config, InboundProtocol, LogLevel, Sntp, Vmesskit};
use super::outbound::split_target;
use super::vmess::check_legacy;
use super::walk::{Node, Object};
use super::{dns, inbound, outbound, policy, routing, stream};
use crate::addr::{Host, Target};

const KEYS: &[&str] = &[
    "log",
    "dns",
    "routing",
    "policy",
    "inbounds",
    "outbounds",
    "transport",
    "stats",
    "api",
    "reverse",
    "vmesskit",
    "inbound",
    "outbound",
    "inboundDetour",
    "outboundDetour",
    "port",
    "fakedns",
    "observatory",
    "burstObservatory",
    "browserForwarder",
    "services",
    "geodata",
    "metrics",
];

const VMESSKIT_KEYS: &[&str] = &[
    "memoryLimit",
    "noneChunked",
    "allowCfb",
    "dynamicPort",
    "legacyTagLimit",
    "connectionsPerUser",
    "connectionsPerSource",
    "sntp",
];

/// The least memory that a tunnel works with, in bytes.
const LEAST_MEMORY: u64 = 4 << 20;

/// The names of log levels.
const LOG_LEVELS: [(&str, LogLevel); 5] = [
    ("debug", LogLevel::Debug),
    ("info", LogLevel::Info),
    ("warning", LogLevel::Warning),
    ("error", LogLevel::Error),
    ("none", LogLevel::None),
];

/// Reads a config. What it returns counts only if no error was found.
pub(super) fn read(root: &Node<'_>) -> Option<Config> {
    let top = root.object(KEYS)?;
    let log_level = log_level(&top);
    let vmesskit = vmesskit(&top);
    let global = stream::global(&top);
    let inbounds = inbound::read_all(&top, global.as_ref());
    let outbounds = outbound::read_all(&top, global.as_ref(), vmesskit.allow_cfb);
    let servers = inbounds.iter().filter_map(inbound::Entry::users);
    check_legacy(&top, servers, vmesskit.legacy_tag_limit);
    let tags = routing::Tags {
        inbounds: inbounds.iter().map(|entry| entry.tag.clone()).collect(),
        outbounds: outbounds.iter().map(|entry| entry.tag.clone()).collect(),
        users: inbounds.iter().flat_map(inbound::Entry::emails).collect(),
    };
    let rules = routing::read(&top, &tags);
    for entry in &inbounds {
        if let Some(sniffing) = &entry.sniffing {
            routing::check_sniffing(sniffing, &entry.tag, &rules);
        }
    }
    let inbounds: Vec<_> = inbounds.into_iter().filter_map(|entry| entry.inbound).collect();
    let tunnel = inbounds.iter().find_map(|inbound| match &inbound.protocol {
        InboundProtocol::Tun(tun) => Some(tun.dns),
        InboundProtocol::Socks(_) | InboundProtocol::Vmess(_) => None,
    });
    let dns_servers = dns::read(&top, tunnel);
    let policy = policy::read(&top);
    if let Some(node) = top.get("stats") {
        node.object(&[]);
    }
    routing::check_foreign_sections(&top);
    let outbounds = outbounds.into_iter().filter_map(|entry| entry.outbound).collect();
    Some(Config { log_level, inbounds, outbounds, rules, dns_servers, policy, vmesskit })
}

/// Reads `log`.
fn log_level(top: &Object<'_>) -> LogLevel {
    let Some(object) = top.section("log", &["loglevel", "access", "error", "dnsLog", "maskAddress"]) else {
        return LogLevel::Warning;
    };
    for key in ["access", "error"] {
        if let Some(node) = object.get(key)
            && node.text().is_some_and(|path| !matches!(path, "" | "none"))
        {
            node.ignored("a log file", "lines go to the host's log");
        }
    }
    for key in ["dnsLog", "maskAddress"] {
        if let Some(node) = object.get(key).filter(|node| !node.is_empty()) {
            node.ignored(&format!("`{key}`"), "host names are logged at `debug` only");
        }
    }
    let Some(node) = object.get("loglevel") else { return LogLevel::Warning };
    let Some(text) = node.text().map(str::trim) else { return LogLevel::Warning };
    let level = LOG_LEVELS.iter().find(|(name, _)| name.eq_ignore_ascii_case(text));
    if level.is_none() && !text.is_empty() {
        let names: Vec<&str> = LOG_LEVELS.iter().map(|(name, _)| *name).collect();
        node.warning("unknown log level; `warning` is used", |finding| finding.allowed(names.join(", ")));
    }
    level.map_or(LogLevel::Warning, |(_, level)| *level)
}

/// Reads `vmesskit`, our own section.
fn vmesskit(top: &Object<'_>) -> Vmesskit {
    let mut read = Vmesskit::default();
    let Some(object) = top.section("vmesskit", VMESSKIT_KEYS) else { return read };
    read.memory_limit = object.get("memoryLimit").and_then(|node| node.number(LEAST_MEMORY, u64::MAX >> 1));
    read.none_chunked = object.flag("noneChunked", read.none_chunked);
    read.dynamic_port = object.flag("dynamicPort", read.dynamic_port);
    read.allow_cfb = object.flag("allowCfb", read.allow_cfb);
    let limit = object.get("legacyTagLimit").and_then(|node| node.number_u32());
    read.legacy_tag_limit =
        limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(read.legacy_tag_limit);
    let count = |key| object.get(key).and_then(|node| node.number_u32()).unwrap_or_default();
    read.connections_per_user = count("connectionsPerUser");
    read.connections_per_source = count("connectionsPerSource");
    read.sntp = object.get("sntp").and_then(|node| sntp(&node));
    read
}

/// Reads a time server: `HOST:PORT`, or a host alone, which answers on port 123.
fn sntp(node: &Node<'_>) -> Option<Sntp> {
    const PORT: u16 = 123;
    const ALLOWED: &str = "\"host:port\", such as \"time.example.com:123\"";
    let object = node.object(&["server", "correct"])?;
    let correct = object.flag("correct", false);
    let node = object.required("server", ALLOWED)?;
    let text = node.text()?.trim();
    let server = match (split_target(text), Host::parse(text)) {
        (_, Some(host)) => Some(Target::new(host, PORT)),
        (Some((Some(host), port)), None) => Some(Target::new(host, port)),
        _ => None,
    };
    if server.is_none() {
        node.error("not a time server", |finding| finding.allowed(ALLOWED));
    }
    Some(Sntp { server: server?, correct })
}
