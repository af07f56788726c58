//! Two streams that are each other's other end, in memory.

use crate::buffer::{Buffer, Class, Pool};
use crate::transport::{Stream, StreamError};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

/// Bytes that one direction holds.
const ROOM: usize = 64 * 1024;

#[derive(Default)]
struct Way {
    bytes: VecDeque<u8>,
    ended: bool,
    reset: bool,
    deaf: bool,
    wakers: Vec<Waker>,
}

impl Way {
    fn wake(&mut self) {
        self.wakers.drain(..).for_each(Waker::wake);
    }

    fn wait<T>(&mut self, cx: &Context<'_>) -> Poll<T> {
        self.wakers.push(cx.waker().clone());
        Poll::Pending
    }
}

/// One end.
pub(crate) struct Pipe {
    inward: Rc<RefCell<Way>>,
    outward: Rc<RefCell<Way>>,
    pool: Pool,
    /// The most bytes that one read returns.
    pub(crate) cut: usize,
}

impl Pipe {
    /// Both ends; each holds 64 KiB for the other one.
    pub(crate) fn pair(pool: &Pool) -> (Self, Self) {
        let (a, b) = (Rc::<RefCell<Way>>::default(), Rc::<RefCell<Way>>::default());
        let end = |inward: &Rc<_>, outward: &Rc<_>| Self {
            inward: Rc::clone(inward),
            outward: Rc::clone(outward),
            pool: pool.clone(),
            cut: usize::MAX,
        };
        (end(&a, &b), end(&b, &a))
    }

    /// The same end once more, to abort it from elsewhere.
    pub(crate) fn twin(&self) -> Twin {
        Twin([Rc::clone(&self.inward), Rc::clone(&self.outward)])
    }
}

impl Stream for Pipe {
    fn poll_recv(&mut self, cx: &mut Context<'_>, _max: usize) -> Poll<Result<Option<Buffer>, StreamError>> {
        let mut way = self.inward.borrow_mut();
        if way.reset {
            return Poll::Ready(Err(StreamError::Reset));
        }
        if way.bytes.is_empty() {
            return if way.ended { Poll::Ready(Ok(None)) } else { way.wait(cx) };
        }
        let mut buffer = self.pool.take(Class::Large).expect("memory");
        let len = way.bytes.len().min(self.cut).min(buffer.spare());
        let bytes: Vec<u8> = way.bytes.drain(..len).collect();
        buffer.append(&bytes);
        way.wake();
        Poll::Ready(Ok(Some(buffer)))
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamError>> {
        let mut way = self.outward.borrow_mut();
        if way.reset || way.deaf {
            return Poll::Ready(Err(StreamError::Reset));
        }
        if way.bytes.len() >= ROOM { way.wait(cx) } else { Poll::Ready(Ok(())) }
    }

    fn send(&mut self, data: Buffer) -> Result<(), StreamError> {
        let mut way = self.outward.borrow_mut();
        way.bytes.extend(data.iter());
        way.wake();
        Ok(())
    }

    fn send_limit(&self) -> usize {
        usize::MAX
    }

    fn poll_flush(&mut self, _: &mut Context<'_>) -> Poll<Result<(), StreamError>> {
        Poll::Ready(Ok(()))
    }

    fn poll_finish(&mut self, _: &mut Context<'_>) -> Poll<Result<(), StreamError>> {
        let mut way = self.outward.borrow_mut();
        way.ended = true;
        way.wake();
        Poll::Ready(Ok(()))
    }

    fn abort(&mut self) {
        self.twin().abort();
    }
}

/// Aborts an end.
pub(crate) struct Twin([Rc<RefCell<Way>>; 2]);

impl Twin {
    /// Both sides see a reset.
    pub(crate) fn abort(&self) {
        for way in &self.0 {
            let mut way = way.borrow_mut();
            way.reset = true;
            way.wake();
        }
    }
}

impl Twin {
    /// What this end sends from here on fails; what came, and comes, can be read.
    pub(crate) fn deafen(&self) {
        let [_, outward] = &self.0;
        let mut way = outward.borrow_mut();
        way.deaf = true;
        way.wake();
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        let mut way = self.outward.borrow_mut();
        way.ended = true;
        way.wake();
    }
}
