//! Identity: the 16-byte id that a user is known by, and the command key that follows from it.

use md5::Md5;
use sha1::{Digest, Sha1};
use std::fmt;
use zeroize::{Zeroize, ZeroizeOnDrop};

/// What is hashed behind an id to make its command key.
const CMD_KEY_SALT: &[u8] = b"c48619fe-8f02-49e0-b9e9-edf763e17e21";

/// The hex digits in each group of a UUID.
const UUID_GROUPS: [usize; 5] = [8, 4, 4, 4, 12];

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

    /// Reads an id: a UUID in any case, or another text of 1 to 30 bytes.
    ///
    /// Each group of the UUID may have one dash before it or none. Braces and `urn:uuid:` are not known to
    /// any peer and are refused, as is whatever follows the last digit. A text of 1 to 30 bytes of UTF-8 is
    /// mapped as Xray, sing-box and mihomo do it: a UUIDv5 in the namespace of 16 zero bytes. `None` for
    /// everything else.
    pub fn parse(text: &str) -> Option<(Self, IdForm)> {
        match text.len() {
            32..=36 => parse_uuid(text.as_bytes()).map(|bytes| (Self(bytes), IdForm::Uuid)),
            1..=30 => Some((Self(map_text(text)), IdForm::Mapped)),
            _ => None,
        }
    }

    /// The id as a UUID in lower case with dashes.
    pub fn to_text(&self) -> String {
        uuid::Uuid::from_bytes(self.0).hyphenated().to_string()
    }

    /// Derives the key that request headers of this user are sealed with.
    pub fn cmd_key(&self) -> CmdKey {
        CmdKey(Md5::new().chain_update(self.0).chain_update(CMD_KEY_SALT).finalize().into())
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Id(..)")
    }
}

/// The key that a user's request headers are sealed with, 16 bytes. As secret as the [`Id`] it was made of.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct CmdKey([u8; 16]);

impl CmdKey {
    /// Wraps the 16 bytes of a command key.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The 16 bytes.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Debug for CmdKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CmdKey(..)")
    }
}

fn parse_uuid(mut text: &[u8]) -> Option<[u8; 16]> {
    let mut digits = [0; 32];
    let mut filled = 0;
    for len in UUID_GROUPS {
        text = text.strip_prefix(b"-").unwrap_or(text);
        let (group, rest) = text.split_at_checked(len)?;
        digits.get_mut(filled..filled + len)?.copy_from_slice(group);
        (filled, text) = (filled + len, rest);
    }
    if !text.is_empty() {
        return None;
    }
    let mut bytes = [0; 16];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        for &digit in pair {
            *byte = *byte << 4 | char::from(digit).to_digit(16)? as u8;
        }
    }
    Some(bytes)
}

fn map_text(text: &str) -> [u8; 16] {
    let digest: [u8; 20] = Sha1::new().chain_update([0; 16]).chain_update(text).finalize().into();
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest[..16]);
    bytes[6] = bytes[6] & 0x0F | 0x50;
    bytes[8] = bytes[8] & 0x3F | 0x80;
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "b831381d-6324-4d53-ad4f-8cda48b30811";

    #[test]
    fn dashes_and_case_do_not_matter() {
        let id = Id::parse(TEXT).expect("uuid");
        for text in [
            "b831381d63244d53ad4f8cda48b30811",
            "B831381D-63244D53-AD4F8CDA48B30811",
            "-b831381d63244d53ad4f8cda48b30811",
            "b831381d63244d53ad4f-8cda48b30811",
        ] {
            assert_eq!(Id::parse(text).as_ref(), Some(&id), "{text}");
        }
        assert_eq!((id.0.to_text().as_str(), id.1), (TEXT, IdForm::Uuid));
    }

    #[test]
    fn what_no_peer_reads_is_refused() {
        for text in [
            "",
            "{b831381d63244d53ad4f8cda48b30811}",
            "b831381d63244d53ad4f8cda48b30811zz",
            "b831381d--63244d53ad4f8cda48b30811",
            "b831381d-6324-4d53-ad4f-8cda48b3081",
            "b831381d-6324-4d53-ad4f-8cda48b3081g",
            "urn:uuid:b831381d-6324-4d53-ad4f-8cda48b30811",
            "1234567890123456789012345678901",
            "+831381d-6324-4d53-ad4f-8cda48b30811",
            "b831381d-6324-4d53-ad4f-8cda48b3081é",
        ] {
            assert_eq!(Id::parse(text), None, "{text}");
        }
    }

    #[test]
    fn secrets_stay_out_of_debug_output() {
        let (id, _) = Id::parse(TEXT).expect("uuid");
        assert_eq!(format!("{id:?} {:?}", id.cmd_key()), "Id(..) CmdKey(..)");
    }

    #[test]
    fn texts_of_up_to_30_bytes_are_mapped() {
        let longest = "123456789012345678901234567890";
        assert_eq!(Id::parse(longest).map(|(_, form)| form), Some(IdForm::Mapped));
        let (id, form) = Id::parse("example").expect("mapped");
        assert_eq!((id.to_text().as_str(), form), ("feb54431-301b-52bb-a6dd-e1e93e81bb9e", IdForm::Mapped));
    }
}
