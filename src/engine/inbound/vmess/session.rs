//! One client's connection: the door, its request, and what comes of it.

use super::drain::{dismiss, drain};
use super::greeting::{Greeting, greet};
use super::limits::Seat;
use super::strangers::Stranger;
use super::{Limit, Server, cone, datagrams, mux, packetaddr};
use crate::addr::{Network, Target};
use crate::buffer::Buffer;
use crate::config::LogLevel;
use crate::engine::dispatch::{self, Flow, FlowUser};
use crate::transport::sealed::{ServerDatagrams, ServerStream};
use crate::transport::tcp::TcpCarrier;
use crate::transport::{Accepted as Received, Arrivals, Carrier, Clients, Stream};
use crate::vmess::command::SWITCH_ACCOUNT;
use crate::vmess::gate::{Accepted, User};
use crate::vmess::response::ResponseHeader;
use crate::vmess::server::{self, Connection, HeaderKind};
use crate::vmess::{Command, Id, Security};
use std::future::{Future, poll_fn, ready};
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

/// Serves what comes on a socket until it is over.
pub(super) fn arrive(
    server: Rc<Server>,
    socket: TcpStream,
    source: SocketAddr,
    accepted: Instant,
) -> Serving {
    // No `async fn`, which would keep room for either and for everything that passes through here.
    if server.reception.is_bare() {
        let seat = take_seat(&server, source);
        Box::pin(serve(server, TcpCarrier::new(socket), source, accepted, seat, None))
    } else {
        Box::pin(receive(server, Box::new(TcpCarrier::new(socket)), source, accepted))
    }
}

/// Does what the transport wants, then serves its client or clients.
pub(super) async fn receive(
    server: Rc<Server>,
    mut below: Box<dyn Carrier>,
    source: SocketAddr,
    accepted: Instant,
) {
    // A balancer's connections are its clients', who are not known yet.
    let tells_source = server.reception.tells_source();
    let mut seat = if tells_source { Some(Seat::Free) } else { take_seat(&server, source) };
    if seat.is_none() {
        return dismiss(&server, &mut below).await;
    }
    let deadline = accepted + server.patience();
    let stranger = Stranger::enter(&server);
    let accepting = Box::pin(server.reception.accept(&server.shard, below, source, deadline));
    let received = tokio::select! {
        biased;
        received = accepting => received,
        () = stranger.must_leave() => return,
    };
    drop(stranger);
    let Received { clients, source } = match received {
        Ok(received) => received,
        Err(error) => {
            let text = format_args!("vmess [{}] from {source}: {error}", server.tag);
            return server.shard.shared.log(LogLevel::Debug, text);
        }
    };
    if tells_source {
        seat = take_seat(&server, source);
    }
    match clients {
        Clients::One(carrier) => serve(server, carrier, source, accepted, seat, None).await,
        Clients::Many(arrivals) if seat.is_some() => serve_all(&server, arrivals, source).await,
        Clients::Many(_) => {}
    }
}

/// Serves the clients of one connection. Until one of them is a user, all of it is a stranger's.
async fn serve_all(server: &Rc<Server>, mut arrivals: Box<dyn Arrivals>, source: SocketAddr) {
    let (known, mut stranger) = (Rc::new(Notify::new()), Some(Stranger::enter(server)));
    loop {
        let arriving = poll_fn(|cx| arrivals.poll_next(cx));
        let arrived = match &stranger {
            None => arriving.await,
            Some(waiting) => tokio::select! {
                biased;
                arrived = arriving => arrived,
                () = known.notified() => {
                    stranger = None;
                    continue;
                }
                () = waiting.must_leave() => None,
            },
        };
        let Some(carrier) = arrived else { return };
        let free = Some(Seat::Free);
        let session =
            serve(Rc::clone(server), carrier, source, Instant::now(), free, Some(Rc::clone(&known)));
        server.shard.spawn(session);
    }
}

/// Counts a connection from an address; `None` if there are too many.
fn take_seat(server: &Server, source: SocketAddr) -> Option<Seat> {
    let limit = server.shard.live().config.vmesskit.connections_per_source;
    // Who comes from nowhere is not counted: all of a proxy's clients do.
    let limit = if source.ip().is_unspecified() { 0 } else { limit };
    let seat = server.limits.source(source.ip(), limit);
    if seat.is_none() {
        server.tell(Limit::Source);
    }
    seat
}

/// Serves a client until its connection is over; without a seat it is sent away at once. `known` is told that it is a user.
async fn serve<C: Carrier + 'static>(
    server: Rc<Server>,
    mut carrier: C,
    source: SocketAddr,
    accepted: Instant,
    seat: Option<Seat>,
    known: Option<Rc<Notify>>,
) {
    if seat.is_none() {
        return Box::pin(dismiss(&server, &mut carrier)).await;
    }
    let deadline = accepted + server.patience();
    // Boxed for as long as it lasts: what it holds is not to be in every connection's memory for ever.
    let begun = Box::pin(admit(&server, carrier, source, deadline)).await;
    if let Some((serving, _seat)) = begun {
        known.iter().for_each(|known| known.notify_one());
        drop((server, known));
        serving.await;
    }
    drop(seat);
}

/// Waits at the door: what serves the client, unless it is over with it.
async fn admit<C: Carrier + 'static>(
    server: &Rc<Server>,
    mut carrier: C,
    source: SocketAddr,
    deadline: Instant,
) -> Option<(Serving, Seat)> {
    let stranger = Stranger::enter(server);
    let greeting = tokio::select! {
        biased;
        greeting = timeout_at(deadline, greet(server, &mut carrier)) => greeting.unwrap_or(Greeting::Stranger),
        () = stranger.must_leave() => {
            dismiss(server, &mut carrier).await;
            return None;
        }
    };
    let mut refused = match greeting {
        Greeting::Known(accepted, early) => {
            let kind = accepted.kind;
            match begin(server, carrier, source, accepted, early) {
                Ok(begun) => return Some(begun),
                // A legacy header proves nothing but its time: whoever changed the rest is not to learn that.
                Err(carrier) if kind == HeaderKind::Legacy => carrier,
                Err(mut carrier) => {
                    dismiss(server, &mut carrier).await;
                    return None;
                }
            }
        }
        Greeting::Stranger => {
            let text = format_args!("vmess [{}] from {source}: not a user", server.tag);
            server.shard.shared.log(LogLevel::Debug, text);
            carrier
        }
        Greeting::Invalid => {
            dismiss(server, &mut carrier).await;
            return None;
        }
        Greeting::Gone => return None,
    };
    tokio::select! {
        biased;
        () = drain(server, &mut refused, deadline) => {}
        () = stranger.must_leave() => dismiss(server, &mut refused).await,
    }
    None
}

/// What serves a request until its connection is over.
type Serving = Pin<Box<dyn Future<Output = ()>>>;

/// A user's request that is to be served.
struct Admitted {
    user: Rc<FlowUser>,
    owner: Id,
    command: Command,
    target: Option<Target>,
    connection: Connection,
    early: Buffer,
    seat: Seat,
}

impl Admitted {
    /// Judges a request that is authentic; `None` if it is not served.
    fn new(server: &Server, accepted: &Accepted, early: Buffer) -> Option<Self> {
        let shared = &server.shard.shared;
        let (request, tag) = (&accepted.request, &server.tag);
        let user = accepted.user.get(accepted.index)?;
        let bare = matches!(request.security, Security::None | Security::Zero | Security::Aes128Cfb);
        if server.sealed_only && bare {
            let text = format_args!("vmess [{tag}]: a user's request asks for an unsealed body");
            shared.log(LogLevel::Debug, text);
            return None;
        }
        let limit = server.shard.live().config.vmesskit.connections_per_user;
        let Some(seat) = server.limits.user(&user.id, limit) else {
            server.tell(Limit::User);
            return None;
        };
        if server.shard.pool.is_nearly_full() {
            server.tell(Limit::Memory);
            return None;
        }
        let command = server.handout(&user.email).map(|account| account.encode());
        let accept = ResponseHeader::accept(request.token);
        let answer = match &command {
            Some(payload) => ResponseHeader { command: SWITCH_ACCOUNT, payload, ..accept },
            None => accept,
        };
        let connection = server::accept(request, accepted.kind, &answer, user.no_termination_signal)
            .inspect_err(|error| {
                let text = format_args!("vmess [{tag}]: a user's request is invalid: {error}");
                shared.log(LogLevel::Debug, text);
            })
            .ok()?;
        let (owner, user) = (user.id.clone(), Rc::new(flow_user(server, user)));
        let (command, target) = (request.command, request.target.clone());
        Some(Self { user, owner, command, target, connection, early, seat })
    }
}

/// What flows need of a user.
fn flow_user(server: &Server, user: &User) -> FlowUser {
    let level = server.shard.live().config.policy.server_level(user.level);
    let traffic = server.shard.shared.stats.user(&user.email, &level);
    FlowUser { email: Arc::clone(&user.email), level, traffic }
}

/// Begins to serve a request; gives the connection back if it is not served. No `async fn`, which would keep room for
/// everything that passes through here.
fn begin<C: Carrier + 'static>(
    server: &Rc<Server>,
    carrier: C,
    source: SocketAddr,
    accepted: Box<Accepted>,
    early: Buffer,
) -> Result<(Serving, Seat), C> {
    let Some(admitted) = Admitted::new(server, &accepted, early) else { return Err(carrier) };
    let Admitted { user, owner, command, target, connection, early, seat } = admitted;
    let shard = Rc::clone(&server.shard);
    let serving: Serving = match (command, target) {
        (command, target) if is_mux(command, target.as_ref()) => {
            let local = ServerStream::new(carrier, shard, connection, early);
            Box::pin(mux::serve(Rc::clone(server), Box::new(local), owner, user, source))
        }
        (Command::Tcp, Some(target)) => {
            let mut local = Box::new(ServerStream::new(carrier, Rc::clone(&shard), connection, early));
            let flow = flow(server, Network::Tcp, source, target, user);
            let outbound = dispatch::route(&shard, &flow);
            if outbound.admits(shard.clock.now()) {
                Box::pin(dispatch::serve_stream(shard, flow, outbound, local))
            } else {
                local.abort();
                Box::pin(ready(()))
            }
        }
        (Command::Udp, Some(target)) if packetaddr::is_marker(&target) => {
            let inbound = Arc::clone(&server.tag);
            let gate = Arc::clone(&server.gate);
            let origin = cone::Origin { shard: Rc::clone(&shard), inbound, gate, user, client: source };
            let marker = target.clone();
            let local = ServerDatagrams::new_server(carrier, shard, connection, early, target);
            Box::pin(packetaddr::serve(Box::new(local), marker, origin))
        }
        (Command::Udp, Some(target)) => {
            let flow = flow(server, Network::Udp, source, target.clone(), user);
            let local = ServerDatagrams::new_server(carrier, Rc::clone(&shard), connection, early, target);
            let outbound = dispatch::route(&shard, &flow);
            Box::pin(datagrams::serve(shard, flow, outbound, Box::new(local)))
        }
        // No header is read like that.
        (_, None) | (Command::Mux, _) => return Err(carrier),
    };
    Ok((serving, seat))
}

/// Whether a request is a mux carrier, by its command or, as V2Ray marks it too, by its target.
fn is_mux(command: Command, target: Option<&Target>) -> bool {
    command == Command::Mux || command == Command::Tcp && target.is_some_and(mux::is_carrier)
}

/// A flow of a user's.
fn flow(server: &Server, network: Network, source: SocketAddr, target: Target, user: Rc<FlowUser>) -> Flow {
    let accepted = server.shard.clock.now();
    Flow { network, source, target, inbound: Arc::clone(&server.tag), accepted, user: Some(user) }
}
