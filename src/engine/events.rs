//! The queue of events between an instance and its host: bounded, and honest about what it dropped.

use super::api::{Event, LogLine, State};
use std::collections::VecDeque;
use std::mem;
use std::task::Waker;

/// How many events wait at most, apart from states.
const EVENTS: usize = 256;
/// How many log lines wait at most.
const LINES: usize = 100;
/// How many states wait before a there-and-back (`A, B, A`) of the oldest is folded into its outcome: a host that never
/// reads its events must not cost memory without end.
const STATES: usize = 1024;

enum Entry {
    State(State),
    Other(Event),
    /// The place of the waiting log lines, which are one event when taken.
    Log,
}

/// Events in order. What overflows is the oldest that is no state, and is counted.
#[derive(Default)]
pub(crate) struct EventQueue {
    entries: VecDeque<Entry>,
    states: usize,
    lines: VecDeque<LogLine>,
    dropped: u64,
    closed: bool,
    waiting: Vec<(u64, Waker)>,
}

impl EventQueue {
    /// Appends an event. Nothing is taken any more once `Stopped` is in.
    pub(crate) fn push(&mut self, event: Event) {
        if self.closed {
            return;
        }
        let entry = match event {
            Event::State(state) => {
                self.closed = matches!(state, State::Stopped { .. });
                self.states += 1;
                Entry::State(state)
            }
            Event::Log(lines) => return lines.into_iter().for_each(|line| self.push_line(line)),
            event => Entry::Other(event),
        };
        self.entries.push_back(entry);
        self.shrink();
    }

    /// Appends a log line to those that wait.
    pub(crate) fn push_line(&mut self, line: LogLine) {
        if self.closed {
            return;
        }
        if self.lines.is_empty() {
            self.entries.push_back(Entry::Log);
            self.shrink();
        } else if self.lines.len() == LINES {
            self.lines.pop_front();
            self.dropped += 1;
        }
        self.lines.push_back(line);
    }

    /// Takes the oldest event, or first the number of those that had to go before it.
    pub(crate) fn pop(&mut self) -> Option<Event> {
        if self.dropped > 0 {
            return Some(Event::EventsDropped { count: mem::take(&mut self.dropped) });
        }
        Some(match self.entries.pop_front()? {
            Entry::State(state) => {
                self.states -= 1;
                Event::State(state)
            }
            Entry::Other(event) => event,
            Entry::Log => Event::Log(mem::take(&mut self.lines).into()),
        })
    }

    /// Whether [`EventQueue::pop`] has something to give.
    pub(crate) fn is_ready(&self) -> bool {
        self.dropped > 0 || !self.entries.is_empty()
    }

    /// Whether the last event has been taken.
    pub(crate) fn is_over(&self) -> bool {
        self.closed && self.entries.is_empty() && self.dropped == 0
    }

    /// Remembers whom the next event is to wake, under the waiter's own number. Returns the waker that this replaces, to
    /// be dropped after the caller's lock is released.
    #[must_use]
    pub(crate) fn wait(&mut self, waiter: u64, waker: Waker) -> Option<Waker> {
        match self.waiting.iter_mut().find(|(known, _)| *known == waiter) {
            Some((_, known)) => Some(mem::replace(known, waker)),
            None => {
                self.waiting.push((waiter, waker));
                None
            }
        }
    }

    /// Forgets a waiter.
    #[must_use]
    pub(crate) fn forget(&mut self, waiter: u64) -> Option<Waker> {
        let at = self.waiting.iter().position(|(known, _)| *known == waiter)?;
        Some(self.waiting.swap_remove(at).1)
    }

    /// All that wait for an event. The caller wakes them after its lock is released.
    #[must_use]
    pub(crate) fn take_waiting(&mut self) -> Vec<(u64, Waker)> {
        mem::take(&mut self.waiting)
    }

    fn shrink(&mut self) {
        if self.entries.len() - self.states > EVENTS {
            let oldest = self.entries.iter().position(|entry| !matches!(entry, Entry::State(_)));
            match oldest.and_then(|at| self.entries.remove(at)) {
                Some(Entry::Log) => self.dropped += mem::take(&mut self.lines).len() as u64,
                _ => self.dropped += 1,
            }
        }
        if self.states > STATES {
            self.fold_states();
        }
    }

    /// Removes the oldest pair of states that led back to the state before it.
    fn fold_states(&mut self) {
        let places: Vec<usize> = (0..self.entries.len())
            .filter(|at| matches!(self.entries.get(*at), Some(Entry::State(_))))
            .collect();
        let state = |at: usize| match self.entries.get(at) {
            Some(Entry::State(state)) => Some(state),
            _ => None,
        };
        let back = places.windows(3).find(|three| state(three[0]) == state(three[2]));
        if let Some(&[_, there, back]) = back {
            self.entries.remove(back);
            self.entries.remove(there);
            self.states -= 2;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::LogLevel;

    fn line(text: usize) -> LogLine {
        LogLine { level: LogLevel::Info, unix_millis: 0, text: text.to_string() }
    }

    fn drain(queue: &mut EventQueue) -> Vec<Event> {
        std::iter::from_fn(|| queue.pop()).collect()
    }

    #[test]
    fn states_outlive_a_flood_in_order() {
        let mut queue = EventQueue::default();
        queue.push(Event::State(State::Starting));
        for seconds in 0..300 {
            queue.push(Event::ClockSkew { seconds });
            if seconds == 150 {
                queue.push(Event::State(State::Connecting));
            }
        }
        queue.push(Event::State(State::Stopped { error: None }));
        queue.push(Event::ClockSkew { seconds: 999 });
        assert!(!queue.is_over());
        let events = drain(&mut queue);
        assert_eq!(events[0], Event::EventsDropped { count: 44 });
        assert_eq!(events[1], Event::State(State::Starting));
        assert_eq!(events[2], Event::ClockSkew { seconds: 44 });
        assert_eq!(events.last(), Some(&Event::State(State::Stopped { error: None })));
        assert_eq!(events.len(), 1 + 256 + 3);
        assert!(events.contains(&Event::State(State::Connecting)));
        assert!(queue.is_over());
    }

    #[test]
    fn lines_gather_in_one_batch_at_the_place_of_the_first() {
        let mut queue = EventQueue::default();
        queue.push_line(line(0));
        queue.push(Event::State(State::Starting));
        (1..103).for_each(|n| queue.push_line(line(n)));
        let events = drain(&mut queue);
        assert_eq!(events[0], Event::EventsDropped { count: 3 });
        let Event::Log(lines) = &events[1] else { panic!("{events:?}") };
        assert_eq!((lines.len(), &*lines[0].text, &*lines[99].text), (100, "3", "102"));
        assert_eq!(events[2], Event::State(State::Starting));
    }

    #[test]
    fn a_host_that_never_reads_costs_a_bounded_amount() {
        let mut queue = EventQueue::default();
        for _ in 0..5000 {
            queue.push(Event::State(State::Connected));
            queue.push(Event::State(State::NoNetwork));
        }
        assert!(queue.entries.len() <= 1024, "{}", queue.entries.len());
        let states = drain(&mut queue);
        assert!(states.windows(2).all(|two| two[0] != two[1]), "still a sequence of changes");
        assert_eq!(states.last(), Some(&Event::State(State::NoNetwork)));
    }
}
