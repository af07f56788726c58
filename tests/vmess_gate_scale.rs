//! The gate at scale: ten thousand users, many threads, and the memory that the whole of it may take.

#[path = "common/gate.rs"]
mod common;

use common::{NOW, accepted, gate_with, hello, knock, old_hello, refused, silent, user};
use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use vmesskit::entropy::{Entropy, SeededEntropy};
use vmesskit::vmess::gate::{Acceptor, Gate, GateLimits, Step, User, Users};

/// Bytes that are allocated.
static HELD: AtomicUsize = AtomicUsize::new(0);
/// The most that were since it was last set.
static PEAK: AtomicUsize = AtomicUsize::new(0);
/// The tests of this file count what everybody allocates: one at a time.
static ALONE: Mutex<()> = Mutex::new(());

/// The system's allocator, counting bytes.
struct Counting;

// SAFETY: every call is passed on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let held = HELD.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        PEAK.fetch_max(held, Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn held() -> usize {
    HELD.load(Ordering::Relaxed)
}

fn alone() -> std::sync::MutexGuard<'static, ()> {
    ALONE.lock().expect("no other test failed")
}

fn many(count: u32, alter_id: u16) -> Vec<User> {
    (0..count).map(|n| user(n, alter_id)).collect()
}

#[test]
fn ten_thousand_users_are_told_apart() {
    let _alone = alone();
    let users = many(10_000, 0);
    let before = held();
    let made = Users::new(users.clone());
    let each = (held() - before) / 10_000;
    assert!(each <= 250, "{each} bytes a user, the e-mails shared");
    drop(made);
    let gate = gate_with(users.clone(), GateLimits::default(), NOW - 1000);
    let mut entropy = SeededEntropy::new(1);
    for seed in 0..300 {
        let who = entropy.below(10_000) as usize;
        assert_eq!(accepted(knock(&gate, &hello(&users[who], NOW, seed), NOW)).index, who);
    }
    for seed in 0..50 {
        silent(knock(&gate, &hello(&user(10_000 + seed, 0), NOW, seed), NOW));
    }
}

#[test]
fn four_threads_serve_ten_thousand_users_while_they_change() {
    let _alone = alone();
    let users = many(10_000, 0);
    let gate = gate_with(users.clone(), GateLimits::default(), NOW - 1000);
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (gate, users) = (&gate, &users);
            scope.spawn(move || {
                let mut entropy = SeededEntropy::new(u64::from(thread));
                for n in 0..100 {
                    let who = &users[entropy.below(9000) as usize];
                    let step = accepted(knock(gate, &hello(who, NOW, thread * 1000 + n), NOW));
                    assert_eq!(step.user.get(step.index), Some(who));
                }
            });
        }
        for n in 0..3 {
            // The last thousand come and go, and everybody moves by one place.
            let mut moved = users[..9000 + n * 300].to_vec();
            moved.rotate_right(n + 1);
            gate.set_users(Users::new(moved));
        }
    });
}

#[test]
fn the_memory_of_what_was_seen_is_bounded() {
    let _alone = alone();
    const BOUND: usize = 20_000;
    let users = many(50, 1);
    let limits = GateLimits { replay_entries: BOUND, replay_per_user: BOUND, ..GateLimits::default() };
    let gate = gate_with(users.clone(), limits, NOW - 1000);
    let before = held();
    PEAK.store(before, Ordering::Relaxed);
    let (mut let_in, mut full) = (0, 0);
    let mut wires = (0..).map(|n: u32| match n % 10 {
        0 => old_hello(&users[n as usize % 50], 1, NOW - 100 + i64::from(n % 200), n),
        _ => hello(&users[n as usize % 50], NOW, n),
    });
    let mut knock_on = |count: usize| {
        for wire in wires.by_ref().take(count) {
            match knock(&gate, &wire, NOW) {
                Step::Accepted(_) => let_in += 1,
                step => full += usize::from(refused(step).memory_full),
            }
        }
        (let_in, full)
    };
    // Sessions are full first: legacy connections have no auth id, but a session.
    let (let_in, _) = knock_on(BOUND + 5000);
    assert_eq!(let_in, BOUND);
    let peak = PEAK.load(Ordering::Relaxed) - before;
    // Two memories at 35 bytes a mark and half as much again while a set grows, and what one connection takes.
    assert!(peak < 2 * BOUND * 35 * 3 / 2 + 100_000, "{peak} bytes for {BOUND} connections");
    let (still, full) = knock_on(5000);
    assert_eq!(still, BOUND, "nobody more is let in");
    assert!(full > 4000, "and the operator is told");
    let later = PEAK.load(Ordering::Relaxed) - before;
    assert!(later < peak + 50_000, "{later} bytes after more, {peak} before");
    // Once it has faded, the memory is given back by the first to come.
    gate.advance(NOW + 400);
    accepted(knock(&gate, &hello(&users[0], NOW + 400, 1), NOW + 400));
    assert!(held() - before < 60_000, "{} bytes left", held() - before);
}

#[test]
fn a_legacy_tag_takes_thirteen_bytes_and_the_limit_can_be_raised() {
    let _alone = alone();
    // More ids than the default limit takes.
    let users = many(74, 99);
    let needed = Users::new(users.clone()).legacy_tags_needed();
    assert!(needed > GateLimits::default().legacy_tags);
    assert!(Users::new(users.clone()).check_legacy_tags(GateLimits::default().legacy_tags).is_err());
    let limits = GateLimits { legacy_tags: needed, ..GateLimits::default() };
    let before = held();
    let gate = Gate::new(Users::new(users.clone()), limits, NOW, &mut SeededEntropy::new(1));
    let each = (held() - before) as f64 / needed as f64;
    assert!(each < 13.1, "{each} bytes a tag, the ids included");
    for (n, user) in users.iter().enumerate() {
        let wire = old_hello(user, n as u16 % 100, NOW - 20 + n as i64, n as u32);
        assert_eq!(accepted(knock(&gate, &wire, NOW)).index, n);
    }
    let mut noise = [0; 100];
    for _ in 0..100 {
        SeededEntropy::new(5).fill(&mut noise);
        silent(knock(&gate, &noise, NOW));
    }
}

#[test]
fn nothing_a_stranger_sends_allocates() {
    let _alone = alone();
    let users = many(100, 3);
    let gate = gate_with(users, GateLimits::default(), NOW - 1000);
    let mut noise = [0; 3000];
    SeededEntropy::new(7).fill(&mut noise);
    let before = held();
    PEAK.store(before, Ordering::Relaxed);
    let mut acceptors: Vec<Acceptor> = Vec::with_capacity(200);
    let with_room = held();
    for len in 0..200 {
        let mut acceptor = Acceptor::new();
        match acceptor.step(&gate, &mut noise[..len], NOW) {
            Step::Need(_) | Step::Refused(_) => acceptors.push(acceptor),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(PEAK.load(Ordering::Relaxed), with_room, "200 connections of strangers, no allocation");
    let each = size_of::<Acceptor>();
    assert!(each <= 64, "{each} bytes");
}
