//! From an accepted flow to a running relay: picks the outbound, opens it, moves the payload, accounts, and lets both
//! ends go as they must be let go.

use super::connections::{Connection, Opening};
use super::outbound::{Answer, OpenError, OpenedStream, Outbound};
use super::relay::{self, HEADER_ALONE, Meter, RelayError, Side, Terms};
use super::shard::Shard;
use crate::addr::{Network, Target};
use crate::config::LogLevel;
use crate::error::{Error, ErrorKind};
use crate::route;
use crate::time::Moment;
use crate::transport::{Stream, StreamError};
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
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
}

/// The outbound that the rules pick for a flow; the first one if no rule matches.
pub(crate) fn route(shard: &Shard, flow: &Flow) -> Rc<dyn Outbound> {
    let live = shard.live();
    let asked = route::Flow { network: flow.network, target: &flow.target, inbound: &flow.inbound };
    let picked = live.router.pick(&asked).and_then(|index| live.outbounds.get(index));
    let outbound =
        picked.or(live.outbounds.first()).expect("a config has an outbound, and its rules name known ones");
    Rc::clone(outbound)
}

/// Registers a flow in the list of connections. It stays there, and counted, until the last reference goes.
pub(crate) fn register(shard: &Shard, flow: &Flow, outbound: &dyn Outbound) -> Rc<Connection> {
    let opening = Opening {
        network: flow.network,
        source: flow.source,
        target: flow.target.clone(),
        inbound: Arc::clone(&flow.inbound),
        outbound: Arc::clone(outbound.tag()),
        accepted: flow.accepted,
    };
    shard.connections.register(&shard.shared, opening)
}

/// Opens the outbound and relays: the whole life of a TCP flow whose app has been answered.
pub(crate) async fn serve_stream(
    shard: Rc<Shard>,
    flow: Flow,
    outbound: Rc<dyn Outbound>,
    mut local: Box<dyn Stream>,
) {
    let connection = register(&shard, &flow, &*outbound);
    match open_registered(&shard, &flow, &outbound, &connection).await {
        Ok(opened) => relay_registered(shard, flow, outbound, connection, local, opened).await,
        Err(_) => local.abort(),
    }
}

/// Opens the outbound, for inbounds that answer their app only after that.
///
/// # Errors
/// [`OpenError`]; it has been logged.
pub(crate) async fn open(
    shard: &Rc<Shard>,
    flow: &Flow,
    outbound: &Rc<dyn Outbound>,
) -> Result<Accepted, OpenError> {
    let connection = register(shard, flow, &**outbound);
    let opened = open_registered(shard, flow, outbound, &connection).await?;
    Ok(Accepted { opened, connection })
}

/// A flow whose outbound is open, listed as a connection.
pub(crate) struct Accepted {
    opened: OpenedStream,
    connection: Rc<Connection>,
}

/// Relays what [`open`] has opened, until both ends are done.
pub(crate) async fn relay_stream(
    shard: Rc<Shard>,
    flow: Flow,
    outbound: Rc<dyn Outbound>,
    local: Box<dyn Stream>,
    accepted: Accepted,
) {
    relay_registered(shard, flow, outbound, accepted.connection, local, accepted.opened).await;
}

async fn open_registered(
    shard: &Rc<Shard>,
    flow: &Flow,
    outbound: &Rc<dyn Outbound>,
    connection: &Connection,
) -> Result<OpenedStream, OpenError> {
    let opening = Rc::clone(outbound).open_stream(Rc::clone(shard), flow.target.clone());
    let result = unless_closed(connection, opening).await.unwrap_or_else(|| {
        let error = Error::new(ErrorKind::Stopped, "the connection was closed while it was being opened");
        Err(OpenError { error, answer: Answer::Failed })
    });
    if let Err(failed) = &result {
        let (tag, target) = (outbound.tag(), &flow.target);
        shard.shared.log(LogLevel::Debug, format_args!("{target} by [{tag}] failed: {}", failed.error));
    }
    result
}

async fn relay_registered(
    shard: Rc<Shard>,
    flow: Flow,
    outbound: Rc<dyn Outbound>,
    connection: Rc<Connection>,
    local: Box<dyn Stream>,
    opened: OpenedStream,
) {
    let waited = shard.clock.now().since(flow.accepted);
    let level = opened.level;
    let terms = Terms {
        conn_idle: level.conn_idle,
        uplink_only: level.uplink_only,
        downlink_only: level.downlink_only,
        header_alone: Instant::now() + HEADER_ALONE.saturating_sub(waited),
    };
    let gauge = Gauge { shard, connection, outbound };
    let result = relay::relay(local, opened.stream, terms, &gauge).await;
    let Gauge { shard, connection, outbound } = gauge;
    if shard.shared.logs(LogLevel::Debug) {
        log_end(&shard, &flow, &*outbound, &connection, &result);
    }
}

fn log_end(
    shard: &Shard,
    flow: &Flow,
    outbound: &dyn Outbound,
    connection: &Connection,
    result: &Result<(), RelayError>,
) {
    let (up, down) = connection.counted();
    let (tag, target) = (outbound.tag(), &flow.target);
    let how: &dyn std::fmt::Display = match result {
        Ok(()) => &"done",
        // An app that goes away is nobody's fault.
        Err(RelayError::Stream { side: Side::Local, error: StreamError::Reset }) => &"reset by the app",
        Err(error) => error,
    };
    shard.shared.log(LogLevel::Debug, format_args!("{target} by [{tag}]: {how}, {up} bytes up, {down} down"));
}

/// What a relay reports to.
struct Gauge {
    shard: Rc<Shard>,
    connection: Rc<Connection>,
    outbound: Rc<dyn Outbound>,
}

impl Meter for Gauge {
    fn moved(&self, uplink: usize, downlink: usize) {
        self.connection.count(uplink, downlink);
    }

    fn silent(&self) {
        self.shard.health.silent(self.outbound.tag());
    }

    fn poll_closed(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.connection.poll_closed(cx)
    }
}

/// Runs a future unless the connection is closed from outside; then `None`.
async fn unless_closed<F: Future>(connection: &Connection, future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    poll_fn(|cx| {
        if connection.poll_closed(cx).is_ready() {
            return Poll::Ready(None);
        }
        future.as_mut().poll(cx).map(Some)
    })
    .await
}
