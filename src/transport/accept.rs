//! From an accepted socket to a carrier, within the time that a client has to prove itself. [`Reception::accept`] is the
//! table of transports, as `connect` is at the other end.

use super::behind::Behind;
use super::connect::check;
use super::quic::QuicServer;
use super::tls::TlsServer;
use super::{Carrier, grpc, h2, http_header, httpupgrade, kcp, proxy_protocol, ws};
use crate::config::{StreamSettings, Transport};
use crate::engine::Shard;
use crate::error::Error;
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::net::UdpSocket;
use tokio::time::{Instant, timeout, timeout_at};

/// How long after our end what a refused client still sends is read: a reset would overtake our answer else.
const LINGER: Duration = Duration::from_secs(2);
/// How much of a PROXY header one read asks for.
const PIECE: usize = 256;

/// What the clients of an inbound come on; all shards share it.
#[derive(Debug)]
pub(crate) struct Reception {
    proxy_protocol: bool,
    tls: Option<TlsServer>,
    quic: Option<QuicServer>,
    transport: Transport,
}

/// What came of a socket.
pub(crate) struct Accepted {
    /// What its client, or its clients, speak on.
    pub(crate) clients: Clients,
    /// Where they come from: the socket's other end, or what a balancer before us says.
    pub(crate) source: SocketAddr,
}

/// Who comes on a socket.
pub(crate) enum Clients {
    /// One client.
    One(Box<dyn Carrier>),
    /// One after another, on a stream each.
    Many(Box<dyn Arrivals>),
}

/// Clients that come on streams of one connection.
pub(crate) trait Arrivals {
    /// The next one; `None` once the connection is over. What is on the way lives on without this.
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Box<dyn Carrier>>>;
}

/// Clients that come on a UDP socket. Dropping it closes the socket, and ends what is on the way there.
pub(crate) trait UdpClients {
    /// The next one, and where it comes from. Nothing of it is known but that its datagrams are of the transport's form.
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<(Box<dyn Carrier>, SocketAddr)>;
}

/// Why nothing came of a socket. Its client has been answered as the transport does it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{stage}: {reason}")]
pub(crate) struct AcceptError {
    stage: &'static str,
    reason: String,
}

impl AcceptError {
    /// A failure at a stage.
    pub(super) fn new(stage: &'static str, reason: impl fmt::Display) -> Self {
        Self { stage, reason: reason.to_string() }
    }
}

impl Reception {
    /// Prepares what the clients of an inbound come on; reads files, opens nothing.
    ///
    /// # Errors
    /// `Unsupported` if the transport is none of this version's; with the path inside of the inbound.
    pub(crate) fn new(stream: &StreamSettings) -> Result<Arc<Self>, Error> {
        check(&stream.transport)?;
        let proxy_protocol = match &stream.transport {
            Transport::Tcp(tcp) => tcp.accept_proxy_protocol,
            Transport::Ws(ws) => ws.accept_proxy_protocol,
            Transport::HttpUpgrade(upgrade) => upgrade.accept_proxy_protocol,
            _ => false,
        };
        // QUIC has its own TLS inside.
        let quic = match &stream.transport {
            Transport::Quic(settings) => Some(QuicServer::new(settings, stream.tls.as_deref())?),
            _ => None,
        };
        let tls = stream.tls.as_ref().filter(|_| quic.is_none());
        let tls = tls.map(|tls| TlsServer::new(tls, alpn(&stream.transport))).transpose()?;
        let transport = stream.transport.clone();
        Ok(Arc::new(Self { proxy_protocol, tls, quic, transport }))
    }

    /// Whether clients speak on the bare socket, so that there is nothing to do here.
    pub(crate) const fn is_bare(&self) -> bool {
        match &self.transport {
            Transport::Tcp(tcp) => tcp.header.is_none() && self.tls.is_none() && !self.proxy_protocol,
            _ => false,
        }
    }

    /// Whether a balancer before us says where clients come from.
    pub(crate) const fn tells_source(&self) -> bool {
        self.proxy_protocol
    }

    /// Takes the clients of a UDP socket; [`Reception::accept`] does the rest.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn listen(&self, shard: &Rc<Shard>, socket: UdpSocket) -> io::Result<Box<dyn UdpClients>> {
        match (&self.transport, &self.quic) {
            (Transport::Kcp(settings), _) => Ok(kcp::listen(shard, settings, socket)),
            (Transport::Quic(_), Some(quic)) => quic.listen(shard, socket),
            (transport, _) => unreachable!("no inbound listens on UDP for {}", transport.name()),
        }
    }

    /// Does what comes before the protocol.
    ///
    /// # Errors
    /// [`AcceptError`]; the client has been answered and sent away.
    pub(crate) async fn accept(
        &self,
        shard: &Rc<Shard>,
        below: Box<dyn Carrier>,
        source: SocketAddr,
        deadline: Instant,
    ) -> Result<Accepted, AcceptError> {
        let late = |_| AcceptError::new("accept", "nothing came of it in time");
        timeout_at(deadline, self.accept_all(shard, below, source, deadline))
            .await
            .unwrap_or_else(|over| Err(late(over)))
    }

    async fn accept_all(
        &self,
        shard: &Rc<Shard>,
        mut below: Box<dyn Carrier>,
        mut source: SocketAddr,
        deadline: Instant,
    ) -> Result<Accepted, AcceptError> {
        let no_http2 = |failure| AcceptError::new("HTTP/2", failure);
        if self.proxy_protocol {
            let (told, carrier) = read_proxy_header(below).await?;
            source = told.unwrap_or(source);
            below = carrier;
        }
        if let Some(tls) = &self.tls {
            let (carrier, _) = tls.accept(&shard.tls_scratch, below).await?;
            below = Box::new(carrier);
        }
        let clients = match &self.transport {
            Transport::Tcp(tcp) => match &tcp.header {
                None => Clients::One(below),
                Some(header) => Clients::One(Box::new(http_header::accept(shard, below, header).await?)),
            },
            Transport::Ws(settings) => Clients::One(ws::accept(below, settings, shard).await?),
            Transport::HttpUpgrade(settings) => {
                Clients::One(Box::new(httpupgrade::accept(below, settings).await?))
            }
            Transport::H2(settings) => {
                let served = h2::serve(shard, below, settings, deadline).await;
                Clients::Many(Box::new(served.map_err(no_http2)?))
            }
            Transport::Grpc(settings) => {
                let served = grpc::serve(shard, below, settings, deadline).await;
                Clients::Many(Box::new(served.map_err(no_http2)?))
            }
            Transport::Unix(_) | Transport::Kcp(_) | Transport::Quic(_) => Clients::One(below),
        };
        Ok(Accepted { clients, source })
    }
}

/// What a server takes above TLS if the config says nothing else: as V2Ray's, and HTTP/1.1 where that does no harm.
const fn alpn(transport: &Transport) -> &'static [&'static str] {
    match transport {
        Transport::HttpUpgrade(_) => &["http/1.1"],
        Transport::H2(_) | Transport::Grpc(_) => &["h2"],
        _ => &["h2", "http/1.1"],
    }
}

/// Reads the header that a balancer before us begins with; where the client comes from, and the carrier behind it.
async fn read_proxy_header(
    mut carrier: Box<dyn Carrier>,
) -> Result<(Option<SocketAddr>, Box<dyn Carrier>), AcceptError> {
    let failed = |error: &dyn fmt::Display| AcceptError::new("PROXY header", error);
    let mut bytes = Vec::new();
    loop {
        let old = bytes.len();
        bytes.resize(old + PIECE, 0);
        let spare = bytes.get_mut(old..).unwrap_or_default();
        let n = poll_fn(|cx| {
            ready!(carrier.poll_read_ready(cx))?;
            carrier.poll_read(cx, spare)
        })
        .await
        .map_err(|error: io::Error| failed(&error))?;
        bytes.truncate(old + n);
        match proxy_protocol::read(&bytes).map_err(|error| failed(&error))? {
            proxy_protocol::Header::Whole { source, len } => {
                let behind = bytes.split_off(len);
                return Ok((source, Box::new(Behind::new(carrier, behind))));
            }
            proxy_protocol::Header::Need(_) if n == 0 => return Err(failed(&"it is cut off")),
            proxy_protocol::Header::Need(_) => {}
        }
    }
}

/// Ends a carrier whose client has been refused, so that the answer reaches it: reads what still comes for a while.
pub(super) async fn send_away<C: Carrier>(mut carrier: C) {
    let mut scratch = [0; 1024];
    let end = async {
        poll_fn(|cx| carrier.poll_flush(cx)).await?;
        poll_fn(|cx| carrier.poll_close(cx)).await?;
        loop {
            let read = poll_fn(|cx| {
                ready!(carrier.poll_read_ready(cx))?;
                carrier.poll_read(cx, &mut scratch)
            });
            if read.await? == 0 {
                return Ok::<_, io::Error>(());
            }
        }
    };
    // Late or broken, it is over.
    let _ = timeout(LINGER, end).await;
}
