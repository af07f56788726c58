//! The TCP terminator: the flows of the local kernel, from SYN to TIME-WAIT.
//!
//! [`Tcp`] finds the flow of a segment and acts on what [`flow::Flow`] makes of it. Nothing here scans all flows: what
//! has something to send is in a list, what waits for time in a heap, and an idle flow is in neither.

mod flow;
mod limiter;
mod recv;
mod scoreboard;
mod segment;
mod send;
mod seq;
mod shelf;
mod table;
mod time_wait;
mod timers;
mod transmit;
mod uploads;

use super::ip::{Malformed, V4_HEADER, V6_HEADER};
use super::{Blocked, Event, FlowId, PacketSink, Received};
use crate::buffer::{Buffer, Pool};
use crate::time::Moment;
use flow::{End, Flow, Outcome, Phase};
use limiter::Limiter;
use segment::{Flags, Segment};
use seq::Seq;
use shelf::Shelf;
use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hasher};
use std::net::{IpAddr, SocketAddr};
use table::{Index, Key, Owner, Slots};
use time_wait::TimeWait;
use timers::Timers;
use uploads::Uploads;

/// The most flows of all; a SYN above gets RST.
const MAX_FLOWS: usize = 8192;
/// The most flows whose handshake is not complete; the oldest goes first.
const MAX_HALF_OPEN: usize = 1024;
/// The most segments without a flow that wait for the device.
const MAX_REPLIES: usize = 256;
/// Who found no room to send hears of it again when there is this much.
const WORTHWHILE_ROOM: usize = 16 * 1024;

/// What flows share.
#[derive(Debug)]
pub(crate) struct Env {
    pub(crate) pool: Pool,
    pub(crate) mtu: usize,
    pub(crate) offload: bool,
    pub(crate) packets_out: u64,
    pub(crate) retransmits: u64,
    /// Segments of which something was discarded for lack of memory.
    pub(crate) starved: u64,
    challenges: Limiter,
    uploads: Uploads,
    spare_recv: Shelf<recv::Queue>,
    spare_send: Shelf<send::Queue>,
    replies: VecDeque<Reply>,
}

/// A segment that belongs to no flow: RST, or the acknowledgement of a flow in TIME-WAIT.
#[derive(Debug, Clone, Copy)]
struct Reply {
    key: Key,
    seq: Seq,
    ack: Option<Seq>,
    window: u16,
    reset: bool,
}

impl Env {
    /// The MSS that we announce: what the MTU leaves.
    fn own_mss(&self, v6: bool) -> u16 {
        let headers = if v6 { V6_HEADER } else { V4_HEADER } + segment::HEADER;
        self.mtu.min(usize::from(u16::MAX)).saturating_sub(headers).max(64) as u16
    }

    /// Queues an RST; with `ack` it carries that acknowledgement.
    fn reset(&mut self, key: Key, seq: Seq, ack: Option<Seq>) {
        self.reply(Reply { key, seq, ack, window: 0, reset: true });
    }

    fn reply(&mut self, reply: Reply) {
        if self.replies.len() < MAX_REPLIES {
            self.replies.push_back(reply);
        }
    }
}

/// All TCP flows.
#[derive(Debug)]
pub(crate) struct Tcp {
    pub(crate) env: Env,
    slots: Slots,
    index: Index,
    timers: Timers,
    time_wait: TimeWait,
    /// Flows that have something to send.
    work: VecDeque<u32>,
    /// Flows by the time of their SYN; those that are no longer half open are skipped.
    opened: VecDeque<FlowId>,
    half_open: usize,
    seed: u64,
}

impl Tcp {
    /// Makes an empty table.
    pub(crate) fn new(pool: Pool, mtu: usize, offload: bool, seed: u64) -> Self {
        let env = Env {
            pool,
            mtu,
            offload,
            packets_out: 0,
            retransmits: 0,
            starved: 0,
            challenges: Limiter::new(),
            uploads: Uploads::default(),
            spare_recv: Shelf::new(),
            spare_send: Shelf::new(),
            replies: VecDeque::new(),
        };
        Self {
            env,
            slots: Slots::default(),
            index: Index::default(),
            timers: Timers::default(),
            time_wait: TimeWait::default(),
            work: VecDeque::new(),
            opened: VecDeque::new(),
            half_open: 0,
            seed,
        }
    }

    /// How many flows there are, half-open ones included.
    pub(crate) fn flows(&self) -> usize {
        self.slots.len()
    }

    /// How many of them are half open.
    pub(crate) fn half_open(&self) -> usize {
        self.half_open
    }

    /// Takes the segment in `bytes`; `is_refused` says whether a SYN to that address gets RST at once.
    ///
    /// # Errors
    /// [`Malformed`] if it is none.
    pub(crate) fn handle(
        &mut self,
        now: Moment,
        (src, dst): (IpAddr, IpAddr),
        bytes: &[u8],
        trusted: bool,
        is_refused: impl FnOnce(SocketAddr) -> bool,
        events: &mut VecDeque<Event>,
    ) -> Result<(), Malformed> {
        let segment = Segment::parse(bytes, src, dst, trusted)?;
        if segment.src_port == 0 || segment.dst_port == 0 {
            return Err(Malformed::Header);
        }
        let key = Key::new((src, segment.src_port), (dst, segment.dst_port));
        let hash = key.hash(self.seed);
        let (slots, time_wait) = (&self.slots, &self.time_wait);
        let owner = self.index.find(hash, |owner| match owner {
            Owner::Flow(slot) => slots.at(slot).is_some_and(|flow| flow.key == key),
            Owner::TimeWait(number) => time_wait.get(number).is_some_and(|entry| entry.key == key),
        });
        match owner {
            Some(Owner::Flow(slot)) => {
                if self.is_reopened(slot, &segment) {
                    self.remove(slot, true, events);
                    self.open(now, key, &segment, None, is_refused, events);
                } else if let Some(flow) = self.slots.at_mut(slot) {
                    let outcome = flow.on_segment(now, &segment, &mut self.env);
                    self.apply(now, slot, outcome, events);
                }
            }
            Some(Owner::TimeWait(number)) => self.on_late(now, number, key, &segment, is_refused, events),
            None if opens(&segment) => self.open(now, key, &segment, None, is_refused, events),
            None => self.refuse_stray(key, &segment),
        }
        Ok(())
    }

    /// Acts on every deadline that has passed.
    pub(crate) fn handle_timeout(&mut self, now: Moment, events: &mut VecDeque<Event>) {
        while let Some(slot) = self.timers.due(now) {
            let Some(flow) = self.slots.at_mut(slot) else {
                self.timers.set(slot, None);
                continue;
            };
            let outcome = flow.on_timeout(now, &mut self.env);
            self.apply(now, slot, outcome, events);
        }
        self.time_wait.tidy();
        while self.time_wait.next().is_some_and(|due| due <= now) {
            self.forget_oldest();
        }
    }

    /// The next deadline.
    pub(crate) fn poll_timeout(&self) -> Option<Moment> {
        [self.timers.next(), self.time_wait.next()].into_iter().flatten().min()
    }

    /// Sends what may be sent, flow by flow.
    ///
    /// # Errors
    /// [`Blocked`] when the device is.
    pub(crate) fn transmit(&mut self, now: Moment, sink: &mut dyn PacketSink) -> Result<(), Blocked> {
        self.transmit_replies(sink)?;
        while let Some(&slot) = self.work.front() {
            let more = self.transmit_slot(now, slot, sink)?;
            self.work.pop_front();
            if more {
                self.work.push_back(slot);
            } else if let Some(flow) = self.slots.at_mut(slot) {
                flow.listed = false;
            }
        }
        Ok(())
    }

    /// Sends what may be sent of one flow.
    ///
    /// # Errors
    /// [`Blocked`] when the device is.
    pub(crate) fn transmit_flow(
        &mut self,
        now: Moment,
        id: FlowId,
        sink: &mut dyn PacketSink,
    ) -> Result<(), Blocked> {
        if self.slots.get(id).is_some() {
            while self.transmit_slot(now, id.slot, sink)? {}
        }
        Ok(())
    }

    /// Answers the flow's SYN.
    pub(crate) fn accept(&mut self, id: FlowId) {
        if let Some(flow) = self.slots.get_mut(id)
            && flow.phase == Phase::Opening
        {
            flow.phase = Phase::Handshake;
            flow.syn_ack = true;
            self.list(id.slot);
        }
    }

    /// Gives a half-open flow up and returns its ends and the sequence number of its SYN; RST goes if `reset`.
    pub(crate) fn refuse(&mut self, id: FlowId, reset: bool) -> Option<(SocketAddr, SocketAddr, u32)> {
        let flow = self.slots.get(id).filter(|flow| flow.is_half_open())?;
        let (key, seq, next) = (flow.key, flow.sender.una, flow.receiver.next);
        if reset {
            let seq = if flow.phase == Phase::Opening { Seq(0) } else { seq };
            self.env.reset(key, seq, Some(next));
        }
        self.remove(id.slot, false, &mut VecDeque::new());
        Some((key.app(), key.remote(), (next - 1).0))
    }

    /// Takes what has come.
    pub(crate) fn recv(&mut self, id: FlowId) -> Received {
        let Some(flow) = self.slots.get_mut(id).filter(|flow| !flow.released) else {
            return Received::Reset;
        };
        let (buffer, update) = flow.take(&mut self.env);
        let is_closed = flow.receiver.is_closed();
        if update {
            self.list(id.slot);
        }
        match buffer {
            Some(buffer) => Received::Data(buffer),
            None if is_closed => Received::Fin,
            None => Received::Empty,
        }
    }

    /// How much memory [`Tcp::send`] still takes.
    pub(crate) fn send_room(&self, id: FlowId) -> usize {
        self.slots.get(id).map_or(0, |flow| flow.room(&self.env.pool))
    }

    /// Queues data for the app.
    pub(crate) fn send(&mut self, id: FlowId, data: Buffer) {
        if let Some(flow) = self.slots.get_mut(id) {
            flow.send(data, &mut self.env);
            self.list(id.slot);
        }
    }

    /// Queues FIN for the app.
    pub(crate) fn finish(&mut self, id: FlowId) {
        if let Some(flow) = self.owned(id) {
            flow.finish();
            self.list(id.slot);
        }
    }

    /// Tears the flow down.
    pub(crate) fn abort(&mut self, id: FlowId) {
        let Some(flow) = self.owned(id) else { return };
        let (key, seq, ack) = (flow.key, flow.sender.next, flow.receiver.next);
        match flow.phase {
            Phase::Opening => self.env.reset(key, Seq(0), Some(ack)),
            Phase::Handshake | Phase::Open => self.env.reset(key, seq, Some(ack)),
            Phase::Closed => {}
        }
        self.remove(id.slot, false, &mut VecDeque::new());
    }

    /// The owner forgets the flow; it closes by itself.
    pub(crate) fn release(&mut self, now: Moment, id: FlowId) {
        let Some(flow) = self.owned(id) else { return };
        match flow.phase {
            Phase::Opening | Phase::Handshake => self.abort(id),
            Phase::Closed => self.remove(id.slot, false, &mut VecDeque::new()),
            Phase::Open => {
                flow.release(now);
                self.list(id.slot);
                self.reschedule(id.slot);
            }
        }
    }

    /// Whether a flow is gone, or released.
    pub(crate) fn is_gone(&self, id: FlowId) -> bool {
        self.slots.get(id).is_none_or(|flow| flow.released)
    }

    /// Whether everything sent, FIN included, is acknowledged; so it is for a flow that is gone.
    pub(crate) fn all_acked(&self, id: FlowId) -> bool {
        self.slots.get(id).is_none_or(|flow| flow.released || flow.all_acked())
    }

    /// Marks an event as handed out.
    pub(crate) fn on_told(&mut self, event: &Event) {
        match event {
            Event::TcpReadable(id) => {
                if let Some(flow) = self.slots.get_mut(*id) {
                    flow.told_readable = false;
                }
            }
            Event::TcpWritable(id) => {
                if let Some(flow) = self.slots.get_mut(*id) {
                    flow.told_writable = false;
                }
            }
            _ => {}
        }
    }

    /// The flow of an id, unless the owner has released it or it is gone.
    fn owned(&mut self, id: FlowId) -> Option<&mut Flow> {
        self.slots.get_mut(id).filter(|flow| !flow.released)
    }

    fn transmit_replies(&mut self, sink: &mut dyn PacketSink) -> Result<(), Blocked> {
        while let Some(reply) = self.env.replies.front().copied() {
            reply.transmit(&mut self.env, sink)?;
            self.env.replies.pop_front();
        }
        Ok(())
    }

    fn transmit_slot(&mut self, now: Moment, slot: u32, sink: &mut dyn PacketSink) -> Result<bool, Blocked> {
        let Some(flow) = self.slots.at_mut(slot) else { return Ok(false) };
        let more = flow.transmit(now, &mut self.env, sink);
        let due = flow.sender.deadline;
        self.timers.set(slot, due);
        more
    }

    /// Puts a flow into the list of those that have something to send.
    fn list(&mut self, slot: u32) {
        if let Some(flow) = self.slots.at_mut(slot)
            && !flow.listed
        {
            flow.listed = true;
            self.work.push_back(slot);
        }
    }

    fn reschedule(&mut self, slot: u32) {
        let due = self.slots.at(slot).and_then(|flow| flow.sender.deadline);
        self.timers.set(slot, due);
    }

    /// Acts on what a segment or a timeout led to.
    fn apply(&mut self, now: Moment, slot: u32, outcome: Outcome, events: &mut VecDeque<Event>) {
        let Some(flow) = self.slots.at_mut(slot) else { return };
        let id = flow.id;
        if outcome.established {
            self.half_open -= 1;
            events.push_back(Event::TcpEstablished(id));
        }
        if outcome.readable && !flow.released && !flow.told_readable {
            flow.told_readable = true;
            events.push_back(Event::TcpReadable(id));
        }
        if outcome.writable && !flow.released && !flow.told_writable {
            flow.told_writable = true;
            events.push_back(Event::TcpWritable(id));
        }
        if outcome.work {
            self.list(slot);
        }
        match outcome.end {
            None => self.reschedule(slot),
            Some(End::Gone) => self.remove(slot, true, events),
            Some(End::Abort(seq, ack)) => {
                let key = flow_key(&self.slots, slot);
                if let Some(key) = key {
                    self.env.reset(key, seq, Some(ack));
                }
                self.remove(slot, true, events);
            }
            Some(End::Done) => self.close(slot, None),
            Some(End::TimeWait) => self.close(slot, Some(now)),
        }
    }

    /// Both ends are closed: the four-tuple goes to TIME-WAIT or is free, the flow goes unless its owner still reads.
    fn close(&mut self, slot: u32, time_wait: Option<Moment>) {
        let Some(flow) = self.slots.at_mut(slot) else { return };
        let (key, send_next, recv_next, acks) = (flow.key, flow.sender.next, flow.receiver.next, flow.acks);
        flow.sender.clear();
        flow.phase = Phase::Closed;
        let released = flow.released;
        let hash = key.hash(self.seed);
        self.index.remove(hash, Owner::Flow(slot));
        self.timers.set(slot, None);
        if acks > 0 {
            self.acknowledge_late(key, send_next, recv_next);
        }
        if let Some(now) = time_wait {
            if self.time_wait.is_full() {
                self.forget_oldest();
            }
            let number = self.time_wait.push(now, key, send_next, recv_next);
            self.index.insert(hash, Owner::TimeWait(number));
        }
        if released {
            self.discard(slot);
        }
    }

    /// Takes a flow out of everything; with `tell` its owner learns that it is gone.
    fn remove(&mut self, slot: u32, tell: bool, events: &mut VecDeque<Event>) {
        let Some(flow) = self.slots.at(slot) else { return };
        let (id, key, phase) = (flow.id, flow.key, flow.phase);
        if flow.is_half_open() {
            self.half_open -= 1;
        }
        if tell && !flow.released && !flow.told_readable {
            events.push_back(Event::TcpReadable(id));
        }
        if phase != Phase::Closed {
            self.index.remove(key.hash(self.seed), Owner::Flow(slot));
        }
        self.discard(slot);
    }

    fn discard(&mut self, slot: u32) {
        self.timers.set(slot, None);
        if let Some(flow) = self.slots.remove(slot)
            && flow.listed
            && self.work.len() > MAX_HALF_OPEN
        {
            // An entry of a flow that is gone does nothing when its turn comes; a blocked device must not pile them up.
            self.work.retain(|other| *other != slot);
        }
    }

    /// Whether a SYN belongs to a new attempt of an app that has given the old one up before we answered.
    fn is_reopened(&self, slot: u32, segment: &Segment<'_>) -> bool {
        self.slots.at(slot).is_some_and(|flow| {
            flow.phase == Phase::Opening && opens(segment) && segment.seq + 1 != flow.receiver.next
        })
    }

    /// Remembers a SYN and tells the owner.
    fn open(
        &mut self,
        now: Moment,
        key: Key,
        syn: &Segment<'_>,
        above: Option<Seq>,
        is_refused: impl FnOnce(SocketAddr) -> bool,
        events: &mut VecDeque<Event>,
    ) {
        // New flows are refused before those that exist starve.
        let exhausted = self.slots.len() >= MAX_FLOWS || self.env.pool.is_nearly_full();
        if exhausted || is_refused(key.remote()) {
            self.env.reset(key, Seq(0), Some(syn.seq + 1));
            return;
        }
        let mut iss = self.initial_seq(now, &key);
        if let Some(above) = above
            && !iss.after(above)
        {
            iss = above + 128_000;
        }
        let id = self.slots.insert(|id| Flow::new(id, key, syn, iss, &self.env));
        self.index.insert(key.hash(self.seed), Owner::Flow(id.slot));
        self.half_open += 1;
        self.opened.push_back(id);
        events.push_back(Event::TcpOpening { flow: id, source: key.app(), destination: key.remote() });
        while self.half_open > MAX_HALF_OPEN {
            let Some(oldest) = self.opened.pop_front() else { break };
            if self.slots.get(oldest).is_some_and(Flow::is_half_open) {
                self.remove(oldest.slot, true, events);
            }
        }
        if self.opened.len() > 2 * MAX_HALF_OPEN {
            let slots = &self.slots;
            self.opened.retain(|id| slots.get(*id).is_some_and(Flow::is_half_open));
        }
    }

    /// A segment for a flow in TIME-WAIT.
    fn on_late(
        &mut self,
        now: Moment,
        number: u32,
        key: Key,
        segment: &Segment<'_>,
        is_refused: impl FnOnce(SocketAddr) -> bool,
        events: &mut VecDeque<Event>,
    ) {
        let Some(entry) = self.time_wait.get(number).copied() else { return };
        let is_new = opens(segment) && segment.seq.after(entry.recv_next);
        let is_reset = segment.flags.has(Flags::RST) && segment.seq == entry.recv_next;
        if is_new || is_reset {
            self.time_wait.remove(number);
            self.time_wait.tidy();
            self.index.remove(key.hash(self.seed), Owner::TimeWait(number));
            if is_new {
                self.open(now, key, segment, Some(entry.send_next), is_refused, events);
            }
        } else if !segment.flags.has(Flags::RST) && segment.len() > 0 && self.env.challenges.allows(now) {
            self.acknowledge_late(key, entry.send_next, entry.recv_next);
        }
    }

    fn acknowledge_late(&mut self, key: Key, seq: Seq, ack: Seq) {
        self.env.reply(Reply { key, seq, ack: Some(ack), window: u16::MAX, reset: false });
    }

    fn forget_oldest(&mut self) {
        if let Some((number, entry)) = self.time_wait.pop() {
            self.index.remove(entry.key.hash(self.seed), Owner::TimeWait(number));
            self.time_wait.tidy();
        }
    }

    /// RST for a segment that belongs to nothing (RFC 9293 section 3.10.7.1).
    fn refuse_stray(&mut self, key: Key, segment: &Segment<'_>) {
        if segment.flags.has(Flags::RST) {
            return;
        }
        if segment.flags.has(Flags::ACK) {
            self.env.reset(key, segment.ack, None);
        } else {
            self.env.reset(key, Seq(0), Some(segment.seq + segment.len()));
        }
    }

    /// A number that cannot be guessed, and grows with time for the same ends (RFC 6528).
    fn initial_seq(&self, now: Moment, key: &Key) -> Seq {
        let mut hasher = DefaultHasher::new();
        hasher.write_u64(self.seed);
        key.feed(&mut hasher);
        let ticks = now.as_nanos() / 4000;
        Seq((hasher.finish() as u32).wrapping_add(ticks as u32))
    }
}

fn flow_key(slots: &Slots, slot: u32) -> Option<Key> {
    slots.at(slot).map(|flow| flow.key)
}

/// Whether a segment asks for a new flow.
fn opens(segment: &Segment<'_>) -> bool {
    segment.flags.has(Flags::SYN)
        && !segment.flags.has(Flags::ACK)
        && !segment.flags.has(Flags::RST)
        && !segment.flags.has(Flags::FIN)
}
