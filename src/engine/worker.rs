//! A shard besides the first one: a thread that does what the first one's orders say, and ends with it.

use super::api::{ConnectionInfo, NetworkInfo};
use super::health::Health;
use super::host::HostLink;
use super::listeners::{Change, Listeners, Prepared};
use super::mailbox::Mailbox;
use super::network;
use super::pace;
use super::runner::{say_goodbye, starved};
use super::shard::{Live, Shard};
use super::shared::Shared;
use crate::config::Config;
use crate::error::{Error, ErrorKind};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use tokio::runtime::Builder;
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::oneshot::Sender;
use tokio::task::LocalSet;

/// What a worker's shard is made from.
pub(super) struct Seed {
    pub(super) config: Arc<Config>,
    /// Its part of the payload memory.
    pub(super) pool_bytes: usize,
    pub(super) network: Option<NetworkInfo>,
    pub(super) shared: Arc<Shared>,
    pub(super) host: Arc<HostLink>,
    pub(super) health: Arc<Health>,
}

/// What the first shard has a worker do. The end of the orders is the order to end.
pub(super) enum Order {
    /// Do what can fail of a change.
    Prepare(Change, Sender<Result<(), Error>>),
    /// Put in force what was prepared.
    Commit(Sender<()>),
    /// Forget what was prepared.
    Abandon,
    /// List the open connections.
    Connections(Sender<Vec<ConnectionInfo>>),
    /// Close the connection of this id.
    Close(u64, Sender<bool>),
    /// The network below is another one.
    Network {
        /// The last one that there was.
        old: Option<NetworkInfo>,
        /// The one that there is.
        new: Option<NetworkInfo>,
    },
    /// The device was asleep: look at the time.
    Wake,
    /// Give free memory back.
    Trim,
    /// Panic.
    #[cfg(test)]
    Panic,
    /// Let a task end the instance.
    #[cfg(test)]
    Fail(Error),
}

/// Runs a worker to its end: the body of its thread. Why it could not go on is told to `failed`, once.
pub(super) fn run(seed: Seed, orders: Mailbox<Order>, failed: &UnboundedSender<Error>) {
    let body = || match Builder::new_current_thread().enable_all().on_thread_park(pace::before_sleep).build()
    {
        Ok(runtime) => runtime.block_on(live(seed, orders)),
        Err(error) => Err(starved(&error)),
    };
    let panicked = |_| Err(Error::new(ErrorKind::Internal, "a shard's thread panicked; this is a defect"));
    if let Err(error) = catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(panicked) {
        // Nobody listens when the instance is ending.
        let _ = failed.send(error);
    }
}

async fn live(seed: Seed, mut orders: Mailbox<Order>) -> Result<(), Error> {
    let live = Live::new(seed.config)?;
    let shard = Shard::new(seed.shared, seed.host, seed.health, live, seed.pool_bytes);
    shard.network.replace(seed.network);
    let local = LocalSet::new();
    let mut worker = Worker { shard: Rc::clone(&shard), listeners: Listeners::default(), prepared: None };
    let outcome = local.run_until(worker.serve(&mut orders)).await;
    drop(worker);
    say_goodbye(&shard, &local).await;
    outcome
}

struct Worker {
    shard: Rc<Shard>,
    listeners: Listeners,
    prepared: Option<Prepared>,
}

impl Worker {
    async fn serve(&mut self, orders: &mut Mailbox<Order>) -> Result<(), Error> {
        let shard = Rc::clone(&self.shard);
        loop {
            tokio::select! {
                biased;
                order = orders.recv() => match order {
                    Some(order) => self.obey(order).await,
                    None => return Ok(()),
                },
                error = shard.ended() => return Err(error),
            }
        }
    }

    /// Does what the first shard says. It may have given up meanwhile: answers that nobody takes are dropped.
    async fn obey(&mut self, order: Order) {
        let shard = &self.shard;
        match order {
            Order::Prepare(change, reply) => {
                let prepared = change.prepare().map(|prepared| self.prepared = Some(prepared));
                drop(reply.send(prepared));
            }
            Order::Commit(reply) => {
                if let Some(prepared) = self.prepared.take() {
                    self.listeners.commit(shard, prepared).await;
                }
                let _ = reply.send(());
            }
            Order::Abandon => self.prepared = None,
            Order::Connections(reply) => drop(reply.send(shard.connections.list(shard.clock.now()))),
            Order::Close(id, reply) => drop(reply.send(shard.connections.close(id))),
            Order::Network { old, new } => {
                network::follow(shard, old.as_ref(), new);
            }
            Order::Wake => shard.connections.wake_all(),
            Order::Trim => shard.pool.trim(),
            #[cfg(test)]
            Order::Panic => panic!("as a test asks for"),
            #[cfg(test)]
            Order::Fail(error) => shard.end(error),
        }
    }
}
