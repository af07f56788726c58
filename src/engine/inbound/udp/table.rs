//! The UDP flows of an inbound, found by where a datagram comes from and goes to.
//!
//! Where an outbound's flows are bound to a target there is one for each pair of ends. Where it is a cone, one flow takes
//! whatever the source sends by way of that outbound; every destination is routed once and remembered.

use super::UdpFlow;
use crate::engine::outbound::{Cone, Outbound};
use crate::time::Moment;
use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::rc::Rc;
use std::time::Duration;

/// The most flows at a time.
pub(crate) const MAX_FLOWS: usize = 512;
/// How long a flow must have been idle to make room for a new one.
const EVICTABLE: Duration = Duration::from_secs(15);
/// How many destinations of one flow are remembered; the oldest is routed anew.
const MAX_DESTINATIONS: usize = 64;

/// Flows by source `S` and destination `D`.
pub(crate) struct Table<S, D> {
    pairs: HashMap<(S, D), Rc<Entry<S, D>>>,
    cones: HashMap<ConeKey<S>, Rc<Entry<S, D>>>,
    flows: HashMap<u64, Rc<Entry<S, D>>>,
    last_serial: u64,
    limit: usize,
}

/// A source, the outbound (by where it lies; an entry keeps it there), and which of the datagrams.
type ConeKey<S> = (S, usize, Cone);

/// A flow in the table.
pub(crate) struct Entry<S, D> {
    /// The flow.
    pub(crate) flow: UdpFlow,
    /// Its outbound.
    pub(crate) outbound: Rc<dyn Outbound>,
    source: S,
    cone: Option<Cone>,
    destinations: RefCell<VecDeque<D>>,
}

impl<S, D> Default for Table<S, D> {
    fn default() -> Self {
        Self::new(MAX_FLOWS)
    }
}

impl<S, D> Table<S, D> {
    /// Holds `limit` flows at most.
    pub(crate) fn new(limit: usize) -> Self {
        Self { pairs: HashMap::new(), cones: HashMap::new(), flows: HashMap::new(), last_serial: 0, limit }
    }

    /// What tells the next flow from every other.
    pub(crate) const fn next_serial(&mut self) -> u64 {
        self.last_serial += 1;
        self.last_serial
    }

    /// Ends every flow.
    pub(crate) fn clear(&mut self) {
        self.pairs.clear();
        self.cones.clear();
        self.flows.clear();
    }
}

impl<S: Copy + Eq + Hash, D: Clone + Eq + Hash> Table<S, D> {
    /// The flow that datagrams between both ends take, if they are known.
    pub(crate) fn get(&self, source: S, destination: &D) -> Option<&Entry<S, D>> {
        // A key by reference would need a trait of its own; cloning an address or a shared name costs little.
        self.pairs.get(&(source, destination.clone())).map(|entry| &**entry)
    }

    /// The flow of the source that a new destination may join.
    pub(crate) fn join(
        &mut self,
        source: S,
        destination: &D,
        outbound: &Rc<dyn Outbound>,
        cone: Option<Cone>,
    ) -> Option<Rc<Entry<S, D>>> {
        let entry = Rc::clone(self.cones.get(&(source, place(outbound), cone?))?);
        self.remember(&entry, destination);
        Some(entry)
    }

    /// Makes room for one more flow. `false` if every flow has been busy lately.
    pub(crate) fn make_room(&mut self, now: Moment) -> bool {
        if self.flows.len() < self.limit {
            return true;
        }
        let idlest = self.flows.iter().map(|(serial, entry)| (entry.flow.idle(now), *serial)).max();
        match idlest {
            Some((idle, serial)) if idle > EVICTABLE => self.remove(serial),
            _ => false,
        }
    }

    /// Adds a flow that has just been started.
    pub(crate) fn insert(
        &mut self,
        serial: u64,
        (source, destination): (S, &D),
        flow: UdpFlow,
        outbound: Rc<dyn Outbound>,
        cone: Option<Cone>,
    ) {
        let key = cone.map(|cone| (source, place(&outbound), cone));
        let entry = Rc::new(Entry { flow, outbound, source, cone, destinations: RefCell::default() });
        if let Some(key) = key {
            self.cones.insert(key, Rc::clone(&entry));
        }
        self.flows.insert(serial, Rc::clone(&entry));
        self.remember(&entry, destination);
    }

    /// Ends a flow; `false` if it is not there.
    pub(crate) fn remove(&mut self, serial: u64) -> bool {
        let Some(entry) = self.flows.remove(&serial) else { return false };
        for destination in entry.destinations.borrow().iter() {
            self.forget(&entry, destination);
        }
        if let Some(cone) = entry.cone {
            let key = (entry.source, place(&entry.outbound), cone);
            if self.cones.get(&key).is_some_and(|known| Rc::ptr_eq(known, &entry)) {
                self.cones.remove(&key);
            }
        }
        true
    }

    /// Ends every flow of the sources that are picked.
    pub(crate) fn remove_sources(&mut self, pick: impl Fn(S) -> bool) {
        let picked: Vec<u64> =
            self.flows.iter().filter(|(_, entry)| pick(entry.source)).map(|(serial, _)| *serial).collect();
        picked.into_iter().for_each(|serial| {
            self.remove(serial);
        });
    }

    fn remember(&mut self, entry: &Rc<Entry<S, D>>, destination: &D) {
        let mut known = entry.destinations.borrow_mut();
        if known.len() >= MAX_DESTINATIONS
            && let Some(oldest) = known.pop_front()
        {
            self.forget(entry, &oldest);
        }
        known.push_back(destination.clone());
        drop(known);
        self.pairs.insert((entry.source, destination.clone()), Rc::clone(entry));
    }

    fn forget(&mut self, entry: &Rc<Entry<S, D>>, destination: &D) {
        let key = (entry.source, destination.clone());
        if self.pairs.get(&key).is_some_and(|known| Rc::ptr_eq(known, entry)) {
            self.pairs.remove(&key);
        }
    }
}

/// What an outbound is known by as long as it is held.
fn place(outbound: &Rc<dyn Outbound>) -> usize {
    Rc::as_ptr(outbound).cast::<()>().addr()
}
