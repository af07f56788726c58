//! Fragments: datagrams put together again within bounds, and datagrams cut for the device.

use super::ip::{
    FragmentInfo, Malformed, Packet, Protocol, V4_HEADER, V6_FRAGMENT_HEADER, V6_HEADER, transport,
};
use crate::time::Moment;
use std::collections::VecDeque;
use std::net::IpAddr;
use std::ops::Range;
use std::time::Duration;

/// The most bytes that unfinished datagrams hold together; the oldest go first.
const MAX_BYTES: usize = 256 * 1024;
/// The most unfinished datagrams.
const MAX_DATAGRAMS: usize = 256;
/// The most separate runs of bytes in one datagram: a sender that leaves more gaps is not worth it.
const MAX_RUNS: usize = 64;
/// How long a datagram may stay unfinished.
const LIFETIME: Duration = Duration::from_secs(5);
/// The most bytes that the payload of an IP packet has.
const MAX_PAYLOAD: usize = 65_535;

/// A datagram that was put together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Whole {
    /// Where it comes from.
    pub(crate) src: IpAddr,
    /// Where it goes.
    pub(crate) dst: IpAddr,
    /// What the payload is; extension headers have been walked.
    pub(crate) protocol: Protocol,
    /// The transport header and its data.
    pub(crate) payload: Vec<u8>,
}

/// Puts fragmented datagrams together.
#[derive(Debug, Default)]
pub(crate) struct Reassembler {
    /// Oldest first; all live equally long, so the first is the next to expire.
    partial: VecDeque<Partial>,
    bytes: usize,
    dropped: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Key {
    src: IpAddr,
    dst: IpAddr,
    id: u32,
    /// IPv4 alone tells datagrams apart by protocol too.
    protocol: Option<Protocol>,
}

#[derive(Debug)]
struct Partial {
    key: Key,
    expires: Moment,
    /// The protocol of the first fragment, once that has come.
    protocol: Option<Protocol>,
    /// The bytes so far; gaps are zero.
    data: Vec<u8>,
    /// Which of them have come: sorted, apart, never adjacent.
    runs: Vec<Range<usize>>,
    /// The length, once the last fragment has come.
    total: Option<usize>,
    /// An overlap was seen: nothing of it is delivered, and what still comes is swallowed.
    poisoned: bool,
}

impl Reassembler {
    /// Makes one that holds nothing.
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Takes a fragment; gives the datagram when it was the last that was missing.
    ///
    /// A packet that is no fragment is not taken. An overlap other than an exact repetition drops the whole datagram
    /// (RFC 5722), as does anything that cannot be.
    pub(crate) fn push(&mut self, now: Moment, packet: &Packet<'_>) -> Option<Whole> {
        let info = packet.fragment?;
        self.expire(now);
        let protocol = packet.src.is_ipv4().then_some(packet.protocol);
        let key = Key { src: packet.src, dst: packet.dst, id: info.id, protocol };
        let index = match self.partial.iter().position(|partial| partial.key == key) {
            Some(index) => index,
            None => {
                if self.partial.len() == MAX_DATAGRAMS {
                    self.evict(0);
                }
                self.partial.push_back(Partial::new(key, now + LIFETIME));
                self.partial.len() - 1
            }
        };
        let partial = self.partial.get_mut(index)?;
        let before = partial.data.len();
        let placed = partial.place(info, packet.protocol, packet.payload);
        self.bytes = self.bytes + partial.data.len() - before;
        if placed.is_err() {
            self.dropped += 1;
            self.bytes -= partial.poison();
            return None;
        }
        if partial.is_complete() {
            let partial = self.partial.remove(index)?;
            self.bytes -= partial.data.len();
            let whole = partial.finish();
            self.dropped += u64::from(whole.is_err());
            return whole.ok();
        }
        while self.bytes > MAX_BYTES {
            self.evict(0);
        }
        None
    }

    /// Drops what has been unfinished for too long.
    pub(crate) fn expire(&mut self, now: Moment) {
        while self.partial.front().is_some_and(|partial| partial.expires <= now) {
            self.evict(0);
        }
        if self.partial.is_empty() {
            self.partial = VecDeque::new();
        }
    }

    /// When [`Reassembler::expire`] has something to do; `None` if nothing is held.
    pub(crate) fn poll_timeout(&self) -> Option<Moment> {
        self.partial.front().map(|partial| partial.expires)
    }

    /// How many datagrams were given up.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped
    }

    fn evict(&mut self, index: usize) {
        if let Some(partial) = self.partial.remove(index) {
            self.bytes -= partial.data.len();
            self.dropped += u64::from(!partial.poisoned);
        }
    }
}

impl Partial {
    fn new(key: Key, expires: Moment) -> Self {
        let (protocol, total) = (None, None);
        Self { key, expires, protocol, data: Vec::new(), runs: Vec::new(), total, poisoned: false }
    }

    /// Copies a fragment to its place.
    fn place(&mut self, info: FragmentInfo, protocol: Protocol, payload: &[u8]) -> Result<(), Malformed> {
        if self.poisoned {
            return Err(Malformed::Header);
        }
        let range = info.offset..info.offset + payload.len();
        let legal =
            !range.is_empty() && range.end <= MAX_PAYLOAD && (!info.more || payload.len().is_multiple_of(8));
        let inside = self.total.is_none_or(|total| range.end < total || (range.end == total && !info.more));
        let covers = info.more || self.data.len() <= range.end;
        if !(legal && inside && covers) {
            return Err(Malformed::Header);
        }
        let at = self.runs.partition_point(|run| run.end < range.start);
        let full = self.runs.len() == MAX_RUNS;
        match self.runs.get_mut(at) {
            // An exact repetition, or a part of what came, with the same bytes: harmless.
            Some(run) if run.start <= range.start && range.end <= run.end => {
                let same = self.data.get(range) == Some(payload);
                return if same { Ok(()) } else { Err(Malformed::Header) };
            }
            Some(run) if run.end == range.start => run.end = range.end,
            Some(run) if range.end == run.start => run.start = range.start,
            Some(run) if range.end > run.start => return Err(Malformed::Header),
            _ if full => return Err(Malformed::Header),
            _ => self.runs.insert(at, range.clone()),
        }
        // The run may have grown up to the next one, or into it.
        if let Some(next) = self.runs.get(at + 1).cloned() {
            let run = &mut self.runs[at];
            if run.end > next.start {
                return Err(Malformed::Header);
            }
            if run.end == next.start {
                run.end = next.end;
                self.runs.remove(at + 1);
            }
        }
        if self.data.len() < range.end {
            self.data.reserve_exact(range.end - self.data.len());
            self.data.resize(range.end, 0);
        }
        if info.offset == 0 {
            self.protocol = Some(protocol);
        }
        if !info.more {
            self.total = Some(range.end);
        }
        self.data[range].copy_from_slice(payload);
        Ok(())
    }

    fn is_complete(&self) -> bool {
        self.total.is_some_and(|total| self.runs.first() == Some(&(0..total)))
    }

    /// Drops the data but remembers the datagram until it expires; returns how many bytes that freed.
    fn poison(&mut self) -> usize {
        self.poisoned = true;
        self.runs = Vec::new();
        std::mem::take(&mut self.data).len()
    }

    fn finish(self) -> Result<Whole, Malformed> {
        let Key { src, dst, .. } = self.key;
        let (protocol, rest) = transport(self.protocol.ok_or(Malformed::Header)?, &self.data, src.is_ipv6())?;
        let skip = self.data.len() - rest.len();
        let mut payload = self.data;
        payload.drain(..skip);
        Ok(Whole { src, dst, protocol, payload })
    }
}

/// Cuts an IP payload of `len` bytes into fragments for `mtu`; `None` if it is too long for IP or the MTU too small.
///
/// Every piece but the last is a multiple of 8 bytes, and the first holds at least 8.
pub(crate) fn cut(
    len: usize,
    mtu: usize,
    v6: bool,
    id: u32,
) -> Option<impl ExactSizeIterator<Item = (FragmentInfo, Range<usize>)>> {
    let headers = if v6 { V6_HEADER + V6_FRAGMENT_HEADER } else { V4_HEADER };
    let step = mtu.saturating_sub(headers) & !7;
    // An IPv4 total length counts the header too.
    let longest = if v6 { MAX_PAYLOAD } else { MAX_PAYLOAD - V4_HEADER };
    (step > 0 && len <= longest).then(|| {
        (0..len.div_ceil(step)).map(move |n| {
            let range = n * step..len.min((n + 1) * step);
            (FragmentInfo { id, offset: range.start, more: range.end < len }, range)
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entropy::{Entropy, SeededEntropy};

    fn fragment(v6: bool, id: u32, range: Range<usize>, more: bool, data: &[u8]) -> Packet<'_> {
        let ip = |v4: [u8; 4], v6: &str, is6| if is6 { v6.parse().expect("ip") } else { IpAddr::from(v4) };
        Packet {
            src: ip([10, 0, 0, 1], "fd00::1", v6),
            dst: ip([10, 0, 0, 2], "fd00::2", v6),
            protocol: Protocol::Udp,
            dont_fragment: false,
            fragment: Some(FragmentInfo { id, offset: range.start, more }),
            payload: &data[range],
        }
    }

    fn bytes(len: usize) -> Vec<u8> {
        let mut data = vec![0; len];
        SeededEntropy::new(9).fill(&mut data);
        data
    }

    #[test]
    fn any_order_and_repetitions_give_the_datagram_once() {
        let mut entropy = SeededEntropy::new(10);
        for round in 0..300u32 {
            let data = bytes(1 + entropy.below(60_000) as usize);
            let mtu = 576 + entropy.below(2000) as usize;
            let mut pieces: Vec<_> = cut(data.len(), mtu, false, round).expect("legal").collect();
            if pieces.len() > MAX_RUNS || pieces.len() < 2 {
                continue;
            }
            for at in (1..pieces.len()).rev() {
                pieces.swap(at, entropy.below(at as u32 + 1) as usize);
            }
            let mut reassembler = Reassembler::new();
            let mut whole = Vec::new();
            for (n, (info, range)) in pieces.iter().enumerate() {
                let packet = fragment(false, info.id, range.clone(), info.more, &data);
                whole.extend(reassembler.push(Moment::ZERO, &packet));
                if n + 1 < pieces.len() {
                    assert_eq!(reassembler.push(Moment::ZERO, &packet), None, "a repetition");
                }
            }
            assert_eq!(whole.len(), 1);
            assert!(whole[0].payload == data && reassembler.partial.is_empty() && reassembler.bytes == 0);
        }
    }

    #[test]
    fn overlaps_drop_the_whole_datagram() {
        let data = bytes(4000);
        for v6 in [false, true] {
            let mut reassembler = Reassembler::new();
            let mut push = |range: Range<usize>, more| {
                reassembler.push(Moment::ZERO, &fragment(v6, 1, range, more, &data))
            };
            assert_eq!(push(0..1000, true), None);
            assert_eq!(push(992..2000, true), None, "overlaps");
            assert_eq!(push(1000..2000, true), None);
            assert_eq!(push(2000..4000, false), None, "complete, but poisoned");
            assert_eq!(reassembler.bytes, 0);
            assert_eq!(reassembler.dropped(), 3);
        }
        let mut other = data.clone();
        other[500] ^= 1;
        let mut reassembler = Reassembler::new();
        for (bytes, range, more) in
            [(&data, 0..1000, true), (&other, 0..1000, true), (&data, 1000..4000, false)]
        {
            assert_eq!(reassembler.push(Moment::ZERO, &fragment(false, 1, range, more, bytes)), None);
        }
    }

    #[test]
    fn bounds_hold_in_bytes_and_in_time() {
        let data = bytes(65_000);
        let mut reassembler = Reassembler::new();
        for id in 0..1000 {
            let packet = fragment(false, id, 60_000..64_000, true, &data);
            let now = Moment::from_millis(u64::from(id));
            assert_eq!(reassembler.push(now, &packet), None);
            assert!(reassembler.bytes <= MAX_BYTES);
        }
        let held = reassembler.partial.len() as u64;
        assert!(held <= 4 && reassembler.dropped() == 1000 - held);
        let first = reassembler.poll_timeout().expect("something is held");
        assert_eq!(first, Moment::from_millis(1000 - held) + LIFETIME);
        reassembler.expire(first);
        assert_eq!(
            reassembler.poll_timeout(),
            (held > 1).then(|| Moment::from_millis(1001 - held) + LIFETIME)
        );
        reassembler.expire(Moment::from_millis(999) + LIFETIME);
        assert_eq!((reassembler.poll_timeout(), reassembler.bytes), (None, 0));
    }

    #[test]
    fn extension_headers_inside_the_fragments_are_walked() {
        let mut data = vec![17, 0, 1, 4, 0, 0, 0, 0];
        data.extend(bytes(100));
        let mut reassembler = Reassembler::new();
        let mut first = fragment(true, 5, 0..16, true, &data);
        first.protocol = Protocol::Other(60);
        assert_eq!(reassembler.push(Moment::ZERO, &first), None);
        let whole = reassembler.push(Moment::ZERO, &fragment(true, 5, 16..108, false, &data)).expect("whole");
        assert_eq!((whole.protocol, &whole.payload[..]), (Protocol::Udp, &data[8..]));
    }

    #[test]
    fn no_fragments_panic() {
        let mut entropy = SeededEntropy::new(11);
        let data = bytes(65_536);
        let mut reassembler = Reassembler::new();
        let mut whole = 0;
        for n in 0..200_000u64 {
            let start = entropy.below(20) as usize * 8;
            let len = [8, 16, 24, 5][entropy.below(4) as usize];
            let far = if entropy.below(50) == 0 { 65_328 } else { 0 };
            let more = entropy.below(4) != 0;
            let mut packet =
                fragment(entropy.below(2) == 0, entropy.below(40), start..start + len, more, &data);
            if let Some(info) = &mut packet.fragment {
                info.offset += far;
            }
            if let Some(datagram) = reassembler.push(Moment::from_millis(n / 8), &packet) {
                whole += 1;
                assert_eq!(datagram.payload, data[..datagram.payload.len()]);
            }
            assert!(reassembler.bytes <= MAX_BYTES && reassembler.partial.len() <= MAX_DATAGRAMS);
        }
        assert!(whole > 0);
    }
}
