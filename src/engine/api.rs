//! The records that cross the interface, the same in Rust, C, Kotlin and Swift.

use crate::addr::{Cidr, Network};
use crate::config::LogLevel;
use crate::error::Error;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::Duration;

/// How a tunnel is started.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The most memory, in bytes, that the tunnel's own buffers and tables may take; `None`: the config's
    /// `memoryLimit`, else 32 MiB on iOS and 64 MiB elsewhere. At least 4 MiB.
    pub memory_limit_bytes: Option<u64>,
    /// The network at the start, if the host knows it.
    pub network: Option<NetworkInfo>,
    /// Which log lines become [`Event::Log`]; `None`: the config's `loglevel`.
    pub log: Option<LogLevel>,
}

/// The network below the tunnel, as the host's operating system describes it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NetworkInfo {
    /// The host's own name for it (Android's network handle); equal ids mean the same network.
    pub id: u64,
    /// The interface's index; 0 if unknown.
    pub index: u32,
    /// Our addresses on it.
    pub addresses: Vec<IpAddr>,
    /// Its DNS servers. Server names are asked of them, outside the tunnel.
    pub dns: Vec<IpAddr>,
    /// Whether it carries IPv4.
    pub has_v4: bool,
    /// Whether it carries IPv6.
    pub has_v6: bool,
    /// Its NAT64 prefix (96 bits), if known.
    pub nat64_prefix: Option<IpAddr>,
    /// Whether traffic costs money.
    pub metered: bool,
    /// Whether the operating system has reached the internet through it.
    pub validated: bool,
    /// Whether a captive portal stands in the way.
    pub captive_portal: bool,
}

/// A tun file descriptor and what may be done with it.
#[derive(Debug)]
pub struct TunHandle {
    /// The descriptor, ours from here on. A facade that was lent one passes a duplicate.
    pub fd: OwnedFd,
    /// The device's MTU in bytes; `None` takes [`TunSettings::mtu`].
    pub mtu: Option<u32>,
    /// How packets are framed on it.
    pub framing: Framing,
}

/// How packets are framed on a tun file descriptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Framing {
    /// One bare IP packet a read or write (Linux with `IFF_NO_PI`, Android).
    #[default]
    RawIp,
    /// Four bytes of address family before each packet (macOS and iOS utun).
    DarwinUtun,
    /// A 10-byte virtio-net header before each packet; the host has set `IFF_VNET_HDR` and the offloads (Linux).
    VnetHdr,
}

/// What a host needs to set its tun device up. The only source for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TunSettings {
    /// The device's MTU in bytes.
    pub mtu: u32,
    /// The device's addresses with their prefixes.
    pub addresses: Vec<Cidr>,
    /// What to route into it.
    pub routes: Vec<Cidr>,
    /// What to keep out of it.
    pub excluded_routes: Vec<Cidr>,
    /// The DNS servers to announce: one address inside the tunnel.
    pub dns: Vec<IpAddr>,
    /// Apps that alone use the tunnel (Android package names); excludes `deny_apps`.
    pub allow_apps: Vec<String>,
    /// Apps that do not use it.
    pub deny_apps: Vec<String>,
    /// Whether it is to count as metered, if the config says so.
    pub metered: Option<bool>,
}

/// The host's answers to the tunnel's questions. Called on the instance's own host thread (`protect_socket`) or on a
/// helper thread (`resolve`), never on a thread that moves data, and never twice at once by one thread.
///
/// A callback must not block for ever: after 2 s (`protect_socket`) or 5 s (`resolve`) its late answer is discarded.
pub trait Platform: Send + Sync {
    /// Keeps a socket out of the tunnel (Android's `VpnService.protect`). Called for every socket before it connects
    /// or binds. The descriptor stays open until this returns, and must not be kept or closed.
    ///
    /// # Errors
    /// [`Refused`] makes the dial fail with `ProtectFailed`.
    fn protect_socket(&self, socket: BorrowedFd<'_>) -> Result<(), Refused>;

    /// Whether [`Platform::protect_socket`] is to be called at all. Asked once, when the tunnel is made.
    fn protects_sockets(&self) -> bool {
        true
    }

    /// Resolves a server's name outside the tunnel. `None`: not offered, the tunnel asks the network's DNS itself.
    ///
    /// # Errors
    /// [`Refused`] with a text that says what failed.
    fn resolve(&self, _host: &str, _network: Option<&NetworkInfo>) -> Option<Result<Vec<IpAddr>, Refused>> {
        None
    }

    /// Which app (uid) owns a flow; `None`: unknown. Asked only when a rule needs it.
    fn find_owner(&self, _network: Network, _source: SocketAddr, _destination: SocketAddr) -> Option<u32> {
        None
    }
}

/// A platform that protects nothing and resolves nothing: for desktops and servers.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoPlatform;

impl Platform for NoPlatform {
    fn protect_socket(&self, _socket: BorrowedFd<'_>) -> Result<(), Refused> {
        Ok(())
    }

    fn protects_sockets(&self) -> bool {
        false
    }
}

/// A host's callback has refused.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Refused {
    /// Why, in the host's words; may be empty.
    pub reason: String,
}

/// The state of a tunnel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// Made, not started.
    Idle,
    /// `start` is under way.
    Starting,
    /// Started; no server has answered yet.
    Connecting,
    /// A server has answered, or there is none to dial.
    Connected,
    /// The host says that there is no network.
    NoNetwork,
    /// Running, with a fault that may pass.
    Degraded {
        /// What is wrong.
        reason: String,
    },
    /// `stop` is under way.
    Stopping,
    /// Over, for good.
    Stopped {
        /// Why, if it was not asked for.
        error: Option<Error>,
    },
}

impl State {
    /// The stable number of the state, as C sees it.
    pub const fn code(&self) -> u32 {
        match self {
            Self::Idle => 0,
            Self::Starting => 1,
            Self::Connecting => 2,
            Self::Connected => 3,
            Self::NoNetwork => 4,
            Self::Degraded { .. } => 5,
            Self::Stopping => 6,
            Self::Stopped { .. } => 7,
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Idle => "idle",
            Self::Starting => "starting",
            Self::Connecting => "connecting",
            Self::Connected => "connected",
            Self::NoNetwork => "no network",
            Self::Degraded { .. } => "degraded",
            Self::Stopping => "stopping",
            Self::Stopped { .. } => "stopped",
        })
    }
}

/// The state, since when, and the newest error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// The state.
    pub state: State,
    /// How long it has been so.
    pub since: Duration,
    /// The newest error, if there was one.
    pub last_error: Option<Error>,
}

/// One line of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// How grave it is.
    pub level: LogLevel,
    /// When, in milliseconds since 1970 (UTC).
    pub unix_millis: i64,
    /// The text.
    pub text: String,
}

/// A cause of a fault and how sure it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cause {
    /// What it may be.
    pub kind: CauseKind,
    /// How sure, in percent.
    pub confidence: u8,
    /// For a person: what it is and what to do.
    pub text: String,
}

/// What may be at fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CauseKind {
    /// The id is not known to the server, or its alterId differs.
    Id,
    /// This device's clock is off by more than the 120 s that VMess bears.
    Clock,
    /// The server is gone, or something between drops the traffic.
    ServerGone,
    /// The server refuses the security that is configured.
    Security,
    /// The target behind the server does not answer.
    Target,
}

impl CauseKind {
    /// The stable number of the cause, as C sees it. Never 0.
    pub const fn code(self) -> u32 {
        match self {
            Self::Id => 1,
            Self::Clock => 2,
            Self::ServerGone => 3,
            Self::Security => 4,
            Self::Target => 5,
        }
    }
}

/// What a tunnel tells its host.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// The state has changed. Never dropped; the last event of a tunnel is always `Stopped`.
    State(State),
    /// Log lines, oldest first.
    Log(Vec<LogLine>),
    /// The network below has changed and has been taken up.
    NetworkChanged(NetworkInfo),
    /// Several flows in a row have sent data to an outbound and received nothing, and none has succeeded since.
    OutboundUnhealthy {
        /// The outbound's tag.
        outbound: String,
        /// What it may be, surest first.
        likely: Vec<Cause>,
    },
    /// A server closed before a valid answer.
    AuthRejected {
        /// The outbound's tag.
        outbound: String,
        /// What it may be, surest first.
        likely: Vec<Cause>,
    },
    /// This device's clock is off.
    ClockSkew {
        /// By so many seconds; positive: it is fast.
        seconds: i64,
    },
    /// A limit was reached.
    ResourceLimit {
        /// What ran out.
        what: String,
    },
    /// Something is wrong that may pass; traffic goes on.
    Degraded {
        /// What.
        reason: String,
    },
    /// The host was too slow and so many events other than `State` were dropped.
    EventsDropped {
        /// How many.
        count: u64,
    },
}

impl Event {
    /// The stable number of the event's kind, as C sees it. Never 0.
    pub const fn code(&self) -> u32 {
        match self {
            Self::State(_) => 1,
            Self::Log(_) => 2,
            Self::NetworkChanged(_) => 3,
            Self::OutboundUnhealthy { .. } => 4,
            Self::AuthRejected { .. } => 5,
            Self::ClockSkew { .. } => 6,
            Self::ResourceLimit { .. } => 7,
            Self::Degraded { .. } => 8,
            Self::EventsDropped { .. } => 9,
        }
    }
}

/// Counters since the start, and gauges. Bytes are payload, not packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
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
    /// Connections made to servers (dials that succeeded).
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

/// One open connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectionInfo {
    /// Its id, unique in the tunnel's life.
    pub id: u64,
    /// TCP or UDP.
    pub network: Network,
    /// The app's end.
    pub source: SocketAddr,
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

/// What [`measure`](crate::measure) is asked to do. Its `Debug` does not show the configs.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct MeasureRequest {
    /// The configs as JSON.
    pub configs: Vec<String>,
    /// What to fetch through each: an `http://` or `https://` address.
    pub url: String,
    /// How long each may take; not zero.
    pub timeout: Duration,
    /// How many at a time, 1 to 128.
    pub parallel: usize,
}

impl fmt::Debug for MeasureRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MeasureRequest")
            .field("configs", &format_args!("{} (hidden)", self.configs.len()))
            .field("url", &self.url)
            .field("timeout", &self.timeout)
            .field("parallel", &self.parallel)
            .finish()
    }
}

/// What [`Tunnel::check`](crate::Tunnel::check) proved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckReport {
    /// The tag of the outbound that was checked: the first that dials a server.
    pub outbound: String,
    /// From the dial to the first valid answer.
    pub latency: Duration,
}

/// What [`Tunnel::reload`](crate::Tunnel::reload) changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ReloadReport {
    /// The tun settings differ: the host is to set its device up again and call `set_tun`.
    pub tun_changed: bool,
}

/// What [`Tunnel::users`](crate::Tunnel::users) shows of one user of a VMess inbound. The id, a secret, is not shown.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct UserInfo {
    /// The e-mail; may be empty for a user of the config.
    pub email: String,
    /// How many alter ids.
    pub alter_id: u16,
    /// The policy level.
    pub level: u32,
    /// Payload bytes that the user sent since the last reset, if the policy has the user counted.
    pub uplink_bytes: u64,
    /// Payload bytes that the user received since the last reset, if the policy has the user counted.
    pub downlink_bytes: u64,
}

/// A user for [`Tunnel::add_user`](crate::Tunnel::add_user). Its `Debug` does not show the id.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct NewUser {
    /// The id: a UUID, or another text of 1 to 30 bytes, which is mapped to one as Xray does it.
    pub id: String,
    /// How many alter ids; 0 for the AEAD header alone.
    pub alter_id: u16,
    /// The policy level.
    pub level: u32,
    /// The e-mail, by which the user is counted, routed and removed. Not empty, and the inbound's only one of it, without
    /// regard to case.
    pub email: String,
}

impl fmt::Debug for NewUser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewUser")
            .field("id", &format_args!("(hidden)"))
            .field("alter_id", &self.alter_id)
            .field("level", &self.level)
            .field("email", &self.email)
            .finish()
    }
}

/// A counter that the config's policy asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counter {
    /// V2Ray's name: `user>>>EMAIL>>>traffic>>>uplink`, or `inbound` or `outbound` and a tag, or `downlink`.
    pub name: String,
    /// Payload bytes since the last reset.
    pub value: u64,
}

/// How short memory is, as the host's operating system says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum MemoryPressure {
    /// As usual.
    Normal,
    /// Free what is not needed.
    Low,
    /// Free what can be freed, or be ended.
    Critical,
}
