//! A server's connections: each brings streams, and each stream is a client's connection.

use super::disguise::Disguise;
use super::options::{self, Side};
use super::runtime::OnShard;
use super::socket::QuicSocket;
use super::stream::StreamCarrier;
use super::{ALPN, certificate};
use crate::config::{Quic, Tls};
use crate::engine::Shard;
use crate::error::{Error, ErrorKind};
use crate::transport::Carrier;
use crate::transport::accept::UdpClients;
use crate::transport::tls::TlsServer;
use quinn::crypto::rustls::QuicServerConfig;
use quinn::{Connection, ConnectionError, Endpoint, Incoming, ServerConfig, VarInt};
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::net::UdpSocket;
use tokio::sync::Semaphore;
use tokio::sync::mpsc::{self, Receiver, Sender};
use tokio::task::yield_now;
use tokio::time::{sleep, timeout};

/// How many connections there are at most, a socket. Each of their streams counts as a connection besides.
const MAX_CONNECTIONS: usize = 4096;
/// How many of them wait to be taken at most, and what each and all of these may have sent by then.
const WAITING: usize = 256;
const WAITING_BYTES: u64 = 16 << 10;
const ALL_WAITING_BYTES: u64 = 1 << 20;
/// How long a handshake may take, and the first stream after it.
const HANDSHAKE: Duration = Duration::from_secs(8);
/// How long a connection whose streams have all gone is borne with.
const UNUSED: Duration = Duration::from_secs(60);
/// How many streams wait for those before them to be served.
const QUEUE: usize = 16;
/// How many times others have their turn while the words of connections' ends leave.
const LAST_WORDS: usize = 32;
/// The code of our ends: V2Ray's connections know no other.
const CODE: VarInt = VarInt::from_u32(0);

/// A stream, and where it comes from.
type Client = (Box<dyn Carrier>, SocketAddr);

/// What the clients of an inbound are answered with; all shards share it.
pub(in crate::transport) struct QuicServer {
    crypto: Arc<QuicServerConfig>,
    disguise: Disguise,
}

impl fmt::Debug for QuicServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QuicServer").finish_non_exhaustive()
    }
}

impl QuicServer {
    /// Prepares an inbound's connections; reads files. Without TLS in the config, or with one that names no certificate, it
    /// shows one of its own making.
    ///
    /// # Errors
    /// As [`TlsServer::new`].
    pub(in crate::transport) fn new(settings: &Quic, tls: Option<&Tls>) -> Result<Self, Error> {
        let internal = |reason: String| Error::new(ErrorKind::Internal, "no QUIC").with_reason(reason);
        let tls = match tls {
            Some(tls) => TlsServer::new(tls, ALPN)?,
            None => {
                let own = certificate::tls().map_err(|error| internal(error.to_string()))?;
                TlsServer::new(&own, ALPN)?
            }
        };
        let crypto = QuicServerConfig::try_from(tls.config()).map_err(|error| internal(error.to_string()))?;
        Ok(Self { crypto: Arc::new(crypto), disguise: Disguise::new(settings) })
    }
}

/// A socket on which connections come. Dropping it ends them.
pub(super) struct QuicClients {
    streams: Receiver<Client>,
}

impl UdpClients for QuicClients {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Client> {
        match ready!(self.streams.poll_recv(cx)) {
            Some(client) => Poll::Ready(client),
            // The shard is ending.
            None => Poll::Pending,
        }
    }
}

impl QuicServer {
    /// Takes the clients of a bound socket.
    ///
    /// # Errors
    /// The system's.
    pub(in crate::transport) fn listen(
        &self,
        shard: &Rc<Shard>,
        socket: UdpSocket,
    ) -> io::Result<Box<dyn UdpClients>> {
        let socket = QuicSocket::new(socket, self.disguise.clone())?;
        let mut config = ServerConfig::with_crypto(Arc::clone(&self.crypto) as Arc<_>);
        config
            .transport_config(options::transport(&shard.pool, self.disguise.overhead(), Side::Server))
            .max_incoming(WAITING)
            .incoming_buffer_size(WAITING_BYTES)
            .incoming_buffer_size_total(ALL_WAITING_BYTES);
        let under: Arc<QuicSocket> = Arc::clone(&socket);
        let endpoint =
            Endpoint::new_with_abstract_socket(options::endpoint(), Some(config), under, Arc::new(OnShard))?;
        let (to, streams) = mpsc::channel(QUEUE);
        shard.spawn(serve(Rc::clone(shard), endpoint, socket, to));
        Ok(Box::new(QuicClients { streams }))
    }
}

/// Takes connections until nobody wants their streams any more, then ends them.
async fn serve(shard: Rc<Shard>, endpoint: Endpoint, socket: Arc<QuicSocket>, to: Sender<Client>) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let incoming = tokio::select! {
            biased;
            () = to.closed() => break,
            incoming = endpoint.accept() => incoming,
        };
        let Some(incoming) = incoming else { break };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            incoming.refuse();
            continue;
        };
        let to = to.clone();
        shard.spawn(async move {
            // Whoever fails has been answered as QUIC does it.
            if let Ok(Ok((connection, source))) = timeout(HANDSHAKE, shake_hands(incoming)).await {
                receive(connection, source, &to).await;
            }
            drop(place);
        });
    }
    endpoint.close(CODE, b"");
    for _ in 0..LAST_WORDS {
        yield_now().await;
    }
    socket.close();
}

async fn shake_hands(incoming: Incoming) -> Result<(Connection, SocketAddr), ConnectionError> {
    let source = incoming.remote_address();
    let connection = incoming.accept()?.await?;
    Ok((connection, SocketAddr::new(source.ip().to_canonical(), source.port())))
}

/// Passes a connection's streams on, until it is over or of no use.
async fn receive(connection: Connection, source: SocketAddr, to: &Sender<Client>) {
    // Every stream that is open has a copy.
    let open = Rc::new(());
    let mut patience = HANDSHAKE;
    loop {
        tokio::select! {
            stream = connection.accept_bi() => {
                let Ok(stream) = stream else { return };
                patience = UNUSED;
                let carrier = StreamCarrier::new(connection.clone(), stream, Rc::clone(&open));
                if to.send((Box::new(carrier), source)).await.is_err() {
                    return;
                }
            }
            () = sleep(patience) => {
                if Rc::strong_count(&open) == 1 {
                    return connection.close(CODE, b"");
                }
            }
        }
    }
}
