//! The tun inbound: one driver between the device and the stack, and the flows that come out of it.
//!
//! * `driver` reads packets in batches, hands out the stack's events and writes what the stack has for the device;
//! * `tcp` and `stream` make a relayed connection of each TCP flow;
//! * `udp` keeps the table of UDP flows, `dns` the queries that share a resolver's.
//!
//! What a packet means is decided in [`crate::tun::stack`], where a flow goes in `dispatch`. Everything here runs on one
//! shard; flows write to the device themselves, without a hop through the driver.

mod dns;
mod driver;
mod stream;
mod tcp;
#[cfg(test)]
mod tests;
mod udp;

use super::super::Shard;
use super::super::api::TunHandle;
use crate::addr::Cidr;
use crate::config::{self, Icmp, InboundProtocol};
use crate::error::{Error, ErrorKind};
use crate::time::Moment;
use crate::tun::device::Device;
use crate::tun::stack::{self, Counters, FlowId, Stack};
use std::cell::{Cell, RefCell};
use std::future::Future;
use std::net::{IpAddr, Ipv4Addr};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

/// The device's MTU if neither the config nor the host says otherwise. On a plain descriptor it is what matters most for
/// speed: 16000 was measured to be worth as much as segmentation offload. Network Extensions collapse above 4064.
pub(crate) const DEFAULT_MTU: u32 = if cfg!(target_os = "ios") {
    4064
} else if cfg!(target_os = "android") {
    9000
} else {
    16_000
};

/// A running tun inbound. Dropping it stops it: the device is closed and its flows end.
pub(crate) struct Tun {
    inner: Rc<Inner>,
    driver: JoinHandle<()>,
}

impl Tun {
    /// Takes the device up and starts to serve it.
    ///
    /// # Errors
    /// `TunIo` or `Misuse` if the handle is not fit for it.
    pub(crate) fn start(
        shard: &Rc<Shard>,
        inbound: &config::Inbound,
        handle: TunHandle,
    ) -> Result<Rc<Self>, Error> {
        let InboundProtocol::Tun(settings) = &inbound.protocol else {
            return Err(Error::new(ErrorKind::Internal, "the inbound is no tun inbound"));
        };
        let device = Rc::new(Device::new(handle, mtu_of(settings))?);
        let config = stack_config(settings, &device);
        let seed = shard.with_entropy(|entropy| entropy.next_u64());
        let inner = Rc::new(Inner {
            stack: RefCell::new(Stack::new(config, shard.pool.clone(), seed)),
            shard: Rc::clone(shard),
            tag: Arc::clone(&inbound.tag),
            dns: Cell::new(settings.dns),
            device: RefCell::new(Some(device)),
            slots: RefCell::default(),
            udp: RefCell::default(),
            resolvers: RefCell::default(),
            kick: Notify::new(),
            timer: Cell::new(None),
            counted: Cell::default(),
            failure: RefCell::new(None),
            failed: Notify::new(),
        });
        let driver = shard.spawn(driver::run(Rc::clone(&inner)));
        Ok(Rc::new(Self { inner, driver }))
    }

    /// Puts another device in the place of the present one; flows live on. The new one is up before the old one closes.
    /// The settings are those of the config in force, or as they were if it has no tun inbound.
    ///
    /// # Errors
    /// `TunIo` or `Misuse` if the handle is not fit for it; the present device stays in use.
    pub(crate) fn replace(&self, handle: TunHandle) -> Result<(), Error> {
        let live = self.inner.shard.live();
        let settings = live.config.tun().map(|(_, settings)| settings);
        let device = Rc::new(Device::new(handle, settings.map_or(DEFAULT_MTU as usize, mtu_of))?);
        match settings {
            Some(settings) => {
                self.inner.dns.set(settings.dns);
                self.inner.stack.borrow_mut().reconfigure(stack_config(settings, &device));
            }
            None => self.inner.stack.borrow_mut().set_mtu(device.mtu(), device.offloads()),
        }
        *self.inner.failure.borrow_mut() = None;
        let old = self.inner.device.borrow_mut().replace(device);
        self.inner.transmit();
        self.inner.kick.notify_one();
        drop(old);
        Ok(())
    }

    /// Takes up from the config in force what concerns no device: the answers to pings and to QUIC. The rest comes with
    /// [`Tun::replace`], together with the device that has been set up for it.
    pub(crate) fn reload(&self) {
        let live = self.inner.shard.live();
        if let Some((_, settings)) = live.config.tun() {
            let echo = settings.icmp == Icmp::Reply;
            self.inner.stack.borrow_mut().set_answers(echo, settings.reject_udp443);
        }
    }

    /// Resolves when the device has failed for good, with the reason (`TunGone` or `TunIo`).
    pub(crate) fn gone(&self) -> impl Future<Output = Error> + use<> {
        let inner = Rc::clone(&self.inner);
        async move {
            loop {
                let failed = inner.failed.notified();
                if let Some(error) = inner.failure.borrow().clone() {
                    return error;
                }
                failed.await;
            }
        }
    }
}

impl Drop for Tun {
    fn drop(&mut self) {
        self.driver.abort();
        self.inner.close();
    }
}

fn mtu_of(settings: &config::Tun) -> usize {
    settings.mtu.unwrap_or(DEFAULT_MTU) as usize
}

fn stack_config(settings: &config::Tun, device: &Device) -> stack::Config {
    stack::Config {
        icmp_echo: settings.icmp == Icmp::Reply,
        reject_udp443: settings.reject_udp443,
        dns: Some(settings.dns),
        device_addresses: settings.addresses.iter().flat_map(undialled).collect(),
        offload: device.offloads(),
        ..stack::Config::new(device.mtu())
    }
}

/// The addresses of the device's network that mean no other host: its own one, and an IPv4 network's first and last.
fn undialled(cidr: &Cidr) -> impl Iterator<Item = IpAddr> + use<> {
    let edges = match cidr.addr {
        IpAddr::V4(ip) if cidr.prefix <= 30 => {
            let mask = u32::MAX >> cidr.prefix;
            Some([u32::from(ip) & !mask, u32::from(ip) | mask])
        }
        _ => None,
    };
    let edges = edges.into_iter().flatten().map(|bits| IpAddr::from(Ipv4Addr::from_bits(bits)));
    edges.chain([cidr.addr])
}

/// What the driver and the flows share.
struct Inner {
    shard: Rc<Shard>,
    tag: Arc<str>,
    /// The DNS address inside the tunnel.
    dns: Cell<IpAddr>,
    stack: RefCell<Stack>,
    /// `None` once the inbound is stopped.
    device: RefCell<Option<Rc<Device>>>,
    slots: RefCell<tcp::Slots>,
    udp: RefCell<udp::Table>,
    resolvers: RefCell<dns::Resolvers>,
    /// Wakes the driver: the timer must be set earlier, the device blocks, or it is another one.
    kick: Notify,
    /// When the driver's timer fires.
    timer: Cell<Option<Moment>>,
    /// The stack's counters as they were last added to the instance's.
    counted: Cell<Counters>,
    failure: RefCell<Option<Error>>,
    failed: Notify,
}

impl Inner {
    /// Writes what the stack has for the device, unless the device is known to be blocked.
    fn transmit(&self) {
        self.write(|stack, now, device| stack.transmit(now, device));
    }

    /// The same for one flow.
    fn transmit_flow(&self, flow: FlowId) {
        self.write(|stack, now, device| stack.transmit_flow(now, flow, device));
    }

    fn write(&self, transmit: impl FnOnce(&mut Stack, Moment, &mut &Device) -> Result<(), stack::Blocked>) {
        let Some(device) = self.device.borrow().clone() else { return };
        let mut stack = self.stack.borrow_mut();
        if !device.is_blocked() && transmit(&mut stack, self.shard.clock.now(), &mut &*device).is_err() {
            self.kick.notify_one();
        }
        let due = stack.poll_timeout();
        if due.is_some_and(|due| self.timer.get().is_none_or(|timer| due < timer)) {
            self.kick.notify_one();
        }
    }

    /// Adds what the stack has counted since the last time to the instance's counters.
    fn count(&self) {
        let new = self.stack.borrow().counters();
        let old = self.counted.replace(new);
        let stats = &self.shard.shared.stats;
        let dropped = |c: &Counters| c.dropped_malformed + c.dropped_policy + c.dropped_memory;
        stats.tun_packets_in.fetch_add(new.packets_in.wrapping_sub(old.packets_in), Relaxed);
        stats.tun_packets_out.fetch_add(new.packets_out.wrapping_sub(old.packets_out), Relaxed);
        let refused = self.device.borrow().as_ref().map_or(0, |device| device.take_refused());
        stats.dropped.fetch_add(dropped(&new).wrapping_sub(dropped(&old)) + refused, Relaxed);
    }

    /// Counts a packet or datagram that was dropped here.
    fn count_dropped(&self, n: u64) {
        self.shard.shared.stats.dropped.fetch_add(n, Relaxed);
    }

    fn fail(&self, error: Error) {
        self.failure.borrow_mut().get_or_insert(error);
        self.failed.notify_waiters();
    }

    /// Closes the device and ends every flow.
    fn close(&self) {
        self.count();
        drop(self.device.borrow_mut().take());
        self.udp.borrow_mut().close();
        self.resolvers.borrow_mut().close();
        let wakers = self.slots.borrow_mut().close();
        wakers.into_iter().for_each(std::task::Waker::wake);
    }

    fn is_closed(&self) -> bool {
        self.device.borrow().is_none()
    }
}
