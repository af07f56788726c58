//! Who is who: the four-tuple of a flow, an index over it, and the slots that flows live in.

use super::super::FlowId;
use super::flow::Flow;
use std::hash::Hasher;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// A four-tuple, packed so that it compares and hashes fast.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Key {
    /// The app's address, then the remote one; IPv4 in the first half of each.
    words: [u64; 4],
    app_port: u16,
    remote_port: u16,
    v6: bool,
}

impl Key {
    /// The key of what the app at `app` sends to `remote`.
    pub(crate) fn new(app: (IpAddr, u16), remote: (IpAddr, u16)) -> Self {
        let wide = |ip: IpAddr| match ip {
            IpAddr::V4(ip) => [u64::from(u32::from(ip)), 0],
            IpAddr::V6(ip) => [(u128::from(ip) >> 64) as u64, u128::from(ip) as u64],
        };
        let ([a, b], [c, d]) = (wide(app.0), wide(remote.0));
        Self { words: [a, b, c, d], app_port: app.1, remote_port: remote.1, v6: app.0.is_ipv6() }
    }

    /// Whether this is a flow over IPv6.
    pub(crate) const fn is_v6(&self) -> bool {
        self.v6
    }

    /// The app's port and the remote one.
    pub(crate) const fn ports(&self) -> (u16, u16) {
        (self.app_port, self.remote_port)
    }

    /// The app's address and the remote one.
    pub(crate) fn addresses(&self) -> (IpAddr, IpAddr) {
        (self.ip(0), self.ip(2))
    }

    /// Feeds every bit of the key to a hasher.
    pub(crate) fn feed(&self, hasher: &mut impl Hasher) {
        for word in self.words {
            hasher.write_u64(word);
        }
        hasher.write_u64(self.tail());
    }

    /// The app's end.
    pub(crate) fn app(&self) -> SocketAddr {
        SocketAddr::new(self.ip(0), self.app_port)
    }

    /// The remote end.
    pub(crate) fn remote(&self) -> SocketAddr {
        SocketAddr::new(self.ip(2), self.remote_port)
    }

    fn tail(&self) -> u64 {
        u64::from(self.app_port) << 32 | u64::from(self.remote_port) << 8 | u64::from(self.v6)
    }

    fn ip(&self, at: usize) -> IpAddr {
        let (high, low) = (self.words[at], self.words[at + 1]);
        if self.v6 {
            Ipv6Addr::from(u128::from(high) << 64 | u128::from(low)).into()
        } else {
            Ipv4Addr::from(high as u32).into()
        }
    }

    /// A hash that depends on `seed` in every bit: apps choose ports and addresses, but cannot aim at a bucket.
    pub(crate) fn hash(&self, seed: u64) -> u64 {
        let mix = |a: u64, b: u64| {
            let product = u128::from(a) * u128::from(b);
            product as u64 ^ (product >> 64) as u64
        };
        let mut hash =
            mix(seed ^ self.words[0], 0x9e37_79b9_7f4a_7c15 ^ self.words[2]) ^ seed.rotate_left(32);
        if self.v6 {
            hash = mix(hash ^ self.words[1], 0xc2b2_ae3d_27d4_eb4f ^ self.words[3]);
        }
        mix(hash ^ self.tail(), 0xd6e8_feb8_6659_fd93 ^ seed)
    }
}

/// What a four-tuple belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Owner {
    /// The flow in this slot.
    Flow(u32),
    /// The entry in TIME-WAIT with this number.
    TimeWait(u32),
}

/// One bucket of the index. `owner` is the slot or number plus one, with [`TIME_WAIT`] set for the latter.
#[derive(Debug, Clone, Copy, Default)]
struct Bucket {
    hash: u32,
    owner: u32,
}

/// Marks the owner of a bucket as an entry in TIME-WAIT.
const TIME_WAIT: u32 = 1 << 31;

/// An open-addressed hash index from hashes to owners. The keys themselves are compared by the caller.
#[derive(Debug, Default)]
pub(crate) struct Index {
    buckets: Vec<Bucket>,
    len: usize,
}

impl Index {
    /// Finds the owner with this hash for which `is_it` holds.
    pub(crate) fn find(&self, hash: u64, mut is_it: impl FnMut(Owner) -> bool) -> Option<Owner> {
        let mask = self.buckets.len().checked_sub(1)?;
        let mut at = hash as usize & mask;
        loop {
            let bucket = self.buckets[at];
            if bucket.owner == 0 {
                return None;
            }
            if bucket.hash == hash as u32 {
                let owner = unpack(bucket.owner);
                if is_it(owner) {
                    return Some(owner);
                }
            }
            at = (at + 1) & mask;
        }
    }

    /// Adds an owner.
    pub(crate) fn insert(&mut self, hash: u64, owner: Owner) {
        if (self.len + 1) * 4 > self.buckets.len() * 3 {
            self.resize((self.buckets.len() * 2).max(16));
        }
        self.len += 1;
        self.place(Bucket { hash: hash as u32, owner: pack(owner) });
    }

    /// Removes an owner; shrinks when few are left.
    pub(crate) fn remove(&mut self, hash: u64, owner: Owner) {
        let Some(mask) = self.buckets.len().checked_sub(1) else { return };
        let mut at = hash as usize & mask;
        while self.buckets[at].owner != pack(owner) {
            if self.buckets[at].owner == 0 {
                return;
            }
            at = (at + 1) & mask;
        }
        self.len -= 1;
        // Close the gap: move back whatever has been displaced over it.
        let mut next = (at + 1) & mask;
        while self.buckets[next].owner != 0 {
            let home = self.buckets[next].hash as usize & mask;
            if (next.wrapping_sub(home) & mask) >= (next.wrapping_sub(at) & mask) {
                self.buckets[at] = self.buckets[next];
                at = next;
            }
            next = (next + 1) & mask;
        }
        self.buckets[at] = Bucket::default();
        if self.buckets.len() > 64 && self.len * 8 < self.buckets.len() {
            self.resize(self.buckets.len() / 2);
        }
    }

    fn resize(&mut self, len: usize) {
        let old = std::mem::replace(&mut self.buckets, vec![Bucket::default(); len]);
        for bucket in old.into_iter().filter(|bucket| bucket.owner != 0) {
            self.place(bucket);
        }
    }

    fn place(&mut self, bucket: Bucket) {
        let mask = self.buckets.len() - 1;
        let mut at = bucket.hash as usize & mask;
        while self.buckets[at].owner != 0 {
            at = (at + 1) & mask;
        }
        self.buckets[at] = bucket;
    }
}

const fn pack(owner: Owner) -> u32 {
    match owner {
        Owner::Flow(slot) => slot + 1,
        Owner::TimeWait(number) => TIME_WAIT | number,
    }
}

const fn unpack(owner: u32) -> Owner {
    if owner & TIME_WAIT == 0 { Owner::Flow(owner - 1) } else { Owner::TimeWait(owner & !TIME_WAIT) }
}

/// The slots of flows.
#[derive(Debug, Default)]
pub(crate) struct Slots {
    slots: Vec<Slot>,
    free: Vec<u32>,
}

#[derive(Debug, Default)]
struct Slot {
    generation: u32,
    flow: Option<Box<Flow>>,
}

impl Slots {
    /// How many flows there are.
    pub(crate) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Puts the flow that `make` makes into a free slot.
    pub(crate) fn insert(&mut self, make: impl FnOnce(FlowId) -> Flow) -> FlowId {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot::default());
            self.slots.len() as u32 - 1
        });
        let place = &mut self.slots[slot as usize];
        let id = FlowId { slot, generation: place.generation };
        place.flow = Some(Box::new(make(id)));
        id
    }

    /// The flow in a slot.
    pub(crate) fn at(&self, slot: u32) -> Option<&Flow> {
        self.slots.get(slot as usize)?.flow.as_deref()
    }

    /// The flow in a slot.
    pub(crate) fn at_mut(&mut self, slot: u32) -> Option<&mut Flow> {
        self.slots.get_mut(slot as usize)?.flow.as_deref_mut()
    }

    /// The flow of an id, if that is not stale.
    pub(crate) fn get(&self, id: FlowId) -> Option<&Flow> {
        self.slots.get(id.slot as usize).filter(|slot| slot.generation == id.generation)?.flow.as_deref()
    }

    /// The flow of an id, if that is not stale.
    pub(crate) fn get_mut(&mut self, id: FlowId) -> Option<&mut Flow> {
        self.slots
            .get_mut(id.slot as usize)
            .filter(|slot| slot.generation == id.generation)?
            .flow
            .as_deref_mut()
    }

    /// Takes the flow out; its id is stale from now on.
    pub(crate) fn remove(&mut self, slot: u32) -> Option<Box<Flow>> {
        let place = self.slots.get_mut(slot as usize)?;
        let flow = place.flow.take()?;
        place.generation = place.generation.wrapping_add(1);
        self.free.push(slot);
        Some(flow)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entropy::{Entropy, SeededEntropy};
    use std::collections::HashMap;

    #[test]
    fn keys_give_their_ends_back_and_hash_by_seed() {
        let app: SocketAddr = "172.19.0.1:50000".parse().expect("address");
        let remote: SocketAddr = "93.184.216.34:443".parse().expect("address");
        let key = Key::new((app.ip(), app.port()), (remote.ip(), remote.port()));
        assert_eq!((key.app(), key.remote()), (app, remote));
        let swapped = Key::new((remote.ip(), remote.port()), (app.ip(), app.port()));
        assert!(key != swapped && key.hash(1) != swapped.hash(1) && key.hash(1) != key.hash(2));
        let app6: SocketAddr = "[fd19::1]:1".parse().expect("address");
        let remote6: SocketAddr = "[2001:db8::2]:2".parse().expect("address");
        let key = Key::new((app6.ip(), 1), (remote6.ip(), 2));
        assert_eq!((key.app(), key.remote()), (app6, remote6));
    }

    #[test]
    fn the_index_finds_what_is_in_it_whatever_collides() {
        let mut entropy = SeededEntropy::new(3);
        let (mut index, mut model) = (Index::default(), HashMap::new());
        for _ in 0..50_000 {
            let slot = entropy.below(300);
            let owner = if slot.is_multiple_of(3) { Owner::TimeWait(slot) } else { Owner::Flow(slot) };
            // Few hashes, so that runs of buckets overlap.
            let hash = u64::from(slot % 37) * ((1 << 32) | 1);
            match model.remove(&slot) {
                Some(()) => index.remove(hash, owner),
                None => {
                    index.insert(hash, owner);
                    model.insert(slot, ());
                }
            }
            let probe = entropy.below(300);
            let owner = if probe.is_multiple_of(3) { Owner::TimeWait(probe) } else { Owner::Flow(probe) };
            let found = index.find(u64::from(probe % 37) * ((1 << 32) | 1), |found| found == owner);
            assert_eq!(found.is_some(), model.contains_key(&probe));
        }
        assert_eq!(index.len, model.len());
    }
}
