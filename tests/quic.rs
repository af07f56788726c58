//! VMess over QUIC: our two ends, V2Ray at either end, each disguise, and what goes wrong.

#[path = "common/socks_client.rs"]
#[allow(dead_code, reason = "each test file uses a part of the helpers")]
mod socks_client;
#[path = "common/transports.rs"]
#[allow(dead_code, reason = "each test file uses a part of the helpers")]
mod transports;
#[path = "common/v2ray.rs"]
mod v2ray;

use socks_client::*;
use std::io::{Read, Write};
use std::net::{TcpStream, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};
use transports::{
    Issuer, MUX, client, client_config, client_tls, exercise_client, server, server_config, server_tls,
};
use v2ray::V2ray;
use vmesskit::{ErrorKind, NoPlatform, Options, Stage, Tunnel};

const HEADERS: [&str; 6] = ["none", "srtp", "utp", "wechat-video", "dtls", "wireguard"];
const SECURITIES: [&str; 3] = ["none", "aes-128-gcm", "chacha20-poly1305"];

/// The members of `streamSettings` that name a disguise.
fn network(security: &str, key: &str, header: &str) -> String {
    format!(
        r#""network": "quic", "quicSettings": {{"security": "{security}", "key": "{key}", "header": {{"type": "{header}"}}}}"#
    )
}

fn plain(security: &str, header: &str) -> String {
    format!("{{{}}}", network(security, "open sesame", header))
}

/// Every header with one security, and every security with one header.
fn disguises() -> impl Iterator<Item = (&'static str, &'static str)> {
    HEADERS.into_iter().enumerate().map(|(index, header)| (SECURITIES[index % 3], header))
}

/// Why a stream through the tunnel does not come about, and how long that took.
fn refusal(ours: &Tunnel, socks: u16) -> (vmesskit::Error, Duration) {
    let started = Instant::now();
    let mut app = connect(socks, "127.0.0.1", 9);
    app.set_read_timeout(Some(PATIENCE)).expect("an option");
    let _ = app.write_all(b"hello");
    assert!(!matches!(app.read(&mut [0; 9]), Ok(1..)), "nothing answers");
    let error = ours.status().last_error.expect("an error");
    (error, started.elapsed())
}

#[test]
fn our_two_ends_understand_each_other_in_every_disguise() {
    for (security, header) in
        SECURITIES.into_iter().flat_map(|security| HEADERS.map(|header| (security, header)))
    {
        let stream = plain(security, header);
        let (theirs, port) = server(&stream);
        let (ours, socks) = client(port, &stream, "");
        exercise(socks, 3_000_000, true);
        stop(&ours);
        stop(&theirs);
    }
}

#[test]
fn many_streams_share_connections() {
    let stream = plain("none", "none");
    let (theirs, port) = server(&stream);
    let (ours, socks) = client(port, &stream, "");
    let echo = tcp_echo().port();
    // More than one connection has room for.
    let mut open: Vec<TcpStream> =
        (0..200).map(|seed| exchange_open(connect(socks, "127.0.0.1", echo), 2000, seed)).collect();
    // One that nobody reads holds nobody up.
    let mut stalled = connect(socks, "127.0.0.1", echo);
    let writer = stalled.try_clone().expect("a descriptor");
    let filler = std::thread::spawn(move || {
        let mut writer = writer;
        writer.set_write_timeout(Some(Duration::from_millis(500))).expect("an option");
        while writer.write_all(&[1; 65_536]).is_ok() {}
    });
    filler.join().expect("it has stopped");
    for (seed, stream) in open.drain(..).enumerate() {
        exchange(stream, 20_000, seed as u32 + 1);
    }
    exchange(connect(socks, "127.0.0.1", echo), 3_000_000, 7);
    stalled.read_exact(&mut [0; 100_000]).expect("it moves again");
    drop(stalled);
    stop(&ours);
    stop(&theirs);
}

#[test]
fn mux_rides_on_a_stream() {
    let stream = plain("chacha20-poly1305", "utp");
    let (theirs, port) = server(&stream);
    exercise_client(port, &stream);
    stop(&theirs);
}

#[test]
fn a_proper_end_arrives_and_a_cut_stream_is_none() {
    let stream = plain("none", "none");
    let (theirs, port) = server(&stream);
    let (ours, socks) = client(port, &stream, "");
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
    let target = listener.local_addr().expect("address").port();
    let mut app = connect(socks, "127.0.0.1", target);
    app.write_all(b"question").expect("sent");
    app.shutdown(std::net::Shutdown::Write).expect("ended");
    let (mut peer, _) = listener.accept().expect("connected");
    let mut asked = Vec::new();
    peer.read_to_end(&mut asked).expect("a proper end");
    assert_eq!(asked, b"question");
    peer.write_all(&vec![5; 1_000_000]).expect("answered");
    drop(peer);
    let mut answer = Vec::new();
    app.read_to_end(&mut answer).expect("a proper end");
    assert_eq!(answer.len(), 1_000_000);

    let open = exchange_open(connect(socks, "127.0.0.1", tcp_echo().port()), 5000, 1);
    stop(&theirs);
    let mut open = open;
    open.set_read_timeout(Some(Duration::from_secs(40))).expect("an option");
    let error = open.read(&mut [0; 9]).expect_err("no proper end");
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    stop(&ours);
}

#[test]
fn certificates_are_verified_where_tls_is_set_up() {
    let issuer = Issuer::new();
    let network = network("none", "", "none") + ",";
    let identity = issuer.issue(&["vpn.test"]);
    let (theirs, port) = server(&server_tls(&network, &identity, ""));
    let name = r#", "serverName": "vpn.test""#;
    exercise_client(port, &client_tls(&network, &issuer, name));
    for (stream, reason) in [
        (client_tls(&network, &Issuer::new(), name), "issuer"),
        (client_tls(&network, &issuer, r#", "serverName": "other.test""#), "another name"),
        (client_tls(&network, &issuer, &format!(r#"{name}, "alpn": ["h3"]"#)), "alpn"),
    ] {
        let (ours, socks) = client(port, &stream, "");
        let (error, took) = refusal(&ours, socks);
        assert_eq!(error.kind, ErrorKind::TlsFailed, "{error:?}");
        let words = format!("{} {}", error.reason, error.hint);
        assert!(words.contains(reason), "{words}");
        assert!(took < Duration::from_secs(5), "{took:?}");
        stop(&ours);
    }
    stop(&theirs);
}

#[test]
fn without_the_key_nothing_answers() {
    let (theirs, port) = server(&plain("aes-128-gcm", "none"));
    let stream = format!("{{{}}}", network("aes-128-gcm", "another", "none"));
    let (ours, socks) = client(port, &stream, "");
    let (error, took) = refusal(&ours, socks);
    assert_eq!(error.kind, ErrorKind::ServerUnreachable { stage: Stage::Connect }, "{error:?}");
    assert!(took < Duration::from_secs(15), "{took:?}");
    stop(&ours);
    stop(&theirs);
}

#[test]
fn garbage_hurts_nobody() {
    for (security, header) in [("none", "none"), ("none", "srtp"), ("aes-128-gcm", "dtls")] {
        let stream = plain(security, header);
        let (theirs, port) = server(&stream);
        let (ours, socks) = client(port, &stream, "");
        let echo = tcp_echo().port();
        let open = exchange_open(connect(socks, "127.0.0.1", echo), 5000, 1);
        let stranger = UdpSocket::bind("127.0.0.1:0").expect("a port");
        let mut state = 12_345_u32;
        for round in 0..3000_usize {
            let len = round % 1500;
            let mut datagram: Vec<u8> = (0..len)
                .map(|_| {
                    state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    (state >> 24) as u8
                })
                .collect();
            if let Some(first) = datagram.first_mut().filter(|_| round % 3 == 0) {
                // As the first datagram of a connection.
                *first = 0xC0;
                datagram.splice(1..5.min(len), [0, 0, 0, 1].into_iter().take(len.min(5) - 1));
            }
            stranger.send_to(&datagram, ("127.0.0.1", port)).expect("sent");
        }
        exchange(open, 100_000, 2);
        exchange(connect(socks, "127.0.0.1", echo), 100_000, 3);
        stop(&ours);
        stop(&theirs);
    }
}

#[test]
fn a_server_that_is_gone_and_back_is_found_again() {
    let stream = plain("none", "none");
    let (theirs, port) = server(&stream);
    let (ours, socks) = client(port, &stream, "");
    exercise(socks, 3_000_000, true);
    stop(&theirs);
    let (error, took) = refusal(&ours, socks);
    assert!(took < Duration::from_secs(15), "{took:?} {error:?}");
    let theirs = start(&server_config(port, &stream));
    let started = Instant::now();
    loop {
        let mut app = connect(socks, "127.0.0.1", tcp_echo().port());
        app.set_read_timeout(Some(PATIENCE)).expect("an option");
        if app.write_all(b"hello").and_then(|()| app.read_exact(&mut [0; 5])).is_ok() {
            break;
        }
        assert!(started.elapsed() < Duration::from_secs(30), "it is not found again");
    }
    stop(&ours);
    stop(&theirs);
}

#[test]
fn a_reload_takes_the_port_over_and_one_for_tcp_lies_beside_it() {
    let stream = plain("none", "none");
    let port = free_port();
    let both = |tag: &str| {
        let tcp = format!(
            r#""inbounds": [{{"protocol": "socks", "tag": "beside", "listen": "127.0.0.1", "port": {port}}},"#
        );
        server_config(port, &stream).replace("door", tag).replace(r#""inbounds": ["#, &tcp)
    };
    let theirs = start(&both("one"));
    let (ours, socks) = client(port, &stream, "");
    exercise(socks, 3_000_000, true);
    stop(&ours);
    theirs.reload(&both("two")).wait(Some(PATIENCE)).expect("answered").expect("reloaded");
    let (ours, socks) = client(port, &stream, "");
    exercise(socks, 3_000_000, true);
    TcpStream::connect(("127.0.0.1", port)).expect("the other one listens too");
    let another = Tunnel::new(&server_config(port, &stream), Options::default(), Arc::new(NoPlatform));
    let another = another.expect("a good config");
    let error = another.start(None).wait(Some(PATIENCE)).expect("answered").expect_err("the port is taken");
    assert_eq!(error.kind, ErrorKind::ResourceLimit { what: "listening port" });
    stop(&ours);
    stop(&theirs);
}

#[test]
fn our_client_speaks_to_v2ray() {
    let issuer = Issuer::new();
    for (index, (security, header)) in disguises().enumerate() {
        let (port, door) = (free_port(), free_port());
        let network = network(security, "open sesame", header) + ",";
        // TLS of the config's own once, the server's otherwise.
        let (theirs, ours) = match index {
            1 => (
                server_tls(&network, &issuer.issue(&["vpn.test"]), ""),
                client_tls(&network, &issuer, r#", "serverName": "vpn.test""#),
            ),
            _ => (plain(security, header), plain(security, header)),
        };
        // V2Ray listens on UDP there: another inbound shows that it runs.
        let beside =
            format!(r#""inbounds": [{{"protocol": "socks", "listen": "127.0.0.1", "port": {door}}},"#);
        let config = server_config(port, &theirs).replace(r#""inbounds": ["#, &beside);
        let Some(_v2ray) = V2ray::with_config(&config, door) else { return };
        exercise_client(port, &ours);
    }
}

#[test]
fn v2ray_speaks_to_our_server() {
    let issuer = Issuer::new();
    for (index, (security, header)) in disguises().enumerate() {
        let network = network(security, "open sesame", header) + ",";
        let (ours, theirs) = match index {
            1 => (
                server_tls(&network, &issuer.issue(&["vpn.test"]), ""),
                client_tls(&network, &issuer, r#", "serverName": "vpn.test""#),
            ),
            _ => (plain(security, header), plain(security, header)),
        };
        let (ours, port) = server(&ours);
        for mux in ["", MUX] {
            let socks = free_port();
            let Some(_v2ray) = V2ray::with_config(&client_config(socks, port, &theirs, mux), socks) else {
                return;
            };
            exercise(socks, 3_000_000, mux.is_empty());
        }
        stop(&ours);
    }
}
