//! The listeners of inbounds: the accept loop, and what happens when the process runs out of descriptors.

use super::super::Shard;
use super::unix_listener::SocketFile;
use crate::Event;
use crate::config::LogLevel;
use crate::transport::{Carrier, UdpClients};
use rustix::io::Errno;
use std::cell::RefCell;
use std::future::{Future, pending, poll_fn};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::Interest;
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::task::{JoinHandle, yield_now};
use tokio::time::{Instant, sleep};

/// The waits while the system has no descriptor or memory for another connection.
const EXHAUSTED_WAIT: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));

/// How many turns of the others a listener that closes waits, at most, for what it leaves behind.
pub(in crate::engine) const TURNS: usize = 48;

/// Where the clients of a socket without addresses come from: nowhere.
pub(super) const NOWHERE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

/// A socket that accepts connections.
pub(super) trait Accept: 'static {
    /// What a connection is.
    type Stream: 'static;

    /// Waits for the next connection, and says where it comes from.
    fn accept(&self) -> impl Future<Output = io::Result<(Self::Stream, SocketAddr)>>;
}

impl Accept for TcpListener {
    type Stream = TcpStream;

    async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        let (stream, source) = Self::accept(self).await?;
        Ok((stream, SocketAddr::new(source.ip().to_canonical(), source.port())))
    }
}

/// A UDP socket, of whose clients the transport knows.
impl Accept for RefCell<Box<dyn UdpClients>> {
    type Stream = Box<dyn Carrier>;

    async fn accept(&self) -> io::Result<(Box<dyn Carrier>, SocketAddr)> {
        let (carrier, source) = poll_fn(|cx| self.borrow_mut().poll_next(cx)).await;
        Ok((carrier, SocketAddr::new(source.ip().to_canonical(), source.port())))
    }
}

/// With its file, which goes when the last shard has closed it.
impl Accept for (UnixListener, Option<Arc<SocketFile>>) {
    type Stream = UnixStream;

    async fn accept(&self) -> io::Result<(UnixStream, SocketAddr)> {
        let (stream, _) = self.0.accept().await?;
        Ok((stream, NOWHERE))
    }
}

/// A server that has listeners.
pub(super) trait Serve: 'static {
    /// The protocol's name, for logs.
    const PROTOCOL: &'static str;

    /// The shard that it runs on.
    fn shard(&self) -> &Rc<Shard>;

    /// The inbound's tag.
    fn tag(&self) -> &str;
}

/// What a server does with the connections of one kind that it accepts.
pub(super) trait ServeOn<S>: Serve {
    /// Serves a client that was accepted at `accepted`, until its connection is over.
    fn serve(
        self: Rc<Self>,
        stream: S,
        source: SocketAddr,
        accepted: Instant,
    ) -> impl Future<Output = ()> + 'static;
}

/// A listener at work. Dropping it stops accepting; connections that were accepted live on.
pub(crate) struct Listening {
    task: JoinHandle<()>,
}

impl Listening {
    /// Stops accepting, and returns when the address is free again.
    pub(crate) async fn close(mut self) {
        self.task.abort();
        // It ends in no other way than by being aborted.
        let _ = (&mut self.task).await;
        // A transport over UDP says goodbye before it closes its socket.
        for _ in 0..TURNS {
            yield_now().await;
        }
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Serves the clients of a listening socket from now on.
pub(super) fn listen<L, S>(server: &Rc<S>, listener: L) -> Listening
where
    L: Accept,
    S: ServeOn<L::Stream>,
{
    Listening { task: server.shard().spawn(accept(Rc::clone(server), listener)) }
}

/// A listener that nothing comes of.
pub(super) fn deaf(shard: &Rc<Shard>) -> Listening {
    Listening { task: shard.spawn(pending()) }
}

async fn accept<L, S>(server: Rc<S>, listener: L)
where
    L: Accept,
    S: ServeOn<L::Stream>,
{
    let descriptors = server.shard().shared.descriptors.clone();
    let mut wait = EXHAUSTED_WAIT.0;
    loop {
        // Beyond the limit clients wait in the system's queue.
        let taken = descriptors.for_connection().await;
        match listener.accept().await {
            Ok((stream, source)) => {
                wait = EXHAUSTED_WAIT.0;
                let accepted = Instant::now();
                let session = Rc::clone(&server);
                server.shard().spawn(async move {
                    // Made in here: a future that is moved into another one takes its room twice there.
                    session.serve(stream, source, accepted).await;
                    drop(taken);
                });
            }
            Err(error) if is_about_one_client(&error) => {}
            Err(error) => {
                if wait == EXHAUSTED_WAIT.0 {
                    let (protocol, tag) = (S::PROTOCOL, server.tag());
                    let shared = &server.shard().shared;
                    shared.log(LogLevel::Warning, format_args!("{protocol} [{tag}] cannot accept: {error}"));
                    if matches!(Errno::from_io_error(&error), Some(Errno::MFILE | Errno::NFILE)) {
                        let what = format!("file descriptors for another connection at [{tag}]");
                        shared.emit(Event::ResourceLimit { what });
                    }
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
