//! `streamSettings`: a link's carrier to JSON and back, for every transport, served by this version or not.

use super::link::{Link, Network, Tls, commas, split_early_data};
use serde_json::{Map, Value, json};
use std::net::IpAddr;

/// The fields of v2rayN's form that say what the carrier is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Description {
    /// `net`.
    pub(super) network: String,
    /// `type`.
    pub(super) kind: String,
    /// `host`.
    pub(super) host: String,
    /// `path`.
    pub(super) path: String,
}

/// Says in v2rayN's fields what the carrier is.
pub(super) fn describe(network: &Network) -> Description {
    let none = |kind: &str| if kind.is_empty() { "none".to_owned() } else { kind.to_owned() };
    let make = |network: &str, kind: String, host: &str, path: &str| Description {
        network: network.to_owned(),
        kind,
        host: host.to_owned(),
        path: path.to_owned(),
    };
    match network {
        Network::Tcp { http: None } => make("tcp", none(""), "", ""),
        Network::Tcp { http: Some((hosts, paths)) } => {
            make("tcp", "http".to_owned(), &hosts.join(","), &paths.join(","))
        }
        Network::Kcp { header, seed } => make("kcp", none(header), "", seed),
        Network::Ws { host, path, early_data: None } => make("ws", none(""), host, path),
        Network::Ws { host, path, early_data: Some((size, header)) } => {
            let mark = if path.contains('?') { '&' } else { '?' };
            let named =
                if header == "Sec-WebSocket-Protocol" { String::new() } else { format!("&eh={header}") };
            make("ws", none(""), host, &format!("{path}{mark}ed={size}{named}"))
        }
        Network::Http { hosts, path } => make("h2", none(""), &hosts.join(","), path),
        Network::Quic { security, key, header } => make("quic", none(header), &none(security), key),
        Network::Grpc { service, authority, multi } => {
            make("grpc", if *multi { "multi" } else { "gun" }.to_owned(), authority, service)
        }
        Network::HttpUpgrade { host, path } => make("httpupgrade", none(""), host, path),
        Network::Xhttp { host, path, mode, .. } => make("xhttp", mode.clone(), host, path),
        Network::Other(name) => make(name, none(""), "", ""),
    }
}

/// Makes `streamSettings`; `None` where V2Ray's defaults say it all.
pub(super) fn to_json(link: &Link) -> Option<Value> {
    let (network, key, settings) = carrier(&link.network);
    let mut stream = Map::new();
    stream.insert("network".to_owned(), network.into());
    if let Some(settings) = settings {
        stream.insert(key.to_owned(), settings);
    }
    if !link.transport_security.is_empty() {
        stream.insert("security".to_owned(), link.transport_security.clone().into());
        let key = if link.transport_security == "reality" { "realitySettings" } else { "tlsSettings" };
        stream.insert(key.to_owned(), tls(link));
    }
    let plain = link.transport_security.is_empty() && link.network == Network::default();
    (!plain).then_some(Value::Object(stream))
}

/// The carrier's name, the key of its settings, and the settings.
fn carrier(network: &Network) -> (&str, &'static str, Option<Value>) {
    let header = |kind: &str| json!({ "type": if kind.is_empty() { "none" } else { kind } });
    match network {
        Network::Tcp { http: None } => ("tcp", "tcpSettings", None),
        Network::Tcp { http: Some((hosts, paths)) } => {
            let mut request = Map::new();
            if !paths.is_empty() {
                request.insert("path".to_owned(), json!(paths));
            }
            if !hosts.is_empty() {
                request.insert("headers".to_owned(), json!({ "Host": hosts }));
            }
            ("tcp", "tcpSettings", Some(json!({ "header": { "type": "http", "request": request } })))
        }
        Network::Kcp { header: kind, seed } => {
            let mut settings = Map::new();
            settings.insert("header".to_owned(), header(kind));
            put(&mut settings, "seed", seed);
            ("kcp", "kcpSettings", Some(settings.into()))
        }
        Network::Ws { host, path, early_data } => {
            let mut settings = Map::new();
            put(&mut settings, "path", path);
            if !host.is_empty() {
                settings.insert("headers".to_owned(), json!({ "Host": host }));
            }
            if let Some((size, header)) = early_data {
                settings.insert("maxEarlyData".to_owned(), (*size).into());
                put(&mut settings, "earlyDataHeaderName", header);
            }
            ("ws", "wsSettings", Some(settings.into()))
        }
        Network::Http { hosts, path } => {
            let mut settings = Map::new();
            if !hosts.is_empty() {
                settings.insert("host".to_owned(), json!(hosts));
            }
            put(&mut settings, "path", path);
            ("h2", "httpSettings", Some(settings.into()))
        }
        Network::Quic { security, key, header: kind } => {
            let security = if security.is_empty() { "none" } else { security };
            let settings = json!({ "security": security, "key": key, "header": header(kind) });
            ("quic", "quicSettings", Some(settings))
        }
        Network::Grpc { service, authority, multi } => {
            let mut settings = Map::new();
            settings.insert("serviceName".to_owned(), service.clone().into());
            put(&mut settings, "authority", authority);
            if *multi {
                settings.insert("multiMode".to_owned(), true.into());
            }
            ("grpc", "grpcSettings", Some(settings.into()))
        }
        Network::HttpUpgrade { host, path } => {
            let mut settings = Map::new();
            put(&mut settings, "host", host);
            put(&mut settings, "path", path);
            ("httpupgrade", "httpupgradeSettings", Some(settings.into()))
        }
        Network::Xhttp { host, path, mode, extra } => {
            let mut settings = Map::new();
            put(&mut settings, "host", host);
            put(&mut settings, "path", path);
            put(&mut settings, "mode", mode);
            if let Ok(Value::Object(extra)) = serde_json::from_str(extra) {
                settings.insert("extra".to_owned(), extra.into());
            }
            ("xhttp", "xhttpSettings", Some(settings.into()))
        }
        Network::Other(name) => (name, "", None),
    }
}

/// Makes `tlsSettings` or `realitySettings`. Without a name of its own, TLS is asked for the host that HTTP
/// is.
fn tls(link: &Link) -> Value {
    let Tls { sni, alpn, fingerprint, allow_insecure, verify_name, pinned, reality } = &link.tls;
    let mut settings = Map::new();
    // Over HTTP/2 that may be one name of several, and is better than no name.
    let unnamed = link.address.parse::<IpAddr>().is_ok();
    let host: &str = match &link.network {
        Network::Ws { host, .. } => host,
        Network::Http { hosts, .. } if unnamed => hosts.first().map_or("", String::as_str),
        Network::Grpc { authority, .. } if unnamed => authority,
        _ => "",
    };
    put(&mut settings, "serverName", if sni.is_empty() { host } else { sni });
    if !alpn.is_empty() {
        settings.insert("alpn".to_owned(), json!(alpn));
    }
    put(&mut settings, "fingerprint", fingerprint);
    if *allow_insecure {
        settings.insert("allowInsecure".to_owned(), true.into());
    }
    put(&mut settings, "verifyPeerCertByName", verify_name);
    put(&mut settings, "pinnedPeerCertSha256", pinned);
    if link.transport_security == "reality" {
        for (key, value) in ["publicKey", "shortId", "spiderX", "mldsa65Verify"].iter().zip(reality) {
            put(&mut settings, key, value);
        }
    }
    settings.into()
}

/// Adds a text unless it is empty.
fn put(settings: &mut Map<String, Value>, key: &str, text: &str) {
    if !text.is_empty() {
        settings.insert(key.to_owned(), text.into());
    }
}

/// Reads `streamSettings`: the carrier, the transport's security, the TLS details.
pub(super) fn from_json(stream: &Value) -> (Network, String, Tls) {
    let security = match lower(&stream["security"]).as_str() {
        name @ ("tls" | "reality") => name.to_owned(),
        _ => String::new(),
    };
    let settings = if security == "reality" { &stream["realitySettings"] } else { &stream["tlsSettings"] };
    let tls = if security.is_empty() { Tls::default() } else { tls_from_json(settings) };
    (network(stream), security, tls)
}

fn network(stream: &Value) -> Network {
    let name = lower(&stream["network"]);
    match name.as_str() {
        "" | "tcp" | "raw" => {
            let header = &stream["tcpSettings"]["header"];
            let request = &header["request"];
            let hosts = host_header(&request["headers"]);
            let http = || (texts(hosts), texts(&request["path"]));
            Network::Tcp { http: (lower(&header["type"]) == "http").then(http) }
        }
        "kcp" | "mkcp" => {
            let settings = &stream["kcpSettings"];
            Network::Kcp { header: lower(&settings["header"]["type"]), seed: text(&settings["seed"]) }
        }
        "ws" | "websocket" => {
            let settings = &stream["wsSettings"];
            let (path, in_path) = split_early_data(&text(&settings["path"]));
            let host = text(host_header(&settings["headers"]));
            let size = settings["maxEarlyData"].as_u64().and_then(|size| u32::try_from(size).ok());
            let header = text(&settings["earlyDataHeaderName"]);
            let early_data = size.filter(|size| *size > 0).map(|size| (size, header)).or(in_path);
            Network::Ws {
                host: if host.is_empty() { text(&settings["host"]) } else { host },
                path,
                early_data,
            }
        }
        "h2" | "http" => {
            let settings = &stream["httpSettings"];
            Network::Http { hosts: texts(&settings["host"]), path: text(&settings["path"]) }
        }
        "quic" => {
            let settings = &stream["quicSettings"];
            Network::Quic {
                security: text(&settings["security"]),
                key: text(&settings["key"]),
                header: lower(&settings["header"]["type"]),
            }
        }
        "grpc" | "gun" => {
            let settings = if stream["grpcSettings"].is_null() {
                &stream["gunSettings"]
            } else {
                &stream["grpcSettings"]
            };
            Network::Grpc {
                service: text(&settings["serviceName"]),
                authority: text(&settings["authority"]),
                multi: settings["multiMode"] == true,
            }
        }
        "httpupgrade" => {
            let settings = &stream["httpupgradeSettings"];
            Network::HttpUpgrade { host: text(&settings["host"]), path: text(&settings["path"]) }
        }
        "xhttp" | "splithttp" => {
            let settings = if stream["xhttpSettings"].is_null() {
                &stream["splithttpSettings"]
            } else {
                &stream["xhttpSettings"]
            };
            Network::Xhttp {
                host: text(&settings["host"]),
                path: text(&settings["path"]),
                mode: text(&settings["mode"]),
                extra: settings["extra"]
                    .as_object()
                    .map(|_| settings["extra"].to_string())
                    .unwrap_or_default(),
            }
        }
        _ => Network::Other(name),
    }
}

fn tls_from_json(settings: &Value) -> Tls {
    Tls {
        sni: text(&settings["serverName"]),
        alpn: texts(&settings["alpn"]),
        fingerprint: text(&settings["fingerprint"]),
        allow_insecure: settings["allowInsecure"] == true,
        verify_name: text(&settings["verifyPeerCertByName"]),
        pinned: text(&settings["pinnedPeerCertSha256"]),
        reality: ["publicKey", "shortId", "spiderX", "mldsa65Verify"].map(|key| text(&settings[key])),
    }
}

/// The `Host` among HTTP headers, in any case.
fn host_header(headers: &Value) -> &Value {
    let found =
        headers.as_object().and_then(|map| map.iter().find(|(key, _)| key.eq_ignore_ascii_case("host")));
    found.map_or(&Value::Null, |(_, value)| value)
}

/// The text without blanks around; empty if it is none. Of a list, the first entry.
fn text(value: &Value) -> String {
    let first = value.as_array().and_then(|entries| entries.first()).unwrap_or(value);
    first.as_str().unwrap_or_default().trim().to_owned()
}

/// The text in lower case.
fn lower(value: &Value) -> String {
    text(value).to_ascii_lowercase()
}

/// The texts of a list or of one text with commas between.
fn texts(value: &Value) -> Vec<String> {
    match value {
        Value::Array(entries) => entries.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        Value::String(text) => commas(text),
        _ => Vec::new(),
    }
}
