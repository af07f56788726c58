//! A VMess server of ours and clients of ours before it, in one process.

use super::socks_client::{free_port, start};
use vmesskit::Tunnel;

/// The user that the tests' clients are.
pub(crate) const ID: &str = "b831381d-6324-4d53-ad4f-8cda48b30811";

/// A server with one user, and freedom behind it. `policy` is the config's, `settings` what goes behind the clients.
#[allow(dead_code, reason = "each test file uses a part of the helpers")]
pub(crate) fn server(port: u16, settings: &str, policy: &str) -> Tunnel {
    start(&format!(
        r#"{{
          "inbounds": [{{"protocol": "vmess", "tag": "door", "listen": "127.0.0.1", "port": {port},
            "settings": {{"clients": [{{"id": "{ID}", "email": "me@example.com"}}]{settings}}}}}],
          "outbounds": [{{"protocol": "freedom"}}],
          "policy": {policy}
        }}"#
    ))
}

/// A SOCKS inbound, with UDP, before a VMess outbound to `server`; returns its port.
#[allow(dead_code, reason = "each test file uses a part of the helpers")]
pub(crate) fn client(server: u16, security: &str, top: &str) -> (Tunnel, u16) {
    let port = free_port();
    let tunnel = start(&format!(
        r#"{{
          "inbounds": [{{"protocol": "socks", "listen": "127.0.0.1", "port": {port}, "settings": {{"udp": true}}}}],
          "outbounds": [{{"protocol": "vmess", "settings": {{"vnext": [{{"address": "127.0.0.1", "port": {server},
            "users": [{{"id": "{ID}", "security": "{security}"}}]}}]}}}}]{top}
        }}"#
    ));
    (tunnel, port)
}
