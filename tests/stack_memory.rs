//! Who reads slowly, or not at all, is bounded in memory; who is idle holds none.

#[path = "common/stack.rs"]
mod common;
#[path = "common/wire.rs"]
mod wire;

use common::{CLEAN, Impairment, ROUGH, Script, World};
use std::time::Duration;
use vmesskit::buffer::Class;
use vmesskit::tun::stack::{Config, Received};
use wire::{Bench, Seg};

const STALLED: Script = Script { send: 0, close: false, read: false, close_last: false };

#[test]
fn an_app_that_stops_reading_closes_the_window_and_opens_it_again() {
    for (seed, link) in [(1, CLEAN), (2, ROUGH), (3, Impairment { loss: 25, repeat: 0, reorder: 0 })] {
        let mut world = World::new(seed, 1500, false, link);
        let app =
            world.connect(20_000, Script { read: false, ..Script::sends(10) }, Script::sends(3_000_000));
        world.run_for(Duration::from_secs(30));
        assert_eq!(world.apps[app].progress.received, 0);
        assert!(world.pool.used() <= (1 << 20) + 70_000, "{}", world.pool.used());
        let sent = world.server(app).expect("open").1.progress.sent;
        assert!(sent < 1_200_000, "{sent} bytes taken");
        // Probes go on, at their slowest every ten seconds.
        let due = world.stack.poll_timeout().expect("a probe").since(world.now);
        assert!(due <= Duration::from_secs(10));
        world.apps[app].script.read = true;
        world.run_to_the_end(Duration::from_secs(600));
    }
}

#[test]
fn a_stalled_upstream_holds_a_megabyte_at_most_and_loses_nothing() {
    for (seed, mtu, link) in [(5, 1500, CLEAN), (6, 16_000, CLEAN), (7, 1500, ROUGH)] {
        let mut world = World::new(seed, mtu, false, link);
        let app = world.connect(2_000_000, Script::sends(6_000_000), Script::sends(1));
        // Let the window grow first.
        world.run_until(Duration::from_secs(100), |world| {
            world.server(app).is_some_and(|(_, server)| server.progress.received > 2_000_000)
        });
        let (flow, _) = world.server(app).expect("open");
        world.servers.get_mut(&flow).expect("open").script.read = false;
        world.run_for(Duration::from_secs(20));
        let used = world.pool.used();
        assert!((100_000..=1 << 20).contains(&used), "{used} bytes at mtu {mtu}");
        world.servers.get_mut(&flow).expect("open").script.read = true;
        world.run_to_the_end(Duration::from_secs(600));
    }
}

#[test]
fn a_thousand_stalled_flows_stay_inside_the_limit_and_one_that_moves_still_does() {
    const LIMIT: usize = 8 << 20;
    let mut world = World::with(8, Config::new(1500), LIMIT, false, CLEAN);
    for _ in 0..1000 {
        world.connect(30_000, Script { close: false, ..Script::sends(1_000_000) }, STALLED);
    }
    world.run_for(Duration::from_secs(5));
    assert!(world.peak <= LIMIT);
    assert!(world.pool.used() > LIMIT / 2, "they do hold memory: {}", world.pool.used());
    let established = world.servers.values().filter(|server| server.progress.established).count();
    assert_eq!(established, 1000);
    // Whoever is admitted moves.
    for (_, server) in world.servers.iter_mut().take(10) {
        server.script.read = true;
    }
    world.run_until(Duration::from_secs(900), |world| {
        world.servers.values().filter(|server| server.progress.received == 1_000_000).count() == 10
    });
    assert!(world.peak <= LIMIT);
}

#[test]
fn a_thousand_idle_flows_hold_no_buffer_and_wake_nobody() {
    let mut world = World::new(9, 1500, false, CLEAN);
    for _ in 0..1000 {
        let quiet = Script { close: false, ..Script::sends(300) };
        world.connect(2000, quiet, quiet);
    }
    world.run_until(Duration::from_secs(60), |world| {
        world.servers.len() == 1000 && world.servers.values().all(|server| server.progress.received == 300)
    });
    world.run_for(Duration::from_secs(3));
    assert_eq!((world.stack.poll_timeout(), world.pool.used()), (None, 0));
    let before = world.stack.counters();
    world.run_for(Duration::from_secs(100));
    assert_eq!(world.stack.counters(), before, "not one packet");
    assert_eq!(before.tcp_flows, 1000);
}

#[test]
fn data_that_finds_no_memory_is_discarded_and_not_acknowledged() {
    let mut bench = Bench::with(Config::new(1500), 300_000);
    let mut peer = bench.establish(50_000);
    let hoard: Vec<_> = std::iter::from_fn(|| bench.pool.copy(&[0; 4000])).collect();
    let seg = peer.data(&[1; 1000]);
    assert_eq!(bench.ask(&seg), [], "as if it were lost");
    assert!(bench.events().is_empty() && bench.stack.counters().dropped_memory == 1);
    drop(hoard);
    assert_eq!(bench.ask(&seg)[0].ack, Some(peer.seq));
    assert_eq!(bench.take(peer.flow).0.len(), 1000);
}

#[test]
fn the_right_edge_never_goes_back() {
    let mut bench = Bench::new();
    let mut peer = bench.establish(50_000);
    let mut edge = 0u64;
    let (start, mut entropy) = (peer.seq, vmesskit::entropy::SeededEntropy::new(4));
    let mut taken = 0;
    let mut hoard = Vec::new();
    for round in 0..6000u32 {
        use vmesskit::entropy::Entropy;
        let len = match round % 3 {
            0 => 1,
            1 => 1 + entropy.below(1460),
            _ => 1460,
        };
        let before = peer;
        bench.give(&peer.data(&vec![7; len as usize]));
        // The owner reads in fits and starts, and the pool fills and empties.
        if round / 300 % 2 == 0 {
            taken += bench.take(peer.flow).0.len();
        }
        match round % 1000 {
            200 => hoard.extend((0..40).filter_map(|_| bench.pool.copy(&[0; 60_000]))),
            700 => hoard.clear(),
            _ => {}
        }
        let answer = bench.drain();
        let Some(last) = answer.last() else {
            peer = before;
            continue;
        };
        let acked = last.ack.expect("always").wrapping_sub(start);
        let now = u64::from(acked) + (u64::from(last.window) << 4);
        assert!(now >= edge, "round {round}: {now} after {edge}");
        edge = now;
        peer.seq = start.wrapping_add(acked);
        if last.window == 0 {
            taken += bench.take(peer.flow).0.len();
            bench.drain().iter().for_each(|seg| {
                edge = edge.max(u64::from(acked) + (u64::from(seg.window) << 4));
            });
        }
    }
    assert!(edge > 500_000 && taken > 500_000, "{edge} {taken}");
}

#[test]
fn windows_are_lent_to_flows_that_move_and_come_back() {
    let mut bench = Bench::with(Config::new(1500), 64 << 20);
    let mut peer = bench.establish(50_000);
    let mut window = 0;
    for _ in 0..3000 {
        bench.give(&peer.data(&[7; 1460]));
        bench.take(peer.flow);
        window = u32::from(bench.drain()[0].window) << 4;
    }
    assert!((400_000..600_000).contains(&window), "400 segments: {window}");
    bench.wait(2000);
    bench.give(&peer.data(&[7; 1460]));
    bench.take(peer.flow);
    let kept = u32::from(bench.drain()[0].window) << 4;
    assert!(kept + 1500 >= window, "the edge stays where it was");
    // It comes back by staying there while data arrive, down to where a flow begins.
    let mut least = kept;
    for _ in 0..1000 {
        bench.give(&peer.data(&[7; 1460]));
        least = least.min(u32::from(bench.drain()[0].window) << 4);
        if least < 70_000 {
            break;
        }
    }
    assert!(least < 70_000, "{least}");
}

#[test]
fn single_bytes_do_not_push_the_window_before_themselves() {
    let mut bench = Bench::new();
    let mut peer = bench.establish(50_000);
    let mut sent = 0;
    loop {
        let answer = bench.ask(&peer.data(&[7]));
        sent += 1;
        if answer.last().is_some_and(|seg| seg.window == 0) {
            break;
        }
        assert!(sent < 70_000, "the window stays open: {answer:?} {}", peer.seq);
    }
    assert!(sent >= 65_535);
    assert!(bench.pool.used() < 90_000, "{}", bench.pool.used());
}

#[test]
fn a_window_that_opens_is_told_once_it_is_worth_it() {
    let mut bench = Bench::new();
    let mut peer = bench.establish(50_000);
    let mut answer = Seg::default();
    for _ in 0..44 {
        answer = bench.ask(&peer.data(&[7; 1460])).remove(0);
    }
    while answer.window > 0 {
        let left = usize::from(answer.window) << 4;
        answer = bench.ask(&peer.data(&vec![7; left])).remove(0);
    }
    assert!(bench.ask(&Seg { data: vec![7], ..peer.seg() }).len() == 1, "a probe is answered");
    let Received::Data(first) = bench.stack.recv(peer.flow) else { panic!("no data") };
    assert!(first.len() == 4096);
    let update = bench.drain();
    assert!(update.len() == 1 && usize::from(update[0].window) << 4 >= 3000, "{update:?}");
    let Received::Data(_) = bench.stack.recv(peer.flow) else { panic!("no data") };
    assert_eq!(bench.drain(), [], "not for every buffer");
    bench.take(peer.flow);
    assert_eq!(bench.drain().len(), 1);
}

#[test]
fn flows_that_upload_together_share_the_devices_queue() {
    let mut bench = Bench::with(Config::new(1500), 64 << 20);
    let mut peers: Vec<_> = (0..8).map(|n| bench.establish(50_000 + n)).collect();
    let mut windows = [0; 8];
    for _ in 0..400 {
        for (peer, window) in peers.iter_mut().zip(&mut windows) {
            bench.give(&peer.data(&[7; 1460]));
            bench.take(peer.flow);
            *window = u32::from(bench.drain()[0].window) << 4;
        }
        bench.wait(1);
    }
    let packets = windows.iter().sum::<u32>() / 1460;
    assert!((200..500).contains(&packets), "{packets} segments may come at once");
}

/// Establishes a flow whose app takes nothing, and queues for it what there is room for, as a relay reads it.
fn stall(bench: &mut Bench, port: u16) {
    let peer = bench.establish_with(&wire::syn(port, 1000));
    bench.give(&Seg { window: 0, ..peer.seg() });
    while bench.stack.send_room(peer.flow) > 0 {
        let class = if bench.pool.is_tight() { Class::Small } else { Class::Large };
        let mut data = bench.pool.take(class).expect("within the limit");
        data.append(&vec![1; class.capacity()]);
        bench.stack.send(peer.flow, data);
    }
    bench.drain();
}

#[test]
fn beside_a_thousand_apps_that_take_nothing_a_new_one_gets_its_window_full() {
    let mut bench = Bench::with(Config::new(1500), 16 << 20);
    (0..1000).for_each(|n| stall(&mut bench, 10_000 + n));
    assert!(bench.pool.is_tight() && !bench.pool.is_nearly_full());
    let mut peer = bench.establish(50_000);
    let (mut sent, mut taken) = (0, 0);
    for round in 0..100 {
        let before = sent;
        while bench.stack.send_room(peer.flow) > 0 {
            let data = bench.buffer(&[1; 4096]);
            sent += data.len();
            bench.stack.send(peer.flow, data);
        }
        assert!(round == 0 || sent - before > 32_000, "stops and waits with {} bytes", sent - before);
        let segs = bench.drain();
        taken += peer.absorb(&segs).len();
        bench.give(&peer.seg());
    }
    assert_eq!(sent, taken);
}

#[test]
fn a_thousand_uploads_that_stall_are_promised_no_more_than_they_may_hold() {
    for mtu in [1500, 9000, 16_000] {
        let mut bench = Bench::with(Config::new(mtu), 32 << 20);
        for port in 10_000..11_000 {
            let mut peer = bench.establish_with(&scaled(port));
            // The app sends all that it may, in full segments, and the owner takes nothing.
            let mut left = 4096.min(mtu - 40);
            while left > 0 {
                let segment = peer.data(&vec![7; left.min(mtu - 40)]);
                let answers = bench.ask(&segment);
                let kept = answers.first().filter(|answer| answer.ack == Some(peer.seq));
                left = kept.map_or(0, |answer| usize::from(answer.window) << 4);
            }
            bench.events();
        }
        assert!(bench.pool.is_tight() && !bench.pool.is_nearly_full(), "{:?} at {mtu}", bench.pool);
        let dropped = bench.stack.counters().dropped_memory;
        assert!(dropped < 40, "{dropped} segments were dropped at {mtu}, to be sent again");
        // One whose data is taken goes on with a segment or a slab at a time.
        let mut peer = bench.establish_with(&scaled(50_000));
        let mut window = 4096.min(mtu - 40);
        for _ in 0..100 {
            bench.give(&peer.data(&vec![1; window]));
            assert_eq!(bench.take(peer.flow).0.len(), window);
            window = usize::from(bench.drain()[0].window) << 4;
            assert!(window >= 4096, "{window}");
            window = window.min(mtu - 40);
        }
    }
}

#[test]
fn what_a_window_promises_finds_memory_at_every_mtu() {
    for mtu in [1280, 1500, 9000, 16_000, 65_535] {
        let mut bench = Bench::with(Config::new(mtu), 32 << 20);
        let mut peer = bench.establish_with(&scaled(50_000));
        let mut window = 10 * (mtu - 40).min(6553);
        for _ in 0..20 {
            // All of it comes before the owner takes anything.
            while window > 0 {
                let len = window.min(mtu - 40);
                bench.give(&peer.data(&vec![1; len]));
                window -= len;
            }
            bench.events();
            bench.take(peer.flow);
            let answer = bench.drain().pop().expect("an acknowledgement");
            assert_eq!(answer.ack, Some(peer.seq), "{mtu}");
            window = usize::from(answer.window) << 4;
        }
        assert_eq!(
            (window > 500_000 || mtu < 1400, bench.stack.counters().dropped_memory),
            (true, 0),
            "{mtu}"
        );
    }
}

fn scaled(port: u16) -> Seg {
    Seg { scale: Some(7), ..wire::syn(port, 1000) }
}

#[test]
fn what_came_out_of_order_gives_way_to_what_it_waits_for() {
    let mut bench = Bench::with(Config::new(1500), 300_000);
    let mut peer = bench.establish(50_000);
    bench.give(&peer.data(&[1; 1000]));
    assert_eq!(bench.take(peer.flow).0.len(), 1000);
    let missing = peer.data(&[2; 1000]);
    let behind = peer.data(&[3; 1000]);
    assert_eq!(bench.ask(&behind)[0].sack.len(), 1);
    let _hoard: Vec<_> = std::iter::from_fn(|| bench.pool.copy(&[0; 4000])).collect();
    assert_eq!(bench.ask(&missing)[0].ack, Some(behind.seq));
    assert_eq!(bench.take(peer.flow).0, [2; 1000]);
    assert_eq!(bench.ask(&behind)[0].ack, Some(peer.seq), "sent again");
}
