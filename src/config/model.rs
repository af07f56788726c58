//! Resolved values: what a config means, after defaults, with every reference checked. Values only, never
//! running objects; the engine composes from them.

use super::transport::{StreamSettings, Transport, Unix};
use crate::addr::{Cidr, Host, Network, Target};
use crate::vmess::{Id, Security};
use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

/// A whole config.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// What is logged.
    pub log_level: LogLevel,
    /// Where traffic comes in, in the config's order.
    pub inbounds: Vec<Inbound>,
    /// Where traffic goes out, in the config's order. Never empty; the first one is the default route.
    pub outbounds: Vec<Outbound>,
    /// How an outbound is chosen; the first matching rule wins.
    pub rules: Vec<Rule>,
    /// Where the in-tunnel DNS address forwards to. Never empty.
    pub dns_servers: Vec<SocketAddr>,
    /// Timeouts and counters by level.
    pub policy: Policy,
    /// The keys under `vmesskit`.
    pub vmesskit: Vmesskit,
}

impl Config {
    /// The settings of the tun inbound, if there is one (a config holds at most one).
    pub fn tun(&self) -> Option<(&Inbound, &Tun)> {
        self.inbounds.iter().find_map(|inbound| match &inbound.protocol {
            InboundProtocol::Tun(tun) => Some((inbound, tun)),
            InboundProtocol::Socks(_) | InboundProtocol::Vmess(_) => None,
        })
    }
}

/// How much is logged: V2Ray's `log.loglevel`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// Nothing.
    None,
    /// Errors.
    Error,
    /// And warnings; the default.
    Warning,
    /// And what happened.
    Info,
    /// And host names, flow by flow.
    Debug,
}

/// An inbound.
#[derive(Debug, Clone, PartialEq)]
pub struct Inbound {
    /// Its tag; a tun inbound without one is tagged `tun`, any other without one has an empty tag.
    pub tag: Arc<str>,
    /// The protocol and its settings.
    pub protocol: InboundProtocol,
}

/// The protocols of inbounds.
#[derive(Debug, Clone, PartialEq)]
pub enum InboundProtocol {
    /// IP packets from a tun file descriptor.
    Tun(Tun),
    /// A SOCKS5 listener.
    Socks(Socks),
    /// A VMess server.
    Vmess(VmessInbound),
}

/// Settings of a tun inbound.
#[derive(Debug, Clone, PartialEq)]
pub struct Tun {
    /// The device's MTU in bytes, 1280 to 65535; `None` takes the platform's default.
    pub mtu: Option<u32>,
    /// The device's own addresses with their prefixes.
    pub addresses: Vec<Cidr>,
    /// What is routed into the device.
    pub routes: Vec<Cidr>,
    /// What is kept out of it.
    pub excluded_routes: Vec<Cidr>,
    /// The DNS address inside the tunnel.
    pub dns: IpAddr,
    /// Apps (Android package names) that alone use the tunnel; excludes `deny`.
    pub allow_apps: Vec<String>,
    /// Apps that do not use the tunnel.
    pub deny_apps: Vec<String>,
    /// Whether the tunnel counts as metered, if the config says so.
    pub metered: Option<bool>,
    /// Whether pings are answered here.
    pub icmp: Icmp,
    /// Whether UDP to port 443 is refused, so that browsers use TCP.
    pub reject_udp443: bool,
}

impl Default for Tun {
    /// What a tun inbound means whose settings say nothing: everything goes through the tunnel.
    fn default() -> Self {
        let v4 = |a, b, c, d, prefix| Cidr { addr: Ipv4Addr::new(a, b, c, d).into(), prefix };
        let v6 =
            |first, last, prefix| Cidr { addr: Ipv6Addr::new(first, 0, 0, 0, 0, 0, 0, last).into(), prefix };
        Self {
            mtu: None,
            addresses: vec![v4(172, 19, 0, 1, 30), v6(0xfd19, 1, 126)],
            routes: vec![v4(0, 0, 0, 0, 0), v6(0, 0, 0)],
            excluded_routes: Vec::new(),
            dns: Ipv4Addr::new(172, 19, 0, 2).into(),
            allow_apps: Vec::new(),
            deny_apps: Vec::new(),
            metered: None,
            icmp: Icmp::Reply,
            reject_udp443: false,
        }
    }
}

/// What happens to an ICMP echo request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Icmp {
    /// It is answered on the spot.
    Reply,
    /// It is dropped.
    Drop,
}

/// Settings of a SOCKS inbound. Its `Debug` does not show accounts.
#[derive(Clone, PartialEq)]
pub struct Socks {
    /// The address to listen on.
    pub listen: SocketAddr,
    /// User names and passwords; empty: no authentication.
    pub accounts: Vec<(String, String)>,
    /// Whether UDP ASSOCIATE is served.
    pub udp: bool,
    /// The address announced for UDP; `None`: the one the client connected to.
    pub ip: Option<IpAddr>,
    /// The policy level of its users.
    pub level: u32,
}

impl fmt::Debug for Socks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Socks")
            .field("listen", &self.listen)
            .field("accounts", &format_args!("{} (hidden)", self.accounts.len()))
            .field("udp", &self.udp)
            .field("ip", &self.ip)
            .field("level", &self.level)
            .finish()
    }
}

/// Settings of a VMess inbound.
#[derive(Debug, Clone, PartialEq)]
pub struct VmessInbound {
    /// Where it listens.
    pub listen: Listen,
    /// The users. Empty where users come while it runs, and for dynamic ports. Their e-mails are unique without regard to
    /// case, but for the empty one, which may repeat.
    pub clients: Vec<VmessClient>,
    /// What accounts are made with that another inbound's `detour` asks for.
    pub default: DefaultUser,
    /// The tag of the inbound whose port and account each answer hands to the client. No inbound may have it: then nothing
    /// is handed out.
    pub detour: Option<Arc<str>>,
    /// Whether the securities 0, 1 and 5 of a request are refused at once: AES-128-CFB and none.
    pub disable_insecure_encryption: bool,
    /// How ports are taken from the range at random; `None`: every port of it, for ever.
    pub allocate: Option<Allocate>,
    /// What connections ride on.
    pub stream: StreamSettings,
}

impl VmessInbound {
    /// The Unix domain socket that it listens on in place of an address, if it is one.
    pub fn unix(&self) -> Option<&Unix> {
        match &self.stream.transport {
            Transport::Unix(unix) => Some(unix),
            _ => None,
        }
    }
}

/// Where an inbound listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listen {
    /// The address.
    pub ip: IpAddr,
    /// The first and the last port, both inclusive.
    pub ports: (u16, u16),
}

/// A user of a VMess inbound.
#[derive(Debug, Clone, PartialEq)]
pub struct VmessClient {
    /// The id; a secret.
    pub id: Id,
    /// How many alter ids it has; with 0 the user is served by the AEAD header alone.
    pub alter_id: u16,
    /// The policy level.
    pub level: u32,
    /// The e-mail; may be empty.
    pub email: String,
    /// `experiments: NoTerminationSignal`: no terminating chunk.
    pub no_termination_signal: bool,
}

impl VmessClient {
    /// How many ids its legacy requests may come from: the alter ids and the id itself, none without alter ids.
    pub fn legacy_ids(&self) -> u64 {
        match u64::from(self.alter_id) {
            0 => 0,
            alter_ids => alter_ids + 1,
        }
    }
}

/// What a generated account has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DefaultUser {
    /// How many alter ids.
    pub alter_id: u16,
    /// The policy level. It travels in one byte, so that it is at most 255.
    pub level: u32,
}

/// How ports are taken from a range at random.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allocate {
    /// How many ports are open at a time; below the number of ports in the range, never 0.
    pub concurrency: u32,
    /// How often new ones are taken; whole minutes, never 0.
    pub refresh: Duration,
}

/// An outbound.
#[derive(Debug, Clone, PartialEq)]
pub struct Outbound {
    /// Its tag; may be empty.
    pub tag: Arc<str>,
    /// The protocol and its settings.
    pub protocol: OutboundProtocol,
    /// How flows share connections to the server; `None`: a connection each. Only for VMess.
    pub mux: Option<Mux>,
    /// What the connections ride on.
    pub stream: StreamSettings,
    /// The address that they are made from.
    pub send_through: Option<IpAddr>,
    /// The index in [`Config::outbounds`] of the outbound that they are dialled through (`proxySettings`).
    pub via: Option<usize>,
}

impl Outbound {
    /// An outbound with nothing but its protocol: raw TCP, no mux, no detour.
    pub fn new(tag: impl Into<Arc<str>>, protocol: OutboundProtocol) -> Self {
        let stream = StreamSettings::default();
        Self { tag: tag.into(), protocol, mux: None, stream, send_through: None, via: None }
    }
}

/// How flows share connections to a server (Mux.Cool).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mux {
    /// How many flows share a connection at a time, 1 to 1024; 0: TCP flows have a connection each.
    pub concurrency: u16,
    /// The same for UDP flows on connections of their own; `None`: they share those of TCP; 0: a connection each.
    pub xudp_concurrency: Option<u16>,
    /// What becomes of UDP to port 443, which is QUIC.
    pub xudp_udp443: Xudp443,
}

/// What becomes of UDP to port 443 where mux is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Xudp443 {
    /// It is refused, so that browsers use TCP.
    Reject,
    /// It takes mux like any other UDP; the default.
    Allow,
    /// It bypasses mux: a connection each.
    Skip,
}

/// How UDP is carried so that one local port can speak to many peers (full cone).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PacketEncoding {
    /// Not at all: a connection for every source and destination.
    #[default]
    None,
    /// An address in front of every packet, as V2Ray 5 and sing-box have it (`packet`).
    PacketAddr,
    /// Mux frames with addresses, as Xray, sing-box and mihomo have it (`xudp`).
    Xudp,
}

/// The protocols of outbounds.
#[derive(Debug, Clone, PartialEq)]
pub enum OutboundProtocol {
    /// To a VMess server.
    Vmess(Vmess),
    /// Straight to the target.
    Freedom(Freedom),
    /// To nowhere.
    Blackhole {
        /// Whether an HTTP 403 page is sent before the close.
        http: bool,
    },
}

/// Settings of a VMess outbound.
#[derive(Debug, Clone, PartialEq)]
pub struct Vmess {
    /// The servers, used in turn, a connection each. Never empty.
    pub servers: Vec<VmessServer>,
    /// How UDP is carried.
    pub packet_encoding: PacketEncoding,
}

/// A VMess server and its users.
#[derive(Debug, Clone, PartialEq)]
pub struct VmessServer {
    /// Where it listens.
    pub target: Target,
    /// The users; each connection draws one at random. Never empty.
    pub users: Vec<VmessUser>,
}

/// A user of a VMess server.
#[derive(Debug, Clone, PartialEq)]
pub struct VmessUser {
    /// The id; a secret.
    pub id: Id,
    /// How many alter ids it has; above 0 the legacy header is used.
    pub alter_id: u16,
    /// The body's security, `auto` not yet settled.
    pub security: Security,
    /// The policy level.
    pub level: u32,
    /// The e-mail; may be empty.
    pub email: String,
    /// `experiments: AuthenticatedLength`: chunk lengths are sealed too.
    pub authenticated_length: bool,
    /// `experiments: NoTerminationSignal`: no terminating chunk.
    pub no_termination_signal: bool,
}

/// Settings of a freedom outbound.
#[derive(Debug, Clone, PartialEq)]
pub struct Freedom {
    /// Which addresses of a domain are used.
    pub strategy: DomainStrategy,
    /// Replaces the target: the host (`None` keeps it) and the port.
    pub redirect: Option<(Option<Host>, u16)>,
    /// The policy level.
    pub level: u32,
}

/// Which addresses of a domain a freedom outbound uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DomainStrategy {
    /// Any, IPv4 and IPv6.
    Any,
    /// IPv4 alone.
    Ipv4,
    /// IPv6 alone.
    Ipv6,
}

/// A routing rule: all of the conditions that are given must hold; inside one condition any entry is enough.
#[derive(Debug, Clone, PartialEq)]
pub struct Rule {
    /// Names of the target.
    pub domains: Option<Vec<DomainPattern>>,
    /// Addresses of the target.
    pub ips: Option<Vec<Cidr>>,
    /// Ports of the target, inclusive ranges.
    pub ports: Option<Vec<(u16, u16)>>,
    /// The transport protocols.
    pub networks: Option<Vec<Network>>,
    /// The inbounds, by tag.
    pub inbound_tags: Option<Vec<Arc<str>>>,
    /// The users of VMess inbounds, by e-mail, as written.
    pub users: Option<Vec<String>>,
    /// Addresses that the flow comes from.
    pub sources: Option<Vec<Cidr>>,
    /// Ports that the flow comes from, inclusive ranges.
    pub source_ports: Option<Vec<(u16, u16)>>,
    /// The index in [`Config::outbounds`] of the outbound to use.
    pub outbound: usize,
}

impl Rule {
    /// A rule without a condition, which every flow matches.
    pub fn to(outbound: usize) -> Self {
        Self {
            domains: None,
            ips: None,
            ports: None,
            networks: None,
            inbound_tags: None,
            users: None,
            sources: None,
            source_ports: None,
            outbound,
        }
    }
}

/// A pattern for a domain name. The texts, but for regular expressions, are in lower case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DomainPattern {
    /// The name holds the text (V2Ray's plain form and `keyword:`).
    Substring(String),
    /// The name is the text or ends in a dot and the text (`domain:`).
    Suffix(String),
    /// The name is the text (`full:`).
    Full(String),
    /// The regular expression matches somewhere in the name (`regexp:`, `dotless:`); as written, known to
    /// compile.
    Regexp(String),
}

/// Timeouts and counters.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Policy {
    /// What the config says of each level, for what we dial and for client inbounds; levels and members that are absent
    /// take [`Level`]'s defaults.
    pub levels: BTreeMap<u32, Level>,
    /// The same for users of VMess inbounds; what is absent takes the defaults of [`Level::server`].
    pub server_levels: BTreeMap<u32, Level>,
    /// Whether inbounds and outbounds are counted, up and down: `statsInboundUplink` and so on.
    pub system: SystemStats,
}

impl Policy {
    /// The policy of a level, with defaults for what the config does not say.
    pub fn level(&self, level: u32) -> Level {
        self.levels.get(&level).copied().unwrap_or_default()
    }

    /// The policy of a level for a user of a VMess inbound, with a server's defaults for what the config does not say.
    pub fn server_level(&self, level: u32) -> Level {
        self.server_levels.get(&level).copied().unwrap_or_else(Level::server)
    }
}

/// Which totals are kept by tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SystemStats {
    /// Bytes that came in at inbounds.
    pub inbound_uplink: bool,
    /// Bytes that inbounds sent back.
    pub inbound_downlink: bool,
    /// Bytes that outbounds sent.
    pub outbound_uplink: bool,
    /// Bytes that outbounds received.
    pub outbound_downlink: bool,
}

/// One level's policy. The defaults are V2Ray's, but for `uplink_only` and `downlink_only` on client
/// inbounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Level {
    /// How long setting up a connection may take (60 s).
    pub handshake: Duration,
    /// How long a connection may be silent both ways (300 s).
    pub conn_idle: Duration,
    /// How long only the uplink may go on without data once the downlink has ended (30 s on client inbounds).
    pub uplink_only: Duration,
    /// The same for the downlink once the uplink has ended (30 s on client inbounds).
    pub downlink_only: Duration,
    /// Whether what each user sends is counted.
    pub stats_uplink: bool,
    /// Whether what each user receives is counted.
    pub stats_downlink: bool,
}

impl Level {
    /// The defaults for users of a VMess inbound: V2Ray's second for an uplink without a downlink, but not its second
    /// for a downlink without an uplink, which cuts slow answers to clients that have closed their half.
    pub fn server() -> Self {
        Self { uplink_only: Duration::from_secs(1), ..Self::default() }
    }
}

impl Default for Level {
    fn default() -> Self {
        Self {
            handshake: Duration::from_secs(60),
            conn_idle: Duration::from_secs(300),
            uplink_only: Duration::from_secs(30),
            downlink_only: Duration::from_secs(30),
            stats_uplink: false,
            stats_downlink: false,
        }
    }
}

/// The keys under `vmesskit`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vmesskit {
    /// `memoryLimit`, bytes; the start options' own limit wins.
    pub memory_limit: Option<u64>,
    /// `noneChunked`: security `none` on TCP keeps its chunks instead of going raw.
    pub none_chunked: bool,
    /// `allowCfb`: the client may use aes-128-cfb.
    pub allow_cfb: bool,
    /// `dynamicPort`: the client follows a server's switch-account commands.
    pub dynamic_port: bool,
    /// `legacyTagLimit`: most entries in the tables that legacy requests are looked up in, one for each legacy id and
    /// second of its window.
    pub legacy_tag_limit: usize,
    /// `connectionsPerUser`: most connections that a user of a VMess inbound may have open; 0: no limit.
    pub connections_per_user: u32,
    /// `connectionsPerSource`: most connections that an address may have open at a VMess inbound; 0: no limit.
    pub connections_per_source: u32,
    /// `sntp`: a time server to compare the clock with.
    pub sntp: Option<Sntp>,
}

impl Default for Vmesskit {
    fn default() -> Self {
        Self {
            memory_limit: None,
            none_chunked: false,
            allow_cfb: false,
            dynamic_port: true,
            legacy_tag_limit: 2_000_000,
            connections_per_user: 0,
            connections_per_source: 0,
            sntp: None,
        }
    }
}

/// A time server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sntp {
    /// Where it answers.
    pub server: Target,
    /// Whether its time corrects ours; else it only raises an event.
    pub correct: bool,
}
