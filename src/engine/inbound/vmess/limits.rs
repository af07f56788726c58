//! How many connections a user and a source address have, on all shards together. Touched once an accept, and only where
//! the config sets a limit.

use crate::vmess::Id;
use std::collections::HashMap;
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The counts of one instance.
#[derive(Debug, Default)]
pub(crate) struct Limits {
    users: Counts<Id>,
    sources: Counts<IpAddr>,
}

/// A connection that is counted; dropping it takes it off.
#[derive(Debug)]
pub(super) enum Seat {
    /// Nobody counts.
    Free,
    User(Arc<Limits>, Id),
    Source(Arc<Limits>, IpAddr),
}

impl Limits {
    /// Counts a connection of a user; `None` if `limit` of them are open. A limit of 0 is none.
    pub(super) fn user(self: &Arc<Self>, id: &Id, limit: u32) -> Option<Seat> {
        match limit {
            0 => Some(Seat::Free),
            _ => self.users.add(id.clone(), limit).then(|| Seat::User(Arc::clone(self), id.clone())),
        }
    }

    /// Counts a connection from an address; `None` if `limit` of them are open. A limit of 0 is none. IPv6 addresses are
    /// counted by their first 64 bits, which are what one host is given.
    pub(super) fn source(self: &Arc<Self>, ip: IpAddr, limit: u32) -> Option<Seat> {
        let ip = match ip {
            IpAddr::V6(ip) => IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() >> 64 << 64)),
            ip => ip,
        };
        match limit {
            0 => Some(Seat::Free),
            _ => self.sources.add(ip, limit).then(|| Seat::Source(Arc::clone(self), ip)),
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        match self {
            Self::Free => {}
            Self::User(limits, id) => limits.users.remove(id),
            Self::Source(limits, ip) => limits.sources.remove(ip),
        }
    }
}

#[derive(Debug)]
struct Counts<K>(Mutex<HashMap<K, u32>>);

impl<K> Default for Counts<K> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Eq + Hash> Counts<K> {
    fn add(&self, key: K, limit: u32) -> bool {
        let mut counts = self.lock();
        let count = counts.entry(key).or_default();
        let fits = *count < limit;
        *count += u32::from(fits);
        fits
    }

    fn remove(&self, key: &K) {
        let mut counts = self.lock();
        if let Some(count) = counts.get_mut(key) {
            *count -= 1;
            if *count == 0 {
                counts.remove(key);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<K, u32>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seats_are_given_up_to_the_limit_and_come_back() {
        let limits = Arc::new(Limits::default());
        let (one, other) = (Id::from_bytes([1; 16]), Id::from_bytes([2; 16]));
        let taken = [limits.user(&one, 2), limits.user(&one, 2)];
        assert!(taken.iter().all(Option::is_some) && limits.user(&one, 2).is_none());
        assert!(limits.user(&other, 2).is_some() && limits.user(&one, 0).is_some());
        drop(taken);
        assert!(limits.user(&one, 1).is_some());
        assert!(limits.users.lock().is_empty());
    }

    #[test]
    fn neighbours_in_one_ipv6_network_are_one_source() {
        let limits = Arc::new(Limits::default());
        let ip = |text: &str| text.parse().expect("an address");
        let _seat = limits.source(ip("2001:db8::1"), 1).expect("free");
        assert!(limits.source(ip("2001:db8::2"), 1).is_none());
        assert!(limits.source(ip("2001:db8:0:1::1"), 1).is_some());
        assert!(limits.source(ip("192.0.2.1"), 1).is_some());
    }
}
