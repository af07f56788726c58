//! Buffers waiting to be written, and how much memory a flow may ask for.

use super::Carrier;
use crate::buffer::{Buffer, Class, Pool};
use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::task::{Context, Poll, ready};

/// The most slices that go into one write.
const MAX_SLICES: usize = 128;
/// Entries that an empty queue keeps room for; more is given back.
const KEPT_ENTRIES: usize = 8;

/// Buffers on their way to a carrier, oldest first.
#[derive(Default)]
pub(super) struct Queue {
    buffers: VecDeque<Buffer>,
    bytes: usize,
}

impl Queue {
    /// Adds a buffer; an empty one is dropped.
    pub(super) fn push(&mut self, buffer: Buffer) {
        if !buffer.is_empty() {
            self.bytes += buffer.len();
            self.buffers.push_back(buffer);
        }
    }

    /// Takes the oldest buffer.
    pub(super) fn pop(&mut self) -> Option<Buffer> {
        let buffer = self.buffers.pop_front();
        match &buffer {
            Some(buffer) => self.bytes -= buffer.len(),
            None => self.shrink(),
        }
        buffer
    }

    /// Puts a buffer back to the front.
    pub(super) fn push_front(&mut self, buffer: Buffer) {
        self.bytes += buffer.len();
        self.buffers.push_front(buffer);
    }

    /// Appends to the newest buffer if all of `data` fits there and the result stays within `limit`.
    pub(super) fn merge(&mut self, data: &[u8], limit: usize) -> bool {
        let Some(back) = self.buffers.back_mut() else { return false };
        let fits = back.len() + data.len() <= limit && back.spare() >= data.len();
        if fits {
            back.append(data);
            self.bytes += data.len();
        }
        fits
    }

    /// Bytes waiting.
    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Buffers waiting.
    pub(super) fn len(&self) -> usize {
        self.buffers.len()
    }

    /// Whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.buffers.is_empty()
    }

    /// Drops everything.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Writes `head` and then everything queued, as few calls as the carrier allows. What is done of `head` is drained
    /// from it.
    ///
    /// # Errors
    /// The carrier's.
    pub(super) fn poll_write<C: Carrier>(
        &mut self,
        cx: &mut Context<'_>,
        carrier: &mut C,
        head: &mut Vec<u8>,
    ) -> Poll<io::Result<()>> {
        while !head.is_empty() || !self.is_empty() {
            let mut slices = [IoSlice::new(&[]); MAX_SLICES];
            let mut count = 0;
            let pieces = std::iter::once(head.as_slice()).chain(self.buffers.iter().map(|buffer| &**buffer));
            for (slot, piece) in slices.iter_mut().zip(pieces.filter(|piece| !piece.is_empty())) {
                *slot = IoSlice::new(piece);
                count += 1;
            }
            let written = ready!(carrier.poll_write(cx, slices.get(..count).unwrap_or(&[])))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            let of_head = written.min(head.len());
            if of_head == head.len() {
                *head = Vec::new();
            } else {
                head.drain(..of_head);
            }
            self.advance(written - of_head);
        }
        self.shrink();
        Poll::Ready(Ok(()))
    }

    /// Drops the first `n` bytes.
    fn advance(&mut self, mut n: usize) {
        while let Some(front) = self.buffers.front_mut() {
            if n < front.len() {
                front.advance(n);
                self.bytes -= n;
                return;
            }
            n -= front.len();
            self.bytes -= front.len();
            self.buffers.pop_front();
        }
    }

    /// What a blocked carrier leaves behind is moved out of large slabs, when it is little, so that a stalled flow
    /// keeps little.
    pub(super) fn compact(&mut self, pool: &Pool) {
        let small = Class::Small;
        let large = self.buffers.iter().any(|buffer| buffer.held() > small.slab_len());
        if !large || self.bytes > small.capacity() {
            return;
        }
        let Some(mut whole) = pool.take(small) else { return };
        for buffer in self.buffers.drain(..) {
            whole.append(&buffer);
        }
        self.buffers.push_back(whole);
        self.shrink();
    }

    fn shrink(&mut self) {
        if self.buffers.capacity() > KEPT_ENTRIES && self.buffers.len() <= KEPT_ENTRIES {
            self.buffers.shrink_to(KEPT_ENTRIES);
        }
    }
}

/// The largest class of buffer that a flow should take as full as the pool is.
pub(super) fn affordable(pool: &Pool) -> Class {
    match fullness(pool) {
        Fullness::Ample => Class::Large,
        Fullness::Filling => Class::Record,
        Fullness::Tight => Class::Small,
    }
}

/// How many bytes of payload a flow may queue as full as the pool is.
///
/// A stalled flow keeps what it queued, so the fuller the pool the less is granted.
pub(super) fn allowance(pool: &Pool) -> usize {
    match fullness(pool) {
        Fullness::Ample => 224 * 1024,
        Fullness::Filling => 48 * 1024,
        Fullness::Tight => 4 * 1024,
    }
}

/// How full a pool is.
enum Fullness {
    Ample,
    /// A quarter is out.
    Filling,
    Tight,
}

fn fullness(pool: &Pool) -> Fullness {
    if pool.is_tight() {
        Fullness::Tight
    } else if pool.used() >= pool.limit() / 4 {
        Fullness::Filling
    } else {
        Fullness::Ample
    }
}

/// The smallest class whose buffers take `bytes`; the largest one if none does.
pub(super) fn class_for(bytes: usize) -> Class {
    Class::for_len(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::testing::{Script, noop_context};

    #[test]
    fn everything_leaves_in_order_however_the_carrier_cuts_it() {
        let pool = Pool::new(1 << 20);
        for cut in [1, 3, 7, 100, 100_000] {
            let (mut carrier, script) = Script::carrier();
            script.borrow_mut().write_limit = cut;
            let (mut queue, mut head) = (Queue::default(), b"head".to_vec());
            let mut expected = head.clone();
            for i in 0..100_u8 {
                let piece = vec![i; usize::from(i) + 1];
                expected.extend_from_slice(&piece);
                queue.push(pool.copy(&piece).expect("memory"));
            }
            assert_eq!(queue.bytes(), expected.len() - 4);
            let done = queue.poll_write(&mut noop_context(), &mut carrier, &mut head);
            assert!(matches!(done, Poll::Ready(Ok(()))));
            assert!(script.borrow().written == expected, "cut at {cut}");
            assert_eq!((queue.bytes(), queue.len(), pool.used()), (0, 0, 0));
            assert!(queue.buffers.capacity() <= KEPT_ENTRIES);
        }
    }

    #[test]
    fn head_and_first_buffer_share_one_write() {
        let pool = Pool::new(1 << 20);
        let (mut carrier, script) = Script::carrier();
        let (mut queue, mut head) = (Queue::default(), b"head".to_vec());
        queue.push(pool.copy(b"first").expect("memory"));
        assert!(queue.poll_write(&mut noop_context(), &mut carrier, &mut head).is_ready());
        assert_eq!(script.borrow().writes, [9]);
    }

    #[test]
    fn what_little_stays_behind_leaves_its_large_slab() {
        let pool = Pool::new(1 << 20);
        let mut large = pool.take(Class::Large).expect("memory");
        large.append(&[1; 60_000]);
        let mut queue = Queue::default();
        queue.push(large.slice(0..10));
        queue.push(large.slice(10..30));
        drop(large);
        queue.compact(&pool);
        assert_eq!((queue.len(), queue.bytes(), pool.used()), (1, 30, Class::Small.slab_len()));
    }

    #[test]
    fn the_fuller_the_pool_the_less_is_granted() {
        let pool = Pool::new(Class::Large.slab_len() * 8);
        assert_eq!((affordable(&pool), allowance(&pool)), (Class::Large, 224 * 1024));
        let held = [pool.take(Class::Large), pool.take(Class::Large)];
        assert_eq!(affordable(&pool), Class::Record);
        let more = pool.take(Class::Large);
        assert_eq!((affordable(&pool), allowance(&pool)), (Class::Small, 4 * 1024));
        drop((held, more));
        assert_eq!(
            (class_for(0), class_for(4097), class_for(9217), class_for(65_553)),
            (Class::Small, Class::Medium, Class::Record, Class::Large)
        );
    }
}
