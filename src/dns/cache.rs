//! The memory of names that were looked up, bounded in entries. Pure: time comes in as an argument.

use crate::time::Moment;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// How many names are remembered at most. Beyond it the one that ends soonest is forgotten.
pub const MAX_NAMES: usize = 256;
/// How many addresses of one name are remembered at most.
pub const MAX_ADDRESSES: usize = 16;
/// The least time that an answer is remembered, so that a TTL of 0 does not mean a query per flow.
pub const MIN_TTL: Duration = Duration::from_secs(5);
/// The longest time that an answer is remembered.
pub const MAX_TTL: Duration = Duration::from_secs(3600);
/// How long it is remembered that a name has no address.
pub const NEGATIVE_TTL: Duration = Duration::from_secs(5);

/// Addresses by name.
#[derive(Debug, Default)]
pub struct Cache {
    names: HashMap<Arc<str>, Entry>,
}

#[derive(Debug)]
struct Entry {
    addresses: Box<[IpAddr]>,
    until: Moment,
}

impl Cache {
    /// The addresses of `name` (none: it is known to have none), if they are remembered and still hold.
    pub fn get(&self, now: Moment, name: &str) -> Option<&[IpAddr]> {
        self.names.get(name).filter(|entry| now < entry.until).map(|entry| &*entry.addresses)
    }

    /// Remembers the addresses of `name`. Without any, that it has none; `ttl` (seconds) does not count then.
    pub fn put(&mut self, now: Moment, name: Arc<str>, addresses: &[IpAddr], ttl: u32) {
        if self.names.len() >= MAX_NAMES && !self.names.contains_key(&name) {
            self.make_room(now);
        }
        let ttl = match addresses {
            [] => NEGATIVE_TTL,
            _ => Duration::from_secs(ttl.into()).clamp(MIN_TTL, MAX_TTL),
        };
        let addresses = addresses.iter().take(MAX_ADDRESSES).copied().collect();
        self.names.insert(name, Entry { addresses, until: now + ttl });
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.names = HashMap::new();
    }

    fn make_room(&mut self, now: Moment) {
        self.names.retain(|_, entry| now < entry.until);
        if self.names.len() >= MAX_NAMES {
            let soonest =
                self.names.iter().min_by_key(|(_, entry)| entry.until).map(|(name, _)| name.clone());
            soonest.and_then(|name| self.names.remove(&name));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADDRESS: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    fn at(seconds: u64) -> Moment {
        Moment::from_millis(seconds * 1000)
    }

    #[test]
    fn answers_hold_as_long_as_their_ttl_within_bounds() {
        for (ttl, last) in [(0, 4), (60, 59), (u32::MAX, 3599)] {
            let mut cache = Cache::default();
            cache.put(at(0), "a".into(), &[ADDRESS], ttl);
            assert_eq!(cache.get(at(last), "a"), Some(&[ADDRESS][..]), "ttl {ttl}");
            assert_eq!(cache.get(at(last + 1), "a"), None, "ttl {ttl}");
        }
    }

    #[test]
    fn absence_is_remembered_shortly() {
        let mut cache = Cache::default();
        cache.put(at(0), "a".into(), &[], 600);
        assert_eq!(
            (cache.get(at(4), "a"), cache.get(at(5), "a"), cache.get(at(0), "b")),
            (Some(&[][..]), None, None)
        );
    }

    #[test]
    fn what_ends_soonest_makes_room() {
        let mut cache = Cache::default();
        for i in 0..=MAX_NAMES {
            let ttl = if i == 7 { 50 } else { 100 };
            cache.put(at(0), format!("host{i}").into(), &[ADDRESS; 99], ttl);
        }
        assert_eq!(cache.names.len(), MAX_NAMES);
        assert_eq!(cache.get(at(0), "host7"), None);
        assert_eq!(cache.get(at(0), "host8").map(<[_]>::len), Some(MAX_ADDRESSES));
        cache.put(at(200), "late".into(), &[ADDRESS], 9);
        assert_eq!(cache.names.len(), 1, "what is over goes first");
    }
}
