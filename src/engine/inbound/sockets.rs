//! Listening sockets: one for each shard, all of them on one address, among which the system deals out the clients.

use super::unix_listener::{self, SocketFile};
use crate::config::{SockOpt, Unix};
use crate::error::{Error, ErrorKind};
use crate::transport::sockopt::{Refused, steer, tune};
use rustix::io::Errno;
use socket2::{Domain, Protocol, Socket, TcpKeepalive, Type};
use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::time::Duration;
use tokio::net;

/// How many connections wait to be accepted at most, if the system allows as many.
const BACKLOG: i32 = 4096;
/// Clients that vanish without a word are noticed after about this time.
const KEEPALIVE: Duration = Duration::from_secs(60);
/// How much a socket for datagrams holds each way, if the system allows as much.
const UDP_BUFFER: usize = 2 << 20;

/// Whether the system deals the clients of an address out among several sockets. Darwin gives them all to one.
pub(crate) const DEALS: bool = cfg!(any(target_os = "linux", target_os = "android"));

/// A socket that listens.
#[derive(Debug)]
pub(crate) enum Listener {
    /// On an address, for connections.
    Tcp(TcpListener),
    /// On an address, for datagrams.
    Udp(UdpSocket),
    /// Of a Unix domain, with its file if it has one.
    Unix(UnixListener, Option<Arc<SocketFile>>),
}

/// One that can be waited for.
#[derive(Debug)]
pub(crate) enum Waiting {
    /// As [`Listener::Tcp`].
    Tcp(net::TcpListener),
    /// As [`Listener::Udp`].
    Udp(net::UdpSocket),
    /// As [`Listener::Unix`].
    Unix(net::UnixListener, Option<Arc<SocketFile>>),
}

impl Listener {
    /// Another descriptor of the same socket.
    ///
    /// # Errors
    /// The system's, if there is none.
    pub(crate) fn try_clone(&self) -> io::Result<Self> {
        Ok(match self {
            Self::Tcp(socket) => Self::Tcp(socket.try_clone()?),
            Self::Udp(socket) => Self::Udp(socket.try_clone()?),
            Self::Unix(socket, file) => Self::Unix(socket.try_clone()?, file.clone()),
        })
    }

    /// Has the runtime wait for it.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn register(self) -> io::Result<Waiting> {
        Ok(match self {
            Self::Tcp(socket) => Waiting::Tcp(net::TcpListener::from_std(socket)?),
            Self::Udp(socket) => Waiting::Udp(net::UdpSocket::from_std(socket)?),
            Self::Unix(socket, file) => Waiting::Unix(net::UnixListener::from_std(socket)?, file),
        })
    }

    /// Its address, if it has one.
    pub(crate) fn address(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(socket) => socket.local_addr().ok(),
            Self::Udp(socket) => socket.local_addr().ok(),
            Self::Unix(..) => None,
        }
    }
}

/// Where it listens, for a person.
impl fmt::Display for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(_) | Self::Udp(_) => self.address().map_or(Ok(()), |address| address.fmt(f)),
            Self::Unix(_, Some(file)) => file.fmt(f),
            Self::Unix(_, None) => f.write_str("an abstract socket"),
        }
    }
}

/// Opens a Unix domain socket for `count` shards, which take its clients from one queue.
///
/// # Errors
/// As [`unix_listener::open`].
pub(crate) fn open_unix(what: &str, settings: &Unix, count: usize) -> Result<Vec<Listener>, Error> {
    let (socket, file) = unix_listener::open(what, settings)?;
    let first = Listener::Unix(socket, file);
    let mut sockets =
        (1..count).map(|_| first.try_clone()).collect::<io::Result<Vec<_>>>().map_err(|error| {
            let kind = ErrorKind::ResourceLimit { what: "file descriptors" };
            Error::new(kind, format!("{what} cannot listen")).with_reason(error.to_string())
        })?;
    sockets.push(first);
    Ok(sockets)
}

/// What a socket is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Connections.
    Tcp,
    /// Datagrams.
    Udp,
}

/// Opens `count` listening sockets on an address; on port 0 the first one chooses, and the others take its port. `what`
/// names the inbound to a person. Nobody else can listen there, not even another instance with several shards.
///
/// # Errors
/// `ResourceLimit` if the address is in use or no descriptor is free, `ConfigInvalid` if it is not ours to listen on or an
/// option cannot be set; with a hint. None of the sockets is open then.
pub(crate) fn open(
    what: &str,
    kind: Kind,
    address: SocketAddr,
    count: usize,
    options: &SockOpt,
) -> Result<Vec<Listener>, Error> {
    open_all(kind, address, count, options).map_err(|failed| match failed {
        Failed::Option(refused) => refused.into(),
        Failed::Io(error) => explain(what, address, &error),
    })
}

/// Why a socket does not listen.
enum Failed {
    Option(Refused),
    Io(io::Error),
}

impl From<Refused> for Failed {
    fn from(refused: Refused) -> Self {
        Self::Option(refused)
    }
}

impl From<io::Error> for Failed {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

fn open_all(
    kind: Kind,
    address: SocketAddr,
    count: usize,
    options: &SockOpt,
) -> Result<Vec<Listener>, Failed> {
    let first = bind(kind, address, false, options)?;
    if count > 1 {
        // Only now: bound without it, the address is known to be nobody else's.
        first.set_reuse_port(true)?;
    }
    let address =
        first.local_addr()?.as_socket().ok_or_else(|| io::Error::from(io::ErrorKind::Unsupported))?;
    let first = listening(kind, first, options)?;
    let mut sockets = vec![first];
    for _ in 1..count {
        sockets.push(listening(kind, bind(kind, address, true, options)?, options)?);
    }
    Ok(sockets)
}

fn bind(kind: Kind, address: SocketAddr, shared: bool, options: &SockOpt) -> Result<Socket, Failed> {
    let (form, protocol) = match kind {
        Kind::Tcp => (Type::STREAM, Protocol::TCP),
        Kind::Udp => (Type::DGRAM, Protocol::UDP),
    };
    let socket = Socket::new(Domain::for_address(address), form, Some(protocol))?;
    if address.is_ipv6() {
        socket.set_only_v6(options.v6_only.unwrap_or(!address.ip().is_unspecified()))?;
    }
    if kind == Kind::Tcp {
        // With datagrams it would let another program listen there too.
        socket.set_reuse_address(true)?;
    }
    if shared {
        socket.set_reuse_port(true)?;
    }
    socket.set_nonblocking(true)?;
    steer(&socket, options)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

/// Lets clients come. What is set on the socket here, its connections inherit.
fn listening(kind: Kind, socket: Socket, options: &SockOpt) -> io::Result<Listener> {
    if kind == Kind::Udp {
        // What comes in a burst waits there; a system that allows less gives what it allows.
        let _ = socket.set_recv_buffer_size(UDP_BUFFER);
        let _ = socket.set_send_buffer_size(UDP_BUFFER);
        return Ok(Listener::Udp(socket.into()));
    }
    // They tune connections that work without them.
    let _ = socket.set_tcp_nodelay(true);
    let _ = socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE));
    tune(&socket, options, None);
    socket.listen(BACKLOG)?;
    Ok(Listener::Tcp(socket.into()))
}

fn explain(what: &str, address: SocketAddr, error: &io::Error) -> Error {
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
    Error::new(kind, format!("{what} cannot listen on {address}"))
        .with_reason(error.to_string())
        .with_hint(hint)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpStream;

    const ANY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

    #[test]
    fn the_sockets_of_one_inbound_share_a_port_that_nobody_else_can_take() {
        let sockets = open("a", Kind::Tcp, ANY, 3, &SockOpt::default()).expect("a free port");
        let address = sockets[0].address().expect("bound");
        assert!(sockets.iter().all(|socket| socket.address() == Some(address)));
        for count in [1, 3] {
            let error = open("b", Kind::Tcp, address, count, &SockOpt::default()).expect_err("taken");
            assert_eq!(error.kind, ErrorKind::ResourceLimit { what: "listening port" });
        }
        drop(sockets);
        assert_eq!(open("b", Kind::Tcp, address, 3, &SockOpt::default()).map(|sockets| sockets.len()), Ok(3));
    }

    #[test]
    fn clients_are_dealt_out() {
        let sockets = open("a", Kind::Tcp, ANY, 2, &SockOpt::default()).expect("a free port");
        let address = sockets[0].address().expect("bound");
        let clients: Vec<_> = (0..64).map(|_| TcpStream::connect(address).expect("it listens")).collect();
        let taken = |socket: &Listener| match socket {
            Listener::Tcp(socket) => std::iter::from_fn(|| socket.accept().ok()).count(),
            Listener::Udp(_) | Listener::Unix(..) => 0,
        };
        let (one, other) = (taken(&sockets[0]), taken(&sockets[1]));
        assert_eq!(one + other, clients.len());
        // One in 2^63 that all of them fall to one socket.
        assert!(!DEALS || (one > 0 && other > 0), "{one} and {other}");
    }

    #[test]
    fn datagrams_are_dealt_out_by_where_they_come_from() {
        let sockets = open("a", Kind::Udp, ANY, 2, &SockOpt::default()).expect("a free port");
        let address = sockets[0].address().expect("bound");
        for count in [1, 2] {
            assert!(open("b", Kind::Udp, address, count, &SockOpt::default()).is_err(), "it is taken");
        }
        let clients: Vec<_> = (0..64).map(|_| UdpSocket::bind(ANY).expect("a port")).collect();
        for _ in 0..2 {
            for client in &clients {
                assert_eq!(client.send_to(b"x", address).expect("sent"), 1);
            }
        }
        let taken = |socket: &Listener| {
            let Listener::Udp(socket) = socket else { return Vec::new() };
            std::iter::from_fn(|| socket.recv_from(&mut [0; 8]).ok()).map(|(_, from)| from).collect()
        };
        let (one, other) = (taken(&sockets[0]), taken(&sockets[1]));
        assert_eq!(one.len() + other.len(), 2 * clients.len());
        assert!(one.iter().all(|from| !other.contains(from)), "a client stays with a shard");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn connections_inherit_the_options_of_the_config() {
        let options = SockOpt {
            keepalive_idle: Some(Duration::from_secs(33)),
            user_timeout: Some(Duration::from_secs(9)),
            ..SockOpt::default()
        };
        let mut sockets = open("a", Kind::Tcp, ANY, 1, &options).expect("a free port");
        let Some(Listener::Tcp(listener)) = sockets.pop() else { panic!("it is of TCP") };
        let _client = TcpStream::connect(listener.local_addr().expect("bound")).expect("it listens");
        listener.set_nonblocking(false).expect("a socket");
        let (accepted, _) = listener.accept().expect("accepted");
        let socket = socket2::SockRef::from(&accepted);
        assert_eq!(socket.tcp_keepalive_time().expect("idle"), Duration::from_secs(33));
        assert_eq!(socket.tcp_user_timeout().expect("timeout"), Some(Duration::from_secs(9)));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn an_option_that_cannot_be_set_is_named() {
        let options = SockOpt { device: Some("nosuch0".into()), ..SockOpt::default() };
        for kind in [Kind::Tcp, Kind::Udp] {
            let error = open("a", kind, ANY, 1, &options).expect_err("no such device");
            let path = "streamSettings.sockopt.interface";
            assert_eq!((error.kind, &*error.path), (ErrorKind::ConfigInvalid, path));
            assert!(!error.hint.is_empty(), "{error:?}");
        }
    }
}
