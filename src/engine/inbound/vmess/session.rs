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
use crate::transport::Stream;
use crate::transport::sealed::{ServerDatagrams, ServerStream};
use crate::transport::tcp::TcpCarrier;
use crate::vmess::command::SWITCH_ACCOUNT;
use crate::vmess::gate::{Accepted, User};
use crate::vmess::response::ResponseHeader;
use crate::vmess::server::{self, Connection, HeaderKind};
use crate::vmess::{Command, Id, Security};
use std::future::{Future, ready};
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

/// Serves a client until its connection is over.
pub(super) async fn serve(server: Rc<Server>, stream: TcpStream, source: SocketAddr, accepted: Instant) {
    let limit = server.shard.live().config.vmesskit.connections_per_source;
    let Some(_seat) = server.limits.source(source.ip(), limit) else {
        server.tell(Limit::Source);
        return dismiss(&server, &stream);
    };
    let deadline = accepted + server.patience();
    // Boxed for as long as it lasts: what it holds is not to be in every connection's memory for ever.
    let begun = Box::pin(admit(&server, stream, source, deadline)).await;
    if let Some((serving, _seat)) = begun {
        drop(server);
        serving.await;
    }
}

/// Waits at the door: what serves the client, unless it is over with it.
async fn admit(
    server: &Rc<Server>,
    stream: TcpStream,
    source: SocketAddr,
    deadline: Instant,
) -> Option<(Serving, Seat)> {
    let stranger = Stranger::enter(server);
    let greeting = tokio::select! {
        biased;
        greeting = timeout_at(deadline, greet(server, &stream)) => greeting.unwrap_or(Greeting::Stranger),
        () = stranger.must_leave() => {
            dismiss(server, &stream);
            return None;
        }
    };
    let refused = match greeting {
        Greeting::Known(accepted, early) => {
            let kind = accepted.kind;
            match begin(server, stream, source, accepted, early) {
                Ok(begun) => return Some(begun),
                // A legacy header proves nothing but its time: whoever changed the rest is not to learn that.
                Err(stream) if kind == HeaderKind::Legacy => stream,
                Err(stream) => {
                    dismiss(server, &stream);
                    return None;
                }
            }
        }
        Greeting::Stranger => {
            let text = format_args!("vmess [{}] from {source}: not a user", server.tag);
            server.shard.shared.log(LogLevel::Debug, text);
            stream
        }
        Greeting::Invalid => {
            dismiss(server, &stream);
            return None;
        }
        Greeting::Gone => return None,
    };
    tokio::select! {
        biased;
        () = drain(server, &refused, deadline) => {}
        () = stranger.must_leave() => dismiss(server, &refused),
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
fn begin(
    server: &Rc<Server>,
    stream: TcpStream,
    source: SocketAddr,
    accepted: Box<Accepted>,
    early: Buffer,
) -> Result<(Serving, Seat), TcpStream> {
    let Some(admitted) = Admitted::new(server, &accepted, early) else { return Err(stream) };
    let Admitted { user, owner, command, target, connection, early, seat } = admitted;
    let shard = Rc::clone(&server.shard);
    let serving: Serving = match (command, target) {
        (command, target) if is_mux(command, target.as_ref()) => {
            let local = ServerStream::new(TcpCarrier::new(stream), shard, connection, early);
            Box::pin(mux::serve(Rc::clone(server), Box::new(local), owner, user, source))
        }
        (Command::Tcp, Some(target)) => {
            let carrier = TcpCarrier::new(stream);
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
            let origin = cone::Origin { shard: Rc::clone(&shard), inbound, user, client: source };
            let carrier = TcpCarrier::new(stream);
            let marker = target.clone();
            let local = ServerDatagrams::new_server(carrier, shard, connection, early, target);
            Box::pin(packetaddr::serve(Box::new(local), marker, origin))
        }
        (Command::Udp, Some(target)) => {
            let flow = flow(server, Network::Udp, source, target.clone(), user);
            let carrier = TcpCarrier::new(stream);
            let local = ServerDatagrams::new_server(carrier, Rc::clone(&shard), connection, early, target);
            let outbound = dispatch::route(&shard, &flow);
            Box::pin(datagrams::serve(shard, flow, outbound, Box::new(local)))
        }
        // No header is read like that.
        (_, None) | (Command::Mux, _) => return Err(stream),
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
