//! Ports that change: a server hands out ports and accounts, and clients follow, ours and V2Ray's in both places.

#[path = "common/engine.rs"]
mod engine;
#[path = "common/v2ray.rs"]
mod v2ray;

use engine::{LONG, echo, eventually, exchange, free_address, through_socks, tunnel};
use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use v2ray::{ID, V2ray};
use vmesskit::Tunnel;

/// The first port of a range of ten that are free.
fn free_range() -> u16 {
    (0..100)
        .map(|_| free_address().port())
        .find(|first| {
            *first < 65_000 && (*first..first + 10).all(|port| TcpListener::bind(("127.0.0.1", port)).is_ok())
        })
        .expect("ten free ports in a row")
}

/// The inbounds of a server on `port` that hands out ports from `range` on.
fn inbounds(port: u16, range: u16, alter_id: u16) -> String {
    format!(
        r#"[{{"protocol": "vmess", "tag": "main", "listen": "127.0.0.1", "port": {port},
              "settings": {{"clients": [{{"id": "{ID}", "alterId": 0, "email": "love@v2ray.com"}}],
                            "detour": {{"to": "dynamic"}}}}}},
            {{"protocol": "vmess", "tag": "dynamic", "listen": "127.0.0.1", "port": "{range}-{}",
              "settings": {{"default": {{"level": 0, "alterId": {alter_id}}}}},
              "allocate": {{"strategy": "random", "concurrency": 2, "refresh": 5}}}}]"#,
        range + 9
    )
}

fn server(port: u16, range: u16, alter_id: u16) -> Tunnel {
    let inbounds = inbounds(port, range, alter_id);
    started(&format!(r#"{{"inbounds": {inbounds}, "outbounds": [{{"protocol": "freedom"}}]}}"#))
}

fn client(socks: SocketAddr, port: u16, more: &str) -> Tunnel {
    started(&client_config(socks, port, more))
}

fn client_config(socks: SocketAddr, port: u16, more: &str) -> String {
    format!(
        r#"{{"log": {{"loglevel": "none"}},
             "inbounds": [{{"protocol": "socks", "listen": "127.0.0.1", "port": {}, "settings": {{"auth": "noauth"}}}}],
             "outbounds": [{{"protocol": "vmess", "settings": {{"vnext": [{{"address": "127.0.0.1", "port": {port},
                 "users": [{{"id": "{ID}", "alterId": 0, "security": "aes-128-gcm"}}]}}]}}}}]{more}}}"#,
        socks.port()
    )
}

fn started(config: &str) -> Tunnel {
    let tunnel = tunnel(config);
    tunnel.start(None).wait(Some(LONG)).expect("answered").expect("started");
    tunnel
}

fn stop(tunnel: &Tunnel) {
    assert_eq!(tunnel.stop(LONG).wait(Some(LONG)), Some(Ok(())));
}

/// Opens connections through a SOCKS inbound, which stay open, and moves something on each.
fn connections(socks: SocketAddr, echo: SocketAddr, count: usize) -> Vec<TcpStream> {
    let connection = |_| {
        let mut stream = through_socks(socks, echo);
        exchange(&mut stream, b"hello");
        stream
    };
    (0..count).map(connection).collect()
}

/// How many of a server's connections came in at the main port, and how many at others.
fn by_inbound(server: &Tunnel) -> (usize, usize) {
    let list = server.connections().wait(Some(LONG)).expect("answered").expect("running");
    let main = list.iter().filter(|connection| connection.inbound == "main").count();
    (main, list.len() - main)
}

#[test]
fn our_client_takes_turns_with_the_ports_of_our_server() {
    for alter_id in [0, 2] {
        let (port, range, echo) = (free_address().port(), free_range(), echo());
        let server = server(port, range, alter_id);
        let socks = free_address();
        let follows = client(socks, port, "");
        let open = connections(socks, echo, 12);
        let (main, others) = by_inbound(&server);
        assert!(main >= 4 && others >= 4, "alterId {alter_id}: {main} and {others}");
        assert_eq!(main + others, 12);
        drop(open);
        stop(&follows);
        eventually("the connections' end", || (by_inbound(&server) == (0, 0)).then_some(()));

        let stays = client(socks, port, r#", "vmesskit": {"dynamicPort": false}"#);
        let open = connections(socks, echo, 6);
        assert_eq!(by_inbound(&server), (6, 0), "it was told not to");
        drop(open);
        stop(&stays);
        stop(&server);
    }
}

/// A server that answers every connection with a byte.
fn signpost(byte: u8) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound");
    std::thread::spawn(move || {
        for mut client in listener.incoming().flatten() {
            // The client may have gone.
            let _ = client.write_all(&[byte]);
        }
    });
    address
}

#[test]
fn our_client_follows_v2rays_server() {
    let (port, range) = (free_address().port(), free_range());
    let (main, other) = (signpost(b'm'), signpost(b'o'));
    // Where a flow comes in decides where it ends.
    let config = format!(
        r#"{{"log": {{"loglevel": "none"}}, "inbounds": {},
             "outbounds": [{{"protocol": "freedom", "tag": "m", "settings": {{"redirect": "{main}"}}}},
                           {{"protocol": "freedom", "tag": "o", "settings": {{"redirect": "{other}"}}}}],
             "routing": {{"rules": [{{"type": "field", "inboundTag": ["dynamic"], "outboundTag": "o"}},
                                    {{"type": "field", "inboundTag": ["main"], "outboundTag": "m"}}]}}}}"#,
        inbounds(port, range, 0)
    );
    let Some(_v2ray) = V2ray::with_config(&config, port) else { return };
    let socks = free_address();
    let client = client(socks, port, "");
    let ways = || {
        let mut byte = [0];
        through_socks(socks, main).read_exact(&mut byte).expect("an answer");
        byte[0]
    };
    let seen: Vec<u8> = (0..12).map(|_| ways()).collect();
    assert_eq!(BTreeSet::from_iter(&seen), BTreeSet::from([&b'm', &b'o']), "{seen:?}");
    stop(&client);
}

#[test]
fn v2rays_client_follows_our_server() {
    for alter_id in [0, 2] {
        let (port, range, echo, socks) = (free_address().port(), free_range(), echo(), free_address());
        let server = server(port, range, alter_id);
        let Some(_v2ray) = V2ray::with_config(&client_config(socks, port, ""), socks.port()) else { return };
        let open = connections(socks, echo, 12);
        let (main, others) = by_inbound(&server);
        assert!(main >= 3 && others >= 3, "alterId {alter_id}: {main} and {others}");
        drop(open);
        stop(&server);
    }
}
