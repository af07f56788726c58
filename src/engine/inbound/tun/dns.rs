//! Queries of all apps share one UDP flow to each resolver.
//!
//! The table that matches answers is [`crate::dns::forward`]; here is the flow below it, and the change to the next
//! server when one does not answer.

use super::pipe::{Patience, Pipe};
use super::{Inner, udp};
use crate::addr::{Network, Target};
use crate::buffer::Buffer;
use crate::dns::forward::{ANSWER_TIMEOUT, Expired, Outstanding};
use crate::dns::message::{Header, Question};
use crate::engine::dispatch;
use crate::time::Moment;
use crate::transport::Datagram;
use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tokio::task::AbortHandle;
use tokio::time::{Instant, Sleep, sleep};

/// The most resolvers that have a flow at a time.
const MAX_RESOLVERS: usize = 32;
/// The most queries that wait to be taken up by a resolver's task.
const MAX_INBOX: usize = 256;
/// How long queries wait for a carrier: as long as for an answer.
const WAITING: Patience = Patience { number: MAX_INBOX, age: ANSWER_TIMEOUT };
/// How long a server may be silent while queries wait before the next one is asked.
const SILENCE: Duration = Duration::from_secs(2);
/// How long a flow to a resolver is kept without queries.
const IDLE: Duration = Duration::from_secs(30);

/// Who asks: the app's end, and the address that it asked.
type Sender = (SocketAddr, SocketAddr);

/// The resolvers that apps ask at the moment, by the address that they ask.
#[derive(Default)]
pub(super) struct Resolvers {
    open: HashMap<SocketAddr, (Rc<Resolver>, AbortHandle)>,
    closed: bool,
}

impl Resolvers {
    /// Ends every resolver; no new one is made.
    pub(super) fn close(&mut self) {
        self.closed = true;
        for (_, (_, task)) in self.open.drain() {
            task.abort();
        }
    }
}

/// What the driver and a resolver's task share.
struct Resolver {
    asked: SocketAddr,
    /// The servers behind the address, in the order in which they are tried.
    servers: Vec<SocketAddr>,
    /// Which of them is in use.
    current: Cell<usize>,
    inbox: RefCell<VecDeque<(SocketAddr, Buffer)>>,
    waker: RefCell<Option<Waker>>,
}

/// Whether a datagram to port 53 is an ordinary query. What is not goes its own way.
pub(super) fn is_query(data: &[u8]) -> bool {
    Header::parse(data).is_ok_and(|header| header.is_standard() && !header.is_response())
        && Question::parse(data).is_ok()
}

/// Gives a query to the resolver that the app asks.
pub(super) fn ask(inner: &Rc<Inner>, source: SocketAddr, asked: SocketAddr, data: Buffer) {
    let servers = if asked.ip() == inner.settings.dns {
        inner.shard.live().config.dns_servers.clone()
    } else {
        vec![asked]
    };
    let mut resolvers = inner.resolvers.borrow_mut();
    if resolvers.closed || servers.is_empty() {
        return inner.count_dropped(1);
    }
    let known = resolvers.open.get(&asked).map(|(resolver, _)| Rc::clone(resolver));
    let resolver = match known.filter(|resolver| resolver.servers == servers) {
        Some(resolver) => resolver,
        None if resolvers.open.len() >= MAX_RESOLVERS && !resolvers.open.contains_key(&asked) => {
            return inner.count_dropped(1);
        }
        None => {
            let (inbox, waker) = (RefCell::default(), RefCell::default());
            let resolver = Rc::new(Resolver { asked, servers, current: Cell::new(0), inbox, waker });
            let task = inner.shard.spawn(serve(Rc::clone(inner), Rc::clone(&resolver)));
            // A config with other servers: those who wait for the old ones are still answered.
            resolvers.open.insert(asked, (Rc::clone(&resolver), task.abort_handle()));
            resolver
        }
    };
    let mut inbox = resolver.inbox.borrow_mut();
    if inbox.len() == MAX_INBOX {
        inbox.pop_front();
        inner.count_dropped(1);
    }
    inbox.push_back((source, data));
    if let Some(waker) = resolver.waker.borrow_mut().take() {
        waker.wake();
    }
}

impl Inner {
    /// The server to which the DNS address inside the tunnel leads at the moment.
    pub(super) fn name_server(&self) -> Option<SocketAddr> {
        let resolvers = self.resolvers.borrow();
        let asked = SocketAddr::new(self.settings.dns, 53);
        match resolvers.open.get(&asked) {
            Some((resolver, _)) => resolver.servers.get(resolver.current.get()).copied(),
            None => self.shard.live().config.dns_servers.first().copied(),
        }
    }
}

/// Takes the resolver out of the table when its task ends, however it does.
struct Registered(Rc<Inner>, Rc<Resolver>);

impl Drop for Registered {
    fn drop(&mut self) {
        let open = &mut self.0.resolvers.borrow_mut().open;
        if open.get(&self.1.asked).is_some_and(|(resolver, _)| Rc::ptr_eq(resolver, &self.1)) {
            open.remove(&self.1.asked);
        }
    }
}

async fn serve(inner: Rc<Inner>, resolver: Rc<Resolver>) {
    let _registered = Registered(Rc::clone(&inner), Rc::clone(&resolver));
    let now = inner.shard.clock.now();
    let mut session = Session {
        inner: &inner,
        resolver: &resolver,
        outstanding: Outstanding::new(),
        copies: VecDeque::new(),
        pipe: None,
        failures: 0,
        heard: now,
        active: now,
    };
    let mut timer = pin!(sleep(IDLE));
    poll_fn(|cx| session.poll(cx, timer.as_mut())).await;
}

/// A query as it was sent, for the next server.
struct Copy {
    sent: Moment,
    bytes: Vec<u8>,
}

/// What a resolver's task holds.
struct Session<'a> {
    inner: &'a Rc<Inner>,
    resolver: &'a Resolver,
    outstanding: Outstanding<Sender>,
    copies: VecDeque<Copy>,
    pipe: Option<Pipe>,
    /// How many servers or flows in a row have failed.
    failures: usize,
    /// When the server was last heard, or was begun with.
    heard: Moment,
    /// When the last query came.
    active: Moment,
}

impl Session<'_> {
    fn poll(&mut self, cx: &mut Context<'_>, mut timer: Pin<&mut Sleep>) -> Poll<()> {
        self.listen(cx);
        let now = self.inner.shard.clock.now();
        self.take_up(now);
        self.exchange(cx, now);
        loop {
            self.expire(now);
            let Some(due) = self.due() else { return Poll::Ready(()) };
            if due > now {
                timer.as_mut().reset(Instant::now() + due.since(now));
                if timer.as_mut().poll(cx).is_pending() {
                    return Poll::Pending;
                }
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            if self.outstanding.is_empty() {
                return Poll::Ready(());
            }
            // The server has been silent for too long.
            self.next_server(now);
            self.exchange(cx, now);
        }
    }

    fn listen(&self, cx: &Context<'_>) {
        let mut waker = self.resolver.waker.borrow_mut();
        if waker.is_none() {
            *waker = Some(cx.waker().clone());
        }
    }

    /// Enters the queries that have come and sends them.
    fn take_up(&mut self, now: Moment) {
        loop {
            let next = self.resolver.inbox.borrow_mut().pop_front();
            let Some((source, data)) = next else { return };
            let mut bytes = data.to_vec();
            drop(data);
            let sender = (source, self.resolver.asked);
            let entered = self
                .inner
                .shard
                .with_entropy(|entropy| self.outstanding.enter(now, sender, &mut bytes, entropy));
            if entered.is_err() {
                self.inner.count_dropped(1);
                continue;
            }
            self.inner.shard.shared.stats.dns_queries.fetch_add(1, Relaxed);
            if self.copies.is_empty() {
                // Silence counts from the first query that waits.
                self.heard = now;
            }
            self.active = now;
            self.send(&bytes);
            self.copies.push_back(Copy { sent: now, bytes });
        }
    }

    /// Sends a query to the server in use, for which a flow is opened if there is none.
    fn send(&mut self, bytes: &[u8]) {
        let Some(&server) = self.resolver.servers.get(self.resolver.current.get()) else { return };
        let Some(data) = self.inner.shard.pool.copy(bytes) else { return self.inner.count_dropped(1) };
        let datagram = Datagram { data, remote: Target::from(server) };
        match &mut self.pipe {
            Some(pipe) => pipe.push(datagram),
            None => {
                let info = dispatch::Flow {
                    network: Network::Udp,
                    source: self.resolver.asked,
                    target: Target::from(server),
                    inbound: Arc::clone(&self.inner.tag),
                    accepted: self.inner.shard.clock.now(),
                };
                let outbound = dispatch::route(&self.inner.shard, &info);
                self.pipe = Some(Pipe::open(&self.inner.shard, &info, outbound, datagram, WAITING));
            }
        }
    }

    /// Moves queries out and answers in, through as many flows as it takes.
    fn exchange(&mut self, cx: &mut Context<'_>, now: Moment) {
        while let Some(mut pipe) = self.pipe.take() {
            let inner = self.inner;
            let closed = udp::receive(inner, &mut pipe, cx, |data| self.answer(now, data));
            match closed {
                Poll::Pending => {
                    self.pipe = Some(pipe);
                    return;
                }
                Poll::Ready(_) if self.outstanding.is_empty() => return,
                Poll::Ready(_) => self.next_server(now),
            }
        }
    }

    fn answer(&mut self, now: Moment, mut data: Buffer) {
        if data.parts_mut().is_none() {
            match self.inner.shard.pool.copy(&data) {
                Some(own) => data = own,
                None => return self.inner.count_dropped(1),
            }
        }
        let sent_id = data.first_chunk::<2>().copied();
        let Some((slab, range)) = data.parts_mut() else { return };
        let Some(bytes) = slab.get_mut(range) else { return };
        match self.outstanding.answer(bytes) {
            Some((app, asked)) => {
                (self.heard, self.failures) = (now, 0);
                self.copies.retain(|copy| copy.bytes.first_chunk::<2>().copied() != sent_id);
                self.inner.stack.borrow_mut().send_datagram(asked, app, data);
            }
            None => self.inner.count_dropped(1),
        }
    }

    /// Turns to the next server and asks it everything that is still unanswered. With all of them tried in vain, those
    /// who wait are told so.
    fn next_server(&mut self, now: Moment) {
        self.pipe = None;
        self.heard = now;
        self.failures += 1;
        let current = (self.resolver.current.get() + 1) % self.resolver.servers.len().max(1);
        self.resolver.current.set(current);
        if self.failures > self.resolver.servers.len() {
            self.failures = 0;
            self.copies.clear();
            let waiting: Vec<_> = self.outstanding.drain().collect();
            waiting.into_iter().for_each(|expired| self.give_up(expired));
            self.inner.transmit();
            return;
        }
        let copies = std::mem::take(&mut self.copies);
        copies.iter().for_each(|copy| self.send(&copy.bytes));
        self.copies = copies;
    }

    /// Tells the senders of queries that nobody has answered in time.
    fn expire(&mut self, now: Moment) {
        let mut any = false;
        while let Some(expired) = self.outstanding.handle_timeout(now) {
            self.give_up(expired);
            any = true;
        }
        self.copies.retain(|copy| now.since(copy.sent) < ANSWER_TIMEOUT);
        if any {
            self.inner.transmit();
        }
    }

    fn give_up(&self, expired: Expired<Sender>) {
        let (app, asked) = expired.sender;
        match self.inner.shard.pool.copy(&expired.response) {
            Some(data) => self.inner.stack.borrow_mut().send_datagram(asked, app, data),
            None => self.inner.count_dropped(1),
        }
    }

    /// When something is to be done; `None` when the session is over.
    fn due(&self) -> Option<Moment> {
        match self.outstanding.poll_timeout() {
            Some(due) if self.resolver.servers.len() > 1 => Some(due.min(self.heard + SILENCE)),
            Some(due) => Some(due),
            None => Some(self.active + IDLE),
        }
    }
}
