//! Our client before our server in one process: every security, both directions, half-closed streams, datagrams, many at
//! once, and what a failing target looks like.

#[path = "common/socks_client.rs"]
#[allow(dead_code, reason = "each test file uses a part of the helpers")]
mod socks_client;
#[path = "common/vmess_server.rs"]
mod vmess_server;

use socks_client::*;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};
use vmess_server::*;

const SECURITIES: [&str; 4] = ["aes-128-gcm", "chacha20-poly1305", "none", "zero"];

#[test]
fn streams_pass_whole_under_every_security() {
    let port = free_port();
    let server = server(port, "", "{}");
    let echo = tcp_echo().port();
    for security in SECURITIES {
        let (client, socks) = client(port, security, "");
        for (len, seed) in [(1, 1), (4096, 2), (100_000, 3), (5_000_000, 4)] {
            exchange(connect(socks, "127.0.0.1", echo), len, seed);
        }
        assert_eq!(client.stats().uplink_bytes, 5_104_097, "{security}");
        stop(&client);
    }
    let stats = server.stats();
    assert_eq!((stats.uplink_bytes, stats.downlink_bytes), (4 * 5_104_097, 4 * 5_104_097));
    stop(&server);
}

#[test]
fn bodies_with_sealed_lengths_and_chunks_of_none_pass() {
    let port = free_port();
    let server = server(port, "", "{}");
    let echo = tcp_echo().port();
    for security in ["aes-128-gcm", "chacha20-poly1305"] {
        let user = format!(r#"{security}", "experiments": "AuthenticatedLength"#);
        let (sealed, socks) = client(port, &user, "");
        exchange(connect(socks, "127.0.0.1", echo), 1_000_000, 4);
        stop(&sealed);
    }
    let (chunked, socks) = client(port, "none", r#", "vmesskit": {"noneChunked": true}"#);
    exchange(connect(socks, "127.0.0.1", echo), 1_000_000, 5);
    stop(&chunked);
    stop(&server);
}

#[test]
fn datagrams_pass_under_every_security() {
    let port = free_port();
    let server = server(port, "", "{}");
    let echo = udp_echo().port();
    for security in SECURITIES {
        let (client, socks) = client(port, security, "");
        let association = Association::new(socks);
        for len in [1, 512, 1400, 9000] {
            let payload = vec![len as u8; len];
            association.send("127.0.0.1", echo, &payload);
            let got = association.receive();
            assert!(got[got.len() - len..] == payload, "{security} {len}");
        }
        association.send("localhost", echo, b"by name");
        assert!(association.receive().ends_with(b"by name"));
        stop(&client);
    }
    assert_eq!(server.stats().udp_total, 8);
    stop(&server);
}

#[test]
fn an_answer_that_does_not_fit_is_dropped_and_the_flow_goes_on() {
    let port = free_port();
    let server = server(port, "", "{}");
    let socket = UdpSocket::bind("127.0.0.1:0").expect("bind");
    let target = socket.local_addr().expect("address").port();
    thread::spawn(move || {
        let mut bytes = [0; 100];
        while let Ok((_, from)) = socket.recv_from(&mut bytes) {
            for len in [60_000, 20_000, 16_000, 3] {
                let _ = socket.send_to(&vec![len as u8; len], from);
            }
        }
    });
    for security in SECURITIES {
        let (client, socks) = client(port, security, "");
        let association = Association::new(socks);
        for _ in 0..2 {
            association.send("127.0.0.1", target, b"ask");
            let lens: Vec<usize> = (0..2).map(|_| association.receive().len() - 10).collect();
            assert_eq!(lens, [16_000, 3], "{security}");
        }
        stop(&client);
    }
    assert_eq!(server.stats().dropped, 4 * 2 * 2);
    stop(&server);
}

#[test]
fn a_reload_takes_users_and_leaves_those_who_stay() {
    let port = free_port();
    let server = server(port, "", "{}");
    let echo = tcp_echo().port();
    let (client, socks) = client(port, "auto", "");
    let old = exchange_open(connect(socks, "127.0.0.1", echo), 1000, 1);
    let config = |id: &str| {
        format!(
            r#"{{"inbounds": [{{"protocol": "vmess", "tag": "door", "listen": "127.0.0.1", "port": {port},
                  "settings": {{"clients": [{{"id": "{id}"}}]}}}}], "outbounds": [{{"protocol": "freedom"}}]}}"#
        )
    };
    let reload = |id: &str| {
        let reloaded = server.reload(&config(id)).wait(Some(PATIENCE)).expect("in time");
        reloaded.expect("reloaded");
    };
    reload("aaaaaaaa-6324-4d53-ad4f-8cda48b30811");
    let old = exchange_open(old, 100_000, 2);
    let mut late = connect(socks, "127.0.0.1", echo);
    late.write_all(b"hello").expect("sent");
    late.set_read_timeout(Some(Duration::from_secs(1))).expect("a timeout");
    assert!(late.read(&mut [0; 5]).is_err(), "nobody that the server knows");
    reload(ID);
    exchange(connect(socks, "127.0.0.1", echo), 100_000, 3);
    exchange(old, 1000, 4);
    stop(&client);
    stop(&server);
}

/// A target that answers only once its client has ended.
fn slow_answer(after: Duration) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let port = listener.local_addr().expect("address").port();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            thread::spawn(move || {
                let mut all = Vec::new();
                if stream.read_to_end(&mut all).is_ok() {
                    thread::sleep(after);
                    let _ = stream.write_all(all.len().to_string().as_bytes());
                }
            });
        }
    });
    port
}

#[test]
fn an_ended_uplink_waits_for_a_slow_answer() {
    let port = free_port();
    let server = server(port, "", "{}");
    let target = slow_answer(Duration::from_secs(3));
    let (client, socks) = client(port, "auto", "");
    let mut stream = connect(socks, "127.0.0.1", target);
    stream.write_all(&[7; 300_000]).expect("sent");
    stream.shutdown(Shutdown::Write).expect("ended");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("a proper end");
    assert_eq!(answer, "300000");
    stop(&client);
    stop(&server);
}

#[test]
fn a_target_that_says_nothing_and_ends_is_a_proper_end() {
    let port = free_port();
    let server = server(port, "", "{}");
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let target = listener.local_addr().expect("address").port();
    thread::spawn(move || listener.incoming().flatten().for_each(drop));
    for security in SECURITIES {
        let (client, socks) = client(port, security, "");
        let mut stream = connect(socks, "127.0.0.1", target);
        assert_eq!(stream.read_to_end(&mut Vec::new()).expect("a proper end"), 0, "{security}");
        stop(&client);
    }
    stop(&server);
}

#[test]
fn a_target_that_refuses_is_a_reset_and_not_a_server_that_does_not_know_us() {
    let port = free_port();
    let server = server(port, "", "{}");
    let (client, socks) = client(port, "auto", "");
    let mut stream = connect(socks, "127.0.0.1", free_port());
    stream.write_all(b"hello").expect("sent");
    assert!(stream.read_to_end(&mut Vec::new()).is_err(), "a reset");
    assert_eq!(client.status().last_error, None, "the server has proved itself");
    stop(&client);
    stop(&server);
}

#[test]
fn two_hundred_at_once_and_then_idle() {
    let port = free_port();
    let server = server(port, "", "{}");
    let echo = tcp_echo().port();
    let (client, socks) = client(port, "auto", "");
    let clients: Vec<_> = (0..200_u32)
        .map(|seed| {
            thread::Builder::new()
                .stack_size(256 * 1024)
                .spawn(move || exchange_open(connect(socks, "127.0.0.1", echo), 100_000, seed))
                .expect("a thread")
        })
        .collect();
    let open: Vec<TcpStream> = clients.into_iter().map(|client| client.join().expect("echoed")).collect();
    let deadline = Instant::now() + PATIENCE;
    while server.stats().buffer_bytes > 0 {
        assert!(Instant::now() < deadline, "idle connections hold {} bytes", server.stats().buffer_bytes);
        thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(server.stats().tcp_open, 200);
    drop(open);
    while server.stats().tcp_open > 0 {
        assert!(Instant::now() < deadline, "{} connections stay", server.stats().tcp_open);
        thread::sleep(Duration::from_millis(10));
    }
    stop(&client);
    stop(&server);
}

#[test]
fn unsealed_bodies_are_refused_where_the_config_says_so() {
    let port = free_port();
    let server = server(port, r#", "disableInsecureEncryption": true"#, "{}");
    let echo = tcp_echo().port();
    for (security, served) in [("aes-128-gcm", true), ("none", false), ("zero", false)] {
        let (client, socks) = client(port, security, "");
        let mut stream = connect(socks, "127.0.0.1", echo);
        stream.write_all(b"hello").expect("sent");
        let began = Instant::now();
        let answer = stream.read(&mut [0; 5]);
        assert_eq!(answer.is_ok_and(|n| n == 5), served, "{security}");
        assert!(began.elapsed() < Duration::from_secs(3), "at once");
        stop(&client);
    }
    stop(&server);
}
