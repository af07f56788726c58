//! TCP flows: where each goes, when it is answered, and the table of those who wait for one.

use super::Inner;
use super::stream::TunStream;
use crate::addr::{Network, Target};
use crate::engine::dispatch;
use crate::engine::outbound::{Answer, Outbound};
use crate::tun::stack::{FlowId, Received, Refusal, ip};
use std::future::poll_fn;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// How long an app has to finish its handshake after we have accepted.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// The driver's side of the stack's flows, by slot.
#[derive(Default)]
pub(super) struct Slots {
    slots: Vec<Slot>,
}

#[derive(Default)]
struct Slot {
    generation: u32,
    stage: Stage,
    waker: Option<Waker>,
}

/// How far a flow has come.
#[derive(Default)]
enum Stage {
    /// Nothing is known.
    #[default]
    Vacant,
    /// Answered; to be served once the handshake is complete.
    Accepted(Box<(dispatch::Flow, Rc<dyn Outbound>)>),
    /// The outbound is being opened before the answer.
    Opening,
    /// The handshake is complete.
    Established,
}

impl Slots {
    /// The slot of a flow, made its own if the flow is newer than what the slot knows.
    fn slot(&mut self, flow: FlowId) -> &mut Slot {
        let index = flow.slot as usize;
        if self.slots.len() <= index {
            self.slots.resize_with(index + 1, Slot::default);
        }
        let slot = &mut self.slots[index];
        if slot.generation != flow.generation {
            *slot = Slot { generation: flow.generation, ..Slot::default() };
        }
        slot
    }

    /// Arranges that the task is woken when something happens to the flow.
    pub(super) fn wait(&mut self, flow: FlowId, cx: &Context<'_>) {
        let waker = &mut self.slot(flow).waker;
        match waker {
            Some(waker) => waker.clone_from(cx.waker()),
            None => *waker = Some(cx.waker().clone()),
        }
    }

    /// The task that waits for the flow.
    pub(super) fn take_waker(&mut self, flow: FlowId) -> Option<Waker> {
        self.slots
            .get_mut(flow.slot as usize)
            .filter(|slot| slot.generation == flow.generation)
            .and_then(|slot| slot.waker.take())
    }

    /// Forgets everything; returns those who waited.
    pub(super) fn close(&mut self) -> Vec<Waker> {
        std::mem::take(&mut self.slots).into_iter().filter_map(|slot| slot.waker).collect()
    }
}

/// A SYN has come: chooses the outbound, and answers at once or after the outbound has been opened.
pub(super) fn opening(inner: &Rc<Inner>, flow: FlowId, source: SocketAddr, destination: SocketAddr) {
    let refuse = |how| inner.stack.borrow_mut().refuse(flow, how);
    let target = if destination.ip() == inner.dns.get() {
        match inner.name_server().filter(|_| destination.port() == 53) {
            Some(server) => Target::from(server),
            None => return refuse(Refusal::Refused),
        }
    } else if ip::is_dialable(destination.ip()) {
        Target::from(destination)
    } else {
        return refuse(Refusal::Silent);
    };
    let now = inner.shard.clock.now();
    let inbound = Arc::clone(&inner.tag);
    let info = dispatch::Flow { network: Network::Tcp, source, target, inbound, accepted: now, user: None };
    let outbound = dispatch::route(&inner.shard, &info);
    if !outbound.admits(now) {
        return refuse(Refusal::Refused);
    }
    if outbound.connects_target() {
        inner.slots.borrow_mut().slot(flow).stage = Stage::Opening;
        inner.shard.spawn(open_first(Rc::clone(inner), flow, info, outbound));
    } else {
        inner.slots.borrow_mut().slot(flow).stage = Stage::Accepted(Box::new((info, outbound)));
        inner.stack.borrow_mut().accept(flow);
    }
}

/// The handshake is complete: the flow is served.
pub(super) fn established(inner: &Rc<Inner>, flow: FlowId) {
    let (stage, waker) = {
        let mut slots = inner.slots.borrow_mut();
        let slot = slots.slot(flow);
        (std::mem::replace(&mut slot.stage, Stage::Established), slot.waker.take())
    };
    if let Stage::Accepted(waiting) = stage {
        let (info, outbound) = *waiting;
        let local = Box::new(TunStream::new(Rc::clone(inner), flow));
        inner.shard.spawn(dispatch::serve_stream(Rc::clone(&inner.shard), info, outbound, local));
    }
    if let Some(waker) = waker {
        waker.wake();
    }
}

/// Ends when the app has reset a flow, or it is gone for another reason.
pub(super) async fn gone(inner: &Inner, flow: FlowId) {
    poll_fn(|cx| {
        inner.slots.borrow_mut().wait(flow, cx);
        if inner.stack.borrow().is_gone(flow) { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

/// Opens the outbound and lets the app know how that went before it is answered.
async fn open_first(inner: Rc<Inner>, flow: FlowId, info: dispatch::Flow, outbound: Rc<dyn Outbound>) {
    let opened = dispatch::open(&inner.shard, &info, &outbound, gone(&inner, flow)).await;
    match opened {
        Err(error) => {
            let how = match error.answer {
                Answer::Unreachable => Refusal::Unreachable,
                Answer::Refused | Answer::Forbidden | Answer::Failed => Refusal::Refused,
            };
            inner.stack.borrow_mut().refuse(flow, how);
            inner.transmit();
        }
        Ok(opened) => {
            // From here on dropping the stream gives the flow back.
            let local = TunStream::new(Rc::clone(&inner), flow);
            inner.stack.borrow_mut().accept(flow);
            inner.transmit();
            let complete = poll_fn(|cx| {
                let mut slots = inner.slots.borrow_mut();
                slots.wait(flow, cx);
                match slots.slot(flow).stage {
                    Stage::Established => Poll::Ready(true),
                    // The app may have gone while the outbound was being opened.
                    _ if matches!(inner.stack.borrow_mut().recv(flow), Received::Reset) => Poll::Ready(false),
                    _ => Poll::Pending,
                }
            });
            if tokio::time::timeout(HANDSHAKE, complete).await == Ok(true) {
                let shard = Rc::clone(&inner.shard);
                dispatch::relay_stream(shard, info, outbound, Box::new(local), opened).await;
            }
        }
    }
}
