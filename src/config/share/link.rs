//! What a link says, whichever form it has.

use std::fmt;

/// A server, a user and a carrier. Texts are as the link gives them, without blanks around; an empty one was
/// not given.
#[derive(Clone, PartialEq, Eq, Default)]
pub(super) struct Link {
    /// The name for people.
    pub(super) remark: String,
    /// The server, an IPv6 address without brackets.
    pub(super) address: String,
    /// The server's port, never 0.
    pub(super) port: u16,
    /// The user's id; a secret.
    pub(super) id: String,
    /// How many alter ids.
    pub(super) alter_id: u16,
    /// The body's security.
    pub(super) security: String,
    /// How UDP is carried: `packet`, `xudp`, or empty.
    pub(super) packet_encoding: String,
    /// The carrier.
    pub(super) network: Network,
    /// `tls`, `reality`, or empty.
    pub(super) transport_security: String,
    /// The TLS details.
    pub(super) tls: Tls,
}

/// How the bytes are carried, by `network`.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Network {
    /// Raw TCP, perhaps disguised as HTTP: the request's hosts and paths.
    Tcp { http: Option<(Vec<String>, Vec<String>)> },
    /// mKCP.
    Kcp { header: String, seed: String },
    /// WebSocket.
    Ws { host: String, path: String, early_data: Option<(u32, String)> },
    /// HTTP/2.
    Http { hosts: Vec<String>, path: String },
    /// QUIC.
    Quic { security: String, key: String, header: String },
    /// gRPC.
    Grpc { service: String, authority: String, multi: bool },
    /// HTTP upgrade.
    HttpUpgrade { host: String, path: String },
    /// XHTTP.
    Xhttp { host: String, path: String, mode: String, extra: String },
    /// One that we do not know, by its name: it goes into the config, whose reader refuses it.
    Other(String),
}

impl Default for Network {
    fn default() -> Self {
        Self::Tcp { http: None }
    }
}

/// The details of TLS and REALITY.
#[derive(Clone, PartialEq, Eq, Default)]
pub(super) struct Tls {
    /// `serverName`.
    pub(super) sni: String,
    /// The protocols to offer.
    pub(super) alpn: Vec<String>,
    /// Whose ClientHello to imitate.
    pub(super) fingerprint: String,
    /// Whether certificates are not checked.
    pub(super) allow_insecure: bool,
    /// The name to look for in the certificate (`vcn`).
    pub(super) verify_name: String,
    /// The SHA-256 of the certificate (`pcs`).
    pub(super) pinned: String,
    /// REALITY's public key, short id, path and ML-DSA key.
    pub(super) reality: [String; 4],
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Link(..)")
    }
}

/// The fields of a link that mean something else in every carrier.
#[derive(Clone, Copy, Default)]
pub(super) struct Carrier<'t> {
    /// The carrier's name.
    pub(super) network: &'t str,
    /// The header's type, gRPC's or XHTTP's mode.
    pub(super) kind: &'t str,
    /// The host.
    pub(super) host: &'t str,
    /// The path.
    pub(super) path: &'t str,
}

/// Splits at commas; empty parts are dropped.
pub(super) fn commas(text: &str) -> Vec<String> {
    text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(str::to_owned).collect()
}

/// Takes `ed=N` and `eh=NAME` out of a WebSocket path's query: the path, and how much early data in which
/// header.
///
/// Without `eh` the header is the one that Xray uses.
pub(super) fn split_early_data(path: &str) -> (String, Option<(u32, String)>) {
    let Some((bare, query)) = path.split_once('?') else { return (path.to_owned(), None) };
    let mut size = None;
    let mut header = "Sec-WebSocket-Protocol";
    let mut kept = Vec::new();
    for pair in query.split('&') {
        match pair.split_once('=') {
            Some(("ed", value)) if value.parse::<u32>().is_ok() => size = value.parse().ok(),
            Some(("eh", value)) if !value.is_empty() => header = value,
            _ => kept.push(pair),
        }
    }
    match size {
        None => (path.to_owned(), None),
        Some(size) if kept.is_empty() => (bare.to_owned(), Some((size, header.to_owned()))),
        Some(size) => (format!("{bare}?{}", kept.join("&")), Some((size, header.to_owned()))),
    }
}

/// Whether a text means yes: `1` or `true`.
pub(super) fn is_yes(text: &str) -> bool {
    matches!(text.trim().to_ascii_lowercase().as_str(), "1" | "true" | "yes")
}

/// The security that is meant: names that no client knows are `auto`, as every reader of links takes them.
///
/// `aes-128-cfb` is kept, so that the config's reader can refuse it by name.
pub(super) fn security(text: &str) -> String {
    let lower = text.trim().to_ascii_lowercase();
    let known = ["aes-128-gcm", "chacha20-poly1305", "none", "zero", "aes-128-cfb"];
    if known.contains(&lower.as_str()) { lower } else { "auto".to_owned() }
}

/// The encoding of packets that is meant; what no client knows is none.
pub(super) fn packet_encoding(text: &str) -> String {
    match text.trim().to_ascii_lowercase().as_str() {
        "packet" | "packetaddr" => "packet".to_owned(),
        "xudp" => "xudp".to_owned(),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn early_data_leaves_the_path() {
        let early = |size, name: &str| Some((size, name.to_owned()));
        for (given, path, data) in [
            ("/a", "/a", None),
            ("/a?ed=2048", "/a", early(2048, "Sec-WebSocket-Protocol")),
            ("/a?ed=2560&eh=X-Early", "/a", early(2560, "X-Early")),
            ("/a?b=c&ed=1", "/a?b=c", early(1, "Sec-WebSocket-Protocol")),
            ("/a?ed=x", "/a?ed=x", None),
            ("/a?eh=X", "/a?eh=X", None),
        ] {
            assert_eq!(split_early_data(given), (path.to_owned(), data), "{given}");
        }
    }
}
