//! The one command that a response header carries: it moves a user to another port and account for a while.
//!
//! `checksum(4) host length(1) host port(2) id(16) alter ids(2) level(1) minutes(1)`; the checksum is FNV-1a
//! of everything behind it.

use super::fnv::fnv1a;
use super::id::Id;
use crate::addr::Host;

/// The command's code in a response header.
pub const SWITCH_ACCOUNT: u8 = 1;

/// Bytes without checksum and host: host length, port, id, alter ids, level, minutes.
const FIXED: usize = 1 + 2 + 16 + 2 + 1 + 1;
/// Bytes of the longest host: a command has 255 at most.
const MAX_HOST: usize = 255 - 4 - FIXED;

/// An account that the server offers beside the one in use. New connections may go there until it expires.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SwitchAccount {
    /// The server's address; `None` for the one in use. No server is known to send another.
    pub host: Option<Host>,
    /// The port.
    pub port: u16,
    /// The user's id there. A secret, as every id.
    pub id: Id,
    /// How many alter ids it has there: with any, its headers are legacy ones.
    pub alter_ids: u16,
    /// The user's policy level there.
    pub level: u8,
    /// For how many minutes it may be used.
    pub valid_minutes: u8,
}

impl SwitchAccount {
    /// The payload of the command, at most 255 bytes. A host of more than 228 bytes does not fit: the command
    /// is then made without one.
    pub fn encode(&self) -> Vec<u8> {
        let host = self.host.as_ref().map(Host::to_string).filter(|text| text.len() <= MAX_HOST);
        let host = host.unwrap_or_default();
        let mut payload = vec![0; 4];
        payload.push(host.len() as u8);
        payload.extend_from_slice(host.as_bytes());
        payload.extend_from_slice(&self.port.to_be_bytes());
        payload.extend_from_slice(self.id.as_bytes());
        payload.extend_from_slice(&self.alter_ids.to_be_bytes());
        payload.extend_from_slice(&[self.level, self.valid_minutes]);
        let checksum = fnv1a(&payload[4..]).to_be_bytes();
        payload[..4].copy_from_slice(&checksum);
        payload
    }

    /// Reads a command's payload. Bytes behind the last field are covered by the checksum and otherwise
    /// ignored.
    ///
    /// `None` if it is too short, its checksum does not fit, or its host is none: the command is then to be
    /// ignored and the connection to be kept.
    pub fn decode(payload: &[u8]) -> Option<Self> {
        let (checksum, rest) = payload.split_first_chunk()?;
        if fnv1a(rest) != u32::from_be_bytes(*checksum) {
            return None;
        }
        let (&host_len, rest) = rest.split_first()?;
        let (host, rest) = rest.split_at_checked(usize::from(host_len))?;
        let host = match host {
            [] => None,
            text => Some(Host::parse(std::str::from_utf8(text).ok()?)?),
        };
        let (port, rest) = rest.split_first_chunk()?;
        let (id, rest) = rest.split_first_chunk()?;
        let (alter_ids, rest) = rest.split_first_chunk()?;
        let &[level, valid_minutes] = rest.first_chunk()?;
        Some(Self {
            host,
            port: u16::from_be_bytes(*port),
            id: Id::from_bytes(*id),
            alter_ids: u16::from_be_bytes(*alter_ids),
            level,
            valid_minutes,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(host: Option<&str>) -> SwitchAccount {
        SwitchAccount {
            host: host.map(|host| Host::parse(host).expect("a host")),
            port: 12_345,
            id: Id::from_bytes([7; 16]),
            alter_ids: 4,
            level: 1,
            valid_minutes: 5,
        }
    }

    #[test]
    fn commands_are_read_back() {
        let longest = "a".repeat(MAX_HOST);
        for host in [None, Some("example.com"), Some("192.0.2.1"), Some("2001:db8::1"), Some(&longest)] {
            let account = account(host);
            let payload = account.encode();
            assert!(payload.len() <= 255);
            assert_eq!(SwitchAccount::decode(&payload), Some(account));
        }
    }

    #[test]
    fn a_host_that_does_not_fit_is_left_out() {
        let long = "a".repeat(MAX_HOST + 1);
        let back = SwitchAccount::decode(&account(Some(&long)).encode());
        assert_eq!(back, Some(account(None)));
    }

    #[test]
    fn every_cut_and_every_flip_is_ignored() {
        for host in [None, Some("example.com")] {
            let payload = account(host).encode();
            for len in 0..payload.len() {
                assert_eq!(SwitchAccount::decode(&payload[..len]), None, "{len} bytes");
                // With a checksum that fits, what is missing is noticed all the same.
                let mut cut = payload[..len].to_vec();
                if let Some((checksum, rest)) = cut.split_first_chunk_mut::<4>() {
                    *checksum = fnv1a(rest).to_be_bytes();
                    assert_eq!(SwitchAccount::decode(&cut), None, "{len} bytes");
                }
            }
            for bit in 0..payload.len() * 8 {
                let mut flipped = payload.clone();
                flipped[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(SwitchAccount::decode(&flipped), None, "bit {bit}");
            }
        }
    }

    #[test]
    fn a_host_that_is_none_is_ignored() {
        let mut payload = account(Some("example.com")).encode();
        payload[5] = b' ';
        let checksum = fnv1a(&payload[4..]).to_be_bytes();
        payload[..4].copy_from_slice(&checksum);
        assert_eq!(SwitchAccount::decode(&payload), None);
    }

    #[test]
    fn the_id_stays_out_of_debug_output() {
        assert!(format!("{:?}", account(None)).contains("Id(..)"));
    }
}
