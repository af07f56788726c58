//! The sending direction: payload in, sealed records out, the header first.

use super::super::Carrier;
use super::super::queue::{Queue, allowance, class_for};
use super::super::stream::StreamError;
use crate::buffer::{Buffer, Pool, TAILROOM, Turn};
use crate::engine::Shard;
use crate::entropy::Entropy;
use crate::vmess::chunk::{Sealer, TERMINATOR};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::Instant;

/// The most payload of a record while a stream starts. A mihomo server hangs on a larger first one, and short exchanges
/// are not helped by larger ones.
const FIRST_RECORDS: usize = 4096;
/// How much payload goes out in such records.
const WARM_UP: usize = 64 * 1024;
/// A stream that was silent for so long starts anew.
const COOLS_AFTER: Duration = Duration::from_secs(1);
/// Queued buffers from which a stream counts as busy until some have gone.
const BUSY_BUFFERS: usize = 64;
/// The most payload that is sealed before it is written.
const BATCH: usize = 256 * 1024;
/// Room that a record's size field takes at most, with authenticated length.
const SIZE_FIELD: usize = 18;
/// Payload up to this length is copied behind what waits already, if it fits there: one record instead of two.
const MERGED: usize = 2048;

/// How far our direction's end has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// Not asked for.
    Open,
    /// The terminating chunk, if there is one, has been made.
    Sealed,
}

/// The sending direction.
pub(super) struct Sealing {
    sealer: Sealer,
    /// What goes out before anything queued: the header, later the terminating chunk.
    head: Vec<u8>,
    /// Payload that waits until the carrier takes more.
    plain: Queue,
    /// Records that the carrier has not taken yet. Nothing is sealed while there are any.
    sealed: Queue,
    turn: Turn,
    /// Payload bytes since the stream was last cold, as far as they matter.
    warmth: usize,
    last_sealed: Instant,
    end: End,
    records: u32,
    /// Whether small payload may share a record.
    merges: bool,
}

impl Sealing {
    /// For a stream, whose payload may be cut and merged.
    pub(super) fn stream(header: Vec<u8>, sealer: Sealer) -> Self {
        Self {
            sealer,
            head: header,
            plain: Queue::default(),
            sealed: Queue::default(),
            turn: Turn::default(),
            warmth: 0,
            last_sealed: Instant::now(),
            end: End::Open,
            records: 0,
            merges: true,
        }
    }

    /// For datagrams, each of which is one record whatever its size.
    pub(super) fn datagrams(header: Vec<u8>, sealer: Sealer) -> Self {
        Self { warmth: WARM_UP, merges: false, ..Self::stream(header, sealer) }
    }

    /// The most payload that the next record takes.
    pub(super) fn limit(&self) -> usize {
        let most = self.sealer.max_payload();
        let warm = self.warmth >= WARM_UP && (!self.merges || self.last_sealed.elapsed() < COOLS_AFTER);
        if warm { most } else { most.min(FIRST_RECORDS) }
    }

    /// Takes payload.
    pub(super) fn queue(&mut self, data: Buffer) {
        let merged = self.merges && data.len() <= MERGED && self.plain.merge(&data, FIRST_RECORDS);
        if !merged {
            self.plain.push(data);
        }
    }

    /// Whether more should wait: while records are under way nothing could be sealed.
    pub(super) fn is_busy(&self, pool: &Pool) -> bool {
        self.is_blocked() || self.plain.bytes() >= allowance(pool) || self.plain.len() >= BUSY_BUFFERS
    }

    /// How many records have been sealed.
    pub(super) const fn records(&self) -> u32 {
        self.records
    }

    /// How many buffers of payload wait.
    pub(super) fn waiting(&self) -> usize {
        self.plain.len()
    }

    /// Drops the oldest payload that has not been sealed; whether there was any.
    pub(super) fn drop_oldest(&mut self) -> bool {
        let dropped = self.plain.pop().is_some();
        if self.plain.is_empty() {
            self.turn.pass();
        }
        dropped
    }

    /// Whether the header, or a part of it, has not been written.
    pub(super) fn has_head(&self) -> bool {
        !self.head.is_empty()
    }

    /// Whether sealed bytes are under way.
    pub(super) fn is_blocked(&self) -> bool {
        !self.sealed.is_empty()
    }

    /// Drops everything.
    pub(super) fn clear(&mut self) {
        self.turn.pass();
        self.plain.clear();
        self.sealed.clear();
        self.head = Vec::new();
    }

    /// Writes everything, the header even if nothing is queued.
    pub(super) fn poll_flush<C: Carrier>(
        &mut self,
        cx: &mut Context<'_>,
        carrier: &mut C,
        shard: &Shard,
    ) -> Poll<Result<(), StreamError>> {
        loop {
            if self.sealed.is_empty() && !self.plain.is_empty() {
                ready!(self.poll_seal(cx, shard))?;
            }
            let written = self.sealed.poll_write(cx, carrier, &mut self.head);
            if written.is_pending() {
                self.sealed.compact(&shard.pool);
            }
            ready!(written).map_err(StreamError::from)?;
            if self.plain.is_empty() {
                return carrier.poll_flush(cx).map_err(StreamError::from);
            }
        }
    }

    /// Writes everything, then the terminating chunk. The carrier's own end is not ours to send.
    pub(super) fn poll_finish<C: Carrier>(
        &mut self,
        cx: &mut Context<'_>,
        carrier: &mut C,
        shard: &Shard,
    ) -> Poll<Result<(), StreamError>> {
        if self.end == End::Open {
            // The terminating chunk may share the write with a header that has not gone yet, but not overtake payload.
            if !self.plain.is_empty() || !self.sealed.is_empty() {
                ready!(self.poll_flush(cx, carrier, shard))?;
            }
            let mut chunk = [0; TERMINATOR];
            let len = shard.with_entropy(|entropy| self.sealer.finish(&mut chunk, entropy));
            self.head.extend_from_slice(chunk.get(..len.unwrap_or(0)).unwrap_or(&[]));
            self.end = End::Sealed;
        }
        self.poll_flush(cx, carrier, shard)
    }

    /// Moves one batch from `plain` to `sealed`. Waits for memory only if nothing could be sealed.
    fn poll_seal(&mut self, cx: &mut Context<'_>, shard: &Shard) -> Poll<Result<(), StreamError>> {
        let limit = self.limit();
        self.last_sealed = Instant::now();
        if limit <= FIRST_RECORDS && self.warmth >= WARM_UP && self.merges {
            self.warmth = 0;
        }
        shard.with_entropy(|entropy| {
            let mut limit = limit;
            while self.sealed.bytes() < BATCH {
                let Some(payload) = self.plain.pop() else { break };
                let class = class_for(payload.len().min(limit));
                let len = match self.seal_one(payload, limit, &shard.pool, entropy)? {
                    Some(len) => len,
                    None if self.sealed.is_empty() => {
                        shard.pool.wait(cx, class, &mut self.turn);
                        return Poll::Pending;
                    }
                    None => break,
                };
                self.turn.pass();
                self.warmth = (self.warmth + len).min(WARM_UP);
                if self.warmth == WARM_UP {
                    limit = self.sealer.max_payload();
                }
            }
            Poll::Ready(Ok(()))
        })
    }

    /// Seals the first `limit` bytes of `payload`, in place where that is possible; the rest goes back to the queue.
    /// Returns how much was sealed, `None` if memory is short.
    fn seal_one(
        &mut self,
        mut payload: Buffer,
        limit: usize,
        pool: &Pool,
        entropy: &mut dyn Entropy,
    ) -> Result<Option<usize>, StreamError> {
        let len = payload.len().min(limit);
        let mut record = if len == payload.len() && has_room(&mut payload) {
            payload
        } else {
            // Shared memory, no room around, or too long for one record: this much is copied.
            let Some(copy) = pool.copy(&payload[..len]) else {
                self.plain.push_front(payload);
                return Ok(None);
            };
            payload.advance(len);
            if !payload.is_empty() {
                self.plain.push_front(payload);
            }
            copy
        };
        let (slab, range) = record.parts_mut().expect("just checked, or fresh from the pool");
        let wire = self
            .sealer
            .seal(slab, range, entropy)
            .map_err(|_| StreamError::Protocol("a record could not be sealed"))?;
        record.set_range(wire);
        self.records = self.records.saturating_add(1);
        self.sealed.push(record);
        Ok(Some(len))
    }
}

/// Whether a buffer can be sealed where it lies.
fn has_room(buffer: &mut Buffer) -> bool {
    buffer
        .parts_mut()
        .is_some_and(|(slab, range)| range.start >= SIZE_FIELD && slab.len() - range.end >= TAILROOM)
}
