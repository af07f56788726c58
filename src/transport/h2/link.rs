//! A client's connection: streams are opened on it while a task drives it.

use super::chunk::Chunk;
use super::driver::Driver;
use super::failure::Failure;
use super::hub::Hub;
use super::options::Options;
use super::wire::Wire;
use crate::engine::Shard;
use crate::time::Moment;
use crate::transport::Carrier;
use crate::transport::dial::DialError;
use h2::SendStream;
use h2::client::{Builder, ResponseFuture, SendRequest};
use http::Request;
use std::cell::{Cell, RefCell};
use std::net::IpAddr;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

/// The most streams on one connection, whatever the server allows.
const MAX_STREAMS: usize = 200;
/// A connection on which nothing has come for so long is asked before it is used.
const STALE: Duration = Duration::from_secs(10);
/// How long it may take to answer.
const PROBE: Duration = Duration::from_secs(3);
/// The most bytes of a head.
const MAX_HEAD: u32 = 16 << 10;
/// The most of a stream's bytes that the library counts as writable.
const SEND_BUFFER: usize = 128 << 10;

/// A client's connection.
pub(super) struct Link {
    /// Opens streams; `None` once it takes no new ones.
    requests: RefCell<Option<SendRequest<Chunk>>>,
    /// What its streams share.
    pub(super) hub: Rc<Hub>,
    /// Our own address.
    pub(super) local_ip: Option<IpAddr>,
    /// The most that its streams may hold.
    most_held: usize,
    /// When the server must have answered that is being asked.
    probe: Cell<Option<Instant>>,
    /// Something has come, or the connection has ended.
    stirred: Notify,
}

impl Link {
    /// Speaks HTTP/2 on a carrier. The server must have answered by `deadline`, but it is not waited for. `freed` is told
    /// of room for another stream.
    ///
    /// # Errors
    /// [`DialError`] with stage `upgrade`.
    pub(super) async fn connect(
        shard: &Rc<Shard>,
        carrier: Box<dyn Carrier>,
        options: &Options,
        freed: &Rc<Notify>,
        deadline: Instant,
    ) -> Result<Rc<Self>, DialError> {
        let started = Instant::now();
        let hub = Hub::new(&shard.clock, Rc::clone(freed));
        let local_ip = carrier.local_ip();
        let wire = Wire::new(carrier, Rc::clone(&hub.pulse), shard.pool.clone(), true);
        let mut builder = Builder::new();
        builder
            .enable_push(false)
            .initial_window_size(options.first)
            .initial_connection_window_size(options.connection)
            .max_header_list_size(MAX_HEAD)
            .max_send_buffer_size(SEND_BUFFER);
        let (requests, connection) = timeout_at(deadline, builder.handshake::<_, Chunk>(wire))
            .await
            .map_err(|_| Failure::Silent)
            .and_then(|made| made.map_err(Failure::from))
            .map_err(|failure| failure.into_dial(started))?;
        let link = Rc::new(Self {
            requests: RefCell::new(Some(requests)),
            hub,
            local_ip,
            most_held: usize::try_from(options.most_held()).unwrap_or(usize::MAX),
            probe: Cell::new(Some(deadline)),
            stirred: Notify::new(),
        });
        shard.spawn(Driver::new(Rc::clone(&link), connection, options).run());
        Ok(link)
    }

    /// Whether it takes new streams at all.
    pub(super) fn is_open(&self) -> bool {
        self.requests.borrow().is_some()
    }

    /// Whether another stream has room on it: the server allows one more, and what nobody reads has not filled it.
    pub(super) fn has_room(&self) -> bool {
        let requests = self.requests.borrow();
        let most = requests.as_ref().map_or(0, SendRequest::current_max_send_streams).min(MAX_STREAMS);
        self.hub.streams() < most && self.hub.held() <= self.most_held / 2
    }

    /// Whether nothing has come for so long that the path may be gone.
    pub(super) fn is_stale(&self, now: Moment) -> bool {
        now.since(self.hub.pulse.last.get()) >= STALE
    }

    /// Asks the server whether it is there.
    ///
    /// # Errors
    /// [`Failure`] if it is not; the connection is given up then.
    pub(super) async fn probe(&self, deadline: Instant) -> Result<(), Failure> {
        let before = self.hub.pulse.received.get();
        let by = deadline.min(Instant::now() + PROBE);
        self.probe.set(Some(self.probe.get().map_or(by, |asked| asked.min(by))));
        self.hub.wake();
        while self.is_open() && self.hub.pulse.received.get() == before {
            if timeout_at(by, self.stirred.notified()).await.is_err() {
                return Err(Failure::Silent);
            }
        }
        if self.is_open() { Ok(()) } else { Err(Failure::Silent) }
    }

    /// Opens a stream.
    ///
    /// # Errors
    /// [`Failure`] if the connection has ended or the server wants no more on it.
    pub(super) fn open(&self, request: Request<()>) -> Result<(ResponseFuture, SendStream<Chunk>), Failure> {
        let requests = self.requests.borrow().clone();
        let mut requests = requests.ok_or(Failure::Io(std::io::ErrorKind::NotConnected))?;
        // Never waits on a fresh handle.
        if let Poll::Ready(Err(error)) = requests.poll_ready(&mut Context::from_waker(Waker::noop())) {
            return Err(error.into());
        }
        Ok(requests.send_request(request, false)?)
    }

    /// Takes no more streams. It closes when those that are open have ended, at once if there are none.
    pub(super) fn retire(&self) {
        let requests = self.requests.take();
        drop(requests);
        self.stirred.notify_waiters();
        self.hub.wake();
    }

    /// Gives it up, and all streams with it.
    pub(super) fn give_up(&self, failure: Failure) {
        self.hub.fail(failure);
        self.hub.pulse.aborts.set(true);
        self.retire();
    }

    /// When the server must have answered that is being asked.
    pub(super) const fn probed(&self) -> Option<Instant> {
        self.probe.get()
    }

    /// The server has answered, or was not asked in the first place.
    pub(super) fn stirred(&self) {
        self.probe.set(None);
        self.stirred.notify_waiters();
    }
}
