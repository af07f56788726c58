//! From an accepted flow to a running relay: picks the outbound, opens it, moves the payload, accounts, and lets both
//! ends go as they must be let go.

use super::connections::{Connection, Opening};
use super::outbound::{Answer, OpenError, OpenedStream, Outbound};
use super::relay::{HEADER_ALONE, Meter, RelayError, Relaying, Side, Terms};
use super::shard::Shard;
use super::skew;
use super::stats::Traffic;
use crate::addr::{Network, Target};
use crate::config::{Level, LogLevel};
use crate::error::{Error, ErrorKind};
use crate::route;
use crate::time::Moment;
use crate::transport::{Stream, StreamError};
use std::fmt;
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::Instant;

/// A flow that an inbound has accepted.
#[derive(Debug, Clone)]
pub(crate) struct Flow {
    /// TCP or UDP.
    pub(crate) network: Network,
    /// The app's end.
    pub(crate) source: SocketAddr,
    /// Where it goes.
    pub(crate) target: Target,
    /// The inbound's tag.
    pub(crate) inbound: Arc<str>,
    /// When it was accepted.
    pub(crate) accepted: Moment,
    /// Whose it is, where an inbound knows its users.
    pub(crate) user: Option<Rc<FlowUser>>,
}

/// The user of a VMess inbound, as a flow needs him.
#[derive(Debug, Clone)]
pub(crate) struct FlowUser {
    /// The e-mail; may be empty.
    pub(crate) email: Arc<str>,
    /// The policy of the user's level, which wins over the outbound's.
    pub(crate) level: Level,
    /// What counts the user's payload, if somebody wants to know.
    pub(crate) traffic: Option<Arc<Traffic>>,
}

/// The outbound that the rules pick for a flow; the first one if no rule matches.
pub(crate) fn route(shard: &Shard, flow: &Flow) -> Rc<dyn Outbound> {
    let live = shard.live();
    let asked = route::Flow {
        network: flow.network,
        target: &flow.target,
        inbound: &flow.inbound,
        source: flow.source,
        user: flow.user.as_ref().map_or("", |user| &user.email),
    };
    let picked = live.router.pick(&asked).and_then(|index| live.outbounds.get(index));
    let outbound =
        picked.or(live.outbounds.first()).expect("a config has an outbound, and its rules name known ones");
    Rc::clone(outbound)
}

/// Registers a flow in the list of connections. It stays there, and counted, until the last reference goes.
pub(crate) fn register(shard: &Shard, flow: &Flow, outbound: &dyn Outbound) -> Rc<Connection> {
    let system = shard.live().config.policy.system;
    let user = flow.user.as_ref().and_then(|user| user.traffic.clone());
    let opening = Opening {
        network: flow.network,
        source: flow.source,
        target: flow.target.clone(),
        inbound: Arc::clone(&flow.inbound),
        outbound: Arc::clone(outbound.tag()),
        accepted: flow.accepted,
        tally: shard.shared.stats.tally(user, &flow.inbound, outbound.tag(), &system),
    };
    shard.connections.register(&shard.shared, opening)
}

/// Opens the outbound and relays: the whole life of a TCP flow whose app has been answered.
///
/// Registers at once, and is no `async fn`: that would hold its arguments twice for as long as the flow lives.
pub(crate) fn serve_stream(
    shard: Rc<Shard>,
    flow: Flow,
    outbound: Rc<dyn Outbound>,
    mut local: Box<dyn Stream>,
) -> impl Future<Output = ()> {
    let connection = register(&shard, &flow, &*outbound);
    async move {
        let opened = open_registered(&shard, &flow, &outbound, &connection, local.reset()).await;
        match opened {
            Ok(opened) => relaying(shard, flow, outbound, connection, local, opened).await,
            Err(_) => local.abort(),
        }
    }
}

/// Opens the outbound, for inbounds that answer their app only after that. It is given up when `gone` ends: the app has
/// left. An app that has merely ended its direction still wants the other one.
///
/// # Errors
/// [`OpenError`]; it has been logged.
pub(crate) async fn open(
    shard: &Rc<Shard>,
    flow: &Flow,
    outbound: &Rc<dyn Outbound>,
    gone: impl Future<Output = ()>,
) -> Result<Accepted, OpenError> {
    let connection = register(shard, flow, &**outbound);
    let opened = open_registered(shard, flow, outbound, &connection, gone).await?;
    Ok(Accepted { opened, connection })
}

/// A flow whose outbound is open, listed as a connection.
pub(crate) struct Accepted {
    opened: OpenedStream,
    connection: Rc<Connection>,
}

/// Relays what [`open`] has opened, until both ends are done.
pub(crate) fn relay_stream(
    shard: Rc<Shard>,
    flow: Flow,
    outbound: Rc<dyn Outbound>,
    local: Box<dyn Stream>,
    accepted: Accepted,
) -> impl Future<Output = ()> {
    relaying(shard, flow, outbound, accepted.connection, local, accepted.opened)
}

async fn open_registered(
    shard: &Rc<Shard>,
    flow: &Flow,
    outbound: &Rc<dyn Outbound>,
    connection: &Connection,
    gone: impl Future<Output = ()>,
) -> Result<OpenedStream, OpenError> {
    let opening = Rc::clone(outbound).open_stream(Rc::clone(shard), flow.target.clone());
    let result = match unless_closed(connection, gone, opening).await {
        Some(result) => result,
        None => {
            let error = Error::new(ErrorKind::Stopped, "the connection was closed while it was being opened");
            Err(OpenError { error, answer: Answer::Failed })
        }
    };
    if let Err(failed) = &result {
        let (tag, target) = (outbound.tag(), &flow.target);
        shard.shared.log(LogLevel::Debug, format_args!("{target} by [{tag}] failed: {}", failed.error));
    }
    result
}

/// The relay of a registered flow, and the log of its end.
fn relaying(
    shard: Rc<Shard>,
    flow: Flow,
    outbound: Rc<dyn Outbound>,
    connection: Rc<Connection>,
    local: Box<dyn Stream>,
    opened: OpenedStream,
) -> impl Future<Output = ()> {
    connection.bound_to(opened.stream.local_ip());
    let waited = shard.clock.now().since(connection.accepted());
    let level = flow.user.map_or(opened.level, |user| user.level);
    let terms = Terms {
        conn_idle: level.conn_idle,
        uplink_only: level.uplink_only,
        downlink_only: level.downlink_only,
        header_alone: Instant::now() + HEADER_ALONE.saturating_sub(waited),
    };
    let gauge = Gauge { shard, connection, outbound };
    let mut relaying = Relaying::new(local, opened.stream, terms, gauge);
    async move {
        let result = (&mut relaying).await;
        relaying.meter().log_end(&result);
    }
}

/// What a relay reports to.
struct Gauge {
    shard: Rc<Shard>,
    connection: Rc<Connection>,
    outbound: Rc<dyn Outbound>,
}

impl Gauge {
    fn log_end(&self, result: &Result<(), RelayError>) {
        let shared = &self.shard.shared;
        if !shared.logs(LogLevel::Debug) {
            return;
        }
        let how: &dyn fmt::Display = match result {
            Ok(()) => &"done",
            // An app that goes away is nobody's fault.
            Err(RelayError::Stream { side: Side::Local, error: StreamError::Reset }) => &"reset by the app",
            Err(error) => error,
        };
        let ((up, down), target) = (self.connection.counted(), self.connection.target());
        let tag = self.outbound.tag();
        shared.log(LogLevel::Debug, format_args!("{target} by [{tag}]: {how}, {up} bytes up, {down} down"));
    }
}

impl Meter for Gauge {
    fn moved(&self, uplink: usize, downlink: usize) {
        self.connection.count(uplink, downlink);
    }

    fn silent(&self) {
        if self.shard.health.silent(self.outbound.tag()) {
            skew::suspect(&self.shard);
        }
    }

    fn poll_closed(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.connection.poll_closed(cx)
    }

    fn slept(&self) -> Duration {
        self.shard.clock.slept()
    }
}

/// Runs a future unless the connection is closed from outside, or the app is gone; then `None`.
async fn unless_closed<F: Future>(
    connection: &Connection,
    gone: impl Future<Output = ()>,
    future: F,
) -> Option<F::Output> {
    let (mut gone, mut future) = (pin!(gone), pin!(future));
    poll_fn(|cx| {
        if connection.poll_closed(cx).is_ready() {
            return Poll::Ready(None);
        }
        if let Poll::Ready(output) = future.as_mut().poll(cx) {
            return Poll::Ready(Some(output));
        }
        gone.as_mut().poll(cx).map(|()| None)
    })
    .await
}

#[cfg(test)]
mod tests;
