//! What a check and the events say of a server that is there, that knows us not, and that is gone: against a real V2Ray.

#[path = "common/engine.rs"]
mod engine;
#[path = "common/v2ray.rs"]
mod v2ray;

use engine::{LONG, free_address, socks, tunnel, vmess};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};
use v2ray::{ID, V2ray};
use vmesskit::{CauseKind, ErrorKind, Event, Stage, State, Tunnel};

/// A started tunnel with one SOCKS inbound and one VMess outbound.
fn started(inbound: SocketAddr, server: u16, id: &str) -> Tunnel {
    let outbound = vmess("127.0.0.1", server).replace(ID, id);
    let inbound = socks(inbound);
    let inbounds = inbound.split_once("\"outbounds\"").expect("it has outbounds").0;
    let config = format!("{inbounds}{}", outbound.strip_prefix('{').expect("an object"));
    let tunnel = tunnel(&config);
    tunnel.start(None).wait(Some(LONG)).expect("answered").expect("started");
    tunnel
}

/// Waits for an event that is looked for.
fn await_event<T>(tunnel: &Tunnel, mut wanted: impl FnMut(&Event) -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(60);
    while let Some(Some(event)) = tunnel.next_event().wait(Some(deadline - Instant::now())) {
        if let Some(found) = wanted(&event) {
            return found;
        }
    }
    panic!("the event never came");
}

/// An app's flow that sends data to nowhere in particular and waits.
fn flow(inbound: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(inbound).expect("it listens");
    stream.write_all(&[5, 1, 0, 5, 1, 0, 1, 127, 0, 0, 1, 0, 9]).expect("the request");
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).expect("answered at once");
    stream.write_all(b"is anybody there?").expect("sent");
    stream
}

#[test]
fn a_good_server_is_proved_by_a_check() {
    let port = free_address().port();
    let Some(_server) = V2ray::server(port) else { return };
    let tunnel = started(free_address(), port, ID);
    assert_eq!(tunnel.status().state, State::Connecting);
    let report = tunnel.check(LONG).wait(Some(LONG)).expect("answered").expect("it is there");
    assert_eq!(report.outbound, "proxy");
    assert!(report.latency > Duration::ZERO);
    assert_eq!(tunnel.status().state, State::Connected);
    tunnel.stop(LONG).wait(None).expect("answered").expect("stopped");
}

#[test]
fn a_wrong_id_is_told_as_the_likeliest_cause() {
    let port = free_address().port();
    let Some(_server) = V2ray::server(port) else { return };
    let inbound = free_address();
    let tunnel = started(inbound, port, "00000000-1111-2222-3333-444444444444");
    let flows: Vec<TcpStream> = (0..4).map(|_| flow(inbound)).collect();
    // V2Ray swallows what it does not know, and closes some time later: either may be told first.
    let (outbound, likely) = await_event(&tunnel, |event| match event {
        Event::OutboundUnhealthy { outbound, likely } | Event::AuthRejected { outbound, likely } => {
            Some((outbound.clone(), likely.clone()))
        }
        _ => None,
    });
    assert_eq!((&*outbound, likely[0].kind), ("proxy", CauseKind::Id));
    assert!(likely.iter().any(|cause| cause.kind == CauseKind::Clock), "{likely:?}");
    await_event(&tunnel, |event| matches!(event, Event::State(State::Degraded { .. })).then_some(()));
    drop(flows);
    tunnel.stop(LONG).wait(None).expect("answered").expect("stopped");
}

#[test]
fn a_dead_server_costs_no_memory_and_heals() {
    let (inbound, port) = (free_address(), free_address().port());
    let tunnel = started(inbound, port, ID);
    let mut memory = 0;
    for round in 0..3000 {
        let mut stream = TcpStream::connect(inbound).expect("it listens");
        stream.write_all(&[5, 1, 0, 5, 1, 0, 1, 127, 0, 0, 1, 0, 9]).expect("the request");
        // Refused in whichever way: what is counted is what it costs.
        let _ = stream.read_to_end(&mut Vec::new());
        if round == 1000 {
            memory = tunnel.stats().footprint_bytes;
        }
    }
    let stats = tunnel.stats();
    assert!(stats.footprint_bytes < memory + (2 << 20), "{memory} has become {stats:?}");
    assert_eq!((stats.tcp_open, stats.buffer_bytes, stats.dials), (0, 0, 0));
    assert!((1..100).contains(&stats.dial_failures), "it backs off: {stats:?}");
    for _ in 0..3 {
        let error = tunnel.check(LONG).wait(Some(LONG)).expect("answered").expect_err("it is gone");
        assert_eq!(error.kind, ErrorKind::ServerUnreachable { stage: Stage::Connect });
    }
    await_event(&tunnel, |event| matches!(event, Event::State(State::Degraded { .. })).then_some(()));
    let Some(_server) = V2ray::server(port) else { return };
    tunnel.check(LONG).wait(Some(LONG)).expect("answered").expect("it is there again");
    assert_eq!(tunnel.status().state, State::Connected);
    tunnel.stop(LONG).wait(None).expect("answered").expect("stopped");
}
