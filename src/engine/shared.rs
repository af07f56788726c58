//! The side of an instance that every thread sees.

use super::api::{Event, LogLine, State, Status};
use super::budget::Descriptors;
use super::clock::Clock;
use super::events::EventQueue;
use super::gates::Gates;
use super::host::HostQueue;
use super::inbound::vmess::Limits;
use super::inbound::vmess::dynamic::Offers;
use super::skew::Skew;
use super::stats::Counters;
use super::users::UserTables;
use crate::config::LogLevel;
use crate::error::Error;
use crate::time::Moment;
use std::fmt;
use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

/// The longest text of a log line, in bytes.
const LINE: usize = 500;

/// Counters, users, events, state, log and clock of one instance. Its lock is never held across foreign code.
pub(crate) struct Shared {
    /// The counters.
    pub(crate) stats: Counters,
    /// The users of the VMess inbounds.
    pub(crate) users: UserTables,
    /// The clocks.
    pub(crate) clock: Clock,
    /// What waits for the host thread; the wakers of the host's futures among it.
    pub(crate) host: Arc<HostQueue>,
    /// What is left of the process's descriptors for clients.
    pub(crate) descriptors: Descriptors,
    /// How many of the accepted connections at VMess inbounds nobody has proved to be a user on yet.
    pub(crate) strangers: AtomicUsize,
    /// Who may come in at the VMess inbounds.
    pub(crate) gates: Gates,
    /// How many connections the users of the VMess inbounds and their addresses have.
    pub(crate) limits: Arc<Limits>,
    /// What inbounds hand out of others.
    pub(crate) offers: Offers,
    /// What is known of our clock.
    pub(crate) skew: Skew,
    board: Mutex<Board>,
    log_level: AtomicU8,
    waiters: AtomicU64,
    connections: AtomicU64,
}

/// State and events under one lock, so that events tell states in the order in which they were entered.
struct Board {
    state: State,
    since: Moment,
    last_error: Option<Error>,
    queue: EventQueue,
}

/// Those who wait for an event that has come. Their wakers are foreign code: no lock is held when they are told.
#[must_use = "those who wait are woken by `tell`"]
pub(crate) struct News(Vec<(u64, Waker)>);

impl News {
    /// Wakes them.
    pub(crate) fn tell(self) {
        self.0.into_iter().for_each(|(_, waker)| waker.wake());
    }
}

impl Shared {
    /// The shared side of a new instance whose events hold log lines up to `log_level`.
    pub(crate) fn new(log_level: LogLevel) -> Self {
        let clock = Clock::default();
        let board =
            Board { state: State::Idle, since: clock.now(), last_error: None, queue: EventQueue::default() };
        Self {
            stats: Counters::default(),
            users: UserTables::default(),
            clock,
            host: Arc::default(),
            descriptors: Descriptors::of_process(),
            strangers: AtomicUsize::new(0),
            gates: Gates::default(),
            offers: Offers::default(),
            skew: Skew::default(),
            limits: Arc::default(),
            board: Mutex::new(board),
            log_level: AtomicU8::new(log_level as u8),
            waiters: AtomicU64::new(0),
            connections: AtomicU64::new(0),
        }
    }

    /// Tells the host.
    pub(crate) fn emit(&self, event: Event) {
        self.change(|board| board.queue.push(event));
    }

    /// Enters a state and tells the host, unless it is entered already or the instance is ending: only `Stopped` follows
    /// `Stopping`, and nothing follows `Stopped`. Returns whether it was entered.
    pub(crate) fn set_state(&self, state: State) -> bool {
        let (entered, news) = self.enter(state);
        news.tell();
        entered
    }

    /// Does what [`Shared::set_state`] does, but for waking those who wait for events: a caller that holds a lock does that
    /// after it.
    pub(crate) fn enter(&self, state: State) -> (bool, News) {
        let now = self.clock.now();
        self.change_quietly(|board| {
            let legal = match board.state {
                State::Stopped { .. } => false,
                State::Stopping => matches!(state, State::Stopped { .. }),
                _ => board.state != state,
            };
            if legal {
                if let State::Stopped { error: Some(error) } = &state {
                    board.last_error = Some(error.clone());
                }
                (board.state, board.since) = (state.clone(), now);
                board.queue.push(Event::State(state));
            }
            legal
        })
    }

    /// The state.
    pub(crate) fn state(&self) -> State {
        self.lock().state.clone()
    }

    /// The state, since when, and the newest error.
    pub(crate) fn status(&self) -> Status {
        let now = self.clock.now();
        let board = self.lock();
        Status {
            state: board.state.clone(),
            since: now.since(board.since),
            last_error: board.last_error.clone(),
        }
    }

    /// Remembers the newest error.
    pub(crate) fn set_last_error(&self, error: Error) {
        self.lock().last_error = Some(error);
    }

    /// Logs a line: to the process's log sink, and to this instance's events if its filter lets it pass. Host names
    /// belong to [`LogLevel::Debug`] alone; ids and keys to no level.
    pub(crate) fn log(&self, level: LogLevel, text: fmt::Arguments<'_>) {
        let (sink, events) = self.wanted(level);
        if let Some(sink) = sink {
            log::log!(target: "vmesskit", sink, "{text}");
        }
        if events {
            let mut text = text.to_string();
            text.truncate(text.floor_char_boundary(LINE));
            let line = LogLine { level, unix_millis: self.clock.unix_millis(), text };
            self.change(|board| board.queue.push_line(line));
        }
    }

    /// Whether a line of this level goes anywhere: ask before computing what is costly.
    pub(crate) fn logs(&self, level: LogLevel) -> bool {
        let (sink, events) = self.wanted(level);
        sink.is_some() || events
    }

    /// Sets which log lines become events.
    pub(crate) fn set_log_level(&self, level: LogLevel) {
        self.log_level.store(level as u8, Relaxed);
    }

    /// A number for one who waits for events.
    pub(crate) fn new_waiter(&self) -> u64 {
        self.waiters.fetch_add(1, Relaxed)
    }

    /// An id for a connection, above every one before it on any shard.
    pub(crate) fn new_connection(&self) -> u64 {
        self.connections.fetch_add(1, Relaxed) + 1
    }

    /// The next event, `None` after the last one.
    pub(crate) fn poll_event(&self, waiter: u64, waker: impl FnOnce() -> Waker) -> Poll<Option<Event>> {
        let mut board = self.lock();
        if let Some(event) = board.queue.pop() {
            let others = if board.queue.is_over() { board.queue.take_waiting() } else { Vec::new() };
            drop(board);
            others.into_iter().for_each(|(_, waker)| waker.wake());
            return Poll::Ready(Some(event));
        }
        if board.queue.is_over() {
            return Poll::Ready(None);
        }
        drop(board);
        // Cloning a waker may be foreign code: not under the lock. What came in between is found by the second look.
        let waker = waker();
        let mut board = self.lock();
        if board.queue.is_ready() {
            drop(board);
            waker.wake();
            return Poll::Pending;
        }
        let replaced = board.queue.wait(waiter, waker);
        drop(board);
        drop(replaced);
        Poll::Pending
    }

    /// Forgets one who waited for events.
    pub(crate) fn forget_waiter(&self, waiter: u64) {
        let waker = self.lock().queue.forget(waiter);
        drop(waker);
    }

    fn wanted(&self, level: LogLevel) -> (Option<log::Level>, bool) {
        let sink = match level {
            LogLevel::None => None,
            LogLevel::Error => Some(log::Level::Error),
            LogLevel::Warning => Some(log::Level::Warn),
            LogLevel::Info => Some(log::Level::Info),
            LogLevel::Debug => Some(log::Level::Debug),
        };
        let sink = sink.filter(|level| *level <= log::max_level());
        (sink, level != LogLevel::None && level as u8 <= self.log_level.load(Relaxed))
    }

    /// Changes the board and wakes those who wait for what came of it.
    fn change<R>(&self, change: impl FnOnce(&mut Board) -> R) -> R {
        let (result, news) = self.change_quietly(change);
        news.tell();
        result
    }

    fn change_quietly<R>(&self, change: impl FnOnce(&mut Board) -> R) -> (R, News) {
        let mut board = self.lock();
        let result = change(&mut board);
        let waiting = if board.queue.is_ready() { board.queue.take_waiting() } else { Vec::new() };
        (result, News(waiting))
    }

    fn lock(&self) -> MutexGuard<'_, Board> {
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
