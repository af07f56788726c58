//! Every socket that leaves the tunnel is shown to the host first: before it is bound, and before it is connected.

#[path = "common/socks_client.rs"]
#[allow(dead_code, reason = "each test file uses a part of the helpers")]
mod socks_client;

use socket2::SockRef;
use socks_client::*;
use std::net::TcpStream;
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex};
use vmesskit::{NetworkInfo, Options, Platform, Refused, Tunnel};

/// What a socket was when the host saw it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Seen {
    is_stream: bool,
    is_bound: bool,
    is_connected: bool,
}

#[derive(Clone, Default)]
struct Host(Arc<Mutex<Vec<Seen>>>);

impl Host {
    /// How many sockets of a kind it has seen.
    fn count(&self, is_stream: bool) -> usize {
        self.0.lock().expect("unpoisoned").iter().filter(|seen| seen.is_stream == is_stream).count()
    }
}

impl Platform for Host {
    fn protect_socket(&self, socket: BorrowedFd<'_>) -> Result<(), Refused> {
        let socket = SockRef::from(&socket);
        let address = socket.local_addr().ok().and_then(|address| address.as_socket());
        let seen = Seen {
            is_stream: socket.r#type().is_ok_and(|kind| kind == socket2::Type::STREAM),
            is_bound: address.is_some_and(|address| address.port() != 0),
            is_connected: socket.peer_addr().is_ok(),
        };
        self.0.lock().expect("unpoisoned").push(seen);
        Ok(())
    }
}

#[test]
fn sockets_of_every_kind_are_shown_before_they_are_bound_or_connected() {
    let (port, host) = (free_port(), Host::default());
    let config = format!(
        r#"{{"log": {{"loglevel": "none"}},
          "inbounds": [{{"protocol": "socks", "listen": "127.0.0.1", "port": {port}, "settings": {{"udp": true}}}}],
          "outbounds": [{{"protocol": "freedom", "sendThrough": "127.0.0.1",
            "streamSettings": {{"sockopt": {{"tcpFastOpen": true}}}}}}]}}"#
    );
    // A name is asked of a server that is not there.
    let network = NetworkInfo { dns: vec![[127, 0, 0, 1].into()], has_v4: true, ..NetworkInfo::default() };
    let options = Options { network: Some(network), ..Options::default() };
    let tunnel = Tunnel::new(&config, options, Arc::new(host.clone())).expect("a good config");
    tunnel.start(None).wait(Some(PATIENCE)).expect("in time").expect("started");

    exchange(connect(port, "127.0.0.1", tcp_echo().port()), 100_000, 1);
    assert_eq!(host.count(true), 1, "the stream's");
    let association = Association::new(port);
    association.send("127.0.0.1", udp_echo().port(), b"datagram");
    assert!(association.receive().ends_with(b"datagram"));
    assert_eq!(host.count(false), 1, "the datagrams'");
    let mut nobody: TcpStream = greet(port, None).expect("no password asked");
    let (code, _) = request(&mut nobody, 1, "no.such.invalid", 80);
    assert_ne!(code, 0, "there is no such name");
    assert!(host.count(false) > 1, "those that ask for names");
    stop(&tunnel);
    let seen = host.0.lock().expect("unpoisoned");
    assert!(seen.iter().all(|seen| !seen.is_bound && !seen.is_connected), "{seen:?}");
}
