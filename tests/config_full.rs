//! A config with every key that is served comes out as the values it means; an almost empty one as the defaults.

use std::time::Duration;
use vmesskit::addr::{Cidr, Host, Network, Target};
use vmesskit::config::{
    Allocate, Config, DefaultUser, DomainPattern, DomainStrategy, Freedom, Icmp, Inbound, InboundProtocol,
    Level, Listen, LogLevel, Mux, Outbound, OutboundProtocol, PacketEncoding, Policy, Rule, Sntp, Socks,
    StreamSettings, SystemStats, Tun, Vmess, VmessClient, VmessInbound, VmessServer, VmessUser, Vmesskit,
    Xudp443, format_config, parse,
};
use vmesskit::vmess::{Id, Security};

const FULL: &str = r#"{
    // Every key that this version serves.
    "log": { "loglevel": "Debug", "access": "none", "error": "" },
    "inbounds": [
        {
            "protocol": "tun", "tag": "device",
            "settings": {
                "mtu": 16000,
                "addresses": ["10.7.0.1/24", "fd07::1/64"],
                "routes": ["0.0.0.0/0", "::/0"],
                "excludedRoutes": "192.168.0.0/16, fe80::/10",
                "dns": "10.7.0.53",
                "apps": { "allow": ["org.example.one", "org.example.two"], "deny": [] },
                "metered": false,
                "icmp": "drop",
                "udp443": "reject"
            },
            "sniffing": { "enabled": false }
        },
        {
            "protocol": "Socks", "tag": "socks", "listen": "::1", "port": "1080",
            "settings": {
                "auth": "password",
                "accounts": [{ "user": "u", "pass": "p" }, { "user": "v", "pass": "q" }],
                "udp": true, "ip": "127.0.0.1", "timeout": 0, "userLevel": 1
            },
            "streamSettings": { "network": "tcp", "security": "none", "tcpSettings": { "header": { "type": "none" } } },
            "allocate": { "strategy": "always" }
        },
        { "protocol": "socks", "listen": "localhost", "port": 1081 },
        {
            "protocol": "vmess", "tag": "server", "listen": "::", "port": "10086-10089",
            "settings": {
                "clients": [
                    { "id": "b831381d-6324-4d53-ad4f-8cda48b30815", "level": 1, "email": "Ann@example.com", "experiments": "NoTerminationSignal" },
                    { "id": "b831381d-6324-4d53-ad4f-8cda48b30816", "alterId": 0, "email": "ben" },
                    { "id": "b831381d-6324-4d53-ad4f-8cda48b30817" }
                ],
                "default": { "level": 2, "alterId": 0 },
                "detour": { "to": "dynamic" },
                "disableInsecureEncryption": true
            }
        },
        {
            "protocol": "vmess", "tag": "dynamic", "port": "20000-20003", "settings": { "clients": [] },
            "allocate": { "strategy": "random", "concurrency": 2, "refresh": 7 }
        }
    ],
    "outbounds": [
        {
            "protocol": "vmess", "tag": "proxy",
            "settings": { "vnext": [
                { "address": "Server.Example.", "port": 443, "users": [
                    { "id": "b831381d-6324-4d53-ad4f-8cda48b30811", "alterId": 0, "security": "AES-128-GCM", "level": 1,
                      "email": "a@b", "experiments": "AuthenticatedLength|NoTerminationSignal" },
                    { "id": "B831381D63244D53AD4F8CDA48B30812", "security": "chacha20-poly1305" }
                ] },
                { "address": "[2001:db8::1]", "port": 10086, "users": [
                    { "id": "b831381d-6324-4d53-ad4f-8cda48b30813", "security": "auto" }
                ] },
                { "address": " 192.0.2.1 ", "port": 1, "users": [{ "id": "b831381d-6324-4d53-ad4f-8cda48b30814" }] }
            ], "packetEncoding": "Packet" },
            "streamSettings": { "network": "TCP", "sockopt": { "mark": 0, "tproxy": "off" } },
            "mux": { "enabled": true, "concurrency": 16, "xudpConcurrency": -1, "xudpProxyUDP443": "skip" },
            "sendThrough": "0.0.0.0"
        },
        { "protocol": "freedom", "tag": "direct", "settings": { "domainStrategy": "UseIPv4", "redirect": "localhost:8080", "userLevel": 2 } },
        { "protocol": "freedom", "tag": "moved", "settings": { "domainStrategy": "UseIPv6", "redirect": ":53" } },
        { "protocol": "blackhole", "tag": "block", "settings": { "response": { "type": "http" } } },
        { "protocol": "blackhole" }
    ],
    "routing": {
        "domainStrategy": "AsIs",
        "rules": [
            { "type": "field", "domain": ["Plain", "domain:Example.com", "full:WWW.example.com"],
              "domains": ["regexp:\\.Goo.*$", "keyword:ads", "dotless:nas"], "outboundTag": "block" },
            { "type": "Field", "ip": ["10.0.0.0/8", "::1"], "network": "tcp", "outboundTag": "direct" },
            { "type": "field", "port": "53,1000-2000", "network": "UDP", "inboundTag": "device,socks", "outboundTag": "moved" },
            { "type": "field", "port": 25, "network": ["tcp", "udp"], "outboundTag": "block" },
            { "type": "field", "inboundTag": ["socks"], "outboundTag": "proxy" },
            { "type": "field", "user": ["Ann@example.com", "ben"], "source": "10.0.0.0/8,::1", "sourcePort": "1024-2048,53", "outboundTag": "block" }
        ]
    },
    "dns": { "servers": ["9.9.9.9", { "address": "2620:fe::fe", "port": 5353 }, "9.9.9.9"] },
    "policy": {
        "levels": {
            "0": { "handshake": 4, "connIdle": 300, "uplinkOnly": 2, "downlinkOnly": 5 },
            "1": { "connIdle": 60, "statsUserUplink": true, "statsUserDownlink": true }
        },
        "system": { "statsInboundUplink": true, "statsInboundDownlink": false, "statsOutboundUplink": true, "statsOutboundDownlink": true }
    },
    "stats": {},
    "vmesskit": { "memoryLimit": 33554432, "noneChunked": true, "allowCfb": false, "dynamicPort": false,
        "legacyTagLimit": 5000, "connectionsPerUser": 64, "connectionsPerSource": 256,
        "sntp": { "server": "Time.Example.com:1123", "correct": true } }
}"#;

fn cidr(text: &str) -> Cidr {
    Cidr::parse(text).expect("a network")
}

fn user(id: &str, security: Security) -> VmessUser {
    VmessUser {
        id: Id::parse(id).expect("an id").0,
        alter_id: 0,
        security,
        level: 0,
        email: String::new(),
        authenticated_length: false,
        no_termination_signal: false,
    }
}

fn server(host: Host, port: u16, users: Vec<VmessUser>) -> VmessServer {
    VmessServer { target: Target::new(host, port), users }
}

fn outbound(tag: &str, protocol: OutboundProtocol) -> Outbound {
    Outbound::new(tag, protocol)
}

fn seconds(handshake: u64, conn_idle: u64, uplink_only: u64, downlink_only: u64) -> Level {
    let [handshake, conn_idle, uplink_only, downlink_only] =
        [handshake, conn_idle, uplink_only, downlink_only].map(Duration::from_secs);
    Level { handshake, conn_idle, uplink_only, downlink_only, stats_uplink: false, stats_downlink: false }
}

fn counted(level: Level) -> Level {
    Level { stats_uplink: true, stats_downlink: true, ..level }
}

fn client(id: &str, level: u32, email: &str) -> VmessClient {
    VmessClient {
        id: Id::parse(id).expect("an id").0,
        alter_id: 0,
        level,
        email: email.into(),
        no_termination_signal: false,
    }
}

fn vmess_server() -> VmessInbound {
    let ann = VmessClient {
        no_termination_signal: true,
        ..client("b831381d-6324-4d53-ad4f-8cda48b30815", 1, "Ann@example.com")
    };
    let ben = client("b831381d-6324-4d53-ad4f-8cda48b30816", 0, "ben");
    let nameless = client("b831381d-6324-4d53-ad4f-8cda48b30817", 0, "");
    VmessInbound {
        listen: Listen { ip: "::".parse().expect("an address"), ports: (10_086, 10_089) },
        clients: vec![ann, ben, nameless],
        default: DefaultUser { alter_id: 0, level: 2 },
        detour: Some("dynamic".into()),
        disable_insecure_encryption: true,
        allocate: None,
        stream: StreamSettings::default(),
    }
}

#[test]
fn every_key_means_what_it_says() {
    let tun = Tun {
        mtu: Some(16000),
        addresses: vec![cidr("10.7.0.1/24"), cidr("fd07::1/64")],
        routes: vec![cidr("0.0.0.0/0"), cidr("::/0")],
        excluded_routes: vec![cidr("192.168.0.0/16"), cidr("fe80::/10")],
        dns: [10, 7, 0, 53].into(),
        allow_apps: vec!["org.example.one".into(), "org.example.two".into()],
        deny_apps: vec![],
        metered: Some(false),
        icmp: Icmp::Drop,
        reject_udp443: true,
    };
    let socks = Socks {
        listen: "[::1]:1080".parse().expect("an address"),
        accounts: vec![("u".into(), "p".into()), ("v".into(), "q".into())],
        udp: true,
        ip: Some([127, 0, 0, 1].into()),
        level: 1,
    };
    let plain_socks =
        Socks { listen: ([127, 0, 0, 1], 1081).into(), accounts: vec![], udp: false, ip: None, level: 0 };
    let mut first = user("b831381d-6324-4d53-ad4f-8cda48b30811", Security::Aes128Gcm);
    first.level = 1;
    first.email = "a@b".into();
    first.authenticated_length = true;
    first.no_termination_signal = true;
    let second = user("b831381d-6324-4d53-ad4f-8cda48b30812", Security::Chacha20Poly1305);
    let vmess = Vmess {
        servers: vec![
            server(Host::Domain("server.example".into()), 443, vec![first, second]),
            server(
                Host::Ip("2001:db8::1".parse().expect("an address")),
                10086,
                vec![user("b831381d-6324-4d53-ad4f-8cda48b30813", Security::Auto)],
            ),
            server(
                Host::Ip([192, 0, 2, 1].into()),
                1,
                vec![user("b831381d-6324-4d53-ad4f-8cda48b30814", Security::Auto)],
            ),
        ],
        packet_encoding: PacketEncoding::PacketAddr,
    };
    let mux = Mux { concurrency: 16, xudp_concurrency: Some(0), xudp_udp443: Xudp443::Skip };
    let dynamic = VmessInbound {
        listen: Listen { ip: [0, 0, 0, 0].into(), ports: (20_000, 20_003) },
        clients: vec![],
        default: DefaultUser::default(),
        detour: None,
        disable_insecure_encryption: false,
        allocate: Some(Allocate { concurrency: 2, refresh: Duration::from_secs(420) }),
        stream: StreamSettings::default(),
    };
    let direct = Freedom {
        strategy: DomainStrategy::Ipv4,
        redirect: Some((Some(Host::Domain("localhost".into())), 8080)),
        level: 2,
    };
    let moved = Freedom { strategy: DomainStrategy::Ipv6, redirect: Some((None, 53)), level: 0 };
    let expected = Config {
        log_level: LogLevel::Debug,
        inbounds: vec![
            Inbound { tag: "device".into(), protocol: InboundProtocol::Tun(tun) },
            Inbound { tag: "socks".into(), protocol: InboundProtocol::Socks(socks) },
            Inbound { tag: "".into(), protocol: InboundProtocol::Socks(plain_socks) },
            Inbound { tag: "server".into(), protocol: InboundProtocol::Vmess(vmess_server()) },
            Inbound { tag: "dynamic".into(), protocol: InboundProtocol::Vmess(dynamic) },
        ],
        outbounds: vec![
            Outbound { mux: Some(mux), ..outbound("proxy", OutboundProtocol::Vmess(vmess)) },
            outbound("direct", OutboundProtocol::Freedom(direct)),
            outbound("moved", OutboundProtocol::Freedom(moved)),
            outbound("block", OutboundProtocol::Blackhole { http: true }),
            outbound("", OutboundProtocol::Blackhole { http: false }),
        ],
        rules: vec![
            Rule {
                domains: Some(vec![
                    DomainPattern::Substring("plain".into()),
                    DomainPattern::Suffix("example.com".into()),
                    DomainPattern::Full("www.example.com".into()),
                    DomainPattern::Regexp(r"\.Goo.*$".into()),
                    DomainPattern::Substring("ads".into()),
                    DomainPattern::Regexp("^[^.]*nas[^.]*$".into()),
                ]),
                ..Rule::to(3)
            },
            Rule {
                ips: Some(vec![cidr("10.0.0.0/8"), cidr("::1/128")]),
                networks: Some(vec![Network::Tcp]),
                ..Rule::to(1)
            },
            Rule {
                ports: Some(vec![(53, 53), (1000, 2000)]),
                networks: Some(vec![Network::Udp]),
                inbound_tags: Some(vec!["device".into(), "socks".into()]),
                ..Rule::to(2)
            },
            Rule {
                ports: Some(vec![(25, 25)]),
                networks: Some(vec![Network::Tcp, Network::Udp]),
                ..Rule::to(3)
            },
            Rule { inbound_tags: Some(vec!["socks".into()]), ..Rule::to(0) },
            Rule {
                users: Some(vec!["Ann@example.com".into(), "ben".into()]),
                sources: Some(vec![cidr("10.0.0.0/8"), cidr("::1")]),
                source_ports: Some(vec![(1024, 2048), (53, 53)]),
                ..Rule::to(3)
            },
        ],
        dns_servers: vec![([9, 9, 9, 9], 53).into(), "[2620:fe::fe]:5353".parse().expect("an address")],
        policy: Policy {
            levels: [(0, seconds(4, 300, 2, 5)), (1, counted(seconds(60, 60, 30, 30)))].into(),
            server_levels: [(0, seconds(4, 300, 2, 5)), (1, counted(seconds(60, 60, 1, 30)))].into(),
            system: SystemStats {
                inbound_uplink: true,
                inbound_downlink: false,
                outbound_uplink: true,
                outbound_downlink: true,
            },
        },
        vmesskit: Vmesskit {
            memory_limit: Some(32 << 20),
            none_chunked: true,
            allow_cfb: false,
            dynamic_port: false,
            legacy_tag_limit: 5000,
            connections_per_user: 64,
            connections_per_source: 256,
            sntp: Some(Sntp {
                server: Target::new(Host::Domain("time.example.com".into()), 1123),
                correct: true,
            }),
        },
    };
    let parsed = parse(FULL);
    assert_eq!(parsed.diagnostics, [], "a good config gives no finding");
    assert_eq!(parsed.config, Some(expected));
}

#[test]
fn what_is_absent_takes_its_default() {
    let config = |text: &str| {
        let parsed = parse(text);
        assert_eq!(parsed.diagnostics, [], "{text}");
        parsed.config.expect("no error")
    };
    let plain = config(r#"{"outbounds": [{"protocol": "freedom"}], "inbounds": [{"protocol": "tun"}]}"#);
    let (inbound, tun) = plain.tun().expect("a tun inbound");
    assert_eq!(&*inbound.tag, "tun");
    let expected = Tun {
        mtu: None,
        addresses: vec![cidr("172.19.0.1/30"), cidr("fd19::1/126")],
        routes: vec![cidr("0.0.0.0/0"), cidr("::/0")],
        excluded_routes: vec![],
        dns: [172, 19, 0, 2].into(),
        allow_apps: vec![],
        deny_apps: vec![],
        metered: None,
        icmp: Icmp::Reply,
        reject_udp443: false,
    };
    assert_eq!(*tun, expected);
    assert_eq!(*tun, Tun::default());
    assert_eq!(plain.log_level, LogLevel::Warning);
    assert_eq!(plain.dns_servers, [([1, 1, 1, 1], 53).into(), ([8, 8, 8, 8], 53).into()]);
    assert_eq!(plain.rules, []);
    assert_eq!(plain.policy, Policy::default());
    assert_eq!(plain.policy.level(7), seconds(60, 300, 30, 30));
    assert_eq!(plain.policy.server_level(7), seconds(60, 300, 1, 30));
    assert_eq!(plain.vmesskit, Vmesskit::default());
    let freedom = Freedom { strategy: DomainStrategy::Any, redirect: None, level: 0 };
    assert_eq!(plain.outbounds, [outbound("", OutboundProtocol::Freedom(freedom))]);
    let nulls = config(
        r#"{"log": null, "dns": null, "routing": null, "policy": null, "vmesskit": null, "unheard": null,
            "outbounds": [{"protocol": "freedom", "tag": null, "settings": {"redirect": null, "domainStrategy": ""},
                           "streamSettings": null, "mux": null, "proxySettings": null}],
            "inbounds": [{"protocol": "tun", "tag": "", "settings": {"mtu": null, "dns": null, "routes": null}}]}"#,
    );
    assert_eq!(nulls, plain, "null is as good as absent");
}

#[test]
fn formatting_keeps_values_and_order_and_drops_comments() {
    let text = format_config(FULL).expect("json");
    assert!(text.ends_with("}\n") && !text.contains("Every key"));
    assert_eq!(parse(&text), parse(FULL));
    assert_eq!(format_config(&text).as_deref(), Ok(text.as_str()), "a second time changes nothing");
    let keys = ["log", "inbounds", "outbounds", "routing", "dns", "policy", "stats", "vmesskit"];
    let places: Vec<_> =
        keys.iter().map(|key| text.find(&format!("\n  \"{key}\"")).expect("the key")).collect();
    assert!(places.is_sorted());
    assert_eq!(
        format_config("{ # x\n \"b\": [1], \"a\": {} }").as_deref(),
        Ok("{\n  \"b\": [\n    1\n  ],\n  \"a\": {}\n}\n")
    );
    let error = format_config("{\"a\": 1,}").expect_err("a trailing comma");
    assert_eq!(error.path, "line 1, column 8");
    assert!(error.text.contains("trailing comma"));
}
