//! The sending half of a flow: the queue that is held until acknowledged, and what is to be sent of it next.
//!
//! There is flow control but no congestion control: the way to the local kernel is a queue in memory. Lost segments are
//! found by SACK and by duplicate acknowledgements (fast recovery: every hole once), else by the retransmission timeout.

use super::scoreboard::Scoreboard;
use super::segment::Segment;
use super::seq::Seq;
use super::shelf::Shelf;
use crate::buffer::{Buffer, Class, Pool};
use crate::time::Moment;
use std::collections::VecDeque;
use std::time::Duration;

/// The most slices of one segment.
pub(crate) const MAX_SLICES: usize = 16;
/// Data shorter than this is copied behind its predecessor, so that small records do not use slices and slabs up.
const COMPACTED: usize = 512;
/// The most memory that the queue of one flow holds, if the pool has it.
const MAX_HELD: usize = 1 << 20;
/// The same while the pool is tight, for a peer that takes what comes.
const MOVING_HELD: usize = 64 * 1024;
/// What an empty queue takes, however full the pool is.
const LEAST_ROOM: usize = Class::Record.capacity();
/// Bounds of the retransmission timeout.
const MIN_RTO: Duration = Duration::from_millis(200);
const MAX_RTO: Duration = Duration::from_secs(10);
/// The timeout before anything was measured (RFC 6298).
const FIRST_RTO: Duration = Duration::from_secs(1);
/// After this many timeouts without any answer the app's kernel is held for gone.
const MAX_UNANSWERED: u8 = 12;
/// Duplicate acknowledgements, or full segments reported above a hole, that make it lost.
const DUPLICATES: u8 = 3;

/// Our FIN.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fin {
    /// Not asked for.
    Open,
    /// To be sent behind what is queued.
    Wanted,
    /// Sent at least once.
    Sent,
    /// Acknowledged, with everything before it.
    Acked,
}

/// The sending half.
#[derive(Debug)]
pub(crate) struct Sender {
    /// The oldest sequence number that is not acknowledged.
    pub(crate) una: Seq,
    /// The next new sequence number.
    pub(crate) next: Seq,
    /// The peer's window, from `una`, and the largest so far.
    window: u32,
    max_window: u32,
    /// Sequence and acknowledgement number of the last window update (RFC 9293 section 3.10.7.4).
    wl1: Seq,
    wl2: Seq,
    /// The peer's window scale.
    pub(crate) scale: u8,
    /// The peer sends and understands SACK.
    pub(crate) sack: bool,
    /// The peer's maximum segment size.
    pub(crate) peer_mss: u16,
    pub(crate) fin: Fin,
    duplicates: u8,
    backoff: u8,
    unanswered: u8,
    /// A byte is to be sent although the window is closed.
    probing: bool,
    /// Smoothed round trip and its variation, in microseconds; zero before the first measurement.
    srtt: u32,
    rttvar: u32,
    /// The sequence number whose acknowledgement is timed, and when it was sent.
    timed: Option<(Seq, Moment)>,
    /// When [`Sender::on_timeout`] is due.
    pub(crate) deadline: Option<Moment>,
    queue: Option<Box<Queue>>,
}

/// What is held until acknowledged.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    /// From `una` on.
    buffers: VecDeque<Buffer>,
    /// Bytes in them.
    len: u32,
    /// Bytes of memory that they hold.
    held: usize,
    /// Where `next` lies: a buffer and an offset in it, which may be its end.
    cursor: (usize, usize),
    scoreboard: Scoreboard,
    recovery: Option<Recovery>,
}

/// The repair of losses.
#[derive(Debug)]
struct Recovery {
    /// Ends when this is acknowledged.
    end: Seq,
    /// Where the next retransmission is looked for.
    next: Seq,
    /// What lies before this and was not reported received is lost.
    lost: Seq,
    /// What was new when the holes were last gone through: if that is reported and a hole is not, the hole's
    /// retransmission is lost too.
    since: Seq,
    /// Bytes that may still be retransmitted: after a timeout it grows with what is acknowledged.
    allowance: u32,
    /// Begun by a timeout.
    timeout: bool,
}

/// A segment to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) seq: Seq,
    /// Bytes of data, as far as slices go.
    pub(crate) len: u32,
    /// Whether FIN goes with the last of them.
    pub(crate) fin: bool,
    /// Sent before.
    pub(crate) again: bool,
}

/// What an acknowledgement brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Progress {
    /// Something new is acknowledged.
    pub(crate) advanced: bool,
    /// Data may be sent, or sent again.
    pub(crate) work: bool,
}

impl Sender {
    /// A sender whose first byte has the sequence number `first`, to a peer that said `mss`.
    pub(crate) fn new(first: Seq, mss: u16) -> Self {
        Self {
            una: first,
            next: first,
            window: 0,
            max_window: 0,
            wl1: Seq(0),
            wl2: first,
            scale: 0,
            sack: false,
            peer_mss: mss,
            fin: Fin::Open,
            duplicates: 0,
            backoff: 0,
            unanswered: 0,
            probing: false,
            srtt: 0,
            rttvar: 0,
            timed: None,
            deadline: None,
            queue: None,
        }
    }

    /// Takes up the window of the segment that completes the handshake.
    pub(crate) fn open(&mut self, segment: &Segment<'_>) {
        let window = self.scaled(segment);
        (self.wl1, self.wl2, self.window, self.max_window) = (segment.seq, self.una, window, window);
        (self.backoff, self.unanswered, self.deadline, self.probing) = (0, 0, None, false);
    }

    /// Bytes that are queued and not acknowledged.
    pub(crate) fn queued(&self) -> u32 {
        self.queue.as_ref().map_or(0, |queue| queue.len)
    }

    /// Whether something was sent and not acknowledged.
    pub(crate) fn in_flight(&self) -> bool {
        self.una != self.next
    }

    /// Whether everything, FIN included, has been acknowledged.
    pub(crate) fn is_idle(&self) -> bool {
        self.queued() == 0 && matches!(self.fin, Fin::Open | Fin::Acked)
    }

    /// How many timeouts have found no answer.
    pub(crate) const fn tries(&self) -> u8 {
        self.unanswered
    }

    /// Whether acknowledgements as old as `ack` may still be under way (RFC 5961 section 5.2).
    pub(crate) fn is_plausible(&self, ack: Seq) -> bool {
        !ack.after(self.next) && !ack.before(self.una - self.max_window)
    }

    /// Bytes of memory that may be queued: the flow's share of the pool, or when that is used up, as long as the peer's
    /// window takes all that is queued.
    pub(crate) fn room(&self, pool: &Pool) -> usize {
        let held = self.queue.as_ref().map_or(0, |queue| queue.held);
        if held == 0 {
            return pool.share().clamp(LEAST_ROOM, MAX_HELD);
        }
        let free = pool.limit().saturating_sub(pool.used());
        let moving = if self.queued() < self.window { MOVING_HELD.min(free / 8) } else { 0 };
        pool.share().clamp(moving, MAX_HELD).saturating_sub(held)
    }

    /// Queues data.
    pub(crate) fn push(&mut self, data: Buffer, pool: &Pool, spare: &mut Shelf<Queue>) {
        if data.is_empty() || self.fin != Fin::Open {
            return;
        }
        self.queue.get_or_insert_with(|| spare.take()).push(data, pool);
    }

    /// Queues FIN.
    pub(crate) fn finish(&mut self) {
        if self.fin == Fin::Open {
            self.fin = Fin::Wanted;
        }
    }

    /// Drops what is queued.
    pub(crate) fn clear(&mut self) {
        self.queue = None;
        self.deadline = None;
    }

    /// Takes the acknowledgement and the window of an acceptable segment.
    pub(crate) fn on_ack(
        &mut self,
        now: Moment,
        segment: &Segment<'_>,
        mss: u32,
        spare: &mut Shelf<Queue>,
    ) -> Progress {
        let (seq, ack, pure) = (segment.seq, segment.ack, segment.len() == 0);
        let window = self.scaled(segment);
        let mut progress = Progress::default();
        let is_newer = self.wl1.before(seq) || (self.wl1 == seq && !self.wl2.after(ack));
        let mut same_window = true;
        if is_newer {
            same_window = self.window == window;
            (self.wl1, self.wl2, self.window) = (seq, ack, window);
            self.max_window = self.max_window.max(window);
        }
        if self.window == 0 {
            self.unanswered = 0;
        }
        let old = self.una;
        if ack.after(old) {
            progress.advanced = true;
            self.advance(now, ack, mss);
        } else if ack == old && pure && same_window && self.in_flight() {
            self.duplicates = self.duplicates.saturating_add(1);
        }
        let (una, next, duplicates) = (self.una, self.next, self.duplicates);
        if let Some(queue) = &mut self.queue {
            if self.sack {
                queue.scoreboard.add(segment.options.sack.as_slice(), una, next);
            }
            queue.find_losses(una, next, duplicates, mss);
            if queue.len == 0 && una == next {
                self.give_back(spare);
            }
        }
        progress.work = self.queued() > 0 || self.fin == Fin::Wanted;
        progress
    }

    /// The retransmission or probe timer has run out. False if the peer is held for gone.
    pub(crate) fn on_timeout(&mut self, now: Moment, mss: u32) -> bool {
        self.unanswered += 1;
        if self.unanswered > MAX_UNANSWERED {
            return false;
        }
        self.backoff = (self.backoff + 1).min(16);
        self.deadline = Some(now + self.rto());
        if self.in_flight() {
            (self.timed, self.duplicates) = (None, 0);
            let (una, next) = (self.una, self.next);
            // A FIN alone has no queue: it is planned anew from its state.
            if let Some(queue) = &mut self.queue {
                if self.unanswered > 1 {
                    // The receiver may have forgotten what it reported (RFC 2018 section 8).
                    queue.scoreboard.clear();
                }
                let (allowance, timeout) = (mss, true);
                queue.recovery =
                    Some(Recovery { end: next, next: una, lost: next, since: next, allowance, timeout });
            }
        }
        self.probing = true;
        true
    }

    /// What is to be sent next, given our maximum segment size and the most data of one packet.
    pub(crate) fn plan(&self, mss: u32, most: u32) -> Option<Plan> {
        let Some(queue) = &self.queue else { return self.plan_fin() };
        if let Some(recovery) = &queue.recovery {
            if let Some(plan) = self.plan_again(queue, recovery, mss) {
                return Some(plan);
            }
            if recovery.timeout {
                return None;
            }
        }
        let unsent = (self.una + queue.len).since(self.next);
        if unsent == 0 {
            return self.plan_fin();
        }
        if matches!(self.fin, Fin::Sent | Fin::Acked) {
            return None;
        }
        let usable = (self.una + self.window).since(self.next);
        let mut len = unsent.min(usable).min(most);
        if self.probing && !self.in_flight() {
            len = len.max(1);
        } else if len < mss && len < unsent && len < self.max_window / 2 {
            // A sliver of the window: more of it will open (RFC 1122 section 4.2.3.4).
            return None;
        }
        if len > mss && len < unsent {
            len -= len % mss;
        }
        (len > 0).then_some(Plan {
            seq: self.next,
            len,
            fin: self.fin == Fin::Wanted && len == unsent,
            again: false,
        })
    }

    /// Gathers the data of a plan and returns how many slices and bytes that took.
    pub(crate) fn gather<'a>(&'a self, plan: &Plan, slices: &mut [&'a [u8]; MAX_SLICES]) -> (usize, usize) {
        let Some(queue) = &self.queue else { return (0, 0) };
        let at = if plan.again { queue.locate(plan.seq.since(self.una) as usize) } else { queue.cursor };
        queue.gather(at, plan.len as usize, slices)
    }

    /// The device has taken a segment.
    pub(crate) fn sent(&mut self, now: Moment, plan: &Plan) {
        let end = plan.seq + plan.len + u32::from(plan.fin);
        self.probing = false;
        if plan.again {
            self.timed = None;
            if let Some(recovery) = self.queue.as_mut().and_then(|queue| queue.recovery.as_mut()) {
                recovery.next = end;
                recovery.allowance = recovery.allowance.saturating_sub(plan.len);
            }
            self.deadline.get_or_insert(now + self.rto());
            return;
        }
        if !self.in_flight() {
            self.deadline = Some(now + self.rto());
        }
        if plan.fin {
            self.fin = Fin::Sent;
        }
        if let Some(queue) = &mut self.queue {
            queue.move_cursor(plan.len as usize);
        }
        self.next = end;
        self.timed.get_or_insert((end, now));
    }

    /// Arms the probe timer if something is left that the window does not let pass.
    pub(crate) fn arm(&mut self, now: Moment) {
        if !self.in_flight() && self.deadline.is_none() && self.queued() > 0 {
            self.deadline = Some(now + self.rto());
        }
    }

    /// The timeout: smoothed round trip and four variations, doubled with every try.
    pub(crate) fn rto(&self) -> Duration {
        let base = match self.srtt {
            0 => FIRST_RTO,
            srtt => Duration::from_micros(u64::from(srtt) + 4 * u64::from(self.rttvar)).max(MIN_RTO),
        };
        base.saturating_mul(1 << self.backoff).min(MAX_RTO)
    }

    fn scaled(&self, segment: &Segment<'_>) -> u32 {
        u32::from(segment.window) << self.scale
    }

    fn plan_fin(&self) -> Option<Plan> {
        let again = self.fin == Fin::Sent && self.probing;
        (self.fin == Fin::Wanted || again).then(|| Plan {
            seq: if again { self.next - 1 } else { self.next },
            len: 0,
            fin: true,
            again,
        })
    }

    fn plan_again(&self, queue: &Queue, recovery: &Recovery, mss: u32) -> Option<Plan> {
        if recovery.allowance == 0 {
            return None;
        }
        let (seq, hole_end) = queue.scoreboard.hole(recovery.next.max(self.una), recovery.lost)?;
        let data_end = self.una + queue.len;
        let fin_sent = self.fin == Fin::Sent;
        let mut len = hole_end.min(data_end).since(seq).min(mss);
        // The window may have been taken back: one byte asks for it.
        let usable = (self.una + self.window).since(seq);
        len = len.min(if seq == self.una { usable.max(1) } else { usable });
        let fin = fin_sent && seq + len == data_end && hole_end.after(data_end);
        (len > 0 || fin).then_some(Plan { seq, len, fin, again: true })
    }

    fn advance(&mut self, now: Moment, ack: Seq, mss: u32) {
        let n = ack.since(self.una);
        if let Some((seq, sent)) = self.timed
            && !ack.before(seq)
        {
            self.timed = None;
            self.measure(now.since(sent));
        }
        self.una = ack;
        if self.fin == Fin::Sent && ack == self.next {
            self.fin = Fin::Acked;
        }
        (self.backoff, self.unanswered, self.duplicates, self.probing) = (0, 0, 0, false);
        self.deadline = self.in_flight().then(|| now + self.rto());
        let Some(queue) = &mut self.queue else { return };
        queue.drop_front(n.min(queue.len) as usize);
        queue.scoreboard.drop_before(ack);
        let Some(recovery) = &mut queue.recovery else { return };
        if !ack.before(recovery.end) {
            queue.recovery = None;
        } else if recovery.timeout {
            recovery.next = recovery.next.max(ack);
            recovery.allowance = recovery.allowance.saturating_add(n.saturating_mul(2).max(mss));
        } else if !self.sack {
            // The next hole begins here (RFC 6582).
            (recovery.next, recovery.lost) = (ack, (ack + mss).min(recovery.end));
        }
    }

    /// Takes a round trip into account (RFC 6298).
    fn measure(&mut self, round_trip: Duration) {
        let sample = u32::try_from(round_trip.as_micros()).unwrap_or(u32::MAX).clamp(1, 60_000_000);
        if self.srtt == 0 {
            (self.srtt, self.rttvar) = (sample, sample / 2);
        } else {
            self.rttvar = self.rttvar - self.rttvar / 4 + self.srtt.abs_diff(sample) / 4;
            self.srtt = (self.srtt - self.srtt / 8 + sample / 8).max(1);
        }
    }

    fn give_back(&mut self, spare: &mut Shelf<Queue>) {
        if let Some(mut queue) = self.queue.take() {
            queue.scoreboard.clear();
            (queue.cursor, queue.recovery) = ((0, 0), None);
            spare.put(queue);
        }
    }
}

impl Queue {
    fn push(&mut self, data: Buffer, pool: &Pool) {
        self.len += data.len() as u32;
        if data.len() < COMPACTED {
            if let Some(last) = self.buffers.back_mut()
                && last.spare() >= data.len()
            {
                last.append(&data);
                return;
            }
            if data.held() > Class::Small.slab_len()
                && let Some(copy) = pool.copy(&data)
            {
                self.hold(copy);
                return;
            }
        }
        self.hold(data);
    }

    fn hold(&mut self, data: Buffer) {
        if !self.buffers.back().is_some_and(|last| last.shares(&data)) {
            self.held += data.held();
        }
        self.buffers.push_back(data);
    }

    /// Drops `n` acknowledged bytes.
    fn drop_front(&mut self, mut n: usize) {
        self.len -= n as u32;
        while let Some(front) = self.buffers.front_mut() {
            let len = front.len();
            if n < len {
                front.advance(n);
                if self.cursor.0 == 0 {
                    self.cursor.1 -= n;
                }
                break;
            }
            n -= len;
            let Some(gone) = self.buffers.pop_front() else { break };
            if !self.buffers.front().is_some_and(|front| front.shares(&gone)) {
                self.held -= gone.held();
            }
            self.cursor = match self.cursor {
                (0, _) => (0, 0),
                (index, offset) => (index - 1, offset),
            };
        }
    }

    /// Where the byte lies that is `offset` behind `una`.
    fn locate(&self, mut offset: usize) -> (usize, usize) {
        for (index, buffer) in self.buffers.iter().enumerate() {
            if offset < buffer.len() {
                return (index, offset);
            }
            offset -= buffer.len();
        }
        (self.buffers.len(), 0)
    }

    fn gather<'a>(
        &'a self,
        at: (usize, usize),
        len: usize,
        out: &mut [&'a [u8]; MAX_SLICES],
    ) -> (usize, usize) {
        let (mut count, mut total, mut offset) = (0, 0, at.1);
        for buffer in self.buffers.range(at.0.min(self.buffers.len())..) {
            if total == len || count == MAX_SLICES {
                break;
            }
            let rest = &buffer[offset.min(buffer.len())..];
            offset = 0;
            if rest.is_empty() {
                continue;
            }
            out[count] = &rest[..rest.len().min(len - total)];
            total += out[count].len();
            count += 1;
        }
        (count, total)
    }

    fn move_cursor(&mut self, mut n: usize) {
        while let Some(buffer) = self.buffers.get(self.cursor.0) {
            let rest = buffer.len() - self.cursor.1;
            if n <= rest {
                self.cursor.1 += n;
                break;
            }
            n -= rest;
            self.cursor = (self.cursor.0 + 1, 0);
        }
    }

    /// Begins or widens a fast recovery.
    fn find_losses(&mut self, una: Seq, next: Seq, duplicates: u8, mss: u32) {
        let reported = self.scoreboard.highest();
        match &mut self.recovery {
            None if duplicates >= DUPLICATES || self.scoreboard.bytes() >= u32::from(DUPLICATES) * mss => {
                let lost = reported.unwrap_or(una + mss).min(next);
                let (allowance, timeout) = (u32::MAX, false);
                self.recovery =
                    Some(Recovery { end: next, next: una, lost, since: next, allowance, timeout });
            }
            Some(recovery) if !recovery.timeout => {
                if let Some(reported) = reported {
                    recovery.lost = recovery.lost.max(reported.min(recovery.end));
                    if reported.since(recovery.since) >= u32::from(DUPLICATES) * mss {
                        (recovery.next, recovery.since) = (una, next);
                    }
                }
            }
            _ => {}
        }
    }
}
