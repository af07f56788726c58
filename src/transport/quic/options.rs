//! What a connection may hold, and for how long it is kept.

use crate::buffer::Pool;
use quinn::{EndpointConfig, IdleTimeout, MtuDiscoveryConfig, TransportConfig, VarInt};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

/// The most that all streams of a connection may hold together, each way.
const CONNECTION: RangeInclusive<usize> = (1 << 20)..=(8 << 20);
/// What part of that one stream may hold: what stalls fills the rest of it no sooner.
const STREAM: usize = 4;
/// How many streams a client may have open on one connection of a server's.
pub(super) const MAX_STREAMS: u32 = 128;
/// After so long without a datagram a connection is over, and after how long a client asks before that.
const IDLE: Duration = Duration::from_secs(30);
const KEEP_ALIVE: Duration = Duration::from_secs(20);
/// The most bytes of a datagram that leave, disguise and all: what V2Ray's QUIC takes.
const LARGEST: usize = 1452;
/// The most bytes of a datagram that come.
const LARGEST_RECEIVED: u16 = 1500;

/// Which end of a connection is ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    /// The one that dials, and opens streams.
    Client,
    /// The one that is dialled.
    Server,
}

/// The settings of a connection. `overhead` is what the disguise adds to each datagram.
pub(super) fn transport(pool: &Pool, overhead: usize, side: Side) -> Arc<TransportConfig> {
    let connection = (pool.limit() / 4).clamp(*CONNECTION.start(), *CONNECTION.end());
    let bytes = |n: usize| VarInt::from_u32(u32::try_from(n).unwrap_or(u32::MAX));
    let mut mtu = MtuDiscoveryConfig::default();
    mtu.upper_bound(u16::try_from(LARGEST.saturating_sub(overhead)).unwrap_or(u16::MAX));
    let mut config = TransportConfig::default();
    config
        .receive_window(bytes(connection))
        .stream_receive_window(bytes(connection / STREAM))
        .send_window(connection as u64)
        .max_idle_timeout(IdleTimeout::try_from(IDLE).ok())
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .max_concurrent_bidi_streams(VarInt::from_u32(if side == Side::Server { MAX_STREAMS } else { 0 }))
        .datagram_receive_buffer_size(None)
        .mtu_discovery_config(Some(mtu));
    if side == Side::Client {
        config.keep_alive_interval(Some(KEEP_ALIVE));
    }
    Arc::new(config)
}

/// The settings of an endpoint: every version that quinn knows.
pub(super) fn endpoint() -> EndpointConfig {
    let mut config = EndpointConfig::default();
    config.max_udp_payload_size(LARGEST_RECEIVED).expect("within the bounds of QUIC");
    config
}
