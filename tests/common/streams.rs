//! What the streams of transports that share connections are put through.

use super::socks_client::{PATIENCE, connect, exchange, exchange_open, tcp_echo};
use std::io;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::thread;
use vmesskit::Error;

/// Opens `count` streams at once, moves bytes on all of them, then on all of them again while they are open.
pub(crate) fn exercise_crowd(socks: u16, count: u32) {
    let echo = tcp_echo().port();
    let streams: Vec<_> = (0..count)
        .map(|seed| thread::spawn(move || exchange_open(connect(socks, "127.0.0.1", echo), 20_000, seed)))
        .collect();
    let streams: Vec<TcpStream> = streams.into_iter().map(|stream| stream.join().expect("echoed")).collect();
    let again: Vec<_> = streams
        .into_iter()
        .zip(1..)
        .map(|(stream, seed)| thread::spawn(move || exchange_open(stream, 100_000, seed)))
        .collect();
    again.into_iter().for_each(|stream| drop(stream.join().expect("echoed")));
}

/// Moves much on a few streams, both ways at once, to their ends.
pub(crate) fn exercise_load(socks: u16) {
    let echo = tcp_echo().port();
    let streams: Vec<_> = (1..4)
        .map(|seed| thread::spawn(move || exchange(connect(socks, "127.0.0.1", echo), 12_000_000, seed)))
        .collect();
    streams.into_iter().for_each(|stream| stream.join().expect("echoed"));
}

/// How many connections a forwarder has made.
#[derive(Clone, Default)]
pub(crate) struct Made(Arc<AtomicUsize>);

impl Made {
    pub(crate) fn get(&self) -> usize {
        self.0.load(SeqCst)
    }

    pub(crate) fn reset(&self) {
        self.0.store(0, SeqCst);
    }
}

/// Forwards connections to a port of loopback, and counts them.
pub(crate) fn counted_forwarder(to: u16) -> (u16, Made) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let (port, made) = (listener.local_addr().expect("address").port(), Made::default());
    let counts = made.clone();
    thread::spawn(move || {
        for near in listener.incoming().flatten() {
            counts.0.fetch_add(1, SeqCst);
            let Ok(far) = TcpStream::connect(("127.0.0.1", to)) else { continue };
            for (mut from, mut to) in
                [(near.try_clone().expect("a handle"), far.try_clone().expect("a handle")), (far, near)]
            {
                thread::spawn(move || {
                    let _ = io::copy(&mut from, &mut to);
                    let _ = to.shutdown(Shutdown::Write);
                });
            }
        }
    });
    (port, made)
}

/// What a check says of a client on a transport before a port of loopback.
pub(crate) fn check(port: u16, stream: &str) -> Result<(), Error> {
    let (client, _) = super::transports::client(port, stream, "");
    let checked = client.check(PATIENCE).wait(Some(PATIENCE)).expect("in time");
    super::socks_client::stop(&client);
    checked.map(drop)
}
