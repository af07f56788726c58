//! The settings of a SOCKS inbound.

use super::inbound::{Around, listen_ip, read_ip};
use super::model::{InboundProtocol, Socks};
use super::walk::{Node, Object, given};
use std::net::SocketAddr;

const KEYS: &[&str] = &["auth", "accounts", "udp", "ip", "timeout", "userLevel"];

/// Longest user name and password in bytes: RFC 1929 has one byte for the length.
const LONGEST: usize = 255;

/// Reads a `socks` inbound.
pub(super) fn read(inbound: &Object<'_>, around: &Around) -> Option<InboundProtocol> {
    let (listen, port) = (listen_ip(inbound), around.port());
    if port.is_none() && inbound.get("port").is_none() {
        inbound.missing("port", "a number, 1 to 65535");
    }
    if let (Some(0), Some(node)) = (port, inbound.get("port")) {
        node.warning("the system picks a free port", |finding| finding.hint("write a number above 0"));
    }
    let settings = inbound.section("settings", KEYS)?;
    let udp = settings.flag("udp", false);
    let level = settings.level("userLevel");
    let ip = settings.get("ip").filter(|node| !node.is_empty());
    let ip = ip.map(|node| read_ip(&node, "the address announced for UDP"));
    if let Some(node) = settings.get("timeout")
        && node.number_u32().is_some_and(|seconds| seconds > 0)
    {
        node.no_effect("`policy` sets the timeouts");
    }
    let accounts = accounts(&settings)?;
    let ip = given(ip)?;
    let listen = SocketAddr::new(listen?, port?);
    if !listen.ip().is_loopback() && accounts.is_empty() {
        let text =
            format!("this proxy listens on {} without a password: who reaches it may use it", listen.ip());
        let finding = super::Diagnostic::warning(inbound.path_of("listen"), text);
        inbound.report(finding.hint("set `listen` to 127.0.0.1, or `auth` to `password` with `accounts`"));
    }
    Some(InboundProtocol::Socks(Socks { listen, accounts, udp, ip, level }))
}

/// The accounts that count: none unless `auth` is `password`. `None` after an error.
fn accounts(settings: &Object<'_>) -> Option<Vec<(String, String)>> {
    let auth = settings.get("auth");
    let asked = match &auth {
        Some(node) => {
            node.choice("kind of authentication", &[("noauth", false), ("password", true), ("", false)])?
        }
        None => false,
    };
    let list = settings.secret("accounts");
    let mut accounts: Vec<(String, String)> = Vec::new();
    let mut whole = true;
    for entry in list.as_ref().map_or_else(|| Some(Vec::new()), Node::entries)? {
        let Some((user, pass)) = account(&entry) else {
            whole = false;
            continue;
        };
        if let Some(known) = accounts.iter_mut().find(|(known, _)| *known == user) {
            entry.warning("this user is given more than once; the last password counts", |finding| finding);
            known.1 = pass;
        } else {
            accounts.push((user, pass));
        }
    }
    if !whole {
        return None;
    }
    match (asked, accounts.is_empty()) {
        (true, true) => {
            settings
                .missing("accounts", "a list of { \"user\": ..., \"pass\": ... } with at least one entry");
            None
        }
        (true, false) => Some(accounts),
        (false, false) => {
            if let Some(node) = list {
                node.warning("no password is asked: `auth` is not `password`", |finding| {
                    finding.hint("set `auth` to `password`, or remove the accounts")
                });
            }
            Some(Vec::new())
        }
        (false, true) => Some(Vec::new()),
    }
}

/// Reads a user name and a password.
fn account(entry: &Node<'_>) -> Option<(String, String)> {
    let object = entry.object(&["user", "pass"])?;
    let read = |key| {
        let node = object.secret(key);
        if node.is_none() {
            object.missing(key, "a text of 1 to 255 bytes");
        }
        let node = node?;
        let text = node.text()?;
        if text.is_empty() || text.len() > LONGEST {
            node.error(format!("`{key}` cannot be sent in SOCKS"), |finding| {
                finding.allowed("1 to 255 bytes")
            });
            return None;
        }
        Some(text.to_owned())
    };
    let (user, pass) = (read("user"), read("pass"));
    Some((user?, pass?))
}
