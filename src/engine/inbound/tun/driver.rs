//! The driver: the one task that reads the device.

use super::{Inner, tcp, udp};
use crate::engine::api::Event as HostEvent;
use crate::error::Error;
use crate::time::Moment;
use crate::tun::device::{Device, READ_BUFFER};
use crate::tun::stack::Event;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::time::Duration;
use tokio::time::{Instant, Sleep, sleep};

/// The most packets that are read before the flows have their turn.
const BATCH: usize = 64;
/// How long a device may be blocked before the host is told.
const STALL: Duration = Duration::from_secs(2);
/// How often the host is told at most.
const STALL_REPORTS: Duration = Duration::from_secs(60);

/// Why the driver woke.
enum Woken {
    /// Somebody changed what it waits for.
    Kicked,
    /// So many packets were read.
    Read(Result<usize, Error>),
    /// The device takes packets again.
    Unblocked(Result<(), Error>),
    /// The stack's timer.
    Due,
    /// The device has been blocked for long.
    Stalled,
}

/// Serves the device until the inbound is dropped.
pub(super) async fn run(inner: Rc<Inner>) {
    let mut buffer = vec![0; READ_BUFFER];
    let mut timer = pin!(sleep(Duration::ZERO));
    let mut stall = Stall { since: None, told: None, timer: Box::pin(sleep(Duration::ZERO)) };
    loop {
        let Some(device) = inner.device.borrow().clone() else { return };
        if inner.failure.borrow().is_some() {
            // Nothing to read. Another device may come.
            drop(device);
            inner.kick.notified().await;
            continue;
        }
        inner.arm(timer.as_mut());
        stall.judge(&inner, &device);
        match wait(&inner, &device, &mut buffer, timer.as_mut(), &mut stall).await {
            Woken::Kicked => {}
            Woken::Due => {
                inner.timer.set(None);
                inner.stack.borrow_mut().handle_timeout(inner.shard.clock.now());
                inner.hand_out();
                inner.transmit();
            }
            Woken::Read(Ok(_)) => {
                inner.hand_out();
                // The flows take their data first, so that one ACK tells the window that this opens.
                tokio::task::yield_now().await;
                inner.transmit();
            }
            Woken::Unblocked(Ok(())) => inner.hand_out(),
            Woken::Stalled => stall.tell(&inner),
            Woken::Read(Err(error)) | Woken::Unblocked(Err(error)) => {
                let is_current = inner.device.borrow().as_ref().is_some_and(|now| Rc::ptr_eq(now, &device));
                if is_current {
                    inner.fail(error);
                }
            }
        }
        inner.count();
    }
}

async fn wait(
    inner: &Inner,
    device: &Device,
    buffer: &mut [u8],
    timer: Pin<&mut Sleep>,
    stall: &mut Stall,
) -> Woken {
    let mut now = None;
    let take = |packet: &[u8], meta| {
        let mut stack = inner.stack.borrow_mut();
        let now = *now.get_or_insert_with(|| {
            let now = inner.shard.clock.now();
            // After a sleep of the device what is due comes before what has arrived.
            if stack.poll_timeout().is_some_and(|due| due <= now) {
                stack.handle_timeout(now);
            }
            now
        });
        stack.handle_packet(now, packet, meta);
    };
    let transmit = || inner.stack.borrow_mut().transmit(inner.shard.clock.now(), &mut &*device);
    let blocked = device.is_blocked();
    tokio::select! {
        biased;
        () = inner.kick.notified() => Woken::Kicked,
        result = device.unblock(transmit), if blocked => Woken::Unblocked(result),
        result = device.read_batch(BATCH, buffer, take) => Woken::Read(result),
        () = timer, if inner.timer.get().is_some() => Woken::Due,
        () = &mut stall.timer, if blocked && stall.is_news() => Woken::Stalled,
    }
}

impl Inner {
    /// Sets the driver's timer if the stack is due earlier. One that is too early fires once for nothing, which costs less
    /// than setting it anew with every packet.
    fn arm(&self, timer: Pin<&mut Sleep>) {
        let Some(due) = self.stack.borrow().poll_timeout() else { return };
        if self.timer.get().is_none_or(|timer| due < timer) {
            self.timer.set(Some(due));
            timer.reset(Instant::now() + due.since(self.shard.clock.now()));
        }
    }

    /// Takes every event out of the stack and gives it to the flow that it concerns.
    fn hand_out(self: &Rc<Self>) {
        loop {
            let event = self.stack.borrow_mut().poll_event();
            match event {
                None => return,
                Some(Event::TcpOpening { flow, source, destination }) => {
                    tcp::opening(self, flow, source, destination);
                }
                Some(Event::TcpEstablished(flow)) => tcp::established(self, flow),
                Some(Event::TcpReadable(flow) | Event::TcpWritable(flow)) => {
                    let waker = self.slots.borrow_mut().take_waker(flow);
                    if let Some(waker) = waker {
                        waker.wake();
                    }
                }
                Some(Event::Udp { source, destination, data, dont_fragment }) => {
                    udp::deliver(self, source, destination, data, dont_fragment);
                }
            }
        }
    }
}

/// Watches for a device that takes no packets.
struct Stall {
    since: Option<Moment>,
    told: Option<Moment>,
    timer: Pin<Box<Sleep>>,
}

impl Stall {
    fn judge(&mut self, inner: &Inner, device: &Device) {
        match (device.is_blocked(), self.since) {
            (true, None) => {
                self.since = Some(inner.shard.clock.now());
                self.timer.as_mut().reset(Instant::now() + STALL);
            }
            (false, Some(_)) => self.since = None,
            _ => {}
        }
    }

    /// Whether the host has not been told of this stall yet.
    fn is_news(&self) -> bool {
        match (self.since, self.told) {
            (Some(since), Some(told)) => since.since(told) >= STALL_REPORTS,
            (Some(_), None) => true,
            (None, _) => false,
        }
    }

    fn tell(&mut self, inner: &Inner) {
        self.told = Some(inner.shard.clock.now());
        let reason = format!("the tun device has taken no packet for {} s", STALL.as_secs());
        inner.shard.shared.emit(HostEvent::Degraded { reason });
    }
}
