//! Resolved values of `streamSettings`: what a connection rides on, from the socket up to the protocol.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use zeroize::Zeroizing;

/// What a connection rides on. The default is a bare TCP socket.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct StreamSettings {
    /// What frames the protocol's bytes.
    pub transport: Transport,
    /// TLS below the transport, if there is any.
    pub tls: Option<Box<Tls>>,
    /// What is set on the socket.
    pub sockopt: SockOpt,
}

/// What frames the protocol's bytes, and over which kind of socket.
#[derive(Debug, Clone, PartialEq)]
pub enum Transport {
    /// The bytes as they are, or behind an HTTP head.
    Tcp(Tcp),
    /// WebSocket messages.
    Ws(Ws),
    /// An HTTP/2 stream a connection.
    H2(H2),
    /// A gRPC stream a connection.
    Grpc(Grpc),
    /// Bare bytes behind an HTTP/1.1 upgrade.
    HttpUpgrade(HttpUpgrade),
    /// mKCP over UDP.
    Kcp(Kcp),
    /// A QUIC stream a connection.
    Quic(Quic),
    /// A Unix domain socket.
    Unix(Unix),
}

impl Default for Transport {
    fn default() -> Self {
        Self::Tcp(Tcp::default())
    }
}

impl Transport {
    /// The name in configs.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Tcp(_) => "tcp",
            Self::Ws(_) => "ws",
            Self::H2(_) => "h2",
            Self::Grpc(_) => "grpc",
            Self::HttpUpgrade(_) => "httpupgrade",
            Self::Kcp(_) => "kcp",
            Self::Quic(_) => "quic",
            Self::Unix(_) => "domainsocket",
        }
    }

    /// Whether its datagrams are of UDP's.
    pub const fn is_over_udp(&self) -> bool {
        matches!(self, Self::Kcp(_) | Self::Quic(_))
    }
}

/// `tcpSettings`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Tcp {
    /// The HTTP heads that disguise the start of a connection, if `header.type` is `http`.
    pub header: Option<Box<HttpHeader>>,
    /// Whether a listener expects a PROXY protocol header.
    pub accept_proxy_protocol: bool,
}

/// The disguise as HTTP/1: one head each way, then bare bytes.
#[derive(Debug, Clone, PartialEq)]
pub struct HttpHeader {
    /// What a client writes.
    pub request: HttpRequest,
    /// What a server writes.
    pub response: HttpResponse,
}

/// A header field and the values of which each connection draws one.
pub type HttpField = (String, Vec<String>);

/// The template of a request's head.
#[derive(Debug, Clone, PartialEq)]
pub struct HttpRequest {
    /// The version without `HTTP/`.
    pub version: String,
    /// The method.
    pub method: String,
    /// The paths of which a client draws one and a server accepts any. Never empty.
    pub paths: Vec<String>,
    /// The fields, in the order in which they are written.
    pub headers: Vec<HttpField>,
}

/// The template of an answer's head.
#[derive(Debug, Clone, PartialEq)]
pub struct HttpResponse {
    /// The version without `HTTP/`.
    pub version: String,
    /// The status.
    pub status: String,
    /// The reason.
    pub reason: String,
    /// The fields, in the order in which they are written.
    pub headers: Vec<HttpField>,
}

/// `wsSettings`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Ws {
    /// The path, with its leading slash and without `ed=`.
    pub path: String,
    /// The name that the client asks for, and the only one that the server takes; `None`: the address, and any.
    pub host: Option<String>,
    /// Further fields of the client's request.
    pub headers: Vec<(String, String)>,
    /// How many of the first bytes may travel in the upgrade; 0 for none.
    pub max_early_data: usize,
    /// The field that carries them; `None`: the path does.
    pub early_data_header: Option<String>,
    /// Whether a listener expects a PROXY protocol header.
    pub accept_proxy_protocol: bool,
    /// How often the client pings an idle connection.
    pub heartbeat: Option<Duration>,
}

/// `httpSettings`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct H2 {
    /// The names of which a client draws one and to which a server keeps; empty: `www.example.com`, and any.
    pub hosts: Vec<String>,
    /// The path, with its leading slash; a server takes any path below it.
    pub path: String,
    /// The method.
    pub method: String,
    /// Further fields of the client's request.
    pub headers: Vec<HttpField>,
}

/// `grpcSettings`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Grpc {
    /// The service's name as configured.
    pub service: String,
    /// Whether a client asks for Xray's `TunMulti`.
    pub multi: bool,
    /// The authority that the client names; `None`: the TLS server name, else the address.
    pub authority: Option<String>,
    /// After so long without a byte the client pings.
    pub idle_timeout: Option<Duration>,
    /// How long it waits for the answer.
    pub health_check_timeout: Option<Duration>,
    /// Whether it pings a connection without streams as well.
    pub permit_without_stream: bool,
    /// The first flow-control window in bytes; 0: ours.
    pub initial_window: u32,
    /// The client's user agent.
    pub user_agent: Option<String>,
}

/// `httpupgradeSettings`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct HttpUpgrade {
    /// The path, with its leading slash.
    pub path: String,
    /// The name that the client asks for, and the only one that the server takes; `None`: the address, and any.
    pub host: Option<String>,
    /// Further fields of the client's request.
    pub headers: Vec<(String, String)>,
    /// Whether a listener expects a PROXY protocol header.
    pub accept_proxy_protocol: bool,
}

/// `kcpSettings`.
#[derive(Debug, Clone, PartialEq)]
pub struct Kcp {
    /// The most bytes of a datagram, 576 to 1460.
    pub mtu: u16,
    /// The step of the clock, 10 to 100 ms.
    pub tti: Duration,
    /// What the uplink bears, in MB a second.
    pub uplink_capacity: u32,
    /// What the downlink bears, in MB a second.
    pub downlink_capacity: u32,
    /// Whether losses slow the sender down.
    pub congestion: bool,
    /// The most bytes that wait to be read, a connection.
    pub read_buffer: usize,
    /// The most bytes that wait to be acknowledged, a connection.
    pub write_buffer: usize,
    /// What datagrams look like.
    pub header: PacketHeader,
    /// The text that datagrams are sealed with; without one they are scrambled.
    pub seed: Option<Secret>,
}

impl Default for Kcp {
    fn default() -> Self {
        Self {
            mtu: 1350,
            tti: Duration::from_millis(50),
            uplink_capacity: 5,
            downlink_capacity: 20,
            congestion: false,
            read_buffer: 2 << 20,
            write_buffer: 2 << 20,
            header: PacketHeader::None,
            seed: None,
        }
    }
}

/// `quicSettings`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Quic {
    /// What seals datagrams beside QUIC itself.
    pub security: QuicSecurity,
    /// The text that they are sealed with.
    pub key: Secret,
    /// What datagrams look like.
    pub header: PacketHeader,
}

/// What seals the datagrams of [`Quic`] beside QUIC itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum QuicSecurity {
    /// Nothing.
    #[default]
    None,
    /// AES-128-GCM.
    Aes128Gcm,
    /// ChaCha20-Poly1305.
    Chacha20Poly1305,
}

/// What a datagram of mKCP or QUIC starts with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PacketHeader {
    /// Nothing.
    #[default]
    None,
    /// As SRTP.
    Srtp,
    /// As uTP.
    Utp,
    /// As a WeChat video call.
    WechatVideo,
    /// As DTLS 1.2.
    Dtls,
    /// As WireGuard.
    Wireguard,
}

/// `dsSettings`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Unix {
    /// Where the socket is: a file, or a name if it is abstract.
    pub path: PathBuf,
    /// Whether it is an abstract socket of Linux.
    pub is_abstract: bool,
    /// Whether the abstract name is filled up with zeros, as HAProxy does.
    pub padding: bool,
}

/// `tlsSettings`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Tls {
    /// The name that is asked for and verified; `None`: the server's address.
    pub server_name: Option<String>,
    /// What is offered or accepted above TLS; `None`: what the transport needs.
    pub alpn: Option<Vec<String>>,
    /// Whether any certificate is taken.
    pub allow_insecure: bool,
    /// Certificates and what they are for.
    pub certificates: Vec<Certificate>,
    /// Whether only the certificates above are trusted.
    pub disable_system_root: bool,
    /// Whether sessions are resumed.
    pub session_resumption: bool,
    /// Hashes of chains, one of which the server's must have: V2Ray's `pinnedPeerCertificateChainSha256`.
    pub pinned_chains: Vec<[u8; 32]>,
    /// Hashes of certificates, one of which must be in the server's chain: Xray's `pinnedPeerCertSha256`.
    pub pinned_certificates: Vec<[u8; 32]>,
    /// Whether a pin takes the place of verification.
    pub insecure_if_pinned: bool,
    /// Whether a server without a certificate for the name asked for refuses.
    pub reject_unknown_sni: bool,
}

/// A certificate and what it is for.
#[derive(Debug, Clone, PartialEq)]
pub struct Certificate {
    /// What it is for.
    pub usage: CertificateUsage,
    /// The chain, PEM.
    pub chain: PemSource,
    /// The private key, PEM.
    pub key: PemSource,
}

/// What a certificate is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CertificateUsage {
    /// It proves who a server is.
    Encipherment,
    /// Whoever has one issued by it is trusted.
    Verify,
    /// It issues a server's certificates, name by name.
    Issue,
    /// Clients must have one issued by it.
    VerifyClient,
}

/// Where a text in PEM form comes from.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum PemSource {
    /// There is none.
    #[default]
    Absent,
    /// A file, read at the start.
    File(PathBuf),
    /// The config itself.
    Inline(Secret),
}

/// `sockopt`: what is set on sockets.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct SockOpt {
    /// The mark of packets (Linux, Android).
    pub mark: Option<u32>,
    /// Whether the first bytes may travel in the SYN; `None`: as the operating system has it.
    pub tcp_fast_open: Option<bool>,
    /// After how long an idle connection is probed; `None`: ours.
    pub keepalive_idle: Option<Duration>,
    /// How often after that.
    pub keepalive_interval: Option<Duration>,
    /// The device that packets leave by.
    pub device: Option<Arc<str>>,
    /// After how long without an acknowledgement a connection is given up; `None`: ours.
    pub user_timeout: Option<Duration>,
    /// The name of the congestion control; `None`: the operating system's.
    pub congestion: Option<Arc<str>>,
    /// Whether IPv4 is kept off an IPv6 listener.
    pub v6_only: Option<bool>,
}

/// A text that is never shown, and overwritten when dropped.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Wraps a text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(Zeroizing::new(text.into()))
    }

    /// The text.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}
