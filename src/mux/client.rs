//! The client's bookkeeping of one carrier: which sessions there are, and whether it takes another one.

use super::Action;
use super::frame::{Frame, Status};
use super::xudp;
use std::collections::HashSet;

/// The most sessions over a carrier's life, as V2Ray has it.
pub const MAX_TOTAL: u16 = 128;
/// Chunks either way from which a carrier takes no new session: at 65,536 its nonces repeat.
pub const MAX_CHUNKS: u32 = 60_000;

/// A client's sessions on one carrier.
#[derive(Debug)]
pub struct Client {
    open: HashSet<u16>,
    /// The number of the last session, which is how many there were.
    last: u16,
    concurrency: u16,
    chunks: u32,
    retired: bool,
}

impl Client {
    /// A carrier that takes `concurrency` sessions at a time.
    pub fn new(concurrency: u16) -> Self {
        Self { open: HashSet::new(), last: 0, concurrency, chunks: 0, retired: false }
    }

    /// A carrier for the one session of XUDP, which is open from the start.
    pub fn alone() -> Self {
        let open = HashSet::from([xudp::SESSION]);
        Self { open, last: MAX_TOTAL, concurrency: 1, chunks: 0, retired: true }
    }

    /// Opens a session; `None` if the carrier takes no more, now or ever.
    pub fn open(&mut self) -> Option<u16> {
        if self.is_spent() || self.open.len() >= usize::from(self.concurrency) {
            return None;
        }
        self.last += 1;
        self.open.insert(self.last);
        Some(self.last)
    }

    /// Forgets a session that has ended on both sides, or for which an `End` is on its way.
    pub fn close(&mut self, id: u16) {
        self.open.remove(&id);
    }

    /// Learns how many chunks the carrier has moved in the direction that moved more.
    pub const fn set_chunks(&mut self, chunks: u32) {
        self.chunks = chunks;
    }

    /// Takes no new session from here on.
    pub const fn retire(&mut self) {
        self.retired = true;
    }

    /// Whether it will never take a new session again.
    pub const fn is_spent(&self) -> bool {
        self.retired || self.last >= MAX_TOTAL || self.chunks >= MAX_CHUNKS
    }

    /// Says what a frame means. An ended session is forgotten.
    pub fn receive(&mut self, frame: &Frame) -> Action {
        match frame.status {
            Status::Keep if self.open.contains(&frame.id) => Action::Deliver(frame.remote.clone()),
            // We have told it already that the session is over, if there ever was one.
            Status::Keep if (1..=self.last).contains(&frame.id) => Action::Ignore,
            Status::Keep => Action::Refuse,
            Status::End if self.open.remove(&frame.id) => Action::End { error: frame.error },
            Status::End | Status::New | Status::KeepAlive => Action::Ignore,
        }
    }
}
