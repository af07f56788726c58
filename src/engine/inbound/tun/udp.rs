//! UDP flows: one for each pair of app and destination, bounded in number, each a task around a [`Pipe`].

use super::pipe::{Heard, Patience, Pipe, Queue};
use super::{Inner, dns};
use crate::addr::{Network, Target};
use crate::buffer::Buffer;
use crate::engine::dispatch;
use crate::engine::outbound::{Answer, Outbound};
use crate::time::Moment;
use crate::transport::Datagram;
use crate::tun::stack::{Refusal, ip};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep};

/// The most flows at a time.
const MAX_FLOWS: usize = 512;
/// How long a flow must have been idle to make room for a new one.
const EVICTABLE: Duration = Duration::from_secs(15);
/// How long a flow lives without traffic until the first reply.
const IDLE_UNANSWERED: Duration = Duration::from_secs(30);
/// How long it does afterwards.
const IDLE: Duration = Duration::from_secs(120);
/// The largest payload that every VMess server passes on whole: V2Ray cuts what is longer.
const MAX_PAYLOAD: usize = 1966;
/// The most datagrams of one flow that go to the device before others have their turn.
const BATCH: usize = 64;

type Key = (SocketAddr, SocketAddr);

/// The UDP flows of a tun.
#[derive(Default)]
pub(super) struct Table {
    flows: HashMap<Key, (Rc<Flow>, AbortHandle)>,
    closed: bool,
}

impl Table {
    /// Ends every flow; no new one is made.
    pub(super) fn close(&mut self) {
        self.closed = true;
        for (_, (_, task)) in self.flows.drain() {
            task.abort();
        }
    }

    /// Makes room for one more flow. `false` if every flow has been busy lately.
    fn make_room(&mut self, now: Moment) -> bool {
        if self.flows.len() < MAX_FLOWS {
            return true;
        }
        let oldest = self.flows.iter().min_by_key(|(_, (flow, _))| flow.last.get());
        let Some((&key, _)) = oldest.filter(|(_, (flow, _))| now.since(flow.last.get()) > EVICTABLE) else {
            return false;
        };
        if let Some((_, task)) = self.flows.remove(&key) {
            task.abort();
        }
        true
    }
}

/// What the driver and a flow's task share.
struct Flow {
    key: Key,
    /// What the app has sent since the task ran last.
    inbox: RefCell<Queue<Buffer>>,
    waker: RefCell<Option<Waker>>,
    /// Whether the outbound may cut what is longer than [`MAX_PAYLOAD`].
    cuts: bool,
    /// When the last datagram passed, either way.
    last: Cell<Moment>,
}

/// A datagram of an app: to a resolver, to a flow that there is, or to a new one.
pub(super) fn deliver(
    inner: &Rc<Inner>,
    source: SocketAddr,
    destination: SocketAddr,
    data: Buffer,
    dont_fragment: bool,
) {
    let now = inner.shard.clock.now();
    let to_dns_address = destination.ip() == inner.settings.dns;
    if !to_dns_address && !ip::is_dialable(destination.ip()) {
        return inner.count_dropped(1);
    }
    if destination.port() == 53 && (to_dns_address || dns::is_query(&data)) {
        return dns::ask(inner, source, destination, data);
    }
    if to_dns_address {
        return inner.reject(source, destination, Refusal::Refused);
    }
    let key = (source, destination);
    let flow = inner.udp.borrow().flows.get(&key).map(|(flow, _)| Rc::clone(flow));
    if let Some(flow) = flow {
        if flow.cuts && dont_fragment && data.len() > MAX_PAYLOAD {
            return inner.too_big(key);
        }
        flow.last.set(now);
        let dropped = flow.inbox.borrow_mut().push(now, data);
        inner.count_dropped(dropped);
        if let Some(waker) = flow.waker.borrow_mut().take() {
            waker.wake();
        }
        return;
    }
    let info = dispatch::Flow {
        network: Network::Udp,
        source,
        target: Target::from(destination),
        inbound: Arc::clone(&inner.tag),
        accepted: now,
    };
    let outbound = dispatch::route(&inner.shard, &info);
    let cuts = !outbound.connects_target();
    if cuts && dont_fragment && data.len() > MAX_PAYLOAD {
        return inner.too_big(key);
    }
    let mut table = inner.udp.borrow_mut();
    if table.closed {
        return;
    }
    if !outbound.admits(now) || !table.make_room(now) {
        drop(table);
        return inner.reject(source, destination, Refusal::Refused);
    }
    let flow = Rc::new(Flow {
        key,
        inbox: RefCell::new(Queue::new(Patience::FLOW)),
        waker: RefCell::default(),
        cuts,
        last: Cell::new(now),
    });
    let task = inner.shard.spawn(serve(Rc::clone(inner), Rc::clone(&flow), info, outbound, data));
    table.flows.insert(flow.key, (flow, task.abort_handle()));
}

impl Inner {
    /// Tells an app that its datagram was refused.
    pub(super) fn reject(&self, source: SocketAddr, destination: SocketAddr, how: Refusal) {
        self.stack.borrow_mut().reject_udp(source, destination, how);
    }

    /// Tells an app that its datagram is longer than a VMess server passes on, and how large a packet may be.
    fn too_big(&self, (source, destination): Key) {
        let headers = if destination.is_ipv4() { 28 } else { 48 };
        let mtu = (MAX_PAYLOAD + headers) as u16;
        self.stack.borrow_mut().reject_udp_too_big(source, destination, mtu);
    }
}

/// Takes a flow out of the table when its task ends, however it does.
struct Registered {
    inner: Rc<Inner>,
    flow: Rc<Flow>,
}

impl Drop for Registered {
    fn drop(&mut self) {
        let flows = &mut self.inner.udp.borrow_mut().flows;
        if flows.get(&self.flow.key).is_some_and(|(flow, _)| Rc::ptr_eq(flow, &self.flow)) {
            flows.remove(&self.flow.key);
        }
    }
}

async fn serve(
    inner: Rc<Inner>,
    flow: Rc<Flow>,
    info: dispatch::Flow,
    outbound: Rc<dyn Outbound>,
    first: Buffer,
) {
    let registered = Registered { inner: Rc::clone(&inner), flow: Rc::clone(&flow) };
    let (source, destination) = flow.key;
    let first = Datagram { data: first, remote: Target::from(destination) };
    let mut pipe = Pipe::open(&inner.shard, &info, outbound, first, Patience::FLOW);
    let mut idle = IDLE_UNANSWERED;
    let mut timer = pin!(sleep(idle));
    let answer = poll_fn(|cx| {
        flow.listen(cx);
        while let Some(data) = flow.next() {
            pipe.push(Datagram { data, remote: Target::from(destination) });
        }
        let before = idle;
        let ended = receive(&inner, &mut pipe, cx, |data| {
            idle = IDLE;
            flow.last.set(inner.shard.clock.now());
            inner.stack.borrow_mut().send_datagram(destination, source, data);
        });
        if let Poll::Ready(answer) = ended {
            return Poll::Ready(answer);
        }
        if idle != before {
            timer.as_mut().reset(Instant::now() + idle);
        }
        // One lazy timer: what passed since it was set is looked at when it fires.
        while timer.as_mut().poll(cx).is_ready() {
            let quiet = inner.shard.clock.now().since(flow.last.get());
            if quiet >= idle {
                return Poll::Ready(None);
            }
            timer.as_mut().reset(Instant::now() + (idle - quiet));
        }
        Poll::Pending
    })
    .await;
    drop(registered);
    if let Some(answer) = answer {
        let how = match answer {
            Answer::Refused => Refusal::Refused,
            Answer::Forbidden => Refusal::Prohibited,
            Answer::Unreachable | Answer::Failed => Refusal::Unreachable,
        };
        inner.reject(source, destination, how);
        inner.transmit();
    }
}

/// Moves what waits to the network and gives what comes back to `take`; then writes to the device. Ready when the pipe
/// is closed, with the answer for the app if it could not be opened.
pub(super) fn receive(
    inner: &Inner,
    pipe: &mut Pipe,
    cx: &mut Context<'_>,
    mut take: impl FnMut(Buffer),
) -> Poll<Option<Answer>> {
    let mut count = 0;
    let ended = loop {
        match pipe.poll(cx) {
            Poll::Pending => break Poll::Pending,
            Poll::Ready(Heard::Closed(answer)) => break Poll::Ready(answer),
            Poll::Ready(Heard::Datagram(datagram)) => {
                take(datagram.data);
                count += 1;
                if count == BATCH {
                    cx.waker().wake_by_ref();
                    break Poll::Pending;
                }
            }
        }
    };
    if count > 0 {
        inner.transmit();
    }
    ended
}

impl Flow {
    fn listen(&self, cx: &Context<'_>) {
        let mut waker = self.waker.borrow_mut();
        if waker.is_none() {
            *waker = Some(cx.waker().clone());
        }
    }

    fn next(&self) -> Option<Buffer> {
        self.inbox.borrow_mut().pop()
    }
}
