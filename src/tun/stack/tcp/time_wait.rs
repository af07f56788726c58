//! TIME-WAIT: what is remembered of a flow that we closed first, so that its last packets find an answer.

use super::seq::Seq;
use super::table::Key;
use crate::time::Moment;
use std::collections::VecDeque;
use std::time::Duration;

/// How long an entry lives. The way to the local kernel is short: nothing stays under way for minutes.
pub(crate) const LIFETIME: Duration = Duration::from_secs(2);
/// The most entries; the oldest goes first.
pub(crate) const MAX: usize = 4096;

/// A flow in TIME-WAIT.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Entry {
    pub(crate) key: Key,
    /// The next sequence number that we would send.
    pub(crate) send_next: Seq,
    /// The next sequence number that we expect.
    pub(crate) recv_next: Seq,
    expires: Moment,
    /// Removed before its time.
    gone: bool,
}

/// All entries, oldest first; all live equally long.
#[derive(Debug, Default)]
pub(crate) struct TimeWait {
    entries: VecDeque<Entry>,
    /// The number of the first entry; numbers count up, and wrap within [`TimeWait::NUMBERS`].
    first: u32,
}

impl TimeWait {
    const NUMBERS: u32 = (1 << 31) - 1;

    /// Adds an entry and returns its number.
    pub(crate) fn push(&mut self, now: Moment, key: Key, send_next: Seq, recv_next: Seq) -> u32 {
        let expires = now + LIFETIME;
        self.entries.push_back(Entry { key, send_next, recv_next, expires, gone: false });
        (self.first + self.entries.len() as u32 - 1) & Self::NUMBERS
    }

    /// Whether the next [`TimeWait::push`] needs a [`TimeWait::pop`] before it.
    pub(crate) fn is_full(&self) -> bool {
        self.entries.len() >= MAX
    }

    /// The entry with a number.
    pub(crate) fn get(&self, number: u32) -> Option<&Entry> {
        self.entries.get(self.place(number)).filter(|entry| !entry.gone)
    }

    /// Marks an entry as gone before its time.
    pub(crate) fn remove(&mut self, number: u32) {
        let place = self.place(number);
        if let Some(entry) = self.entries.get_mut(place) {
            entry.gone = true;
        }
    }

    /// Takes the oldest entry out and returns it with its number; entries that are gone are skipped.
    pub(crate) fn pop(&mut self) -> Option<(u32, Entry)> {
        loop {
            let entry = self.entries.pop_front()?;
            let number = self.first;
            self.first = (self.first + 1) & Self::NUMBERS;
            if self.entries.is_empty() {
                self.entries = VecDeque::new();
            }
            if !entry.gone {
                return Some((number, entry));
            }
        }
    }

    /// Drops entries at the front that are gone, so that [`TimeWait::next`] is exact.
    pub(crate) fn tidy(&mut self) {
        while self.entries.front().is_some_and(|entry| entry.gone) {
            self.entries.pop_front();
            self.first = (self.first + 1) & Self::NUMBERS;
        }
    }

    /// When the oldest entry expires.
    pub(crate) fn next(&self) -> Option<Moment> {
        self.entries.front().map(|entry| entry.expires)
    }

    fn place(&self, number: u32) -> usize {
        (number.wrapping_sub(self.first) & Self::NUMBERS) as usize
    }
}
