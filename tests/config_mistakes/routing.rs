//! Mistakes in routing and DNS.

use super::check;
use vmesskit::config::Severity::{Error, Warning};

#[test]
fn routing() {
    check(
        r#"{"outbounds": [{"protocol": "freedom", "tag": "direct"}, {"protocol": "blackhole", "tag": "block"}],
            "inbounds": [{"protocol": "socks", "port": 1, "listen": "::1", "tag": "in"}], "routing": {*}}"#,
        "routing.",
        &[
            (r#""rules": {}"#, Error, "rules", "a list"),
            (r#""domainStrategy": "Sometimes""#, Error, "domainStrategy", "AsIs, IPIfNonMatch, IPOnDemand"),
            (r#""domainStrategy": "IPIfNonMatch""#, Warning, "domainStrategy", "ignored"),
            (
                r#""domainStrategy": "IPOnDemand", "rules": [{"type": "field", "ip": ["::1"], "outboundTag": "block"}]"#,
                Error,
                "domainStrategy",
                "resolving names to match rules is not supported",
            ),
            (
                r#""balancers": [{"tag": "b", "selector": ["d"]}]"#,
                Error,
                "balancers",
                "not supported by this version",
            ),
            (
                r#""settings": {"rules": [{"type": "field", "port": 1, "outboundTag": "direkt"}]}"#,
                Error,
                "settings.rules[0].outboundTag",
                r#"did you mean "direct"?"#,
            ),
        ],
    );
}

#[test]
fn rules() {
    check(
        r#"{"outbounds": [{"protocol": "freedom", "tag": "direct"}, {"protocol": "blackhole", "tag": "block"}],
            "inbounds": [{"protocol": "socks", "port": 1, "listen": "::1", "tag": "in"}], "routing": {"rules": [{*}]}}"#,
        "routing.rules[0]",
        &[
            (r#""port": 1, "outboundTag": "block""#, Error, ".type", "`type` is missing; allowed: field"),
            (
                r#""type": "chinaip", "port": 1, "outboundTag": "block""#,
                Error,
                ".type",
                "unknown type of rule",
            ),
            (r#""type": "field", "outboundTag": "block""#, Error, "", "the rule has no condition"),
            (
                r#""type": "field", "domain": [], "outboundTag": "block""#,
                Error,
                "",
                "the rule has no condition",
            ),
            (
                r#""type": "field", "port": 1"#,
                Error,
                ".outboundTag",
                r#"missing; allowed: "direct", "block""#,
            ),
            (
                r#""type": "field", "port": 1, "outboundTag": "blok""#,
                Error,
                ".outboundTag",
                r#"no outbound has this tag; found "blok"; allowed: "direct", "block"; did you mean "block"?"#,
            ),
            (
                r#""type": "field", "port": 1, "balancerTag": "b""#,
                Error,
                ".balancerTag",
                "a balancer is not supported",
            ),
        ],
    );
}

#[test]
fn conditions() {
    check(
        r#"{"outbounds": [{"protocol": "freedom", "tag": "direct"}, {"protocol": "blackhole", "tag": "block"}],
            "inbounds": [{"protocol": "socks", "port": 1, "listen": "::1", "tag": "in"},
                {"protocol": "vmess", "port": 2, "settings": {"clients": [{"id": "$", "email": "ann@example.com"}]}}],
            "routing": {"rules": [{"type": "field", "outboundTag": "block", *}]}}"#,
        "routing.rules[0].",
        &[
            (r#""port": 1, "balancerTag": "b""#, Warning, "balancerTag", "no effect"),
            (r#""ip": ["geoip:cn"]"#, Error, "ip[0]", "not supported by this version"),
            (r#""ip": ["geoip:private"]"#, Error, "ip[0]", "192.168.0.0/16"),
            (r#""ip": ["10.0.0.0/33"]"#, Error, "ip[0]", "not a network"),
            (r#""ip": ["a.com"]"#, Error, "ip[0]", "names belong under `domain`"),
            (r#""ip": [1]"#, Error, "ip[0]", "wrong type"),
            (r#""ip": 1"#, Error, "ip", "a list of texts"),
            (r#""domain": ["a", "geosite:cn"]"#, Error, "domain[1]", "not supported by this version"),
            (r#""domains": ["ext:f:l"]"#, Error, "domains[0]", "from a file"),
            (r#""domain": ["regexp:("]"#, Error, "domain[0]", "regular expression is not valid"),
            (r#""domain": ["dotless:a.b"]"#, Error, "domain[0]", "cannot hold a dot"),
            (r#""domain": ["domain:"]"#, Error, "domain[0]", "the pattern is empty"),
            (r#""domain": ["domian:a.com"]"#, Error, "domain[0]", "unknown form of a pattern"),
            (r#""port": 65536"#, Error, "port", "out of range"),
            (r#""port": "90-80""#, Error, "port", r#""90-80" is no port and no range"#),
            (r#""port": "53,x""#, Error, "port", r#""x" is no port"#),
            (r#""port": """#, Error, "port", "no port is given"),
            (r#""port": "env:P""#, Error, "port", "environment variable"),
            (r#""port": [53]"#, Error, "port", "wrong type"),
            (r#""network": "icmp""#, Error, "network", "allowed: tcp, udp"),
            (r#""inboundTag": ["inn"]"#, Warning, "inboundTag[0]", r#"did you mean "in"?"#),
            (r#""source": ["10.0.0.0/33"]"#, Error, "source[0]", "not a network"),
            (r#""source": ["geoip:private"]"#, Error, "source[0]", "not supported by this version"),
            (r#""protocol": ["bittorrent"]"#, Error, "protocol", "not supported by this version"),
            (r#""user": ["an@example.com"]"#, Warning, "user[0]", r#"did you mean "ann@example.com"?"#),
            (r#""user": ["Ann@example.com"]"#, Warning, "user[0]", "as it is written there"),
            (r#""user": [""]"#, Error, "user[0]", "the e-mail is empty"),
            (r#""user": [1]"#, Error, "user[0]", "wrong type"),
            (r#""sourcePort": "5-3""#, Error, "sourcePort", "no port and no range"),
            (r#""sourcePort": 65536"#, Error, "sourcePort", "out of range"),
            (r#""attrs": "a""#, Error, "attrs", "not supported by this version"),
            (r#""port": 1, "ipp": "1.1.1.1""#, Warning, "ipp", "did you mean `ip`?"),
        ],
    );
}

#[test]
fn dns() {
    check(
        r#"{"outbounds": [{"protocol": "freedom"}], "inbounds": [{"protocol": "tun"}], "dns": {*}}"#,
        "dns.",
        &[
            (r#""servers": "1.1.1.1""#, Error, "servers", "a list"),
            (r#""servers": [1]"#, Error, "servers[0]", "wrong type"),
            (r#""servers": ["one"]"#, Error, "servers[0]", "not an IP address"),
            (r#""servers": ["1.1.1.1:53"]"#, Error, "servers[0]", "written as an object"),
            (r#""servers": ["localhost"]"#, Error, "servers[0]", "not supported by this version"),
            (
                r#""servers": ["https://1.1.1.1/dns-query"]"#,
                Error,
                "servers[0]",
                "not supported by this version",
            ),
            (
                r#""servers": ["https+local://1.1.1.1/dns-query"]"#,
                Error,
                "servers[0]",
                "not supported by this version",
            ),
            (r#""servers": ["0.0.0.0"]"#, Error, "servers[0]", "no address that can be asked"),
            (r#""servers": ["172.19.0.2"]"#, Error, "servers[0]", "in a circle"),
            (r#""servers": ["127.0.0.1"]"#, Warning, "servers[0]", "VMess server itself"),
            (r#""servers": [{"port": 53}]"#, Error, "servers[0].address", "missing"),
            (r#""servers": [{"address": "1.1.1.1", "port": 0}]"#, Error, "servers[0].port", "out of range"),
            (
                r#""servers": [{"address": "1.1.1.1", "domains": ["a.com"]}]"#,
                Error,
                "servers[0].domains",
                "not supported by this version",
            ),
            (
                r#""servers": [{"address": "1.1.1.1", "expectIps": ["geoip:cn"]}]"#,
                Error,
                "servers[0].expectIps",
                "not supported by this version",
            ),
            (r#""hosts": {"a.com": "1.2.3.4"}"#, Error, "hosts", "not supported by this version"),
            (r#""clientIp": "1.2.3.4""#, Warning, "clientIp", "ignored"),
            (r#""server": ["1.1.1.1"]"#, Warning, "server", "did you mean `servers`?"),
        ],
    );
}
