//! The conversations of one socket: which datagram is whose, what they have to say, and when.

use super::Manner;
use super::conversation::{Conversation, Loss, Read};
use super::segment::{Body, Segment};
use super::wrapper::Wrapper;
use crate::buffer::Charge;
use crate::engine::Shard;
use crate::time::Moment;
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use tokio::io::ReadBuf;
use tokio::net::UdpSocket;

/// No datagram of a peer's is longer.
const LONGEST: usize = 2048;
/// How many datagrams are received before what they ask for is sent.
const BATCH: usize = 32;
/// How many datagrams a conversation sends before others have their turn.
const TURN: usize = 64;
/// How many conversations of a server nobody has taken yet, at most.
const BACKLOG: usize = 64;
/// How many conversations a server has, those that end included. A newcomer beyond is refused by silence.
const CONVERSATIONS: usize = 8192;
/// A write takes at least so much, unless there is less to write or nothing else on the way.
const LEAST_WRITE: usize = 4096;

/// Whose a conversation is: the peer's address, and its number there.
pub(super) type Whose = (SocketAddr, u16);

/// The conversations of a socket.
pub(super) struct Hub {
    shard: Rc<Shard>,
    manner: Manner,
    wrapper: Wrapper,
    /// `None` once it is closed.
    socket: Option<UdpSocket>,
    /// The one peer of a client.
    server: Option<SocketAddr>,
    seats: HashMap<u64, Seat>,
    by_peer: HashMap<Whose, u64>,
    last_id: u64,
    due: BTreeSet<(Moment, u64)>,
    /// Those that have something to say and could not say all of it.
    waiting: VecDeque<u64>,
    /// A datagram that the system did not take.
    stuck: Option<(Vec<u8>, SocketAddr)>,
    /// Conversations that nobody has taken yet, and who waits for one.
    arrived: VecDeque<u64>,
    acceptor: Option<Waker>,
    /// The task that receives and keeps the time, and until when it sleeps.
    pub(super) driver: Option<Waker>,
    pub(super) armed: Option<Moment>,
}

/// A conversation, and who waits for what of it.
struct Seat {
    conversation: Conversation,
    whose: Whose,
    charge: Charge,
    due: Option<Moment>,
    is_waiting: bool,
    /// Whether somebody holds its carrier.
    is_held: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
    ender: Option<Waker>,
}

impl Hub {
    /// A socket without conversations; a client's is connected to `server`.
    pub(super) fn new(
        shard: &Rc<Shard>,
        manner: &Manner,
        socket: UdpSocket,
        server: Option<SocketAddr>,
    ) -> Self {
        Self {
            shard: Rc::clone(shard),
            manner: manner.clone(),
            wrapper: shard.with_entropy(|entropy| manner.wrapping.wrapper(entropy)),
            socket: Some(socket),
            server,
            seats: HashMap::new(),
            by_peer: HashMap::new(),
            last_id: 0,
            due: BTreeSet::new(),
            waiting: VecDeque::new(),
            stuck: None,
            arrived: VecDeque::new(),
            acceptor: None,
            driver: None,
            armed: None,
        }
    }

    /// Begins a conversation, whose carrier is yet to be made.
    pub(super) fn begin(&mut self, whose: Whose) -> u64 {
        self.last_id += 1;
        let conversation = Conversation::new(whose.1, self.manner.shape, self.now());
        let seat = Seat {
            conversation,
            whose,
            charge: Charge::new(&self.shard.pool),
            due: None,
            is_waiting: false,
            is_held: true,
            reader: None,
            writer: None,
            ender: None,
        };
        self.by_peer.insert(whose, self.last_id);
        self.seats.insert(self.last_id, seat);
        self.settle(self.last_id);
        self.last_id
    }

    /// The next conversation that a client has begun, and where it is.
    pub(super) fn poll_arrival(&mut self, cx: &mut Context<'_>) -> Poll<(u64, SocketAddr)> {
        while let Some(id) = self.arrived.pop_front() {
            if let Some(seat) = self.seats.get(&id) {
                return Poll::Ready((id, seat.whose.0));
            }
        }
        self.acceptor = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Reads; arranges to be woken if there is nothing.
    pub(super) fn poll_read(&mut self, id: u64, cx: &mut Context<'_>, out: &mut [u8]) -> Poll<Read> {
        let most = self.most(id);
        let Some(seat) = self.seats.get_mut(&id) else { return Poll::Ready(Read::Lost(Loss::Closed)) };
        let read = seat.conversation.read(out, most);
        if read == Read::Nothing {
            seat.reader = Some(cx.waker().clone());
            return Poll::Pending;
        }
        // The peer may have to hear that there is room again.
        self.speak(id);
        Poll::Ready(read)
    }

    /// Waits until there is something to read.
    pub(super) fn poll_readable(&mut self, id: u64, cx: &mut Context<'_>) -> Poll<()> {
        let Some(seat) = self.seats.get_mut(&id) else { return Poll::Ready(()) };
        if seat.conversation.readable() == Read::Nothing {
            seat.reader = Some(cx.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(())
    }

    /// How many bytes may be written; waits until that is worth it. `None`: why not is what [`Hub::broken`] says.
    pub(super) fn poll_writable(&mut self, id: u64, cx: &mut Context<'_>) -> Poll<Option<usize>> {
        let most = self.most(id);
        let Some(seat) = self.seats.get_mut(&id) else { return Poll::Ready(None) };
        match seat.room(most) {
            Some(0) => {
                seat.writer = Some(cx.waker().clone());
                Poll::Pending
            }
            room => Poll::Ready(room),
        }
    }

    /// Writes what [`Hub::poll_writable`] has room for, piece by piece.
    pub(super) fn write<'a>(&mut self, id: u64, pieces: impl Iterator<Item = &'a [u8]>) {
        let Some(seat) = self.seats.get_mut(&id) else { return };
        pieces.for_each(|piece| seat.conversation.write(piece));
        self.speak(id);
    }

    /// Waits until everything that was written has come.
    pub(super) fn poll_drained(&mut self, id: u64, cx: &mut Context<'_>) -> Poll<()> {
        match self.seats.get_mut(&id) {
            Some(seat) if !seat.conversation.is_drained() => {
                seat.writer = Some(cx.waker().clone());
                Poll::Pending
            }
            _ => Poll::Ready(()),
        }
    }

    /// Waits until the conversation is over; in `only_broken` not for a proper end.
    pub(super) fn poll_over(&mut self, id: u64, cx: &mut Context<'_>, only_broken: bool) -> Poll<()> {
        let Some(seat) = self.seats.get_mut(&id) else { return Poll::Ready(()) };
        match seat.conversation.ended() {
            Read::Cut | Read::Lost(_) => Poll::Ready(()),
            Read::End if !only_broken => Poll::Ready(()),
            _ => {
                seat.ender = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    /// What a conversation that cannot be written to has come to.
    pub(super) fn broken(&self, id: u64) -> Read {
        self.seats.get(&id).map_or(Read::Lost(Loss::Closed), |seat| seat.conversation.ended())
    }

    /// Its carrier is let go: the conversation is closed, or aborted.
    pub(super) fn leave(&mut self, id: u64, aborts: bool) {
        let now = self.now();
        let Some(seat) = self.seats.get_mut(&id) else { return };
        seat.is_held = false;
        (seat.reader, seat.writer, seat.ender) = (None, None, None);
        if aborts {
            seat.conversation.abort(now);
        } else {
            seat.conversation.close(now);
        }
        self.speak(id);
        if self.is_finished() {
            self.wake_driver();
        }
    }

    /// Ends all conversations and closes the socket.
    pub(super) fn shut(&mut self) {
        let (now, ids) = (self.now(), self.seats.keys().copied().collect::<Vec<_>>());
        for id in ids {
            if let Some(seat) = self.seats.get_mut(&id) {
                seat.conversation.abort(now);
                self.speak(id);
            }
        }
        self.socket = None;
        self.seats.values_mut().for_each(|seat| {
            seat.conversation.lose(Loss::Closed);
            seat.wake(usize::MAX);
        });
        self.seats.retain(|_, seat| seat.is_held);
        self.by_peer.clear();
        self.due.clear();
        self.wake_driver();
    }

    /// Whether there is nothing left to do.
    pub(super) fn is_finished(&self) -> bool {
        self.socket.is_none() || self.server.is_some() && self.by_peer.is_empty()
    }

    /// The next deadline.
    pub(super) fn deadline(&self) -> Option<Moment> {
        self.due.first().map(|(at, _)| *at)
    }

    /// Sends what the system did not take, as far as it does now, then has those speak that wait; registers the task for the
    /// rest.
    pub(super) fn poll_send(&mut self, cx: &mut Context<'_>) {
        while let (Some((datagram, to)), Some(socket)) = (&self.stuck, &self.socket) {
            match send(socket, self.server, datagram, *to) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if socket.poll_send_ready(cx).is_pending() {
                        return;
                    }
                }
                _ => self.stuck = None,
            }
        }
        for _ in 0..self.waiting.len() {
            let Some(id) = self.waiting.pop_front() else { break };
            if let Some(seat) = self.seats.get_mut(&id) {
                seat.is_waiting = false;
                self.speak(id);
            }
        }
        if !self.waiting.is_empty() {
            cx.waker().wake_by_ref();
        }
    }

    /// Receives what is at hand; registers the task for what comes.
    pub(super) fn poll_receive(&mut self, cx: &mut Context<'_>) {
        let mut heard = Vec::new();
        let mut bytes = [0; LONGEST];
        for round in 0.. {
            if round == BATCH {
                cx.waker().wake_by_ref();
                break;
            }
            let Some(socket) = &self.socket else { break };
            let mut datagram = ReadBuf::new(&mut bytes);
            match socket.poll_recv_from(cx, &mut datagram) {
                Poll::Pending => break,
                Poll::Ready(Ok(source)) => {
                    let whose = self.server.unwrap_or(source);
                    if let Some(id) = self.hear(whose, datagram.filled_mut())
                        && !heard.contains(&id)
                    {
                        heard.push(id);
                    }
                }
                Poll::Ready(Err(error)) => self.failed(&error),
            }
        }
        for id in heard {
            self.speak(id);
        }
    }

    /// Has those speak whose time has come.
    pub(super) fn on_time(&mut self) {
        let now = self.now();
        let due: Vec<u64> = self.due.iter().take_while(|(at, _)| *at <= now).map(|(_, id)| *id).collect();
        for id in due {
            self.speak(id);
        }
    }

    /// Takes a datagram up; the conversation that it was for.
    fn hear(&mut self, from: SocketAddr, datagram: &mut [u8]) -> Option<u64> {
        let within = self.wrapper.wrapping().open(datagram)?;
        let mut rest = datagram.get(within)?;
        let mut next = Segment::read(&mut rest);
        let whose = (from, next.as_ref()?.conversation);
        let id = match self.by_peer.get(&whose) {
            Some(id) => *id,
            None => self.welcome(whose, next.as_ref()?)?,
        };
        let (now, most) = (self.now(), self.most(id));
        let seat = self.seats.get_mut(&id)?;
        while let Some(segment) = next {
            seat.conversation.hear(&segment, now, most);
            next = Segment::read(&mut rest);
        }
        Some(id)
    }

    /// Begins a conversation with a client whose first payload has come, if there is room for one. What else strangers send
    /// begins nothing: it may belong to one that is over.
    fn welcome(&mut self, whose: Whose, first: &Segment<'_>) -> Option<u64> {
        let begins = matches!(first.body, Body::Data { number: 0, sending_next: 0, .. });
        let has_room = self.arrived.len() < BACKLOG && self.seats.len() < CONVERSATIONS;
        if self.server.is_some() || !begins || !has_room || self.shard.pool.is_nearly_full() {
            return None;
        }
        let id = self.begin(whose);
        self.arrived.push_back(id);
        if let Some(acceptor) = self.acceptor.take() {
            acceptor.wake();
        }
        Some(id)
    }

    /// Sends what a conversation has to say.
    fn speak(&mut self, id: u64) {
        let (now, most) = (self.now(), self.most(id));
        let Some(seat) = self.seats.get_mut(&id) else { return };
        let mut datagram = Vec::new();
        let mut refusal = None;
        for turn in 0.. {
            if self.stuck.is_some() || turn == TURN {
                if !seat.is_waiting {
                    seat.is_waiting = true;
                    self.waiting.push_back(id);
                }
                break;
            }
            let Self { wrapper, shard, .. } = self;
            let fill = |out: &mut Vec<u8>| seat.conversation.say(now, most, out);
            if !shard.with_entropy(|entropy| wrapper.wrap(&mut datagram, entropy, fill)) {
                break;
            }
            let Some(socket) = &self.socket else { break };
            match send(socket, self.server, &datagram, seat.whose.0) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.stuck = Some((std::mem::take(&mut datagram), seat.whose.0));
                }
                Err(error) => refusal = Some(error),
                Ok(()) => {}
            }
        }
        if !self.waiting.is_empty() {
            self.wake_driver();
        }
        if let Some(error) = refusal {
            self.failed(&error);
        }
        self.settle(id);
    }

    /// What the system says of a socket. A client whose server has never been heard believes that nobody listens; anything
    /// else may pass, and nobody can be sure who caused it.
    fn failed(&mut self, error: &io::Error) {
        if error.kind() != io::ErrorKind::ConnectionRefused || self.server.is_none() {
            return;
        }
        let unheard = |seat: &mut Seat| !seat.conversation.is_heard();
        let ids: Vec<u64> =
            self.seats.iter_mut().filter_map(|(id, seat)| unheard(seat).then_some(*id)).collect();
        for id in ids {
            if let Some(seat) = self.seats.get_mut(&id) {
                seat.conversation.lose(Loss::Refused);
                self.settle(id);
            }
        }
    }

    /// Brings up to date what depends on a conversation: its deadline, its memory, and who waits for it.
    fn settle(&mut self, id: u64) {
        let most = self.most(id);
        let Some(seat) = self.seats.get_mut(&id) else { return };
        seat.charge.set(seat.conversation.held());
        let due = seat.conversation.deadline();
        if seat.due != due {
            if let Some(before) = seat.due {
                self.due.remove(&(before, id));
            }
            self.due.extend(due.map(|at| (at, id)));
            seat.due = due;
        }
        seat.wake(most);
        if seat.conversation.is_over() {
            if self.by_peer.get(&seat.whose) == Some(&id) {
                self.by_peer.remove(&seat.whose);
            }
            if !seat.is_held {
                self.seats.remove(&id);
            }
        }
        if due.is_some_and(|due| self.armed.is_none_or(|armed| due < armed)) || self.is_finished() {
            self.wake_driver();
        }
    }

    /// How many bytes a conversation may hold at the moment.
    fn most(&self, id: u64) -> usize {
        self.seats.get(&id).map_or(0, |seat| seat.conversation.held()) + self.shard.pool.share()
    }

    fn wake_driver(&self) {
        self.driver.iter().for_each(Waker::wake_by_ref);
    }

    /// The time.
    pub(super) fn now(&self) -> Moment {
        self.shard.clock.now()
    }
}

impl Seat {
    /// How many bytes may be written, 0 if it is not worth it.
    fn room(&self, most: usize) -> Option<usize> {
        let room = self.conversation.writable(most)?;
        Some(if room >= LEAST_WRITE || self.conversation.is_drained() { room } else { 0 })
    }

    /// Wakes those whose wait is over.
    fn wake(&mut self, most: usize) {
        if self.conversation.readable() != Read::Nothing {
            self.reader.take().into_iter().for_each(Waker::wake);
        }
        if self.writer.is_some() && self.room(most) != Some(0) {
            self.writer.take().into_iter().for_each(Waker::wake);
        }
        if self.ender.is_some() && self.conversation.ended() != Read::Nothing {
            self.ender.take().into_iter().for_each(Waker::wake);
        }
    }
}

/// Sends a datagram whole, at once.
fn send(socket: &UdpSocket, server: Option<SocketAddr>, datagram: &[u8], to: SocketAddr) -> io::Result<()> {
    match server {
        Some(_) => socket.try_send(datagram),
        None => socket.try_send_to(datagram, to),
    }
    .map(drop)
}
