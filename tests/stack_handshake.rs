//! How flows begin: SYN, accept, refuse, and the bound on half-open flows.

#[path = "common/wire.rs"]
mod wire;

use std::net::IpAddr;
use vmesskit::tun::stack::{Config, Event, Received, Refusal};
use wire::{Bench, Packets, Seg, syn};

#[test]
fn syn_ack_repeats_what_was_offered_and_names_the_mtu() {
    for (mtu, v6, mss) in
        [(1500, false, 1460), (1500, true, 1440), (9000, false, 8960), (65_000, true, 64_940)]
    {
        let mut bench = Bench::with(Config::new(mtu), 1 << 20);
        if v6 {
            bench.app = "fd19::1".parse().expect("ip");
            bench.remote = "2001:db8::7".parse().expect("ip");
        }
        let full = Seg { scale: Some(7), sack_permitted: true, ..syn(50_000, 77) };
        let flow = bench.open(&full);
        assert_eq!(bench.drain(), [], "nothing before the owner accepts");
        bench.stack.accept(flow);
        let answer = bench.drain().remove(0);
        assert_eq!((answer.mss, answer.scale, answer.sack_permitted), (Some(mss), Some(4), true));
        let window = mss.saturating_mul(10);
        assert_eq!((answer.ack, answer.window, answer.src, answer.dst), (Some(78), window, 443, 50_000));

        let flow = bench.open(&syn(50_001, 77));
        bench.stack.accept(flow);
        let answer = bench.drain().remove(0);
        assert_eq!((answer.scale, answer.sack_permitted), (None, false));
    }
}

#[test]
fn a_repeated_syn_is_answered_again_and_no_second_flow() {
    let mut bench = Bench::new();
    let flow = bench.open(&syn(50_000, 77));
    assert_eq!(bench.ask(&syn(50_000, 77)), []);
    bench.stack.accept(flow);
    let first = bench.drain();
    assert_eq!(bench.ask(&syn(50_000, 77)), first);
    assert_eq!(bench.stack.counters().tcp_flows, 1);
    assert!(bench.events().is_empty());
}

#[test]
fn an_app_that_tries_anew_before_we_answered_gets_the_new_flow() {
    let mut bench = Bench::new();
    let old = bench.open(&syn(50_000, 77));
    bench.give(&syn(50_000, 9_000_077));
    let events = bench.events();
    assert!(matches!(events[0], Event::TcpReadable(id) if id == old));
    let Event::TcpOpening { flow, .. } = events[1] else { panic!("{events:?}") };
    assert!(flow != old && matches!(bench.stack.recv(old), Received::Reset));
    bench.stack.accept(old);
    assert_eq!(bench.drain(), [], "the old id is stale");
    bench.stack.accept(flow);
    assert_eq!(bench.drain()[0].ack, Some(9_000_078));
}

#[test]
fn a_lost_syn_ack_is_sent_again_five_times_at_most() {
    let mut bench = Bench::new();
    let flow = bench.open(&syn(50_000, 77));
    bench.stack.accept(flow);
    let first = bench.drain();
    let mut waits = Vec::new();
    loop {
        let before = bench.now;
        let again = bench.expire();
        waits.push(bench.now.since(before).as_millis());
        if again.is_empty() {
            break;
        }
        assert_eq!(again, first);
    }
    assert_eq!(waits, [1000, 2000, 4000, 8000, 10_000]);
    assert!(matches!(bench.events()[..], [Event::TcpReadable(id)] if id == flow));
    assert!(matches!(bench.stack.recv(flow), Received::Reset));
    assert_eq!((bench.stack.counters().tcp_flows, bench.stack.poll_timeout()), (0, None));
}

#[test]
fn refusals_are_rst_or_icmp_or_nothing() {
    let mut bench = Bench::new();
    let flow = bench.open(&syn(50_000, 77));
    bench.stack.refuse(flow, Refusal::Refused);
    let answer = bench.drain();
    assert_eq!((answer.len(), answer[0].rst, answer[0].ack, answer[0].seq), (1, true, Some(78), 0));

    for (how, code) in [(Refusal::Unreachable, 1), (Refusal::Prohibited, 13)] {
        let flow = bench.open(&syn(50_001, 0x0102_0304));
        bench.stack.refuse(flow, how);
        let mut packets = Packets::default();
        bench.stack.transmit(bench.now, &mut packets).expect("not blocked");
        let [packet] = &packets.list[..] else { panic!("{packets:?}", packets = packets.list) };
        assert_eq!((packet[9], packet[20], packet[21]), (1, 3, code));
        let quote = &packet[28..];
        assert_eq!(quote[20..28], [0xc3, 0x51, 1, 187, 1, 2, 3, 4], "ports and sequence number");
    }
    let flow = bench.open(&syn(50_002, 77));
    bench.stack.refuse(flow, Refusal::Silent);
    assert_eq!(bench.drain(), []);
    assert_eq!(bench.stack.counters().tcp_flows, 0);
}

#[test]
fn a_wrong_last_ack_is_answered_with_rst_and_changes_nothing() {
    let mut bench = Bench::new();
    let flow = bench.open(&syn(50_000, 77));
    bench.stack.accept(flow);
    let syn_ack = bench.drain().remove(0);
    let ack = Seg { syn: false, mss: None, seq: 78, ack: Some(syn_ack.seq + 2), ..syn(50_000, 0) };
    let answer = bench.ask(&ack);
    assert!(answer.len() == 1 && answer[0].rst && answer[0].seq == syn_ack.seq + 2);
    bench.give(&Seg { ack: Some(syn_ack.seq + 1), ..ack });
    assert!(matches!(bench.events()[..], [Event::TcpEstablished(id)] if id == flow));
}

#[test]
fn data_may_come_with_the_last_ack() {
    let mut bench = Bench::new();
    let flow = bench.open(&syn(50_000, 77));
    bench.stack.accept(flow);
    let ack = bench.drain()[0].seq + 1;
    let data = b"GET / HTTP/1.1".to_vec();
    let answer = bench.ask(&Seg { syn: false, mss: None, seq: 78, ack: Some(ack), data, ..syn(50_000, 0) });
    assert_eq!(answer[0].ack, Some(78 + 14));
    assert!(matches!(bench.events()[..], [Event::TcpEstablished(_), Event::TcpReadable(_)]));
    assert_eq!(bench.take(flow).0, b"GET / HTTP/1.1");
}

#[test]
fn half_open_flows_are_bounded_and_hold_no_memory() {
    let mut bench = Bench::new();
    let mut flows = Vec::new();
    for n in 0..1500u16 {
        bench.give(&syn(10_000 + n, 77));
        let opened = bench.events().into_iter().find_map(|event| match event {
            Event::TcpOpening { flow, .. } => Some(flow),
            _ => None,
        });
        flows.push(opened.expect("opens"));
        if n % 2 == 0 {
            bench.stack.accept(flows[usize::from(n)]);
        }
        bench.drain();
    }
    let counters = bench.stack.counters();
    assert_eq!((counters.half_open, counters.tcp_flows, bench.pool.used()), (1024, 1024, 0));
    assert!(matches!(bench.stack.recv(flows[475]), Received::Reset), "the oldest went");
    assert!(matches!(bench.stack.recv(flows[476]), Received::Empty), "the next is the oldest");
}

#[test]
fn strays_get_rst_and_leave_no_state() {
    let mut bench = Bench::new();
    let stray = Seg { syn: false, ack: Some(555), ..syn(50_000, 77) };
    let answer = bench.ask(&stray);
    assert!(answer.len() == 1 && answer[0].rst && answer[0].seq == 555 && answer[0].ack.is_none());
    let answer = bench.ask(&Seg { ack: None, fin: true, data: vec![1; 10], ..stray.clone() });
    assert!(answer.len() == 1 && answer[0].rst && answer[0].ack == Some(88));
    assert_eq!(bench.ask(&Seg { rst: true, ..stray.clone() }), []);
    let answer = bench.ask(&Seg { syn: true, ack: Some(9), ..stray });
    assert!(answer[0].rst && answer[0].seq == 9, "SYN-ACK opens nothing");
    assert!(bench.events().is_empty());
    assert_eq!((bench.stack.counters().tcp_flows, bench.stack.poll_timeout()), (0, None));
}

#[test]
fn dns_over_tls_to_the_tunnels_resolver_is_refused_at_once() {
    let dns: IpAddr = "172.19.0.2".parse().expect("ip");
    let mut bench = Bench::with(Config { dns: Some(dns), ..Config::new(1500) }, 1 << 20);
    bench.remote = dns;
    let answer = bench.ask(&Seg { dst: 853, ..syn(50_000, 77) });
    assert!(answer.len() == 1 && answer[0].rst && answer[0].ack == Some(78));
    assert!(bench.events().is_empty());
    bench.open(&Seg { dst: 53, ..syn(50_000, 77) });
    bench.remote = "9.9.9.9".parse().expect("ip");
    bench.open(&Seg { dst: 853, ..syn(50_000, 77) });
}

#[test]
fn new_flows_are_refused_when_memory_is_short() {
    let mut bench = Bench::with(Config::new(1500), 256 * 1024);
    let peer = bench.establish(50_000);
    let hoard: Vec<_> = std::iter::from_fn(|| bench.pool.copy(&[0; 4000])).collect();
    let answer = bench.ask(&syn(50_001, 77));
    assert!(answer.len() == 1 && answer[0].rst);
    assert!(bench.events().is_empty());
    drop(hoard);
    bench.open(&syn(50_001, 77));
    assert!(matches!(bench.stack.recv(peer.flow), Received::Empty), "the old one lives");
}

#[test]
fn nothing_is_opened_to_addresses_that_are_never_dialled() {
    let mut bench = Bench::new();
    for remote in ["224.0.0.1", "255.255.255.255", "127.0.0.1", "0.0.0.0", "169.254.3.4"] {
        bench.remote = remote.parse().expect("ip");
        assert_eq!(bench.ask(&syn(50_000, 77)), [], "{remote}");
    }
    assert!(bench.events().is_empty());
    assert_eq!(bench.stack.counters().dropped_policy, 5);
}
