//! What a relay moves data between: streams and datagram flows of pooled buffers.

use super::dial::DialError;
use super::ws::FrameError;
use crate::addr::Target;
use crate::buffer::Buffer;
use std::future::{Future, pending};
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

/// Why a stream or datagram flow failed after it was open.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum StreamError {
    /// The peer reset the connection, or the app behind the tun did.
    #[error("connection reset by the peer")]
    Reset,
    /// The peer ended its direction properly, and then refused what we went on to send.
    #[error("the peer has ended and takes no more")]
    Unread,
    /// The carrier closed before a valid response header.
    #[error("the server closed before it answered")]
    Rejected,
    /// The carrier ended inside a record.
    #[error("the stream was cut off inside a record")]
    Truncated,
    /// A record's tag did not verify, or its framing is impossible.
    #[error("a record failed authentication")]
    Forged,
    /// The peer broke the protocol.
    #[error("protocol violation: {0}")]
    Protocol(&'static str),
    /// A deadline passed.
    #[error("timed out: {0}")]
    Timeout(&'static str),
    /// We ended it: stop, close_connection, a limit.
    #[error("closed by this side")]
    Closed,
    /// The set-up of the connection, of which a part was left to the first write, failed.
    #[error("{0}")]
    Setup(Box<DialError>),
    /// The operating system's error.
    #[error("{0}")]
    Io(io::ErrorKind),
}

impl From<io::Error> for StreamError {
    fn from(error: io::Error) -> Self {
        let inner = error.get_ref();
        if let Some(failed) = inner.and_then(|inner| inner.downcast_ref::<DialError>()) {
            return Self::Setup(Box::new(failed.clone()));
        }
        match error.kind() {
            io::ErrorKind::InvalidData => {
                let frame = inner.and_then(|inner| inner.downcast_ref::<FrameError>());
                Self::Protocol(frame.map_or("bytes that the transport does not know", |frame| frame.words()))
            }
            io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionAborted => Self::Reset,
            // Linux says this, and not that the connection was reset, when the peer's FIN had come before its RST.
            io::ErrorKind::BrokenPipe => Self::Unread,
            io::ErrorKind::UnexpectedEof => Self::Truncated,
            io::ErrorKind::TimedOut => Self::Timeout("unacknowledged data"),
            kind => Self::Io(kind),
        }
    }
}

impl StreamError {
    /// What a carrier says that rides on the stream that failed.
    pub(crate) const fn kind(&self) -> io::ErrorKind {
        match self {
            Self::Reset => io::ErrorKind::ConnectionReset,
            Self::Unread => io::ErrorKind::BrokenPipe,
            Self::Rejected | Self::Truncated => io::ErrorKind::UnexpectedEof,
            Self::Timeout(_) => io::ErrorKind::TimedOut,
            Self::Forged | Self::Protocol(_) => io::ErrorKind::InvalidData,
            Self::Io(kind) => *kind,
            Self::Closed | Self::Setup(_) => io::ErrorKind::ConnectionAborted,
        }
    }
}

/// One end of a relayed connection: payload in and out, in pooled buffers, half-closable.
///
/// The methods are polled from one task. After an error every method may return it again. But a peer that takes no more
/// ([`StreamError::Reset`] and [`StreamError::Unread`] where we send) may have answered before: that is still received,
/// and the end of it is `None` only if it is known to be the proper one.
pub(crate) trait Stream {
    /// The next piece of payload; `None` when the peer has ended its direction (and ever after).
    ///
    /// At most `max` bytes are read when the stream reads into a buffer of its own choice: the most that the other end
    /// takes in one piece without a copy. A buffer is taken from the pool only when data is at hand.
    fn poll_recv(&mut self, cx: &mut Context<'_>, max: usize) -> Poll<Result<Option<Buffer>, StreamError>>;

    /// Ends when the peer has reset the connection, and reads nothing for that. A stream that cannot tell waits for ever.
    fn reset(&mut self) -> Pin<Box<dyn Future<Output = ()> + '_>> {
        Box::pin(pending())
    }

    /// Gives up its turn to get memory, if [`Stream::poll_recv`] waits for that: it is not going to be polled for now.
    fn pass_turn(&mut self) {}

    /// Waits until [`Stream::send`] may be called.
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamError>>;

    /// Hands over payload, which may stay queued until [`Stream::poll_flush`]. Called only after `poll_ready`.
    ///
    /// # Errors
    /// As [`Stream::poll_flush`].
    fn send(&mut self, data: Buffer) -> Result<(), StreamError>;

    /// The most payload that [`Stream::send`] takes in one buffer without a copy. May grow as the stream warms up.
    fn send_limit(&self) -> usize;

    /// Moves what is queued to the operating system. With nothing queued, sends what the protocol must say first
    /// (the VMess header) if it has not gone yet.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamError>>;

    /// Ends our direction after everything queued, as the protocol does it (terminating chunk, FIN).
    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamError>>;

    /// Waits until an abort would not cut off what was sent, as far as that can be told.
    fn poll_drained(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.poll_flush(cx).map(drop)
    }

    /// Whether the peer hears of our direction's end as soon as that is finished. Where the protocol has but one end for
    /// both directions, it hears of that when the stream is dropped.
    fn half_closes(&self) -> bool {
        true
    }

    /// Makes dropping this stream visible to the peer as an abort, never as a proper end.
    fn abort(&mut self);

    /// Whether the other end has proved that it understands us: for a VMess stream, its valid response header has come.
    /// A stream without such a proof has nothing to wait for.
    fn answered(&self) -> bool {
        true
    }

    /// How many chunks have gone each way, up and down, on a stream whose nonces are numbered; else zero.
    fn records(&self) -> (u32, u32) {
        (0, 0)
    }

    /// Our own address on the network, where there is one: the stream dies with it.
    fn local_ip(&self) -> Option<IpAddr> {
        None
    }
}

/// One datagram: its payload and the other side's address.
///
/// To the network side that is the destination, from it the source.
#[derive(Debug, Clone)]
pub(crate) struct Datagram {
    /// The payload, never empty.
    pub(crate) data: Buffer,
    /// The remote end: where it goes to, or where it comes from.
    pub(crate) remote: Target,
}

/// A UDP flow of an outbound.
pub(crate) trait Datagrams {
    /// The next datagram from the network; `None` when the flow has ended.
    fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Datagram>, StreamError>>;

    /// Waits until [`Datagrams::send`] may be called without queueing behind a blocked carrier.
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamError>>;

    /// Hands over one datagram. One that the protocol cannot carry (too large) is dropped and counted, not an error.
    ///
    /// # Errors
    /// When the flow is broken.
    fn send(&mut self, datagram: Datagram) -> Result<(), StreamError>;

    /// Moves what is queued to the operating system.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamError>>;

    /// As [`Stream::local_ip`].
    fn local_ip(&self) -> Option<IpAddr> {
        None
    }
}
