//! A stream of a QUIC connection as a carrier.

use crate::transport::Carrier;
use quinn::{Connection, ConnectionError, ReadError, RecvStream, SendStream, VarInt, WriteError};
use std::future::Future;
use std::io::{self, IoSlice, IoSliceMut};
use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::{Sleep, sleep, timeout};

/// The most of a chunk that is taken out of the connection before there is a buffer for it.
const PIECE: usize = 16 << 10;
/// The code of our resets: V2Ray's streams know no other.
const CODE: VarInt = VarInt::from_u32(0);
/// How long what was written may take to be acknowledged, at most, after its stream has been let go.
const LINGER: Duration = Duration::from_secs(10);
/// How long an abort waits for what was written to leave, at most.
const DRAIN: Duration = Duration::from_secs(1);

/// One stream of a connection. `K` is what keeps the connection alive, and is let go with the stream.
pub(super) struct StreamCarrier<K: 'static> {
    connection: Connection,
    send: Option<SendStream>,
    recv: RecvStream,
    /// What has been taken out of the connection and not been read. Empty while the stream is idle.
    held: bytes::Bytes,
    /// Whether the peer has ended its direction.
    ended: bool,
    closed: bool,
    aborted: bool,
    drained: Option<Pin<Box<Sleep>>>,
    keeper: Option<K>,
}

impl<K> StreamCarrier<K> {
    /// A stream that was opened or accepted.
    pub(super) fn new(connection: Connection, (send, recv): (SendStream, RecvStream), keeper: K) -> Self {
        Self {
            connection,
            send: Some(send),
            recv,
            held: bytes::Bytes::new(),
            ended: false,
            closed: false,
            aborted: false,
            drained: None,
            keeper: Some(keeper),
        }
    }

    /// Takes a piece out of the connection, if there is none.
    fn poll_hold(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.held.is_empty() || self.ended {
            return Poll::Ready(Ok(()));
        }
        match ready!(pin!(self.recv.read_chunk(PIECE, true)).poll(cx)) {
            Ok(Some(chunk)) => self.held = chunk.bytes,
            Ok(None) => self.ended = true,
            Err(error) => return Poll::Ready(Err(read_error(error, &self.connection))),
        }
        Poll::Ready(Ok(()))
    }
}

impl<K> Carrier for StreamCarrier<K> {
    fn poll_read_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_hold(cx)
    }

    fn poll_read(&mut self, cx: &mut Context<'_>, out: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut n = 0;
        while n < out.len() {
            match self.poll_hold(cx) {
                // What came before an error is read before it.
                Poll::Ready(Err(_)) | Poll::Pending if n > 0 => break,
                result => ready!(result)?,
            }
            if self.held.is_empty() {
                break;
            }
            let piece = self.held.split_to(self.held.len().min(out.len() - n));
            if let Some(out) = out.get_mut(n..n + piece.len()) {
                out.copy_from_slice(&piece);
            }
            n += piece.len();
        }
        if self.held.is_empty() {
            // Or it would keep the memory of a datagram.
            self.held = bytes::Bytes::new();
        }
        Poll::Ready(Ok(n))
    }

    fn poll_read_vectored(
        &mut self,
        cx: &mut Context<'_>,
        out: &mut [IoSliceMut<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut n = 0;
        for slice in out.iter_mut().filter(|slice| !slice.is_empty()) {
            match self.poll_read(cx, slice) {
                Poll::Ready(Ok(read)) => {
                    n += read;
                    if read < slice.len() {
                        break;
                    }
                }
                Poll::Ready(Err(_)) | Poll::Pending if n > 0 => break,
                result => return result,
            }
        }
        Poll::Ready(Ok(n))
    }

    fn poll_write_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(send) = &mut self.send else { return Poll::Ready(Err(io::ErrorKind::NotConnected.into())) };
        // Of nothing it takes all, if both windows and our own memory let it take anything.
        Pin::new(send).poll_write(cx, &[]).map_ok(drop).map_err(|error| write_error(error, &self.connection))
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let Some(send) = &mut self.send else { return Poll::Ready(Err(io::ErrorKind::NotConnected.into())) };
        self.drained = None;
        let mut n = 0;
        for slice in slices.iter().filter(|slice| !slice.is_empty()) {
            match Pin::new(&mut *send).poll_write(cx, slice) {
                Poll::Ready(Ok(written)) => {
                    n += written;
                    if written < slice.len() {
                        break;
                    }
                }
                Poll::Ready(Err(_)) | Poll::Pending if n > 0 => break,
                result => return result.map_err(|error| write_error(error, &self.connection)),
            }
        }
        Poll::Ready(Ok(n))
    }

    fn poll_drained(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        // A reset takes back what has not been acknowledged, and nobody tells what has been: two round trips are enough
        // for what is on its way.
        let wait = (self.connection.rtt() * 2).min(DRAIN);
        self.drained.get_or_insert_with(|| Box::pin(sleep(wait))).as_mut().poll(cx)
    }

    fn poll_close(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Some(send) = self.send.as_mut().filter(|_| !self.closed) {
            // It fails on a stream that is over already, which every other call says.
            let _ = send.finish();
            self.closed = true;
        }
        Poll::Ready(Ok(()))
    }

    fn reset(&mut self) -> Pin<Box<dyn Future<Output = ()> + '_>> {
        Box::pin(async {
            match self.recv.received_reset().await {
                Ok(Some(_)) | Err(_) => {}
                // It has been read to its end: there is nothing left to reset but the connection.
                Ok(None) => drop(self.connection.closed().await),
            }
        })
    }

    fn closed(&mut self) -> Pin<Box<dyn Future<Output = ()> + '_>> {
        Box::pin(async {
            if std::future::poll_fn(|cx| self.poll_hold(cx)).await.is_err() || self.ended {
                return;
            }
            // What has come is left where it is, and an end behind it is not seen.
            match self.recv.received_reset().await {
                Ok(Some(_)) | Err(_) => {}
                Ok(None) => drop(self.connection.closed().await),
            }
        })
    }

    fn local_ip(&self) -> Option<IpAddr> {
        self.connection.local_ip()
    }

    fn abort(&mut self) {
        self.aborted = true;
    }
}

impl<K> Drop for StreamCarrier<K> {
    fn drop(&mut self) {
        let Some(mut send) = self.send.take() else { return };
        if self.aborted {
            // Both fail on a stream that is over.
            let _ = (send.reset(CODE), self.recv.stop(CODE));
            return;
        }
        let _ = send.finish();
        // Whoever closes the connection when its last stream has gone waits for what is still on its way.
        let (keeper, stopped) = (self.keeper.take(), send.stopped());
        drop(send);
        tokio::task::spawn_local(async move {
            let _ = timeout(LINGER, stopped).await;
            drop(keeper);
        });
    }
}

fn read_error(error: ReadError, connection: &Connection) -> io::Error {
    match error {
        ReadError::Reset(_) => io::Error::new(io::ErrorKind::ConnectionReset, "the stream was reset"),
        ReadError::ConnectionLost(error) => lost(&error),
        // A reset that has been told once is not known of the stream any more; its end is not read twice.
        error => match connection.close_reason() {
            Some(error) => lost(&error),
            None => io::Error::new(io::ErrorKind::ConnectionReset, error.to_string()),
        },
    }
}

fn write_error(error: WriteError, connection: &Connection) -> io::Error {
    match error {
        WriteError::Stopped(_) => io::Error::new(io::ErrorKind::BrokenPipe, "the stream was stopped"),
        WriteError::ConnectionLost(error) => lost(&error),
        // What has been told once is not known of the stream any more.
        error => match connection.close_reason() {
            Some(error) => lost(&error),
            None => io::Error::new(io::ErrorKind::NotConnected, error.to_string()),
        },
    }
}

/// A connection that is over is never a proper end of its streams.
fn lost(error: &ConnectionError) -> io::Error {
    let kind = match error {
        ConnectionError::TimedOut => io::ErrorKind::TimedOut,
        _ => io::ErrorKind::ConnectionReset,
    };
    io::Error::new(kind, error.to_string())
}
