//! Share links become configs and configs become share links.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use vmesskit::config::{
    Config, OutboundProtocol, Severity, Transport, parse, parse_share_link, to_share_link, validate_config,
};
use vmesskit::error::ErrorKind;

const ID: &str = "b831381d-6324-4d53-ad4f-8cda48b30811";

/// A link in v2rayN's form.
fn link(object: &Value) -> String {
    format!("vmess://{}", STANDARD.encode(object.to_string()))
}

/// The least that a link holds, with more members.
fn link_with(more: Value) -> String {
    let mut object = json!({ "v": "2", "ps": "home", "add": "example.com", "port": "443", "id": ID });
    let members = object.as_object_mut().expect("an object");
    members.extend(more.as_object().expect("an object").clone());
    link(&object)
}

/// The config of a link as JSON.
fn json_of(link: &str) -> Value {
    let text = parse_share_link(link).unwrap_or_else(|error| panic!("{link}: {error}"));
    serde_json::from_str(&text).expect("json")
}

/// The outbound in the config of a link.
fn outbound_of(link: &str) -> Value {
    json_of(link)["outbounds"][0].clone()
}

/// The config of a link, which this version serves.
fn config_of(link: &str) -> Config {
    let parsed = parse(&parse_share_link(link).expect("a link"));
    parsed.config.unwrap_or_else(|| panic!("{:?}", parsed.diagnostics))
}

fn written(link: &str) -> Value {
    let body = link.strip_prefix("vmess://").expect("the scheme");
    serde_json::from_slice(&STANDARD.decode(body).expect("base64")).expect("json")
}

#[test]
fn a_link_becomes_a_config_that_runs() {
    for link in [link_with(json!({})), format!("vmess://{ID}@example.com:443#home")] {
        let config = config_of(&link);
        let (tun, _) = config.tun().expect("a tun inbound");
        assert_eq!(&*tun.tag, "tun");
        assert_eq!(config.inbounds.len(), 2);
        assert_eq!(&*config.outbounds[0].tag, "home");
        let OutboundProtocol::Vmess(vmess) = &config.outbounds[0].protocol else { panic!("no vmess") };
        assert_eq!(vmess.servers[0].target.to_string(), "example.com:443");
        assert_eq!(vmess.servers[0].users[0].id.to_text(), ID);
        let text = parse_share_link(&link).expect("a link");
        assert_eq!(validate_config(&text), [], "nothing to remark on");
    }
}

#[test]
fn base64_is_read_however_it_was_written() {
    let object =
        json!({ "v": 2, "ps": "??>>~~家", "add": " [2001:db8::1] ", "port": 443.0, "id": ID, "aid": "" });
    let text = object.to_string();
    let standard = STANDARD.encode(&text);
    let wrapped: Vec<&str> =
        standard.as_bytes().chunks(20).map(|c| std::str::from_utf8(c).expect("ascii")).collect();
    for body in [
        standard.clone(),
        standard.trim_end_matches('=').to_owned(),
        URL_SAFE_NO_PAD.encode(&text),
        wrapped.join("\r\n"),
        format!("{standard}#some%20name"),
        standard.replace('=', "%3D").replace('+', "%2B"),
        STANDARD.encode(format!("\u{feff}{text}\n")),
    ] {
        for scheme in ["vmess://", "VMess://", "  vmess://"] {
            let config = config_of(&format!("{scheme}{body}"));
            assert_eq!(&*config.outbounds[0].tag, "??>>~~家");
            let OutboundProtocol::Vmess(vmess) = &config.outbounds[0].protocol else { panic!("no vmess") };
            assert_eq!(vmess.servers[0].target.to_string(), "[2001:db8::1]:443");
        }
    }
}

#[test]
fn members_are_read_in_every_type_and_under_old_names() {
    let user = |more: Value| outbound_of(&link_with(more))["settings"]["vnext"][0]["users"][0].clone();
    for (aid, number) in [(json!("4"), 4), (json!(4), 4), (json!(""), 0), (json!(null), 0), (json!("0.0"), 0)]
    {
        assert_eq!(user(json!({ "aid": aid }))["alterId"], number);
    }
    assert_eq!(user(json!({ "alterId": 2 }))["alterId"], 2);
    for (scy, security) in [
        ("", "auto"),
        ("AES-128-GCM", "aes-128-gcm"),
        ("chacha20-poly1305", "chacha20-poly1305"),
        ("none", "none"),
        ("zero", "zero"),
        ("chacha20-ietf-poly1305", "auto"),
        ("aes-128-cfb", "aes-128-cfb"),
    ] {
        assert_eq!(user(json!({ "scy": scy }))["security"], security, "{scy}");
        assert_eq!(user(json!({ "security": scy }))["security"], security, "{scy}");
    }
    let tag = |more: Value| outbound_of(&link_with(more))["tag"].clone();
    assert_eq!(tag(json!({ "ps": 7 })), "7");
    assert_eq!(tag(json!({ "ps": null, "remarks": "r" })), "r");
    assert_eq!(tag(json!({ "ps": "" })), "proxy");
    assert_eq!(outbound_of(&format!("{}#a%20b", link_with(json!({ "ps": "" }))))["tag"], "a b");
    for (tls, security) in [
        (json!("tls"), "tls"),
        (json!(true), "tls"),
        (json!("1"), "tls"),
        (json!("xtls"), "tls"),
        (json!("reality"), "reality"),
    ] {
        assert_eq!(outbound_of(&link_with(json!({ "tls": tls })))["streamSettings"]["security"], security);
    }
    for tls in [json!(""), json!("none"), json!(false), json!(null)] {
        assert_eq!(outbound_of(&link_with(json!({ "tls": tls }))).get("streamSettings"), None);
    }
}

/// The members of v2rayN's form, the query of the URI form, and the `streamSettings` of both.
fn carriers() -> Vec<(Value, &'static str, Value)> {
    vec![
        (
            json!({ "net": "tcp", "type": "http", "host": "a.com,b.com", "path": "/x,/y" }),
            "type=tcp&headerType=http&host=a.com%2Cb.com&path=%2Fx%2C%2Fy",
            json!({ "network": "tcp", "tcpSettings": { "header": { "type": "http",
                "request": { "path": ["/x", "/y"], "headers": { "Host": ["a.com", "b.com"] } } } } }),
        ),
        (
            json!({ "net": "kcp", "type": "srtp", "path": "seed" }),
            "type=kcp&headerType=srtp&seed=seed",
            json!({ "network": "kcp", "kcpSettings": { "header": { "type": "srtp" }, "seed": "seed" } }),
        ),
        (
            json!({ "net": "ws", "host": "h.com", "path": "/p?ed=2048", "tls": "tls", "sni": "s.com", "alpn": "h2,http/1.1", "fp": "chrome" }),
            "type=ws&host=h.com&path=%2Fp%3Fed%3D2048&security=tls&sni=s.com&alpn=h2%2Chttp%2F1.1&fp=chrome",
            json!({ "network": "ws",
                "wsSettings": { "path": "/p", "headers": { "Host": "h.com" }, "maxEarlyData": 2048, "earlyDataHeaderName": "Sec-WebSocket-Protocol" },
                "security": "tls",
                "tlsSettings": { "serverName": "s.com", "alpn": ["h2", "http/1.1"], "fingerprint": "chrome" } }),
        ),
        (
            json!({ "net": "ws", "path": "/p?ed=100&eh=X-Early" }),
            "type=ws&path=%2Fp&ed=100&eh=X-Early",
            json!({ "network": "ws", "wsSettings": { "path": "/p", "maxEarlyData": 100, "earlyDataHeaderName": "X-Early" } }),
        ),
        (
            json!({ "net": "h2", "host": "a.com,b.com", "path": "/p", "tls": "tls", "allowInsecure": 1 }),
            "type=http&host=a.com,b.com&path=/p&security=tls&allowInsecure=1",
            json!({ "network": "h2", "httpSettings": { "host": ["a.com", "b.com"], "path": "/p" },
                "security": "tls", "tlsSettings": { "allowInsecure": true } }),
        ),
        (
            json!({ "net": "quic", "type": "dtls", "host": "aes-128-gcm", "path": "k" }),
            "type=quic&headerType=dtls&quicSecurity=aes-128-gcm&key=k",
            json!({ "network": "quic", "quicSettings": { "security": "aes-128-gcm", "key": "k", "header": { "type": "dtls" } } }),
        ),
        (
            json!({ "net": "grpc", "type": "multi", "host": "auth", "path": "svc" }),
            "type=grpc&mode=multi&authority=auth&serviceName=svc",
            json!({ "network": "grpc", "grpcSettings": { "serviceName": "svc", "authority": "auth", "multiMode": true } }),
        ),
        (
            json!({ "net": "httpupgrade", "host": "h.com", "path": "/p" }),
            "type=httpupgrade&host=h.com&path=%2Fp",
            json!({ "network": "httpupgrade", "httpupgradeSettings": { "host": "h.com", "path": "/p" } }),
        ),
        (
            json!({ "net": "xhttp", "type": "packet-up", "host": "h.com", "path": "/p" }),
            "type=xhttp&mode=packet-up&host=h.com&path=%2Fp",
            json!({ "network": "xhttp", "xhttpSettings": { "host": "h.com", "path": "/p", "mode": "packet-up" } }),
        ),
    ]
}

#[test]
fn every_transport_is_carried_over_from_both_forms() {
    for (members, query, stream) in carriers() {
        let from_json = outbound_of(&link_with(members.clone()));
        assert_eq!(from_json["streamSettings"], stream, "{members}");
        let from_uri = outbound_of(&format!("vmess://{ID}@example.com:443?encryption=auto&{query}#home"));
        assert_eq!(from_uri, from_json, "{query}");
    }
}

#[test]
fn a_server_without_a_name_is_asked_for_the_one_of_http() {
    for (members, name) in [
        (json!({ "net": "h2", "host": "a.com,b.com" }), "a.com"),
        (json!({ "net": "grpc", "host": "auth.com", "path": "svc" }), "auth.com"),
        (json!({ "net": "grpc", "host": "auth.com", "path": "svc", "sni": "own.com" }), "own.com"),
    ] {
        let mut link = json!({ "tls": "tls", "add": "192.0.2.1" });
        let (into, from) = (link.as_object_mut().expect("members"), members.as_object().expect("members"));
        into.extend(from.clone());
        let outbound = outbound_of(&link_with(link));
        assert_eq!(outbound["streamSettings"]["tlsSettings"]["serverName"], name, "{members}");
    }
}

#[test]
fn the_transports_of_links_run_and_what_has_no_effect_is_named() {
    for (members, _, stream) in carriers() {
        let findings = validate_config(&parse_share_link(&link_with(members)).expect("a link"));
        let (errors, warnings): (Vec<_>, Vec<_>) =
            findings.into_iter().partition(|finding| finding.severity == Severity::Error);
        if stream["network"] == "xhttp" {
            assert!(errors[0].text.contains("not supported by this version"), "{}", errors[0]);
            assert!(errors[0].path.starts_with("outbounds[0].streamSettings"), "{}", errors[0]);
            continue;
        }
        assert!(errors.is_empty(), "{stream}: {errors:?}");
        for (key, words) in [("fingerprint", "rustls' own"), ("allowInsecure", "not verified")] {
            let path = format!("outbounds[0].streamSettings.tlsSettings.{key}");
            let warning = warnings.iter().find(|warning| warning.path == path);
            let expected = !stream["tlsSettings"][key].is_null();
            assert_eq!(
                warning.is_some_and(|warning| warning.to_string().contains(words)),
                expected,
                "{stream}"
            );
        }
    }
    let unknown = parse_share_link(&link_with(json!({ "net": "carrier-pigeon" }))).expect("a link");
    let finding = validate_config(&unknown).into_iter().next().expect("a finding");
    assert_eq!(
        (finding.path.as_str(), finding.text.as_str()),
        ("outbounds[0].streamSettings.network", "unknown transport")
    );
}

#[test]
fn a_link_says_how_websocket_and_upgrades_are_spoken() {
    let ws = |path: &str, more: &str| {
        let config = config_of(&format!("vmess://{ID}@example.com:443?type=ws&path={path}{more}"));
        let stream = config.outbounds[0].stream.clone();
        let Transport::Ws(ws) = stream.transport else { panic!("no WebSocket") };
        (ws, stream.tls)
    };
    let protocol = Some("Sec-WebSocket-Protocol".to_owned());
    for (path, more, expected, early, header) in [
        ("%2Fray", "", "/ray", 0, None),
        ("%2Fray%3Fed%3D2048", "", "/ray", 2048, protocol.clone()),
        ("%2Fray%3Fa%3Db%26ed%3D64", "", "/ray?a=b", 64, protocol.clone()),
        ("%2Fray%3Fed%3D2048%26eh%3DX-Early", "", "/ray", 2048, Some("X-Early".to_owned())),
        ("%2Fray", "&ed=100", "/ray", 100, protocol),
    ] {
        let (ws, tls) = ws(path, more);
        assert_eq!((ws.path.as_str(), ws.max_early_data, ws.early_data_header), (expected, early, header));
        assert!(ws.host.is_none() && tls.is_none());
    }
    let (front, tls) = ws("%2F", "&host=front.test&security=tls&sni=s.test&alpn=http%2F1.1&fp=firefox");
    let tls = tls.expect("TLS");
    assert_eq!(front.host.as_deref(), Some("front.test"));
    assert_eq!((tls.server_name.as_deref(), tls.alpn), (Some("s.test"), Some(vec!["http/1.1".to_owned()])));
    let config = config_of(&format!("vmess://{ID}@example.com:443?type=httpupgrade&path=up&host=h.test"));
    let Transport::HttpUpgrade(upgrade) = &config.outbounds[0].stream.transport else { panic!("no upgrade") };
    assert_eq!((upgrade.path.as_str(), upgrade.host.as_deref()), ("/up", Some("h.test")));
}

#[test]
fn a_config_goes_through_a_link_unchanged() {
    let mut links: Vec<String> = carriers().into_iter().map(|(members, _, _)| link_with(members)).collect();
    links.push(link_with(json!({})));
    links.push(link_with(json!({ "ps": "", "scy": "zero", "aid": 3, "add": "::1", "port": 65535 })));
    links.push("vmess://short%20id@example.com:1?encryption=none#%E5%AE%B6".to_owned());
    for link in links {
        let config = parse_share_link(&link).expect("a link");
        let again = to_share_link(&config).expect("a vmess outbound");
        assert_eq!(parse_share_link(&again).as_deref(), Ok(config.as_str()));
        assert_eq!(to_share_link(&config).as_deref(), Ok(again.as_str()), "the same each time");
    }
}

#[test]
fn written_links_hold_every_key_as_a_text() {
    let config = format!(
        r#"{{ // a comment
            "outbounds": [
                {{ "protocol": "freedom" }},
                {{ "protocol": "VMess", "tag": "家", "settings": {{ "vnext": [
                    {{ "address": "[::1]", "port": 10086, "users": [{{ "id": "{ID}", "alterId": 0 }}, {{ "id": "other" }}] }},
                    {{ "address": "second", "port": 1, "users": [] }}
                ] }} }}
            ]
        }}"#
    );
    let object = written(&to_share_link(&config).expect("a link"));
    for key in [
        "v", "ps", "add", "port", "id", "aid", "scy", "net", "type", "host", "path", "tls", "sni", "alpn",
        "fp",
    ] {
        assert!(object[key].is_string(), "{key}");
    }
    for (key, value) in [
        ("v", "2"),
        ("ps", "家"),
        ("add", "::1"),
        ("port", "10086"),
        ("id", ID),
        ("aid", "0"),
        ("scy", "auto"),
        ("net", "tcp"),
        ("type", "none"),
        ("host", ""),
        ("tls", ""),
    ] {
        assert_eq!(object[key], value, "{key}");
    }
}

#[test]
fn version_1_keeps_path_and_host_in_one_member() {
    let old = |host: &str| {
        let object = json!({ "ps": "p", "add": "a", "port": 1, "id": ID, "net": "ws", "host": host });
        outbound_of(&link(&object))["streamSettings"]["wsSettings"].clone()
    };
    assert_eq!(old("/p;h.com"), json!({ "path": "/p", "headers": { "Host": "h.com" } }));
    assert_eq!(old("/p"), json!({ "path": "/p" }));
    assert_eq!(
        old("h.com"),
        json!({ "headers": { "Host": "h.com" } }),
        "no path: it is a host, whatever the version"
    );
}

#[test]
fn uris_are_read_with_all_their_encodings() {
    let outbound = outbound_of(&format!(
        "vmess://{ID}@[2001:db8::2]:8443/?type=grpc&serviceName=a%2Fb%26c#%F0%9F%87%A9%20x"
    ));
    assert_eq!(outbound["tag"], "🇩 x");
    assert_eq!(outbound["settings"]["vnext"][0]["address"], "2001:db8::2");
    assert_eq!(outbound["settings"]["vnext"][0]["port"], 8443);
    assert_eq!(outbound["streamSettings"]["grpcSettings"]["serviceName"], "a/b&c");
    let reality =
        outbound_of(&format!("vmess://{ID}@h:1?security=reality&pbk=K&sid=01&spx=%2F&sni=s&fp=chrome"));
    let wanted = json!({ "serverName": "s", "fingerprint": "chrome", "publicKey": "K", "shortId": "01", "spiderX": "/" });
    assert_eq!(reality["streamSettings"]["realitySettings"], wanted);
    let extra = outbound_of(&format!("vmess://{ID}@h:1?type=xhttp&extra=%7B%22a%22%3A1%7D"));
    assert_eq!(extra["streamSettings"]["xhttpSettings"]["extra"], json!({ "a": 1 }));
}

#[test]
fn broken_links_say_what_is_wrong() {
    let without = |key: &str| {
        let mut object = json!({ "v": "2", "add": "example.com", "port": "443", "id": ID });
        object.as_object_mut().expect("an object").remove(key);
        link(&object)
    };
    let encoded = |text: &str| format!("vmess://{}", STANDARD.encode(text));
    for (link, text) in [
        (String::new(), "no vmess:// link"),
        ("vless://x".to_owned(), "no vmess:// link"),
        ("vmess:/".to_owned(), "no vmess:// link"),
        ("vmes\u{2215}://x".to_owned(), "no vmess:// link"),
        ("vmess://".to_owned(), "neither base64"),
        ("vmess://%%%".to_owned(), "neither base64"),
        ("vmess://AAAA".to_owned(), "neither base64"),
        (encoded("{\"add\": "), "neither base64"),
        (encoded("[1]"), "neither base64"),
        (encoded(&format!("auto:{ID}@host:443")), "Shadowrocket"),
        (encoded("x = vmess,host,443,none,\"id\""), "Quantumult"),
        (format!("vmess://ws+tls:{ID}-0@host:443"), "early draft"),
        (without("add"), "no server"),
        (without("port"), "no port"),
        (without("id"), "no id"),
        (link_with(json!({ "port": 0 })), "port is not valid"),
        (link_with(json!({ "port": 65536 })), "port is not valid"),
        (link_with(json!({ "port": "x" })), "port is not valid"),
        (link_with(json!({ "port": 443.5 })), "port is not valid"),
        (link_with(json!({ "aid": 65536 })), "alterId (aid) is not valid"),
        (link_with(json!({ "id": "x".repeat(31) })), "id is not valid"),
        (link_with(json!({ "add": "a b" })), "server is not valid"),
        (format!("vmess://{ID}@"), "no port"),
        (format!("vmess://{ID}@host"), "no port"),
        (format!("vmess://{ID}@:1"), "no server"),
        (format!("vmess://{ID}@[::1:443"), "server is not valid"),
        (format!("vmess://{ID}@[::1]443"), "no port"),
        (format!("vmess://{ID}@host:0"), "port is not valid"),
        ("vmess://@host:1".to_owned(), "no id"),
        (format!("vmess://{}", "A".repeat(300_000)), "longer than"),
    ] {
        let error = parse_share_link(&link).expect_err(&link);
        assert_eq!(error.kind, ErrorKind::ConfigInvalid);
        assert!(error.text.contains(text), "{link}: {error}");
        assert!(!error.hint.is_empty(), "{error}");
    }
}

#[test]
fn configs_without_a_usable_vmess_outbound_are_refused() {
    for (config, path, text) in [
        ("{", "line 1, column 2", "ends too early"),
        ("[]", "outbounds", "no vmess outbound"),
        ("{}", "outbounds", "no vmess outbound"),
        (r#"{"outbounds": [{"protocol": "freedom"}]}"#, "outbounds", "no vmess outbound"),
        (r#"{"outbounds": [{"protocol": "vmess"}]}"#, "outbounds[0].settings.vnext[0]", "no server"),
        (
            r#"{"outbounds": [{"protocol": "vmess", "settings": {"vnext": [{"address": "a", "port": "1"}]}}]}"#,
            "outbounds[0].settings.vnext[0].port",
            "port is not valid",
        ),
        (
            r#"{"outbound": {"protocol": "vmess", "settings": {"vnext": [{"address": "a", "port": 1}]}}}"#,
            "outbound.settings.vnext[0].users[0].id",
            "no id",
        ),
    ] {
        let error = to_share_link(config).expect_err(config);
        assert_eq!(error.kind, ErrorKind::ConfigInvalid);
        assert_eq!(error.path, path, "{config}");
        assert!(error.text.contains(text), "{error}");
    }
}

#[test]
fn the_encoding_of_packets_goes_both_ways() {
    for (given, expected) in [("xudp", Some("xudp")), ("packet", Some("packet")), ("none", None), ("x", None)]
    {
        let uri = format!("vmess://{ID}@example.com:443?packetEncoding={given}");
        for link in [uri, link_with(json!({ "packetEncoding": given }))] {
            let outbound = outbound_of(&link);
            assert_eq!(outbound["settings"]["packetEncoding"].as_str(), expected, "{given}");
            let config = parse_share_link(&link).expect("a link");
            assert_eq!(validate_config(&config), []);
            let again = to_share_link(&config).expect("a config");
            assert_eq!(written(&again)["packetEncoding"].as_str(), expected);
            assert_eq!(outbound_of(&again), outbound);
        }
    }
}
