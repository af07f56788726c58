//! The codec against a real V2Ray server, where one is installed: plain sockets, no engine.
//!
//! Debian's `v2ray` (4.34) is what is expected; without a program of that name the test says so and passes.

#[path = "common/vmess_peer.rs"]
mod peer;

use peer::{ID, KINDS, Receiver, alter_id, cmd_key, finish, seal};
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, TcpListener, TcpStream, UdpSocket};
use std::process::{Child, Command as Program, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use std::{env, fs, io, thread};
use vmesskit::addr::Target;
use vmesskit::entropy::{Entropy, SeededEntropy};
use vmesskit::vmess::chunk::OpenError;
use vmesskit::vmess::client::{Connection, Request, connect, connect_legacy};
use vmesskit::vmess::server::HeaderKind;
use vmesskit::vmess::{Command, Options, Security};

const LOCAL: Ipv4Addr = Ipv4Addr::LOCALHOST;

/// A V2Ray server of this test's own; it ends with the test.
struct Server {
    child: Child,
    port: u16,
}

impl Server {
    /// Starts one; `None` if V2Ray is not installed.
    fn start() -> Option<Self> {
        let port =
            TcpListener::bind((LOCAL, 0)).and_then(|free| free.local_addr()).expect("a free port").port();
        let config = env::temp_dir().join(format!("vmess-v2ray-{}-{port}.json", std::process::id()));
        let text = format!(
            r#"{{"log": {{"loglevel": "error"}},
                "inbounds": [{{"listen": "127.0.0.1", "port": {port}, "protocol": "vmess",
                               "settings": {{"clients": [{{"id": "{ID}", "alterId": 4}}]}}}}],
                "outbounds": [{{"protocol": "freedom"}}]}}"#
        );
        fs::write(&config, text).expect("a writable temporary folder");
        let child = Program::new("v2ray").arg("-config").arg(&config).stdout(Stdio::null()).spawn();
        let child = match child {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                fs::remove_file(&config).expect("just written");
                return None;
            }
            other => other.expect("v2ray starts"),
        };
        let server = Self { child, port };
        let up = (0..200).any(|_| {
            thread::sleep(Duration::from_millis(25));
            TcpStream::connect((LOCAL, port)).is_ok()
        });
        fs::remove_file(&config).expect("just written");
        assert!(up, "v2ray does not listen");
        Some(server)
    }

    fn dial(&self) -> TcpStream {
        let socket = TcpStream::connect((LOCAL, self.port)).expect("v2ray listens");
        socket.set_read_timeout(Some(Duration::from_secs(20))).expect("a legal timeout");
        socket
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().and_then(|()| self.child.wait()).expect("our own child");
    }
}

/// Echoes one TCP connection after another until each ends.
fn tcp_echo() -> u16 {
    let listener = TcpListener::bind((LOCAL, 0)).expect("a free port");
    let port = listener.local_addr().expect("bound").port();
    thread::spawn(move || {
        for socket in listener.incoming().flatten() {
            let mut reader = socket.try_clone().expect("a descriptor");
            thread::spawn(move || {
                let mut writer = socket;
                io::copy(&mut reader, &mut writer).ok();
                writer.shutdown(Shutdown::Write).ok();
            });
        }
    });
    port
}

/// Echoes datagrams.
fn udp_echo() -> u16 {
    let socket = UdpSocket::bind((LOCAL, 0)).expect("a free port");
    let port = socket.local_addr().expect("bound").port();
    thread::spawn(move || {
        let mut data = [0; 2048];
        while let Ok((len, from)) = socket.recv_from(&mut data) {
            socket.send_to(&data[..len], from).ok();
        }
    });
    port
}

fn open(kind: HeaderKind, request: &Request, seed: u64) -> (Connection, SeededEntropy) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    // Keys from a seed are good enough for loopback; the time makes each run's auth ids new to the server.
    let mut entropy = SeededEntropy::new(now << 16 | seed);
    let (key, now) = (cmd_key(), now.try_into().expect("small"));
    let made = match kind {
        HeaderKind::Aead => connect(&key, request, now, &mut entropy),
        HeaderKind::Legacy => connect_legacy(&key, &alter_id(), request, now, &mut entropy),
    };
    (made.expect("legal"), entropy)
}

/// Sends `payload`, ends the direction, and returns what comes back until the end.
fn echo(
    server: &Server,
    kind: HeaderKind,
    request: &Request,
    payload: &[u8],
    step: usize,
    seed: u64,
) -> Result<Vec<u8>, OpenError> {
    let (Connection { mut header, mut uplink, downlink }, mut entropy) = open(kind, request, seed);
    let mut socket = server.dial();
    let mut writer = socket.try_clone().expect("a descriptor");
    let bare = !uplink.framing().is_terminated();
    let mut pieces = Vec::new();
    for piece in payload.chunks(step) {
        header.extend(seal(&mut uplink, piece, &mut entropy));
        pieces.push(std::mem::take(&mut header));
    }
    pieces.push(finish(&mut uplink, &mut entropy));
    let sending = thread::spawn(move || {
        pieces.iter().for_each(|piece| writer.write_all(piece).expect("v2ray reads"));
        if bare {
            writer.shutdown(Shutdown::Write).expect("connected");
        }
    });
    let mut receiver = Receiver::new(downlink);
    let mut input = vec![0; 65_536];
    // A bare stream's end is the carrier's, which V2Ray delays by seconds: all payload is enough.
    let mut missing = payload.len();
    while !receiver.received.ended && (missing > 0 || !bare) {
        let n = socket.read(&mut input).expect("v2ray answers");
        if n == 0 {
            break;
        }
        receiver.feed(&input[..n])?;
        missing = payload.len().saturating_sub(receiver.received.payloads.iter().map(Vec::len).sum());
    }
    sending.join().expect("sent");
    receiver.end().map(|received| received.bytes())
}

/// Sends datagrams of several lengths, each after the answer to the one before.
fn echo_datagrams(server: &Server, kind: HeaderKind, request: &Request, payload: &[u8], seed: u64) {
    let (Connection { mut header, mut uplink, downlink }, mut entropy) = open(kind, request, seed);
    let mut socket = server.dial();
    let mut receiver = Receiver::new(downlink);
    let mut input = vec![0; 65_536];
    for len in [1, 100, 1400, 1966] {
        header.extend(seal(&mut uplink, &payload[..len], &mut entropy));
        socket.write_all(&std::mem::take(&mut header)).expect("v2ray reads");
        let before = receiver.received.payloads.len();
        while receiver.received.payloads.len() == before {
            let n = socket.read(&mut input).expect("v2ray answers");
            assert!(n > 0, "{request:?}: closed");
            receiver.feed(&input[..n]).expect("authentic");
        }
        assert_eq!(
            receiver.received.payloads.last().map(Vec::as_slice),
            Some(&payload[..len]),
            "{request:?}"
        );
    }
}

#[test]
#[allow(clippy::print_stderr, reason = "says that it was skipped")]
fn streams_and_datagrams_come_back() {
    let Some(server) = Server::start() else {
        eprintln!("SKIPPED: v2ray is not installed");
        return;
    };
    let mut payload = vec![0; 300_000];
    SeededEntropy::new(1).fill(&mut payload);
    let (server, payload) = (&server, payload.as_slice());
    let target = |port| Target::new(IpAddr::from(LOCAL), port);
    let (tcp, udp) = (tcp_echo(), udp_echo());
    let mut streams = Vec::new();
    for security in [Security::Aes128Gcm, Security::Chacha20Poly1305, Security::None, Security::Zero] {
        for (none_chunked, step) in
            [false, true].into_iter().flat_map(|c| [1000, 4096, 16_305, 65_456].map(|s| (c, s)))
        {
            let request = Request::new(Command::Tcp, target(tcp), security, false, none_chunked, false);
            streams.push((HeaderKind::Aead, request, step));
        }
    }
    // What old clients send.
    for kind in KINDS {
        for (bits, step) in [(0x00, 1000), (0x01, 4096), (0x05, 16_305), (0x0D, 65_456)] {
            let request = Request::new(Command::Tcp, target(tcp), Security::Aes128Cfb, false, false, false);
            streams.push((kind, Request { options: Options(bits), ..request }, step));
        }
    }
    for security in [Security::Aes128Gcm, Security::Chacha20Poly1305, Security::None] {
        let request = Request::new(Command::Tcp, target(tcp), security, false, true, false);
        streams.push((HeaderKind::Legacy, request, 4096));
    }
    let mut datagrams: Vec<_> =
        [Security::Aes128Gcm, Security::Chacha20Poly1305, Security::None, Security::Zero]
            .map(|security| (HeaderKind::Aead, security))
            .to_vec();
    datagrams
        .extend([Security::Aes128Gcm, Security::Aes128Cfb].map(|security| (HeaderKind::Legacy, security)));
    // V2Ray ends a stream a second after its client did, so they run side by side.
    thread::scope(|scope| {
        for (seed, (kind, request, step)) in (0..).zip(&streams) {
            scope.spawn(move || {
                let back = echo(server, *kind, request, payload, *step, seed);
                let error = back.as_ref().err();
                assert!(back.as_deref() == Ok(payload), "{kind:?} {request:?}, pieces of {step}: {error:?}");
            });
        }
        for (seed, (kind, security)) in (1000..).zip(&datagrams) {
            let request = Request::new(Command::Udp, target(udp), *security, false, false, false);
            scope.spawn(move || echo_datagrams(server, *kind, &request, payload, seed));
        }
    });
}
