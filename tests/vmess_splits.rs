//! The same transcript in every split: how the carrier cuts the bytes must not matter.

#[path = "common/vmess_peer.rs"]
mod peer;

use peer::{Received, all_combinations, finish, pair_as, receive, seal};
use vmesskit::entropy::{Entropy, SeededEntropy};
use vmesskit::vmess::client::Request;
use vmesskit::vmess::server::HeaderKind;
use vmesskit::vmess::{Command, Options, Security};

const SEED: u64 = 77;

/// The wire bytes of both directions and what they carry.
fn transcript(kind: HeaderKind, request: &Request) -> (Vec<u8>, Vec<u8>, Vec<Vec<u8>>) {
    let mut entropy = SeededEntropy::new(SEED);
    let (mut client, mut server) = pair_as(kind, request, &mut entropy);
    let payloads: Vec<Vec<u8>> = [1, 40, 2, 300, 7].iter().map(|&n| vec![n as u8; n]).collect();
    let (mut up, mut down) = (Vec::new(), server.answer());
    for payload in &payloads {
        up.extend(seal(&mut client.uplink, payload, &mut entropy));
        down.extend(seal(&mut server.downlink, payload, &mut entropy));
    }
    up.extend(finish(&mut client.uplink, &mut entropy));
    down.extend(finish(&mut server.downlink, &mut entropy));
    (up, down, payloads)
}

/// Both directions read in pieces. The halves are made anew: the same randomness makes the same connection.
fn read(
    kind: HeaderKind,
    request: &Request,
    up: &[u8],
    down: &[u8],
    cut: &mut dyn FnMut() -> usize,
) -> [Received; 2] {
    let (client, server) = pair_as(kind, request, &mut SeededEntropy::new(SEED));
    [receive(server.uplink, up, &mut *cut), receive(client.downlink, down, &mut *cut)]
        .map(|received| received.expect("a whole stream"))
}

fn check(request: &Request, payloads: &[Vec<u8>], received: &[Received; 2]) {
    let chunked = matches!(request.security, Security::Aes128Gcm | Security::Chacha20Poly1305)
        || request.options.contains(Options::CHUNK_STREAM);
    for direction in received {
        assert_eq!(direction.bytes(), payloads.concat(), "{request:?}");
        if chunked {
            assert_eq!(direction.payloads, payloads, "{request:?}");
        }
    }
}

#[test]
fn byte_by_byte_and_in_every_fixed_step() {
    for (kind, request) in all_combinations() {
        let (up, down, payloads) = transcript(kind, &request);
        for step in [1, 2, 3, 17, 18, 19, 20, 37, 38, 39, 1000] {
            let received = read(kind, &request, &up, &down, &mut || step);
            check(&request, &payloads, &received);
        }
    }
}

#[test]
fn in_random_pieces() {
    let mut dice = SeededEntropy::new(1);
    for (kind, request) in all_combinations() {
        let (up, down, payloads) = transcript(kind, &request);
        for _ in 0..10 {
            let widest = 1 + dice.below(400);
            let received = read(kind, &request, &up, &down, &mut || 1 + dice.below(widest) as usize);
            check(&request, &payloads, &received);
        }
    }
}

/// Every place where a piece can end, for the framings with the most parts.
#[test]
fn in_two_pieces_at_every_place() {
    let chosen = |(kind, request): &(HeaderKind, Request)| {
        let Request { command, security, options: Options(bits), .. } = *request;
        let cfb = security == Security::Aes128Cfb;
        command == Command::Tcp
            && match kind {
                // What A adds is another size field, and for AES-CFB nothing.
                HeaderKind::Aead => matches!(bits, 0x0D | 0x1D) && !(cfb && bits == 0x1D),
                // The answer's stream goes on in the body, and the body may be bare.
                HeaderKind::Legacy => cfb && matches!(bits, 0x00 | 0x0D) || bits == 0x15 && !cfb,
            }
    };
    for (kind, request) in all_combinations().filter(chosen) {
        let (up, down, payloads) = transcript(kind, &request);
        for place in 1..up.len().max(down.len()) {
            // A direction shorter than `place` comes whole and leaves its second cut to the other.
            let mut pieces = [place, usize::MAX, place].into_iter();
            let received = read(kind, &request, &up, &down, &mut || pieces.next().unwrap_or(usize::MAX));
            check(&request, &payloads, &received);
        }
    }
}
