//! VMess over mKCP: our two ends, V2Ray at either end, networks that lose and disorder, strangers, and ends.

#[path = "common/lossy.rs"]
mod lossy;
#[path = "common/socks_client.rs"]
#[allow(dead_code, reason = "each test file uses a part of the helpers")]
mod socks_client;
#[path = "common/transports.rs"]
#[allow(dead_code, reason = "each test file uses a part of the helpers")]
mod transports;
#[path = "common/v2ray.rs"]
mod v2ray;

use lossy::Lossy;
use socks_client::*;
use std::io::{Read, Write};
use std::net::UdpSocket;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use transports::{Issuer, MUX, client, client_config, client_tls, server, server_config, server_tls};
use v2ray::V2ray;

const HEADERS: [&str; 6] = ["none", "srtp", "utp", "wechat-video", "dtls", "wireguard"];

/// One test at a time: datagrams that wait for a processor are lost.
static ALONE: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The members of `streamSettings` for a header and what else `kcpSettings` has.
fn network(header: &str, more: &str) -> String {
    format!(r#""network": "kcp", "kcpSettings": {{"header": {{"type": "{header}"}}{more}}}"#)
}

/// All of them, each with a seed or without.
fn all() -> impl Iterator<Item = String> {
    HEADERS
        .into_iter()
        .flat_map(|header| ["", r#", "seed": "a seed""#].map(|seed| format!("{{{}}}", network(header, seed))))
}

/// V2Ray as a server; it is known to run by another inbound, since nobody can connect to this one.
fn v2ray_server(stream: &str) -> Option<(V2ray, u16)> {
    let (port, door) = (free_port(), free_port());
    let beside = format!(r#""inbounds": [{{"protocol": "socks", "listen": "127.0.0.1", "port": {door}}},"#);
    let config = server_config(port, stream).replace(r#""inbounds": ["#, &beside);
    Some((V2ray::with_config(&config, door)?, port))
}

fn v2ray_client(server: u16, stream: &str, more: &str) -> Option<(V2ray, u16)> {
    let socks = free_port();
    Some((V2ray::with_config(&client_config(socks, server, stream, more), socks)?, socks))
}

#[test]
fn our_two_ends_understand_each_other() {
    let _alone = alone();
    for (index, stream) in all().enumerate() {
        let (theirs, port) = server(&stream);
        let (ours, socks) = client(port, &stream, if index % 2 == 0 { "" } else { MUX });
        exercise(socks, if index == 0 { 20_000_000 } else { 1_000_000 }, false);
        stop(&ours);
        stop(&theirs);
    }
}

#[test]
fn tls_lies_above_a_conversation() {
    let _alone = alone();
    let (issuer, network) = (Issuer::new(), network("utp", "") + ",");
    let (theirs, port) = server(&server_tls(&network, &issuer.issue(&["vpn.test"]), ""));
    let stream = client_tls(&network, &issuer, r#", "serverName": "vpn.test""#);
    let (ours, socks) = client(port, &stream, "");
    exercise(socks, 1_000_000, false);
    stop(&ours);
    stop(&theirs);
    let Some((_v2ray, port)) = v2ray_server(&server_tls(&network, &issuer.issue(&["vpn.test"]), "")) else {
        return;
    };
    let (ours, socks) = client(port, &stream, "");
    exercise(socks, 1_000_000, false);
    stop(&ours);
}

#[test]
fn our_client_speaks_to_v2ray() {
    let _alone = alone();
    for (index, stream) in all().enumerate() {
        let Some((_v2ray, port)) = v2ray_server(&stream) else { return };
        let (ours, socks) = client(port, &stream, if index % 2 == 0 { "" } else { MUX });
        exercise(socks, if index < 2 { 12_000_000 } else { 500_000 }, false);
        stop(&ours);
    }
}

#[test]
fn v2ray_speaks_to_our_server() {
    let _alone = alone();
    for (index, stream) in all().enumerate() {
        let (ours, port) = server(&stream);
        let mux = if index % 2 == 0 { "" } else { MUX };
        let Some((_v2ray, socks)) = v2ray_client(port, &stream, mux) else { return };
        exercise(socks, if index < 2 { 12_000_000 } else { 500_000 }, false);
        stop(&ours);
    }
}

#[test]
fn everything_comes_whole_over_a_network_that_loses_repeats_and_disorders() {
    let _alone = alone();
    let stream = format!("{{{}}}", network("srtp", r#", "seed": "a seed""#));
    let (tcp, len) = (tcp_echo().port(), 10_000_000);
    let through = |socks: u16, seed: u32| exchange(connect(socks, "127.0.0.1", tcp), len, seed);
    let (theirs, port) = server(&stream);
    let lossy = Lossy::new(port, 3);
    let (ours, socks) = client(lossy.port, &stream, "");
    through(socks, 1);
    stop(&ours);
    if let Some((_v2ray, socks)) = v2ray_client(lossy.port, &stream, "") {
        through(socks, 2);
    }
    stop(&theirs);
    if let Some((_v2ray, port)) = v2ray_server(&stream) {
        let lossy = Lossy::new(port, 3);
        let (ours, socks) = client(lossy.port, &stream, "");
        through(socks, 3);
        stop(&ours);
    }
}

#[test]
fn a_server_that_is_not_there_is_an_error_at_once_and_one_that_goes_is_noticed() {
    let _alone = alone();
    let stream = format!("{{{}}}", network("none", ""));
    let (ours, socks) = client(free_port(), &stream, "");
    let started = Instant::now();
    let mut app = connect(socks, "127.0.0.1", 9);
    app.write_all(b"hello").and_then(|()| app.read(&mut [0; 9])).expect_err("nobody listens");
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    stop(&ours);

    let (theirs, port) = server(&stream);
    let (ours, socks) = client(port, &stream, "");
    let echo = tcp_echo().port();
    let mut app = connect(socks, "127.0.0.1", echo);
    app.write_all(b"hello").expect("written");
    app.read_exact(&mut [0; 5]).expect("an echo");
    let started = Instant::now();
    stop(&theirs);
    app.read(&mut [0; 9]).expect_err("it was cut off");
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    stop(&ours);
}

#[test]
fn strangers_get_no_answer_and_crowd_nobody_out() {
    let _alone = alone();
    let stream = format!("{{{}}}", network("none", ""));
    let (theirs, port) = server(&stream);
    let stranger = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    stranger.connect(("127.0.0.1", port)).expect("connected");
    stranger.set_read_timeout(Some(Duration::from_millis(300))).expect("set");
    let mut noise = 1_u32;
    for len in (0..1500).step_by(7) {
        let garbage: Vec<u8> = (0..len)
            .map(|_| {
                noise = noise.wrapping_mul(1_103_515_245).wrapping_add(12_345);
                (noise >> 16) as u8
            })
            .collect();
        stranger.send(&garbage).expect("sent");
    }
    stranger.recv(&mut [0; 2000]).expect_err("garbage is not answered");
    // Whoever knows the form begins conversations, as many as there are numbers, and none of them gets anywhere.
    for number in 0..=u16::MAX {
        stranger.send(&first_segment(number)).expect("sent");
    }
    let (ours, socks) = client(port, &stream, "");
    exercise(socks, 100_000, false);
    let stats = theirs.stats();
    assert!(stats.buffer_bytes < 16 << 20, "{} bytes", stats.buffer_bytes);
    stop(&ours);
    stop(&theirs);
}

/// A datagram that begins a conversation: some bytes as its first payload, scrambled as it is without a seed.
fn first_segment(conversation: u16) -> Vec<u8> {
    let mut segment = [&conversation.to_be_bytes()[..], &[1, 0], &[0; 12], &[0, 20], &[7; 20]].concat();
    let mut body = (segment.len() as u16).to_be_bytes().to_vec();
    body.append(&mut segment);
    let sum =
        body.iter().fold(0x811C_9DC5_u32, |sum, byte| (sum ^ u32::from(*byte)).wrapping_mul(0x0100_0193));
    let mut datagram = [&sum.to_be_bytes()[..], &body].concat();
    for at in 4..datagram.len() {
        datagram[at] ^= datagram[at - 4];
    }
    datagram
}
