//! Servers that servers have told of: for so many minutes, the same host takes connections on another port too, under an
//! account of its own.
//!
//! They take turns with the configured servers until they expire, as with V2Ray. Where the network below changes they
//! stay: it is the server's word that counts, and one that cannot be reached from there is forgotten on the first try.

use crate::time::Moment;
use crate::vmess::Id;
use crate::vmess::command::SwitchAccount;
use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

/// How many are remembered at most. V2Ray's server has three ports at a time, and as many that expire.
const MOST: usize = 32;

/// The servers that an outbound has learned of; `S` is what it dials.
pub(super) struct Learned<S> {
    entries: RefCell<Vec<Entry<S>>>,
}

struct Entry<S> {
    port: u16,
    id: Id,
    until: Moment,
    server: Rc<S>,
}

impl<S> Default for Learned<S> {
    fn default() -> Self {
        Self { entries: RefCell::default() }
    }
}

impl<S> Learned<S> {
    /// Takes up what a server has told at `now`; `make` makes what is dialled from then on. A host of its own is ignored:
    /// a server has no say in where else this device connects to. `is_same_host` tells whether a server that is known
    /// already is at the host of the one that has told.
    pub(super) fn take_up(
        &self,
        told: &SwitchAccount,
        now: Moment,
        is_same_host: impl Fn(&S) -> bool,
        make: impl FnOnce() -> S,
    ) {
        if told.host.is_some() || told.port == 0 || told.valid_minutes == 0 {
            return;
        }
        let until = now + Duration::from_secs(60 * u64::from(told.valid_minutes));
        let mut entries = self.entries.borrow_mut();
        let known = |entry: &&mut Entry<S>| {
            entry.port == told.port && entry.id == told.id && is_same_host(&entry.server)
        };
        if let Some(entry) = entries.iter_mut().find(known) {
            entry.until = entry.until.max(until);
            return;
        }
        entries.retain(|entry| entry.until > now);
        if entries.len() == MOST {
            let first = entries.iter().enumerate().min_by_key(|(_, entry)| entry.until).map(|(at, _)| at);
            first.map(|at| entries.remove(at));
        }
        entries.push(Entry { port: told.port, id: told.id.clone(), until, server: Rc::new(make()) });
    }

    /// How many are valid at `now`; the others are forgotten.
    pub(super) fn count(&self, now: Moment) -> usize {
        let mut entries = self.entries.borrow_mut();
        entries.retain(|entry| entry.until > now);
        entries.len()
    }

    /// The one at a place below [`Learned::count`].
    pub(super) fn get(&self, at: usize) -> Option<Rc<S>> {
        self.entries.borrow().get(at).map(|entry| Rc::clone(&entry.server))
    }

    /// Forgets one that has failed; whether it was one of these.
    pub(super) fn forget(&self, server: &Rc<S>) -> bool {
        let mut entries = self.entries.borrow_mut();
        let before = entries.len();
        entries.retain(|entry| !Rc::ptr_eq(&entry.server, server));
        entries.len() < before
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::Host;

    fn told(port: u16, minutes: u8) -> SwitchAccount {
        SwitchAccount {
            host: None,
            port,
            id: Id::from_bytes([port as u8; 16]),
            alter_ids: 0,
            level: 0,
            valid_minutes: minutes,
        }
    }

    fn at(minute: u64) -> Moment {
        Moment::from_millis(minute * 60_000)
    }

    fn learn(learned: &Learned<u16>, told: &SwitchAccount, now: Moment) {
        learned.take_up(told, now, |_| true, || told.port);
    }

    fn valid(learned: &Learned<u16>, now: Moment) -> Vec<u16> {
        (0..learned.count(now)).filter_map(|at| learned.get(at)).map(|server| *server).collect()
    }

    #[test]
    fn a_server_is_used_until_its_minutes_are_over() {
        let learned = Learned::default();
        learn(&learned, &told(1000, 5), at(0));
        learn(&learned, &told(2000, 2), at(0));
        assert_eq!(valid(&learned, at(1)), [1000, 2000]);
        assert_eq!(valid(&learned, at(2)), [1000], "the second minute is its last");
        learn(&learned, &told(1000, 3), at(4));
        assert_eq!(valid(&learned, at(6)), [1000], "told again, it lives on");
        learn(&learned, &told(1000, 1), at(5));
        assert_eq!(valid(&learned, at(7)), Vec::<u16>::new());
    }

    #[test]
    fn what_a_server_must_not_say_is_ignored() {
        let learned = Learned::default();
        let elsewhere = SwitchAccount { host: Host::parse("example.com"), ..told(1, 5) };
        for told in [elsewhere, told(0, 5), told(1, 0)] {
            learn(&learned, &told, at(0));
        }
        assert_eq!(valid(&learned, at(0)), Vec::<u16>::new());
    }

    #[test]
    fn a_talkative_server_costs_a_bounded_amount() {
        let learned = Learned::default();
        (1..=1000).for_each(|port| learn(&learned, &told(port, 200), at(0)));
        assert_eq!(valid(&learned, at(0)).len(), MOST);
        learn(&learned, &told(5000, 100), at(0));
        learn(&learned, &told(5001, 250), at(0));
        let ports = valid(&learned, at(0));
        assert!(!ports.contains(&5000) && ports.contains(&5001), "the first to expire goes: {ports:?}");
    }

    #[test]
    fn one_that_fails_is_forgotten() {
        let learned = Learned::default();
        learn(&learned, &told(1000, 5), at(0));
        let server = learned.get(0).expect("learned");
        assert!(learned.forget(&server) && !learned.forget(&server));
        assert_eq!(learned.count(at(0)), 0);
    }
}
