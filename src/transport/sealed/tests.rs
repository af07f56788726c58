//! The adapter against a server made of the codec's other half.

use super::*;
use crate::buffer::Class;
use crate::transport::testing::{Script, ScriptCarrier, Server, noop_context, request, shard};
use crate::transport::{Datagram, Datagrams, Stream};
use crate::vmess::{Command, Security};
use std::cell::{Cell, RefCell};
use std::io;
use std::time::Duration;

/// Counts what it is told.
#[derive(Default)]
struct Told {
    answered: Cell<u32>,
    rejected: Cell<u32>,
    lost: Cell<u32>,
    terminates: Cell<bool>,
}

impl Witness for Told {
    fn answered(&self) {
        self.answered.set(self.answered.get() + 1);
    }

    fn rejected(&self) {
        self.rejected.set(self.rejected.get() + 1);
    }

    fn lost(&self) {
        self.lost.set(self.lost.get() + 1);
    }

    fn terminated(&self) {
        self.terminates.set(true);
    }

    fn terminates(&self) -> bool {
        self.terminates.get()
    }
}

struct Bench {
    stream: SealedStream<ScriptCarrier>,
    script: Rc<RefCell<Script>>,
    told: Rc<Told>,
    shard: Rc<Shard>,
}

fn bench(security: Security) -> Bench {
    let (carrier, script) = Script::carrier();
    let (shard, told) = (shard(), Rc::new(Told::default()));
    let connection = request(Command::Tcp, security);
    let stream =
        SealedStream::new(carrier, Rc::clone(&shard), connection, Rc::clone(&told) as Rc<dyn Witness>);
    Bench { stream, script, told, shard }
}

impl Bench {
    fn send(&mut self, payload: &[u8]) {
        assert!(matches!(self.stream.poll_ready(&mut noop_context()), Poll::Ready(Ok(()))));
        let data = self.shard.pool.copy(payload).expect("memory");
        self.stream.send(data).expect("open");
    }

    fn flush(&mut self) {
        assert!(matches!(self.stream.poll_flush(&mut noop_context()), Poll::Ready(Ok(()))));
    }

    fn server(&self) -> Server {
        Server::accept(&self.script.borrow().written)
    }

    /// Receives until nothing is at hand; the result of the last poll, and the pieces before it.
    fn receive(&mut self) -> (Poll<Result<(), StreamError>>, Vec<Buffer>) {
        let mut pieces = Vec::new();
        loop {
            match self.stream.poll_recv(&mut noop_context(), 1) {
                Poll::Ready(Ok(Some(piece))) => pieces.push(piece),
                Poll::Ready(Ok(None)) => return (Poll::Ready(Ok(())), pieces),
                Poll::Ready(Err(error)) => return (Poll::Ready(Err(error)), pieces),
                Poll::Pending => return (Poll::Pending, pieces),
            }
        }
    }
}

fn concat(pieces: &[Buffer]) -> Vec<u8> {
    pieces.iter().flat_map(|piece| piece.iter().copied()).collect()
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i % 251) as u8).collect()
}

const SECURITIES: [Security; 4] =
    [Security::Aes128Gcm, Security::Chacha20Poly1305, Security::None, Security::Zero];

#[tokio::test]
async fn header_and_first_payload_leave_in_one_write() {
    for security in SECURITIES {
        let mut bench = bench(security);
        bench.send(b"GET / HTTP/1.1\r\n\r\n");
        assert!(bench.script.borrow().writes.is_empty(), "nothing before the flush");
        bench.flush();
        assert_eq!(bench.script.borrow().writes.len(), 1);
        assert_eq!(bench.server().payload(), b"GET / HTTP/1.1\r\n\r\n");
        assert_eq!(bench.shard.pool.used(), 0);
    }
}

#[tokio::test]
async fn the_header_goes_alone_when_it_is_flushed_without_payload() {
    let mut bench = bench(Security::Aes128Gcm);
    bench.flush();
    assert!(bench.server().chunks.is_empty());
    bench.flush();
    assert_eq!(bench.script.borrow().writes.len(), 1, "once");
}

#[tokio::test(start_paused = true)]
async fn records_start_small_grow_and_start_again_after_a_pause() {
    let mut bench = bench(Security::Aes128Gcm);
    assert_eq!(bench.stream.send_limit(), 4096);
    for _ in 0..10 {
        bench.send(&pattern(16_305));
        bench.flush();
    }
    let lens: Vec<usize> = bench.server().chunks.iter().map(Vec::len).collect();
    assert_eq!(lens.iter().sum::<usize>(), 163_050);
    let small = lens.iter().position(|len| *len > 4096).expect("grows");
    let before: usize = lens[..small].iter().sum();
    assert!((65_536..65_536 + 16_305).contains(&before), "after {before}");
    assert_eq!((lens.last(), bench.stream.send_limit()), (Some(&16_305), 16_305));
    tokio::time::advance(Duration::from_millis(1100)).await;
    assert_eq!(bench.stream.send_limit(), 4096);
    bench.send(&pattern(16_305));
    bench.flush();
    assert_eq!(bench.server().chunks.last().map(Vec::len), Some(16_305 - 3 * 4096));
}

#[tokio::test]
async fn payload_is_sealed_where_it_lies_when_nobody_else_holds_it() {
    let mut bench = bench(Security::Aes128Gcm);
    let mut shared = bench.shard.pool.take(Class::Record).expect("memory");
    shared.append(b"shared bytes");
    let copy = shared.clone();
    bench.stream.send(shared.slice(0..6)).expect("open");
    bench.stream.send(shared.slice(6..12)).expect("open");
    bench.flush();
    assert_eq!((&*copy, bench.server().payload()), (&b"shared bytes"[..], b"shared bytes".to_vec()));
    drop((shared, copy));
    assert_eq!(bench.shard.pool.used(), 0);
}

#[tokio::test]
async fn a_blocked_carrier_gets_nothing_sealed_twice_and_makes_the_stream_busy() {
    let mut bench = bench(Security::Chacha20Poly1305);
    bench.script.borrow_mut().write_room = 100;
    let mut sent = Vec::new();
    while bench.stream.poll_ready(&mut noop_context()).is_ready() {
        let piece = pattern(4000);
        sent.extend_from_slice(&piece);
        bench.stream.send(bench.shard.pool.copy(&piece).expect("memory")).expect("open");
        assert!(sent.len() < 300_000, "never busy");
    }
    assert!(bench.stream.poll_flush(&mut noop_context()).is_pending());
    for _ in 0..100 {
        bench.script.borrow_mut().open_writes(7777);
        if bench.stream.poll_finish(&mut noop_context()).is_ready() {
            break;
        }
    }
    let server = bench.server();
    assert!(server.payload() == sent && server.ended);
}

#[tokio::test]
async fn the_end_goes_out_with_the_header_if_there_was_no_payload() {
    for security in SECURITIES {
        let mut bench = bench(security);
        assert!(bench.stream.poll_finish(&mut noop_context()).is_ready());
        assert_eq!(bench.script.borrow().writes.len(), 1);
        let chunked = matches!(security, Security::Aes128Gcm | Security::Chacha20Poly1305);
        assert_eq!(bench.server().ended, chunked, "{security:?}");
    }
}

/// Ends our direction at a server that says `first` with its response header, if it answers. Has the carrier been closed at
/// once, when the answer came, and after how many seconds without more?
async fn closes(first: Option<&[u8]>) -> (bool, bool, Option<u64>) {
    let mut bench = bench(Security::Aes128Gcm);
    bench.send(b"request");
    assert!(bench.stream.poll_finish(&mut noop_context()).is_ready());
    let mut server = bench.server();
    assert!(server.ended, "the terminating chunk never waits");
    let at_once = bench.script.borrow().closed;
    if let Some(first) = first {
        let mut wire = server.answer();
        if !first.is_empty() {
            wire.extend(server.seal(first));
        }
        bench.script.borrow_mut().feed(&wire);
    }
    let (state, _) = bench.receive();
    assert!(state.is_pending());
    let then = bench.script.borrow().closed;
    for second in 0..30 {
        if bench.script.borrow().closed {
            return (at_once, then, Some(second));
        }
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(bench.receive().0.is_pending());
    }
    (at_once, then, None)
}

#[tokio::test(start_paused = true)]
async fn the_carrier_ends_once_the_server_has_shown_that_it_bears_that() {
    assert_eq!(closes(Some(b"answer")).await, (false, true, Some(0)));
    assert_eq!(closes(None).await, (false, false, Some(1)));
    let (at_once, then, after) = closes(Some(b"")).await;
    assert_eq!((at_once, then), (false, false), "sing-box would end both directions");
    assert!(after.is_some_and(|seconds| (10..=12).contains(&seconds)), "{after:?}");
}

#[tokio::test(start_paused = true)]
async fn the_carrier_of_an_answered_app_ends_soon() {
    let mut bench = bench(Security::Aes128Gcm);
    bench.send(b"request");
    bench.flush();
    let mut server = bench.server();
    for wire in [server.answer(), server.seal(b"answer")] {
        bench.script.borrow_mut().feed(&wire);
        assert!(bench.receive().0.is_pending());
    }
    assert!(bench.stream.poll_finish(&mut noop_context()).is_ready());
    tokio::time::advance(Duration::from_millis(900)).await;
    assert!(bench.receive().0.is_pending() && !bench.script.borrow().closed);
    tokio::time::advance(Duration::from_millis(200)).await;
    assert!(bench.receive().0.is_pending() && bench.script.borrow().closed);
}

#[tokio::test(start_paused = true)]
async fn the_carrier_stays_open_while_a_server_that_answered_alone_sends() {
    let mut bench = bench(Security::Aes128Gcm);
    bench.send(b"request");
    bench.flush();
    let mut server = bench.server();
    bench.script.borrow_mut().feed(&server.answer());
    assert!(bench.receive().0.is_pending());
    assert!(bench.stream.poll_finish(&mut noop_context()).is_ready());
    for _ in 0..20 {
        tokio::time::advance(Duration::from_secs(8)).await;
        let wire = server.seal(b"more");
        bench.script.borrow_mut().feed(&wire);
        assert_eq!(concat(&bench.receive().1), b"more");
        assert!(!bench.script.borrow().closed);
    }
    let wire = server.finish();
    bench.script.borrow_mut().feed(&wire);
    assert_eq!((bench.receive().0, bench.script.borrow().closed), (Poll::Ready(Ok(())), true));
}

#[tokio::test]
async fn downlink_records_of_any_size_arrive_in_any_split() {
    for security in SECURITIES {
        for split in [1, 19, 100, 5000, usize::MAX] {
            let mut bench = bench(security);
            bench.flush();
            let mut server = bench.server();
            let mut wire = server.answer();
            let mut sent = Vec::new();
            let long = if split < 100 { 700 } else { 65_000 };
            for len in
                [1, 300, 511, 512, 2000, 9, 16_305.min(long), 4096.min(long), 40_000.min(long), long, 5]
            {
                let payload = pattern(len);
                wire.extend(server.seal(&payload));
                sent.extend(payload);
            }
            wire.extend(server.finish());
            let mut got = Vec::new();
            for piece in wire.chunks(split.min(wire.len())) {
                bench.script.borrow_mut().feed(piece);
                let (state, pieces) = bench.receive();
                got.extend(concat(&pieces));
                assert!(!matches!(state, Poll::Ready(Err(_))), "{state:?}");
            }
            bench.script.borrow_mut().end(Ok(()));
            let (state, pieces) = bench.receive();
            got.extend(concat(&pieces));
            drop(pieces);
            assert!(matches!(state, Poll::Ready(Ok(()))), "{security:?} split {split}: {state:?}");
            assert!(got == sent, "{security:?} split {split}: {} of {}", got.len(), sent.len());
            assert_eq!((bench.told.answered.get(), bench.shard.pool.used()), (1, 0));
        }
    }
}

#[tokio::test]
async fn records_of_one_read_share_its_memory_and_small_ones_are_merged() {
    let mut bench = bench(Security::Aes128Gcm);
    bench.flush();
    let mut server = bench.server();
    let mut wire = server.answer();
    for len in [2000; 20] {
        wire.extend(server.seal(&pattern(len)));
    }
    for len in [100; 20] {
        wire.extend(server.seal(&pattern(len)));
    }
    bench.script.borrow_mut().feed(&wire);
    let (_, pieces) = bench.receive();
    let lens: Vec<usize> = pieces.iter().map(|piece| piece.len()).collect();
    assert_eq!(lens, [&[2000; 19][..], &[4000]].concat());
    assert_eq!(bench.shard.pool.used(), Class::Large.slab_len(), "one buffer for all");
}

#[tokio::test]
async fn little_payload_does_not_hold_a_large_buffer() {
    let mut bench = bench(Security::Aes128Gcm);
    bench.flush();
    let mut server = bench.server();
    let mut wire = server.answer();
    wire.extend(server.seal(b"pong"));
    let next = server.seal(&pattern(3000));
    wire.extend(&next[..1000]);
    bench.script.borrow_mut().feed(&wire);
    let (state, pieces) = bench.receive();
    assert!(state.is_pending());
    assert_eq!((concat(&pieces), bench.shard.pool.used()), (b"pong".to_vec(), 2 * Class::Small.slab_len()));
    drop(pieces);
    bench.script.borrow_mut().feed(&next[1000..]);
    let (_, pieces) = bench.receive();
    assert_eq!((concat(&pieces), pieces[0].held()), (pattern(3000), Class::Small.slab_len()));
    drop(pieces);
    assert_eq!(bench.shard.pool.used(), 0, "an idle stream holds nothing");
}

#[tokio::test]
async fn how_the_carrier_ends_decides_how_the_stream_does() {
    let rejected = Poll::Ready(Err(StreamError::Rejected));
    let reset = Err(io::ErrorKind::ConnectionReset);
    // Nothing, or a part of the response header, and then the end.
    for (bytes, end) in [(0, Ok(())), (20, Ok(())), (0, reset), (37, reset)] {
        let mut bench = bench(Security::Aes128Gcm);
        bench.flush();
        let answer = bench.server().answer();
        bench.script.borrow_mut().feed(&answer[..bytes]);
        bench.script.borrow_mut().end(end);
        assert_eq!(bench.receive().0, rejected);
        assert_eq!(bench.receive().0, rejected, "and ever after");
        assert_eq!((bench.told.rejected.get(), bench.told.answered.get()), (1, 0));
    }
    // The header and a record, cut behind so many bytes of the next one.
    for (cut, end, expected) in [
        (0, Ok(()), Ok(())),
        (1, Ok(()), Err(StreamError::Truncated)),
        (50, Ok(()), Err(StreamError::Truncated)),
        (0, reset, Err(StreamError::Reset)),
    ] {
        let mut bench = bench(Security::Aes128Gcm);
        bench.flush();
        let mut server = bench.server();
        let mut wire = server.answer();
        wire.extend(server.seal(b"whole"));
        wire.extend(&server.seal(&pattern(100))[..cut]);
        bench.script.borrow_mut().feed(&wire);
        bench.script.borrow_mut().end(end);
        let (state, pieces) = bench.receive();
        assert_eq!((state, concat(&pieces)), (Poll::Ready(expected), b"whole".to_vec()));
        assert_eq!(bench.told.rejected.get(), 0);
    }
}

#[tokio::test]
async fn a_server_that_ends_its_streams_is_cut_off_where_it_does_not() {
    // The stream is `payloads` chunks, terminated or not, and then the carrier's proper end.
    let run = |told: &Rc<Told>, security, payloads: usize, terminated: bool| {
        let mut bench = bench(security);
        bench.told = Rc::clone(told);
        bench.stream.0.witness = Rc::clone(told) as Rc<dyn Witness>;
        bench.flush();
        let mut server = bench.server();
        let mut wire = server.answer();
        (0..payloads).for_each(|_| wire.extend(server.seal(b"whole")));
        if terminated {
            wire.extend(server.finish());
        }
        bench.script.borrow_mut().feed(&wire);
        bench.script.borrow_mut().end(Ok(()));
        let (state, pieces) = bench.receive();
        assert_eq!(concat(&pieces), b"whole".repeat(payloads));
        assert_eq!(bench.receive().0, state, "and ever after");
        state
    };
    let told = Rc::new(Told::default());
    let (whole, cut) = (Poll::Ready(Ok(())), Poll::Ready(Err(StreamError::Truncated)));
    assert_eq!(run(&told, Security::Aes128Gcm, 2, false), whole, "sing-box and mihomo never send one");
    assert_eq!(run(&told, Security::Zero, 2, true), whole);
    assert!(!told.terminates.get(), "a stream without chunks proves nothing");
    assert_eq!(run(&told, Security::Aes128Gcm, 2, true), whole);
    assert_eq!(run(&told, Security::Aes128Gcm, 2, true), whole);
    assert_eq!(run(&told, Security::Aes128Gcm, 2, false), cut);
    assert_eq!(run(&told, Security::Chacha20Poly1305, 1, false), cut);
    assert_eq!(run(&told, Security::Zero, 2, false), whole, "it has no other end");
    assert_eq!(
        run(&told, Security::Aes128Gcm, 0, false),
        whole,
        "V2Ray says no more when a target says nothing"
    );
    assert_eq!(told.rejected.get(), 0);
}

#[tokio::test]
async fn a_carrier_that_dies_unheard_after_the_answer_is_told_and_is_no_end() {
    for (answered, kind, error) in [
        (true, io::ErrorKind::TimedOut, StreamError::Timeout("unacknowledged data")),
        (true, io::ErrorKind::HostUnreachable, StreamError::Io(io::ErrorKind::HostUnreachable)),
        // The relay tells of flows that were never answered.
        (false, io::ErrorKind::TimedOut, StreamError::Timeout("unacknowledged data")),
    ] {
        let mut bench = bench(Security::Aes128Gcm);
        bench.flush();
        if answered {
            let answer = bench.server().answer();
            bench.script.borrow_mut().feed(&answer);
            assert!(bench.receive().0.is_pending());
        }
        bench.script.borrow_mut().end(Err(kind));
        assert_eq!(bench.receive().0, Poll::Ready(Err(error)));
        assert_eq!((bench.told.lost.get(), bench.told.rejected.get()), (u32::from(answered), 0));
    }
}

#[tokio::test]
async fn a_flipped_bit_is_a_forgery() {
    let mut bench = bench(Security::Aes128Gcm);
    bench.flush();
    let mut server = bench.server();
    let mut wire = server.answer();
    wire.extend(server.seal(&pattern(100)));
    let at = wire.len() - 90;
    wire[at] ^= 1;
    bench.script.borrow_mut().feed(&wire);
    assert_eq!(bench.receive().0, Poll::Ready(Err(StreamError::Forged)));
    assert!(bench.stream.send(Buffer::empty()).is_err());
}

#[tokio::test]
async fn a_write_that_fails_before_the_answer_is_a_rejection() {
    let mut bench = bench(Security::Aes128Gcm);
    bench.send(b"data");
    bench.script.borrow_mut().write_error = Some(io::ErrorKind::BrokenPipe);
    bench.script.borrow_mut().end(Ok(()));
    assert!(matches!(bench.stream.poll_flush(&mut noop_context()), Poll::Ready(Err(_))));
    assert_eq!(bench.receive().0, Poll::Ready(Err(StreamError::Rejected)));
    assert_eq!(bench.told.rejected.get(), 1);
}

#[tokio::test]
async fn an_answer_is_received_from_a_carrier_that_takes_no_more() {
    for (terminated, how, end) in [
        (false, io::ErrorKind::BrokenPipe, Ok(())),
        (false, io::ErrorKind::ConnectionReset, Err(StreamError::Reset)),
        (true, io::ErrorKind::ConnectionReset, Ok(())),
    ] {
        let mut bench = bench(Security::Aes128Gcm);
        bench.send(b"data");
        bench.flush();
        let mut server = bench.server();
        let mut wire = server.answer();
        wire.extend(server.seal(b"early"));
        if terminated {
            wire.extend(server.finish());
        }
        bench.send(b"more");
        bench.script.borrow_mut().write_error = Some(how);
        assert!(matches!(bench.stream.poll_flush(&mut noop_context()), Poll::Ready(Err(_))));
        bench.script.borrow_mut().feed(&wire);
        bench.script.borrow_mut().end(Ok(()));
        let (last, pieces) = bench.receive();
        assert_eq!((concat(&pieces), last), (b"early".to_vec(), Poll::Ready(end)), "{how} {terminated}");
        assert_eq!(bench.told.rejected.get(), 0);
        assert!(bench.stream.send(Buffer::empty()).is_err());
    }
}

#[tokio::test]
async fn a_full_pool_delays_both_directions_and_loses_nothing() {
    let mut bench = bench(Security::Aes128Gcm);
    bench.flush();
    let mut server = bench.server();
    let header_len = bench.script.borrow().written.len();
    let mut wire = server.answer();
    wire.extend(server.seal(b"down"));
    bench.script.borrow_mut().feed(&wire);
    let pool = bench.shard.pool.clone();
    let mut shared = pool.take(Class::Small).expect("memory");
    shared.append(b"up");
    bench.stream.send(shared.slice(0..2)).expect("open");
    let held: Vec<Buffer> = [Class::Large, Class::Small]
        .iter()
        .flat_map(|class| std::iter::from_fn(|| pool.take(*class)))
        .collect();
    assert!(bench.stream.poll_flush(&mut noop_context()).is_pending());
    assert!(bench.receive().0.is_pending());
    drop(held);
    bench.flush();
    server.receive(&bench.script.borrow().written[header_len..]);
    assert_eq!((server.payload(), concat(&bench.receive().1)), (b"up".to_vec(), b"down".to_vec()));
}

struct Flow {
    flow: SealedDatagrams<ScriptCarrier>,
    script: Rc<RefCell<Script>>,
    shard: Rc<Shard>,
    target: crate::addr::Target,
}

fn flow() -> Flow {
    let (carrier, script) = Script::carrier();
    let shard = shard();
    let connection = request(Command::Udp, Security::Aes128Gcm);
    let target = crate::addr::Target::from(std::net::SocketAddr::from(([192, 0, 2, 1], 53)));
    let told = Rc::new(Told::default());
    let flow = SealedDatagrams::new(carrier, Rc::clone(&shard), connection, told, target.clone());
    Flow { flow, script, shard, target }
}

impl Flow {
    fn send(&mut self, payload: &[u8]) {
        let data = self.shard.pool.copy(payload).expect("memory");
        self.flow.send(Datagram { data, remote: self.target.clone() }).expect("open");
    }

    fn dropped(&self) -> u64 {
        self.shard.shared.stats.dropped.load(std::sync::atomic::Ordering::Relaxed)
    }
}

#[tokio::test]
async fn one_datagram_is_one_chunk_both_ways() {
    let mut flow = flow();
    let sizes = [1, 1200, 9000, 16_305];
    sizes.iter().for_each(|len| flow.send(&pattern(*len)));
    flow.send(b"");
    flow.send(&pattern(16_400));
    let elsewhere = Datagram {
        data: flow.shard.pool.copy(b"x").expect("memory"),
        remote: crate::addr::Target { port: 54, ..flow.target.clone() },
    };
    flow.flow.send(elsewhere).expect("dropped");
    assert!(flow.flow.poll_flush(&mut noop_context()).is_ready());
    assert_eq!((flow.script.borrow().writes.len(), flow.dropped()), (1, 2), "too long, and bound elsewhere");
    let mut server = Server::accept(&flow.script.borrow().written);
    assert_eq!(server.header.command, Command::Udp);
    assert_eq!(server.chunks.iter().map(Vec::len).collect::<Vec<_>>(), sizes);
    let mut wire = server.answer();
    [10, 20, 30].iter().for_each(|len| wire.extend(server.seal(&pattern(*len))));
    flow.script.borrow_mut().feed(&wire);
    for len in [10, 20, 30] {
        let Poll::Ready(Ok(Some(got))) = flow.flow.poll_recv(&mut noop_context()) else { panic!("missing") };
        assert_eq!((&*got.data, &got.remote), (&*pattern(len), &flow.target));
        assert_eq!(got.data.held(), Class::Small.slab_len());
    }
}

#[tokio::test(start_paused = true)]
async fn a_blocked_carrier_costs_the_oldest_datagrams() {
    let mut flow = flow();
    flow.script.borrow_mut().write_room = 0;
    flow.send(b"first");
    assert!(flow.flow.poll_flush(&mut noop_context()).is_pending());
    for i in 0..70_u8 {
        assert!(flow.flow.poll_ready(&mut noop_context()).is_pending());
        flow.send(&[i; 50]);
    }
    assert_eq!(flow.dropped(), 6, "64 wait");
    tokio::time::advance(Duration::from_millis(400)).await;
    flow.send(b"late");
    tokio::time::advance(Duration::from_millis(200)).await;
    flow.script.borrow_mut().open_writes(usize::MAX);
    assert!(flow.flow.poll_flush(&mut noop_context()).is_ready());
    let server = Server::accept(&flow.script.borrow().written);
    assert_eq!(server.chunks, [b"first".to_vec(), b"late".to_vec()], "what was sealed stays, what aged goes");
}
