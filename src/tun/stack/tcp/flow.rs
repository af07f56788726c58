//! One flow: what a segment does to it (RFC 9293 section 3.10.7, with the checks of RFC 5961).

use super::recv::{self, Receiver};
use super::segment::{Flags, Segment};
use super::send::{Fin, Sender};
use super::seq::Seq;
use super::table::Key;
use super::{Env, FlowId};
use crate::buffer::{Buffer, Pool};
use crate::time::Moment;
use std::cell::Cell;
use std::time::Duration;

/// How often an unanswered SYN-ACK is sent.
const SYN_ACKS: u8 = 5;
/// How long a flow that its owner has released waits for the app's FIN.
const LINGER: Duration = Duration::from_secs(30);
/// Our MSS in calculations if the peer says a silly one.
const LEAST_MSS: u16 = 64;
/// The most duplicate acknowledgements of one batch: as many as a peer without SACK needs.
const MAX_DUPLICATES: u8 = 3;

/// How far a flow has come. How it ends follows from its two halves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// SYN has come; the owner has not answered yet.
    Opening,
    /// The owner has accepted; the handshake's last ACK is missing.
    Handshake,
    /// The handshake is complete.
    Open,
    /// Both ends are closed: only what has not been taken is left, and the four-tuple is free.
    Closed,
}

/// A flow without its slot. Buffers are held by the boxed queues of the two halves alone.
#[derive(Debug)]
pub(crate) struct Flow {
    pub(crate) id: FlowId,
    pub(crate) key: Key,
    pub(crate) phase: Phase,
    /// The app's FIN came before ours: the app goes through TIME-WAIT, not we.
    passive: bool,
    /// The owner has forgotten the flow.
    pub(crate) released: bool,
    /// Waits in the list of flows that have something to send.
    pub(crate) listed: bool,
    /// An event of this kind is queued.
    pub(crate) told_readable: bool,
    pub(crate) told_writable: bool,
    /// The owner was told that there is no room, or that not all is acknowledged: it wants to hear of the change.
    pub(super) wants_room: Cell<bool>,
    pub(super) wants_acked: Cell<bool>,
    /// SYN-ACK is to be sent.
    pub(super) syn_ack: bool,
    /// How many acknowledgements are to be sent.
    pub(super) acks: u8,
    pub(super) sender: Sender,
    pub(super) receiver: Receiver,
}

const _: () = assert!(size_of::<Flow>() <= 320, "an idle flow stays small");

/// What a segment or a timeout led to, for the table to act on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Outcome {
    /// The handshake is complete.
    pub(crate) established: bool,
    /// The owner has something to take.
    pub(crate) readable: bool,
    /// The owner may send, or has been waiting for the last acknowledgement.
    pub(crate) writable: bool,
    /// Something is to be sent.
    pub(crate) work: bool,
    /// The flow ends.
    pub(crate) end: Option<End>,
}

/// How a flow ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// Torn down by the app, or unanswered.
    Gone,
    /// Torn down by us: RST goes with these numbers.
    Abort(Seq, Seq),
    /// Both ends are closed and nobody waits.
    Done,
    /// Both ends are closed, and the last packets may come again.
    TimeWait,
}

impl Flow {
    /// The flow that `syn` opens.
    pub(crate) fn new(id: FlowId, key: Key, syn: &Segment<'_>, iss: Seq, env: &Env) -> Self {
        let default_mss = if key.is_v6() { 1220 } else { 536 };
        let mss = syn.options.mss.unwrap_or(default_mss).max(LEAST_MSS);
        let own_mss = u32::from(env.own_mss(key.is_v6()));
        let mut sender = Sender::new(iss + 1, mss);
        let mut receiver = Receiver::new(syn.seq + 1, own_mss, &env.pool);
        sender.scale = syn.options.scale.unwrap_or(0);
        receiver.scaled = syn.options.scale.is_some();
        sender.sack = syn.options.sack_permitted;
        Self {
            id,
            key,
            phase: Phase::Opening,
            passive: false,
            released: false,
            listed: false,
            told_readable: false,
            told_writable: false,
            wants_room: Cell::new(false),
            wants_acked: Cell::new(false),
            syn_ack: false,
            acks: 0,
            sender,
            receiver,
        }
    }

    /// Whether the handshake is not complete.
    pub(crate) fn is_half_open(&self) -> bool {
        matches!(self.phase, Phase::Opening | Phase::Handshake)
    }

    /// The most data of one segment: the smaller of the peer's MSS and what the device's MTU leaves.
    pub(crate) fn mss(&self, env: &Env) -> u32 {
        u32::from(self.sender.peer_mss.min(env.own_mss(self.key.is_v6())))
    }

    /// Takes a segment.
    pub(crate) fn on_segment(&mut self, now: Moment, segment: &Segment<'_>, env: &mut Env) -> Outcome {
        let mut outcome = Outcome::default();
        match self.phase {
            Phase::Opening => {
                if segment.flags.has(Flags::RST) && segment.seq == self.receiver.next {
                    outcome.end = Some(End::Gone);
                }
                return outcome;
            }
            Phase::Closed => return outcome,
            Phase::Handshake | Phase::Open => {}
        }
        if let Some(refused) = self.check(now, segment, env) {
            return refused;
        }
        if self.phase == Phase::Handshake {
            if segment.ack != self.sender.una {
                env.reset(self.key, segment.ack, None);
                return outcome;
            }
            self.phase = Phase::Open;
            self.sender.open(segment);
            outcome.established = true;
            outcome.work = self.has_work();
        } else {
            if !self.sender.is_plausible(segment.ack) {
                return self.challenge(now, env);
            }
            self.on_ack(now, segment, env, &mut outcome);
        }
        self.on_data(now, segment, env, &mut outcome);
        self.judge_end(&mut outcome);
        outcome
    }

    /// The flow's timer has run out.
    pub(crate) fn on_timeout(&mut self, now: Moment, env: &mut Env) -> Outcome {
        let gone = Outcome { end: Some(End::Gone), ..Outcome::default() };
        let work = Outcome { work: true, ..Outcome::default() };
        match self.phase {
            Phase::Handshake => {
                self.syn_ack = true;
                let alive = self.sender.on_timeout(now, 1) && self.sender.tries() < SYN_ACKS;
                if alive { work } else { gone }
            }
            Phase::Open if self.sender.in_flight() || self.sender.queued() > 0 => {
                let mss = self.mss(env);
                if self.sender.on_timeout(now, mss) { work } else { gone }
            }
            Phase::Open if self.released => {
                Outcome { end: Some(End::Abort(self.sender.next, self.receiver.next)), ..Outcome::default() }
            }
            _ => {
                self.sender.deadline = None;
                Outcome::default()
            }
        }
    }

    /// Queues data for the app.
    pub(crate) fn send(&mut self, data: Buffer, env: &mut Env) {
        if self.phase != Phase::Closed && !self.released {
            self.sender.push(data, &env.pool, &mut env.spare_send);
        }
    }

    /// The owner forgets the flow: what came is dropped, what is queued is sent, then FIN.
    pub(crate) fn release(&mut self, now: Moment) {
        self.released = true;
        self.receiver.clear();
        self.finish();
        self.linger(now);
    }

    /// FIN goes behind what is queued.
    pub(crate) fn finish(&mut self) {
        if self.phase != Phase::Closed {
            self.passive |= self.receiver.is_closed() && self.sender.fin == Fin::Open;
            self.sender.finish();
        }
    }

    /// Takes the next buffer that came in order; says whether a window update is to be sent.
    pub(crate) fn take(&mut self, env: &mut Env) -> (Option<Buffer>, bool) {
        let buffer = self.receiver.take(&mut env.spare_recv);
        let update = buffer.is_some()
            && self.phase == Phase::Open
            && self.receiver.wants_update(self.mss(env), &env.pool);
        if update {
            self.acks = self.acks.max(1);
        }
        (buffer, update)
    }

    /// Bytes of memory that may be sent; a zero is remembered.
    pub(crate) fn room(&self, pool: &Pool) -> usize {
        if self.released || self.phase == Phase::Closed || self.sender.fin != Fin::Open {
            return 0;
        }
        let room = self.sender.room(pool);
        if room == 0 {
            self.wants_room.set(true);
        }
        room
    }

    /// Whether all is acknowledged, FIN included; a no is remembered.
    pub(crate) fn all_acked(&self) -> bool {
        let idle = self.sender.is_idle();
        if !idle {
            self.wants_acked.set(true);
        }
        idle
    }

    /// Whether something is to be sent.
    pub(crate) fn has_work(&self) -> bool {
        self.acks > 0 || self.syn_ack || self.sender.queued() > 0 || self.sender.fin == Fin::Wanted
    }

    /// The checks before a segment's ACK field is looked at: RST, SYN, and whether it lies in the window.
    fn check(&mut self, now: Moment, segment: &Segment<'_>, env: &mut Env) -> Option<Outcome> {
        let (next, window) = (self.receiver.next, self.receiver.window());
        let in_window = |seq: Seq| !seq.before(next) && seq.since(next) < window.max(1);
        if segment.flags.has(Flags::RST) {
            return Some(if segment.seq == next {
                Outcome { end: Some(End::Gone), ..Outcome::default() }
            } else if in_window(segment.seq) {
                self.challenge(now, env)
            } else {
                Outcome::default()
            });
        }
        if segment.flags.has(Flags::SYN) {
            if self.phase == Phase::Handshake && segment.seq + 1 == next {
                self.syn_ack = true;
                return Some(Outcome { work: true, ..Outcome::default() });
            }
            return Some(self.challenge(now, env));
        }
        if !segment.flags.has(Flags::ACK) {
            return Some(Outcome::default());
        }
        let last = segment.seq + segment.len().saturating_sub(1);
        // At `next` every segment counts, whatever the window: its ACK does, and its data are cut to what fits.
        let acceptable =
            segment.seq == next || in_window(segment.seq) || (segment.len() > 0 && in_window(last));
        if !acceptable {
            self.acks = self.acks.max(1);
            return Some(Outcome { work: true, ..Outcome::default() });
        }
        None
    }

    /// Answers what should not have come with an acknowledgement (RFC 5961), but not without bound.
    fn challenge(&mut self, now: Moment, env: &mut Env) -> Outcome {
        if !env.challenges.allows(now) {
            return Outcome::default();
        }
        if self.phase == Phase::Handshake {
            self.syn_ack = true
        } else {
            self.acks = self.acks.max(1)
        }
        Outcome { work: true, ..Outcome::default() }
    }

    fn on_ack(&mut self, now: Moment, segment: &Segment<'_>, env: &mut Env, outcome: &mut Outcome) {
        let mss = self.mss(env);
        let progress = self.sender.on_ack(now, segment, mss, &mut env.spare_send);
        outcome.work |= progress.work;
        if !progress.advanced {
            return;
        }
        if self.wants_acked.get() && self.sender.is_idle() {
            self.wants_acked.set(false);
            outcome.writable = true;
        }
        // Not at the first byte: whoever waits fills the room with one large read.
        if self.wants_room.get() && self.sender.room(&env.pool) >= super::WORTHWHILE_ROOM {
            self.wants_room.set(false);
            outcome.writable = true;
        }
        self.linger(now);
    }

    fn on_data(&mut self, now: Moment, segment: &Segment<'_>, env: &mut Env, outcome: &mut Outcome) {
        if segment.len() == 0 || self.receiver.is_closed() {
            // After FIN only repetitions come, or nonsense: they are answered alike.
            if segment.len() > 0 {
                self.acks = self.acks.max(1);
                outcome.work = true;
            }
            return;
        }
        let fin = segment.flags.has(Flags::FIN);
        let end = segment.seq + segment.payload.len() as u32;
        if self.released && end.after(self.receiver.next) {
            outcome.end = Some(End::Abort(self.sender.next, end + u32::from(fin)));
            return;
        }
        let mss = self.mss(env);
        let recv::Stored { advanced, fin, starved } =
            self.receiver.store(now, segment.seq, segment.payload, fin, mss, env);
        env.starved += u64::from(starved);
        outcome.readable = advanced || fin;
        if outcome.readable {
            self.acks = self.acks.max(1);
        } else if !starved {
            // Out of order, or seen before: a peer without SACK counts the answers.
            let most = if self.sender.sack { 1 } else { MAX_DUPLICATES };
            self.acks = (self.acks + 1).min(most);
        }
        outcome.work |= self.acks > 0;
    }

    /// Ends the flow when both halves are closed.
    fn judge_end(&mut self, outcome: &mut Outcome) {
        if outcome.end.is_none() && self.receiver.is_closed() && self.sender.fin == Fin::Acked {
            outcome.end = Some(if self.passive { End::Done } else { End::TimeWait });
        }
    }

    /// Once our FIN is acknowledged, a released flow waits for the app's FIN for a while only.
    fn linger(&mut self, now: Moment) {
        if self.released && self.sender.is_idle() && self.sender.fin == Fin::Acked {
            self.sender.deadline = Some(now + LINGER);
        }
    }
}
