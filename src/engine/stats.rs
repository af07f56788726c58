//! The counters of an instance, readable at any moment from any thread.

use super::api::Stats;
use crate::time::Moment;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// The counters behind [`Stats`]. Every access is relaxed: they order nothing.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    /// Payload bytes sent to the network.
    pub(crate) uplink_bytes: AtomicU64,
    /// Payload bytes received from the network.
    pub(crate) downlink_bytes: AtomicU64,
    /// IP packets read from the tun device.
    pub(crate) tun_packets_in: AtomicU64,
    /// IP packets written to the tun device.
    pub(crate) tun_packets_out: AtomicU64,
    /// Packets and datagrams dropped.
    pub(crate) dropped: AtomicU64,
    /// TCP connections accepted so far.
    pub(crate) tcp_total: AtomicU64,
    /// TCP connections open now.
    pub(crate) tcp_open: AtomicU64,
    /// UDP flows made so far.
    pub(crate) udp_total: AtomicU64,
    /// UDP flows open now.
    pub(crate) udp_open: AtomicU64,
    /// DNS queries forwarded.
    pub(crate) dns_queries: AtomicU64,
    /// Dials that succeeded.
    pub(crate) dials: AtomicU64,
    /// Dials that failed.
    pub(crate) dial_failures: AtomicU64,
    /// Bytes of payload buffers in use, kept by the shard's pool.
    pub(crate) buffer_bytes: Arc<AtomicU64>,
    /// When the instance was started.
    pub(crate) started: OnceLock<Moment>,
}

impl Counters {
    /// All counters at `now`.
    pub(crate) fn read(&self, now: Moment) -> Stats {
        let uptime = self.started.get().map_or(0, |started| now.since(*started).as_millis());
        Stats {
            uplink_bytes: self.uplink_bytes.load(Relaxed),
            downlink_bytes: self.downlink_bytes.load(Relaxed),
            tun_packets_in: self.tun_packets_in.load(Relaxed),
            tun_packets_out: self.tun_packets_out.load(Relaxed),
            dropped: self.dropped.load(Relaxed),
            tcp_total: self.tcp_total.load(Relaxed),
            tcp_open: self.tcp_open.load(Relaxed),
            udp_total: self.udp_total.load(Relaxed),
            udp_open: self.udp_open.load(Relaxed),
            dns_queries: self.dns_queries.load(Relaxed),
            dials: self.dials.load(Relaxed),
            dial_failures: self.dial_failures.load(Relaxed),
            buffer_bytes: self.buffer_bytes.load(Relaxed),
            footprint_bytes: footprint(),
            uptime_millis: u64::try_from(uptime).unwrap_or(u64::MAX),
        }
    }
}

/// Resident bytes of the process; 0 where the operating system does not say.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn footprint() -> u64 {
    // "size resident shared text lib data dt", in pages.
    let pages = std::fs::read_to_string("/proc/self/statm")
        .ok()
        .and_then(|line| line.split_ascii_whitespace().nth(1)?.parse::<u64>().ok());
    pages.unwrap_or(0).saturating_mul(rustix::param::page_size() as u64)
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn footprint() -> u64 {
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_read_as_they_stand() {
        let counters = Counters::default();
        assert_eq!(counters.read(Moment::from_millis(70)).uptime_millis, 0, "not started");
        counters.started.set(Moment::from_millis(30)).expect("first");
        counters.uplink_bytes.fetch_add(5, Relaxed);
        let stats = counters.read(Moment::from_millis(70));
        assert_eq!((stats.uplink_bytes, stats.uptime_millis), (5, 40));
        assert!(!cfg!(target_os = "linux") || stats.footprint_bytes > 100_000, "{stats:?}");
    }
}
