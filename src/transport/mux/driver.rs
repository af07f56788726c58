//! The task of a carrier: frames out of the queue into the stream, bytes from the stream to the sessions.

use super::super::queue::class_for;
use super::super::stream::{Stream, StreamError};
use super::{Accepted, Link, Machine, Outgoing, Port};
use crate::addr::{Network, Target};
use crate::buffer::{Buffer, TAILROOM, Turn};
use crate::mux::frame::MAX_STREAM_DATA;
use crate::mux::{Frame, Opening};
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::{Instant, Sleep, sleep_until};

/// How many bytes move each way before the sessions have their turn.
const BUDGET: usize = 128 * 1024;
/// The most that is read at once.
const READ: usize = 64 * 1024;
/// How long what came before a write failed may take to be read.
const REST: Duration = Duration::from_secs(5);
/// Room that sealing needs before a frame: the longest size field.
const SEAL_ROOM: usize = 18;

/// Serves a carrier until it has ended: on its own account when it has been without a session for long enough, or with the
/// peer's end. Every session has ended then. `accept` takes the sessions that the peer opens.
///
/// # Errors
/// How the carrier failed; its sessions have been told.
pub(crate) async fn run(
    link: Rc<Link>,
    mut stream: Box<dyn Stream>,
    mut accept: impl FnMut(Accepted),
) -> Result<(), StreamError> {
    link.set_local_ip(stream.local_ip());
    let mut driver = Driver::new(Rc::clone(&link));
    let result = poll_fn(|cx| driver.poll(cx, &mut *stream, &mut accept)).await;
    match &result {
        Ok(()) => link.fail(&StreamError::Reset),
        Err(error) => {
            stream.abort();
            link.fail(error);
        }
    }
    result
}

struct Driver {
    link: Rc<Link>,
    unflushed: bool,
    /// The peer has ended the carrier.
    over: bool,
    /// We are ending it.
    closing: bool,
    /// How writing failed; what came before that is read yet, until the time is up.
    failed: Option<(StreamError, Pin<Box<Sleep>>)>,
    idle: Option<Pin<Box<Sleep>>>,
    turn: Turn,
    head: Vec<u8>,
}

impl Driver {
    fn new(link: Rc<Link>) -> Self {
        Self {
            link,
            unflushed: false,
            over: false,
            closing: false,
            failed: None,
            idle: None,
            turn: Turn::default(),
            head: Vec::new(),
        }
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut dyn Stream,
        accept: &mut impl FnMut(Accepted),
    ) -> Poll<Result<(), StreamError>> {
        self.link.state.borrow_mut().watch(cx);
        let read = self.read(cx, stream, accept)?;
        let full = self.link.is_full();
        if self.failed.is_some() {
            return self.poll_rest(cx, read);
        }
        let written = match self.write(cx, stream) {
            Ok(written) => written,
            Err(error) => {
                self.link.go_mute(&error);
                self.failed = Some((error, Box::pin(sleep_until(Instant::now() + REST))));
                // Once more, for what has come since.
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
        };
        if full && !self.link.is_full() {
            // What was not read can be now.
            cx.waker().wake_by_ref();
        }
        self.link.answered.set(stream.answered());
        let (up, down) = stream.records();
        if let Machine::Client(client) = &mut self.link.state.borrow_mut().machine {
            client.set_chunks(up.max(down));
        }
        if read >= BUDGET || written >= BUDGET {
            // Comes back after the sessions had their turn; a plain wake-up would come before them.
            let _ = pin!(tokio::task::yield_now()).poll(cx);
            return Poll::Pending;
        }
        self.poll_end(cx, stream)
    }

    /// Ends with the error of the failed write once nothing more is at hand: a peer that takes no more may have answered
    /// before.
    fn poll_rest(&mut self, cx: &mut Context<'_>, read: usize) -> Poll<Result<(), StreamError>> {
        let Some((error, limit)) = &mut self.failed else { return Poll::Pending };
        let waits = limit.as_mut().poll(cx).is_pending() && !self.over;
        if waits && read >= BUDGET {
            let _ = pin!(tokio::task::yield_now()).poll(cx);
            return Poll::Pending;
        }
        if waits && self.link.is_full() { Poll::Pending } else { Poll::Ready(Err(error.clone())) }
    }

    /// Whether the carrier is done with.
    fn poll_end(&mut self, cx: &mut Context<'_>, stream: &mut dyn Stream) -> Poll<Result<(), StreamError>> {
        if self.over {
            // Nothing that is still queued can be answered.
            let _ = stream.poll_finish(cx)?;
            return Poll::Ready(Ok(()));
        }
        if !self.closing {
            let state = self.link.state.borrow();
            let busy = !state.ports.is_empty() || !state.outgoing.is_empty() || self.unflushed;
            let spent = state.machine.is_spent();
            drop(state);
            if busy {
                self.idle = None;
                return Poll::Pending;
            }
            if !spent {
                let limit = self.link.idle_limit();
                let idle = self.idle.get_or_insert_with(|| Box::pin(sleep_until(Instant::now() + limit)));
                ready!(idle.as_mut().poll(cx));
            }
            self.closing = true;
            self.link.state.borrow_mut().ended = Some(StreamError::Closed);
        }
        stream.poll_finish(cx)
    }

    /// Reads until nothing is at hand, a session's queue is full, or the budget is used up; returns how much that was.
    fn read(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut dyn Stream,
        accept: &mut impl FnMut(Accepted),
    ) -> Result<usize, StreamError> {
        let mut opened = Vec::new();
        let mut moved = 0;
        while !self.over && moved < BUDGET {
            if self.link.is_full() {
                stream.pass_turn();
                break;
            }
            match stream.poll_recv(cx, READ)? {
                Poll::Ready(Some(bytes)) => {
                    moved += bytes.len();
                    let taken = self.link.take_in(&bytes, &mut opened);
                    drop(bytes);
                    if self.failed.is_none() {
                        opened.drain(..).for_each(&mut *accept);
                    } else {
                        // They could not be answered.
                        opened.clear();
                    }
                    taken.map_err(|_| StreamError::Protocol("a mux frame is malformed"))?;
                }
                Poll::Ready(None) if self.link.at_boundary() => self.over = true,
                Poll::Ready(None) => return Err(StreamError::Truncated),
                Poll::Pending => break,
            }
        }
        Ok(moved)
    }

    /// Frames and writes what waits, as far as the carrier takes it.
    fn write(&mut self, cx: &mut Context<'_>, stream: &mut dyn Stream) -> Result<usize, StreamError> {
        let mut moved = 0;
        while moved < BUDGET && !self.link.state.borrow().outgoing.is_empty() {
            if stream.poll_ready(cx)?.is_pending() {
                self.turn.pass();
                break;
            }
            match self.poll_frame(cx) {
                Poll::Ready(Some(frame)) => {
                    moved += frame.len();
                    self.unflushed = true;
                    stream.send(frame)?;
                }
                Poll::Ready(None) => {}
                Poll::Pending => break,
            }
        }
        if self.unflushed {
            self.unflushed = stream.poll_flush(cx)?.is_pending();
        }
        Ok(moved)
    }

    /// Makes a frame of the oldest entry; `None` if it needs none. Waits for memory, the entry stays in its place then.
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Buffer>> {
        let next = self.link.state.borrow_mut().pop_outgoing();
        let Some(next) = next else { return Poll::Ready(None) };
        let made = match next {
            Outgoing::Data { port, data, .. } if port.aborted.get() => {
                port.sent(data.len());
                return Poll::Ready(None);
            }
            Outgoing::Data { port, data, remote } => return self.poll_data(cx, port, data, remote),
            Outgoing::Head(port) => match port.take_opening() {
                Some(opening) => {
                    self.poll_control(cx, &Frame::new(port.id, opening.clone(), None)).map_err(|()| {
                        port.give_back(opening);
                        Outgoing::Head(port)
                    })
                }
                None => return Poll::Ready(None),
            },
            // The peer never heard of it.
            Outgoing::End { port, .. } if port.take_opening().is_some() => return Poll::Ready(None),
            Outgoing::End { port, error } => {
                self.poll_control(cx, &Frame::end(port.id, error)).map_err(|()| Outgoing::End { port, error })
            }
            Outgoing::Refusal(id) => {
                let made = self.poll_control(cx, &Frame::end(id, false));
                if made.is_ok() {
                    self.link.state.borrow_mut().refusals -= 1;
                }
                made.map_err(|()| Outgoing::Refusal(id))
            }
        };
        match made {
            Ok(frame) => Poll::Ready(Some(frame)),
            Err(entry) => {
                self.link.state.borrow_mut().put_back(entry);
                Poll::Pending
            }
        }
    }

    /// A frame without data; `Err` while there is no memory for it.
    fn poll_control(&mut self, cx: &mut Context<'_>, frame: &Frame) -> Result<Buffer, ()> {
        self.head.clear();
        frame.encode(&mut self.head);
        match self.link.shard.pool.poll_take(cx, class_for(self.head.len()), &mut self.turn) {
            Poll::Ready(mut buffer) => {
                buffer.append(&self.head);
                Ok(buffer)
            }
            Poll::Pending => Err(()),
        }
    }

    /// A frame of data, in place where that is possible. What is too long for one goes back to the queue's front.
    fn poll_data(
        &mut self,
        cx: &mut Context<'_>,
        port: Rc<Port>,
        mut data: Buffer,
        remote: Option<Target>,
    ) -> Poll<Option<Buffer>> {
        let len = if port.network == Network::Tcp { data.len().min(MAX_STREAM_DATA) } else { data.len() };
        let opening = port.take_opening();
        self.head.clear();
        frame(&port, opening.clone(), remote.as_ref(), len as u16).encode(&mut self.head);
        if len == data.len() && prepend(&mut data, &self.head) {
            port.sent(len);
            return Poll::Ready(Some(data));
        }
        let class = class_for(self.head.len() + len);
        let Poll::Ready(mut buffer) = self.link.shard.pool.poll_take(cx, class, &mut self.turn) else {
            opening.into_iter().for_each(|opening| port.give_back(opening));
            self.link.state.borrow_mut().put_back(Outgoing::Data { port, data, remote });
            return Poll::Pending;
        };
        buffer.append(&self.head);
        buffer.append(data.get(..len).unwrap_or(&data));
        data.advance(len);
        port.sent(len);
        if !data.is_empty() {
            self.link.state.borrow_mut().put_back(Outgoing::Data { port, data, remote });
        }
        Poll::Ready(Some(buffer))
    }
}

/// The frame of a session's data: what opens it if that has not gone, else more of it. A first datagram goes where the
/// session does, so its address is the opening's.
fn frame(port: &Port, opening: Option<Opening>, remote: Option<&Target>, len: u16) -> Frame {
    match opening {
        Some(mut opening) => {
            if let Some(remote) = remote {
                opening.target = Some(remote.clone());
            }
            Frame::new(port.id, opening, Some(len))
        }
        None => Frame::keep(port.id, remote.cloned(), len),
    }
}

/// Puts a head in front of data where it lies; `false` if that cannot be done.
fn prepend(data: &mut Buffer, head: &[u8]) -> bool {
    let Some((slab, range)) = data.parts_mut() else { return false };
    let Some(start) = range.start.checked_sub(head.len()).filter(|start| *start >= SEAL_ROOM) else {
        return false;
    };
    if slab.len() - range.end < TAILROOM {
        return false;
    }
    slab[start..range.start].copy_from_slice(head);
    data.set_range(start..range.end);
    true
}
