//! v2rayN's form: base64 of a JSON object, "version 2".

use super::ShareError;
use super::link::{Carrier, Link, Network, Tls, commas, is_yes, packet_encoding, security, split_early_data};
use super::stream;
use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use percent_encoding::percent_decode_str;
use serde_json::{Map, Value, json};

/// Standard alphabet, no padding asked for, stray bits at the end forgiven.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// Reads what stands behind `vmess://`.
pub(super) fn read(body: &str) -> Result<Link, ShareError> {
    let (encoded, fragment) = body.split_once('#').unwrap_or((body, ""));
    let encoded = encoded.split('?').next().unwrap_or_default();
    let bytes = decode(encoded).ok_or(ShareError::Malformed)?;
    let text = String::from_utf8_lossy(&bytes);
    let text = text.trim_start_matches('\u{feff}').trim();
    if !text.starts_with('{') {
        return Err(match text {
            _ if text.contains("= vmess,") || text.contains("=vmess,") => {
                ShareError::ForeignForm("Quantumult")
            }
            _ if text.contains('@') => ShareError::ForeignForm("Shadowrocket"),
            _ => ShareError::Malformed,
        });
    }
    let object: Map<String, Value> = serde_json::from_str(text).map_err(|_| ShareError::Malformed)?;
    let mut link = from_object(&Fields(&object))?;
    if link.remark.is_empty() {
        link.remark = percent_decode_str(fragment).decode_utf8_lossy().trim().to_owned();
    }
    Ok(link)
}

/// Writes a link with every key of version 2, all values texts.
pub(super) fn write(link: &Link) -> String {
    let carrier = stream::describe(&link.network);
    let mut object = json!({
        "v": "2",
        "ps": link.remark,
        "add": link.address,
        "port": link.port.to_string(),
        "id": link.id,
        "aid": link.alter_id.to_string(),
        "scy": if link.security.is_empty() { "auto" } else { &link.security },
        "net": carrier.network,
        "type": carrier.kind,
        "host": carrier.host,
        "path": carrier.path,
        "tls": link.transport_security,
        "sni": link.tls.sni,
        "alpn": link.tls.alpn.join(","),
        "fp": link.tls.fingerprint,
        "allowInsecure": if link.tls.allow_insecure { "1" } else { "" },
        "vcn": link.tls.verify_name,
        "pcs": link.tls.pinned,
    });
    // No part of version 2, so that it is written only where it says something.
    if !link.packet_encoding.is_empty() {
        object["packetEncoding"] = link.packet_encoding.as_str().into();
    }
    let engine = base64::engine::general_purpose::STANDARD;
    format!("{}{}", super::SCHEME, engine.encode(object.to_string()))
}

/// Reads the object by itself, as lists of them have it.
pub(super) fn read_object(object: &Map<String, Value>) -> Result<Link, ShareError> {
    let link = from_object(&Fields(object))?;
    super::check(link)
}

/// Decodes base64 of either alphabet, with or without padding, blanks and percent signs.
pub(super) fn decode(encoded: &str) -> Option<Vec<u8>> {
    let plain = percent_decode_str(encoded).decode_utf8().ok()?;
    let letters: String = plain
        .chars()
        .filter(|c| !c.is_whitespace() && *c != '=')
        .map(|c| match c {
            '-' => '+',
            '_' => '/',
            c => c,
        })
        .collect();
    LENIENT.decode(letters).ok()
}

/// The object's members, read as texts whatever their type.
struct Fields<'o>(&'o Map<String, Value>);

impl Fields<'_> {
    /// The first of `keys` that has a text, number or flag, as a text without blanks around.
    fn text(&self, keys: &[&str]) -> String {
        let values = keys.iter().filter_map(|key| self.0.get(*key));
        let mut texts = values.filter_map(|value| match value {
            Value::String(text) => Some(text.trim().to_owned()),
            Value::Number(number) => Some(number.to_string()),
            Value::Bool(flag) => Some(flag.to_string()),
            Value::Array(entries) => {
                let texts: Vec<&str> = entries.iter().filter_map(Value::as_str).collect();
                Some(texts.join(","))
            }
            _ => None,
        });
        texts.find(|text| !text.is_empty()).unwrap_or_default()
    }

    /// A number of 16 bits; `443`, `"443"`, `443.0` alike. `None` if absent, an error if it is something
    /// else.
    fn number(&self, keys: &[&str]) -> Result<Option<u16>, ()> {
        let text = self.text(keys);
        if text.is_empty() {
            return Ok(None);
        }
        let whole = text.split_once('.').filter(|(_, rest)| rest.bytes().all(|b| b == b'0'));
        whole.map_or(text.as_str(), |(whole, _)| whole).parse().map(Some).map_err(|_| ())
    }
}

/// Reads the object.
fn from_object(fields: &Fields<'_>) -> Result<Link, ShareError> {
    let address = fields.text(&["add", "address"]);
    if address.is_empty() {
        return Err(ShareError::Missing("server (add)"));
    }
    const PORT: ShareError = ShareError::Invalid { part: "port", allowed: "1 to 65535" };
    let port = fields.number(&["port"]).map_err(|()| PORT)?.ok_or(ShareError::Missing("port"))?;
    if port == 0 {
        return Err(PORT);
    }
    let id = fields.text(&["id"]);
    if id.is_empty() {
        return Err(ShareError::Missing("id"));
    }
    let alter_id = fields.number(&["aid", "alterId"]);
    let alter_id =
        alter_id.map_err(|()| ShareError::Invalid { part: "alterId (aid)", allowed: "0 to 65535" })?;
    let (host, path) = host_and_path(fields);
    let network = fields.text(&["net", "network"]);
    let kind = fields.text(&["type", "headerType"]);
    let carrier = Carrier { network: &network, kind: &kind, host: &host, path: &path };
    Ok(Link {
        remark: fields.text(&["ps", "remark", "remarks"]),
        address: address.trim_start_matches('[').trim_end_matches(']').to_owned(),
        port,
        id,
        alter_id: alter_id.unwrap_or(0),
        security: security(&fields.text(&["scy", "security"])),
        packet_encoding: packet_encoding(&fields.text(&["packetEncoding", "packet-encoding"])),
        network: from_carrier(carrier),
        transport_security: transport_security(&fields.text(&["tls"])).to_owned(),
        tls: Tls {
            sni: fields.text(&["sni", "peer", "serverName"]),
            alpn: commas(&fields.text(&["alpn"])),
            fingerprint: fields.text(&["fp"]),
            allow_insecure: ["allowInsecure", "insecure", "skip-cert-verify"]
                .iter()
                .any(|key| is_yes(&fields.text(&[key])))
                || matches!(fields.text(&["verify_cert"]).to_ascii_lowercase().as_str(), "false" | "0"),
            verify_name: fields.text(&["vcn"]),
            pinned: fields.text(&["pcs"]),
            reality: ["pbk", "sid", "spx", "pqv"].map(|key| fields.text(&[key])),
        },
    })
}

/// The host and the path. Version 1 had both in `host`, as `path;host`, for WebSocket and HTTP/2.
fn host_and_path(fields: &Fields<'_>) -> (String, String) {
    let (host, path) = (fields.text(&["host"]), fields.text(&["path"]));
    let first = matches!(fields.text(&["v"]).as_str(), "" | "1");
    let combined = matches!(fields.text(&["net"]).as_str(), "ws" | "h2" | "http");
    if first && combined && path.is_empty() && (host.contains(';') || host.starts_with('/')) {
        let (path, host) = host.split_once(';').unwrap_or((&host, ""));
        return (host.trim().to_owned(), path.trim().to_owned());
    }
    (host, path)
}

/// The transport's security: whatever ends in `tls` means TLS, as do yes-words.
fn transport_security(text: &str) -> &'static str {
    let lower = text.to_ascii_lowercase();
    match lower.as_str() {
        "reality" => "reality",
        _ if lower.ends_with("tls") || is_yes(&lower) => "tls",
        _ => "",
    }
}

/// What the fields mean for each carrier.
fn from_carrier(fields: Carrier<'_>) -> Network {
    let Carrier { network, kind, host, path } = fields;
    let [kind, host, path] = [kind, host, path].map(str::to_owned);
    match network.to_ascii_lowercase().as_str() {
        "" | "tcp" | "raw" if kind.eq_ignore_ascii_case("http") => {
            Network::Tcp { http: Some((commas(&host), commas(&path))) }
        }
        "" | "tcp" | "raw" => Network::Tcp { http: None },
        "kcp" | "mkcp" => Network::Kcp { header: kind, seed: path },
        "ws" | "websocket" => {
            let (path, early_data) = split_early_data(&path);
            Network::Ws { host, path, early_data }
        }
        "h2" | "http" => Network::Http { hosts: commas(&host), path },
        "quic" => Network::Quic { security: host, key: path, header: kind },
        "grpc" | "gun" => {
            Network::Grpc { service: path, authority: host, multi: kind.eq_ignore_ascii_case("multi") }
        }
        "httpupgrade" => Network::HttpUpgrade { host, path },
        "xhttp" | "splithttp" => Network::Xhttp { host, path, mode: kind, extra: String::new() },
        other => Network::Other(other.to_owned()),
    }
}
