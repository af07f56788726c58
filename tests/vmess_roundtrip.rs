//! A client and a server joined by buffers: both kinds of header, every security, every option, payloads of
//! every size.

#[path = "common/vmess_peer.rs"]
mod peer;

use peer::{
    KINDS, Received, Receiver, Server, all_combinations, cmd_key, example, finish, pair, pair_as, receive,
    seal,
};
use vmesskit::buffer::{HEADROOM, TAILROOM};
use vmesskit::entropy::{Entropy, SeededEntropy};
use vmesskit::vmess::chunk::{Framing, OpenError, Opened, SealError, TERMINATOR};
use vmesskit::vmess::client::{ConnectError, Request, connect};
use vmesskit::vmess::header::{HeaderError, RequestHeader};
use vmesskit::vmess::keys::BodyKeys;
use vmesskit::vmess::response::ResponseHeader;
use vmesskit::vmess::server::accept;
use vmesskit::vmess::{Command, Options, Security, chunk, datagram};

fn payload(len: usize, seed: u64) -> Vec<u8> {
    let mut bytes = vec![0; len];
    SeededEntropy::new(seed).fill(&mut bytes);
    bytes
}

fn request(command: Command, security: Security) -> Request {
    Request::new(command, example(), security, false, false, false)
}

#[test]
fn every_combination_carries_every_size_both_ways() {
    let sizes = [1, 2, 15, 16, 17, 63, 64, 255, 256, 1966, 4096, 8192, 16_305, 16_306, 65_456];
    for (seed, (kind, request)) in all_combinations().enumerate() {
        let mut entropy = SeededEntropy::new(seed as u64);
        let (mut client, mut server) = pair_as(kind, &request, &mut entropy);
        let target = (request.command != Command::Mux).then(|| request.target.clone());
        assert_eq!(server.header.target, target);
        assert_eq!((server.header.command, server.header.options), (request.command, request.options));
        let (mut up, mut down) = (Vec::new(), server.answer());
        for (i, &size) in sizes.iter().enumerate() {
            up.extend(seal(&mut client.uplink, &payload(size, i as u64), &mut entropy));
            down.extend(seal(&mut server.downlink, &payload(size, 100 + i as u64), &mut entropy));
        }
        up.extend(finish(&mut client.uplink, &mut entropy));
        down.extend(finish(&mut server.downlink, &mut entropy));
        for (received, first) in [
            (receive(server.uplink, &up, || 60_000).expect("uplink"), 0),
            (receive(client.downlink, &down, || 60_000).expect("downlink"), 100),
        ] {
            let sent: Vec<_> = sizes.iter().zip(first..).map(|(&size, seed)| payload(size, seed)).collect();
            assert_eq!(received.bytes(), sent.concat(), "{request:?}");
            let terminated = request.options.contains(Options::CHUNK_STREAM);
            assert_eq!(received.ended, terminated, "{request:?}");
            if client.uplink.framing().is_chunked() {
                assert_eq!(received.payloads, sent, "{request:?}");
            }
        }
    }
}

/// What a client is configured to, as bytes on the wire.
#[test]
fn requests_get_the_options_that_peers_understand() {
    let options = |command, security, sealed_sizes, none_chunked| {
        Request::new(command, example(), security, sealed_sizes, none_chunked, false).options.0
    };
    for security in [Security::Aes128Gcm, Security::Chacha20Poly1305] {
        for command in [Command::Tcp, Command::Udp, Command::Mux] {
            assert_eq!(options(command, security, false, true), 0x0D);
            assert_eq!(options(command, security, true, false), 0x1D);
        }
    }
    for sealed_sizes in [false, true] {
        assert_eq!(options(Command::Tcp, Security::Aes128Cfb, sealed_sizes, true), 0x01);
        assert_eq!(options(Command::Udp, Security::Aes128Cfb, sealed_sizes, false), 0x01);
        assert_eq!(options(Command::Tcp, Security::None, sealed_sizes, false), 0x00);
        assert_eq!(options(Command::Tcp, Security::None, sealed_sizes, true), 0x05);
        assert_eq!(options(Command::Udp, Security::None, sealed_sizes, false), 0x05);
        assert_eq!(options(Command::Tcp, Security::Zero, sealed_sizes, true), 0x00);
        assert_eq!(options(Command::Udp, Security::Zero, sealed_sizes, true), 0x01);
    }
}

#[test]
fn what_cannot_be_asked_for_is_refused() {
    let mut entropy = SeededEntropy::new(1);
    let mut refused = |request: &Request| connect(&cmd_key(), request, 0, &mut entropy).map(|_| ()).err();
    let error = chunk::FramingError::Unsupported(Security::Auto);
    assert_eq!(refused(&request(Command::Tcp, Security::Auto)), Some(ConnectError::Framing(error)));
    let unmasked = Request { options: Options(0x09), ..request(Command::Tcp, Security::Aes128Gcm) };
    let error = chunk::FramingError::PaddingWithoutMasking;
    assert_eq!(refused(&unmasked), Some(ConnectError::Framing(error)));
    let mut long = request(Command::Tcp, Security::Aes128Gcm);
    long.target.host = vmesskit::addr::Host::Domain("a".repeat(256).into());
    assert_eq!(refused(&long), Some(ConnectError::Header(HeaderError::Address)));
}

#[test]
fn the_largest_chunks_pass_and_larger_ones_are_refused_without_a_trace() {
    for (security, options, largest) in [
        (Security::Aes128Gcm, 0x01, 65_519),
        (Security::Chacha20Poly1305, 0x05, 65_519),
        (Security::Aes128Gcm, 0x0D, 65_456),
        (Security::Aes128Gcm, 0x1D, 65_456),
        (Security::Aes128Cfb, 0x01, 65_531),
        (Security::Aes128Cfb, 0x0D, 65_468),
        (Security::None, 0x05, 65_535),
    ] {
        let request = Request { options: Options(options), ..request(Command::Tcp, security) };
        let mut entropy = SeededEntropy::new(7);
        let (mut client, server) = pair(&request, &mut entropy);
        let mut slab = vec![0; HEADROOM + largest + 1 + TAILROOM];
        let refused = client.uplink.seal(&mut slab, HEADROOM..HEADROOM + largest + 1, &mut entropy);
        assert_eq!(refused, Err(SealError::TooLong { len: largest + 1, limit: largest }));
        let sent = payload(largest, 3);
        let mut up = seal(&mut client.uplink, &sent, &mut entropy);
        up.extend(seal(&mut client.uplink, b"and on", &mut entropy));
        let received = receive(server.uplink, &up, || usize::MAX).expect("in step");
        assert_eq!(received.payloads, [sent, b"and on".to_vec()]);
    }
}

#[test]
fn max_payload_keeps_sizes_at_16384() {
    for (security, options, max) in [
        (Security::Aes128Gcm, 0x0D, 16_305),
        (Security::Chacha20Poly1305, 0x1D, 16_305),
        (Security::Aes128Gcm, 0x05, 16_368),
        (Security::Aes128Cfb, 0x0D, 16_317),
        (Security::Aes128Cfb, 0x01, 16_380),
        (Security::Aes128Cfb, 0x00, 65_535),
        (Security::None, 0x05, 16_384),
        (Security::None, 0x00, 65_535),
    ] {
        let request = Request { options: Options(options), ..request(Command::Tcp, security) };
        let (client, _) = pair(&request, &mut SeededEntropy::new(1));
        assert_eq!(client.uplink.max_payload(), max, "{security:?} {options:#x}");
    }
}

#[test]
fn misuse_of_a_sealer_leaves_the_stream_in_step() {
    let mut entropy = SeededEntropy::new(5);
    let (mut client, server) = pair(&request(Command::Tcp, Security::Aes128Gcm), &mut entropy);
    let mut slab = vec![0; 200];
    let mut refused = |range| client.uplink.seal(&mut slab, range, &mut entropy).expect_err("misuse");
    assert_eq!(refused(50..50), SealError::Empty);
    assert_eq!(refused(1..50), SealError::NoRoom);
    assert_eq!(refused(50..150), SealError::NoRoom);
    assert_eq!(refused(50..250), SealError::NoRoom);
    assert_eq!(refused(std::ops::Range { start: 60, end: 50 }), SealError::NoRoom);
    let mut up = seal(&mut client.uplink, b"fine", &mut entropy);
    up.extend(finish(&mut client.uplink, &mut entropy));
    assert_eq!(client.uplink.finish(&mut [0; TERMINATOR], &mut entropy), None);
    assert_eq!(client.uplink.seal(&mut slab, 64..70, &mut entropy), Err(SealError::Finished));
    let received = receive(server.uplink, &up, || usize::MAX).expect("in step");
    assert_eq!((received.bytes(), received.ended), (b"fine".to_vec(), true));
}

#[test]
fn streams_end_with_or_without_a_terminating_chunk() {
    for (kind, request) in all_combinations() {
        let mut entropy = SeededEntropy::new(6);
        let silent = Request { no_termination_signal: true, ..request.clone() };
        let (mut client, mut server) = pair_as(kind, &silent, &mut entropy);
        assert_eq!(finish(&mut client.uplink, &mut entropy), b"", "uplink of {request:?}");
        let terminator = finish(&mut server.downlink, &mut entropy);
        let terminated = request.options.contains(Options::CHUNK_STREAM);
        assert_eq!(terminator.is_empty(), !terminated, "downlink of {request:?}");

        let mut receiver = Receiver::new(client.downlink);
        assert!(!receiver.opener.at_boundary(), "unanswered");
        receiver.feed(&server.answer()).expect("authentic");
        assert!(receiver.opener.answered() && receiver.opener.at_boundary());

        let answer = ResponseHeader::accept(server.header.token);
        let mut silent = accept(&server.header, kind, &answer, true).expect("as before").downlink;
        assert_eq!(finish(&mut silent, &mut entropy), b"", "downlink of {request:?}");
    }
}

/// V2Ray 4 dies of such a request.
#[test]
fn a_server_refuses_padding_without_masking() {
    let (_, server) = pair(&request(Command::Tcp, Security::Aes128Gcm), &mut SeededEntropy::new(17));
    for (kind, options) in KINDS.into_iter().flat_map(|kind| [0x08, 0x09, 0x19].map(|bits| (kind, bits))) {
        let request = RequestHeader { options: Options(options), ..server.header.clone() };
        let error = accept(&request, kind, &ResponseHeader::accept(0), false).map(|_| ()).err();
        assert_eq!(error, Some(chunk::FramingError::PaddingWithoutMasking));
    }
}

/// Masking and padding are what chunks have: without them these options mean nothing.
#[test]
fn a_body_without_chunks_takes_no_padding() {
    let options = Options::CHUNK_MASKING.with(Options::GLOBAL_PADDING);
    for security in [Security::Aes128Cfb, Security::None] {
        for command in [Command::Tcp, Command::Udp, Command::Mux] {
            let request = Request { options, ..request(command, security) };
            let mut entropy = SeededEntropy::new(1);
            let (mut client, server) = pair(&request, &mut entropy);
            assert_eq!(client.uplink.framing().max_tail(), 0);
            let sent: Vec<u8> = [5, 200, 1000].map(|len| payload(len, 1)).concat();
            let wire: Vec<u8> = [5, 200, 1000]
                .iter()
                .flat_map(|&len| seal(&mut client.uplink, &payload(len, 1), &mut entropy))
                .collect();
            assert_eq!(wire.len(), sent.len());
            let received = receive(server.uplink, &wire, || 7).expect("it ends anywhere");
            assert_eq!(received.bytes(), sent, "{request:?}");
        }
    }
}

#[test]
fn a_carrier_that_ends_between_chunks_is_a_proper_end_and_inside_one_it_is_not() {
    let request = request(Command::Tcp, Security::Aes128Gcm);
    let mut entropy = SeededEntropy::new(8);
    let (client, mut server) = pair(&request, &mut entropy);
    let mut down = server.answer();
    let answer = down.len();
    for _ in 0..2 {
        down.extend(seal(&mut server.downlink, b"payload", &mut entropy));
    }
    let (second, mut ends) = (down.len(), 0);
    for len in 0..=second {
        // The same request again, from the same randomness: an opener cannot be cloned.
        let again = connect(&cmd_key(), &request, peer::NOW, &mut SeededEntropy::new(8)).expect("legal");
        assert_eq!(again.header, client.header);
        match receive(again.downlink, &down[..len], || usize::MAX) {
            Err(error) if len < answer => assert_eq!(error, OpenError::Unanswered),
            Err(error) => assert_eq!(error, OpenError::Truncated, "{len} bytes"),
            Ok(received) => {
                assert!(!received.ended && received.payloads.len() == ends, "{len} bytes");
                ends += 1;
            }
        }
    }
    assert_eq!(ends, 3, "behind the answer and behind each chunk");
}

#[test]
fn what_follows_the_terminating_chunk_is_ignored() {
    let mut entropy = SeededEntropy::new(9);
    let (mut client, server) = pair(&request(Command::Tcp, Security::Chacha20Poly1305), &mut entropy);
    let mut up = seal(&mut client.uplink, b"data", &mut entropy);
    up.extend(finish(&mut client.uplink, &mut entropy));
    up.extend([0xAA; 300]);
    for step in [1, 7, 1000] {
        let (again, _) = pair(&request(Command::Tcp, Security::Chacha20Poly1305), &mut SeededEntropy::new(9));
        let opener = Server::accept(&again.header).uplink;
        let received = receive(opener, &up, || step).expect("proper end");
        assert!(received.ended && received.bytes() == b"data");
    }
    drop(server);
}

/// sing-box sends an empty chunk behind its response header; to everybody else that is the end.
#[test]
fn an_empty_first_chunk_of_an_unsealed_downlink_is_skipped() {
    for (command, options) in [(Command::Tcp, 0x05), (Command::Tcp, 0x01), (Command::Udp, 0x05)] {
        let request = Request { options: Options(options), ..request(command, Security::None) };
        let mut entropy = SeededEntropy::new(10);
        let (client, mut server) = pair(&request, &mut entropy);
        let twin = Server::accept(&client.header);
        // An empty chunk is what a finished sealer writes; the stream goes on in a sealer that has drawn as
        // much.
        let empty = finish(&mut server.downlink, &mut entropy);
        let mut down = twin.answer();
        down.extend(&empty);
        let mut masks = twin.downlink;
        let mut skipped = seal(&mut masks, b"-", &mut entropy);
        skipped.clear();
        down.extend(skipped);
        down.extend(seal(&mut masks, b"data", &mut entropy));
        down.extend(finish(&mut masks, &mut entropy));
        let received = receive(client.downlink, &down, || 3).expect("a stream");
        assert_eq!((received.payloads, received.ended), (vec![b"data".to_vec()], true), "{command:?}");
    }
    // Once only, at the start only, and only without protection.
    for (security, before) in [(Security::None, &b"data"[..]), (Security::Aes128Gcm, b"")] {
        let request = Request { options: Options(0x05), ..request(Command::Tcp, security) };
        let mut entropy = SeededEntropy::new(11);
        let (client, mut server) = pair(&request, &mut entropy);
        let mut down = server.answer();
        if !before.is_empty() {
            down.extend(seal(&mut server.downlink, before, &mut entropy));
        }
        down.extend(finish(&mut server.downlink, &mut entropy));
        let received = receive(client.downlink, &down, || usize::MAX).expect("a proper end");
        assert!(received.ended && received.bytes() == before);
    }
}

/// Xray sends an empty chunk behind its request header when the app is silent at first, and goes on with payload.
#[test]
fn an_empty_first_chunk_of_an_uplink_is_skipped() {
    for (options, security) in [
        (0x0D, Security::Aes128Gcm),
        (0x1D, Security::Chacha20Poly1305),
        (0x05, Security::Chacha20Poly1305),
        (0x05, Security::None),
    ] {
        let request = Request { options: Options(options), ..request(Command::Tcp, security) };
        let mut entropy = SeededEntropy::new(13);
        let (mut client, server) = pair(&request, &mut entropy);
        let (mut twin, _) = pair(&request, &mut SeededEntropy::new(13));
        // An empty chunk is what a finished sealer writes; the stream goes on in a sealer that has drawn as much.
        let mut up = finish(&mut client.uplink, &mut entropy);
        seal(&mut twin.uplink, b"-", &mut entropy);
        up.extend(seal(&mut twin.uplink, b"data", &mut entropy));
        up.extend(finish(&mut twin.uplink, &mut entropy));
        up.extend([0xAA; 9]);
        let received = receive(server.uplink, &up, || 3).expect("a stream");
        assert_eq!((received.payloads, received.ended), (vec![b"data".to_vec()], true), "{security:?}");
    }
    // A client that says nothing at all ends its carrier's direction; what came before that is whole.
    let mut entropy = SeededEntropy::new(14);
    let (mut client, server) = pair(&request(Command::Tcp, Security::Aes128Gcm), &mut entropy);
    let up = finish(&mut client.uplink, &mut entropy);
    assert_eq!(receive(server.uplink, &up, || 5).expect("a proper end"), Received::default());
}

/// Counters of 16 bits repeat, as every peer's do.
#[test]
fn nonces_wrap_after_65536_chunks() {
    for options in [0x0D, 0x1D] {
        for security in [Security::Aes128Gcm, Security::Chacha20Poly1305] {
            let request = Request { options: Options(options), ..request(Command::Tcp, security) };
            let mut entropy = SeededEntropy::new(12);
            let (mut client, mut server) = pair(&request, &mut entropy);
            let mut slab = [0; HEADROOM + 4 + TAILROOM];
            for i in 0..70_001_u32 {
                slab[HEADROOM..HEADROOM + 4].copy_from_slice(&i.to_be_bytes());
                let chunk =
                    client.uplink.seal(&mut slab, HEADROOM..HEADROOM + 4, &mut entropy).expect("legal");
                let start = chunk.start;
                let opened = server.uplink.open(&mut slab[chunk.clone()]).expect("authentic");
                let Opened::Data { payload, consumed } = opened else { panic!("{opened:?}") };
                assert_eq!(consumed, chunk.len());
                let payload = start + payload.start..start + payload.end;
                assert_eq!(slab[payload], i.to_be_bytes());
            }
        }
    }
}

#[test]
fn response_headers_are_checked() {
    let request = request(Command::Tcp, Security::Aes128Gcm);
    let answered = |make: &dyn Fn(&Server) -> Vec<u8>| {
        let (client, server) = pair(&request, &mut SeededEntropy::new(13));
        receive(client.downlink, &make(&server), || usize::MAX).map(|received| received.bytes())
    };
    let token = |server: &Server| server.header.token;
    assert_eq!(answered(&|server| server.answer()), Ok(vec![]));
    let long = [7; 255];
    let with_command = |server: &Server| {
        server.answer_with(ResponseHeader { token: token(server), options: 0x0D, command: 1, payload: &long })
    };
    assert_eq!(answered(&with_command), Ok(vec![]), "commands are no error");
    let other = |server: &Server| server.answer_with(ResponseHeader::accept(token(server) ^ 1));
    assert_eq!(answered(&other), Err(OpenError::MalformedResponse));
    assert_eq!(
        answered(&|server| server.answer_bytes(&[token(server), 0, 0])),
        Err(OpenError::MalformedResponse)
    );
    let short = |server: &Server| server.answer_bytes(&[token(server), 0, 1, 9, 0]);
    assert_eq!(answered(&short), Err(OpenError::MalformedResponse));
    assert_eq!(answered(&|_| vec![0; 300]), Err(OpenError::ForgedResponse));
    assert_eq!(answered(&|_| b"HTTP/1.1 400 Bad Request\r\n".to_vec()), Err(OpenError::ForgedResponse));
}

#[test]
fn errors_stay() {
    let (mut client, _) = pair(&request(Command::Tcp, Security::Aes128Gcm), &mut SeededEntropy::new(14));
    assert_eq!(client.downlink.open(&mut [0; 64]), Err(OpenError::ForgedResponse));
    assert_eq!(client.downlink.open(&mut []), Err(OpenError::ForgedResponse));
    assert_eq!(client.downlink.check_end(), Err(OpenError::ForgedResponse));
    let (_, mut server) = pair(&request(Command::Tcp, Security::Aes128Gcm), &mut SeededEntropy::new(14));
    let error = server.uplink.open(&mut [0x55; 70_000]).expect_err("noise");
    assert_eq!(server.uplink.open(&mut []), Err(error));
    assert_eq!(server.uplink.check_end(), Err(error));
    assert!(!server.uplink.at_boundary());
}

#[test]
fn sizes_below_the_least_are_refused() {
    let framing = Framing::new(Security::Aes128Gcm, Options(0x01), Command::Tcp).expect("legal");
    let keys = BodyKeys { key: [1; 16], iv: [2; 16] };
    for size in 0..16_u16 {
        let mut opener = chunk::Opener::new(framing, &keys, &keys);
        assert_eq!(opener.open(&mut size.to_be_bytes()), Err(OpenError::Undersized), "{size}");
    }
    let mut opener = chunk::Opener::new(framing, &keys, &keys);
    assert_eq!(opener.open(&mut u16::MAX.to_be_bytes()), Ok(Opened::Need(65_537)));
}

#[test]
fn datagrams_keep_their_bounds() {
    let request = request(Command::Udp, Security::Aes128Gcm);
    let mut entropy = SeededEntropy::new(15);
    let (mut client, server) = pair(&request, &mut entropy);
    let sizes = [1, 512, datagram::SAFE_PAYLOAD, 9000, datagram::MAX_UDP_PAYLOAD];
    let up: Vec<u8> =
        sizes.iter().flat_map(|&n| seal(&mut client.uplink, &payload(n, 1), &mut entropy)).collect();
    let received = receive(server.uplink, &up, || 1400).expect("a stream");
    assert_eq!(received.payloads.iter().map(Vec::len).collect::<Vec<_>>(), sizes);
    assert!(datagram::fits(1) && datagram::is_safe(1966) && !datagram::is_safe(1967));
    assert!(!datagram::fits(0) && !datagram::fits(datagram::MAX_UDP_PAYLOAD + 1));
}

/// A source of randomness may cost a system call.
#[test]
fn paddings_are_drawn_for_several_chunks_at_a_time() {
    struct Counted(u32, SeededEntropy);
    impl Entropy for Counted {
        fn fill(&mut self, out: &mut [u8]) {
            self.0 += 1;
            self.1.fill(out);
        }
    }
    let (mut client, _) = pair(&request(Command::Tcp, Security::Aes128Gcm), &mut SeededEntropy::new(16));
    let mut entropy = Counted(0, SeededEntropy::new(16));
    let wires: Vec<_> = (0..300).map(|_| seal(&mut client.uplink, b"x", &mut entropy)).collect();
    assert!((50..=120).contains(&entropy.0), "{} fills for 300 chunks", entropy.0);
    let paddings: Vec<&[u8]> =
        wires.iter().map(|wire| &wire[19..]).filter(|padding| padding.len() >= 8).collect();
    for (i, padding) in paddings.iter().enumerate() {
        assert!(paddings[..i].iter().all(|other| other[..8] != padding[..8]), "a padding came twice");
    }
}
