//! The HTTP/1.1 upgrade that WebSocket and HTTPUpgrade begin with, at both ends: one head each way.

mod client;
mod server;

pub(super) use client::{ANSWER, Upgrade, UpgradeError, request_head};
pub(super) use server::{Refusal, give_up, is_path, read_request, refuse};

use super::http1::Fields;

/// Whether the fields of a head ask for, or grant, an upgrade to WebSocket.
fn is_upgrade(fields: &Fields) -> bool {
    fields.lists("Connection", "upgrade") && fields.lists("Upgrade", "websocket")
}
