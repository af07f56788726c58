//! The segments that come from the peer: put in order, held until they are read, and acknowledged.

use super::segment::MAX_ACKS;
use super::shape::Shape;
use std::collections::VecDeque;

/// The fewest segments that the peer is told it may have on its way.
const LEAST_WINDOW: u32 = 4;
/// What a segment costs beside its payload.
const SLOT: usize = 32;

/// The receiving half of a conversation.
#[derive(Debug, Default)]
pub(super) struct Receiving {
    /// The number of the first slot.
    next: u32,
    /// What has come, by number; `None` where it is missing.
    slots: VecDeque<Option<Box<[u8]>>>,
    /// How many slots at the front are filled.
    ready: usize,
    /// How much of the first one has been read.
    offset: usize,
    /// Bytes that are held.
    held: usize,
    /// The numbers that are to be acknowledged.
    acks: Vec<[u8; 4]>,
    timestamp: u32,
    /// Whether an acknowledgement is due without any number.
    is_due: bool,
    /// The end of the window, as the peer was told last.
    told: u32,
    /// Whether what comes is dropped: nobody will read it.
    discards: bool,
}

/// An acknowledgement to be sent.
pub(super) struct Acks {
    pub(super) receiving_window: u32,
    pub(super) receiving_next: u32,
    pub(super) timestamp: u32,
    pub(super) numbers: Vec<[u8; 4]>,
}

impl Receiving {
    /// Bytes that are held.
    pub(super) const fn held(&self) -> usize {
        self.held
    }

    /// The first number that has not come.
    pub(super) const fn next(&self) -> u32 {
        self.next.wrapping_add(self.ready as u32)
    }

    /// Whether there is something to read.
    pub(super) const fn is_ready(&self) -> bool {
        self.ready > 0
    }

    /// Takes a segment, if `most` bytes suffice for all that is held. One that is not taken comes again.
    pub(super) fn take(&mut self, number: u32, timestamp: u32, payload: &[u8], shape: &Shape, most: usize) {
        let index = number.wrapping_sub(self.next) as usize;
        if index > i32::MAX as usize || index < self.ready {
            // It has come before: the acknowledgement was lost.
            return self.acknowledge(number, timestamp);
        }
        if index >= shape.ahead {
            self.is_due = true;
            return;
        }
        if matches!(self.slots.get(index), Some(Some(_))) {
            return self.acknowledge(number, timestamp);
        }
        // The one that can be read at once is taken in any case, so that nobody waits for ever.
        if self.held + payload.len() + SLOT > most && index > 0 {
            return;
        }
        self.acknowledge(number, timestamp);
        if self.slots.len() <= index {
            self.slots.resize(index + 1, None);
        }
        let kept = if self.discards { &[] } else { payload };
        self.held += kept.len() + SLOT;
        self.slots[index] = Some(kept.into());
        while matches!(self.slots.get(self.ready), Some(Some(_))) {
            self.ready += 1;
        }
        self.drop_empty();
    }

    /// Reads what is at hand; 0 if nothing is.
    pub(super) fn read(&mut self, out: &mut [u8], shape: &Shape, most: usize) -> usize {
        let mut read = 0;
        while let Some(Some(first)) = self.slots.front() {
            let (rest, room) = (&first[self.offset..], &mut out[read..]);
            if room.is_empty() {
                break;
            }
            let n = rest.len().min(room.len());
            room[..n].copy_from_slice(&rest[..n]);
            read += n;
            self.offset += n;
            if self.offset == first.len() {
                self.drop_first();
                self.drop_empty();
            }
        }
        // The peer may be waiting for a window that was nearly full when it last heard of it.
        let opened = self.window(shape, most).wrapping_sub(self.told) as i32;
        let left = self.told.wrapping_sub(self.next()) as i32;
        let (half, few) = ((shape.window / 2).max(1) as i32, LEAST_WINDOW as i32 * 2);
        self.is_due |= self.told != 0 && (opened >= half || left < few && opened >= few);
        read
    }

    /// Drops what is held and what comes.
    pub(super) fn discard(&mut self) {
        self.discards = true;
        for slot in self.slots.iter_mut().flatten() {
            *slot = Box::default();
        }
        self.offset = 0;
        self.held = self.slots.iter().flatten().count() * SLOT;
        self.drop_empty();
    }

    /// What the peer is to be told, if anything, with as many numbers as fit `room` bytes.
    pub(super) fn next_acks(&mut self, room: usize, shape: &Shape, most: usize) -> Option<Acks> {
        if self.acks.is_empty() && !self.is_due {
            return None;
        }
        let count = self.acks.len().min(room / 4).min(MAX_ACKS);
        let numbers = self.acks.drain(..count).collect();
        if self.acks.is_empty() {
            self.acks = Vec::new();
        }
        self.is_due = false;
        self.told = self.window(shape, most);
        let (receiving_next, timestamp) = (self.next(), self.timestamp);
        Some(Acks { receiving_window: self.told, receiving_next, timestamp, numbers })
    }

    /// Whether there is something to acknowledge.
    pub(super) fn has_acks(&self) -> bool {
        self.is_due || !self.acks.is_empty()
    }

    /// The first number that we do not take.
    fn window(&self, shape: &Shape, most: usize) -> u32 {
        let room = most.min(shape.read_buffer).saturating_sub(self.held) / (shape.payload + SLOT);
        let room = u32::try_from(room).unwrap_or(u32::MAX);
        let taken = self.slots.len() as u32;
        self.next.wrapping_add(shape.window.min(taken.saturating_add(room)).max(LEAST_WINDOW))
    }

    fn acknowledge(&mut self, number: u32, timestamp: u32) {
        if self.acks.is_empty() || timestamp.wrapping_sub(self.timestamp) < i32::MAX as u32 {
            self.timestamp = timestamp;
        }
        // Numbers beyond are known from the first that has not come, or are asked for again.
        if self.acks.len() < 4 * MAX_ACKS {
            self.acks.push(number.to_be_bytes());
        }
    }

    fn drop_first(&mut self) {
        if let Some(Some(first)) = self.slots.pop_front() {
            self.held -= first.len() + SLOT;
            self.next = self.next.wrapping_add(1);
            self.ready -= 1;
            self.offset = 0;
        }
        if self.slots.is_empty() {
            self.slots = VecDeque::new();
        }
    }

    /// Nobody reads segments without payload.
    fn drop_empty(&mut self) {
        while self.slots.front().is_some_and(|first| first.as_ref().is_some_and(|first| first.is_empty())) {
            self.drop_first();
        }
    }
}
