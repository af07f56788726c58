//! One byte of the wire changed: every change is an error, except where the format has nothing that would
//! notice.
//!
//! Nothing notices a changed padding (accepted), a changed mask (the size is another: an error, or a wait for
//! bytes that never come), the option and command bytes of a legacy answer, and anything at all in an
//! unprotected body or an AES-CFB body without chunks. A checksum notices accidents in the chunks of AES-CFB,
//! and whoever knows what is in one can change both.

#[path = "common/vmess_peer.rs"]
mod peer;

use peer::{
    KINDS, Receiver, combinations, connect_as, finish, pair_as, read_aead, read_legacy, receive, seal,
};
use vmesskit::entropy::{Entropy, SeededEntropy};
use vmesskit::vmess::chunk::{OpenError, Opener, Sealer};
use vmesskit::vmess::client::Request;
use vmesskit::vmess::fnv::fnv1a;
use vmesskit::vmess::keys::BodyKeys;
use vmesskit::vmess::server::HeaderKind;
use vmesskit::vmess::{Command, Options, Security, chunk};

const SEED: u64 = 4;

/// What a byte on the wire belongs to.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Part {
    Answer,
    Size,
    Data,
    Padding,
}

/// A protected downlink: its bytes, what each is, and what it carries.
fn downlink(kind: HeaderKind, request: &Request) -> (Vec<u8>, Vec<Part>, Vec<u8>) {
    let mut entropy = SeededEntropy::new(SEED);
    let (_, mut server) = pair_as(kind, request, &mut entropy);
    let mut wire = server.answer();
    let mut parts = vec![Part::Answer; wire.len()];
    let framing = server.downlink.framing();
    let payloads: [&[u8]; 3] = [b"first", b"the second chunk", b""];
    for payload in payloads {
        let chunk = match payload {
            [] => finish(&mut server.downlink, &mut entropy),
            payload => seal(&mut server.downlink, payload, &mut entropy),
        };
        let sealed = framing.head_len() + payload.len() + framing.overhead();
        parts.extend((0..chunk.len()).map(|i| match i {
            i if i < framing.head_len() => Part::Size,
            i if i < sealed => Part::Data,
            _ => Part::Padding,
        }));
        wire.extend(chunk);
    }
    (wire, parts, payloads.concat())
}

/// What must come of a changed byte.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Fate {
    /// This error.
    Error(OpenError),
    /// Some error, or a wait that the carrier's end tells.
    Caught,
    /// Nothing: all payload comes.
    Unnoticed,
    /// Either of the two.
    Any,
}

fn fate(kind: HeaderKind, request: &Request, part: Part, at: usize) -> Fate {
    let cfb = request.security == Security::Aes128Cfb;
    let sealed_sizes = request.options.contains(Options::AUTHENTICATED_LENGTH) && !cfb;
    match (part, kind) {
        (Part::Answer, HeaderKind::Aead) => Fate::Error(OpenError::ForgedResponse),
        (Part::Answer, HeaderKind::Legacy) if at == 0 => Fate::Error(OpenError::ForgedResponse),
        // The length of a command that nobody sent.
        (Part::Answer, HeaderKind::Legacy) if at == 3 => Fate::Caught,
        // In the same stream as the body a change spreads to the next block, be that data or padding.
        (Part::Answer, HeaderKind::Legacy) if cfb => Fate::Any,
        (Part::Answer, HeaderKind::Legacy) => Fate::Unnoticed,
        (Part::Data, _) => Fate::Error(OpenError::Forged),
        (Part::Size, _) if sealed_sizes => Fate::Error(OpenError::Forged),
        (Part::Size, _) => Fate::Caught,
        // Here too it spreads, to the next chunk if that is near.
        (Part::Padding, _) if cfb => Fate::Any,
        (Part::Padding, _) => Fate::Unnoticed,
    }
}

#[test]
fn every_flip_in_a_downlink() {
    let chunked = |request: &Request| {
        !matches!(request.security, Security::None | Security::Zero)
            && request.options.contains(Options::CHUNK_STREAM)
            // To a protected body the command makes no difference.
            && request.command == Command::Tcp
    };
    for (kind, request) in peer::all_combinations().filter(|(_, request)| chunked(request)) {
        let (wire, parts, payload) = downlink(kind, &request);
        let (mut seen, mut noticed) = ([0; 4], 0);
        for (at, &part) in parts.iter().enumerate() {
            let case = format!("{part:?} at {at} under {kind:?} of {request:?}");
            let mut changed = wire.clone();
            changed[at] ^= 1 << (at % 8);
            let client = connect_as(kind, &request, &mut SeededEntropy::new(SEED));
            let mut receiver = Receiver::new(client.downlink);
            let fed = receiver.feed(&changed);
            assert!(
                payload.starts_with(&receiver.received.bytes()),
                "changed payload was handed out: {case}"
            );
            let ended = receiver.end();
            let whole = ended.as_ref().is_ok_and(|ended| ended.ended && ended.bytes() == payload);
            match fate(kind, &request, part, at) {
                Fate::Error(error) => assert_eq!(fed, Err(error), "{case}"),
                Fate::Caught => {
                    let caught = [OpenError::Forged, OpenError::Undersized, OpenError::Truncated];
                    let unanswered = part == Part::Answer && ended == Err(OpenError::Unanswered);
                    let told = ended.as_ref().is_err_and(|error| caught.contains(error));
                    assert!(told || unanswered, "{case}: {ended:?}");
                }
                Fate::Unnoticed => assert!(whole, "{case}"),
                Fate::Any => assert!(whole || ended.is_err(), "{case}"),
            }
            seen[part as usize] += 1;
            noticed += usize::from(!whole);
        }
        assert!(noticed >= wire.len() - seen[Part::Padding as usize] - 2, "{noticed} of {}", wire.len());
        let answer = if kind == HeaderKind::Aead { 38 } else { 4 };
        assert_eq!(seen[Part::Answer as usize], answer);
        let padded = request.options.contains(Options::GLOBAL_PADDING);
        assert_eq!(seen[Part::Padding as usize] > 0, padded, "paddings in {request:?}");
    }
}

/// What a checksum without a key does not notice: a change by somebody who knows what was sent.
///
/// In the last block of what has been sent every bit can be set at will, the checksum's too. This is why
/// AES-CFB is for servers that have nothing else, and behind TLS.
#[test]
fn a_known_payload_under_aes_cfb_can_be_changed_with_its_checksum() {
    let framing = chunk::Framing::new(Security::Aes128Cfb, Options(0x05), Command::Tcp);
    let framing = framing.expect("legal");
    let keys = BodyKeys { key: [1; 16], iv: [2; 16] };
    let (known, wanted) = (b"pay 1 coin", b"pay 9 coin");
    let mut wire = seal(&mut Sealer::new(framing, &keys, &keys), known, &mut SeededEntropy::new(1));
    let change = |data: &[u8; 10]| [&fnv1a(data).to_be_bytes()[..], data].concat();
    let (before, after) = (change(known), change(wanted));
    for (byte, (before, after)) in wire[2..].iter_mut().zip(before.iter().zip(&after)) {
        *byte ^= before ^ after;
    }
    let received = receive(Opener::new(framing, &keys, &keys), &wire, || 1).expect("it passes");
    assert_eq!(received.bytes(), wanted);
}

#[test]
fn every_flip_in_a_request_header() {
    let request = combinations().remove(0);
    for kind in KINDS {
        let mut wire = connect_as(kind, &request, &mut SeededEntropy::new(SEED)).header;
        let len = wire.len();
        // A body behind it: a length that was made larger finds bytes.
        wire.resize(len + 400, 0x5A);
        let read = |wire: &[u8]| match kind {
            HeaderKind::Aead => read_aead(wire),
            HeaderKind::Legacy => read_legacy(wire),
        };
        assert_eq!(read(&wire).map(|(_, read)| read), Some(len));
        for bit in 0..len * 8 {
            let mut changed = wire.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(read(&changed).is_none(), "bit {bit} of {kind:?}");
        }
    }
}

#[test]
fn noise_never_panics() {
    let mut entropy = SeededEntropy::new(9);
    for (kind, request) in peer::all_combinations() {
        for _ in 0..25 {
            let (client, server) = pair_as(kind, &request, &mut entropy);
            let mut noise = vec![0; entropy.below(3000) as usize];
            entropy.fill(&mut noise);
            // Either is an error or a wait; with unprotected bodies it may be payload.
            Receiver::new(client.downlink).feed(&noise).ok();
            let mut answered = server.answer();
            answered.extend(&noise);
            let (client, _) = pair_as(kind, &request, &mut entropy);
            Receiver::new(client.downlink).feed(&answered).ok();
            Receiver::new(server.uplink).feed(&noise).ok();
        }
    }
}
