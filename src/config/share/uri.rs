//! The URI form: `vmess://id@host:port?query#remark`, for the AEAD header (no alter ids).

use super::ShareError;
use super::link::{Link, Network, Tls, commas, is_yes, packet_encoding, security, split_early_data};
use percent_encoding::percent_decode_str;

/// Reads what stands behind `vmess://`.
pub(super) fn read(body: &str) -> Result<Link, ShareError> {
    let (body, fragment) = body.split_once('#').unwrap_or((body, ""));
    let (authority, query) = body.split_once('?').unwrap_or((body, ""));
    let (user, server) = authority.rsplit_once('@').ok_or(ShareError::Malformed)?;
    if is_first_draft(user) {
        return Err(ShareError::ForeignForm("an early draft (vmess://network:id-alterId@host:port)"));
    }
    let id = decoded(user);
    if id.is_empty() {
        return Err(ShareError::Missing("id"));
    }
    let (address, port) = host_and_port(server.trim_end_matches('/'))?;
    let query = Query::new(query);
    let transport_security = match query.get("security").to_ascii_lowercase().as_str() {
        "none" => String::new(),
        other => other.to_owned(),
    };
    Ok(Link {
        remark: decoded(fragment),
        address,
        port,
        id,
        alter_id: 0,
        security: security(&query.get("encryption")),
        packet_encoding: packet_encoding(&query.get("packetEncoding")),
        network: network(&query),
        transport_security,
        tls: Tls {
            sni: query.get("sni"),
            alpn: commas(&query.get("alpn")),
            fingerprint: query.get("fp"),
            allow_insecure: is_yes(&query.get("allowInsecure")) || is_yes(&query.get("insecure")),
            verify_name: query.get("vcn"),
            pinned: query.get("pcs"),
            reality: ["pbk", "sid", "spx", "pqv"].map(|key| query.get(key)),
        },
    })
}

/// Reads `host:port` or `[ipv6]:port`.
fn host_and_port(server: &str) -> Result<(String, u16), ShareError> {
    const PORT: ShareError = ShareError::Invalid { part: "port", allowed: "1 to 65535" };
    let (host, port) = match server.strip_prefix('[').map(|rest| rest.split_once(']')) {
        Some(Some((host, rest))) => (host, rest.strip_prefix(':').ok_or(ShareError::Missing("port"))?),
        Some(None) => {
            return Err(ShareError::Invalid { part: "server", allowed: "an IPv6 address in brackets" });
        }
        None => server.rsplit_once(':').ok_or(ShareError::Missing("port"))?,
    };
    let host = decoded(host);
    if host.is_empty() {
        return Err(ShareError::Missing("server"));
    }
    let port = port.trim().parse().ok().filter(|port| *port > 0).ok_or(PORT)?;
    Ok((host, port))
}

/// Whether the user part is that of the first draft: `ws+tls:ID-0`.
fn is_first_draft(user: &str) -> bool {
    let networks = ["tcp", "http", "ws", "kcp", "quic", "grpc"];
    user.split_once(':').is_some_and(|(network, _)| networks.contains(&network.trim_end_matches("+tls")))
}

/// The text without percent signs and blanks around.
fn decoded(text: &str) -> String {
    percent_decode_str(text).decode_utf8_lossy().trim().to_owned()
}

/// The query's pairs; the first of a name counts.
struct Query(Vec<(String, String)>);

impl Query {
    fn new(query: &str) -> Self {
        let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        Self(pairs.map(|(key, value)| (decoded(key), decoded(value))).collect())
    }

    /// The value of `key`; empty if it is absent.
    fn get(&self, key: &str) -> String {
        self.0.iter().find(|(name, _)| name == key).map(|(_, value)| value.clone()).unwrap_or_default()
    }

    /// The first of two values that is not empty.
    fn either(&self, key: &str, other: &str) -> String {
        let value = self.get(key);
        if value.is_empty() { self.get(other) } else { value }
    }
}

/// What the query says of the carrier.
fn network(query: &Query) -> Network {
    let (host, path) = (query.get("host"), query.get("path"));
    let header = query.get("headerType");
    match query.get("type").to_ascii_lowercase().as_str() {
        "" | "tcp" | "raw" if header.eq_ignore_ascii_case("http") => {
            Network::Tcp { http: Some((commas(&host), commas(&path))) }
        }
        "" | "tcp" | "raw" => Network::Tcp { http: None },
        "kcp" | "mkcp" => Network::Kcp { header, seed: query.get("seed") },
        "ws" | "websocket" => {
            let (path, mut early_data) = split_early_data(&path);
            if let Ok(size) = query.get("ed").parse() {
                let header = query.get("eh");
                let header = if header.is_empty() { "Sec-WebSocket-Protocol".to_owned() } else { header };
                early_data = Some((size, header));
            }
            Network::Ws { host, path, early_data }
        }
        "http" | "h2" => Network::Http { hosts: commas(&host), path },
        "quic" => Network::Quic { security: query.get("quicSecurity"), key: query.get("key"), header },
        "grpc" | "gun" => Network::Grpc {
            service: query.either("serviceName", "path"),
            authority: query.either("authority", "host"),
            multi: query.get("mode").eq_ignore_ascii_case("multi"),
        },
        "httpupgrade" => Network::HttpUpgrade { host, path },
        "xhttp" | "splithttp" => {
            Network::Xhttp { host, path, mode: query.get("mode"), extra: query.get("extra") }
        }
        other => Network::Other(other.to_owned()),
    }
}
