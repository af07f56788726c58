//! What connections cost a server while nothing happens on them: strangers that say nothing, and users that are idle.

#[path = "common/probes.rs"]
#[allow(dead_code, reason = "each test file uses a part of the helpers")]
mod probes;
#[path = "common/socks_client.rs"]
#[allow(dead_code, reason = "each test file uses a part of the helpers")]
mod socks_client;
#[path = "common/vmess_server.rs"]
mod vmess_server;

use socks_client::*;
use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};
use vmess_server::*;
use vmesskit::Tunnel;

/// The most resident bytes of the process for each silent stranger.
const STRANGER: u64 = 2048;
/// And for each idle connection of a user, with freedom's behind it.
const USER: u64 = 5 * 1024 + 512;

/// The process's resident bytes once they have stopped changing.
fn settled(server: &Tunnel) -> u64 {
    let deadline = Instant::now() + PATIENCE;
    let mut last = 0;
    loop {
        thread::sleep(Duration::from_millis(200));
        let now = server.stats().footprint_bytes;
        if now.abs_diff(last) < 64 * 1024 || Instant::now() > deadline {
            return now;
        }
        last = now;
    }
}

/// A target that accepts and says nothing.
fn silent() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let address = listener.local_addr().expect("address");
    thread::spawn(move || listener.incoming().flatten().collect::<Vec<_>>());
    address
}

#[test]
fn strangers_and_idle_users_cost_little() {
    let port = free_port();
    let server = server(port, "", "{}");
    let count = 2000_u64;
    // What the first connections make the runtime and the allocator take is not theirs.
    let warm: Vec<_> =
        (0..50).map(|_| TcpStream::connect(("127.0.0.1", port)).expect("it listens")).collect();
    let before = settled(&server);
    let mut strangers: Vec<TcpStream> = Vec::new();
    for n in 0..count {
        let mut stranger = TcpStream::connect(("127.0.0.1", port)).expect("it listens");
        if n % 2 == 0 {
            stranger.write_all(&[1; 500]).expect("sent");
        }
        strangers.push(stranger);
    }
    let each = settled(&server).saturating_sub(before) / count;
    assert!(each <= STRANGER, "{each} bytes for each stranger");
    // They stay, so that nobody takes over their memory.

    let (target, mut users) = (silent(), Vec::new());
    let before = settled(&server);
    for n in 0..count / 2 {
        let mut user = TcpStream::connect(("127.0.0.1", port)).expect("it listens");
        user.write_all(&probes::header(&probes::cmd_key(), probes::now(), n, target, |_| {})).expect("sent");
        users.push(user);
    }
    let deadline = Instant::now() + PATIENCE;
    while server.stats().tcp_open < count / 2 {
        assert!(Instant::now() < deadline, "{:?}", server.stats());
        thread::sleep(Duration::from_millis(10));
    }
    let each = settled(&server).saturating_sub(before) / (count / 2);
    assert!(each <= USER, "{each} bytes for each idle user");
    assert_eq!(server.stats().buffer_bytes, 0);
    drop((users, strangers, warm));
    stop(&server);
}
