//! The request header's plain form: what a client asks for, and how both bodies will look.
//!
//! `version(1) iv(16) key(16) token(1) options(1) padding length and security(1) reserved(1) command(1)`,
//! then for all but mux `port(2) address type(1) address`, then padding, then FNV-1a (4) of everything before
//! it.

use super::address::{self, DOMAIN, IPV4, IPV6, NoTarget};
use super::fnv::fnv1a;
use super::keys::BodyKeys;
pub use super::security::{Security, hardware_aes};
use crate::addr::{Host, Target};

/// The most random bytes that a header may carry before its checksum.
pub const MAX_PADDING: usize = 15;
/// Bytes of the longest header: a domain of 255 bytes and full padding.
pub const MAX_LEN: usize = 41 + 1 + 255 + MAX_PADDING + 4;

const VERSION: u8 = 1;
/// The command without a target.
const MUX: u8 = 3;
/// Where the byte of padding length and security is.
const PACKED_AT: usize = 35;
/// Where the target is, or what follows it if there is none.
const TARGET_AT: usize = 38;
/// Bytes of the checksum.
const CHECKSUM: usize = 4;

/// What a request asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Command {
    /// A TCP stream to a target.
    Tcp,
    /// Datagrams to a target.
    Udp,
    /// A Mux.Cool carrier.
    Mux,
}

impl Command {
    const fn code(self) -> u8 {
        match self {
            Self::Tcp => 1,
            Self::Udp => 2,
            Self::Mux => MUX,
        }
    }

    const fn from_code(code: u8) -> Option<Self> {
        match code {
            1 => Some(Self::Tcp),
            2 => Some(Self::Udp),
            MUX => Some(Self::Mux),
            _ => None,
        }
    }
}

/// Option bits of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Options(pub u8);

impl Options {
    /// The body is cut into chunks, and a terminating chunk ends it.
    pub const CHUNK_STREAM: Self = Self(0x01);
    /// Chunk sizes are masked with SHAKE128 output.
    pub const CHUNK_MASKING: Self = Self(0x04);
    /// 0 to 63 random bytes follow each chunk. Never without [`Options::CHUNK_MASKING`]: V2Ray 4 dies of it.
    pub const GLOBAL_PADDING: Self = Self(0x08);
    /// Chunk sizes are sealed. Never with an unprotected body: peers disagree on what it means there.
    pub const AUTHENTICATED_LENGTH: Self = Self(0x10);

    /// Whether every bit of `other` is set.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// The bits of both.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// Why a request header could not be written or read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HeaderError {
    /// It ends too early.
    #[error("the request header ends too early")]
    Truncated,
    /// Its checksum does not fit.
    #[error("the request header's checksum does not fit")]
    Checksum,
    /// The security code stands for nothing that may be sent.
    #[error("security code {0} is unknown")]
    Security(u8),
    /// The command is unknown.
    #[error("command {0} is unknown")]
    Command(u8),
    /// The address type is unknown, the domain is empty, too long or has characters that servers refuse.
    #[error("the target's address is not one that VMess can carry")]
    Address,
    /// Padding without masking.
    #[error("padding was asked for without masking")]
    Options,
    /// `auto` was not settled before it reached the header.
    #[error("security `auto` has no code")]
    Unsettled,
}

/// A request header. It holds the session's keys: the plain bytes are as secret as they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestHeader {
    /// The request direction's keys; the response direction's follow from them.
    pub keys: BodyKeys,
    /// A random byte that the response repeats.
    pub token: u8,
    /// The option bits.
    pub options: Options,
    /// How the bodies are protected. Read back, [`Security::Zero`] is [`Security::None`].
    pub security: Security,
    /// What is asked for.
    pub command: Command,
    /// Where to; `None` exactly for [`Command::Mux`].
    pub target: Option<Target>,
}

impl RequestHeader {
    /// Appends the plain form to `out`. `padding` is random, at most [`MAX_PADDING`] bytes of it are used.
    ///
    /// # Errors
    /// [`HeaderError::Unsettled`], [`HeaderError::Options`], [`HeaderError::Address`] for what must not be
    /// sent. `out` may then hold a part of the header.
    pub fn encode(&self, padding: &[u8], out: &mut Vec<u8>) -> Result<(), HeaderError> {
        let security = self.security.code().ok_or(HeaderError::Unsettled)?;
        check_options(self.options)?;
        let padding = padding.get(..MAX_PADDING).unwrap_or(padding);
        let start = out.len();
        out.push(VERSION);
        out.extend_from_slice(&self.keys.iv);
        out.extend_from_slice(&self.keys.key);
        out.extend_from_slice(&[self.token, self.options.0, (padding.len() as u8) << 4 | security, 0]);
        out.push(self.command.code());
        match (self.command, &self.target) {
            (Command::Mux, _) => {}
            (_, Some(target)) => encode_target(target, out)?,
            (_, None) => return Err(HeaderError::Address),
        }
        out.extend_from_slice(padding);
        let checksum = fnv1a(&out[start..]);
        out.extend_from_slice(&checksum.to_be_bytes());
        Ok(())
    }

    /// How long the header at the start of `plain` is, as far as these bytes tell.
    ///
    /// Returns how many bytes it has in all if at least as many are at hand, else how many must be, at least,
    /// to tell more. A legacy header is read so: its length is not sent, and a body follows.
    ///
    /// # Errors
    /// [`HeaderError::Address`] for an address type that says nothing of the length.
    pub fn extent(plain: &[u8]) -> Result<usize, HeaderError> {
        let Some(&[packed, _reserved, command]) =
            plain.get(PACKED_AT..TARGET_AT).and_then(<[u8]>::first_chunk)
        else {
            return Ok(TARGET_AT);
        };
        let target = match (command, plain.get(TARGET_AT..).unwrap_or_default()) {
            (MUX, _) => 0,
            (_, [] | [_] | [_, _]) => return Ok(TARGET_AT + 3),
            (_, [_, _, IPV4, ..]) => 3 + 4,
            (_, [_, _, IPV6, ..]) => 3 + 16,
            (_, [_, _, DOMAIN]) => return Ok(TARGET_AT + 4),
            (_, [_, _, DOMAIN, len, ..]) => 4 + usize::from(*len),
            _ => return Err(HeaderError::Address),
        };
        Ok(TARGET_AT + target + usize::from(packed >> 4) + CHECKSUM)
    }

    /// Reads the plain form. The version, the reserved byte and bytes behind the checksum are ignored, as
    /// V2Ray and Xray ignore them.
    ///
    /// # Errors
    /// Every [`HeaderError`] but [`HeaderError::Unsettled`]. The checksum is judged before anything else that
    /// is whole.
    pub fn decode(plain: &[u8]) -> Result<Self, HeaderError> {
        let mut input = Input(plain);
        let [_version] = input.take()?;
        let (iv, key) = (input.take()?, input.take()?);
        let keys = BodyKeys { key, iv };
        let [token, options, packed, _reserved, command] = input.take()?;
        let target = match command {
            MUX => None,
            _ => Some(input.target()?),
        };
        input.skip(usize::from(packed >> 4))?;
        let covered = plain.len() - input.0.len();
        if fnv1a(plain.get(..covered).unwrap_or_default()) != u32::from_be_bytes(input.take()?) {
            return Err(HeaderError::Checksum);
        }
        let options = Options(options);
        check_options(options)?;
        let code = packed & 0x0F;
        Ok(Self {
            keys,
            token,
            options,
            security: Security::from_code(code).ok_or(HeaderError::Security(code))?,
            command: Command::from_code(command).ok_or(HeaderError::Command(command))?,
            target: match target {
                Some(target) => Some(target.ok_or(HeaderError::Address)?),
                None => None,
            },
        })
    }
}

const fn check_options(options: Options) -> Result<(), HeaderError> {
    if options.contains(Options::GLOBAL_PADDING) && !options.contains(Options::CHUNK_MASKING) {
        return Err(HeaderError::Options);
    }
    Ok(())
}

/// Appends port, address type and address.
fn encode_target(target: &Target, out: &mut Vec<u8>) -> Result<(), HeaderError> {
    if let Host::Domain(name) = &target.host
        && (!(1..=255).contains(&name.len()) || !name.bytes().all(is_domain_byte))
    {
        return Err(HeaderError::Address);
    }
    address::encode(target, out);
    Ok(())
}

/// Whether V2Ray's and Xray's servers take this byte in a domain; one other byte and they drop the
/// connection.
const fn is_domain_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_')
}

/// What is left of a header that is being read.
struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], HeaderError> {
        let (head, rest) = self.0.split_first_chunk().ok_or(HeaderError::Truncated)?;
        self.0 = rest;
        Ok(*head)
    }

    fn skip(&mut self, n: usize) -> Result<(), HeaderError> {
        self.0 = self.0.get(n..).ok_or(HeaderError::Truncated)?;
        Ok(())
    }

    /// Reads port and address; `None` if the name is not a legal one, which matters after the checksum.
    fn target(&mut self) -> Result<Option<Target>, HeaderError> {
        let mut input = address::Input(self.0);
        let target = input.target().map_err(|error| match error {
            NoTarget::Short => HeaderError::Truncated,
            NoTarget::Unknown => HeaderError::Address,
        })?;
        self.0 = input.0;
        Ok(target)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entropy::{Entropy, SeededEntropy};

    fn header(host: Host) -> RequestHeader {
        RequestHeader {
            keys: BodyKeys { key: [1; 16], iv: [2; 16] },
            token: 3,
            options: Options(0x0D),
            security: Security::Aes128Gcm,
            command: Command::Tcp,
            target: Some(Target::new(host, 443)),
        }
    }

    fn encoded(header: &RequestHeader, padding: &[u8]) -> Vec<u8> {
        let mut plain = Vec::new();
        header.encode(padding, &mut plain).expect("legal header");
        plain
    }

    #[test]
    fn headers_are_read_back_with_every_padding() {
        let longest = Host::Domain("a".repeat(255).into());
        for host in [longest, Host::parse("1.2.3.4").expect("ip"), Host::parse("::1").expect("ip")] {
            for padding in 0..=MAX_PADDING {
                let header = header(host.clone());
                let mut plain = encoded(&header, &[7; MAX_PADDING][..padding]);
                assert!(plain.len() <= MAX_LEN);
                assert_eq!(RequestHeader::decode(&plain).as_ref(), Ok(&header));
                plain.extend_from_slice(b"ignored");
                assert_eq!(RequestHeader::decode(&plain), Ok(header));
            }
        }
        let mux = RequestHeader { command: Command::Mux, target: None, ..header(Host::Ip([0; 4].into())) };
        assert_eq!(RequestHeader::decode(&encoded(&mux, &[])), Ok(mux));
    }

    /// Every prefix asks for no more than there is, and for more than it has until it is the whole.
    #[test]
    fn extents_are_known_in_few_steps_and_never_overshoot() {
        for host in ["example.com", "1.2.3.4", "::1", "a"] {
            for padding in [0, 1, MAX_PADDING] {
                let header = header(Host::parse(host).expect("legal"));
                let mut plain = encoded(&header, &[7; MAX_PADDING][..padding]);
                let whole = plain.len();
                plain.extend_from_slice(b"the body");
                let (mut have, mut steps) = (0, 0);
                while have < whole {
                    let need = RequestHeader::extent(&plain[..have]).expect("legal");
                    assert!(have < need && need <= whole, "{need} after {have} of {whole}");
                    (have, steps) = (need, steps + 1);
                }
                assert!(steps <= 4);
                (whole..plain.len()).for_each(|n| assert_eq!(RequestHeader::extent(&plain[..n]), Ok(whole)));
            }
        }
        let mux = RequestHeader { command: Command::Mux, target: None, ..header(Host::Ip([0; 4].into())) };
        let plain = encoded(&mux, &[1, 2]);
        assert_eq!(RequestHeader::extent(&plain[..38]), Ok(plain.len()));
        let mut unknown = encoded(&header(Host::Ip([0; 4].into())), &[]);
        unknown[40] = 9;
        assert_eq!(RequestHeader::extent(&unknown), Err(HeaderError::Address));
    }

    /// Whatever the bytes: what has its extent is never too short to be judged, and what has not always is.
    #[test]
    fn extents_and_judgements_agree_on_noise() {
        let mut entropy = SeededEntropy::new(3);
        let mut judged = 0;
        for _ in 0..20_000 {
            let mut plain = vec![0; entropy.below(120) as usize];
            entropy.fill(&mut plain);
            // Address types and commands that are legal as often as not.
            for at in [37, 40] {
                plain.get_mut(at).into_iter().for_each(|byte| *byte %= 6);
            }
            let decoded = RequestHeader::decode(&plain);
            match RequestHeader::extent(&plain) {
                Err(error) => assert_eq!((decoded, error), (Err(error), HeaderError::Address)),
                Ok(need) if need > plain.len() => assert_eq!(decoded, Err(HeaderError::Truncated)),
                Ok(_) => {
                    assert_eq!(decoded, Err(HeaderError::Checksum));
                    judged += 1;
                }
            }
        }
        assert!(judged > 1000, "{judged}");
    }

    #[test]
    fn every_cut_and_every_flip_is_an_error() {
        let plain = encoded(&header(Host::Domain("example.com".into())), &[1, 2, 3]);
        for len in 0..plain.len() {
            assert_eq!(RequestHeader::decode(&plain[..len]), Err(HeaderError::Truncated), "{len} bytes");
        }
        for bit in 0..plain.len() * 8 {
            let mut flipped = plain.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(RequestHeader::decode(&flipped).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn what_servers_refuse_is_not_sent() {
        for name in [String::new(), "a".repeat(256), "a b".into(), "a:b".into(), "bücher.example".into()] {
            let header = header(Host::Domain(name.as_str().into()));
            assert_eq!(header.encode(&[], &mut Vec::new()), Err(HeaderError::Address), "{name}");
        }
        let plain = header(Host::Domain("example.com".into()));
        let auto = RequestHeader { security: Security::Auto, ..plain.clone() };
        assert_eq!(auto.encode(&[], &mut Vec::new()), Err(HeaderError::Unsettled));
        let unmasked = RequestHeader { options: Options(0x09), ..plain.clone() };
        assert_eq!(unmasked.encode(&[], &mut Vec::new()), Err(HeaderError::Options));
        let nowhere = RequestHeader { target: None, ..plain };
        assert_eq!(nowhere.encode(&[], &mut Vec::new()), Err(HeaderError::Address));
    }

    #[test]
    fn faults_are_told_apart() {
        let good = encoded(&header(Host::Domain("example.com".into())), &[]);
        let with = |at: usize, byte: u8| {
            let mut plain = good.clone();
            plain[at] = byte;
            let end = plain.len() - 4;
            let checksum = fnv1a(&plain[..end]).to_be_bytes();
            plain[end..].copy_from_slice(&checksum);
            RequestHeader::decode(&plain)
        };
        assert!(with(0, 2).is_ok() && with(36, 0xFF).is_ok(), "as V2Ray and Xray");
        assert_eq!(with(34, 0x09), Err(HeaderError::Options));
        assert_eq!(with(35, 0x02), Err(HeaderError::Security(2)));
        assert_eq!(with(35, 0x00).map(|header| header.security), Ok(Security::Aes128Cfb));
        assert_eq!(with(37, 9), Err(HeaderError::Command(9)));
        assert_eq!(with(40, 9), Err(HeaderError::Address));
        assert_eq!(with(42, b' '), Err(HeaderError::Address));
    }
}
