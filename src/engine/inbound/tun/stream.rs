//! A TCP flow of the stack as a stream that can be relayed.

use super::{Inner, tcp};
use crate::buffer::{Buffer, Class};
use crate::transport::{Stream, StreamError};
use crate::tun::stack::{FlowId, Received};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

/// A flow whose handshake is complete. Dropping it gives the flow back to the stack, which closes it properly.
pub(super) struct TunStream {
    inner: Rc<Inner>,
    flow: FlowId,
    /// Data was taken, which opens the window: to be told when there is no more at hand.
    took: bool,
    input: Input,
}

/// How the app's direction stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Input {
    Open,
    /// FIN has come.
    Ended,
    /// RST has come, or was sent.
    Reset,
}

impl TunStream {
    /// Takes a flow over.
    pub(super) fn new(inner: Rc<Inner>, flow: FlowId) -> Self {
        Self { inner, flow, took: false, input: Input::Open }
    }

    fn check(&self) -> Result<(), StreamError> {
        match self.input {
            Input::Reset => Err(StreamError::Reset),
            _ if self.inner.is_closed() => Err(StreamError::Closed),
            _ => Ok(()),
        }
    }
}

impl Stream for TunStream {
    fn poll_recv(&mut self, cx: &mut Context<'_>, max: usize) -> Poll<Result<Option<Buffer>, StreamError>> {
        self.check()?;
        let _ = max;
        let received = self.inner.stack.borrow_mut().recv(self.flow);
        match received {
            Received::Data(data) => {
                self.took = true;
                Poll::Ready(Ok(Some(data)))
            }
            Received::Empty => {
                if std::mem::take(&mut self.took) {
                    self.inner.transmit_flow(self.flow);
                }
                self.inner.slots.borrow_mut().wait(self.flow, cx);
                Poll::Pending
            }
            Received::Fin => {
                self.input = Input::Ended;
                Poll::Ready(Ok(None))
            }
            Received::Reset => {
                self.input = Input::Reset;
                Poll::Ready(Err(StreamError::Reset))
            }
        }
    }

    fn reset(&mut self) -> Pin<Box<dyn Future<Output = ()> + '_>> {
        Box::pin(tcp::gone(&self.inner, self.flow))
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamError>> {
        self.check()?;
        let room = {
            let mut stack = self.inner.stack.borrow_mut();
            let room = stack.send_room(self.flow);
            // With the app's direction at its end nobody asks for input any more: a reset is found here.
            if room == 0 && self.input == Input::Ended && matches!(stack.recv(self.flow), Received::Reset) {
                self.input = Input::Reset;
                return Poll::Ready(Err(StreamError::Reset));
            }
            room
        };
        if room == 0 {
            self.inner.slots.borrow_mut().wait(self.flow, cx);
            return Poll::Pending;
        }
        Poll::Ready(Ok(()))
    }

    fn send(&mut self, data: Buffer) -> Result<(), StreamError> {
        self.check()?;
        self.inner.stack.borrow_mut().send(self.flow, data);
        Ok(())
    }

    fn send_limit(&self) -> usize {
        Class::Large.capacity()
    }

    /// Writes to the device what the app's window lets pass. The rest goes when ACKs come, so this never waits.
    fn poll_flush(&mut self, _: &mut Context<'_>) -> Poll<Result<(), StreamError>> {
        self.check()?;
        self.took = false;
        self.inner.transmit_flow(self.flow);
        Poll::Ready(Ok(()))
    }

    fn poll_finish(&mut self, _: &mut Context<'_>) -> Poll<Result<(), StreamError>> {
        self.check()?;
        self.inner.stack.borrow_mut().finish(self.flow);
        self.inner.transmit_flow(self.flow);
        Poll::Ready(Ok(()))
    }

    fn poll_drained(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.inner.slots.borrow_mut().wait(self.flow, cx);
        let gone = self.inner.is_closed() || self.input == Input::Reset;
        if gone || self.inner.stack.borrow().all_acked(self.flow) { Poll::Ready(()) } else { Poll::Pending }
    }

    fn abort(&mut self) {
        if self.input != Input::Reset {
            self.input = Input::Reset;
            self.inner.stack.borrow_mut().abort(self.flow);
            self.inner.transmit();
        }
    }
}

impl Drop for TunStream {
    fn drop(&mut self) {
        let waker = self.inner.slots.borrow_mut().take_waker(self.flow);
        drop(waker);
        self.inner.stack.borrow_mut().release(self.flow);
        self.inner.transmit_flow(self.flow);
    }
}
