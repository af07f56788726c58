//! Configs, share links, subscriptions and measuring: what needs no tunnel.

use crate::error::TunnelError;
use crate::platform::{self, Platform};
use std::sync::Arc;

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

/// Makes configs, as JSON, of a subscription's body. Not built yet.
///
/// # Errors
/// `Unsupported`.
#[uniffi::export]
pub fn parse_subscription(bytes: &[u8]) -> Result<Vec<String>, TunnelError> {
    Ok(vmesskit::parse_subscription(bytes)?)
}

/// The library's version, such as `0.1.0`.
#[uniffi::export]
pub fn version() -> String {
    vmesskit::version().into()
}

/// What `measure` is asked to do.
#[derive(Debug, Clone, PartialEq, Eq, uniffi::Record)]
pub struct MeasureRequest {
    /// The configs as JSON.
    pub configs: Vec<String>,
    /// What to fetch through each.
    pub url: String,
    /// How long each may take.
    pub timeout_millis: u32,
    /// How many at a time.
    pub parallel: u32,
}

/// What was measured of one config.
#[derive(Debug, Clone, PartialEq, Eq, uniffi::Record)]
pub struct Measurement {
    /// How long it took; absent if it failed.
    pub millis: Option<u32>,
    /// Why it failed.
    pub error: Option<TunnelError>,
}

/// Measures how long servers take to fetch an address, without a running tunnel. Not built yet.
///
/// # Errors
/// `Unsupported`.
#[uniffi::export]
pub async fn measure(
    request: MeasureRequest,
    platform: Option<Arc<dyn Platform>>,
) -> Result<Vec<Measurement>, TunnelError> {
    let _ = (request, platform::adapt(platform));
    let kind = vmesskit::ErrorKind::Unsupported;
    Err(vmesskit::Error::new(kind, "measuring is not built into this version").into())
}
