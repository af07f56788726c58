//! The inbound on loopback, in front of a freedom outbound.

use super::wire::Reply;
use super::*;
use crate::config::{Config, InboundProtocol, Outbound, OutboundProtocol};
use crate::engine::inbound::sockets::{self, Kind, Waiting};
use crate::error::{Error, ErrorKind};
use crate::transport::testing::{config, shard};
use std::cell::RefCell;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UdpSocket;
use tokio::task::{LocalSet, spawn_local};
use tokio::time::timeout;

fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let bounded = async { timeout(Duration::from_secs(20), test).await.expect("in time") };
    LocalSet::new().block_on(&runtime, bounded);
}

fn settings() -> Socks {
    Socks { listen: "127.0.0.1:0".parse().expect("literal"), accounts: vec![], udp: true, ip: None, level: 0 }
}

/// A listener, and where it listens.
struct Started {
    _listening: Listening,
    address: SocketAddr,
}

impl Started {
    const fn address(&self) -> SocketAddr {
        self.address
    }
}

fn start(shard: &Rc<Shard>, settings: &Socks) -> Result<Started, Error> {
    let inbound = Inbound { tag: "socks".into(), protocol: InboundProtocol::Socks(settings.clone()) };
    let sockets = sockets::open("a test", Kind::Tcp, settings.listen, 1, &<_>::default())?;
    let socket = sockets.into_iter().next().expect("as many as asked for");
    let address = socket.address().expect("bound");
    let Waiting::Tcp(socket) = socket.register().expect("a runtime") else { panic!("it is of TCP") };
    Ok(Started { _listening: listen(shard, &inbound, settings, socket), address })
}

/// A server that sends every byte back, and ends when its client does.
async fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let address = listener.local_addr().expect("address");
    spawn_local(async move {
        loop {
            let (mut stream, _) = listener.accept().await.expect("accepted");
            spawn_local(async move {
                let (mut read, mut write) = stream.split();
                let _ = tokio::io::copy(&mut read, &mut write).await;
                let _ = write.shutdown().await;
            });
        }
    });
    address
}

fn request(command: u8, to: SocketAddr) -> Vec<u8> {
    let mut out = Reply::Succeeded.with_address(to);
    out[1] = command;
    out
}

/// Connects, says hello without authentication, sends a request and reads its 10-byte reply.
async fn ask(socks: SocketAddr, request: &[u8]) -> (TcpStream, [u8; 10]) {
    let mut client = TcpStream::connect(socks).await.expect("connected");
    client.write_all(&[5, 1, 0]).await.expect("sent");
    let mut method = [0; 2];
    client.read_exact(&mut method).await.expect("a method");
    assert_eq!(method, [5, 0]);
    client.write_all(request).await.expect("sent");
    let mut reply = [0; 10];
    client.read_exact(&mut reply).await.expect("a reply");
    (client, reply)
}

async fn associate(socks: SocketAddr) -> (TcpStream, SocketAddr) {
    let (control, reply) = ask(socks, &request(3, "0.0.0.0:0".parse().expect("literal"))).await;
    assert_eq!(reply[..4], [5, 0, 0, 1]);
    let ip: [u8; 4] = reply[4..8].try_into().expect("four bytes");
    (control, SocketAddr::new(ip.into(), u16::from_be_bytes([reply[8], reply[9]])))
}

fn wrap(to: SocketAddr, payload: &[u8]) -> Vec<u8> {
    let mut out = Reply::Succeeded.with_address(to);
    out[..3].copy_from_slice(&[0, 0, 0]);
    out.extend_from_slice(payload);
    out
}

#[test]
fn a_stream_passes_both_ways_and_ends_on_each_side_by_itself() {
    run(async {
        let shard = shard();
        let socks = start(&shard, &settings()).expect("listening");
        let (mut client, reply) = ask(socks.address(), &request(1, echo().await)).await;
        assert_eq!(reply, Reply::Succeeded.bytes());
        let sent: Vec<u8> = (0..3_000_000_u32).map(|i| (i % 251) as u8).collect();
        let (mut read, mut write) = client.split();
        let upload = async {
            write.write_all(&sent).await.expect("sent");
            write.shutdown().await.expect("ended");
        };
        let mut got = Vec::new();
        let ((), result) = tokio::join!(upload, read.read_to_end(&mut got));
        result.expect("received");
        assert!(got == sent, "{} of {} bytes came back", got.len(), sent.len());
        while !shard.connections.is_empty() {
            tokio::task::yield_now().await;
        }
        assert_eq!(shard.pool.used(), 0);
    });
}

#[test]
fn what_follows_the_request_at_once_is_payload() {
    run(async {
        let socks = start(&shard(), &settings()).expect("listening");
        let mut client = TcpStream::connect(socks.address()).await.expect("connected");
        let all = [&[5, 1, 0][..], &request(1, echo().await), b"early bird"].concat();
        client.write_all(&all).await.expect("sent");
        client.write_all(b", late owl").await.expect("sent");
        let mut got = [0; 2 + 10 + 20];
        client.read_exact(&mut got).await.expect("received");
        assert_eq!(&got[12..], b"early bird, late owl");
    });
}

#[test]
fn a_password_opens_the_door() {
    run(async {
        let settings = Socks { accounts: vec![("user".into(), "pass".into())], ..settings() };
        let socks = start(&shard(), &settings).expect("listening");
        let hello = [&[5, 1, 2, 1][..], b"\x04user\x04pass", &request(1, echo().await), b"hi"].concat();
        let mut client = TcpStream::connect(socks.address()).await.expect("connected");
        client.write_all(&hello).await.expect("sent");
        let mut got = [0; 4 + 10 + 2];
        client.read_exact(&mut got).await.expect("received");
        assert_eq!((&got[..4], &got[14..]), (&[5, 2, 1, 0][..], &b"hi"[..]));

        let mut client = TcpStream::connect(socks.address()).await.expect("connected");
        client.write_all(b"\x05\x01\x02\x01\x04user\x05wrong").await.expect("sent");
        let mut got = Vec::new();
        client.read_to_end(&mut got).await.expect("a clean end");
        assert_eq!(got, [5, 2, 1, 1]);
    });
}

#[test]
fn failures_have_their_replies() {
    run(async {
        let socks = start(&shard(), &settings()).expect("listening");
        let closed = std::net::TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
        let (mut client, reply) = ask(socks.address(), &request(1, closed.expect("bound"))).await;
        assert_eq!((reply[1], client.read(&mut [0]).await.expect("a clean end")), (5, 0), "refused");
        let (mut client, reply) = ask(socks.address(), &request(2, echo().await)).await;
        assert_eq!((reply[1], client.read(&mut [0]).await.expect("a clean end")), (7, 0), "BIND");
        let (_, reply) = ask(socks.address(), b"\x05\x01\x00\x03\x03a b\x00\x50").await;
        assert_eq!(reply[1], 4, "no legal name");
        let no_udp = start(&shard(), &Socks { udp: false, ..settings() }).expect("listening");
        let (_, reply) = ask(no_udp.address(), &request(3, "0.0.0.0:0".parse().expect("literal"))).await;
        assert_eq!(reply[1], 7, "no UDP here");
    });
}

#[test]
fn a_name_is_resolved_on_the_way_out() {
    run(async {
        let socks = start(&shard(), &settings()).expect("listening");
        let port = echo().await.port().to_be_bytes();
        let (mut client, reply) =
            ask(socks.address(), &[b"\x05\x01\x00\x03\x09localhost", &port[..]].concat()).await;
        assert_eq!(reply[1], 0);
        client.write_all(b"x").await.expect("sent");
        assert_eq!(client.read_u8().await.expect("received"), b'x');
    });
}

#[test]
fn other_protocols_get_a_clean_end() {
    run(async {
        let socks = start(&shard(), &settings()).expect("listening");
        let long = format!("GET / HTTP/1.1\r\nCookie: {}\r\n\r\n", "x".repeat(10_000));
        for hello in [b"\x04\x01\x00\x50\x7f\x00\x00\x01\x00".to_vec(), long.into_bytes()] {
            let mut client = TcpStream::connect(socks.address()).await.expect("connected");
            client.write_all(&hello).await.expect("sent");
            assert_eq!(client.read(&mut [0; 9]).await.expect("no reset"), 0);
        }
    });
}

#[test]
fn a_silent_client_is_let_go_at_the_deadline() {
    run(async {
        let shard = shard();
        let level = crate::config::Level { handshake: Duration::from_millis(50), ..Default::default() };
        let mut config = (*shard.live().config).clone();
        config.policy.levels.insert(3, level);
        *shard.live.borrow_mut() = Rc::new(crate::engine::shard::Live::new(config).expect("a config"));
        let socks = start(&shard, &Socks { level: 3, ..settings() }).expect("listening");
        let mut client = TcpStream::connect(socks.address()).await.expect("connected");
        client.write_all(&[5]).await.expect("sent");
        assert_eq!(client.read(&mut [0]).await.expect("an end"), 0);
    });
}

#[test]
fn datagrams_pass_both_ways_while_the_connection_lives() {
    run(async {
        let shard = shard();
        let socks = start(&shard, &settings()).expect("listening");
        let servers = [UdpSocket::bind("127.0.0.1:0").await, UdpSocket::bind("127.0.0.1:0").await];
        let servers = servers.map(|server| server.expect("bind"));
        let (control, relay) = associate(socks.address()).await;
        assert!(relay.ip().is_loopback() && relay.port() != 0);
        let client = UdpSocket::bind("127.0.0.1:0").await.expect("bind");
        let mut seen = Vec::new();
        for (n, server) in servers.iter().enumerate() {
            let to = server.local_addr().expect("address");
            let payload = vec![n as u8; 1 + 3000 * n];
            client.send_to(&wrap(to, &payload), relay).await.expect("sent");
            let mut got = vec![0; 65_535];
            let (len, from) = server.recv_from(&mut got).await.expect("received");
            assert_eq!(got[..len], payload);
            server.send_to(b"answer", from).await.expect("sent");
            seen.push(from);
            let (len, from) = client.recv_from(&mut got).await.expect("received");
            assert_eq!((&got[..len], from), (&*wrap(to, b"answer"), relay));
        }
        assert_eq!(
            (shard.connections.len(), seen[0]),
            (1, seen[1]),
            "a source is one flow, and one port outside"
        );
        // Whom it has asked nothing may answer too.
        let stranger = UdpSocket::bind("127.0.0.1:0").await.expect("bind");
        stranger.send_to(b"hello", seen[0]).await.expect("sent");
        let mut got = [0; 99];
        let len = client.recv(&mut got).await.expect("received");
        assert_eq!(got[..len], wrap(stranger.local_addr().expect("address"), b"hello"));
        drop(control);
        while !shard.connections.is_empty() {
            tokio::task::yield_now().await;
        }
        assert_eq!(shard.pool.used(), 0);
    });
}

#[test]
fn datagrams_that_must_not_pass_are_dropped() {
    run(async {
        let shard = shard();
        let socks = start(&shard, &settings()).expect("listening");
        let server = UdpSocket::bind("127.0.0.1:0").await.expect("bind");
        let to = server.local_addr().expect("address");
        let (_control, relay) = associate(socks.address()).await;
        let client = UdpSocket::bind("127.0.0.1:0").await.expect("bind");
        let stranger = UdpSocket::bind("127.0.0.2:0").await.expect("bind");
        stranger.send_to(&wrap(to, b"stranger"), relay).await.expect("sent");
        let mut fragment = wrap(to, b"fragment");
        fragment[2] = 1;
        let local = ["224.0.0.1:9", "255.255.255.255:9", "169.254.1.1:9", "0.0.0.0:9"];
        let local = local.map(|to| wrap(to.parse().expect("literal"), b"local"));
        for datagram in [fragment, wrap(to, b""), vec![], vec![0; 4]].iter().chain(&local) {
            client.send_to(datagram, relay).await.expect("sent");
        }
        client.send_to(&wrap(to, b"good"), relay).await.expect("sent");
        let mut got = [0; 99];
        let (len, _) = server.recv_from(&mut got).await.expect("received");
        assert_eq!((&got[..len], shard.connections.len()), (&b"good"[..], 1));
        assert_eq!(shard.shared.stats.dropped.load(std::sync::atomic::Ordering::Relaxed), 8);
    });
}

#[test]
fn the_configured_address_is_announced() {
    run(async {
        let settings = Socks { ip: Some([192, 0, 2, 7].into()), ..settings() };
        let socks = start(&shard(), &settings).expect("listening");
        let (_control, relay) = associate(socks.address()).await;
        assert_eq!(relay.ip(), IpAddr::from([192, 0, 2, 7]));
    });
}

#[test]
fn flows_are_bounded() {
    run(async {
        let protocol = OutboundProtocol::Blackhole { http: false };
        let outbounds = vec![Outbound::new("hole", protocol)];
        let shard = Shard::for_tests(Config { outbounds, ..config() });
        let socks = start(&shard, &settings()).expect("listening");
        let (_control, relay) = associate(socks.address()).await;
        let client = UdpSocket::bind("127.0.0.1:0").await.expect("bind");
        for port in 10_000..10_600_u16 {
            client
                .send_to(&wrap(SocketAddr::new([127, 0, 0, 1].into(), port), b"x"), relay)
                .await
                .expect("sent");
            tokio::task::yield_now().await;
        }
        // Later flows find no room: none has been idle for long enough. Each datagram is dropped, there or in the hole.
        while shard.shared.stats.dropped.load(std::sync::atomic::Ordering::Relaxed) < 600 {
            tokio::task::yield_now().await;
        }
        assert_eq!(shard.connections.len(), 512);
    });
}

#[test]
fn a_taken_port_is_an_error_that_says_so() {
    run(async {
        let shard = shard();
        let first = start(&shard, &settings()).expect("listening");
        let error =
            start(&shard, &Socks { listen: first.address(), ..settings() }).err().expect("it is taken");
        assert_eq!(error.kind, ErrorKind::ResourceLimit { what: "listening port" });
        assert!(error.hint.contains("another port") && error.to_string().contains("127.0.0.1"), "{error}");
        let elsewhere = Socks { listen: "192.0.2.1:1".parse().expect("literal"), ..settings() };
        assert_eq!(start(&shard, &elsewhere).err().expect("not ours").kind, ErrorKind::ConfigInvalid);
    });
}

#[test]
fn dropping_the_listener_stops_accepting_and_nothing_else() {
    run(async {
        let socks = start(&shard(), &settings()).expect("listening");
        let address = socks.address();
        let (mut client, _) = ask(address, &request(1, echo().await)).await;
        drop(socks);
        let mut refused = TcpStream::connect(address).await.is_err();
        while !refused {
            tokio::task::yield_now().await;
            refused = TcpStream::connect(address).await.is_err();
        }
        client.write_all(b"still here").await.expect("sent");
        let mut got = [0; 10];
        client.read_exact(&mut got).await.expect("received");
        assert_eq!(&got, b"still here");
    });
}

#[test]
fn many_clients_at_once() {
    run(async {
        let shard = shard();
        let socks = start(&shard, &settings()).expect("listening");
        let (address, to) = (socks.address(), echo().await);
        let failed = Rc::new(RefCell::new(0));
        let clients: Vec<_> = (0..300_u32)
            .map(|n| {
                let failed = Rc::clone(&failed);
                spawn_local(async move {
                    let (mut client, reply) = ask(address, &request(1, to)).await;
                    client.write_u32(n).await.expect("sent");
                    if reply[1] != 0 || client.read_u32().await.ok() != Some(n) {
                        *failed.borrow_mut() += 1;
                    }
                })
            })
            .collect();
        for client in clients {
            client.await.expect("it ran");
        }
        assert_eq!(*failed.borrow(), 0);
    });
}
