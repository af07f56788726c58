//! What the tests of this room share.

use super::{Gate, GateLimits, User, Users};
use crate::entropy::SeededEntropy;
use crate::vmess::Id;

/// The time of the tests, in unix seconds.
pub(super) const NOW: i64 = 1_700_000_000;

/// The `n`th user, with so many alter ids.
pub(super) fn user(n: u32, alter_id: u16) -> User {
    let mut id = [0x5A; 16];
    id[..4].copy_from_slice(&n.to_be_bytes());
    User {
        id: Id::from_bytes(id),
        alter_id,
        level: n,
        email: format!("user{n}@example.com").into(),
        no_termination_signal: false,
    }
}

/// A gate that began well before [`NOW`].
pub(super) fn gate(users: Vec<User>) -> Gate {
    gate_at(users, GateLimits::default(), NOW - 1000)
}

/// A gate with limits, and the time of its start.
pub(super) fn gate_at(users: Vec<User>, limits: GateLimits, started: i64) -> Gate {
    let gate = Gate::new(Users::new(users), limits, started, &mut SeededEntropy::new(1));
    gate.advance(NOW);
    gate
}
