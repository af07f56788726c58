//! One config's turn: a shard of its own, and one request through its outbound.

use super::super::api::Platform;
use super::super::check::describe;
use super::super::health::Health;
use super::super::host::{HostLink, HostQueue};
use super::super::outbound::Outbound;
use super::super::shard::{Live, Shard};
use super::super::shared::Shared;
use super::url::Url;
use crate::config::{self, LogLevel, OutboundProtocol, Tls};
use crate::error::{Error, ErrorKind, Stage};
use crate::transport::http1::{self, HeadError, parse_response};
use crate::transport::{Carrier, Explain, Nested, NestedTls, StreamError};
use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::LocalSet;
use tokio::time::{Instant, timeout_at};

/// Payload memory of one config: a head each way, and what transports hold.
const POOL: usize = 512 * 1024;

/// What all configs are measured with.
pub(super) struct Bench {
    host: Arc<HostLink>,
    url: Url,
    limit: Duration,
    /// How the address is spoken to, if that is by TLS.
    tls: Option<NestedTls>,
}

impl Bench {
    /// Prepares the measuring of `url`; `tls`: who is trusted there.
    ///
    /// # Errors
    /// `ResourceLimit` without a thread for the host's callbacks; [`NestedTls::new`]'s.
    pub(super) fn new(
        platform: Arc<dyn Platform>,
        protects: bool,
        queue: Arc<HostQueue>,
        url: Url,
        limit: Duration,
        tls: &Tls,
    ) -> Result<Self, Error> {
        // Sessions are not resumed: each config is to show the same work.
        let tls = Tls { session_resumption: false, ..tls.clone() };
        let tls = url.tls.then(|| NestedTls::new(&tls, &url.target.host)).transpose()?;
        let host = HostLink::open(platform, protects, queue).map_err(|error| {
            let what = ErrorKind::ResourceLimit { what: "threads" };
            Error::new(what, "nothing could be measured").with_reason(error.to_string())
        })?;
        Ok(Self { host: Arc::new(host), url, limit, tls })
    }

    /// The host's callbacks.
    pub(super) const fn host(&self) -> &Arc<HostLink> {
        &self.host
    }

    /// Measures one config. Everything of it is gone afterwards.
    ///
    /// # Errors
    /// `ConfigInvalid`; `Misuse` if no outbound leads anywhere; what the dial says; `Timeout`.
    pub(super) async fn measure(&self, json: &str) -> Result<Duration, Error> {
        let live = Live::new(config::parse(json).into_result()?)?;
        let shared = Arc::new(Shared::new(LogLevel::None));
        let health = Arc::new(Health::new(Arc::clone(&shared), &live.config));
        let shard = Shard::new(shared, Arc::clone(&self.host), health, live, POOL);
        // Its tasks end with it.
        let tasks = LocalSet::new();
        tasks.run_until(self.fetch(&shard)).await
    }

    async fn fetch(&self, shard: &Rc<Shard>) -> Result<Duration, Error> {
        let outbound = pick(shard)?;
        let (started, deadline) = (shard.clock.now(), Instant::now() + self.limit);
        let late = |_| {
            Error::new(ErrorKind::Timeout { what: "measure" }, "there was no answer in time")
                .with_hint("compare the id and the clock with the server's, or try another network")
        };
        let opening = outbound.open_stream(Rc::clone(shard), self.url.target.clone());
        let opened = timeout_at(deadline, opening).await.map_err(late)?.map_err(|failed| failed.error)?;
        let seen = Rc::<Seen>::default();
        let carrier = Nested::new(opened.stream, shard.pool.clone(), Rc::clone(&seen));
        timeout_at(deadline, self.ask(shard, carrier, &seen, deadline)).await.map_err(late)??;
        Ok(shard.clock.now().since(started))
    }

    /// Asks for the address, and waits for the head of an answer.
    async fn ask(
        &self,
        shard: &Shard,
        carrier: Nested<Rc<Seen>>,
        seen: &Seen,
        deadline: Instant,
    ) -> Result<(), Error> {
        let Some(tls) = &self.tls else {
            return self.get(carrier).await.map_err(|error| explain(seen, &error));
        };
        let connected = tls.connect(shard, carrier, deadline).await;
        let carrier = connected.map_err(|failed| match failed.error.kind {
            ErrorKind::TlsFailed => {
                Error { text: "the address could not be reached by TLS".into(), ..failed.error }
            }
            _ => explain(seen, &Unanswered::Carrier(failed.kind.into())),
        })?;
        self.get(carrier).await.map_err(|error| explain(seen, &error))
    }

    async fn get<C: Carrier>(&self, mut carrier: C) -> Result<(), Unanswered> {
        let first = format!("GET {} HTTP/1.1", self.url.path);
        let fields = [
            ("Host", self.url.authority.as_str()),
            ("User-Agent", "Mozilla/5.0"),
            ("Accept", "*/*"),
            ("Connection", "close"),
        ];
        http1::write_all(&mut carrier, &http1::write_head(&first, fields)).await?;
        let (head, _) = http1::read_head(&mut carrier).await?;
        carrier.abort();
        Ok(parse_response(&head).map(drop)?)
    }
}

/// Why a request has had no answer.
#[derive(Debug, thiserror::Error)]
enum Unanswered {
    /// What carries it has failed, or what came is no head at all.
    #[error("{0}")]
    Carrier(#[from] io::Error),
    /// What came is no answer of HTTP.
    #[error("{0}")]
    NoHttp(#[from] HeadError),
}

/// What became of the stream below the request, whatever became of the layers on it.
#[derive(Default)]
struct Seen {
    /// Whether the server has proved that it understands us.
    answered: Cell<bool>,
    /// Why the stream failed.
    failure: RefCell<Option<StreamError>>,
}

impl Explain for Rc<Seen> {
    fn heard(&self, answered: bool, failure: Option<&StreamError>) {
        self.answered.set(answered);
        if let Some(failure) = failure {
            self.failure.borrow_mut().get_or_insert_with(|| failure.clone());
        }
    }
}

/// The outbound that is measured: the first that dials a server, else the first that leaves this device.
fn pick(shard: &Shard) -> Result<Rc<dyn Outbound>, Error> {
    let live = shard.live();
    let first = |wanted: fn(&OutboundProtocol) -> bool| {
        let at = live.config.outbounds.iter().position(|outbound| wanted(&outbound.protocol))?;
        live.outbounds.get(at).cloned()
    };
    first(|protocol| matches!(protocol, OutboundProtocol::Vmess(_)))
        .or_else(|| first(|protocol| matches!(protocol, OutboundProtocol::Freedom(_))))
        .ok_or_else(|| {
            Error::new(ErrorKind::Misuse, "there is nothing to measure: no outbound leads anywhere")
        })
}

/// Why there was no answer. A server that has answered is not to blame for an address that has not.
fn explain(seen: &Seen, error: &Unanswered) -> Error {
    let failure = seen.failure.borrow().clone();
    if !seen.answered.get() {
        return describe(failure.unwrap_or(StreamError::Truncated));
    }
    let is_http = match error {
        Unanswered::Carrier(error) => error.kind() != io::ErrorKind::InvalidData,
        Unanswered::NoHttp(_) => false,
    };
    let text = match is_http {
        true => "the server answered, but the address behind it did not",
        false => "the address answered with something that is no HTTP",
    };
    let reason = failure.map_or_else(|| error.to_string(), |failure| failure.to_string());
    Error::new(ErrorKind::ServerUnreachable { stage: Stage::Vmess }, text)
        .with_hint("try another address")
        .with_reason(reason)
}
