//! Share links: `vmess://...` to a config and back; and subscriptions, which are many of them.
//!
//! Two forms are read: v2rayN's base64 of a JSON object (`v2rayn`) and the URI form (`uri`). Both become a
//! `Link`, which `outbound` turns into a VMess outbound and back. Reading is lenient, since every writer of
//! links has habits of its own; what a link asks for and this version does not serve goes into the config all
//! the same, where [`validate_config`](super::validate_config) names it.

mod link;
mod outbound;
mod singbox;
mod stream;
mod subscription;
mod uri;
mod v2rayn;

use super::findings::Findings;
use super::{first_error, json};
use crate::addr::Host;
use crate::error::{Error, ErrorKind};
use crate::vmess::Id;
use serde_json::{Value, json};
pub use subscription::{SubscribedServer, Subscription, parse_subscription};

/// Longest link that is read, in bytes.
const LONGEST: usize = 256 * 1024;

const SCHEME: &str = "vmess://";

/// Why a link cannot be read or written. None of the texts holds a part of the link: links are secrets.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ShareError {
    /// The text is no `vmess://` link.
    #[error("this is no vmess:// link")]
    NotVmess,
    /// The text is longer than any link or subscription.
    #[error("this is longer than {0} bytes")]
    TooLong(usize),
    /// The subscription holds nothing.
    #[error("the subscription is empty")]
    Empty,
    /// The text is no subscription of a form that is known.
    #[error("this is neither a list of links, nor base64 of one, nor JSON")]
    NoSubscription,
    /// The text behind the scheme is of no form that is known.
    #[error("the text behind vmess:// is neither base64 of a JSON object nor id@host:port")]
    Malformed,
    /// The link has the form of another program.
    #[error("this has the form of {0}, which is not read")]
    ForeignForm(&'static str),
    /// A part that every link needs is missing.
    #[error("the link has no {0}")]
    Missing(&'static str),
    /// A part has a value that it cannot have.
    #[error("the link's {part} is not valid")]
    Invalid {
        /// Which part.
        part: &'static str,
        /// What is allowed there.
        allowed: &'static str,
    },
    /// The config holds no VMess outbound that a link could be made of.
    #[error("{text}")]
    NoOutbound {
        /// The JSON path of what is missing or wrong.
        path: String,
        /// What is missing or wrong.
        text: &'static str,
    },
}

impl From<ShareError> for Error {
    fn from(error: ShareError) -> Self {
        let hint = match &error {
            ShareError::NotVmess => "a link begins with vmess://",
            ShareError::TooLong(_) | ShareError::Malformed => "copy the whole link again",
            ShareError::Empty | ShareError::NoSubscription => "check the subscription's address",
            ShareError::ForeignForm(_) => "ask for v2rayN's form, or for URIs",
            ShareError::Missing(_) | ShareError::Invalid { .. } => "ask whoever made the link for a new one",
            ShareError::NoOutbound { .. } => "a link is made of the first vmess outbound",
        };
        let text = error.to_string();
        let made = Self::new(ErrorKind::ConfigInvalid, text).with_hint(hint);
        match error {
            ShareError::Invalid { allowed, .. } => made.with_reason(format!("allowed: {allowed}")),
            ShareError::NoOutbound { path, .. } => made.with_path(path),
            _ => made,
        }
    }
}

/// Makes a complete config of a link: a `tun` inbound, a SOCKS inbound on 127.0.0.1:1080, and the VMess
/// outbound.
///
/// The link's remark becomes the outbound's tag; without one the tag is `proxy`. A security that no client
/// knows is read as `auto`, as every reader of links does. The config may ask for more than this version
/// serves.
///
/// # Errors
/// `ConfigInvalid`, made from a [`ShareError`].
pub fn parse_share_link(uri: &str) -> Result<String, Error> {
    let link = read(uri)?;
    Ok(framed(outbound::from_link(&link)))
}

/// A complete config around an outbound.
fn framed(outbound: Value) -> String {
    let config = json!({
        "log": { "loglevel": "warning" },
        "inbounds": [
            { "tag": "tun", "protocol": "tun", "settings": {} },
            {
                "tag": "socks",
                "protocol": "socks",
                "listen": "127.0.0.1",
                "port": 1080,
                "settings": { "auth": "noauth", "udp": true }
            }
        ],
        "outbounds": [outbound]
    });
    format!("{config:#}\n")
}

/// Writes the first VMess outbound of a config as a link in v2rayN's form; of several servers and users the
/// first.
///
/// The outbound's tag becomes the remark. The config's syntax is checked and what the link needs, nothing
/// else.
///
/// # Errors
/// `ConfigInvalid`: the text is no JSON, or has no VMess outbound with a server and a user.
pub fn to_share_link(json: &str) -> Result<String, Error> {
    let findings = Findings::default();
    let Some(config) = json::read(json, &findings) else {
        return Err(first_error(&findings.into_vec())
            .unwrap_or_else(|| Error::new(ErrorKind::Internal, "a text was refused without a finding")));
    };
    let link = outbound::to_link(&config)?;
    Ok(v2rayn::write(&link))
}

/// Reads a link of either form.
fn read(uri: &str) -> Result<link::Link, ShareError> {
    let uri = uri.trim().trim_start_matches('\u{feff}');
    if uri.len() > LONGEST {
        return Err(ShareError::TooLong(LONGEST));
    }
    let body = match uri.get(..SCHEME.len()) {
        Some(scheme) if scheme.eq_ignore_ascii_case(SCHEME) => {
            uri.get(SCHEME.len()..).unwrap_or_default().trim()
        }
        _ => return Err(ShareError::NotVmess),
    };
    if body.is_empty() {
        return Err(ShareError::Malformed);
    }
    let before_fragment = body.split('#').next().unwrap_or_default();
    let is_uri = before_fragment.split('?').next().is_some_and(|authority| authority.contains('@'));
    check(if is_uri { uri::read(body)? } else { v2rayn::read(body)? })
}

/// Refuses a link whose id or server cannot be.
fn check(link: link::Link) -> Result<link::Link, ShareError> {
    if Id::parse(&link.id).is_none() {
        return Err(ShareError::Invalid { part: "id", allowed: "a UUID, or another text of 1 to 30 bytes" });
    }
    if Host::parse(&link.address).is_none() {
        let allowed = "an IP address, or a domain name in its ASCII form (xn--...)";
        return Err(ShareError::Invalid { part: "server", allowed });
    }
    Ok(link)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_never_quote_the_link() {
        let id = "b831381d-6324-4d53-ad4f-8cda48b30811";
        for link in [
            format!("vmess://{id}@host:0"),
            format!("vmess://{id}"),
            format!("vmess://{id}@"),
            format!("vless://{id}@host:1"),
        ] {
            let error = Error::from(read(&link).expect_err("broken"));
            assert_eq!(error.kind, ErrorKind::ConfigInvalid);
            assert!(!error.text.is_empty() && !error.hint.is_empty());
            assert!(!format!("{error} {error:?}").contains(id), "{error}");
        }
    }
}
