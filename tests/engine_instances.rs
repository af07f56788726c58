//! Several tunnels in one process, and the connections of each.

#[path = "common/engine.rs"]
mod engine;

use engine::{LONG, echo, eventually, exchange, free_address, socks, through_socks, tunnel};
use std::io::Read;

#[test]
fn two_tunnels_live_side_by_side() {
    let (echo, first_at, second_at) = (echo(), free_address(), free_address());
    let (first, second) = (tunnel(&socks(first_at)), tunnel(&socks(second_at)));
    for tunnel in [&first, &second] {
        tunnel.start(None).wait(Some(LONG)).expect("answered").expect("started");
    }
    let mut one = through_socks(first_at, echo);
    let mut two = through_socks(second_at, echo);
    exchange(&mut one, b"by the first");
    exchange(&mut two, &[7; 100_000]);
    first.stop(LONG).wait(None).expect("answered").expect("stopped");
    let mut rest = Vec::new();
    assert!(one.read_to_end(&mut rest).is_err(), "a cut connection is reset, never ended");
    exchange(&mut two, b"the second lives on");
    let uplink =
        eventually("the counters", || Some(second.stats().uplink_bytes).filter(|bytes| *bytes == 100_019));
    assert!(first.stats().uplink_bytes < uplink, "each counts its own");
    second.stop(LONG).wait(None).expect("answered").expect("stopped");
}

#[test]
fn connections_are_listed_and_closed_one_by_one() {
    let (echo, at) = (echo(), free_address());
    let tunnel = tunnel(&socks(at));
    tunnel.start(None).wait(Some(LONG)).expect("answered").expect("started");
    let (mut one, mut two) = (through_socks(at, echo), through_socks(at, echo));
    exchange(&mut one, b"12345");
    exchange(&mut two, b"123");
    let list = tunnel.connections().wait(None).expect("answered").expect("running");
    assert_eq!(list.len(), 2);
    assert_eq!((list[0].target.clone(), &*list[0].outbound), (echo.to_string(), "direct"));
    assert_eq!(list[0].source, one.local_addr().expect("connected"));
    assert_eq!((list[0].uplink_bytes, list[1].uplink_bytes), (5, 3));
    assert_eq!(tunnel.close_connection(list[0].id).wait(None), Some(Ok(true)));
    let mut rest = Vec::new();
    assert!(one.read_to_end(&mut rest).is_err(), "it is reset");
    exchange(&mut two, b"the other lives on");
    eventually("the list", || {
        let list = tunnel.connections().wait(None).expect("answered").expect("running");
        (list.len() == 1).then_some(())
    });
    assert_eq!(tunnel.close_connection(list[0].id).wait(None), Some(Ok(false)), "it is gone");
    assert_eq!((tunnel.stats().tcp_total, tunnel.stats().tcp_open), (2, 1));
    tunnel.stop(LONG).wait(None).expect("answered").expect("stopped");
    assert_eq!((tunnel.stats().tcp_open, tunnel.stats().buffer_bytes), (0, 0));
}
