//! The reading end of a body under every framing: whatever comes, the cuts do not matter.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vmesskit::vmess::Options;
use vmesskit::vmess::chunk::{Framing, FramingError, Opener};
use vmesskit::vmess::keys::BodyKeys;
use vmesskit_fuzz::{Input, receive};

fuzz_target!(|data: &[u8]| {
    let mut input = Input(data);
    let (security, options, command) = (input.security(), input.options(), input.command());
    let (cuts, skips) = (input.byte(), input.flag());
    let framing = match Framing::new(security, options, command) {
        Ok(framing) => framing,
        Err(error) => {
            assert_eq!(error, FramingError::PaddingWithoutMasking);
            assert!(options.contains(Options::GLOBAL_PADDING) && !options.contains(Options::CHUNK_MASKING));
            return;
        }
    };
    let keys = BodyKeys { key: [1; 16], iv: [2; 16] };
    let opener = || {
        let opener = Opener::new(framing, &keys, &keys);
        if skips { opener.skipping_empty_start() } else { opener }
    };
    let (mut pieces, mut whole) = (opener(), opener());
    let in_pieces = receive(&mut pieces, input.0, cuts);
    assert_eq!(in_pieces, receive(&mut whole, input.0, 0));
    assert_eq!(in_pieces.ended, pieces.is_terminated());
    assert!(in_pieces.bytes.len() <= input.0.len());
    assert!(!(pieces.lacks_terminator() && in_pieces.ended));
    if in_pieces.error.is_none() {
        assert!(pieces.at_boundary());
    }
});
