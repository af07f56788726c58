//! gRPC as a transport ("gun"): payload in the messages of one call, a call a connection, many on one HTTP/2 connection.
//!
//! HTTP/2 itself, the pool of connections and the streams are [`super::h2`]'s. Here are the messages
//! ([`messages`]), the paths of services ([`name`]), and the heads of both ends.

mod messages;
mod name;
#[cfg(test)]
mod tests;

use super::Carrier;
use super::dial::DialError;
use super::h2::{
    Failure, Head, KeepAlive, Options, Pool, Server, Service, grpc_status, request_for, serve_with,
};
use crate::config;
use crate::engine::Shard;
use crate::wire::hunk::Hunks;
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue, TE, USER_AGENT};
use http::request::Parts;
use http::{HeaderMap, Method, Request, Response, StatusCode, response};
use name::ServiceName;
use std::rc::Rc;
use std::time::Duration;
use tokio::time::Instant;

/// What every message is.
const GRPC: &str = "application/grpc";
/// Who we say we are: what most clients of such servers say.
const AGENT: &str = "grpc-go/1.65.0";
/// How long the answer to a ping may take if that is not configured, as grpc-go has it.
const PING_ANSWER: Duration = Duration::from_secs(20);
/// The most often that an idle server is pinged: it takes more for an attack.
const LEAST_IDLE: Duration = Duration::from_secs(10);

/// A client of one server.
pub(super) struct Client {
    settings: config::Grpc,
    /// The authority to name if none is configured.
    authority: String,
    secure: bool,
    pool: Pool,
}

impl Client {
    /// Of a server with these settings. `authority`: its TLS name, else its address; `secure`: TLS is below.
    pub(super) fn new(settings: config::Grpc, authority: impl Into<String>, secure: bool) -> Self {
        Self { settings, authority: authority.into(), secure, pool: Pool::default() }
    }

    /// Opens a call, on a connection that is there or on a new one. `dial` makes what a connection rides on. The server's
    /// answer is not waited for: a refusal is an error of the first read, which carries a [`DialError`].
    ///
    /// # Errors
    /// [`DialError`] of `dial`, or with stage `upgrade`.
    pub(super) async fn open(
        &self,
        shard: &Rc<Shard>,
        deadline: Instant,
        dial: &impl AsyncFn() -> Result<Box<dyn Carrier>, DialError>,
    ) -> Result<Box<dyn Carrier>, DialError> {
        let started = Instant::now();
        let request = self.request().map_err(|failure| failure.into_dial(started))?;
        let options = Options::new(&shard.pool, self.settings.initial_window, self.keepalive());
        self.pool.open::<Hunks, _>(shard, &options, &request, (Call, None), deadline, dial).await
    }

    /// The network has changed: new calls ride on new connections, and those without calls are closed.
    pub(super) fn network_changed(&self) {
        self.pool.retire();
    }

    fn request(&self) -> Result<Request<()>, Failure> {
        let authority = self.settings.authority.as_deref().unwrap_or(&self.authority);
        let path = ServiceName::new(&self.settings.service).path(self.settings.multi);
        let mut request = request_for(Method::POST, self.secure, authority, &path)?;
        let agent = self.settings.user_agent.as_deref().and_then(|agent| HeaderValue::from_str(agent).ok());
        let fields = request.headers_mut();
        fields.insert(CONTENT_TYPE, HeaderValue::from_static(GRPC));
        fields.insert(USER_AGENT, agent.unwrap_or(HeaderValue::from_static(AGENT)));
        fields.insert(TE, HeaderValue::from_static("trailers"));
        Ok(request)
    }

    fn keepalive(&self) -> Option<KeepAlive> {
        let idle = self.settings.idle_timeout.filter(|idle| !idle.is_zero())?;
        let timeout = self.settings.health_check_timeout.filter(|timeout| !timeout.is_zero());
        Some(KeepAlive {
            idle: idle.max(LEAST_IDLE),
            timeout: timeout.unwrap_or(PING_ANSWER),
            without_stream: self.settings.permit_without_stream,
        })
    }
}

/// Takes a connection of clients, each of whose calls becomes a carrier; the first one must come by `deadline`.
///
/// # Errors
/// [`Failure`] if it speaks something else, or nothing by then.
pub(super) async fn serve<C: Carrier + Unpin>(
    shard: &Rc<Shard>,
    carrier: C,
    settings: &config::Grpc,
    deadline: Instant,
) -> Result<Server<C, Gun>, Failure> {
    serve_with(shard, carrier, Gun(ServiceName::new(&settings.service)), deadline).await
}

/// What a client expects of an answer.
struct Call;

impl Head for Call {
    fn check(&self, head: &response::Parts, ended: bool) -> Result<(), Failure> {
        if head.status != StatusCode::OK {
            return Err(Failure::Status(head.status.as_u16()));
        }
        if let Some(failed) = grpc_status(&head.headers) {
            return Err(failed);
        }
        match head.headers.get(CONTENT_TYPE) {
            Some(kind) if !kind.as_bytes().starts_with(GRPC.as_bytes()) && !ended => {
                Err(Failure::NotGrpc(Failure::shown(kind.as_bytes())))
            }
            _ => Ok(()),
        }
    }
}

/// What a server takes: calls of its service. What else a request says does not matter.
pub(super) struct Gun(ServiceName);

impl Service for Gun {
    type Framing = Hunks;

    fn judge(&self, request: &Parts) -> Result<Response<()>, Response<()>> {
        let mut response = Response::new(());
        let is_call = request
            .headers
            .get(CONTENT_TYPE)
            .is_some_and(|kind| kind.as_bytes().starts_with(GRPC.as_bytes()));
        if request.method != Method::POST || !is_call {
            *response.status_mut() = StatusCode::NOT_FOUND;
            return Err(response);
        }
        let fields = response.headers_mut();
        *fields = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(GRPC))]);
        if self.0.matches(request.uri.path()) {
            return Ok(response);
        }
        // As a server of gRPC says it that does not know a method.
        fields.insert(HeaderName::from_static("grpc-status"), HeaderValue::from_static("12"));
        Err(response)
    }
}
