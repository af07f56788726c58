//! What findings have in common: order, secrets, gravity, and what a host is told.

use vmesskit::config::Severity::{Error, Warning};
use vmesskit::config::{Diagnostic, first_error, parse, validate_config};
use vmesskit::error::ErrorKind;

const ID: &str = "b831381d-6324-4d53-ad4f-8cda48b30811";

#[test]
fn sniffing_matters_when_a_rule_asks_for_names() {
    let config = |tag: &str| {
        format!(
            r#"{{"outbounds": [{{"protocol": "freedom", "tag": "direct"}}],
                "inbounds": [{{"protocol": "tun", "sniffing": {{"enabled": true, "destOverride": ["tls"]}}}}],
                "routing": {{"rules": [{{"type": "field", "domain": ["a.com"], "inboundTag": ["{tag}"], "outboundTag": "direct"}}]}}}}"#
        )
    };
    let finding = |tag| {
        validate_config(&config(tag)).into_iter().find(|finding| finding.path == "inbounds[0].sniffing")
    };
    assert_eq!(finding("tun").map(|finding| finding.severity), Some(Error));
    assert_eq!(finding("other").map(|finding| finding.severity), Some(Warning));
}

#[test]
fn old_keys_are_read_with_a_warning() {
    let text = format!(
        r#"{{
            "port": 1080,
            "inbound": {{"protocol": "socks", "listen": "127.0.0.1"}},
            "inboundDetour": [{{"protocol": "socks", "listen": "127.0.0.1", "port": "1081", "tag": "second"}}],
            "outbound": {{"protocol": "vmess", "settings": {{"vnext": [{{"address": "a", "port": 1, "users": [{{"id": "{ID}"}}]}}]}}}},
            "outboundDetour": [{{"protocol": "freedom", "tag": "direct"}}],
            "routing": {{"strategy": "rules", "settings": {{"domainStrategy": "AsIs",
                "rules": [{{"type": "field", "port": "80", "outboundTag": "direct"}}]}}}}
        }}"#
    );
    let parsed = parse(&text);
    let paths: Vec<&str> = parsed.diagnostics.iter().map(|finding| finding.path.as_str()).collect();
    assert_eq!(paths, ["inbound", "inboundDetour", "port", "outbound", "outboundDetour", "routing.settings"]);
    assert!(parsed.diagnostics.iter().all(|finding| finding.severity == Warning));
    let config = parsed.config.expect("no error");
    assert_eq!(config.inbounds.len(), 2);
    assert_eq!(config.rules[0].outbound, 1);
}

#[test]
fn the_tags_that_a_rule_may_name_are_told_once_each() {
    let findings = validate_config(
        r#"{"outbounds": [{"protocol": "freedom", "tag": "a"}, {"protocol": "blackhole", "tag": "a"}],
            "routing": {"rules": [{"type": "field", "port": 1, "outboundTag": "zz"}]}}"#,
    );
    let finding = findings.iter().find(|finding| finding.path == "routing.rules[0].outboundTag");
    assert_eq!(finding.map(|finding| finding.allowed.as_str()), Some("\"a\""));
}

#[test]
fn several_mistakes_are_found_at_once() {
    let findings = validate_config(
        r#"{"log": {"loglevel": 1}, "inbounds": [{"protocol": "socks", "port": 99999, "settings": {"udp": 1}}],
            "outbounds": [{"protocol": "vmess", "settings": {"vnext": [
                {"address": 1, "port": "1", "users": [{"id": 1, "alterId": -1, "security": "x"}, {}]}, {}]}}],
            "routing": {"rules": [{"type": "field", "ip": ["x", "y"], "port": "z"}]}, "dns": {"servers": ["q"]}}"#,
    );
    let errors: Vec<&str> =
        findings.iter().filter(|f| f.severity == Error).map(|f| f.path.as_str()).collect();
    let server = "outbounds[0].settings.vnext[0]";
    let expected = [
        "log.loglevel",
        "inbounds[0].port",
        "inbounds[0].settings.udp",
        &format!("{server}.address"),
        &format!("{server}.port"),
        &format!("{server}.users[0].id"),
        &format!("{server}.users[0].alterId"),
        &format!("{server}.users[0].security"),
        &format!("{server}.users[1].id"),
        "outbounds[0].settings.vnext[1].address",
        "outbounds[0].settings.vnext[1].port",
        "outbounds[0].settings.vnext[1].users",
        "routing.rules[0].outboundTag",
        "routing.rules[0].ip[0]",
        "routing.rules[0].ip[1]",
        "routing.rules[0].port",
        "dns.servers[0]",
    ];
    assert_eq!(errors, expected);
}

#[test]
fn the_first_error_becomes_an_error_for_the_host() {
    let parsed = parse(r#"{"zebra": 1, "outbounds": [{"protocol": "vmes"}]}"#);
    let error = first_error(&parsed.diagnostics).expect("an error");
    assert_eq!(error.kind, ErrorKind::ConfigInvalid);
    assert_eq!(error.path, "outbounds[0].protocol");
    assert_eq!(error.text, "unknown outbound protocol");
    assert_eq!(error.hint, "did you mean `vmess`?");
    assert_eq!(error.reason, r#"found "vmes"; allowed: vmess, freedom, blackhole"#);
    assert_eq!(parsed.into_result(), Err(error));
    let warned = parse(r#"{"zebra": 1, "outbounds": [{"protocol": "freedom"}]}"#);
    assert_eq!(first_error(&warned.diagnostics), None);
    assert!(warned.into_result().is_ok());
}

#[test]
fn secrets_are_never_shown() {
    let secrets = ["hunter2-secret", ID];
    let text = format!(
        r#"{{"inbounds": [
                {{"protocol": "socks", "port": 1, "settings": {{"auth": "password", "accounts": [
                    {{"user": "hunter2-secret", "pass": ["hunter2-secret"]}}, "hunter2-secret", {{"user": 1, "pass": "hunter2-secret"}}]}}}},
                {{"protocol": "socks", "port": 2, "settings": {{"auth": "password", "accounts": "hunter2-secret"}}}}],
            "outbounds": [
                {{"protocol": "vmess", "tag": "{ID}", "settings": {{"vnext": [
                    {{"address": "{ID}@", "port": "{ID}", "users": [{{"id": ["{ID}"]}}, "{ID}", {{"id": "hunter2-secret-that-is-far-too-long-for-an-id"}}]}},
                    {{"address": "a", "port": 1, "users": "hunter2-secret"}}]}}}},
                {{"protocol": "freedom", "tag": "{ID}"}}]}}"#
    );
    let findings = validate_config(&text);
    assert!(findings.iter().filter(|finding| finding.severity == Error).count() >= 8);
    let shown: String = findings.iter().map(|finding| format!("{finding}\n{finding:?}\n")).collect();
    for secret in secrets {
        assert!(!shown.contains(secret), "{shown}");
    }
    let good = format!(
        r#"{{"inbounds": [{{"protocol": "socks", "port": 1, "settings": {{"auth": "password", "accounts": [{{"user": "u", "pass": "hunter2-secret"}}]}}}}],
            "outbounds": [{{"protocol": "vmess", "settings": {{"vnext": [{{"address": "a", "port": 1, "users": [{{"id": "{ID}"}}]}}]}}}}]}}"#
    );
    let parsed = parse(&good);
    assert!(parsed.config.is_some());
    let shown = format!("{parsed:?}");
    for secret in secrets {
        assert!(!shown.contains(secret), "{shown}");
    }
}

#[test]
fn one_line_shows_a_whole_finding() {
    let finding = Diagnostic {
        severity: Error,
        path: "a.b".into(),
        text: "wrong".into(),
        found: "1".into(),
        allowed: "2".into(),
        hint: "write 2".into(),
    };
    assert_eq!(finding.to_string(), "error: a.b: wrong; found 1; allowed: 2; write 2");
}
