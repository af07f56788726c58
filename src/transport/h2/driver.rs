//! The task behind a client's connection: moves its bytes, pings, and ends it when it is due.

use super::chunk::Chunk;
use super::failure::Failure;
use super::link::Link;
use super::options::Options;
use super::window::Bandwidth;
use super::wire::Wire;
use crate::transport::Carrier;
use h2::client::Connection;
use h2::{Ping, PingPong};
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::{Instant, Sleep, sleep};

/// A connection without streams is closed after so long.
pub(super) const IDLE: Duration = Duration::from_secs(60);
/// How long our farewell may take.
const FAREWELL: Duration = Duration::from_secs(2);

/// A ping that is under way.
struct Asked {
    /// How much had come when it left.
    received: u64,
    /// When something must have come; `None`: whenever.
    by: Option<Instant>,
}

/// The task behind a client's connection.
pub(super) struct Driver {
    link: Rc<Link>,
    connection: Connection<Wire<Box<dyn Carrier>>, Chunk>,
    pings: Option<PingPong>,
    asked: Option<Asked>,
    bandwidth: Bandwidth,
    /// A window that the server has not been told yet.
    window: Option<u32>,
    options: Options,
    /// How much had come when the connection's window was last set.
    balanced: u64,
    /// How much had come, and when that was seen.
    seen: (u64, Instant),
    /// When our end of a connection that is over must have left.
    farewell: Option<Instant>,
    timer: Pin<Box<Sleep>>,
}

impl Driver {
    /// Of a new connection.
    pub(super) fn new(
        link: Rc<Link>,
        mut connection: Connection<Wire<Box<dyn Carrier>>, Chunk>,
        options: &Options,
    ) -> Self {
        let pings = connection.ping_pong();
        Self {
            link,
            connection,
            pings,
            asked: None,
            bandwidth: Bandwidth::new(options.first, options.most),
            window: None,
            options: *options,
            balanced: 0,
            seen: (0, Instant::now()),
            farewell: None,
            timer: Box::pin(sleep(IDLE)),
        }
    }

    /// Drives the connection to its end.
    pub(super) async fn run(mut self) {
        if let Err(failure) = poll_fn(|cx| self.poll(cx)).await {
            self.link.hub.fail(failure);
        }
        self.link.retire();
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        self.link.hub.driven_by(cx);
        loop {
            if self.link.hub.pulse.aborts.get() {
                return Poll::Ready(Ok(()));
            }
            if let Poll::Ready(ended) = Pin::new(&mut self.connection).poll(cx) {
                return Poll::Ready(ended.map_err(Failure::from));
            }
            self.link.hub.see_off(cx);
            self.look(cx);
            if self.asks() {
                continue;
            }
            let Some(due) = self.due() else { return Poll::Pending };
            if due > Instant::now() {
                if self.timer.deadline() != due {
                    self.timer.as_mut().reset(due);
                }
                if self.timer.as_mut().poll(cx).is_pending() {
                    return Poll::Pending;
                }
            }
            if let Some(failure) = self.act() {
                self.link.give_up(failure.clone());
                return Poll::Ready(Err(failure));
            }
        }
    }

    /// Takes note of what has come.
    fn look(&mut self, cx: &mut Context<'_>) {
        let received = self.link.hub.pulse.received.get();
        if received != self.seen.0 {
            self.seen = (received, Instant::now());
            self.link.stirred();
            if let Some(asked) = self.asked.as_mut().filter(|asked| asked.received != received) {
                asked.by = None;
            }
        }
        if self.asked.is_some() && self.pings.as_mut().is_some_and(|pings| pings.poll_pong(cx).is_ready()) {
            self.asked = None;
            self.window = self.bandwidth.measured(received).or(self.window);
        }
        if received.saturating_sub(self.balanced) >= self.options.rebalances_after() {
            self.balanced = received;
            self.connection.set_target_window_size(self.options.window(self.link.hub.held()));
        }
        if let Some(window) = self.window
            && self.connection.set_initial_window_size(window).is_ok()
        {
            // Otherwise the server has not confirmed the last one yet.
            self.window = None;
        }
    }

    /// Asks the server, if that is due and it is not being asked; whether it has been.
    fn asks(&mut self) -> bool {
        let received = self.link.hub.pulse.received.get();
        if let Some(asked) = &mut self.asked {
            if let Some(by) = self.link.probed() {
                asked.by = Some(asked.by.map_or(by, |known| known.min(by)));
            }
            return false;
        }
        let (probed, now) = (self.link.probed(), Instant::now());
        let by =
            match self.options.keepalive.filter(|_| self.next_keepalive().is_some_and(|next| next <= now)) {
                Some(keepalive) => {
                    Some(probed.unwrap_or(now + keepalive.timeout).min(now + keepalive.timeout))
                }
                None if probed.is_some() => probed,
                None if self.bandwidth.begins(received) => None,
                None => return false,
            };
        self.asked = Some(Asked { received, by });
        self.pings.as_mut().is_some_and(|pings| pings.send_ping(Ping::opaque()).is_ok())
    }

    /// When the next ping of the keepalive leaves.
    fn next_keepalive(&self) -> Option<Instant> {
        let keepalive = self.options.keepalive?;
        (keepalive.without_stream || self.link.hub.streams() > 0).then(|| self.seen.1 + keepalive.idle)
    }

    /// When something is to be done next.
    fn due(&mut self) -> Option<Instant> {
        let answer = match &self.asked {
            Some(asked) => asked.by,
            None => self.next_keepalive(),
        };
        let end = self.link.hub.idle_since().map(|since| match self.link.is_open() {
            true => since + IDLE,
            false => *self.farewell.get_or_insert_with(|| Instant::now() + FAREWELL),
        });
        end.into_iter().chain(answer).chain(self.link.hub.seen_off_by()).min()
    }

    /// Does what is due; why the connection has to be given up, if it has.
    fn act(&mut self) -> Option<Failure> {
        let now = Instant::now();
        let silent = self.asked.as_ref().and_then(|asked| asked.by).is_some_and(|by| by <= now);
        if silent || self.farewell.is_some_and(|by| by <= now) {
            return Some(Failure::Silent);
        }
        if self.link.hub.idle_since().is_some_and(|since| since + IDLE <= now) {
            self.link.retire();
        }
        None
    }
}
