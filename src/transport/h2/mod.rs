//! HTTP/2 as a transport: one stream of an HTTP/2 connection is one carrier, many share the connection.
//!
//! At a client a [`Pool`] holds the connections to one server ([`link`], driven by [`driver`]); at a server [`serve`] makes
//! a [`Server`] of a connection, which hands on its streams. Both make [`carrier::StreamCarrier`]s of streams; how payload lies in them is a
//! [`Framing`]: bare here, in messages for gRPC. Windows begin small and grow with the link ([`window`]); what nobody
//! reads keeps its stream's window closed, and what waits to be written is bounded for each connection ([`chunk`]).
//!
//! Frames, header compression and flow control are the `h2` crate's.

mod carrier;
mod chunk;
mod driver;
mod failure;
mod framing;
mod hub;
mod link;
mod options;
mod pool;
mod receiving;
mod sending;
mod server;
#[cfg(test)]
pub(super) mod tests;
mod window;
mod wire;

pub(super) use failure::Failure;
pub(super) use framing::Framing;
pub(super) use options::{KeepAlive, Options};
pub(super) use pool::Pool;
pub(super) use receiving::{Head, grpc_status};
pub(super) use server::{Server, Service, serve as serve_with};

use super::Carrier;
use super::dial::DialError;
use crate::config;
use crate::engine::Shard;
use framing::Bare;
use http::header::{ACCEPT_ENCODING, CACHE_CONTROL, HeaderName, HeaderValue};
use http::request::Parts;
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri, Version, response};
use std::rc::Rc;
use tokio::time::Instant;

/// The name that is asked for if none is configured.
const DEFAULT_HOST: &str = "www.example.com";

/// A client of one server.
pub(super) struct Client {
    settings: config::H2,
    secure: bool,
    pool: Pool,
}

impl Client {
    /// Of a server with these settings; `secure`: TLS is below.
    pub(super) fn new(settings: config::H2, secure: bool) -> Self {
        Self { settings, secure, pool: Pool::default() }
    }

    /// Opens a stream, on a connection that is there or on a new one. `dial` makes what a connection rides on. The
    /// server's answer is not waited for: a refusal, or none by `deadline`, is an error of the first read, which carries
    /// a [`DialError`].
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
        let request = shard
            .with_entropy(|entropy| request(&self.settings, self.secure, &mut |n| entropy.below(n)))
            .map_err(|failure| failure.into_dial(started))?;
        let options = Options::new(&shard.pool, 0, None);
        let head = (Ok200, Some(deadline));
        self.pool.open::<Bare, _>(shard, &options, &request, head, deadline, dial).await
    }

    /// The network has changed: new streams ride on new connections, and those without streams are closed.
    pub(super) fn network_changed(&self) {
        self.pool.retire();
    }
}

/// Takes a connection of clients, see [`serve_with`].
///
/// # Errors
/// [`Failure`].
pub(super) async fn serve<C: Carrier + Unpin>(
    shard: &Rc<Shard>,
    carrier: C,
    settings: &config::H2,
    deadline: Instant,
) -> Result<Server<C, Site>, Failure> {
    serve_with(shard, carrier, Site(settings.clone()), deadline).await
}

/// A request for a URI that was put together of configured parts.
///
/// # Errors
/// [`Failure::Protocol`] if they make none.
pub(super) fn request_for(
    method: Method,
    secure: bool,
    authority: &str,
    path: &str,
) -> Result<Request<()>, Failure> {
    let scheme = if secure { "https" } else { "http" };
    let uri = Uri::builder().scheme(scheme).authority(authority).path_and_query(path).build();
    let uri = uri.map_err(|error| Failure::Protocol(format!("host and path make no address: {error}")))?;
    let mut request = Request::new(());
    (*request.method_mut(), *request.uri_mut(), *request.version_mut()) = (method, uri, Version::HTTP_2);
    Ok(request)
}

/// `draw` picks one of so many.
fn request(
    settings: &config::H2,
    secure: bool,
    draw: &mut dyn FnMut(u32) -> u32,
) -> Result<Request<()>, Failure> {
    let mut pick = |texts: &[String]| {
        let count = u32::try_from(texts.len()).unwrap_or(u32::MAX);
        let at = if count > 1 { draw(count) } else { 0 };
        texts.get(usize::try_from(at).unwrap_or(0)).cloned()
    };
    let host = pick(&settings.hosts).unwrap_or_else(|| DEFAULT_HOST.to_owned());
    let method = match settings.method.as_str() {
        "" => Method::PUT,
        method => Method::from_bytes(method.as_bytes())
            .map_err(|_| Failure::Protocol("the method is none of HTTP".to_owned()))?,
    };
    let path = if settings.path.is_empty() { "/" } else { &settings.path };
    let mut request = request_for(method, secure, &host, path)?;
    let fields = request.headers_mut();
    fields.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    for (name, values) in &settings.headers {
        let value = pick(values).and_then(|value| HeaderValue::from_str(&value).ok());
        if let (Ok(name), Some(value)) = (HeaderName::from_bytes(name.as_bytes()), value)
            && is_end_to_end(&name)
        {
            fields.insert(name, value);
        }
    }
    Ok(request)
}

/// Whether HTTP/2 lets a field of this name pass; those of HTTP/1's connections it does not.
fn is_end_to_end(name: &HeaderName) -> bool {
    !["connection", "host", "keep-alive", "proxy-connection", "te", "transfer-encoding", "upgrade"]
        .contains(&name.as_str())
}

/// A client takes 200 and nothing else.
struct Ok200;

impl Head for Ok200 {
    fn check(&self, head: &response::Parts, _: bool) -> Result<(), Failure> {
        if head.status == StatusCode::OK { Ok(()) } else { Err(Failure::Status(head.status.as_u16())) }
    }
}

/// What a server takes: its hosts, and what is below its path.
pub(super) struct Site(config::H2);

impl Service for Site {
    type Framing = Bare;

    fn judge(&self, request: &Parts) -> Result<Response<()>, Response<()>> {
        let mut response = Response::new(());
        let named = request.uri.authority().map(http::uri::Authority::as_str);
        let named = named.or_else(|| request.headers.get("host")?.to_str().ok()).unwrap_or_default();
        let hosts = &self.0.hosts;
        let known = hosts.is_empty()
            || hosts.iter().any(|host| {
                host.eq_ignore_ascii_case(named) || host.eq_ignore_ascii_case(without_port(named))
            });
        if !known || !request.uri.path().starts_with(&self.0.path) {
            *response.status_mut() = StatusCode::NOT_FOUND;
            return Err(response);
        }
        let no_store = HeaderValue::from_static("no-store");
        *response.headers_mut() = HeaderMap::from_iter([(CACHE_CONTROL, no_store)]);
        Ok(response)
    }
}

/// A host without the port behind it.
fn without_port(named: &str) -> &str {
    match named.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => named,
    }
}
