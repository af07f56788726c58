//! Limits on connections, by user and by source address, and what the host is told of them.

#[path = "common/probes.rs"]
#[allow(dead_code, reason = "each test file uses a part of the helpers")]
mod probes;
#[path = "common/socks_client.rs"]
#[allow(dead_code, reason = "each test file uses a part of the helpers")]
mod socks_client;
#[path = "common/vmess_server.rs"]
mod vmess_server;

use probes::*;
use socks_client::*;
use std::io::Write;
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};
use vmess_server::ID;
use vmesskit::{Event, Tunnel};

fn server(port: u16, limits: &str) -> Tunnel {
    start(&format!(
        r#"{{
          "inbounds": [{{"protocol": "vmess", "tag": "door", "listen": "127.0.0.1", "port": {port},
            "settings": {{"clients": [{{"id": "{ID}", "email": "me@example.com"}}]}}}}],
          "outbounds": [{{"protocol": "freedom"}}],
          "vmesskit": {limits}
        }}"#
    ))
}

/// What the host has been told of limits so far.
fn told(tunnel: &Tunnel) -> Vec<String> {
    let mut told = Vec::new();
    while let Some(Some(event)) = tunnel.next_event().wait(Some(Duration::from_millis(50))) {
        if let Event::ResourceLimit { what } = event {
            told.push(what);
        }
    }
    told
}

fn until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_user_has_so_many_connections_and_no_more() {
    let port = free_port();
    let server = server(port, r#"{"connectionsPerUser": 3}"#);
    let echo = tcp_echo();
    let dial = |seed| {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("it listens");
        stream.write_all(&header(&cmd_key(), now(), seed, echo, |_| {})).expect("sent");
        stream
    };
    let mut open: Vec<TcpStream> = (0..3).map(dial).collect();
    until("three connections", || server.stats().tcp_open == 3);
    for seed in 10..20 {
        let seen = watch(dial(seed), Instant::now(), &[]);
        assert_eq!((seen.bytes, seen.reset), (0, false), "{seen:?}");
        assert!(seen.after < Duration::from_secs(1), "at once: {seen:?}");
    }
    assert_eq!(told(&server), ["connections of a user at [door]"], "once");
    open.pop();
    until("a free place", || server.stats().tcp_open == 2);
    open.push(dial(30));
    until("the next one", || server.stats().tcp_open == 3);
    stop(&server);
}

#[test]
fn a_source_has_so_many_connections_and_no_more() {
    let port = free_port();
    let server = server(port, r#"{"connectionsPerSource": 2}"#);
    let silent: Vec<TcpStream> =
        (0..2).map(|_| TcpStream::connect(("127.0.0.1", port)).expect("it listens")).collect();
    // Shards accept side by side: both places must be taken before somebody asks for a third.
    thread::sleep(Duration::from_millis(500));
    let seen = probe(port, &[], &[], false);
    assert_eq!((seen.bytes, seen.reset), (0, false), "{seen:?}");
    assert!(seen.after < Duration::from_secs(1), "at once: {seen:?}");
    assert_eq!(told(&server), ["connections of a source address at [door]"]);
    drop(silent);
    let echo = tcp_echo();
    until("a free place", || {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("it listens");
        let wire =
            header(&cmd_key(), now(), u64::from(stream.local_addr().expect("bound").port()), echo, |_| {});
        // A place that is not free yet is a connection that is closed.
        let _ = stream.write_all(&wire);
        thread::sleep(Duration::from_millis(50));
        server.stats().tcp_total > 0
    });
    stop(&server);
}
