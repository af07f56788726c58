//! Queries of all apps share one UDP flow to each resolver.
//!
//! The table that matches answers is [`crate::dns::forward`]; here is the flow below it, and the change to the next
//! server when one does not answer.

use super::Inner;
use crate::addr::{Network, Target};
use crate::buffer::Buffer;
use crate::dns::forward::{ANSWER_TIMEOUT, Expired, Outstanding};
use crate::dns::message::{Header, Question};
use crate::engine::dispatch;
use crate::engine::inbound::udp::UdpFlow;
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

/// The most resolvers whose queries share a flow; a query to another one goes as any datagram does.
const MAX_RESOLVERS: usize = 32;
/// The most queries that wait to be taken up by a resolver's task, and for its carrier.
const MAX_WAITING: usize = 256;
/// How long a server may be silent while queries wait before the next one is asked.
const SILENCE: Duration = Duration::from_secs(2);

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

/// What the driver, a resolver's task and its flow share.
struct Resolver {
    asked: SocketAddr,
    /// The servers behind the address, in the order in which they are tried.
    servers: Vec<SocketAddr>,
    /// Which of them is in use.
    current: Cell<usize>,
    queries: RefCell<VecDeque<(SocketAddr, Buffer)>>,
    answers: RefCell<VecDeque<Buffer>>,
    waker: RefCell<Option<Waker>>,
}

impl Resolver {
    fn wake(&self) {
        let waker = self.waker.borrow_mut().take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// Whether a datagram to port 53 shares a flow with others: it is an ordinary query, and there is room for its resolver.
pub(super) fn takes(inner: &Inner, asked: SocketAddr, data: &[u8]) -> bool {
    let open = &inner.resolvers.borrow().open;
    (open.len() < MAX_RESOLVERS || open.contains_key(&asked))
        && Header::parse(data).is_ok_and(|header| header.is_standard() && !header.is_response())
        && Question::parse(data).is_ok()
}

/// Gives a query to the resolver that the app asks.
pub(super) fn ask(inner: &Rc<Inner>, source: SocketAddr, asked: SocketAddr, data: Buffer) {
    let servers = if asked.ip() == inner.dns.get() {
        inner.shard.live().config.dns_servers.clone()
    } else {
        vec![asked]
    };
    let mut resolvers = inner.resolvers.borrow_mut();
    if resolvers.closed || servers.is_empty() {
        return inner.count_dropped(1);
    }
    let known = resolvers.open.get(&asked).map(|(resolver, _)| Rc::clone(resolver));
    let resolver = known.filter(|resolver| resolver.servers == servers).unwrap_or_else(|| {
        let resolver = Rc::new(Resolver {
            asked,
            servers,
            current: Cell::new(0),
            queries: RefCell::default(),
            answers: RefCell::default(),
            waker: RefCell::default(),
        });
        let task = inner.shard.spawn(serve(Rc::clone(inner), Rc::clone(&resolver)));
        // With a config of other servers, those who wait for the old ones are still answered.
        resolvers.open.insert(asked, (Rc::clone(&resolver), task.abort_handle()));
        resolver
    });
    let mut queries = resolver.queries.borrow_mut();
    if queries.len() == MAX_WAITING {
        queries.pop_front();
        inner.count_dropped(1);
    }
    queries.push_back((source, data));
    resolver.wake();
}

impl Inner {
    /// The server to which the DNS address inside the tunnel leads at the moment.
    pub(super) fn name_server(&self) -> Option<SocketAddr> {
        let resolvers = self.resolvers.borrow();
        let asked = SocketAddr::new(self.dns.get(), 53);
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
    let heard = inner.shard.clock.now();
    let (outstanding, copies) = (Outstanding::new(), VecDeque::new());
    let mut session = Session { inner, resolver, outstanding, copies, link: None, failures: 0, heard };
    let mut timer = pin!(sleep(Duration::ZERO));
    poll_fn(|cx| session.poll(cx, timer.as_mut())).await;
}

/// A query as it was sent, for the next server.
struct Copy {
    sent: Moment,
    bytes: Vec<u8>,
}

/// A flow to a server.
struct Link {
    flow: UdpFlow,
    lost: Rc<Cell<bool>>,
}

/// What a resolver's task holds.
struct Session {
    inner: Rc<Inner>,
    resolver: Rc<Resolver>,
    outstanding: Outstanding<Sender>,
    copies: VecDeque<Copy>,
    link: Option<Link>,
    /// How many servers or flows in a row have failed.
    failures: usize,
    /// When the server was last heard, or was begun with.
    heard: Moment,
}

impl Session {
    /// Ready when nobody waits and the flow has ended.
    fn poll(&mut self, cx: &mut Context<'_>, mut timer: Pin<&mut Sleep>) -> Poll<()> {
        *self.resolver.waker.borrow_mut() = Some(cx.waker().clone());
        let now = self.inner.shard.clock.now();
        self.take_answers(now);
        self.take_queries(now);
        self.give_up_on_old(now);
        if self.link.as_ref().is_some_and(|link| link.lost.get()) {
            self.link = None;
            if !self.outstanding.is_empty() {
                self.turn_to_next(now);
            }
        }
        loop {
            let Some(due) = self.due() else {
                return if self.link.is_some() { Poll::Pending } else { Poll::Ready(()) };
            };
            if due > now {
                timer.as_mut().reset(Instant::now() + due.since(now));
                std::task::ready!(timer.as_mut().poll(cx));
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            self.turn_to_next(now);
        }
    }

    /// When a query is given up or its server is; `None` while nobody waits.
    fn due(&self) -> Option<Moment> {
        let due = self.outstanding.poll_timeout()?;
        Some(if self.resolver.servers.len() > 1 { due.min(self.heard + SILENCE) } else { due })
    }

    /// Enters the queries that have come and sends them.
    fn take_queries(&mut self, now: Moment) {
        loop {
            let next = self.resolver.queries.borrow_mut().pop_front();
            let Some((source, data)) = next else { return };
            let mut bytes = data.to_vec();
            drop(data);
            let sender = (source, self.resolver.asked);
            let (shard, outstanding) = (&self.inner.shard, &mut self.outstanding);
            let was_empty = outstanding.is_empty();
            if shard.with_entropy(|entropy| outstanding.enter(now, sender, &mut bytes, entropy)).is_err() {
                self.inner.count_dropped(1);
                continue;
            }
            shard.shared.stats.dns_queries.fetch_add(1, Relaxed);
            if was_empty {
                // Silence counts from the first query that waits.
                self.heard = now;
            }
            self.send(&bytes);
            self.copies.push_back(Copy { sent: now, bytes });
        }
    }

    /// Sends a query to the server in use, for which a flow is started if there is none.
    fn send(&mut self, bytes: &[u8]) {
        let Some(&server) = self.resolver.servers.get(self.resolver.current.get()) else { return };
        let Some(data) = self.inner.shard.pool.copy(bytes) else { return self.inner.count_dropped(1) };
        let link = match self.link.take() {
            Some(link) => link,
            None => self.connect(server),
        };
        link.flow.push(&self.inner.shard, data, Target::from(server));
        self.link = Some(link);
    }

    fn connect(&self, server: SocketAddr) -> Link {
        let shard = &self.inner.shard;
        let flow = dispatch::Flow {
            network: Network::Udp,
            source: self.resolver.asked,
            target: Target::from(server),
            inbound: Arc::clone(&self.inner.tag),
            accepted: shard.clock.now(),
            user: None,
        };
        let outbound = dispatch::route(shard, &flow);
        let (resolver, lost) = (Rc::clone(&self.resolver), Rc::new(Cell::new(false)));
        let deliver = {
            let resolver = Rc::clone(&resolver);
            move |datagram: Datagram| {
                resolver.answers.borrow_mut().push_back(datagram.data);
                resolver.wake();
            }
        };
        let ended = {
            let lost = Rc::clone(&lost);
            move |_| {
                lost.set(true);
                resolver.wake();
            }
        };
        let flow = UdpFlow::start(shard, flow, outbound, deliver, ended).holding(MAX_WAITING);
        Link { flow, lost }
    }

    /// Gives the answers that have come to those who asked.
    fn take_answers(&mut self, now: Moment) {
        let mut any = false;
        loop {
            let next = self.resolver.answers.borrow_mut().pop_front();
            let Some(data) = next else { break };
            any = true;
            if self.answer(now, data).is_none() {
                self.inner.count_dropped(1);
            }
        }
        if any {
            self.inner.transmit();
        }
    }

    /// `None` if nobody waits for this answer, or there is no memory for it.
    fn answer(&mut self, now: Moment, mut data: Buffer) -> Option<()> {
        if data.parts_mut().is_none() {
            data = self.inner.shard.pool.copy(&data)?;
        }
        let sent_id = data.first_chunk::<2>().copied();
        let (slab, range) = data.parts_mut()?;
        let (app, asked) = self.outstanding.answer(slab.get_mut(range)?)?;
        (self.heard, self.failures) = (now, 0);
        self.copies.retain(|copy| copy.bytes.first_chunk::<2>().copied() != sent_id);
        self.inner.stack.borrow_mut().send_datagram(asked, app, data);
        Some(())
    }

    /// Turns to the next server and asks it everything that is still unanswered. With all of them tried in vain, those
    /// who wait are told so.
    fn turn_to_next(&mut self, now: Moment) {
        self.link = None;
        self.heard = now;
        self.failures += 1;
        let current = (self.resolver.current.get() + 1) % self.resolver.servers.len().max(1);
        self.resolver.current.set(current);
        let copies = std::mem::take(&mut self.copies);
        if self.failures > self.resolver.servers.len() {
            self.failures = 0;
            let waiting: Vec<_> = self.outstanding.drain().collect();
            waiting.into_iter().for_each(|expired| self.give_up(expired));
            self.inner.transmit();
            return;
        }
        copies.iter().for_each(|copy| self.send(&copy.bytes));
        self.copies = copies;
    }

    /// Tells the senders of queries that nobody has answered in time.
    fn give_up_on_old(&mut self, now: Moment) {
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
}
