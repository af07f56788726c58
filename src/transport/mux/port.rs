//! A session's queue at this end of a carrier.

use super::super::queue::class_for;
use super::super::stream::StreamError;
use crate::addr::{Network, Target};
use crate::buffer::{Buffer, Pool};
use crate::mux::frame::{MAX_DATAGRAM_DATA, MAX_XUDP_DATA};
use crate::mux::{Opening, xudp};
use std::cell::{Cell, RefCell, RefMut};
use std::collections::VecDeque;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

/// Data, and for a datagram that names it, the other end.
type Piece = (Buffer, Option<Target>);

/// Memory from which a session's queue keeps only copies: what it keeps of the carrier's reads keeps all of them.
const COPIED_FROM: usize = 128 * 1024;
/// The most memory that a session's queue holds before the carrier waits for its reader.
const MAX_HELD: usize = 256 * 1024;
/// The same when the pool is tight.
const MIN_HELD: usize = 32 * 1024;
/// Datagrams that wait for their reader; the oldest goes first.
const MAX_DATAGRAMS: usize = 64;

/// One session, shared by its user and the carrier.
pub(super) struct Port {
    pub(super) id: u16,
    pub(super) network: Network,
    inner: RefCell<Inner>,
    /// Payload bytes that wait in the carrier's queue.
    pub(super) outgoing: Cell<usize>,
    /// What of it has not gone out is not to go.
    pub(super) aborted: Cell<bool>,
    /// Whether its queue holds up the carrier.
    pub(super) full: Cell<bool>,
    /// Whether the peer has shown that it speaks XUDP.
    xudp: Cell<bool>,
}

struct Inner {
    queue: VecDeque<(Buffer, Option<Target>)>,
    held: usize,
    /// How the peer, or the carrier, has ended it.
    end: Option<Result<(), StreamError>>,
    /// What opens it, until that has gone out.
    opening: Option<Opening>,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl Port {
    pub(super) fn new(id: u16, network: Network, opening: Option<Opening>) -> Rc<Self> {
        Rc::new(Self {
            id,
            network,
            inner: RefCell::new(Inner {
                queue: VecDeque::new(),
                held: 0,
                end: None,
                opening,
                reader: None,
                writer: None,
            }),
            outgoing: Cell::new(0),
            aborted: Cell::new(false),
            full: Cell::new(false),
            xudp: Cell::new(id == xudp::SESSION),
        })
    }

    /// Notes that the session is XUDP: it names its source, or where each datagram goes.
    pub(super) fn set_xudp(&self) {
        self.xudp.set(true);
    }

    /// Bytes of the longest datagram that the peer can be trusted to take.
    pub(super) fn longest_datagram(&self) -> usize {
        if self.xudp.get() { MAX_XUDP_DATA } else { MAX_DATAGRAM_DATA }
    }

    /// Takes out what opens the session, if it has not gone yet.
    pub(super) fn take_opening(&self) -> Option<Opening> {
        self.inner.borrow_mut().opening.take()
    }

    /// Puts back what opens the session: there was no memory to send it.
    pub(super) fn give_back(&self, opening: Opening) {
        self.inner.borrow_mut().opening = Some(opening);
    }

    /// How the session was ended from the other side.
    pub(super) fn ended(&self) -> Option<Result<(), StreamError>> {
        self.inner.borrow().end.clone()
    }

    /// Ends the session from the other side; the first end counts. What was queued can still be read.
    pub(super) fn end(&self, how: Result<(), StreamError>) {
        let mut inner = self.inner.borrow_mut();
        inner.end.get_or_insert(how);
        let (reader, writer) = (inner.reader.take(), inner.writer.take());
        drop(inner);
        reader.into_iter().chain(writer).for_each(Waker::wake);
    }

    /// Queues data of a stream. `true`: that was enough for now, and it was not before.
    pub(super) fn push(&self, data: Buffer, pool: &Pool) -> bool {
        let mut inner = self.inner.borrow_mut();
        inner.push(data, pool);
        let full = inner.held >= pool.share().clamp(MIN_HELD, MAX_HELD);
        wake_reader(inner);
        full && !self.full.replace(true)
    }

    /// Queues a datagram. `true`: one was dropped for it.
    pub(super) fn push_datagram(&self, data: Buffer, remote: Option<Target>) -> bool {
        let mut inner = self.inner.borrow_mut();
        let dropped = inner.queue.len() >= MAX_DATAGRAMS && inner.pop().is_some();
        inner.held += data.held();
        inner.queue.push_back((data, remote));
        wake_reader(inner);
        dropped
    }

    /// The next data; `None` at the proper end.
    pub(super) fn poll_pop(&self, cx: &Context<'_>) -> Poll<Result<Option<Piece>, StreamError>> {
        let mut inner = self.inner.borrow_mut();
        if let Some(piece) = inner.pop() {
            return Poll::Ready(Ok(Some(piece)));
        }
        match &inner.end {
            Some(how) => Poll::Ready(how.clone().map(|()| None)),
            None => {
                watch(&mut inner.reader, cx);
                Poll::Pending
            }
        }
    }

    /// Whether the carrier may be read on as far as this session goes, when its queue had been full.
    pub(super) fn has_room(&self) -> bool {
        self.inner.borrow().held <= MIN_HELD / 2
    }

    /// Drops what was queued.
    pub(super) fn clear(&self) {
        let mut inner = self.inner.borrow_mut();
        inner.queue = VecDeque::new();
        inner.held = 0;
    }

    /// Arranges that the task is woken when there is room to send, or the session has ended.
    pub(super) fn watch_writer(&self, cx: &Context<'_>) {
        watch(&mut self.inner.borrow_mut().writer, cx);
    }

    /// Arranges that the task is woken when the session has ended, or something has come.
    pub(super) fn watch_reader(&self, cx: &Context<'_>) {
        watch(&mut self.inner.borrow_mut().reader, cx);
    }

    /// So many bytes have left the carrier's queue.
    pub(super) fn sent(&self, len: usize) {
        self.outgoing.set(self.outgoing.get().saturating_sub(len));
        let writer = self.inner.borrow_mut().writer.take();
        writer.into_iter().for_each(Waker::wake);
    }
}

impl Inner {
    fn push(&mut self, mut data: Buffer, pool: &Pool) {
        if let Some((back, _)) = self.queue.back_mut() {
            if back.spare() >= data.len() {
                back.append(&data);
                return;
            }
            if !back.shares(&data) {
                if self.held + data.held() > COPIED_FROM
                    && data.held() > class_for(data.len()).slab_len()
                    && let Some(copy) = pool.copy(&data)
                {
                    data = copy;
                }
                self.held += data.held();
            }
        } else {
            self.held = data.held();
        }
        self.queue.push_back((data, None));
    }

    fn pop(&mut self) -> Option<Piece> {
        let piece = self.queue.pop_front()?;
        match self.queue.front() {
            Some((next, _)) if next.shares(&piece.0) => {}
            Some(_) => self.held = self.held.saturating_sub(piece.0.held()),
            None => {
                self.held = 0;
                self.queue.shrink_to(4);
            }
        }
        Some(piece)
    }
}

fn wake_reader(mut inner: RefMut<'_, Inner>) {
    let reader = inner.reader.take();
    drop(inner);
    reader.into_iter().for_each(Waker::wake);
}

fn watch(waker: &mut Option<Waker>, cx: &Context<'_>) {
    if !waker.as_ref().is_some_and(|known| known.will_wake(cx.waker())) {
        *waker = Some(cx.waker().clone());
    }
}
