//! Mistakes in inbounds.

use super::check;
use vmesskit::config::Severity::{Error, Warning};

#[test]
fn any_inbound() {
    check(
        r#"{"outbounds": [{"protocol": "freedom"}], "inbounds": [*]}"#,
        "inbounds",
        &[
            ("{}", Error, "[0].protocol", "`protocol` is missing; allowed: tun, socks"),
            (r#"{"protocol": 1}"#, Error, "[0].protocol", "wrong type"),
            (r#"{"protocol": "sock"}"#, Error, "[0].protocol", "did you mean `socks`?"),
            (
                r#"{"protocol": "http", "port": 1}"#,
                Error,
                "[0].protocol",
                "`http` is not supported by this version",
            ),
            (
                r#"{"protocol": "dokodemo-door", "port": 1}"#,
                Error,
                "[0].protocol",
                "not supported by this version",
            ),
            (
                r#"{"protocol": "Trojan", "port": 1}"#,
                Error,
                "[0].protocol",
                "this version has tun, socks, vmess",
            ),
            (r#"{"protocol": "socks"}"#, Error, "[0].port", "`port` is missing"),
            (r#"{"protocol": "socks", "port": null}"#, Error, "[0].port", "`port` is missing"),
            (r#"{"protocol": "socks", "port": 65536}"#, Error, "[0].port", "out of range; found 65536"),
            (r#"{"protocol": "socks", "port": -1}"#, Error, "[0].port", "out of range"),
            (r#"{"protocol": "socks", "port": 1080.0}"#, Error, "[0].port", "not a whole number"),
            (r#"{"protocol": "socks", "port": true}"#, Error, "[0].port", "wrong type"),
            (r#"{"protocol": "socks", "port": "x"}"#, Error, "[0].port", "not a port"),
            (r#"{"protocol": "socks", "port": "1,2"}"#, Error, "[0].port", "not a port"),
            (r#"{"protocol": "socks", "port": "2-1"}"#, Error, "[0].port", "not a port"),
            (
                r#"{"protocol": "socks", "port": "1000-1010"}"#,
                Error,
                "[0].port",
                "a range of ports is not supported by this version",
            ),
            (
                r#"{"protocol": "socks", "port": "env:PORT"}"#,
                Error,
                "[0].port",
                "environment variable is not supported",
            ),
            (r#"{"protocol": "socks", "port": 1}"#, Warning, "[0].listen", "without a password"),
            (r#"{"protocol": "socks", "port": 0, "listen": "127.0.0.1"}"#, Warning, "[0].port", "free port"),
            (
                r#"{"protocol": "socks", "port": 1, "tag": "a"}, {"protocol": "socks", "port": 2, "tag": "a"}"#,
                Error,
                "[1].tag",
                "used by an inbound before",
            ),
            (
                r#"{"protocol": "socks", "port": 1}, {"protocol": "socks", "port": 1}"#,
                Error,
                "[1].port",
                "listens on the same address",
            ),
        ],
    );
}

#[test]
fn socks_inbounds() {
    check(
        r#"{"outbounds": [{"protocol": "freedom"}], "inbounds": [{"protocol": "socks", "port": 1, *}]}"#,
        "inbounds[0].",
        &[
            (r#""listen": "192.168.0.1""#, Warning, "listen", "without a password"),
            (r#""listen": "example.com""#, Error, "listen", "must be an IP address"),
            (r#""listen": "/run/socket""#, Error, "listen", "unix socket"),
            (r#""listen": 1"#, Error, "listen", "wrong type"),
            (r#""settings": []"#, Error, "settings", "an object"),
            (
                r#""streamSettings": {"network": "ws"}"#,
                Error,
                "streamSettings",
                "a transport below SOCKS is not supported",
            ),
            (
                r#""streamSettings": {"tcpSettings": {"acceptProxyProtocol": true}}"#,
                Error,
                "streamSettings",
                "a transport below SOCKS is not supported",
            ),
            (
                r#""allocate": {"strategy": "random"}"#,
                Error,
                "allocate.strategy",
                "not supported by this version",
            ),
            (r#""allocate": {"strategy": "sometimes"}"#, Error, "allocate.strategy", "allowed: always"),
            (
                r#""sniffing": {"enabled": true}"#,
                Warning,
                "sniffing",
                "sniffing is not supported by this version and ignored",
            ),
            (
                r#""sniffing": {"destOverride": ["ftp"]}"#,
                Error,
                "sniffing.destOverride[0]",
                "unknown protocol to sniff",
            ),
        ],
    );
}

#[test]
fn socks_settings() {
    check(
        r#"{"outbounds": [{"protocol": "freedom"}], "inbounds": [{"protocol": "socks", "port": 1, "settings": {*}}]}"#,
        "inbounds[0].settings.",
        &[
            (r#""udp": "true""#, Error, "udp", "true or false"),
            (r#""ip": "x""#, Error, "ip", "announced for UDP"),
            (r#""auth": "passwd""#, Error, "auth", "did you mean `password`?"),
            (r#""auth": "password""#, Error, "accounts", "`accounts` is missing"),
            (r#""accounts": [{"user": "u", "pass": "p"}]"#, Warning, "accounts", "no password is asked"),
            (r#""auth": "password", "accounts": [{"user": "u"}]"#, Error, "accounts[0].pass", "missing"),
            (
                r#""auth": "password", "accounts": [{"user": "u", "pass": 7}]"#,
                Error,
                "accounts[0].pass",
                "not shown",
            ),
            (
                r#""auth": "password", "accounts": [{"user": "", "pass": "p"}]"#,
                Error,
                "accounts[0].user",
                "1 to 255 bytes",
            ),
            (r#""auth": "password", "accounts": ["u:p"]"#, Error, "accounts[0]", "found a text; allowed"),
            (
                r#""auth": "password", "accounts": [{"user": "u", "pass": "p"}, {"user": "u", "pass": "q"}]"#,
                Warning,
                "accounts[1]",
                "more than once",
            ),
            (r#""timeout": 5"#, Warning, "timeout", "no effect"),
            (r#""userLevel": "0""#, Error, "userLevel", "written as a text"),
        ],
    );
}

#[test]
fn tun_inbounds() {
    check(
        r#"{"outbounds": [{"protocol": "freedom"}], "inbounds": [{"protocol": "tun", *}]}"#,
        "inbounds",
        &[
            (r#""port": 1"#, Warning, "[0].port", "no effect"),
            (r#""tag": "t"}, {"protocol": "tun""#, Error, "[1].protocol", "a second tun inbound"),
        ],
    );
}

#[test]
fn tun_settings() {
    check(
        r#"{"outbounds": [{"protocol": "freedom"}], "inbounds": [{"protocol": "tun", "settings": {*}}]}"#,
        "inbounds[0].settings.",
        &[
            (r#""mut": 1500"#, Warning, "mut", "did you mean `mtu`?"),
            (r#""mtu": 1279"#, Error, "mtu", "allowed: a whole number, 1280 to 65535"),
            (r#""mtu": 65536"#, Error, "mtu", "out of range"),
            (r#""addresses": []"#, Error, "addresses", "needs an address"),
            (r#""addresses": ["10.0.0.1/33"]"#, Error, "addresses[0]", "not an address"),
            (r#""addresses": ["127.0.0.1/8"]"#, Error, "addresses[0]", "unicast"),
            (r#""addresses": "10.0.0.1/24,10.0.0.1/24""#, Error, "addresses", "twice"),
            (r#""addresses": {"a": 1}"#, Error, "addresses", "a list of texts"),
            (r#""addresses": ["fd00::1/64"]"#, Error, "dns", "no IPv4 address"),
            (r#""addresses": ["172.19.0.2/30"]"#, Error, "dns", "the device itself has this address"),
            (r#""routes": ["10.0.0.0/8", "x"]"#, Error, "routes[1]", "not a network"),
            (r#""routes": ["10.0.0.1/8"]"#, Warning, "routes[0]", "the network 10.0.0.0/8 is used"),
            (r#""routes": []"#, Warning, "routes", "nothing is routed"),
            (r#""excludedRoutes": ["172.16.0.0/12"]"#, Warning, "dns", "may miss the tunnel"),
            (r#""dns": "10.9.9.9", "routes": ["1.0.0.0/8"]"#, Warning, "dns", "may miss the tunnel"),
            (r#""dns": "one""#, Error, "dns", "not an IP address"),
            (r#""dns": "127.0.0.1""#, Error, "dns", "no address that can be asked"),
            (r#""dns": "172.19.0.1""#, Error, "dns", "the device itself"),
            (r#""apps": {"allow": ["a.b"], "deny": ["c.d"]}"#, Error, "apps", "exclude each other"),
            (r#""apps": {"allow": ["a b"]}"#, Error, "apps.allow[0]", "package name"),
            (r#""apps": ["a.b"]"#, Error, "apps", "an object"),
            (r#""metered": 1"#, Error, "metered", "true or false"),
            (r#""icmp": "echo""#, Error, "icmp", "allowed: reply, drop"),
            (r#""udp443": "drop""#, Error, "udp443", "allowed: allow, reject"),
        ],
    );
}
