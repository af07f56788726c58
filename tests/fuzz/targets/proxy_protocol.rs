//! The PROXY protocol's header in front of a connection, in any segmentation. Its pure file is private to the transports,
//! so it is built here once more.
#![no_main]

use libfuzzer_sys::fuzz_target;
use proxy_protocol::{Header, NoHeader, read};
use vmesskit_fuzz::{Cuts, Input};

#[path = "../../../src/transport/proxy_protocol.rs"]
mod proxy_protocol;

/// The most bytes of a header.
const MOST: usize = 16 + 1024;

fuzz_target!(|data: &[u8]| {
    let mut input = Input(data);
    let cuts = input.byte();
    let wire = input.0;
    let whole = read(wire);
    let mut outcome = None;
    for end in Cuts::ends(cuts, wire.len()) {
        match read(&wire[..end]) {
            Ok(Header::Need(need)) => assert!(end < need && need <= MOST, "asks for {need} at {end}"),
            decided => {
                outcome = Some(decided);
                break;
            }
        }
    }
    match (outcome, whole) {
        (None, Ok(Header::Need(_))) => {}
        (None, _) => assert!(wire.is_empty(), "the last cut is at the end"),
        // What was decided early holds, whatever follows.
        (Some(early), late) => assert_eq!(early, late),
    }
    if let Ok(Header::Whole { source, len }) = whole {
        assert!(len <= wire.len() && len <= MOST);
        assert_eq!(read(&wire[..len]), whole, "what follows the header does not matter");
        assert!((0..len).all(|cut| matches!(read(&wire[..cut]), Ok(Header::Need(_)))), "a part is no header");
        if let Some(source) = source {
            let again = format!(
                "PROXY TCP{} {} {} {} 1\r\n",
                if source.is_ipv4() { 4 } else { 6 },
                source.ip(),
                source.ip(),
                source.port()
            );
            assert_eq!(read(again.as_bytes()), Ok(Header::Whole { source: Some(source), len: again.len() }));
        }
    }
    if whole == Err(NoHeader) {
        assert!(!wire.is_empty());
    }
});
