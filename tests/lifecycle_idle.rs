//! A tunnel to which nothing happens makes no wake-ups.
//!
//! Alone in its file, because it looks at every thread of the process that bears our name.

#[path = "common/engine.rs"]
mod engine;

use engine::{LONG, echo, exchange, free_address, socks, through_socks, tunnel};
use std::fs;
use std::time::Duration;

/// How often our threads have gone to sleep so far, and how many they are.
fn sleeps() -> (usize, u64) {
    let tasks = fs::read_dir("/proc/self/task").expect("procfs").flatten();
    let statuses = tasks.filter_map(|task| fs::read_to_string(task.path().join("status")).ok());
    let ours: Vec<u64> = statuses
        .filter(|status| status.lines().next().is_some_and(|name| name.contains("vmk-")))
        .filter_map(|status| {
            status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:")?.trim().parse().ok())
        })
        .collect();
    (ours.len(), ours.iter().sum())
}

#[test]
fn nothing_ticks_while_nothing_happens() {
    let (echo, at) = (echo(), free_address());
    let tunnel = tunnel(&socks(at));
    tunnel.start(None).wait(Some(LONG)).expect("answered").expect("started");
    let mut flows: Vec<_> = (0..20).map(|_| through_socks(at, echo)).collect();
    flows.iter_mut().for_each(|flow| exchange(flow, b"once"));
    // What the last exchange left to do is done soon.
    std::thread::sleep(Duration::from_millis(500));
    let before = sleeps();
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(sleeps(), before, "threads and wake-ups");
    assert_eq!(before.0, 2, "the shard's thread and the host's");
    tunnel.stop(LONG).wait(None).expect("answered").expect("stopped");
}
