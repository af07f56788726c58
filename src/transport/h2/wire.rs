//! The carrier under a connection, watched: how much has come and when, and whether its end is to be an abort.
//!
//! It is read in large pieces: the library asks for what is left of a frame each time, which is less than a record of TLS.

use crate::buffer::{Buffer, Class, Pool};
use crate::engine::clock::Clock;
use crate::time::Moment;
use crate::transport::Carrier;
use crate::transport::io::CarrierIo;
use std::cell::Cell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The most slices that share a write with what was held back.
const SHARED: usize = 15;

/// What is known of a connection's bytes.
pub(super) struct Pulse {
    clock: Clock,
    /// How many bytes have come.
    pub(super) received: Cell<u64>,
    /// When the last ones came, or the connection was made.
    pub(super) last: Cell<Moment>,
    /// Whether dropping the connection aborts it.
    pub(super) aborts: Cell<bool>,
}

impl Pulse {
    /// Of a new connection.
    pub(super) fn new(clock: &Clock) -> Rc<Self> {
        Rc::new(Self {
            clock: clock.clone(),
            received: Cell::new(0),
            last: Cell::new(clock.now()),
            aborts: Cell::new(false),
        })
    }
}

/// A carrier as the library takes it.
pub(super) struct Wire<C: Carrier> {
    io: CarrierIo<C>,
    pulse: Rc<Pulse>,
    pool: Pool,
    /// What has been read and not been asked for. Without any there is no buffer.
    read: Buffer,
    /// The opening words, until something else is written: they go with it.
    held: Option<Vec<u8>>,
}

impl<C: Carrier> Wire<C> {
    /// Wraps a carrier. A client's first write, its opening words, waits for the second one.
    pub(super) const fn new(carrier: C, pulse: Rc<Pulse>, pool: Pool, holds: bool) -> Self {
        let held = if holds { Some(Vec::new()) } else { None };
        Self { io: CarrierIo(carrier), pulse, pool, read: Buffer::empty(), held }
    }
}

impl<C: Carrier + Unpin> Wire<C> {
    /// Reads into a buffer of the pool's as soon as there is something. `None` if there is no memory for one.
    fn poll_large(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<usize>>> {
        if let Err(error) = ready!(self.io.0.poll_read_ready(cx)) {
            return Poll::Ready(Some(Err(error)));
        }
        let Some(mut buffer) = self.pool.take(Class::Large) else { return Poll::Ready(None) };
        let n = match ready!(self.io.0.poll_read(cx, buffer.spare_mut())) {
            Ok(n) => n,
            Err(error) => return Poll::Ready(Some(Err(error))),
        };
        buffer.commit(n);
        self.read = buffer;
        Poll::Ready(Some(Ok(n)))
    }

    /// Writes what is held back, and `slices` behind it. Returns how much of `slices` was written.
    fn poll_held(&mut self, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        while let Some(held) = &mut self.held {
            let mut all = [IoSlice::new(&[]); SHARED + 1];
            for (slot, slice) in all.iter_mut().zip([IoSlice::new(held)].iter().chain(slices)) {
                *slot = *slice;
            }
            let all = all.get(..=slices.len().min(SHARED)).unwrap_or_default();
            let n = ready!(Pin::new(&mut self.io).poll_write_vectored(cx, all))?;
            let of_held = n.min(held.len());
            held.drain(..of_held);
            if held.is_empty() {
                self.held = None;
            }
            if n > of_held {
                return Poll::Ready(Ok(n - of_held));
            }
        }
        if slices.is_empty() {
            return Poll::Ready(Ok(0));
        }
        Pin::new(&mut self.io).poll_write_vectored(cx, slices)
    }
}

impl<C: Carrier + Unpin> AsyncRead for Wire<C> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.read.is_empty() {
            let before = out.filled().len();
            let n = match self.poll_large(cx) {
                Poll::Ready(Some(n)) => n?,
                Poll::Ready(None) => {
                    ready!(Pin::new(&mut self.io).poll_read(cx, out))?;
                    out.filled().len().saturating_sub(before)
                }
                Poll::Pending => return Poll::Pending,
            };
            let received = self.pulse.received.get().saturating_add(u64::try_from(n).unwrap_or(0));
            self.pulse.received.set(received);
            self.pulse.last.set(self.pulse.clock.now());
        }
        let n = self.read.len().min(out.remaining());
        out.put_slice(self.read.get(..n).unwrap_or_default());
        self.read.advance(n);
        if self.read.is_empty() {
            self.read = Buffer::empty();
        }
        Poll::Ready(Ok(()))
    }
}

impl<C: Carrier + Unpin> AsyncWrite for Wire<C> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        if let Some(held) = self.held.as_mut().filter(|held| held.is_empty()) {
            held.extend_from_slice(data);
            return Poll::Ready(Ok(data.len()));
        }
        self.poll_held(cx, &[IoSlice::new(data)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_held(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_held(cx, &[]))?;
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

impl<C: Carrier> Drop for Wire<C> {
    fn drop(&mut self) {
        if self.pulse.aborts.get() {
            self.io.0.abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::testing::Script;
    use std::future::poll_fn;
    use tokio::io::AsyncWriteExt;

    #[tokio::test]
    async fn the_opening_words_share_a_packet_with_what_follows() {
        for room in [usize::MAX, 5, 1] {
            let (carrier, script) = Script::carrier();
            script.borrow_mut().write_limit = room;
            let pulse = Pulse::new(&Clock::default());
            let mut wire = Wire::new(carrier, pulse, Pool::new(1 << 20), true);
            wire.write_all(b"opening ").await.expect("held");
            wire.flush().await.expect("nothing yet");
            assert!(script.borrow().writes.is_empty());
            let mut rest = &b"words and more"[..];
            while !rest.is_empty() {
                let slices = [IoSlice::new(rest)];
                let n = poll_fn(|cx| Pin::new(&mut wire).poll_write_vectored(cx, &slices)).await;
                rest = &rest[n.expect("written")..];
            }
            assert_eq!(script.borrow().written, b"opening words and more");
            assert!(room < usize::MAX || script.borrow().writes.len() == 1);
        }
    }

    #[tokio::test]
    async fn what_has_come_is_read_at_once_and_handed_on_in_pieces() {
        for memory in [1 << 20, 0] {
            let (carrier, script) = Script::carrier();
            script.borrow_mut().feed(&[7; 50_000]);
            let (pulse, pool) = (Pulse::new(&Clock::default()), Pool::new(memory));
            let mut wire = Wire::new(carrier, Rc::clone(&pulse), pool.clone(), false);
            let mut got = vec![0; 50_000];
            for piece in got.chunks_mut(9000) {
                tokio::io::AsyncReadExt::read_exact(&mut wire, piece).await.expect("read");
            }
            assert_eq!((got, pulse.received.get(), pool.used()), (vec![7; 50_000], 50_000, 0));
            assert!(memory == 0 || script.borrow().reads.len() == 1, "{:?}", script.borrow().reads);
        }
    }

    #[tokio::test]
    async fn an_abort_reaches_the_carrier() {
        let (carrier, script) = Script::carrier();
        let pulse = Pulse::new(&Clock::default());
        let wire = Wire::new(carrier, Rc::clone(&pulse), Pool::new(0), false);
        pulse.aborts.set(true);
        drop(wire);
        assert!(script.borrow().aborted);
    }
}
