//! An open WebSocket as a carrier.

use super::super::Carrier;
use super::super::behind::Behind;
use super::super::carrier::forward_carrier;
use super::deframe::{Deframer, End, Role};
use super::doubt::Doubt;
use super::frame::{FrameError, Head, MAX_HEAD, Mask, Opcode};
use super::framer::{Framer, mask_key};
use crate::engine::Shard;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::{Instant, Sleep, sleep};

/// The payload of a close frame that tells of no fault.
const CLOSE: [u8; 2] = 1000_u16.to_be_bytes();

/// An open WebSocket.
///
/// Its direction away from us has no end of its own that every peer bears: a close frame makes V2Ray and its like drop what
/// is still on its way to us. So a client's close frame waits for the end of what it receives, and a server lets the
/// carrier below end, and answers a close frame only.
pub(crate) struct WsCarrier<C> {
    carrier: Behind<C>,
    shard: Rc<Shard>,
    role: Role,
    deframer: Deframer,
    framer: Framer,
    /// What is left of a control frame under way.
    control: Vec<u8>,
    heartbeat: Option<Box<Heartbeat>>,
    /// Set while payload waits for a client to show that it reads on.
    doubt: Option<Box<Doubt>>,
    /// Whether our direction has ended.
    finished: bool,
    /// Whether the carrier below has ended, properly, without a close frame.
    bare_end: bool,
    /// Whether our close frame has been made.
    farewell: bool,
}

/// When the next ping is due.
struct Heartbeat {
    period: Duration,
    timer: Pin<Box<Sleep>>,
    /// Whether something was sent since the timer was set.
    moved: bool,
}

impl Heartbeat {
    /// Whether nothing has been sent for a whole period; registers the task to be woken at the end of the next one.
    fn is_due(&mut self, cx: &mut Context<'_>) -> bool {
        let mut due = false;
        while self.timer.as_mut().poll(cx).is_ready() {
            due = !std::mem::take(&mut self.moved);
            self.timer.as_mut().reset(Instant::now() + self.period);
        }
        due
    }
}

impl<C: Carrier> WsCarrier<C> {
    /// A client's end, whose upgrade is over.
    pub(super) fn client(carrier: Behind<C>, shard: Rc<Shard>, heartbeat: Option<Duration>) -> Self {
        let heartbeat = heartbeat
            .map(|period| Box::new(Heartbeat { period, timer: Box::pin(sleep(period)), moved: false }));
        Self { heartbeat, ..Self::new(carrier, shard, Role::Client) }
    }

    /// A server's end, whose upgrade is over. In `doubt` it waits for a sign of the client before it sends payload.
    pub(super) fn server(carrier: Behind<C>, shard: Rc<Shard>, doubt: bool) -> Self {
        let doubt = doubt.then(Box::default);
        Self { doubt, ..Self::new(carrier, shard, Role::Server) }
    }

    fn new(carrier: Behind<C>, shard: Rc<Shard>, role: Role) -> Self {
        Self {
            carrier,
            shard,
            role,
            deframer: Deframer::new(role),
            framer: Framer::new(role),
            control: Vec::new(),
            heartbeat: None,
            doubt: None,
            finished: false,
            bare_end: false,
            farewell: false,
        }
    }

    /// Makes a control frame the one under way.
    fn begin_control(&mut self, opcode: Opcode, payload: &[u8]) {
        let key = (self.role == Role::Client).then(|| mask_key(&self.shard));
        let mut head = [0; MAX_HEAD];
        let n = Head::whole(opcode, payload.len() as u64, key).write(&mut head);
        self.control.extend_from_slice(head.get(..n).unwrap_or_default());
        self.control.extend_from_slice(payload);
        let masked = self.control.get_mut(n..).unwrap_or_default();
        Mask::new(key.unwrap_or_default()).apply(masked);
    }

    /// Writes the control frame under way and the answer to the last ping. Inside a data frame they wait for its end.
    fn poll_control(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.framer.is_inside() && (self.deframer.has_ping() || !self.control.is_empty()) {
            if self.control.is_empty()
                && let Some(ping) = self.deframer.take_ping()
            {
                self.begin_control(Opcode::Pong, &ping);
            }
            let n = ready!(self.carrier.poll_write(cx, &[IoSlice::new(&self.control)]))?;
            if n == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.control.drain(..n);
            if self.control.is_empty() {
                self.control = Vec::new();
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Waits until the client has shown that it reads on, or has had its time; asks it to by a ping.
    fn poll_doubt(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(doubt) = &mut self.doubt else { return Poll::Ready(Ok(())) };
        if doubt.asks() {
            doubt.asked();
            self.begin_control(Opcode::Ping, &[]);
            ready!(self.poll_control(cx))?;
            let _ = self.carrier.poll_flush(cx)?;
        }
        if let Some(doubt) = &mut self.doubt {
            ready!(doubt.poll_over(cx));
        }
        self.doubt = None;
        Poll::Ready(Ok(()))
    }

    /// The shard that it lives on.
    #[cfg(test)]
    pub(super) fn shard_of(&self) -> &Shard {
        &self.shard
    }

    /// What is to be sent although the caller writes nothing. It fails silently: the next write tells.
    fn keep_up(&mut self, cx: &mut Context<'_>) {
        let pings = self.heartbeat.as_mut().is_some_and(|heartbeat| heartbeat.is_due(cx));
        if pings && self.control.is_empty() && !self.framer.is_inside() && !self.farewell {
            self.begin_control(Opcode::Ping, &[]);
        }
        if (self.deframer.has_ping() || !self.control.is_empty()) && self.poll_control(cx).is_ready() {
            let _ = self.carrier.poll_flush(cx);
        }
    }

    /// Ends our direction for good; a close frame is answered first.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.framer.is_inside() {
            return Poll::Ready(Err(io::Error::other("closed inside a frame")));
        }
        ready!(self.poll_control(cx))?;
        if self.deframer.end().is_some() && !std::mem::replace(&mut self.farewell, true) {
            self.begin_control(Opcode::Close, &CLOSE);
            ready!(self.poll_control(cx))?;
        }
        ready!(self.carrier.poll_flush(cx))?;
        self.carrier.poll_close(cx)
    }

    /// What reading returns once the peer's direction is over.
    fn over(&mut self, cx: &mut Context<'_>, end: End) -> io::Result<usize> {
        match end {
            End::Closed => {
                if self.finished && self.role == Role::Client {
                    // As far as the carrier takes it: dropping it does the rest.
                    let _ = self.poll_end(cx);
                }
                Ok(0)
            }
            End::Failed(error @ FrameError::ClosedWith(_)) => {
                Err(io::Error::new(io::ErrorKind::UnexpectedEof, error))
            }
            End::Failed(error) => Err(io::Error::new(io::ErrorKind::InvalidData, error)),
        }
    }
}

impl<C: Carrier> Carrier for WsCarrier<C> {
    fn poll_read_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.keep_up(cx);
        if self.deframer.end().is_some() {
            return Poll::Ready(Ok(()));
        }
        self.carrier.poll_read_ready(cx)
    }

    fn poll_read(&mut self, cx: &mut Context<'_>, out: &mut [u8]) -> Poll<io::Result<usize>> {
        while !out.is_empty() {
            if let Some(end) = self.deframer.end() {
                return Poll::Ready(self.over(cx, end));
            }
            let n = ready!(self.carrier.poll_read(cx, out))?;
            if let Some(doubt) = self.doubt.take() {
                doubt.settle();
            }
            if n == 0 {
                // Peers that end without a close frame are many, our own server among them.
                if !self.deframer.is_between_messages() {
                    return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
                }
                self.bare_end = true;
                return Poll::Ready(self.over(cx, End::Closed));
            }
            let payload = self.deframer.open(out.get_mut(..n).unwrap_or_default());
            self.keep_up(cx);
            if payload > 0 {
                return Poll::Ready(Ok(payload));
            }
        }
        Poll::Ready(Ok(0))
    }

    fn poll_write_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_doubt(cx))?;
        ready!(self.poll_control(cx))?;
        self.carrier.poll_write_ready(cx)
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        ready!(self.poll_doubt(cx))?;
        ready!(self.poll_control(cx))?;
        if let Some(heartbeat) = &mut self.heartbeat {
            heartbeat.moved = true;
        }
        self.framer.poll_write(cx, &mut self.carrier, slices, &self.shard)
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_control(cx))?;
        self.carrier.poll_flush(cx)
    }

    fn poll_drained(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        // What cannot be sent any more need not be waited for.
        let _ = ready!(self.poll_control(cx));
        self.carrier.poll_drained(cx)
    }

    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.finished = true;
        if self.role == Role::Client && !self.bare_end && self.deframer.end().is_none() {
            return self.poll_flush(cx);
        }
        self.poll_end(cx)
    }

    forward_carrier!(self, self.carrier; reset closed local_ip abort);
}
