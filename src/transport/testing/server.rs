//! A VMess server with one user, for tests of what a client's end does.

use crate::addr::Target;
use crate::buffer::{HEADROOM, TAILROOM};
use crate::entropy::SeededEntropy;
use crate::vmess::auth::AuthCipher;
use crate::vmess::chunk::{Framing, Opened, Opener, TERMINATOR};
use crate::vmess::client::{self, Connection, Request};
use crate::vmess::envelope::{self, REQUEST_PREFIX, TAG};
use crate::vmess::header::RequestHeader;
use crate::vmess::response::ResponseHeader;
use crate::vmess::server::{self, HeaderKind};
use crate::vmess::{CmdKey, Command, Id, Security};

const NOW: i64 = 1_700_000_000;

fn cmd_key() -> CmdKey {
    Id::from_bytes([7; 16]).cmd_key()
}

/// A new client's half of a connection to `example.com:443`.
pub(crate) fn request(command: Command, security: Security) -> Connection {
    let target = Target { host: crate::addr::Host::Domain("example.com".into()), port: 443 };
    let request = Request::new(command, target, security, false, false, false);
    client::connect(&cmd_key(), &request, NOW, &mut SeededEntropy::new(3)).expect("a legal request")
}

/// The server that [`request`] is made of.
pub(crate) struct Server {
    /// The request.
    pub(crate) header: RequestHeader,
    /// The payload of each chunk so far.
    pub(crate) chunks: Vec<Vec<u8>>,
    /// Whether the terminating chunk has come.
    pub(crate) ended: bool,
    connection: server::Connection,
    entropy: SeededEntropy,
    input: Vec<u8>,
}

impl Server {
    /// Reads a request and what is behind it.
    pub(crate) fn accept(wire: &[u8]) -> Self {
        let key = cmd_key();
        let (prefix, rest) = wire.split_at(REQUEST_PREFIX);
        let auth_id = prefix[..16].try_into().expect("16 bytes");
        assert_eq!(AuthCipher::new(&key).open(&auth_id), Some(NOW));
        let (length, nonce) = prefix[16..].split_at(18);
        let (length, nonce) = (length.try_into().expect("18 bytes"), nonce.try_into().expect("8 bytes"));
        let len = envelope::open_request_length(&key, &auth_id, &nonce, length).expect("authentic length");
        let mut sealed = rest[..len + TAG].to_vec();
        let plain = envelope::open_request(&key, &auth_id, &nonce, &mut sealed).expect("authentic header");
        let header = RequestHeader::decode(plain).expect("a legal header");
        let answer = ResponseHeader::accept(header.token);
        let mut connection =
            server::accept(&header, HeaderKind::Aead, &answer, false).expect("a legal request");
        // As every other server, it takes an empty chunk for the end wherever that comes.
        let framing = Framing::new(header.security, header.options, header.command).expect("a legal framing");
        connection.uplink = Opener::new(framing, &header.keys, &header.keys);
        let mut server = Self {
            connection,
            chunks: Vec::new(),
            ended: false,
            entropy: SeededEntropy::new(5),
            input: Vec::new(),
            header,
        };
        server.receive(&rest[len + TAG..]);
        server
    }

    /// Takes more of what the client sent.
    pub(crate) fn receive(&mut self, wire: &[u8]) {
        self.input.extend_from_slice(wire);
        while !self.input.is_empty() && !self.ended {
            let consumed = match self.connection.uplink.open(&mut self.input).expect("authentic chunks") {
                Opened::Need(_) => return,
                Opened::Data { payload, consumed } => {
                    self.chunks.push(self.input[payload].to_vec());
                    consumed
                }
                Opened::End { consumed } => {
                    self.ended = true;
                    consumed
                }
            };
            self.input.drain(..consumed);
        }
    }

    /// All payload in one piece.
    pub(crate) fn payload(&self) -> Vec<u8> {
        self.chunks.concat()
    }

    /// The response header.
    pub(crate) fn answer(&self) -> Vec<u8> {
        self.connection.header.clone()
    }

    /// A chunk.
    pub(crate) fn seal(&mut self, payload: &[u8]) -> Vec<u8> {
        let mut slab = vec![0; HEADROOM + payload.len() + TAILROOM];
        let range = HEADROOM..HEADROOM + payload.len();
        slab[range.clone()].copy_from_slice(payload);
        let chunk =
            self.connection.downlink.seal(&mut slab, range, &mut self.entropy).expect("a legal payload");
        slab[chunk].to_vec()
    }

    /// The terminating chunk, or nothing.
    pub(crate) fn finish(&mut self) -> Vec<u8> {
        let mut out = [0; TERMINATOR];
        let len = self.connection.downlink.finish(&mut out, &mut self.entropy).unwrap_or(0);
        out[..len].to_vec()
    }
}
