//! Request headers at the gate: known answers, every cut, every changed byte, and what a user may not ask.

#[path = "common/gate.rs"]
mod common;
#[path = "common/vmess_peer.rs"]
mod peer;

use common::{
    NOW, accepted, aead, gate, gate_with, hello, invalid, knock, old_hello, plain, refused, request, silent,
    user,
};
use peer::{list, number, text, unhex, vectors};
use vmesskit::addr::Host;
use vmesskit::entropy::{Entropy, SeededEntropy};
use vmesskit::vmess::command::SwitchAccount;
use vmesskit::vmess::fnv::fnv1a;
use vmesskit::vmess::gate::acceptor::MAX_HEADER;
use vmesskit::vmess::gate::{Acceptor, Gate, GateLimits, Refusal, Step, User};
use vmesskit::vmess::header::{HeaderError, RequestHeader};
use vmesskit::vmess::response::ResponseHeader;
use vmesskit::vmess::server::HeaderKind;
use vmesskit::vmess::{Id, Options};

/// The user of the known answers.
fn known_user(alter_id: u16) -> User {
    User { id: Id::parse(peer::ID).expect("a UUID").0, ..user(0, alter_id) }
}

#[test]
fn known_answers_are_accepted() {
    for case in list(&vectors()["request_header"]) {
        let wires = [(HeaderKind::Aead, "aead_wire"), (HeaderKind::Legacy, "legacy_wire")];
        for (kind, wire) in wires {
            // A user with alter ids, so that the same gate takes both.
            let gate = gate_with(vec![user(1, 0), known_user(4)], GateLimits::default(), NOW - 1000);
            let wire = unhex(text(&case[wire]));
            let accepted = accepted(knock(&gate, &wire, number(&case["time"]) as i64));
            assert_eq!((accepted.kind, accepted.index, accepted.consumed), (kind, 1, wire.len()));
            assert_eq!(RequestHeader::decode(&unhex(text(&case["plain"]))), Ok(accepted.request));
            assert_eq!(accepted.user.get(1).map(|user| user.alter_id), Some(4));
        }
    }
}

#[test]
fn known_commands_are_read_and_written() {
    let mut seen = 0;
    for case in list(&vectors()["response_header"]) {
        let plain = unhex(text(&case["plain"]));
        let header = ResponseHeader::decode(&plain).expect("whole");
        if header.command != 1 {
            continue;
        }
        let account = SwitchAccount::decode(header.payload).expect("a good command");
        assert_eq!(account.encode(), header.payload);
        assert_eq!(
            (account.port, account.id.to_text().as_str()),
            (12_345, "66ad4540-b58c-4ad2-9926-ea63445a9b57")
        );
        let rest = (account.host, account.alter_ids, account.level, account.valid_minutes);
        seen += match text(&case["name"]) {
            "switch-account-nohost" => usize::from(rest == (None, 4, 1, 5)),
            "switch-account-host" => usize::from(rest == (Host::parse("example.com"), 64, 0, 255)),
            other => panic!("{other} is not known here"),
        };
    }
    assert_eq!(seen, 2);
}

/// Feeds a header up to each of `cuts`, then whole with a pipelined body behind it.
fn feed(gate: &Gate, wire: &[u8], cuts: impl IntoIterator<Item = usize>) -> Step {
    let mut acceptor = Acceptor::new();
    for cut in cuts.into_iter().filter(|&cut| cut < wire.len()) {
        match acceptor.step(gate, &mut wire[..cut].to_vec(), NOW) {
            Step::Need(need) => assert!((cut + 1..=wire.len()).contains(&need), "{need} at {cut}"),
            other => panic!("{other:?} at {cut}"),
        }
    }
    let mut all = wire.to_vec();
    all.extend_from_slice(b"the body");
    let step = acceptor.step(gate, &mut all, NOW);
    assert_eq!(all[wire.len()..], *b"the body");
    step
}

#[test]
fn every_cut_of_either_header_is_accepted() {
    let users = vec![user(1, 0), user(2, 3)];
    let gate = gate(users.clone());
    let mut seed = 0;
    let mut next = |aead: bool| {
        seed += 1;
        if aead { hello(&users[1], NOW, seed) } else { old_hello(&users[1], 2, NOW, seed) }
    };
    for aead in [true, false] {
        let len = next(aead).len();
        for first in 0..len {
            let wire = next(aead);
            assert_eq!(accepted(feed(&gate, &wire, [first])).consumed, len);
            let wire = next(aead);
            assert_eq!(accepted(feed(&gate, &wire, [first, first + 7, first + 8])).consumed, len);
        }
        let wire = next(aead);
        assert_eq!(accepted(feed(&gate, &wire, 0..len)).consumed, len);
    }
}

#[test]
fn no_more_is_asked_for_than_the_header_has() {
    let users = vec![user(1, 3)];
    let gate = gate(users.clone());
    for (wire, expected) in [
        (hello(&users[0], NOW, 1), vec![16, 42, hello(&users[0], NOW, 1).len()]),
        (old_hello(&users[0], 1, NOW, 2), vec![16, 54, 57, 58, old_hello(&users[0], 1, NOW, 2).len()]),
    ] {
        let (mut acceptor, mut have, mut needs) = (Acceptor::new(), 0, Vec::new());
        while let Step::Need(need) = acceptor.step(&gate, &mut wire[..have].to_vec(), NOW) {
            needs.push(need);
            have = need;
        }
        assert_eq!((needs, have), (expected, wire.len()));
    }
}

#[test]
fn every_changed_byte_is_refused() {
    let users = vec![user(1, 0), user(2, 1)];
    let gate = gate(users.clone());
    for old in [false, true] {
        let len = if old { old_hello(&users[1], 1, NOW, 0).len() } else { hello(&users[1], NOW, 0).len() };
        for at in 0..len {
            let seed = (at as u32 + 1) << u32::from(old);
            // A second of its own for each, or the first taint would refuse the rest.
            let sent = NOW - 120 + at as i64;
            let mut wire =
                if old { old_hello(&users[1], 1, sent, seed) } else { hello(&users[1], NOW, seed) };
            wire[at] ^= 1 << (at % 8);
            match knock(&gate, &wire, NOW) {
                Step::Refused(refusal) => assert_eq!(refusal, Refusal::default(), "byte {at}"),
                // Only a legacy header may say that it is longer than it was.
                Step::Need(need) => {
                    assert!(old && need > wire.len(), "byte {at} of {len} needs {need}");
                    wire.resize(need, 0);
                    silent(knock(&gate, &wire, NOW));
                }
                other => panic!("byte {at}: {other:?}"),
            }
        }
    }
}

#[test]
fn an_authenticated_request_that_nobody_takes_is_invalid() {
    let users = vec![user(1, 0)];
    let gate = gate(users.clone());
    let good = plain(&request(1), &[]);
    for (n, (at, byte, fault)) in [
        (35, 0x02, HeaderError::Security(2)),
        (35, 0x06, HeaderError::Security(6)),
        (35, 0x0F, HeaderError::Security(15)),
        (34, 0x09, HeaderError::Options),
        (37, 0x09, HeaderError::Command(9)),
        (40, 0x09, HeaderError::Address),
        (42, b' ', HeaderError::Address),
    ]
    .into_iter()
    .enumerate()
    {
        let mut plain = good.clone();
        plain[at] = byte;
        let end = plain.len() - 4;
        let checksum = fnv1a(&plain[..end]).to_be_bytes();
        plain[end..].copy_from_slice(&checksum);
        let wire = aead(&users[0].id, &plain, NOW, n as u32);
        assert_eq!(invalid(knock(&gate, &wire, NOW)), fault);
        // It authenticated, so it is remembered all the same.
        silent(knock(&gate, &wire, NOW));
    }
    let cut = &good[..good.len() - 1];
    assert_eq!(invalid(knock(&gate, &aead(&users[0].id, cut, NOW, 100), NOW)), HeaderError::Truncated);
    assert_eq!(invalid(knock(&gate, &aead(&users[0].id, &[], NOW, 101), NOW)), HeaderError::Truncated);
}

#[test]
fn the_length_of_a_header_is_capped() {
    let users = vec![user(1, 0)];
    let gate = gate(users.clone());
    let mut long = plain(&request(1), &[]);
    long.resize(MAX_HEADER, 0);
    assert_eq!(
        accepted(knock(&gate, &aead(&users[0].id, &long, NOW, 1), NOW)).consumed,
        42 + MAX_HEADER + 16
    );
    long.push(0);
    let wire = aead(&users[0].id, &long, NOW, 2);
    silent(knock(&gate, &wire[..42], NOW));
}

#[test]
fn an_accepted_header_leaves_no_key_behind() {
    let users = vec![user(1, 0)];
    let gate = gate(users.clone());
    let mut wire = hello(&users[0], NOW, 1);
    accepted(Acceptor::new().step(&gate, &mut wire, NOW));
    assert!(wire.iter().all(|&byte| byte == 0));
}

#[test]
fn padding_without_masking_and_the_end_of_a_reader_are_survived() {
    let users = vec![user(1, 0)];
    let gate = gate(users.clone());
    let mut acceptor = Acceptor::new();
    let mut wire = hello(&users[0], NOW, 1);
    accepted(acceptor.step(&gate, &mut wire, NOW));
    refused(acceptor.step(&gate, &mut hello(&users[0], NOW, 2), NOW));
    let bare = RequestHeader { options: Options(0), ..request(3) };
    accepted(knock(&gate, &aead(&users[0].id, &plain(&bare, &[]), NOW, 3), NOW));
}

#[test]
fn garbage_is_refused_at_one_place_and_never_panics() {
    let users: Vec<User> = (0..50).map(|n| user(n, (n % 3) as u16)).collect();
    let gate = gate(users.clone());
    let mut entropy = SeededEntropy::new(11);
    for _ in 0..2000 {
        let mut wire = vec![0; entropy.below(300) as usize];
        entropy.fill(&mut wire);
        match knock(&gate, &wire, NOW) {
            Step::Need(16) => assert!(wire.len() < 16),
            Step::Need(42) => assert!((16..42).contains(&wire.len())),
            step => {
                assert!(wire.len() >= 42);
                silent(step);
            }
        }
    }
    // What follows a good beginning is garbage, too.
    for seed in 0..500 {
        let who = &users[entropy.below(50) as usize];
        let mut wire = match (who.alter_id, seed % 2) {
            (1.., 0) => old_hello(who, 1, NOW - 100 + i64::from(entropy.below(200)), seed),
            _ => hello(who, NOW, seed),
        };
        let keep = entropy.below(wire.len() as u32) as usize;
        let was = wire[keep];
        entropy.fill(&mut wire[keep..]);
        wire[keep] = !was;
        for _ in 0..2 {
            match knock(&gate, &wire, NOW) {
                Step::Refused(_) | Step::Need(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }
}
