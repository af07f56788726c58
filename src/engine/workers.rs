//! The shards besides the first one, as the first one sees them: it starts them, has them follow what it does, and waits
//! for their end. A tunnel that has none pays nothing for them.

use super::api::{ConnectionInfo, NetworkInfo};
use super::crew::Crew;
use super::inbound::sockets;
use super::listeners::Change;
use super::mailbox::{Post, mailbox};
use super::worker::{self, Order, Seed};
use crate::config::{Config, InboundProtocol};
use crate::error::{Error, ErrorKind};
use std::future::pending;
use std::thread::available_parallelism;
use tokio::sync::{mpsc, oneshot};

/// The least that a shard's pool is worth having: more shards than this allows share no memory out well.
const LEAST_POOL: usize = 2 << 20;

/// How many shards an instance runs: one for each core if it is a server, as far as memory allows, else one. A tunnel with
/// a tun device has one source of packets, and a client's few flows are not worth a thread; nor are several shards where
/// the system does not deal clients out among sockets.
pub(super) fn shards(config: &Config, pool_bytes: usize) -> usize {
    let serves = config.inbounds.iter().any(|inbound| matches!(inbound.protocol, InboundProtocol::Vmess(_)));
    if !serves || config.tun().is_some() || !sockets::DEALS {
        return 1;
    }
    available_parallelism().map_or(1, usize::from).min(pool_bytes / LEAST_POOL).max(1)
}

/// The other shards' threads. They end when this is dropped, which waits for them.
pub(super) struct Workers {
    crew: Crew,
    orders: Vec<Post<Order>>,
    failed: mpsc::UnboundedReceiver<Error>,
}

impl Workers {
    /// Starts the threads, one for each seed; none takes anything up yet.
    ///
    /// # Errors
    /// `ResourceLimit` if the operating system gives no thread; those that it gave have ended.
    pub(super) fn start(seeds: impl IntoIterator<Item = Seed>) -> Result<Self, Error> {
        let (failure, failed) = mpsc::unbounded_channel();
        let mut workers = Self { crew: Crew::new(), orders: Vec::new(), failed };
        for (index, seed) in seeds.into_iter().enumerate() {
            let (order, orders) = mailbox();
            let failure = failure.clone();
            let name = format!("vmk-shard-{}", index + 1);
            workers.crew.spawn(&name, move || worker::run(seed, orders, &failure)).map_err(|error| {
                Error::new(ErrorKind::ResourceLimit { what: "threads" }, "a shard could not be started")
                    .with_reason(error.to_string())
            })?;
            workers.orders.push(order);
        }
        Ok(workers)
    }

    /// How many there are.
    pub(super) const fn len(&self) -> usize {
        self.orders.len()
    }

    /// Has each prepare its change, in their order. What one could not do, none has done.
    ///
    /// # Errors
    /// The first one's that failed.
    pub(super) async fn prepare(&mut self, changes: Vec<Change>) -> Result<(), Error> {
        let mut answers = Vec::new();
        for (order, change) in self.orders.iter().zip(changes) {
            let (reply, answer) = oneshot::channel();
            // One that has ended drops the answer.
            order.send(Order::Prepare(change, reply));
            answers.push(answer);
        }
        let mut result = Ok(());
        for answer in answers {
            let prepared = match answer.await {
                Ok(prepared) => prepared,
                Err(_) => Err(self.failure().await),
            };
            result = result.and(prepared);
        }
        if result.is_err() {
            self.tell(|| Order::Abandon);
        }
        result
    }

    /// Has all put in force what they have prepared, and waits until they have.
    pub(super) async fn commit(&self) {
        for answer in self.ask(Order::Commit) {
            // One that has ended has failed, and ends the instance.
            let _ = answer.await;
        }
    }

    /// Tells them of the network below, `new`, and of the last one before it that there was.
    pub(super) fn network_changed(&self, old: Option<&NetworkInfo>, new: Option<&NetworkInfo>) {
        self.tell(|| Order::Network { old: old.cloned(), new: new.cloned() });
    }

    /// Sends an order to all that none answers.
    pub(super) fn tell(&self, order: impl Fn() -> Order) {
        for to in &self.orders {
            // One that has ended has failed, and ends the instance.
            to.send(order());
        }
    }

    /// The open connections of all; sorted by nothing.
    pub(super) fn connections(&self) -> impl Future<Output = Vec<ConnectionInfo>> + 'static {
        let answers = self.ask(Order::Connections);
        async move {
            let mut found = Vec::new();
            for answer in answers {
                found.extend(answer.await.unwrap_or_default());
            }
            found
        }
    }

    /// Closes the connection of an id, whosever it is; whether there was one.
    pub(super) fn close_connection(&self, id: u64) -> impl Future<Output = bool> + 'static {
        let answers = self.ask(|reply| Order::Close(id, reply));
        async move {
            let mut closed = false;
            for answer in answers {
                closed |= answer.await.unwrap_or_default();
            }
            closed
        }
    }

    /// Waits until one of them has failed, and tells why. Cancel-safe.
    pub(super) async fn failure(&mut self) -> Error {
        match self.failed.recv().await {
            Some(error) => error,
            None => pending().await,
        }
    }

    /// Asks all to end: they close what they have.
    pub(super) fn dismiss(&mut self) {
        self.orders.clear();
    }

    /// Waits until all have ended.
    pub(super) async fn gone(&self) {
        self.crew.gone().await;
    }

    fn ask<T>(&self, order: impl Fn(oneshot::Sender<T>) -> Order) -> Vec<oneshot::Receiver<T>> {
        let ask = |to: &Post<Order>| {
            let (reply, answer) = oneshot::channel();
            // One that has ended drops the answer.
            to.send(order(reply));
            answer
        };
        self.orders.iter().map(ask).collect()
    }
}

impl Drop for Workers {
    /// They answer to nobody else: none outlives this, even if the first shard's thread panics.
    fn drop(&mut self) {
        self.dismiss();
        self.crew.join_all();
    }
}

#[cfg(test)]
mod tests;
