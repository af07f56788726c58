//! A real V2Ray as the client of our server: every security and header, streams, datagrams, half-closed streams.

#[path = "common/socks_client.rs"]
#[allow(dead_code, reason = "each test file uses a part of the helpers")]
mod socks_client;
#[path = "common/v2ray.rs"]
mod v2ray;

use socks_client::*;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener};
use std::thread;
use std::time::Duration;
use v2ray::{ID, V2ray};
use vmesskit::Tunnel;

fn server(port: u16, alter_id: u16) -> Tunnel {
    start(&format!(
        r#"{{
          "inbounds": [{{"protocol": "vmess", "listen": "127.0.0.1", "port": {port},
            "settings": {{"clients": [{{"id": "{ID}", "alterId": {alter_id}}}]}}}}],
          "outbounds": [{{"protocol": "freedom"}}]
        }}"#
    ))
}

/// A target that counts what it gets, and tells once its client has ended.
fn counter() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let port = listener.local_addr().expect("address").port();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut all = Vec::new();
            if stream.read_to_end(&mut all).is_ok() {
                let _ = stream.write_all(all.len().to_string().as_bytes());
            }
        }
    });
    port
}

#[test]
fn every_security_and_header_carries_streams_and_datagrams() {
    let port = free_port();
    for alter_id in [0, 4] {
        let server = server(port, alter_id);
        let (tcp, udp, counter) = (tcp_echo(), udp_echo(), counter());
        for security in ["auto", "aes-128-gcm", "chacha20-poly1305", "none"] {
            let socks = free_port();
            let user = format!(r#""alterId": {alter_id}, "security": "{security}""#);
            let Some(_v2ray) = V2ray::client(socks, port, &user) else { return };
            let clients: Vec<_> = (0..4)
                .map(|seed| {
                    let to = tcp.port();
                    thread::spawn(move || exchange(connect(socks, "127.0.0.1", to), 1_500_000, seed))
                })
                .collect();
            clients.into_iter().for_each(|client| client.join().expect("the bytes came back"));
            let association = Association::new(socks);
            for len in [1, 100, 1400, 1800] {
                association.send("127.0.0.1", udp.port(), &vec![len as u8; len]);
                let got = association.receive();
                assert_eq!(got[got.len() - len..], vec![len as u8; len], "{security}, {len} bytes");
            }
            let mut stream = connect(socks, "127.0.0.1", counter);
            stream.write_all(&[1; 100_000]).expect("sent");
            stream.shutdown(Shutdown::Write).expect("ended");
            let mut answer = String::new();
            stream.read_to_string(&mut answer).expect("a proper end");
            assert_eq!(answer, "100000", "{security}, alterId {alter_id}");
        }
        stop(&server);
    }
}

#[test]
fn a_target_that_speaks_first_is_heard() {
    let port = free_port();
    let server = server(port, 0);
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let target = listener.local_addr().expect("address").port();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let _ = stream.write_all(b"220 ready\r\n");
            thread::sleep(Duration::from_secs(1));
        }
    });
    let socks = free_port();
    let Some(_v2ray) = V2ray::client(socks, port, r#""alterId": 0, "security": "auto""#) else { return };
    let mut stream = connect(socks, "127.0.0.1", target);
    let mut banner = [0; 11];
    stream.read_exact(&mut banner).expect("a banner");
    assert_eq!(&banner, b"220 ready\r\n");
    stop(&server);
}
