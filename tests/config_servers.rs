//! Configs of servers: those that V2Ray's users have, the shapes of `mux`, and thousands of users in no time.

use std::fmt::Write as _;
use std::time::{Duration, Instant};
use vmesskit::config::Severity::Error;
use vmesskit::config::{
    Allocate, Config, Inbound, InboundProtocol, Mux, OutboundProtocol, PacketEncoding, VmessInbound, Xudp443,
    parse,
};

const ID: &str = "b831381d-6324-4d53-ad4f-8cda48b30811";

/// A config whose only findings are warnings at `warned`.
fn config(text: &str, warned: &[&str]) -> Config {
    let parsed = parse(text);
    let paths: Vec<&str> = parsed.diagnostics.iter().map(|finding| finding.path.as_str()).collect();
    assert_eq!(paths, warned, "{:?}", parsed.diagnostics);
    assert!(parsed.diagnostics.iter().all(|finding| finding.severity != Error));
    parsed.config.expect("no error")
}

fn servers<'a>(config: &'a Config) -> Vec<&'a VmessInbound> {
    let server = |inbound: &'a Inbound| match &inbound.protocol {
        InboundProtocol::Vmess(vmess) => Some(vmess),
        _ => None,
    };
    config.inbounds.iter().filter_map(server).collect()
}

#[test]
fn several_users_with_a_rule_for_one() {
    let config = config(
        r#"{
            "log": { "access": "", "loglevel": "warning" },
            "stats": {},
            "policy": {
                "levels": { "0": { "handshake": 4, "connIdle": 300, "uplinkOnly": 2, "downlinkOnly": 5,
                                   "statsUserUplink": true, "statsUserDownlink": true } },
                "system": { "statsInboundUplink": true, "statsInboundDownlink": true }
            },
            "inbounds": [{
                "port": 10086,
                "protocol": "vmess",
                "settings": {
                    "clients": [
                        { "id": "b831381d-6324-4d53-ad4f-8cda48b30811", "level": 1, "alterId": 64, "email": "love@v2ray.com" },
                        { "id": "27848739-7e62-4138-9fd3-098a63964b6b", "level": 0, "alterId": 4, "email": "t@v2ray.com" },
                        { "id": "a831381d-6324-4d53-ad4f-8cda48b30811", "alterId": 0 }
                    ],
                    "default": { "level": 0 },
                    "disableInsecureEncryption": false
                },
                "streamSettings": { "network": "tcp" }
            }],
            "outbounds": [
                { "protocol": "freedom", "settings": {} },
                { "protocol": "blackhole", "settings": {}, "tag": "blocked" }
            ],
            "routing": { "rules": [
                { "type": "field", "user": ["t@v2ray.com"], "ip": ["10.0.0.0/8", "::1/128"], "outboundTag": "blocked" }
            ] }
        }"#,
        &["inbounds[0].settings.clients"],
    );
    let [server] = servers(&config)[..] else { panic!("one server") };
    let alter_ids: Vec<u16> = server.clients.iter().map(|client| client.alter_id).collect();
    assert_eq!(alter_ids, [64, 4, 0]);
    assert_eq!(server.clients.iter().map(vmesskit::config::VmessClient::legacy_ids).sum::<u64>(), 65 + 5);
    assert_eq!(server.listen.ports, (10_086, 10_086));
    assert_eq!(config.rules[0].users.as_deref(), Some(&["t@v2ray.com".to_owned()][..]));
    assert!(config.policy.server_level(0).stats_uplink && !config.policy.server_level(1).stats_uplink);
}

#[test]
fn dynamic_ports_with_a_detour() {
    let config = config(
        r#"{
            "inbounds": [{
                "port": 37192,
                "protocol": "vmess",
                "settings": {
                    "clients": [{ "id": "d17a1af7-efa5-42ca-b7e9-6a35282d737f", "alterId": 64 }],
                    "detour": { "to": "dynamicPort" }
                }
            }, {
                "protocol": "vmess",
                "port": "10000-20000",
                "tag": "dynamicPort",
                "settings": { "default": { "level": 1, "alterId": 32 } },
                "allocate": { "strategy": "random", "concurrency": 2, "refresh": 3 }
            }],
            "outbounds": [{ "protocol": "freedom", "settings": {} }]
        }"#,
        &["inbounds[0].settings.clients", "inbounds[1].settings.default"],
    );
    let [fixed, dynamic] = servers(&config)[..] else { panic!("two servers") };
    assert_eq!(fixed.detour.as_deref(), Some("dynamicPort"));
    assert_eq!((fixed.allocate, dynamic.detour.as_deref()), (None, None));
    assert_eq!(dynamic.listen.ports, (10_000, 20_000));
    let allocate = Allocate { concurrency: 2, refresh: Duration::from_secs(180) };
    assert_eq!(dynamic.allocate, Some(allocate));
    assert_eq!((dynamic.default.level, dynamic.default.alter_id), (1, 32));
    assert!(dynamic.clients.is_empty());
}

#[test]
fn an_old_config_with_top_level_inbounds() {
    let config = config(
        r#"{
            "inbound": { "port": 8000, "listen": "0.0.0.0", "protocol": "VMESS",
                "settings": { "clients": [{ "id": "b831381d-6324-4d53-ad4f-8cda48b30811", "level": 1, "alterId": 0 }],
                              "features": { "detour": { "to": "detour" } } } },
            "inboundDetour": [{ "protocol": "vmess", "port": "8001-8010", "tag": "detour", "settings": {},
                "allocate": { "strategy": "random", "concurrency": null, "refresh": null } }],
            "outbound": { "protocol": "freedom", "settings": {} },
            "outboundDetour": [{ "protocol": "blackhole", "settings": {}, "tag": "blocked" }]
        }"#,
        &["inbound", "inboundDetour", "outbound", "outboundDetour"],
    );
    let [fixed, dynamic] = servers(&config)[..] else { panic!("two servers") };
    assert_eq!(fixed.detour.as_deref(), Some("detour"));
    assert_eq!(dynamic.allocate, Some(Allocate { concurrency: 3, refresh: Duration::from_secs(300) }));
}

#[test]
fn xrays_name_of_the_users_and_a_range_of_ports() {
    let text = format!(
        r#"{{"outbounds": [{{"protocol": "freedom"}}],
            "inbounds": [{{"protocol": "vmess", "port": " 300 - 302 ", "listen": "127.0.0.1", "settings": {{"users": [{{"id": "{ID}"}}]}}}},
                         {{"protocol": "vmess", "port": "303", "listen": "127.0.0.1", "allocate": {{"strategy": "always"}},
                           "settings": {{"clients": null, "users": [{{"id": "{ID}", "email": ""}}, {{"id": "example", "email": ""}}]}}}}]}}"#
    );
    let config = config(&text, &["inbounds[1].settings.users[1].id"]);
    let [first, second] = servers(&config)[..] else { panic!("two servers") };
    assert_eq!((first.listen.ports, first.clients.len()), ((300, 302), 1));
    assert_eq!((second.listen.ports, second.clients.len()), ((303, 303), 2), "the empty e-mail may repeat");
}

#[test]
fn every_shape_of_mux() {
    let mux =
        |concurrency, xudp_concurrency| Mux { concurrency, xudp_concurrency, xudp_udp443: Xudp443::Allow };
    for (text, expected) in [
        (r#"{"enabled": false, "concurrency": 8}"#, None),
        (r#"{"concurrency": 8}"#, None),
        (r#"{"enabled": true}"#, Some(mux(8, None))),
        (r#"{"enabled": true, "concurrency": 0}"#, Some(mux(8, None))),
        (r#"{"enabled": true, "concurrency": 1024, "xudpProxyUDP443": ""}"#, Some(mux(1024, None))),
        (r#"{"enabled": true, "concurrency": -1}"#, None),
        (r#"{"enabled": true, "concurrency": -32768, "xudpConcurrency": -1}"#, None),
        (r#"{"enabled": true, "concurrency": -1, "xudpConcurrency": 16}"#, Some(mux(0, Some(16)))),
        (r#"{"enabled": true, "xudpConcurrency": 0}"#, Some(mux(8, None))),
        (r#"{"enabled": true, "concurrency": 4, "xudpConcurrency": -1}"#, Some(mux(4, Some(0)))),
        (
            r#"{"enabled": true, "xudpProxyUDP443": "reject"}"#,
            Some(Mux { xudp_udp443: Xudp443::Reject, ..mux(8, None) }),
        ),
    ] {
        let text = format!(
            r#"{{"outbounds": [{{"protocol": "vmess", "mux": {text},
                "settings": {{"vnext": [{{"address": "a", "port": 1, "users": [{{"id": "{ID}"}}]}}]}}}}]}}"#
        );
        assert_eq!(config(&text, &[]).outbounds[0].mux, expected, "{text}");
    }
}

#[test]
fn packets_are_encoded_as_the_settings_or_mux_say() {
    for (settings, mux, expected) in [
        ("null", "null", PacketEncoding::None),
        (r#""none""#, r#""packet""#, PacketEncoding::None),
        (r#""XUDP""#, "null", PacketEncoding::Xudp),
        (r#""packetaddr""#, "null", PacketEncoding::PacketAddr),
        ("null", r#""Packet""#, PacketEncoding::PacketAddr),
    ] {
        let text = format!(
            r#"{{"outbounds": [{{"protocol": "vmess", "mux": {{"enabled": false, "packetEncoding": {mux}}}, "settings": {{
                "packetEncoding": {settings}, "vnext": [{{"address": "a", "port": 1, "users": [{{"id": "{ID}"}}]}}]}}}}]}}"#
        );
        let config = config(&text, &[]);
        let OutboundProtocol::Vmess(vmess) = &config.outbounds[0].protocol else { panic!("no vmess") };
        assert_eq!(vmess.packet_encoding, expected, "{text}");
    }
}

/// A config with `count` users, each named by a rule.
fn crowd(count: usize) -> String {
    let (mut clients, mut emails) = (String::new(), String::new());
    for index in 0..count {
        let comma = if index > 0 { "," } else { "" };
        write!(
            clients,
            r#"{comma}{{"id": "{index:032x}", "email": "user-{index}@example.com", "level": 0}}"#
        )
        .expect("a text");
        write!(emails, r#"{comma}"user-{index}@example.com""#).expect("a text");
    }
    format!(
        r#"{{"outbounds": [{{"protocol": "freedom", "tag": "out"}}],
            "inbounds": [{{"protocol": "vmess", "port": 1, "settings": {{"clients": [{clients}]}}}}],
            "routing": {{"rules": [{{"type": "field", "user": [{emails}], "outboundTag": "out"}}]}}}}"#
    )
}

#[test]
fn thousands_of_users_take_time_in_proportion() {
    let time = |text: &str| {
        let started = Instant::now();
        let parsed = parse(text);
        (started.elapsed(), parsed)
    };
    let (few, many) = (crowd(1_000), crowd(20_000));
    let fastest = (0..5).map(|_| time(&few).0).min().expect("five");
    let (taken, parsed) = time(&many);
    assert_eq!(parsed.diagnostics, []);
    assert_eq!(servers(&parsed.config.expect("no error"))[0].clients.len(), 20_000);
    // Twenty times the users; a check of each against each would take four hundred times as long.
    assert!(taken < fastest * 120, "{taken:?} for 20,000 users, {fastest:?} for 1,000");
}

#[test]
fn thousands_of_mistakes_take_time_in_proportion() {
    let wrong = crowd(5_000).replace("@example.com\"]", "@example.com\", \"nobody\"]").replacen(
        r#""user": ["#,
        &format!(
            r#""user": [{}"#,
            (0..5_000).map(|i| format!(r#""usr-{i}@example.com","#)).collect::<String>()
        ),
        1,
    );
    let started = Instant::now();
    let parsed = parse(&wrong);
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
    let unknown =
        parsed.diagnostics.iter().filter(|finding| finding.path.starts_with("routing.rules[0].user"));
    assert_eq!(unknown.count(), 200, "the rest is only counted");
    assert!(parsed.config.is_some());
}
