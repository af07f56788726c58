//! The record layer by itself: known answers, every form and size, and what is no record.

use super::*;
use rustls::crypto::cipher::{AeadKey, Iv};

type Secret = fn(AeadKey, Iv) -> ConnectionTrafficSecrets;

const CIPHERS: [Secret; 3] = [
    |key, iv| ConnectionTrafficSecrets::Aes128Gcm { key, iv },
    |key, iv| ConnectionTrafficSecrets::Aes256Gcm { key, iv },
    |key, iv| ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv },
];

fn keys_of(cipher: Secret, tls13: bool, seq: u64) -> Keys {
    let secrets = cipher(AeadKey::from([7; 32]), Iv::from([9; 12]));
    Keys::new((seq, secrets), tls13).expect("a cipher")
}

/// Every form of records, with keys at both ends.
fn forms() -> impl Iterator<Item = (Keys, Keys)> {
    let each = CIPHERS.into_iter().flat_map(|cipher| [(cipher, true), (cipher, false)]);
    each.map(|(cipher, tls13)| (keys_of(cipher, tls13, 5), keys_of(cipher, tls13, 5)))
}

fn seal(keys: &mut Keys, payload: &[u8], content: Content) -> Vec<u8> {
    let start = keys.offset();
    let mut record = vec![0; payload.len() + OVERHEAD];
    record[start..start + payload.len()].copy_from_slice(payload);
    let len = keys.seal(&mut record, payload.len(), content).expect("room");
    record.truncate(len);
    record
}

fn open(keys: &mut Keys, record: &[u8]) -> Result<(Content, Vec<u8>), RecordError> {
    let mut bytes = record.to_vec();
    let (content, len) = keys.open(&mut bytes, 0..record.len(), 0)?;
    Ok((content, bytes[..len].to_vec()))
}

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    let pairs = digits.chunks(2);
    pairs.map(|pair| u8::from_str_radix(str::from_utf8(pair).expect("digits"), 16).expect("hex")).collect()
}

#[test]
fn the_example_of_rfc_8448_is_sealed_and_opened() {
    // Section 3: the client's first application data, 50 bytes.
    let key = hex("17 42 2d da 59 6e d5 d9 ac d8 90 e3 c6 3f 50 51");
    let iv: [u8; 12] = hex("5b 78 92 3d ee 08 57 90 33 e5 23 d9").try_into().expect("12 bytes");
    let record = hex(
        "17 03 03 00 43 a2 3f 70 54 b6 2c 94 d0 af fa fe 82 28 ba 55 cb ef ac ea 42 f9 14 aa 66 bc ab 3f 2b 98 19
         a8 a5 b4 6b 39 5b d5 4a 9a 20 44 1e 2b 62 97 4e 1f 5a 62 92 a2 97 70 14 bd 1e 3d ea e6 3a ee bb 21 69 49
         15 e4",
    );
    let payload: Vec<u8> = (0..50).collect();
    let keys = || {
        let mut padded = [0; 32];
        padded[..16].copy_from_slice(&key);
        let secrets = ConnectionTrafficSecrets::Aes128Gcm { key: AeadKey::from(padded), iv: Iv::from(iv) };
        Keys::new((0, secrets), true).expect("a cipher")
    };
    assert_eq!(seal(&mut keys(), &payload, Content::Data), record);
    assert_eq!(open(&mut keys(), &record), Ok((Content::Data, payload)));
}

#[test]
fn every_form_and_size_comes_back() {
    for (mut ours, mut theirs) in forms() {
        for len in [0, 1, 15, 16, 17, 4096, MAX_PAYLOAD - 1, MAX_PAYLOAD] {
            for content in [Content::Data, Content::Handshake, Content::Alert] {
                let payload: Vec<u8> = (0..len).map(|i| (i % 253) as u8).collect();
                let record = seal(&mut ours, &payload, content);
                assert_eq!(record_len(&record), Ok(Some(record.len())));
                assert!(record.len() <= len + OVERHEAD && record.len() <= MAX_RECORD);
                assert_eq!(open(&mut theirs, &record), Ok((content, payload)));
            }
        }
    }
}

#[test]
fn payload_moves_down_over_what_was_opened_before() {
    for (mut ours, mut theirs) in forms() {
        let pieces: Vec<Vec<u8>> = (0..20_u8).map(|i| vec![i; usize::from(i) * 37]).collect();
        let records: Vec<Vec<u8>> =
            pieces.iter().map(|piece| seal(&mut ours, piece, Content::Data)).collect();
        let mut bytes = records.concat();
        let (mut at, mut to) = (0, 0);
        for record in &records {
            let (_, len) = theirs.open(&mut bytes, at..at + record.len(), to).expect("the next one");
            (at, to) = (at + record.len(), to + len);
        }
        assert_eq!(bytes[..to], pieces.concat());
    }
}

#[test]
fn a_record_that_is_not_the_next_one_is_refused() {
    for (mut ours, mut theirs) in forms() {
        let (first, second) = (seal(&mut ours, b"1", Content::Data), seal(&mut ours, b"2", Content::Data));
        assert_eq!(open(&mut theirs, &second), Err(RecordError::Forged), "skipped");
        assert!(open(&mut theirs, &first).is_ok());
        assert_eq!(open(&mut theirs, &first), Err(RecordError::Forged), "again");
        assert!(open(&mut theirs, &second).is_ok(), "a refusal changes nothing");
    }
}

#[test]
fn a_changed_byte_anywhere_is_refused() {
    for (mut ours, mut theirs) in forms() {
        let record = seal(&mut ours, b"some payload", Content::Data);
        for at in (0..record.len()).filter(|at| !(1..HEAD).contains(at)) {
            for bit in 0..8 {
                let mut changed = record.clone();
                changed[at] ^= 1 << bit;
                assert!(open(&mut theirs, &changed).is_err(), "byte {at}, bit {bit}");
            }
        }
        for len in 0..record.len() {
            assert!(open(&mut theirs, &record[..len]).is_err(), "cut at {len}");
        }
        assert!(open(&mut theirs, &record).is_ok());
    }
}

/// A TLS 1.3 record of what is sealed as it stands.
fn seal_raw(keys: &mut Keys, inner: &[u8]) -> Vec<u8> {
    let size = u16::try_from(inner.len() + TAG).expect("short").to_be_bytes();
    let head = [23, 3, 3, size[0], size[1]];
    let mut body = inner.to_vec();
    let nonce = Nonce::assume_unique_for_key(keys.nonce());
    keys.key.seal_in_place_append_tag(nonce, Aad::from(head), &mut body).expect("sealed");
    keys.seq += 1;
    [&head[..], &body].concat()
}

#[test]
fn padding_is_taken_off_and_what_has_no_type_is_refused() {
    for cipher in CIPHERS {
        let keys = || keys_of(cipher, true, 0);
        let padded = seal_raw(&mut keys(), &[b"hi\x17".as_slice(), &[0; 300]].concat());
        assert_eq!(open(&mut keys(), &padded), Ok((Content::Data, b"hi".to_vec())));
        let empty = seal_raw(&mut keys(), &[23, 0, 0]);
        assert_eq!(open(&mut keys(), &empty), Ok((Content::Data, Vec::new())));
        for inner in [&[0; 40][..], &[], b"x\x14", b"x\x18", b"x\xff"] {
            let record = seal_raw(&mut keys(), inner);
            assert_eq!(open(&mut keys(), &record), Err(RecordError::Malformed), "{inner:?}");
        }
        let mut long = vec![1; MAX_PAYLOAD + 1];
        long.push(23);
        let record = seal_raw(&mut keys(), &long);
        assert_eq!(open(&mut keys(), &record), Err(RecordError::Malformed), "more than a record holds");
    }
}

#[test]
fn a_header_says_how_long_its_record_is_or_that_it_is_none() {
    for len in 0..HEAD {
        assert_eq!(record_len(&[23, 3, 3, 0, 20][..len]), Ok(None));
    }
    assert_eq!(record_len(&[23, 3, 3, 0, 16]), Ok(Some(21)));
    assert_eq!(record_len(&[23, 3, 3, 0x48, 0]), Ok(Some(MAX_RECORD)));
    for header in [b"HTTP/", b"SSH-2", &[23, 3, 3, 0x48, 1], &[23, 3, 3, 0, 15], &[23, 2, 3, 0, 20]] {
        assert_eq!(record_len(header), Err(RecordError::Malformed), "{header:?}");
    }
}

#[test]
fn keys_wear_out() {
    for cipher in CIPHERS {
        assert!(
            !keys_of(cipher, true, KEY_LIMIT - 1).is_worn() && keys_of(cipher, true, KEY_LIMIT).is_worn()
        );
        let mut keys = keys_of(cipher, false, KEY_LIMIT * 2);
        assert_eq!(keys.seal(&mut [0; 64], 1, Content::Data), Err(RecordError::Spent));
    }
    let mut small = keys_of(CIPHERS[0], true, 0);
    assert_eq!(small.seal(&mut [0; 21], 1, Content::Data), Err(RecordError::Malformed), "no room");
}
