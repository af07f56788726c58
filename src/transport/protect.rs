//! The one place that makes client sockets. Each is shown to the host before it connects or binds, so that an operating
//! system which routes everything into the tunnel lets this socket past it.
//!
//! Listeners are not made here: they are reached from outside and need no protection.

use super::sockopt::{Refused, SEND_THROUGH, steer, tune};
use crate::config::SockOpt;
use crate::engine::Shard;
use crate::error::{Error, ErrorKind, Stage};
use rustix::io::Errno;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;
use tokio::net::{TcpSocket, TcpStream, UdpSocket, UnixStream};

/// How much unsent data the kernel takes before a socket counts as full: enough for the fastest path that a tunnel
/// meets, and little enough that what is sealed goes out soon.
#[cfg(any(target_os = "linux", target_os = "android"))]
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
    /// An option of the config cannot be set.
    #[error("{0}")]
    Option(#[from] Refused),
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
            SocketError::Option(refused) => refused.into(),
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
    #[cfg(any(target_os = "linux", target_os = "android"))]
    if wishes.options.tcp_fast_open == Some(true) {
        super::sockopt::open_fast(&socket);
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

/// Makes a UDP socket as [`udp_socket`] does, the way an outbound wants its sockets.
///
/// # Errors
/// [`SocketError`].
pub(crate) async fn udp_connect(
    shard: &Rc<Shard>,
    remote: SocketAddr,
    wishes: &Wishes,
) -> Result<UdpSocket, SocketError> {
    let socket = protected(shard, remote, Type::DGRAM, Protocol::UDP).await?;
    steer(&socket, &wishes.options)?;
    if let Some(from) = wishes.from {
        bind_from(&socket, from, remote)?;
    }
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
    #[cfg(any(target_os = "linux", target_os = "android"))]
    let _ = socket.set_tcp_notsent_lowat(NOTSENT_LOWAT);
    tune(socket, options, Some(USER_TIMEOUT));
    Ok(())
}

/// Binds a socket to one of our addresses, on any port.
///
/// # Errors
/// [`Refused`] if it is not ours, or of another family than `remote`.
fn bind_from(socket: &Socket, from: IpAddr, remote: SocketAddr) -> Result<(), Refused> {
    let bound = match from.is_ipv4() == remote.is_ipv4() {
        true => socket.bind(&SocketAddr::new(from, 0).into()),
        false => Err(Errno::ADDRNOTAVAIL.into()),
    };
    bound.map_err(|error| Refused::new(SEND_THROUGH, &error))
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

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn a_connected_socket_has_the_options_of_the_config() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let remote = listener.local_addr().expect("address");
        let options = SockOpt {
            keepalive_idle: Some(Duration::from_secs(40)),
            keepalive_interval: Some(Duration::from_secs(7)),
            user_timeout: Some(Duration::from_millis(1500)),
            congestion: Some("reno".into()),
            ..SockOpt::default()
        };
        let wishes = Wishes { options, from: Some([127, 0, 0, 9].into()) };
        let stream = tcp_connect(&shard(), remote, &wishes).await.expect("connect");
        let socket = SockRef::from(&stream);
        assert!(socket.keepalive().expect("keepalive"));
        assert_eq!(socket.tcp_keepalive_time().expect("idle"), Duration::from_secs(40));
        assert_eq!(socket.tcp_keepalive_interval().expect("interval"), Duration::from_secs(7));
        assert_eq!(socket.tcp_user_timeout().expect("timeout"), Some(Duration::from_millis(1500)));
        assert!(socket.tcp_congestion().expect("congestion").starts_with(b"reno"));
        assert_eq!(stream.local_addr().expect("address").ip(), IpAddr::from([127, 0, 0, 9]));
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn a_mark_and_a_device_are_set_or_what_is_missing_is_said() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let remote = listener.local_addr().expect("address");
        let connect = async |options: SockOpt| {
            let wishes = Wishes { options, from: None };
            tcp_connect(&shard(), remote, &wishes).await.map_err(Error::from)
        };
        match connect(SockOpt { mark: Some(7), ..SockOpt::default() }).await {
            Ok(stream) => assert_eq!(SockRef::from(&stream).mark().expect("mark"), 7),
            Err(error) => {
                assert_eq!(
                    (error.kind, &*error.path),
                    (ErrorKind::ConfigInvalid, "streamSettings.sockopt.mark")
                );
                assert!(error.hint.contains("CAP_NET_ADMIN"), "{error:?}");
            }
        }
        match connect(SockOpt { device: Some("lo".into()), ..SockOpt::default() }).await {
            Ok(stream) => assert_eq!(SockRef::from(&stream).device().expect("device"), Some(b"lo".to_vec())),
            Err(error) => assert!(error.hint.contains("CAP_NET_RAW"), "{error:?}"),
        }
        let error = connect(SockOpt { device: Some("nosuch0".into()), ..SockOpt::default() }).await;
        let error = error.expect_err("no such device");
        assert_eq!(&*error.path, "streamSettings.sockopt.interface");
        assert!(error.hint.contains("no such device") || error.hint.contains("CAP_NET_RAW"), "{error:?}");
    }

    #[tokio::test]
    async fn an_address_that_is_not_ours_is_said() {
        for from in ["192.0.2.7", "2001:db8::7"] {
            let wishes = Wishes { from: from.parse().ok(), ..Wishes::default() };
            let remote = "127.0.0.1:9".parse().expect("literal");
            let error =
                tcp_connect(&shard(), remote, &wishes).await.map_err(Error::from).expect_err("not ours");
            assert_eq!((error.kind, &*error.path), (ErrorKind::ConfigInvalid, "sendThrough"), "{error:?}");
            assert!(error.hint.contains("does not have the address"), "{error:?}");
        }
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn the_first_payload_may_travel_in_the_syn() {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let remote = listener.local_addr().expect("address");
        let options = SockOpt { tcp_fast_open: Some(true), ..SockOpt::default() };
        let wishes = Wishes { options, from: None };
        // With or without the system's leave, and with or without a cookie, it connects.
        for _ in 0..3 {
            let mut ours = tcp_connect(&shard(), remote, &wishes).await.expect("connect");
            let set = nix::sys::socket::getsockopt(&ours, nix::sys::socket::sockopt::TcpFastOpenConnect);
            assert_eq!(set, Ok(true));
            ours.write_all(b"first").await.expect("written");
            let (mut theirs, _) = listener.accept().await.expect("accepted");
            let mut got = [0; 5];
            theirs.read_exact(&mut got).await.expect("read");
            theirs.write_all(&got).await.expect("written");
            ours.read_exact(&mut got).await.expect("read");
            assert_eq!(&got, b"first");
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
