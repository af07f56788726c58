//! One byte of the wire changed: every change is an error, except where the format has nothing that would
//! notice.
//!
//! Nothing notices a changed padding (accepted), a changed mask (the size is another: an error, or a wait for
//! bytes that never come) and anything at all in an unprotected body.

#[path = "common/vmess_peer.rs"]
mod peer;

use peer::{NOW, Receiver, Server, cmd_key, combinations, finish, pair, seal};
use vmesskit::entropy::{Entropy, SeededEntropy};
use vmesskit::vmess::Security;
use vmesskit::vmess::auth::AuthCipher;
use vmesskit::vmess::chunk::OpenError;
use vmesskit::vmess::client::{Request, connect};
use vmesskit::vmess::envelope::{self, REQUEST_PREFIX};

const SEED: u64 = 4;

/// What a byte on the wire belongs to.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Part {
    Answer,
    Size,
    Data,
    Padding,
}

/// A sealed downlink: its bytes, what each is, and what it carries.
fn downlink(request: &Request) -> (Vec<u8>, Vec<Part>, Vec<u8>) {
    let mut entropy = SeededEntropy::new(SEED);
    let (_, mut server) = pair(request, &mut entropy);
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

#[test]
fn every_flip_in_a_downlink() {
    let sealed =
        |request: &Request| matches!(request.security, Security::Aes128Gcm | Security::Chacha20Poly1305);
    for request in combinations().into_iter().filter(|request| sealed(request) && request.options.0 & 1 != 0)
    {
        let (wire, parts, payload) = downlink(&request);
        let sealed_sizes = request.options.0 & 0x10 != 0;
        let mut seen = [0; 3];
        for (at, &part) in parts.iter().enumerate() {
            let mut changed = wire.clone();
            changed[at] ^= 1 << (at % 8);
            let client = connect(&cmd_key(), &request, NOW, &mut SeededEntropy::new(SEED)).expect("legal");
            let mut receiver = Receiver::new(client.downlink);
            let fed = receiver.feed(&changed);
            let clean = payload.starts_with(&receiver.received.bytes());
            assert!(clean, "{part:?} at {at}: changed payload was handed out");
            let ended = receiver.end();
            match part {
                Part::Answer => assert_eq!(fed, Err(OpenError::ForgedResponse), "at {at}"),
                Part::Data => assert_eq!(fed, Err(OpenError::Forged), "at {at} of {request:?}"),
                Part::Size if sealed_sizes => assert_eq!(fed, Err(OpenError::Forged), "at {at}"),
                Part::Size => match fed {
                    Err(error) => assert!(matches!(error, OpenError::Forged | OpenError::Undersized)),
                    // It waits for more than there is, and the carrier's end tells.
                    Ok(()) => assert_eq!(ended, Err(OpenError::Truncated), "at {at}"),
                },
                Part::Padding => assert!(ended.is_ok_and(|ended| ended.ended && ended.bytes() == payload)),
            }
            seen[usize::from(part != Part::Answer) + usize::from(part == Part::Padding)] += 1;
        }
        assert_eq!(seen[0], 38, "the answer");
        assert_eq!(seen[2] > 0, request.options.0 & 8 != 0, "paddings in {request:?}");
    }
}

#[test]
fn every_flip_in_a_request_header() {
    let request = combinations().remove(0);
    let (client, server) = pair(&request, &mut SeededEntropy::new(SEED));
    let key = cmd_key();
    // What a server does, without the unwrapping of `Server::accept`.
    let open = |wire: &[u8]| {
        let auth_id = wire[..16].try_into().expect("16 bytes");
        let length = wire[16..34].try_into().expect("18 bytes");
        let nonce = wire[34..REQUEST_PREFIX].try_into().expect("8 bytes");
        AuthCipher::new(&key).open(&auth_id)?;
        envelope::open_request_length(&key, &auth_id, &nonce, length).ok()?;
        let mut sealed = wire[REQUEST_PREFIX..].to_vec();
        envelope::open_request(&key, &auth_id, &nonce, &mut sealed).ok().map(<[u8]>::to_vec)
    };
    assert!(open(&client.header).is_some());
    for bit in 0..client.header.len() * 8 {
        let mut changed = client.header.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(open(&changed), None, "bit {bit}");
    }
    drop::<Server>(server);
}

#[test]
fn noise_never_panics() {
    let mut entropy = SeededEntropy::new(9);
    for request in combinations() {
        for _ in 0..50 {
            let (client, server) = pair(&request, &mut entropy);
            let mut noise = vec![0; entropy.below(3000) as usize];
            entropy.fill(&mut noise);
            // Either is an error or a wait; with unprotected bodies it may be payload.
            Receiver::new(client.downlink).feed(&noise).ok();
            let mut answered = server.answer();
            answered.extend(&noise);
            let (client, _) = pair(&request, &mut entropy);
            Receiver::new(client.downlink).feed(&answered).ok();
            Receiver::new(server.uplink).feed(&noise).ok();
        }
    }
}
