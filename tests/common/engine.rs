//! What the engine's tests share: configs, a counting look at the process, and a patient wait.
#![allow(dead_code, reason = "each test file uses its part")]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};
use vmesskit::{Event, NoPlatform, Options, Platform, State, Tunnel};

/// Long enough for anything that is to happen.
pub(crate) const LONG: Duration = Duration::from_secs(20);

/// A config with one freedom outbound and no inbound.
pub(crate) const DIRECT: &str = r#"{"outbounds": [{"protocol": "freedom", "tag": "direct"}]}"#;

/// A config with a SOCKS inbound and a freedom outbound.
pub(crate) fn socks(listen: SocketAddr) -> String {
    format!(
        r#"{{"inbounds": [{{"protocol": "socks", "listen": "{}", "port": {}, "settings": {{"udp": true}}}}],
             "outbounds": [{{"protocol": "freedom", "tag": "direct"}}]}}"#,
        listen.ip(),
        listen.port()
    )
}

/// A config with one VMess outbound, tagged `proxy`, to a server.
pub(crate) fn vmess(host: &str, port: u16) -> String {
    format!(
        r#"{{"outbounds": [{{"protocol": "vmess", "tag": "proxy", "settings": {{"vnext": [{{"address": "{host}",
             "port": {port}, "users": [{{"id": "b831381d-6324-4d53-ad4f-8cda48b30811", "security": "aes-128-gcm"}}]}}]}}}}]}}"#
    )
}

/// A tunnel that nothing needs protection from.
pub(crate) fn tunnel(config: &str) -> Tunnel {
    tunnel_on(config, NoPlatform)
}

/// A tunnel on a platform.
pub(crate) fn tunnel_on(config: &str, platform: impl Platform + 'static) -> Tunnel {
    Tunnel::new(config, Options::default(), Arc::new(platform)).expect("a good config")
}

/// A loopback address where nobody listens.
pub(crate) fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port")
}

/// Every event until the last one.
pub(crate) fn events(tunnel: &Tunnel) -> Vec<Event> {
    std::iter::from_fn(|| tunnel.next_event().wait(Some(LONG)).expect("an event or the end")).collect()
}

/// The codes of the states among the events.
pub(crate) fn states(events: &[Event]) -> Vec<u32> {
    events
        .iter()
        .filter_map(|event| if let Event::State(state) = event { Some(state.code()) } else { None })
        .collect()
}

/// Waits until the tunnel has ended by itself.
pub(crate) fn ended(tunnel: &Tunnel) -> State {
    eventually("the end", || match tunnel.status().state {
        state @ State::Stopped { .. } => Some(state),
        _ => None,
    })
}

/// Looks again and again until there is something, for [`LONG`] at most.
pub(crate) fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + LONG;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// How many threads and how many open descriptors this process has.
pub(crate) fn threads_and_fds() -> (usize, usize) {
    let count = |path| std::fs::read_dir(path).expect("procfs").count();
    (count("/proc/self/task"), count("/proc/self/fd"))
}

/// A server that sends back what it gets, a thread a connection, for as long as the test runs.
pub(crate) fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound");
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let (mut from, mut to) = (client.try_clone().expect("a descriptor"), client);
                // The client may reset the connection: the test looks at its own end.
                let _ = std::io::copy(&mut from, &mut to);
            });
        }
    });
    address
}

/// Connects to `target` by way of a SOCKS inbound.
pub(crate) fn through_socks(inbound: SocketAddr, target: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(inbound).expect("it listens");
    stream.set_read_timeout(Some(LONG)).expect("a socket");
    let SocketAddr::V4(target) = target else { panic!("an IPv4 target") };
    let connect = [&[5, 1, 0, 5, 1, 0, 1][..], &target.ip().octets(), &target.port().to_be_bytes()].concat();
    stream.write_all(&connect).expect("the request");
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).expect("the answer");
    assert_eq!((&answer[..2], &answer[2..4]), (&[5, 0][..], &[5, 0][..]), "accepted and connected");
    stream
}

/// Sends bytes through an echo and takes them back.
pub(crate) fn exchange(stream: &mut TcpStream, bytes: &[u8]) {
    stream.write_all(bytes).expect("sent");
    let mut back = vec![0; bytes.len()];
    stream.read_exact(&mut back).expect("echoed");
    assert!(back == bytes, "the echo differs");
}
