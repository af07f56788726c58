//! The one trait that every carrier implements.

use std::future::{Future, pending};
use std::io::{self, IoSlice, IoSliceMut};
use std::net::IpAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

/// A reliable, ordered byte stream to a server, half-closable in the direction away from us.
///
/// Bytes go from and to the caller's buffers. A layer that must hold some back, because it seals or frames them, holds no
/// more than one record or frame each way, and none while the connection is idle. What `poll_write` took counts as sent:
/// the layer moves what it holds back on every later call, and `poll_flush` waits until all of it has gone.
pub(crate) trait Carrier {
    /// Waits until a read could return something, so that the caller takes a buffer only then. A false alarm is legal.
    fn poll_read_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Reads into `out`. Zero bytes mean the peer has ended its direction properly.
    ///
    /// # Errors
    /// `UnexpectedEof` if the carrier's own framing shows that the end was cut off; otherwise the socket's error.
    fn poll_read(&mut self, cx: &mut Context<'_>, out: &mut [u8]) -> Poll<io::Result<usize>>;

    /// Reads into several buffers, the first one first. A carrier that cannot do that in one call fills the first alone.
    ///
    /// # Errors
    /// As [`Carrier::poll_read`].
    fn poll_read_vectored(
        &mut self,
        cx: &mut Context<'_>,
        out: &mut [IoSliceMut<'_>],
    ) -> Poll<io::Result<usize>> {
        match out.first_mut() {
            Some(first) => self.poll_read(cx, first),
            None => Poll::Ready(Ok(0)),
        }
    }

    /// Waits until a write of a few kilobytes would be taken whole, for a stream that has no memory to spare for what
    /// would be left of it. A carrier that cannot tell is ready.
    fn poll_write_ready(&mut self, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// Writes a prefix of `slices`, taken together, and returns its length (never 0 for a non-empty input).
    fn poll_write(&mut self, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>>;

    /// Takes up to `len` bytes that `make` writes straight to this carrier's own memory, for a layer above that changes bytes
    /// on their way: the two need one copy together. `make` fills what it is given, and changes nothing itself. `None`: this
    /// carrier has no memory of its own, and takes slices alone.
    fn poll_write_made(
        &mut self,
        _cx: &mut Context<'_>,
        _len: usize,
        _make: &mut dyn FnMut(&mut [u8]),
    ) -> Option<Poll<io::Result<usize>>> {
        None
    }

    /// Waits until an abort would not cut off what was written, as far as that can be told.
    fn poll_drained(&mut self, _cx: &mut Context<'_>) -> Poll<()> {
        Poll::Ready(())
    }

    /// Moves what this carrier itself holds back (sealed records, frames) down to the socket. One that holds nothing is
    /// always ready.
    fn poll_flush(&mut self, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// Ends our direction as this carrier does it: FIN on raw TCP, close_notify without FIN on TLS.
    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Ends when the peer has reset the connection, and reads nothing for that. A carrier that cannot tell waits for ever.
    fn reset(&mut self) -> Pin<Box<dyn Future<Output = ()> + '_>> {
        Box::pin(pending())
    }

    /// Ends when the peer has ended its direction or the connection, and reads nothing for that. A carrier that cannot tell
    /// waits for ever.
    fn closed(&mut self) -> Pin<Box<dyn Future<Output = ()> + '_>> {
        Box::pin(pending())
    }

    /// Our own address on the network, where the carrier has one.
    fn local_ip(&self) -> Option<IpAddr> {
        None
    }

    /// Makes dropping this carrier abort it (a RST on TCP), so that the peer cannot take a cut stream for a whole one.
    fn abort(&mut self);
}

/// Implements methods of [`Carrier`] by handing them to a carrier below:
/// `forward_carrier!(self, self.below; poll_flush poll_drained);`
///
/// Whoever wraps a carrier passes on all that it does not do itself: the defaults know nothing of what is below.
macro_rules! forward_carrier {
    ($self:ident, $below:expr; $($method:ident)*) => {
        $(forward_carrier!(@$method $self, $below);)*
    };
    (@poll_read_ready $self:ident, $below:expr) => {
        fn poll_read_ready(&mut $self, cx: &mut std::task::Context<'_>) -> std::task::Poll<std::io::Result<()>> {
            $below.poll_read_ready(cx)
        }
    };
    (@poll_read $self:ident, $below:expr) => {
        fn poll_read(&mut $self, cx: &mut std::task::Context<'_>, out: &mut [u8]) -> std::task::Poll<std::io::Result<usize>> {
            $below.poll_read(cx, out)
        }
    };
    (@poll_read_vectored $self:ident, $below:expr) => {
        fn poll_read_vectored(&mut $self, cx: &mut std::task::Context<'_>, out: &mut [std::io::IoSliceMut<'_>]) -> std::task::Poll<std::io::Result<usize>> {
            $below.poll_read_vectored(cx, out)
        }
    };
    (@poll_write_ready $self:ident, $below:expr) => {
        fn poll_write_ready(&mut $self, cx: &mut std::task::Context<'_>) -> std::task::Poll<std::io::Result<()>> {
            $below.poll_write_ready(cx)
        }
    };
    (@poll_write $self:ident, $below:expr) => {
        fn poll_write(&mut $self, cx: &mut std::task::Context<'_>, slices: &[std::io::IoSlice<'_>]) -> std::task::Poll<std::io::Result<usize>> {
            $below.poll_write(cx, slices)
        }
    };
    (@poll_write_made $self:ident, $below:expr) => {
        fn poll_write_made(&mut $self, cx: &mut std::task::Context<'_>, len: usize, make: &mut dyn FnMut(&mut [u8])) -> Option<std::task::Poll<std::io::Result<usize>>> {
            $below.poll_write_made(cx, len, make)
        }
    };
    (@poll_flush $self:ident, $below:expr) => {
        fn poll_flush(&mut $self, cx: &mut std::task::Context<'_>) -> std::task::Poll<std::io::Result<()>> {
            $below.poll_flush(cx)
        }
    };
    (@poll_drained $self:ident, $below:expr) => {
        fn poll_drained(&mut $self, cx: &mut std::task::Context<'_>) -> std::task::Poll<()> {
            $below.poll_drained(cx)
        }
    };
    (@poll_close $self:ident, $below:expr) => {
        fn poll_close(&mut $self, cx: &mut std::task::Context<'_>) -> std::task::Poll<std::io::Result<()>> {
            $below.poll_close(cx)
        }
    };
    (@reset $self:ident, $below:expr) => {
        fn reset(&mut $self) -> std::pin::Pin<Box<dyn Future<Output = ()> + '_>> {
            $below.reset()
        }
    };
    (@closed $self:ident, $below:expr) => {
        fn closed(&mut $self) -> std::pin::Pin<Box<dyn Future<Output = ()> + '_>> {
            $below.closed()
        }
    };
    (@local_ip $self:ident, $below:expr) => {
        fn local_ip(&$self) -> Option<std::net::IpAddr> {
            $below.local_ip()
        }
    };
    (@abort $self:ident, $below:expr) => {
        fn abort(&mut $self) {
            $below.abort();
        }
    };
}
pub(super) use forward_carrier;

impl<C: Carrier + ?Sized> Carrier for Box<C> {
    forward_carrier!(self, (**self); poll_read_ready poll_read poll_read_vectored poll_write_ready poll_write poll_write_made
        poll_flush poll_drained poll_close reset closed local_ip abort);
}
