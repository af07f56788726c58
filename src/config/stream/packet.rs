//! The transports over UDP: mKCP and QUIC, and what their datagrams look like.

use super::super::transport::{Kcp, PacketHeader, Quic, QuicSecurity, Secret, Transport};
use super::super::walk::{Node, Object, given};
use super::Side;
use std::time::Duration;

const HEADERS: &[(&str, PacketHeader)] = &[
    ("none", PacketHeader::None),
    ("srtp", PacketHeader::Srtp),
    ("utp", PacketHeader::Utp),
    ("wechat-video", PacketHeader::WechatVideo),
    ("dtls", PacketHeader::Dtls),
    ("wireguard", PacketHeader::Wireguard),
];

/// The least buffer of an mKCP connection: what 0 MB means.
const LEAST_BUFFER: usize = 512 << 10;
/// The most MB that a buffer may have.
const MOST_BUFFER: u64 = 64;

/// Reads `kcpSettings`.
pub(super) fn kcp(node: Option<&Node<'_>>, _side: Side) -> Option<Transport> {
    const KEYS: &[&str] = &[
        "mtu",
        "tti",
        "uplinkCapacity",
        "downlinkCapacity",
        "congestion",
        "readBufferSize",
        "writeBufferSize",
        "header",
        "seed",
    ];
    let default = Kcp::default();
    let Some(node) = node else { return Some(Transport::Kcp(default)) };
    let object = node.object(KEYS)?;
    let number = |key, least, most| given(object.get(key).map(|node| node.number(least, most)));
    let buffer = |key| {
        let megabytes = number(key, 0, MOST_BUFFER)?.map(|n| usize::try_from(n).unwrap_or_default() << 20);
        Some(megabytes.map(|bytes| bytes.max(LEAST_BUFFER)))
    };
    let capacity = |key| Some(number(key, 0, u32::MAX.into())?.and_then(|n| u32::try_from(n).ok()));
    let (mtu, tti) = (number("mtu", 576, 1460), number("tti", 10, 100));
    let (up, down) = (capacity("uplinkCapacity"), capacity("downlinkCapacity"));
    let (read, write) = (buffer("readBufferSize"), buffer("writeBufferSize"));
    let (header, seed) = (header(&object), secret(&object, "seed"));
    Some(Transport::Kcp(Kcp {
        mtu: mtu?.and_then(|n| u16::try_from(n).ok()).unwrap_or(default.mtu),
        tti: tti?.map_or(default.tti, Duration::from_millis),
        uplink_capacity: up?.unwrap_or(default.uplink_capacity),
        downlink_capacity: down?.unwrap_or(default.downlink_capacity),
        congestion: object.flag("congestion", default.congestion),
        read_buffer: read?.unwrap_or(default.read_buffer),
        write_buffer: write?.unwrap_or(default.write_buffer),
        header: header?,
        seed: seed?,
    }))
}

/// Reads `quicSettings`.
pub(super) fn quic(node: Option<&Node<'_>>, _side: Side) -> Option<Transport> {
    const SECURITIES: &[(&str, QuicSecurity)] = &[
        ("none", QuicSecurity::None),
        ("", QuicSecurity::None),
        ("aes-128-gcm", QuicSecurity::Aes128Gcm),
        ("chacha20-poly1305", QuicSecurity::Chacha20Poly1305),
    ];
    let Some(node) = node else { return Some(Transport::Quic(Quic::default())) };
    let object = node.object(&["security", "key", "header"])?;
    let security = given(object.get("security").map(|node| node.choice("security of QUIC", SECURITIES)));
    let (header, key) = (header(&object), secret(&object, "key"));
    Some(Transport::Quic(Quic {
        security: security?.unwrap_or_default(),
        key: key?.unwrap_or_default(),
        header: header?,
    }))
}

/// Reads `header`.
fn header(object: &Object<'_>) -> Option<PacketHeader> {
    let Some(node) = object.get("header") else { return Some(PacketHeader::None) };
    let header = node.object(&["type"])?;
    let kind = given(header.get("type").map(|node| node.choice("disguise", HEADERS)))?;
    Some(kind.unwrap_or_default())
}

/// Reads a text that no finding may show.
fn secret(object: &Object<'_>, key: &str) -> Option<Option<Secret>> {
    let read = given(object.secret(key).map(|node| node.text()))?;
    Some(read.filter(|text| !text.is_empty()).map(Secret::new))
}
