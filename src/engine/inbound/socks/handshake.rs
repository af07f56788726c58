//! The SOCKS5 handshake, server side (RFC 1928, RFC 1929). Pure: bytes in, steps out, in any segmentation.

use super::wire::{Address, Reply, VERSION};
use crate::addr::Target;
use sha2::{Digest, Sha256};
use std::collections::HashSet;

/// The longest message of a handshake: user name and password of 255 bytes each.
pub(super) const MAX_MESSAGE: usize = 1 + 1 + 255 + 1 + 255;

const NO_AUTHENTICATION: u8 = 0;
const PASSWORD: u8 = 2;
const NO_METHOD: u8 = 0xFF;
const PASSWORD_VERSION: u8 = 1;

/// The accounts of an inbound.
///
/// They are kept as digests in a set: a lookup costs the same for every wrong password, whatever it has in common with a
/// right one, and however many accounts there are.
#[derive(Default)]
pub(super) struct Accounts {
    digests: HashSet<[u8; 32]>,
}

impl Accounts {
    /// Accounts from user names and passwords.
    pub(super) fn new(accounts: &[(String, String)]) -> Self {
        Self {
            digests: accounts.iter().map(|(user, pass)| digest(user.as_bytes(), pass.as_bytes())).collect(),
        }
    }

    /// Whether nobody has to say a password.
    pub(super) fn is_open(&self) -> bool {
        self.digests.is_empty()
    }

    fn admit(&self, user: &[u8], pass: &[u8]) -> bool {
        self.digests.contains(&digest(user, pass))
    }
}

/// The user's length comes first, so that no two pairs share their bytes.
fn digest(user: &[u8], pass: &[u8]) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update((user.len() as u64).to_be_bytes());
    hash.update(user);
    hash.update(pass);
    hash.finalize().into()
}

/// What a client asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Request {
    /// A stream to a target.
    Connect(Target),
    /// Datagrams, for as long as the connection lives.
    Associate,
}

/// What the handshake does next. `consumed` bytes from the front of the input are done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// More bytes are needed before anything can be said.
    More,
    /// This is to be sent before the next step.
    Send { consumed: usize, reply: [u8; 2] },
    /// The client has asked. What follows in the input is the client's payload.
    Asked { consumed: usize, request: Request },
    /// The client is not served: what its [`Refusal::bytes`] are is to be sent, and the connection closed.
    Refused(Refusal),
}

/// Why a client is not served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    /// SOCKS4, HTTP, or noise.
    #[error("the client does not speak SOCKS5")]
    NotSocks5,
    /// The client offers no method that is accepted here.
    #[error("the client offers no usable authentication")]
    NoMethod,
    /// User name or password are wrong.
    #[error("wrong user name or password")]
    WrongPassword,
    /// A message is not what the protocol says.
    #[error("the client broke the protocol")]
    Malformed,
    /// BIND, or a command that does not exist.
    #[error("the command is not served")]
    Command,
    /// An address type that does not exist.
    #[error("unknown address type")]
    AddressType,
    /// The target's name is none.
    #[error("the target is no legal name")]
    Name,
}

impl Refusal {
    /// What the client is told; empty: nothing.
    pub(super) const fn bytes(self) -> &'static [u8] {
        match self {
            Self::NotSocks5 | Self::Malformed => &[],
            Self::NoMethod => &[VERSION, NO_METHOD],
            Self::WrongPassword => &[PASSWORD_VERSION, 1],
            Self::Command => &const { Reply::CommandUnknown.bytes() },
            Self::AddressType => &const { Reply::AddressTypeUnknown.bytes() },
            Self::Name => &const { Reply::HostUnreachable.bytes() },
        }
    }
}

/// One client's handshake.
pub(super) struct Handshake<'a> {
    accounts: &'a Accounts,
    expects: Message,
}

#[derive(Debug, Clone, Copy)]
enum Message {
    Greeting,
    Credentials,
    Request,
}

impl<'a> Handshake<'a> {
    /// A handshake from its first byte.
    pub(super) const fn new(accounts: &'a Accounts) -> Self {
        Self { accounts, expects: Message::Greeting }
    }

    /// Reads the next message from the front of `input`, which holds what has come and is not consumed. No message is
    /// longer than [`MAX_MESSAGE`].
    pub(super) fn step(&mut self, input: &[u8]) -> Step {
        match self.expects {
            Message::Greeting => self.greeting(input),
            Message::Credentials => self.credentials(input),
            Message::Request => request(input),
        }
    }

    fn greeting(&mut self, input: &[u8]) -> Step {
        match input {
            [] | [VERSION] => Step::More,
            [VERSION, count, rest @ ..] => {
                let Some(methods) = rest.get(..usize::from(*count)) else { return Step::More };
                let (method, next) = match self.accounts.is_open() {
                    true => (NO_AUTHENTICATION, Message::Request),
                    false => (PASSWORD, Message::Credentials),
                };
                if !methods.contains(&method) {
                    return Step::Refused(Refusal::NoMethod);
                }
                self.expects = next;
                Step::Send { consumed: 2 + methods.len(), reply: [VERSION, method] }
            }
            _ => Step::Refused(Refusal::NotSocks5),
        }
    }

    fn credentials(&mut self, input: &[u8]) -> Step {
        let Some((version, rest)) = input.split_first() else { return Step::More };
        if *version != PASSWORD_VERSION {
            return Step::Refused(Refusal::Malformed);
        }
        let Some((user, rest)) = prefixed(rest) else { return Step::More };
        let Some((pass, rest)) = prefixed(rest) else { return Step::More };
        if !self.accounts.admit(user, pass) {
            return Step::Refused(Refusal::WrongPassword);
        }
        self.expects = Message::Request;
        Step::Send { consumed: input.len() - rest.len(), reply: [PASSWORD_VERSION, 0] }
    }
}

fn request(input: &[u8]) -> Step {
    let Some((head, rest)) = input.split_first_chunk::<3>() else {
        return match input.first() {
            None | Some(&VERSION) => Step::More,
            Some(_) => Step::Refused(Refusal::Malformed),
        };
    };
    let [version, command, _] = *head;
    if version != VERSION {
        return Step::Refused(Refusal::Malformed);
    }
    match (command, Address::parse(rest)) {
        (_, Address::More) => Step::More,
        (_, Address::UnknownType) => Step::Refused(Refusal::AddressType),
        (1, Address::Target(target, len)) => {
            Step::Asked { consumed: 3 + len, request: Request::Connect(target) }
        }
        // Some clients leave the name of an association empty: it says only where their datagrams will come from.
        (3, Address::Target(_, len) | Address::BadName(len)) => {
            Step::Asked { consumed: 3 + len, request: Request::Associate }
        }
        (1, Address::BadName(_)) => Step::Refused(Refusal::Name),
        _ => Step::Refused(Refusal::Command),
    }
}

/// A length and so many bytes, and what is behind them.
fn prefixed(input: &[u8]) -> Option<(&[u8], &[u8])> {
    let (len, rest) = input.split_first()?;
    rest.split_at_checked(usize::from(*len))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entropy::{Entropy, SeededEntropy};

    const CONNECT: &[u8] = b"\x05\x01\x00\x03\x0bexample.com\x01\xbb";

    fn accounts() -> Accounts {
        Accounts::new(&[("user".into(), "pass".into()), ("a".into(), "bc".into())])
    }

    /// Feeds a client's bytes in pieces of `size`; returns what was sent, and how it ended with what was left over.
    fn run(accounts: &Accounts, bytes: &[u8], size: usize) -> (Vec<u8>, Step, Vec<u8>) {
        let mut handshake = Handshake::new(accounts);
        let (mut input, mut sent) = (Vec::new(), Vec::new());
        let mut pieces = bytes.chunks(size);
        loop {
            match handshake.step(&input) {
                Step::More => match pieces.next() {
                    Some(piece) => input.extend_from_slice(piece),
                    None => return (sent, Step::More, input),
                },
                Step::Send { consumed, reply } => {
                    sent.extend_from_slice(&reply);
                    input.drain(..consumed);
                }
                Step::Asked { consumed, request } => {
                    let rest = input.split_off(consumed);
                    return (
                        sent,
                        Step::Asked { consumed, request },
                        [rest, pieces.flatten().copied().collect()].concat(),
                    );
                }
                Step::Refused(refusal) => return (sent, Step::Refused(refusal), Vec::new()),
            }
        }
    }

    fn asked(request: Request) -> Step {
        Step::Asked { consumed: CONNECT.len(), request }
    }

    fn example() -> Request {
        Request::Connect(Target { host: crate::addr::Host::parse("example.com").expect("a name"), port: 443 })
    }

    #[test]
    fn a_connect_is_read_in_every_segmentation() {
        let plain = [&b"\x05\x02\x00\x02"[..], CONNECT, b"GET /"].concat();
        let password = [&b"\x05\x02\x00\x02\x01\x04user\x04pass"[..], CONNECT, b"GET /"].concat();
        for size in 1..=plain.len() {
            let (sent, end, rest) = run(&Accounts::default(), &plain, size);
            assert_eq!(
                (sent, end, &*rest),
                (vec![5, 0], asked(example()), &b"GET /"[..]),
                "pieces of {size}"
            );
        }
        for size in 1..=password.len() {
            let (sent, end, rest) = run(&accounts(), &password, size);
            assert_eq!(
                (sent, end, &*rest),
                (vec![5, 2, 1, 0], asked(example()), &b"GET /"[..]),
                "pieces of {size}"
            );
        }
    }

    #[test]
    fn wrong_passwords_are_refused() {
        for (user, pass) in
            [("user", "Pass"), ("user", "passs"), ("user", ""), ("", ""), ("ab", "c"), ("nobody", "pass")]
        {
            let mut bytes = b"\x05\x01\x02\x01".to_vec();
            for text in [user, pass] {
                bytes.push(text.len() as u8);
                bytes.extend_from_slice(text.as_bytes());
            }
            let (sent, end, _) = run(&accounts(), &bytes, 99);
            assert_eq!((sent, end), (vec![5, 2], Step::Refused(Refusal::WrongPassword)), "{user}:{pass}");
        }
        assert_eq!(Refusal::WrongPassword.bytes(), [1, 1]);
    }

    #[test]
    fn methods_must_fit() {
        let refused = (vec![], Step::Refused(Refusal::NoMethod), vec![]);
        assert_eq!(run(&accounts(), b"\x05\x01\x00", 9), refused);
        assert_eq!(run(&Accounts::default(), b"\x05\x01\x02", 9), refused);
        assert_eq!(run(&Accounts::default(), b"\x05\x00", 9), refused);
        assert_eq!(Refusal::NoMethod.bytes(), [5, 255]);
    }

    #[test]
    fn other_protocols_are_seen_at_their_first_byte() {
        for first in [b"\x04".as_slice(), b"GET / HTTP/1.1\r\n", b"CONNECT", b"\x16\x03\x01"] {
            assert_eq!(run(&Accounts::default(), first, 1).1, Step::Refused(Refusal::NotSocks5));
        }
        assert!(Refusal::NotSocks5.bytes().is_empty());
    }

    #[test]
    fn requests_that_are_not_served_have_their_replies() {
        let table: [(&[u8], Refusal, u8); 4] = [
            (b"\x05\x02\x00\x01\x7f\x00\x00\x01\x00\x50", Refusal::Command, 7),
            (b"\x05\x09\x00\x01\x7f\x00\x00\x01\x00\x50", Refusal::Command, 7),
            (b"\x05\x01\x00\x02", Refusal::AddressType, 8),
            (b"\x05\x01\x00\x03\x03a b\x00\x50", Refusal::Name, 4),
        ];
        for (request, refusal, code) in table {
            let (_, end, _) = run(&Accounts::default(), &[b"\x05\x01\x00", request].concat(), 1);
            assert_eq!((end, refusal.bytes()[1]), (Step::Refused(refusal), code));
        }
        let (_, end, _) = run(&Accounts::default(), b"\x05\x01\x00\x04", 9);
        assert_eq!(end, Step::Refused(Refusal::Malformed));
    }

    #[test]
    fn an_association_needs_no_legal_address() {
        for address in
            [&b"\x01\0\0\0\0\0\0"[..], b"\x03\0\0\0", b"\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x35"]
        {
            let bytes = [b"\x05\x01\x00\x05\x03\x00", address].concat();
            let (_, end, _) = run(&Accounts::default(), &bytes, 2);
            assert_eq!(end, Step::Asked { consumed: 3 + address.len(), request: Request::Associate });
        }
    }

    #[test]
    fn no_message_outgrows_its_bound() {
        let mut entropy = SeededEntropy::new(12);
        let (password, open) = (accounts(), Accounts::default());
        for round in 0..20_000 {
            let mut handshake = Handshake::new(if round % 2 == 0 { &password } else { &open });
            let mut input: Vec<u8> = vec![5, 3, 0, 2, 1];
            loop {
                match handshake.step(&input) {
                    Step::More => {
                        assert!(input.len() < MAX_MESSAGE, "{input:?}");
                        input.push(match entropy.below(3) {
                            0 => entropy.next_u32() as u8,
                            _ => entropy.below(6) as u8,
                        });
                    }
                    Step::Send { consumed, .. } => drop(input.drain(..consumed)),
                    Step::Asked { consumed, .. } => break assert!(consumed <= input.len()),
                    Step::Refused(_) => break,
                }
            }
        }
    }
}
