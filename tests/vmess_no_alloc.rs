//! Sealing and opening chunks allocates nothing, whatever the security and options.

#[path = "common/vmess_peer.rs"]
mod peer;

use peer::{all_combinations, pair_as};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use vmesskit::buffer::{HEADROOM, TAILROOM};
use vmesskit::entropy::SeededEntropy;
use vmesskit::vmess::chunk::{Opened, TERMINATOR};
use vmesskit::vmess::client::Request;
use vmesskit::vmess::server::HeaderKind;
use vmesskit::vmess::{Command, Options, Security};

thread_local! {
    static COUNT: Cell<u64> = const { Cell::new(0) };
}

/// The system's allocator, counting each thread's calls.
struct Counting;

// SAFETY: every call is passed on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.set(COUNT.get() + 1);
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, len: usize) -> *mut u8 {
        COUNT.set(COUNT.get() + 1);
        // SAFETY: the caller keeps the contract of `realloc`.
        unsafe { System.realloc(pointer, layout, len) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn the_counter_counts() {
    let before = COUNT.get();
    drop(std::hint::black_box(vec![0_u8; 100]));
    assert_eq!(COUNT.get() - before, 1);
}

#[test]
fn chunks_are_sealed_and_opened_without_allocation() {
    // A carrier of sessions is a stream like another, and AES-CFB has no sealed sizes and is slow unoptimised.
    let chosen = |request: &Request| {
        request.command != Command::Mux
            && (request.security != Security::Aes128Cfb || matches!(request.options, Options(0 | 0x0D)))
    };
    for (kind, request) in all_combinations().filter(|(_, request)| chosen(request)) {
        let mut entropy = SeededEntropy::new(1);
        let (mut client, mut server) = pair_as(kind, &request, &mut entropy);
        let mut answer = server.answer();
        let mut slab = vec![0; HEADROOM + 16_305 + TAILROOM];
        let mut end = [0; TERMINATOR];
        let before = COUNT.get();
        client.downlink.open(&mut answer).expect("authentic");
        for i in (0..1000).step_by(if kind == HeaderKind::Aead { 1 } else { 50 }) {
            let payload = HEADROOM..HEADROOM + 1 + 16 * i;
            let up = client.uplink.seal(&mut slab, payload.clone(), &mut entropy).expect("legal");
            // As a stream delivers it: a part first, then all of it.
            let part = up.start + up.len() / 2;
            let partly = server.uplink.open(&mut slab[up.start..part]).expect("authentic");
            if matches!(partly, Opened::Need(_)) {
                let opened = server.uplink.open(&mut slab[up.clone()]).expect("authentic");
                assert!(matches!(opened, Opened::Data { .. }));
            }
            let down = server.downlink.seal(&mut slab, payload, &mut entropy).expect("legal");
            assert!(matches!(client.downlink.open(&mut slab[down]), Ok(Opened::Data { .. })));
        }
        server.downlink.finish(&mut end, &mut entropy);
        assert_eq!(COUNT.get() - before, 0, "{request:?}");
    }
}
