//! Mux for clients: each session of a carrier is a flow of its own, routed by itself.

use super::{Limit, Server, cone, xudp};
use crate::addr::Network;
use crate::config::LogLevel;
use crate::engine::dispatch::{self, Flow, FlowUser};
use crate::mux::CARRIER_NAME;
use crate::transport::Stream;
use crate::transport::mux::{Accepted, Link, run};
use crate::vmess::Id;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

/// Whether a TCP request for this host is a mux carrier: V2Ray marks it by name too, whatever the port.
pub(super) fn is_carrier(target: &crate::addr::Target) -> bool {
    target.host.domain() == Some(CARRIER_NAME)
}

/// Serves a carrier until it has ended. `owner` is the user's id: nobody else gets at the sockets that are kept for it.
pub(super) async fn serve(
    server: Rc<Server>,
    stream: Box<dyn Stream>,
    owner: Id,
    user: Rc<FlowUser>,
    source: SocketAddr,
) {
    let link = Link::server(&server.shard);
    let on = Rc::clone(&server);
    let result = run(link, stream, move |accepted| accept(&on, accepted, &owner, &user, source)).await;
    if let Err(error) = result {
        let (shared, tag) = (&server.shard.shared, &server.tag);
        shared.log(LogLevel::Debug, format_args!("vmess [{tag}]: a mux carrier of {source}: {error}"));
    }
}

/// Starts serving a session that the client has opened.
fn accept(server: &Rc<Server>, accepted: Accepted, owner: &Id, user: &Rc<FlowUser>, source: SocketAddr) {
    let Accepted { mut session, network, target, global_id } = accepted;
    let shard = &server.shard;
    match network {
        Network::Tcp => {
            let flow = Flow {
                network,
                source,
                target,
                inbound: Arc::clone(&server.tag),
                accepted: shard.clock.now(),
                user: Some(Rc::clone(user)),
            };
            let outbound = dispatch::route(shard, &flow);
            if !outbound.admits(flow.accepted) || shard.pool.is_nearly_full() {
                return session.abort();
            }
            let Some(taken) = shard.shared.descriptors.for_flow() else {
                server.tell(Limit::Descriptors);
                return session.abort();
            };
            let serving = dispatch::serve_stream(Rc::clone(shard), flow, outbound, Box::new(session));
            shard.spawn(async move {
                serving.await;
                drop(taken);
            });
        }
        Network::Udp => {
            let origin = cone::Origin {
                shard: Rc::clone(shard),
                inbound: Arc::clone(&server.tag),
                gate: Arc::clone(&server.gate),
                user: Rc::clone(user),
                client: source,
            };
            let key = global_id.map(|id| (owner.clone(), id));
            let datagrams = session.into_datagrams(target, true);
            shard.spawn(xudp::serve(Rc::clone(server), datagrams, key, origin));
        }
    }
}

#[cfg(test)]
mod tests;
