//! Listening sockets: one for each shard, all of them on one address, among which the system deals out the clients.

use crate::error::{Error, ErrorKind};
use rustix::io::Errno;
use socket2::{Domain, Protocol, Socket, TcpKeepalive, Type};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

/// How many connections wait to be accepted at most, if the system allows as many.
const BACKLOG: i32 = 4096;
/// Clients that vanish without a word are noticed after about this time.
const KEEPALIVE: Duration = Duration::from_secs(60);

/// Whether the system deals the clients of an address out among several sockets. Darwin gives them all to one.
pub(crate) const DEALS: bool = cfg!(any(target_os = "linux", target_os = "android"));

/// Opens `count` listening sockets on an address; on port 0 the first one chooses, and the others take its port. `what`
/// names the inbound to a person. Nobody else can listen there, not even another instance with several shards.
///
/// # Errors
/// `ResourceLimit` if the address is in use or no descriptor is free, `ConfigInvalid` if it is not ours to listen on; with
/// a hint. None of the sockets is open then.
pub(crate) fn open(what: &str, address: SocketAddr, count: usize) -> Result<Vec<TcpListener>, Error> {
    open_all(address, count).map_err(|error| explain(what, address, &error))
}

fn open_all(address: SocketAddr, count: usize) -> io::Result<Vec<TcpListener>> {
    let first = bind(address, false)?;
    if count > 1 {
        // Only now: bound without it, the address is known to be nobody else's.
        first.set_reuse_port(true)?;
    }
    let first = listening(first)?;
    let address = first.local_addr()?;
    let mut sockets = vec![first];
    for _ in 1..count {
        sockets.push(listening(bind(address, true)?)?);
    }
    Ok(sockets)
}

fn bind(address: SocketAddr, shared: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(!address.ip().is_unspecified())?;
    }
    socket.set_reuse_address(true)?;
    if shared {
        socket.set_reuse_port(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

/// Lets clients come. What is set on the socket here, its connections inherit.
fn listening(socket: Socket) -> io::Result<TcpListener> {
    // Both tune connections that work without them.
    let _ = socket.set_tcp_nodelay(true);
    let _ = socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE));
    socket.listen(BACKLOG)?;
    Ok(socket.into())
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
        let sockets = open("a", ANY, 3).expect("a free port");
        let address = sockets[0].local_addr().expect("bound");
        assert!(sockets.iter().all(|socket| socket.local_addr().expect("bound") == address));
        for count in [1, 3] {
            let error = open("b", address, count).expect_err("taken");
            assert_eq!(error.kind, ErrorKind::ResourceLimit { what: "listening port" });
        }
        drop(sockets);
        assert_eq!(open("b", address, 3).map(|sockets| sockets.len()), Ok(3));
    }

    #[test]
    fn clients_are_dealt_out() {
        let sockets = open("a", ANY, 2).expect("a free port");
        let address = sockets[0].local_addr().expect("bound");
        let clients: Vec<_> = (0..64).map(|_| TcpStream::connect(address).expect("it listens")).collect();
        let taken = |socket: &TcpListener| std::iter::from_fn(|| socket.accept().ok()).count();
        let (one, other) = (taken(&sockets[0]), taken(&sockets[1]));
        assert_eq!(one + other, clients.len());
        // One in 2^63 that all of them fall to one socket.
        assert!(!DEALS || (one > 0 && other > 0), "{one} and {other}");
    }
}
