//! The VMess inbound: a server that stands in the open.
//!
//! [`session`] is one client's connection from its request header on, [`datagrams`] a UDP flow of its. Before that comes the
//! door: [`greeting`] reads a header at the [`Gate`], and [`drain`] is what happens to those who do not get in. What they
//! see is the same whoever they are and whatever they send: nothing, until a deadline that counts from accept, then the
//! end; [`strangers`] sees to it that they do not crowd users out. Who is let in is counted by [`limits`], and may be handed a port and an account of another inbound: [`dynamic`].
//!
//! [`Gate`]: crate::vmess::gate::Gate

mod cone;
mod datagrams;
mod drain;
pub(crate) mod dynamic;
mod greeting;
mod homes;
mod limits;
mod mux;
mod packetaddr;
mod session;
mod strangers;
mod xudp;

use super::super::Shard;
use super::super::gates::SharedGate;
use super::listener::{self, Listening, Serve, ServeOn};
use super::sockets::Waiting;
use crate::Event;
use crate::config::{Inbound, LogLevel, VmessInbound};
use crate::transport::unix::UnixCarrier;
use crate::transport::{Carrier, Reception};
use crate::vmess::command::SwitchAccount;
use crate::vmess::gate::Refusal;
use drain::Drains;
pub(crate) use homes::Homes;
pub(crate) use limits::Limits;
use std::cell::RefCell;
use std::future::Future;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use strangers::Strangers;
use tokio::net::{TcpStream, UnixStream};
use tokio::time::Instant;

/// What strangers and headers are read into; all connections of a listener share it.
const SCRATCH: usize = 16 * 1024;
/// A gate's secret, at most, and the handshake time that it is meant for: shorter ones are shortened by less.
const SECRET_FOR: Duration = Duration::from_secs(60);
/// A limit that stays reached is told once in so long.
const TELL_EVERY: Duration = Duration::from_secs(60);

/// Serves the clients of listening sockets of an inbound from now on.
pub(crate) fn listen(
    shard: &Rc<Shard>,
    inbound: &Inbound,
    settings: &VmessInbound,
    reception: Arc<Reception>,
    listeners: impl IntoIterator<Item = Waiting>,
) -> Vec<Listening> {
    let server = Server::new(shard, inbound, settings, reception);
    let listen = |listener| match listener {
        Waiting::Tcp(listener) => listener::listen(&server, listener),
        Waiting::Unix(listener, file) => listener::listen(&server, (listener, file)),
        Waiting::Udp(socket) => match server.reception.listen(shard, socket) {
            Ok(clients) => listener::listen(&server, RefCell::new(clients)),
            Err(error) => {
                let text = format_args!("vmess [{}] cannot take datagrams: {error}", inbound.tag);
                shard.shared.log(LogLevel::Error, text);
                listener::deaf(shard)
            }
        },
    };
    listeners.into_iter().map(listen).collect()
}

/// What the sessions of one inbound on one shard share.
pub(super) struct Server {
    shard: Rc<Shard>,
    tag: Arc<str>,
    /// What clients come on.
    reception: Arc<Reception>,
    gate: Arc<SharedGate>,
    limits: Arc<Limits>,
    /// Whether bodies that are not sealed are refused.
    sealed_only: bool,
    /// The inbound whose ports and accounts clients are told of.
    detour: Option<Arc<str>>,
    scratch: RefCell<Box<[u8]>>,
    drains: Drains,
    strangers: Strangers,
    /// The UDP sources that have names and live on this shard.
    sources: xudp::Sources,
}

/// A limit of the server's.
#[derive(Debug, Clone, Copy)]
enum Limit {
    Quota,
    Replays,
    User,
    Source,
    Memory,
    Descriptors,
    /// What the clock shows is behind what it has shown.
    Clock(i64),
}

impl Limit {
    /// Its place among [`SharedGate::is_news`]'s, and what the host is told.
    fn tell(self, tag: &str) -> (usize, Event) {
        let (place, what) = match self {
            Self::Quota => (0, "new connections of a user in 5 minutes"),
            Self::Replays => (1, "new connections of all users in 5 minutes"),
            Self::User => (2, "connections of a user"),
            Self::Source => (3, "connections of a source address"),
            Self::Memory => (4, "payload memory for another connection"),
            Self::Descriptors => (6, "file descriptors for another flow"),
            Self::Clock(back) => return (5, Event::ClockSkew { seconds: back.saturating_neg() }),
        };
        (place, Event::ResourceLimit { what: format!("{what} at [{tag}]") })
    }

    /// Tells the host that it has been reached, unless it was told lately.
    fn report(self, shard: &Shard, gate: &SharedGate, tag: &str) {
        let (place, event) = self.tell(tag);
        if gate.is_news(place, shard.clock.now(), TELL_EVERY) {
            shard.shared.emit(event);
        }
    }
}

impl Server {
    fn new(
        shard: &Rc<Shard>,
        inbound: &Inbound,
        settings: &VmessInbound,
        reception: Arc<Reception>,
    ) -> Rc<Self> {
        let gate = shard.shared.gates.open(shard, &inbound.tag, settings);
        let (sources, visits) = xudp::Sources::new(Arc::clone(&gate));
        let server = Rc::new(Self {
            shard: Rc::clone(shard),
            tag: Arc::clone(&inbound.tag),
            reception,
            gate,
            limits: Arc::clone(&shard.shared.limits),
            sealed_only: settings.disable_insecure_encryption,
            detour: settings.detour.clone(),
            scratch: RefCell::new(vec![0; SCRATCH].into()),
            drains: Drains::default(),
            strangers: Strangers::default(),
            sources,
        });
        shard.spawn(xudp::receive(Rc::downgrade(&server), visits));
        server
    }

    /// How long after accept a client that has not proved itself sees our end: the handshake time of level 0, less this
    /// server's secret, so that the time does not tell the software.
    fn patience(&self) -> Duration {
        let handshake = self.shard.live().config.policy.server_level(0).handshake;
        let secret = Duration::from_millis(self.gate.drain_secret_millis());
        let share = handshake.min(SECRET_FOR).as_secs_f64() / SECRET_FOR.as_secs_f64();
        handshake.saturating_sub(secret.mul_f64(share))
    }

    /// What a user is told of another port and account.
    fn handout(&self, email: &str) -> Option<SwitchAccount> {
        let detour = self.detour.as_ref()?;
        self.shard.with_entropy(|entropy| {
            self.shard.shared.offers.hand_out(&self.shard.shared, detour, email, entropy)
        })
    }

    /// Tells the host that a limit has been reached, unless it was told lately.
    fn tell(&self, limit: Limit) {
        limit.report(&self.shard, &self.gate, &self.tag);
    }

    /// Tells the host what it should know of a stranger's refusal.
    fn tell_refusal(&self, refusal: Refusal) {
        let Refusal { quota_of, memory_full, clock_set_back } = refusal;
        let limits = [
            quota_of.map(|_| Limit::Quota),
            memory_full.then_some(Limit::Replays),
            clock_set_back.map(Limit::Clock),
        ];
        limits.into_iter().flatten().for_each(|limit| self.tell(limit));
    }
}

impl Serve for Server {
    const PROTOCOL: &'static str = "vmess";

    fn shard(&self) -> &Rc<Shard> {
        &self.shard
    }

    fn tag(&self) -> &str {
        &self.tag
    }
}

impl ServeOn<TcpStream> for Server {
    fn serve(
        self: Rc<Self>,
        stream: TcpStream,
        source: SocketAddr,
        accepted: Instant,
    ) -> impl Future<Output = ()> + 'static {
        session::arrive(self, stream, source, accepted)
    }
}

impl ServeOn<Box<dyn Carrier>> for Server {
    fn serve(
        self: Rc<Self>,
        carrier: Box<dyn Carrier>,
        source: SocketAddr,
        accepted: Instant,
    ) -> impl Future<Output = ()> + 'static {
        session::receive(self, carrier, source, accepted)
    }
}

impl ServeOn<UnixStream> for Server {
    fn serve(
        self: Rc<Self>,
        stream: UnixStream,
        source: SocketAddr,
        accepted: Instant,
    ) -> impl Future<Output = ()> + 'static {
        // Boxed even where it is bare: another kind of connection, made for this socket, is not worth its size.
        session::receive(self, Box::new(UnixCarrier::new(stream)), source, accepted)
    }
}

#[cfg(test)]
mod tests;
