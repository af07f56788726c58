//! The settings of a VMess inbound: our users, and what is handed out to them.

use super::{USER_KEYS, alter_id, experiments, id, read_allocate};
use crate::config::diagnostic::Diagnostic;
use crate::config::inbound::{Around, listen_ip};
use crate::config::model::{DefaultUser, Inbound, InboundProtocol, Listen, VmessClient, VmessInbound};
use crate::config::transport::Transport;
use crate::config::walk::{Node, Object, given};
use crate::vmess::gate::{LEGACY_SECONDS, TooManyTags, check_legacy_tags};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

const KEYS: &[&str] = &["clients", "users", "default", "detour", "features", "disableInsecureEncryption"];

/// Reads a `vmess` inbound.
pub(in crate::config) fn read(inbound: &Object<'_>, around: &Around) -> Option<InboundProtocol> {
    let ip = listen_ip(inbound);
    let ports = around.ports;
    let unix = around.stream.as_ref().is_some_and(|stream| matches!(stream.transport, Transport::Unix(_)));
    let ports = if unix { Some((0, 0)) } else { ports };
    if ports.is_none() && inbound.get("port").is_none() {
        inbound.missing("port", "a number, 1 to 65535, or a range such as \"10000-10010\"");
    }
    if let (Some((0, last)), Some(node), false) = (ports, inbound.get("port"), unix) {
        if last > 0 {
            node.error("a range cannot begin at port 0", |finding| finding.allowed("ports from 1 to 65535"));
            return None;
        }
        node.warning("the system picks a free port", |finding| finding.hint("write a number above 0"));
    }
    let allocate = match inbound.get("allocate") {
        Some(node) if unix => {
            node.no_effect("a Unix domain socket has no ports");
            Some(None)
        }
        node => node.map_or(Some(None), |node| read_allocate(&node, ports)),
    };
    let settings = inbound.section("settings", KEYS)?;
    let clients = clients(&settings);
    let default = default_user(&settings);
    let detour = detour(&settings);
    let disable_insecure_encryption = settings.flag("disableInsecureEncryption", false);
    let clients = clients?;
    if around.stream.as_ref().is_some_and(|stream| stream.tls.is_none()) {
        warn_legacy(&settings, &clients, default);
    }
    Some(InboundProtocol::Vmess(VmessInbound {
        listen: Listen { ip: ip?, ports: ports? },
        clients,
        default: default?,
        detour: detour?,
        disable_insecure_encryption,
        allocate: allocate?,
        stream: around.stream.clone()?,
    }))
}

/// Reads the users: `clients`, or `users` as Xray calls them. `None` after an error.
fn clients(settings: &Object<'_>) -> Option<Vec<VmessClient>> {
    let (clients, users) = (settings.secret("clients"), settings.secret("users"));
    if let (Some(_), Some(node)) = (&clients, settings.get("users")) {
        node.no_effect("`clients` counts");
    }
    let Some(list) = clients.or(users) else { return Some(Vec::new()) };
    let entries = list.entries()?;
    let mut read = Vec::with_capacity(entries.len());
    let (mut emails, mut ids) = (HashMap::new(), HashSet::new());
    for (index, entry) in entries.iter().enumerate() {
        let Some((client, object)) = client(entry) else { continue };
        if !client.email.is_empty()
            && let Some(before) = emails.insert(client.email.to_lowercase(), index)
        {
            let finding = Diagnostic::error(object.path_of("email"), "another user has this e-mail");
            let hint = format!("it is that of the user with the index {before}; case does not matter");
            object.report(finding.hint(hint));
            continue;
        }
        if !ids.insert(client.id.clone()) {
            let text = "another user has this id: who sends it is taken for the first of them";
            object.report(Diagnostic::warning(object.path_of("id"), text));
        }
        read.push(client);
    }
    (read.len() == entries.len()).then_some(read)
}

/// Reads a user. `None` after an error.
fn client<'a>(node: &Node<'a>) -> Option<(VmessClient, Object<'a>)> {
    let errors = node.errors();
    let object = node.object(USER_KEYS)?;
    let id = id(&object, "V2Ray clients");
    let alter_id = alter_id(&object);
    if let Some(node) = object.get("security") {
        node.no_effect("the client chooses the security");
    }
    let (authenticated_length, no_termination_signal) = experiments(&object);
    if let Some(node) = object.get("experiments").filter(|_| authenticated_length) {
        node.no_effect("the client chooses whether lengths are authenticated");
    }
    let level = object.level("level");
    let email = object.text("email").to_owned();
    let client = VmessClient { id: id?, alter_id: alter_id?, level, email, no_termination_signal };
    (node.errors() == errors).then_some((client, object))
}

/// Reads `default`: what accounts are made with that a detour asks for. `None` after an error.
fn default_user(settings: &Object<'_>) -> Option<DefaultUser> {
    let object = settings.section("default", &["alterId", "level"])?;
    let alter_id = alter_id(&object);
    let level = object.get("level").map(|node| node.number(0, u8::MAX.into()));
    let level = given(level)?.unwrap_or(0);
    Some(DefaultUser { alter_id: alter_id?, level: u32::try_from(level).ok()? })
}

/// Reads `detour`, or `features.detour`, its oldest name: the tag of an inbound. `None` after an error.
fn detour(settings: &Object<'_>) -> Option<Option<Arc<str>>> {
    let features = settings.section("features", &["detour"])?;
    let old = features.get("detour");
    let node = match (settings.get("detour"), old) {
        (Some(node), old) => {
            if let Some(old) = old {
                old.no_effect("`detour` counts");
            }
            node
        }
        (None, Some(old)) => old,
        (None, None) => return Some(None),
    };
    let to = node.object(&["to"])?.required("to", "the tag of a vmess inbound")?;
    let tag = to.text()?.trim();
    Some((!tag.is_empty()).then(|| tag.into()))
}

/// Warns about legacy ids that no TLS hides: one finding for all of an inbound.
fn warn_legacy(settings: &Object<'_>, clients: &[VmessClient], default: Option<DefaultUser>) {
    const HINT: &str = "set alterId to 0 here and in the clients: the AEAD header cannot be probed so";
    let legacy = clients.iter().filter(|client| client.alter_id > 0).count();
    if legacy > 0 {
        let key = if settings.get("clients").is_some() { "clients" } else { "users" };
        let text = format!(
            "{legacy} of {} users have an alterId above 0: without TLS a stranger can find this server by its legacy header",
            clients.len()
        );
        settings.report(Diagnostic::warning(settings.path_of(key), text).hint(HINT));
    }
    if default.is_some_and(|default| default.alter_id > 0) {
        let text = "accounts made with an alterId above 0: without TLS a stranger can find this server by its legacy header";
        settings.report(Diagnostic::warning(settings.path_of("default"), text).hint(HINT));
    }
}

/// Checks that the tables for legacy requests stay within `limit` entries: one for each id and second of its window.
/// The inbounds come with the paths of their users.
pub(in crate::config) fn check_legacy<'i>(
    top: &Object<'_>,
    inbounds: impl Iterator<Item = (&'i Inbound, String)>,
    limit: usize,
) {
    let mut clients = Vec::new();
    for (inbound, path) in inbounds {
        let InboundProtocol::Vmess(vmess) = &inbound.protocol else { continue };
        clients.extend(vmess.clients.iter().filter(|client| client.alter_id > 0));
        let alter_ids = clients.iter().map(|client| client.alter_id);
        if let Err(TooManyTags { needed, limit }) = check_legacy_tags(alter_ids, limit) {
            let ids: u64 = clients.iter().map(|client| client.legacy_ids()).sum();
            let text = format!(
                "the users have {ids} legacy ids, which take {needed} entries ({LEGACY_SECONDS} seconds each), more than `legacyTagLimit`"
            );
            let finding = Diagnostic::error(path, text).found(needed.to_string());
            let hint = "lower the alterIds (0 takes no entry), or raise `vmesskit.legacyTagLimit`";
            top.report(finding.allowed(format!("{limit} entries")).hint(hint));
            return;
        }
    }
}
