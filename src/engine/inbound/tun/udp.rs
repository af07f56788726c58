//! UDP flows: one for each pair of app and destination, bounded in number.

use super::{Inner, dns};
use crate::addr::{Network, Target};
use crate::buffer::Buffer;
use crate::engine::dispatch;
use crate::engine::inbound::udp::UdpFlow;
use crate::engine::outbound::Answer;
use crate::time::Moment;
use crate::transport::Datagram;
use crate::tun::stack::{Refusal, ip};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// The most flows at a time.
const MAX_FLOWS: usize = 512;
/// How long a flow must have been idle to make room for a new one.
const EVICTABLE: Duration = Duration::from_secs(15);
/// The largest payload that every VMess server passes on whole: V2Ray cuts what is longer.
const MAX_PAYLOAD: usize = 1966;

type Key = (SocketAddr, SocketAddr);

/// The UDP flows of a tun.
#[derive(Default)]
pub(super) struct Table {
    flows: HashMap<Key, Entry>,
    last_serial: u64,
    closed: bool,
}

struct Entry {
    flow: UdpFlow,
    /// Whether the outbound may cut what is longer than [`MAX_PAYLOAD`].
    cuts: bool,
    /// Tells this flow from an earlier one between the same ends.
    serial: u64,
}

impl Table {
    /// Ends every flow; no new one is made.
    pub(super) fn close(&mut self) {
        self.closed = true;
        self.flows.clear();
    }

    /// Makes room for one more flow. `false` if every flow has been busy lately.
    fn make_room(&mut self, now: Moment) -> bool {
        if self.flows.len() < MAX_FLOWS {
            return true;
        }
        let idlest = self.flows.iter().map(|(key, entry)| (entry.flow.idle(now), *key)).max();
        match idlest {
            Some((idle, key)) if idle > EVICTABLE => self.flows.remove(&key).is_some(),
            _ => false,
        }
    }
}

/// A datagram of an app: to a resolver, to a flow that there is, or to a new one.
pub(super) fn deliver(
    inner: &Rc<Inner>,
    source: SocketAddr,
    destination: SocketAddr,
    data: Buffer,
    dont_fragment: bool,
) {
    let to_dns_address = destination.ip() == inner.dns.get();
    if !to_dns_address && !ip::is_dialable(destination.ip()) {
        return inner.count_dropped(1);
    }
    if destination.port() == 53 && (to_dns_address || dns::takes(inner, destination, &data)) {
        return dns::ask(inner, source, destination, data);
    }
    if to_dns_address {
        return inner.reject(source, destination, Refusal::Refused);
    }
    let key = (source, destination);
    let too_big = dont_fragment && data.len() > MAX_PAYLOAD;
    if let Some(entry) = inner.udp.borrow().flows.get(&key) {
        if entry.cuts && too_big {
            return inner.too_big(key);
        }
        return entry.flow.push(&inner.shard, data, Target::from(destination));
    }
    let now = inner.shard.clock.now();
    let info = dispatch::Flow {
        network: Network::Udp,
        source,
        target: Target::from(destination),
        inbound: Arc::clone(&inner.tag),
        accepted: now,
        user: None,
    };
    let outbound = dispatch::route(&inner.shard, &info);
    let cuts = !outbound.connects_target();
    if cuts && too_big {
        return inner.too_big(key);
    }
    let mut table = inner.udp.borrow_mut();
    if table.closed {
        return;
    }
    // New flows are refused before those that exist starve.
    if !outbound.admits(now) || inner.shard.pool.is_nearly_full() || !table.make_room(now) {
        return inner.reject(source, destination, Refusal::Refused);
    }
    table.last_serial += 1;
    let serial = table.last_serial;
    let flow = UdpFlow::start(&inner.shard, info, outbound, answer(inner, key), ended(inner, key, serial));
    flow.push(&inner.shard, data, Target::from(destination));
    table.flows.insert(key, Entry { flow, cuts, serial });
}

/// What becomes of a datagram that comes back. Its source is what the app has asked, whoever answered.
fn answer(inner: &Rc<Inner>, (source, destination): Key) -> impl FnMut(Datagram) + use<> {
    let inner = Rc::clone(inner);
    move |datagram| {
        inner.stack.borrow_mut().send_datagram(destination, source, datagram.data);
        inner.transmit();
    }
}

/// Takes a flow that is over out of the table, and tells the app if it could not be opened.
fn ended(inner: &Rc<Inner>, key: Key, serial: u64) -> impl FnOnce(Option<Answer>) + use<> {
    let inner = Rc::clone(inner);
    move |answer| {
        let flows = &mut inner.udp.borrow_mut().flows;
        if flows.get(&key).is_some_and(|entry| entry.serial == serial) {
            flows.remove(&key);
        }
        if let Some(answer) = answer {
            let how = match answer {
                Answer::Refused => Refusal::Refused,
                Answer::Forbidden => Refusal::Prohibited,
                Answer::Unreachable | Answer::Failed => Refusal::Unreachable,
            };
            inner.reject(key.0, key.1, how);
            inner.transmit();
        }
    }
}

impl Inner {
    /// Tells an app that its datagram was refused.
    fn reject(&self, source: SocketAddr, destination: SocketAddr, how: Refusal) {
        self.stack.borrow_mut().reject_udp(self.shard.clock.now(), source, destination, how);
    }

    /// Tells an app that its datagram is longer than a VMess server passes on, and how large a packet may be.
    fn too_big(&self, (source, destination): Key) {
        let headers = if destination.is_ipv4() { 28 } else { 48 };
        let mtu = (MAX_PAYLOAD + headers) as u16;
        self.stack.borrow_mut().reject_udp_too_big(self.shard.clock.now(), source, destination, mtu);
    }
}
