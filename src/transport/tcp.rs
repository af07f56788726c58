//! The plain TCP socket as a carrier.

use super::{Carrier, Plain};
use crate::buffer::Pool;
use std::future::{Future, pending};
use std::io::{self, IoSlice, IoSliceMut};
use std::net::IpAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;

/// Payload on a TCP socket, unsealed: freedom's connections and a SOCKS client's socket.
pub(crate) type TcpPayload = Plain<TcpCarrier>;

impl TcpPayload {
    /// Wraps a connected socket.
    pub(crate) fn from_tcp(stream: TcpStream, pool: Pool) -> Self {
        Self::new(TcpCarrier::new(stream), pool)
    }
}

/// A connected TCP socket.
pub(crate) struct TcpCarrier {
    stream: TcpStream,
}

impl TcpCarrier {
    /// Wraps a connected socket.
    pub(crate) const fn new(stream: TcpStream) -> Self {
        Self { stream }
    }
}

impl Carrier for TcpCarrier {
    fn poll_read_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.poll_read_ready(cx)
    }

    fn poll_read(&mut self, cx: &mut Context<'_>, out: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut out = ReadBuf::new(out);
        ready!(Pin::new(&mut self.stream).poll_read(cx, &mut out))?;
        Poll::Ready(Ok(out.filled().len()))
    }

    fn poll_read_vectored(
        &mut self,
        cx: &mut Context<'_>,
        out: &mut [IoSliceMut<'_>],
    ) -> Poll<io::Result<usize>> {
        let room: usize = out.iter().map(|slice| slice.len()).sum();
        loop {
            ready!(self.stream.poll_read_ready(cx))?;
            match self.stream.try_read_vectored(out) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Ok(n) if 0 < n && n < room => {
                    // The socket is drained: clear its readiness without asking the system again. The selectors that
                    // tokio uses here are edge-triggered, so what comes later raises it anew.
                    let drained = || Err::<(), _>(io::ErrorKind::WouldBlock.into());
                    let _ = self.stream.try_io(Interest::READABLE, drained);
                    return Poll::Ready(Ok(n));
                }
                result => return Poll::Ready(result),
            }
        }
    }

    fn poll_write_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            ready!(self.stream.poll_write_ready(cx))?;
            // What the runtime knows is as old as the last write that was not taken.
            match self.stream.try_io(Interest::WRITABLE, || ask_writable(&self.stream)) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return Poll::Ready(result),
            }
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.stream.poll_write_ready(cx))?;
            match self.stream.try_io(Interest::WRITABLE, || send(&self.stream, slices)) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return Poll::Ready(result),
            }
        }
    }

    fn poll_drained(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        // A socket that is to be aborted takes nothing more: from here on it is writable when all has left, and what is on
        // its way comes before the reset that follows.
        #[cfg(any(target_os = "linux", target_os = "android"))]
        if socket2::SockRef::from(&self.stream).set_tcp_notsent_lowat(1).is_ok() {
            return self.poll_write_ready(cx).map(drop);
        }
        let _ = cx;
        Poll::Ready(())
    }

    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn reset(&mut self) -> Pin<Box<dyn Future<Output = ()> + '_>> {
        Box::pin(reset(&self.stream))
    }

    fn closed(&mut self) -> Pin<Box<dyn Future<Output = ()> + '_>> {
        Box::pin(closed(&self.stream))
    }

    fn local_ip(&self) -> Option<IpAddr> {
        self.stream.local_addr().ok().map(|local| local.ip())
    }

    fn abort(&mut self) {
        // Fails only on a socket that is gone already.
        let _ = self.stream.set_zero_linger();
    }
}

/// Ends when a socket's peer has reset the connection, whatever is still to be read from it.
pub(crate) async fn reset(stream: &TcpStream) {
    if stream.ready(Interest::ERROR).await.is_err() {
        // The runtime is ending, and the task with it.
        pending::<()>().await;
    }
}

/// Asks the system whether a socket takes more; `WouldBlock` if it does not.
fn ask_writable(stream: &TcpStream) -> io::Result<()> {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let mut asked = [PollFd::new(stream, PollFlags::OUT)];
    let ready = poll(&mut asked, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }))?;
    if ready == 0 { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
}

/// Ends when a socket's peer has ended its direction, and reads nothing.
async fn closed(stream: &TcpStream) {
    while let Ok(ready) = stream.ready(Interest::READABLE).await {
        if ready.is_read_closed() {
            return;
        }
        // What has come is left where it is; what comes later wakes us again, until the window is full.
        let _ = stream.try_io(Interest::READABLE, || Err::<(), _>(io::ErrorKind::WouldBlock.into()));
    }
}

/// Writes to a socket. Not by `writev`: that raises SIGPIPE when the peer is gone, which ends a host that leaves the
/// signal alone, as C programs do. Apple's sockets have it off from the start (`SO_NOSIGPIPE`, by socket2).
fn send(stream: &TcpStream, slices: &[IoSlice<'_>]) -> io::Result<usize> {
    #[cfg(not(target_vendor = "apple"))]
    let flags = rustix::net::SendFlags::NOSIGNAL;
    #[cfg(target_vendor = "apple")]
    let flags = rustix::net::SendFlags::empty();
    Ok(rustix::net::sendmsg(stream, slices, &mut rustix::net::SendAncillaryBuffer::default(), flags)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::{Stream, StreamError};
    use std::future::poll_fn;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    async fn pair() -> (TcpPayload, TcpStream, Pool) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let theirs = TcpStream::connect(listener.local_addr().expect("address")).await.expect("connect");
        let (ours, _) = listener.accept().await.expect("accept");
        let pool = Pool::new(4 << 20);
        (TcpPayload::from_tcp(ours, pool.clone()), theirs, pool)
    }

    #[tokio::test]
    async fn bytes_pass_whole_and_in_order_through_vectored_reads() {
        let (mut ours, mut theirs, pool) = pair().await;
        let sent: Vec<u8> = (0..1_000_000_u32).map(|i| (i % 251) as u8).collect();
        let copy = sent.clone();
        let writer = tokio::spawn(async move {
            theirs.write_all(&copy).await.expect("written");
            theirs.shutdown().await.expect("ended");
            theirs
        });
        let mut got = Vec::new();
        while let Some(piece) = poll_fn(|cx| ours.poll_recv(cx, 16_305)).await.expect("received") {
            assert!(!piece.is_empty() && piece.len() <= 16_305);
            got.extend_from_slice(&piece);
        }
        assert!(got == sent, "{} of {} bytes", got.len(), sent.len());
        assert_eq!(pool.used(), 0, "an idle stream holds no buffer");
        assert!(poll_fn(|cx| ours.poll_recv(cx, 1)).await.expect("again").is_none());

        let mut theirs = writer.await.expect("writer");
        for piece in sent.chunks(1000) {
            poll_fn(|cx| ours.poll_ready(cx)).await.expect("ready");
            ours.send(pool.copy(piece).expect("memory")).expect("sent");
            // Reading on the other side keeps the socket from filling for ever.
            let mut there = vec![0; 4096];
            if let Ok(n) = theirs.try_read(&mut there) {
                assert!(n > 0);
                theirs_seen(&mut got, &there[..n]);
            }
        }
        let flush = async {
            poll_fn(|cx| ours.poll_finish(cx)).await.expect("finished");
        };
        let drain = async {
            let mut rest = Vec::new();
            theirs.read_to_end(&mut rest).await.expect("read");
            rest
        };
        let ((), rest) = tokio::join!(flush, drain);
        theirs_seen(&mut got, &rest);
        assert!(got[sent.len()..] == sent[..]);
    }

    fn theirs_seen(got: &mut Vec<u8>, piece: &[u8]) {
        got.extend_from_slice(piece);
    }

    #[tokio::test]
    async fn an_abort_is_a_reset_for_the_peer() {
        let (mut ours, mut theirs, _pool) = pair().await;
        ours.abort();
        drop(ours);
        let error = theirs.read(&mut [0; 8]).await.expect_err("reset");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    }

    #[cfg(any(target_os = "linux", target_os = "android"))]
    #[tokio::test]
    async fn what_has_drained_comes_before_the_reset() {
        let (mut ours, mut theirs, pool) = pair().await;
        let mut sent = 0;
        while poll_fn(|cx| Poll::Ready(ours.poll_flush(cx))).await.is_ready() {
            ours.send(pool.copy(&[7; 16_000]).expect("memory")).expect("sent");
            sent += 16_000;
        }
        assert!(poll_fn(|cx| Poll::Ready(ours.poll_drained(cx))).await.is_pending());
        let reader = tokio::spawn(async move {
            let mut got = Vec::new();
            let end = theirs.read_to_end(&mut got).await.map_err(|error| error.kind());
            (got.len(), end)
        });
        poll_fn(|cx| ours.poll_drained(cx)).await;
        ours.abort();
        drop(ours);
        assert_eq!(reader.await.expect("reader"), (sent, Err(io::ErrorKind::ConnectionReset)));
    }

    #[tokio::test]
    async fn a_peers_reset_is_an_error_not_an_end() {
        let (mut ours, theirs, _pool) = pair().await;
        theirs.set_zero_linger().expect("linger");
        drop(theirs);
        let error = poll_fn(|cx| ours.poll_recv(cx, 100)).await.expect_err("reset");
        assert_eq!(error, StreamError::Reset);
    }

    #[tokio::test]
    async fn what_the_peer_said_before_it_took_no_more_is_still_received() {
        for ended in [false, true] {
            let (mut ours, mut theirs, pool) = pair().await;
            ours.send(pool.copy(&[1; 4000]).expect("memory")).expect("sent");
            poll_fn(|cx| ours.poll_flush(cx)).await.expect("flushed");
            theirs.readable().await.expect("there is something unread");
            theirs.write_all(&[7; 100_000]).await.expect("written");
            if ended {
                theirs.shutdown().await.expect("ended");
            }
            // What is unread makes this a reset.
            drop(theirs);
            let refused = loop {
                poll_fn(|cx| ours.poll_ready(cx)).await.expect("room");
                ours.send(pool.copy(&[1; 4000]).expect("memory")).expect("sent");
                if let Err(error) = poll_fn(|cx| ours.poll_flush(cx)).await {
                    break error;
                }
            };
            let mut received = 0;
            let end = loop {
                match poll_fn(|cx| ours.poll_recv(cx, 16_305)).await {
                    Ok(Some(piece)) => received += piece.len(),
                    Ok(None) => break None,
                    Err(error) => break Some(error),
                }
            };
            assert_eq!(received, 100_000, "{refused}");
            // Only Linux keeps a FIN that came before the reset apart.
            let whole = ended && cfg!(target_os = "linux");
            assert_eq!(
                (refused, end),
                if whole {
                    (StreamError::Unread, None)
                } else {
                    (StreamError::Reset, Some(StreamError::Reset))
                }
            );
        }
    }
}
