//! A client's connections to one server, on one shard.

use super::INTERNAL_NAME;
use super::disguise::Disguise;
use super::link::{Failed, Link, Plan};
use crate::config::{Quic, Tls};
use crate::engine::Shard;
use crate::error::{Error, ErrorKind, Stage};
use crate::transport::Carrier;
use crate::transport::dial::DialError;
use crate::transport::eyeballs;
use crate::transport::protect::Wishes;
use crate::transport::tls::{self, TlsClient};
use quinn::ConnectionError;
use quinn::crypto::rustls::QuicClientConfig;
use std::cell::{Cell, RefCell};
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout_at};

/// The most connections to one server: V2Ray's allows 32 streams on each.
const MAX_LINKS: usize = 32;
/// The versions that are tried in turn: QUIC's, and the drafts that V2Rays of the time before it speak.
const VERSIONS: [u32; 3] = [1, 0xFF00_001D, 0xFF00_0020];

/// The connections to one server. New ones are made when those that are there have no room.
pub(in crate::transport) struct QuicClient {
    disguise: Disguise,
    tls: Rc<TlsClient>,
    /// What was understood last, among [`VERSIONS`].
    version: Cell<usize>,
    links: RefCell<Vec<Rc<Link>>>,
    /// Held while a connection is made, for which others wait.
    dialling: Mutex<()>,
}

impl QuicClient {
    /// Prepares the connections to a server; opens nothing. `None` only where a library has no QUIC.
    pub(in crate::transport) fn new(settings: &Quic, tls: Rc<TlsClient>) -> Option<Self> {
        Some(Self {
            disguise: Disguise::new(settings),
            tls,
            version: Cell::new(0),
            links: RefCell::default(),
            dialling: Mutex::new(()),
        })
    }

    /// Uses none of the connections for new streams any more.
    pub(in crate::transport) fn network_changed(&self) {
        for link in self.links.take() {
            link.retire();
        }
    }

    /// Opens a stream; `resolve` says where the server is if that has to be known.
    ///
    /// # Errors
    /// [`DialError`] of `resolve`, else with stage `connect` or of TLS; `ResourceLimit` if all connections are full.
    pub(in crate::transport) async fn open(
        &self,
        shard: &Rc<Shard>,
        wishes: &Wishes,
        deadline: Instant,
        resolve: &impl AsyncFn() -> Result<Vec<SocketAddr>, DialError>,
    ) -> Result<Box<dyn Carrier>, DialError> {
        let started = Instant::now();
        let silent = |_| DialError::new(Stage::Connect, io::ErrorKind::TimedOut, started, "no answer");
        if let Some(carrier) = self.open_now(shard) {
            return Ok(carrier);
        }
        let _turn = timeout_at(deadline, self.dialling.lock()).await.map_err(silent)?;
        if let Some(carrier) = self.open_now(shard) {
            return Ok(carrier);
        }
        if self.links.borrow().len() >= MAX_LINKS {
            let what = ErrorKind::ResourceLimit { what: "streams" };
            let error = Error::new(what, "all connections to the server are full");
            return Err(DialError { error, kind: io::ErrorKind::QuotaExceeded });
        }
        let remotes = resolve().await?;
        let link =
            timeout_at(deadline, self.dial(shard, wishes, &remotes, started)).await.map_err(silent)??;
        self.links.borrow_mut().push(link);
        self.open_now(shard).ok_or_else(|| {
            DialError::new(
                Stage::Connect,
                io::ErrorKind::ConnectionRefused,
                started,
                "the server allows no stream on its connections",
            )
        })
    }

    /// Opens a stream on the first connection with room: so the others become idle and close.
    fn open_now(&self, shard: &Rc<Shard>) -> Option<Box<dyn Carrier>> {
        let mut links = self.links.borrow_mut();
        links.retain(|link| link.is_usable());
        let opened = links.iter().find_map(|link| link.open(shard))?;
        Some(Box::new(opened))
    }

    /// Makes a connection, in the first version that the server speaks too.
    async fn dial(
        &self,
        shard: &Rc<Shard>,
        wishes: &Wishes,
        remotes: &[SocketAddr],
        started: Instant,
    ) -> Result<Rc<Link>, DialError> {
        let (config, name) = self.tls.parts();
        let crypto = QuicClientConfig::try_from(config).map_err(|error| {
            DialError::refused(Error::new(ErrorKind::Internal, "no QUIC").with_reason(error.to_string()))
        })?;
        let (disguise, crypto) = (self.disguise.clone(), Arc::new(crypto));
        let mut plan = Plan { disguise, crypto, name, version: 0 };
        let first = self.version.get();
        let mut turns = (0..VERSIONS.len()).map(|turn| (first + turn) % VERSIONS.len());
        loop {
            let Some((index, version)) = turns.next().and_then(|at| Some((at, *VERSIONS.get(at)?))) else {
                return Err(failed(&Failed::Connection(ConnectionError::VersionMismatch), started));
            };
            plan.version = version;
            let attempts = eyeballs::race(remotes, |remote| Link::connect(shard, remote, wishes, &plan));
            match attempts.await {
                Ok(link) => {
                    self.version.set(index);
                    // No stream is opened before the server is known to be the one.
                    let judged = self.tls.judge(shard, link.chain(), started).await;
                    return judged.inspect_err(|_| link.retire()).map(|()| link);
                }
                Err(Some(Failed::Connection(ConnectionError::VersionMismatch))) => {}
                Err(Some(error)) => return Err(failed(&error, started)),
                Err(None) => {
                    let kind = io::ErrorKind::NetworkUnreachable;
                    return Err(DialError::new(Stage::Connect, kind, started, "no address is usable"));
                }
            }
        }
    }
}

impl Drop for QuicClient {
    fn drop(&mut self) {
        self.network_changed();
    }
}

/// What a client's TLS is where the config has none: nobody verifies who the server is.
pub(in crate::transport) fn unverified() -> Tls {
    Tls {
        server_name: Some(INTERNAL_NAME.to_owned()),
        allow_insecure: true,
        session_resumption: true,
        ..Tls::default()
    }
}

/// Why no connection was made, for a person.
fn failed(error: &Failed, started: Instant) -> DialError {
    let unreachable = |kind, reason: &str| DialError::new(Stage::Connect, kind, started, reason);
    match error {
        Failed::Socket(error) => DialError::socket(error.clone(), started),
        Failed::Refused(error) => unreachable(io::ErrorKind::InvalidInput, &error.to_string()),
        Failed::Connection(ConnectionError::TransportError(error)) => {
            let code = u64::from(error.code);
            tls::alert_sent(code, &error.reason, started)
                .unwrap_or_else(|| unreachable(io::ErrorKind::InvalidData, &error.to_string()))
        }
        Failed::Connection(ConnectionError::ConnectionClosed(close)) => {
            tls::alert_received(u64::from(close.error_code), started)
                .unwrap_or_else(|| unreachable(io::ErrorKind::ConnectionRefused, &close.to_string()))
        }
        Failed::Connection(ConnectionError::VersionMismatch) => {
            unreachable(io::ErrorKind::InvalidData, "the server speaks no version of QUIC that is known here")
        }
        Failed::Connection(ConnectionError::TimedOut) => unreachable(io::ErrorKind::TimedOut, "no answer"),
        Failed::Connection(error) => unreachable(io::ErrorKind::ConnectionRefused, &error.to_string()),
    }
}
