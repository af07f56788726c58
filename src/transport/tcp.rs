//! The plain TCP socket as a carrier.

use super::Plain;
use super::socket::{Socket, SocketCarrier, forward_socket};
use crate::buffer::Pool;
use std::net::IpAddr;
use std::task::{Context, Poll};
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
pub(crate) type TcpCarrier = SocketCarrier<TcpStream>;

forward_socket!(TcpStream {
    fn poll_drained(&self, cx: &mut Context<'_>) -> Poll<()> {
        // A socket that is to be aborted takes nothing more: from here on it is writable when all has left, and what is on
        // its way comes before the reset that follows.
        #[cfg(any(target_os = "linux", target_os = "android"))]
        if socket2::SockRef::from(self).set_tcp_notsent_lowat(1).is_ok() {
            return super::socket::poll_writable(self, cx).map(drop);
        }
        let _ = cx;
        Poll::Ready(())
    }

    fn local_ip(&self) -> Option<IpAddr> {
        self.local_addr().ok().map(|local| local.ip())
    }

    fn abort_on_drop(&self) {
        // Fails only on a socket that is gone already.
        let _ = self.set_zero_linger();
    }
});

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::{Stream, StreamError};
    use std::future::poll_fn;
    use std::io;
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
