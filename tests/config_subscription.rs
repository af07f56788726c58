//! Subscriptions: links, base64 of links, and the JSON of several clients, each bad entry a finding.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use vmesskit::config::{Severity, parse};
use vmesskit::{ErrorKind, Subscription, parse_subscription};

const ID: &str = "b831381d-6324-4d53-ad4f-8cda48b30811";

fn object(name: &str, address: &str) -> Value {
    json!({ "v": "2", "ps": name, "add": address, "port": 443, "id": ID, "net": "ws", "path": "/p", "tls": "tls" })
}

/// A link in v2rayN's form.
fn link(name: &str, address: &str) -> String {
    format!("vmess://{}", STANDARD.encode(object(name, address).to_string()))
}

fn read(body: impl AsRef<[u8]>) -> Subscription {
    parse_subscription(body.as_ref()).unwrap_or_else(|error| panic!("{error}"))
}

fn names(found: &Subscription) -> Vec<&str> {
    found.servers.iter().map(|server| server.name.as_str()).collect()
}

/// The severity's first letter and the path of each finding.
fn findings(found: &Subscription) -> Vec<(char, &str)> {
    let letter = |severity| if severity == Severity::Error { 'e' } else { 'w' };
    found.diagnostics.iter().map(|finding| (letter(finding.severity), finding.path.as_str())).collect()
}

#[test]
fn links_are_read_as_they_are_and_as_base64() {
    let uri = format!("vmess://{ID}@b.example:1234?type=tcp#b");
    let list = format!("{}\r\n\r\n# a comment\r\nSTATUS=12 GB left\r\n  {uri}  \r\n", link("a", "a.example"));
    let wrapped: Vec<String> = STANDARD
        .encode(&list)
        .as_bytes()
        .chunks(76)
        .map(|line| String::from_utf8_lossy(line).into_owned())
        .collect();
    for body in [
        list.clone(),
        format!("\u{feff}{list}"),
        STANDARD.encode(&list),
        STANDARD.encode(&list).trim_end_matches('=').to_owned(),
        URL_SAFE_NO_PAD.encode(&list),
        wrapped.join("\r\n") + "\n",
    ] {
        let found = read(&body);
        assert_eq!((names(&found), findings(&found)), (vec!["a", "b"], vec![]), "{body}");
        for server in &found.servers {
            let parsed = parse(&server.config);
            assert!(parsed.config.is_some(), "{:?}", parsed.diagnostics);
            assert!(server.config.contains(".example"));
        }
        assert!(!format!("{found:?}").contains(ID));
    }
}

#[test]
fn a_bad_line_is_a_finding_and_no_more() {
    let body = [
        link("a", "a.example"),
        "ss://YWVzLTEyOC1nY206eA@s.example:1".to_owned(),
        "vmess://!!!".to_owned(),
        format!("vmess://{ID}@c.example:0"),
        "just words".to_owned(),
        link("", "d.example"),
    ]
    .join("\n");
    let found = read(&body);
    assert_eq!(names(&found), ["a", "d.example"], "a server without a name is called by its address");
    assert_eq!(
        findings(&found),
        [('w', "line 2"), ('e', "line 3"), ('e', "line 4"), ('e', "line 5")],
        "{:?}",
        found.diagnostics
    );
    assert!(found.diagnostics[0].text.contains("(ss)") && found.diagnostics[2].allowed.contains("65535"));
    assert!(!format!("{:?}", found.diagnostics).contains(ID));
}

#[test]
fn a_config_that_cannot_be_used_is_named_inside_of_its_line() {
    let mut reality = object("r", "r.example");
    reality["tls"] = "reality".into();
    let body = format!(
        "{}\n{}\n",
        link("a", "a.example"),
        format_args!("vmess://{}", STANDARD.encode(reality.to_string()))
    );
    let found = read(&body);
    assert_eq!(names(&found), ["a"]);
    assert!(found.diagnostics.iter().all(|finding| finding.path.starts_with("line 2: outbounds[0].")));
    assert!(!found.diagnostics.is_empty());
}

#[test]
fn json_of_several_clients_is_read() {
    let outbound = |tag: &str| {
        json!({ "tag": tag, "protocol": "vmess", "settings": { "vnext": [
            { "address": "o.example", "port": 1, "users": [{ "id": ID }] }] } })
    };
    let config = json!({ "remarks": "whole", "outbounds": [outbound("proxy"), { "protocol": "freedom", "tag": "direct" }],
        "routing": { "rules": [{ "type": "field", "port": "25", "outboundTag": "direct" }] } });
    let odd = json!({ "remarks": "odd", "inbounds": [{ "protocol": "wireguard", "port": 1 }], "outbounds": [outbound("x")] });
    let list = json!([link("link", "l.example"), object("object", "v.example"), config, odd, outbound("bare"),
        { "outbounds": [{ "protocol": "freedom" }] }, 7, { "add": "n.example" }]);
    let found = read(list.to_string());
    assert_eq!(names(&found), ["link", "object", "whole", "odd", "bare"], "{:?}", found.diagnostics);
    assert_eq!(
        findings(&found),
        [('w', "[3].inbounds[0].protocol"), ('w', "[5].outbounds"), ('e', "[6]"), ('e', "[7]")]
    );
    let whole: Value = serde_json::from_str(&found.servers[2].config).expect("json");
    assert_eq!((&whole["remarks"], &whole["routing"]["rules"][0]["port"]), (&Value::Null, &"25".into()));
    let odd: Value = serde_json::from_str(&found.servers[3].config).expect("json");
    assert_eq!(
        odd["inbounds"][0]["protocol"], "tun",
        "an inbound that is unknown here goes, the server stays"
    );
    let alone = read(config.to_string());
    assert_eq!((names(&alone), alone.diagnostics.len()), (vec!["whole"], 0));
}

#[test]
fn sing_boxes_outbounds_are_read() {
    let body = json!({ "log": {}, "outbounds": [
        { "type": "selector", "tag": "all", "outbounds": ["ws"] },
        { "type": "vmess", "tag": "ws", "server": "w.example", "server_port": 443, "uuid": ID, "security": "auto",
          "packet_encoding": "xudp", "tls": { "enabled": true, "server_name": "sni.example", "alpn": "http/1.1" },
          "transport": { "type": "ws", "path": "/w", "headers": { "Host": ["h.example"] }, "max_early_data": 2048,
                         "early_data_header_name": "Sec-WebSocket-Protocol" } },
        { "type": "vmess", "tag": "old", "server": "192.0.2.1", "server_port": 1, "uuid": ID, "alter_id": 4 },
        { "type": "vmess", "tag": "broken", "server": "x.example", "uuid": ID },
    ] });
    let found = read(body.to_string());
    assert_eq!(names(&found), ["ws", "old"], "{:?}", found.diagnostics);
    assert_eq!(findings(&found), [('e', "outbounds[3]")]);
    let ws: Value = serde_json::from_str(&found.servers[0].config).expect("json");
    let (ws, stream) = (&ws["outbounds"][0], &ws["outbounds"][0]["streamSettings"]);
    assert_eq!(
        (&stream["security"], &stream["tlsSettings"]["serverName"]),
        (&"tls".into(), &"sni.example".into())
    );
    assert_eq!(
        (&stream["wsSettings"]["path"], &ws["settings"]["packetEncoding"]),
        (&"/w".into(), &"xudp".into())
    );
    let old: Value = serde_json::from_str(&found.servers[1].config).expect("json");
    assert_eq!(old["outbounds"][0]["settings"]["vnext"][0]["users"][0]["alterId"], 4);
}

#[test]
fn what_is_no_subscription_is_an_error() {
    let sip = json!({ "version": 1, "servers": [{ "server": "s", "server_port": 1 }] }).to_string();
    let clash = "port: 7890\nproxies:\n  - {name: a, type: vmess}\n";
    for (body, text) in [
        ("", "empty"),
        (" \r\n", "empty"),
        ("<!doctype html><html>", "a web page"),
        (clash, "Clash"),
        (sip.as_str(), "SIP008"),
        ("aGVsbG8gd29ybGQ=", "neither"),
        ("hello world", "neither"),
        ("\0\u{1}", "neither"),
    ] {
        let error = parse_subscription(body.as_bytes()).expect_err(body);
        assert_eq!(error.kind, ErrorKind::ConfigInvalid);
        assert!(error.text.contains(text) && !error.hint.is_empty(), "{body}: {error}");
    }
    let error = parse_subscription(&vec![b'\n'; (4 << 20) + 1]).expect_err("too long");
    assert!(error.text.contains("longer"), "{error}");
    assert_eq!(parse_subscription(&[0xff; 64]).map_err(|error| error.kind), Err(ErrorKind::ConfigInvalid));
    let broken = read("[{\"add\": ");
    assert_eq!((broken.servers.len(), findings(&broken)[0]), (0, ('e', "line 1, column 9")));
}

#[test]
fn what_grows_is_bounded() {
    let many = format!("vmess://{ID}@a.example:1\n").repeat(5100);
    let found = read(&many);
    assert_eq!(found.servers.len(), 5000);
    assert_eq!(findings(&found), [('w', "line 5001")]);
    let bad = "vmess://x\n".repeat(100_000);
    let found = read(&bad);
    assert!(
        found.diagnostics.len() < 500
            && found.diagnostics.last().expect("some").text.contains("more findings")
    );
    let deep = "[".repeat(100_000);
    assert!(read(&deep).servers.is_empty());
    let named = format!("vmess://{ID}@a.example:1#{}\n", "n".repeat(100_000));
    assert!(read(&named).servers[0].name.len() <= 200);
}
