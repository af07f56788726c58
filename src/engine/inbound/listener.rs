//! The listening sockets of inbounds: binding, the accept loop, and what happens when the process runs out of descriptors.

use super::super::Shard;
use crate::config::{Inbound, LogLevel};
use crate::error::{Error, ErrorKind};
use rustix::io::Errno;
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::Interest;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

/// How many connections wait to be accepted at most, if the system allows as many.
const BACKLOG: i32 = 4096;
/// The waits while the system has no descriptor or memory for another connection.
const EXHAUSTED_WAIT: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));
/// Clients that vanish without a word are noticed after about this time.
const KEEPALIVE: Duration = Duration::from_secs(60);

/// What a listener does with the connections that it accepts.
pub(super) trait Serve: 'static {
    /// The protocol's name, for logs and errors.
    const PROTOCOL: &'static str;

    /// The shard that it runs on.
    fn shard(&self) -> &Rc<Shard>;

    /// The inbound's tag.
    fn tag(&self) -> &str;

    /// Serves a client that was accepted at `accepted`, until its connection is over.
    fn serve(
        self: Rc<Self>,
        stream: TcpStream,
        source: SocketAddr,
        accepted: Instant,
    ) -> impl Future<Output = ()> + 'static;
}

/// An inbound's listeners at work. Dropping it stops accepting; connections that were accepted live on.
pub(crate) struct Listening {
    address: SocketAddr,
    tasks: Vec<JoinHandle<()>>,
}

impl Listening {
    /// The address that it listens on, with the port that the system chose if the config's is 0; the first one of several.
    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Stops accepting, and returns when the addresses are free again.
    pub(crate) async fn close(mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
        for task in &mut self.tasks {
            // It ends in no other way than by being aborted.
            let _ = task.await;
        }
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

/// Binds every address at once and serves clients from then on. `shared_port`: other shards listen on the same ports, and
/// the system shares the clients out.
///
/// # Errors
/// `ResourceLimit` if an address is in use or no descriptor is free, `ConfigInvalid` if it is not ours to listen on;
/// with the path of the inbound, and a hint. Nothing listens then.
pub(super) fn listen<S: Serve>(
    server: &Rc<S>,
    inbound: &Inbound,
    addresses: impl IntoIterator<Item = SocketAddr>,
    shared_port: bool,
) -> Result<Listening, Error> {
    let shard = server.shard();
    let mut bound = Vec::new();
    for address in addresses {
        let listener = bind(address, shared_port).and_then(|listener| {
            let address = listener.local_addr()?;
            Ok((listener, address))
        });
        bound.push(listener.map_err(|error| bind_error::<S>(shard, inbound, address, &error))?);
    }
    let first = bound.first().map(|(_, address)| *address);
    let address = first.expect("an inbound has at least one address");
    let tasks = bound.into_iter().map(|(listener, _)| shard.spawn(accept(Rc::clone(server), listener)));
    let listening = Listening { address, tasks: tasks.collect() };
    let (protocol, tag, address) = (S::PROTOCOL, &inbound.tag, listening.address());
    shard.shared.log(LogLevel::Info, format_args!("{protocol} [{tag}] listens on {address}"));
    Ok(listening)
}

/// Serves the clients of a socket that listens already.
#[allow(dead_code, reason = "for shards that are handed their sockets")]
pub(super) fn listen_on<S: Serve>(server: &Rc<S>, socket: TcpListener) -> Listening {
    let unknown = SocketAddr::from(([0; 4], 0));
    let address = socket.local_addr().unwrap_or(unknown);
    Listening { address, tasks: vec![server.shard().spawn(accept(Rc::clone(server), socket))] }
}

async fn accept<S: Serve>(server: Rc<S>, listener: TcpListener) {
    let slots = Arc::clone(&server.shard().shared.slots);
    let mut wait = EXHAUSTED_WAIT.0;
    loop {
        // Beyond the limit clients wait in the system's queue.
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, source)) => {
                wait = EXHAUSTED_WAIT.0;
                let accepted = Instant::now();
                let source = SocketAddr::new(source.ip().to_canonical(), source.port());
                let session = Rc::clone(&server);
                server.shard().spawn(async move {
                    // Made in here: a future that is moved into another one takes its room twice there.
                    session.serve(stream, source, accepted).await;
                    drop(slot);
                });
            }
            Err(error) if is_about_one_client(&error) => {}
            Err(error) => {
                if wait == EXHAUSTED_WAIT.0 {
                    let (protocol, tag) = (S::PROTOCOL, server.tag());
                    let text = format_args!("{protocol} [{tag}] cannot accept: {error}");
                    server.shard().shared.log(LogLevel::Warning, text);
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

/// Reads what is at hand; `None` if nothing is, 0 at the end.
pub(super) fn read_now(stream: &TcpStream, out: &mut [u8]) -> io::Result<Option<usize>> {
    let n = match stream.try_read(out) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
        result => result?,
    };
    if 0 < n && n < out.len() {
        // The socket is drained. Its readiness is cleared without asking the system, which is edge-triggered here: what
        // comes later raises it anew. It saves a call for each message of a handshake.
        let _ = stream.try_io(Interest::READABLE, || Err::<(), _>(io::ErrorKind::WouldBlock.into()));
    }
    Ok(Some(n))
}

/// Makes the listening socket. What is set on it here, its connections inherit.
fn bind(address: SocketAddr, shared_port: bool) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(!address.ip().is_unspecified())?;
    }
    socket.set_reuse_address(true)?;
    if shared_port {
        socket.set_reuse_port(true)?;
    }
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

fn bind_error<S: Serve>(shard: &Shard, inbound: &Inbound, address: SocketAddr, error: &io::Error) -> Error {
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
    let (protocol, tag) = (S::PROTOCOL, &inbound.tag);
    Error::new(kind, format!("the {protocol} inbound [{tag}] cannot listen on {address}"))
        .with_reason(error.to_string())
        .with_hint(hint)
        .with_path(index.map(|index| format!("inbounds[{index}].port")).unwrap_or_default())
}
