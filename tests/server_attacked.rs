//! A server under attack: replays, garbage, slow headers, floods of half-open connections and scans from many addresses,
//! while a user's transfer stays byte-exact and the memory stays in its bounds.

#[path = "common/probes.rs"]
#[allow(dead_code, reason = "each test file uses a part of the helpers")]
mod probes;
#[path = "common/socks_client.rs"]
#[allow(dead_code, reason = "each test file uses a part of the helpers")]
mod socks_client;
#[path = "common/vmess_server.rs"]
mod vmess_server;

use probes::*;
use socket2::{Domain, Socket, Type};
use socks_client::*;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};
use vmess_server::*;
use vmesskit::entropy::{Entropy, SeededEntropy};

/// How long each attack goes on.
const ATTACK: Duration = Duration::from_secs(4);
/// What the process may grow by: the server's pool, its tables, and both ends of the test itself.
const GROWTH: u64 = 48 << 20;

/// Connects from an address of its own in 127.0.0.0/8.
fn connect_from(n: u32, port: u16) -> std::io::Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    let from =
        SocketAddr::from(([127, (n >> 14) as u8 & 0x7F, (n >> 7) as u8 & 0x7F, (n as u8 & 0x7F) + 1], 0));
    socket.bind(&from.into())?;
    socket.connect(&SocketAddr::from(([127, 0, 0, 1], port)).into())?;
    Ok(socket.into())
}

/// What the attackers share.
struct War {
    port: u16,
    over: AtomicBool,
    connections: AtomicUsize,
}

impl War {
    /// Keeps `open` connections at a time, each told what to do once and then again every `pace`.
    fn attack(
        self: &Arc<Self>,
        seed: u32,
        open: usize,
        pace: Duration,
        act: impl Fn(&mut TcpStream, u32) + Send + 'static,
    ) -> thread::JoinHandle<()> {
        let war = Arc::clone(self);
        thread::spawn(move || {
            let (mut streams, mut n) = (std::collections::VecDeque::new(), seed << 16);
            while !war.over.load(Relaxed) {
                n += 1;
                if let Ok(mut stream) = connect_from(n, war.port) {
                    stream.set_nonblocking(true).expect("a socket");
                    war.connections.fetch_add(1, Relaxed);
                    act(&mut stream, n);
                    streams.push_back(stream);
                }
                if streams.len() > open {
                    streams.pop_front();
                }
                if !pace.is_zero() {
                    streams.iter_mut().for_each(|stream| act(stream, n));
                    thread::sleep(pace);
                }
            }
        })
    }
}

#[test]
fn a_transfer_stays_whole_and_memory_bounded_under_every_attack_at_once() {
    let port = free_port();
    let server = server(port, "", r#"{"levels": {"0": {"handshake": 4}}}"#);
    let echo = tcp_echo();
    let (client, socks) = client(port, "auto", "");
    exchange(connect(socks, "127.0.0.1", echo.port()), 20_000_000, 1);
    let before = server.stats();

    let war = Arc::new(War { port, over: AtomicBool::new(false), connections: AtomicUsize::new(0) });
    let replayed = header(&cmd_key(), now(), 1, echo, |_| {});
    let quiet = Duration::from_millis(1);
    let attackers = [
        // Replays of a user's request, the first of which is served.
        war.attack(1, 300, quiet, {
            let wire = replayed.clone();
            move |stream, _| drop(stream.write(&wire))
        }),
        // Garbage of every length.
        war.attack(2, 300, Duration::ZERO, |stream, n| {
            let mut junk = vec![0; 1 + n as usize % 3000];
            SeededEntropy::new(n.into()).fill(&mut junk);
            let _ = stream.write(&junk);
        }),
        // Headers that come by the byte and never end.
        war.attack(3, 300, Duration::from_millis(20), |stream, _| drop(stream.write(&[7]))),
        // Connections that say nothing.
        war.attack(4, 1000, Duration::ZERO, |_, _| {}),
        // A scan: connections that are closed, or reset, at once.
        war.attack(5, 0, Duration::ZERO, |stream, n| {
            if n % 2 == 0 {
                socket2::SockRef::from(&*stream).set_linger(Some(Duration::ZERO)).expect("a socket");
            }
        }),
        // A few that pour in all they can.
        war.attack(6, 8, quiet, |stream, _| drop(stream.write(&[0xEE; 100_000]))),
        // A user's own requests, authentic and senseless.
        war.attack(7, 10, Duration::from_millis(5), move |stream, n| {
            let _ = stream.write(&header(&cmd_key(), now(), n.into(), echo, |plain| plain[35] = 15));
        }),
    ];

    let began = Instant::now();
    let (mut highest, mut rounds) = (0, 0);
    while began.elapsed() < ATTACK {
        exchange(connect(socks, "127.0.0.1", echo.port()), 2_000_000, rounds);
        let stats = server.stats();
        highest = highest.max(stats.footprint_bytes);
        assert!(stats.buffer_bytes <= 32 << 20, "{stats:?}");
        rounds += 1;
    }
    war.over.store(true, Relaxed);
    attackers.into_iter().for_each(|attacker| attacker.join().expect("an attacker"));
    assert!(war.connections.load(Relaxed) > 1000, "an attack: {:?}", war.connections);
    assert!(rounds >= 2, "{rounds} transfers in {ATTACK:?}");
    let growth = highest.saturating_sub(before.footprint_bytes);
    assert!(growth < GROWTH, "{growth} bytes more than before");

    // When it is over the server is as it was.
    let deadline = Instant::now() + PATIENCE;
    while server.stats().tcp_open > 0 || server.stats().buffer_bytes > 0 {
        assert!(Instant::now() < deadline, "{:?}", server.stats());
        thread::sleep(Duration::from_millis(20));
    }
    let mut late = connect(socks, "127.0.0.1", echo.port());
    late.write_all(b"still here").expect("sent");
    late.read_exact(&mut [0; 10]).expect("echoed");
    stop(&client);
    stop(&server);
}
