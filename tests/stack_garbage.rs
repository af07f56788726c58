//! Packets that make no sense: random, mutated, or legal but out of place. Nothing panics, nothing grows.

#[path = "common/wire.rs"]
mod wire;

use std::time::Duration;
use vmesskit::entropy::{Entropy, SeededEntropy};
use vmesskit::tun::stack::{Event, PacketMeta, Received};
use wire::{Bench, Packets, Seg, syn};

#[test]
fn random_packets_leave_no_state() {
    let mut bench = Bench::new();
    let mut entropy = SeededEntropy::new(1);
    for _ in 0..100_000 {
        let mut packet = vec![0; entropy.below(120) as usize];
        entropy.fill(&mut packet);
        if let Some(first) = packet.first_mut() {
            *first = [0x45, 0x60, 0x46, *first][entropy.below(4) as usize];
        }
        let meta = PacketMeta { checksum_trusted: entropy.below(2) == 0 };
        bench.stack.handle_packet(bench.now, &packet, meta);
    }
    assert_eq!(bench.stack.counters().tcp_flows, 0);
    assert_eq!(bench.pool.used(), 0);
    bench.wait(6000);
    bench.stack.handle_timeout(bench.now);
    assert_eq!(bench.stack.poll_timeout(), None);
}

#[test]
fn mutated_segments_never_panic_and_stay_in_bounds() {
    for seed in 0..20 {
        let mut bench = Bench::new();
        let mut entropy = SeededEntropy::new(seed);
        let mut peers: Vec<_> = (0..4).map(|n| bench.establish(50_000 + n)).collect();
        for round in 0..4000u32 {
            let n = entropy.below(4) as usize;
            let peer = &mut peers[n];
            let seg = match entropy.below(6) {
                0 => syn(peer.port, entropy.next_u32()),
                1 => Seg { fin: entropy.below(8) == 0, ..peer.data(&vec![1; entropy.below(1400) as usize]) },
                2 => Seg { seq: peer.seq.wrapping_add(entropy.below(3000)), ..peer.data(&[2; 700]) },
                3 => Seg { sack: vec![(entropy.next_u32(), entropy.next_u32()); 3], ..peer.seg() },
                4 => Seg { ack: Some(peer.ack.wrapping_add(entropy.below(5000))), ..peer.seg() },
                _ => Seg { window: entropy.next_u32() as u16, ..peer.seg() },
            };
            let mut packet = bench.packet(&seg);
            for _ in 0..entropy.below(3) {
                let at = 20 + entropy.below(packet.len() as u32 - 20) as usize;
                packet[at] = entropy.next_u32() as u8;
            }
            let meta = PacketMeta { checksum_trusted: true };
            bench.stack.handle_packet(bench.now, &packet, meta);
            let flow = peers[n].flow;
            match entropy.below(12) {
                0 => bench.stack.send(flow, bench.buffer(&[9; 3000])),
                1 => drop(bench.stack.recv(flow)),
                2 if entropy.below(50) == 0 => bench.stack.finish(flow),
                3 if entropy.below(50) == 0 => bench.stack.release(flow),
                _ => {}
            }
            while let Some(event) = bench.stack.poll_event() {
                match event {
                    Event::TcpOpening { flow, .. } => bench.stack.accept(flow),
                    Event::TcpEstablished(flow) => drop(bench.stack.recv(flow)),
                    _ => {}
                }
            }
            let mut packets = Packets::default();
            bench.stack.transmit(bench.now, &mut packets).expect("never blocked");
            for packet in &packets.list {
                bench.read(packet);
            }
            if round % 16 == 0 {
                bench.now = bench.now + Duration::from_millis(u64::from(entropy.below(300)));
                bench.stack.handle_timeout(bench.now);
                assert!(bench.stack.poll_timeout().is_none_or(|due| due > bench.now));
            }
        }
        assert!(bench.pool.used() <= bench.pool.limit());
        assert!(bench.stack.counters().tcp_flows <= 1028);
    }
}

#[test]
fn a_released_world_ends_empty() {
    // Whatever state mutations have left flows in: once released and alone, all memory and all timers go.
    for seed in 0..30 {
        let mut bench = Bench::new();
        let mut entropy = SeededEntropy::new(seed);
        let mut peer = bench.establish(50_000);
        for _ in 0..60 {
            let seg = match entropy.below(4) {
                0 => peer.data(&vec![1; 1 + entropy.below(1400) as usize]),
                1 => Seg { seq: peer.seq.wrapping_add(entropy.below(9000)), ..peer.data(&[2; 700]) },
                2 if entropy.below(20) == 0 => peer.fin(),
                _ => Seg { window: entropy.next_u32() as u16, ..peer.seg() },
            };
            bench.give(&seg);
            bench.stack.send(peer.flow, bench.buffer(&vec![9; 1 + entropy.below(3000) as usize]));
            let sent = bench.drain();
            if entropy.below(2) == 0 {
                peer.absorb(&sent);
            }
        }
        bench.stack.release(peer.flow);
        assert!(matches!(bench.stack.recv(peer.flow), Received::Reset));
        for _ in 0..100 {
            bench.drain();
            let Some(due) = bench.stack.poll_timeout() else { break };
            bench.now = due;
            bench.stack.handle_timeout(due);
        }
        assert_eq!(bench.stack.poll_timeout(), None, "seed {seed}");
        assert_eq!((bench.stack.counters().tcp_flows, bench.pool.used()), (0, 0), "seed {seed}");
    }
}
