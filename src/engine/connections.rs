//! The open connections of a shard: what they are, what they have moved, and how one is closed from outside.

use super::api::ConnectionInfo;
use super::shared::Shared;
use super::stats::Tally;
use crate::addr::{Network, Target};
use crate::time::Moment;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll, Waker};

/// The registry of a shard's connections, in the order in which they were opened.
#[derive(Default)]
pub(crate) struct Connections {
    open: Rc<RefCell<BTreeMap<u64, Weak<Connection>>>>,
}

/// What is known of a connection when it is registered.
#[derive(Debug, Clone)]
pub(crate) struct Opening {
    /// TCP or UDP.
    pub(crate) network: Network,
    /// The app's end.
    pub(crate) source: SocketAddr,
    /// Where it goes.
    pub(crate) target: Target,
    /// The inbound's tag.
    pub(crate) inbound: Arc<str>,
    /// The outbound's tag.
    pub(crate) outbound: Arc<str>,
    /// When it was accepted.
    pub(crate) accepted: Moment,
    /// The counters by name that its payload goes to.
    pub(crate) tally: Tally,
}

/// An open connection. It leaves the registry and the gauges when the last reference goes.
pub(crate) struct Connection {
    id: u64,
    opening: Opening,
    uplink: Cell<u64>,
    downlink: Cell<u64>,
    /// Our own address that the outbound's connection is bound to, once it is known.
    local: Cell<Option<IpAddr>>,
    closed: Cell<bool>,
    waker: RefCell<Option<Waker>>,
    open: Rc<RefCell<BTreeMap<u64, Weak<Connection>>>>,
    shared: Arc<Shared>,
}

impl Connections {
    /// Registers a connection and counts it.
    pub(crate) fn register(&self, shared: &Arc<Shared>, opening: Opening) -> Rc<Connection> {
        let id = shared.new_connection();
        let (total, open) = gauges(shared, opening.network);
        total.fetch_add(1, Relaxed);
        open.fetch_add(1, Relaxed);
        let connection = Rc::new(Connection {
            id,
            opening,
            uplink: Cell::new(0),
            downlink: Cell::new(0),
            local: Cell::new(None),
            closed: Cell::new(false),
            waker: RefCell::new(None),
            open: Rc::clone(&self.open),
            shared: Arc::clone(shared),
        });
        self.open.borrow_mut().insert(id, Rc::downgrade(&connection));
        connection
    }

    /// How many are open.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.open.borrow().len()
    }

    /// Whether none is open.
    pub(crate) fn is_empty(&self) -> bool {
        self.open.borrow().is_empty()
    }

    /// All open ones, oldest first.
    pub(crate) fn list(&self, now: Moment) -> Vec<ConnectionInfo> {
        self.open.borrow().values().filter_map(Weak::upgrade).map(|connection| connection.info(now)).collect()
    }

    /// Closes one; `false` if there is none of that id.
    pub(crate) fn close(&self, id: u64) -> bool {
        let connection = self.open.borrow().get(&id).and_then(Weak::upgrade);
        connection.is_some_and(|connection| {
            connection.close();
            true
        })
    }

    /// Closes those that the predicate picks by our own address that they are bound to, and returns how many that were.
    pub(crate) fn close_where(&self, mut picks: impl FnMut(Option<IpAddr>) -> bool) -> usize {
        let mut picked: Vec<Rc<Connection>> = self.open.borrow().values().filter_map(Weak::upgrade).collect();
        picked.retain(|connection| picks(connection.local.get()));
        picked.iter().for_each(|connection| connection.close());
        picked.len()
    }

    /// Lets the tasks that serve them look at the time anew.
    pub(crate) fn wake_all(&self) {
        let open: Vec<Rc<Connection>> = self.open.borrow().values().filter_map(Weak::upgrade).collect();
        open.iter().for_each(|connection| connection.wake());
    }

    /// Closes all, and returns how many that were.
    pub(crate) fn close_all(&self) -> usize {
        self.close_where(|_| true)
    }
}

impl Connection {
    /// Where it goes.
    pub(crate) const fn target(&self) -> &Target {
        &self.opening.target
    }

    /// When it was accepted.
    pub(crate) const fn accepted(&self) -> Moment {
        self.opening.accepted
    }

    /// Counts payload: here, under the names that the policy asks for, and in the tunnel's totals.
    pub(crate) fn count(&self, uplink: usize, downlink: usize) {
        let (uplink, downlink) = (uplink as u64, downlink as u64);
        self.uplink.set(self.uplink.get() + uplink);
        self.downlink.set(self.downlink.get() + downlink);
        self.opening.tally.add(uplink, downlink);
        if uplink > 0 {
            self.shared.stats.uplink_bytes.fetch_add(uplink, Relaxed);
        }
        if downlink > 0 {
            self.shared.stats.downlink_bytes.fetch_add(downlink, Relaxed);
        }
    }

    /// Payload bytes up and down so far.
    pub(crate) fn counted(&self) -> (u64, u64) {
        (self.uplink.get(), self.downlink.get())
    }

    /// Notes our own address that the outbound's connection is bound to.
    pub(crate) fn bound_to(&self, local: Option<IpAddr>) {
        self.local.set(local.map(|ip| ip.to_canonical()));
    }

    /// Asks the task that serves it to end it.
    pub(crate) fn close(&self) {
        self.closed.set(true);
        self.wake();
    }

    fn wake(&self) {
        let waker = self.waker.borrow_mut().take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Whether it is to be closed; registers the one task that serves it.
    pub(crate) fn poll_closed(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.closed.get() {
            return Poll::Ready(());
        }
        let mut waker = self.waker.borrow_mut();
        if !waker.as_ref().is_some_and(|known| known.will_wake(cx.waker())) {
            *waker = Some(cx.waker().clone());
        }
        Poll::Pending
    }

    fn info(&self, now: Moment) -> ConnectionInfo {
        let Opening { network, source, target, inbound, outbound, accepted, tally: _ } = &self.opening;
        ConnectionInfo {
            id: self.id,
            network: *network,
            source: *source,
            target: target.to_string(),
            inbound: inbound.to_string(),
            outbound: outbound.to_string(),
            uplink_bytes: self.uplink.get(),
            downlink_bytes: self.downlink.get(),
            age_millis: u64::try_from(now.since(*accepted).as_millis()).unwrap_or(u64::MAX),
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.open.borrow_mut().remove(&self.id);
        gauges(&self.shared, self.opening.network).1.fetch_sub(1, Relaxed);
    }
}

/// The total and the gauge of a network.
fn gauges(shared: &Shared, network: Network) -> (&AtomicU64, &AtomicU64) {
    match network {
        Network::Tcp => (&shared.stats.tcp_total, &shared.stats.tcp_open),
        Network::Udp => (&shared.stats.udp_total, &shared.stats.udp_open),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::testing::shard;
    use std::future::poll_fn;

    fn opening(network: Network, port: u16) -> Opening {
        Opening {
            network,
            source: "10.0.0.1:5".parse().expect("literal"),
            target: Target { host: crate::addr::Host::parse("example.com").expect("host"), port },
            inbound: "tun".into(),
            outbound: "proxy".into(),
            accepted: Moment::from_millis(1000),
            tally: Tally::default(),
        }
    }

    #[test]
    fn a_connection_is_listed_while_it_lives() {
        let shard = shard();
        let connections = &shard.connections;
        let first = connections.register(&shard.shared, opening(Network::Tcp, 443));
        let second = connections.register(&shard.shared, opening(Network::Udp, 53));
        first.count(10, 0);
        first.count(1, 200);
        let list = connections.list(Moment::from_millis(1500));
        assert_eq!(list.iter().map(|info| info.id).collect::<Vec<_>>(), [first.id, second.id]);
        assert_eq!((list[0].target.as_str(), list[0].age_millis), ("example.com:443", 500));
        assert_eq!((list[0].uplink_bytes, list[0].downlink_bytes), (11, 200));
        let stats = &shard.shared.stats;
        assert_eq!((stats.tcp_open.load(Relaxed), stats.udp_open.load(Relaxed)), (1, 1));
        drop(first);
        assert_eq!(
            (
                connections.list(Moment::ZERO).len(),
                stats.tcp_open.load(Relaxed),
                stats.tcp_total.load(Relaxed)
            ),
            (1, 0, 1)
        );
    }

    #[tokio::test]
    async fn closing_wakes_the_task_that_serves_it() {
        let shard = shard();
        let connection = shard.connections.register(&shard.shared, opening(Network::Tcp, 80));
        let (id, asked) = (connection.id, Rc::clone(&connection));
        let served = poll_fn(move |cx| asked.poll_closed(cx));
        let closer = async {
            tokio::task::yield_now().await;
            assert!(!shard.connections.close(id + 1), "unknown");
            assert!(shard.connections.close(id));
        };
        tokio::join!(served, closer);
        assert_eq!(shard.connections.close_where(|local| local.is_some()), 0);
    }
}
