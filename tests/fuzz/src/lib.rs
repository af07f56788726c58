//! What the fuzz targets share: an input taken apart field by field, cuts of a byte stream, and the users of a server.
//!
//! A target reads the parameters of a case from the front of its input and takes the rest as what a peer sent. Nothing is
//! random and no state outlives a case, so every finding can be had again from its input.

use vmesskit::addr::{Host, Target};
use vmesskit::entropy::SeededEntropy;
use vmesskit::vmess::chunk::{OpenError, Opened, Opener};
use vmesskit::vmess::client::Downlink;
use vmesskit::vmess::gate::{Gate, GateLimits, User, Users};
use vmesskit::vmess::{Command, Id, Options, Security};

/// The time of every case, in unix seconds.
pub const NOW: i64 = 1_700_000_000;

/// What is left of an input.
#[derive(Debug, Clone, Copy)]
pub struct Input<'a>(pub &'a [u8]);

impl<'a> Input<'a> {
    /// The next byte; 0 behind the end.
    pub fn byte(&mut self) -> u8 {
        let Some((&first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        first
    }

    /// The next two bytes.
    pub fn short(&mut self) -> u16 {
        u16::from_be_bytes([self.byte(), self.byte()])
    }

    /// The next byte as a number below `bound`.
    pub fn below(&mut self, bound: u8) -> u8 {
        self.byte() % bound
    }

    /// The next byte as a coin.
    pub fn flag(&mut self) -> bool {
        self.byte() & 1 != 0
    }

    /// The next `len` bytes, or what there is.
    pub fn take(&mut self, len: usize) -> &'a [u8] {
        let (head, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        head
    }

    /// Whether nothing is left.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A security that may be settled on.
    pub fn security(&mut self) -> Security {
        const SETTLED: [Security; 5] = [
            Security::Aes128Gcm,
            Security::Chacha20Poly1305,
            Security::None,
            Security::Zero,
            Security::Aes128Cfb,
        ];
        SETTLED[usize::from(self.below(5))]
    }

    /// A command.
    pub fn command(&mut self) -> Command {
        [Command::Tcp, Command::Udp, Command::Mux][usize::from(self.below(3))]
    }

    /// Option bits.
    pub fn options(&mut self) -> Options {
        Options(self.byte())
    }
}

/// The lengths of the pieces in which a stream comes: a small generator that a byte of the input seeds.
#[derive(Debug, Clone)]
pub struct Cuts(u32);

impl Cuts {
    /// The cuts that follow from `seed`: 0 for all at once, 1 for single bytes.
    pub const fn new(seed: u8) -> Self {
        Self(seed as u32)
    }

    /// How many of `left` bytes come next: at least one.
    pub fn next(&mut self, left: usize) -> usize {
        let len = match self.0 {
            0 => left,
            1 => 1,
            _ => {
                self.0 = self.0.wrapping_mul(1_103_515_245).wrapping_add(12_345) | 2;
                1 + (self.0 >> 16) as usize % if self.0 & 0x1000 == 0 { 8 } else { 600 }
            }
        };
        len.clamp(1, left.max(1))
    }

    /// Where the pieces of `len` bytes end, the last of them at `len`.
    pub fn ends(seed: u8, len: usize) -> Vec<usize> {
        let (mut cuts, mut at, mut ends) = (Self::new(seed), 0, Vec::new());
        while at < len {
            at += cuts.next(len - at);
            ends.push(at);
        }
        ends
    }
}

/// Anything that opens one direction of a connection.
pub trait Open {
    /// As [`Opener::open`].
    fn open(&mut self, input: &mut [u8]) -> Result<Opened, OpenError>;
    /// As [`Opener::check_end`].
    fn check_end(&self) -> Result<(), OpenError>;
}

impl Open for Opener {
    fn open(&mut self, input: &mut [u8]) -> Result<Opened, OpenError> {
        Opener::open(self, input)
    }

    fn check_end(&self) -> Result<(), OpenError> {
        Opener::check_end(self)
    }
}

impl Open for Downlink {
    fn open(&mut self, input: &mut [u8]) -> Result<Opened, OpenError> {
        Downlink::open(self, input)
    }

    fn check_end(&self) -> Result<(), OpenError> {
        Downlink::check_end(self)
    }
}

/// What came out of a direction.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Received {
    /// All payload.
    pub bytes: Vec<u8>,
    /// Whether the terminating chunk came.
    pub ended: bool,
    /// What ended it before, or what the end of the carrier was.
    pub error: Option<OpenError>,
}

/// Opens all of `wire`, cut as `cuts` says, and holds every answer against what is promised of it.
pub fn receive(opener: &mut dyn Open, wire: &[u8], cuts: u8) -> Received {
    let (mut input, mut start, mut received) = (Vec::new(), 0, Received::default());
    for end in Cuts::ends(cuts, wire.len()) {
        input.extend_from_slice(&wire[input.len()..end]);
        loop {
            let rest = &mut input[start..];
            let have = rest.len();
            match opener.open(rest) {
                Ok(Opened::Need(need)) => {
                    assert!(need > have, "asks for {need} bytes with {have} at hand");
                    assert!(need <= 2 + 16 + 65_535 + 16, "no chunk has {need} bytes");
                    break;
                }
                Ok(Opened::Data { payload, consumed }) => {
                    assert!(0 < consumed && consumed <= have && payload.end <= consumed);
                    assert!(payload.start <= payload.end);
                    received.bytes.extend_from_slice(&rest[payload]);
                    start += consumed;
                }
                Ok(Opened::End { consumed }) => {
                    assert_eq!(consumed, have, "what is behind the end is consumed");
                    received.ended = true;
                    start += consumed;
                    break;
                }
                Err(error) => {
                    assert_eq!(opener.open(&mut []), Err(error), "an error stays");
                    assert_eq!(opener.check_end(), Err(error), "an error is the end");
                    received.error = Some(error);
                    return received;
                }
            }
        }
    }
    received.error = opener.check_end().err();
    received
}

/// The `n`th user, with so many alter ids.
pub fn user(n: u8, alter_id: u16) -> User {
    let id = Id::from_bytes([n.wrapping_add(1); 16]);
    User { id, alter_id, level: 0, email: "user".into(), no_termination_signal: false }
}

/// A server's gate with a memory of a few connections; it has run for a while.
pub fn gate(users: Vec<User>) -> Gate {
    let limits = GateLimits { replay_entries: 8, replay_per_user: 4, legacy_tags: 10_000 };
    let gate = Gate::new(Users::new(users), limits, NOW - 1000, &mut SeededEntropy::new(1));
    gate.advance(NOW);
    gate
}

/// A target that stands where none matters.
pub fn somewhere() -> Target {
    Target { host: Host::parse("example.com").expect("a name"), port: 443 }
}
