//! From a server to a carrier, within one deadline: the way there is prepared once, with the config, and gone once a
//! connection. [`Way::connect`] is the table of transports.
//!
//! Each failure says at which stage it came, after how long, and what the peer answered.

use super::Carrier;
use super::dial::{self, DialError};
use super::grpc;
use super::h2;
use super::http_header;
use super::httpupgrade;
use super::kcp;
use super::protect::Wishes;
use super::quic::{self, QuicClient};
use super::server_addresses::ServerAddresses;
use super::tcp::TcpCarrier;
use super::through;
use super::tls::TlsClient;
use super::unix::{self, UnixCarrier};
use super::ws;
use crate::addr::{Host, Target};
use crate::config::{Outbound, Transport};
use crate::engine::{self, Shard};
use crate::error::{Error, ErrorKind, Stage};
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use tokio::time::Instant;

/// How one server is reached: what its connections ride on, and what they share.
pub(crate) struct Way {
    addresses: ServerAddresses,
    layers: Rc<Layers>,
    tls: Option<Rc<TlsClient>>,
    shared: Shared,
}

/// What all servers of an outbound are reached by.
struct Layers {
    wishes: Wishes,
    /// The outbound whose streams take the place of sockets.
    via: Option<Rc<dyn engine::Outbound>>,
    transport: Transport,
    /// The name that TLS is configured to ask for.
    tls_name: Option<String>,
}

/// The connections to one server that its streams share, for the transports that have such.
enum Shared {
    Nothing,
    H2(Box<h2::Client>),
    Grpc(Box<grpc::Client>),
    Kcp(Box<kcp::Client>),
    Quic(Box<QuicClient>),
}

/// A connection to a server.
pub(crate) enum Connected {
    /// A bare socket, which most flows ride on: what is on top of it is made for it.
    Tcp(TcpCarrier),
    /// Anything else.
    Layered(Box<dyn Carrier>),
}

impl Connected {
    fn boxed(self) -> Box<dyn Carrier> {
        match self {
            Self::Tcp(carrier) => Box::new(carrier),
            Self::Layered(carrier) => carrier,
        }
    }
}

impl Way {
    /// Prepares the way to a server of an outbound; opens nothing. With `via` the way goes through that outbound.
    ///
    /// # Errors
    /// `Unsupported` if the transport is none of this version's, with the path inside of the outbound.
    pub(crate) fn new(
        outbound: &Outbound,
        server: Target,
        via: Option<&Rc<dyn engine::Outbound>>,
    ) -> Result<Self, Error> {
        let stream = &outbound.stream;
        check(&stream.transport)?;
        let wishes = Wishes { options: stream.sockopt.clone(), from: outbound.send_through };
        let tls_name = stream.tls.as_ref().and_then(|tls| tls.server_name.clone());
        let tls = match (&stream.tls, &stream.transport) {
            (Some(tls), _) => Some((**tls).clone()),
            (None, Transport::Quic(_)) => Some(quic::unverified()),
            (None, _) => None,
        };
        let tls = tls.map(|tls| TlsClient::new(&tls, &server.host, alpn(&stream.transport)));
        let tls = tls.transpose()?.map(Rc::new);
        let layers = Layers { wishes, via: via.cloned(), transport: stream.transport.clone(), tls_name };
        Ok(Self::to(server, Rc::new(layers), tls))
    }

    fn to(server: Target, layers: Rc<Layers>, tls: Option<Rc<TlsClient>>) -> Self {
        let addresses = ServerAddresses::new(server);
        let mut way = Self { addresses, layers, tls, shared: Shared::Nothing };
        let secure = way.tls.is_some();
        way.shared = match &way.layers.transport {
            Transport::H2(settings) => Shared::H2(Box::new(h2::Client::new(settings.clone(), secure))),
            Transport::Grpc(settings) => {
                let name =
                    way.layers.tls_name.clone().or_else(|| way.server().host.domain().map(str::to_owned));
                let authority = name.unwrap_or_else(|| way.authority());
                Shared::Grpc(Box::new(grpc::Client::new(settings.clone(), authority, secure)))
            }
            Transport::Kcp(settings) => Shared::Kcp(Box::new(kcp::Client::new(settings))),
            Transport::Quic(settings) => {
                let client = way.tls.as_ref().and_then(|tls| QuicClient::new(settings, Rc::clone(tls)));
                client.map(Box::new).map_or(Shared::Nothing, Shared::Quic)
            }
            _ => Shared::Nothing,
        };
        way
    }

    /// The same way to another port of the same host.
    pub(crate) fn at_port(&self, port: u16) -> Self {
        let server = Target::new(self.server().host.clone(), port);
        Self::to(server, Rc::clone(&self.layers), self.tls.clone())
    }

    /// The server as configured.
    pub(crate) const fn server(&self) -> &Target {
        self.addresses.target()
    }

    /// The server as HTTP names it: without the port that its scheme has anyway.
    pub(super) fn authority(&self) -> String {
        let usual = if self.tls.is_some() { 443 } else { 80 };
        let Target { host, port } = self.server();
        match host {
            _ if *port != usual => self.server().to_string(),
            Host::Ip(ip) if ip.is_ipv6() => format!("[{ip}]"),
            host => host.to_string(),
        }
    }

    /// Forgets what was learned of the network below, which has changed: addresses, sessions, idle connections.
    pub(crate) fn network_changed(&self) {
        self.addresses.forget();
        self.tls.iter().for_each(|tls| tls.forget_sessions());
        match &self.shared {
            // Conversations of mKCP are closed with what they were opened for.
            Shared::Nothing | Shared::Kcp(_) => {}
            Shared::H2(client) => client.network_changed(),
            Shared::Grpc(client) => client.network_changed(),
            Shared::Quic(client) => client.network_changed(),
        }
    }

    /// Connects to the server, up to where the protocol's first bytes may be written.
    ///
    /// # Errors
    /// [`DialError`] with the stage that failed.
    pub(crate) async fn connect(
        self: &Rc<Self>,
        shard: &Rc<Shard>,
        deadline: Instant,
    ) -> Result<Connected, DialError> {
        let below = async || self.connect_http2(shard, deadline).await;
        match &self.shared {
            Shared::Nothing => {}
            Shared::H2(client) => return client.open(shard, deadline, &below).await.map(Connected::Layered),
            Shared::Grpc(client) => {
                return client.open(shard, deadline, &below).await.map(Connected::Layered);
            }
            Shared::Kcp(client) => {
                return self.connect_kcp(client, shard, deadline).await.map(Connected::Layered);
            }
            Shared::Quic(client) => {
                let (port, wishes) = (self.server().port, &self.layers.wishes);
                let resolve = async || {
                    let addresses = self.addresses.get(shard, deadline).await?;
                    Ok(addresses.into_iter().map(|ip| SocketAddr::new(ip, port)).collect())
                };
                let opened = client.open(shard, wishes, deadline, &resolve).await;
                return opened.inspect_err(|_| self.addresses.forget()).map(Connected::Layered);
            }
        }
        match &self.layers.transport {
            Transport::Tcp(tcp) => {
                let (below, _) = self.connect_below(shard, deadline).await?;
                let Some(header) = &tcp.header else { return Ok(below) };
                let carrier =
                    shard.with_entropy(|entropy| http_header::client(below.boxed(), header, entropy));
                Ok(Connected::Layered(Box::new(carrier)))
            }
            Transport::Ws(settings) => {
                let (below, _) = self.connect_below(shard, deadline).await?;
                let (below, authority) = (below.boxed(), self.authority());
                ws::connect(below, settings, &authority, shard, deadline).await.map(Connected::Layered)
            }
            Transport::HttpUpgrade(settings) => {
                let (below, _) = self.connect_below(shard, deadline).await?;
                let (below, authority) = (below.boxed(), self.authority());
                let carrier = httpupgrade::connect(below, settings, &authority, deadline).await?;
                Ok(Connected::Layered(Box::new(carrier)))
            }
            Transport::Unix(_) => Ok(self.connect_below(shard, deadline).await?.0),
            Transport::H2(_) | Transport::Grpc(_) | Transport::Kcp(_) | Transport::Quic(_) => {
                Err(DialError::refused(unsupported(&self.layers.transport)))
            }
        }
    }

    /// Begins a conversation of mKCP, with TLS in it where that is wanted.
    ///
    /// # Errors
    /// [`DialError`].
    async fn connect_kcp(
        &self,
        client: &kcp::Client,
        shard: &Rc<Shard>,
        deadline: Instant,
    ) -> Result<Box<dyn Carrier>, DialError> {
        let addresses = self.addresses.get(shard, deadline).await?;
        let (port, wishes) = (self.server().port, &self.layers.wishes);
        let connected = client.connect(shard, &addresses, port, wishes, deadline).await;
        if connected.is_err() {
            self.addresses.forget();
        }
        let Some(tls) = &self.tls else { return connected };
        let (carrier, _) = tls.connect(shard, connected?, deadline).await?;
        Ok(Box::new(carrier))
    }

    /// Connects what streams of HTTP/2 ride on.
    ///
    /// # Errors
    /// [`DialError`]; with stage `tls` if the server has agreed on something else than HTTP/2.
    async fn connect_http2(
        &self,
        shard: &Rc<Shard>,
        deadline: Instant,
    ) -> Result<Box<dyn Carrier>, DialError> {
        let started = Instant::now();
        let (below, agreed) = self.connect_below(shard, deadline).await?;
        match agreed.as_deref() {
            Some(b"h2") => {}
            // A server of gRPC alone may have no word for it.
            None if self.tls.is_none() || matches!(self.shared, Shared::Grpc(_)) => {}
            _ => {
                let reason = "the server did not agree on HTTP/2 (ALPN)";
                return Err(DialError::new(Stage::Tls, io::ErrorKind::ConnectionRefused, started, reason));
            }
        }
        Ok(below.boxed())
    }

    /// Connects what the transport rides on, a socket or another outbound's stream and, where it is wanted, TLS. Returns
    /// with it the protocol that TLS has agreed on.
    ///
    /// # Errors
    /// [`DialError`].
    pub(super) async fn connect_below(
        &self,
        shard: &Rc<Shard>,
        deadline: Instant,
    ) -> Result<(Connected, Option<Vec<u8>>), DialError> {
        if let Transport::Unix(settings) = &self.layers.transport {
            let carrier = UnixCarrier::new(unix::connect(settings, deadline).await?);
            let Some(tls) = &self.tls else { return Ok((Connected::Layered(Box::new(carrier)), None)) };
            // Boxed below as well: another TLS, made for this socket, is not worth its size.
            return secure(shard, tls, Box::new(carrier) as Box<dyn Carrier>, deadline).await;
        }
        if let Some(via) = &self.layers.via {
            let carrier: Box<dyn Carrier> =
                Box::new(through::connect(shard, via, self.server(), deadline).await?);
            let Some(tls) = &self.tls else { return Ok((Connected::Layered(carrier), None)) };
            return secure(shard, tls, carrier, deadline).await;
        }
        let carrier = TcpCarrier::new(self.connect_socket(shard, deadline).await?);
        let Some(tls) = &self.tls else { return Ok((Connected::Tcp(carrier), None)) };
        secure(shard, tls, carrier, deadline).await
    }

    /// Connects the socket.
    async fn connect_socket(
        &self,
        shard: &Rc<Shard>,
        deadline: Instant,
    ) -> Result<tokio::net::TcpStream, DialError> {
        let addresses = self.addresses.get(shard, deadline).await?;
        let (port, wishes) = (self.server().port, &self.layers.wishes);
        let connected = dial::tcp_addresses(shard, &addresses, port, wishes, deadline).await;
        if connected.is_err() {
            self.addresses.forget();
        }
        connected
    }
}

/// Puts TLS on what is connected.
async fn secure<C: Carrier + 'static>(
    shard: &Rc<Shard>,
    tls: &TlsClient,
    carrier: C,
    deadline: Instant,
) -> Result<(Connected, Option<Vec<u8>>), DialError> {
    let (carrier, alpn) = tls.connect(shard, carrier, deadline).await?;
    Ok((Connected::Layered(Box::new(carrier)), alpn))
}

/// What a client offers above TLS if the config says nothing else: as V2Ray's.
const fn alpn(transport: &Transport) -> &'static [&'static str] {
    match transport {
        Transport::Ws(_) | Transport::HttpUpgrade(_) => &["http/1.1"],
        Transport::H2(_) | Transport::Grpc(_) => &["h2"],
        _ => &["h2", "http/1.1"],
    }
}

/// Refuses what this version does not have.
pub(super) fn check(transport: &Transport) -> Result<(), Error> {
    match transport {
        Transport::Tcp(_)
        | Transport::Ws(_)
        | Transport::H2(_)
        | Transport::Grpc(_)
        | Transport::HttpUpgrade(_)
        | Transport::Kcp(_)
        | Transport::Unix(_) => Ok(()),
        Transport::Quic(_) if quic::PRESENT => Ok(()),
        Transport::Quic(_) => Err(unsupported(transport)),
    }
}

fn unsupported(transport: &Transport) -> Error {
    let text = format!("this version does not have the transport `{}` yet", transport.name());
    Error::new(ErrorKind::Unsupported, text).with_path("streamSettings.network")
}
