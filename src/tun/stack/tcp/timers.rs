//! The flows' deadlines: an indexed heap, so that the next one is exact and a flow without one costs nothing.

use crate::time::Moment;

/// Says that a flow has no entry.
pub(crate) const NONE: u32 = u32::MAX;

/// A binary heap of (deadline, slot), with the place of each slot's entry.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    heap: Vec<(Moment, u32)>,
    /// By slot: where its entry is in the heap, or [`NONE`].
    places: Vec<u32>,
}

impl Timers {
    /// The earliest deadline.
    pub(crate) fn next(&self) -> Option<Moment> {
        self.heap.first().map(|(due, _)| *due)
    }

    /// The slot with the earliest deadline, if that has passed. Its entry stays until it is set anew.
    pub(crate) fn due(&self, now: Moment) -> Option<u32> {
        self.heap.first().filter(|(due, _)| *due <= now).map(|(_, slot)| *slot)
    }

    /// Sets, moves or removes a slot's deadline.
    pub(crate) fn set(&mut self, slot: u32, due: Option<Moment>) {
        let place = self.places.get(slot as usize).copied().unwrap_or(NONE) as usize;
        match (self.heap.get(place).copied(), due) {
            (None, None) => {}
            (None, Some(due)) => {
                if self.places.len() <= slot as usize {
                    self.places.resize(slot as usize + 1, NONE);
                }
                self.heap.push((due, slot));
                self.up(self.heap.len() - 1);
            }
            (Some((old, _)), Some(due)) => {
                self.heap[place].0 = due;
                if due < old {
                    self.up(place);
                } else if due > old {
                    self.down(place);
                }
            }
            (Some((old, _)), None) => {
                self.heap.swap_remove(place);
                self.places[slot as usize] = NONE;
                if let Some((moved, _)) = self.heap.get(place) {
                    if *moved < old { self.up(place) } else { self.down(place) }
                }
            }
        }
    }

    fn up(&mut self, mut place: usize) {
        let entry = self.heap[place];
        while place > 0 {
            let parent = (place - 1) / 2;
            if self.heap[parent].0 <= entry.0 {
                break;
            }
            self.put(place, self.heap[parent]);
            place = parent;
        }
        self.put(place, entry);
    }

    fn down(&mut self, mut place: usize) {
        let entry = self.heap[place];
        loop {
            let mut child = 2 * place + 1;
            if child + 1 < self.heap.len() && self.heap[child + 1].0 < self.heap[child].0 {
                child += 1;
            }
            match self.heap.get(child) {
                Some(below) if below.0 < entry.0 => self.put(place, *below),
                _ => break,
            }
            place = child;
        }
        self.put(place, entry);
    }

    fn put(&mut self, place: usize, entry: (Moment, u32)) {
        self.heap[place] = entry;
        self.places[entry.1 as usize] = place as u32;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entropy::{Entropy, SeededEntropy};

    #[test]
    fn the_next_deadline_is_always_the_earliest_that_is_set() {
        let mut entropy = SeededEntropy::new(1);
        let (mut timers, mut model) = (Timers::default(), vec![None; 64]);
        for _ in 0..20_000 {
            let slot = entropy.below(64);
            let due = (entropy.below(3) > 0).then(|| Moment::from_nanos(1 + u64::from(entropy.below(1000))));
            timers.set(slot, due);
            model[slot as usize] = due;
            let first = model.iter().flatten().min().copied();
            assert_eq!(timers.next(), first);
            if let Some(first) = first {
                let slot = timers.due(first).expect("due");
                assert_eq!(model[slot as usize], Some(first));
                assert_eq!(timers.due(first - std::time::Duration::from_nanos(1)), None);
            }
        }
    }
}
