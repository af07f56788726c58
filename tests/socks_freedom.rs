//! A tunnel with a SOCKS inbound and a freedom outbound: streams, datagrams, passwords, replies.

#[path = "common/socks_client.rs"]
#[allow(dead_code, reason = "each test file uses a part of the helpers")]
mod socks_client;

use socks_client::*;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;

fn config(port: u16, settings: &str) -> String {
    format!(
        r#"{{
          "inbounds": [{{"protocol": "socks", "listen": "127.0.0.1", "port": {port}, "settings": {settings}}}],
          "outbounds": [{{"protocol": "freedom"}}, {{"protocol": "blackhole", "tag": "nowhere"}}],
          "routing": {{"rules": [{{"type": "field", "domain": ["full:blocked.example"], "outboundTag": "nowhere"}}]}}
        }}"#
    )
}

#[test]
fn streams_pass_whole_in_parallel() {
    let port = free_port();
    let tunnel = start(&config(port, "{}"));
    let echo = tcp_echo();
    let clients: Vec<_> = (0..8)
        .map(|seed| thread::spawn(move || exchange(connect(port, "127.0.0.1", echo.port()), 3_000_000, seed)))
        .collect();
    for client in clients {
        client.join().expect("the bytes came back");
    }
    let stats = tunnel.stats();
    assert_eq!((stats.uplink_bytes, stats.downlink_bytes, stats.tcp_total), (24_000_000, 24_000_000, 8));
    stop(&tunnel);
    assert!(TcpStream::connect(("127.0.0.1", port)).is_err(), "nobody listens after the stop");
}

#[test]
fn names_of_the_hosts_file_are_known() {
    let port = free_port();
    let tunnel = start(&config(port, "{}"));
    exchange(connect(port, "localhost", tcp_echo().port()), 10_000, 1);
    stop(&tunnel);
}

#[test]
fn datagrams_pass_by_address_and_by_name() {
    let port = free_port();
    let tunnel = start(&config(port, r#"{"udp": true}"#));
    let echo = udp_echo();
    let association = Association::new(port);
    for (host, len) in [("127.0.0.1", 1), ("127.0.0.1", 1400), ("127.0.0.1", 9000), ("localhost", 512)] {
        let payload = vec![len as u8; len];
        association.send(host, echo.port(), &payload);
        let got = association.receive();
        assert_eq!(got[got.len() - len..], payload, "{host} {len}");
    }
    stop(&tunnel);
}

#[test]
fn only_those_with_the_password_pass() {
    let port = free_port();
    let account = r#"{"auth": "password", "accounts": [{"user": "me", "pass": "secret"}]}"#;
    let tunnel = start(&config(port, account));
    let mut stream = greet(port, Some(("me", "secret"))).expect("the right password");
    assert_eq!(request(&mut stream, 1, "127.0.0.1", tcp_echo().port()).0, 0);
    exchange(stream, 1000, 1);
    assert_eq!(greet(port, Some(("me", "Secret"))).err(), Some(vec![1, 1]));
    assert_eq!(greet(port, None).err(), Some(vec![5, 255]));
    stop(&tunnel);
}

#[test]
fn replies_say_what_happened() {
    let port = free_port();
    let tunnel = start(&config(port, "{}"));
    let ask = |command, host: &str, target| {
        let mut stream = greet(port, None).expect("no password asked");
        let (code, _) = request(&mut stream, command, host, target);
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).expect("a clean end");
        (code, rest.len())
    };
    assert_eq!(ask(1, "127.0.0.1", free_port()), (5, 0), "refused");
    assert_eq!(ask(2, "127.0.0.1", 80), (7, 0), "BIND");
    assert_eq!(ask(3, "0.0.0.0", 0), (7, 0), "UDP is off by default");
    let blocked = ask(1, "blocked.example", 80);
    assert!(blocked == (0, 0) || blocked == (2, 0), "the blackhole takes it: {blocked:?}");
    stop(&tunnel);
}

#[test]
fn a_server_that_speaks_first_is_heard() {
    let port = free_port();
    let tunnel = start(&config(port, "{}"));
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let target = listener.local_addr().expect("address").port();
    let server =
        thread::spawn(move || listener.accept().expect("accepted").0.write_all(b"220 hello").expect("sent"));
    let mut got = Vec::new();
    connect(port, "127.0.0.1", target).read_to_end(&mut got).expect("received");
    assert_eq!(got, b"220 hello");
    server.join().expect("served");
    stop(&tunnel);
}

#[test]
fn a_taken_port_keeps_the_tunnel_from_starting() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("bind");
    let port = taken.local_addr().expect("address").port();
    let platform = std::sync::Arc::new(vmesskit::NoPlatform);
    let tunnel =
        vmesskit::Tunnel::new(&config(port, "{}"), vmesskit::Options::default(), platform).expect("a config");
    let error = tunnel.start(None).wait(Some(PATIENCE)).expect("in time").expect_err("the port is taken");
    assert_eq!(error.kind, vmesskit::error::ErrorKind::ResourceLimit { what: "listening port" });
    assert_eq!(error.path, "inbounds[0].port");
}
