//! SOCKS in front of a real V2Ray server: every security, streams and datagrams.

#[path = "common/socks_client.rs"]
#[allow(dead_code, reason = "each test file uses a part of the helpers")]
mod socks_client;
#[path = "common/v2ray.rs"]
mod v2ray;

use socks_client::*;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::thread;
use std::time::{Duration, Instant};
use v2ray::{ID, V2ray};
use vmesskit::{State, Tunnel};

fn tunnel(port: u16, server: u16, id: &str, security: &str) -> Tunnel {
    start(&format!(
        r#"{{
          "inbounds": [{{"protocol": "socks", "listen": "127.0.0.1", "port": {port}, "settings": {{"udp": true}}}}],
          "outbounds": [{{"protocol": "vmess", "settings": {{"vnext": [{{
            "address": "127.0.0.1", "port": {server},
            "users": [{{"id": "{id}", "alterId": 0, "security": "{security}"}}]
          }}]}}}}]
        }}"#
    ))
}

#[test]
fn every_security_carries_streams_and_datagrams() {
    let server = free_port();
    let Some(_v2ray) = V2ray::server(server) else { return };
    let (tcp, udp) = (tcp_echo(), udp_echo());
    for security in ["auto", "aes-128-gcm", "chacha20-poly1305", "none"] {
        let port = free_port();
        let tunnel = tunnel(port, server, ID, security);
        let clients: Vec<_> = (0..4)
            .map(|seed| {
                thread::spawn(move || exchange(connect(port, "127.0.0.1", tcp.port()), 1_500_000, seed))
            })
            .collect();
        for client in clients {
            client.join().expect("the bytes came back");
        }
        drop(exchange_open(connect(port, "localhost", tcp.port()), 5000, 9));
        let association = Association::new(port);
        for len in [1, 100, 1400, 1800] {
            association.send("127.0.0.1", udp.port(), &vec![len as u8; len]);
            let got = association.receive();
            assert_eq!(got[got.len() - len..], vec![len as u8; len], "{security}, {len} bytes");
        }
        assert_eq!(tunnel.status().state, State::Connected, "{security}");
        stop(&tunnel);
    }
}

#[test]
fn a_server_that_speaks_first_is_heard() {
    let server = free_port();
    let Some(_v2ray) = V2ray::server(server) else { return };
    let port = free_port();
    let tunnel = tunnel(port, server, ID, "auto");
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let target = listener.local_addr().expect("address").port();
    let banner =
        thread::spawn(move || listener.accept().expect("accepted").0.write_all(b"220 hello").expect("sent"));
    let start = Instant::now();
    let mut got = [0; 9];
    connect(port, "127.0.0.1", target).read_exact(&mut got).expect("received");
    assert_eq!(&got, b"220 hello");
    assert!(start.elapsed() < Duration::from_secs(2), "the header goes out alone: {:?}", start.elapsed());
    banner.join().expect("served");
    stop(&tunnel);
}

#[test]
fn a_wrong_id_ends_in_an_error_not_in_an_end() {
    let server = free_port();
    let Some(_v2ray) = V2ray::server(server) else { return };
    let port = free_port();
    let tunnel = tunnel(port, server, "00000000-0000-4000-8000-000000000001", "auto");
    let mut stream = connect(port, "127.0.0.1", tcp_echo().port());
    stream.set_read_timeout(Some(Duration::from_secs(3))).expect("a timeout");
    stream.write_all(b"hello").expect("sent");
    // V2Ray drains whom it does not know, or closes; neither may look like the target's own end.
    let error = stream.read(&mut [0; 9]).expect_err("no data, and no proper end");
    let kinds = [std::io::ErrorKind::ConnectionReset, std::io::ErrorKind::WouldBlock];
    assert!(kinds.contains(&error.kind()), "{error}");
    assert_ne!(tunnel.status().state, State::Connected);
    stop(&tunnel);
}

#[test]
fn a_server_that_is_not_there_is_told_at_once() {
    let port = free_port();
    let tunnel = tunnel(port, free_port(), ID, "auto");
    let mut stream = connect(port, "127.0.0.1", 80);
    let start = Instant::now();
    let error = stream.read(&mut [0; 9]).expect_err("a reset");
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    stop(&tunnel);
}
