//! Configs: V2Ray's JSON, share links and subscriptions in, resolved values and diagnostics out.
//!
//! [`parse`] reads a config text into a [`Config`]: plain values with every default applied and every
//! reference checked. Nothing here opens, starts or asks anything.
//!
//! How a text becomes values: `json` takes comments away and reports syntax, `walk` is the cursor that knows
//! its path, `top` reads the sections, a file each, and `findings` gathers what is wrong. What V2Ray has and
//! this version does not is an error wherever leaving it out would give the user something else, and a
//! warning elsewhere.

mod diagnostic;
mod dns;
mod findings;
mod inbound;
mod json;
mod model;
mod nearest;
mod outbound;
mod policy;
mod routing;
mod share;
mod shown;
mod socks;
mod stream;
mod top;
mod transport;
mod tun;
mod vmess;
mod walk;

pub use diagnostic::{Diagnostic, Severity, first_error};
pub use model::*;
pub use share::{
    ShareError, SubscribedServer, Subscription, parse_share_link, parse_subscription, to_share_link,
};
pub use transport::*;

use crate::error::{Error, ErrorKind};
use findings::Findings;
use walk::Node;

/// What came of reading a config.
#[derive(Debug, Clone, PartialEq)]
pub struct Parsed {
    /// The config; `None` if and only if there is an error among the findings.
    pub config: Option<Config>,
    /// What was found, in the order of the text's sections.
    pub diagnostics: Vec<Diagnostic>,
}

impl Parsed {
    /// The config.
    ///
    /// # Errors
    /// The first finding that is an error.
    pub fn into_result(self) -> Result<Config, Error> {
        self.config.ok_or_else(|| {
            first_error(&self.diagnostics)
                .unwrap_or_else(|| Error::new(ErrorKind::Internal, "a config was refused without a finding"))
        })
    }
}

/// Reads a config: V2Ray's JSON (version 4) with comments, and our own keys.
pub fn parse(json: &str) -> Parsed {
    let findings = Findings::default();
    let value = json::read(json, &findings);
    let config = value.and_then(|value| top::read(&Node::root(&value, &findings)));
    let config = config.filter(|_| findings.errors() == 0);
    Parsed { config, diagnostics: findings.into_vec() }
}

/// Checks a config and lists what was found. It can be started if none of it is an error.
pub fn validate_config(json: &str) -> Vec<Diagnostic> {
    parse(json).diagnostics
}

/// Writes a config with two blanks of indentation: comments are gone, the keys' order is kept. Only the
/// syntax is checked.
///
/// # Errors
/// `ConfigInvalid` with line and column if the text is no JSON.
pub fn format_config(json: &str) -> Result<String, Error> {
    let findings = Findings::default();
    match json::read(json, &findings) {
        Some(value) => Ok(format!("{value:#}\n")),
        None => Err(first_error(&findings.into_vec())
            .unwrap_or_else(|| Error::new(ErrorKind::Internal, "a text was refused without a finding"))),
    }
}
