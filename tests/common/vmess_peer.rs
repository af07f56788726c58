//! What the VMess tests share: the known answers, a scripted source of randomness, and a tiny server.
#![allow(dead_code, reason = "each test binary uses its own part of this file")]

use serde_json::Value;
use std::ops::Range;
use vmesskit::addr::{Host, Target};
use vmesskit::buffer::{HEADROOM, TAILROOM};
use vmesskit::entropy::Entropy;
use vmesskit::vmess::auth::AuthCipher;
use vmesskit::vmess::chunk::{Framing, OpenError, Opened, Opener, Sealer, TERMINATOR};
use vmesskit::vmess::client::{Connection, Downlink, Request, connect};
use vmesskit::vmess::envelope::{self, REQUEST_PREFIX, TAG};
use vmesskit::vmess::header::RequestHeader;
use vmesskit::vmess::keys::BodyKeys;
use vmesskit::vmess::response::ResponseHeader;
use vmesskit::vmess::{CmdKey, Command, Id, Options, Security};

/// The id of every test connection.
pub(crate) const ID: &str = "b831381d-6324-4d53-ad4f-8cda48b30811";
/// The time of every test connection, in unix seconds.
pub(crate) const NOW: i64 = 1_700_000_000;

/// The command key of [`ID`].
pub(crate) fn cmd_key() -> CmdKey {
    Id::parse(ID).expect("a UUID").0.cmd_key()
}

/// All known answers.
pub(crate) fn vectors() -> Value {
    serde_json::from_str(include_str!("../data/vmess-vectors.json")).expect("valid JSON")
}

/// Reads hexadecimal digits.
pub(crate) fn unhex(text: &str) -> Vec<u8> {
    assert!(text.len().is_multiple_of(2), "odd number of digits in {text}");
    (0..text.len()).step_by(2).map(|i| u8::from_str_radix(&text[i..i + 2], 16).expect("hex")).collect()
}

/// Reads a hexadecimal text of exactly `N` bytes.
pub(crate) fn unhex_array<const N: usize>(value: &Value) -> [u8; N] {
    unhex(text(value)).try_into().expect("right length")
}

/// A JSON string.
pub(crate) fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("{value} is not a string"))
}

/// A JSON number.
pub(crate) fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("{value} is not a number"))
}

/// A JSON array.
pub(crate) fn list(value: &Value) -> &[Value] {
    value.as_array().unwrap_or_else(|| panic!("{value} is not a list"))
}

/// Randomness that was decided beforehand; it must suffice.
pub(crate) struct Script(pub(crate) Vec<u8>);

impl Entropy for Script {
    fn fill(&mut self, out: &mut [u8]) {
        assert!(out.len() <= self.0.len(), "the script is too short");
        let rest = self.0.split_off(out.len());
        out.copy_from_slice(&self.0);
        self.0 = rest;
    }
}

/// Seals `payload` the way the engine does: in a slab with head and tail room.
pub(crate) fn seal(sealer: &mut Sealer, payload: &[u8], entropy: &mut dyn Entropy) -> Vec<u8> {
    let mut slab = vec![0; HEADROOM + payload.len() + TAILROOM];
    let range = HEADROOM..HEADROOM + payload.len();
    slab[range.clone()].copy_from_slice(payload);
    let chunk = sealer.seal(&mut slab, range, entropy).expect("a legal payload");
    slab[chunk].to_vec()
}

/// The terminating chunk, or nothing.
pub(crate) fn finish(sealer: &mut Sealer, entropy: &mut dyn Entropy) -> Vec<u8> {
    let mut out = [0; TERMINATOR];
    let len = sealer.finish(&mut out, entropy).unwrap_or(0);
    out[..len].to_vec()
}

/// Anything that opens a direction.
pub(crate) trait Open {
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
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Received {
    /// The payloads, one entry a chunk. Without chunks the cuts mean nothing.
    pub(crate) payloads: Vec<Vec<u8>>,
    /// Whether the terminating chunk came.
    pub(crate) ended: bool,
}

impl Received {
    /// All payload in one piece.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.payloads.concat()
    }
}

/// A receive buffer around an opener, as the engine has one.
pub(crate) struct Receiver<O> {
    pub(crate) opener: O,
    pub(crate) received: Received,
    input: Vec<u8>,
}

impl<O: Open> Receiver<O> {
    pub(crate) fn new(opener: O) -> Self {
        Self { opener, received: Received::default(), input: Vec::new() }
    }

    /// Takes what came from the wire, and opens as much as is whole.
    pub(crate) fn feed(&mut self, wire: &[u8]) -> Result<(), OpenError> {
        self.input.extend_from_slice(wire);
        let mut start = 0;
        loop {
            let rest = &mut self.input[start..];
            match self.opener.open(rest)? {
                Opened::Need(n) => {
                    assert!(n > rest.len(), "asked for {n} bytes with {} at hand", rest.len());
                    break;
                }
                Opened::Data { payload, consumed } => {
                    assert!(consumed > 0 && consumed <= rest.len() && payload.end <= consumed);
                    if !payload.is_empty() {
                        self.received.payloads.push(rest[payload].to_vec());
                    }
                    start += consumed;
                }
                Opened::End { consumed } => {
                    assert_eq!(consumed, rest.len(), "what follows the end is consumed");
                    self.received.ended = true;
                    start += consumed;
                    break;
                }
            }
        }
        self.input.drain(..start);
        Ok(())
    }

    /// The carrier has ended.
    pub(crate) fn end(self) -> Result<Received, OpenError> {
        self.opener.check_end().map(|()| self.received)
    }
}

/// Opens a whole direction, delivered in pieces of the lengths that `cut` gives, and its end.
pub(crate) fn receive<O: Open>(
    opener: O,
    wire: &[u8],
    mut cut: impl FnMut() -> usize,
) -> Result<Received, OpenError> {
    let mut receiver = Receiver::new(opener);
    let mut rest = wire;
    while !rest.is_empty() {
        let (piece, later) = rest.split_at(cut().clamp(1, rest.len()));
        receiver.feed(piece)?;
        rest = later;
    }
    receiver.end()
}

/// A server's half of a connection, made of the parts that both sides share.
pub(crate) struct Server {
    pub(crate) header: RequestHeader,
    pub(crate) uplink: Opener,
    pub(crate) downlink: Sealer,
    /// Where in the bytes that came the uplink's body begins.
    pub(crate) body: Range<usize>,
    response_keys: BodyKeys,
}

impl Server {
    /// Reads a request that came whole, body behind it.
    pub(crate) fn accept(cmd_key: &CmdKey, wire: &[u8]) -> Self {
        let (prefix, rest) = wire.split_at(REQUEST_PREFIX);
        let auth_id = prefix[..16].try_into().expect("16 bytes");
        let (length, nonce) = prefix[16..].split_at(18);
        let nonce = nonce.try_into().expect("8 bytes");
        assert_eq!(AuthCipher::new(cmd_key).open(&auth_id), Some(NOW));
        let length = length.try_into().expect("18 bytes");
        let len = envelope::open_request_length(cmd_key, &auth_id, &nonce, length).expect("authentic length");
        let mut sealed = rest[..len + TAG].to_vec();
        let plain = envelope::open_request(cmd_key, &auth_id, &nonce, &mut sealed).expect("authentic header");
        let header = RequestHeader::decode(plain).expect("legal header");
        let framing = Framing::new(header.security, header.options, header.command).expect("legal framing");
        let response_keys = header.keys.response();
        Self {
            uplink: Opener::new(framing, &header.keys, &header.keys),
            downlink: Sealer::new(framing, &response_keys, &header.keys),
            body: REQUEST_PREFIX + len + TAG..wire.len(),
            response_keys,
            header,
        }
    }

    /// The response header that accepts the request, sealed.
    pub(crate) fn answer(&self) -> Vec<u8> {
        self.answer_with(ResponseHeader::accept(self.header.token))
    }

    /// Any response header, sealed.
    pub(crate) fn answer_with(&self, header: ResponseHeader<'_>) -> Vec<u8> {
        envelope::seal_response(&self.response_keys, &header.encode().expect("fits"))
    }

    /// Any bytes as a response header, sealed.
    pub(crate) fn answer_bytes(&self, plain: &[u8]) -> Vec<u8> {
        envelope::seal_response(&self.response_keys, plain)
    }
}

/// A target for requests whose target does not matter.
pub(crate) fn example() -> Target {
    Target::new(Host::parse("example.com").expect("legal"), 443)
}

/// Every combination of security, options and command that either side may meet on the wire.
pub(crate) fn combinations() -> Vec<Request> {
    let sealed = [0x00, 0x01, 0x05, 0x0D, 0x10, 0x11, 0x15, 0x1D];
    let bare = [0x00, 0x01, 0x05, 0x0D];
    let mut all = Vec::new();
    for (security, options) in [
        (Security::Aes128Gcm, &sealed[..]),
        (Security::Chacha20Poly1305, &sealed),
        (Security::None, &bare),
        (Security::Zero, &bare[..2]),
    ] {
        for command in [Command::Tcp, Command::Udp] {
            all.extend(options.iter().map(|&bits| Request {
                command,
                target: example(),
                security,
                options: Options(bits),
                no_termination_signal: false,
            }));
        }
    }
    all
}

/// Both halves of a connection whose request has been read.
pub(crate) fn pair(request: &Request, entropy: &mut dyn Entropy) -> (Connection, Server) {
    let client = connect(&cmd_key(), request, NOW, entropy).expect("a legal request");
    let server = Server::accept(&cmd_key(), &client.header);
    (client, server)
}
