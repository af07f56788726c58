//! The one place that makes client sockets. Each is shown to the host before it connects or binds, so that an operating
//! system which routes everything into the tunnel lets this socket past it.
//!
//! Listeners are not made here: they are reached from outside and need no protection.

use crate::config::SockOpt;
use crate::engine::Shard;
use crate::error::{Error, ErrorKind, Stage};
use rustix::io::Errno;
use socket2::{Domain, Protocol, SockAddr, Socket, TcpKeepalive, Type};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;
use tokio::net::{TcpSocket, TcpStream, UdpSocket, UnixStream};

/// How much unsent data the kernel takes before a socket counts as full: enough for the fastest path that a tunnel
/// meets, and little enough that what is sealed goes out soon.
const NOTSENT_LOWAT: u32 = 128 * 1024;
/// How long sent data may stay unacknowledged before the connection is given up.
const USER_TIMEOUT: Duration = Duration::from_secs(30);
/// The waits before another attempt when no file descriptor is free.
const EXHAUSTED_WAITS: [Duration; 3] =
    [Duration::from_millis(20), Duration::from_millis(80), Duration::from_millis(320)];

/// What an outbound wants of its sockets.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Wishes {
    /// The options of `sockopt`.
    pub(crate) options: SockOpt,
    /// The address that they are bound to (`sendThrough`).
    pub(crate) from: Option<IpAddr>,
}

/// Why a socket could not be made or connected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum SocketError {
    /// The host refused to protect it, or did not answer.
    #[error("{0}")]
    Protect(Error),
    /// No file descriptor, or no kernel memory, is free; several attempts were made.
    #[error("no file descriptor is free")]
    Exhausted,
    /// The operating system refused.
    #[error("{text}")]
    Io {
        /// What kind of refusal.
        kind: io::ErrorKind,
        /// The system's words for it.
        text: String,
    },
}

impl From<io::Error> for SocketError {
    fn from(error: io::Error) -> Self {
        match is_exhausted(&error) {
            true => Self::Exhausted,
            false => Self::Io { kind: error.kind(), text: error.to_string() },
        }
    }
}

impl From<SocketError> for Error {
    fn from(error: SocketError) -> Self {
        match error {
            SocketError::Protect(error) => error,
            SocketError::Exhausted => {
                Self::new(ErrorKind::ResourceLimit { what: "file descriptors" }, "no file descriptor is free")
                    .with_hint("raise the process's limit of open files, or close connections")
            }
            SocketError::Io { text, .. } => Self::new(
                ErrorKind::ServerUnreachable { stage: Stage::Connect },
                "a socket could not be connected",
            )
            .with_reason(text),
        }
    }
}

/// Connects a TCP socket. There is no deadline here: drop the future to give up.
///
/// # Errors
/// [`SocketError`], also when the peer refuses or cannot be reached.
pub(crate) async fn tcp_connect(
    shard: &Rc<Shard>,
    remote: SocketAddr,
    wishes: &Wishes,
) -> Result<TcpStream, SocketError> {
    let socket = protected(shard, remote, Type::STREAM, Protocol::TCP).await?;
    prepare_tcp(&socket, &wishes.options)?;
    steer(&socket, &wishes.options)?;
    if let Some(from) = wishes.from {
        bind_from(&socket, from, remote)?;
    }
    Ok(TcpSocket::from_std_stream(socket.into()).connect(remote).await?)
}

/// Makes a UDP socket that sends to `remote` and hears from it alone, port-unreachable answers included.
///
/// # Errors
/// [`SocketError`].
pub(crate) async fn udp_socket(shard: &Rc<Shard>, remote: SocketAddr) -> Result<UdpSocket, SocketError> {
    let socket = protected(shard, remote, Type::DGRAM, Protocol::UDP).await?;
    socket.connect(&remote.into())?;
    Ok(UdpSocket::from_std(socket.into())?)
}

/// Makes a UDP socket for any peer of the family of `remote`.
///
/// # Errors
/// [`SocketError`].
pub(crate) async fn udp_socket_unconnected(
    shard: &Rc<Shard>,
    remote: SocketAddr,
    wishes: &Wishes,
) -> Result<UdpSocket, SocketError> {
    let socket = protected(shard, remote, Type::DGRAM, Protocol::UDP).await?;
    steer(&socket, &wishes.options)?;
    if let Some(from) = wishes.from {
        bind_from(&socket, from, remote)?;
        return Ok(UdpSocket::from_std(socket.into())?);
    }
    let any: SocketAddr = match remote {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    socket.bind(&any.into())?;
    Ok(UdpSocket::from_std(socket.into())?)
}

/// Connects a Unix domain socket, at once or not at all. The host is not asked: it leaves the machine by no network.
///
/// # Errors
/// The system's; `AGAIN` if the listener's queue is full.
pub(crate) async fn unix_connect(address: &SockAddr) -> io::Result<UnixStream> {
    let socket = open_patiently(|| open(Domain::UNIX, Type::STREAM, None)).await?;
    socket.connect(address)?;
    UnixStream::from_std(socket.into())
}

/// Makes a non-blocking, close-on-exec socket and has the host protect it.
async fn protected(
    shard: &Rc<Shard>,
    remote: SocketAddr,
    kind: Type,
    protocol: Protocol,
) -> Result<Socket, SocketError> {
    let domain = Domain::for_address(remote);
    let socket = open_patiently(|| open(domain, kind, Some(protocol))).await?;
    shard.host.protect(&socket).await.map_err(SocketError::Protect)?;
    Ok(socket)
}

/// Opens a socket, and tries again for a while where no descriptor is free.
async fn open_patiently(open: impl Fn() -> io::Result<Socket>) -> io::Result<Socket> {
    let mut waits = EXHAUSTED_WAITS.iter();
    loop {
        let error = match open() {
            Err(error) if is_exhausted(&error) => error,
            result => return result,
        };
        match waits.next() {
            Some(wait) => tokio::time::sleep(*wait).await,
            None => return Err(error),
        }
    }
}

/// Whether the system has no descriptor or memory left.
fn is_exhausted(error: &io::Error) -> bool {
    let code = Errno::from_io_error(error);
    matches!(code, Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM))
}

/// Makes a non-blocking, close-on-exec socket, in one call where the system can.
fn open(domain: Domain, kind: Type, protocol: Option<Protocol>) -> io::Result<Socket> {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    return Socket::new(domain, kind.nonblocking(), protocol);
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    {
        let socket = Socket::new(domain, kind, protocol)?;
        socket.set_nonblocking(true)?;
        Ok(socket)
    }
}

/// Sets the options of every client TCP socket, then those that are wished for. No keepalive unless it is one of these: a
/// phone's radio would wake up for it, and a dead peer is found by [`USER_TIMEOUT`] once there is something to send, else
/// by the policy's `connIdle`.
///
/// # Errors
/// Never for an option that the system does not know; those merely tune.
fn prepare_tcp(socket: &Socket, options: &SockOpt) -> io::Result<()> {
    socket.set_tcp_nodelay(true)?;
    // What follows tunes a connection that works without it.
    if let Some(keepalive) = keepalive(options) {
        let _ = socket.set_tcp_keepalive(&keepalive);
    }
    #[cfg(any(target_os = "linux", target_os = "android", target_vendor = "apple"))]
    let _ = socket.set_tcp_notsent_lowat(NOTSENT_LOWAT);
    #[cfg(any(target_os = "linux", target_os = "android"))]
    {
        let _ = socket.set_tcp_user_timeout(Some(options.user_timeout.unwrap_or(USER_TIMEOUT)));
        if let Some(congestion) = &options.congestion {
            let _ = socket.set_tcp_congestion(congestion.as_bytes());
        }
    }
    Ok(())
}

/// How an idle connection is probed, if that is wished for.
pub(crate) fn keepalive(options: &SockOpt) -> Option<TcpKeepalive> {
    let keepalive = TcpKeepalive::new();
    match (options.keepalive_idle, options.keepalive_interval) {
        (None, None) => None,
        (Some(idle), None) => Some(keepalive.with_time(idle)),
        (None, Some(interval)) => Some(keepalive.with_interval(interval)),
        (Some(idle), Some(interval)) => Some(keepalive.with_time(idle).with_interval(interval)),
    }
}

/// Sets the options that decide where packets go: one that cannot be set is an error, since they would go elsewhere.
///
/// # Errors
/// The system's; marks and devices need privileges on most.
#[cfg_attr(not(any(target_os = "linux", target_os = "android")), expect(unused_variables))]
pub(crate) fn steer(socket: &Socket, options: &SockOpt) -> io::Result<()> {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    {
        if let Some(mark) = options.mark {
            socket.set_mark(mark).map_err(|error| named("sockopt.mark", &error))?;
        }
        if let Some(device) = &options.device {
            let bound = socket.bind_device(Some(device.as_bytes()));
            bound.map_err(|error| named("sockopt.bindToDevice", &error))?;
        }
    }
    Ok(())
}

fn named(option: &str, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{option}: {error}"))
}

/// Binds a socket to one of our addresses, on any port.
///
/// # Errors
/// `AddrNotAvailable` if it is not ours, or of another family than `remote`.
fn bind_from(socket: &Socket, from: IpAddr, remote: SocketAddr) -> io::Result<()> {
    if from.is_ipv4() != remote.is_ipv4() {
        let text = "the address of sendThrough is of another family";
        return Err(io::Error::new(io::ErrorKind::AddrNotAvailable, text));
    }
    let bound = socket.bind(&SocketAddr::new(from, 0).into());
    bound.map_err(|error| named("sendThrough", &error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::testing::shard;
    use socket2::SockRef;

    #[tokio::test]
    async fn a_connected_socket_has_our_options() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let remote = listener.local_addr().expect("address");
        let stream = tcp_connect(&shard(), remote, &Wishes::default()).await.expect("connect");
        let socket = SockRef::from(&stream);
        assert!(stream.nodelay().expect("nodelay") && !socket.keepalive().expect("keepalive"));
        assert!(socket.nonblocking().expect("flags"));
        assert!(rustix::io::fcntl_getfd(&stream).expect("flags").contains(rustix::io::FdFlags::CLOEXEC));
        #[cfg(target_os = "linux")]
        {
            assert_eq!(socket.tcp_notsent_lowat().expect("lowat"), NOTSENT_LOWAT);
            assert_eq!(socket.tcp_user_timeout().expect("timeout"), Some(USER_TIMEOUT));
        }
    }

    #[tokio::test]
    async fn a_refusal_keeps_its_kind() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
        let remote = listener.local_addr().expect("address");
        drop(listener);
        let error = tcp_connect(&shard(), remote, &Wishes::default()).await.expect_err("nobody listens");
        assert!(matches!(error, SocketError::Io { kind: io::ErrorKind::ConnectionRefused, .. }), "{error:?}");
    }

    #[test]
    fn a_full_table_is_a_resource_limit() {
        let error = SocketError::from(io::Error::from(Errno::MFILE));
        assert_eq!(Error::from(error).kind, ErrorKind::ResourceLimit { what: "file descriptors" });
    }

    #[tokio::test]
    async fn an_unconnected_socket_hears_from_anybody() {
        let ours =
            udp_socket_unconnected(&shard(), "127.0.0.1:9".parse().expect("literal"), &Wishes::default())
                .await
                .expect("socket");
        let port = ours.local_addr().expect("address").port();
        let theirs = UdpSocket::bind("127.0.0.1:0").await.expect("bind");
        theirs.send_to(b"hello", ("127.0.0.1", port)).await.expect("sent");
        let mut bytes = [0; 16];
        let (n, from) = ours.recv_from(&mut bytes).await.expect("received");
        assert_eq!((&bytes[..n], from), (&b"hello"[..], theirs.local_addr().expect("address")));
    }
}
