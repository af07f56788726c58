//! One shard: what the tasks of one thread share. Nothing in it is locked.

use super::api::NetworkInfo;
use super::clock::Clock;
use super::connections::Connections;
use super::entropy::SystemEntropy;
use super::health::Health;
use super::host::HostLink;
use super::outbound::Outbound;
use super::shared::Shared;
use crate::buffer::Pool;
use crate::config::{Config, LogLevel};
use crate::dns::client::Resolver;
use crate::entropy::Entropy;
use crate::error::{Error, ErrorKind};
use crate::route::Router;
use crate::transport::Scratch;
use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

/// What the tasks of a shard share.
pub(crate) struct Shard {
    /// Payload memory.
    pub(crate) pool: Pool,
    /// The side of the instance that other threads see: counters, events, state, log.
    pub(crate) shared: Arc<Shared>,
    /// The clocks; the same as the shared side's.
    pub(crate) clock: Clock,
    /// The host's callbacks.
    pub(crate) host: Arc<HostLink>,
    /// What is known of the servers; one judge for all shards.
    pub(crate) health: Arc<Health>,
    /// The open connections.
    pub(crate) connections: Connections,
    /// Resolves the names of servers, outside the tunnel.
    pub(crate) resolver: Resolver,
    /// The network below, as the host last described it.
    pub(crate) network: RefCell<Option<NetworkInfo>>,
    /// The config and what was built from it; replaced whole by a reload, so flows keep theirs.
    pub(crate) live: RefCell<Rc<Live>>,
    /// Memory that TLS seals in.
    pub(crate) tls_scratch: Scratch,
    entropy: RefCell<SystemEntropy>,
    /// Why the instance must end, once a task has said so.
    fatal: RefCell<Option<Error>>,
    doomed: Notify,
}

/// A config and the router and outbounds built from it.
pub(crate) struct Live {
    /// The values.
    pub(crate) config: Arc<Config>,
    /// Chooses an outbound.
    pub(crate) router: Router,
    /// The outbounds, in the config's order.
    pub(crate) outbounds: Vec<Rc<dyn Outbound>>,
}

impl Shard {
    /// A shard with nothing on it.
    pub(crate) fn new(
        shared: Arc<Shared>,
        host: Arc<HostLink>,
        health: Arc<Health>,
        live: Live,
        pool_bytes: usize,
    ) -> Rc<Self> {
        Rc::new(Self {
            pool: Pool::with_gauge(pool_bytes, shared.stats.new_pool()),
            clock: shared.clock.clone(),
            host,
            health,
            connections: Connections::default(),
            resolver: Resolver::default(),
            network: RefCell::default(),
            live: RefCell::new(Rc::new(live)),
            tls_scratch: Scratch::default(),
            entropy: RefCell::new(SystemEntropy::new()),
            fatal: RefCell::default(),
            doomed: Notify::new(),
            shared,
        })
    }

    /// The config in force and what was built from it.
    pub(crate) fn live(&self) -> Rc<Live> {
        Rc::clone(&self.live.borrow())
    }

    /// Lends the operating system's randomness.
    pub(crate) fn with_entropy<R>(&self, draw: impl FnOnce(&mut dyn Entropy) -> R) -> R {
        draw(&mut *self.entropy.borrow_mut())
    }

    /// Starts a task on the shard's thread. Every task is dropped at stop. A panic ends the task alone, and is told.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + 'static) -> JoinHandle<()> {
        let shared = Arc::clone(&self.shared);
        // Boxed, because a future that is moved into another one takes its room twice there, for the life of every flow.
        let mut task = Box::pin(task);
        tokio::task::spawn_local(poll_fn(move |cx| {
            let poll = AssertUnwindSafe(|| task.as_mut().poll(cx));
            catch_unwind(poll).unwrap_or_else(|_| {
                let error =
                    Error::new(ErrorKind::Internal, "a task panicked; this is a defect of the library");
                shared.log(LogLevel::Error, format_args!("{error}"));
                shared.set_last_error(error);
                Poll::Ready(())
            })
        }))
    }

    /// Ends the instance because of `error`; the first one counts.
    pub(crate) fn end(&self, error: Error) {
        self.fatal.borrow_mut().get_or_insert(error);
        self.doomed.notify_one();
    }

    /// Waits until a task has called [`Shard::end`].
    pub(crate) async fn ended(&self) -> Error {
        loop {
            if let Some(error) = self.fatal.borrow().clone() {
                return error;
            }
            self.doomed.notified().await;
        }
    }
}

impl Live {
    /// Builds the running side of a config: reads the files that it names, opens no socket.
    ///
    /// # Errors
    /// `ConfigInvalid` if a routing rule cannot be built or a file cannot be used; `Unsupported`.
    pub(crate) fn new(config: impl Into<Arc<Config>>) -> Result<Self, Error> {
        let config = config.into();
        let router = Router::new(&config.rules).map_err(|error| {
            Error::new(ErrorKind::ConfigInvalid, "a routing rule cannot be used")
                .with_reason(error.to_string())
                .with_path("routing.rules")
        })?;
        let outbounds = super::outbound::build_all(&config.outbounds)?;
        Ok(Self { router, outbounds, config })
    }
}

#[cfg(test)]
impl Shard {
    /// A shard for tests of what runs on it: a platform that allows everything and a pool of 16 MiB.
    pub(crate) fn for_tests(config: Config) -> Rc<Self> {
        let shared = Arc::new(Shared::new(LogLevel::Debug));
        let platform = Arc::new(super::api::NoPlatform);
        let host = HostLink::open(platform, false, Arc::clone(&shared.host)).expect("a thread");
        let live = Live::new(config).expect("a good config");
        let health = Arc::new(Health::new(Arc::clone(&shared), &live.config));
        Self::new(shared, Arc::new(host), health, live, 16 << 20)
    }
}
