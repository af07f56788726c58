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
    let (mut levels, mut server_levels) = (BTreeMap::new(), BTreeMap::new());
    let stats = top.get("stats").is_some();
    for (key, node) in members {
        let numeric = key.bytes().all(|b| b.is_ascii_digit());
        match key.parse().ok().filter(|_| numeric) {
            Some(number) => {
                let said = Said::read(&node, stats);
                levels.insert(number, said.over(Level::default()));
                server_levels.insert(number, said.over(Level::server()));
            }
            None => node.error("a level is named by its number", |finding| {
                finding.allowed("a whole number from 0 to 4294967295 as the key: \"0\"")
            }),
        }
    }
    Policy { levels, server_levels, system: system(&object, stats) }
}

/// What the config says of a level; `None` where it says nothing.
#[derive(Debug, Default)]
struct Said {
    handshake: Option<Duration>,
    conn_idle: Option<Duration>,
    uplink_only: Option<Duration>,
    downlink_only: Option<Duration>,
    stats_uplink: bool,
    stats_downlink: bool,
}

impl Said {
    /// Reads one level; V2Ray counts users only if there is a top-level `stats`.
    fn read(node: &Node<'_>, stats: bool) -> Self {
        let mut said = Self::default();
        let Some(object) = node.object(LEVEL_KEYS) else { return said };
        let timeouts: [(&str, &mut Option<Duration>, bool); 4] = [
            ("handshake", &mut said.handshake, true),
            ("connIdle", &mut said.conn_idle, true),
            ("uplinkOnly", &mut said.uplink_only, false),
            ("downlinkOnly", &mut said.downlink_only, false),
        ];
        for (key, timeout, needed) in timeouts {
            let Some(node) = object.get(key) else { continue };
            let Some(seconds) = node.number_u32() else { continue };
            if seconds == 0 && needed {
                node.warning("0 ends every connection at once", |finding| {
                    finding.allowed("seconds, 1 or more")
                });
            }
            *timeout = Some(Duration::from_secs(seconds.into()));
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
        said.stats_uplink = counted(&object, "statsUserUplink", stats);
        said.stats_downlink = counted(&object, "statsUserDownlink", stats);
        said
    }

    /// The level, with `default` for what is not said.
    fn over(&self, default: Level) -> Level {
        Level {
            handshake: self.handshake.unwrap_or(default.handshake),
            conn_idle: self.conn_idle.unwrap_or(default.conn_idle),
            uplink_only: self.uplink_only.unwrap_or(default.uplink_only),
            downlink_only: self.downlink_only.unwrap_or(default.downlink_only),
            stats_uplink: self.stats_uplink,
            stats_downlink: self.stats_downlink,
        }
    }
}

/// Whether the flag `key` asks for a counter that is kept.
fn counted(object: &Object<'_>, key: &str, stats: bool) -> bool {
    let asked = object.flag(key, false);
    if let Some(node) = object.get(key).filter(|_| asked && !stats) {
        node.no_effect("it needs a top-level `stats: {}`");
    }
    asked && stats
}

/// Reads `system`; V2Ray counts only if there is a top-level `stats`.
fn system(policy: &Object<'_>, stats: bool) -> SystemStats {
    let Some(object) = policy.section("system", SYSTEM_KEYS) else { return SystemStats::default() };
    SystemStats {
        inbound_uplink: counted(&object, "statsInboundUplink", stats),
        inbound_downlink: counted(&object, "statsInboundDownlink", stats),
        outbound_uplink: counted(&object, "statsOutboundUplink", stats),
        outbound_downlink: counted(&object, "statsOutboundDownlink", stats),
    }
}
