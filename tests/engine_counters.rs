//! Counters by name are those that the policy asks for, whole, and reset without a loss.

#[path = "common/engine.rs"]
mod engine;

use engine::{LONG, echo, eventually, exchange, free_address, through_socks, tunnel};
use std::net::SocketAddr;
use vmesskit::Tunnel;
use vmesskit::error::ErrorKind;

fn config(listen: SocketAddr, stats: &str) -> String {
    format!(
        r#"{{"inbounds": [{{"protocol": "socks", "tag": "in", "listen": "127.0.0.1", "port": {}}}],
            "outbounds": [{{"protocol": "freedom", "tag": "out"}}], {stats}
            "policy": {{"system": {{"statsInboundUplink": true, "statsOutboundUplink": true, "statsOutboundDownlink": true}}}}}}"#,
        listen.port()
    )
}

fn counters(tunnel: &Tunnel, reset: bool) -> Vec<(String, u64)> {
    tunnel.counters(reset).into_iter().map(|counter| (counter.name, counter.value)).collect()
}

#[test]
fn inbounds_and_outbounds_are_counted_under_v2rays_names() {
    let address = free_address();
    let tunnel = tunnel(&config(address, r#""stats": {},"#));
    tunnel.start(None).wait(Some(LONG)).expect("answered").expect("started");
    assert_eq!(counters(&tunnel, false), [], "nothing has been carried");
    let mut stream = through_socks(address, echo());
    exchange(&mut stream, &[7; 50_000]);
    let named = |uplink, downlink| {
        [
            ("inbound>>>in>>>traffic>>>uplink".to_owned(), uplink),
            ("outbound>>>out>>>traffic>>>uplink".to_owned(), uplink),
            ("outbound>>>out>>>traffic>>>downlink".to_owned(), downlink),
        ]
    };
    // The last bytes are counted after they have been handed over.
    eventually("the bytes", || (counters(&tunnel, false) == named(50_000, 50_000)).then_some(()));
    assert_eq!(counters(&tunnel, true), named(50_000, 50_000));
    assert_eq!(counters(&tunnel, false), named(0, 0), "the connection holds them");
    exchange(&mut stream, &[8; 10]);
    eventually("the bytes after", || (counters(&tunnel, false) == named(10, 10)).then_some(()));
    drop(stream);
    eventually("the connection's end", || (tunnel.stats().tcp_open == 0).then_some(()));
    assert_eq!(counters(&tunnel, true), named(10, 10), "told once more");
    counters(&tunnel, true);
    assert_eq!(counters(&tunnel, false), [], "and gone");
    tunnel.stop(LONG).wait(None).expect("answered").expect("stopped");
    assert_eq!(counters(&tunnel, false), [], "harmless after the end");
}

#[test]
fn without_stats_in_the_config_nothing_is_counted_by_name() {
    let address = free_address();
    let tunnel = tunnel(&config(address, ""));
    tunnel.start(None).wait(Some(LONG)).expect("answered").expect("started");
    exchange(&mut through_socks(address, echo()), &[7; 1000]);
    eventually("the bytes", || (tunnel.stats().downlink_bytes == 1000).then_some(()));
    assert_eq!(counters(&tunnel, false), []);
    let error = tunnel.users("in").expect_err("a SOCKS inbound has none");
    assert_eq!(error.kind, ErrorKind::Misuse);
    tunnel.stop(LONG).wait(None).expect("answered").expect("stopped");
}
