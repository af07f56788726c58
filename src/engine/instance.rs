//! The handle of a tunnel: what a host holds, on whichever thread it likes.

use super::api::{
    CheckReport, ConnectionInfo, Counter, MemoryPressure, NetworkInfo, NewUser, Options, Platform,
    ReloadReport, State, Stats, Status, TunHandle, TunSettings, UserInfo,
};
use super::budget::Budget;
use super::mailbox::{Command, Post, Reply, Signals, Stopping, mailbox};
use super::pending::{NextEvent, Pending, stopped};
use super::runner::{self, Seed};
use super::running::tun_settings;
use super::shared::Shared;
use super::workers;
use crate::config::{self, Config};
use crate::error::{Error, ErrorKind};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::{self, Builder, JoinHandle, ThreadId};
use std::time::Duration;
use tokio::time::Instant;

/// A tunnel: one config's inbounds and outbounds on a thread of their own.
///
/// Made by [`Tunnel::new`], started once, stopped once. Clones are handles to the same tunnel; any thread may use any of
/// them at any time. No call blocks but the `wait` of what it returns. When the last handle is dropped the tunnel is asked
/// to stop, and nobody waits for it.
#[derive(Clone)]
pub struct Tunnel {
    handle: Arc<Handle>,
}

/// Signals the stop when the last of the host's handles goes.
struct Handle(Arc<Inner>);

struct Inner {
    shared: Arc<Shared>,
    signals: Arc<Signals>,
    commands: Post<Command>,
    settings: Arc<Mutex<Option<TunSettings>>>,
    phase: Mutex<Phase>,
    /// The shard's thread. Held while it is being started and while it is being joined; that thread never takes it.
    thread: Mutex<Option<JoinHandle<()>>>,
    /// Which thread that is.
    shard: OnceLock<ThreadId>,
}

enum Phase {
    Idle(Box<Seed>),
    Started,
    Over,
}

impl Tunnel {
    /// Makes a tunnel from a config. Does no IO: files are read and sockets opened by [`Tunnel::start`].
    ///
    /// # Errors
    /// `ConfigInvalid` with the first error of the config ([`validate_config`](crate::validate_config) lists them all);
    /// `Misuse` if the memory limit is below 4 MiB.
    pub fn new(config_json: &str, options: Options, platform: Arc<dyn Platform>) -> Result<Self, Error> {
        let config = read(config_json)?;
        let budget = Budget::new(&options, &config)?;
        let shared = Arc::new(Shared::new(options.log.unwrap_or(config.log_level)));
        let shards = workers::shards(&config, budget.pool_bytes);
        shared.gates.set_replay_bytes(budget.replay_bytes);
        let signals = Arc::new(Signals::default());
        let (commands, received) = mailbox();
        let settings = Arc::new(Mutex::new(tun_settings(&config)));
        let asked = catch_unwind(AssertUnwindSafe(|| platform.protects_sockets()));
        let seed = Seed {
            config,
            budget,
            shards,
            network: options.network,
            log_fixed: options.log.is_some(),
            platform,
            // A host that panics here is asked about every socket.
            protects: asked.unwrap_or(true),
            shared: Arc::clone(&shared),
            signals: Arc::clone(&signals),
            commands: received,
            settings: Arc::clone(&settings),
        };
        let phase = Mutex::new(Phase::Idle(Box::new(seed)));
        let inner = Inner {
            shared,
            signals,
            commands,
            settings,
            phase,
            thread: Mutex::default(),
            shard: OnceLock::new(),
        };
        Ok(Self { handle: Arc::new(Handle(Arc::new(inner))) })
    }

    /// What the host needs to set its tun device up; `None` when the config has no tun inbound.
    pub fn tun_settings(&self) -> Option<TunSettings> {
        lock(&self.inner().settings).clone()
    }

    /// Starts the tunnel, once in its life. Answers when the tun and the listeners are up; no network IO is waited for.
    ///
    /// Without a tun the other inbounds run. A tun needs no inbound in the config: it gets one with the default settings,
    /// tagged `tun`. On any error the descriptor is closed, and the tunnel is stopped. A start that is given up (its
    /// [`Pending`] dropped before the answer was taken) is a stop.
    ///
    /// # Errors
    /// `AlreadyRunning` on the second call, `Stopped` after a stop; what keeps an inbound from starting.
    pub fn start(&self, tun: Option<TunHandle>) -> Pending<Result<(), Error>> {
        let inner = self.inner();
        let Some(seed) = inner.take_seed() else {
            return inner.refuse(match inner.shared.state() {
                State::Stopping | State::Stopped { .. } => {
                    Error::new(ErrorKind::Stopped, "a tunnel is started once, and this one is over")
                }
                _ => Error::new(ErrorKind::AlreadyRunning, "the tunnel has been started"),
            });
        };
        inner.shared.set_state(State::Starting);
        let (started, answer) = Pending::new(&inner.shared.host, stopped);
        let shared = Arc::clone(&inner.shared);
        let body = move || {
            let run = AssertUnwindSafe(|| runner::run(*seed, tun, started));
            if catch_unwind(run).is_err() {
                let error = Error::new(ErrorKind::Internal, "the tunnel's thread panicked; this is a defect");
                shared.set_state(State::Stopped { error: Some(error) });
            }
        };
        let mut thread = lock(&inner.thread);
        match Builder::new().name("vmk-shard".into()).spawn(body) {
            Ok(handle) => {
                inner.shard.get_or_init(|| handle.thread().id());
                *thread = Some(handle);
            }
            Err(error) => {
                drop(thread);
                let error = Error::new(
                    ErrorKind::ResourceLimit { what: "threads" },
                    "the tunnel could not be started",
                )
                .with_reason(error.to_string());
                inner.shared.set_state(State::Stopped { error: Some(error.clone()) });
                return inner.refuse(error);
            }
        }
        drop(thread);
        let (failed, cancelled) = (Arc::clone(inner), Arc::clone(inner));
        answer
            .settled_by(move |answer| {
                if answer.is_err() {
                    failed.join();
                }
            })
            .cancelled_by(move || cancelled.request_stop())
    }

    /// Swaps the tun device under live flows: the new one is in place before the old one closes. A tunnel that runs
    /// without a tun gets one. On an error the new descriptor is closed and the old device stays.
    ///
    /// # Errors
    /// `Stopped`; `Misuse` before the start; `TunIo` if the descriptor cannot be used.
    pub fn set_tun(&self, tun: TunHandle) -> Pending<Result<(), Error>> {
        self.inner().ask(|reply| Command::SetTun(tun, reply))
    }

    /// Proves the path to the server, by a tiny request through the first outbound that dials one.
    ///
    /// # Errors
    /// `Timeout`, `AuthRejected` or what the dial says; `Misuse` if no outbound dials a server.
    pub fn check(&self, timeout: Duration) -> Pending<Result<CheckReport, Error>> {
        self.inner().ask(|reply| Command::Check(timeout, reply))
    }

    /// Asks the tunnel to stop. Never blocks, and is legal anywhere: in callbacks, before the start, after the end.
    pub fn request_stop(&self) {
        self.inner().request_stop();
    }

    /// Stops the tunnel. Answers when every descriptor, task, thread and callback of it is gone and the platform has been
    /// released; at once if that is so already.
    ///
    /// # Errors
    /// `Timeout` naming the callback that has not returned in time; all else is gone then, and the tunnel ends by itself
    /// when the callback returns. `Misuse` on a thread that is in a callback of this tunnel.
    pub fn stop(&self, timeout: Duration) -> Pending<Result<(), Error>> {
        let inner = self.inner();
        if inner.shared.host.is_callback_thread() {
            let error = Error::new(ErrorKind::Misuse, "a callback cannot wait for its own end")
                .with_hint("call request_stop in callbacks");
            return inner.refuse(error);
        }
        inner.request_stop();
        // An instance that ends without an answer has ended all the same.
        let (reply, answer) = Pending::new(&inner.shared.host, || Ok(()));
        let deadline = Instant::now().checked_add(timeout);
        // Dropped when the shard is gone; the answer then stands for itself.
        inner.commands.send(Command::Stop(Some(Stopping { deadline, reply })));
        let joined = Arc::clone(inner);
        answer.settled_by(move |answer| {
            if answer.is_ok() {
                joined.join();
            }
        })
    }

    /// Puts another config in force: all of it, or on an error nothing. Open flows live on as they are; inbounds whose
    /// settings changed are opened anew.
    ///
    /// # Errors
    /// `ConfigInvalid`; `Stopped`; `Misuse` before the start; what keeps an inbound from starting.
    pub fn reload(&self, config_json: &str) -> Pending<Result<ReloadReport, Error>> {
        match read(config_json) {
            Ok(config) => self.inner().ask(|reply| Command::Reload(Box::new(config), reply)),
            Err(error) => self.inner().refuse(error),
        }
    }

    /// Chooses an outbound of a group. Not built yet.
    ///
    /// # Errors
    /// `Unsupported`.
    pub fn select_outbound(&self, _group: &str, _tag: &str) -> Result<(), Error> {
        unsupported("outbound groups are not built yet")
    }

    /// Tells the tunnel what the network below is; `None`: there is none. Changes within 250 ms are taken as one. Ends
    /// only the connections whose path is gone.
    pub fn network_changed(&self, network: Option<NetworkInfo>) {
        self.inner().signals.send(|latest| latest.network = Some(network));
    }

    /// Corrects the clock: UTC is the system's plus `seconds`. A correction beyond what VMess bears is told by
    /// [`Event::ClockSkew`](crate::Event::ClockSkew).
    pub fn set_clock_offset(&self, seconds: i64) {
        let inner = self.inner();
        inner.shared.clock.set_offset(seconds);
        inner.signals.send(|latest| latest.skew = Some(seconds.saturating_neg()));
    }

    /// The device is about to sleep. Timers rest with it; traffic is never refused.
    pub fn pause(&self) {
        self.inner().shared.log(config::LogLevel::Debug, format_args!("the device goes to sleep"));
    }

    /// The device is awake again: deadlines that passed meanwhile are acted on.
    pub fn wake(&self) {
        self.inner().signals.send(|latest| latest.wake = true);
    }

    /// Tells how short memory is. From [`MemoryPressure::Low`] on, free buffers go back to the operating system.
    pub fn memory_pressure(&self, level: MemoryPressure) {
        self.inner().signals.send(|latest| latest.pressure = Some(level));
    }

    /// The state, since when, and the newest error.
    pub fn status(&self) -> Status {
        self.inner().shared.status()
    }

    /// The counters. Never blocks.
    pub fn stats(&self) -> Stats {
        let shared = &self.inner().shared;
        shared.stats.read(shared.clock.now())
    }

    /// The open connections.
    ///
    /// # Errors
    /// `Stopped`; `Misuse` before the start.
    pub fn connections(&self) -> Pending<Result<Vec<ConnectionInfo>, Error>> {
        self.inner().ask(Command::Connections)
    }

    /// Closes a connection; answers whether there was one with this id.
    ///
    /// # Errors
    /// `Stopped`; `Misuse` before the start.
    pub fn close_connection(&self, id: u64) -> Pending<Result<bool, Error>> {
        self.inner().ask(|reply| Command::Close(id, reply))
    }

    /// The counters that the config's policy asks for: of users, inbounds and outbounds, under V2Ray's names. `reset` sets
    /// them to 0 in the same step, without losing a byte. Never blocks.
    ///
    /// A counter is there from its first connection on; one that has stayed at 0 from one reset to the next, without a
    /// connection, is gone until there is one again.
    pub fn counters(&self, reset: bool) -> Vec<Counter> {
        self.inner().shared.stats.list(reset)
    }

    /// The users of a VMess inbound, by its tag: those of the config and those that were added.
    ///
    /// # Errors
    /// `Misuse` if no VMess inbound has the tag, and before the start; `Stopped`.
    pub fn users(&self, inbound: &str) -> Result<Vec<UserInfo>, Error> {
        let shared = self.inner().serving()?;
        shared.users.list(inbound, &shared.stats)
    }

    /// Adds a user to a VMess inbound, who may connect from then on. The user stays until removed, and until a reload
    /// gives the inbound other clients, or another port. Takes a few milliseconds where there are thousands of users, and
    /// about a microsecond for each legacy signature of the inbound if the user has alter ids.
    ///
    /// # Errors
    /// `ConfigInvalid` with the path `id`, `alterId` or `email`: that is not valid, or another user's; `Misuse` if no VMess
    /// inbound has the tag or its ports change (`allocate`), and before the start; `Stopped`.
    pub fn add_user(&self, inbound: &str, user: &NewUser) -> Result<(), Error> {
        self.inner().serving()?.users.add(inbound, user)
    }

    /// Removes a user of a VMess inbound by e-mail, without regard to case; `false` if there is none of it. Connections
    /// that the user has open live on, and no new one is served.
    ///
    /// # Errors
    /// `Misuse` if the e-mail is empty or no VMess inbound has the tag, and before the start; `Stopped`.
    pub fn remove_user(&self, inbound: &str, email: &str) -> Result<bool, Error> {
        self.inner().serving()?.users.remove(inbound, email)
    }

    /// The next event; `None` after the last one, which is always [`State::Stopped`].
    pub fn next_event(&self) -> NextEvent {
        NextEvent::new(&self.inner().shared)
    }

    /// Has the tunnel run so many shards if it starts without a tun device.
    #[cfg(test)]
    pub(super) fn with_shards(self, shards: usize) -> Self {
        if let Phase::Idle(seed) = &mut *lock(&self.inner().phase) {
            seed.shards = shards;
        }
        self
    }

    fn inner(&self) -> &Arc<Inner> {
        &self.handle.0
    }
}

impl fmt::Debug for Tunnel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tunnel").field("state", &self.inner().shared.state()).finish_non_exhaustive()
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.0.request_stop();
    }
}

impl Inner {
    /// What the tunnel is started from, once.
    fn take_seed(&self) -> Option<Box<Seed>> {
        let mut phase = lock(&self.phase);
        match std::mem::replace(&mut *phase, Phase::Started) {
            Phase::Idle(seed) => Some(seed),
            other => {
                *phase = other;
                None
            }
        }
    }

    fn request_stop(&self) {
        let phase = std::mem::replace(&mut *lock(&self.phase), Phase::Over);
        match phase {
            Phase::Idle(seed) => {
                let Seed { commands, platform, .. } = *seed;
                // Whoever waits for the end is answered first: the platform, released with no lock held, may be one of them.
                drop(commands);
                drop(platform);
                self.shared.set_state(State::Stopped { error: None });
            }
            Phase::Started => {
                self.shared.set_state(State::Stopping);
                // Dropped when the shard is gone, and nothing is left to stop.
                self.commands.send(Command::Stop(None));
            }
            Phase::Over => {}
        }
    }

    /// What every thread sees of a tunnel that serves.
    ///
    /// # Errors
    /// `Misuse` before the start, `Stopped` after the end.
    fn serving(&self) -> Result<&Shared, Error> {
        match self.shared.state() {
            State::Idle => Err(unstarted()),
            State::Stopping | State::Stopped { .. } => stopped(),
            _ => Ok(&self.shared),
        }
    }

    /// Sends a command to the shard. A reply that is never given means that the tunnel has ended.
    fn ask<T>(&self, command: impl FnOnce(Reply<T>) -> Command) -> Pending<Result<T, Error>> {
        if matches!(&*lock(&self.phase), Phase::Idle(_)) {
            return self.refuse(unstarted());
        }
        let (reply, answer) = Pending::new(&self.shared.host, stopped);
        // Dropped when the shard is gone: `stopped` is the answer then.
        self.commands.send(command(reply));
        answer
    }

    fn refuse<T>(&self, error: Error) -> Pending<Result<T, Error>> {
        Pending::ready(&self.shared.host, stopped, Err(error))
    }

    /// Joins the shard's thread, which has nothing left to do but to return. Not on that thread itself, where the waker of
    /// a careless executor may take the answer, perhaps while another thread joins it.
    fn join(&self) {
        if self.shard.get() == Some(&thread::current().id()) {
            return;
        }
        if let Some(thread) = lock(&self.thread).take() {
            // Its panics were caught and told.
            let _ = thread.join();
        }
    }
}

fn read(config_json: &str) -> Result<Config, Error> {
    config::parse(config_json).into_result()
}

fn unstarted() -> Error {
    Error::new(ErrorKind::Misuse, "the tunnel has not been started")
}

fn unsupported<T>(text: &'static str) -> Result<T, Error> {
    Err(Error::new(ErrorKind::Unsupported, text))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::api::Refused;
    use std::os::fd::BorrowedFd;
    use std::sync::mpsc::{Sender, channel};

    /// A platform that stops its tunnel when it is released, and tells what came of it.
    struct Clingy {
        tunnel: Arc<Mutex<Option<Tunnel>>>,
        told: Sender<Option<ErrorKind>>,
    }

    impl Platform for Clingy {
        fn protect_socket(&self, _socket: BorrowedFd<'_>) -> Result<(), Refused> {
            Ok(())
        }
    }

    impl Drop for Clingy {
        fn drop(&mut self) {
            let tunnel = lock(&self.tunnel).take().expect("set before it is stopped");
            let stopped = tunnel.stop(Duration::from_secs(60)).wait(Some(Duration::from_secs(20)));
            let kind = stopped.expect("answered at once").err().map(|error| error.kind);
            self.told.send(kind).expect("awaited");
        }
    }

    #[test]
    fn the_shards_own_thread_joins_nobody_while_it_is_being_joined() {
        let config = r#"{"outbounds": [{"protocol": "blackhole"}]}"#;
        let tunnel =
            Tunnel::new(config, Options::default(), Arc::new(crate::NoPlatform)).expect("a good config");
        let inner = Arc::clone(tunnel.inner());
        let ((go, gone), (done, heard)) = (channel(), channel());
        let shard = Arc::clone(&inner);
        let thread = thread::spawn(move || {
            gone.recv().expect("told");
            shard.join();
            done.send(()).expect("awaited");
        });
        inner.shard.set(thread.thread().id()).expect("not started");
        let mut joiner = lock(&inner.thread);
        go.send(()).expect("waiting");
        heard.recv_timeout(Duration::from_secs(10)).expect("it does not wait for its joiner");
        *joiner = Some(thread);
        drop(joiner);
        inner.join();
        assert!(lock(&inner.thread).is_none());
    }

    #[test]
    fn a_platform_that_stops_its_tunnel_when_released_holds_nothing_up() {
        for (started, expected) in [(false, None), (true, Some(ErrorKind::Misuse))] {
            let (told, heard) = channel();
            let held = Arc::default();
            let platform = Arc::new(Clingy { tunnel: Arc::clone(&held), told });
            let config = r#"{"outbounds": [{"protocol": "blackhole"}]}"#;
            let tunnel = Tunnel::new(config, Options::default(), platform).expect("a good config");
            *lock(&held) = Some(tunnel.clone());
            if started {
                tunnel.start(None).wait(None).expect("answered").expect("started");
            }
            tunnel.request_stop();
            tunnel.stop(Duration::from_secs(60)).wait(None).expect("answered").expect("stopped");
            assert_eq!(heard.recv(), Ok(expected));
        }
    }
}
