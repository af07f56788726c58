//! VMess: the settings of both ends, and what their users have in common.
//!
//! * `outbound` reads servers and who we are to them, `mux` how flows share connections to them;
//! * `inbound` reads our own users, and `allocate` the ports that are taken from a range at random.

mod allocate;
mod inbound;
mod mux;
mod outbound;

pub(super) use allocate::read as read_allocate;
pub(super) use inbound::{check_legacy, read as read_inbound};
pub(super) use mux::read as read_mux;
pub(super) use outbound::read as read_outbound;

use super::walk::{Node, Object};
use crate::vmess::Id;
use crate::vmess::id::IdForm;

/// Names of the experiments that a user may join, with `|` between.
const AUTHENTICATED_LENGTH: &str = "AuthenticatedLength";
const NO_TERMINATION_SIGNAL: &str = "NoTerminationSignal";

/// Reads an id; one that is no UUID is mapped to one, as Xray and sing-box do. `peers` are those that refuse it.
fn id(object: &Object<'_>, peers: &str) -> Option<Id> {
    const ALLOWED: &str = "a UUID, or another text of 1 to 30 bytes";
    let Some(node) = object.secret("id") else {
        object.missing("id", ALLOWED);
        return None;
    };
    match Id::parse(node.text()?.trim()) {
        Some((id, IdForm::Uuid)) => Some(id),
        Some((id, IdForm::Mapped)) => {
            let text = format!("this is no UUID; it is mapped to one (UUIDv5), which {peers} refuse");
            node.warning(text, |finding| {
                finding.hint("Xray and sing-box map it alike; for V2Ray write a UUID")
            });
            Some(id)
        }
        None => {
            node.error("this is no id", |finding| finding.allowed(ALLOWED));
            None
        }
    }
}

/// Reads `alterId`; absent means 0. `None` after an error.
fn alter_id(object: &Object<'_>) -> Option<u16> {
    object.get("alterId").map_or(Some(0), |node| node.number_u16(0))
}

/// What `experiments` says: whether it names the authenticated length, and whether the missing termination signal.
/// V2Ray looks for the names as parts of the text.
fn experiments(object: &Object<'_>) -> (bool, bool) {
    let Some(node) = object.get("experiments") else { return (false, false) };
    let text = node.text().unwrap_or_default();
    let known = |name: &&str| name.contains(AUTHENTICATED_LENGTH) || name.contains(NO_TERMINATION_SIGNAL);
    if text.split('|').map(str::trim).any(|name| !name.is_empty() && !known(&name)) {
        let allowed = format!("{AUTHENTICATED_LENGTH}, {NO_TERMINATION_SIGNAL}, with | between");
        node.warning("an unknown experiment, ignored", |finding| finding.allowed(allowed));
    }
    (text.contains(AUTHENTICATED_LENGTH), text.contains(NO_TERMINATION_SIGNAL))
}

/// The members of a user that both ends have, in the order of their documentation.
const USER_KEYS: &[&str] = &["id", "alterId", "security", "level", "email", "experiments"];

/// Reads how UDP is carried.
fn packet_encoding(node: &Node<'_>) -> Option<super::model::PacketEncoding> {
    use super::model::PacketEncoding::{None, PacketAddr, Xudp};
    let table =
        [("none", None), ("packet", PacketAddr), ("packetaddr", PacketAddr), ("xudp", Xudp), ("", None)];
    node.choice("encoding of packets", &table)
}
