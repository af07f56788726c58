//! The transports that speak HTTP: the disguise of raw TCP, WebSocket, HTTP/2, gRPC, HTTP upgrade.

use super::super::transport::{
    Grpc, H2, HttpField, HttpHeader, HttpRequest, HttpResponse, HttpUpgrade, Transport, Ws,
};
use super::super::walk::{Node, Object, given};
use super::{Side, proxy_protocol};
use std::time::Duration;

/// The most bytes that early data may have: what a head that servers take has room for.
const MAX_EARLY_DATA: u64 = 8192;
/// The field that carries early data where a path asks for it (`?ed=`).
const EARLY_DATA_HEADER: &str = "Sec-WebSocket-Protocol";
/// The names of fields and the values that a client draws from where the config says nothing.
const REQUEST_HEADERS: &[(&str, &[&str])] = &[
    ("Host", &["www.baidu.com", "www.bing.com"]),
    (
        "User-Agent",
        &[
            "Mozilla/5.0 (Windows NT 10.0; WOW64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/55.0.2883.75 Safari/537.36",
            "Mozilla/5.0 (iPhone; CPU iPhone OS 10_0_2 like Mac OS X) AppleWebKit/601.1 (KHTML, like Gecko) CriOS/53.0.2785.109 Mobile/14A456 Safari/601.1.46",
        ],
    ),
    ("Accept-Encoding", &["gzip, deflate"]),
    ("Connection", &["keep-alive"]),
    ("Pragma", &["no-cache"]),
];
/// The same for a server.
const RESPONSE_HEADERS: &[(&str, &[&str])] = &[
    ("Content-Type", &["application/octet-stream", "video/mpeg"]),
    ("Transfer-Encoding", &["chunked"]),
    ("Connection", &["keep-alive"]),
    ("Pragma", &["no-cache"]),
    ("Cache-Control", &["private", "no-cache"]),
];

/// Reads `tcpSettings.header`: `None` inside for `none`.
pub(super) fn header(node: &Node<'_>) -> Option<Option<HttpHeader>> {
    let object = node.object(&["type", "request", "response"])?;
    let disguised =
        object.required("type", "none, http")?.choice("disguise", &[("none", false), ("http", true)])?;
    if !disguised {
        return Some(None);
    }
    let (request, response) = (request(&object), response(&object));
    Some(Some(HttpHeader { request: request?, response: response? }))
}

fn request(header: &Object<'_>) -> Option<HttpRequest> {
    let object = header.section("request", &["version", "method", "path", "headers"])?;
    let mut paths: Vec<String> = Vec::new();
    for (path, node) in object.get("path").and_then(|node| node.texts()).unwrap_or_default() {
        if is_token(&path) {
            paths.push(path);
        } else {
            node.error("a path with a blank or a control character", |finding| finding);
        }
    }
    if paths.is_empty() {
        paths.push("/".to_owned());
    }
    Some(HttpRequest {
        version: word(&object, "version", "1.1")?,
        method: word(&object, "method", "GET")?,
        paths,
        headers: template(&object, REQUEST_HEADERS)?,
    })
}

fn response(header: &Object<'_>) -> Option<HttpResponse> {
    let object = header.section("response", &["version", "status", "reason", "headers"])?;
    let reason = match object.text("reason") {
        "" => "OK".to_owned(),
        text => line(&object, "reason", text)?,
    };
    Some(HttpResponse {
        version: word(&object, "version", "1.1")?,
        status: word(&object, "status", "200")?,
        reason,
        headers: template(&object, RESPONSE_HEADERS)?,
    })
}

/// The fields under `headers`, sorted by name as V2Ray writes them; the default ones if there are none.
fn template(object: &Object<'_>, default: &[(&str, &[&str])]) -> Option<Vec<HttpField>> {
    let Some(node) = object.get("headers") else {
        let texts = |values: &[&str]| values.iter().map(|text| (*text).to_owned()).collect();
        return Some(default.iter().map(|(name, values)| ((*name).to_owned(), texts(values))).collect());
    };
    let mut fields = fields(&node)?;
    fields.sort();
    Some(fields)
}

/// Reads an object of fields, each with a text or a list of texts.
fn fields(node: &Node<'_>) -> Option<Vec<HttpField>> {
    let mut fields = Vec::new();
    let mut fine = true;
    for (name, node) in node.members()? {
        let values: Option<Vec<String>> = match node.value().as_str() {
            Some(text) => Some(vec![text.to_owned()]),
            None => node.texts().map(|texts| texts.into_iter().map(|(text, _)| text).collect()),
        };
        let Some(values) = values else {
            fine = false;
            continue;
        };
        if !is_token(name) || name.contains(':') || !values.iter().all(|value| is_line(value)) {
            fine = false;
            node.error("not a header field that HTTP can carry", |finding| {
                finding.allowed("a name without blanks or colons, values without line breaks")
            });
        } else if !values.is_empty() {
            fields.push((name.to_owned(), values));
        }
    }
    fine.then_some(fields)
}

/// Reads an object of fields with one value each.
fn single_fields(object: &Object<'_>) -> Option<Vec<(String, String)>> {
    let fields = given(object.get("headers").map(|node| fields(&node)))?.unwrap_or_default();
    let first = |(name, values): HttpField| Some((name, values.into_iter().next()?));
    Some(fields.into_iter().filter_map(first).collect())
}

/// Takes the `Host` out of fields.
fn take_host(headers: &mut Vec<(String, String)>) -> Option<String> {
    let index = headers.iter().position(|(name, _)| name.eq_ignore_ascii_case("host"))?;
    Some(headers.remove(index).1).filter(|host| !host.is_empty())
}

/// Reads `wsSettings`.
pub(super) fn ws(node: Option<&Node<'_>>, side: Side) -> Option<Transport> {
    const KEYS: &[&str] = &[
        "path",
        "host",
        "headers",
        "acceptProxyProtocol",
        "maxEarlyData",
        "earlyDataHeaderName",
        "useBrowserForwarding",
        "heartbeatPeriod",
    ];
    let Some(node) = node else { return Some(Transport::Ws(Ws { path: "/".to_owned(), ..Ws::default() })) };
    let object = node.object(KEYS)?;
    let (mut path, in_path) = split_early_data(&path(&object)?);
    if path.is_empty() {
        path = "/".to_owned();
    }
    let headers = single_fields(&object);
    let size = given(object.get("maxEarlyData").map(|node| node.number(0, MAX_EARLY_DATA)));
    let name = given(object.get("earlyDataHeaderName").map(|node| {
        let name = node.text()?.trim();
        if !is_token(name) && !name.is_empty() {
            node.error("not the name of a header field", |finding| finding);
            return None;
        }
        Some(name.to_owned())
    }));
    let heartbeat = given(object.get("heartbeatPeriod").map(|node| node.number_u32()));
    if let Some(node) = object.get("useBrowserForwarding").filter(|node| !node.is_empty()) {
        node.ignored("forwarding through a browser", "the WebSocket is our own");
    }
    let mut headers = headers?;
    let in_headers = take_host(&mut headers);
    let (size, name) = match size?.filter(|size| *size > 0) {
        Some(size) => (size, name?.filter(|name| !name.is_empty())),
        None => match in_path {
            Some((size, header)) => (size.min(MAX_EARLY_DATA), Some(header)),
            None => (0, name?.filter(|name| !name.is_empty())),
        },
    };
    Some(Transport::Ws(Ws {
        path,
        host: Some(object.text("host").to_owned()).filter(|host| !host.is_empty()).or(in_headers),
        headers,
        max_early_data: usize::try_from(size).unwrap_or_default(),
        early_data_header: name,
        accept_proxy_protocol: proxy_protocol(&object, side),
        heartbeat: heartbeat?
            .filter(|seconds| *seconds > 0)
            .map(|seconds| Duration::from_secs(seconds.into())),
    }))
}

/// Takes `ed=` (and `eh=`, the field's name) out of a path's query, as links and Xray's configs write it.
fn split_early_data(path: &str) -> (String, Option<(u64, String)>) {
    let Some((bare, query)) = path.split_once('?') else { return (path.to_owned(), None) };
    let value = |key: &str| query.split('&').find_map(|pair| pair.strip_prefix(key)?.strip_prefix('='));
    let Some(size) = value("ed").and_then(|size| size.parse().ok()) else { return (path.to_owned(), None) };
    let left = query.split('&').filter(|pair| !pair.starts_with("ed=") && !pair.starts_with("eh="));
    let left: Vec<&str> = left.collect();
    let path = if left.is_empty() { bare.to_owned() } else { format!("{bare}?{}", left.join("&")) };
    (path, (size > 0).then(|| (size, value("eh").unwrap_or(EARLY_DATA_HEADER).to_owned())))
}

/// Reads `httpSettings`.
pub(super) fn h2(node: Option<&Node<'_>>, _side: Side) -> Option<Transport> {
    const KEYS: &[&str] = &["host", "path", "method", "headers", "read_idle_timeout", "health_check_timeout"];
    let default = H2 { path: "/".to_owned(), method: "PUT".to_owned(), ..H2::default() };
    let Some(node) = node else { return Some(Transport::H2(default)) };
    let object = node.object(KEYS)?;
    let hosts = given(object.get("host").map(|node| node.texts()))?.unwrap_or_default();
    for key in ["read_idle_timeout", "health_check_timeout"] {
        if let Some(node) = object.get(key) {
            node.number_u32();
        }
    }
    let headers = given(object.get("headers").map(|node| fields(&node)));
    Some(Transport::H2(H2 {
        hosts: hosts.into_iter().map(|(host, _)| host).filter(|host| !host.is_empty()).collect(),
        path: path(&object)?,
        method: word(&object, "method", "PUT")?,
        headers: headers?.unwrap_or_default(),
    }))
}

/// Reads `grpcSettings`.
pub(super) fn grpc(node: Option<&Node<'_>>, _side: Side) -> Option<Transport> {
    const KEYS: &[&str] = &[
        "serviceName",
        "multiMode",
        "authority",
        "idle_timeout",
        "health_check_timeout",
        "permit_without_stream",
        "initial_windows_size",
        "user_agent",
        "mode",
    ];
    let Some(node) = node else { return Some(Transport::Grpc(Grpc::default())) };
    let object = node.object(KEYS)?;
    let service = object.text("serviceName");
    if service.chars().any(|c| c.is_control()) {
        let node = object.get("serviceName")?;
        node.error("a control character in a name", |finding| finding);
        return None;
    }
    let seconds = |key| {
        let read = given(object.get(key).map(|node| node.number_u32()))?;
        Some(read.filter(|seconds| *seconds > 0).map(|seconds| Duration::from_secs(seconds.into())))
    };
    let text = |key| match object.text(key) {
        "" => Some(None),
        text => line(&object, key, text).map(Some),
    };
    let window = given(object.get("initial_windows_size").map(|node| node.number(0, (1 << 31) - 1)));
    let (idle, health) = (seconds("idle_timeout"), seconds("health_check_timeout"));
    Some(Transport::Grpc(Grpc {
        service: service.to_owned(),
        multi: object.flag("multiMode", false),
        authority: text("authority")?,
        idle_timeout: idle?,
        health_check_timeout: health?,
        permit_without_stream: object.flag("permit_without_stream", false),
        initial_window: u32::try_from(window?.unwrap_or_default()).unwrap_or_default(),
        user_agent: text("user_agent")?,
    }))
}

/// Reads `httpupgradeSettings`. Early data, which loses bytes at every peer that has it, is left out with a warning.
pub(super) fn upgrade(node: Option<&Node<'_>>, side: Side) -> Option<Transport> {
    const KEYS: &[&str] =
        &["path", "host", "headers", "acceptProxyProtocol", "maxEarlyData", "earlyDataHeaderName"];
    let default = HttpUpgrade { path: "/".to_owned(), ..HttpUpgrade::default() };
    let Some(node) = node else { return Some(Transport::HttpUpgrade(default)) };
    let object = node.object(KEYS)?;
    for key in ["maxEarlyData", "earlyDataHeaderName"] {
        if let Some(node) = object.get(key).filter(|node| !node.is_empty()) {
            node.ignored(
                "early data over HTTP upgrade",
                "servers lose it; the first bytes wait for the answer",
            );
        }
    }
    let mut headers = single_fields(&object)?;
    let in_headers = take_host(&mut headers);
    // Xray's `?ed=` only means not to wait for the answer, which loses bytes at three servers.
    let (path, _) = split_early_data(&path(&object)?);
    Some(Transport::HttpUpgrade(HttpUpgrade {
        path: if path.is_empty() { "/".to_owned() } else { path },
        host: Some(object.text("host").to_owned()).filter(|host| !host.is_empty()).or(in_headers),
        headers,
        accept_proxy_protocol: proxy_protocol(&object, side),
    }))
}

/// Reads `path`, which gets the leading slash that it lacks.
fn path(object: &Object<'_>) -> Option<String> {
    let text = object.text("path");
    if !is_token(text) && !text.is_empty() {
        let node = object.get("path")?;
        node.error("a path with a blank or a control character", |finding| {
            finding.hint("write such characters as %20")
        });
        return None;
    }
    Some(if text.starts_with('/') { text.to_owned() } else { format!("/{text}") })
}

/// Reads a text without blanks.
fn word(object: &Object<'_>, key: &str, default: &str) -> Option<String> {
    match object.text(key) {
        "" => Some(default.to_owned()),
        text if is_token(text) => Some(text.to_owned()),
        _ => {
            object.get(key)?.error("a blank or a control character", |finding| finding.allowed("one word"));
            None
        }
    }
}

/// Reads a text of one line.
fn line(object: &Object<'_>, key: &str, text: &str) -> Option<String> {
    if !is_line(text) {
        object.get(key)?.error("a control character", |finding| finding.allowed("one line of text"));
        return None;
    }
    Some(text.to_owned())
}

fn is_token(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| !c.is_control() && !c.is_whitespace())
}

fn is_line(text: &str) -> bool {
    !text.chars().any(char::is_control)
}
