//! One client's connection: its handshake, its request, and what comes of it.

use super::super::listener::read_now;
use super::early::Early;
use super::handshake::{Handshake, MAX_MESSAGE, Refusal, Request, Step};
use super::wire::Reply;
use super::{Server, associate};
use crate::addr::Network;
use crate::buffer::Buffer;
use crate::config::LogLevel;
use crate::engine::dispatch::{self, Flow};
use crate::engine::outbound::Answer;
use crate::transport::Stream;
use crate::transport::socket::reset;
use crate::transport::tcp::TcpPayload;
use socket2::SockRef;
use std::io;
use std::net::{Shutdown, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// How long, and for how many bytes, a refused client is still read from, so that the reset for unread data does not
/// overtake what it was told.
const LINGER: Duration = Duration::from_millis(500);
const LINGER_BYTES: usize = 64 * 1024;

/// Why a handshake ended without a request.
#[derive(Debug, thiserror::Error)]
enum Failure {
    /// The client is not served.
    #[error("{0}")]
    Refused(#[from] Refusal),
    /// The connection broke or ended.
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// Serves a client until its connection is over.
pub(super) async fn serve(server: Rc<Server>, stream: TcpStream, source: SocketAddr) {
    let failure = match timeout(server.patience(), greet(&server, &stream)).await {
        Ok(Ok((Request::Connect(target), early))) => {
            // A slow handshake must not use up the time that the first payload has to catch the protocol's header.
            let accepted = server.shard.clock.now();
            let flow = Flow {
                network: Network::Tcp,
                source,
                target,
                inbound: Arc::clone(&server.tag),
                accepted,
                user: None,
            };
            return connect(&server, stream, flow, early).await;
        }
        Ok(Ok((Request::Associate, _))) => return associate::serve(&server, stream, source).await,
        Ok(Err(failure)) => failure,
        Err(_) => io::Error::from(io::ErrorKind::TimedOut).into(),
    };
    let tag = &server.tag;
    server.shard.shared.log(LogLevel::Debug, format_args!("socks [{tag}] from {source}: {failure}"));
    if let Failure::Refused(refusal) = failure {
        refuse(&stream, refusal.bytes()).await;
    }
}

/// Runs the handshake; returns the request and the payload that came right behind it.
async fn greet(server: &Server, stream: &TcpStream) -> Result<(Request, Buffer), Failure> {
    let mut handshake = Handshake::new(&server.accounts);
    let mut input = [0; MAX_MESSAGE];
    let mut len = 0;
    loop {
        match handshake.step(input.get(..len).unwrap_or_default()) {
            Step::More => match read(stream, input.get_mut(len..).unwrap_or_default()).await? {
                0 => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
                n => len += n,
            },
            Step::Send { consumed, reply } => {
                input.copy_within(consumed..len, 0);
                len -= consumed;
                write_all(stream, &reply).await?;
            }
            Step::Asked { consumed, request } => {
                let rest = input.get(consumed..len).unwrap_or_default();
                let early = match rest {
                    [] => Buffer::empty(),
                    rest => server
                        .shard
                        .pool
                        .copy(rest)
                        .ok_or(io::ErrorKind::OutOfMemory)
                        .map_err(io::Error::from)?,
                };
                return Ok((request, early));
            }
            Step::Refused(refusal) => return Err(refusal.into()),
        }
    }
}

/// Serves CONNECT. Where the outbound learns at once whether the target is there, the reply says so; else the client is
/// told to go ahead, so that its first payload leaves together with the protocol's header.
async fn connect(server: &Server, stream: TcpStream, flow: Flow, early: Buffer) {
    let shard = Rc::clone(&server.shard);
    let outbound = dispatch::route(&shard, &flow);
    if !outbound.admits(shard.clock.now()) {
        return refuse(&stream, &Reply::Failed.bytes()).await;
    }
    if !outbound.connects_target() {
        if write_all(&stream, &Reply::Succeeded.bytes()).await.is_ok() {
            let local = local(stream, early, &shard.pool);
            dispatch::serve_stream(shard, flow, outbound, local).await;
        }
        return;
    }
    match dispatch::open(&shard, &flow, &outbound, reset(&stream)).await {
        Ok(opened) => {
            if write_all(&stream, &Reply::Succeeded.bytes()).await.is_ok() {
                let local = local(stream, early, &shard.pool);
                dispatch::relay_stream(shard, flow, outbound, local, opened).await;
            }
        }
        Err(failed) => refuse(&stream, &reply_to(failed.answer).bytes()).await,
    }
}

const fn reply_to(answer: Answer) -> Reply {
    match answer {
        Answer::Refused => Reply::Refused,
        Answer::Unreachable => Reply::HostUnreachable,
        Answer::Forbidden => Reply::NotAllowed,
        Answer::Failed => Reply::Failed,
    }
}

/// The client's end of the relay.
fn local(stream: TcpStream, early: Buffer, pool: &crate::buffer::Pool) -> Box<dyn Stream> {
    let payload = TcpPayload::from_tcp(stream, pool.clone());
    if early.is_empty() { Box::new(payload) } else { Box::new(Early::new(early, payload)) }
}

/// Tells a client why it is not served, if there is something to tell, and closes.
pub(super) async fn refuse(stream: &TcpStream, reply: &[u8]) {
    let end = async {
        write_all(stream, reply).await?;
        SockRef::from(stream).shutdown(Shutdown::Write)?;
        let mut left = LINGER_BYTES;
        let mut waste = [0; 512];
        while left > 0 {
            match read(stream, &mut waste).await? {
                0 => break,
                n => left = left.saturating_sub(n),
            }
        }
        io::Result::Ok(())
    };
    // The connection is over however this ends.
    let _ = timeout(LINGER, end).await;
}

/// Reads what has come, at least one byte; 0 is the end.
pub(super) async fn read(stream: &TcpStream, out: &mut [u8]) -> io::Result<usize> {
    loop {
        stream.readable().await?;
        if let Some(n) = read_now(stream, out)? {
            return Ok(n);
        }
    }
}

pub(super) async fn write_all(stream: &TcpStream, mut data: &[u8]) -> io::Result<()> {
    while !data.is_empty() {
        // A socket that has been read from is known to be writable, so this is one call.
        let n = match stream.try_write(data) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                stream.writable().await?;
                continue;
            }
            result => result?,
        };
        data = data.get(n..).unwrap_or_default();
    }
    Ok(())
}
