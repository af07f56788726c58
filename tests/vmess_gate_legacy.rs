//! Legacy headers at the gate: whose, when, how often, and the table that finds them.

#[path = "common/gate.rs"]
mod common;

use common::{NOW, accepted, gate, gate_with, hello, knock, old_hello, refused, silent, user};
use vmesskit::entropy::{Entropy, SeededEntropy};
use vmesskit::vmess::gate::{Gate, GateLimits, LEGACY_TOLERANCE, Step, User, Users, legacy_tags_needed};
use vmesskit::vmess::server::HeaderKind;

#[test]
fn the_window_is_135_seconds_either_way() {
    assert_eq!(LEGACY_TOLERANCE, 135);
    let users = vec![user(1, 2)];
    let gate = gate(users.clone());
    for sent in NOW - 140..=NOW + 140 {
        let step = knock(&gate, &old_hello(&users[0], 1, sent, sent as u32), NOW);
        match sent.abs_diff(NOW) {
            0..=135 => assert_eq!(accepted(step).kind, HeaderKind::Legacy),
            _ => silent(step),
        }
    }
}

#[test]
fn the_window_moves_with_the_table() {
    let users = vec![user(1, 1), user(2, 1)];
    let gate = gate(users.clone());
    let (mut now, mut ticks) = (NOW, 0);
    let mut entropy = SeededEntropy::new(1);
    while now < NOW + 2000 {
        let due = gate.next_advance().expect("there are legacy users");
        assert!((now..=now + 2).contains(&due), "due at {due}, now is {now}");
        // One second late is still early enough.
        now = due + i64::from(entropy.below(2));
        for off in [-136, -135, 0, 135, 136] {
            let who = &users[entropy.below(2) as usize];
            let step =
                knock(&gate, &old_hello(who, entropy.below(2) as u16, now + off, entropy.next_u32()), now);
            match off {
                -135..=135 => drop(accepted(step)),
                _ => silent(step),
            }
        }
        gate.advance(now);
        ticks += 1;
    }
    assert!(ticks >= 500);
}

#[test]
fn the_table_follows_a_clock_that_leaps() {
    let users = vec![user(1, 1)];
    for leap in [1, -1, 50, -50, 110, -110, 111, -111, 273, -274, 275, 511, 512, -512, 513, 100_000, -100_000]
    {
        // The table was in use for a while before the leap, and so has expired entries.
        let gate = gate_with(users.clone(), GateLimits::default(), NOW - 1_000_000);
        (1..=200).for_each(|n| gate.advance(NOW + 2 * n));
        let now = NOW + 400 + leap;
        gate.advance(now);
        for off in [-135, -1, 0, 135] {
            let wire = old_hello(&users[0], 1, now + off, off as u32);
            let step = knock(&gate, &wire, now);
            assert!(matches!(step, Step::Accepted(_)), "leap of {leap}, {off} s off: {step:?}");
        }
    }
}

#[test]
fn main_and_alter_ids_sign_for_users_who_have_any() {
    let users = vec![user(1, 0), user(2, 4), user(3, 1)];
    let gate = gate(users.clone());
    for nth in 0..=4 {
        let step = knock(&gate, &old_hello(&users[1], nth, NOW, u32::from(nth)), NOW);
        assert_eq!(accepted(step).index, 1, "id {nth}");
    }
    silent(knock(&gate, &old_hello(&users[1], 5, NOW, 5), NOW));
    silent(knock(&gate, &old_hello(&users[2], 2, NOW, 6), NOW));
    // Without alter ids a user is AEAD alone; with them, AEAD goes as well.
    for nth in 0..=2 {
        silent(knock(&gate, &old_hello(&users[0], nth, NOW, 10 + u32::from(nth)), NOW));
    }
    assert_eq!(accepted(knock(&gate, &hello(&users[0], NOW, 20), NOW)).kind, HeaderKind::Aead);
    assert_eq!(accepted(knock(&gate, &hello(&users[1], NOW, 21), NOW)).index, 1);
}

#[test]
fn one_signature_serves_many_connections_of_one_second() {
    let users = vec![user(1, 1)];
    let gate = gate(users.clone());
    // sing-box signs every connection of a second alike.
    for seed in 0..50 {
        accepted(knock(&gate, &old_hello(&users[0], 1, NOW, seed), NOW));
    }
}

#[test]
fn a_session_is_accepted_once_and_its_replay_taints() {
    let users = vec![user(1, 2)];
    for later in [0, 1, 60, 120, 134] {
        let gate = gate(users.clone());
        let wire = old_hello(&users[0], 1, NOW, 1);
        accepted(knock(&gate, &wire, NOW));
        gate.advance(NOW + later);
        silent(knock(&gate, &wire, NOW + later));
        // The signature is used up, also for its owner; those of other seconds and ids are not.
        silent(knock(&gate, &old_hello(&users[0], 1, NOW, 2), NOW + later));
        accepted(knock(&gate, &old_hello(&users[0], 1, NOW + 1, 3), NOW + later));
        accepted(knock(&gate, &old_hello(&users[0], 2, NOW, 4), NOW + later));
    }
    // Signed for as far ahead as may be, it is replayed when it is as old as may be.
    let gate = gate(users.clone());
    let wire = old_hello(&users[0], 1, NOW + 135, 1);
    accepted(knock(&gate, &wire, NOW));
    gate.advance(NOW + 270);
    silent(knock(&gate, &wire, NOW + 270));
    silent(knock(&gate, &wire, NOW + 271));
}

#[test]
fn a_signature_can_be_probed_once() {
    let users = vec![user(1, 1)];
    let gate = gate(users.clone());
    // The attack of 2020: a recorded signature, and headers that differ in the length of their padding. How many
    // bytes each is asked for must not be seen twice.
    let wire = old_hello(&users[0], 1, NOW, 1);
    let mut first = wire.clone();
    first[16 + 35] ^= 0x70;
    first.resize(400, 0);
    silent(knock(&gate, &first, NOW));
    for nibble in 0..16 {
        let mut probe = wire.clone();
        probe[16 + 35] ^= nibble << 4;
        // What a stranger is asked for.
        assert!(matches!(knock(&gate, &probe[..20], NOW), Step::Need(42)));
        silent(knock(&gate, &probe, NOW));
    }
    // It stays so when users come and go, and the table is made anew.
    gate.set_users(Users::new(vec![user(2, 3), users[0].clone()]));
    silent(knock(&gate, &wire, NOW));
    accepted(knock(&gate, &old_hello(&users[0], 1, NOW + 1, 2), NOW));
    accepted(knock(&gate, &old_hello(&user(2, 3), 3, NOW, 3), NOW));
}

#[test]
fn a_checksum_is_no_proof() {
    // In a mux header without padding the last cipher block holds the checksum: whoever knows the plain text
    // can write any other. That must not be told from a stranger's.
    let users = vec![user(1, 1)];
    let gate = gate(users.clone());
    let mut request = common::request(1);
    (request.command, request.target) = (vmesskit::vmess::Command::Mux, None);
    let good = common::plain(&request, &[]);
    let mut wrong = good.clone();
    wrong[35] = wrong[35] & 0xF0 | 0x07;
    let end = wrong.len() - 4;
    let checksum = vmesskit::vmess::fnv::fnv1a(&wrong[..end]).to_be_bytes();
    wrong[end..].copy_from_slice(&checksum);
    let mut wire = old_hello(&users[0], 1, NOW, 1)[..16].to_vec();
    wire.extend(&good);
    vmesskit::vmess::legacy::HeaderCipher::new(&users[0].id.cmd_key(), NOW).encrypt(&mut wire[16..]);
    for (at, byte) in wire.iter_mut().enumerate().skip(16) {
        *byte ^= good[at - 16] ^ wrong[at - 16];
    }
    silent(knock(&gate, &wire, NOW));
    silent(knock(&gate, &wire, NOW));
}

#[test]
fn the_quota_holds_for_legacy_sessions() {
    let users = vec![user(1, 1), user(2, 1)];
    let limits = GateLimits { replay_per_user: 5, ..GateLimits::default() };
    let gate = gate_with(users.clone(), limits, NOW - 1000);
    for seed in 0..5 {
        accepted(knock(&gate, &old_hello(&users[1], 1, NOW, seed), NOW));
    }
    let over = knock(&gate, &old_hello(&users[1], 1, NOW, 6), NOW);
    assert_eq!(refused(over).quota_of, Some(1));
    accepted(knock(&gate, &old_hello(&users[0], 1, NOW, 1), NOW));
    // The quota taints nothing: with room, the same signature is good.
    gate.advance(NOW + 100);
    assert_eq!(refused(knock(&gate, &old_hello(&users[1], 1, NOW, 7), NOW + 100)).quota_of, Some(1));
}

#[test]
fn tags_are_limited() {
    assert_eq!(legacy_tags_needed([0, 0]), 0);
    assert_eq!(legacy_tags_needed([1, 0, 4]), 7 * 274);
    let users = vec![user(1, 9), user(2, 0)];
    let limits = |legacy_tags| GateLimits { legacy_tags, ..GateLimits::default() };
    let gate = gate_with(users.clone(), limits(10 * 274), NOW - 1000);
    accepted(knock(&gate, &old_hello(&users[0], 9, NOW, 1), NOW));
    // Beyond the limit there is no table; AEAD goes on.
    let gate = gate_with(users.clone(), limits(10 * 274 - 1), NOW - 1000);
    silent(knock(&gate, &old_hello(&users[0], 9, NOW, 1), NOW));
    accepted(knock(&gate, &hello(&users[0], NOW, 2), NOW));
}

/// A gate with half a million tags, which is as much as fits its limit.
fn full() -> (Vec<User>, Gate) {
    let users: Vec<_> = (0..18).map(|n| user(n, 100)).collect();
    let needed = Users::new(users.clone()).legacy_tags_needed();
    assert_eq!(needed, 18 * 101 * 274);
    let gate =
        gate_with(users.clone(), GateLimits { legacy_tags: needed, ..GateLimits::default() }, NOW - 1000);
    (users, gate)
}

#[test]
fn every_id_is_found_in_a_full_table() {
    let (users, gate) = full();
    let mut entropy = SeededEntropy::new(3);
    let mut now = NOW;
    for step in 0..40 {
        for seed in 0..50 {
            let who = entropy.below(18) as usize;
            let sent = now - 135 + i64::from(entropy.below(271));
            let wire = old_hello(&users[who], entropy.below(101) as u16, sent, step * 100 + seed);
            assert_eq!(accepted(knock(&gate, &wire, now)).index, who);
        }
        now += 2;
        gate.advance(now);
    }
    let mut garbage = [0; 100];
    for _ in 0..2000 {
        entropy.fill(&mut garbage);
        silent(knock(&gate, &garbage, now));
    }
}
