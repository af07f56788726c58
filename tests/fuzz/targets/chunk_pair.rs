//! Both ends of a body under every framing: what was sealed opens to the same, and what was changed to no more than a
//! start of it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vmesskit::buffer::{HEADROOM, TAILROOM};
use vmesskit::entropy::SeededEntropy;
use vmesskit::vmess::Security;
use vmesskit::vmess::chunk::{Framing, Opener, SealError, Sealer, TERMINATOR};
use vmesskit::vmess::keys::BodyKeys;
use vmesskit_fuzz::{Input, receive};

fuzz_target!(|data: &[u8]| {
    let mut input = Input(data);
    let (security, options, command) = (input.security(), input.options(), input.command());
    let (cuts, finishes, flip, at) = (input.byte(), input.flag(), input.byte(), usize::from(input.short()));
    let Ok(framing) = Framing::new(security, options, command) else { return };
    let (keys, request) = (BodyKeys { key: [1; 16], iv: [2; 16] }, BodyKeys { key: [3; 16], iv: [4; 16] });
    let mut entropy = SeededEntropy::new(1);
    let mut sealer = Sealer::new(framing, &keys, &request);
    let (mut wire, mut sent) = (Vec::new(), Vec::new());
    while !input.is_empty() && sent.len() < 200_000 {
        // Mostly short, now and then as long as it gets and longer.
        let len = match input.byte() {
            short @ 0..=0xF7 => usize::from(short),
            _ => usize::from(input.short()),
        };
        let payload: Vec<u8> = (0..len).map(|n| (n + wire.len()) as u8).collect();
        let mut slab = vec![0; HEADROOM + len + TAILROOM];
        slab[HEADROOM..HEADROOM + len].copy_from_slice(&payload);
        match sealer.seal(&mut slab, HEADROOM..HEADROOM + len, &mut entropy) {
            Ok(chunk) => {
                assert!(chunk.start <= HEADROOM && chunk.end >= HEADROOM + len && chunk.end <= slab.len());
                wire.extend_from_slice(&slab[chunk]);
                sent.extend_from_slice(&payload);
            }
            Err(SealError::Empty) => assert_eq!(len, 0),
            Err(SealError::TooLong { limit, .. }) => assert!(len > limit && limit >= sealer.max_payload()),
            Err(error) => panic!("{error:?} of {len} bytes"),
        }
    }
    let mut end = [0; TERMINATOR];
    let ended = finishes.then(|| sealer.finish(&mut end, &mut entropy)).flatten();
    assert_eq!(ended.is_some(), finishes && framing.is_terminated());
    wire.extend_from_slice(&end[..ended.unwrap_or(0)]);

    let received = receive(&mut Opener::new(framing, &keys, &request), &wire, cuts);
    assert!(received.bytes == sent, "{} bytes became {}", sent.len(), received.bytes.len());
    assert_eq!((received.ended, received.error), (ended.is_some(), None));

    if let Some(byte) = wire.get_mut(at).filter(|_| flip != 0) {
        *byte ^= flip;
        let changed = receive(&mut Opener::new(framing, &keys, &request), &wire, cuts);
        if matches!(security, Security::Aes128Gcm | Security::Chacha20Poly1305) {
            assert!(sent.starts_with(&changed.bytes), "changed payload came through");
        }
    }
});
