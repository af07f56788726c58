//! The counters of an instance, readable at any moment from any thread.

use super::api::{Counter, Stats};
use crate::config::{Level, SystemStats};
use crate::time::Moment;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

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
    /// Bytes of payload buffers in use, a gauge for each shard's pool.
    buffer_bytes: Mutex<Vec<Arc<AtomicU64>>>,
    /// When the instance was started.
    pub(crate) started: OnceLock<Moment>,
    /// What the policy asks to be counted by name.
    named: Mutex<Named>,
}

/// The counters of each kind, in the order of [`TrafficKind`], by name.
type Named = [BTreeMap<Arc<str>, Arc<Traffic>>; 3];

/// Whose payload a named counter counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TrafficKind {
    /// A user's of a VMess inbound, by e-mail.
    User,
    /// An inbound's, by tag.
    Inbound,
    /// An outbound's, by tag.
    Outbound,
}

impl TrafficKind {
    const ALL: [Self; 3] = [Self::User, Self::Inbound, Self::Outbound];

    /// What the names of such counters begin with in V2Ray.
    const fn name(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Inbound => "inbound",
            Self::Outbound => "outbound",
        }
    }
}

/// Payload bytes under a name: what connections have moved for it since it was last reset.
#[derive(Debug, Default)]
pub(crate) struct Traffic {
    /// From the app or client towards the target.
    pub(crate) uplink: AtomicU64,
    /// Back.
    pub(crate) downlink: AtomicU64,
    /// Which of the two somebody asked for; the other one is not told.
    asked: [AtomicBool; 2],
}

impl Traffic {
    /// Counts payload.
    pub(crate) fn add(&self, uplink: u64, downlink: u64) {
        for (counter, bytes) in [(&self.uplink, uplink), (&self.downlink, downlink)] {
            if bytes > 0 {
                counter.fetch_add(bytes, Relaxed);
            }
        }
    }

    /// Has directions told from now on. What was asked before stays so.
    fn ask(&self, uplink: bool, downlink: bool) {
        for (asked, wanted) in self.asked.iter().zip([uplink, downlink]) {
            if wanted {
                asked.store(true, Relaxed);
            }
        }
    }
}

/// The named counters that one connection adds to: its user's, its inbound's, its outbound's.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tally([Option<Arc<Traffic>>; 3]);

impl Tally {
    /// Counts payload under each name.
    pub(crate) fn add(&self, uplink: u64, downlink: u64) {
        self.0.iter().flatten().for_each(|traffic| traffic.add(uplink, downlink));
    }
}

impl Counters {
    /// A gauge for the bytes in use of one more pool. The pools' gauges are apart, so that no two shards write to one.
    pub(crate) fn new_pool(&self) -> Arc<AtomicU64> {
        let gauge = Arc::default();
        self.pools().push(Arc::clone(&gauge));
        gauge
    }

    fn pools(&self) -> MutexGuard<'_, Vec<Arc<AtomicU64>>> {
        self.buffer_bytes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The counter of a user, as far as the policy of the user's level asks for one. `None` without an e-mail.
    pub(crate) fn user(&self, email: &str, level: &Level) -> Option<Arc<Traffic>> {
        self.asked(TrafficKind::User, email, level.stats_uplink, level.stats_downlink)
    }

    /// The named counters of a connection: its user's, and what `system` asks for of the two tags, unless they are empty.
    pub(crate) fn tally(
        &self,
        user: Option<Arc<Traffic>>,
        inbound: &str,
        outbound: &str,
        system: &SystemStats,
    ) -> Tally {
        let SystemStats { inbound_uplink, inbound_downlink, outbound_uplink, outbound_downlink } = *system;
        let inbound = self.asked(TrafficKind::Inbound, inbound, inbound_uplink, inbound_downlink);
        let outbound = self.asked(TrafficKind::Outbound, outbound, outbound_uplink, outbound_downlink);
        Tally([user, inbound, outbound])
    }

    /// What has been counted for a user, up and down.
    pub(crate) fn of_user(&self, email: &str) -> (u64, u64) {
        let [users, ..] = &*self.named();
        users.get(email).map_or((0, 0), |user| (user.uplink.load(Relaxed), user.downlink.load(Relaxed)))
    }

    /// All named counters, under V2Ray's names. `reset` sets them to 0, without losing a byte, and forgets those that
    /// nobody adds to and that were 0: names come and go, memory must not grow with them.
    pub(crate) fn list(&self, reset: bool) -> Vec<Counter> {
        let mut named = self.named();
        let mut counters = Vec::new();
        for (kind, traffics) in TrafficKind::ALL.into_iter().zip(named.iter_mut()) {
            traffics.retain(|name, traffic| {
                // Asked first: what is added by one who lets go now is read below.
                let held = Arc::get_mut(traffic).is_none();
                let mut moved = false;
                let directions = [("uplink", &traffic.uplink), ("downlink", &traffic.downlink)];
                for ((direction, counter), asked) in directions.into_iter().zip(&traffic.asked) {
                    let value = if reset { counter.swap(0, Relaxed) } else { counter.load(Relaxed) };
                    moved |= value > 0;
                    if asked.load(Relaxed) {
                        let name = format!("{}>>>{name}>>>traffic>>>{direction}", kind.name());
                        counters.push(Counter { name, value });
                    }
                }
                !reset || moved || held
            });
        }
        counters
    }

    /// The counter of a name, if a direction is wanted and the name is not empty.
    fn asked(&self, kind: TrafficKind, name: &str, uplink: bool, downlink: bool) -> Option<Arc<Traffic>> {
        if name.is_empty() || !(uplink || downlink) {
            return None;
        }
        let mut named = self.named();
        let traffics = named.get_mut(kind as usize)?;
        let traffic = match traffics.get(name) {
            Some(known) => Arc::clone(known),
            None => Arc::clone(traffics.entry(name.into()).or_default()),
        };
        traffic.ask(uplink, downlink);
        Some(traffic)
    }

    fn named(&self) -> MutexGuard<'_, Named> {
        self.named.lock().unwrap_or_else(PoisonError::into_inner)
    }

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
            buffer_bytes: self.pools().iter().map(|gauge| gauge.load(Relaxed)).sum(),
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

    fn shown(counters: &Counters, reset: bool) -> Vec<(String, u64)> {
        counters.list(reset).into_iter().map(|counter| (counter.name, counter.value)).collect()
    }

    #[test]
    fn names_are_counted_as_the_policy_asks() {
        let counters = Counters::default();
        let level = Level { stats_downlink: true, ..Level::default() };
        let ann = counters.user("ann@a", &level);
        assert!(ann.is_some() && counters.user("", &level).is_none());
        assert!(counters.user("ben@a", &Level::default()).is_none(), "nobody asks");
        let system = SystemStats { inbound_uplink: true, inbound_downlink: true, ..SystemStats::default() };
        counters.tally(ann, "in", "out", &system).add(3, 40);
        counters.tally(None, "in", "out", &system).add(5, 0);
        counters.tally(None, "", "", &system).add(7, 7);
        let expected = [
            ("user>>>ann@a>>>traffic>>>downlink", 40),
            ("inbound>>>in>>>traffic>>>uplink", 8),
            ("inbound>>>in>>>traffic>>>downlink", 40),
        ];
        assert_eq!(shown(&counters, false), expected.map(|(name, value)| (name.to_owned(), value)));
        assert_eq!(counters.of_user("ann@a"), (3, 40));
        assert_eq!(counters.of_user("ben@a"), (0, 0));
        counters.user("ann@a", &Level { stats_uplink: true, ..Level::default() });
        assert_eq!(shown(&counters, false)[0], ("user>>>ann@a>>>traffic>>>uplink".to_owned(), 3));
    }

    #[test]
    fn a_reset_tells_every_byte_once_and_forgets_the_gone() {
        let counters = Counters::default();
        let traffic = |name| counters.asked(TrafficKind::User, name, true, true).expect("a name");
        let (held, gone) = (traffic("a"), traffic("b"));
        held.add(1, 2);
        gone.add(3, 4);
        drop(gone);
        let values =
            |counters: &[(String, u64)]| counters.iter().map(|(_, value)| *value).collect::<Vec<_>>();
        assert_eq!(values(&shown(&counters, true)), [1, 2, 3, 4]);
        held.add(5, 0);
        assert_eq!(values(&shown(&counters, true)), [5, 0, 0, 0], "one last time");
        assert_eq!(values(&shown(&counters, true)), [0, 0]);
        assert_eq!(counters.list(false).len(), 2, "a counter that a connection holds stays");
    }

    #[test]
    fn threads_count_without_loss() {
        let counters = Arc::new(Counters::default());
        let adders: Vec<_> = (0..4)
            .map(|_| {
                let counters = Arc::clone(&counters);
                std::thread::spawn(move || {
                    for _ in 0..10_000 {
                        let traffic = counters.asked(TrafficKind::Outbound, "out", true, true);
                        traffic.expect("a name").add(1, 2);
                    }
                })
            })
            .collect();
        let mut told = 0;
        while adders.iter().any(|adder| !adder.is_finished()) {
            told += counters.list(true).iter().map(|counter| counter.value).sum::<u64>();
        }
        adders.into_iter().for_each(|adder| adder.join().expect("no panic"));
        told += counters.list(true).iter().map(|counter| counter.value).sum::<u64>();
        assert_eq!(told, 4 * 10_000 * 3);
    }

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
