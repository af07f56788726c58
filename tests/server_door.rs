//! The front door: whoever has not proved to be a user sees the same end at the same time, whatever was sent.

#[path = "common/probes.rs"]
mod probes;
#[path = "common/socks_client.rs"]
#[allow(dead_code, reason = "each test file uses a part of the helpers")]
mod socks_client;
#[path = "common/vmess_server.rs"]
mod vmess_server;

use probes::*;
use socks_client::*;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};
use vmess_server::*;
use vmesskit::vmess::Id;

/// The level-0 handshake time of the server, and by how much of it its secret may shorten the wait.
const HANDSHAKE: Duration = Duration::from_secs(4);
const SECRET: Duration = Duration::from_millis(4 * 10_000 / 60 + 1);
/// How far apart two ends may be on a busy machine.
const JITTER: Duration = Duration::from_millis(300);

const POLICY: &str = r#"{"levels": {"0": {"handshake": 4}}}"#;

const GOOD: fn(&mut [u8]) = |_| {};

#[test]
fn all_refusals_look_alike() {
    let port = free_port();
    let server = server(port, "", POLICY);
    let echo = tcp_echo();
    let key = cmd_key();
    let stranger = Id::from_bytes([9; 16]).cmd_key();
    let fresh = |seed| header(&key, now(), seed, echo, GOOD);

    // A user's request, served, and then sent again.
    let replayed = fresh(1);
    let mut user = TcpStream::connect(("127.0.0.1", port)).expect("it listens");
    user.write_all(&replayed).expect("sent");
    let deadline = Instant::now() + PATIENCE;
    while server.stats().tcp_open == 0 {
        assert!(Instant::now() < deadline, "a user is let in");
        thread::sleep(Duration::from_millis(5));
    }
    let flipped = |at: usize| {
        let mut wire = fresh(at as u64 + 100);
        wire[at] ^= 1;
        wire
    };
    let long = |wire: Vec<u8>| [&wire[..], &[3; 5000]].concat();
    let probes: Vec<(&str, Vec<u8>, Vec<u8>)> = vec![
        ("silent", vec![], vec![]),
        ("a byte", vec![1], vec![]),
        ("fifteen bytes", vec![5; 15], vec![]),
        ("sixteen bytes", vec![5; 16], vec![]),
        ("a part of a header", fresh(2)[..50].to_vec(), vec![]),
        ("a header but for a byte", fresh(3)[..100].to_vec(), vec![]),
        ("garbage", vec![0x55; 3000], vec![]),
        ("HTTP", b"GET / HTTP/1.1\r\nHost: example.com\r\n\r\n".to_vec(), vec![]),
        ("an unknown user", header(&stranger, now(), 4, echo, GOOD), vec![]),
        ("an unknown user with a body", long(header(&stranger, now(), 5, echo, GOOD)), vec![]),
        ("replayed", replayed.clone(), vec![]),
        ("replayed with a body", long(replayed), vec![]),
        ("expired", long(header(&key, now() - 600, 6, echo, GOOD)), vec![]),
        ("from the future", long(header(&key, now() + 600, 7, echo, GOOD)), vec![]),
        ("from before the start", long(header(&key, now() - 100, 8, echo, GOOD)), vec![]),
        ("a forged length", long(flipped(20)), vec![]),
        ("a forged header", long(flipped(70)), vec![]),
        ("a flood", vec![0xAA; 20_000], vec![0xAA; 60_000]),
        ("a trickle", vec![], vec![0xAA; 1]),
    ];
    let watched: Vec<_> = probes
        .into_iter()
        .map(|(name, first, trickle)| (name, thread::spawn(move || probe(port, &first, &trickle, false))))
        .collect();
    let seen: Vec<_> =
        watched.into_iter().map(|(name, probe)| (name, probe.join().expect("an end"))).collect();
    let ends = seen.iter().map(|(_, seen)| seen.after);
    let (first, last) = (ends.clone().min().expect("some"), ends.max().expect("some"));
    for (name, seen) in &seen {
        assert_eq!((seen.bytes, seen.reset), (0, false), "{name}: {seen:?}");
    }
    assert!(last - first < JITTER, "{seen:#?}");
    assert!(HANDSHAKE - SECRET <= first + JITTER && last < HANDSHAKE + JITTER, "{first:?} to {last:?}");

    // None of it has harmed the user.
    assert_eq!(server.stats().tcp_open, 1);
    drop(user);
    stop(&server);
}

#[test]
fn whoever_ends_first_is_ended_at_once() {
    let port = free_port();
    let server = server(port, "", POLICY);
    for first in [&[][..], &[1; 10], &[2; 16], &[3; 10_000]] {
        let seen = probe(port, first, &[], true);
        assert_eq!((seen.bytes, seen.reset), (0, false), "{seen:?}");
        assert!(seen.after < Duration::from_secs(1), "{} bytes: {seen:?}", first.len());
    }
    stop(&server);
}

#[test]
fn a_users_invalid_request_is_closed_at_once_and_harms_nobody() {
    let port = free_port();
    let server = server(port, "", POLICY);
    let echo = tcp_echo();
    type Spoil = fn(&mut [u8]);
    let spoils: [(&str, Spoil); 6] = [
        ("security 2", |plain| plain[35] = 2),
        ("security 6", |plain| plain[35] = 6),
        ("security 15", |plain| plain[35] = 15),
        ("padding without masking", |plain| plain[34] = 0x09),
        ("a command", |plain| plain[37] = 9),
        ("an address type", |plain| plain[40] = 7),
    ];
    for (seed, (name, spoil)) in spoils.into_iter().enumerate() {
        let mut wire = header(&cmd_key(), now(), seed as u64 + 50, echo, spoil);
        wire.extend_from_slice(&[1; 3000]);
        let seen = probe(port, &wire, &[], false);
        assert_eq!((seen.bytes, seen.reset), (0, false), "{name}: {seen:?}");
        assert!(seen.after < Duration::from_secs(1), "{name}: {seen:?}");
    }
    let (client, socks) = client(port, "auto", "");
    exchange(connect(socks, "127.0.0.1", echo.port()), 10_000, 1);
    stop(&client);
    stop(&server);
}

/// A checksum is all that holds a legacy header together, so what is wrong behind it is no user's for sure.
#[test]
fn an_unsealed_body_is_refused_at_once_only_to_who_has_proved_to_be_a_user() {
    let port = free_port();
    let server = start(&format!(
        r#"{{"inbounds": [{{"protocol": "vmess", "listen": "127.0.0.1", "port": {port}, "settings": {{
             "clients": [{{"id": "{ID}", "alterId": 1}}], "disableInsecureEncryption": true}}}}],
           "outbounds": [{{"protocol": "freedom"}}], "policy": {{"levels": {{"0": {{"handshake": 2}}}}}}}}"#
    ));
    let echo = tcp_echo();
    let bare: fn(&mut [u8]) = |plain| (plain[34], plain[35]) = (1, 5);
    let sealed = header(&cmd_key(), now(), 1, echo, bare);
    let legacy = legacy_header(now(), 2, echo, bare);
    let spoiled = legacy_header(now() + 1, 3, echo, |plain| plain[37] = 9);
    let watched = [sealed, legacy, spoiled].map(|wire| thread::spawn(move || probe(port, &wire, &[], false)));
    let [sealed, legacy, spoiled] = watched.map(|probe| probe.join().expect("an end"));
    assert!(sealed.after < Duration::from_secs(1), "{sealed:?}");
    assert!(
        legacy.after.abs_diff(spoiled.after) < JITTER && legacy.after > sealed.after,
        "{legacy:?} {spoiled:?}"
    );
    assert!([sealed, legacy, spoiled].iter().all(|seen| (seen.bytes, seen.reset) == (0, false)));
    // A sealed body is served under either header.
    let mut user = TcpStream::connect(("127.0.0.1", port)).expect("it listens");
    // The second of the spoiled header is spoiled for everybody.
    user.write_all(&legacy_header(now() + 5, 4, echo, GOOD)).expect("sent");
    let deadline = Instant::now() + PATIENCE;
    while server.stats().tcp_open == 0 {
        assert!(Instant::now() < deadline, "a user is let in");
        thread::sleep(Duration::from_millis(5));
    }
    stop(&server);
}

#[test]
fn a_header_may_come_byte_by_byte_and_with_its_body() {
    let port = free_port();
    let server = server(port, "", POLICY);
    let echo = tcp_echo();
    for (seed, piece) in [1, 7, 16, 60].into_iter().enumerate() {
        let wire = header(&cmd_key(), now(), seed as u64 + 80, echo, GOOD);
        let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("it listens");
        stream.set_nodelay(true).expect("an option");
        for bytes in wire.chunks(piece) {
            stream.write_all(bytes).expect("sent");
            thread::sleep(Duration::from_millis(2));
        }
        // No more than a proper end: the uplink is over at a boundary, and the echo ends with it.
        stream.shutdown(std::net::Shutdown::Write).expect("ended");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).expect("a proper end");
        // The response header, and a terminating chunk with up to 63 bytes of padding.
        assert!((38 + 18..=38 + 18 + 63).contains(&answer.len()), "{} bytes", answer.len());
    }
    stop(&server);
}

#[test]
fn a_target_that_ends_ends_the_clients_connection_soon() {
    let port = free_port();
    let server = server(port, "", POLICY);
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let target = listener.local_addr().expect("address");
    thread::spawn(move || listener.incoming().flatten().for_each(drop));
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("it listens");
    let began = Instant::now();
    stream.write_all(&header(&cmd_key(), now(), 90, target, GOOD)).expect("sent");
    let mut kept = stream.try_clone().expect("a second handle");
    // The response header and a terminating chunk; then the carrier's end, which sing-box clients wait for.
    let seen = watch(stream, began, &[]);
    assert!((38 + 18..=38 + 18 + 63).contains(&seen.bytes) && !seen.reset, "{seen:?}");
    assert!(seen.after < Duration::from_millis(500), "{seen:?}");
    // The client says nothing and does not end: the server does, after `uplinkOnly`.
    let deadline = began + Duration::from_secs(2);
    while server.stats().tcp_open > 0 {
        assert!(Instant::now() < deadline, "the connection stays");
        thread::sleep(Duration::from_millis(10));
    }
    // A write finds that out, the second one at the latest.
    let _ = kept.write(&[1]);
    thread::sleep(Duration::from_millis(50));
    assert!(kept.write(&[1]).is_err());
    stop(&server);
}
