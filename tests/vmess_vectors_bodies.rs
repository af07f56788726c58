//! Every known body, sealed and opened through both halves of a connection.
//!
//! The bytes were computed independently of the codec, and the way they were computed is proven against V2Ray.

#[path = "common/vmess_peer.rs"]
mod peer;

use peer::{
    NOW, Receiver, Script, alter_id, cmd_key, command, example, finish, list, number, options, seal,
    security, text, unhex, unhex_array, vectors,
};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::collections::VecDeque;
use vmesskit::entropy::Entropy;
use vmesskit::vmess::Command;
use vmesskit::vmess::chunk::Sealer;
use vmesskit::vmess::client::{self, Request, connect, connect_legacy};
use vmesskit::vmess::header::RequestHeader;
use vmesskit::vmess::keys::BodyKeys;
use vmesskit::vmess::response::ResponseHeader;
use vmesskit::vmess::server::{self, HeaderKind};

/// The token that the vectors' answers repeat.
const TOKEN: u8 = 0x5A;

/// Both halves of the connection that a case belongs to.
fn halves(case: &Value, kind: HeaderKind) -> (client::Connection, server::Connection) {
    let keys = BodyKeys { key: unhex_array(&case["req_key"]), iv: unhex_array(&case["req_iv"]) };
    let request = Request {
        command: command(case),
        target: example(),
        security: security(case),
        options: options(case),
        no_termination_signal: false,
    };
    let mut random = [keys.key, keys.iv].concat();
    random.push(TOKEN);
    random.resize(32 + 2 + 4 + 8 + 15, 0);
    let mut random = Script(random);
    let client = match kind {
        HeaderKind::Aead => connect(&cmd_key(), &request, NOW, &mut random),
        HeaderKind::Legacy => connect_legacy(&cmd_key(), &alter_id(), &request, NOW, &mut random),
    };
    let header = RequestHeader {
        keys,
        token: TOKEN,
        options: request.options,
        security: request.security,
        command: request.command,
        target: (request.command != Command::Mux).then(example),
    };
    let server = server::accept(&header, kind, &ResponseHeader::accept(TOKEN), false);
    (client.expect("legal"), server.expect("legal"))
}

/// The paddings of the vectors, packed as a sealer takes them: whole ones, as many as a batch holds.
struct Paddings(VecDeque<Vec<u8>>);

impl Entropy for Paddings {
    fn fill(&mut self, out: &mut [u8]) {
        let mut rest = out;
        while let Some(padding) = self.0.front() {
            let Some((head, tail)) = std::mem::take(&mut rest).split_at_mut_checked(padding.len()) else {
                return;
            };
            head.copy_from_slice(padding);
            self.0.pop_front();
            rest = tail;
        }
    }
}

impl Paddings {
    /// The paddings that follow from a label: SHA-256 over it and a counter, cut into these lengths.
    fn new(label: &str, lengths: impl Iterator<Item = usize>) -> Self {
        let mut bytes = (0_u32..).flat_map(|block| {
            Sha256::new().chain_update(label).chain_update(block.to_be_bytes()).finalize().to_vec()
        });
        // Those of no length are never asked for.
        Self(lengths.filter(|&len| len > 0).map(|len| bytes.by_ref().take(len).collect()).collect())
    }
}

fn check_sealed(sealer: &mut Sealer, case: &Value, payloads: &[Vec<u8>], chunks: &[Vec<u8>], name: &str) {
    let framing = sealer.framing();
    let lengths = payloads
        .iter()
        .zip(chunks)
        .map(|(payload, chunk)| chunk.len() - framing.head_len() - payload.len() - framing.overhead());
    let label = format!("vmess-pad-{}-{}-{}", case["sec"], case["opt"], case["cmd"]);
    let mut paddings = Paddings::new(&label, lengths);
    for (payload, known) in payloads.iter().zip(chunks) {
        let made = match payload.as_slice() {
            [] => finish(sealer, &mut paddings),
            payload => seal(sealer, payload, &mut paddings),
        };
        assert_eq!(&made, known, "{name}");
    }
    assert!(paddings.0.is_empty(), "{name}");
}

#[test]
fn bodies_both_ways() {
    let vectors = vectors();
    let (mut seen, mut requests) = (0, 0);
    for case in list(&vectors["body"]) {
        let name = format!(
            "{} sec {} opt {} cmd {} aead {}",
            case["direction"], case["sec"], case["opt"], case["cmd"], case["aead_header"]
        );
        let kind = if case["aead_header"] == true { HeaderKind::Aead } else { HeaderKind::Legacy };
        let payloads: Vec<Vec<u8>> = list(&case["chunk_payloads"]).iter().map(|p| unhex(text(p))).collect();
        let chunks: Vec<Vec<u8>> = list(&case["wire"]).iter().map(|chunk| unhex(text(chunk))).collect();
        let (mut client, mut server) = halves(case, kind);
        let received = if case["direction"] == "request" {
            requests += 1;
            check_sealed(&mut client.uplink, case, &payloads, &chunks, &name);
            let mut receiver = Receiver::new(server.uplink);
            chunks.iter().for_each(|chunk| receiver.feed(chunk).expect("authentic"));
            receiver.end()
        } else {
            check_sealed(&mut server.downlink, case, &payloads, &chunks, &name);
            let mut receiver = Receiver::new(client.downlink);
            receiver.feed(&server.header).expect("a valid answer");
            chunks.iter().for_each(|chunk| receiver.feed(chunk).expect("authentic"));
            receiver.end()
        };
        let received = received.expect("a proper end");
        assert_eq!(received.ended, payloads.iter().any(Vec::is_empty), "{name}");
        let sent: Vec<_> = payloads.into_iter().filter(|payload| !payload.is_empty()).collect();
        assert_eq!(received.payloads, sent, "{name}");
        seen += 1;
    }
    assert_eq!((seen, requests), (63, 21));
    let opts = list(&vectors["body"]).iter().map(|case| number(&case["opt"]));
    assert_eq!(opts.fold(0, |all, bits| all | bits), 0x1D, "every option bit");
}
