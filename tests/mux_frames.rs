//! Mux frames, XUDP ids and packetaddr addresses: known answers, any cut of the stream, garbage, and a client's
//! bookkeeping against a server's.

use std::fs;
use vmesskit::addr::{Host, Network, Target};
use vmesskit::entropy::{Entropy, SeededEntropy};
use vmesskit::mux::frame::{MAX_HEAD, MAX_META};
use vmesskit::mux::xudp::BaseKey;
use vmesskit::mux::{
    Action, Client, Deframer, Frame, FrameError, GlobalId, Item, Opening, Server, Status, client, packetaddr,
    server,
};

fn target(host: &str, port: u16) -> Target {
    Target::new(Host::parse(host).expect("a host"), port)
}

fn opening(network: Network, host: &str, port: u16) -> Opening {
    Opening { network, target: Some(target(host, port)), global_id: None }
}

fn encoded(frame: &Frame, data: &[u8]) -> Vec<u8> {
    let mut wire = Vec::new();
    frame.encode(&mut wire);
    assert!(wire.len() <= MAX_HEAD);
    wire.extend_from_slice(data);
    wire
}

fn hex(text: &str) -> Vec<u8> {
    (0..text.len() / 2)
        .map(|i| u8::from_str_radix(&text[2 * i..2 * i + 2], 16).expect("hexadecimal"))
        .collect()
}

/// The wires of one section of the vectors, in order.
fn vectors(section: &str) -> Vec<Vec<u8>> {
    let text = fs::read_to_string("tests/data/vmess-vectors.json").expect("readable");
    let all: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let list = all[section].as_array().expect("a list");
    list.iter().map(|vector| hex(vector["wire"].as_str().expect("a text"))).collect()
}

/// Frames with their data, as a reader that gets `wire` in pieces of `step` bytes finds them.
fn read(wire: &[u8], step: usize) -> Result<Vec<(Frame, Vec<u8>)>, FrameError> {
    let mut deframer = Deframer::default();
    let mut frames: Vec<(Frame, Vec<u8>)> = Vec::new();
    let mut lasts = 0;
    for piece in wire.chunks(step) {
        let mut rest = piece;
        while !rest.is_empty() {
            let step = deframer.next(rest)?;
            assert!(step.consumed <= rest.len());
            let (done, left) = rest.split_at(step.consumed);
            rest = left;
            match step.item {
                Some(Item::Frame(frame)) => {
                    lasts += usize::from(matches!(frame.data, Some(1..)));
                    frames.push((frame, Vec::new()));
                }
                Some(Item::Data { len, last }) => {
                    frames.last_mut().expect("a frame").1.extend_from_slice(&done[done.len() - len..]);
                    lasts -= usize::from(last);
                }
                None => assert!(rest.is_empty(), "something was left without a reason"),
            }
        }
    }
    assert!(deframer.at_boundary() && lasts == 0);
    Ok(frames)
}

/// What the vectors of the section `mux` stand for.
fn known() -> Vec<(Frame, &'static [u8])> {
    let id = GlobalId([1, 2, 3, 4, 5, 6, 7, 8]);
    let named = Opening { global_id: Some(id), ..opening(Network::Udp, "8.8.8.8", 53) };
    let keep_alive = Frame { status: Status::KeepAlive, id: 0, ..Frame::end(0, false) };
    vec![
        (Frame::new(1, opening(Network::Tcp, "example.com", 443), Some(2)), b"hi"),
        (Frame::new(2, opening(Network::Udp, "8.8.8.8", 53), None), b""),
        (Frame::keep(1, None, 2), b"hi"),
        (Frame::end(1, false), b""),
        (Frame::end(1, true), b""),
        (keep_alive, b""),
        (Frame::new(0, named, Some(1)), b"q"),
        (Frame::keep(0, Some(target("2001:db8::1", 53)), 1), b"q"),
    ]
}

#[test]
fn frames_are_as_the_vectors_have_them() {
    let wires = vectors("mux");
    let known = known();
    assert_eq!(wires.len(), known.len());
    for (wire, (frame, data)) in wires.iter().zip(&known) {
        assert_eq!(&encoded(frame, data), wire, "{frame:?}");
        assert_eq!(read(wire, wire.len()), Ok(vec![(frame.clone(), data.to_vec())]));
    }
}

#[test]
fn a_stream_of_frames_may_be_cut_anywhere() {
    let mut entropy = SeededEntropy::new(7);
    let mut long = vec![0; 3000];
    entropy.fill(&mut long);
    let mut wire = vectors("mux").concat();
    wire.extend(encoded(&Frame::keep(7, None, 0), b""));
    wire.extend(encoded(&Frame::keep(7, None, 3000), &long));
    wire.extend(vectors("mux").concat());
    let whole = read(&wire, wire.len()).expect("frames");
    assert_eq!(whole.len(), 18);
    assert_eq!(whole[9].1, long);
    for step in 1..600 {
        assert_eq!(read(&wire, step).as_ref(), Ok(&whole), "in pieces of {step}");
    }
}

#[test]
fn metas_of_impossible_length_or_kind_end_the_carrier() {
    let after = |bytes: &[u8]| Deframer::default().next(bytes).map(|step| step.item);
    assert_eq!(after(&[0, 3]), Err(FrameError::Length(3)));
    assert_eq!(after(&[2, 1]), Err(FrameError::Length(MAX_META + 1)));
    assert_eq!(after(&[2, 0]), Ok(None));
    assert_eq!(after(&[0, 4, 0, 1, 5, 0]), Err(FrameError::Status(5)));
    assert_eq!(after(&[0, 4, 0, 1, 0, 0]), Err(FrameError::Status(0)));
    assert_eq!(after(&[0, 4, 0, 1, 1, 0]), Err(FrameError::Malformed), "a New without an address");
    assert_eq!(after(&[0, 5, 0, 1, 2, 0, 2]), Err(FrameError::Malformed), "a Keep with half of one");
}

#[test]
fn padding_and_other_peoples_fields_are_read_over() {
    // A Keep of a stream with trailing bytes, and one whose bytes are no address because they do not begin with UDP.
    for padding in [&[1, 9, 9][..], &[0; 500]] {
        let meta = [&[0, 1, 2, 1], padding].concat();
        let wire = [&(meta.len() as u16).to_be_bytes()[..], &meta, &[0, 1, b'x']].concat();
        assert_eq!(read(&wire, 3), Ok(vec![(Frame::keep(1, None, 1), b"x".to_vec())]));
    }
    let named = &vectors("mux")[6];
    let mut padded = named.clone();
    padded.splice(22..22, [0xEE; 20]);
    padded[1] += 20;
    assert_eq!(read(&padded, 5), read(named, 5), "padding behind a global id");
    let zero = {
        let mut wire = named.clone();
        wire[14..22].fill(0);
        wire
    };
    let frames = read(&zero, 99).expect("a frame");
    assert_eq!(frames[0].0.opening.as_ref().and_then(|opening| opening.global_id), None);
    let nameless = [0, 12, 0, 9, 1, 0, 1, 0, 80, 2, 3, b'a', b' ', b'b'];
    let frames = read(&nameless, 1).expect("a frame");
    assert_eq!(frames[0].0.opening.as_ref().map(|opening| &opening.target), Some(&None));
}

#[test]
fn garbage_is_read_or_refused_and_never_more() {
    let mut entropy = SeededEntropy::new(99);
    let mut refused = 0;
    for round in 0..20_000 {
        let mut bytes = vec![0; 1 + entropy.below(80) as usize];
        entropy.fill(&mut bytes);
        if round % 2 == 0 && bytes.len() > 7 {
            // So that more than the length is looked at.
            (bytes[0], bytes[1], bytes[4]) = (0, 4 + bytes[1] % 40, bytes[4] % 6);
        }
        let (mut deframer, mut machine) = (Deframer::default(), Server::new());
        let mut client = Client::new(8);
        client.open();
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            let Ok(step) = deframer.next(rest) else {
                refused += 1;
                break;
            };
            rest = &rest[step.consumed..];
            if let Some(Item::Frame(frame)) = step.item {
                client.receive(&frame);
                machine.receive(&frame).ok();
            }
        }
        packetaddr::decode(&bytes);
    }
    assert!((1..40_000).contains(&refused));
}

#[test]
fn packet_addresses_are_as_the_vectors_have_them() {
    let wires = vectors("packetaddr");
    for (wire, addr) in wires.iter().zip(["8.8.8.8:53", "[2001:db8::1]:53"]) {
        let addr = addr.parse().expect("an address");
        let mut made = Vec::new();
        packetaddr::encode(addr, &mut made);
        assert_eq!(packetaddr::decode(wire), Some((addr, made.len())));
        made.push(b'q');
        assert_eq!(&made, wire);
        for len in 0..wire.len() - 1 {
            assert_eq!(packetaddr::decode(&wire[..len]), None, "{len} bytes");
        }
    }
    assert_eq!(packetaddr::decode(&[3, 1, b'a', 0, 53]), None, "there are no names");
}

#[test]
fn a_source_is_called_as_xray_calls_it() {
    let key = BaseKey::new(std::array::from_fn(|i| i as u8));
    let id = key.global_id("127.0.0.1:35264".parse().expect("an address"));
    assert_eq!(id.0.to_vec(), hex("648b86653e29a2ad"));
    assert_eq!(format!("{id:?} {key:?}"), "GlobalId(hidden) BaseKey(hidden)");
}

#[test]
fn a_client_opens_sessions_until_the_carrier_is_full_or_spent() {
    let mut client = Client::new(2);
    assert_eq!((client.open(), client.open(), client.open()), (Some(1), Some(2), None));
    client.close(1);
    assert_eq!((client.open(), client.open()), (Some(3), None), "numbers are not used again");
    for id in 3..=client::MAX_TOTAL {
        client.close(id);
        let next = client.open();
        assert_eq!(next, (id < client::MAX_TOTAL).then_some(id + 1));
    }
    assert!(client.is_spent());
    let mut worn = Client::new(8);
    worn.set_chunks(client::MAX_CHUNKS - 1);
    assert_eq!(worn.open(), Some(1));
    worn.set_chunks(client::MAX_CHUNKS);
    assert_eq!((worn.open(), worn.is_spent()), (None, true));
    let mut retired = Client::new(8);
    retired.retire();
    assert_eq!(retired.open(), None);
    let alone = Client::alone().receive(&Frame::keep(0, None, 1));
    assert_eq!(alone, Action::Deliver(None));
}

#[test]
fn both_ends_agree_on_what_is_open() {
    let (mut client, mut server) = (Client::new(8), Server::new());
    let id = client.open().expect("room");
    let tcp = opening(Network::Tcp, "example.com", 443);
    let new = Frame::new(id, tcp.clone(), None);
    assert_eq!(server.receive(&new), Ok(Action::Open(tcp)));
    assert_eq!(server.receive(&new), Err(FrameError::Reopened));
    assert_eq!(server.receive(&Frame::keep(id, None, 1)), Ok(Action::Deliver(None)));
    assert_eq!(client.receive(&Frame::keep(id, None, 1)), Action::Deliver(None));
    assert_eq!(client.receive(&new), Action::Ignore, "nothing is opened at a client");
    server.close(id);
    assert_eq!(client.receive(&Frame::end(id, true)), Action::End { error: true });
    assert_eq!(client.receive(&Frame::end(id, false)), Action::Ignore);
    assert_eq!(client.receive(&Frame::keep(id, None, 1)), Action::Ignore, "it has ended here");
    assert_eq!(client.receive(&Frame::keep(77, None, 1)), Action::Refuse, "there never was one");
    assert_eq!(server.receive(&Frame::keep(id, None, 1)), Ok(Action::Refuse));
    assert_eq!(server.receive(&Frame::end(id, false)), Ok(Action::Ignore));
    let keep_alive = Frame { status: Status::KeepAlive, ..Frame::keep(9, None, 5) };
    assert_eq!(server.receive(&keep_alive), Ok(Action::Ignore));
    let nameless = Opening { target: None, ..opening(Network::Tcp, "x", 1) };
    assert_eq!(server.receive(&Frame::new(5, nameless, None)), Ok(Action::Refuse));
}

#[test]
fn a_server_takes_so_many_sessions_and_a_source_many_peers() {
    let mut server = Server::new();
    let udp = opening(Network::Udp, "8.8.8.8", 53);
    for id in 0..server::MAX_SESSIONS as u16 {
        assert_eq!(server.receive(&Frame::new(id, udp.clone(), None)), Ok(Action::Open(udp.clone())));
    }
    assert_eq!(server.receive(&Frame::new(9999, udp.clone(), None)), Ok(Action::Refuse));
    server.close(7);
    assert_eq!(server.receive(&Frame::new(9999, udp.clone(), None)), Ok(Action::Open(udp)));
    let other = opening(Network::Udp, "1.1.1.1", 53);
    let deliver = Action::Deliver(Some(target("1.1.1.1", 53)));
    assert_eq!(server.receive(&Frame::new(9999, other, Some(1))), Ok(deliver));
}
