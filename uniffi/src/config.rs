//! Configs, share links, subscriptions and measuring: what needs no tunnel.

use crate::error::TunnelError;
use crate::platform::{self, Platform};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// How grave a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, uniffi::Enum)]
pub enum Severity {
    /// The config works, but perhaps not as its writer thinks.
    Warning,
    /// The config cannot be used.
    Error,
}

/// One finding in a config.
#[derive(Debug, Clone, PartialEq, Eq, uniffi::Record)]
pub struct Diagnostic {
    /// How grave it is.
    pub severity: Severity,
    /// The JSON path of the value. For text that is no JSON: `line 3, column 7`.
    pub path: String,
    /// What is wrong, for a person.
    pub text: String,
    /// The value found, shortened, never a secret; may be empty.
    pub found: String,
    /// What is allowed there; may be empty.
    pub allowed: String,
    /// What to do, such as the nearest known name; may be empty.
    pub hint: String,
}

impl From<vmesskit::config::Diagnostic> for Diagnostic {
    fn from(diagnostic: vmesskit::config::Diagnostic) -> Self {
        Self {
            severity: match diagnostic.severity {
                vmesskit::config::Severity::Warning => Severity::Warning,
                vmesskit::config::Severity::Error => Severity::Error,
            },
            path: diagnostic.path,
            text: diagnostic.text,
            found: diagnostic.found,
            allowed: diagnostic.allowed,
            hint: diagnostic.hint,
        }
    }
}

/// Checks a config (V2Ray's JSON, comments allowed) without doing any IO.
#[uniffi::export]
pub fn validate_config(json: &str) -> Vec<Diagnostic> {
    vmesskit::validate_config(json).into_iter().map(Diagnostic::from).collect()
}

/// Writes a config in a uniform layout.
///
/// # Errors
/// `ConfigInvalid`.
#[uniffi::export]
pub fn format_config(json: &str) -> Result<String, TunnelError> {
    Ok(vmesskit::format_config(json)?)
}

/// Makes a config, as JSON, of a `vmess://` share link.
///
/// # Errors
/// `ConfigInvalid`.
#[uniffi::export]
pub fn parse_share_link(uri: &str) -> Result<String, TunnelError> {
    Ok(vmesskit::parse_share_link(uri)?)
}

/// Makes a `vmess://` share link, which holds the id, of a config's first VMess outbound.
///
/// # Errors
/// `ConfigInvalid`.
#[uniffi::export]
pub fn to_share_link(json: &str) -> Result<String, TunnelError> {
    Ok(vmesskit::to_share_link(json)?)
}

/// What a subscription holds.
#[derive(Debug, Clone, PartialEq, Eq, uniffi::Record)]
pub struct Subscription {
    /// The servers, in their order. `validate_config` finds no error in their configs.
    pub servers: Vec<SubscribedServer>,
    /// What could not be read. The path is `line 3`, or a JSON path in the body, perhaps with one inside of the server's
    /// config behind it.
    pub diagnostics: Vec<Diagnostic>,
}

/// One server of a subscription.
#[derive(Clone, PartialEq, Eq, uniffi::Record)]
pub struct SubscribedServer {
    /// Its name for people; the server's address if it was given none.
    pub name: String,
    /// A complete config, as JSON.
    pub config: String,
}

impl fmt::Debug for SubscribedServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SubscribedServer").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Reads a subscription's body: links, a line each, as they are or as base64 of the whole; or JSON: a list of links, of
/// v2rayN's objects, of V2Ray's configs or VMess outbounds, one such config, or sing-box's config. What cannot be read is
/// a finding. At most 5000 servers of at most 4 MiB are read.
///
/// # Errors
/// `ConfigInvalid` if the body is none of that: empty, too long, a web page, another client's format.
#[uniffi::export]
pub fn parse_subscription(bytes: &[u8]) -> Result<Subscription, TunnelError> {
    let found = vmesskit::parse_subscription(bytes)?;
    let server = |vmesskit::SubscribedServer { name, config }| SubscribedServer { name, config };
    Ok(Subscription {
        servers: found.servers.into_iter().map(server).collect(),
        diagnostics: found.diagnostics.into_iter().map(Diagnostic::from).collect(),
    })
}

/// The library's version, such as `0.1.0`.
#[uniffi::export]
pub fn version() -> String {
    vmesskit::version().into()
}

/// What `measure` is asked to do.
#[derive(Clone, PartialEq, Eq, uniffi::Record)]
pub struct MeasureRequest {
    /// The configs as JSON.
    pub configs: Vec<String>,
    /// What to fetch through each: an `http://` or `https://` address.
    pub url: String,
    /// How long each may take; not 0.
    pub timeout_millis: u32,
    /// How many at a time, 1 to 128.
    pub parallel: u32,
}

impl From<MeasureRequest> for vmesskit::MeasureRequest {
    fn from(request: MeasureRequest) -> Self {
        Self {
            configs: request.configs,
            url: request.url,
            timeout: Duration::from_millis(request.timeout_millis.into()),
            parallel: request.parallel as usize,
        }
    }
}

impl fmt::Debug for MeasureRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        vmesskit::MeasureRequest::from(self.clone()).fmt(f)
    }
}

/// What was measured of one config: a time or an error.
#[derive(Debug, Clone, PartialEq, Eq, uniffi::Record)]
pub struct Measurement {
    /// Microseconds from the dial to the head of the HTTP answer; absent if it failed.
    pub latency_micros: Option<u64>,
    /// Why it failed; absent if it did not.
    pub error: Option<TunnelError>,
}

impl From<Result<Duration, vmesskit::Error>> for Measurement {
    fn from(measured: Result<Duration, vmesskit::Error>) -> Self {
        match measured {
            Ok(latency) => {
                let micros = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
                Self { latency_micros: Some(micros), error: None }
            }
            Err(error) => Self { latency_micros: None, error: Some(error.into()) },
        }
    }
}

/// Fetches an address through each config and tells how long it took, in the order of the request. Needs no running
/// tunnel; one thread measures all, and is gone when the answer is there. Of each config the first outbound that dials a
/// server is measured, or, without one, the first freedom. Cancelling ends it.
///
/// # Errors
/// `Misuse`: an address that is none, no timeout, a `parallel` that is not 1 to 128; `ResourceLimit` without a thread. A
/// config's own failure is in its place.
#[uniffi::export]
pub async fn measure(
    request: MeasureRequest,
    platform: Option<Arc<dyn Platform>>,
) -> Result<Vec<Measurement>, TunnelError> {
    let measured = vmesskit::measure(request.into(), Some(platform::adapt(platform))).await?;
    Ok(measured.into_iter().map(Measurement::from).collect())
}
