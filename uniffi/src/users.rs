//! The users of a VMess inbound, and the counters by name.

use std::fmt;

/// One user of a VMess inbound. The id, a secret, is not shown.
#[derive(Debug, Clone, PartialEq, Eq, uniffi::Record)]
pub struct UserInfo {
    /// The e-mail; may be empty for a user of the config.
    pub email: String,
    /// How many alter ids.
    pub alter_id: u16,
    /// The policy level.
    pub level: u32,
    /// Payload bytes that the user sent since the last reset, if the policy has the user counted.
    pub uplink_bytes: u64,
    /// Payload bytes that the user received since the last reset, if the policy has the user counted.
    pub downlink_bytes: u64,
}

impl From<vmesskit::UserInfo> for UserInfo {
    fn from(user: vmesskit::UserInfo) -> Self {
        Self {
            email: user.email,
            alter_id: user.alter_id,
            level: user.level,
            uplink_bytes: user.uplink_bytes,
            downlink_bytes: user.downlink_bytes,
        }
    }
}

/// A user for `add_user`. The id is a secret.
#[derive(Clone, PartialEq, Eq, uniffi::Record)]
pub struct NewUser {
    /// The id: a UUID, or another text of 1 to 30 bytes, which is mapped to one as Xray does it.
    pub id: String,
    /// How many alter ids; 0 for the AEAD header alone.
    pub alter_id: u16,
    /// The policy level.
    pub level: u32,
    /// The e-mail, by which the user is counted, routed and removed. Not empty, and the inbound's only one of it, without
    /// regard to case.
    pub email: String,
}

impl fmt::Debug for NewUser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        vmesskit::NewUser::from(self.clone()).fmt(f)
    }
}

impl From<NewUser> for vmesskit::NewUser {
    fn from(user: NewUser) -> Self {
        Self { id: user.id, alter_id: user.alter_id, level: user.level, email: user.email }
    }
}

/// A counter that the config's policy asks for.
#[derive(Debug, Clone, PartialEq, Eq, uniffi::Record)]
pub struct Counter {
    /// V2Ray's name: `user>>>EMAIL>>>traffic>>>uplink`, or `inbound` or `outbound` and a tag, or `downlink`.
    pub name: String,
    /// Payload bytes since the last reset.
    pub value: u64,
}

impl From<vmesskit::Counter> for Counter {
    fn from(counter: vmesskit::Counter) -> Self {
        Self { name: counter.name, value: counter.value }
    }
}
