//! A conversation as a carrier.

use super::conversation::{Loss, Read};
use super::hub::Hub;
use crate::transport::Carrier;
use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::io::{self, IoSlice};
use std::net::IpAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

/// One conversation. Dropping it closes that: what was written is still sent.
pub(super) struct KcpCarrier {
    hub: Rc<RefCell<Hub>>,
    id: u64,
    local: Option<IpAddr>,
    aborts: bool,
}

impl KcpCarrier {
    /// The carrier of a hub's conversation.
    pub(super) const fn new(hub: Rc<RefCell<Hub>>, id: u64, local: Option<IpAddr>) -> Self {
        Self { hub, id, local, aborts: false }
    }

    fn poll_room(&self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut hub = self.hub.borrow_mut();
        let room = ready!(hub.poll_writable(self.id, cx));
        Poll::Ready(room.ok_or_else(|| error(hub.broken(self.id))))
    }
}

impl Carrier for KcpCarrier {
    fn poll_read_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.hub.borrow_mut().poll_readable(self.id, cx).map(Ok)
    }

    fn poll_read(&mut self, cx: &mut Context<'_>, out: &mut [u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(match ready!(self.hub.borrow_mut().poll_read(self.id, cx, out)) {
            Read::Bytes(n) => Ok(n),
            Read::End => Ok(0),
            end => Err(error(end)),
        })
    }

    fn poll_write_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_room(cx).map_ok(drop)
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let room = ready!(self.poll_room(cx))?;
        let mut left = room;
        let pieces = slices.iter().map_while(|slice| {
            let n = left.min(slice.len());
            left -= n;
            slice.get(..n).filter(|piece| !piece.is_empty() || slice.is_empty())
        });
        self.hub.borrow_mut().write(self.id, pieces);
        let all = slices.iter().map(|slice| slice.len()).sum::<usize>();
        Poll::Ready(Ok(all.min(room)))
    }

    fn poll_drained(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.hub.borrow_mut().poll_drained(self.id, cx)
    }

    fn poll_close(&mut self, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // There is no half-close: the end is what the protocol above says, and what dropping this says.
        Poll::Ready(Ok(()))
    }

    fn reset(&mut self) -> Pin<Box<dyn Future<Output = ()> + '_>> {
        Box::pin(poll_fn(|cx| self.hub.borrow_mut().poll_over(self.id, cx, true)))
    }

    fn closed(&mut self) -> Pin<Box<dyn Future<Output = ()> + '_>> {
        Box::pin(poll_fn(|cx| self.hub.borrow_mut().poll_over(self.id, cx, false)))
    }

    fn local_ip(&self) -> Option<IpAddr> {
        self.local
    }

    fn abort(&mut self) {
        self.aborts = true;
    }
}

impl Drop for KcpCarrier {
    fn drop(&mut self) {
        self.hub.borrow_mut().leave(self.id, self.aborts);
    }
}

/// What a conversation that has not ended properly says.
fn error(end: Read) -> io::Error {
    match end {
        Read::Lost(Loss::Silent) => io::Error::new(io::ErrorKind::TimedOut, "the peer has gone silent"),
        Read::Lost(Loss::Refused) => io::ErrorKind::ConnectionRefused.into(),
        Read::Lost(Loss::Closed) => io::Error::new(io::ErrorKind::ConnectionAborted, "the socket is closed"),
        _ => io::Error::new(io::ErrorKind::UnexpectedEof, "the conversation was cut off"),
    }
}
