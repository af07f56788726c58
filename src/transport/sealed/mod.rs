//! The one adapter that turns a carrier and the two halves of a VMess connection into payload.
//!
//! Up, payload is sealed where it lies and leaves together with the request header ([`uplink`]); down, records are opened
//! where they were read and travel on as ranges of that memory ([`downlink`]). Our end goes out as a terminating chunk at
//! once, as the carrier's own when the server bears that ([`closing`]). [`SealedStream`] is a TCP flow,
//! [`SealedDatagrams`] a UDP flow of one chunk a datagram. An idle one holds no buffer.

mod closing;
mod datagrams;
mod downlink;
mod uplink;

pub(crate) use datagrams::SealedDatagrams;

use super::{Carrier, Stream, StreamError};
use crate::buffer::Buffer;
use crate::engine::Shard;
use crate::vmess::client::Connection;
use closing::Closing;
use downlink::Opening;
use std::net::IpAddr;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use uplink::Sealing;

/// Who is told what a server's behaviour proves, and remembers it for the server's later flows.
pub(crate) trait Witness {
    /// A valid response header has come.
    fn answered(&self);

    /// The carrier closed before a valid response header.
    fn rejected(&self);

    /// The carrier of a flow that had been answered died because nothing comes back from the server any more.
    fn lost(&self);

    /// The server has sent a terminating chunk on a TCP stream.
    fn terminated(&self);

    /// Whether it ever has: such a server sends one on every stream that ends properly, others never do.
    fn terminates(&self) -> bool;
}

/// What both kinds of flow share: the carrier, its two directions, and how it ended.
struct Sealed<C> {
    carrier: C,
    shard: Rc<Shard>,
    witness: Rc<dyn Witness>,
    sealing: Sealing,
    opening: Opening,
    closing: Closing,
    /// Whether no payload has come since the last of ours.
    unreplied: bool,
    answered: bool,
    failure: Option<StreamError>,
}

impl<C: Carrier> Sealed<C> {
    fn new(
        carrier: C,
        shard: Rc<Shard>,
        connection: Connection,
        witness: Rc<dyn Witness>,
        sealing: fn(Vec<u8>, crate::vmess::client::Uplink) -> Sealing,
        merge: bool,
    ) -> Self {
        Self {
            carrier,
            shard,
            witness,
            sealing: sealing(connection.header, connection.uplink),
            opening: Opening::new(connection.downlink, merge),
            closing: Closing::Open,
            unreplied: true,
            answered: false,
            failure: None,
        }
    }

    /// The next piece of payload, `None` at the proper end.
    fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Buffer>, StreamError>> {
        self.check()?;
        let result = self.opening.poll_next(cx, &mut self.carrier, &self.shard.pool);
        if !self.answered && self.opening.answered() {
            self.answered = true;
            self.witness.answered();
        }
        let moved = matches!(result, Poll::Ready(Ok(Some(_))));
        self.unreplied &= !moved;
        self.close_carrier(cx, moved);
        Poll::Ready(ready!(result).map_err(|error| self.fail(error)))
    }

    /// Seals what is queued and writes it, the request header before it.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamError>> {
        self.check()?;
        let result = ready!(self.sealing.poll_flush(cx, &mut self.carrier, &self.shard));
        Poll::Ready(result.map_err(|error| self.fail(error)))
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamError>> {
        self.check()?;
        let busy = |sealing: &Sealing, shard: &Shard| sealing.is_busy(&shard.pool);
        if busy(&self.sealing, &self.shard)
            && self.poll_flush(cx)?.is_pending()
            && busy(&self.sealing, &self.shard)
        {
            return Poll::Pending;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamError>> {
        self.check()?;
        let result = ready!(self.sealing.poll_finish(cx, &mut self.carrier, &self.shard));
        if result.is_ok() {
            self.closing.begin(self.unreplied);
            self.close_carrier(cx, false);
        }
        Poll::Ready(result.map_err(|error| self.fail(error)))
    }

    /// Ends the carrier's direction when that is due. `moved`: payload has just come.
    fn close_carrier(&mut self, cx: &mut Context<'_>, moved: bool) {
        // A carrier that is past closing says so when it is read.
        if self.closing.is_due(cx, &self.opening, moved) && self.carrier.poll_close(cx).is_ready() {
            self.closing = Closing::Closed;
        }
    }

    fn abort(&mut self) {
        self.failure.get_or_insert(StreamError::Closed);
        self.sealing.clear();
        self.opening.clear();
        self.carrier.abort();
    }

    /// Judges the end of a stream: without the terminating chunk of a server that sends them it was cut between two
    /// records.
    fn check_terminator(&mut self) -> Result<(), StreamError> {
        if self.opening.is_terminated() {
            self.witness.terminated();
        } else if self.opening.lacks_terminator() && self.witness.terminates() {
            return Err(self.fail(StreamError::Truncated));
        }
        Ok(())
    }

    fn check(&self) -> Result<(), StreamError> {
        self.failure.clone().map_or(Ok(()), Err)
    }

    /// Remembers how the flow failed. Whatever closes the carrier before the server has proved itself is a rejection: a
    /// server that does not know us reads on for a while and then closes, which is a reset when bytes were left unread.
    fn fail(&mut self, error: StreamError) -> StreamError {
        let closed = matches!(error, StreamError::Reset | StreamError::Truncated | StreamError::Rejected);
        let error = if closed && !self.answered { StreamError::Rejected } else { error };
        if error == StreamError::Rejected {
            self.witness.rejected();
        }
        if self.answered && is_silence(&error) {
            self.witness.lost();
        }
        self.sealing.clear();
        self.opening.clear();
        self.failure = Some(error.clone());
        error
    }
}

/// Whether a carrier died of a server that cannot be heard of: what was sent stayed unacknowledged, or a router on the way
/// said so.
const fn is_silence(error: &StreamError) -> bool {
    use std::io::ErrorKind::{HostUnreachable, NetworkUnreachable};
    matches!(error, StreamError::Timeout(_) | StreamError::Io(HostUnreachable | NetworkUnreachable))
}

/// A TCP flow through a VMess server.
pub(crate) struct SealedStream<C>(Sealed<C>);

impl<C: Carrier> SealedStream<C> {
    /// Joins a connected carrier and a new VMess connection. Nothing is sent before the first payload or flush.
    pub(crate) fn new(
        carrier: C,
        shard: Rc<Shard>,
        connection: Connection,
        witness: Rc<dyn Witness>,
    ) -> Self {
        Self(Sealed::new(carrier, shard, connection, witness, Sealing::stream, true))
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
        self.0.opening.pass_turn();
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamError>> {
        self.0.poll_ready(cx)
    }

    fn send(&mut self, data: Buffer) -> Result<(), StreamError> {
        self.0.check()?;
        self.0.unreplied = true;
        self.0.sealing.queue(data);
        Ok(())
    }

    fn send_limit(&self) -> usize {
        self.0.sealing.limit()
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamError>> {
        self.0.poll_flush(cx)
    }

    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamError>> {
        self.0.poll_finish(cx)
    }

    fn abort(&mut self) {
        self.0.abort();
    }

    fn answered(&self) -> bool {
        self.0.answered
    }

    fn local_ip(&self) -> Option<IpAddr> {
        self.0.carrier.local_ip()
    }
}

// An idle flow is to cost 5 KiB in all; the keys and size masks of both directions are most of this.
const _: () = assert!(size_of::<SealedStream<super::tcp::TcpCarrier>>() <= 2304);

#[cfg(test)]
mod tests;
