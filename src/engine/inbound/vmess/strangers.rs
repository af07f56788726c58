//! Who has not proved to be a user, and how many of them are borne with.
//!
//! Strangers may have half of the connections that users leave: whoever comes beyond that is let in, and the stranger who
//! has been there longest sees its end before its time. So a flood of silent connections costs other strangers their wait
//! and no user a place: a user needs a round trip to leave the crowd, and lives in it for as long as it takes to fill.

use super::Server;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::atomic::Ordering::Relaxed;
use tokio::sync::Notify;

/// The strangers of an inbound on one shard, oldest first.
#[derive(Debug, Default)]
pub(super) struct Strangers {
    waiting: RefCell<BTreeMap<u64, Rc<Notify>>>,
    last: Cell<u64>,
}

/// One of them, until this is dropped.
pub(super) struct Stranger<'a> {
    server: &'a Server,
    number: u64,
    leave: Rc<Notify>,
}

impl<'a> Stranger<'a> {
    /// Counts a connection that has just been accepted, and makes the oldest one leave if there are too many.
    pub(super) fn enter(server: &'a Server) -> Self {
        let shared = &server.shard.shared;
        let there = shared.strangers.fetch_add(1, Relaxed);
        let Strangers { waiting, last } = &server.strangers;
        let mut waiting = waiting.borrow_mut();
        if there >= shared.descriptors.connections_left()
            && let Some((_, oldest)) = waiting.pop_first()
        {
            oldest.notify_one();
        }
        let (number, leave) = (last.get() + 1, Rc::default());
        last.set(number);
        waiting.insert(number, Rc::clone(&leave));
        drop(waiting);
        Self { server, number, leave }
    }

    /// Waits until it has to leave.
    pub(super) async fn must_leave(&self) {
        self.leave.notified().await;
    }
}

impl Drop for Stranger<'_> {
    fn drop(&mut self) {
        self.server.strangers.waiting.borrow_mut().remove(&self.number);
        self.server.shard.shared.strangers.fetch_sub(1, Relaxed);
    }
}
