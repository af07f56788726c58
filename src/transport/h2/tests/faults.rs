//! What peers do wrong ends in the right error, in time.

use super::*;
use crate::error::{ErrorKind, Stage};
use crate::transport::h2::Failure;
use crate::transport::testing::noop_context;
use bytes::Bytes;
use h2::Reason;
use http::Response;
use tokio::time::sleep;

/// A client whose only connection is `ours`.
async fn open(shard: &Rc<Shard>, client: &Client, ours: Duplex, deadline: Instant) -> Box<dyn Carrier> {
    let ours = RefCell::new(Some(ours));
    let dial = async || {
        let ours: Box<dyn Carrier> = Box::new(ours.take().expect("dialled once"));
        Ok(ours)
    };
    client.open(shard, deadline, &dial).await.expect("open")
}

fn upgrade() -> ErrorKind {
    ErrorKind::ServerUnreachable { stage: Stage::Upgrade }
}

#[tokio::test(start_paused = true)]
async fn a_silent_server_is_given_up_at_the_deadline() {
    on_shard(async |shard| {
        let (ours, theirs) = duplex();
        let (aborted, client) = (Rc::clone(&ours.aborted), Client::new(settings(), true));
        let started = Instant::now();
        let mut carrier = open(&shard, &client, ours, started + Duration::from_secs(7)).await;
        let (error, dial) = failed_read(&mut carrier).await;
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert_eq!(dial.expect("a dial error").error.kind, upgrade());
        assert_eq!(started.elapsed().as_secs(), 7);
        sleep(Duration::from_millis(1)).await;
        assert!(aborted.get(), "the connection is gone with it");
        drop(theirs);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_server_that_answers_no_request_is_given_up_at_the_deadline() {
    on_shard(async |shard| {
        let (ours, theirs) = duplex();
        tokio::task::spawn_local(async move {
            let mut server = h2::server::handshake(CarrierIo(theirs)).await.expect("HTTP/2");
            let mut asked = Vec::new();
            while let Some(Ok(request)) = server.accept().await {
                asked.push(request);
            }
        });
        let client = Client::new(settings(), true);
        let started = Instant::now();
        let mut carrier = open(&shard, &client, ours, started + Duration::from_secs(3)).await;
        let (_, dial) = failed_read(&mut carrier).await;
        assert_eq!(dial.map(|dial| (dial.kind, dial.error.kind)), Some((io::ErrorKind::TimedOut, upgrade())));
        assert_eq!(started.elapsed().as_secs(), 3);
    })
    .await;
}

#[tokio::test]
async fn garbage_instead_of_http2_is_a_protocol_violation() {
    on_shard(async |shard| {
        for garbage in [
            &b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"[..],
            b"SSH-2.0-OpenSSH_9.6\r\n",
            &[0xFF; 64],
            b"\x00\x00\x06\x04\x00\x00\x00\x00\x00\x00\x04\xff\xff\xff\xff",
        ] {
            let (ours, mut theirs) = duplex();
            theirs.stream.write_all(garbage).await.expect("written");
            let client = Client::new(settings(), true);
            let mut carrier = open(&shard, &client, ours, soon()).await;
            let (_, dial) = failed_read(&mut carrier).await;
            let dial = dial.expect("a dial error");
            assert_eq!((dial.kind, dial.error.kind), (io::ErrorKind::InvalidData, upgrade()), "{dial:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_connection_that_closes_is_no_end_of_its_streams() {
    on_shard(async |shard| {
        let (ours, theirs) = duplex();
        drop(theirs);
        let client = Client::new(settings(), true);
        let mut carrier = open(&shard, &client, ours, soon()).await;
        let (error, dial) = failed_read(&mut carrier).await;
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof, "{error:?}");
        assert_eq!(dial.expect("a dial error").error.kind, upgrade());
    })
    .await;
}

/// A server that answers the first request, sends `half`, and then does something else.
async fn half_answered(
    theirs: Duplex,
    then: impl FnOnce(&mut h2::server::Connection<CarrierIo<Duplex>, Bytes>, h2::SendStream<Bytes>),
) {
    let mut server = h2::server::handshake(CarrierIo(theirs)).await.expect("HTTP/2");
    let (_request, mut respond) = server.accept().await.expect("a request").expect("fine");
    let mut body = respond.send_response(Response::new(()), false).expect("sent");
    body.send_data(Bytes::from_static(b"half"), false).expect("sent");
    // Until it has left.
    let _ = tokio::time::timeout(Duration::from_millis(20), server.accept()).await;
    then(&mut server, body);
    while server.accept().await.is_some() {}
}

#[tokio::test(start_paused = true)]
async fn a_reset_mid_stream_is_a_reset_behind_what_came_before() {
    on_shard(async |shard| {
        let (ours, theirs) = duplex();
        tokio::task::spawn_local(half_answered(theirs, |_, mut body| {
            body.send_reset(Reason::INTERNAL_ERROR)
        }));
        let client = Client::new(settings(), true);
        let mut carrier = open(&shard, &client, ours, soon()).await;
        let mut got = [0; 9];
        assert_eq!(io_read(&mut carrier, &mut got).await.expect("read"), 4);
        let (error, dial) = failed_read(&mut carrier).await;
        assert_eq!((error.kind(), dial), (io::ErrorKind::ConnectionReset, None));
        let reason = error.get_ref().and_then(|inner| inner.downcast_ref::<Failure>());
        assert_eq!(reason, Some(&Failure::Reset(Reason::INTERNAL_ERROR)));
        let write = poll_fn(|cx| carrier.poll_write(cx, &[IoSlice::new(b"x")])).await;
        assert_eq!(write.expect_err("reset").kind(), io::ErrorKind::ConnectionReset);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_server_that_goes_away_is_replaced_and_its_streams_are_told() {
    on_shard(async |shard| {
        let (ours, theirs) = duplex();
        tokio::task::spawn_local(half_answered(theirs, |server, body| {
            server.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
            drop(body);
        }));
        let client = Client::new(settings(), true);
        let mut carrier = open(&shard, &client, ours, soon()).await;
        assert_eq!(io_read(&mut carrier, &mut [0; 9]).await.expect("read"), 4);
        let (error, _) = failed_read(&mut carrier).await;
        assert_eq!(error.kind(), io::ErrorKind::ConnectionAborted, "{error:?}");
        let echoes = Echoes::new(&shard);
        let dial = async || echoes.connect().await;
        let mut fresh = io(client.open(&shard, soon(), &dial).await.expect("open"));
        fresh.write_all(b"x").await.expect("written");
        assert_eq!(fresh.read(&mut [0; 9]).await.expect("echoed"), 1);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_graceful_goodbye_lets_streams_finish_and_sends_new_ones_elsewhere() {
    on_shard(async |shard| {
        let (ours, theirs) = duplex();
        tokio::task::spawn_local(half_answered(theirs, |server, mut body| {
            server.graceful_shutdown();
            tokio::task::spawn_local(async move {
                sleep(Duration::from_millis(30)).await;
                body.send_data(Bytes::from_static(b"rest"), true).expect("sent");
            });
        }));
        let (client, echoes) = (Client::new(settings(), true), Echoes::new(&shard));
        let mut carrier = open(&shard, &client, ours, soon()).await;
        assert_eq!(io_read(&mut carrier, &mut [0; 9]).await.expect("read"), 4);
        sleep(Duration::from_millis(25)).await;
        let dial = async || echoes.connect().await;
        let mut fresh = io(client.open(&shard, soon(), &dial).await.expect("open"));
        fresh.write_all(b"x").await.expect("written");
        assert_eq!(fresh.read(&mut [0; 9]).await.expect("echoed"), 1);
        assert_eq!(echoes.made.get(), 1);
        assert_eq!(io_read(&mut carrier, &mut [0; 9]).await.expect("read"), 4);
        assert_eq!(io_read(&mut carrier, &mut [0; 9]).await.expect("the end"), 0);
    })
    .await;
}

/// A server whose every byte the test has written: its settings, the head of an answer to the first request, and more.
fn answered_with(frames: &[u8]) -> Vec<u8> {
    let settings = b"\x00\x00\x00\x04\x00\x00\x00\x00\x00";
    // Status 200 by its index.
    let head = b"\x00\x00\x01\x01\x04\x00\x00\x00\x01\x88";
    let data = b"\x00\x00\x04\x00\x00\x00\x00\x00\x01half";
    [&settings[..], head, data, frames].concat()
}

#[tokio::test(start_paused = true)]
async fn frames_that_are_cut_off_or_too_long_are_no_end() {
    on_shard(async |shard| {
        let cut = io::ErrorKind::UnexpectedEof;
        for (frames, kind) in [
            (&b"\x00\x00\x64\x00\x00\x00\x00\x00\x01cut"[..], cut),
            (b"\x00\x00\x64\x00", cut),
            (b"", cut),
            // Longer than any frame may be, for a stream that nobody has opened, on no stream, without a beginning.
            (b"\x00\xff\xff\x00\x00\x00\x00\x00\x01", io::ErrorKind::InvalidData),
            (b"\x00\x00\x01\x00\x00\x00\x00\x00\x07x", io::ErrorKind::InvalidData),
            (b"\x00\x00\x01\x00\x00\x00\x00\x00\x00x", io::ErrorKind::InvalidData),
            (b"\x00\x00\x01\x09\x04\x00\x00\x00\x01\x88", io::ErrorKind::InvalidData),
            // A window that grows beyond all bounds.
            (b"\x00\x00\x04\x08\x00\x00\x00\x00\x00\x7f\xff\xff\xff", io::ErrorKind::InvalidData),
        ] {
            let (ours, mut theirs) = duplex();
            let client = Client::new(settings(), true);
            let mut carrier = open(&shard, &client, ours, soon()).await;
            assert!(theirs.stream.read(&mut [0; 1000]).await.expect("a request") > 50);
            theirs.stream.write_all(&answered_with(frames)).await.expect("written");
            let mut got = [0; 9];
            assert_eq!(io_read(&mut carrier, &mut got).await.expect("read"), 4, "{frames:?}");
            if kind == cut {
                drop(theirs);
            }
            let (error, dial) = failed_read(&mut carrier).await;
            assert_eq!((error.kind(), dial), (kind, None), "{frames:?}: {error}");
            drop(carrier);
            assert!(client.is_clean(), "{frames:?}");
        }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn pages_instead_of_an_answer_are_refusals_with_their_status() {
    on_shard(async |shard| {
        for status in [301, 403, 404, 502] {
            let (ours, theirs) = duplex();
            tokio::task::spawn_local(async move {
                let mut server = h2::server::handshake(CarrierIo(theirs)).await.expect("HTTP/2");
                while let Some(Ok((_request, mut respond))) = server.accept().await {
                    let answer = Response::builder().status(status).body(()).expect("an answer");
                    let mut body = respond.send_response(answer, false).expect("sent");
                    body.send_data(Bytes::from_static(b"<html>no</html>"), true).expect("sent");
                }
            });
            let client = Client::new(settings(), true);
            let mut carrier = open(&shard, &client, ours, soon()).await;
            let (error, dial) = failed_read(&mut carrier).await;
            let dial = dial.expect("a dial error");
            assert_eq!((error.kind(), dial.error.kind), (io::ErrorKind::ConnectionRefused, upgrade()));
            assert!(dial.error.reason.contains(&status.to_string()), "{dial}");
            drop(carrier);
            assert!(client.is_clean(), "{status}");
        }
    })
    .await;
}

/// Has the first byte echoed.
async fn begin(carrier: &mut Box<dyn Carrier>) {
    poll_fn(|cx| carrier.poll_write(cx, &[IoSlice::new(b"x")])).await.expect("written");
    io_read(carrier, &mut [0; 100]).await.expect("echoed");
}

#[tokio::test]
async fn a_starved_stream_waits_in_bounded_memory_and_harms_no_other() {
    on_shard(async |shard| {
        let (echoes, client) = (Echoes::new(&shard), Client::new(settings(), true));
        let dial = async || echoes.connect().await;
        // Nobody reads the echo of the first stream, so its peer stops reading too.
        let mut stalled = client.open(&shard, soon(), &dial).await.expect("open");
        begin(&mut stalled).await;
        let mut written = 0;
        let piece = [7; 10_000];
        while let Ok(n) = tokio::time::timeout(
            Duration::from_millis(200),
            poll_fn(|cx| stalled.poll_write(cx, &[IoSlice::new(&piece)])),
        )
        .await
        {
            written += n.expect("open");
            assert!(written < 16 << 20, "without bound");
        }
        let mut held = 0;
        client.pool.each_link(|link| held += link.hub.held());
        assert!((200 << 10..=2 << 20).contains(&held), "{held}");
        let mut other = io(client.open(&shard, soon(), &dial).await.expect("open"));
        for _ in 0..100 {
            other.write_all(&piece).await.expect("written");
            let mut got = [0; 10_000];
            other.read_exact(&mut got).await.expect("echoed");
        }
        assert_eq!(echoes.made.get(), 1);
        // All of it is still there.
        let mut read = 0;
        let mut out = vec![0; 50_000];
        while read < written {
            read += io_read(&mut stalled, &mut out).await.expect("read");
        }
        assert!(stalled.poll_read_ready(&mut noop_context()).is_pending());
    })
    .await;
}

#[tokio::test]
async fn a_full_connection_is_left_to_its_stalled_streams() {
    on_shard(async |shard| {
        let (echoes, client) = (Echoes::new(&shard), Client::new(settings(), true));
        let dial = async || echoes.connect().await;
        let mut stalled = Vec::new();
        let piece = vec![7; 50_000];
        while echoes.made.get() < 2 {
            assert!(stalled.len() < 100, "no other connection was made");
            let mut carrier = client.open(&shard, soon(), &dial).await.expect("open");
            tokio::time::timeout(Duration::from_secs(5), begin(&mut carrier)).await.expect("not starved");
            let write = async {
                loop {
                    poll_fn(|cx| carrier.poll_write(cx, &[IoSlice::new(&piece)])).await.expect("open");
                }
            };
            assert!(tokio::time::timeout(Duration::from_millis(60), write).await.is_err());
            stalled.push(carrier);
        }
        assert!(stalled.len() > 1, "each on its own");
        let mut last = stalled.pop().expect("one on the new connection");
        assert!(io_read(&mut last, &mut [0; 100]).await.expect("echoed") > 0);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_server_waits_for_a_first_stream_until_its_deadline() {
    on_shard(async |shard| {
        for opening in [&b""[..], b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00"] {
            let (mut ours, theirs) = duplex();
            ours.stream.write_all(opening).await.expect("written");
            let started = Instant::now();
            let (settings, deadline) = (settings(), started + Duration::from_secs(4));
            let served = serve(&shard, theirs, &settings, deadline).await;
            let served = to_end(served, |_| panic!("no stream was opened")).await;
            assert!(served.is_err());
            assert!((4..=6).contains(&started.elapsed().as_secs()), "{:?}", started.elapsed());
        }
    })
    .await;
}

#[tokio::test]
async fn a_server_ends_a_connection_of_garbage_at_once() {
    on_shard(async |shard| {
        for garbage in [&b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..], &[0x16, 3, 1, 0, 200, 1, 0, 0, 196, 3, 3]]
        {
            let (mut ours, theirs) = duplex();
            ours.stream.write_all(garbage).await.expect("written");
            ours.stream.write_all(&[0; 30]).await.expect("written");
            let served = serve(&shard, theirs, &settings(), soon()).await;
            let served = to_end(served, |_| panic!("no stream was opened")).await;
            assert!(matches!(served, Err(Failure::Protocol(_) | Failure::Io(_))), "{served:?}");
        }
    })
    .await;
}
