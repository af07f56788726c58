//! What the VMess tests share: the known answers, a scripted source of randomness, and a server that reads
//! whole requests.
#![allow(dead_code, reason = "each test binary uses its own part of this file")]

use serde_json::Value;
use std::ops::Range;
use vmesskit::addr::{Host, Target};
use vmesskit::buffer::{HEADROOM, TAILROOM};
use vmesskit::entropy::Entropy;
use vmesskit::vmess::auth::AuthCipher;
use vmesskit::vmess::chunk::{OpenError, Opened, Opener, Sealer, TERMINATOR};
use vmesskit::vmess::client::{Connection, Downlink, Request, connect, connect_legacy};
use vmesskit::vmess::envelope::{self, REQUEST_PREFIX, TAG};
use vmesskit::vmess::header::RequestHeader;
use vmesskit::vmess::legacy::{self, AUTH_LEN, HeaderCipher};
use vmesskit::vmess::response::ResponseHeader;
use vmesskit::vmess::server::{self, HeaderKind};
use vmesskit::vmess::{CmdKey, Command, Id, Options, Security, account};

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

/// The security of a known answer.
pub(crate) fn security(case: &Value) -> Security {
    let code = number(&case["sec"]).try_into().expect("a byte");
    Security::from_code(code).expect("known security")
}

/// The options of a known answer.
pub(crate) fn options(case: &Value) -> Options {
    Options(number(&case["opt"]).try_into().expect("a byte"))
}

/// The command of a known answer.
pub(crate) fn command(case: &Value) -> Command {
    match number(&case["cmd"]) {
        1 => Command::Tcp,
        2 => Command::Udp,
        _ => Command::Mux,
    }
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

/// Both kinds of request header.
pub(crate) const KINDS: [HeaderKind; 2] = [HeaderKind::Aead, HeaderKind::Legacy];

/// The alter ids of [`ID`], of which a legacy client here uses the last.
pub(crate) fn alter_id() -> Id {
    account::alter_ids(&Id::parse(ID).expect("a UUID").0, 4).last().expect("four of them")
}

/// A client's half of a connection under either kind of header.
pub(crate) fn connect_as(kind: HeaderKind, request: &Request, entropy: &mut dyn Entropy) -> Connection {
    let made = match kind {
        HeaderKind::Aead => connect(&cmd_key(), request, NOW, entropy),
        HeaderKind::Legacy => connect_legacy(&cmd_key(), &alter_id(), request, NOW, entropy),
    };
    made.expect("a legal request")
}

/// A server's half of a connection.
pub(crate) struct Server {
    pub(crate) header: RequestHeader,
    pub(crate) uplink: Opener,
    pub(crate) downlink: Sealer,
    /// Where in the bytes that came the uplink's body begins.
    pub(crate) body: Range<usize>,
    kind: HeaderKind,
    answer: Vec<u8>,
}

impl Server {
    /// Reads a request that came whole under an AEAD header, body behind it, and accepts it.
    pub(crate) fn accept(wire: &[u8]) -> Self {
        Self::accept_as(HeaderKind::Aead, wire, |header| ResponseHeader::accept(header.token))
    }

    /// Reads a request that came whole, body behind it, and answers as `answer` says.
    pub(crate) fn accept_as<'a>(
        kind: HeaderKind,
        wire: &[u8],
        answer: impl FnOnce(&RequestHeader) -> ResponseHeader<'a>,
    ) -> Self {
        let (header, len) = match kind {
            HeaderKind::Aead => read_aead(wire),
            HeaderKind::Legacy => read_legacy(wire),
        }
        .expect("an authentic header");
        let made = server::accept(&header, kind, &answer(&header), false).expect("a legal framing");
        let server::Connection { header: answer, uplink, downlink } = made;
        Self { header, uplink, downlink, body: len..wire.len(), kind, answer }
    }

    /// The response header, sealed.
    pub(crate) fn answer(&self) -> Vec<u8> {
        self.answer.clone()
    }

    /// Any response header, sealed.
    pub(crate) fn answer_with(&self, header: ResponseHeader<'_>) -> Vec<u8> {
        server::accept(&self.header, self.kind, &header, false).expect("as before").header
    }

    /// Any bytes as a response header, sealed as under an AEAD header.
    pub(crate) fn answer_bytes(&self, plain: &[u8]) -> Vec<u8> {
        envelope::seal_response(&self.header.keys.response(), plain)
    }
}

/// Reads an AEAD header, made at [`NOW`]: what it says and how long it is. `None` if it does not authenticate.
pub(crate) fn read_aead(wire: &[u8]) -> Option<(RequestHeader, usize)> {
    let key = cmd_key();
    let (prefix, rest) = wire.split_first_chunk::<REQUEST_PREFIX>()?;
    let (auth_id, prefix) = prefix.split_first_chunk::<16>()?;
    let (&length, nonce) = prefix.split_first_chunk()?;
    let nonce = nonce.try_into().expect("8 bytes");
    AuthCipher::new(&key).open(auth_id).filter(|&time| time == NOW)?;
    let len = envelope::open_request_length(&key, auth_id, &nonce, length).ok()? + TAG;
    let mut sealed = rest.get(..len)?.to_vec();
    let plain = envelope::open_request(&key, auth_id, &nonce, &mut sealed).ok()?;
    Some((RequestHeader::decode(plain).expect("what is authentic is legal"), REQUEST_PREFIX + len))
}

/// Reads a legacy header, signed at [`NOW`], no byte further than it goes: what it says and how long it is.
/// `None` if it is not that or fails its checksum.
pub(crate) fn read_legacy(wire: &[u8]) -> Option<(RequestHeader, usize)> {
    let (auth, rest) = wire.split_first_chunk::<AUTH_LEN>()?;
    if *auth != legacy::auth(&alter_id(), NOW) {
        return None;
    }
    let (mut cipher, mut plain) = (HeaderCipher::new(&cmd_key(), NOW), Vec::new());
    loop {
        let len = RequestHeader::extent(&plain).ok()?;
        if len == plain.len() {
            return RequestHeader::decode(&plain).ok().map(|header| (header, AUTH_LEN + len));
        }
        let mut more = rest.get(plain.len()..len)?.to_vec();
        cipher.decrypt(&mut more);
        plain.append(&mut more);
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
        (Security::Aes128Cfb, &sealed),
        (Security::None, &bare),
        (Security::Zero, &bare[..2]),
    ] {
        for command in [Command::Tcp, Command::Udp, Command::Mux] {
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

/// The same, each under both kinds of header.
pub(crate) fn all_combinations() -> impl Iterator<Item = (HeaderKind, Request)> {
    KINDS.into_iter().flat_map(|kind| combinations().into_iter().map(move |request| (kind, request)))
}

/// Both halves of a connection under an AEAD header whose request has been read.
pub(crate) fn pair(request: &Request, entropy: &mut dyn Entropy) -> (Connection, Server) {
    pair_as(HeaderKind::Aead, request, entropy)
}

/// Both halves of a connection whose request has been read.
pub(crate) fn pair_as(
    kind: HeaderKind,
    request: &Request,
    entropy: &mut dyn Entropy,
) -> (Connection, Server) {
    let client = connect_as(kind, request, entropy);
    let server = Server::accept_as(kind, &client.header, |header| ResponseHeader::accept(header.token));
    (client, server)
}
