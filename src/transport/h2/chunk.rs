//! What waits on a connection to be written: pieces that are counted until they have left.

use bytes::Buf;
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

/// The most bytes that wait on a connection before its streams are held up.
const MOST: usize = 512 << 10;
/// The most bytes that wait on one stream.
const MOST_OF_STREAM: usize = 128 << 10;

/// What waits on one connection.
#[derive(Default)]
pub(super) struct Backlog {
    bytes: Cell<usize>,
    waiting: RefCell<Vec<Waker>>,
}

impl Backlog {
    fn wait<T>(&self, cx: &Context<'_>) -> Poll<T> {
        let mut waiting = self.waiting.borrow_mut();
        if !waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
            waiting.push(cx.waker().clone());
        }
        Poll::Pending
    }
}

/// What waits on one stream.
pub(super) struct Queued {
    backlog: Rc<Backlog>,
    bytes: Rc<Cell<usize>>,
}

impl Queued {
    /// Of a new stream.
    pub(super) fn new(backlog: &Rc<Backlog>) -> Self {
        Self { backlog: Rc::clone(backlog), bytes: Rc::default() }
    }

    /// Waits until another piece may be queued.
    pub(super) fn poll_room(&self, cx: &Context<'_>) -> Poll<()> {
        if self.bytes.get() < MOST_OF_STREAM && (self.backlog.bytes.get() < MOST || self.bytes.get() == 0) {
            return Poll::Ready(());
        }
        self.backlog.wait(cx)
    }

    /// Waits until everything has left.
    pub(super) fn poll_empty(&self, cx: &Context<'_>) -> Poll<()> {
        if self.bytes.get() == 0 { Poll::Ready(()) } else { self.backlog.wait(cx) }
    }

    /// Counts a piece.
    pub(super) fn chunk(&self, data: Vec<u8>) -> Chunk {
        let counted = data.len();
        self.bytes.set(self.bytes.get().saturating_add(counted));
        self.backlog.bytes.set(self.backlog.bytes.get().saturating_add(counted));
        let queued = Self { backlog: Rc::clone(&self.backlog), bytes: Rc::clone(&self.bytes) };
        Chunk { data, at: 0, queued, counted }
    }
}

/// A piece of a stream. It counts as waiting until it is dropped.
pub(super) struct Chunk {
    data: Vec<u8>,
    at: usize,
    queued: Queued,
    counted: usize,
}

impl Buf for Chunk {
    fn remaining(&self) -> usize {
        self.data.len().saturating_sub(self.at)
    }

    fn chunk(&self) -> &[u8] {
        self.data.get(self.at..).unwrap_or_default()
    }

    fn advance(&mut self, n: usize) {
        self.at = self.at.saturating_add(n).min(self.data.len());
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        let left = |cell: &Cell<usize>| cell.set(cell.get().saturating_sub(self.counted));
        left(&self.queued.bytes);
        left(&self.queued.backlog.bytes);
        self.queued.backlog.waiting.borrow_mut().drain(..).for_each(Waker::wake);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::testing::noop_context;

    #[test]
    fn a_chunk_counts_until_it_has_left() {
        let (backlog, cx) = (Rc::<Backlog>::default(), noop_context());
        let queued = Queued::new(&backlog);
        let mut chunk = queued.chunk(vec![7; 10]);
        chunk.advance(4);
        assert_eq!((chunk.remaining(), chunk.chunk(), backlog.bytes.get()), (6, &[7; 6][..], 10));
        assert!(queued.poll_empty(&cx).is_pending());
        chunk.advance(60);
        drop(chunk);
        assert!(queued.poll_empty(&cx).is_ready() && backlog.bytes.get() == 0);
        assert!(backlog.waiting.borrow().is_empty(), "woken");
    }

    #[test]
    fn a_full_connection_still_takes_one_piece_of_every_stream() {
        let (backlog, cx) = (Rc::<Backlog>::default(), noop_context());
        let (greedy, other) = (Queued::new(&backlog), Queued::new(&backlog));
        let chunks: Vec<_> = (0..MOST / 1000 + 1).map(|_| greedy.chunk(vec![0; 1000])).collect();
        assert!(greedy.poll_room(&cx).is_pending());
        assert!(other.poll_room(&cx).is_ready());
        let one = other.chunk(vec![0]);
        assert!(other.poll_room(&cx).is_pending());
        drop((chunks, one));
        assert!(other.poll_room(&cx).is_ready());
    }
}
