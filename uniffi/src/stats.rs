//! Counters and connections.

use crate::platform::Network;

/// Counters since the start, and gauges. Bytes are payload, not packets.
#[derive(Debug, Clone, PartialEq, Eq, uniffi::Record)]
pub struct Stats {
    /// Payload bytes sent to the network.
    pub uplink_bytes: u64,
    /// Payload bytes received from the network.
    pub downlink_bytes: u64,
    /// IP packets read from the tun device.
    pub tun_packets_in: u64,
    /// IP packets written to the tun device.
    pub tun_packets_out: u64,
    /// Packets and datagrams dropped: malformed, over a bound, undeliverable.
    pub dropped: u64,
    /// TCP connections accepted so far.
    pub tcp_total: u64,
    /// TCP connections open now.
    pub tcp_open: u64,
    /// UDP flows made so far.
    pub udp_total: u64,
    /// UDP flows open now.
    pub udp_open: u64,
    /// DNS queries forwarded.
    pub dns_queries: u64,
    /// Connections made to servers.
    pub dials: u64,
    /// Dials that failed.
    pub dial_failures: u64,
    /// Bytes of payload buffers in use.
    pub buffer_bytes: u64,
    /// Bytes of memory of the whole process, as the operating system counts it against its limit; 0 if unknown.
    pub footprint_bytes: u64,
    /// Milliseconds since the start.
    pub uptime_millis: u64,
}

impl From<vmesskit::Stats> for Stats {
    fn from(stats: vmesskit::Stats) -> Self {
        Self {
            uplink_bytes: stats.uplink_bytes,
            downlink_bytes: stats.downlink_bytes,
            tun_packets_in: stats.tun_packets_in,
            tun_packets_out: stats.tun_packets_out,
            dropped: stats.dropped,
            tcp_total: stats.tcp_total,
            tcp_open: stats.tcp_open,
            udp_total: stats.udp_total,
            udp_open: stats.udp_open,
            dns_queries: stats.dns_queries,
            dials: stats.dials,
            dial_failures: stats.dial_failures,
            buffer_bytes: stats.buffer_bytes,
            footprint_bytes: stats.footprint_bytes,
            uptime_millis: stats.uptime_millis,
        }
    }
}

/// One open connection.
#[derive(Debug, Clone, PartialEq, Eq, uniffi::Record)]
pub struct ConnectionInfo {
    /// Its id, unique in the tunnel's life.
    pub id: u64,
    /// TCP or UDP.
    pub network: Network,
    /// The app's end, such as `172.19.0.1:40000`.
    pub source: String,
    /// Where it goes: `host:port`.
    pub target: String,
    /// The inbound's tag.
    pub inbound: String,
    /// The outbound's tag.
    pub outbound: String,
    /// Payload bytes sent.
    pub uplink_bytes: u64,
    /// Payload bytes received.
    pub downlink_bytes: u64,
    /// Milliseconds since it was opened.
    pub age_millis: u64,
}

impl From<vmesskit::ConnectionInfo> for ConnectionInfo {
    fn from(connection: vmesskit::ConnectionInfo) -> Self {
        Self {
            id: connection.id,
            network: connection.network.into(),
            source: connection.source.to_string(),
            target: connection.target,
            inbound: connection.inbound,
            outbound: connection.outbound,
            uplink_bytes: connection.uplink_bytes,
            downlink_bytes: connection.downlink_bytes,
            age_millis: connection.age_millis,
        }
    }
}
