//! The segments on their way to the peer: which are to be sent, again if need be, and when the next one is late.

use super::round_trip::RoundTrip;
use super::shape::Shape;
use crate::time::Moment;
use std::collections::VecDeque;
use std::time::Duration;

/// How many segments may be on their way before the peer has said how many it takes; as V2Ray's.
const FIRST_WINDOW: u32 = 32;
/// How many may be on their way at once after a pause.
const IDLE_WINDOW: u32 = 128;
/// How many acknowledgements of later segments show that one is lost.
const SKIPS: u8 = 3;
/// How many segments are sent again at a time to a peer that acknowledges nothing.
const PROBES: u32 = 4;
/// How often the wait for such a peer doubles at most, and how long it becomes by that.
const MAX_BACKOFF: u32 = 5;
const MOST_BACKOFF: Duration = Duration::from_secs(1);
/// How many acknowledgements make room for one more segment where more have been too many before.
const SLOWLY: u32 = 16;
/// Losses of more than one in so many are a queue that ran over, and no weather.
const OVERRUN: usize = 4;
/// What an overrun leaves at least.
const LEAST_RAMP: u32 = 64;
/// What may wait to be sent for the first time beside what is on its way.
const WAITING: usize = 64 << 10;
/// The fewest segments that losses leave us.
const LEAST_CONTROL: u32 = 16;

/// The sending half of a conversation.
#[derive(Debug)]
pub(super) struct Sending {
    /// From the first segment that is not known to have come.
    queue: VecDeque<Outgoing>,
    /// Its number.
    first: u32,
    /// How many of the queue have been sent at least once.
    sent: usize,
    /// How many of them are thought to be on their way.
    flying: usize,
    /// The numbers of those that are to be sent again, the first one first. One may have come meanwhile.
    lost: VecDeque<u32>,
    /// Payload in the queue.
    bytes: usize,
    /// The first number that the peer does not take.
    window: u32,
    /// How many may be on their way: it grows with what is acknowledged, so that no burst overruns a socket on the way.
    ramp: u32,
    /// How many have come, to grow slowly by.
    steps: u32,
    /// Above so many it grows slowly: more have been too many before.
    calm: u32,
    /// Until when a loss is taken for one that has been answered.
    eased_until: Moment,
    /// How many may be on their way as losses have it.
    control: u32,
    round: Round,
    /// No segment is late before.
    next_late: Option<Moment>,
    /// Whether anything was acknowledged since segments were last late.
    progress: bool,
    backoff: u32,
    /// The number before which the peer knows that we know.
    told: u32,
    /// When the peer is to be told.
    tell_at: Option<Moment>,
}

#[derive(Debug)]
struct Outgoing {
    payload: Vec<u8>,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum State {
    Fresh,
    Flying { late_at: Moment, skipped: u8 },
    Lost,
    Come,
}

/// What losses are counted over.
#[derive(Debug, Default)]
struct Round {
    until: Moment,
    sent: u32,
    lost: u32,
}

/// A segment to be sent now.
pub(super) struct Due<'a> {
    pub(super) number: u32,
    pub(super) sending_next: u32,
    pub(super) payload: &'a [u8],
}

/// Whether `a` is before `b`, as numbers that go round.
const fn is_before(a: u32, b: u32) -> bool {
    (b.wrapping_sub(a) as i32) > 0
}

impl Sending {
    /// Nothing to send.
    pub(super) fn new(shape: &Shape) -> Self {
        Self {
            queue: VecDeque::new(),
            first: 0,
            sent: 0,
            flying: 0,
            lost: VecDeque::new(),
            bytes: 0,
            window: FIRST_WINDOW,
            ramp: FIRST_WINDOW,
            steps: 0,
            calm: u32::MAX,
            eased_until: Moment::ZERO,
            control: shape.uplink,
            round: Round::default(),
            next_late: None,
            progress: false,
            backoff: 0,
            told: 0,
            tell_at: None,
        }
    }

    /// Whether all has come.
    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Bytes that are held.
    pub(super) const fn held(&self) -> usize {
        self.bytes
    }

    /// The first number that is not known to have come.
    pub(super) const fn first(&self) -> u32 {
        self.first
    }

    /// The number of the next new segment.
    pub(super) fn next(&self) -> u32 {
        self.first.wrapping_add(self.queue.len() as u32)
    }

    /// How many bytes it takes, if it may hold `most`.
    pub(super) fn takes(&self, shape: &Shape, most: usize) -> usize {
        let on_their_way = self.limit(shape) as usize * shape.payload;
        let room = most.min(shape.write_buffer).min(on_their_way + WAITING).saturating_sub(self.bytes);
        if self.queue.is_empty() { room.max(shape.payload) } else { room }
    }

    /// Takes payload, which [`Sending::takes`] has room for.
    pub(super) fn push(&mut self, mut bytes: &[u8], shape: &Shape) {
        self.bytes += bytes.len();
        if let Some(last) = self.queue.back_mut().filter(|last| last.state == State::Fresh) {
            let room = shape.payload.saturating_sub(last.payload.len()).min(bytes.len());
            let (head, rest) = bytes.split_at(room);
            last.payload.extend_from_slice(head);
            bytes = rest;
        }
        for piece in bytes.chunks(shape.payload) {
            self.queue.push_back(Outgoing { payload: piece.to_vec(), state: State::Fresh });
        }
    }

    /// Drops everything: the peer takes nothing more.
    pub(super) fn clear(&mut self) {
        self.first = self.next();
        self.queue = VecDeque::new();
        self.lost = VecDeque::new();
        (self.sent, self.flying, self.bytes) = (0, 0, 0);
        (self.next_late, self.tell_at) = (None, None);
    }

    /// The peer has said which is the first number that it does not take.
    pub(super) fn window_is(&mut self, window: u32) {
        if is_before(self.window, window) {
            self.window = window;
        }
    }

    /// Everything before `number` has come. Whether that is news.
    pub(super) fn come_before(&mut self, number: u32) -> bool {
        let count = number.wrapping_sub(self.first) as usize;
        // What has not been sent cannot have come.
        if count == 0 || count > self.sent {
            return false;
        }
        for index in 0..count {
            self.come(index);
        }
        self.advance();
        true
    }

    /// The segments of these numbers have come. Whether the highest of them is news, so that its way can be measured.
    pub(super) fn come_singly(
        &mut self,
        numbers: impl Iterator<Item = u32>,
        now: Moment,
        trip: &RoundTrip,
    ) -> bool {
        let mut highest = None;
        for number in numbers {
            let index = number.wrapping_sub(self.first) as usize;
            let is_news = index < self.sent && self.come(index);
            if highest.is_none_or(|(known, _)| is_before(known, number)) {
                highest = Some((number, is_news));
            }
        }
        let Some((highest, true)) = highest else {
            self.advance();
            return false;
        };
        let flying = self.flying;
        let lost = self.skip_before(highest);
        self.ease(lost, flying, now, trip);
        self.advance();
        true
    }

    /// The next segment to be sent, if one is due.
    pub(super) fn next_due(&mut self, now: Moment, trip: &RoundTrip, shape: &Shape) -> Option<Due<'_>> {
        self.find_late(now, trip);
        let late_at = now + self.late_after(trip);
        let index = self.next_lost(shape).or_else(|| self.next_fresh(shape))?;
        let first = self.first;
        let outgoing = self.queue.get_mut(index)?;
        if outgoing.state == State::Fresh {
            self.sent = index + 1;
        }
        outgoing.state = State::Flying { late_at, skipped: 0 };
        self.flying += 1;
        self.round.sent += 1;
        self.next_late = Some(self.next_late.map_or(late_at, |known| known.min(late_at)));
        self.told(first);
        let number = first.wrapping_add(index as u32);
        Some(Due { number, sending_next: first, payload: &self.queue.get(index)?.payload })
    }

    /// The peer has been told that we know what came before `number`.
    pub(super) fn told(&mut self, number: u32) {
        self.told = number;
        self.tell_at = None;
    }

    /// Whether the peer is to be told by itself what has come: V2Ray repeats acknowledgements until then.
    pub(super) fn is_to_tell(&self, now: Moment) -> bool {
        self.tell_at.is_some_and(|at| at <= now)
    }

    /// Has the peer be told at `at`, unless a segment tells it before.
    pub(super) fn tell(&mut self, at: Moment) {
        if self.queue.is_empty() {
            self.tell_at.get_or_insert(at);
        }
    }

    /// Whether the peer does not know yet that we know.
    pub(super) const fn has_news(&self) -> bool {
        self.told != self.first
    }

    /// When something is to be done without the peer's doing.
    pub(super) fn deadline(&self) -> Option<Moment> {
        [self.next_late, self.tell_at].into_iter().flatten().min()
    }

    /// Counts a round of losses, if one is over.
    pub(super) fn count_losses(&mut self, now: Moment, trip: &RoundTrip, shape: &Shape) {
        if !shape.congestion || now < self.round.until {
            return;
        }
        let Round { sent, lost, .. } = self.round;
        let rate = (lost.saturating_mul(100)).checked_div(sent);
        self.control = match rate {
            Some(15..) => self.control / 4 * 3,
            Some(..=5) => self.control + self.control / 4,
            _ => self.control,
        };
        self.control = self.control.clamp(LEAST_CONTROL, (shape.uplink * 2).max(LEAST_CONTROL));
        self.round = Round { until: now + trip.smoothed().max(shape.step), sent: 0, lost: 0 };
    }

    /// How many may be on their way.
    fn limit(&self, shape: &Shape) -> u32 {
        let limit = self.ramp.min(shape.in_flight);
        if shape.congestion { limit.min(self.control) } else { limit }
    }

    /// After how long an acknowledgement is late for a peer that may have gone.
    fn late_after(&self, trip: &RoundTrip) -> Duration {
        let late_after = trip.late_after();
        (late_after * (1 << self.backoff)).min(late_after.max(MOST_BACKOFF))
    }

    /// Notes that a segment has come. Whether that is news.
    fn come(&mut self, index: usize) -> bool {
        let Some(outgoing) = self.queue.get_mut(index) else { return false };
        match outgoing.state {
            State::Come | State::Fresh => return false,
            State::Flying { .. } => self.flying -= 1,
            State::Lost => {}
        }
        outgoing.state = State::Come;
        self.bytes -= std::mem::take(&mut outgoing.payload).len();
        self.progress = true;
        self.backoff = 0;
        self.steps += 1;
        if self.ramp < self.calm || self.steps.is_multiple_of(SLOWLY) {
            self.ramp = self.ramp.saturating_add(1);
        }
        true
    }

    /// Those on their way before `number` have been overtaken.
    fn skip_before(&mut self, number: u32) -> usize {
        let count = (number.wrapping_sub(self.first) as usize).min(self.sent);
        let (first, mut newly_lost) = (self.first, 0);
        for (index, outgoing) in self.queue.iter_mut().take(count).enumerate() {
            let State::Flying { skipped, .. } = &mut outgoing.state else { continue };
            *skipped += 1;
            if *skipped >= SKIPS {
                outgoing.state = State::Lost;
                newly_lost += 1;
                self.lost.push_back(first.wrapping_add(index as u32));
            }
        }
        self.flying -= newly_lost;
        self.round.lost += newly_lost as u32;
        newly_lost
    }

    /// Drops what has come off the front.
    fn advance(&mut self) {
        while self.queue.front().is_some_and(|first| first.state == State::Come) {
            self.queue.pop_front();
            self.first = self.first.wrapping_add(1);
            self.sent = self.sent.saturating_sub(1);
        }
        if self.queue.is_empty() {
            // An idle conversation holds nothing.
            (self.queue, self.lost, self.next_late) = (VecDeque::new(), VecDeque::new(), None);
            self.ramp = self.ramp.min(IDLE_WINDOW);
        }
    }

    /// Takes for lost what is late.
    fn find_late(&mut self, now: Moment, trip: &RoundTrip) {
        if self.next_late.is_none_or(|at| now < at) {
            return;
        }
        let silent = !std::mem::take(&mut self.progress);
        let (mut next_late, mut late) = (None, 0);
        for (index, outgoing) in self.queue.iter_mut().take(self.sent).enumerate() {
            let State::Flying { late_at, .. } = &mut outgoing.state else { continue };
            if *late_at <= now {
                outgoing.state = State::Lost;
                late += 1;
                self.lost.push_back(self.first.wrapping_add(index as u32));
                continue;
            }
            next_late = Some(next_late.map_or(*late_at, |known: Moment| known.min(*late_at)));
        }
        let flying = self.flying;
        self.flying -= late;
        self.round.lost += late as u32;
        self.ease(late, flying, now, trip);
        self.next_late = next_late;
        if silent && late > 0 {
            self.backoff = (self.backoff + 1).min(MAX_BACKOFF);
            self.ramp = self.ramp.min(PROBES);
        }
    }

    /// Answers losses: where many are lost at once, fewer go out at once from then on.
    fn ease(&mut self, lost: usize, of: usize, now: Moment, trip: &RoundTrip) {
        if now < self.eased_until || lost < LEAST_RAMP as usize / OVERRUN || lost * OVERRUN < of {
            return;
        }
        self.ramp = (self.ramp / 4 * 3).max(LEAST_RAMP).min(self.ramp);
        self.calm = self.ramp;
        self.eased_until = now + trip.late_after();
    }

    fn next_lost(&mut self, shape: &Shape) -> Option<usize> {
        if self.flying >= self.limit(shape) as usize {
            return None;
        }
        while let Some(number) = self.lost.pop_front() {
            let index = number.wrapping_sub(self.first) as usize;
            if self.queue.get(index).is_some_and(|outgoing| outgoing.state == State::Lost) {
                return Some(index);
            }
        }
        None
    }

    fn next_fresh(&self, shape: &Shape) -> Option<usize> {
        let number = self.first.wrapping_add(self.sent as u32);
        if self.sent >= self.queue.len() || self.flying >= self.limit(shape) as usize {
            return None;
        }
        // With nothing on its way, a segment beyond the window asks whether it has opened.
        let asks = self.sent == 0;
        (is_before(number, self.window) || asks).then_some(self.sent)
    }
}
