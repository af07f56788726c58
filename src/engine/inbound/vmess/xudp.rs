//! UDP sessions for clients, and XUDP: sources that have a name keep their sockets when their carrier is replaced, also by
//! one that comes to another shard: see [`super::homes`].

use super::Server;
use super::cone::{Origin, Source};
use super::homes::{Guest, Inbox, Key, Visit, visit};
use crate::engine::gates::SharedGate;
use crate::mux::GlobalId;
use crate::transport::mux::DatagramSession;
use crate::vmess::Id;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::poll_fn;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::Duration;
use tokio::sync::mpsc::{self, UnboundedReceiver};
use tokio::time::sleep;

/// How long a source is kept after its carrier has ended.
const KEPT: Duration = Duration::from_secs(60);
/// How many named sources an inbound has at most on a shard; those beyond are not kept.
const MAX_SOURCES: usize = 4096;
/// How many one user has at most.
const MAX_OF_USER: usize = 512;

/// The named sources of an inbound that live on one shard.
pub(super) struct Sources {
    held: RefCell<HashMap<Id, HashMap<GlobalId, Rc<Held>>>>,
    count: Cell<usize>,
    /// Knows where those live that do not live here.
    gate: Arc<SharedGate>,
    inbox: Inbox,
}

/// Where a source is.
enum Place {
    Here(Rc<Held>),
    Elsewhere(Inbox, Origin),
}

/// A named source.
struct Held {
    source: Rc<Source>,
    /// How many sessions it has had; the last one is in charge.
    sessions: Cell<u64>,
    /// The task of the session in charge.
    waker: RefCell<Option<Waker>>,
}

impl Sources {
    /// None yet, and the sessions of other shards that come for those that there will be.
    pub(super) fn new(gate: Arc<SharedGate>) -> (Self, UnboundedReceiver<Visit>) {
        let (inbox, visits) = mpsc::unbounded_channel();
        (Self { held: RefCell::default(), count: Cell::new(0), gate, inbox }, visits)
    }

    /// The source of that name, or a new one, which is kept if there is room.
    fn take(&self, key: Option<&Key>, origin: Origin) -> Place {
        let mut users = self.held.borrow_mut();
        let Some(key) = key else { return Place::Here(Held::new(origin)) };
        let (owner, id) = key;
        if let Some(held) = users.get(owner).and_then(|of_user| of_user.get(id)) {
            return Place::Here(Rc::clone(held));
        }
        let of_user = users.get(owner).map_or(0, HashMap::len);
        let room = self.count.get() < MAX_SOURCES && of_user < MAX_OF_USER;
        if let Some(home) = self.gate.homes.claim(key, &self.inbox, room) {
            return Place::Elsewhere(home, origin);
        }
        let held = Held::new(origin);
        if room {
            users.entry(owner.clone()).or_default().insert(*id, Rc::clone(&held));
            self.count.set(self.count.get() + 1);
        }
        Place::Here(held)
    }

    /// Forgets a source, unless another one has its name.
    fn forget(&self, key: &Key, held: &Rc<Held>) {
        let mut users = self.held.borrow_mut();
        let (owner, id) = key;
        let Some(of_user) = users.get_mut(owner) else { return };
        if of_user.get(id).is_some_and(|known| Rc::ptr_eq(known, held)) {
            of_user.remove(id);
            self.gate.homes.forget(key, &self.inbox);
            self.count.set(self.count.get().saturating_sub(1));
        }
        if of_user.is_empty() {
            users.remove(owner);
        }
    }

    /// Whether any source of a user is kept.
    #[cfg(test)]
    pub(super) fn is_held(&self, owner: &Id) -> bool {
        self.held.borrow().contains_key(owner)
    }

    /// Whether a source is kept.
    fn keeps(&self, (owner, id): &Key, held: &Rc<Held>) -> bool {
        let users = self.held.borrow();
        let known = users.get(owner).and_then(|of_user| of_user.get(id));
        known.is_some_and(|known| Rc::ptr_eq(known, held))
    }
}

impl Held {
    fn new(origin: Origin) -> Rc<Self> {
        Rc::new(Self { source: Source::new(origin), sessions: Cell::new(0), waker: RefCell::default() })
    }

    /// Puts a session in charge; the one before it ends. Returns the session's number.
    fn begin(&self, session: &impl Guest) -> u64 {
        self.sessions.set(self.sessions.get() + 1);
        self.source.set_outlet(Some(session.outlet()));
        let waker = self.waker.borrow_mut().take();
        waker.into_iter().for_each(Waker::wake);
        self.sessions.get()
    }

    fn is_in_charge(&self, session: u64) -> bool {
        self.sessions.get() == session
    }
}

/// How a session ended.
enum End {
    /// Another one has taken its source over.
    Superseded,
    /// The client said so.
    Proper,
    /// The carrier died, or was closed.
    Lost,
}

/// Serves a session of datagrams until it has ended.
pub(super) async fn serve(
    server: Rc<Server>,
    mut session: DatagramSession,
    key: Option<Key>,
    mut origin: Origin,
) {
    let held = loop {
        match (server.sources.take(key.as_ref(), origin), &key) {
            (Place::Here(held), _) => break held,
            (Place::Elsewhere(home, ours), Some(key)) => match visit(&home, key, session, &ours).await {
                // Nobody is at home any more: the next look finds another place.
                Some(unserved) => (session, origin) = (unserved, ours),
                None => return,
            },
            (Place::Elsewhere(..), None) => return,
        }
    };
    host(server, held, session, key).await;
}

/// Serves the sessions that come from other shards, for as long as the inbound's server on this one lasts.
pub(super) async fn receive(server: Weak<Server>, mut visits: UnboundedReceiver<Visit>) {
    while let Some(visit) = visits.recv().await {
        let Some(server) = server.upgrade() else { return };
        let (guest, key, origin) = visit.begin(&server);
        let held = match server.sources.take(Some(&key), origin) {
            Place::Here(held) => held,
            // It has just moved; a source without a home will do.
            Place::Elsewhere(_, origin) => Held::new(origin),
        };
        let shard = Rc::clone(&server.shard);
        shard.spawn(host(server, held, guest, Some(key)));
    }
}

/// Serves a session at its source until it has ended.
async fn host(server: Rc<Server>, held: Rc<Held>, mut session: impl Guest, key: Option<Key>) {
    let number = held.begin(&session);
    let end = poll_fn(|cx| {
        if !held.is_in_charge(number) {
            return Poll::Ready(End::Superseded);
        }
        *held.waker.borrow_mut() = Some(cx.waker().clone());
        loop {
            match session.poll_recv(cx) {
                Poll::Ready(Ok(Some(datagram))) => held.source.push(datagram),
                Poll::Ready(Ok(None)) => return Poll::Ready(End::Proper),
                Poll::Ready(Err(_)) => return Poll::Ready(End::Lost),
                Poll::Pending => return Poll::Pending,
            }
        }
    })
    .await;
    drop(session);
    match (end, key) {
        (End::Superseded, _) | (_, None) => {}
        (End::Proper, Some(key)) => server.sources.forget(&key, &held),
        (End::Lost, Some(key)) => {
            if !server.sources.keeps(&key, &held) {
                return;
            }
            held.source.set_outlet(None);
            sleep(KEPT).await;
            if held.is_in_charge(number) {
                server.sources.forget(&key, &held);
            }
        }
    }
}
