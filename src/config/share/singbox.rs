//! VMess outbounds as sing-box writes them.

use super::ShareError;
use super::link::{Link, Network, Tls, packet_encoding, security};
use serde_json::Value;

/// Whether this is a sing-box config: its outbounds have a `type`.
pub(super) fn is_config(config: &Value) -> bool {
    config["outbounds"].as_array().is_some_and(|all| all.iter().any(|one| one["type"].is_string()))
}

/// Whether this is one of its VMess outbounds.
pub(super) fn is_outbound(outbound: &Value) -> bool {
    outbound["type"].as_str() == Some("vmess")
}

/// Reads an outbound.
///
/// # Errors
/// What is missing or cannot be.
pub(super) fn read(outbound: &Value) -> Result<Link, ShareError> {
    const PORT: ShareError = ShareError::Invalid { part: "server_port", allowed: "1 to 65535" };
    let (address, id) = (text(&outbound["server"]), text(&outbound["uuid"]));
    if address.is_empty() {
        return Err(ShareError::Missing("server"));
    }
    if id.is_empty() {
        return Err(ShareError::Missing("uuid"));
    }
    let number = |value: &Value| value.as_u64().and_then(|number| u16::try_from(number).ok());
    let port = number(&outbound["server_port"]).filter(|port| *port > 0).ok_or(PORT)?;
    let alter_id = &outbound["alter_id"];
    let alter_id = if alter_id.is_null() { Some(0) } else { number(alter_id) };
    let alter_id = alter_id.ok_or(ShareError::Invalid { part: "alter_id", allowed: "0 to 65535" })?;
    let (transport_security, tls) = tls(&outbound["tls"]);
    super::check(Link {
        remark: text(&outbound["tag"]),
        address,
        port,
        id,
        alter_id,
        security: security(&text(&outbound["security"])),
        packet_encoding: packet_encoding(&text(&outbound["packet_encoding"])),
        network: network(&outbound["transport"], transport_security == "tls"),
        transport_security: transport_security.to_owned(),
        tls,
    })
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().trim().to_owned()
}

/// A text, or the texts of a list.
fn texts(value: &Value) -> Vec<String> {
    match value {
        Value::String(_) => Vec::from([text(value)]),
        _ => value.as_array().into_iter().flatten().map(text).collect(),
    }
}

fn network(transport: &Value, tls: bool) -> Network {
    let path = text(&transport["path"]);
    // `headers` has texts or lists of them.
    let host =
        ["Host", "host"].iter().find_map(|name| texts(&transport["headers"][*name]).into_iter().next());
    let host = host.unwrap_or_default();
    match text(&transport["type"]).as_str() {
        "" => Network::Tcp { http: None },
        "ws" => {
            let size = transport["max_early_data"].as_u64().and_then(|size| u32::try_from(size).ok());
            let header = text(&transport["early_data_header_name"]);
            Network::Ws { host, path, early_data: size.filter(|size| *size > 0).map(|size| (size, header)) }
        }
        // Its `http` is HTTP/2 with TLS, and HTTP/1.1 without.
        "http" if tls => Network::Http { hosts: texts(&transport["host"]), path },
        "http" => Network::Tcp { http: Some((texts(&transport["host"]), Vec::from([path]))) },
        "quic" => Network::Quic { security: String::new(), key: String::new(), header: String::new() },
        "grpc" => Network::Grpc {
            service: text(&transport["service_name"]),
            authority: String::new(),
            multi: false,
        },
        "httpupgrade" => Network::HttpUpgrade { host: text(&transport["host"]), path },
        other => Network::Other(other.to_owned()),
    }
}

/// The security of the transport and its details.
fn tls(tls: &Value) -> (&'static str, Tls) {
    if tls["enabled"].as_bool() != Some(true) {
        return ("", Tls::default());
    }
    let (utls, reality) = (&tls["utls"], &tls["reality"]);
    let is_reality = reality["enabled"].as_bool() == Some(true);
    let details = Tls {
        sni: text(&tls["server_name"]),
        alpn: texts(&tls["alpn"]),
        fingerprint: if utls["enabled"].as_bool() == Some(true) {
            text(&utls["fingerprint"])
        } else {
            String::new()
        },
        allow_insecure: tls["insecure"].as_bool() == Some(true),
        verify_name: String::new(),
        pinned: String::new(),
        reality: [text(&reality["public_key"]), text(&reality["short_id"]), String::new(), String::new()],
    };
    (if is_reality { "reality" } else { "tls" }, details)
}
