//! The SOCKS5 inbound: CONNECT and UDP ASSOCIATE, without authentication or with user name and password.
//!
//! `wire` and `handshake` are the protocol, pure; `session` is one client's connection, `associate` its datagrams,
//! `early` what it sent ahead of our reply.

mod associate;
mod early;
mod handshake;
mod session;
mod wire;

use super::super::Shard;
use super::listener::{self, Listening, Serve, ServeOn};
use crate::config::{Inbound, Socks};
use associate::Associations;
use handshake::Accounts;
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

/// Serves the clients of a listening socket from now on.
pub(crate) fn listen(
    shard: &Rc<Shard>,
    inbound: &Inbound,
    settings: &Socks,
    listener: TcpListener,
) -> Listening {
    let server = Rc::new(Server {
        shard: Rc::clone(shard),
        tag: Arc::clone(&inbound.tag),
        accounts: Accounts::new(&settings.accounts),
        udp: settings.udp,
        announced: settings.ip,
        level: settings.level,
        associations: Associations::default(),
    });
    listener::listen(&server, listener)
}

/// What the sessions of one listener share.
struct Server {
    shard: Rc<Shard>,
    tag: Arc<str>,
    accounts: Accounts,
    udp: bool,
    /// The address announced for UDP.
    announced: Option<IpAddr>,
    level: u32,
    associations: Associations,
}

impl Server {
    /// How long a client's handshake may take.
    fn patience(&self) -> Duration {
        let live = self.shard.live();
        live.config.policy.levels.get(&self.level).copied().unwrap_or_default().handshake
    }
}

impl Serve for Server {
    const PROTOCOL: &'static str = "socks";

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
        _: Instant,
    ) -> impl Future<Output = ()> + 'static {
        session::serve(self, stream, source)
    }
}

#[cfg(test)]
mod tests;
