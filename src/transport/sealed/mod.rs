//! The one adapter that turns a carrier and the two halves of a VMess connection into payload.
//!
//! One way, payload is sealed where it lies and leaves together with the header that our end has to send ([`sealing`]); the
//! other way, records are opened where they were read and travel on as ranges of that memory ([`opening`]). What is a
//! client's alone is in [`client`], what is a server's in [`server`]. Our payload's end goes out as a terminating chunk at
//! once; the carrier's own end follows when the other end bears that ([`closing`]). [`SealedStream`] and [`ServerStream`]
//! are TCP flows, [`SealedDatagrams`] and [`ServerDatagrams`] UDP flows of one chunk a datagram. An idle one holds no
//! buffer.

mod client;
mod closing;
mod datagrams;
mod opening;
mod sealing;
mod server;

pub(crate) use client::{SealedStream, Witness};
pub(crate) use datagrams::{SealedDatagrams, ServerDatagrams};
pub(crate) use server::ServerStream;

use super::{Carrier, StreamError};
use crate::buffer::Buffer;
use crate::engine::Shard;
use crate::vmess::chunk::Sealer;
use opening::{Open, Opening};
use sealing::Sealing;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

/// What a record holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cut {
    /// Some of a stream, cut and merged as it suits.
    Stream,
    /// One datagram.
    Datagram,
}

/// What both ends share: the carrier, its two directions, and how it ended.
pub(crate) struct Core<C, O> {
    carrier: C,
    shard: Rc<Shard>,
    sealing: Sealing,
    opening: Opening<O>,
    failure: Option<StreamError>,
}

impl<C: Carrier, O: Open> Core<C, O> {
    fn new(carrier: C, shard: Rc<Shard>, header: Vec<u8>, sealer: Sealer, opener: O, cut: Cut) -> Self {
        let sealing = match cut {
            Cut::Stream => Sealing::stream(header, sealer),
            Cut::Datagram => Sealing::datagrams(header, sealer),
        };
        let opening = Opening::new(opener, cut == Cut::Stream);
        Self { carrier, shard, sealing, opening, failure: None }
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Buffer>, StreamError>> {
        self.opening.poll_next(cx, &mut self.carrier, &self.shard.pool)
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamError>> {
        self.sealing.poll_flush(cx, &mut self.carrier, &self.shard)
    }

    /// Writes everything and the terminating chunk.
    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamError>> {
        self.sealing.poll_finish(cx, &mut self.carrier, &self.shard)
    }

    fn is_busy(&self) -> bool {
        self.sealing.is_busy(&self.shard.pool)
    }

    /// How many records have gone up and down, as a client sees it.
    const fn records(&self) -> (u32, u32) {
        (self.sealing.records(), self.opening.records())
    }

    fn abort(&mut self) {
        self.failure.get_or_insert(StreamError::Closed);
        self.sealing.clear();
        self.opening.clear();
        self.carrier.abort();
    }

    fn check(&self) -> Result<(), StreamError> {
        self.failure.clone().map_or(Ok(()), Err)
    }

    fn fail(&mut self, error: StreamError) -> StreamError {
        self.sealing.clear();
        self.opening.clear();
        self.failure = Some(error.clone());
        error
    }
}

/// One end of a connection.
pub(crate) trait End {
    /// What carries it.
    type Carrier: Carrier;
    /// What opens the other end's bytes.
    type Opener: Open;

    /// What both ends share.
    fn core(&self) -> &Core<Self::Carrier, Self::Opener>;

    /// What both ends share, to be changed.
    fn core_mut(&mut self) -> &mut Core<Self::Carrier, Self::Opener>;

    /// The next piece of payload, `None` at the proper end.
    fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Buffer>, StreamError>> {
        self.core().check()?;
        let result = ready!(self.core_mut().poll_next(cx));
        Poll::Ready(result.map_err(|error| self.fail(error)))
    }

    /// Remembers how the connection failed.
    fn fail(&mut self, error: StreamError) -> StreamError {
        self.core_mut().fail(error)
    }

    /// Whether anything can be sent.
    fn check_sending(&self) -> Result<(), StreamError> {
        self.core().check()
    }

    /// Remembers why nothing can be sent any more, which is the end of the connection unless this end knows better.
    fn fail_sending(&mut self, error: StreamError) -> StreamError {
        self.fail(error)
    }

    /// Seals what is queued and writes it, the header before it.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamError>> {
        self.check_sending()?;
        let result = ready!(self.core_mut().poll_flush(cx));
        Poll::Ready(result.map_err(|error| self.fail_sending(error)))
    }

    /// Waits until more can be queued.
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamError>> {
        self.check_sending()?;
        if self.core().is_busy() && self.poll_flush(cx)?.is_pending() && self.core().is_busy() {
            return Poll::Pending;
        }
        if self.core().shard.pool.is_tight() {
            let ready = ready!(self.core_mut().carrier.poll_write_ready(cx));
            ready.map_err(|error| self.fail_sending(error.into()))?;
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests;
