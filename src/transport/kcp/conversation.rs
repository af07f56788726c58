//! One conversation: its states, and what it says when. Datagrams' segments and the time in; segments, payload and a
//! deadline out.
//!
//! There is no handshake, and no half-close: who closes a conversation sends what it still has, marked as closing, and once
//! all of that has come says so (`terminate`). The other end throws away what it had to send, and says the same.

use super::receiving::Receiving;
use super::round_trip::RoundTrip;
use super::segment::{ACK_OVERHEAD, Body, COMMAND_LEN, DATA_OVERHEAD, Segment};
use super::sending::Sending;
use super::shape::Shape;
use crate::time::Moment;
use std::time::Duration;

/// A peer that has said nothing for so long has gone; V2Ray thinks so too.
const SILENCE: Duration = Duration::from_secs(30);
/// How long after our last word the peer is told that we are there: three such words fit into the time after which we are
/// gone for it.
const SIGN_OF_LIFE: Duration = Duration::from_secs(9);
/// How long what is left may take to come once a conversation is closed.
const FAREWELL: Duration = Duration::from_secs(15);
/// When the end is told: nobody has to answer, so that only repeating helps where it is lost.
const ENDINGS: [Duration; 4] =
    [Duration::ZERO, Duration::from_millis(500), Duration::from_millis(1500), Duration::from_millis(3500)];

/// One end of a conversation.
#[derive(Debug)]
pub(super) struct Conversation {
    number: u16,
    shape: Shape,
    started: Moment,
    state: State,
    peer: Peer,
    sending: Sending,
    receiving: Receiving,
    trip: RoundTrip,
    last_heard: Moment,
    last_said: Moment,
    /// Whether the peer has shown that something of ours has come.
    is_proven: bool,
    /// Whether the peer has been heard at all.
    is_heard: bool,
}

/// What we do.
#[derive(Debug, Clone, Copy, PartialEq)]
enum State {
    /// Talk.
    Active,
    /// Send what is left.
    Closing { since: Moment },
    /// Say that it is over.
    Ending { since: Moment, said: usize, sending_next: u32 },
    /// Nothing more.
    Over,
}

/// What the peer does.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Peer {
    /// Talks.
    Active,
    /// Sends what it has left, and takes nothing.
    Closing,
    /// Has said that it is over; whether everything of its has come before.
    Over { is_whole: bool },
    /// Is silent.
    Lost(Loss),
}

/// Why a peer is not there any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Loss {
    /// It said nothing for too long.
    Silent,
    /// Nobody listens there.
    Refused,
    /// The socket is gone.
    Closed,
}

/// What there is to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Read {
    /// So many bytes.
    Bytes(usize),
    /// Nothing yet.
    Nothing,
    /// Nothing any more: all has come.
    End,
    /// Nothing any more, and something is missing.
    Cut,
    /// Nothing any more: the peer is not there.
    Lost(Loss),
}

impl Conversation {
    /// Begins a conversation.
    pub(super) fn new(number: u16, shape: Shape, now: Moment) -> Self {
        Self {
            number,
            shape,
            started: now,
            state: State::Active,
            peer: Peer::Active,
            sending: Sending::new(&shape),
            receiving: Receiving::default(),
            trip: RoundTrip::new(shape.step),
            last_heard: now,
            last_said: now,
            is_proven: false,
            is_heard: false,
        }
    }

    /// Bytes of payload that are held, both ways.
    pub(super) const fn held(&self) -> usize {
        self.sending.held() + self.receiving.held()
    }

    /// Takes a segment up. `most` is how many bytes the conversation may hold.
    pub(super) fn hear(&mut self, segment: &Segment<'_>, now: Moment, most: usize) {
        if segment.conversation != self.number || self.is_over() {
            return;
        }
        (self.last_heard, self.is_heard) = (now, true);
        if segment.is_closing && self.peer == Peer::Active {
            self.peer = Peer::Closing;
            self.sending.clear();
        }
        let (mut come, mut measured) = (false, None);
        match segment.body {
            Body::Data { timestamp, number, sending_next, payload } => {
                self.is_proven |= sending_next > 0;
                let most = most.saturating_sub(self.sending.held()).min(self.shape.read_buffer);
                self.receiving.take(number, timestamp, payload, &self.shape, most);
            }
            Body::Ack { receiving_window, receiving_next, timestamp, numbers } => {
                self.sending.window_is(receiving_window);
                let numbers = numbers.iter().map(|number| u32::from_be_bytes(*number));
                // Before the others, which would leave none of them to be news: without news V2Ray sends no time either.
                if self.sending.come_singly(numbers, now, &self.trip) {
                    (come, measured) = (true, Some(timestamp));
                }
                come |= self.sending.come_before(receiving_next);
                if !come && self.sending.is_empty() && self.sending.next() > 0 {
                    // It repeats what we know: it does not know that.
                    self.sending.tell(now + self.shape.step / 2);
                }
            }
            Body::Command { terminates, sending_next, receiving_next, .. } => {
                come |= self.sending.come_before(receiving_next);
                if terminates {
                    self.peer_ends(sending_next, now);
                }
            }
        }
        if let Some(timestamp) = measured {
            self.trip.measured(self.millis(now).wrapping_sub(timestamp));
        }
        if come {
            self.is_proven = true;
            self.sending.count_losses(now, &self.trip, &self.shape);
            if self.sending.has_news() {
                self.sending.tell(now + self.shape.step / 2);
            }
        }
    }

    /// Reads what has come.
    pub(super) fn read(&mut self, out: &mut [u8], most: usize) -> Read {
        match self.receiving.read(out, &self.shape, most.saturating_sub(self.sending.held())) {
            0 => self.readable(),
            n => Read::Bytes(n),
        }
    }

    /// What a read would say: `Bytes(0)` if there is something.
    pub(super) const fn readable(&self) -> Read {
        if self.receiving.is_ready() { Read::Bytes(0) } else { self.ended() }
    }

    /// How the peer has ended, whatever is still to be read: `Nothing` if it has not.
    pub(super) const fn ended(&self) -> Read {
        match self.peer {
            Peer::Active | Peer::Closing => Read::Nothing,
            Peer::Over { is_whole: true } => Read::End,
            Peer::Over { is_whole: false } => Read::Cut,
            Peer::Lost(loss) => Read::Lost(loss),
        }
    }

    /// How many bytes may be written, if the conversation may hold `most`; `None` if it is known to be broken. What is
    /// written to a peer that has closed goes nowhere, as behind a FIN.
    pub(super) fn writable(&self, most: usize) -> Option<usize> {
        match self.peer {
            Peer::Active => Some(self.sending.takes(&self.shape, most.saturating_sub(self.receiving.held()))),
            Peer::Closing | Peer::Over { is_whole: true } => Some(usize::MAX),
            Peer::Over { is_whole: false } | Peer::Lost(_) => None,
        }
    }

    /// Takes payload that [`Conversation::writable`] has room for.
    pub(super) fn write(&mut self, bytes: &[u8]) {
        if self.state == State::Active && self.peer == Peer::Active {
            self.sending.push(bytes, &self.shape);
        }
    }

    /// Whether everything that was written has come, or will not.
    pub(super) fn is_drained(&self) -> bool {
        self.sending.is_empty()
    }

    /// Closes the conversation: what was written is still sent, what comes is dropped.
    pub(super) fn close(&mut self, now: Moment) {
        if self.state != State::Active {
            return;
        }
        self.receiving.discard();
        match self.peer {
            Peer::Active => self.state = State::Closing { since: now },
            Peer::Closing => self.end(now, self.sending.next()),
            Peer::Over { .. } | Peer::Lost(_) => self.state = State::Over,
        }
        self.advance(now);
    }

    /// Closes the conversation so that the peer sees that something is missing: it is told of one segment more than there
    /// are.
    pub(super) fn abort(&mut self, now: Moment) {
        self.receiving.discard();
        let next = self.sending.next();
        self.sending.clear();
        match self.state {
            State::Ending { .. } | State::Over => {}
            _ => self.end(now, next.wrapping_add(1)),
        }
    }

    /// The peer is not there any more, as something other than silence shows.
    pub(super) fn lose(&mut self, loss: Loss) {
        if !matches!(self.peer, Peer::Over { .. }) {
            self.peer = Peer::Lost(loss);
        }
        self.sending.clear();
        self.state = State::Over;
    }

    /// Whether the peer has been heard.
    pub(super) const fn is_heard(&self) -> bool {
        self.is_heard
    }

    /// Whether nothing is to be sent or received any more. What has come can still be read.
    pub(super) fn is_over(&self) -> bool {
        self.state == State::Over
    }

    /// When something happens without the peer's doing.
    pub(super) fn deadline(&self) -> Option<Moment> {
        let silence = self.last_heard + SILENCE;
        match self.state {
            State::Over => None,
            State::Ending { since, said, .. } => Some(since + ENDINGS.get(said).copied().unwrap_or_default()),
            State::Active | State::Closing { .. } => {
                let since =
                    if let State::Closing { since } = self.state { Some(since + FAREWELL) } else { None };
                let sending = self.sending.deadline();
                [since, sending, Some(silence), Some(self.last_said + SIGN_OF_LIFE)]
                    .into_iter()
                    .flatten()
                    .min()
            }
        }
    }

    /// Appends the segments of the next datagram; whether there is one. To be called until there is none, after everything
    /// that was done and when the deadline has come.
    pub(super) fn say(&mut self, now: Moment, most: usize, out: &mut Vec<u8>) -> bool {
        self.advance(now);
        let (start, room) = (out.len(), self.shape.room);
        let left = |out: &Vec<u8>| room.saturating_sub(out.len() - start);
        match self.state {
            State::Over => return false,
            State::Ending { .. } => {
                if self.is_ending_due(now) {
                    self.say_end(out);
                }
                if self.receiving.has_acks() && left(out) > ACK_OVERHEAD + 4 {
                    self.say_acks(out, left(out), most);
                }
                return out.len() > start;
            }
            State::Active | State::Closing { .. } => {}
        }
        if self.receiving.has_acks() {
            self.say_acks(out, left(out), most);
        }
        let millis = self.millis(now);
        while left(out) >= DATA_OVERHEAD + self.shape.payload || out.len() == start {
            let is_closing = self.is_closing();
            let Some(due) = self.sending.next_due(now, &self.trip, &self.shape) else { break };
            let super::sending::Due { number, sending_next, payload } = due;
            let body = Body::Data { timestamp: millis, number, sending_next, payload };
            Segment { conversation: self.number, is_closing, body }.write(out);
        }
        let is_quiet = self.last_said + SIGN_OF_LIFE <= now && out.len() == start;
        if (self.sending.is_to_tell(now) || is_quiet) && left(out) >= COMMAND_LEN {
            let first = self.sending.first();
            self.say_command(false, first, out);
            self.sending.told(first);
        }
        if out.len() > start {
            self.last_said = now;
        }
        out.len() > start
    }

    /// Moves on where time or what has come allows.
    fn advance(&mut self, now: Moment) {
        if !matches!(self.state, State::Over | State::Ending { .. }) && self.last_heard + SILENCE <= now {
            return self.lose(Loss::Silent);
        }
        match self.state {
            State::Closing { since } if self.sending.is_empty() || since + FAREWELL <= now => {
                // What has not come is missing.
                let next = self.sending.next();
                self.sending.clear();
                self.end(now, next);
            }
            _ => {}
        }
    }

    /// Says from now on that it is over.
    fn end(&mut self, now: Moment, sending_next: u32) {
        self.state = State::Ending { since: now, said: 0, sending_next };
    }

    /// The peer has said that it is over, and that everything before `sending_next` has come.
    fn peer_ends(&mut self, sending_next: u32, now: Moment) {
        if !matches!(self.peer, Peer::Over { .. }) {
            let missing = sending_next.wrapping_sub(self.receiving.next()) as i32;
            self.peer = Peer::Over { is_whole: missing <= 0 };
        }
        self.sending.clear();
        match self.state {
            // It has heard ours, or it has come on its own: nobody needs another word.
            State::Ending { .. } => self.state = State::Over,
            // One answer, so that it need not wait.
            State::Active | State::Closing { .. } => self.end(now, self.sending.next()),
            State::Over => {}
        }
    }

    fn is_ending_due(&self, now: Moment) -> bool {
        match self.state {
            State::Ending { since, said, .. } => ENDINGS.get(said).is_some_and(|wait| since + *wait <= now),
            _ => false,
        }
    }

    fn say_end(&mut self, out: &mut Vec<u8>) {
        let State::Ending { since, said, sending_next } = self.state else { return };
        self.say_command(true, sending_next, out);
        // Who has said the same hears no more of it, and who may never have been there is not sent more than it sent.
        let is_last = matches!(self.peer, Peer::Over { .. }) || !self.is_proven || said + 1 >= ENDINGS.len();
        self.state =
            if is_last { State::Over } else { State::Ending { since, said: said + 1, sending_next } };
    }

    fn say_command(&self, terminates: bool, sending_next: u32, out: &mut Vec<u8>) {
        let resend_after = u32::try_from(self.trip.late_after().as_millis()).unwrap_or(u32::MAX);
        let receiving_next = self.receiving.next();
        let body = Body::Command { terminates, sending_next, receiving_next, resend_after };
        Segment { conversation: self.number, is_closing: self.is_closing(), body }.write(out);
    }

    fn say_acks(&mut self, out: &mut Vec<u8>, room: usize, most: usize) {
        let most = most.saturating_sub(self.sending.held());
        let Some(acks) = self.receiving.next_acks(room.saturating_sub(ACK_OVERHEAD), &self.shape, most)
        else {
            return;
        };
        let super::receiving::Acks { receiving_window, receiving_next, timestamp, numbers } = acks;
        let body = Body::Ack { receiving_window, receiving_next, timestamp, numbers: &numbers };
        Segment { conversation: self.number, is_closing: self.is_closing(), body }.write(out);
    }

    const fn is_closing(&self) -> bool {
        matches!(self.state, State::Closing { .. })
    }

    /// The time as the peer sees it.
    fn millis(&self, now: Moment) -> u32 {
        now.since(self.started).as_millis() as u32
    }
}
