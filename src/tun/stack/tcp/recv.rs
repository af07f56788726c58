//! The receiving half of a flow: what came in order, what came out of order, and the window that bounds both.

use super::Env;
use super::segment::SackBlocks;
use super::seq::Seq;
use super::shelf::Shelf;
use crate::buffer::{Buffer, Class, HEADROOM, Pool, TAILROOM};
use crate::time::Moment;
use std::collections::VecDeque;
use std::time::Duration;

/// The window of a flow that has moved no data lately, as far as memory allows.
const FIRST_LIMIT: u32 = 65_535;
/// The full segments that a flow may send at first: as many as Linux and Apple's systems do. More memory is promised than
/// there is: see [`Lender`].
const FIRST_SEGMENTS: u32 = 10;
/// The largest window: with the slack of its slabs it stays below what one stalled flow may hold, 1 MiB.
pub(crate) const MAX_WINDOW: u32 = 768 * 1024;
/// The largest window in full segments, for all flows that upload together: the device's queue takes 500 packets, and
/// drops what comes above.
const MAX_PACKETS: u32 = 400;
/// The most memory that is held: a stalled flow keeps no more from the others.
const MAX_HELD: usize = 1 << 20;
/// How much of a window may be due to rounding: one part in this.
const ROUNDING: u32 = 32;
/// The window that stays, however full the pool is: one slab of memory, which a flow gets even if it is stalled. Nothing
/// that comes is dropped then, to be sent again a timeout later.
const LEAST_WINDOW: u32 = 4096;
/// Our window scale: 65,535 << 4 is the next above [`MAX_WINDOW`].
pub(crate) const SCALE: u8 = 4;
/// A flow that has received this much gets buffers for full records.
const MOVING: u32 = 64 * 1024;
/// A flow that was idle for this long starts anew.
const IDLE: Duration = Duration::from_secs(1);
/// The most payload that is put into one [`Class::Record`] buffer: what one full VMess record takes.
const FULL_RECORD: usize = 16_305;
/// The most separate runs that are held out of order.
const MAX_RUNS: usize = 32;

/// The receiving half.
#[derive(Debug)]
pub(crate) struct Receiver {
    /// The next sequence number in order.
    pub(crate) next: Seq,
    /// The right edge of the window as it was advertised; it never goes back.
    edge: Seq,
    /// The same without rounding.
    granted: Seq,
    /// How much may be buffered at the moment.
    limit: u32,
    /// Whether the peer has seen a larger window than the least: then it fills whole segments, and waits for its probe
    /// timer when the window is smaller than one.
    wide: bool,
    /// Bytes that the owner has taken since `limit` was last judged.
    taken: u32,
    /// Bytes received since the flow was last idle, up to [`MOVING`].
    moved: u32,
    /// When the last data came, and [`Uploads`]' mark of it.
    ///
    /// [`Uploads`]: super::uploads::Uploads
    last: Moment,
    epoch: u32,
    /// Where the app's FIN lies, once a segment with it was acceptable.
    fin: Option<Seq>,
    /// Whether the window scale option is in use.
    pub(crate) scaled: bool,
    owner: Owner,
    queue: Option<Box<Queue>>,
}

/// What the owner did when it last asked for data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Owner {
    /// It has not asked yet.
    New,
    /// It took all and found nothing more: what comes is taken at once.
    Waits,
    /// It took something and did not ask for more: what it passes data on to takes none at the moment.
    Busy,
}

/// What is held.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    /// In order, not yet taken.
    ready: VecDeque<Buffer>,
    /// Bytes in `ready`.
    bytes: u32,
    /// Bytes of memory of all buffers.
    held: usize,
    /// Out of order: sorted, apart.
    runs: Vec<Run>,
    /// The run that changed last: it is reported first (RFC 2018 section 4).
    newest: Seq,
}

/// Data that came out of order, without gaps in itself.
#[derive(Debug)]
struct Run {
    start: Seq,
    len: u32,
    buffers: Vec<Buffer>,
}

/// What became of a segment's data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Stored {
    /// `next` has moved over data.
    pub(crate) advanced: bool,
    /// `next` has moved over the FIN.
    pub(crate) fin: bool,
    /// There was no memory for some of it: nothing of that is acknowledged.
    pub(crate) starved: bool,
}

impl Receiver {
    /// A receiver for a flow whose first byte has the sequence number `next`.
    pub(crate) fn new(next: Seq, mss: u32, pool: &Pool) -> Self {
        let window = if pool.is_tight() { LEAST_WINDOW } else { FIRST_SEGMENTS.saturating_mul(mss) };
        let window = window.min(FIRST_LIMIT);
        Self {
            next,
            edge: next + window,
            granted: next + window,
            limit: FIRST_LIMIT,
            wide: window > LEAST_WINDOW,
            taken: 0,
            moved: 0,
            last: Moment::ZERO,
            epoch: 0,
            fin: None,
            scaled: false,
            owner: Owner::New,
            queue: None,
        }
    }

    /// The advertised window.
    pub(crate) fn window(&self) -> u32 {
        self.edge.since(self.next)
    }

    /// Whether the app's FIN has come, with everything before it.
    pub(crate) fn is_closed(&self) -> bool {
        self.fin.is_some_and(|fin| self.next.after(fin))
    }

    /// Whether something is held out of order.
    pub(crate) fn has_gaps(&self) -> bool {
        self.queue.as_ref().is_some_and(|queue| !queue.runs.is_empty())
    }

    /// Stores what is new in a segment whose data begins at `seq`. What lies outside the window is cut off.
    pub(crate) fn store(
        &mut self,
        now: Moment,
        seq: Seq,
        data: &[u8],
        fin: bool,
        mss: u32,
        env: &mut Env,
    ) -> Stored {
        let mut stored = Stored::default();
        let end = seq + data.len() as u32;
        // The FIN takes no memory: it may lie on the right edge.
        if fin && self.fin.is_none() && !end.before(self.next) && !end.after(self.edge) {
            self.fin = Some(end);
        }
        let limit = match self.fin {
            Some(fin) => fin.min(self.edge),
            None => self.edge,
        };
        let start = seq.max(self.next);
        let end = end.min(limit);
        if end.after(start) {
            let from = start.since(seq) as usize;
            let fresh = &data[from..from + end.since(start) as usize];
            self.judge(now, mss, env);
            let queue = self.queue.get_or_insert_with(|| env.spare_recv.take());
            let is_full_record = self.moved >= MOVING && !env.pool.is_tight();
            let class = if is_full_record { Class::Record } else { Class::Small };
            let class = class.max(Class::for_len(fresh.len().min(FULL_RECORD)));
            let mut lender = Lender { pool: &env.pool, class, owner: self.owner };
            if start == self.next {
                let mut n = queue.append(fresh, &mut lender);
                if n == 0 && queue.ready.is_empty() {
                    // What came out of order must not keep out what it waits for.
                    queue.renege();
                    n = queue.append(fresh, &mut lender);
                }
                stored.starved = n < fresh.len();
                stored.advanced = n > 0;
                self.next = self.next + n as u32;
                self.moved = self.moved.saturating_add(n as u32);
                self.next = queue.join(self.next);
            } else {
                stored.starved = !queue.insert(start, fresh, &mut lender);
            }
            if queue.held == 0 {
                self.give_back(&mut env.spare_recv);
            }
        }
        if self.fin == Some(self.next) {
            self.next = self.next + 1;
            stored.fin = true;
        }
        stored
    }

    /// Takes the next buffer in order.
    pub(crate) fn take(&mut self, spare: &mut Shelf<Queue>) -> Option<Buffer> {
        let Some(queue) = self.queue.as_mut().filter(|queue| !queue.ready.is_empty()) else {
            self.owner = Owner::Waits;
            return None;
        };
        self.owner = Owner::Busy;
        let buffer = queue.ready.pop_front()?;
        queue.bytes -= buffer.len() as u32;
        queue.held -= buffer.held();
        self.taken = self.taken.saturating_add(buffer.len() as u32);
        if queue.held == 0 {
            self.give_back(spare);
        }
        Some(buffer)
    }

    /// Drops everything that is held.
    pub(crate) fn clear(&mut self) {
        self.queue = None;
    }

    /// Moves the right edge as far as memory allows and returns the window field.
    pub(crate) fn advertise(&mut self, on_syn: bool, mss: u32, pool: &Pool) -> u16 {
        let room = if on_syn { 0 } else { self.room(mss, pool) };
        if room > 0 {
            self.granted = self.granted.max(self.next + room);
        }
        self.edge = self.edge.max(self.granted);
        let window = self.window();
        self.wide |= window > LEAST_WINDOW;
        if on_syn || !self.scaled {
            // On a SYN the field is not scaled, and the window is not larger yet.
            return window.min(u32::from(u16::MAX)) as u16;
        }
        // Rounded up: rounded down, the edge would go back. But a peer that sends few bytes at a time could push an edge
        // that is rounded up before itself for ever, so that has a bound, which is nothing where one slab has to hold it
        // all; what was promised stays acceptable.
        let slack = if pool.is_tight() { 0 } else { self.limit / ROUNDING };
        let up = self.next + (window.div_ceil(1 << SCALE) << SCALE);
        if !up.after(self.granted + slack) {
            self.edge = self.edge.max(up);
            (up.since(self.next) >> SCALE).min(u32::from(u16::MAX)) as u16
        } else {
            (window >> SCALE).min(u32::from(u16::MAX)) as u16
        }
    }

    /// Whether taking data has opened the window far enough to say so on its own.
    pub(crate) fn wants_update(&self, mss: u32, pool: &Pool) -> bool {
        if self.is_closed() {
            return false;
        }
        let gain = (self.next + self.room(mss, pool)).since(self.edge);
        gain >= self.limit / 2 || (self.window() < mss && gain >= mss.min(self.limit / 2))
    }

    /// What is held out of order, newest first.
    pub(crate) fn sack(&self) -> SackBlocks {
        let mut blocks = SackBlocks::default();
        if let Some(queue) = &self.queue {
            let newest = |run: &&Run| run.start == queue.newest;
            for run in queue.runs.iter().filter(newest).chain(queue.runs.iter().filter(|run| !newest(run))) {
                blocks.push(run.start, run.start + run.len);
            }
        }
        blocks
    }

    /// Bytes that count against the window: what is in order and not taken. What lies out of order is inside it.
    fn buffered(&self) -> u32 {
        self.queue.as_ref().map_or(0, |queue| queue.bytes)
    }

    /// How much more may come, as far as the window and memory go. No more is promised than the flow could hold if it
    /// stalled, even to one whose owner waits for data.
    fn room(&self, mss: u32, pool: &Pool) -> u32 {
        let share = u32::try_from(pool.share()).unwrap_or(u32::MAX).min(self.limit);
        let least = if self.wide { mss.max(LEAST_WINDOW) } else { LEAST_WINDOW };
        if share > least {
            return share.saturating_sub(self.buffered());
        }
        // One slab is what every flow gets.
        let last = self.queue.as_ref().and_then(|queue| queue.ready.back());
        last.map_or(least, |last| room_in(last) as u32)
    }

    /// Lends or takes back window: doubles it for a flow whose owner took half of it.
    fn judge(&mut self, now: Moment, mss: u32, env: &mut Env) {
        if now.since(self.last) >= IDLE {
            (self.moved, self.taken) = (0, 0);
            self.limit = FIRST_LIMIT;
        }
        self.last = now;
        env.uploads.note(now, &mut self.epoch);
        let packets = MAX_PACKETS.saturating_mul(mss) / env.uploads.count();
        let most = packets.clamp(FIRST_LIMIT, if self.scaled { MAX_WINDOW } else { FIRST_LIMIT });
        self.limit = self.limit.min(most);
        if self.taken >= self.limit / 2 {
            self.limit = (self.limit * 2).min(most);
            self.taken = 0;
        }
    }

    fn give_back(&mut self, spare: &mut Shelf<Queue>) {
        if let Some(queue) = self.queue.take() {
            spare.put(queue);
        }
    }
}

impl Queue {
    /// Appends in-order data and returns how much of it found memory.
    fn append(&mut self, data: &[u8], lender: &mut Lender<'_>) -> usize {
        let mut done = match self.ready.back_mut() {
            Some(last) => fill(last, data),
            None => 0,
        };
        while done < data.len() {
            let Some(mut buffer) = lender.lend(&mut self.held) else { break };
            done += fill(&mut buffer, &data[done..]);
            self.ready.push_back(buffer);
        }
        self.bytes += done as u32;
        done
    }

    /// Drops what came out of order; it will be sent again (RFC 2018 section 8).
    fn renege(&mut self) {
        for buffer in self.runs.drain(..).flat_map(|run| run.buffers) {
            self.held -= buffer.held();
        }
    }

    /// Makes runs ready that `next` has reached, and returns the new `next`.
    fn join(&mut self, mut next: Seq) -> Seq {
        while let Some(run) = self.runs.first() {
            if run.start.after(next) {
                break;
            }
            let run = self.runs.remove(0);
            let mut skip = next.since(run.start) as usize;
            for mut buffer in run.buffers {
                let cut = skip.min(buffer.len());
                skip -= cut;
                if cut == buffer.len() {
                    self.held -= buffer.held();
                    continue;
                }
                buffer.advance(cut);
                self.bytes += buffer.len() as u32;
                next = next + buffer.len() as u32;
                self.ready.push_back(buffer);
            }
        }
        next
    }

    /// Keeps data that came out of order. False if some of it found no memory or no place.
    fn insert(&mut self, start: Seq, data: &[u8], lender: &mut Lender<'_>) -> bool {
        let end = start + data.len() as u32;
        let mut at = start;
        while at.before(end) {
            // The first run that ends at or behind `at`: it holds `at`, or is to be extended, or lies behind.
            let place = self.runs.partition_point(|run| (run.start + run.len).before(at));
            let held_to =
                self.runs.get(place).filter(|run| !run.start.after(at)).map(|run| run.start + run.len);
            if let Some(to) = held_to.filter(|to| to.after(at)) {
                self.newest = self.runs[place].start;
                at = to;
                continue;
            }
            let extend = held_to.is_some();
            let next = self.runs.get(place + usize::from(extend)).map_or(end, |run| run.start);
            let piece = &data[at.since(start) as usize..next.min(end).since(start) as usize];
            if !extend {
                if self.runs.len() >= MAX_RUNS {
                    return false;
                }
                self.runs.insert(place, Run { start: at, len: 0, buffers: Vec::new() });
            }
            let run = &mut self.runs[place];
            let mut done = run.buffers.last_mut().map_or(0, |last| fill(last, piece));
            while done < piece.len() {
                let Some(mut buffer) = lender.lend(&mut self.held) else { break };
                done += fill(&mut buffer, &piece[done..]);
                run.buffers.push(buffer);
            }
            run.len += done as u32;
            self.newest = run.start;
            at = at + done as u32;
            if run.len == 0 {
                self.runs.remove(place);
            }
            if done < piece.len() {
                return false;
            }
            self.merge(place);
        }
        true
    }

    /// Joins a run with the one behind it if no gap is left between them.
    fn merge(&mut self, place: usize) {
        let touches = |pair: &[Run]| matches!(pair, [a, b] if a.start + a.len == b.start);
        if self.runs.get(place..place + 2).is_some_and(touches) {
            let behind = self.runs.remove(place + 1);
            let run = &mut self.runs[place];
            run.len += behind.len;
            run.buffers.extend(behind.buffers);
        }
    }
}

/// Appends to a buffer what fits into one record.
fn fill(buffer: &mut Buffer, data: &[u8]) -> usize {
    buffer.append(&data[..data.len().min(room_in(buffer))])
}

/// How much more goes into a buffer for one record.
fn room_in(buffer: &Buffer) -> usize {
    buffer.held().saturating_sub(HEADROOM + TAILROOM).min(FULL_RECORD).saturating_sub(buffer.len())
}

/// Bytes that one flow may hold: its share of the pool. One whose owner waits for data may use more of the pool, all but
/// the last eighth.
fn quota(pool: &Pool, owner: Owner) -> usize {
    match owner {
        Owner::Waits => (before_last_eighth(pool) / 4).min(MAX_HELD),
        Owner::New | Owner::Busy => pool.share().min(MAX_HELD),
    }
}

/// What is free of the pool without its last eighth.
fn before_last_eighth(pool: &Pool) -> usize {
    pool.limit().saturating_sub(pool.used() + pool.limit() / 8)
}

/// Decides whether a flow gets one more buffer.
struct Lender<'a> {
    pool: &'a Pool,
    class: Class,
    owner: Owner,
}

impl Lender<'_> {
    /// Lends a buffer within the flow's quota. The first one goes to every flow whose owner may take it at once, whatever
    /// is left, and to others while the last eighth of the pool is free.
    fn lend(&mut self, held: &mut usize) -> Option<Buffer> {
        let first = *held == 0 && (self.owner != Owner::Busy || before_last_eighth(self.pool) > 0);
        if !first && *held + self.class.slab_len() > quota(self.pool, self.owner) {
            return None;
        }
        let buffer = self.pool.take(self.class)?;
        *held += buffer.held();
        Some(buffer)
    }
}
