//! Policy: timeouts by level, and which totals are kept.

use super::model::{Level, Policy, SystemStats};
use super::walk::{Node, Object};
use std::collections::BTreeMap;
use std::time::Duration;

const LEVEL_KEYS: &[&str] = &[
    "handshake",
    "connIdle",
    "uplinkOnly",
    "downlinkOnly",
    "bufferSize",
    "statsUserUplink",
    "statsUserDownlink",
];

const SYSTEM_KEYS: &[&str] = &[
    "statsInboundUplink",
    "statsInboundDownlink",
    "statsOutboundUplink",
    "statsOutboundDownlink",
    "overrideAccessLogDest",
];

/// Reads `policy`.
pub(super) fn read(top: &Object<'_>) -> Policy {
    let Some(object) = top.section("policy", &["levels", "system"]) else { return Policy::default() };
    let members = object.get("levels").and_then(|node| node.members()).unwrap_or_default();
    let mut levels = BTreeMap::new();
    for (key, node) in members {
        let numeric = key.bytes().all(|b| b.is_ascii_digit());
        match key.parse().ok().filter(|_| numeric) {
            Some(number) => drop(levels.insert(number, level(&node))),
            None => node.error("a level is named by its number", |finding| {
                finding.allowed("a whole number from 0 to 4294967295 as the key: \"0\"")
            }),
        }
    }
    Policy { levels, system: system(&object, top.get("stats").is_some()) }
}

/// Reads one level; absent members take their defaults.
fn level(node: &Node<'_>) -> Level {
    let mut level = Level::default();
    let Some(object) = node.object(LEVEL_KEYS) else { return level };
    let timeouts: [(&str, &mut Duration, bool); 4] = [
        ("handshake", &mut level.handshake, true),
        ("connIdle", &mut level.conn_idle, true),
        ("uplinkOnly", &mut level.uplink_only, false),
        ("downlinkOnly", &mut level.downlink_only, false),
    ];
    for (key, timeout, needed) in timeouts {
        let Some(node) = object.get(key) else { continue };
        let Some(seconds) = node.number_u32() else { continue };
        if seconds == 0 && needed {
            node.warning("0 ends every connection at once", |finding| finding.allowed("seconds, 1 or more"));
        }
        *timeout = Duration::from_secs(seconds.into());
    }
    if let Some(node) = object.get("bufferSize") {
        if node.value().as_i64().is_none() {
            node.error("wrong type", |finding| finding.allowed("a whole number of kB"));
        } else {
            node.ignored(
                "`bufferSize`",
                "buffers are taken when data moves; `vmesskit.memoryLimit` bounds them",
            );
        }
    }
    for key in ["statsUserUplink", "statsUserDownlink"] {
        if let Some(node) = object.get(key)
            && node.flag() == Some(true)
        {
            node.ignored(&format!("counting by user (`{key}`)"), "totals are kept all the same");
        }
    }
    level
}

/// Reads `system`; V2Ray counts only if there is a top-level `stats`.
fn system(policy: &Object<'_>, stats: bool) -> SystemStats {
    let Some(object) = policy.section("system", SYSTEM_KEYS) else { return SystemStats::default() };
    let flag = |key| {
        let asked = object.flag(key, false);
        if let Some(node) = object.get(key).filter(|_| asked && !stats) {
            node.no_effect("it needs a top-level `stats: {}`");
        }
        asked && stats
    };
    SystemStats {
        inbound_uplink: flag("statsInboundUplink"),
        inbound_downlink: flag("statsInboundDownlink"),
        outbound_uplink: flag("statsOutboundUplink"),
        outbound_downlink: flag("statsOutboundDownlink"),
    }
}
