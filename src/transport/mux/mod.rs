//! A mux carrier at work: many sessions over one [`Stream`], at either end.
//!
//! A [`Link`] is the carrier as its sessions see it: queues, and who waits for what. One task, the [`run`] future, moves
//! frames between the queues and the carrier's stream. A [`Session`] is a [`Stream`] like any other, or, as a
//! [`DatagramSession`], a UDP flow.
//!
//! Mux.Cool has no windows. What a session's reader has not taken waits here, up to 256 KiB of memory (less when the
//! shard's pool fills); beyond that the carrier is not read until the reader has caught up, and every session on it waits,
//! as with V2Ray. Such a carrier takes no new session, and its other direction moves on. Datagrams never hold it up: the
//! oldest is dropped.
//!
//! Mux.Cool has no half-close either: `End` ends both directions. So a client that has nothing more to send says so only
//! when its session is dropped, which is after the server's end or when the relay's patience is over, and any `End` that
//! comes is the peer's proper end, whatever its error bit says. A server's end goes out at once, because nothing else
//! tells a client that the answer is complete. A carrier that dies resets every session that had not ended.

mod driver;
mod inlet;
mod port;
mod session;

pub(crate) use driver::run;
pub(crate) use session::{DatagramSession, Session};

use super::stream::StreamError;
use crate::addr::{Network, Target};
use crate::buffer::Buffer;
use crate::engine::Shard;
use crate::mux::{Action, Client, Frame, FrameError, Opening, Server, xudp};
use inlet::Inlet;
use port::Port;
use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::rc::Rc;
use std::task::{Context, Waker};
use std::time::Duration;

/// How long a client keeps a carrier without a session.
const CLIENT_IDLE: Duration = Duration::from_secs(16);
/// How long a server keeps one.
const SERVER_IDLE: Duration = Duration::from_secs(60);
/// How many answers to frames of unknown sessions wait at most; more of them are not answered.
const MAX_REFUSALS: usize = 64;
/// How many ends of sessions may wait for a peer that does not read; with more of them it is not read either, or it could
/// open and end sessions for ever while we remember each. No client of ours ever has as many.
const MAX_ENDS: usize = 1024;

/// A carrier, as its sessions see it.
pub(crate) struct Link {
    shard: Rc<Shard>,
    state: RefCell<State>,
    /// Whether the carrier's peer has proved that it understands us.
    answered: Cell<bool>,
    local_ip: Cell<Option<IpAddr>>,
}

struct State {
    machine: Machine,
    ports: HashMap<u16, Rc<Port>>,
    outgoing: VecDeque<Outgoing>,
    refusals: usize,
    /// How many of `outgoing` are ends.
    ends: usize,
    inlet: Inlet,
    /// How many ports hold so much that the carrier is not read.
    full: usize,
    driver: Option<Waker>,
    /// How the carrier ended; no session is opened from then on.
    ended: Option<StreamError>,
}

/// The bookkeeping of either end.
enum Machine {
    Client(Client),
    Server(Server),
}

impl Machine {
    fn receive(&mut self, frame: &Frame) -> Result<Action, FrameError> {
        match self {
            Self::Client(client) => Ok(client.receive(frame)),
            Self::Server(server) => server.receive(frame),
        }
    }

    fn close(&mut self, id: u16) {
        match self {
            Self::Client(client) => client.close(id),
            Self::Server(server) => server.close(id),
        }
    }

    /// Whether the carrier is of no more use once its sessions have ended.
    const fn is_spent(&self) -> bool {
        match self {
            Self::Client(client) => client.is_spent(),
            Self::Server(_) => false,
        }
    }
}

/// What waits to be framed and sent, oldest first.
enum Outgoing {
    /// A session's opening, without data; nothing if it has gone with data meanwhile.
    Head(Rc<Port>),
    /// Data of a session, with its opening if that has not gone yet.
    Data { port: Rc<Port>, data: Buffer, remote: Option<Target> },
    /// The end of a session.
    End { port: Rc<Port>, error: bool },
    /// The answer to a frame of a session that there is not.
    Refusal(u16),
}

impl Outgoing {
    const fn is_end(&self) -> bool {
        matches!(self, Self::End { .. })
    }
}

impl Link {
    /// A client's carrier of `concurrency` sessions at a time.
    pub(crate) fn client(shard: &Rc<Shard>, concurrency: u16) -> Rc<Self> {
        Self::new(shard, Machine::Client(Client::new(concurrency)))
    }

    /// A server's carrier.
    pub(crate) fn server(shard: &Rc<Shard>) -> Rc<Self> {
        Self::new(shard, Machine::Server(Server::new()))
    }

    /// A client's carrier for one XUDP session, and that session.
    pub(crate) fn alone(shard: &Rc<Shard>, opening: Opening) -> (Rc<Self>, Session) {
        let link = Self::new(shard, Machine::Client(Client::alone()));
        let port = Port::new(xudp::SESSION, opening.network, Some(opening));
        link.state.borrow_mut().ports.insert(xudp::SESSION, Rc::clone(&port));
        let session = Session::new(Rc::clone(&link), port, true);
        (link, session)
    }

    fn new(shard: &Rc<Shard>, machine: Machine) -> Rc<Self> {
        Rc::new(Self {
            shard: Rc::clone(shard),
            state: RefCell::new(State {
                machine,
                ports: HashMap::new(),
                outgoing: VecDeque::new(),
                refusals: 0,
                ends: 0,
                inlet: Inlet::default(),
                full: 0,
                driver: None,
                ended: None,
            }),
            answered: Cell::new(false),
            local_ip: Cell::new(None),
        })
    }

    /// Opens a session at a client; `None` if the carrier takes none, now or ever.
    pub(crate) fn open(self: &Rc<Self>, opening: &Opening) -> Option<Session> {
        let mut state = self.state.borrow_mut();
        if state.ended.is_some() || state.full > 0 {
            return None;
        }
        let Machine::Client(client) = &mut state.machine else { return None };
        let id = client.open()?;
        let port = Port::new(id, opening.network, Some(opening.clone()));
        state.ports.insert(id, Rc::clone(&port));
        drop(state);
        Some(Session::new(Rc::clone(self), port, true))
    }

    /// Takes no new session; the carrier ends with its last one.
    pub(crate) fn retire(&self) {
        let mut state = self.state.borrow_mut();
        if let Machine::Client(client) = &mut state.machine {
            client.retire();
        }
        state.wake();
    }

    /// Whether it will never take a session again.
    pub(crate) fn is_spent(&self) -> bool {
        let state = self.state.borrow();
        state.ended.is_some() || state.machine.is_spent()
    }

    /// Ends every session: the carrier is dead, or was never there.
    pub(crate) fn fail(&self, error: &StreamError) {
        let mut state = self.state.borrow_mut();
        state.ended.get_or_insert_with(|| error.clone());
        state.outgoing.clear();
        (state.full, state.ends) = (0, 0);
        let ports = std::mem::take(&mut state.ports);
        drop(state);
        ports.values().for_each(|port| port.end(Err(error.clone())));
    }

    /// Takes nothing more to send: the peer would not hear it. What comes is still delivered.
    fn go_mute(&self, error: &StreamError) {
        let mut state = self.state.borrow_mut();
        state.ended.get_or_insert_with(|| error.clone());
        state.outgoing.clear();
        state.ends = 0;
    }

    /// Our own address on the network, once it is known.
    pub(crate) fn set_local_ip(&self, ip: Option<IpAddr>) {
        self.local_ip.set(ip);
    }

    /// How long it may be without a session.
    fn idle_limit(&self) -> Duration {
        match self.state.borrow().machine {
            Machine::Client(_) => CLIENT_IDLE,
            Machine::Server(_) => SERVER_IDLE,
        }
    }

    /// Whether the carrier is not to be read: a session's queue is full, or our ends are not taken.
    fn is_full(&self) -> bool {
        let state = self.state.borrow();
        state.full > 0 || state.ends >= MAX_ENDS
    }

    /// Forgets a session of ours; what is queued of it goes out all the same.
    fn forget(&self, port: &Rc<Port>) {
        let mut state = self.state.borrow_mut();
        if state.ports.get(&port.id).is_some_and(|known| Rc::ptr_eq(known, port)) {
            state.ports.remove(&port.id);
            state.machine.close(port.id);
        }
        state.wake();
    }

    fn queue(&self, outgoing: Outgoing) {
        let mut state = self.state.borrow_mut();
        if state.ended.is_none() {
            state.ends += usize::from(outgoing.is_end());
            state.outgoing.push_back(outgoing);
            state.wake();
        }
    }

    /// A port that held up the carrier does so no longer.
    fn relieve(&self) {
        let mut state = self.state.borrow_mut();
        state.full = state.full.saturating_sub(1);
        if state.full == 0 {
            state.wake();
        }
    }
}

impl State {
    fn wake(&mut self) {
        if let Some(driver) = self.driver.take() {
            driver.wake();
        }
    }

    fn watch(&mut self, cx: &Context<'_>) {
        if !self.driver.as_ref().is_some_and(|driver| driver.will_wake(cx.waker())) {
            self.driver = Some(cx.waker().clone());
        }
    }

    fn pop_outgoing(&mut self) -> Option<Outgoing> {
        let next = self.outgoing.pop_front()?;
        self.ends -= usize::from(next.is_end());
        Some(next)
    }

    fn put_back(&mut self, next: Outgoing) {
        self.ends += usize::from(next.is_end());
        self.outgoing.push_front(next);
    }

    fn refuse(&mut self, id: u16) {
        if self.refusals < MAX_REFUSALS {
            self.refusals += 1;
            self.outgoing.push_back(Outgoing::Refusal(id));
        }
    }
}

/// A session that a peer has opened.
pub(crate) struct Accepted {
    /// Its end here.
    pub(crate) session: Session,
    /// A stream, or datagrams.
    pub(crate) network: Network,
    /// Where it goes.
    pub(crate) target: Target,
    /// What the peer calls its source.
    pub(crate) global_id: Option<crate::mux::GlobalId>,
}

#[cfg(test)]
mod tests;
