//! One stream of a connection as a carrier.

use super::framing::Framing;
use super::hub::Slot;
use super::receiving::{Head, Receiving};
use super::sending::Sending;
use crate::transport::Carrier;
use std::future::{Future, pending};
use std::io::{self, IoSlice};
use std::net::IpAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

/// One stream. An idle one holds no buffer; what has come and not been read holds its window closed.
pub(super) struct StreamCarrier<F, H> {
    // Dropped in this order: the slot lets go of the stream before the stream's own handles go.
    slot: Slot,
    aborted: bool,
    sending: Sending<F>,
    receiving: Receiving<F, H>,
    local_ip: Option<IpAddr>,
}

impl<F: Framing, H: Head> StreamCarrier<F, H> {
    /// Puts both directions together.
    pub(super) const fn new(
        slot: Slot,
        sending: Sending<F>,
        receiving: Receiving<F, H>,
        local_ip: Option<IpAddr>,
    ) -> Self {
        Self { slot, aborted: false, sending, receiving, local_ip }
    }
}

impl<F: Framing, H: Head> Carrier for StreamCarrier<F, H> {
    fn poll_read_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.receiving.poll_ready(cx, &mut self.slot)
    }

    fn poll_read(&mut self, cx: &mut Context<'_>, out: &mut [u8]) -> Poll<io::Result<usize>> {
        self.receiving.poll_read(cx, &mut self.slot, out)
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        self.sending.poll_write(cx, slices)
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.sending.poll_flush(cx)
    }

    fn poll_drained(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.sending.poll_flush(cx).map(drop)
    }

    fn poll_close(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.sending.end())
    }

    fn reset(&mut self) -> Pin<Box<dyn Future<Output = ()> + '_>> {
        Box::pin(async {
            self.sending.reset().await;
            if self.sending.is_ended() {
                // Both directions may have ended properly.
                pending::<()>().await;
            }
        })
    }

    fn local_ip(&self) -> Option<IpAddr> {
        self.local_ip
    }

    fn abort(&mut self) {
        self.aborted = true;
        self.sending.abort();
    }
}

impl<F, H> Drop for StreamCarrier<F, H> {
    fn drop(&mut self) {
        // The protocol above has said its end before this one's came: mostly they are a packet apart.
        if !self.aborted
            && self.sending.is_ended()
            && let Some(body) = self.receiving.take_rest()
        {
            self.slot.leave(body);
        }
    }
}
