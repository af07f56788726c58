//! The settings of a VMess outbound: servers, users, securities.

use super::{USER_KEYS, alter_id, experiments, id, packet_encoding};
use crate::addr::{Host, Target};
use crate::config::model::{OutboundProtocol, PacketEncoding, Vmess, VmessServer, VmessUser};
use crate::config::outbound::Around;
use crate::config::walk::{Node, Object, given};
use crate::vmess::Security;

/// The securities by their names in V2Ray, which reads any other text as `auto` without a word.
const SECURITIES: &[(&str, Security)] = &[
    ("auto", Security::Auto),
    ("aes-128-gcm", Security::Aes128Gcm),
    ("chacha20-poly1305", Security::Chacha20Poly1305),
    ("none", Security::None),
    ("zero", Security::Zero),
];

/// Reads a `vmess` outbound.
pub(in crate::config) fn read(outbound: &Object<'_>, around: &Around) -> Option<OutboundProtocol> {
    let settings = outbound.section("settings", &["vnext", "packetEncoding"])?;
    let encoding = settings.get("packetEncoding").map(|node| packet_encoding(&node));
    let vnext = settings
        .required("vnext", "a list of servers: [{ \"address\": ..., \"port\": ..., \"users\": [...] }]")?;
    let entries = vnext.entries()?;
    if entries.is_empty() {
        vnext.error("there is no server", |finding| finding.allowed("at least one entry"));
        return None;
    }
    let servers: Vec<_> = entries.iter().map(|entry| server(entry, around)).collect();
    let servers: Option<Vec<_>> = servers.into_iter().collect();
    let packet_encoding = given(encoding)?.or(around.packet_encoding).unwrap_or(PacketEncoding::None);
    Some(OutboundProtocol::Vmess(Vmess { servers: servers?, packet_encoding }))
}

/// Reads a server. `None` after an error.
fn server(node: &Node<'_>, around: &Around) -> Option<VmessServer> {
    let object = node.object(&["address", "port", "users"])?;
    let host = object.required("address", "an IP address or a domain name").and_then(|node| host(&node));
    let port = object.required("port", "a whole number, 1 to 65535").and_then(|node| node.number_u16(1));
    let users = users(&object, around);
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
fn users(server: &Object<'_>, around: &Around) -> Option<Vec<VmessUser>> {
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
    let users: Vec<_> = entries.iter().map(|entry| user(entry, around)).collect();
    users.into_iter().collect()
}

/// Reads a user. `None` after an error.
fn user(node: &Node<'_>, around: &Around) -> Option<VmessUser> {
    let object = node.object(USER_KEYS)?;
    let id = id(&object, "V2Ray servers");
    let alter_id = alter_id(&object);
    if let (Some(1..), Some(node), false) = (alter_id, object.get("alterId"), around.tls) {
        let text = "the legacy header (alterId above 0) can be probed, and there is no TLS to hide it";
        node.warning(text, |finding| {
            finding.hint("set alterId to 0 here and on the server, unless the server knows no AEAD header")
        });
    }
    let security = object.get("security").map_or(Some(Security::Auto), |node| security(&node, around));
    let (authenticated_length, no_termination_signal) = experiments(&object);
    if let (true, Some(security), Some(node)) = (authenticated_length, security, object.get("experiments"))
        && matches!(security, Security::None | Security::Zero | Security::Aes128Cfb)
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
        no_termination_signal,
    })
}

/// Reads a security.
fn security(node: &Node<'_>, around: &Around) -> Option<Security> {
    let text = node.text()?.trim();
    if text.is_empty() {
        return Some(Security::Auto);
    }
    if text.eq_ignore_ascii_case(Security::Aes128Cfb.name()) {
        return cfb(node, around);
    }
    let security = node.choice("security", SECURITIES)?;
    if matches!(security, Security::None | Security::Zero) && !around.tls {
        node.warning("the payload travels unprotected: there is no TLS below it either", |finding| {
            finding.hint("use `auto`; newer servers refuse or replace this security")
        });
    }
    Some(security)
}

/// Allows aes-128-cfb if the config says so where it must be meant.
fn cfb(node: &Node<'_>, around: &Around) -> Option<Security> {
    const HINT: &str = "use `auto`: every server that knows aes-128-cfb knows aes-128-gcm";
    if !around.allow_cfb {
        let text = "the security `aes-128-cfb` can be tampered with and is off";
        node.error(text, |finding| finding.allowed("it, if `vmesskit.allowCfb` is true").hint(HINT));
        return None;
    }
    let text = match around.tls {
        true => "the security `aes-128-cfb` can be tampered with: TLS alone protects the payload",
        false => "the security `aes-128-cfb` can be tampered with, and there is no TLS below it",
    };
    node.warning(text, |finding| finding.hint(HINT));
    Some(Security::Aes128Cfb)
}
