//! What the tests of this room share.

use super::User;
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
