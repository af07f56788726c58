//! UDP flows: one for each pair of app and destination, or for each app where the outbound is a cone; bounded in number.

use super::{Inner, dns};
use crate::addr::{Network, Target};
use crate::buffer::Buffer;
use crate::engine::dispatch;
use crate::engine::inbound::udp::{self, UdpFlow};
use crate::engine::outbound::Answer;
use crate::transport::Datagram;
use crate::tun::stack::{Refusal, ip};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

/// The largest payload that every VMess server passes on whole: V2Ray cuts what is longer.
const MAX_PAYLOAD: usize = 1966;

type Key = (SocketAddr, SocketAddr);

/// The UDP flows of a tun.
#[derive(Default)]
pub(super) struct Table {
    flows: udp::Table<SocketAddr, SocketAddr>,
    closed: bool,
}

impl Table {
    /// Ends every flow; no new one is made.
    pub(super) fn close(&mut self) {
        self.closed = true;
        self.flows.clear();
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
    if let Some(entry) = inner.udp.borrow().flows.get(source, &destination) {
        if too_big && !entry.outbound.connects_target() {
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
    if too_big && !outbound.connects_target() {
        return inner.too_big(key);
    }
    let mut table = inner.udp.borrow_mut();
    if table.closed {
        return;
    }
    let cone = outbound.cone(&info.target);
    if let Some(entry) = table.flows.join(source, &destination, &outbound, cone) {
        return entry.flow.push(&inner.shard, data, info.target);
    }
    // New flows are refused before those that exist starve.
    if !outbound.admits(now) || inner.shard.pool.is_nearly_full() || !table.flows.make_room(now) {
        return inner.reject(source, destination, Refusal::Refused);
    }
    let serial = table.flows.next_serial();
    let (back, over) = (answer(inner, key, cone.is_some()), ended(inner, key, serial));
    let flow = UdpFlow::start(&inner.shard, info, Rc::clone(&outbound), back, over);
    flow.push(&inner.shard, data, Target::from(destination));
    table.flows.insert(serial, (source, &destination), flow, outbound, cone);
}

/// What becomes of a datagram that comes back. Its source is who sent it where that is known (`cone`), else what the app
/// has asked, whoever answered.
fn answer(inner: &Rc<Inner>, (source, destination): Key, cone: bool) -> impl FnMut(Datagram) + use<> {
    let inner = Rc::clone(inner);
    move |datagram| {
        let known = datagram.remote.socket_addr().filter(|_| cone);
        let from = known.unwrap_or(destination);
        if from.is_ipv4() != source.is_ipv4() {
            return inner.count_dropped(1);
        }
        inner.stack.borrow_mut().send_datagram(from, source, datagram.data);
        inner.transmit();
    }
}

/// Takes a flow that is over out of the table, and tells the app if it could not be opened.
fn ended(inner: &Rc<Inner>, key: Key, serial: u64) -> impl FnOnce(Option<Answer>) + use<> {
    let inner = Rc::clone(inner);
    move |answer| {
        inner.udp.borrow_mut().flows.remove(serial);
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
