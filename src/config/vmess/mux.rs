//! `mux`: how flows share connections to a server. V2Ray has `enabled` and `concurrency`, Xray the rest.

use super::packet_encoding;
use crate::config::model::{Mux, PacketEncoding, Xudp443};
use crate::config::walk::Node;

const KEYS: &[&str] = &["enabled", "concurrency", "xudpConcurrency", "xudpProxyUDP443", "packetEncoding"];

/// The most flows on a connection at a time that V2Ray allows.
const MOST: i64 = 1024;

/// How many they are if the config does not say.
const DEFAULT: u16 = 8;

/// Reads `mux`: how flows share connections, and the encoding of packets, which V2Ray 5 has here. `None` in the first
/// place: not at all.
pub(in crate::config) fn read(node: &Node<'_>) -> (Option<Mux>, Option<PacketEncoding>) {
    let Some(object) = node.object(KEYS) else { return (None, None) };
    let enabled = object.flag("enabled", false);
    let concurrency = object.get("concurrency").map_or(0, |node| sessions(&node));
    let xudp = object.get("xudpConcurrency").map_or(0, |node| sessions(&node));
    let table = [
        ("reject", Xudp443::Reject),
        ("allow", Xudp443::Allow),
        ("skip", Xudp443::Skip),
        ("", Xudp443::Allow),
    ];
    let xudp_udp443 = object.get("xudpProxyUDP443").and_then(|node| node.choice("policy for QUIC", &table));
    let encoding = object.get("packetEncoding").and_then(|node| packet_encoding(&node));
    let concurrency = match concurrency {
        0 => DEFAULT,
        // Below 0: a connection each.
        count => u16::try_from(count).unwrap_or(0),
    };
    let xudp_concurrency = match xudp {
        0 => None,
        count => Some(u16::try_from(count).unwrap_or(0)),
    };
    let shared = concurrency > 0 || xudp_concurrency.is_some_and(|count| count > 0);
    let mux = Mux { concurrency, xudp_concurrency, xudp_udp443: xudp_udp443.unwrap_or(Xudp443::Allow) };
    ((enabled && shared).then_some(mux), encoding)
}

/// Reads how many flows share a connection, a number of 16 bits with a sign; 0 if it is wrong.
fn sessions(node: &Node<'_>) -> i64 {
    let count = node.value().as_i64().filter(|count| (i64::from(i16::MIN)..=MOST).contains(count));
    if count.is_none() {
        let allowed = "a whole number: below 0 for a connection each, 0 for the default, 1 to 1024";
        node.error("wrong concurrency", |finding| finding.allowed(allowed));
    }
    count.unwrap_or(0)
}
