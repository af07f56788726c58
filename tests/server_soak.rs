//! A server under a mixed load: legacy and AEAD users, TCP, UDP, mux, XUDP and packetaddr, strangers, users who come and
//! go, reloads that open and close ports. When it is over nothing is left: no connection, thread, descriptor or memory.
//!
//! Alone in its file, because it counts what belongs to the whole process. It takes minutes: `scripts/test-all` runs it.

#[path = "common/engine.rs"]
mod engine;
#[path = "common/socks_client.rs"]
#[allow(dead_code, reason = "each test file uses a part of the helpers")]
mod socks_client;

use engine::threads_and_fds;
use socks_client::*;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};
use vmesskit::entropy::{Entropy, SeededEntropy};
use vmesskit::{NewUser, Tunnel};

/// What a client's user says beyond its id, what its settings say beyond the server, and what its outbound says beyond those.
type Kind = (u16, &'static str, &'static str, &'static str);

const MUX: &str = r#", "mux": {"enabled": true, "concurrency": 8}"#;
const KINDS: [Kind; 8] = [
    (0, "aes-128-gcm", "", ""),
    (0, "chacha20-poly1305", "", ""),
    (0, "zero", "", ""),
    (0, "auto", "", MUX),
    (0, "auto", r#", "packetEncoding": "xudp""#, ""),
    (0, "auto", r#", "packetEncoding": "packetaddr""#, ""),
    (4, "auto", "", ""),
    (4, "auto", "", MUX),
];
/// What the process may grow by: what the allocator keeps, and the memory for replays.
const GROWTH: u64 = 24 << 20;

fn id(user: usize) -> String {
    format!("b831381d-6324-4d53-ad4f-8cda48b3{user:04x}")
}

/// A server for a user of each kind; `more` is another inbound.
fn server_config(port: u16, handshake: u32, more: &str) -> String {
    let client = |(user, (alter_id, ..)): (usize, &Kind)| {
        format!(r#"{{"id": "{}", "alterId": {alter_id}, "email": "{user}@example.com"}}"#, id(user))
    };
    let clients: Vec<_> = KINDS.iter().enumerate().map(client).collect();
    format!(
        r#"{{"inbounds": [{{"protocol": "vmess", "tag": "door", "listen": "127.0.0.1", "port": {port},
              "settings": {{"clients": [{}]}}}}{more}],
            "outbounds": [{{"protocol": "freedom"}}], "policy": {{"levels": {{"0": {{"handshake": {handshake}}}}}}}}}"#,
        clients.join(", ")
    )
}

/// A client of one kind; returns its SOCKS port.
fn client(server: u16, id: &str, (alter_id, security, settings, outbound): Kind) -> (Tunnel, u16) {
    let port = free_port();
    let tunnel = start(&format!(
        r#"{{"inbounds": [{{"protocol": "socks", "listen": "127.0.0.1", "port": {port}, "settings": {{"udp": true}}}}],
            "outbounds": [{{"protocol": "vmess", "settings": {{"vnext": [{{"address": "127.0.0.1", "port": {server},
              "users": [{{"id": "{id}", "alterId": {alter_id}, "security": "{security}"}}]}}]{settings}}}{outbound}}}]}}"#
    ));
    (tunnel, port)
}

/// What all of the load shares.
struct Load<'a> {
    server: &'a Tunnel,
    port: u16,
    tcp: u16,
    udp: u16,
    over: AtomicBool,
    done: AtomicU64,
}

impl Load<'_> {
    /// Does something again and again, with numbers of its own.
    fn repeat(&self, seed: u64, mut act: impl FnMut(&mut SeededEntropy)) {
        let mut entropy = SeededEntropy::new(seed);
        while !self.over.load(Relaxed) {
            act(&mut entropy);
            self.done.fetch_add(1, Relaxed);
        }
    }

    /// One of the things that programs do.
    fn use_once(&self, socks: u16, entropy: &mut SeededEntropy) {
        let len = 1 + entropy.below(100_000) as usize;
        match entropy.below(6) {
            // Both ways, and away: over mux, which has no half-close, an echo would not hear of the end.
            0..=3 => drop(exchange_open(connect(socks, "127.0.0.1", self.tcp), len, 5)),
            // In the middle of everything.
            4 => {
                let mut stream = connect(socks, "127.0.0.1", self.tcp);
                stream.write_all(&vec![7; len]).expect("sent");
                socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).expect("a socket");
            }
            _ => {
                let association = Association::new(socks);
                for len in [1, 100, 1400] {
                    association.send("127.0.0.1", self.udp, &vec![len as u8; len]);
                    association.receive();
                }
            }
        }
    }

    /// A user comes, is served, and goes.
    fn visit(&self, entropy: &mut SeededEntropy) {
        let (number, alter_id) = (0x1000 + entropy.below(0xE000) as usize, 2 * entropy.below(2) as u16);
        let email = format!("guest-{number}@example.com");
        let guest = NewUser { id: id(number), email: email.clone(), alter_id, ..NewUser::default() };
        if self.server.add_user("door", &guest).is_err() {
            return;
        }
        let (tunnel, socks) = client(self.port, &id(number), (alter_id, "auto", "", ""));
        self.use_once(socks, entropy);
        assert_eq!(self.server.remove_user("door", &email), Ok(true));
        stop(&tunnel);
    }

    /// Somebody who is no user.
    fn knock(&self, entropy: &mut SeededEntropy) {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).expect("it listens");
        let mut noise = vec![0; entropy.below(300) as usize];
        entropy.fill(&mut noise);
        stream.write_all(&noise).expect("sent");
        stream.set_read_timeout(Some(Duration::from_millis(5))).expect("an option");
        let _ = stream.read(&mut [0; 1]);
    }

    /// The config changes, and ports come and go; the users stay.
    fn reload(&self, entropy: &mut SeededEntropy) {
        let user = format!(r#"{{"id": "{}", "alterId": {}}}"#, id(0), entropy.below(3));
        let port = free_port();
        let more = format!(
            r#", {{"protocol": "vmess", "tag": "other", "listen": "127.0.0.1", "port": {port}, "settings": {{"clients": [{user}]}}}}"#
        );
        let more = if entropy.below(2) == 0 { "" } else { &more };
        let config = server_config(self.port, 3 + entropy.below(3), more);
        let reloaded = self.server.reload(&config).wait(Some(PATIENCE)).expect("in time");
        // Somebody else may have got the port meanwhile.
        assert!(reloaded.is_ok() || !more.is_empty(), "{reloaded:?}");
        thread::sleep(Duration::from_millis(100));
    }

    /// The load of all, for a while.
    fn run(&self, time: Duration) {
        let clients: Vec<_> =
            KINDS.iter().enumerate().map(|(user, kind)| client(self.port, &id(user), *kind)).collect();
        thread::scope(|scope| {
            for (n, (_, socks)) in clients.iter().enumerate() {
                for twin in 0..2 {
                    scope.spawn(move || {
                        self.repeat(n as u64 * 2 + twin, |entropy| self.use_once(*socks, entropy))
                    });
                }
            }
            scope.spawn(|| self.repeat(100, |entropy| self.visit(entropy)));
            scope.spawn(|| self.repeat(101, |entropy| self.knock(entropy)));
            scope.spawn(|| self.repeat(102, |entropy| self.reload(entropy)));
            thread::sleep(time);
            self.over.store(true, Relaxed);
        });
        self.over.store(false, Relaxed);
        clients.iter().for_each(|(tunnel, _)| stop(tunnel));
        let plain = server_config(self.port, 3, "");
        self.server.reload(&plain).wait(Some(PATIENCE)).expect("in time").expect("reloaded");
    }

    fn connections(&self) -> usize {
        self.server.connections().wait(Some(PATIENCE)).expect("in time").expect("a list").len()
    }

    /// Waits until nothing is open, and returns threads, descriptors and memory. Named UDP sources are kept for a minute,
    /// and threads for what blocks for ten seconds.
    fn rest(&self, before: (usize, usize)) -> ((usize, usize), u64) {
        let deadline = Instant::now() + Duration::from_secs(180);
        loop {
            let (stats, (threads, fds)) = (self.server.stats(), threads_and_fds());
            let open = stats.tcp_open + stats.udp_open + stats.buffer_bytes;
            if open == 0 && self.connections() == 0 && threads <= before.0 && fds <= before.1 {
                return ((threads, fds), stats.footprint_bytes);
            }
            assert!(
                Instant::now() < deadline,
                "{threads} threads, {fds} descriptors, {before:?} before: {stats:?}"
            );
            thread::sleep(Duration::from_millis(50));
        }
    }
}

#[allow(clippy::print_stdout, reason = "what a long run has measured is to be seen")]
fn soak(time: Duration) {
    let (tcp, udp, port) = (tcp_echo().port(), udp_echo().port(), free_port());
    let server = start(&server_config(port, 3, ""));
    let fresh = threads_and_fds();
    let (over, done) = (AtomicBool::new(false), AtomicU64::new(0));
    let load = Load { server: &server, port, tcp, udp, over, done };
    // What is kept for ever is there after a first round.
    load.run(Duration::from_secs(2));
    let (before, memory) = load.rest((fresh.0 + 4, fresh.1 + 4));
    load.run(time);
    let (after, grown) = load.rest(before);
    let (done, total) = (load.done.load(Relaxed), server.stats().tcp_total);
    println!(
        "{done} things done, {total} connections; threads and descriptors {fresh:?}, {before:?}, {after:?}; {memory} bytes, then {grown}"
    );
    assert!(done >= 2 * time.as_secs(), "{done} things in {time:?}");
    assert!(grown.saturating_sub(memory) < GROWTH, "{memory} bytes, then {grown}");
    stop(&server);
}

#[test]
#[ignore = "takes seven minutes; scripts/test-all runs it"]
fn five_minutes_of_everything_leave_nothing_behind() {
    soak(Duration::from_secs(300));
}

/// The same without the minutes: what is kept after a load shows here too.
#[test]
#[ignore = "takes a minute or more, since named sources are kept for one; scripts/test-all runs it"]
fn seconds_of_everything_leave_nothing_behind() {
    soak(Duration::from_secs(10));
}
