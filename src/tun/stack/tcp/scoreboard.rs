//! What the peer has reported with SACK: ranges that need no retransmission.

use super::seq::Seq;

/// The most ranges that are remembered; what is reported beyond them is sent again.
const MAX_RANGES: usize = 128;

/// Ranges above the acknowledged part: sorted, apart.
#[derive(Debug, Default)]
pub(crate) struct Scoreboard {
    ranges: Vec<(Seq, Seq)>,
}

impl Scoreboard {
    /// Adds reported blocks, as far as they lie between `una` and `next`.
    pub(crate) fn add(&mut self, blocks: &[(Seq, Seq)], una: Seq, next: Seq) {
        for &(start, end) in blocks {
            if !start.before(end) || start.before(una) || end.after(next) {
                continue;
            }
            let first = self.ranges.partition_point(|range| range.1.before(start));
            let behind = self.ranges.partition_point(|range| !range.0.after(end));
            if first < behind {
                let merged = (self.ranges[first].0.min(start), self.ranges[behind - 1].1.max(end));
                self.ranges[first] = merged;
                self.ranges.drain(first + 1..behind);
            } else if self.ranges.len() < MAX_RANGES {
                self.ranges.insert(first, (start, end));
            }
        }
    }

    /// Forgets what lies before `una`.
    pub(crate) fn drop_before(&mut self, una: Seq) {
        let gone = self.ranges.partition_point(|range| !range.1.after(una));
        self.ranges.drain(..gone);
        if let Some(first) = self.ranges.first_mut() {
            first.0 = first.0.max(una);
        }
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        self.ranges.clear();
    }

    /// The end of the last range.
    pub(crate) fn highest(&self) -> Option<Seq> {
        self.ranges.last().map(|range| range.1)
    }

    /// Bytes in all ranges.
    pub(crate) fn bytes(&self) -> u32 {
        self.ranges.iter().map(|range| range.1.since(range.0)).sum()
    }

    /// The first hole from `from` on, up to `to`.
    pub(crate) fn hole(&self, from: Seq, to: Seq) -> Option<(Seq, Seq)> {
        let mut start = from;
        for range in &self.ranges {
            if range.0.after(start) {
                break;
            }
            start = start.max(range.1);
        }
        let end = self.ranges.iter().find(|range| range.0.after(start)).map_or(to, |range| range.0.min(to));
        start.before(end).then_some((start, end))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_merge_and_holes_lie_between_them() {
        let mut board = Scoreboard::default();
        let base = Seq(u32::MAX - 50);
        let at = |n: u32| base + n;
        board.add(&[(at(100), at(200)), (at(300), at(400)), (at(500), at(500))], base, at(1000));
        assert_eq!((board.bytes(), board.highest()), (200, Some(at(400))));
        assert_eq!(board.hole(base, at(400)), Some((base, at(100))));
        assert_eq!(board.hole(at(100), at(400)), Some((at(200), at(300))));
        assert_eq!(board.hole(at(250), at(260)), Some((at(250), at(260))));
        assert_eq!(board.hole(at(300), at(400)), None);
        board.add(&[(at(150), at(350))], base, at(1000));
        assert_eq!((board.ranges.len(), board.bytes()), (1, 300));
        board.add(&[(at(10), at(20)), (at(900), at(1001)), (base - 5, at(5))], base, at(1000));
        assert_eq!(board.ranges, [(at(10), at(20)), (at(100), at(400))]);
        board.drop_before(at(150));
        assert_eq!(board.ranges, [(at(150), at(400))]);
        board.clear();
        assert_eq!(board.hole(base, at(10)), Some((base, at(10))));
    }
}
