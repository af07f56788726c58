//! A peer that speaks gRPC by a library's hand: bridges between calls and sockets, so that a VMess end on bare TCP meets
//! one of ours on gRPC.

use prost::Message;
use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::thread;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::body::Body;
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;

/// The service's name as its URL has it.
const SERVICE: &str = "/gun%20svc";

/// A message of `Tun`.
#[derive(Clone, PartialEq, Message)]
struct Hunk {
    #[prost(bytes = "vec", tag = "1")]
    data: Vec<u8>,
}

/// A message of `TunMulti`.
#[derive(Clone, PartialEq, Message)]
struct MultiHunk {
    #[prost(bytes = "vec", repeated, tag = "1")]
    data: Vec<Vec<u8>>,
}

trait Payload: Message + Default + 'static {
    fn of(data: &[u8]) -> Self;
    fn into_data(self) -> Vec<u8>;
}

impl Payload for Hunk {
    fn of(data: &[u8]) -> Self {
        Self { data: data.to_vec() }
    }

    fn into_data(self) -> Vec<u8> {
        self.data
    }
}

impl Payload for MultiHunk {
    /// Several pieces, and an empty one.
    fn of(data: &[u8]) -> Self {
        let mut pieces: Vec<Vec<u8>> = data.chunks(1000).map(<[u8]>::to_vec).collect();
        pieces.insert(pieces.len() / 2, Vec::new());
        Self { data: pieces }
    }

    fn into_data(self) -> Vec<u8> {
        self.data.concat()
    }
}

/// The messages of what comes from a socket, until its end; an empty one first.
fn outgoing<P: Payload>(mut socket: OwnedReadHalf) -> ReceiverStream<Result<P, Status>> {
    let (sender, messages) = mpsc::channel(4);
    tokio::spawn(async move {
        let mut bytes = vec![0; 30_000];
        let _ = sender.send(Ok(P::default())).await;
        while let Ok(n @ 1..) = socket.read(&mut bytes).await {
            if sender.send(Ok(P::of(&bytes[..n]))).await.is_err() {
                return;
            }
        }
    });
    ReceiverStream::new(messages)
}

/// Writes what comes to a socket, and ends it as the call ends.
async fn incoming<P: Payload>(mut messages: Streaming<P>, mut socket: OwnedWriteHalf) {
    loop {
        match messages.message().await {
            Ok(Some(message)) => {
                if socket.write_all(&message.into_data()).await.is_err() {
                    return;
                }
            }
            Ok(None) => break drop(socket.shutdown().await),
            Err(_) => return,
        }
    }
}

/// A server of calls, each of which becomes a connection to a port of loopback.
#[derive(Clone)]
struct Calls(u16);

type Answer<T> = Pin<Box<dyn Future<Output = T> + Send>>;

impl<P: Payload> tonic::server::StreamingService<P> for Calls {
    type Response = P;
    type ResponseStream = ReceiverStream<Result<P, Status>>;
    type Future = Answer<Result<Response<Self::ResponseStream>, Status>>;

    fn call(&mut self, request: Request<Streaming<P>>) -> Self::Future {
        let to = self.0;
        Box::pin(async move {
            let unavailable = |error: io::Error| Status::unavailable(error.to_string());
            let socket = TcpStream::connect(("127.0.0.1", to)).await.map_err(unavailable)?;
            let (reader, writer) = socket.into_split();
            tokio::spawn(incoming(request.into_inner(), writer));
            Ok(Response::new(outgoing(reader)))
        })
    }
}

impl tower_service::Service<http::Request<Body>> for Calls {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Answer<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let calls = self.clone();
        Box::pin(async move {
            Ok(match request.uri().path().strip_prefix(SERVICE) {
                Some("/Tun") => {
                    tonic::server::Grpc::new(ProstCodec::<Hunk, Hunk>::default())
                        .streaming(calls, request)
                        .await
                }
                Some("/TunMulti") => {
                    let codec = ProstCodec::<MultiHunk, MultiHunk>::default();
                    tonic::server::Grpc::new(codec).streaming(calls, request).await
                }
                _ => Status::unimplemented("no such service").into_http(),
            })
        })
    }
}

/// Runs `work` on a thread of its own for as long as the test lasts.
fn run(work: impl Future<Output = ()> + Send + 'static) {
    thread::spawn(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(work);
    });
}

/// A gRPC server on `port` before a port of loopback.
pub(crate) fn server(port: u16, to: u16) {
    run(async move {
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        Server::builder().serve(address, Calls(to)).await.expect("served");
    });
    while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
        thread::sleep(std::time::Duration::from_millis(5));
    }
}

/// A gRPC client to `to` behind a port of loopback, which it returns.
pub(crate) fn client(to: u16, multi: bool) -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
    let port = listener.local_addr().expect("address").port();
    listener.set_nonblocking(true).expect("an option");
    run(async move {
        let channel =
            Endpoint::from_shared(format!("http://127.0.0.1:{to}")).expect("an address").connect_lazy();
        let listener = TcpListener::from_std(listener).expect("a listener");
        while let Ok((socket, _)) = listener.accept().await {
            let channel = channel.clone();
            tokio::spawn(async move {
                match multi {
                    false => call::<Hunk>(channel, socket, "Tun").await,
                    true => call::<MultiHunk>(channel, socket, "TunMulti").await,
                }
            });
        }
    });
    port
}

/// Makes one call of a socket.
async fn call<P: Payload>(channel: Channel, socket: TcpStream, method: &str) {
    let mut client = tonic::client::Grpc::new(channel);
    client.ready().await.expect("ready");
    let (reader, writer) = socket.into_split();
    let messages = outgoing::<P>(reader).map_while(Result::ok);
    let path = format!("{SERVICE}/{method}").parse().expect("a path");
    let answer = client.streaming(Request::new(messages), path, ProstCodec::<P, P>::default()).await;
    incoming(answer.expect("answered").into_inner(), writer).await;
}
