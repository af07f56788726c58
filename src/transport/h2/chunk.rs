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
    /// The streams that the connection holds up.
    waiting: RefCell<Vec<Waker>>,
}

/// What waits on one stream.
#[derive(Default)]
struct Own {
    bytes: Cell<usize>,
    /// Who waits for that to become less.
    waiting: Cell<Option<Waker>>,
}

/// What waits on one stream, and on its connection.
pub(super) struct Queued {
    backlog: Rc<Backlog>,
    own: Rc<Own>,
}

impl Queued {
    /// Of a new stream.
    pub(super) fn new(backlog: &Rc<Backlog>) -> Self {
        Self { backlog: Rc::clone(backlog), own: Rc::default() }
    }

    /// Waits until another piece may be queued.
    pub(super) fn poll_room(&self, cx: &Context<'_>) -> Poll<()> {
        let own = self.own.bytes.get();
        let full = self.backlog.bytes.get() >= MOST;
        if own < MOST_OF_STREAM && (!full || own == 0) {
            return Poll::Ready(());
        }
        if full {
            let mut waiting = self.backlog.waiting.borrow_mut();
            if !waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
                waiting.push(cx.waker().clone());
            }
        }
        self.wait(cx)
    }

    /// Waits until everything has left.
    pub(super) fn poll_empty(&self, cx: &Context<'_>) -> Poll<()> {
        if self.own.bytes.get() == 0 { Poll::Ready(()) } else { self.wait(cx) }
    }

    fn wait(&self, cx: &Context<'_>) -> Poll<()> {
        self.own.waiting.set(Some(cx.waker().clone()));
        Poll::Pending
    }

    /// Counts a piece.
    pub(super) fn chunk(&self, data: Vec<u8>) -> Chunk {
        let counted = data.len();
        self.own.bytes.set(self.own.bytes.get().saturating_add(counted));
        self.backlog.bytes.set(self.backlog.bytes.get().saturating_add(counted));
        let queued = Self { backlog: Rc::clone(&self.backlog), own: Rc::clone(&self.own) };
        Chunk { data, at: 0, queued, counted }
    }

    /// A piece of so many bytes has left. Who waits is woken when there is room for more than a few of them.
    fn left(&self, counted: usize) {
        let less = |cell: &Cell<usize>| {
            cell.set(cell.get().saturating_sub(counted));
            cell.get()
        };
        if less(&self.own.bytes) <= MOST_OF_STREAM / 2
            && let Some(waker) = self.own.waiting.take()
        {
            waker.wake();
        }
        if less(&self.backlog.bytes) <= MOST / 2 {
            self.backlog.waiting.borrow_mut().drain(..).for_each(Waker::wake);
        }
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
        self.queued.left(self.counted);
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
