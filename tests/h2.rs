//! VMess over HTTP/2: our client before our server, V2Ray at either end, and what a client is told when it cannot be.

#[path = "common/socks_client.rs"]
#[allow(dead_code, reason = "each test file uses a part of the helpers")]
mod socks_client;
#[path = "common/streams.rs"]
mod streams;
#[path = "common/transports.rs"]
#[allow(dead_code, reason = "each test file uses a part of the helpers")]
mod transports;
#[path = "common/v2ray.rs"]
#[allow(dead_code, reason = "each test file uses a part of the helpers")]
mod v2ray;

use socks_client::*;
use std::net::TcpListener;
use streams::{check, counted_forwarder, exercise_crowd, exercise_load};
use transports::{Issuer, MUX, client, client_config, client_tls, server, server_config, server_tls};
use v2ray::V2ray;
use vmesskit::{ErrorKind, Stage};

const H2: &str = r#""network": "h2", "httpSettings": {"host": ["a.test", "b.test"], "path": "/ray"},"#;
const NAME: &str = r#", "serverName": "vpn.test""#;

/// `streamSettings` of both ends.
fn both(issuer: &Issuer) -> (String, String) {
    (server_tls(H2, &issuer.issue(&["vpn.test"]), ""), client_tls(H2, issuer, NAME))
}

fn secured(config: &str, security: &str) -> String {
    config.replace(r#""security": "aes-128-gcm""#, &format!(r#""security": "{security}""#))
}

/// Our client in every security, without mux and with it, and how many connections a crowd of streams takes.
fn exercise_our_client(server: u16, ours: &str) {
    let (forwarder, made) = counted_forwarder(server);
    for security in ["aes-128-gcm", "chacha20-poly1305", "none", "zero"] {
        for mux in ["", MUX] {
            let socks = free_port();
            let client = start(&secured(&client_config(socks, forwarder, ours, mux), security));
            exercise(socks, 1_000_000, false);
            stop(&client);
        }
    }
    made.reset();
    let (client, socks) = client(forwarder, ours, "");
    exercise_crowd(socks, 80);
    exercise_load(socks);
    assert_eq!(made.get(), 1, "all streams share one connection");
    stop(&client);
}

#[test]
fn our_two_ends_understand_each_other() {
    let (theirs, ours) = both(&Issuer::new());
    let (server, port) = server(&theirs);
    exercise_our_client(port, &ours);
    stop(&server);
}

#[test]
fn our_client_speaks_to_v2ray() {
    let (theirs, ours) = both(&Issuer::new());
    let port = free_port();
    let Some(_theirs) = V2ray::with_config(&server_config(port, &theirs), port) else { return };
    exercise_our_client(port, &ours);
}

#[test]
fn v2ray_speaks_to_our_server() {
    let (theirs, ours) = both(&Issuer::new());
    let (server, port) = server(&theirs);
    for security in ["aes-128-gcm", "chacha20-poly1305", "none", "zero"] {
        for mux in ["", MUX] {
            let socks = free_port();
            let config = secured(&client_config(socks, port, &ours, mux), security);
            let Some(_client) = V2ray::with_config(&config, socks) else { return };
            exercise(socks, 1_000_000, false);
            if (security, mux) == ("aes-128-gcm", "") {
                exercise_crowd(socks, 60);
                exercise_load(socks);
            }
        }
    }
    stop(&server);
}

fn unreachable(stage: Stage) -> ErrorKind {
    ErrorKind::ServerUnreachable { stage }
}

#[test]
fn a_wrong_path_or_name_is_told_with_its_status() {
    let issuer = Issuer::new();
    let (theirs, _) = both(&issuer);
    let (ours_at, port) = server(&theirs);
    let theirs_at = free_port();
    let v2ray = V2ray::with_config(&server_config(theirs_at, &theirs), theirs_at);
    let wrong = [
        r#""network": "h2", "httpSettings": {"host": ["a.test"], "path": "/other"},"#,
        r#""network": "h2", "httpSettings": {"host": ["c.test"], "path": "/ray"},"#,
    ];
    for network in wrong {
        for port in [Some(port), v2ray.as_ref().map(|_| theirs_at)].into_iter().flatten() {
            let error = check(port, &client_tls(network, &issuer, NAME)).expect_err("not found");
            assert_eq!(error.kind, unreachable(Stage::Upgrade), "{error}");
            assert!(error.reason.contains("HTTP status 404"), "{error:?}");
        }
    }
    stop(&ours_at);
}

#[test]
fn a_server_of_something_else_is_told_apart() {
    let issuer = Issuer::new();
    let (_, ours) = both(&issuer);
    let identity = issuer.issue(&["vpn.test"]);
    // It takes HTTP/1.1 alone: there is nothing to agree on, or not what is needed.
    let (upgrades, port) = server(&server_tls(r#""network": "httpupgrade","#, &identity, ""));
    let error = check(port, &ours).expect_err("nothing in common");
    assert_eq!(error.kind, ErrorKind::TlsFailed, "{error}");
    let both_versions = format!(r#"{NAME}, "alpn": ["http/1.1", "h2"]"#);
    let error = check(port, &client_tls(H2, &issuer, &both_versions)).expect_err("HTTP/1.1");
    assert_eq!(error.kind, unreachable(Stage::Tls), "{error}");
    assert!(error.reason.contains("HTTP/2"), "{error:?}");
    stop(&upgrades);
    // It agrees on HTTP/2 and speaks HTTP/1.1.
    let (sockets, port) = server(&server_tls(r#""network": "ws","#, &identity, ""));
    let error = check(port, &ours).expect_err("no HTTP/2");
    assert_eq!(error.kind, unreachable(Stage::Upgrade), "{error}");
    stop(&sockets);
    // It is no TLS.
    let (bare, port) = server(r#"{"network": "tcp"}"#);
    let error = check(port, &ours).expect_err("no TLS");
    assert!(matches!(error.kind, ErrorKind::TlsFailed | ErrorKind::ServerUnreachable { stage: Stage::Tls }));
    stop(&bare);
}

#[test]
fn a_server_that_says_nothing_is_given_up_in_time() {
    let (_, ours) = both(&Issuer::new());
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let port = listener.local_addr().expect("address").port();
    let error = check(port, &ours).expect_err("silence");
    assert_eq!(error.kind, unreachable(Stage::Tls), "{error}");
    let bare = r#"{"network": "grpc", "grpcSettings": {"serviceName": "x"}}"#;
    let error = check(port, bare).expect_err("silence");
    assert_eq!(error.kind, unreachable(Stage::Upgrade), "{error}");
}

#[test]
fn a_client_without_tls_is_a_mistake_in_the_config() {
    let config = client_config(1, 2, &format!("{{{}}}", H2.trim_end_matches(',')), "");
    let findings = vmesskit::validate_config(&config);
    let finding = findings.iter().find(|finding| finding.text.contains("needs TLS")).expect("a finding");
    assert_eq!(finding.path, "outbounds[0].streamSettings.network");
    // A server may have its TLS before it.
    let server = server_config(2, &format!("{{{}}}", H2.trim_end_matches(',')));
    assert!(vmesskit::validate_config(&server).iter().all(|finding| !finding.text.contains("TLS")));
}
