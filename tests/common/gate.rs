//! What the tests of the gate share: users, their clients' headers, and a look at what the gate says.
#![allow(dead_code, reason = "each test binary uses its own part of this file")]

use vmesskit::addr::{Host, Target};
use vmesskit::entropy::SeededEntropy;
use vmesskit::vmess::account::alter_ids;
use vmesskit::vmess::gate::{Accepted, Acceptor, Gate, GateLimits, Refusal, Step, User, Users};
use vmesskit::vmess::header::{HeaderError, RequestHeader};
use vmesskit::vmess::keys::BodyKeys;
use vmesskit::vmess::legacy::{self, AUTH_LEN, HeaderCipher};
use vmesskit::vmess::{Command, Id, Options, Security, auth::AuthCipher, envelope};

/// The time of every test, in unix seconds.
pub(crate) const NOW: i64 = 1_700_000_000;

/// The `n`th user, with so many alter ids.
pub(crate) fn user(n: u32, alter_id: u16) -> User {
    let mut id = [0x5A; 16];
    id[..4].copy_from_slice(&n.to_be_bytes());
    let email = format!("user{n}@example.com").into();
    User { id: Id::from_bytes(id), alter_id, level: 0, email, no_termination_signal: false }
}

/// A gate that began well before [`NOW`], with the default limits.
pub(crate) fn gate(users: Vec<User>) -> Gate {
    gate_with(users, GateLimits::default(), NOW - 1000)
}

/// A gate that began at `started` and whose table is that of [`NOW`].
pub(crate) fn gate_with(users: Vec<User>, limits: GateLimits, started: i64) -> Gate {
    let gate = Gate::new(Users::new(users), limits, started, &mut SeededEntropy::new(1));
    gate.advance(NOW);
    gate
}

/// A request whose keys follow from `seed`.
pub(crate) fn request(seed: u32) -> RequestHeader {
    let mut keys = BodyKeys { key: [1; 16], iv: [2; 16] };
    keys.key[..4].copy_from_slice(&seed.to_be_bytes());
    RequestHeader {
        keys,
        token: 0x5A,
        options: Options(0x0D),
        security: Security::Aes128Gcm,
        command: Command::Tcp,
        target: Some(Target::new(Host::parse("example.com").expect("legal"), 443)),
    }
}

/// The plain form of a request.
pub(crate) fn plain(request: &RequestHeader, padding: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    request.encode(padding, &mut plain).expect("a legal request");
    plain
}

/// Seals a plain header as an AEAD client does whose clock says `sent`. `seed` makes the auth id.
pub(crate) fn aead(id: &Id, plain: &[u8], sent: i64, seed: u32) -> Vec<u8> {
    let key = id.cmd_key();
    let auth_id = AuthCipher::new(&key).seal(sent, seed.to_be_bytes());
    envelope::seal_request(&key, &auth_id, &u64::from(seed).to_be_bytes(), plain)
}

/// An AEAD client's header: everything in it follows from `seed`.
pub(crate) fn hello(user: &User, sent: i64, seed: u32) -> Vec<u8> {
    aead(&user.id, &plain(&request(seed), &[9; 5]), sent, seed)
}

/// A legacy client's header, signed with alter id number `nth`, the first of which is 1; 0 is the own id.
pub(crate) fn old_hello(user: &User, nth: u16, sent: i64, seed: u32) -> Vec<u8> {
    let signer = match nth {
        0 => user.id.clone(),
        nth => alter_ids(&user.id, nth).last().expect("at least one"),
    };
    let mut wire = legacy::auth(&signer, sent).to_vec();
    wire.extend(plain(&request(seed), &[9; 5]));
    HeaderCipher::new(&user.id.cmd_key(), sent).encrypt(&mut wire[AUTH_LEN..]);
    wire
}

/// What one connection comes to whose peer sent `wire` at once.
pub(crate) fn knock(gate: &Gate, wire: &[u8], now: i64) -> Step {
    Acceptor::new().step(gate, &mut wire.to_vec(), now)
}

/// The request, or a panic that says what came instead.
pub(crate) fn accepted(step: Step) -> Accepted {
    match step {
        Step::Accepted(accepted) => *accepted,
        other => panic!("not accepted: {other:?}"),
    }
}

/// The refusal, or a panic that says what came instead.
pub(crate) fn refused(step: Step) -> Refusal {
    match step {
        Step::Refused(refusal) => refusal,
        other => panic!("not refused: {other:?}"),
    }
}

/// Asserts a refusal that says nothing, not even to the operator.
pub(crate) fn silent(step: Step) {
    assert_eq!(refused(step), Refusal::default());
}

/// The fault of an authenticated header, or a panic that says what came instead.
pub(crate) fn invalid(step: Step) -> HeaderError {
    match step {
        Step::Invalid(error) => error,
        other => panic!("not invalid: {other:?}"),
    }
}
