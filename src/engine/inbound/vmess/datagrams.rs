//! A client's UDP flow on a connection of its own: one chunk a datagram, bound to the request's target.

use crate::addr::Target;
use crate::config::LogLevel;
use crate::engine::Shard;
use crate::engine::connections::Connection;
use crate::engine::dispatch::{self, Flow};
use crate::engine::outbound::Outbound;
use crate::time::Moment;
use crate::transport::sealed::ServerDatagrams;
use crate::transport::{Carrier, Datagram, Datagrams, StreamError};
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::{Instant, Sleep, sleep_until, timeout};

/// How long a flow may be silent before its first answer.
const IDLE_UNANSWERED: Duration = Duration::from_secs(30);
/// How long a flow may be silent after that.
const IDLE_ANSWERED: Duration = Duration::from_secs(120);
/// How many datagrams a flow moves each way before it yields.
const BUDGET: usize = 64;
/// How long the end of a flow may take to be written.
const END_WITHIN: Duration = Duration::from_secs(1);

/// Opens the outbound and moves datagrams until the flow is over.
pub(super) async fn serve<C: Carrier>(
    shard: Rc<Shard>,
    flow: Flow,
    outbound: Rc<dyn Outbound>,
    mut local: Box<ServerDatagrams<C>>,
) {
    let connection = dispatch::register(&shard, &flow, &*outbound);
    let (target, tag) = (&flow.target, Rc::clone(&outbound));
    let tag = tag.tag();
    let log = |how: &dyn std::fmt::Display| {
        let (up, down) = connection.counted();
        let text = format_args!("udp {target} by [{tag}]: {how}, {up} bytes up, {down} down");
        shard.shared.log(LogLevel::Debug, text);
    };
    if !outbound.admits(shard.clock.now()) {
        return local.abort();
    }
    let opened = {
        let mut opening = pin!(outbound.open_datagrams(Rc::clone(&shard), target.clone()));
        poll_fn(|cx| match connection.poll_closed(cx) {
            Poll::Ready(()) => Poll::Ready(None),
            Poll::Pending => opening.as_mut().poll(cx).map(Some),
        })
        .await
    };
    let remote = match opened {
        Some(Ok(remote)) => remote,
        Some(Err(failed)) => {
            log(&failed.error);
            return local.abort();
        }
        None => return local.abort(),
    };
    connection.bound_to(remote.local_ip());
    let downlink_only = flow.user.as_ref().map_or(IDLE_ANSWERED, |user| user.level.downlink_only);
    let timer = pin!(sleep_until(Instant::now() + IDLE_UNANSWERED));
    let mut pump = Pump {
        shard: &shard,
        connection: &connection,
        target,
        local: &mut local,
        remote,
        active: shard.clock.now(),
        answered: false,
        ended: false,
        downlink_only,
        timer,
    };
    match poll_fn(|cx| pump.poll(cx)).await {
        Ok(()) => {
            log(&"done");
            // The client may be gone, or stalled: the flow is over either way.
            let _ = timeout(END_WITHIN, poll_fn(|cx| local.poll_finish(cx))).await;
        }
        Err(error) => {
            log(&error);
            local.abort();
        }
    }
}

/// Moves datagrams between a client and an outbound.
struct Pump<'a, C> {
    shard: &'a Shard,
    connection: &'a Connection,
    target: &'a Target,
    local: &'a mut ServerDatagrams<C>,
    remote: Box<dyn Datagrams>,
    active: Moment,
    answered: bool,
    /// Whether the client has ended its direction.
    ended: bool,
    /// The idle limit after that.
    downlink_only: Duration,
    timer: Pin<&'a mut Sleep>,
}

impl<C: Carrier> Pump<'_, C> {
    /// Ready when the flow has been idle for too long, was closed from outside, or the outbound has ended it.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamError>> {
        if self.connection.poll_closed(cx).is_ready() {
            return Poll::Ready(Err(StreamError::Closed));
        }
        if self.left().is_zero() {
            return Poll::Ready(Ok(()));
        }
        let before = (self.ended, self.answered);
        let up = self.pump_up(cx)?;
        let Some(down) = self.pump_down(cx)? else { return Poll::Ready(Ok(())) };
        if (self.ended, self.answered) != before {
            // The limit that counts from here on is another one.
            let left = self.left();
            self.timer.as_mut().reset(Instant::now() + left);
        }
        while self.timer.as_mut().poll(cx).is_ready() {
            let left = self.left();
            if left.is_zero() {
                return Poll::Ready(Ok(()));
            }
            self.timer.as_mut().reset(Instant::now() + left);
        }
        if up == BUDGET || down == BUDGET {
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }

    /// How long the flow may stay silent yet.
    fn left(&self) -> Duration {
        let limit = match (self.ended, self.answered) {
            (true, _) => self.downlink_only,
            (false, true) => IDLE_ANSWERED,
            (false, false) => IDLE_UNANSWERED,
        };
        limit.saturating_sub(self.shard.clock.now().since(self.active))
    }

    /// Sends what the client has sent; how many datagrams. A blocked outbound stops the client.
    fn pump_up(&mut self, cx: &mut Context<'_>) -> Result<usize, StreamError> {
        let (mut count, mut bytes) = (0, 0);
        while count < BUDGET && !self.ended && self.remote.poll_ready(cx)?.is_ready() {
            let Poll::Ready(received) = self.local.poll_recv(cx)? else { break };
            match received {
                Some(datagram) => {
                    bytes += datagram.data.len();
                    count += 1;
                    self.remote.send(datagram)?;
                }
                None => {
                    self.ended = true;
                    self.active = self.shard.clock.now();
                }
            }
        }
        if bytes > 0 {
            self.active = self.shard.clock.now();
            self.connection.count(bytes, 0);
        }
        // Also moves on what an earlier flush has left.
        let _ = self.remote.poll_flush(cx)?;
        Ok(count)
    }

    /// Sends what the target has sent; how many datagrams, `None` if the outbound has ended the flow. What comes from
    /// elsewhere is dropped: the client would take it for the target's.
    fn pump_down(&mut self, cx: &mut Context<'_>) -> Result<Option<usize>, StreamError> {
        let (mut count, mut bytes, mut ended) = (0, 0, false);
        while count < BUDGET {
            let Poll::Ready(received) = self.remote.poll_recv(cx)? else { break };
            let Some(datagram) = received else {
                ended = true;
                break;
            };
            count += 1;
            if datagram.remote == *self.target {
                bytes += datagram.data.len();
                self.local.send(Datagram { data: datagram.data, remote: self.target.clone() })?;
            } else {
                self.shard.shared.stats.dropped.fetch_add(1, Relaxed);
            }
        }
        if bytes > 0 {
            self.active = self.shard.clock.now();
            self.answered = true;
            self.connection.count(0, bytes);
        }
        let _ = self.local.poll_flush_queued(cx)?;
        Ok((!ended).then_some(count))
    }
}
