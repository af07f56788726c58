//! The messages of gRPC: any bytes in any cuts, against a reader that has all of them at once; and what we write.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vmesskit::wire::hunk::{self, HunkError, Hunks, MAX_MESSAGE};
use vmesskit_fuzz::{Cuts, Input};

fuzz_target!(|data: &[u8]| {
    let mut input = Input(data);
    let cuts = input.byte();
    let wire = input.0;
    let read = unframe(wire, cuts);
    assert_eq!(read, unframe(wire, 0), "the cuts do not matter");
    let (payload, whole) = all_at_once(wire);
    match &read {
        Ok((got, at_boundary)) => assert_eq!((got, *at_boundary), (&payload, whole)),
        Err((got, _)) => assert!(payload.starts_with(got) || got.starts_with(&payload)),
    }
    // What we write of these bytes is read as them, also behind what came before.
    if wire.is_empty() {
        return;
    }
    let mut written = Vec::new();
    for piece in wire.chunks(1 + usize::from(cuts) * 3) {
        hunk::begin(&mut written, piece.len());
        written.extend_from_slice(piece);
    }
    assert_eq!(unframe(&written, cuts), Ok((wire.to_vec(), true)));
    assert_eq!(all_at_once(&written), (wire.to_vec(), true));
});

/// The payload and whether it ends between two messages; or the payload before an error.
type Read = Result<(Vec<u8>, bool), (Vec<u8>, HunkError)>;

fn unframe(wire: &[u8], cuts: u8) -> Read {
    let (mut hunks, mut got, mut start) = (Hunks::default(), Vec::new(), 0);
    for end in Cuts::ends(cuts, wire.len()) {
        let mut rest = &wire[start..end];
        start = end;
        while !rest.is_empty() {
            let step = match hunks.step(rest) {
                Ok(step) => step,
                Err(error) => return Err((got, error)),
            };
            assert!(step.skip + step.payload > 0, "it moves on");
            let (payload, later) = rest[step.skip..].split_at(step.payload);
            got.extend_from_slice(payload);
            rest = later;
        }
    }
    Ok((got, hunks.at_boundary()))
}

/// The same, as far as the messages are good, and whether they are to their end.
fn all_at_once(mut wire: &[u8]) -> (Vec<u8>, bool) {
    let mut got = Vec::new();
    while let [flag, a, b, c, d, rest @ ..] = wire {
        let length = u32::from_be_bytes([*a, *b, *c, *d]) as usize;
        if *flag != 0 || length > MAX_MESSAGE {
            return (got, false);
        }
        let body = &rest[..length.min(rest.len())];
        if !fields(body, length, &mut got) || rest.len() < length {
            return (got, false);
        }
        wire = &rest[length..];
    }
    let begun = wire.is_empty();
    (got, begun)
}

/// Reads the fields of a message of `length` bytes, of which `body` has come; whether all of them are there and good.
fn fields(mut body: &[u8], mut length: usize, got: &mut Vec<u8>) -> bool {
    while !body.is_empty() {
        let Some((tag, used)) = varint(body) else { return false };
        (body, length) = (&body[used..], length - used);
        let size = match (tag >> 3, tag & 7) {
            (0, _) => return false,
            (_, 0) => match varint(body) {
                Some((_, used)) => used as u64,
                None => return false,
            },
            (_, 1) => 8,
            (_, 5) => 4,
            (_, 2) => {
                let Some((size, used)) = varint(body) else { return false };
                (body, length) = (&body[used..], length - used);
                size
            }
            _ => return false,
        };
        if size > length as u64 {
            return false;
        }
        let there = (size as usize).min(body.len());
        if tag == 0x0A {
            got.extend_from_slice(&body[..there]);
        }
        if there < size as usize {
            return false;
        }
        (body, length) = (&body[there..], length - there);
    }
    length == 0
}

fn varint(bytes: &[u8]) -> Option<(u64, usize)> {
    let mut value = 0;
    for (index, byte) in bytes.iter().enumerate().take(10) {
        value |= u64::from(byte & 0x7F).checked_shl(7 * index as u32).unwrap_or(0);
        if byte & 0x80 == 0 {
            return Some((value, index + 1));
        }
    }
    None
}
