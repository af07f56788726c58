//! A connected socket as a carrier, of whichever kind: what TCP and Unix domain sockets have in common.

use super::Carrier;
use std::future::{Future, pending};
use std::io::{self, IoSlice, IoSliceMut};
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf, Ready};

/// A connected stream socket of the runtime's.
pub(crate) trait Socket: AsyncRead + AsyncWrite + AsFd + Unpin + 'static {
    /// Waits until there is something to read, or the end.
    fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Waits until the system takes something.
    fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Reads what is at hand into several buffers.
    ///
    /// # Errors
    /// `WouldBlock` if nothing is at hand.
    fn try_read_vectored(&self, out: &mut [IoSliceMut<'_>]) -> io::Result<usize>;

    /// Does something with the socket; clears its readiness if that says `WouldBlock`.
    ///
    /// # Errors
    /// What `io` says.
    fn try_io<R>(&self, interest: Interest, io: impl FnOnce() -> io::Result<R>) -> io::Result<R>;

    /// Waits for one of the events of `interest`.
    fn ready(&self, interest: Interest) -> impl Future<Output = io::Result<Ready>>;

    /// As [`Carrier::poll_drained`].
    fn poll_drained(&self, _cx: &mut Context<'_>) -> Poll<()> {
        Poll::Ready(())
    }

    /// As [`Carrier::local_ip`].
    fn local_ip(&self) -> Option<IpAddr> {
        None
    }

    /// As [`Carrier::abort`].
    fn abort_on_drop(&self);
}

/// Implements [`Socket`] for a type of tokio's, which have all of this without a trait of theirs; the second part is what
/// its kind has of its own.
macro_rules! forward_socket {
    ($socket:ty { $($own:item)* }) => {
        impl Socket for $socket {
            fn poll_read_ready(&self, cx: &mut std::task::Context<'_>) -> std::task::Poll<std::io::Result<()>> {
                <$socket>::poll_read_ready(self, cx)
            }

            fn poll_write_ready(&self, cx: &mut std::task::Context<'_>) -> std::task::Poll<std::io::Result<()>> {
                <$socket>::poll_write_ready(self, cx)
            }

            fn try_read_vectored(&self, out: &mut [std::io::IoSliceMut<'_>]) -> std::io::Result<usize> {
                <$socket>::try_read_vectored(self, out)
            }

            fn try_io<R>(
                &self,
                interest: tokio::io::Interest,
                io: impl FnOnce() -> std::io::Result<R>,
            ) -> std::io::Result<R> {
                <$socket>::try_io(self, interest, io)
            }

            fn ready(
                &self,
                interest: tokio::io::Interest,
            ) -> impl Future<Output = std::io::Result<tokio::io::Ready>> {
                <$socket>::ready(self, interest)
            }

            $($own)*
        }
    };
}
pub(super) use forward_socket;

/// A connected socket.
pub(crate) struct SocketCarrier<S> {
    socket: S,
}

impl<S> SocketCarrier<S> {
    /// Wraps a connected socket.
    pub(crate) const fn new(socket: S) -> Self {
        Self { socket }
    }
}

impl<S: Socket> Carrier for SocketCarrier<S> {
    fn poll_read_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.socket.poll_read_ready(cx)
    }

    fn poll_read(&mut self, cx: &mut Context<'_>, out: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut out = ReadBuf::new(out);
        ready!(Pin::new(&mut self.socket).poll_read(cx, &mut out))?;
        Poll::Ready(Ok(out.filled().len()))
    }

    fn poll_read_vectored(
        &mut self,
        cx: &mut Context<'_>,
        out: &mut [IoSliceMut<'_>],
    ) -> Poll<io::Result<usize>> {
        let room: usize = out.iter().map(|slice| slice.len()).sum();
        loop {
            ready!(self.socket.poll_read_ready(cx))?;
            match self.socket.try_read_vectored(out) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Ok(n) if 0 < n && n < room => {
                    // The socket is drained: clear its readiness without asking the system again. The selectors that
                    // tokio uses here are edge-triggered, so what comes later raises it anew.
                    let drained = || Err::<(), _>(io::ErrorKind::WouldBlock.into());
                    let _ = self.socket.try_io(Interest::READABLE, drained);
                    return Poll::Ready(Ok(n));
                }
                result => return Poll::Ready(result),
            }
        }
    }

    fn poll_write_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        poll_writable(&self.socket, cx)
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.socket.poll_write_ready(cx))?;
            match self.socket.try_io(Interest::WRITABLE, || send(&self.socket, slices)) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return Poll::Ready(result),
            }
        }
    }

    fn poll_drained(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.socket.poll_drained(cx)
    }

    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }

    fn reset(&mut self) -> Pin<Box<dyn Future<Output = ()> + '_>> {
        Box::pin(reset(&self.socket))
    }

    fn closed(&mut self) -> Pin<Box<dyn Future<Output = ()> + '_>> {
        Box::pin(closed(&self.socket))
    }

    fn local_ip(&self) -> Option<IpAddr> {
        self.socket.local_ip()
    }

    fn abort(&mut self) {
        self.socket.abort_on_drop();
    }
}

/// Waits until a socket takes a few kilobytes.
pub(super) fn poll_writable(socket: &impl Socket, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
    loop {
        ready!(socket.poll_write_ready(cx))?;
        // What the runtime knows is as old as the last write that was not taken.
        match socket.try_io(Interest::WRITABLE, || ask_writable(socket)) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            result => return Poll::Ready(result),
        }
    }
}

/// Ends when a socket's peer has reset the connection, whatever is still to be read from it.
pub(crate) async fn reset(socket: &impl Socket) {
    if socket.ready(Interest::ERROR).await.is_err() {
        // The runtime is ending, and the task with it.
        pending::<()>().await;
    }
}

/// Asks the system whether a socket takes more; `WouldBlock` if it does not.
fn ask_writable(socket: &impl Socket) -> io::Result<()> {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let mut asked = [PollFd::new(socket, PollFlags::OUT)];
    let ready = poll(&mut asked, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }))?;
    if ready == 0 { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
}

/// Ends when a socket's peer has ended its direction, and reads nothing.
async fn closed(socket: &impl Socket) {
    while let Ok(ready) = socket.ready(Interest::READABLE).await {
        if ready.is_read_closed() {
            return;
        }
        // What has come is left where it is; what comes later wakes us again, until the window is full.
        let _ = socket.try_io(Interest::READABLE, || Err::<(), _>(io::ErrorKind::WouldBlock.into()));
    }
}

/// Writes to a socket. Not by `writev`: that raises SIGPIPE when the peer is gone, which ends a host that leaves the
/// signal alone, as C programs do. Apple's sockets have it off from the start (`SO_NOSIGPIPE`, by socket2).
fn send(socket: &impl Socket, slices: &[IoSlice<'_>]) -> io::Result<usize> {
    #[cfg(not(target_vendor = "apple"))]
    let flags = rustix::net::SendFlags::NOSIGNAL;
    #[cfg(target_vendor = "apple")]
    let flags = rustix::net::SendFlags::empty();
    match rustix::net::sendmsg(socket, slices, &mut rustix::net::SendAncillaryBuffer::default(), flags) {
        // A connect that waited for its first payload (TCP Fast Open) goes on without it.
        Err(rustix::io::Errno::INPROGRESS) => Err(io::ErrorKind::WouldBlock.into()),
        sent => Ok(sent?),
    }
}
