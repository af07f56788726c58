//! The SOCKS5 inbound: CONNECT and UDP ASSOCIATE, without authentication or with user name and password.
//!
//! `wire` and `handshake` are the protocol, pure; `session` is one client's connection, `associate` its datagrams,
//! `early` what it sent ahead of our reply. Here is the listener.

mod associate;
mod early;
mod handshake;
mod session;
mod wire;

use super::super::Shard;
use crate::config::{Inbound, LogLevel, Socks};
use crate::error::{Error, ErrorKind};
use associate::Associations;
use handshake::Accounts;
use rustix::io::Errno;
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio::time::sleep;

/// How many connections wait to be accepted at most, if the system allows as many.
const BACKLOG: i32 = 4096;
/// The waits while the system has no descriptor or memory for another connection.
const EXHAUSTED_WAIT: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));
/// Descriptors kept for everything that is not a SOCKS connection.
const RESERVED_DESCRIPTORS: u64 = 64;
/// Descriptors that a connection takes: the client's and the outbound's.
const DESCRIPTORS_EACH: u64 = 2;
/// Clients that vanish without a word are noticed after about this time.
const KEEPALIVE: Duration = Duration::from_secs(60);

/// A listener at work. Dropping it stops accepting; connections that were accepted live on.
pub(crate) struct Listening {
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl Listening {
    /// The address that it listens on, with the port that the system chose if the config's is 0.
    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Stops accepting, and returns when the address is free again.
    pub(crate) async fn close(mut self) {
        self.task.abort();
        // It ends in no other way than by being aborted.
        let _ = (&mut self.task).await;
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Binds at once and accepts clients from then on.
///
/// # Errors
/// `ResourceLimit` if the address is in use or no descriptor is free, `ConfigInvalid` if it is not ours to listen on;
/// with the path of the inbound, and a hint.
pub(crate) fn listen(shard: &Rc<Shard>, inbound: &Inbound, settings: &Socks) -> Result<Listening, Error> {
    let refused = |error: io::Error| bind_error(shard, inbound, settings.listen, &error);
    let listener = bind(settings.listen).map_err(refused)?;
    let address = listener.local_addr().map_err(refused)?;
    let server = Rc::new(Server {
        shard: Rc::clone(shard),
        tag: Arc::clone(&inbound.tag),
        accounts: Accounts::new(&settings.accounts),
        udp: settings.udp,
        announced: settings.ip,
        level: settings.level,
        associations: Associations::default(),
    });
    let task = shard.spawn(accept(server, listener));
    let listening = Listening { address, task };
    shard
        .shared
        .log(LogLevel::Info, format_args!("socks [{}] listens on {}", inbound.tag, listening.address()));
    Ok(listening)
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

async fn accept(server: Rc<Server>, listener: TcpListener) {
    let slots = Arc::new(Semaphore::new(connection_limit()));
    let mut wait = EXHAUSTED_WAIT.0;
    loop {
        // Beyond the limit clients wait in the system's queue.
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, source)) => {
                wait = EXHAUSTED_WAIT.0;
                let session = Rc::clone(&server);
                server.shard.spawn(async move {
                    // Made in here: a future that is moved into another one takes its room twice there.
                    session::serve(session, stream, source).await;
                    drop(slot);
                });
            }
            Err(error) if is_about_one_client(&error) => {}
            Err(error) => {
                if wait == EXHAUSTED_WAIT.0 {
                    let tag = &server.tag;
                    server
                        .shard
                        .shared
                        .log(LogLevel::Warning, format_args!("socks [{tag}] cannot accept: {error}"));
                }
                sleep(wait).await;
                wait = (wait * 2).min(EXHAUSTED_WAIT.1);
            }
        }
    }
}

/// Whether an error of accept is the fate of one client, so that the next one can be accepted at once.
fn is_about_one_client(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(Errno::CONNABORTED | Errno::CONNRESET | Errno::INTR | Errno::PROTO)
    )
}

/// Makes the listening socket. What is set on it here, its connections inherit.
fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(!address.ip().is_unspecified())?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    let listener = TcpListener::from_std(socket.into())?;
    let socket = SockRef::from(&listener);
    // Both tune connections that work without them.
    let _ = socket.set_tcp_nodelay(true);
    let _ = socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE));
    Ok(listener)
}

fn bind_error(shard: &Shard, inbound: &Inbound, address: SocketAddr, error: &io::Error) -> Error {
    let (kind, hint) = match Errno::from_io_error(error) {
        Some(Errno::ADDRINUSE) => (
            ErrorKind::ResourceLimit { what: "listening port" },
            "another program listens on this port: stop it, or choose another port",
        ),
        Some(Errno::ACCESS | Errno::PERM) => {
            (ErrorKind::ConfigInvalid, "ports below 1024 need privileges: choose another port")
        }
        Some(Errno::ADDRNOTAVAIL) => (
            ErrorKind::ConfigInvalid,
            "this machine does not have the address: listen on 127.0.0.1, or on 0.0.0.0",
        ),
        Some(Errno::MFILE | Errno::NFILE) => {
            (ErrorKind::ResourceLimit { what: "file descriptors" }, "raise the process's limit of open files")
        }
        _ => (ErrorKind::ConfigInvalid, "check the inbound's listen and port"),
    };
    let index = shard.live().config.inbounds.iter().position(|other| other == inbound);
    Error::new(kind, format!("the socks inbound [{}] cannot listen on {address}", inbound.tag))
        .with_reason(error.to_string())
        .with_hint(hint)
        .with_path(index.map(|index| format!("inbounds[{index}].port")).unwrap_or_default())
}

/// How many connections the process's limit of descriptors leaves room for.
fn connection_limit() -> usize {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(u64::MAX);
    let room = limit.saturating_sub(RESERVED_DESCRIPTORS) / DESCRIPTORS_EACH;
    usize::try_from(room).unwrap_or(usize::MAX).clamp(16, 1 << 20)
}

#[cfg(test)]
mod tests;
