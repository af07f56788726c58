//! What the gate remembers: auth ids and sessions, for how long, up to which bounds, and across a restart.

#[path = "common/gate.rs"]
mod common;

use common::{
    NOW, accepted, aead, gate, gate_with, hello, knock, old_hello, plain, refused, request, silent, user,
};
use vmesskit::entropy::SeededEntropy;
use vmesskit::vmess::gate::{Acceptor, Gate, GateLimits, Refusal, Step, User, Users};

fn limits(replay_entries: usize, replay_per_user: usize) -> GateLimits {
    GateLimits { replay_entries, replay_per_user, ..GateLimits::default() }
}

/// The same header once more, when the clock says `now`.
fn again(gate: &Gate, wire: &[u8], now: i64) {
    silent(knock(gate, wire, now));
}

#[test]
fn a_clock_may_be_two_minutes_off_either_way() {
    let users = vec![user(1, 0)];
    let gate = gate(users.clone());
    for (n, off) in [-120, -119, -1, 0, 1, 119, 120].into_iter().enumerate() {
        accepted(knock(&gate, &hello(&users[0], NOW + off, n as u32), NOW));
    }
    for (n, off) in [-100_000, -300, -122, -121, 121, 122, 300, 100_000].into_iter().enumerate() {
        let wire = hello(&users[0], NOW + off, 100 + n as u32);
        silent(knock(&gate, &wire, NOW));
    }
    for (n, sent) in [i64::MIN, -1, 0, i64::MAX].into_iter().enumerate() {
        silent(knock(&gate, &hello(&users[0], sent, 200 + n as u32), NOW));
    }
}

#[test]
fn a_replay_is_refused_for_as_long_as_it_could_be_accepted() {
    let users = vec![user(1, 0)];
    for off in [-120, 0, 60, 120] {
        let gate = gate(users.clone());
        let wire = hello(&users[0], NOW + off, 1);
        accepted(knock(&gate, &wire, NOW));
        (0..=400).for_each(|later| again(&gate, &wire, NOW + later));
    }
}

#[test]
fn an_auth_id_is_remembered_as_soon_as_it_authenticates() {
    let users = vec![user(1, 0)];
    let gate = gate(users.clone());
    let wire = hello(&users[0], NOW, 1);
    // All that came of it was the auth id; then the peer was gone.
    assert!(matches!(knock(&gate, &wire[..16], NOW), Step::Need(42)));
    again(&gate, &wire, NOW);
    // A header that was tampered with uses its auth id up.
    let wire = hello(&users[0], NOW, 2);
    let mut forged = wire.clone();
    forged[60] ^= 1;
    silent(knock(&gate, &forged, NOW));
    again(&gate, &wire, NOW);
    // Of two that come side by side, the second is the replay.
    let wire = hello(&users[0], NOW, 3);
    let [mut first, mut second] = [(); 2].map(|()| Acceptor::new());
    assert!(matches!(first.step(&gate, &mut wire[..20].to_vec(), NOW), Step::Need(42)));
    assert!(matches!(second.step(&gate, &mut wire[..20].to_vec(), NOW), Step::Need(42)));
    silent(second.step(&gate, &mut wire.clone(), NOW));
    accepted(first.step(&gate, &mut wire.clone(), NOW));
}

#[test]
fn a_session_is_accepted_once_under_any_auth_id() {
    let users = vec![user(1, 0), user(2, 0)];
    let gate = gate(users.clone());
    let same = plain(&request(1), &[]);
    accepted(knock(&gate, &aead(&users[0].id, &same, NOW, 1), NOW));
    for later in [0, 1, 120, 240, 300] {
        let wire = aead(&users[0].id, &same, NOW + later, 2 + later as u32);
        silent(knock(&gate, &wire, NOW + later));
    }
    // Another user with the same keys is another session.
    accepted(knock(&gate, &aead(&users[1].id, &same, NOW + 300, 1), NOW + 300));
}

#[test]
fn auth_ids_from_before_the_start_are_refused() {
    let users = vec![user(1, 0)];
    let gate = gate_with(users.clone(), GateLimits::default(), NOW);
    // A clock that is 50 seconds slow waits for 50 seconds.
    for later in 0..=60 {
        let step = knock(&gate, &hello(&users[0], NOW + later - 50, later as u32), NOW + later);
        match later {
            ..50 => silent(step),
            50.. => drop(accepted(step)),
        }
    }
    accepted(knock(&gate, &hello(&users[0], NOW, 100), NOW));
    silent(knock(&gate, &hello(&users[0], NOW - 1, 101), NOW));
}

#[test]
fn legacy_signatures_from_before_the_start_are_those_that_v2ray_draws() {
    let users = vec![user(1, 1)];
    let gate = gate_with(users.clone(), GateLimits::default(), NOW);
    accepted(knock(&gate, &old_hello(&users[0], 1, NOW - 30, 1), NOW));
    silent(knock(&gate, &old_hello(&users[0], 1, NOW - 31, 2), NOW));
}

#[test]
fn a_clock_that_leaps_lets_nothing_in_twice() {
    let users = vec![user(1, 0)];
    let gate = gate(users.clone());
    let wire = hello(&users[0], NOW + 100, 1);
    accepted(knock(&gate, &wire, NOW));
    // An hour ahead, and back: what was remembered is gone by then, and its time is refused.
    accepted(knock(&gate, &hello(&users[0], NOW + 3600, 2), NOW + 3600));
    let told = |wire: &[u8], now| refused(knock(&gate, wire, now)).clock_set_back;
    assert_eq!(told(&wire, NOW + 1), Some(3599), "the operator is told why");
    assert_eq!(told(&wire, NOW + 100), Some(3500));
    // Everybody else is let in two minutes after what may have been forgotten.
    assert_eq!(told(&hello(&users[0], NOW + 120, 3), NOW + 101), Some(3499));
    assert_eq!(told(&[1; 100], NOW + 101), None, "it is no stranger's concern");
    accepted(knock(&gate, &hello(&users[0], NOW + 121, 4), NOW + 121));
}

#[test]
fn a_user_at_the_quota_is_refused_and_named() {
    let users = vec![user(1, 0), user(2, 0)];
    let gate = gate_with(users.clone(), limits(1000, 10), NOW - 1000);
    let wires: Vec<_> = (0..10).map(|seed| hello(&users[1], NOW, seed)).collect();
    wires.iter().for_each(|wire| drop(accepted(knock(&gate, wire, NOW))));
    let over = refused(knock(&gate, &hello(&users[1], NOW, 10), NOW));
    assert_eq!(over, Refusal { quota_of: Some(1), ..Refusal::default() });
    // Others are not concerned, nothing was forgotten, and a replay is no case of the quota.
    accepted(knock(&gate, &hello(&users[0], NOW, 0), NOW));
    wires.iter().for_each(|wire| again(&gate, wire, NOW + 120));
    // When the memory of them has faded, there is room again.
    accepted(knock(&gate, &hello(&users[1], NOW + 400, 11), NOW + 400));
}

#[test]
fn at_the_bound_everybody_new_is_refused_and_nothing_is_forgotten() {
    let users: Vec<User> = (0..100).map(|n| user(n, 0)).collect();
    let gate = gate_with(users.clone(), limits(50, 10), NOW - 1000);
    let wires: Vec<_> = users.iter().map(|user| hello(user, NOW, 1)).collect();
    let (first, rest) = wires.split_at(50);
    first.iter().for_each(|wire| drop(accepted(knock(&gate, wire, NOW))));
    for wire in rest {
        let full = refused(knock(&gate, wire, NOW));
        assert_eq!(full, Refusal { memory_full: true, ..Refusal::default() });
    }
    first.iter().for_each(|wire| again(&gate, wire, NOW + 120));
    accepted(knock(&gate, &hello(&users[99], NOW + 400, 2), NOW + 400));
}

#[test]
fn users_come_and_go_and_the_memory_of_the_others_stays() {
    let [one, two, three] = [1, 2, 3].map(|n| user(n, 0));
    let gate = gate_with(vec![one.clone(), two.clone()], limits(1000, 3), NOW - 1000);
    let used = hello(&two, NOW, 1);
    accepted(knock(&gate, &used, NOW));
    let mut under_way = Acceptor::new();
    let waiting = hello(&one, NOW, 5);
    assert!(matches!(under_way.step(&gate, &mut waiting[..20].to_vec(), NOW), Step::Need(42)));
    let mut moving = Acceptor::new();
    let moved = hello(&two, NOW, 6);
    assert!(matches!(moving.step(&gate, &mut moved[..50].to_vec(), NOW), Step::Need(_)));

    gate.set_users(Users::new(vec![three.clone(), two.clone()]));
    assert_eq!((gate.users().len(), gate.users().get(0)), (2, Some(&three)));
    again(&gate, &used, NOW);
    silent(knock(&gate, &hello(&one, NOW, 2), NOW));
    accepted(knock(&gate, &hello(&three, NOW, 1), NOW));
    // Whoever left while the header was on its way stays out; whoever moved is found at the new place.
    silent(under_way.step(&gate, &mut waiting.clone(), NOW));
    assert_eq!(accepted(moving.step(&gate, &mut moved.clone(), NOW)).index, 1);

    // The quota is the user's, wherever that one is in the list.
    gate.set_users(Users::new(vec![two.clone(), one, three]));
    accepted(knock(&gate, &hello(&two, NOW, 7), NOW));
    assert_eq!(refused(knock(&gate, &hello(&two, NOW, 8), NOW)).quota_of, Some(0));
}

#[test]
fn a_gate_without_users_refuses_everybody() {
    let gate = gate(Vec::new());
    assert!(gate.users().is_empty() && gate.next_advance().is_none());
    silent(knock(&gate, &hello(&user(1, 0), NOW, 1), NOW));
    assert!(matches!(knock(&gate, &[0; 41], NOW), Step::Need(42)));
    gate.set_users(Users::new(vec![user(1, 0)]));
    accepted(knock(&gate, &hello(&user(1, 0), NOW, 1), NOW));
}

#[test]
fn the_drain_is_a_secret_of_up_to_ten_seconds() {
    let drawn = |seed| {
        let gate = Gate::new(Users::default(), GateLimits::default(), NOW, &mut SeededEntropy::new(seed));
        gate.drain_secret_millis()
    };
    let mut all: Vec<u64> = (0..200).map(drawn).collect();
    all.sort_unstable();
    assert!(all[0] < 1000 && all[199] > 9000 && all[199] < 10_000);
    assert_eq!(drawn(7), drawn(7));
}

#[test]
fn threads_accept_a_header_once() {
    let users: Vec<User> = (0..8).map(|n| user(n, 1)).collect();
    let gate = gate(users.clone());
    let wires: Vec<Vec<u8>> = (0..400)
        .map(|seed| {
            let who = &users[seed as usize % 8];
            if seed % 2 == 0 {
                hello(who, NOW, seed)
            } else {
                old_hello(who, 1, NOW + i64::from(seed) - 200, seed)
            }
        })
        .collect();
    let wires: Vec<&Vec<u8>> = wires
        .iter()
        .enumerate()
        .filter(|(n, _)| n % 2 == 0 || (70..330).contains(n))
        .map(|(_, wire)| wire)
        .collect();
    let run =
        |_: usize| wires.iter().filter(|wire| matches!(knock(&gate, wire, NOW), Step::Accepted(_))).count();
    let accepted: usize = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|n| scope.spawn(move || run(n))).collect();
        // Meanwhile users come and go, and the table moves on.
        for n in 0..20 {
            let mut more = users.clone();
            more.push(user(100 + n, 0));
            gate.set_users(Users::new(more));
            gate.advance(NOW + i64::from(n % 3));
        }
        threads.into_iter().map(|thread| thread.join().expect("no panic")).sum()
    });
    assert_eq!(accepted, wires.len());
}
