//! Where setting a connection up can fail: each stage within its deadline, with its name, the time that it took and what
//! the other end said, and without a descriptor left over.

#[path = "common/socks_client.rs"]
#[allow(dead_code, reason = "each test file uses a part of the helpers")]
mod socks_client;
#[path = "common/transports.rs"]
#[allow(dead_code, reason = "each test file uses a part of the helpers")]
mod transports;

use socks_client::*;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener};
use std::sync::Arc;
use std::time::{Duration, Instant};
use transports::{Issuer, client_config, client_tls};
use vmesskit::{ErrorKind, NetworkInfo, NoPlatform, Options, Stage, Tunnel};

/// What a server does with a client that has said something.
#[derive(Clone, Copy)]
enum Act {
    /// Nothing, ever.
    Nothing,
    /// Says this and closes.
    Says(&'static [u8]),
    /// Closes at once.
    Closes,
}

/// A server on a port of its own.
fn server(act: Act) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let port = listener.local_addr().expect("address").port();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            if !matches!(act, Act::Closes) {
                let _ = stream.read(&mut [0; 4096]);
            }
            match act {
                Act::Nothing => {
                    let _ = stream.read_to_end(&mut Vec::new());
                }
                Act::Says(bytes) => {
                    let _ = stream.write_all(bytes);
                    let _ = stream.shutdown(Shutdown::Write);
                    let _ = stream.read_to_end(&mut Vec::new());
                }
                Act::Closes => {}
            }
        }
    });
    port
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count)
}

/// A client whose connections have a second to be set up, on a network whose DNS server is nobody.
fn client(config: &str) -> Tunnel {
    let quick = config.replacen('{', r#"{"policy": {"levels": {"0": {"handshake": 1}}},"#, 1);
    let network = NetworkInfo { dns: vec![[127, 0, 0, 1].into()], has_v4: true, ..NetworkInfo::default() };
    let options = Options { network: Some(network), ..Options::default() };
    let tunnel = Tunnel::new(&quick, options, Arc::new(NoPlatform)).expect("a good config");
    tunnel.start(None).wait(Some(PATIENCE)).expect("in time").expect("started");
    tunnel
}

#[test]
fn each_stage_fails_by_its_name_within_its_deadline() {
    let issuer = Issuer::new();
    let tls = client_tls("", &issuer, r#", "serverName": "vpn.test""#);
    let ws = r#"{"network": "ws", "wsSettings": {"path": "/x"}}"#;
    let upgrade = r#"{"network": "httpupgrade", "httpupgradeSettings": {"path": "/x"}}"#;
    let html = Act::Says(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n<html></html>");
    let missing = Act::Says(b"HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\n\r\nnope");
    let moved = Act::Says(b"HTTP/1.1 301 Moved Permanently\r\nLocation: https://elsewhere.test/\r\n\r\n");
    let forbidden = Act::Says(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 9\r\n\r\nforbidden");
    let at = |stage| ErrorKind::ServerUnreachable { stage };
    let alert = Act::Says(&[21, 3, 3, 0, 2, 2, 40]);
    let cases: Vec<(&str, Option<Act>, ErrorKind, &str)> = vec![
        ("{}", None, at(Stage::Connect), "refused"),
        (&tls, Some(Act::Nothing), at(Stage::Tls), "no answer"),
        (&tls, Some(Act::Closes), at(Stage::Tls), ""),
        (&tls, Some(alert), ErrorKind::TlsFailed, "handshake_failure"),
        (&tls, Some(missing), ErrorKind::TlsFailed, "does not speak TLS"),
        (ws, Some(Act::Nothing), at(Stage::Upgrade), "no answer"),
        (ws, Some(missing), at(Stage::Upgrade), "404"),
        (ws, Some(moved), at(Stage::Upgrade), "301"),
        (ws, Some(forbidden), at(Stage::Upgrade), "403"),
        (ws, Some(html), at(Stage::Upgrade), "200"),
        (upgrade, Some(missing), at(Stage::Upgrade), "404"),
        (upgrade, Some(Act::Nothing), at(Stage::Upgrade), "no answer"),
        ("{}", Some(Act::Closes), ErrorKind::AuthRejected, "closed"),
    ];
    let servers: Vec<u16> = cases.iter().map(|(_, act, ..)| act.map_or_else(free_port, server)).collect();
    let before = descriptors();
    for ((stream, _, kind, words), port) in cases.iter().zip(servers) {
        let tunnel = client(&client_config(free_port(), port, stream, ""));
        let started = Instant::now();
        let error = tunnel.check(PATIENCE).wait(Some(PATIENCE)).expect("in time").expect_err(words);
        assert!(started.elapsed() < Duration::from_secs(5), "{error:?}");
        assert_eq!(error.kind, *kind, "{stream}: {error:?}");
        assert!(error.reason.contains(words), "{words}: {error:?}");
        if *kind != ErrorKind::AuthRejected {
            assert!(error.text.contains("(after "), "{error:?}");
        }
        stop(&tunnel);
    }
    let config = client_config(free_port(), 1, "{}", "")
        .replace(r#""address": "127.0.0.1""#, r#""address": "no.such.invalid""#);
    let tunnel = client(&config);
    let error = tunnel.check(PATIENCE).wait(Some(PATIENCE)).expect("in time").expect_err("no such name");
    assert_eq!(error.kind, at(Stage::Resolve), "{error:?}");
    assert!(
        error.text.contains("name could not be resolved (after ") && !error.reason.is_empty(),
        "{error:?}"
    );
    assert!(!format!("{error:?}").contains("no.such"), "no name in {error:?}");
    stop(&tunnel);
    // The servers' ends of what has just been closed may take a moment.
    let started = Instant::now();
    while descriptors() > before + 2 && started.elapsed() < PATIENCE {
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(descriptors() <= before + 2, "{} descriptors, {before} before", descriptors());
}
