//! One mux frame's meta, XUDP's among them: what decodes is written and read back.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vmesskit::addr::Network;
use vmesskit::mux::frame::MAX_HEAD;
use vmesskit::mux::{Deframer, Frame, FrameError, Item, Status};

fuzz_target!(|meta: &[u8]| {
    let frame = match Frame::decode(meta) {
        Ok(frame) => frame,
        Err(error) => return assert!(matches!(error, FrameError::Malformed | FrameError::Status(_))),
    };
    assert_eq!(frame.opening.is_some(), frame.status == Status::New);
    if let Some(opening) = &frame.opening {
        let named = opening.network == Network::Udp && frame.data.is_some();
        assert!(named || opening.global_id.is_none(), "only datagrams with data say whose they are");
        // A name that is none cannot be written.
        if opening.target.is_none() {
            return;
        }
    }
    let mut wire = Vec::new();
    frame.encode(&mut wire);
    assert!(wire.len() <= MAX_HEAD);
    let step = Deframer::default().next(&wire).expect("what was read can be written");
    assert_eq!(step.consumed, wire.len());
    assert_eq!(step.item, Some(Item::Frame(frame)));
});
