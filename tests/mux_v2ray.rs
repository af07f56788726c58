//! Mux in front of a real V2Ray server: streams and datagrams, many at a time, and a stalled one beside a moving one.

#[path = "common/socks_client.rs"]
#[allow(dead_code, reason = "each test file uses a part of the helpers")]
mod socks_client;
#[path = "common/v2ray.rs"]
mod v2ray;

use socks_client::*;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};
use v2ray::{ID, V2ray};
use vmesskit::{State, Tunnel};

fn tunnel(port: u16, server: u16, security: &str, concurrency: u16) -> Tunnel {
    start(&format!(
        r#"{{
          "inbounds": [{{"protocol": "socks", "listen": "127.0.0.1", "port": {port}, "settings": {{"udp": true}}}}],
          "outbounds": [{{"protocol": "vmess", "settings": {{"vnext": [{{
            "address": "127.0.0.1", "port": {server},
            "users": [{{"id": "{ID}", "alterId": 0, "security": "{security}"}}]
          }}]}}, "mux": {{"enabled": true, "concurrency": {concurrency}}}}}]
        }}"#
    ))
}

/// How many connections of this process are open to `port`.
fn carriers(port: u16) -> usize {
    let table = std::fs::read_to_string("/proc/net/tcp").expect("procfs");
    let remote = format!(":{port:04X}");
    let established = |line: &&str| {
        let mut fields = line.split_whitespace().skip(2);
        fields.next().is_some_and(|to| to.ends_with(&remote)) && fields.next() == Some("01")
    };
    table.lines().filter(established).count()
}

#[test]
fn every_security_carries_streams_and_datagrams() {
    let server = free_port();
    let Some(_v2ray) = V2ray::server(server) else { return };
    let (tcp, udp) = (tcp_echo(), udp_echo());
    for security in ["auto", "chacha20-poly1305", "none", "zero"] {
        let port = free_port();
        let tunnel = tunnel(port, server, security, 8);
        let clients: Vec<_> = (0..4)
            .map(|seed| {
                thread::spawn(move || exchange_open(connect(port, "127.0.0.1", tcp.port()), 1_500_000, seed))
            })
            .collect();
        let association = Association::new(port);
        for len in [1, 100, 1400, 2048] {
            association.send("127.0.0.1", udp.port(), &vec![len as u8; len]);
            let got = association.receive();
            assert_eq!(got[got.len() - len..], vec![len as u8; len], "{security}, {len} bytes");
        }
        for client in clients {
            client.join().expect("the bytes came back");
        }
        drop(exchange_open(connect(port, "localhost", tcp.port()), 5000, 9));
        assert_eq!(carriers(server), 1, "{security}: they share a carrier");
        assert_eq!(tunnel.status().state, State::Connected, "{security}");
        stop(&tunnel);
    }
}

#[test]
fn two_hundred_streams_share_few_carriers() {
    let server = free_port();
    let Some(_v2ray) = V2ray::server(server) else { return };
    let (tcp, port) = (tcp_echo(), free_port());
    let tunnel = tunnel(port, server, "auto", 64);
    let open: Vec<_> = (0..200)
        .map(|seed| {
            thread::spawn(move || exchange_open(connect(port, "127.0.0.1", tcp.port()), 20_000, seed))
        })
        .map(|client| client.join().expect("the bytes came back"))
        .collect();
    assert_eq!(carriers(server), 4, "64 a carrier at a time");
    drop(open);
    for round in 0..3 {
        let clients: Vec<_> = (0..64)
            .map(|seed| {
                thread::spawn(move || {
                    exchange_open(connect(port, "127.0.0.1", tcp.port()), 100_000, round * 64 + seed)
                })
            })
            .collect();
        clients.into_iter().for_each(|client| drop(client.join().expect("the bytes came back")));
    }
    stop(&tunnel);
}

/// Sends without end to whoever connects.
fn fountain() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let port = listener.local_addr().expect("address").port();
    thread::spawn(move || {
        for mut client in listener.incoming().flatten() {
            thread::spawn(move || while client.write_all(&[7; 65_536]).is_ok() {});
        }
    });
    port
}

#[test]
fn a_stalled_stream_does_not_stop_those_that_send() {
    let server = free_port();
    let Some(_v2ray) = V2ray::server(server) else { return };
    let (tcp, port) = (tcp_echo(), free_port());
    let tunnel = tunnel(port, server, "auto", 8);
    let beside = connect(port, "127.0.0.1", tcp.port());
    let mut stalled = connect(port, "127.0.0.1", fountain());
    stalled.write_all(b"x").expect("sent");
    let mut first = [0; 1000];
    stalled.read_exact(&mut first).expect("it flows");
    // Its reader has gone to sleep; what comes for it fills its room.
    thread::sleep(Duration::from_secs(1));
    let mut sending = beside.try_clone().expect("a descriptor");
    sending.set_write_timeout(Some(PATIENCE)).expect("a timeout");
    let start = Instant::now();
    sending.write_all(&vec![1; 200_000]).expect("the way up is another one");
    assert!(start.elapsed() < Duration::from_secs(5));
    // A carrier that is held up takes nobody on; the others move.
    exchange_open(connect(port, "127.0.0.1", tcp.port()), 3_000_000, 5);
    assert_eq!(carriers(server), 2);
    // Once the sleeper has gone its neighbour gets what was sent to it.
    drop(stalled);
    let mut reading = beside;
    reading.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let mut back = vec![0; 200_000];
    reading.read_exact(&mut back).expect("the carrier moves again");
    assert!(back.iter().all(|byte| *byte == 1));
    stop(&tunnel);
}

#[test]
fn ends_pass_as_mux_lets_them() {
    let server = free_port();
    let Some(_v2ray) = V2ray::server(server) else { return };
    let port = free_port();
    let tunnel = tunnel(port, server, "auto", 8);
    // A target that answers late: the app has ended its direction long before, and gets the whole answer, then its end.
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let target = listener.local_addr().expect("address").port();
    let late = thread::spawn(move || {
        let (mut client, _) = listener.accept().expect("accepted");
        let mut asked = [0; 5];
        client.read_exact(&mut asked).expect("asked");
        thread::sleep(Duration::from_millis(700));
        client.write_all(&vec![3; 100_000]).expect("answered");
    });
    let mut app = connect(port, "127.0.0.1", target);
    app.write_all(b"hello").expect("sent");
    app.shutdown(Shutdown::Write).expect("connected");
    let mut answer = Vec::new();
    app.read_to_end(&mut answer).expect("a proper end");
    assert_eq!(answer.len(), 100_000);
    late.join().expect("served");
    // A banner comes although the app says nothing.
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let target = listener.local_addr().expect("address").port();
    let banner =
        thread::spawn(move || listener.accept().expect("accepted").0.write_all(b"220 hello").expect("sent"));
    let mut got = Vec::new();
    connect(port, "127.0.0.1", target).read_to_end(&mut got).expect("received");
    assert_eq!(got, b"220 hello");
    banner.join().expect("served");
    assert_eq!(carriers(server), 1);
    stop(&tunnel);
}

#[test]
fn a_carrier_that_dies_resets_its_streams() {
    let server = free_port();
    let Some(v2ray) = V2ray::server(server) else { return };
    let (tcp, port) = (tcp_echo(), free_port());
    let tunnel = tunnel(port, server, "auto", 8);
    let mut open: Vec<TcpStream> =
        (0..5).map(|seed| exchange_open(connect(port, "127.0.0.1", tcp.port()), 5000, seed)).collect();
    drop(v2ray);
    for stream in &mut open {
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let error = stream.read(&mut [0; 9]).expect_err("no proper end");
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    }
    stop(&tunnel);
}
