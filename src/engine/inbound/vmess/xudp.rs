//! UDP sessions for clients, and XUDP: sources that have a name keep their sockets when their carrier is replaced.

use super::Server;
use super::cone::{Origin, Source};
use crate::mux::GlobalId;
use crate::transport::Datagrams;
use crate::transport::mux::DatagramSession;
use crate::vmess::Id;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::Duration;
use tokio::time::sleep;

/// How long a source is kept after its carrier has ended.
const KEPT: Duration = Duration::from_secs(60);
/// How many named sources an inbound has at most on a shard; those beyond are not kept.
const MAX_SOURCES: usize = 4096;
/// How many one user has at most.
const MAX_OF_USER: usize = 512;

/// A source's name: only a connection of the same user can take it over.
pub(super) type Key = (Id, GlobalId);

/// The named sources of an inbound on one shard.
#[derive(Default)]
pub(super) struct Sources {
    held: RefCell<HashMap<Id, HashMap<GlobalId, Rc<Held>>>>,
    count: Cell<usize>,
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
    /// The source of that name, or a new one, which is kept if there is room.
    fn take(&self, key: Option<&Key>, origin: Origin) -> Rc<Held> {
        let mut users = self.held.borrow_mut();
        let Some((owner, id)) = key else { return Held::new(origin) };
        if let Some(held) = users.get(owner).and_then(|of_user| of_user.get(id)) {
            return Rc::clone(held);
        }
        let held = Held::new(origin);
        let of_user = users.get(owner).map_or(0, HashMap::len);
        if self.count.get() < MAX_SOURCES && of_user < MAX_OF_USER {
            users.entry(owner.clone()).or_default().insert(*id, Rc::clone(&held));
            self.count.set(self.count.get() + 1);
        }
        held
    }

    /// Forgets a source, unless another one has its name.
    fn forget(&self, (owner, id): &Key, held: &Rc<Held>) {
        let mut users = self.held.borrow_mut();
        let Some(of_user) = users.get_mut(owner) else { return };
        if of_user.get(id).is_some_and(|known| Rc::ptr_eq(known, held)) {
            of_user.remove(id);
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
    fn begin(&self, session: &DatagramSession) -> u64 {
        self.sessions.set(self.sessions.get() + 1);
        let outlet = session.outlet();
        self.source.set_outlet(Some(Box::new(move |datagram| outlet.send(datagram.data, datagram.remote))));
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
    origin: Origin,
) {
    let held = server.sources.take(key.as_ref(), origin);
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
