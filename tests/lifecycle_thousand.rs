//! A thousand lives leave nothing behind: no thread, no descriptor, no memory.
//!
//! Alone in its file, because it counts what belongs to the whole process.

#[path = "common/engine.rs"]
mod engine;

use engine::{DIRECT, LONG, free_address, socks, threads_and_fds, tunnel};
use std::net::TcpStream;
use std::thread::sleep;
use std::time::{Duration, Instant};

#[test]
fn a_thousand_starts_and_stops_leave_nothing_behind() {
    let address = free_address();
    let listening = socks(address);
    // On a machine with several cores it runs several shards.
    let server = format!(
        r#"{{"inbounds": [{{"protocol": "vmess", "listen": "{}", "port": {},
              "settings": {{"clients": [{{"id": "b831381d-6324-4d53-ad4f-8cda48b30811"}}]}}}}],
             "outbounds": [{{"protocol": "freedom"}}]}}"#,
        address.ip(),
        address.port()
    );
    let mut memory = 0;
    let before = {
        live(&listening, address);
        live(&server, address);
        threads_and_fds()
    };
    for round in 0..1000 {
        match round % 5 {
            0 => live(&listening, address),
            4 => live(&server, address),
            1 => drop(tunnel(DIRECT)),
            2 => drop(tunnel(DIRECT).stop(LONG).wait(None)),
            _ => {
                let tunnel = tunnel(DIRECT);
                let start = tunnel.start(None);
                drop(start);
                assert_eq!(tunnel.stop(LONG).wait(Some(LONG)), Some(Ok(())));
            }
        }
        settled(before, round);
        if round == 200 {
            memory = tunnel(DIRECT).stats().footprint_bytes;
        }
    }
    let grown = tunnel(DIRECT).stats().footprint_bytes.saturating_sub(memory);
    assert!(grown < 4 << 20, "grew by {grown} bytes in 800 rounds");
}

/// Checks that nothing is left. A thread that has been joined may be listed for a moment longer.
fn settled(before: (usize, usize), round: usize) {
    let deadline = Instant::now() + Duration::from_secs(1);
    while threads_and_fds() != before && Instant::now() < deadline {
        sleep(Duration::from_millis(1));
    }
    assert_eq!(threads_and_fds(), before, "after round {round}");
}

/// One life with a listener and a connection.
fn live(config: &str, address: std::net::SocketAddr) {
    let tunnel = tunnel(config);
    tunnel.start(None).wait(Some(LONG)).expect("answered").expect("started");
    let client = TcpStream::connect(address).expect("it listens");
    assert_eq!(tunnel.stop(LONG).wait(Some(LONG)), Some(Ok(())));
    drop(client);
}
