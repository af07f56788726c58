//! Both ends against each other and against what a peer may do wrong.

mod faults;
mod links;

use super::{Client, Failure, Server, Service, serve};
use crate::config::H2;
use crate::engine::Shard;
use crate::transport::dial::DialError;
use crate::transport::testing::shard;
use crate::transport::{Carrier, io::CarrierIo};
use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf};
use tokio::task::LocalSet;
use tokio::time::Instant;

/// An in-memory socket as a carrier.
pub(in crate::transport) struct Duplex {
    stream: DuplexStream,
    /// What has been read only to see that it is there.
    seen: Option<u8>,
    aborted: Rc<Cell<bool>>,
}

impl Duplex {
    pub(in crate::transport) fn new(stream: DuplexStream) -> Self {
        Self { stream, seen: None, aborted: Rc::default() }
    }
}

impl Carrier for Duplex {
    fn poll_read_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.seen.is_none() {
            let mut byte = [0];
            let mut out = ReadBuf::new(&mut byte);
            ready!(Pin::new(&mut self.stream).poll_read(cx, &mut out))?;
            self.seen = out.filled().first().copied();
        }
        Poll::Ready(Ok(()))
    }

    fn poll_read(&mut self, cx: &mut Context<'_>, out: &mut [u8]) -> Poll<io::Result<usize>> {
        let first = usize::from(self.seen.is_some());
        out[..first].fill(self.seen.take().unwrap_or(0));
        let mut rest = ReadBuf::new(&mut out[first..]);
        match Pin::new(&mut self.stream).poll_read(cx, &mut rest) {
            Poll::Pending if first == 0 => Poll::Pending,
            Poll::Ready(Err(error)) if first == 0 => Poll::Ready(Err(error)),
            _ => Poll::Ready(Ok(first + rest.filled().len())),
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn abort(&mut self) {
        self.aborted.set(true);
    }
}

/// Two connected carriers.
pub(in crate::transport) fn duplex() -> (Duplex, Duplex) {
    let (ours, theirs) = tokio::io::duplex(64 << 10);
    (Duplex::new(ours), Duplex::new(theirs))
}

/// Runs a test with a shard whose tasks run.
pub(in crate::transport) async fn on_shard<F: Future>(test: impl FnOnce(Rc<Shard>) -> F) -> F::Output {
    LocalSet::new().run_until(test(shard())).await
}

pub(in crate::transport) fn soon() -> Instant {
    Instant::now() + Duration::from_secs(5)
}

/// A carrier as tokio has it.
pub(in crate::transport) fn io(carrier: Box<dyn Carrier>) -> CarrierIo<Box<dyn Carrier>> {
    CarrierIo(carrier)
}

/// What a failed read says, and the dial error that it carries.
pub(in crate::transport) async fn failed_read(
    carrier: &mut Box<dyn Carrier>,
) -> (io::Error, Option<DialError>) {
    let error = poll_fn(|cx| {
        ready!(carrier.poll_read_ready(cx))?;
        carrier.poll_read(cx, &mut [0; 100])
    })
    .await
    .expect_err("a failure");
    let dial = error.get_ref().and_then(|inner| inner.downcast_ref::<DialError>()).cloned();
    (error, dial)
}

fn settings() -> H2 {
    H2 { hosts: vec!["a.example".into(), "b.example".into()], path: "/ray".into(), ..H2::default() }
}

/// Takes the streams of a connection until it ends.
pub(in crate::transport) async fn to_end<C: Carrier + Unpin, S: Service>(
    served: Result<Server<C, S>, Failure>,
    mut accept: impl FnMut(Box<dyn Carrier>),
) -> Result<(), Failure> {
    let mut server = served?;
    while let Some(carrier) = poll_fn(|cx| server.poll_stream(cx)).await? {
        accept(carrier);
    }
    Ok(())
}

impl Client {
    /// Whether no stream is left of those that were opened, and nothing that was to be written.
    fn is_clean(&self) -> bool {
        let mut left = 0;
        self.pool.each_link(|link| left += link.hub.streams() + link.hub.held());
        left == 0
    }
}

/// Echoes everything on a stream, then ends it.
pub(in crate::transport) async fn echo(carrier: Box<dyn Carrier>) {
    let mut stream = io(carrier);
    let mut piece = vec![0; 30_000];
    while let Ok(n) = stream.read(&mut piece).await {
        if n == 0 {
            let _ = stream.shutdown().await;
            return;
        }
        if stream.write_all(&piece[..n]).await.is_err() {
            return;
        }
    }
}

/// Serves connections that echo, and counts them.
struct Echoes {
    shard: Rc<Shard>,
    made: Cell<usize>,
    settings: H2,
    ends: RefCell<Vec<tokio::task::JoinHandle<()>>>,
}

impl Echoes {
    fn new(shard: &Rc<Shard>) -> Rc<Self> {
        let (shard, settings) = (Rc::clone(shard), settings());
        Rc::new(Self { shard, made: Cell::new(0), settings, ends: RefCell::default() })
    }

    /// Makes a connection.
    async fn connect(&self) -> Result<Box<dyn Carrier>, DialError> {
        self.made.set(self.made.get() + 1);
        let (ours, theirs) = duplex();
        let (shard, settings) = (Rc::clone(&self.shard), self.settings.clone());
        let serving = self.shard.spawn(async move {
            let accept = |carrier| drop(tokio::task::spawn_local(echo(carrier)));
            let _ = to_end(serve(&shard, theirs, &settings, soon()).await, accept).await;
        });
        self.ends.borrow_mut().push(serving);
        Ok(Box::new(ours))
    }
}

#[tokio::test]
async fn streams_carry_bytes_both_ways_to_their_ends() {
    on_shard(async |shard| {
        let (echoes, client) = (Echoes::new(&shard), Client::new(settings(), true));
        let dial = async || echoes.connect().await;
        let sent: Vec<u8> = (0..3_000_000_u32).map(|i| (i % 251) as u8).collect();
        let mut streams = Vec::new();
        for _ in 0..3 {
            streams.push(io(client.open(&shard, soon(), &dial).await.expect("open")));
        }
        for stream in streams {
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
            assert!(got == sent, "{} bytes", got.len());
        }
        assert_eq!(echoes.made.get(), 1, "one connection");
    })
    .await;
}

#[tokio::test]
async fn a_wrong_host_or_path_is_not_found() {
    on_shard(async |shard| {
        for wrong in [
            H2 { hosts: vec!["other.example".into()], ..settings() },
            H2 { path: "/".into(), ..settings() },
            H2 { hosts: Vec::new(), ..settings() },
        ] {
            let (echoes, client) = (Echoes::new(&shard), Client::new(wrong, true));
            let dial = async || echoes.connect().await;
            let mut carrier = client.open(&shard, soon(), &dial).await.expect("open");
            let (error, dial) = failed_read(&mut carrier).await;
            assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
            assert!(dial.expect("a dial error").error.reason.contains("404"));
        }
    })
    .await;
}

#[tokio::test]
async fn a_server_takes_any_host_with_a_port_and_paths_below_its_own() {
    on_shard(async |shard| {
        for right in [
            H2 { hosts: vec!["A.example:8443".into()], ..settings() },
            H2 { path: "/ray/deeper?x=1".into(), method: "GET".into(), ..settings() },
        ] {
            let (echoes, client) = (Echoes::new(&shard), Client::new(right, false));
            let dial = async || echoes.connect().await;
            let mut stream = io(client.open(&shard, soon(), &dial).await.expect("open"));
            stream.write_all(b"ping").await.expect("written");
            let mut got = [0; 4];
            stream.read_exact(&mut got).await.expect("echoed");
            assert_eq!(&got, b"ping");
        }
    })
    .await;
}

#[tokio::test]
async fn an_abort_is_a_reset_at_the_other_end() {
    on_shard(async |shard| {
        let (ours, theirs) = duplex();
        let client = Client::new(settings(), true);
        let ours = RefCell::new(Some(ours));
        let dial = async || {
            let ours: Box<dyn Carrier> = Box::new(ours.take().expect("dialled once"));
            Ok(ours)
        };
        let mut carrier = client.open(&shard, soon(), &dial).await.expect("open");
        let (sender, mut accepted) = tokio::sync::mpsc::unbounded_channel();
        let serving = Rc::clone(&shard);
        shard.spawn(async move {
            let accept = |carrier| drop(sender.send(carrier));
            let _ = to_end(serve(&serving, theirs, &settings(), soon()).await, accept).await;
        });
        poll_fn(|cx| carrier.poll_write(cx, &[IoSlice::new(b"half")])).await.expect("written");
        let mut theirs = accepted.recv().await.expect("accepted");
        let mut got = [0; 4];
        io_read(&mut theirs, &mut got).await.expect("read");
        carrier.abort();
        drop(carrier);
        theirs.reset().await;
        let (error, _) = failed_read(&mut theirs).await;
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    })
    .await;
}

async fn io_read(carrier: &mut Box<dyn Carrier>, out: &mut [u8]) -> io::Result<usize> {
    poll_fn(|cx| {
        ready!(carrier.poll_read_ready(cx))?;
        carrier.poll_read(cx, out)
    })
    .await
}
