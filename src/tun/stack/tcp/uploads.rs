//! How many flows upload at the moment: they share the device's queue.

use crate::time::Moment;

/// How long a flow counts after its last data, at least; at most twice as long.
const EPOCH_NANOS: u64 = 50_000_000;

/// Counts flows that brought data in the epoch that runs and in the one before.
#[derive(Debug, Default)]
pub(crate) struct Uploads {
    epoch: u32,
    now: u32,
    before: u32,
}

impl Uploads {
    /// Notes that a flow brings data; `seen` is the flow's own mark.
    pub(crate) fn note(&mut self, now: Moment, seen: &mut u32) {
        // From one on: a flow that has brought nothing bears the mark zero.
        let epoch = (now.as_nanos() / EPOCH_NANOS) as u32 | 1 << 31;
        if epoch != self.epoch {
            let follows = epoch == self.epoch.wrapping_add(1);
            (self.epoch, self.before, self.now) = (epoch, if follows { self.now } else { 0 }, 0);
        }
        if *seen != epoch {
            *seen = epoch;
            self.now += 1;
        }
    }

    /// How many flows upload, one at least.
    pub(crate) fn count(&self) -> u32 {
        self.now.max(self.before).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flows_count_in_their_epoch_and_the_next() {
        let (mut uploads, mut flows) = (Uploads::default(), [0; 5]);
        assert_eq!(uploads.count(), 1);
        for _ in 0..3 {
            flows.iter_mut().for_each(|seen| uploads.note(Moment::from_millis(60), seen));
        }
        assert_eq!(uploads.count(), 5);
        uploads.note(Moment::from_millis(110), &mut flows[0]);
        assert_eq!(uploads.count(), 5);
        uploads.note(Moment::from_millis(160), &mut flows[0]);
        assert_eq!(uploads.count(), 1);
        uploads.note(Moment::from_millis(900), &mut flows[1]);
        assert_eq!(uploads.count(), 1);
    }
}
