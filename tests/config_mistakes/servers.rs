//! Mistakes in VMess inbounds.

use super::check;
use vmesskit::config::Severity::{Error, Warning};

#[test]
fn listeners() {
    check(
        r#"{"outbounds": [{"protocol": "freedom"}],
            "inbounds": [{"protocol": "vmess", "settings": {"clients": [{"id": "$"}]}, *}]}"#,
        "inbounds",
        &[
            (
                r#""port": null"#,
                Error,
                "[0].port",
                "`port` is missing; allowed: a number, 1 to 65535, or a range",
            ),
            (r#""port": "1000-999""#, Error, "[0].port", "the range ends before it begins"),
            (r#""port": "0-5""#, Error, "[0].port", "a range cannot begin at port 0"),
            (r#""port": "1,2""#, Error, "[0].port", "not a port; found \"1,2\"; allowed: a number"),
            (r#""port": "1-65536""#, Error, "[0].port", "not a port"),
            (r#""port": "env:PORT""#, Error, "[0].port", "environment variable is not supported"),
            (r#""port": 0"#, Warning, "[0].port", "the system picks a free port"),
            (r#""port": 1, "listen": "example.com""#, Error, "[0].listen", "must be an IP address"),
            (r#""port": 1, "listen": "@abstract""#, Error, "[0].listen", "unix socket"),
            (
                r#""port": 1, "streamSettings": {"network": "xhttp"}"#,
                Error,
                "[0].streamSettings.network",
                "`xhttp` is not supported by this version",
            ),
            (
                r#""port": 1, "streamSettings": {"security": "tls"}"#,
                Error,
                "[0].streamSettings.tlsSettings",
                "`tlsSettings` is missing; allowed: a server's certificate",
            ),
            (
                r#""port": 1, "streamSettings": {"security": "tls", "tlsSettings": {}}"#,
                Error,
                "[0].streamSettings.tlsSettings.certificates",
                "`certificates` is missing; allowed: a server's certificate",
            ),
            (r#""port": 1, "prot": 2"#, Warning, "[0].prot", "did you mean `port`?"),
            (
                r#""port": "1-5"}, {"protocol": "socks", "listen": "0.0.0.0", "port": 5"#,
                Error,
                "[1].port",
                "an inbound before listens on the same address; found 0.0.0.0:5",
            ),
            (
                r#""port": "10-20"}, {"protocol": "vmess", "port": "1-10", "settings": {"clients": [{"id": "$"}]}"#,
                Error,
                "[1].port",
                "found 0.0.0.0:10",
            ),
            (
                r#""port": "10-20"}, {"protocol": "vmess", "port": "1-65535", "settings": {"clients": [{"id": "$"}]}"#,
                Error,
                "[1].port",
                "found 0.0.0.0:10",
            ),
        ],
    );
}

#[test]
fn allocations() {
    check(
        r#"{"outbounds": [{"protocol": "freedom"}],
            "inbounds": [{"protocol": "vmess", "settings": {"clients": [{"id": "$"}]}, "port": "100-103", "allocate": {*}}]}"#,
        "inbounds[0].allocate.",
        &[
            (r#""strategy": "sometimes""#, Error, "strategy", "allowed: always, random, external"),
            (
                r#""strategy": "external""#,
                Error,
                "strategy",
                "an outside allocator of ports is not supported",
            ),
            (r#""strategy": 1"#, Error, "strategy", "wrong type"),
            (
                r#""strategy": "random", "concurrency": 4"#,
                Error,
                "concurrency",
                "cannot be taken at random from 4; found 4; allowed: 1 to 3; widen the range",
            ),
            (r#""strategy": "random", "concurrency": 0"#, Error, "concurrency", "found 0"),
            (r#""strategy": "random", "concurrency": -1"#, Error, "concurrency", "out of range"),
            (r#""strategy": "random", "concurrency": "3""#, Error, "concurrency", "wrong type"),
            (r#""strategy": "random", "refresh": 0"#, Error, "refresh", "minutes, 1 or more"),
            (r#""strategy": "random", "refresh": 1.5"#, Error, "refresh", "not a whole number"),
            (r#""strategy": "random", "refresch": 5"#, Warning, "refresch", "did you mean `refresh`?"),
            (r#""concurrency": 2"#, Warning, "concurrency", "no effect: `strategy` is not `random`"),
            (r#""strategy": "always", "refresh": 2"#, Warning, "refresh", "no effect"),
        ],
    );
    // V2Ray looks for a third port of two for ever.
    check(
        r#"{"outbounds": [{"protocol": "freedom"}],
            "inbounds": [{"protocol": "vmess", "settings": {"clients": [{"id": "$"}]}, "port": *, "allocate": {"strategy": "random"}}]}"#,
        "inbounds[0].allocate.",
        &[
            (r#""100-102""#, Error, "concurrency", "from 3; found 3, the default; allowed: 1 to 2"),
            ("100", Error, "concurrency", "from 1; found 3, the default; write a range under `port`"),
        ],
    );
}

#[test]
fn settings() {
    check(
        r#"{"outbounds": [{"protocol": "freedom"}], "inbounds": [{"protocol": "vmess", "port": 1, "settings": *},
            {"protocol": "vmess", "port": "10-20", "tag": "dynamic", "allocate": {"strategy": "random"}, "settings": {"clients": [{"id": "$"}]}},
            {"protocol": "socks", "port": 2, "listen": "::1", "tag": "local"}]}"#,
        "inbounds[0].settings.",
        &[
            ("{}", Warning, "clients", "there is no user, so nobody is served until one is added"),
            (r#"{"clients": []}"#, Warning, "clients", "there is no user"),
            (r#"{"clients": {"id": "$"}}"#, Error, "clients", "a list"),
            (r#"{"clients": "$"}"#, Error, "clients", "found a text; allowed"),
            (r#"{"clients": [{"id": "$"}], "users": []}"#, Warning, "users", "`clients` counts"),
            (r#"{"client": [{"id": "$"}], "clients": [{"id": "$"}]}"#, Warning, "client", "`clients`"),
            (
                r#"{"clients": [{"id": "$"}], "default": {"alterId": 65536}}"#,
                Error,
                "default.alterId",
                "out of range",
            ),
            (
                r#"{"clients": [{"id": "$"}], "default": {"level": 256}}"#,
                Error,
                "default.level",
                "allowed: a whole number, 0 to 255",
            ),
            (
                r#"{"clients": [{"id": "$"}], "default": {"alterId": 4}}"#,
                Warning,
                "default",
                "without TLS a stranger can find this server by its legacy header",
            ),
            (
                r#"{"clients": [{"id": "$"}], "default": {"alterid": 0}}"#,
                Warning,
                "default.alterid",
                "`alterId`",
            ),
            (r#"{"clients": [{"id": "$"}], "detour": {}}"#, Error, "detour.to", "`to` is missing"),
            (r#"{"clients": [{"id": "$"}], "detour": "dynamic"}"#, Error, "detour", "an object"),
            (
                r#"{"clients": [{"id": "$"}], "detour": {"to": "dynamc"}}"#,
                Warning,
                "detour.to",
                "no vmess inbound has this tag, so nothing is handed out; found \"dynamc\"; did you mean `dynamic`?",
            ),
            (
                r#"{"clients": [{"id": "$"}], "features": {"detour": {"to": "local"}}}"#,
                Warning,
                "features.detour.to",
                "no vmess inbound has this tag",
            ),
            (
                r#"{"clients": [{"id": "$"}], "detour": {"to": "dynamic"}, "features": {"detour": {"to": "x"}}}"#,
                Warning,
                "features.detour",
                "`detour` counts",
            ),
            (
                r#"{"clients": [{"id": "$"}], "disableInsecureEncryption": 1}"#,
                Error,
                "disableInsecureEncryption",
                "true or false",
            ),
            (
                r#"{"clients": [{"id": "$"}], "disableInsecureEncrypt": true}"#,
                Warning,
                "disableInsecureEncrypt",
                "did you mean `disableInsecureEncryption`?",
            ),
        ],
    );
}

#[test]
fn detours_that_lead_back() {
    check(
        r#"{"outbounds": [{"protocol": "freedom"}], "inbounds": [
            {"protocol": "vmess", "port": 1, "tag": "a", "settings": {"clients": [{"id": "$"}], *}},
            {"protocol": "vmess", "port": 2, "tag": "b", "settings": {"clients": [{"id": "$"}], "detour": {"to": "c"}}},
            {"protocol": "vmess", "port": 3, "tag": "c", "settings": {"clients": [{"id": "$"}], "detour": {"to": "a"}}}]}"#,
        "inbounds[0].settings.",
        &[
            (r#""detour": {"to": "a"}"#, Error, "detour.to", "leads back to this inbound"),
            (r#""features": {"detour": {"to": "a"}}"#, Error, "features.detour.to", "found \"a\""),
            (
                r#""detour": {"to": "c"}"#,
                Error,
                "detour.to",
                "clients would be sent round in circles; found \"c\"",
            ),
            (r#""detour": {"to": "b"}"#, Error, "detour.to", "from which no detour leads back"),
            (r#""detour": {"to": "d"}"#, Warning, "detour.to", "no vmess inbound has this tag"),
        ],
    );
}

#[test]
fn clients() {
    check(
        r#"{"outbounds": [{"protocol": "freedom"}], "inbounds": [{"protocol": "vmess", "port": 1, "settings": {"clients": [{*}]}}]}"#,
        "inbounds[0].settings.clients",
        &[
            ("", Error, "[0].id", "`id` is missing"),
            (
                r#""id": "0123456789012345678901234567890""#,
                Error,
                "[0].id",
                "a text of 31 characters, not shown",
            ),
            (r#""id": 5"#, Error, "[0].id", "wrong type; found a value that is not shown"),
            (r#""id": "example""#, Warning, "[0].id", "mapped to one (UUIDv5), which V2Ray clients refuse"),
            (r#""id": "$", "alterId": 65536"#, Error, "[0].alterId", "out of range"),
            (r#""id": "$", "alterId": -1"#, Error, "[0].alterId", "out of range"),
            (r#""id": "$", "alterId": "4""#, Error, "[0].alterId", "wrong type"),
            (r#""id": "$", "alterId": 4"#, Warning, "", "1 of 1 users have an alterId above 0: without TLS"),
            (r#""id": "$", "level": "0""#, Error, "[0].level", "written as a text"),
            (r#""id": "$", "level": -1"#, Error, "[0].level", "out of range"),
            (r#""id": "$", "email": 1"#, Error, "[0].email", "wrong type"),
            (r#""id": "$", "emial": "a""#, Warning, "[0].emial", "did you mean `email`?"),
            (r#""id": "$", "security": "auto""#, Warning, "[0].security", "the client chooses"),
            (r#""id": "$", "experiments": "Teleport""#, Warning, "[0].experiments", "unknown experiment"),
            (
                r#""id": "$", "experiments": "AuthenticatedLength""#,
                Warning,
                "[0].experiments",
                "the client chooses",
            ),
            (
                r#""id": "$", "email": "Ann@example.com"}, {"id": "other", "email": "ann@EXAMPLE.com""#,
                Error,
                "[1].email",
                "another user has this e-mail; it is that of the user with the index 0; case does not matter",
            ),
            (r#""id": "$"}, {"id": "$""#, Warning, "[1].id", "another user has this id"),
        ],
    );
}

#[test]
fn legacy_ids() {
    check(
        r#"{"outbounds": [{"protocol": "freedom"}], "vmesskit": {"legacyTagLimit": 1369}, "inbounds": [
            {"protocol": "vmess", "port": 1, "settings": {"users": [{"id": "$", "alterId": 1}, {"id": "$"}]}},
            {"protocol": "vmess", "port": 2, "settings": {"clients": [*]}}]}"#,
        "inbounds[1].settings.",
        &[
            (
                r#"{"id": "$", "alterId": 2}"#,
                Error,
                "clients",
                "the users have 5 legacy ids, which take 1370 entries (274 seconds each), more than `legacyTagLimit`",
            ),
            (r#"{"id": "$", "alterId": 65535}"#, Error, "clients", "found 17957412; allowed: 1369 entries"),
            (r#"{"id": "$", "alterId": 1}"#, Warning, "clients", "1 of 1 users have an alterId above 0"),
        ],
    );
}
