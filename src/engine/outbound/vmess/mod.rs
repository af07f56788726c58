//! The `vmess` outbound: flows go through VMess servers, on a carrier each or, with mux, several on one ([`mux`]).
//!
//! Servers take turns, a connection each; if one cannot be reached the next one is tried within the same deadline. Each
//! connection draws one of its server's users at random. What servers tell of other ports of theirs is in [`learned`].

mod learned;
mod mux;

use super::backoff::Backoff;
use super::{Answer, Cone, LocalFuture, OpenError, OpenedStream, Outbound, level};
use crate::addr::{Host, Network, Target};
use crate::config::{self, Level, PacketEncoding, Xudp443};
use crate::engine::shard::Shard;
use crate::engine::skew;
use crate::error::{Error, ErrorKind, Stage};
use crate::mux::xudp::BaseKey;
use crate::mux::{GlobalId, Opening, packetaddr};
use crate::time::Moment;
use crate::transport;
use crate::transport::dial::{self, DialError};
use crate::transport::packets::Packets;
use crate::transport::sealed::{SealedDatagrams, SealedStream, Witness};
use crate::transport::{Connected, Datagrams, Stream};
use crate::vmess::account::AlterIds;
use crate::vmess::client::{self, Connection, Request};
use crate::vmess::command::SwitchAccount;
use crate::vmess::header::hardware_aes;
use crate::vmess::{CmdKey, Command, Security};
use learned::Learned;
use std::cell::{Cell, OnceCell};
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tokio::time::Instant;

/// A VMess outbound.
pub(super) struct Vmess {
    tag: Arc<str>,
    servers: Vec<Rc<Server>>,
    /// The outbound that they are dialled through.
    via: Option<Rc<dyn Outbound>>,
    learned: Rc<Learned<Server>>,
    next: Cell<usize>,
    backoff: Backoff,
    ways: Ways,
    streams: Option<Rc<mux::Carriers>>,
    datagrams: Option<Rc<mux::Carriers>>,
    base_key: OnceCell<BaseKey>,
}

/// How datagrams go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// On a connection that is bound to the target.
    Native,
    /// On a connection of the source's own, each with an address.
    PacketAddr,
    /// The same in mux frames.
    Xudp,
    /// In a session that is bound to the target.
    Mux,
    /// In a session of the source's own, each with an address.
    MuxXudp,
    /// Not at all.
    Refused,
}

/// What the config says of the ways of datagrams.
struct Ways {
    encoding: PacketEncoding,
    muxed: bool,
    /// Whether sessions carry addresses.
    xudp: bool,
    udp443: Xudp443,
}

impl Ways {
    fn pick(&self, target: &Target) -> Way {
        if self.muxed && target.port == 443 && self.udp443 != Xudp443::Allow {
            return if self.udp443 == Xudp443::Reject { Way::Refused } else { Way::Native };
        }
        // Questions to a resolver gain nothing from a shared source, and a flow each suits every server.
        let dns = target.port == 53;
        match self.encoding {
            _ if self.muxed && self.xudp && !dns => Way::MuxXudp,
            PacketEncoding::PacketAddr if !dns && target.host.ip().is_some() => Way::PacketAddr,
            _ if self.muxed => Way::Mux,
            PacketEncoding::Xudp if !dns => Way::Xudp,
            _ => Way::Native,
        }
    }
}

struct Server {
    way: Rc<transport::Way>,
    users: Vec<User>,
    /// Whether it has ever ended a TCP stream with a terminating chunk.
    terminates: Rc<Cell<bool>>,
    /// Whether it has refused us, so that our clock is in doubt.
    refused: Rc<Cell<bool>>,
}

#[derive(Clone)]
struct User {
    cmd_key: CmdKey,
    /// Empty for a user of AEAD headers.
    alter_ids: AlterIds,
    security: Security,
    level: u32,
    authenticated_length: bool,
    no_termination_signal: bool,
}

/// A connected carrier and the VMess connection to run on it.
struct Dialled {
    carrier: Connected,
    connection: Connection,
    witness: Rc<dyn Witness>,
    level: Level,
}

impl Vmess {
    /// Makes the outbound; derives the users' keys.
    ///
    /// # Errors
    /// [`transport::Way::new`]'s.
    pub(super) fn new(
        outbound: &config::Outbound,
        settings: &config::Vmess,
        via: Option<Rc<dyn Outbound>>,
    ) -> Result<Self, Error> {
        let (tag, mux, hardware_aes) = (Arc::clone(&outbound.tag), outbound.mux, hardware_aes());
        let server = |server| Ok(Rc::new(Server::new(outbound, server, via.as_ref(), hardware_aes)?));
        let servers = settings.servers.iter().map(server).collect::<Result<Vec<Rc<Server>>, Error>>()?;
        let patience = u32::try_from(servers.len()).unwrap_or(u32::MAX);
        let shared = |concurrency: u16| (concurrency > 0).then(|| Rc::new(mux::Carriers::new(concurrency)));
        let streams = mux.and_then(|mux| shared(mux.concurrency));
        let datagrams = match mux.map(|mux| mux.xudp_concurrency) {
            Some(Some(concurrency)) => shared(concurrency),
            Some(None) => streams.clone(),
            None => None,
        };
        let ways = Ways {
            encoding: settings.packet_encoding,
            muxed: datagrams.is_some(),
            xudp: settings.packet_encoding == PacketEncoding::Xudp
                || mux.is_some_and(|mux| mux.xudp_concurrency.is_some()),
            udp443: mux.map_or(Xudp443::Allow, |mux| mux.xudp_udp443),
        };
        let (next, backoff) = (Cell::new(0), Backoff::new(patience));
        let learned = Rc::default();
        let base_key = OnceCell::new();
        Ok(Self { tag, servers, via, learned, next, backoff, ways, streams, datagrams, base_key })
    }

    /// Connects the next server and makes a request of it.
    async fn dial(&self, shard: &Rc<Shard>, command: Command, target: Target) -> Result<Dialled, OpenError> {
        let began = shard.clock.now();
        let result = self.dial_any(shard).await;
        let (server, carrier) = match result {
            Ok(connected) => connected,
            Err(failed) => {
                shard.shared.stats.dial_failures.fetch_add(1, Relaxed);
                let now = shard.clock.now();
                shard.with_entropy(|entropy| self.backoff.failed(began, now, entropy));
                shard.health.dial_failed(&self.tag, &failed.error);
                return Err(OpenError { error: failed.error, answer: Answer::Failed });
            }
        };
        shard.shared.stats.dials.fetch_add(1, Relaxed);
        self.backoff.reset();
        let picked = shard.with_entropy(|entropy| entropy.below(server.users.len() as u32));
        let user =
            server.users.get(picked as usize).expect("drawn below the number of users, which is not zero");
        let connection = user
            .connect(shard, server.unix_secs(shard), command, target)
            .map_err(|error| OpenError { error, answer: Answer::Failed })?;
        let witness = Rc::new(Watch {
            shard: Rc::clone(shard),
            outbound: Arc::clone(&self.tag),
            learned: Rc::clone(&self.learned),
            server: Rc::clone(&server),
            user: picked as usize,
        });
        Ok(Dialled { carrier, connection, witness, level: level(shard, user.level) })
    }

    /// A UDP flow in a session of a shared carrier.
    async fn open_session(
        self: Rc<Self>,
        shard: Rc<Shard>,
        opening: Opening,
        target: Target,
        named: bool,
    ) -> Result<Box<dyn Datagrams>, OpenError> {
        let carriers = self.datagrams.as_ref().expect("a way that needs carriers is picked where there are");
        let (session, _) = mux::open(&self, carriers, &shard, &opening).await?;
        Ok(Box::new(session.into_datagrams(target, named)))
    }

    /// What servers are to call the source.
    fn global_id(&self, shard: &Shard, source: SocketAddr) -> GlobalId {
        let key = self.base_key.get_or_init(|| {
            let mut key = [0; 32];
            shard.with_entropy(|entropy| entropy.fill(&mut key));
            BaseKey::new(key)
        });
        key.global_id(source)
    }

    /// Connects one server, beginning with the one whose turn it is: a configured one or one that was learned.
    ///
    /// # Errors
    /// The failure of the last one tried.
    async fn dial_any(&self, shard: &Rc<Shard>) -> Result<(Rc<Server>, Connected), DialError> {
        let started = Instant::now();
        let turn = self.next.get();
        self.next.set(turn.wrapping_add(1));
        let configured = self.servers.len();
        let count = configured + self.learned.count(shard.clock.now());
        // They are numbered before any is tried, since one that fails is forgotten.
        let candidates: Vec<Rc<Server>> = (0..count)
            .filter_map(|step| {
                let at = turn.wrapping_add(step) % count;
                self.servers.get(at).cloned().or_else(|| self.learned.get(at.checked_sub(configured)?))
            })
            .collect();
        let mut failed = None;
        for (step, server) in candidates.into_iter().enumerate() {
            // What is left is shared among those that are left; who fails early leaves more to the others.
            let left = server.deadline(shard).saturating_sub(started.elapsed());
            let share = left / u32::try_from(count - step).unwrap_or(u32::MAX);
            match server.way.connect(shard, Instant::now() + share).await {
                Ok(carrier) => return Ok((server, carrier)),
                Err(error) => {
                    self.learned.forget(&server);
                    failed = Some(error);
                }
            }
        }
        let nothing =
            || DialError::new(Stage::Connect, io::ErrorKind::NotFound, started, "no server is configured");
        Err(failed.unwrap_or_else(nothing))
    }
}

impl Dialled {
    /// A TCP flow on it.
    fn into_stream(self, shard: Rc<Shard>) -> Box<dyn Stream> {
        let Self { carrier, connection, witness, .. } = self;
        match carrier {
            Connected::Tcp(carrier) => Box::new(SealedStream::new(carrier, shard, connection, witness)),
            Connected::Layered(carrier) => Box::new(SealedStream::new(carrier, shard, connection, witness)),
        }
    }

    /// A UDP flow on it.
    fn into_datagrams(self, shard: Rc<Shard>, target: Target) -> Box<dyn Datagrams> {
        let Self { carrier, connection, witness, .. } = self;
        match carrier {
            Connected::Tcp(carrier) => {
                Box::new(SealedDatagrams::new(carrier, shard, connection, witness, target))
            }
            Connected::Layered(carrier) => {
                Box::new(SealedDatagrams::new(carrier, shard, connection, witness, target))
            }
        }
    }
}

impl Server {
    fn new(
        outbound: &config::Outbound,
        server: &config::VmessServer,
        via: Option<&Rc<dyn Outbound>>,
        hardware_aes: bool,
    ) -> Result<Self, Error> {
        let users = server.users.iter().map(|user| User::new(user, hardware_aes)).collect();
        let way = Rc::new(transport::Way::new(outbound, server.target.clone(), via)?);
        Ok(Self { way, users, terminates: Rc::default(), refused: Rc::default() })
    }

    /// UTC as this server is to be told it: by our own clock, unless it has refused us and a time server may correct that.
    fn unix_secs(&self, shard: &Shard) -> i64 {
        let corrected = self.refused.get().then(|| shard.shared.skew.unix_secs(shard)).flatten();
        corrected.unwrap_or_else(|| shard.clock.unix_secs())
    }

    /// The same host on another port, where this server knows a user by another account. All else that is configured for
    /// that user holds there too.
    fn moved(&self, user: &User, account: &SwitchAccount) -> Self {
        let user = User {
            cmd_key: account.id.cmd_key(),
            alter_ids: AlterIds::new(&account.id, account.alter_ids),
            ..user.clone()
        };
        Self {
            way: Rc::new(self.way.at_port(account.port)),
            users: vec![user],
            terminates: Rc::clone(&self.terminates),
            refused: Rc::clone(&self.refused),
        }
    }

    /// How long setting a connection up may take: the shortest `handshake` of its users, 10 s at most.
    fn deadline(&self, shard: &Shard) -> Duration {
        self.users.iter().map(|user| level(shard, user.level).handshake).fold(dial::DEADLINE, Duration::min)
    }
}

impl User {
    fn new(user: &config::VmessUser, hardware_aes: bool) -> Self {
        Self {
            cmd_key: user.id.cmd_key(),
            alter_ids: AlterIds::new(&user.id, user.alter_id),
            security: user.security.resolve(hardware_aes),
            level: user.level,
            authenticated_length: user.authenticated_length,
            no_termination_signal: user.no_termination_signal,
        }
    }

    /// Makes a request of this user, under the header that its alterId asks for.
    ///
    /// # Errors
    /// `Unsupported` if the target has no form on the wire.
    fn connect(
        &self,
        shard: &Shard,
        unix_secs: i64,
        command: Command,
        target: Target,
    ) -> Result<Connection, Error> {
        let none_chunked = shard.live().config.vmesskit.none_chunked;
        let request = Request::new(
            command,
            target,
            self.security,
            self.authenticated_length,
            none_chunked,
            self.no_termination_signal,
        );
        let made = shard.with_entropy(|entropy| match self.alter_ids.draw(entropy) {
            Some(id) => client::connect_legacy(&self.cmd_key, id, &request, unix_secs, entropy),
            None => client::connect(&self.cmd_key, &request, unix_secs, entropy),
        });
        made.map_err(|error| {
            Error::new(ErrorKind::Unsupported, "a request could not be made").with_reason(error.to_string())
        })
    }
}

impl Outbound for Vmess {
    fn tag(&self) -> &Arc<str> {
        &self.tag
    }

    fn connects_target(&self) -> bool {
        false
    }

    fn admits(&self, now: Moment) -> bool {
        self.backoff.admits(now) && self.via.as_ref().is_none_or(|via| via.admits(now))
    }

    fn network_changed(&self) {
        self.backoff.reset();
        self.streams.iter().chain(&self.datagrams).for_each(|carriers| carriers.retire());
        self.servers.iter().for_each(|server| server.way.network_changed());
    }

    fn open_stream(
        self: Rc<Self>,
        shard: Rc<Shard>,
        target: Target,
    ) -> LocalFuture<Result<OpenedStream, OpenError>> {
        Box::pin(async move {
            if let Some(carriers) = &self.streams {
                let opening = Opening { network: Network::Tcp, target: Some(target), global_id: None };
                let (session, level) = mux::open(&self, carriers, &shard, &opening).await?;
                return Ok(OpenedStream { stream: Box::new(session), level });
            }
            let dialled = self.dial(&shard, Command::Tcp, target).await?;
            let level = dialled.level;
            Ok(OpenedStream { stream: dialled.into_stream(shard), level })
        })
    }

    fn open_datagrams(
        self: Rc<Self>,
        shard: Rc<Shard>,
        target: Target,
    ) -> LocalFuture<Result<Box<dyn Datagrams>, OpenError>> {
        Box::pin(async move {
            match self.ways.pick(&target) {
                Way::Refused => return Err(refused()),
                Way::Mux | Way::MuxXudp => {
                    let opening =
                        Opening { network: Network::Udp, target: Some(target.clone()), global_id: None };
                    return self.open_session(shard, opening, target, false).await;
                }
                Way::Native | Way::PacketAddr | Way::Xudp => {}
            }
            let dialled = self.dial(&shard, Command::Udp, target.clone()).await?;
            Ok(dialled.into_datagrams(shard, target))
        })
    }

    fn cone(&self, target: &Target) -> Option<Cone> {
        matches!(self.ways.pick(target), Way::PacketAddr | Way::Xudp | Way::MuxXudp).then_some(Cone::Any)
    }

    fn open_cone(
        self: Rc<Self>,
        shard: Rc<Shard>,
        target: Target,
        source: SocketAddr,
    ) -> LocalFuture<Result<Box<dyn Datagrams>, OpenError>> {
        Box::pin(async move {
            let opening = |global_id| Opening {
                network: Network::Udp,
                target: Some(target.clone()),
                global_id: Some(global_id),
            };
            match self.ways.pick(&target) {
                Way::PacketAddr => {
                    let marker = Target { host: Host::Domain(packetaddr::MARKER.into()), port: 0 };
                    let dialled = self.dial(&shard, Command::Udp, marker.clone()).await?;
                    let pool = shard.pool.clone();
                    let flow = dialled.into_datagrams(shard, marker.clone());
                    Ok(Box::new(Packets::new(flow, marker, pool)) as Box<dyn Datagrams>)
                }
                Way::Xudp => {
                    let opening = opening(self.global_id(&shard, source));
                    let (session, _) = mux::open_alone(&self, &shard, opening).await?;
                    Ok(Box::new(session.into_datagrams(target, true)) as Box<dyn Datagrams>)
                }
                Way::MuxXudp => {
                    let opening = opening(self.global_id(&shard, source));
                    self.open_session(shard, opening, target, true).await
                }
                Way::Native | Way::Mux | Way::Refused => self.open_datagrams(shard, target).await,
            }
        })
    }
}

/// What a flow is told that the config refuses.
fn refused() -> OpenError {
    let error = Error::new(ErrorKind::Unsupported, "UDP to port 443 is refused by mux.xudpProxyUDP443");
    OpenError { error, answer: Answer::Forbidden }
}

/// Tells the shard's health what a server has proved.
struct Watch {
    shard: Rc<Shard>,
    outbound: Arc<str>,
    learned: Rc<Learned<Server>>,
    server: Rc<Server>,
    /// The place of the user among the server's.
    user: usize,
}

impl Watch {
    fn user(&self) -> &User {
        self.server.users.get(self.user).expect("it made the request")
    }
}

impl Witness for Watch {
    fn answered(&self) {
        self.shard.health.answered(&self.outbound);
    }

    fn unreachable(&self, error: &Error) {
        self.shard.shared.stats.dial_failures.fetch_add(1, Relaxed);
        self.shard.health.dial_failed(&self.outbound, error);
    }

    fn rejected(&self) {
        // What a server has told may not hold any more; that says nothing of the outbound.
        if !self.learned.forget(&self.server) {
            self.server.refused.set(true);
            skew::suspect(&self.shard);
            self.shard.health.rejected(&self.outbound, self.user().security);
        }
    }

    fn lost(&self) {
        self.shard.health.silent(&self.outbound);
    }

    fn terminated(&self) {
        self.server.terminates.set(true);
    }

    fn terminates(&self) -> bool {
        self.server.terminates.get()
    }

    fn offered(&self, account: SwitchAccount) {
        if !self.shard.live().config.vmesskit.dynamic_port {
            return;
        }
        let host = &self.server.way.server().host;
        self.learned.take_up(
            &account,
            self.shard.clock.now(),
            |known| known.way.server().host == *host,
            || self.server.moved(self.user(), &account),
        );
    }
}
