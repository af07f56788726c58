use super::super::stream::StreamError;
use super::super::testing::{Script, ScriptCarrier, noop_context, shard};
use super::*;
use crate::entropy::{Entropy, SeededEntropy};
use crate::error::{ErrorKind, Stage};
use deframe::{Deframer, Role};
use std::cell::RefCell;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::task::{LocalSet, spawn_local, yield_now};
use tokio::time::sleep;

type Ours = Rc<RefCell<Script>>;

fn settings() -> Ws {
    Ws { path: "/ray".to_owned(), ..Ws::default() }
}

fn early(max: usize) -> Ws {
    Ws { max_early_data: max, early_data_header: Some("X-Early".to_owned()), ..settings() }
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(4)
}

/// Reads everything that is at hand, and how that ended.
fn read_all(carrier: &mut dyn Carrier, piece: usize) -> (Vec<u8>, Poll<Result<(), io::ErrorKind>>) {
    let (mut got, mut out) = (Vec::new(), vec![0; piece]);
    loop {
        if carrier.poll_read_ready(&mut noop_context()).is_pending() {
            return (got, Poll::Pending);
        }
        match carrier.poll_read(&mut noop_context(), &mut out) {
            Poll::Ready(Ok(0)) => return (got, Poll::Ready(Ok(()))),
            Poll::Ready(Ok(n)) => got.extend_from_slice(&out[..n]),
            Poll::Ready(Err(error)) => return (got, Poll::Ready(Err(error.kind()))),
            Poll::Pending => return (got, Poll::Pending),
        }
    }
}

fn write(carrier: &mut dyn Carrier, data: &[u8]) -> Poll<io::Result<usize>> {
    let (first, second) = data.split_at(data.len() / 3);
    carrier.poll_write(&mut noop_context(), &[IoSlice::new(first), IoSlice::new(second)])
}

fn client() -> (WsCarrier<ScriptCarrier>, Ours) {
    let (carrier, script) = Script::carrier();
    (WsCarrier::client(Behind::new(carrier, Vec::new()), shard(), None), script)
}

fn server() -> (WsCarrier<ScriptCarrier>, Ours) {
    let (carrier, script) = Script::carrier();
    (WsCarrier::server(Behind::new(carrier, Vec::new()), shard(), false), script)
}

/// Moves what one end wrote to the other.
fn pass(from: &Ours, to: &Ours) {
    let written = std::mem::take(&mut from.borrow_mut().written);
    to.borrow_mut().feed(&written);
}

/// The payload of the frames that one end has written.
fn payload(role: Role, wire: &[u8]) -> Vec<u8> {
    let (mut deframer, mut wire) = (Deframer::new(role), wire.to_vec());
    let n = deframer.open(&mut wire);
    assert!(deframer.is_between_messages());
    wire.truncate(n);
    wire
}

/// Answers the upgrade in `script` as a server does, and returns the request.
fn answer_upgrade(script: &Ours, behind: &[u8]) -> String {
    let request = String::from_utf8(std::mem::take(&mut script.borrow_mut().written)).expect("text");
    let key = request.lines().find_map(|line| line.strip_prefix("Sec-WebSocket-Key: ")).expect("a key");
    let head = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\nsec-websocket-accept: {}\r\n\r\n",
        handshake::accept_key(key)
    );
    script.borrow_mut().feed(&[head.as_bytes(), behind].concat());
    request
}

#[tokio::test]
async fn both_ends_understand_each_other_in_any_segmentation() {
    let mut entropy = SeededEntropy::new(5);
    for round in 0..24 {
        let ((mut client, up), (mut server, down)) = (client(), server());
        let (len, limit) = [(300, 7), (5000, 900), (150_000, 90_000)][round % 3];
        for script in [&up, &down] {
            script.borrow_mut().write_limit = 1 + entropy.below(limit) as usize;
            script.borrow_mut().read_limit = 1 + entropy.below(limit) as usize;
        }
        let sent: Vec<u8> = (0..len).map(|i: u32| (i * 7 + (i >> 8)) as u8).collect();
        let (mut at, mut got) = ([0, 0], [Vec::new(), Vec::new()]);
        while got.iter().any(|got| got.len() < sent.len()) {
            let ends: [&mut dyn Carrier; 2] = [&mut client, &mut server];
            for (index, end) in ends.into_iter().enumerate() {
                let most = sent.len().min(at[index] + 1 + entropy.below(70_000) as usize);
                if let Poll::Ready(written) = write(end, &sent[at[index]..most]) {
                    at[index] += written.expect("written");
                }
                let (read, state) = read_all(end, 1 + entropy.below(40_000) as usize);
                got[index].extend(read);
                assert!(state.is_pending(), "{state:?}");
            }
            pass(&up, &down);
            pass(&down, &up);
        }
        assert!(got.iter().all(|got| *got == sent), "round {round}");
        assert_eq!(client.shard_of().pool.used() + server.shard_of().pool.used(), 0);
    }
}

#[tokio::test]
async fn the_upgrade_and_the_first_bytes_are_one_packet_each() {
    let (carrier, script) = Script::carrier();
    let (settings, shard) = (settings(), shard());
    let connecting = connect(carrier, &settings, "h", &shard, soon());
    let served = async {
        while script.borrow().written.is_empty() {
            yield_now().await;
        }
        answer_upgrade(&script, b"")
    };
    let (connected, request) = tokio::join!(connecting, served);
    assert!(request.starts_with("GET /ray HTTP/1.1\r\nHost: h\r\n"), "{request}");
    let mut carrier = connected.expect("connected");
    assert!(matches!(write(&mut *carrier, &[7; 1400]), Poll::Ready(Ok(1400))));
    let script = script.borrow();
    assert_eq!(script.writes, [request.len(), 1400 + 8]);
    assert_eq!(payload(Role::Server, &script.written), [7; 1400]);
}

#[tokio::test]
async fn early_data_travels_in_the_one_packet_of_the_upgrade() {
    let (carrier, script) = Script::carrier();
    let mut carrier = connect(carrier, &early(2048), "h", &shard(), soon()).await.expect("connected");
    assert!(carrier.poll_read_ready(&mut noop_context()).is_pending() && script.borrow().written.is_empty());
    assert!(matches!(write(&mut *carrier, b"header and payload"), Poll::Ready(Ok(18))));
    assert_eq!(script.borrow().writes.len(), 1);
    assert!(carrier.poll_flush(&mut noop_context()).is_ready());
    assert!(write(&mut *carrier, b"more").is_pending(), "it waits for the answer");
    let request = answer_upgrade(&script, b"\x82\x04down");
    assert!(request.ends_with("\r\nX-Early: aGVhZGVyIGFuZCBwYXlsb2Fk\r\n\r\n"), "{request}");
    assert!(matches!(write(&mut *carrier, b"more"), Poll::Ready(Ok(4))));
    assert_eq!(read_all(&mut *carrier, 100), (b"down".to_vec(), Poll::Pending));
    assert_eq!(payload(Role::Server, &script.borrow().written), b"more");
}

#[tokio::test]
async fn what_early_data_has_no_room_for_is_the_first_message() {
    let (carrier, script) = Script::carrier();
    script.borrow_mut().write_limit = 9;
    let mut carrier = connect(carrier, &early(10), "h", &shard(), soon()).await.expect("connected");
    assert!(matches!(write(&mut *carrier, b"0123456789 and the rest"), Poll::Ready(Ok(10))));
    assert!(answer_upgrade(&script, b"").contains("X-Early: MDEyMzQ1Njc4OQ\r\n"));
    let mut rest = &b" and the rest"[..];
    while !rest.is_empty() {
        let Poll::Ready(Ok(n)) = write(&mut *carrier, rest) else { panic!("blocked") };
        rest = &rest[n..];
    }
    assert_eq!(payload(Role::Server, &script.borrow().written), b" and the rest");
}

#[tokio::test(start_paused = true)]
async fn a_delayed_upgrade_that_fails_says_so_like_any_other() {
    for (answer, end, words) in [
        (&b"HTTP/1.1 404 Not Found\r\n\r\n"[..], false, "HTTP 404 Not Found"),
        (b"HTTP/1.1 101 Swi", true, "within its answer"),
        (b"", false, "no answer"),
    ] {
        let (carrier, script) = Script::carrier();
        let mut carrier = connect(carrier, &early(10), "h", &shard(), soon()).await.expect("connected");
        sleep(Duration::from_secs(60)).await;
        assert!(matches!(write(&mut *carrier, b"x"), Poll::Ready(Ok(1))));
        script.borrow_mut().feed(answer);
        if end {
            script.borrow_mut().end(Ok(()));
        }
        let started = Instant::now();
        let error = poll_fn(|cx| carrier.poll_read_ready(cx)).await.expect_err("failed");
        assert!(started.elapsed() <= Duration::from_secs(5));
        let StreamError::Setup(dial) = StreamError::from(error) else { panic!("another error") };
        assert_eq!(dial.error.kind, ErrorKind::ServerUnreachable { stage: Stage::Upgrade });
        assert!(dial.error.reason.contains(words), "{dial}");
        assert!(matches!(write(&mut *carrier, b"x"), Poll::Ready(Err(_))), "and ever after");
    }
}

#[tokio::test(start_paused = true)]
async fn every_failed_upgrade_ends_in_time_and_lets_the_carrier_go() {
    let long = [b"HTTP/1.1 101 ".as_slice(), &[b'x'; 9000]].concat();
    for (answer, words) in [
        (&b"HTTP/1.1 404 Not Found\r\n\r\n"[..], "HTTP 404"),
        (b"HTTP/1.1 301 Moved Permanently\r\nLocation: /\r\n\r\n", "HTTP 301"),
        (b"HTTP/1.1 403 Forbidden\r\nContent-Length: 5\r\n\r\nno, no", "HTTP 403"),
        (b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n<html></html>", "a web page"),
        (b"HTTP/1.1 101 OK\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", "another WebSocket's key"),
        (b"<html>hello</html>", "no HTTP"),
        (&long, "does not end"),
        (b"HTTP/1.1 101 Switching Protocols\r\nUpg", "no answer"),
        (b"", "no answer"),
    ] {
        let (carrier, script) = Script::carrier();
        script.borrow_mut().feed(answer);
        let started = Instant::now();
        let Err(failed) = connect(carrier, &settings(), "h", &shard(), soon()).await else { panic!("taken") };
        assert!(failed.error.reason.contains(words), "{failed}");
        assert_eq!(failed.error.kind, ErrorKind::ServerUnreachable { stage: Stage::Upgrade });
        assert!(started.elapsed() <= Duration::from_secs(5));
        assert_eq!(Rc::strong_count(&script), 1, "the carrier is still held");
    }
}

#[tokio::test]
async fn a_server_answers_alone_and_gives_early_bytes_back_in_their_order() {
    let (carrier, script) = Script::carrier();
    let mut frame = vec![0x82, 0x85, 0, 0, 0, 0];
    frame.extend(b"frame");
    let head = "GET /ray HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                Sec-WebSocket-Key: AAAA\r\nSec-WebSocket-Protocol: ZWFybHk\r\n\r\n";
    script.borrow_mut().feed(&[head.as_bytes(), &frame].concat());
    let mut carrier = accept(carrier, &settings(), &shard()).await.expect("accepted");
    assert_eq!(read_all(&mut *carrier, 3), (b"earlyframe".to_vec(), Poll::Pending));
    assert!(matches!(write(&mut *carrier, b"down"), Poll::Ready(Ok(4))));
    let script = script.borrow();
    assert_eq!((script.writes.len(), script.writes[1]), (2, 6));
    assert!(script.written.ends_with(b"\x82\x04down"));
}

#[tokio::test(start_paused = true)]
async fn payload_waits_for_a_sign_of_a_client_that_loses_what_comes_with_the_101() {
    let head = "GET /ray HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-Websocket-Key: AAAA\r\n\
                Sec-Websocket-Protocol: ZWFybHk\r\nSec-Websocket-Version: 13\r\n\r\n";
    let (pong, data): (&[u8], &[u8]) = (b"\x8A\x80\0\0\0\0", b"\x82\x81\0\0\0\0x");
    for (sign, waits) in [(Some(pong), false), (Some(data), false), (Some(&[][..]), false), (None, true)] {
        let (carrier, script) = Script::carrier();
        script.borrow_mut().feed(head.as_bytes());
        let mut carrier = accept(carrier, &settings(), &shard()).await.expect("accepted");
        assert_eq!(read_all(&mut *carrier, 9).0, b"early");
        for _ in 0..2 {
            assert!(write(&mut *carrier, b"down").is_pending());
        }
        let told = std::mem::take(&mut script.borrow_mut().written);
        assert!(told.ends_with(b"\r\n\r\n\x89\0"), "one ping");
        let (carrier, started) = (Rc::new(RefCell::new(carrier)), Instant::now());
        let writes = Rc::clone(&carrier);
        LocalSet::new()
            .run_until(async move {
                // The writer is a task of its own: whoever reads the sign has to wake it.
                let writer = spawn_local(poll_fn(move |cx| {
                    writes.borrow_mut().poll_write(cx, &[IoSlice::new(b"down")])
                }));
                yield_now().await;
                match sign {
                    Some([]) => script.borrow_mut().end(Ok(())),
                    Some(sign) => script.borrow_mut().feed(sign),
                    None => {}
                }
                let _ = read_all(&mut **carrier.borrow_mut(), 9).1;
                assert_eq!(writer.await.expect("no panic").expect("written"), 4);
                assert_eq!(script.borrow().written, b"\x82\x04down");
            })
            .await;
        assert_eq!(started.elapsed() >= Duration::from_millis(500), waits, "{sign:?}");
    }
}

#[tokio::test]
async fn pings_are_answered_between_frames_and_nothing_piles_up() {
    let (mut client, script) = client();
    script.borrow_mut().write_room = 20;
    assert!(matches!(write(&mut client, &[1; 100]), Poll::Ready(Ok(14))));
    for ping in 0..50 {
        script.borrow_mut().feed(&[0x89, 1, ping]);
    }
    assert!(read_all(&mut client, 100).1.is_pending());
    script.borrow_mut().open_writes(usize::MAX);
    assert!(matches!(write(&mut client, &[1; 86]), Poll::Ready(Ok(86))));
    assert!(client.poll_flush(&mut noop_context()).is_ready());
    script.borrow_mut().feed(&[0x89, 0]);
    assert!(read_all(&mut client, 100).1.is_pending());
    let mut wire = script.borrow().written.clone();
    assert_eq!(wire.len(), 6 + 100 + 6 + 1 + 6, "the last of fifty, and the one after it");
    let pong = wire.split_off(106);
    assert_eq!(payload(Role::Server, &wire), [1; 100]);
    assert_eq!((pong[0], pong[1], pong[2] ^ pong[6], pong[7], pong[8]), (0x8A, 0x81, 49, 0x8A, 0x80));
}

#[tokio::test]
async fn a_close_frame_is_an_end_behind_everything_before_it() {
    let wire = b"\x82\x03all\x88\x02\x03\xE8\x82\x04none";
    for piece in [1, 4, 100] {
        let (mut client, script) = client();
        script.borrow_mut().feed(wire);
        assert_eq!(read_all(&mut client, piece), (b"all".to_vec(), Poll::Ready(Ok(()))));
        assert!(script.borrow().written.is_empty(), "our direction goes on");
        assert!(matches!(write(&mut client, b"up"), Poll::Ready(Ok(2))));
        assert!(client.poll_close(&mut noop_context()).is_ready());
        let script = script.borrow();
        assert!(script.closed && script.written[8..].starts_with(&[0x88, 0x82]), "and ends with an answer");
    }
}

#[tokio::test]
async fn how_the_carrier_ends_decides_how_the_socket_does() {
    for (wire, end, expected) in [
        (&b"\x82\x03all"[..], Ok(()), Ok(())),
        (b"\x82\x04all", Ok(()), Err(io::ErrorKind::UnexpectedEof)),
        (b"\x02\x03all", Ok(()), Err(io::ErrorKind::UnexpectedEof)),
        (b"\x82\x03all\x82", Ok(()), Err(io::ErrorKind::UnexpectedEof)),
        (b"\x82\x03all\x88\x02\x03\xEA", Ok(()), Err(io::ErrorKind::UnexpectedEof)),
        (b"\x82\x03all", Err(io::ErrorKind::ConnectionReset), Err(io::ErrorKind::ConnectionReset)),
        (b"\x82\x03all\x81\x01x", Ok(()), Err(io::ErrorKind::InvalidData)),
        (b"\x82\x03all\x82\x7F\0\0\0\x01\0\0\0\0", Ok(()), Err(io::ErrorKind::InvalidData)),
        (b"\x82\x03all\x82\x81abcdx", Ok(()), Err(io::ErrorKind::InvalidData)),
    ] {
        let (mut client, script) = client();
        script.borrow_mut().feed(wire);
        script.borrow_mut().end(end);
        assert_eq!(read_all(&mut client, 100), (b"all".to_vec(), Poll::Ready(expected)), "{wire:?}");
        assert_eq!(read_all(&mut client, 100).1, Poll::Ready(expected), "and ever after");
    }
    let (mut client, script) = client();
    script.borrow_mut().feed(b"\x81\x01x");
    let error = poll_fn(|cx| client.poll_read(cx, &mut [0; 10])).await.expect_err("text");
    assert_eq!(StreamError::from(error), StreamError::Protocol("a WebSocket text frame"));
}

#[tokio::test]
async fn a_clients_end_says_nothing_before_the_servers() {
    let (mut client, script) = client();
    assert!(matches!(write(&mut client, b"up"), Poll::Ready(Ok(2))));
    assert!(client.poll_close(&mut noop_context()).is_ready());
    assert!((script.borrow().written.len(), script.borrow().closed) == (8, false));
    script.borrow_mut().feed(b"\x82\x04down\x88\x00");
    assert_eq!(read_all(&mut client, 100), (b"down".to_vec(), Poll::Ready(Ok(()))));
    assert!(script.borrow().closed && script.borrow().written[8..].starts_with(&[0x88, 0x82]));
}

#[tokio::test]
async fn a_servers_end_is_the_carriers_own() {
    let (mut server, script) = server();
    assert!(matches!(write(&mut server, b"down"), Poll::Ready(Ok(4))));
    assert!(server.poll_close(&mut noop_context()).is_ready());
    assert!((script.borrow().written.as_slice(), script.borrow().closed) == (b"\x82\x04down", true));
    let (mut server, script) = self::server();
    script.borrow_mut().feed(b"\x88\x80abcd");
    assert_eq!(read_all(&mut server, 9).1, Poll::Ready(Ok(())));
    assert!(server.poll_close(&mut noop_context()).is_ready());
    assert_eq!(script.borrow().written, b"\x88\x02\x03\xE8", "a close frame is answered");
    let (mut server, script) = self::server();
    script.borrow_mut().write_room = 5;
    assert!(matches!(write(&mut server, b"down"), Poll::Ready(Ok(3))));
    let closed = server.poll_close(&mut noop_context());
    assert!(matches!(closed, Poll::Ready(Err(_))) && !script.borrow().closed, "no end within a frame");
}

#[tokio::test(start_paused = true)]
async fn an_idle_client_pings_and_a_busy_one_does_not() {
    let (carrier, script) = Script::carrier();
    let carrier = Behind::new(carrier, Vec::new());
    let mut client = WsCarrier::client(carrier, shard(), Some(Duration::from_secs(10)));
    let wait = async |client: &mut WsCarrier<ScriptCarrier>, seconds| {
        let ready = poll_fn(|cx| client.poll_read_ready(cx));
        assert!(tokio::time::timeout(Duration::from_secs(seconds), ready).await.is_err());
        std::mem::take(&mut script.borrow_mut().written)
    };
    assert_eq!(wait(&mut client, 9).await, b"");
    let ping = wait(&mut client, 2).await;
    assert_eq!((ping.len(), ping[0], ping[1]), (6, 0x89, 0x80));
    assert!(write(&mut client, b"x").is_ready());
    assert_eq!(wait(&mut client, 10).await.len(), 7, "what was written alone");
    assert_eq!(wait(&mut client, 10).await.len(), 6);
}

#[tokio::test]
async fn a_blocked_socket_holds_no_memory() {
    let (mut client, script) = client();
    script.borrow_mut().write_room = 40_000;
    let data = vec![3; 60_000];
    let mut at = 0;
    while let Poll::Ready(n) = write(&mut client, &data[at..]) {
        at += n.expect("written");
    }
    assert_eq!((at, client.shard_of().pool.used()), (40_000 - 8, 0));
    script.borrow_mut().open_writes(usize::MAX);
    while at < data.len() {
        let Poll::Ready(Ok(n)) = write(&mut client, &data[at..]) else { panic!("stuck") };
        at += n;
    }
    assert!(payload(Role::Server, &script.borrow().written) == data);
}

#[tokio::test]
async fn an_abort_waits_for_what_is_on_its_way_below() {
    for (mut carrier, script) in [client(), server()] {
        script.borrow_mut().undrained = true;
        assert!(carrier.poll_drained(&mut noop_context()).is_pending());
        script.borrow_mut().undrained = false;
        assert!(carrier.poll_drained(&mut noop_context()).is_ready());
    }
}

#[tokio::test]
async fn a_full_pool_slows_writing_and_does_not_stop_it() {
    let (mut client, script) = client();
    let pool = client.shard_of().pool.clone();
    let classes = [crate::buffer::Class::Large, crate::buffer::Class::Small];
    let held: Vec<_> = classes.iter().flat_map(|class| std::iter::from_fn(|| pool.take(*class))).collect();
    let data: Vec<u8> = (0..5000_u32).map(|i| i as u8).collect();
    let mut at = 0;
    while at < data.len() {
        let Poll::Ready(Ok(n)) = write(&mut client, &data[at..]) else { panic!("stuck") };
        at += n;
    }
    assert!(payload(Role::Server, &script.borrow().written) == data && !held.is_empty());
}

// Most of an idle TLS connection's 16 KiB are TLS's.
const _: () = assert!(size_of::<WsCarrier<Box<dyn Carrier>>>() <= 256);

/// A carrier with memory of its own, as TLS has.
struct WithMemory(ScriptCarrier, Rc<RefCell<Vec<usize>>>);

impl Carrier for WithMemory {
    fn poll_read_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.poll_read_ready(cx)
    }

    fn poll_read(&mut self, cx: &mut Context<'_>, out: &mut [u8]) -> Poll<io::Result<usize>> {
        self.0.poll_read(cx, out)
    }

    fn poll_write(&mut self, _: &mut Context<'_>, _: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        panic!("payload was copied before it came here");
    }

    fn poll_write_made(
        &mut self,
        cx: &mut Context<'_>,
        len: usize,
        make: &mut dyn FnMut(&mut [u8]),
    ) -> Option<Poll<io::Result<usize>>> {
        let mut memory = vec![0; len.min(16_384)];
        make(&mut memory);
        let written = self.0.poll_write(cx, &[IoSlice::new(&memory)]);
        if let Poll::Ready(Ok(n)) = &written {
            self.1.borrow_mut().push(*n);
        }
        Some(written)
    }

    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.poll_close(cx)
    }

    fn abort(&mut self) {
        self.0.abort();
    }
}

#[tokio::test]
async fn a_client_masks_straight_into_the_memory_below() {
    let sent: Vec<u8> = (0..100_000_u32).map(|i| (i * 13 + (i >> 9)) as u8).collect();
    for limit in [usize::MAX, 9000, 7] {
        let (carrier, script) = Script::carrier();
        script.borrow_mut().write_limit = limit;
        let writes = Rc::default();
        let below = Behind::new(WithMemory(carrier, Rc::clone(&writes)), Vec::new());
        let mut client = WsCarrier::client(below, shard(), None);
        let mut at = 0;
        while at < sent.len() {
            let Poll::Ready(Ok(n)) = write(&mut client, &sent[at..]) else { panic!("it takes everything") };
            at += n;
        }
        assert!(payload(Role::Server, &script.borrow().written) == sent);
        assert_eq!(client.shard_of().pool.used(), 0);
        if limit == usize::MAX {
            assert_eq!(writes.borrow().iter().filter(|n| **n == 16_384).count(), 6, "whole records");
        }
    }
}
