//! A client's end: it knows what a server's behaviour proves, and when its carrier may be closed.

use super::super::{Carrier, Stream, StreamError};
use super::closing::Closing;
use super::{Core, Cut, End};
use crate::buffer::Buffer;
use crate::engine::Shard;
use crate::error::Error;
use crate::vmess::client::{Connection, Downlink};
use crate::vmess::command::SwitchAccount;
use std::net::IpAddr;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

/// Who is told what a server's behaviour proves, and remembers it for the server's later flows.
pub(crate) trait Witness {
    /// A valid response header has come.
    fn answered(&self);

    /// The set-up of the carrier, as far as it was left to the first write, failed.
    fn unreachable(&self, _error: &Error) {}

    /// The carrier closed before a valid response header.
    fn rejected(&self);

    /// The carrier of a flow that had been answered died because nothing comes back from the server any more.
    fn lost(&self);

    /// The server has sent a terminating chunk on a TCP stream.
    fn terminated(&self);

    /// Whether it ever has: such a server sends one on every stream that ends properly, others never do.
    fn terminates(&self) -> bool;

    /// The server's answer offers another port and account, for later connections. Comes right after [`Witness::answered`].
    fn offered(&self, _account: SwitchAccount) {}
}

/// What a client's streams and datagram flows share.
pub(crate) struct Sealed<C> {
    core: Core<C, Downlink>,
    pub(super) witness: Rc<dyn Witness>,
    closing: Closing,
    /// Whether no payload has come since the last of ours.
    unreplied: bool,
    answered: bool,
    /// Whether an answer is still received from a carrier that takes no more.
    drains: bool,
    /// Why nothing can be sent any more, when that is all.
    severed: Option<StreamError>,
}

impl<C: Carrier> Sealed<C> {
    /// Joins a connected carrier and a new connection, whose records hold pieces of a stream or one datagram each.
    pub(super) fn new(
        carrier: C,
        shard: Rc<Shard>,
        connection: Connection,
        witness: Rc<dyn Witness>,
        cut: Cut,
    ) -> Self {
        let Connection { header, uplink, downlink } = connection;
        let core = Core::new(carrier, shard, header, uplink, downlink, cut);
        Self {
            core,
            witness,
            closing: Closing::Open,
            unreplied: true,
            answered: false,
            drains: cut == Cut::Stream,
            severed: None,
        }
    }

    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamError>> {
        self.check_sending()?;
        let result = ready!(self.core.poll_finish(cx));
        if result.is_ok() {
            self.closing.begin(self.unreplied);
            self.close_carrier(cx, false);
        }
        Poll::Ready(result.map_err(|error| self.fail_sending(error)))
    }

    /// Ends the carrier's direction when that is due. `moved`: payload has just come.
    fn close_carrier(&mut self, cx: &mut Context<'_>, moved: bool) {
        // A carrier that is past closing says so when it is read.
        if self.closing.is_due(cx, &self.core.opening, moved) && self.core.carrier.poll_close(cx).is_ready() {
            self.closing = Closing::Closed;
        }
    }

    /// Judges the end of a stream: without the terminating chunk of a server that sends them it was cut between two
    /// records. So it was, perhaps, by the reset that a write has found.
    fn check_terminator(&mut self) -> Result<(), StreamError> {
        if self.core.opening.is_terminated() {
            self.witness.terminated();
        } else if self.core.opening.lacks_terminator() && self.witness.terminates() {
            return Err(self.fail(StreamError::Truncated));
        } else if let Some(error) = self.severed.clone().filter(|error| *error != StreamError::Unread) {
            return Err(self.fail(error));
        }
        Ok(())
    }
}

impl<C: Carrier> End for Sealed<C> {
    type Carrier = C;
    type Opener = Downlink;

    fn core(&self) -> &Core<C, Downlink> {
        &self.core
    }

    fn core_mut(&mut self) -> &mut Core<C, Downlink> {
        &mut self.core
    }

    fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Buffer>, StreamError>> {
        self.core.check()?;
        let result = self.core.poll_next(cx);
        if !self.answered && self.core.opening.answered() {
            self.answered = true;
            self.witness.answered();
            if let Some(account) = self.core.opening.take_command() {
                self.witness.offered(account);
            }
        }
        let moved = matches!(result, Poll::Ready(Ok(Some(_))));
        self.unreplied &= !moved;
        self.close_carrier(cx, moved);
        Poll::Ready(ready!(result).map_err(|error| self.fail(error)))
    }

    /// Remembers how the flow failed. Whatever closes the carrier before the server has proved itself is a rejection: a
    /// server that does not know us reads on for a while and then closes, which is a reset when bytes were left unread.
    fn fail(&mut self, error: StreamError) -> StreamError {
        use StreamError::{Rejected, Reset, Truncated, Unread};
        let closed = matches!(error, Reset | Unread | Truncated | Rejected);
        let error = if closed && !self.answered { Rejected } else { error };
        match &error {
            Rejected => self.witness.rejected(),
            StreamError::Setup(failed) => self.witness.unreachable(&failed.error),
            _ => {}
        }
        if self.answered && is_silence(&error) {
            self.witness.lost();
        }
        self.core.fail(error)
    }

    fn check_sending(&self) -> Result<(), StreamError> {
        self.core.check()?;
        self.severed.clone().map_or(Ok(()), Err)
    }

    /// Remembers why nothing can be sent any more. A stream's answer may have come before.
    fn fail_sending(&mut self, error: StreamError) -> StreamError {
        if !self.drains || !matches!(error, StreamError::Reset | StreamError::Unread) {
            return self.fail(error);
        }
        self.core.sealing.clear();
        self.severed.insert(error).clone()
    }
}

/// Whether a carrier died of a server that cannot be heard of: what was sent stayed unacknowledged, or a router on the way
/// said so.
const fn is_silence(error: &StreamError) -> bool {
    use std::io::ErrorKind::{HostUnreachable, NetworkUnreachable};
    matches!(error, StreamError::Timeout(_) | StreamError::Io(HostUnreachable | NetworkUnreachable))
}

/// A TCP flow through a VMess server.
pub(crate) struct SealedStream<C>(pub(super) Sealed<C>);

impl<C: Carrier> SealedStream<C> {
    /// Joins a connected carrier and a new VMess connection. Nothing is sent before the first payload or flush.
    pub(crate) fn new(
        carrier: C,
        shard: Rc<Shard>,
        connection: Connection,
        witness: Rc<dyn Witness>,
    ) -> Self {
        Self(Sealed::new(carrier, shard, connection, witness, Cut::Stream))
    }
}

impl<C: Carrier> Stream for SealedStream<C> {
    fn poll_recv(&mut self, cx: &mut Context<'_>, _max: usize) -> Poll<Result<Option<Buffer>, StreamError>> {
        let received = ready!(self.0.poll_recv(cx))?;
        if received.is_none() {
            self.0.check_terminator()?;
        }
        Poll::Ready(Ok(received))
    }

    fn pass_turn(&mut self) {
        self.0.core.opening.pass_turn();
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamError>> {
        self.0.poll_ready(cx)
    }

    fn send(&mut self, data: Buffer) -> Result<(), StreamError> {
        self.0.check_sending()?;
        self.0.unreplied = true;
        self.0.core.sealing.queue(data);
        Ok(())
    }

    fn send_limit(&self) -> usize {
        self.0.core.sealing.limit()
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamError>> {
        self.0.poll_flush(cx)
    }

    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamError>> {
        self.0.poll_finish(cx)
    }

    fn abort(&mut self) {
        self.0.core.abort();
    }

    fn answered(&self) -> bool {
        self.0.answered
    }

    fn records(&self) -> (u32, u32) {
        self.0.core.records()
    }

    fn local_ip(&self) -> Option<IpAddr> {
        self.0.core.carrier.local_ip()
    }
}

// An idle flow is to cost 5 KiB in all; the keys and size masks of both directions are most of this.
const _: () = assert!(size_of::<SealedStream<super::super::tcp::TcpCarrier>>() <= 2304);
