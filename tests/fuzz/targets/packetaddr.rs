//! The address in front of a packetaddr payload.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vmesskit::mux::packetaddr::{MAX_HEAD, decode, encode};

fuzz_target!(|packet: &[u8]| {
    let Some((address, at)) = decode(packet) else { return };
    assert!(at <= packet.len() && at <= MAX_HEAD);
    let mut head = Vec::new();
    encode(address, &mut head);
    assert_eq!(head, &packet[..at]);
    assert!((0..at).all(|len| decode(&packet[..len]).is_none()), "a part of it is none");
});
