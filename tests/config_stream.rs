//! `streamSettings` of every transport: what they mean, and what is wrong with them.

use std::path::PathBuf;
use std::time::Duration;
use vmesskit::config::{
    CertificateUsage, PacketHeader, PemSource, QuicSecurity, Severity, StreamSettings, Transport, parse,
};

const USER: &str = "b831381d-6324-4d53-ad4f-8cda48b30811";
const PEM: &str = "-----BEGIN CERTIFICATE-----";

/// A config with one vmess outbound that has these `streamSettings`, and further top-level members.
fn config(stream: &str, more: &str) -> String {
    let settings =
        format!(r#"{{"vnext": [{{"address": "a.test", "port": 1, "users": [{{"id": "{USER}"}}]}}]}}"#);
    format!(
        r#"{{"outbounds": [{{"protocol": "vmess", "settings": {settings}, "streamSettings": {stream}}}]{more}}}"#
    )
}

/// The settings that an outbound's `streamSettings` mean.
fn stream(text: &str) -> StreamSettings {
    stream_with(text, "")
}

fn stream_with(text: &str, more: &str) -> StreamSettings {
    let parsed = parse(&config(text, more));
    let config = parsed.config.unwrap_or_else(|| panic!("{text}: {:?}", parsed.diagnostics));
    config.outbounds[0].stream.clone()
}

#[test]
fn nothing_means_raw_tcp() {
    for text in ["{}", r#"{"network": "tcp"}"#, r#"{"network": "RAW", "security": "none"}"#] {
        assert_eq!(stream(text), StreamSettings::default(), "{text}");
    }
}

#[test]
fn the_disguise_as_http_has_v2rays_defaults() {
    let read = |text: &str| match stream(text).transport {
        Transport::Tcp(tcp) => *tcp.header.expect("a header"),
        other => panic!("{other:?}"),
    };
    let header = read(r#"{"tcpSettings": {"header": {"type": "http"}}}"#);
    assert_eq!((header.request.method.as_str(), header.request.version.as_str()), ("GET", "1.1"));
    assert_eq!((header.request.paths, header.request.headers[0].0.as_str()), (vec!["/".to_owned()], "Host"));
    assert_eq!((header.response.status.as_str(), header.response.reason.as_str()), ("200", "OK"));
    let header = read(
        r#"{"tcpSettings": {"header": {"type": "http", "request": {"path": "/a,/b", "headers": {"X": "1", "Host": ["h", "i"]}}}}}"#,
    );
    assert_eq!(header.request.paths, ["/a", "/b"]);
    let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
    assert_eq!(
        header.request.headers,
        [("Host".to_owned(), texts(&["h", "i"])), ("X".to_owned(), texts(&["1"]))]
    );
}

#[test]
fn websocket_early_data_comes_from_keys_or_from_the_path() {
    let read = |text: &str| match stream(text).transport {
        Transport::Ws(ws) => ws,
        other => panic!("{other:?}"),
    };
    assert_eq!(read(r#"{"network": "ws"}"#).path, "/");
    let ws = read(
        r#"{"network": "ws", "wsSettings": {"path": "ray?ed=2048&x=1", "headers": {"Host": "h", "A": "b"}}}"#,
    );
    assert_eq!((ws.path.as_str(), ws.max_early_data, ws.host.as_deref()), ("/ray?x=1", 2048, Some("h")));
    assert_eq!(ws.early_data_header.as_deref(), Some("Sec-WebSocket-Protocol"));
    assert_eq!(ws.headers, [("A".to_owned(), "b".to_owned())]);
    let ws = read(
        r#"{"network": "ws", "wsSettings": {"path": "/", "host": "x", "maxEarlyData": 100, "heartbeatPeriod": 20}}"#,
    );
    assert_eq!((ws.max_early_data, ws.early_data_header, ws.host.as_deref()), (100, None, Some("x")));
    assert_eq!(ws.heartbeat, Some(Duration::from_secs(20)));
}

#[test]
fn the_other_transports_are_read() {
    let Transport::H2(h2) =
        stream(r#"{"network": "h2", "security": "tls", "httpSettings": {"host": ["a", "b"], "path": "x"}}"#)
            .transport
    else {
        panic!("not h2")
    };
    assert_eq!((h2.hosts.len(), h2.path.as_str(), h2.method.as_str()), (2, "/x", "PUT"));
    let Transport::Grpc(grpc) = stream(
        r#"{"network": "gun", "gunSettings": {"serviceName": "s/t", "multiMode": true, "idle_timeout": 60}}"#,
    )
    .transport
    else {
        panic!("not grpc")
    };
    assert_eq!(
        (grpc.service.as_str(), grpc.multi, grpc.idle_timeout),
        ("s/t", true, Some(Duration::from_secs(60)))
    );
    let Transport::HttpUpgrade(upgrade) =
        stream(r#"{"network": "httpupgrade", "httpupgradeSettings": {"path": "/u?ed=2560", "host": "h"}}"#)
            .transport
    else {
        panic!("not httpupgrade")
    };
    assert_eq!((upgrade.path.as_str(), upgrade.host.as_deref()), ("/u", Some("h")));
    let Transport::Kcp(kcp) = stream(
        r#"{"network": "mkcp", "kcpSettings": {"mtu": 1200, "tti": 20, "readBufferSize": 0, "seed": "s", "header": {"type": "wechat-video"}}}"#,
    )
    .transport
    else {
        panic!("not kcp")
    };
    assert_eq!(
        (kcp.mtu, kcp.tti, kcp.read_buffer, kcp.write_buffer),
        (1200, Duration::from_millis(20), 512 << 10, 2 << 20)
    );
    assert_eq!(
        (kcp.header, kcp.seed.as_ref().map(|seed| seed.expose())),
        (PacketHeader::WechatVideo, Some("s"))
    );
    let Transport::Quic(quic) = stream(
        r#"{"network": "quic", "quicSettings": {"security": "chacha20-poly1305", "key": "k", "header": {"type": "srtp"}}}"#,
    )
    .transport
    else {
        panic!("not quic")
    };
    assert_eq!(
        (quic.security, quic.key.expose(), quic.header),
        (QuicSecurity::Chacha20Poly1305, "k", PacketHeader::Srtp)
    );
    let Transport::Unix(unix) =
        stream(r#"{"network": "ds", "dsSettings": {"path": "/run/v.sock"}}"#).transport
    else {
        panic!("not a domain socket")
    };
    assert_eq!((unix.path, unix.is_abstract), (PathBuf::from("/run/v.sock"), false));
}

#[test]
fn what_a_stream_leaves_out_comes_from_the_top_level() {
    let more = r#", "transport": {"wsSettings": {"path": "/global"}}"#;
    let path = |stream: StreamSettings| match stream.transport {
        Transport::Ws(ws) => ws.path,
        other => panic!("{other:?}"),
    };
    assert_eq!(path(stream_with(r#"{"network": "ws"}"#, more)), "/global");
    assert_eq!(path(stream_with(r#"{"network": "ws", "wsSettings": {"path": "/own"}}"#, more)), "/own");
}

#[test]
fn tls_is_read_whole() {
    assert!(stream(r#"{"security": "tls"}"#).tls.is_some_and(|tls| tls.session_resumption));
    let pin = "a".repeat(64);
    let text = format!(
        r#"{{"network": "ws", "security": "tls", "tlsSettings": {{"serverName": "n", "alpn": "h2,http/1.1", "enableSessionResumption": false,
            "disableSystemRoot": true, "certificates": [{{"usage": "verify", "certificate": ["{PEM}", "x"]}}],
            "pinnedPeerCertificateChainSha256": ["47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="], "pinnedPeerCertSha256": "{pin}"}}}}"#
    );
    let tls = stream(&text).tls.expect("tls");
    assert_eq!(tls.server_name.as_deref(), Some("n"));
    assert_eq!(tls.alpn, Some(vec!["h2".to_owned(), "http/1.1".to_owned()]));
    assert!(!tls.session_resumption && tls.disable_system_root);
    assert_eq!(tls.certificates[0].usage, CertificateUsage::Verify);
    let PemSource::Inline(pem) = &tls.certificates[0].chain else { panic!("not inline") };
    assert_eq!(pem.expose(), format!("{PEM}\nx"));
    assert_eq!(
        (tls.pinned_chains[0][..2].to_vec(), tls.pinned_certificates[0]),
        (vec![0xE3, 0xB0], [0xAA; 32])
    );
    assert!(!format!("{tls:?}").contains("BEGIN"), "keys stay out of debug output");
}

#[test]
fn socket_options_are_read() {
    let sockopt = stream(
        r#"{"sockopt": {"mark": 255, "tcpFastOpen": true, "tcpKeepAliveIdle": 30, "interface": "eth0", "tcpUserTimeout": 1500}}"#,
    )
    .sockopt;
    assert_eq!(
        (sockopt.mark, sockopt.tcp_fast_open, sockopt.device.as_deref()),
        (Some(255), Some(true), Some("eth0"))
    );
    assert_eq!(
        (sockopt.keepalive_idle, sockopt.user_timeout),
        (Some(Duration::from_secs(30)), Some(Duration::from_millis(1500)))
    );
}

/// A config with an outbound on WebSocket and TLS that is dialled through a freedom one by the tag `hop`.
fn chained(stream: &str, proxy: &str) -> vmesskit::config::Parsed {
    let text = config(
        &format!(r#"{{"network": "ws", "wsSettings": {{"path": "/x"}}, "security": "tls"{stream}}}{proxy}"#),
        "",
    );
    let hop = r#"{"outbounds": [{"protocol": "freedom", "tag": "hop"}, "#;
    parse(&text.replacen(r#"{"outbounds": ["#, hop, 1))
}

#[test]
fn what_is_dialled_through_an_outbound_keeps_its_transport_only_if_that_is_said() {
    for (stream, proxy, transport) in [
        ("", r#", "proxySettings": {"tag": "hop"}"#, "tcp"),
        ("", r#", "proxySettings": {"tag": "hop", "transportLayer": true}"#, "ws"),
        (r#", "sockopt": {"dialerProxy": "hop"}"#, "", "ws"),
    ] {
        let parsed = chained(stream, proxy);
        let config = parsed.config.unwrap_or_else(|| panic!("{:?}", parsed.diagnostics));
        let outbound = &config.outbounds[1];
        assert_eq!((outbound.via, outbound.stream.transport.name()), (Some(0), transport));
        assert!(outbound.stream.tls.is_some(), "TLS stays");
        let said = parsed.diagnostics.iter().any(|found| {
            found.path == "outbounds[1].proxySettings.tag"
                && found.text.contains("the transport `ws` is not used")
        });
        assert_eq!(said, transport == "tcp", "{:?}", parsed.diagnostics);
    }
}

#[test]
fn what_a_chained_outbound_cannot_have_is_said() {
    let through = r#", "proxySettings": {"tag": "hop", "transportLayer": true}"#;
    let send = format!(r#"{through}, "sendThrough": "127.0.0.1""#);
    let found = |stream: &str, more: &str, path: &str, words: &str| {
        let parsed = chained(stream, more);
        let found = parsed.diagnostics.iter().find(|found| found.path == format!("outbounds[1].{path}"));
        let found = found.unwrap_or_else(|| panic!("{path}: {:?}", parsed.diagnostics));
        assert!(found.text.contains(words), "{found}");
    };
    found(r#", "sockopt": {"mark": 7}"#, through, "streamSettings.sockopt", "the sockets are those of");
    found("", &send, "sendThrough", "the sockets are those of");
    let both = r#", "sockopt": {"dialerProxy": "hop"}"#;
    found(both, through, "streamSettings.sockopt.dialerProxy", "names an outbound to dial through already");
    let text = config(r#"{"network": "kcp", "sockopt": {"dialerProxy": "hop"}}"#, "");
    let parsed = parse(&text.replacen("[{", r#"[{"protocol": "freedom", "tag": "hop"}, {"#, 1));
    assert!(parsed.config.is_none() && parsed.diagnostics[0].text.contains("`kcp` through another outbound"));
}

#[test]
fn socket_options_that_a_listener_has_not_are_said() {
    let text = r#"{"inbounds": [{"protocol": "vmess", "port": 1, "settings": {"clients": []},
        "streamSettings": {"sockopt": {"tcpFastOpen": true, "dialerProxy": "x", "mark": 3}}}],
        "outbounds": [{"protocol": "freedom"}]}"#;
    let parsed = parse(text);
    assert!(parsed.config.is_some(), "{:?}", parsed.diagnostics);
    for (key, words) in [("tcpFastOpen", "tcpFastOpen"), ("dialerProxy", "for outbounds")] {
        let path = format!("inbounds[0].streamSettings.sockopt.{key}");
        let found = parsed.diagnostics.iter().find(|found| found.path == path);
        let found = found.unwrap_or_else(|| panic!("{key}: {:?}", parsed.diagnostics));
        assert!(found.severity == Severity::Warning && found.text.contains(words), "{found}");
    }
}

#[test]
fn the_top_level_transport_holds_without_stream_settings_too() {
    let settings = format!(r#"{{"vnext": [{{"address": "a", "port": 1, "users": [{{"id": "{USER}"}}]}}]}}"#);
    let text = format!(
        r#"{{"transport": {{"tcpSettings": {{"header": {{"type": "http"}}}}}},
          "inbounds": [{{"protocol": "vmess", "port": 1, "settings": {{"clients": []}}}}],
          "outbounds": [{{"protocol": "vmess", "settings": {settings}}}]}}"#
    );
    let parsed = parse(&text);
    let config = parsed.config.unwrap_or_else(|| panic!("{:?}", parsed.diagnostics));
    let vmesskit::config::InboundProtocol::Vmess(inbound) = &config.inbounds[0].protocol else { panic!() };
    for stream in [&inbound.stream, &config.outbounds[0].stream] {
        assert!(matches!(&stream.transport, Transport::Tcp(tcp) if tcp.header.is_some()), "{stream:?}");
    }
}

#[test]
fn outbounds_are_chained_by_their_tags() {
    let chain = |first: &str, second: &str| {
        let link = |tag: &str| {
            if tag.is_empty() { String::new() } else { format!(r#", "proxySettings": {{"tag": "{tag}"}}"#) }
        };
        let text = format!(
            r#"{{"outbounds": [{{"protocol": "freedom", "tag": "a"{}}}, {{"protocol": "freedom", "tag": "b"{}}}]}}"#,
            link(first),
            link(second)
        );
        parse(&text)
    };
    let config = chain("b", "").config.expect("fine");
    assert_eq!((config.outbounds[0].via, config.outbounds[1].via), (Some(1), None));
    for (first, second, path, text) in [
        ("c", "", "outbounds[0].proxySettings.tag", "no outbound has this tag"),
        ("a", "", "outbounds[0].proxySettings.tag", "comes back"),
        ("b", "a", "outbounds[0].proxySettings.tag", "comes back"),
    ] {
        let parsed = chain(first, second);
        assert!(parsed.config.is_none());
        let found = &parsed.diagnostics[0];
        assert!(found.path == path && found.text.contains(text), "{found}");
    }
}

/// What is wrong, where, and in which words.
#[test]
fn mistakes_are_named() {
    use Severity::{Error, Warning};
    let cases: &[(&str, Severity, &str, &str)] = &[
        (r#""network": "h2""#, Error, "network", "needs TLS"),
        (r#""network": "ds""#, Error, "dsSettings", "missing"),
        (r#""network": "ds", "dsSettings": {"path": " "}"#, Error, "dsSettings.path", "no path"),
        (r#""network": "xhttp""#, Error, "network", "not supported"),
        (r#""network": "kcp", "kcpSettings": {"mtu": 100}"#, Error, "kcpSettings.mtu", "576 to 1460"),
        (
            r#""network": "kcp", "kcpSettings": {"header": {"type": "ssl"}}"#,
            Error,
            "kcpSettings.header.type",
            "unknown disguise",
        ),
        (r#""network": "ws", "wsSettings": {"path": "/a b"}"#, Error, "wsSettings.path", "blank"),
        (
            r#""network": "ws", "wsSettings": {"headers": {"A": "x\ny"}}"#,
            Error,
            "wsSettings.headers.A",
            "cannot carry|can carry",
        ),
        (
            r#""network": "ws", "wsSettings": {"maxEarlyData": 100000}"#,
            Error,
            "wsSettings.maxEarlyData",
            "out of range",
        ),
        (
            r#""network": "ws", "wsSettings": {"acceptProxyProtocol": true}"#,
            Warning,
            "wsSettings.acceptProxyProtocol",
            "for inbounds",
        ),
        (
            r#""network": "httpupgrade", "httpupgradeSettings": {"maxEarlyData": 10}"#,
            Warning,
            "httpupgradeSettings.maxEarlyData",
            "ignored",
        ),
        (r#""network": "grpc", "wsSettings": {"path": "/"}"#, Warning, "wsSettings", "another transport"),
        (
            r#""security": "tls", "tlsSettings": {"allowInsecure": true}"#,
            Warning,
            "tlsSettings.allowInsecure",
            "not verified",
        ),
        (
            r#""security": "tls", "tlsSettings": {"fingerprint": "chrome"}"#,
            Warning,
            "tlsSettings.fingerprint",
            "ignored",
        ),
        (
            r#""security": "tls", "tlsSettings": {"pinnedPeerCertSha256": "zz"}"#,
            Error,
            "tlsSettings.pinnedPeerCertSha256",
            "no hash",
        ),
        (
            r#""security": "tls", "tlsSettings": {"certificates": [{"certificate": "x"}]}"#,
            Error,
            "tlsSettings.certificates[0].certificate",
            "no PEM",
        ),
        (
            r#""security": "tls", "tlsSettings": {"certificates": [{"usage": "verify"}]}"#,
            Error,
            "tlsSettings.certificates[0].certificateFile",
            "missing",
        ),
        (r#""sockopt": {"dialerProxy": "x"}"#, Error, "sockopt.dialerProxy", "no outbound has this tag"),
        (r#""sockopt": {"tcpMaxSeg": 1200}"#, Warning, "sockopt.tcpMaxSeg", "ignored"),
        (r#""sockopt": {"mark": -1}"#, Error, "sockopt.mark", "below 0|out of range"),
    ];
    for (text, severity, path, words) in cases {
        let parsed = parse(&config(&format!("{{{text}}}"), ""));
        let path = format!("outbounds[0].streamSettings.{path}");
        let found = parsed.diagnostics.iter().find(|found| found.path == path);
        let found = found.unwrap_or_else(|| panic!("{text}: {:?}", parsed.diagnostics));
        assert_eq!(found.severity, *severity, "{text}");
        let said = found.to_string();
        assert!(words.split('|').any(|words| said.contains(words)), "{text}: {said}");
        assert_eq!(parsed.config.is_none(), *severity == Error, "{text}");
    }
}
