//! VMess over gRPC: our two ends, each of them before a peer of a library's making, and nginx between them.

#[path = "common/grpc_peer.rs"]
mod grpc_peer;
#[path = "common/nginx.rs"]
mod nginx;
#[path = "common/socks_client.rs"]
#[allow(dead_code, reason = "each test file uses a part of the helpers")]
mod socks_client;
#[path = "common/streams.rs"]
mod streams;
#[path = "common/transports.rs"]
#[allow(dead_code, reason = "each test file uses a part of the helpers")]
mod transports;

use nginx::Nginx;
use socks_client::*;
use streams::{check, counted_forwarder, exercise_crowd, exercise_load};
use transports::{Issuer, MUX, client, client_config, client_tls, server, server_tls};
use vmesskit::{ErrorKind, Stage};

const GUN: &str = r#""network": "grpc", "grpcSettings": {"serviceName": "gun svc"}"#;
const MULTI: &str = r#""network": "grpc", "grpcSettings": {"serviceName": "gun svc", "multiMode": true}"#;
const BARE: &str = r#"{"network": "tcp"}"#;
const NAME: &str = r#", "serverName": "vpn.test""#;

/// `streamSettings` without TLS.
fn bare(network: &str) -> String {
    format!("{{{network}}}")
}

/// `streamSettings` of a client with TLS.
fn tls(network: &str, issuer: &Issuer) -> String {
    client_tls(&format!("{network},"), issuer, NAME)
}

/// Puts a client of ours, with these settings, through all of it.
fn put_through(port: u16, stream: &str) {
    let (ours, socks) = client(port, stream, "");
    exercise(socks, 1_000_000, false);
    exercise_crowd(socks, 60);
    exercise_load(socks);
    stop(&ours);
    let (ours, socks) = client(port, stream, MUX);
    exercise(socks, 1_000_000, false);
    stop(&ours);
}

#[test]
fn our_two_ends_understand_each_other() {
    let issuer = Issuer::new();
    let identity = issuer.issue(&["vpn.test"]);
    let (theirs, port) = server(&server_tls(&format!("{GUN},"), &identity, ""));
    let (forwarder, made) = counted_forwarder(port);
    for security in ["aes-128-gcm", "chacha20-poly1305", "none", "zero"] {
        for mux in ["", MUX] {
            let socks = free_port();
            let config = client_config(socks, forwarder, &tls(GUN, &issuer), mux);
            let ours = start(&config.replace("aes-128-gcm", security));
            exercise(socks, 1_000_000, false);
            stop(&ours);
        }
    }
    made.reset();
    put_through(forwarder, &tls(MULTI, &issuer));
    assert_eq!(made.get(), 2, "all streams of a client share one connection");
    stop(&theirs);
}

#[test]
fn our_client_speaks_to_a_librarys_server() {
    let (theirs, behind) = server(BARE);
    let port = free_port();
    grpc_peer::server(port, behind);
    put_through(port, &bare(GUN));
    put_through(port, &bare(MULTI));
    stop(&theirs);
}

#[test]
fn a_librarys_client_speaks_to_our_server() {
    let (theirs, port) = server(&bare(GUN));
    for multi in [false, true] {
        put_through(grpc_peer::client(port, multi), BARE);
    }
    stop(&theirs);
}

#[test]
fn nginx_passes_our_calls_on() {
    let (theirs, behind) = server(&bare(GUN));
    let pass = format!("grpc_pass grpc://127.0.0.1:{behind}; grpc_read_timeout 60s; grpc_send_timeout 60s;");
    let port = free_port();
    let Some(_nginx) = Nginx::start(port, None, &pass) else { return };
    put_through(port, &bare(GUN));
    let (issuer, port) = (Issuer::new(), free_port());
    let identity = issuer.issue(&["vpn.test"]);
    let Some(_secure) = Nginx::start(port, Some((&identity.chain, &identity.key)), &pass) else { return };
    put_through(port, &tls(MULTI, &issuer));
    stop(&theirs);
}

#[test]
fn a_refusal_is_told_with_its_status() {
    let (theirs, behind) = server(&bare(GUN));
    let other = r#"{"network": "grpc", "grpcSettings": {"serviceName": "other"}}"#;
    let error = check(behind, other).expect_err("another service");
    assert_eq!(error.kind, ErrorKind::ServerUnreachable { stage: Stage::Upgrade }, "{error}");
    assert!(error.reason.contains("gRPC status 12"), "{error:?}");
    for (location, said) in [
        ("return 403 '<html>not for you</html>';", "HTTP status 403"),
        ("default_type text/html; return 200 '<html>hello</html>';", "text/html"),
        ("return 301 https://elsewhere.test/;", "HTTP status 301"),
        // Nobody is there.
        ("grpc_pass grpc://127.0.0.1:1;", "HTTP status 502"),
    ] {
        let port = free_port();
        let Some(_nginx) = Nginx::start(port, None, location) else { return };
        let error = check(port, &bare(GUN)).expect_err("no gRPC");
        assert_eq!(error.kind, ErrorKind::ServerUnreachable { stage: Stage::Upgrade }, "{error}");
        assert!(error.reason.contains(said), "{location}: {error:?}");
    }
    stop(&theirs);
}
