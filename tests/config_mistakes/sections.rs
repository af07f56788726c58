//! Mistakes in the syntax and in the small sections.

use super::check;
use vmesskit::config::Severity::{Error, Warning};

#[test]
fn syntax() {
    check(
        "*",
        "",
        &[
            ("", Error, "line 1, column 1", "the text is empty"),
            ("  // nothing\n", Error, "line 1, column 1", "the text is empty"),
            ("{\n  \"log\": {},\n}", Error, "line 2, column 12", "a trailing comma"),
            (
                "{\"outbounds\": [{\"protocol\": \"freedom\"},\n /* c */ ]}",
                Error,
                "line 1, column 39",
                "a trailing comma",
            ),
            (r#"{"a": 1"#, Error, "line 1, column 8", "ends too early"),
            (r#"{"a": "b"#, Error, "line 1, column 9", "ends too early"),
            ("{} {}", Error, "line 1, column 4", "no valid JSON"),
            ("{'a': 1}", Error, "line 1, column 2", "double quotes"),
            ("{a: 1}", Error, "line 1, column 2", "found a"),
            ("{\n\"ä\": 1e999}", Error, "line 2, column 10", "number out of range"),
            ("{}\n/* open", Error, "line 2, column 1", "never closed"),
            ("[]", Error, "(top level)", "an object"),
            ("3", Error, "(top level)", "an object"),
        ],
    );
}

#[test]
fn sections() {
    check(
        r#"{"outbounds": [{"protocol": "freedom", "tag": "out"}], *}"#,
        "",
        &[
            (r#""outbond": {}"#, Warning, "outbond", "did you mean `outbound`?"),
            (r#""zebra": 1"#, Warning, "zebra", "unknown key, ignored"),
            (r#""a b": 1"#, Warning, r#"["a b"]"#, "unknown key"),
            (r#""log": {}, "log": {}"#, Warning, "log", "given more than once"),
            (r#""log": 1"#, Error, "log", "wrong type; found 1; allowed: an object"),
            (r#""log": {"loglevel": 3}"#, Error, "log.loglevel", "wrong type; found 3; allowed: a text"),
            (
                r#""log": {"loglevel": "chatty"}"#,
                Warning,
                "log.loglevel",
                "allowed: debug, info, warning, error, none",
            ),
            (r#""log": {"logLevel": "info"}"#, Warning, "log.logLevel", "the key is written `loglevel`"),
            (r#""log": {"access": "/var/log/x"}"#, Warning, "log.access", "a log file is not supported"),
            (r#""log": {"levl": "info"}"#, Warning, "log.levl", "unknown key"),
            (r#""inbounds": {}"#, Error, "inbounds", "allowed: a list"),
            (r#""inbounds": [1]"#, Error, "inbounds[0]", "an object"),
            (
                r#""api": {"tag": "api", "services": ["StatsService"]}"#,
                Error,
                "api.services",
                "not supported by this version",
            ),
            (r#""api": {"tag": "api"}"#, Warning, "api", "no effect"),
            (
                r#""reverse": {"bridges": [{"tag": "b"}]}"#,
                Error,
                "reverse.bridges",
                "not supported by this version",
            ),
            (r#""observatory": {"a": 1}"#, Warning, "observatory", "not supported by this version"),
            (r#""stats": {"a": 1}"#, Warning, "stats.a", "unknown key"),
            (
                r#""transport": {"tcpSetings": {"header": {"type": "http"}}}"#,
                Warning,
                "transport.tcpSetings",
                "did you mean `tcpSettings`?",
            ),
            (r#""port": "1"  "#, Error, "port", "wrong type"),
            (
                r#""vmesskit": {"memoryLimit": 1000}"#,
                Error,
                "vmesskit.memoryLimit",
                "out of range; found 1000; allowed: a whole number, 4194304",
            ),
            (r#""vmesskit": {"memoryLimit": "64M"}"#, Error, "vmesskit.memoryLimit", "wrong type"),
            (r#""vmesskit": {"noneChunked": 1}"#, Error, "vmesskit.noneChunked", "allowed: true or false"),
            (
                r#""vmesskit": {"memorylimits": 1}"#,
                Warning,
                "vmesskit.memorylimits",
                "did you mean `memoryLimit`?",
            ),
            (r#""vmesskit": {"sntp": {}}"#, Error, "vmesskit.sntp.server", "`server` is missing"),
            (r#""vmesskit": {"sntp": "pool.ntp.org"}"#, Error, "vmesskit.sntp", "an object"),
            (r#""vmesskit": {"sntp": {"server": "x:y"}}"#, Error, "vmesskit.sntp.server", "host:port"),
            (r#""vmesskit": {"sntp": {"server": ":123"}}"#, Error, "vmesskit.sntp.server", "host:port"),
            (
                r#""vmesskit": {"sntp": {"server": "x", "correct": 1}}"#,
                Error,
                "vmesskit.sntp.correct",
                "true",
            ),
            (
                r#""vmesskit": {"sntp": {"server": "x", "corect": true}}"#,
                Warning,
                "vmesskit.sntp.corect",
                "did you mean `correct`?",
            ),
            (
                r#""vmesskit": {"connectionsPerUsr": 3}"#,
                Warning,
                "vmesskit.connectionsPerUsr",
                "did you mean `connectionsPerUser`?",
            ),
            (
                r#""vmesskit": {"connectionsPerSource": -3}"#,
                Error,
                "vmesskit.connectionsPerSource",
                "allowed: a whole number, 0 to 4294967295",
            ),
            (
                r#""vmesskit": {"connectionsPerUser": "3"}"#,
                Error,
                "vmesskit.connectionsPerUser",
                "wrong type",
            ),
            (
                r#""vmesskit": {"legacyTagLimit": 1.5}"#,
                Error,
                "vmesskit.legacyTagLimit",
                "not a whole number",
            ),
        ],
    );
}

#[test]
fn policy() {
    check(
        r#"{"outbounds": [{"protocol": "freedom", "tag": "out"}], "policy": {*}}"#,
        "policy.",
        &[
            (r#""levels": {"one": {}}"#, Error, "levels.one", "a level is named by its number"),
            (r#""levels": {"-1": {}}"#, Error, "levels.-1", "a level is named by its number"),
            (r#""levels": {"4294967296": {}}"#, Error, "levels.4294967296", "0 to 4294967295"),
            (r#""levels": {"0": {"connIdle": -1}}"#, Error, "levels.0.connIdle", "out of range; found -1"),
            (r#""levels": {"0": {"handshake": 1.5}}"#, Error, "levels.0.handshake", "not a whole number"),
            (r#""levels": {"0": {"handshake": 0}}"#, Warning, "levels.0.handshake", "at once"),
            (r#""levels": {"0": {"bufferSize": 4}}"#, Warning, "levels.0.bufferSize", "memoryLimit"),
            (
                r#""levels": {"0": {"statsUserUplink": true}}"#,
                Warning,
                "levels.0.statsUserUplink",
                "stats: {}",
            ),
            (r#""system": {"statsInboundUplink": true}"#, Warning, "system.statsInboundUplink", "stats: {}"),
            (
                r#""system": {"statsInboundUplink": "yes"}"#,
                Error,
                "system.statsInboundUplink",
                "true or false",
            ),
        ],
    );
}
