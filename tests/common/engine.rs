//! What the engine's tests share: configs, a counting look at the process, and a patient wait.
#![allow(dead_code, reason = "each test file uses its part")]

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::{Duration, Instant};
use vmesskit::{Event, NoPlatform, Options, Platform, State, Tunnel};

/// Long enough for anything that is to happen.
pub const LONG: Duration = Duration::from_secs(20);

/// A config with one freedom outbound and no inbound.
pub const DIRECT: &str = r#"{"outbounds": [{"protocol": "freedom", "tag": "direct"}]}"#;

/// A config with a SOCKS inbound and a freedom outbound.
pub fn socks(listen: SocketAddr) -> String {
    format!(
        r#"{{"inbounds": [{{"protocol": "socks", "listen": "{}", "port": {}, "settings": {{"udp": true}}}}],
             "outbounds": [{{"protocol": "freedom", "tag": "direct"}}]}}"#,
        listen.ip(),
        listen.port()
    )
}

/// A config with one VMess outbound, tagged `proxy`, to a server.
pub fn vmess(host: &str, port: u16) -> String {
    format!(
        r#"{{"outbounds": [{{"protocol": "vmess", "tag": "proxy", "settings": {{"vnext": [{{"address": "{host}",
             "port": {port}, "users": [{{"id": "b831381d-6324-4d53-ad4f-8cda48b30811", "security": "aes-128-gcm"}}]}}]}}}}]}}"#
    )
}

/// A tunnel that nothing needs protection from.
pub fn tunnel(config: &str) -> Tunnel {
    tunnel_on(config, NoPlatform)
}

/// A tunnel on a platform.
pub fn tunnel_on(config: &str, platform: impl Platform + 'static) -> Tunnel {
    Tunnel::new(config, Options::default(), Arc::new(platform)).expect("a good config")
}

/// A loopback address where nobody listens.
pub fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port")
}

/// Every event until the last one.
pub fn events(tunnel: &Tunnel) -> Vec<Event> {
    std::iter::from_fn(|| tunnel.next_event().wait(Some(LONG)).expect("an event or the end")).collect()
}

/// The codes of the states among the events.
pub fn states(events: &[Event]) -> Vec<u32> {
    events
        .iter()
        .filter_map(|event| if let Event::State(state) = event { Some(state.code()) } else { None })
        .collect()
}

/// Waits until the tunnel has ended by itself.
pub fn ended(tunnel: &Tunnel) -> State {
    eventually("the end", || match tunnel.status().state {
        state @ State::Stopped { .. } => Some(state),
        _ => None,
    })
}

/// Looks again and again until there is something, for [`LONG`] at most.
pub fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
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
pub fn threads_and_fds() -> (usize, usize) {
    let count = |path| std::fs::read_dir(path).expect("procfs").count();
    (count("/proc/self/task"), count("/proc/self/fd"))
}
