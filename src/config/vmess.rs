//! The settings of a VMess outbound: servers, users, securities.

use super::model::{OutboundProtocol, PacketEncoding, Vmess, VmessServer, VmessUser};
use super::stream::Carrier;
use super::walk::{Node, Object};
use crate::addr::{Host, Target};
use crate::vmess::id::IdForm;
use crate::vmess::{Id, Security};

/// The securities by their names in V2Ray, which reads any other text as `auto` without a word.
const SECURITIES: &[(&str, Security)] = &[
    ("auto", Security::Auto),
    ("aes-128-gcm", Security::Aes128Gcm),
    ("chacha20-poly1305", Security::Chacha20Poly1305),
    ("none", Security::None),
    ("zero", Security::Zero),
];

/// Names of the experiments that a user may join, with `|` between.
const AUTHENTICATED_LENGTH: &str = "AuthenticatedLength";
const NO_TERMINATION_SIGNAL: &str = "NoTerminationSignal";

/// Reads a `vmess` outbound.
pub(super) fn read(outbound: &Object<'_>, carrier: Carrier) -> Option<OutboundProtocol> {
    let settings = outbound.section("settings", &["vnext"])?;
    let vnext = settings
        .required("vnext", "a list of servers: [{ \"address\": ..., \"port\": ..., \"users\": [...] }]")?;
    let entries = vnext.entries()?;
    if entries.is_empty() {
        vnext.error("there is no server", |finding| finding.allowed("at least one entry"));
        return None;
    }
    let servers: Vec<_> = entries.iter().map(|entry| server(entry, carrier)).collect();
    let servers: Option<Vec<_>> = servers.into_iter().collect();
    Some(OutboundProtocol::Vmess(Vmess { servers: servers?, packet_encoding: PacketEncoding::None }))
}

/// Reads a server. `None` after an error.
fn server(node: &Node<'_>, carrier: Carrier) -> Option<VmessServer> {
    let object = node.object(&["address", "port", "users"])?;
    let host = object.required("address", "an IP address or a domain name").and_then(|node| host(&node));
    let port = object.required("port", "a whole number, 1 to 65535").and_then(|node| node.number_u16(1));
    let users = users(&object, carrier);
    Some(VmessServer { target: Target::new(host?, port?), users: users? })
}

/// Reads a server's address; V2Ray too bears blanks around it.
fn host(node: &Node<'_>) -> Option<Host> {
    let text = node.text()?.trim();
    let host = Host::parse(text);
    if host.is_none() {
        let hint = match text {
            _ if text.contains("://") => "write the host alone, without a scheme",
            _ if text.contains('/') => "write the host alone, without a path",
            _ if text.contains(':') => "write the port under `port`",
            _ if !text.is_ascii() => "write the name in its ASCII form (xn--...)",
            _ => "",
        };
        node.error("not a host", |finding| finding.allowed("an IP address or a domain name").hint(hint));
    }
    host
}

/// Reads a server's users, at least one. `None` after an error.
fn users(server: &Object<'_>, carrier: Carrier) -> Option<Vec<VmessUser>> {
    let list = server.secret("users");
    let Some(list) = list else {
        server.missing("users", "a list with at least one user: { \"id\": ... }");
        return None;
    };
    let entries = list.entries()?;
    if entries.is_empty() {
        list.error("there is no user", |finding| finding.allowed("at least one entry"));
        return None;
    }
    let users: Vec<_> = entries.iter().map(|entry| user(entry, carrier)).collect();
    users.into_iter().collect()
}

/// Reads a user. `None` after an error.
fn user(node: &Node<'_>, carrier: Carrier) -> Option<VmessUser> {
    let object = node.object(&["id", "alterId", "security", "level", "email", "experiments"])?;
    let id = id(&object);
    let alter_id = object.get("alterId").map_or(Some(0), |node| {
        let alter_id = node.number_u16(0)?;
        if alter_id > 0 {
            node.unsupported(
                "the legacy header (alterId above 0)",
                "set alterId to 0 here and on the server",
            );
            return None;
        }
        Some(alter_id)
    });
    let security = object.get("security").map_or(Some(Security::Auto), |node| security(&node, carrier));
    let experiments = object.text("experiments");
    if let Some(node) = object.get("experiments") {
        let known = |name: &&str| name.contains(AUTHENTICATED_LENGTH) || name.contains(NO_TERMINATION_SIGNAL);
        if experiments.split('|').map(str::trim).any(|name| !name.is_empty() && !known(&name)) {
            let allowed = format!("{AUTHENTICATED_LENGTH}, {NO_TERMINATION_SIGNAL}, with | between");
            node.warning("an unknown experiment, ignored", |finding| finding.allowed(allowed));
        }
    }
    let authenticated_length = experiments.contains(AUTHENTICATED_LENGTH);
    if let (true, Some(security), Some(node)) = (authenticated_length, security, object.get("experiments"))
        && matches!(security, Security::None | Security::Zero)
    {
        node.no_effect("the length is authenticated together with a sealed body, and `security` seals none");
    }
    Some(VmessUser {
        id: id?,
        alter_id: alter_id?,
        security: security?,
        level: object.level("level"),
        email: object.text("email").to_owned(),
        authenticated_length,
        no_termination_signal: experiments.contains(NO_TERMINATION_SIGNAL),
    })
}

/// Reads an id; one that is no UUID is mapped to one, as Xray and sing-box do.
fn id(object: &Object<'_>) -> Option<Id> {
    const ALLOWED: &str = "a UUID, or another text of 1 to 30 bytes";
    let Some(node) = object.secret("id") else {
        object.missing("id", ALLOWED);
        return None;
    };
    match Id::parse(node.text()?.trim()) {
        Some((id, IdForm::Uuid)) => Some(id),
        Some((id, IdForm::Mapped)) => {
            node.warning(
                "this is no UUID; it is mapped to one (UUIDv5), which V2Ray servers refuse",
                |finding| finding.hint("Xray and sing-box map it alike; for V2Ray write a UUID"),
            );
            Some(id)
        }
        None => {
            node.error("this is no id", |finding| finding.allowed(ALLOWED));
            None
        }
    }
}

/// Reads a security.
fn security(node: &Node<'_>, carrier: Carrier) -> Option<Security> {
    let text = node.text()?.trim();
    if text.is_empty() {
        return Some(Security::Auto);
    }
    if text.eq_ignore_ascii_case("aes-128-cfb") {
        let hint = "use `auto`: every server that knows aes-128-cfb knows aes-128-gcm";
        node.unsupported("the security `aes-128-cfb`, which can be tampered with,", hint);
        return None;
    }
    let security = node.choice("security", SECURITIES)?;
    if matches!(security, Security::None | Security::Zero) && !carrier.tls {
        node.warning("the payload travels unprotected: there is no TLS below it either", |finding| {
            finding.hint("use `auto`; newer servers refuse or replace this security")
        });
    }
    Some(security)
}
