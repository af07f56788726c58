//! Two of our conversations over a network that loses, delays, reorders and repeats, in a time of its own.

mod close;
mod hostile;
mod transfer;

use super::conversation::{Conversation, Read};
use super::segment::Segment;
use super::shape::{Shape, Terms};
use crate::entropy::{Entropy, SeededEntropy};
use crate::time::Moment;
use std::collections::BTreeMap;
use std::time::Duration;

/// What one end may hold in these tests, unless they say otherwise.
const MOST: usize = 4 << 20;

pub(super) const fn terms() -> Terms {
    Terms {
        mtu: 1350,
        tti: Duration::from_millis(50),
        uplink_capacity: 5,
        downlink_capacity: 20,
        congestion: false,
        read_buffer: 2 << 20,
        write_buffer: 2 << 20,
    }
}

pub(super) fn shape() -> Shape {
    Shape::new(&terms(), 6, 6)
}

/// How the network treats datagrams, in percent and milliseconds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Weather {
    loss: u32,
    repeats: u32,
    delay: u32,
    jitter: u32,
}

pub(super) const CLEAR: Weather = Weather { loss: 0, repeats: 0, delay: 10, jitter: 0 };

/// Two ends and what is between them.
pub(super) struct Net {
    ends: [Conversation; 2],
    now: Moment,
    weather: Weather,
    entropy: SeededEntropy,
    /// Datagrams by arrival and order, with whom they are for.
    air: BTreeMap<(Moment, u64), (usize, Vec<u8>)>,
    sent: u64,
    most: usize,
    /// Which datagrams get lost in any weather.
    swallows: fn(&[u8]) -> bool,
}

impl Net {
    pub(super) fn new(weather: Weather, seed: u64, shape: Shape) -> Self {
        let now = Moment::from_millis(5_000_000);
        let end = || Conversation::new(7, shape, now);
        let (entropy, air) = (SeededEntropy::new(seed), BTreeMap::new());
        Self { ends: [end(), end()], now, weather, entropy, air, sent: 0, most: MOST, swallows: |_| false }
    }

    /// Lets both ends say what they have to.
    fn talk(&mut self) {
        for end in 0..2 {
            let mut datagram = Vec::new();
            while self.ends[end].say(self.now, self.most, &mut datagram) {
                assert!(datagram.len() <= 1344, "{} bytes", datagram.len());
                self.send(1 - end, std::mem::take(&mut datagram));
            }
        }
    }

    fn send(&mut self, to: usize, datagram: Vec<u8>) {
        let Weather { loss, repeats, delay, jitter } = self.weather;
        let copies = 1 + usize::from(self.entropy.below(100) < repeats);
        for _ in 0..copies {
            if self.entropy.below(100) < loss || (self.swallows)(&datagram) {
                continue;
            }
            let wait = delay + self.entropy.below(jitter + 1);
            self.sent += 1;
            self.air
                .insert((self.now + Duration::from_millis(wait.into()), self.sent), (to, datagram.clone()));
        }
    }

    /// Goes on to the next thing that happens; `false` if nothing does before `until`.
    pub(super) fn step(&mut self, until: Moment) -> bool {
        self.talk();
        let arrival = self.air.keys().next().map(|(at, _)| *at);
        let deadlines = self.ends.iter().filter_map(Conversation::deadline);
        let Some(next) = deadlines.chain(arrival).min().filter(|next| *next <= until) else {
            self.now = until;
            return false;
        };
        assert!(
            next > self.now || arrival == Some(next) || self.is_new(next),
            "time stands still at {next:?}"
        );
        self.now = self.now.max(next);
        while let Some(entry) = self.air.first_entry().filter(|entry| entry.key().0 <= self.now) {
            let (to, datagram) = entry.remove();
            let mut rest = &datagram[..];
            while let Some(segment) = Segment::read(&mut rest) {
                self.ends[to].hear(&segment, self.now, self.most);
            }
            assert!(rest.is_empty());
        }
        true
    }

    /// A deadline that was due when the ends had spoken would come again and again.
    fn is_new(&self, next: Moment) -> bool {
        next > self.now
    }

    pub(super) fn run(&mut self, time: Duration) {
        let until = self.now + time;
        while self.step(until) {}
    }

    pub(super) fn read(&mut self, end: usize) -> (Vec<u8>, Read) {
        let (mut all, mut out) = (Vec::new(), vec![0; 5000]);
        loop {
            match self.ends[end].read(&mut out, self.most) {
                Read::Bytes(n) => all.extend_from_slice(&out[..n]),
                other => return (all, other),
            }
        }
    }

    /// Writes a prefix, and says how much.
    pub(super) fn write(&mut self, end: usize, bytes: &[u8]) -> usize {
        let Some(room) = self.ends[end].writable(self.most) else { return 0 };
        let n = room.min(bytes.len());
        self.ends[end].write(&bytes[..n]);
        n
    }
}

pub(super) fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut bytes = vec![0; len];
    SeededEntropy::new(seed).fill(&mut bytes);
    bytes
}
