//! The receiving direction: wire bytes read into a large buffer, records opened where they lie, payload out as ranges of it.

use super::super::Carrier;
use super::super::queue::{affordable, class_for};
use super::super::stream::StreamError;
use crate::buffer::{Buffer, Class, Pool, Turn};
use crate::vmess::chunk::{OpenError, Opened, Opener};
use crate::vmess::client::Downlink;
use crate::vmess::command::SwitchAccount;
use std::collections::VecDeque;
use std::ops::Range;
use std::task::{Context, Poll, ready};

/// Payload shorter than this is moved up to the payload before it instead of becoming a slice of its own.
const MERGED: usize = 512;
/// Payload that fills less than one part in so many of the memory it holds is copied to a smaller buffer.
const SPARSE: usize = 4;
/// Spans that an idle stream keeps room for.
const KEPT_SPANS: usize = 8;

/// What opens the wire bytes of one end: chunks, and for a client the response header before them.
pub(crate) trait Open {
    /// Opens what is at the start of `input`, in place: see [`Opener::open`].
    fn open(&mut self, input: &mut [u8]) -> Result<Opened, OpenError>;

    /// Judges the end of the carrier.
    fn check_end(&self) -> Result<(), OpenError>;

    /// Whether everything that comes before the chunks has come.
    fn answered(&self) -> bool {
        true
    }
}

impl Open for Downlink {
    fn open(&mut self, input: &mut [u8]) -> Result<Opened, OpenError> {
        self.open(input)
    }

    fn check_end(&self) -> Result<(), OpenError> {
        self.check_end()
    }

    fn answered(&self) -> bool {
        self.answered()
    }
}

impl Open for Opener {
    fn open(&mut self, input: &mut [u8]) -> Result<Opened, OpenError> {
        self.open(input)
    }

    fn check_end(&self) -> Result<(), OpenError> {
        self.check_end()
    }
}

/// The receiving direction.
pub(crate) struct Opening<O> {
    opener: O,
    /// Wire bytes of a record that is not whole yet.
    tail: Buffer,
    /// How many bytes, counted from the start of `tail`, the opener asked for.
    need: usize,
    /// The memory that `spans` lie in.
    opened: Buffer,
    /// Payload that waits to be handed on, as ranges of the slab of `opened`.
    spans: VecDeque<Range<usize>>,
    turn: Turn,
    /// Whether neighbouring payload may become one piece.
    merges: bool,
    /// Whether the response header came without payload behind it.
    alone: bool,
    /// Whether `tail` has not been looked at.
    early: bool,
    ended: bool,
    records: u32,
}

impl<O: Open> Opening<O> {
    /// Nothing has been read yet.
    pub(super) fn new(opener: O, merges: bool) -> Self {
        Self {
            opener,
            tail: Buffer::empty(),
            need: 0,
            opened: Buffer::empty(),
            spans: VecDeque::new(),
            turn: Turn::default(),
            merges,
            alone: false,
            early: false,
            ended: false,
            records: 0,
        }
    }

    /// Takes the first wire bytes, which have been read already, in a buffer that nobody else refers to.
    pub(super) fn begin_with(&mut self, early: Buffer) {
        self.early = !early.is_empty();
        self.tail = early;
    }

    /// Whether a valid response header has come.
    pub(super) fn answered(&self) -> bool {
        self.opener.answered()
    }

    /// Whether a valid response header has come, and nothing with it.
    pub(super) const fn answered_alone(&self) -> bool {
        self.alone
    }

    /// How many records have been opened.
    pub(super) const fn records(&self) -> u32 {
        self.records
    }

    /// Whether the direction has ended.
    pub(super) const fn is_over(&self) -> bool {
        self.ended
    }

    /// Gives up its turn to get memory.
    pub(super) fn pass_turn(&mut self) {
        self.turn.pass();
    }

    /// Drops everything.
    pub(super) fn clear(&mut self) {
        self.turn.pass();
        self.tail = Buffer::empty();
        self.opened = Buffer::empty();
        self.spans = VecDeque::new();
    }

    /// The next payload; `None` at the proper end.
    pub(super) fn poll_next<C: Carrier>(
        &mut self,
        cx: &mut Context<'_>,
        carrier: &mut C,
        pool: &Pool,
    ) -> Poll<Result<Option<Buffer>, StreamError>> {
        loop {
            if let Some(span) = self.spans.pop_front() {
                return Poll::Ready(Ok(Some(self.piece(span))));
            }
            if self.ended {
                self.clear();
                return Poll::Ready(Ok(None));
            }
            if std::mem::take(&mut self.early) {
                let early = std::mem::take(&mut self.tail);
                self.open(early)?;
                continue;
            }
            let ready = carrier.poll_read_ready(cx);
            if ready.is_pending() {
                self.rest(pool);
            }
            ready!(ready).map_err(StreamError::from)?;
            ready!(self.poll_read(cx, carrier, pool))?;
        }
    }

    /// One piece of payload; the last one takes the memory along.
    fn piece(&mut self, span: Range<usize>) -> Buffer {
        let mut piece =
            if self.spans.is_empty() { std::mem::take(&mut self.opened) } else { self.opened.clone() };
        piece.set_range(span);
        if self.spans.is_empty() && self.spans.capacity() > KEPT_SPANS {
            self.spans = VecDeque::new();
        }
        piece
    }

    /// Reads once, behind the unfinished record, and opens what is whole.
    fn poll_read<C: Carrier>(
        &mut self,
        cx: &mut Context<'_>,
        carrier: &mut C,
        pool: &Pool,
    ) -> Poll<Result<(), StreamError>> {
        let least = class_for(self.need.max(self.tail.len() + 1));
        let mut buffer = match pool.take(affordable(pool).max(least)) {
            Some(buffer) => buffer,
            None => ready!(pool.poll_take(cx, least, &mut self.turn)),
        };
        self.turn.pass();
        buffer.append(&self.tail);
        let read = carrier.poll_read(cx, buffer.spare_mut());
        let n = ready!(read).map_err(StreamError::from)?;
        if n == 0 {
            self.ended = true;
            return Poll::Ready(self.opener.check_end().map_err(open_error));
        }
        buffer.commit(n);
        self.tail = Buffer::empty();
        let answered = self.answered();
        self.open(buffer)?;
        self.alone |= !answered && self.answered() && self.spans.is_empty() && self.tail.is_empty();
        self.compact(pool);
        Poll::Ready(Ok(()))
    }

    /// Opens every whole record in `buffer`, which nobody else refers to.
    fn open(&mut self, mut buffer: Buffer) -> Result<(), StreamError> {
        let (slab, wire) = buffer.parts_mut().expect("fresh from the pool");
        let mut at = wire.start;
        self.need = 0;
        while at < wire.end {
            let step = self.opener.open(&mut slab[at..wire.end]).map_err(open_error)?;
            match step {
                Opened::Need(need) => {
                    self.need = need;
                    break;
                }
                Opened::Data { payload, consumed } => {
                    let (start, end) = (at + payload.start, at + payload.end);
                    at += consumed;
                    self.records = self.records.saturating_add(1);
                    match self.spans.back_mut() {
                        _ if start == end => {}
                        Some(last) if self.merges && end - start < MERGED => {
                            slab.copy_within(start..end, last.end);
                            last.end += end - start;
                        }
                        _ => self.spans.push_back(start..end),
                    }
                }
                Opened::End { .. } => {
                    self.ended = true;
                    at = wire.end;
                }
            }
        }
        if at < wire.end {
            self.tail = buffer.clone();
            self.tail.set_range(at..wire.end);
        }
        if !self.spans.is_empty() {
            self.opened = buffer;
        }
        Ok(())
    }

    /// Moves little payload out of much memory, so that whoever holds it holds little.
    fn compact(&mut self, pool: &Pool) {
        let total: usize = self.spans.iter().map(ExactSizeIterator::len).sum();
        let held = self.opened.held();
        if total == 0 || total * SPARSE > held || held <= Class::Small.slab_len() {
            return;
        }
        let Some(mut small) = pool.take(class_for(total)) else { return };
        let mut spans = VecDeque::with_capacity(if self.merges { 1 } else { self.spans.len() });
        for span in self.spans.drain(..) {
            let start = small.parts_mut().map_or(0, |(_, data)| data.end);
            let mut piece = self.opened.clone();
            piece.set_range(span.clone());
            small.append(&piece);
            match spans.back_mut() {
                Some(Range { end, .. }) if self.merges => *end = start + span.len(),
                _ => spans.push_back(start..start + span.len()),
            }
        }
        self.spans = spans;
        self.opened = small;
    }

    /// Lets the memory of an unfinished record go down to its size when nothing more is at hand.
    fn rest(&mut self, pool: &Pool) {
        if self.tail.held() > Class::Small.slab_len()
            && self.tail.len() <= Class::Small.capacity()
            && let Some(small) = pool.copy(&self.tail)
        {
            self.tail = small;
        }
    }
}

impl Opening<Downlink> {
    /// Takes out the command of the response header, once.
    pub(super) fn take_command(&mut self) -> Option<SwitchAccount> {
        self.opener.take_command()
    }

    /// Whether the terminating chunk has come.
    pub(super) const fn is_terminated(&self) -> bool {
        self.opener.is_terminated()
    }

    /// Whether payload has come without one.
    pub(super) const fn lacks_terminator(&self) -> bool {
        self.opener.lacks_terminator()
    }
}

/// What the opener found, as the relay is to see it.
fn open_error(error: OpenError) -> StreamError {
    match error {
        OpenError::Forged | OpenError::ForgedResponse => StreamError::Forged,
        OpenError::Truncated => StreamError::Truncated,
        OpenError::Unanswered => StreamError::Rejected,
        OpenError::Undersized => StreamError::Protocol("a chunk is smaller than its tag and padding"),
        OpenError::MalformedResponse => StreamError::Protocol("the response header is malformed"),
    }
}
