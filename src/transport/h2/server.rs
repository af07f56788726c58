//! A server's connection: every stream that a client opens on it becomes a carrier.

use super::carrier::StreamCarrier;
use super::chunk::Chunk;
use super::failure::Failure;
use super::framing::Framing;
use super::hub::Hub;
use super::options::Options;
use super::receiving::{NoHead, Receiving};
use super::sending::Sending;
use super::window::Bandwidth;
use super::wire::Wire;
use crate::engine::Shard;
use crate::transport::Carrier;
use crate::transport::accept::Arrivals;
use h2::server::{Builder, Connection, SendResponse};
use h2::{Ping, PingPong, RecvStream};
use http::request::Parts;
use http::{Request, Response};
use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::{Instant, Sleep, sleep_until, timeout_at};

/// The most streams of a connection. Clients that know of one connection alone wait when there is room for no more.
const MAX_STREAMS: u32 = 2048;
/// A connection without streams is closed after so long.
const IDLE: Duration = Duration::from_secs(300);
/// How long our farewell may take.
const FAREWELL: Duration = Duration::from_secs(2);
/// The most bytes of a head.
const MAX_HEAD: u32 = 16 << 10;
/// The most of a stream's bytes that the library counts as writable.
const SEND_BUFFER: usize = 128 << 10;

/// What a server takes, and what it answers.
pub(in crate::transport) trait Service {
    /// How payload lies in its streams.
    type Framing: Framing + Default + 'static;

    /// The head of the answer, at once; or of a refusal, which is all that is answered then.
    fn judge(&self, request: &Parts) -> Result<Response<()>, Response<()>>;
}

/// Takes a connection of a client's, whose streams then come one by one. The first one must come by `deadline`.
///
/// # Errors
/// [`Failure`] if it speaks something else than HTTP/2, or nothing by then.
pub(in crate::transport) async fn serve<C: Carrier + Unpin, S: Service>(
    shard: &Rc<Shard>,
    carrier: C,
    service: S,
    deadline: Instant,
) -> Result<Server<C, S>, Failure> {
    let options = Options::new(&shard.pool, 0, None);
    let (hub, local_ip) = (Hub::new(&shard.clock, Rc::default()), carrier.local_ip());
    let wire = Wire::new(carrier, Rc::clone(&hub.pulse), shard.pool.clone(), false);
    let mut builder = Builder::new();
    builder
        .initial_window_size(options.first)
        .initial_connection_window_size(options.connection)
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(MAX_HEAD)
        .max_send_buffer_size(SEND_BUFFER);
    let mut connection = timeout_at(deadline, builder.handshake::<_, Chunk>(wire))
        .await
        .map_err(|_| Failure::Silent)?
        .map_err(Failure::from)?;
    Ok(Server {
        pings: connection.ping_pong(),
        connection,
        service,
        hub,
        local_ip,
        bandwidth: Bandwidth::new(options.first, options.most),
        pinged: false,
        window: None,
        options,
        balanced: 0,
        first_by: Some(deadline),
        farewell: None,
        timer: Box::pin(sleep_until(deadline)),
    })
}

/// A client's connection. It lives while this is asked for streams.
pub(in crate::transport) struct Server<C: Carrier + Unpin, S> {
    connection: Connection<Wire<C>, Chunk>,
    service: S,
    pings: Option<PingPong>,
    hub: Rc<Hub>,
    local_ip: Option<IpAddr>,
    bandwidth: Bandwidth,
    pinged: bool,
    /// A window that the client has not been told yet.
    window: Option<u32>,
    options: Options,
    /// How much had come when the connection's window was last set.
    balanced: u64,
    /// When the first stream must have been opened.
    first_by: Option<Instant>,
    /// When our end of a connection that is over must have left.
    farewell: Option<Instant>,
    timer: Pin<Box<Sleep>>,
}

type Asked = (Request<RecvStream>, SendResponse<Chunk>);

impl<C: Carrier + Unpin, S: Service> Server<C, S> {
    /// The next stream that the service takes; `None` at the connection's end.
    ///
    /// # Errors
    /// [`Failure`] if that is no proper end.
    pub(super) fn poll_stream(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<Box<dyn Carrier>>, Failure>> {
        loop {
            let Some((request, respond)) = ready!(self.poll_request(cx))? else {
                return Poll::Ready(Ok(None));
            };
            if let Some(carrier) = self.take(request, respond) {
                return Poll::Ready(Ok(Some(carrier)));
            }
        }
    }

    /// The next stream; `None` at the connection's end.
    fn poll_request(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Asked>, Failure>> {
        self.hub.driven_by(cx);
        loop {
            if let Poll::Ready(asked) = self.connection.poll_accept(cx) {
                return Poll::Ready(asked.transpose().map_err(Failure::from));
            }
            self.hub.see_off(cx);
            if self.measures(cx) {
                continue;
            }
            let idle = self.due();
            let Some(due) = idle.into_iter().chain(self.hub.seen_off_by()).min() else {
                return Poll::Pending;
            };
            if due > Instant::now() {
                if self.timer.deadline() != due {
                    self.timer.as_mut().reset(due);
                }
                if self.timer.as_mut().poll(cx).is_pending() {
                    return Poll::Pending;
                }
            }
            if idle.is_none_or(|idle| idle > Instant::now()) {
                continue;
            }
            if self.farewell.is_some() {
                self.hub.pulse.aborts.set(true);
                return Poll::Ready(Err(Failure::Silent));
            }
            self.connection.graceful_shutdown();
            self.farewell = Some(Instant::now() + FAREWELL);
        }
    }

    /// Measures the link; whether there is something to send for that.
    fn measures(&mut self, cx: &mut Context<'_>) -> bool {
        let received = self.hub.pulse.received.get();
        let Some(pings) = &mut self.pings else { return false };
        if self.pinged && pings.poll_pong(cx).is_ready() {
            self.pinged = false;
            self.window = self.bandwidth.measured(received).or(self.window);
        }
        if received.saturating_sub(self.balanced) >= self.options.rebalances_after() {
            self.balanced = received;
            self.connection.set_target_window_size(self.options.window(self.hub.held()));
        }
        if let Some(window) = self.window
            && self.connection.set_initial_window_size(window).is_ok()
        {
            self.window = None;
            return true;
        }
        self.pinged = self.pinged
            || (self.bandwidth.begins(received) && {
                // Fails only on a connection that has ended.
                pings.send_ping(Ping::opaque()).is_ok()
            });
        false
    }

    /// When the connection has been without streams for too long.
    fn due(&self) -> Option<Instant> {
        let since = self.hub.idle_since()?;
        self.farewell.or(self.first_by).or(Some(since + IDLE))
    }

    /// Answers a request; a stream that is taken becomes a carrier.
    fn take(
        &mut self,
        request: Request<RecvStream>,
        mut respond: SendResponse<Chunk>,
    ) -> Option<Box<dyn Carrier>> {
        let (head, mut body) = request.into_parts();
        match self.service.judge(&head) {
            Ok(response) => {
                // Fails only if the client has reset the stream already.
                let sender = respond.send_response(response, false).ok()?;
                self.first_by = None;
                let sending = Sending::new(sender, self.hub.queued(), true);
                let mut slot = self.hub.slot();
                slot.watch(&mut body);
                let receiving: Receiving<_, NoHead> = Receiving::request(body, S::Framing::default());
                let carrier: StreamCarrier<S::Framing, NoHead> =
                    StreamCarrier::new(slot, sending, receiving, self.local_ip);
                Some(Box::new(carrier))
            }
            Err(refusal) => {
                // As above.
                let _ = respond.send_response(refusal, true);
                None
            }
        }
    }
}

impl<C: Carrier + Unpin, S: Service> Arrivals for Server<C, S> {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Box<dyn Carrier>>> {
        // However it ends, the streams on it are told.
        self.poll_stream(cx).map(|next| next.ok().flatten())
    }
}
