//! Both ends against each other, and what a caller is told.

use super::{Client, serve};
use crate::config::Grpc;
use crate::engine::Shard;
use crate::error::{ErrorKind, Stage};
use crate::transport::Carrier;
use crate::transport::dial::DialError;
use crate::transport::h2::tests::{Duplex, duplex, echo, failed_read, io, on_shard, soon, to_end};
use crate::transport::io::CarrierIo;
use bytes::Bytes;
use h2::server::SendResponse;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use std::cell::{Cell, RefCell};
use std::io as std_io;
use std::rc::Rc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::time::{Instant, sleep};

fn settings() -> Grpc {
    Grpc { service: "Gun Service".into(), ..Grpc::default() }
}

/// A connection to a server with these settings that echoes.
fn connect(shard: &Rc<Shard>, settings: &Grpc) -> Duplex {
    let (ours, theirs) = duplex();
    let (serving, settings) = (Rc::clone(shard), settings.clone());
    shard.spawn(async move {
        let accept = |carrier| drop(tokio::task::spawn_local(echo(carrier)));
        let _ = to_end(serve(&serving, theirs, &settings, soon()).await, accept).await;
    });
    ours
}

/// The first stream of a client whose connection is `ours`.
async fn open(shard: &Rc<Shard>, client: &Client, ours: Duplex) -> Box<dyn Carrier> {
    let ours = RefCell::new(Some(ours));
    let dial = async || {
        let ours: Box<dyn Carrier> = Box::new(ours.take().expect("dialled once"));
        Ok(ours)
    };
    client.open(shard, soon(), &dial).await.expect("open")
}

#[tokio::test]
async fn calls_carry_bytes_both_ways_to_their_ends() {
    on_shard(async |shard| {
        let sent: Vec<u8> = (0..2_000_000_u32).map(|i| (i % 251) as u8).collect();
        for (service, multi) in [("Gun Service", false), ("x", true), ("", false), ("/a/b/One|Many", true)] {
            let settings = Grpc { service: service.into(), multi, ..settings() };
            let client = Client::new(settings.clone(), "localhost:1", false);
            let stream = io(open(&shard, &client, connect(&shard, &settings)).await);
            let (mut reader, mut writer) = tokio::io::split(stream);
            let write = async {
                writer.write_all(&sent).await.expect("written");
                writer.shutdown().await.expect("ended");
            };
            let read = async {
                let mut got = Vec::new();
                reader.read_to_end(&mut got).await.expect("read");
                got
            };
            let ((), got) = tokio::join!(write, read);
            assert!(got == sent, "{service}: {} bytes", got.len());
        }
    })
    .await;
}

#[tokio::test]
async fn an_unknown_service_is_told_so() {
    on_shard(async |shard| {
        let client = Client::new(Grpc { service: "Other".into(), ..settings() }, "localhost", false);
        let mut carrier = open(&shard, &client, connect(&shard, &settings())).await;
        let (error, dial) = failed_read(&mut carrier).await;
        let dial = dial.expect("a dial error");
        assert_eq!(error.kind(), std_io::ErrorKind::ConnectionRefused);
        assert_eq!(dial.error.kind, ErrorKind::ServerUnreachable { stage: Stage::Upgrade });
        assert!(dial.error.reason.contains("gRPC status 12"), "{}", dial.error.reason);
    })
    .await;
}

type Asked = (Request<h2::RecvStream>, SendResponse<Bytes>);

/// A server that leaves every request to the test.
fn bare_server(theirs: Duplex) -> UnboundedReceiver<Asked> {
    let (sender, requests) = unbounded_channel();
    tokio::task::spawn_local(async move {
        let mut server = h2::server::handshake(CarrierIo(theirs)).await.expect("HTTP/2");
        while let Some(Ok(asked)) = server.accept().await {
            let _ = sender.send(asked);
        }
    });
    requests
}

fn fields(of: &[(&'static str, &'static str)]) -> HeaderMap {
    of.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect()
}

#[tokio::test]
async fn the_request_looks_as_servers_expect_it() {
    on_shard(async |shard| {
        let settings = Grpc { authority: Some("front.example".into()), ..settings() };
        for (secure, agent) in [(true, None), (false, Some("mine/1"))] {
            let settings = Grpc { user_agent: agent.map(str::to_owned), ..settings.clone() };
            let client = Client::new(settings, "back.example", secure);
            let (ours, theirs) = duplex();
            let mut requests = bare_server(theirs);
            let _carrier = open(&shard, &client, ours).await;
            let (request, _respond) = requests.recv().await.expect("a request");
            let scheme = if secure { "https" } else { "http" };
            assert_eq!(request.uri(), &*format!("{scheme}://front.example/Gun%20Service/Tun"));
            assert_eq!(request.method(), http::Method::POST);
            let expected = [
                ("content-type", "application/grpc"),
                ("user-agent", agent.unwrap_or("grpc-go/1.65.0")),
                ("te", "trailers"),
            ];
            assert_eq!(request.headers(), &fields(&expected));
        }
    })
    .await;
}

#[tokio::test]
async fn answers_that_are_no_success_are_told_apart() {
    on_shard(async |shard| {
        for (status, head, shown, kind) in [
            (403, fields(&[("content-type", "text/html")]), "HTTP status 403", "refused"),
            (200, fields(&[("content-type", "text/html")]), "no gRPC but text/html", "refused"),
            (
                200,
                fields(&[("grpc-status", "14"), ("grpc-message", "no backend")]),
                "gRPC status 14 (no backend)",
                "refused",
            ),
        ] {
            let (ours, theirs) = duplex();
            let mut requests = bare_server(theirs);
            let client = Client::new(settings(), "localhost", false);
            let mut carrier = open(&shard, &client, ours).await;
            let (_request, mut respond) = requests.recv().await.expect("a request");
            let mut answer = Response::new(());
            *answer.status_mut() = http::StatusCode::from_u16(status).expect("a status");
            *answer.headers_mut() = head;
            let mut body = respond.send_response(answer, false).expect("sent");
            body.send_data(Bytes::from_static(b"<html>no</html>"), true).expect("sent");
            let (error, dial) = failed_read(&mut carrier).await;
            assert!(error.to_string().contains("upgrade"), "{error}");
            let reason = dial.expect("a dial error").error.reason;
            assert!(reason.contains(shown) && kind == "refused", "{reason}");
            assert_eq!(error.kind(), std_io::ErrorKind::ConnectionRefused);
        }
    })
    .await;
}

#[tokio::test]
async fn broken_and_cut_messages_are_errors_behind_what_came_before() {
    on_shard(async |shard| {
        for (wire, end, kind) in [
            (&b"\x00\x00\x00\x00\x05\x0a\x03abc\x01"[..], false, std_io::ErrorKind::InvalidData),
            (
                b"\x00\x00\x00\x00\x05\x0a\x03abc\x00\x00\x00\x00\x05\x0a",
                true,
                std_io::ErrorKind::UnexpectedEof,
            ),
            (b"\x00\x00\x00\x00\x05\x0a\x03abc\x00\xff\x00\x00\x00", false, std_io::ErrorKind::InvalidData),
        ] {
            let (ours, theirs) = duplex();
            let mut requests = bare_server(theirs);
            let client = Client::new(settings(), "localhost", false);
            let mut carrier = open(&shard, &client, ours).await;
            let (_request, mut respond) = requests.recv().await.expect("a request");
            let mut body = respond.send_response(Response::new(()), false).expect("sent");
            body.send_data(Bytes::from_static(wire), end).expect("sent");
            let mut got = [0; 3];
            std::future::poll_fn(|cx| carrier.poll_read(cx, &mut got)).await.expect("read");
            assert_eq!(&got, b"abc");
            let (error, dial) = failed_read(&mut carrier).await;
            assert_eq!((error.kind(), dial), (kind, None));
        }
    })
    .await;
}

#[tokio::test]
async fn trailers_end_a_call_with_or_without_success() {
    on_shard(async |shard| {
        for (status, ends) in [("0", true), ("14", false)] {
            let (ours, theirs) = duplex();
            let mut requests = bare_server(theirs);
            let client = Client::new(settings(), "localhost", false);
            let carrier = open(&shard, &client, ours).await;
            let (_request, mut respond) = requests.recv().await.expect("a request");
            let mut body = respond.send_response(Response::new(()), false).expect("sent");
            body.send_data(Bytes::from_static(b"\0\0\0\0\x03\x0a\x01x"), false).expect("sent");
            body.send_trailers(fields(&[("grpc-status", status)])).expect("sent");
            let mut got = Vec::new();
            let read = io(carrier).read_to_end(&mut got).await;
            assert_eq!((got.as_slice(), read.is_ok()), (&b"x"[..], ends));
        }
    })
    .await;
}

#[tokio::test]
async fn our_server_says_ok_in_its_trailers() {
    on_shard(async |shard| {
        let ours = connect(&shard, &settings());
        let (client, connection) = h2::client::handshake(CarrierIo(ours)).await.expect("HTTP/2");
        tokio::task::spawn_local(async move {
            let _ = connection.await;
        });
        let request =
            Request::post("http://x/Gun%20Service/Tun").header("content-type", "application/grpc+proto");
        let mut client = client.ready().await.expect("ready");
        let (answer, mut body) = client.send_request(request.body(()).expect("fine"), false).expect("sent");
        body.send_data(Bytes::from_static(b"\0\0\0\0\x04\x0a\x02hi"), true).expect("sent");
        let answer = answer.await.expect("answered");
        assert_eq!(
            (answer.status().as_u16(), &answer.headers()["content-type"]),
            (200, &HeaderValue::from_static("application/grpc"))
        );
        let mut body = answer.into_body();
        assert_eq!(body.data().await.expect("data").expect("fine"), &b"\0\0\0\0\x04\x0a\x02hi"[..]);
        assert!(body.data().await.is_none());
        assert_eq!(body.trailers().await.expect("trailers"), Some(fields(&[("grpc-status", "0")])));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn the_keepalive_finds_a_server_that_has_gone() {
    on_shard(async |shard| {
        let settings = Grpc {
            idle_timeout: Some(Duration::from_secs(20)),
            health_check_timeout: Some(Duration::from_secs(5)),
            ..settings()
        };
        let client = Client::new(settings.clone(), "localhost", false);
        let (ours, theirs) = duplex();
        let frozen = Rc::new(Cell::new(false));
        let (serving, stops) = (Rc::clone(&shard), Rc::clone(&frozen));
        shard.spawn(async move {
            let accept = |carrier| drop(tokio::task::spawn_local(echo(carrier)));
            let deadline = soon();
            let serves = async { to_end(serve(&serving, theirs, &settings, deadline).await, accept).await };
            let mut served = Box::pin(serves);
            std::future::poll_fn(|cx| {
                if stops.get() { std::task::Poll::Pending } else { served.as_mut().poll(cx) }
            })
            .await
            .ok();
        });
        let mut stream = io(open(&shard, &client, ours).await);
        stream.write_all(b"x").await.expect("written");
        assert_eq!(stream.read(&mut [0; 9]).await.expect("echoed"), 1);
        sleep(Duration::from_secs(100)).await;
        stream.write_all(b"x").await.expect("still there");
        assert_eq!(stream.read(&mut [0; 9]).await.expect("echoed"), 1);
        frozen.set(true);
        let started = Instant::now();
        let error = stream.read(&mut [0; 9]).await.expect_err("gone");
        assert_eq!(error.kind(), std_io::ErrorKind::TimedOut);
        assert_eq!(started.elapsed().as_secs(), 25);
    })
    .await;
}

#[tokio::test]
async fn a_failed_dial_is_the_answer() {
    on_shard(async |shard| {
        let client = Client::new(settings(), "localhost", false);
        let refused = std_io::ErrorKind::ConnectionRefused;
        let dial = async || Err(DialError::new(Stage::Connect, refused, Instant::now(), "refused"));
        let failed = client.open(&shard, soon(), &dial).await.err().expect("refused");
        assert_eq!(
            (failed.kind, failed.error.kind),
            (refused, ErrorKind::ServerUnreachable { stage: Stage::Connect })
        );
    })
    .await;
}
