//! The users of a VMess inbound, which no version has yet.

/// One user of a VMess inbound.
#[derive(Debug, Clone, PartialEq, Eq, uniffi::Record)]
pub struct UserInfo {
    /// The e-mail.
    pub email: String,
    /// The policy level.
    pub level: u32,
    /// Payload bytes up.
    pub uplink_bytes: u64,
    /// Payload bytes down.
    pub downlink_bytes: u64,
}

impl From<vmesskit::UserInfo> for UserInfo {
    fn from(user: vmesskit::UserInfo) -> Self {
        Self {
            email: user.email,
            level: user.level,
            uplink_bytes: user.uplink_bytes,
            downlink_bytes: user.downlink_bytes,
        }
    }
}
