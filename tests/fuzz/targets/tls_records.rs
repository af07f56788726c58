//! The record layer of TLS behind the handshake: records that were sealed here, whole, changed and cut, and noise. Its file
//! is private to the transports, so it is built here once more.
#![no_main]
#![allow(dead_code, reason = "a file that is at home elsewhere")]

use libfuzzer_sys::fuzz_target;

#[path = "../../../src/transport/tls"]
mod tls {
    mod records;

    use records::{Content, Keys, MAX_PAYLOAD, MAX_RECORD, OVERHEAD, record_len};
    use rustls::ConnectionTrafficSecrets;
    use rustls::crypto::cipher::{AeadKey, Iv};
    use vmesskit_fuzz::Input;

    fn keys(form: u8) -> Keys {
        let (key, iv) = (AeadKey::from([7; 32]), Iv::from([9; 12]));
        let secrets = match form >> 1 {
            0 => ConnectionTrafficSecrets::Aes128Gcm { key, iv },
            1 => ConnectionTrafficSecrets::Aes256Gcm { key, iv },
            _ => ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv },
        };
        Keys::new((u64::from(form), secrets), form & 1 == 0).expect("a cipher")
    }

    pub(crate) fn judge(data: &[u8]) {
        let mut input = Input(data);
        let form = input.below(6);
        let (mut ours, mut theirs) = (keys(form), keys(form));
        let (mut wire, mut plain) = (Vec::new(), Vec::new());
        let (sealed, change, at) = (input.below(8), input.byte(), usize::from(input.short()));
        for _ in 0..sealed {
            let content = [Content::Data, Content::Handshake, Content::Alert][usize::from(input.below(3))];
            let len = usize::from(input.short()) % 300;
            let payload = input.take(len);
            let start = ours.offset();
            let mut record = vec![0; payload.len() + OVERHEAD];
            record[start..start + payload.len()].copy_from_slice(payload);
            let len = ours.seal(&mut record, payload.len(), content).expect("room");
            wire.extend_from_slice(&record[..len]);
            plain.push((content, payload));
        }
        let intact = wire.len();
        let changed = (change != 0 && intact > 0).then(|| at % intact);
        if let Some(at) = changed {
            wire[at] ^= change;
        }
        // What is left is noise of somebody who has no keys.
        wire.extend_from_slice(input.0);

        let (mut at, mut to, mut opened, mut passed) = (0, 0, 0, false);
        loop {
            let len = match record_len(&wire[at..]) {
                Ok(Some(len)) => len,
                Ok(None) => break assert!(wire.len() - at < 5),
                Err(_) => break,
            };
            assert!((5 + 16..=MAX_RECORD).contains(&len));
            if at + len > wire.len() {
                break;
            }
            let behind = wire[at + len..].to_vec();
            let before = wire[..to].to_vec();
            let result = theirs.open(&mut wire, at..at + len, to);
            assert!(wire[at + len..] == behind && wire[..to] == before, "only its own place is written to");
            let Ok((content, len_plain)) = result else { break };
            assert!(len_plain <= MAX_PAYLOAD && to + len_plain <= at + len);
            let expected = plain.get(opened).expect("noise opens nothing");
            assert_eq!((content, &wire[to..to + len_plain]), (expected.0, expected.1));
            (at, to, opened) = (at + len, to + len_plain, opened + 1);
            passed = changed.is_some_and(|changed| changed < at);
        }
        assert!(changed.is_some() || opened == plain.len(), "what was sealed is opened");
        // The version in a header is not authenticated by TLS 1.2, which says 1.2 whatever stands there.
        assert!(!passed || form & 1 == 1, "a changed record is refused");
    }
}

fuzz_target!(|data: &[u8]| tls::judge(data));
