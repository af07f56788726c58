//! A client's UDP source at the server: whatever it sends anywhere, and whatever comes back to it.

use super::Limit;
use crate::addr::{Network, Target};
use crate::engine::Shard;
use crate::engine::dispatch::{self, Flow, FlowUser};
use crate::engine::gates::SharedGate;
use crate::engine::inbound::udp::{Table, UdpFlow};
use crate::transport::Datagram;
use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// The most flows of one source. Where the outbound is a cone there is one for all addresses.
const MAX_FLOWS: usize = 64;

/// Whose the datagrams are.
pub(super) struct Origin {
    pub(super) shard: Rc<Shard>,
    pub(super) inbound: Arc<str>,
    pub(super) gate: Arc<SharedGate>,
    pub(super) user: Rc<FlowUser>,
    /// The other end of the carrier.
    pub(super) client: SocketAddr,
}

/// Takes what comes back to a source.
pub(super) type Outlet = Box<dyn Fn(Datagram)>;

/// A source. Dropping it ends its flows.
pub(super) struct Source {
    origin: Origin,
    flows: RefCell<Table<(), Target>>,
    outlet: RefCell<Option<Outlet>>,
}

impl Source {
    /// A source that has sent nothing yet.
    pub(super) fn new(origin: Origin) -> Rc<Self> {
        let flows = RefCell::new(Table::new(MAX_FLOWS));
        Rc::new(Self { origin, flows, outlet: RefCell::default() })
    }

    /// Says where answers go from here on; without an outlet they are dropped.
    pub(super) fn set_outlet(&self, outlet: Option<Outlet>) {
        let old = std::mem::replace(&mut *self.outlet.borrow_mut(), outlet);
        drop(old);
    }

    /// Passes a datagram on: each destination is routed by itself. It is dropped and counted if it finds no room.
    pub(super) fn push(self: &Rc<Self>, datagram: Datagram) {
        let Datagram { data, remote } = datagram;
        let shard = &self.origin.shard;
        let mut flows = self.flows.borrow_mut();
        if let Some(entry) = flows.get((), &remote) {
            return entry.flow.push(shard, data, remote);
        }
        let now = shard.clock.now();
        let flow = Flow {
            network: Network::Udp,
            source: self.origin.client,
            target: remote.clone(),
            inbound: Arc::clone(&self.origin.inbound),
            accepted: now,
            user: Some(Rc::clone(&self.origin.user)),
        };
        let outbound = dispatch::route(shard, &flow);
        let cone = outbound.cone(&remote);
        if let Some(entry) = flows.join((), &remote, &outbound, cone) {
            return entry.flow.push(shard, data, remote);
        }
        if !outbound.admits(now) || shard.pool.is_nearly_full() || !flows.make_room(now) {
            return self.lose();
        }
        let Some(taken) = shard.shared.descriptors.for_flow() else {
            Limit::Descriptors.report(shard, &self.origin.gate, &self.origin.inbound);
            return self.lose();
        };
        let serial = flows.next_serial();
        let back = Rc::downgrade(self);
        let deliver = move |datagram| {
            // In use for as long as this is: until the flow's socket is closed.
            let _ = &taken;
            if let Some(source) = back.upgrade() {
                source.deliver(datagram);
            }
        };
        let over = Rc::downgrade(self);
        let ended = move |_| {
            if let Some(source) = over.upgrade() {
                source.flows.borrow_mut().remove(serial);
            }
        };
        let started = UdpFlow::start(shard, flow, Rc::clone(&outbound), deliver, ended);
        started.push(shard, data, remote.clone());
        flows.insert(serial, ((), &remote), started, outbound, cone);
    }

    fn deliver(&self, datagram: Datagram) {
        match &*self.outlet.borrow() {
            Some(outlet) => outlet(datagram),
            None => self.lose(),
        }
    }

    fn lose(&self) {
        self.origin.shard.shared.stats.dropped.fetch_add(1, Relaxed);
    }
}
