//! Where the named UDP sources of an inbound live, whichever shard their carriers come to.
//!
//! A source lives on the shard that saw its name first, with its sockets. A carrier that comes to another shard stays
//! there, and its datagrams go to the source and back over two queues of [`QUEUE`] datagrams: the only hop between shards
//! that payload ever makes. The list of homes is locked when a named source begins and when it is forgotten.

use super::Server;
use super::cone::{Origin, Outlet};
use crate::addr::Target;
use crate::buffer::Buffer;
use crate::engine::Shard;
use crate::engine::dispatch::FlowUser;
use crate::mux::GlobalId;
use crate::transport::mux::DatagramSession;
use crate::transport::{Datagram, Datagrams, StreamError};
use crate::vmess::Id;
use std::collections::HashMap;
use std::fmt;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use tokio::sync::mpsc::{self, Receiver, Sender, UnboundedSender};

/// How many datagrams wait between two shards, each way; those that come then are dropped.
const QUEUE: usize = 64;

/// A source's name: only a connection of the same user can take it over.
pub(super) type Key = (Id, GlobalId);

/// The homes of one inbound's sources, on all shards together.
#[derive(Default)]
pub(crate) struct Homes(Mutex<HashMap<Key, Inbox>>);

/// Takes the sessions that come to other shards.
pub(super) type Inbox = UnboundedSender<Visit>;

/// A session of another shard's.
pub(super) struct Visit {
    /// The source that it is for.
    pub(super) key: Key,
    user: FlowUser,
    client: SocketAddr,
    from: Receiver<Packet>,
    to: Sender<Packet>,
}

/// What passes between two shards.
enum Packet {
    Datagram(Box<[u8]>, Target),
    /// The client has ended its session properly.
    End,
}

impl Homes {
    /// Where the source lives, if that is not at `inbox`. One without a home gets it there, if there is `room`.
    pub(super) fn claim(&self, key: &Key, inbox: &Inbox, room: bool) -> Option<Inbox> {
        let mut homes = self.lock();
        match homes.get(key) {
            Some(home) if home.same_channel(inbox) => return None,
            Some(home) if !home.is_closed() => return Some(home.clone()),
            // None, or one whose shard has ended.
            Some(_) | None => {}
        }
        if room {
            homes.insert(key.clone(), inbox.clone());
        }
        None
    }

    /// Forgets a source that lives at `inbox`.
    pub(super) fn forget(&self, key: &Key, inbox: &Inbox) {
        let mut homes = self.lock();
        if homes.get(key).is_some_and(|home| home.same_channel(inbox)) {
            homes.remove(key);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Inbox>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Homes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Homes").field("len", &self.lock().len()).finish_non_exhaustive()
    }
}

/// A session at its source's home: one of the home's own shard, or a [`Visitor`].
pub(super) trait Guest {
    /// The next datagram of the client's; `None` at its proper end.
    fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Datagram>, StreamError>>;

    /// Takes what comes back, for as long as the session lasts.
    fn outlet(&self) -> Outlet;
}

impl Guest for DatagramSession {
    fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Datagram>, StreamError>> {
        Datagrams::poll_recv(self, cx)
    }

    fn outlet(&self) -> Outlet {
        let outlet = Self::outlet(self);
        Box::new(move |datagram| outlet.send(datagram.data, datagram.remote))
    }
}

/// A session that came to another shard, as it is seen at its source's home.
pub(super) struct Visitor {
    shard: Rc<Shard>,
    from: Receiver<Packet>,
    to: Sender<Packet>,
}

impl Visit {
    /// The session, and whose it is, on the shard that it visits.
    pub(super) fn begin(self, server: &Server) -> (Visitor, Key, Origin) {
        let Self { key, user, client, from, to } = self;
        let Server { shard, tag, gate, .. } = server;
        let (inbound, gate) = (Arc::clone(tag), Arc::clone(gate));
        let origin = Origin { shard: Rc::clone(shard), inbound, gate, user: Rc::new(user), client };
        (Visitor { shard: Rc::clone(shard), from, to }, key, origin)
    }
}

impl Guest for Visitor {
    fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Datagram>, StreamError>> {
        loop {
            match ready!(self.from.poll_recv(cx)) {
                Some(Packet::Datagram(data, remote)) => {
                    if let Some(data) = received(&self.shard, &data) {
                        return Poll::Ready(Ok(Some(Datagram { data, remote })));
                    }
                }
                Some(Packet::End) => return Poll::Ready(Ok(None)),
                None => return Poll::Ready(Err(StreamError::Closed)),
            }
        }
    }

    fn outlet(&self) -> Outlet {
        let (shard, to) = (Rc::clone(&self.shard), self.to.clone());
        Box::new(move |datagram| pass(&shard, &to, &datagram))
    }
}

/// Serves a session whose source lives elsewhere until either has ended it; gives it back if nobody is at home.
pub(super) async fn visit(
    home: &Inbox,
    key: &Key,
    mut session: DatagramSession,
    origin: &Origin,
) -> Option<DatagramSession> {
    let (to_home, from_client) = mpsc::channel(QUEUE);
    let (to_client, mut from_home) = mpsc::channel(QUEUE);
    let visit = Visit {
        key: key.clone(),
        user: FlowUser::clone(&origin.user),
        client: origin.client,
        from: from_client,
        to: to_client,
    };
    if home.send(visit).is_err() {
        return Some(session);
    }
    let (shard, outlet) = (&origin.shard, Guest::outlet(&session));
    poll_fn(|cx| {
        while let Poll::Ready(packet) = from_home.poll_recv(cx) {
            match packet {
                Some(Packet::Datagram(data, remote)) => {
                    received(shard, &data).into_iter().for_each(|data| {
                        outlet(Datagram { data, remote: remote.clone() });
                    });
                }
                // Another session has taken the source over.
                Some(Packet::End) | None => return Poll::Ready(()),
            }
        }
        loop {
            match ready!(Datagrams::poll_recv(&mut session, cx)) {
                Ok(Some(datagram)) => pass(shard, &to_home, &datagram),
                Ok(None) => {
                    // Without room for it, it is the end of a carrier that died: the source is kept for nothing.
                    let _ = to_home.try_send(Packet::End);
                    return Poll::Ready(());
                }
                Err(_) => return Poll::Ready(()),
            }
        }
    })
    .await;
    None
}

/// Passes a datagram on to another shard; it is dropped and counted if there is no room for it.
fn pass(shard: &Shard, to: &Sender<Packet>, Datagram { data, remote }: &Datagram) {
    if to.try_send(Packet::Datagram(Box::from(&**data), remote.clone())).is_err() {
        shard.shared.stats.dropped.fetch_add(1, Relaxed);
    }
}

/// A datagram in this shard's memory; counted if there is none.
fn received(shard: &Shard, data: &[u8]) -> Option<Buffer> {
    let copy = shard.pool.copy(data);
    if copy.is_none() {
        shard.shared.stats.dropped.fetch_add(1, Relaxed);
    }
    copy
}
