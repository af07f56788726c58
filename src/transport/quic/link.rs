//! A client's connection to a server, which many streams share.

use super::disguise::Disguise;
use super::options;
use super::options::Side;
use super::runtime::OnShard;
use super::socket::QuicSocket;
use super::stream::StreamCarrier;
use crate::engine::Shard;
use crate::transport::protect::{self, SocketError, Wishes};
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{
    ClientConfig, ConnectError, Connection, ConnectionError, Endpoint, RecvStream, SendStream, VarInt,
};
use rustls::pki_types::CertificateDer;
use std::cell::Cell;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};

/// How long a connection without streams is kept: no longer than until it would have to be kept alive.
const UNUSED: Duration = Duration::from_secs(10);
/// A connection that was last used so long ago is watched when it is used again.
const STALE: Duration = Duration::from_secs(5);
/// How often it is looked at then, and how many times: a server that says nothing all the while is gone.
const LOOK: Duration = Duration::from_secs(1);
const LOOKS: u32 = 4;
/// How long the words of a connection's end may take.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// The code of our ends: V2Ray's connections know no other.
const CODE: VarInt = VarInt::from_u32(0);

/// Why a connection could not be made.
#[derive(Debug, Clone)]
pub(super) enum Failed {
    /// There is no socket for it.
    Socket(SocketError),
    /// QUIC, or TLS inside of it, has failed.
    Connection(ConnectionError),
    /// It was not even tried.
    Refused(ConnectError),
}

/// What all connections to a server are made with.
#[derive(Clone)]
pub(super) struct Plan {
    pub(super) disguise: Disguise,
    pub(super) crypto: Arc<QuicClientConfig>,
    /// The name that is asked for.
    pub(super) name: String,
    /// QUIC's version.
    pub(super) version: u32,
}

/// A client's connection.
pub(super) struct Link {
    connection: Connection,
    endpoint: Endpoint,
    socket: Arc<QuicSocket>,
    /// How many streams are open.
    open: Cell<usize>,
    /// Whether it takes no new streams.
    retired: Cell<bool>,
    used: Cell<Instant>,
    watched: Cell<bool>,
    /// Its last stream has gone, or it has been retired.
    changed: Notify,
}

/// A stream's hold on its connection.
pub(super) struct Slot(Rc<Link>);

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.open.set(self.0.open.get() - 1);
        if self.0.open.get() == 0 {
            self.0.changed.notify_one();
        }
    }
}

impl Link {
    /// Connects to a server's address. There is no deadline here.
    ///
    /// # Errors
    /// [`Failed`].
    pub(super) async fn connect(
        shard: &Rc<Shard>,
        remote: SocketAddr,
        wishes: &Wishes,
        plan: &Plan,
    ) -> Result<Rc<Self>, Failed> {
        let socket = protect::udp_socket_unconnected(shard, remote, wishes).await.map_err(Failed::Socket)?;
        let broken = |error| Failed::Socket(SocketError::from(error));
        let socket = QuicSocket::new(socket, plan.disguise.clone()).map_err(broken)?;
        let under: Arc<QuicSocket> = Arc::clone(&socket);
        let endpoint =
            Endpoint::new_with_abstract_socket(options::endpoint(), None, under, Arc::new(OnShard))
                .map_err(broken)?;
        let mut config = ClientConfig::new(Arc::clone(&plan.crypto) as Arc<_>);
        config.version(plan.version).transport_config(options::transport(
            &shard.pool,
            plan.disguise.overhead(),
            Side::Client,
        ));
        let connecting = endpoint.connect_with(config, remote, &plan.name).map_err(Failed::Refused)?;
        let connection = connecting.await.map_err(Failed::Connection)?;
        let link = Rc::new(Self {
            connection,
            endpoint,
            socket,
            open: Cell::new(0),
            retired: Cell::new(false),
            used: Cell::new(Instant::now()),
            watched: Cell::new(false),
            changed: Notify::new(),
        });
        shard.spawn(keep(Rc::clone(&link)));
        Ok(link)
    }

    /// The certificates that the server has shown.
    pub(super) fn chain(&self) -> Vec<CertificateDer<'static>> {
        let shown = self.connection.peer_identity();
        shown.and_then(|shown| shown.downcast().ok()).map_or_else(Vec::new, |shown| *shown)
    }

    /// Whether it takes new streams.
    pub(super) fn is_usable(&self) -> bool {
        !self.retired.get() && self.connection.close_reason().is_none()
    }

    /// Opens a stream, if the server allows one more.
    pub(super) fn open(self: &Rc<Self>, shard: &Rc<Shard>) -> Option<StreamCarrier<Slot>> {
        let opened = pin!(self.connection.open_bi()).poll(&mut Context::from_waker(Waker::noop()));
        let Poll::Ready(Ok(stream)) = opened else { return None };
        if self.used.replace(Instant::now()).elapsed() > STALE && !self.watched.replace(true) {
            shard.spawn(watch(Rc::clone(self)));
        }
        Some(self.carrier(stream))
    }

    fn carrier(self: &Rc<Self>, stream: (SendStream, RecvStream)) -> StreamCarrier<Slot> {
        self.open.set(self.open.get() + 1);
        StreamCarrier::new(self.connection.clone(), stream, Slot(Rc::clone(self)))
    }

    /// Takes no new streams; without streams it closes at once.
    pub(super) fn retire(&self) {
        self.retired.set(true);
        self.changed.notify_one();
    }
}

/// Keeps a connection until it is over or nobody wants it any more.
async fn keep(link: Rc<Link>) {
    loop {
        let unused = link.open.get() == 0;
        let wait = if link.retired.get() { Duration::ZERO } else { UNUSED };
        tokio::select! {
            _ = link.connection.closed() => break,
            () = link.changed.notified() => {}
            () = sleep(wait), if unused => break,
        }
    }
    link.retire();
    link.connection.close(CODE, b"");
    // Its end leaves in one or two datagrams; the rest is patience with a peer that has not heard it.
    let _ = timeout(LAST_WORDS, link.endpoint.wait_idle()).await;
    link.socket.close();
}

/// Looks whether the server still answers, and gives the connection up if it does not.
async fn watch(link: Rc<Link>) {
    let before = link.connection.stats();
    for _ in 0..LOOKS {
        sleep(LOOK).await;
        if link.connection.stats().udp_rx.datagrams != before.udp_rx.datagrams {
            link.watched.set(false);
            return;
        }
    }
    link.watched.set(false);
    if link.connection.stats().udp_tx.datagrams > before.udp_tx.datagrams {
        link.retire();
        link.connection.close(CODE, b"");
    }
}
