//! A process without a free file descriptor: clients wait, nothing spins, and service goes on when there are some again.

#[path = "common/socks_client.rs"]
#[allow(dead_code, reason = "each test file uses a part of the helpers")]
mod socks_client;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::time::{ClockId, clock_gettime};
use socket2::{Domain, Socket, Type};
use socks_client::*;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread::sleep;
use std::time::Duration;

fn cpu_seconds() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

#[test]
fn clients_wait_while_no_descriptor_is_free() {
    let port = free_port();
    let tunnel = start(&format!(
        r#"{{"inbounds": [{{"protocol": "socks", "listen": "127.0.0.1", "port": {port}}}],
             "outbounds": [{{"protocol": "freedom"}}]}}"#
    ));
    let before = getrlimit(Resource::Nofile);
    // The clients are in this process too: their sockets are made before the limit falls, and connected after it.
    let sockets: Vec<_> =
        (0..40).map(|_| Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket")).collect();
    let open = std::fs::read_dir("/proc/self/fd").expect("listed").count() as u64;
    setrlimit(Resource::Nofile, Rlimit { current: Some(open / 2), maximum: before.maximum })
        .expect("lowered");
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let mut clients: Vec<TcpStream> = Vec::new();
    for socket in sockets {
        socket.connect(&address.into()).expect("in the queue");
        clients.push(socket.into());
    }
    let cpu = cpu_seconds();
    sleep(Duration::from_secs(1));
    let cpu = cpu_seconds() - cpu;
    assert!(cpu < 0.3, "{cpu} s of CPU in a second of waiting");
    assert_eq!(tunnel.stats().tcp_total, 0);

    setrlimit(Resource::Nofile, before).expect("raised");
    let mut late = connect(port, "127.0.0.1", tcp_echo().port());
    late.write_all(b"x").expect("sent");
    late.read_exact(&mut [0]).expect("received");
    for client in &mut clients {
        client.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        client.write_all(&[5, 1, 0]).expect("sent");
        client.read_exact(&mut [0; 2]).expect("served at last");
    }
    stop(&tunnel);
}
