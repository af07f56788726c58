//! Subscriptions: what a provider hands out under an address, as a list of servers.
//!
//! Providers write a link a line, mostly as base64 of the whole, or JSON: a list of links, of v2rayN's objects, of V2Ray's
//! configs or outbounds, or sing-box's config. All of that is read; what cannot be is a finding, and no reason to give the
//! rest up.

use super::super::diagnostic::Diagnostic;
use super::super::findings::Findings;
use super::super::{json, parse};
use super::{ShareError, framed, outbound, read, singbox, v2rayn};
use crate::error::Error;
use serde_json::Value;
use std::fmt;

/// The longest body that is read, in bytes.
const LONGEST: usize = 4 << 20;
/// The most servers that are taken from one body.
const MOST: usize = 5000;
/// The longest name, in characters.
const LONGEST_NAME: usize = 200;

/// What a subscription holds. Its `Debug` does not show the configs, which hold ids.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Subscription {
    /// The servers, in their order. Each config is one that [`validate_config`](crate::validate_config) finds no error in.
    pub servers: Vec<SubscribedServer>,
    /// What could not be read. The path is `line 3`, or a JSON path in the body, perhaps with one inside of the server's
    /// config behind it.
    pub diagnostics: Vec<Diagnostic>,
}

/// One server of a subscription.
#[derive(Clone, PartialEq, Eq, Default)]
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
/// v2rayN's objects, of V2Ray's configs or VMess outbounds, one such config, or sing-box's config.
///
/// Each server becomes a config as [`parse_share_link`](super::parse_share_link) makes it; a whole V2Ray config that this
/// version can use stays as it is, of any other one the first VMess outbound is taken. At most 5000 servers of at most
/// 4 MiB are read.
///
/// # Errors
/// `ConfigInvalid` if the body is none of that: empty, too long, a web page, another client's format.
pub fn parse_subscription(body: &[u8]) -> Result<Subscription, Error> {
    if body.len() > LONGEST {
        return Err(ShareError::TooLong(LONGEST).into());
    }
    let text = String::from_utf8_lossy(body);
    let text = bare(&text);
    let mut reader = Reader::default();
    if is_list(text) {
        reader.read_any(text)?;
    } else {
        let decoded = v2rayn::decode(text).and_then(|bytes| String::from_utf8(bytes).ok());
        let decoded = decoded.as_deref().map(bare).filter(|text| is_list(text));
        reader.read_any(decoded.ok_or_else(|| no_subscription(text))?)?;
    }
    Ok(Subscription { servers: reader.servers, diagnostics: reader.findings.into_vec() })
}

/// Whether a text is links or JSON, and not base64 of them.
fn is_list(text: &str) -> bool {
    text.starts_with(['[', '{']) || text.lines().any(|line| scheme(line.trim()).is_some())
}

fn bare(text: &str) -> &str {
    text.trim_start_matches('\u{feff}').trim()
}

/// Says what a body is that is no subscription.
fn no_subscription(text: &str) -> ShareError {
    let starts = |with: &str| text.lines().any(|line| line.trim_end().starts_with(with));
    match text {
        "" => ShareError::Empty,
        _ if text.starts_with('<') => ShareError::ForeignForm("a web page"),
        _ if starts("proxies:") || starts("proxy-groups:") => ShareError::ForeignForm("Clash (YAML)"),
        _ if starts("[Proxy]") => ShareError::ForeignForm("Surge"),
        _ => ShareError::NoSubscription,
    }
}

/// The scheme of a link, if a line is one.
fn scheme(line: &str) -> Option<&str> {
    let (scheme, _) = line.split_once("://")?;
    let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.');
    (!scheme.is_empty() && scheme.len() <= 20 && scheme.bytes().all(legal)).then_some(scheme)
}

/// What has been read so far.
#[derive(Default)]
struct Reader {
    servers: Vec<SubscribedServer>,
    findings: Findings,
    full: bool,
}

impl Reader {
    /// Reads links or JSON.
    fn read_any(&mut self, text: &str) -> Result<(), ShareError> {
        if !text.starts_with(['[', '{']) {
            self.read_lines(text);
            return Ok(());
        }
        // A text that is no JSON is a finding with its place.
        match json::read(text, &self.findings) {
            Some(Value::Array(entries)) => {
                for (index, entry) in entries.into_iter().enumerate() {
                    self.read_entry(&format!("[{index}]"), entry);
                }
            }
            Some(value) if value["servers"].is_array() && value["outbounds"].is_null() => {
                return Err(ShareError::ForeignForm("SIP008, which lists Shadowsocks servers"));
            }
            Some(value) => self.read_entry("", value),
            None => {}
        }
        Ok(())
    }

    fn read_lines(&mut self, text: &str) {
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            let is_comment = line.starts_with(['#', ';']) || line.starts_with("//");
            if line.is_empty() || is_comment || is_remark(line) {
                continue;
            }
            self.read_link(&format!("line {}", index + 1), line);
        }
    }

    fn read_link(&mut self, path: &str, line: &str) {
        match (read(line), scheme(line)) {
            (Ok(link), _) => self.add(path, &link.remark, &link.address, framed(outbound::from_link(&link))),
            (Err(ShareError::NotVmess), Some(scheme)) => {
                let text = format!(
                    "a link of another protocol ({}), which is left out",
                    scheme.to_ascii_lowercase()
                );
                self.findings.push(Diagnostic::warning(path, text));
            }
            (Err(error), _) => self.refuse(path, &error),
        }
    }

    /// Reads one entry of a JSON list, or all of a body that is no list.
    fn read_entry(&mut self, path: &str, mut entry: Value) {
        match &entry {
            Value::String(link) => return self.read_link(path, link.trim()),
            _ if !entry.is_object() => return self.refuse(path, &ShareError::NotVmess),
            _ => {}
        }
        let name = ["remarks", "ps", "name", "remark"].iter().find_map(|key| entry[*key].as_str());
        let name = name.unwrap_or_default().to_owned();
        if entry["outbounds"].is_array() || entry["outbound"].is_object() {
            if singbox::is_config(&entry) {
                let outbounds = entry["outbounds"].as_array().into_iter().flatten().enumerate();
                for (index, outbound) in outbounds.filter(|(_, outbound)| singbox::is_outbound(outbound)) {
                    self.read_singbox(&join(path, &format!("outbounds[{index}]")), outbound);
                }
                return;
            }
            if let Some(members) = entry.as_object_mut() {
                // What clients add; in a config it would be an unknown key.
                members.shift_remove("remarks");
            }
            return self.read_config(path, &name, &entry);
        }
        if entry["protocol"].as_str().is_some_and(|protocol| protocol.eq_ignore_ascii_case("vmess")) {
            let name = if name.is_empty() { tag(&entry) } else { &name };
            return self.add(path, name, address(&entry), framed(entry.clone()));
        }
        if singbox::is_outbound(&entry) {
            return self.read_singbox(path, &entry);
        }
        match entry.as_object().map(v2rayn::read_object) {
            Some(Ok(link)) => self.add(path, &link.remark, &link.address, framed(outbound::from_link(&link))),
            Some(Err(error)) => self.refuse(path, &error),
            None => {}
        }
    }

    /// Takes a V2Ray config: whole if it can be used, else its first VMess outbound.
    fn read_config(&mut self, path: &str, name: &str, config: &Value) {
        let first = outbound::find(config).map(|(_, outbound)| outbound);
        let Some(first) = first else {
            let finding =
                Diagnostic::warning(join(path, "outbounds"), "there is no vmess outbound, so it is left out");
            return self.findings.push(finding);
        };
        let name = if name.is_empty() { tag(first) } else { name };
        let whole = format!("{config:#}\n");
        let errors = errors(&whole);
        let Some(error) = errors.into_iter().next() else {
            return self.push(path, name, address(first), whole);
        };
        let text = "the config cannot be used as it is: its first vmess outbound is, in a config of our own";
        let finding = Diagnostic::warning(join(path, &error.path), text);
        self.findings.push(finding.found(error.text));
        self.add(path, name, address(first), framed(first.clone()));
    }

    fn read_singbox(&mut self, path: &str, outbound: &Value) {
        match singbox::read(outbound) {
            Ok(link) => self.add(path, &link.remark, &link.address, framed(outbound::from_link(&link))),
            Err(error) => self.refuse(path, &error),
        }
    }

    /// Takes a server whose config has no error.
    fn add(&mut self, path: &str, name: &str, address: &str, config: String) {
        let errors = errors(&config);
        if errors.is_empty() {
            return self.push(path, name, address, config);
        }
        for error in errors {
            let path = join(path, &error.path);
            self.findings.push(Diagnostic { path, ..error });
        }
    }

    fn push(&mut self, path: &str, name: &str, address: &str, config: String) {
        if self.servers.len() >= MOST {
            if !std::mem::replace(&mut self.full, true) {
                let text = format!("there are more than {MOST} servers; those from here on are left out");
                self.findings.push(Diagnostic::warning(path, text));
            }
            return;
        }
        let name = if name.trim().is_empty() { address } else { name.trim() };
        self.servers.push(SubscribedServer { name: name.chars().take(LONGEST_NAME).collect(), config });
    }

    fn refuse(&self, path: &str, error: &ShareError) {
        let allowed = if let ShareError::Invalid { allowed, .. } = error { *allowed } else { "" };
        self.findings.push(Diagnostic::error(path, error.to_string()).allowed(allowed));
    }
}

/// The errors of a config.
fn errors(config: &str) -> Vec<Diagnostic> {
    let errors = |finding: &Diagnostic| finding.severity == super::super::Severity::Error;
    parse(config).diagnostics.into_iter().filter(errors).collect()
}

/// A path inside of what stands at another one.
fn join(path: &str, inside: &str) -> String {
    match (path.is_empty(), path.starts_with("line")) {
        (true, _) => inside.to_owned(),
        (false, true) => format!("{path}: {inside}"),
        (false, false) => format!("{path}.{inside}"),
    }
}

/// Whether a line is one of those that tell of the subscription itself: `STATUS=...`, `REMARKS=...`.
fn is_remark(line: &str) -> bool {
    let key = line.split_once('=').map_or("", |(key, _)| key);
    !key.is_empty() && key.bytes().all(|b| b.is_ascii_uppercase() || b == b'_')
}

fn tag(outbound: &Value) -> &str {
    outbound["tag"].as_str().unwrap_or_default()
}

fn address(outbound: &Value) -> &str {
    outbound["settings"]["vnext"][0]["address"].as_str().unwrap_or_default()
}
