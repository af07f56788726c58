//! The first shard's thread: it starts everything, the other shards too, serves what handles ask, and leaves nothing behind.

use super::api::{Event, MemoryPressure, NetworkInfo, Platform, State, TunHandle, TunSettings};
use super::budget::Budget;
use super::check::check;
use super::health::Health;
use super::host::HostLink;
use super::inbound::listener::TURNS;
use super::mailbox::{Command, Latest, Mailbox, Reply, Signals, Stopping};
use super::network;
use super::pace;
use super::running::{Running, tun_settings};
use super::shard::{Live, Shard};
use super::shared::Shared;
use super::skew::SKEW;
use super::worker::{self, Order};
use super::workers::{Workers, shards};
use crate::config::{Config, LogLevel};
use crate::error::{Error, ErrorKind};
use std::future::pending;
use std::io;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::runtime::Builder;
use tokio::task::{LocalSet, yield_now};
use tokio::time::{Instant, sleep_until};

/// How long connections may take to say goodbye once they are closed, so that peers see aborts and not proper ends.
const LAST_WORDS: Duration = Duration::from_millis(100);

/// Everything that an instance is started from.
pub(super) struct Seed {
    pub(super) config: Config,
    pub(super) budget: Budget,
    /// How many shards run if there is no tun device at the start.
    pub(super) shards: usize,
    pub(super) network: Option<NetworkInfo>,
    /// Whether the host chose the level of the log events; then a reload leaves it.
    pub(super) log_fixed: bool,
    pub(super) platform: Arc<dyn Platform>,
    /// Whether it wants to be shown sockets.
    pub(super) protects: bool,
    pub(super) shared: Arc<Shared>,
    pub(super) signals: Arc<Signals>,
    pub(super) commands: Mailbox<Command>,
    /// What `tun_settings` answers.
    pub(super) settings: Arc<Mutex<Option<TunSettings>>>,
}

/// Why the serving ended.
enum Outcome {
    /// The start failed; who asked for it is told when everything is undone.
    Unstarted(Error, Reply<()>),
    /// It was stopped, or a fault ended it.
    Over(Option<Error>),
}

/// Runs an instance from its start to its end: the body of the shard's thread. `Stopped` is entered last of all.
pub(super) fn run(seed: Seed, tun: Option<TunHandle>, started: Reply<()>) {
    let shared = Arc::clone(&seed.shared);
    let mut stops = Vec::new();
    let outcome = match Builder::new_current_thread().enable_all().on_thread_park(pace::before_sleep).build()
    {
        Ok(runtime) => runtime.block_on(live_and_end(seed, tun, started, &mut stops)),
        Err(error) => Outcome::Unstarted(starved(&error), started),
    };
    let (error, started) = match outcome {
        Outcome::Unstarted(error, started) => (Some(error), Some(started)),
        Outcome::Over(error) => (error, None),
    };
    shared
        .set_state(State::Stopped { error: error.clone().filter(|error| error.kind != ErrorKind::Stopped) });
    // Those who asked may have given up.
    if let (Some(error), Some(started)) = (error, started) {
        let _ = started.send(Err(error));
    }
    stops.into_iter().for_each(|stop: Stopping| drop(stop.reply.send(Ok(()))));
}

async fn live_and_end(
    seed: Seed,
    tun: Option<TunHandle>,
    started: Reply<()>,
    stops: &mut Vec<Stopping>,
) -> Outcome {
    let Seed {
        config,
        budget,
        shards,
        network,
        log_fixed,
        platform,
        protects,
        shared,
        signals,
        mut commands,
        settings,
    } = seed;
    let host = match HostLink::open(platform, protects, Arc::clone(&shared.host)) {
        Ok(host) => Arc::new(host),
        Err(error) => return Outcome::Unstarted(starved(&error), started),
    };
    let live = match Live::new(config) {
        Ok(live) => live,
        Err(error) => {
            host.close();
            host.gone().await;
            return Outcome::Unstarted(error, started);
        }
    };
    let shards = if tun.is_some() { 1 } else { shards.max(1) };
    let health = Arc::new(Health::new(Arc::clone(&shared), &live.config));
    let shard = Shard::new(shared, host, health, live, budget.pool_bytes / shards);
    let local = LocalSet::new();
    let mut server = Server {
        shard: Rc::clone(&shard),
        running: None,
        settings,
        log_fixed,
        pool_bytes: budget.pool_bytes,
        shards,
    };
    let serving = server.serve(tun, network, started, &signals, &mut commands, stops);
    let outcome = local.run_until(serving).await;
    shard.shared.set_state(State::Stopping);
    let workers = server.running.take().map(|running| {
        let mut workers = running.workers;
        workers.dismiss();
        workers
    });
    say_goodbye(&shard, &local).await;
    drop(local);
    if let Some(workers) = workers {
        workers.gone().await;
    }
    end(&shard.host, &mut commands, stops).await;
    outcome
}

/// Closes the connections of a shard, and lets them do it properly.
pub(super) async fn say_goodbye(shard: &Shard, local: &LocalSet) {
    let goodbye = async {
        shard.connections.close_all();
        let patience = Instant::now() + LAST_WORDS;
        while !shard.connections.is_empty() && Instant::now() < patience {
            yield_now().await;
        }
        // Then the connections that flows have shared, and the listeners whose clients share a socket.
        shard.live().outbounds.iter().for_each(|outbound| outbound.network_changed());
        for _ in 0..TURNS {
            yield_now().await;
        }
    };
    local.run_until(goodbye).await;
}

/// Waits for the host's threads, and tells those whose patience ends before.
async fn end(host: &HostLink, commands: &mut Mailbox<Command>, stops: &mut Vec<Stopping>) {
    host.close();
    let gone = host.gone();
    tokio::pin!(gone);
    let mut asked = true;
    loop {
        let due = stops.iter().filter_map(|stop| stop.deadline).min();
        tokio::select! {
            biased;
            () = &mut gone => return,
            command = commands.recv(), if asked => match command {
                Some(Command::Stop(stop)) => stops.extend(stop),
                // Dropping a command's reply answers that the tunnel is stopped.
                Some(_) => {}
                None => asked = false,
            },
            () = at(due) => {
                let now = Instant::now();
                for stop in stops.extract_if(.., |stop| stop.deadline.is_some_and(|due| due <= now)) {
                    let what = host.stuck_in();
                    let error = Error::new(ErrorKind::Timeout { what }, "a callback has not returned; all else is gone")
                        .with_hint("let the callback return: the tunnel ends then by itself");
                    // The waiter may have given up.
                    let _ = stop.reply.send(Err(error));
                }
            }
        }
    }
}

/// What serves the handles' commands while the instance runs.
struct Server {
    shard: Rc<Shard>,
    running: Option<Running>,
    settings: Arc<Mutex<Option<TunSettings>>>,
    log_fixed: bool,
    /// Of all shards together.
    pool_bytes: usize,
    /// How many shards there are to be.
    shards: usize,
}

impl Server {
    async fn serve(
        &mut self,
        tun: Option<TunHandle>,
        network: Option<NetworkInfo>,
        started: Reply<()>,
        signals: &Signals,
        commands: &mut Mailbox<Command>,
        stops: &mut Vec<Stopping>,
    ) -> Outcome {
        let shard = Rc::clone(&self.shard);
        if shard.shared.state() == State::Stopping {
            let error = Error::new(ErrorKind::Stopped, "the tunnel was stopped before it had started");
            return Outcome::Unstarted(error, started);
        }
        let mut known = network.clone();
        if let Some(network) = network {
            shard.host.set_network(Some(network.clone()));
            shard.network.replace(Some(network));
        }
        let workers = Workers::start((1..self.shards).map(|_| self.seed()));
        let running = match workers {
            Ok(workers) => Running::start(&shard, workers, tun).await,
            Err(error) => Err(error),
        };
        match running {
            Ok(running) => self.running = Some(running),
            Err(error) => return Outcome::Unstarted(error, started),
        }
        // Never fails: set once, by this thread.
        let _ = shard.shared.stats.started.set(shard.clock.now());
        shard.shared.log(LogLevel::Info, format_args!("started"));
        shard.health.start();
        // Who asked may have given up; a stop is then on its way.
        let _ = started.send(Ok(()));
        let mut change: Option<(Instant, Option<NetworkInfo>)> = None;
        loop {
            let due = change.as_ref().map(|(due, _)| *due);
            let running = self.running.as_mut().expect("set above");
            let ports = running.due();
            tokio::select! {
                biased;
                command = commands.recv() => match command {
                    Some(Command::Stop(stop)) => {
                        stops.extend(stop);
                        return Outcome::Over(None);
                    }
                    Some(command) => self.obey(command).await,
                    None => return Outcome::Over(None),
                },
                error = shard.ended() => return Outcome::Over(Some(error)),
                error = running.workers.failure() => return Outcome::Over(Some(error)),
                latest = signals.recv() => {
                    if let Some(network) = self.heed(latest) {
                        let due = due.unwrap_or_else(|| Instant::now() + network::DEBOUNCE);
                        change = Some((due, network));
                    }
                }
                () = at(ports) => running.change_ports(&shard).await,
                () = at(due) => {
                    if let Some((_, network)) = change.take() {
                        network::take_up(&shard, &running.workers, &mut known, network);
                    }
                }
            }
        }
    }

    /// What another shard is made from.
    fn seed(&self) -> worker::Seed {
        let shard = &self.shard;
        worker::Seed {
            config: Arc::clone(&shard.live().config),
            pool_bytes: self.pool_bytes / self.shards,
            network: shard.network.borrow().clone(),
            shared: Arc::clone(&shard.shared),
            host: Arc::clone(&shard.host),
            health: Arc::clone(&shard.health),
        }
    }

    /// Does what a handle asks. Who asked may have given up meanwhile: answers that nobody takes are dropped.
    async fn obey(&mut self, command: Command) {
        let shard = &self.shard;
        let running = self.running.as_mut().expect("set before the first command is read");
        match command {
            Command::SetTun(handle, reply) => drop(reply.send(running.set_tun(shard, handle))),
            Command::Check(limit, reply) => {
                let shard = Rc::clone(shard);
                self.shard.spawn(async move { drop(reply.send(check(shard, limit).await)) });
            }
            Command::Reload(config, reply) => {
                let memory_limit = shard.live().config.vmesskit.memory_limit;
                let report = running.reload(shard, *config).await;
                if report.is_ok() {
                    let live = shard.live();
                    if !self.log_fixed {
                        shard.shared.set_log_level(live.config.log_level);
                    }
                    *self.settings.lock().unwrap_or_else(PoisonError::into_inner) =
                        tun_settings(&live.config);
                    shard.shared.log(LogLevel::Info, format_args!("reloaded"));
                    if shards(&live.config, self.pool_bytes) > running.shards() {
                        let text = format_args!("the server uses all cores from the next start on");
                        shard.shared.log(LogLevel::Info, text);
                    }
                    if live.config.vmesskit.memory_limit != memory_limit {
                        let text = format_args!("the new memoryLimit counts from the next start on");
                        shard.shared.log(LogLevel::Warning, text);
                    }
                }
                drop(reply.send(report));
            }
            Command::Connections(reply) => {
                let mut found = shard.connections.list(shard.clock.now());
                let others = running.workers.connections();
                shard.spawn(async move {
                    found.extend(others.await);
                    found.sort_unstable_by_key(|connection| connection.id);
                    drop(reply.send(Ok(found)));
                });
            }
            Command::Close(id, reply) => {
                let closed = shard.connections.close(id);
                let others = running.workers.close_connection(id);
                shard.spawn(async move { drop(reply.send(Ok(closed || others.await))) });
            }
            Command::Stop(_) => unreachable!("the loop takes stops itself"),
        }
    }

    /// Acts on signals; a change of the network is returned, to be taken up when it has settled.
    fn heed(&self, latest: Latest) -> Option<Option<NetworkInfo>> {
        if latest.wake {
            self.woken();
        }
        if latest.pressure.is_some_and(|level| level > MemoryPressure::Normal) {
            self.shard.pool.trim();
            self.tell(|| Order::Trim);
        }
        if let Some(seconds) = latest.skew.filter(|seconds| seconds.unsigned_abs() >= SKEW) {
            self.shard.shared.emit(Event::ClockSkew { seconds });
        }
        latest.network
    }

    fn tell(&self, order: impl Fn() -> Order) {
        if let Some(running) = &self.running {
            running.workers.tell(order);
        }
    }

    /// The runtime's timers stood still while the device slept: lets every connection look at the clock that ran on, and
    /// end if it has been idle for too long, as the other end has done. Back-offs and the resolver's answers go by that
    /// clock anyway.
    fn woken(&self) {
        self.shard.connections.wake_all();
        self.tell(|| Order::Wake);
        self.shard.shared.log(LogLevel::Debug, format_args!("awake; connections look at the time"));
    }
}

/// Sleeps until `due`, for ever without one.
async fn at(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due).await,
        None => pending().await,
    }
}

pub(super) fn starved(error: &io::Error) -> Error {
    Error::new(
        ErrorKind::ResourceLimit { what: "threads or file descriptors" },
        "the tunnel could not be started",
    )
    .with_reason(error.to_string())
}
