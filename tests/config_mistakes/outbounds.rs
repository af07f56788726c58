//! Mistakes in outbounds.

use super::check;
use vmesskit::config::Severity::{Error, Warning};

#[test]
fn any_outbound() {
    check(
        r#"{"outbounds": *}"#,
        "outbounds",
        &[
            ("null", Error, "", "no outbound"),
            ("[]", Error, "", "at least one outbound"),
            ("{}", Error, "", "a list"),
            (r#"[{"tag": "x"}]"#, Error, "[0].protocol", "allowed: vmess, freedom, blackhole"),
            (r#"[{"protocol": "vmes"}]"#, Error, "[0].protocol", "did you mean `vmess`?"),
            (
                r#"[{"protocol": "shadowsocks"}]"#,
                Error,
                "[0].protocol",
                "`shadowsocks` is not supported by this version",
            ),
            (
                r#"[{"protocol": "freedom", "tag": "a"}, {"protocol": "blackhole", "tag": "a"}]"#,
                Error,
                "[1].tag",
                r#"found "a""#,
            ),
            (
                r#"[{"protocol": "blackhole", "settings": {"response": {}}}]"#,
                Error,
                "[0].settings.response.type",
                "none, http",
            ),
            (
                r#"[{"protocol": "blackhole", "settings": {"response": {"type": "html"}}}]"#,
                Error,
                "[0].settings.response.type",
                "none, http",
            ),
            (
                r#"[{"protocol": "blackhole", "streamSettings": {"network": "ws"}}]"#,
                Warning,
                "[0].streamSettings",
                "no effect",
            ),
        ],
    );
}

#[test]
fn freedom_outbounds() {
    check(
        r#"{"outbounds": [{"protocol": "freedom", *}]}"#,
        "outbounds[0].",
        &[
            (r#""tag": 1"#, Error, "tag", "wrong type"),
            (r#""sendThrough": "a.com""#, Error, "sendThrough", "not an IP address"),
            (r#""proxySettings": {"tag": "b"}"#, Error, "proxySettings.tag", "no outbound has this tag"),
            (r#""proxySettings": {}"#, Error, "proxySettings.tag", "missing"),
            (
                r#""mux": {"enabled": true}"#,
                Warning,
                "mux",
                "no VMess server that could take the flows apart",
            ),
            (r#""mux": {"concurrency": -32769}"#, Error, "mux.concurrency", "below 0"),
            (r#""mux": {"xudpConcurrency": 1025}"#, Error, "mux.xudpConcurrency", "1 to 1024"),
            (r#""mux": {"xudpProxyUDP443": "drop"}"#, Error, "mux.xudpProxyUDP443", "reject, allow, skip"),
            (r#""mux": {"packetEncoding": "udp"}"#, Error, "mux.packetEncoding", "did you mean `xudp`?"),
            (r#""mux": {"concurency": 8}"#, Warning, "mux.concurency", "did you mean `concurrency`?"),
            (r#""mux": {"concurrency": 1025}"#, Error, "mux.concurrency", "1 to 1024"),
            (r#""mux": {"enabled": 1}"#, Error, "mux.enabled", "true or false"),
            (
                r#""settings": {"domainStrategy": "UseIPv5"}"#,
                Error,
                "settings.domainStrategy",
                "AsIs, UseIP, UseIPv4, UseIPv6",
            ),
            (r#""settings": {"redirect": "1.1.1.1"}"#, Error, "settings.redirect", "host:port"),
            (r#""settings": {"redirect": "::1:53"}"#, Error, "settings.redirect", "not a target"),
            (r#""settings": {"redirect": ":0"}"#, Error, "settings.redirect", "1 to 65535"),
        ],
    );
}

#[test]
fn carriers() {
    check(
        r#"{"outbounds": [{"protocol": "vmess", "settings": {"vnext": [{"address": "a", "port": 1, "users": [{"id": "$"}]}]}, "streamSettings": {*}}]}"#,
        "outbounds[0].streamSettings.",
        &[
            (r#""network": """#, Error, "network", "unknown transport"),
            (r#""network": "wss""#, Error, "network", "did you mean `ws`?"),
            (r#""network": 1"#, Error, "network", "wrong type"),
            (
                r#""network": "xhttp""#,
                Error,
                "network",
                "the transport `xhttp` is not supported by this version",
            ),
            (r#""network": "h2""#, Error, "network", "HTTP/2 needs TLS"),
            (r#""network": "WS", "kcpSettings": {"mtu": 1000}"#, Warning, "kcpSettings", "no effect"),
            (r#""security": "reality""#, Error, "security", "not supported by this version"),
            (r#""security": "ssl""#, Error, "security", "allowed: none, tls"),
            (r#""tlsSettings": {"serverName": "a"}"#, Warning, "tlsSettings", "does not turn it on"),
            (r#""tcpSettings": {"header": {}}"#, Error, "tcpSettings.header.type", "missing"),
            (r#""tcpSettings": {"header": {"type": "dns"}}"#, Error, "tcpSettings.header.type", "none, http"),
            (r#""sockopt": {"mark": "255"}"#, Error, "sockopt.mark", "written as a text"),
            (r#""sockopt": {"tproxy": "tproxy"}"#, Error, "sockopt.tproxy", "transparent proxy"),
            (r#""sockopt": {"tcpMaxSeg": 1200}"#, Warning, "sockopt.tcpMaxSeg", "ignored"),
            (r#""sockopt": {"marc": 1}"#, Warning, "sockopt.marc", "did you mean `mark`?"),
        ],
    );
}

#[test]
fn vmess_settings() {
    check(
        r#"{"outbounds": [{"protocol": "vmess", "settings": *}]}"#,
        "outbounds[0].settings.",
        &[
            ("{}", Error, "vnext", "missing"),
            ("null", Error, "vnext", "missing"),
            (r#"{"vnext": []}"#, Error, "vnext", "there is no server"),
            (r#"{"vnext": {"address": "a"}}"#, Error, "vnext", "a list"),
            (
                r#"{"packetEncoding": "xupd", "vnext": [{"address": "a", "port": 1, "users": [{"id": "$"}]}]}"#,
                Error,
                "packetEncoding",
                "unknown encoding of packets; found \"xupd\"; allowed: none, packet, packetaddr, xudp; did you mean `xudp`?",
            ),
        ],
    );
}

#[test]
fn vmess_servers() {
    check(
        r#"{"outbounds": [{"protocol": "vmess", "settings": {"vnext": [{*}]}}]}"#,
        "outbounds[0].settings.vnext[0].",
        &[
            (r#""port": 1, "users": [{"id": "$"}]"#, Error, "address", "missing"),
            (r#""address": "", "port": 1, "users": [{"id": "$"}]"#, Error, "address", "not a host"),
            (
                r#""address": "https://a.com", "port": 1, "users": [{"id": "$"}]"#,
                Error,
                "address",
                "without a scheme",
            ),
            (
                r#""address": "a.com:443", "port": 1, "users": [{"id": "$"}]"#,
                Error,
                "address",
                "the port under `port`",
            ),
            (r#""address": "bücher.de", "port": 1, "users": [{"id": "$"}]"#, Error, "address", "xn--"),
            (r#""address": "a", "users": [{"id": "$"}]"#, Error, "port", "missing"),
            (
                r#""address": "a", "port": "443", "users": [{"id": "$"}]"#,
                Error,
                "port",
                "the number is written as a text",
            ),
            (
                r#""address": "a", "port": 70000, "users": [{"id": "$"}]"#,
                Error,
                "port",
                "out of range; found 70000; allowed: a whole number, 1 to 65535",
            ),
            (r#""address": "a", "port": 0, "users": [{"id": "$"}]"#, Error, "port", "out of range"),
            (r#""address": "a", "port": 1"#, Error, "users", "missing"),
            (r#""address": "a", "port": 1, "users": []"#, Error, "users", "there is no user"),
            (r#""address": "a", "port": 1, "users": ["$"]"#, Error, "users[0]", "found a text; allowed"),
            (r#""address": "a", "port": 1, "users": "$""#, Error, "users", "found a text; allowed"),
            (
                r#""address": "a", "port": 1, "uuid": "$", "users": [{"id": "$"}]"#,
                Warning,
                "uuid",
                "unknown key",
            ),
        ],
    );
}

#[test]
fn cfb_is_warned_about_where_it_is_allowed() {
    check(
        r#"{"vmesskit": {"allowCfb": true},
            "outbounds": [{"protocol": "vmess", "settings": {"vnext": [{"address": "a", "port": 1, "users": [{"id": "$", *}]}]}}]}"#,
        "outbounds[0].settings.vnext[0].users[0].",
        &[
            (
                r#""security": "aes-128-cfb""#,
                Warning,
                "security",
                "tampered with, and there is no TLS below it",
            ),
            (
                r#""security": "aes-128-cfb", "experiments": "AuthenticatedLength""#,
                Warning,
                "experiments",
                "no effect",
            ),
        ],
    );
}

#[test]
fn vmess_users() {
    check(
        r#"{"outbounds": [{"protocol": "vmess", "settings": {"vnext": [{"address": "a", "port": 1, "users": [{*}]}]}}]}"#,
        "outbounds[0].settings.vnext[0].users[0].",
        &[
            ("", Error, "id", "`id` is missing"),
            (r#""id": """#, Error, "id", "this is no id"),
            (r#""id": 5"#, Error, "id", "wrong type; found a value that is not shown"),
            (r#""id": "0123456789012345678901234567890""#, Error, "id", "a text of 31 characters, not shown"),
            (r#""id": "example""#, Warning, "id", "mapped to one (UUIDv5)"),
            (
                r#""id": "$", "alterId": 4"#,
                Warning,
                "alterId",
                "the legacy header (alterId above 0) can be probed, and there is no TLS",
            ),
            (r#""id": "$", "alterId": 65536"#, Error, "alterId", "out of range"),
            (r#""id": "$", "alterId": "4""#, Error, "alterId", "wrong type"),
            (r#""id": "$", "alterId": 1.5"#, Error, "alterId", "not a whole number"),
            (r#""id": "$", "level": -1"#, Error, "level", "out of range"),
            (r#""id": "$", "email": 1"#, Error, "email", "wrong type"),
            (
                r#""id": "$", "security": "aes-256-gcm""#,
                Error,
                "security",
                "allowed: auto, aes-128-gcm, chacha20-poly1305, none, zero; did you mean `aes-128-gcm`?",
            ),
            (r#""id": "$", "security": 1"#, Error, "security", "wrong type"),
            (
                r#""id": "$", "security": "AES-128-CFB""#,
                Error,
                "security",
                "can be tampered with and is off; found \"AES-128-CFB\"; allowed: it, if `vmesskit.allowCfb` is true",
            ),
            (
                r#""id": "$", "security": "none", "experiments": "AuthenticatedLength""#,
                Warning,
                "experiments",
                "no effect",
            ),
            (r#""id": "$", "security": "NONE""#, Warning, "security", "unprotected"),
            (r#""id": "$", "security": "zero""#, Warning, "security", "unprotected"),
            (
                r#""id": "$", "experiments": "Teleport""#,
                Warning,
                "experiments",
                "AuthenticatedLength, NoTerminationSignal",
            ),
            (r#""id": "$", "alterID": 0"#, Warning, "alterID", "the key is written `alterId`"),
            (r#""id": "$", "secuirty": "none""#, Warning, "secuirty", "did you mean `security`?"),
        ],
    );
}
