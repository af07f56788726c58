//! The response header's plain form: proof that the server knows the request, and a command for the client.
//!
//! `token(1) options(1) command(1) length(1) payload(length)`. The only command that was ever sent, 1, moves
//! the user to another port and id.

/// Bytes of a response header without a command.
pub const MIN_LEN: usize = 4;
/// Bytes of the longest response header.
pub const MAX_LEN: usize = MIN_LEN + 255;

/// A response header, borrowed from the bytes it was read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResponseHeader<'a> {
    /// The request's random byte.
    pub token: u8,
    /// Option bits. V2Ray sends 0, sing-box the request's; nobody reads them.
    pub options: u8,
    /// The command's code; 0 for none.
    pub command: u8,
    /// What the command says, at most 255 bytes.
    pub payload: &'a [u8],
}

impl<'a> ResponseHeader<'a> {
    /// The header that accepts a request and asks for nothing.
    pub const fn accept(token: u8) -> Self {
        Self { token, options: 0, command: 0, payload: &[] }
    }

    /// The plain form; `None` if the payload is too long.
    pub fn encode(&self) -> Option<Vec<u8>> {
        let len = u8::try_from(self.payload.len()).ok()?;
        let mut plain = vec![self.token, self.options, self.command, len];
        plain.extend_from_slice(self.payload);
        Some(plain)
    }

    /// The plain form without the command.
    pub(super) fn without_command(&self) -> Vec<u8> {
        vec![self.token, self.options, 0, 0]
    }

    /// Reads the plain form; `None` if it is shorter than it says. Bytes behind the payload are ignored.
    pub fn decode(plain: &'a [u8]) -> Option<Self> {
        let (&[token, options, command, len], rest) = plain.split_first_chunk()?;
        Some(Self { token, options, command, payload: rest.get(..usize::from(len))? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payloads_up_to_255_bytes_are_read_back() {
        let long = [9; 256];
        for len in [0, 1, 27, 255] {
            let header = ResponseHeader { token: 1, options: 2, command: 3, payload: &long[..len] };
            let plain = header.encode().expect("fits");
            assert_eq!(ResponseHeader::decode(&plain), Some(header));
            assert_eq!(ResponseHeader::decode(&plain[..plain.len() - 1]), None);
        }
        assert_eq!(ResponseHeader { payload: &long, ..ResponseHeader::accept(1) }.encode(), None);
    }
}
