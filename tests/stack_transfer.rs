//! Whatever the link does to packets, both ends read exactly what was written, and the close of both directions.

#[path = "common/stack.rs"]
mod common;

use common::{CLEAN, Impairment, ROUGH, Script, World};
use std::time::Duration;
use vmesskit::tun::stack::Config;

const MTUS: [usize; 5] = [1280, 1500, 9000, 16_000, 65_000];

fn transfer(seed: u64, mtu: usize, v6: bool, link: Impairment, up: u64, down: u64) -> World {
    let mut world = World::new(seed, mtu, v6, link);
    world.connect(200_000, Script::sends(up), Script::sends(down));
    world.run_to_the_end(Duration::from_secs(600));
    world.run_for(Duration::from_secs(90));
    let counters = world.stack.counters();
    assert_eq!((counters.tcp_flows, counters.half_open), (0, 0), "{}", world.describe());
    assert_eq!((world.pool.used(), world.stack.poll_timeout()), (0, None));
    world
}

#[test]
fn a_clean_link_needs_no_retransmission() {
    for mtu in MTUS {
        for v6 in [false, true] {
            let world = transfer(1, mtu, v6, CLEAN, 300_000, 700_000);
            assert_eq!(world.stack.counters().retransmits, 0, "mtu {mtu} v6 {v6}");
        }
    }
}

#[test]
fn uploads_survive_a_rough_link() {
    for (n, mtu) in MTUS.into_iter().enumerate() {
        transfer(10 + n as u64, mtu, n % 2 == 0, ROUGH, 500_000, 0);
    }
}

#[test]
fn downloads_survive_a_rough_link() {
    for (n, mtu) in MTUS.into_iter().enumerate() {
        let world = transfer(20 + n as u64, mtu, n % 2 == 1, ROUGH, 0, 1_000_000);
        assert!(mtu > 9000 || world.stack.counters().retransmits > 0);
    }
}

#[test]
fn both_directions_at_once_survive_a_rough_link() {
    for seed in 30..50 {
        let mtu = MTUS[seed as usize % MTUS.len()];
        transfer(seed, mtu, seed % 2 == 0, ROUGH, 150_000, 150_000);
    }
}

#[test]
fn many_flows_share_a_rough_link() {
    let mut world = World::new(60, 1500, false, Impairment { loss: 2, repeat: 2, reorder: 5 });
    for n in 0..60 {
        world.connect(16_000, Script::sends(n * 997), Script::sends((60 - n) * 1511));
    }
    world.run_to_the_end(Duration::from_secs(600));
}

#[test]
fn small_records_are_compacted() {
    let mut world = World::new(70, 9000, false, CLEAN);
    world.record = 100;
    world.connect(200_000, Script::sends(1), Script::sends(300_000));
    world.run_to_the_end(Duration::from_secs(60));
    assert!(world.peak < 1 << 20, "{} bytes", world.peak);
}

#[test]
fn super_segments_carry_the_same_bytes() {
    for (seed, v6, link) in [(80, false, CLEAN), (81, true, CLEAN), (82, false, ROUGH), (83, true, ROUGH)] {
        let config = Config { offload: true, ..Config::new(1500) };
        let mut world = World::with(seed, config, 16 << 20, v6, link);
        world.connect(200_000, Script::sends(5000), Script::sends(1_000_000));
        world.run_to_the_end(Duration::from_secs(600));
        if link.loss == 0 {
            let sent = world.stack.counters().packets_out;
            assert!(sent < 300, "{sent} packets for 685 segments");
        }
    }
}

#[test]
fn either_end_may_close_first() {
    for link in [CLEAN, ROUGH] {
        for (seed, app_last, server_last) in [(90, true, false), (91, false, true), (92, false, false)] {
            let mut world = World::new(seed, 1500, false, link);
            let app = Script { close_last: app_last, ..Script::sends(40_000) };
            let server = Script { close_last: server_last, ..Script::sends(90_000) };
            world.connect(50_000, app, server);
            world.run_to_the_end(Duration::from_secs(120));
            world.run_for(Duration::from_secs(60));
            assert_eq!(world.stack.counters().tcp_flows, 0);
        }
    }
}

#[test]
fn half_closed_flows_carry_the_other_direction() {
    // The app closes at once and then reads for long, and the other way round.
    let mut world = World::new(95, 1500, true, ROUGH);
    world.connect(50_000, Script::sends(10), Script { close_last: true, ..Script::sends(600_000) });
    world.connect(50_000, Script { close_last: true, ..Script::sends(600_000) }, Script::sends(10));
    world.run_to_the_end(Duration::from_secs(300));
}
