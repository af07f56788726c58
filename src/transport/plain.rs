//! Payload on a carrier as it is, without a protocol on top.

use super::queue::{Queue, affordable, allowance, class_for};
use super::{Carrier, Stream, StreamError};
use crate::buffer::{Buffer, Class, Pool, Turn};
use std::collections::VecDeque;
use std::future::Future;
use std::io::IoSliceMut;
use std::net::IpAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

/// The most buffers that one read fills.
const MAX_READ: usize = 8;
/// The least and the most that one read asks for; it quadruples when a read was filled and shrinks when it was not.
const APPETITE: (usize, usize) = (4096, 131_072);
/// Queued buffers from which the stream counts as busy until some have gone.
const BUSY_BUFFERS: usize = 128;

/// A carrier's bytes as payload.
pub(crate) struct Plain<C> {
    carrier: C,
    pool: Pool,
    /// What a read brought beyond its first buffer.
    received: VecDeque<Buffer>,
    queue: Queue,
    appetite: usize,
    turn: Turn,
    ended: bool,
    /// Why nothing can be sent any more.
    severed: Option<StreamError>,
}

impl<C: Carrier> Plain<C> {
    /// Wraps a carrier; its payload lives in buffers of `pool`.
    pub(crate) fn new(carrier: C, pool: Pool) -> Self {
        Self {
            carrier,
            pool,
            received: VecDeque::new(),
            queue: Queue::default(),
            appetite: APPETITE.0,
            turn: Turn::default(),
            ended: false,
            severed: None,
        }
    }

    /// Whether more should wait until some of what is queued has gone.
    fn is_busy(&self) -> bool {
        self.queue.bytes() >= allowance(&self.pool) || self.queue.len() >= BUSY_BUFFERS
    }

    /// Takes the buffers for one read of at most `max` bytes each.
    fn poll_buffers(&mut self, cx: &mut Context<'_>, max: usize) -> Poll<[Buffer; MAX_READ]> {
        let class = class_for(max.min(self.appetite)).min(affordable(&self.pool));
        let mut buffers = [const { Buffer::empty() }; MAX_READ];
        let each = max.min(class.capacity());
        let count = (self.appetite.min(allowance(&self.pool)) / each.max(1)).clamp(1, MAX_READ);
        for (index, slot) in buffers.iter_mut().take(count).enumerate() {
            match self.pool.take(class) {
                Some(buffer) => *slot = buffer,
                None if index == 0 => *slot = ready!(self.pool.poll_take(cx, Class::Small, &mut self.turn)),
                None => break,
            }
        }
        self.turn.pass();
        Poll::Ready(buffers)
    }
}

/// The first `max` bytes that a buffer has room for.
fn room(buffer: &mut Buffer, max: usize) -> IoSliceMut<'_> {
    let spare = buffer.spare_mut();
    let n = spare.len().min(max);
    IoSliceMut::new(&mut spare[..n])
}

impl<C: Carrier> Stream for Plain<C> {
    fn poll_recv(&mut self, cx: &mut Context<'_>, max: usize) -> Poll<Result<Option<Buffer>, StreamError>> {
        if let Some(buffer) = self.received.pop_front() {
            return Poll::Ready(Ok(Some(buffer)));
        }
        if self.ended {
            return Poll::Ready(Ok(None));
        }
        ready!(self.carrier.poll_read_ready(cx))?;
        let max = max.max(1);
        let mut buffers = ready!(self.poll_buffers(cx, max));
        let mut slices = buffers.each_mut().map(|buffer| room(buffer, max));
        let asked: [usize; MAX_READ] = std::array::from_fn(|i| slices[i].len());
        let count = asked.iter().take_while(|len| **len > 0).count();
        let mut left = ready!(self.carrier.poll_read_vectored(cx, &mut slices[..count]))?;
        if left == 0 {
            // Whoever writes takes the socket's error away: what is read then looks like a proper end.
            if let Some(error) = self.severed.clone().filter(|error| *error != StreamError::Unread) {
                return Poll::Ready(Err(error));
            }
            self.ended = true;
            return Poll::Ready(Ok(None));
        }
        let total: usize = asked.iter().sum();
        if left == total {
            self.appetite = (self.appetite * 4).min(APPETITE.1);
        } else if left < self.appetite / 4 {
            self.appetite = (self.appetite / 4).max(APPETITE.0);
        }
        for (buffer, len) in buffers.iter_mut().zip(asked) {
            let n = left.min(len);
            buffer.commit(n);
            left -= n;
        }
        let mut filled = buffers.into_iter().filter(|buffer| !buffer.is_empty());
        let first = filled.next();
        self.received.extend(filled);
        Poll::Ready(Ok(first))
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamError>> {
        if self.is_busy() && self.poll_flush(cx)?.is_pending() && self.is_busy() {
            return Poll::Pending;
        }
        if self.pool.is_tight() {
            ready!(self.carrier.poll_write_ready(cx))?;
        }
        Poll::Ready(Ok(()))
    }

    fn send(&mut self, data: Buffer) -> Result<(), StreamError> {
        self.queue.push(data);
        Ok(())
    }

    fn send_limit(&self) -> usize {
        Class::Large.capacity()
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamError>> {
        if let Some(error) = &self.severed {
            return Poll::Ready(Err(error.clone()));
        }
        let result = self.queue.poll_write(cx, &mut self.carrier, &mut Vec::new()).map_err(StreamError::from);
        match &result {
            Poll::Pending => self.queue.compact(&self.pool),
            Poll::Ready(Err(error)) => {
                self.queue.clear();
                self.severed = Some(error.clone());
            }
            Poll::Ready(Ok(())) => {}
        }
        result
    }

    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamError>> {
        ready!(self.poll_flush(cx))?;
        self.carrier.poll_close(cx).map_err(StreamError::from)
    }

    fn poll_drained(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if ready!(self.poll_flush(cx)).is_err() {
            return Poll::Ready(());
        }
        self.carrier.poll_drained(cx)
    }

    fn reset(&mut self) -> Pin<Box<dyn Future<Output = ()> + '_>> {
        self.carrier.reset()
    }

    fn pass_turn(&mut self) {
        self.turn.pass();
    }

    fn abort(&mut self) {
        self.turn.pass();
        self.received.clear();
        self.queue.clear();
        self.carrier.abort();
    }

    fn local_ip(&self) -> Option<IpAddr> {
        self.carrier.local_ip()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::testing::{Script, noop_context};
    use std::io;

    #[test]
    fn a_buffer_is_taken_only_when_data_is_at_hand() {
        let pool = Pool::new(1 << 20);
        let (carrier, script) = Script::carrier();
        let mut plain = Plain::new(carrier, pool.clone());
        assert!(plain.poll_recv(&mut noop_context(), 4096).is_pending());
        assert_eq!(pool.used(), 0);
        script.borrow_mut().feed(b"hi");
        let Poll::Ready(Ok(Some(got))) = plain.poll_recv(&mut noop_context(), 4096) else {
            panic!("nothing")
        };
        assert_eq!((&*got, pool.used()), (&b"hi"[..], Class::Small.slab_len()));
    }

    #[test]
    fn reads_grow_while_they_are_filled_and_shrink_when_not() {
        let pool = Pool::new(4 << 20);
        let (carrier, script) = Script::carrier();
        let mut plain = Plain::new(carrier, pool);
        script.borrow_mut().feed(&[7; 300_000]);
        let mut total = 0;
        while let Poll::Ready(Ok(Some(piece))) = plain.poll_recv(&mut noop_context(), 16_305) {
            total += piece.len();
        }
        assert_eq!(total, 300_000);
        let reads = script.borrow().reads.clone();
        assert_eq!(&reads[..3], [4096, 16_305, 65_220], "four records a read");
        script.borrow_mut().feed(b"x");
        while plain.poll_recv(&mut noop_context(), 16_305).is_ready() {}
        assert!(plain.appetite < APPETITE.1);
    }

    #[test]
    fn a_full_pool_delays_reading_and_loses_nothing() {
        let pool = Pool::new(Class::Small.slab_len());
        let (carrier, script) = Script::carrier();
        let mut plain = Plain::new(carrier, pool.clone());
        script.borrow_mut().feed(b"data");
        let held = pool.take(Class::Small);
        assert!(plain.poll_recv(&mut noop_context(), 100).is_pending());
        drop(held);
        assert!(
            matches!(plain.poll_recv(&mut noop_context(), 100), Poll::Ready(Ok(Some(b))) if &*b == b"data")
        );
    }

    #[test]
    fn a_blocked_carrier_makes_it_busy_and_the_end_waits_for_the_queue() {
        let pool = Pool::new(4 << 20);
        let (carrier, script) = Script::carrier();
        let mut plain = Plain::new(carrier, pool.clone());
        script.borrow_mut().write_room = 10;
        for _ in 0..58 {
            assert!(plain.poll_ready(&mut noop_context()).is_ready());
            plain.send(pool.copy(&[1; 4000]).expect("memory")).expect("sent");
        }
        assert!(plain.poll_ready(&mut noop_context()).is_pending());
        assert!(plain.poll_finish(&mut noop_context()).is_pending());
        assert!(!script.borrow().closed);
        script.borrow_mut().write_room = usize::MAX;
        assert!(plain.poll_finish(&mut noop_context()).is_ready());
        let script = script.borrow();
        assert_eq!((script.written.len(), script.closed, pool.used()), (232_000, true, 0));
    }

    #[test]
    fn a_carriers_cut_is_truncation() {
        let (carrier, script) = Script::carrier();
        let mut plain = Plain::new(carrier, Pool::new(1 << 20));
        script.borrow_mut().end(Err(io::ErrorKind::UnexpectedEof));
        let got = plain.poll_recv(&mut noop_context(), 100);
        assert!(matches!(got, Poll::Ready(Err(StreamError::Truncated))));
    }
}
