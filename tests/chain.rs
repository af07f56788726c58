//! Outbounds that are dialled through other outbounds: VMess in VMess, through freedom, three in a row, and which of them
//! has failed.

#[path = "common/socks_client.rs"]
#[allow(dead_code, reason = "each test file uses a part of the helpers")]
mod socks_client;
#[path = "common/transports.rs"]
#[allow(dead_code, reason = "each test file uses a part of the helpers")]
mod transports;
#[path = "common/v2ray.rs"]
#[allow(dead_code, reason = "each test file uses a part of the helpers")]
mod v2ray;

use socks_client::*;
use transports::{ID, Issuer, client_tls, server, server_config, server_tls};
use v2ray::V2ray;
use vmesskit::{ErrorKind, Stage, Tunnel};

/// A VMess outbound to a server.
fn vmess(tag: &str, port: u16, more: &str) -> String {
    format!(
        r#"{{"protocol": "vmess", "tag": "{tag}", "settings": {{"vnext": [{{"address": "127.0.0.1", "port": {port},
            "users": [{{"id": "{ID}", "security": "aes-128-gcm"}}]}}]}}{more}}}"#
    )
}

/// A client with these outbounds behind a SOCKS inbound, whose port it returns.
fn client(outbounds: &[String]) -> (Tunnel, u16) {
    let (port, outbounds) = (free_port(), outbounds.join(","));
    let config = format!(
        r#"{{"log": {{"loglevel": "none"}},
          "inbounds": [{{"protocol": "socks", "listen": "127.0.0.1", "port": {port}, "settings": {{"udp": true}}}}],
          "outbounds": [{outbounds}]}}"#
    );
    (start(&config), port)
}

const WS: &str = r#"{"network": "ws", "wsSettings": {"path": "/in"}}"#;

#[test]
fn vmess_on_websocket_rides_in_vmess() {
    let ((first, hop), (last, port)) = (server("{}"), server(WS));
    for stream in [
        format!(r#", "streamSettings": {WS}, "proxySettings": {{"tag": "hop", "transportLayer": true}}"#),
        r#", "streamSettings": {"network": "ws", "wsSettings": {"path": "/in"}, "sockopt": {"dialerProxy": "hop"}}"#
            .to_owned(),
    ] {
        let (ours, socks) = client(&[vmess("last", port, &stream), vmess("hop", hop, "")]);
        exercise(socks, 3_000_000, true);
        stop(&ours);
    }
    assert!(first.stats().dials > 0, "it went through the first server");
    stop(&first);
    stop(&last);
}

#[test]
fn the_pooled_connections_of_grpc_ride_in_vmess() {
    let grpc = r#"{"network": "grpc", "grpcSettings": {"serviceName": "s"}}"#;
    let ((first, hop), (last, port)) = (server("{}"), server(grpc));
    let stream =
        format!(r#", "streamSettings": {grpc}, "proxySettings": {{"tag": "hop", "transportLayer": true}}"#);
    let (ours, socks) = client(&[vmess("last", port, &stream), vmess("hop", hop, "")]);
    exercise(socks, 3_000_000, true);
    assert!(first.stats().dials > 0, "it went through the first server");
    for tunnel in [&ours, &first, &last] {
        stop(tunnel);
    }
}

#[test]
fn three_in_a_row_with_tls_mux_and_freedom_between() {
    let issuer = Issuer::new();
    let (first, hop) = server("{}");
    let (second, between) = server(&server_tls("", &issuer.issue(&["vpn.test"]), ""));
    let (third, port) = server(WS);
    let tls = client_tls("", &issuer, r#", "serverName": "vpn.test""#);
    let through = |tag: &str| format!(r#", "proxySettings": {{"tag": "{tag}", "transportLayer": true}}"#);
    let outbounds = [
        vmess("third", port, &format!(r#", "streamSettings": {WS}{}"#, through("second"))),
        vmess("first", hop, &format!(r#", "mux": {{"enabled": true}}{}"#, through("direct"))),
        vmess("second", between, &format!(r#", "streamSettings": {tls}{}"#, through("first"))),
        r#"{"protocol": "freedom", "tag": "direct"}"#.to_owned(),
    ];
    let (ours, socks) = client(&outbounds);
    exercise(socks, 3_000_000, true);
    assert!(first.stats().dials > 0 && second.stats().dials > 0 && third.stats().dials > 0);
    for tunnel in [&ours, &first, &second, &third] {
        stop(tunnel);
    }
}

#[test]
fn freedom_goes_through_vmess() {
    let (theirs, port) = server("{}");
    let freedom = r#"{"protocol": "freedom", "tag": "out", "proxySettings": {"tag": "hop"}}"#;
    let (ours, socks) = client(&[freedom.to_owned(), vmess("hop", port, "")]);
    exercise(socks, 3_000_000, true);
    assert!(theirs.stats().dials > 0);
    stop(&ours);
    stop(&theirs);
}

#[test]
fn without_transport_layer_the_servers_see_what_v2rays_client_shows_them() {
    // The second server has no WebSocket: V2Ray leaves it out of such a chain, and keeps TLS.
    let (issuer, port, hop) = (Issuer::new(), free_port(), free_port());
    let stream = server_tls("", &issuer.issue(&["vpn.test"]), "");
    let Some(_last) = V2ray::with_config(&server_config(port, &stream), port) else { return };
    let Some(_first) = V2ray::with_config(&server_config(hop, "{}"), hop) else { return };
    let ws = r#""network": "ws","#;
    let tls = client_tls(ws, &issuer, r#", "serverName": "vpn.test""#);
    let proxy = format!(r#", "streamSettings": {tls}, "proxySettings": {{"tag": "hop"}}"#);
    let outbounds = [vmess("last", port, &proxy), vmess("hop", hop, "")];
    let (ours, socks) = client(&outbounds);
    exercise(socks, 3_000_000, false);
    stop(&ours);
    // The same words to V2Ray's own client.
    let config = format!(
        r#"{{"inbounds": [{{"protocol": "socks", "listen": "127.0.0.1", "port": {socks}, "settings": {{"udp": true}}}}],
          "outbounds": [{}]}}"#,
        outbounds.join(",")
    );
    let Some(_theirs) = V2ray::with_config(&config, socks) else { return };
    exercise(socks, 3_000_000, false);
}

#[test]
fn the_outbound_that_failed_is_named() {
    let port = free_port();
    // Strangers are sent away after a second.
    let quick =
        server_config(port, "{}").replacen('{', r#"{"policy": {"levels": {"0": {"handshake": 1}}},"#, 1);
    let theirs = start(&quick);
    let closed = free_port();
    let through = |tag: &str| format!(r#", "proxySettings": {{"tag": "{tag}", "transportLayer": true}}"#);
    let on = |what: &str, more: &str| match what {
        "tls" => format!(
            r#", "streamSettings": {{"security": "tls", "tlsSettings": {{"allowInsecure": true}}}}{more}"#
        ),
        _ => format!(r#", "streamSettings": {WS}{more}"#),
    };
    let connect = ErrorKind::ServerUnreachable { stage: Stage::Connect };
    let stranger = vmess("hop", port, "").replace(ID, "00000000-0000-4000-8000-000000000000");
    let (in_two, in_three) = ("by way of [hop]: it could not", "by way of [a]: by way of [b]: it could not");
    for (outbounds, kind, words) in [
        (vec![vmess("out", port, &through("hop")), vmess("hop", closed, "")], connect, in_two),
        (
            vec![vmess("out", port, &through("a")), vmess("a", port, &through("b")), vmess("b", closed, "")],
            connect,
            in_three,
        ),
        (
            vec![vmess("out", port, &through("hop")), stranger.clone()],
            ErrorKind::AuthRejected,
            "by way of [hop]: the server",
        ),
        (vec![vmess("out", closed, "")], connect, "it could not be connected"),
        // What rides on it waits for an answer of its own.
        (
            vec![vmess("out", port, &on("websocket", &through("hop"))), stranger.clone()],
            ErrorKind::AuthRejected,
            "by way of [hop]: the server",
        ),
        (
            vec![vmess("out", port, &on("tls", &through("hop"))), stranger.clone()],
            ErrorKind::AuthRejected,
            "by way of [hop]: the server",
        ),
    ] {
        let (ours, _) = client(&outbounds);
        let error = ours.check(PATIENCE).wait(Some(PATIENCE)).expect("in time").expect_err(words);
        assert_eq!(error.kind, kind, "{error:?}");
        assert!(error.text.starts_with(words), "{words}: {error:?}");
        stop(&ours);
    }
    stop(&theirs);
}
