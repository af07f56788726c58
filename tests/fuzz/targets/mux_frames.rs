//! A mux carrier's bytes and what both ends make of them: any cuts, any frames.
#![no_main]

use libfuzzer_sys::fuzz_target;
use std::collections::HashSet;
use vmesskit::mux::server::MAX_SESSIONS;
use vmesskit::mux::{Action, Client, Deframer, Frame, FrameError, Item, Server, Status};
use vmesskit_fuzz::{Cuts, Input};

/// Frames with their data, and what ended the reading.
#[derive(Debug, Default, PartialEq, Eq)]
struct Read {
    frames: Vec<(Frame, Vec<u8>)>,
    error: Option<FrameError>,
    at_boundary: bool,
}

fuzz_target!(|data: &[u8]| {
    let mut input = Input(data);
    let (cuts, concurrency, alone) = (input.byte(), input.byte(), input.flag());
    let read = deframe(input.0, cuts);
    assert_eq!(read, deframe(input.0, 0), "the cuts do not matter");
    serve(&read);
    let client = if alone { Client::alone() } else { Client::new(concurrency.into()) };
    ask(client, &read);
});

fn deframe(wire: &[u8], cuts: u8) -> Read {
    let (mut deframer, mut read, mut start) = (Deframer::default(), Read::default(), 0);
    for end in Cuts::ends(cuts, wire.len()) {
        let mut rest = &wire[start..end];
        start = end;
        loop {
            let step = match deframer.next(rest) {
                Ok(step) => step,
                Err(error) => {
                    read.error = Some(error);
                    return read;
                }
            };
            let (consumed, later) = rest.split_at(step.consumed);
            rest = later;
            match step.item {
                Some(Item::Frame(frame)) => read.frames.push((frame, Vec::new())),
                Some(Item::Data { len, last }) => {
                    assert!(0 < len && len <= consumed.len());
                    let (frame, data) = read.frames.last_mut().expect("data follows a frame");
                    data.extend_from_slice(&consumed[consumed.len() - len..]);
                    assert_eq!(last, data.len() == usize::from(frame.data.expect("it has data")));
                }
                None => {
                    assert!(rest.is_empty(), "everything is consumed");
                    break;
                }
            }
        }
    }
    read.at_boundary = deframer.at_boundary();
    read
}

/// A server's end: its sessions stay bounded, and what it says fits them.
fn serve(read: &Read) {
    let (mut server, mut open) = (Server::new(), HashSet::new());
    for (frame, _) in &read.frames {
        let known = open.contains(&frame.id);
        match server.receive(frame) {
            Ok(Action::Open(opening)) => {
                assert!(!known && opening.target.is_some() && frame.status == Status::New);
                open.insert(frame.id);
            }
            Ok(Action::Deliver(_)) => assert!(known),
            Ok(Action::End { .. }) => assert!(open.remove(&frame.id)),
            Ok(Action::Refuse) => assert!(!known || frame.status == Status::New),
            Ok(Action::Ignore) => assert_ne!(frame.status, Status::Keep),
            Err(error) => {
                assert_eq!(error, FrameError::Reopened);
                return assert!(known);
            }
        }
        assert!(open.len() <= MAX_SESSIONS);
    }
}

/// A client's end, which opens a session before each frame as long as it may.
fn ask(mut client: Client, read: &Read) {
    let mut open = HashSet::new();
    for (frame, _) in &read.frames {
        if let Some(id) = client.open() {
            assert!(open.insert(id), "a number is used once");
        }
        match client.receive(frame) {
            Action::Deliver(_) => assert_eq!(frame.status, Status::Keep),
            Action::End { .. } => {
                open.remove(&frame.id);
            }
            Action::Open(_) => panic!("no server opens a session"),
            Action::Refuse | Action::Ignore => {}
        }
    }
}
