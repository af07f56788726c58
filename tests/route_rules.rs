//! Which outbound a flow takes: first match wins, conditions are joined by AND, entries by OR.

use vmesskit::addr::{Cidr, Host, Network, Target};
use vmesskit::config::{DomainPattern, Rule};
use vmesskit::route::{Flow, RouteError, Router};

fn router(rules: &[Rule]) -> Router {
    Router::new(rules).expect("the rules compile")
}

fn pick(router: &Router, network: Network, host: &str, port: u16, inbound: &str) -> Option<usize> {
    let target = Target { host: Host::parse(host).expect("a host"), port };
    let source = ([10, 0, 0, 1], 40_000).into();
    router.pick(&Flow { network, target: &target, inbound, source, user: "" })
}

#[test]
fn without_rules_nothing_is_picked() {
    assert_eq!(pick(&router(&[]), Network::Tcp, "example.com", 443, "in"), None);
}

#[test]
fn the_first_match_wins() {
    let by_port = |outbound, ports: &[(u16, u16)]| Rule { ports: Some(ports.to_vec()), ..Rule::to(outbound) };
    let router =
        router(&[by_port(1, &[(53, 53)]), by_port(2, &[(50, 60), (443, 443)]), by_port(3, &[(0, 400)])]);
    for (port, expected) in [(53, Some(1)), (54, Some(2)), (443, Some(2)), (80, Some(3)), (500, None)] {
        assert_eq!(pick(&router, Network::Tcp, "192.0.2.1", port, ""), expected, "port {port}");
    }
}

#[test]
fn all_conditions_of_a_rule_must_hold() {
    let router = router(&[Rule {
        domains: Some(vec![
            DomainPattern::Suffix("example.com".into()),
            DomainPattern::Full("other.net".into()),
        ]),
        ports: Some(vec![(443, 443), (8000, 8999)]),
        networks: Some(vec![Network::Tcp]),
        inbound_tags: Some(vec!["tun".into(), "socks".into()]),
        ..Rule::to(4)
    }]);
    let table = [
        (Network::Tcp, "www.example.com", 443, "tun", true),
        (Network::Tcp, "other.net", 8500, "socks", true),
        (Network::Udp, "www.example.com", 443, "tun", false),
        (Network::Tcp, "www.other.net", 443, "tun", false),
        (Network::Tcp, "www.example.com", 80, "tun", false),
        (Network::Tcp, "www.example.com", 443, "tu", false),
        (Network::Tcp, "192.0.2.1", 443, "tun", false),
    ];
    for (network, host, port, inbound, hit) in table {
        let expected = hit.then_some(4);
        assert_eq!(
            pick(&router, network, host, port, inbound),
            expected,
            "{network} {host}:{port} from {inbound}"
        );
    }
}

#[test]
fn addresses_do_not_match_names_nor_names_addresses() {
    let cidr = |text| Cidr::parse(text).expect("a network");
    let router = router(&[
        Rule { ips: Some(vec![cidr("0.0.0.0/0"), cidr("::/0")]), ..Rule::to(1) },
        Rule { domains: Some(vec![DomainPattern::Substring("1".into())]), ..Rule::to(2) },
    ]);
    assert_eq!(pick(&router, Network::Tcp, "1.2.3.4", 1, ""), Some(1));
    assert_eq!(pick(&router, Network::Tcp, "[2001:db8::1]", 1, ""), Some(1));
    assert_eq!(pick(&router, Network::Tcp, "host1.example", 1, ""), Some(2));
    assert_eq!(pick(&router, Network::Tcp, "host.example", 1, ""), None);
    let both = Rule {
        ips: Some(vec![cidr("0.0.0.0/0")]),
        domains: Some(vec![DomainPattern::Substring("1".into())]),
        ..Rule::to(3)
    };
    let both = Router::new(&[both]).expect("it compiles");
    assert_eq!(pick(&both, Network::Tcp, "1.2.3.4", 1, ""), None, "AND between keys, as V2Ray has it");
}

#[test]
fn names_match_whatever_case_they_were_written_in() {
    let router =
        router(&[Rule { domains: Some(vec![DomainPattern::Full("example.com".into())]), ..Rule::to(1) }]);
    assert_eq!(pick(&router, Network::Tcp, "EXAMPLE.com.", 443, ""), Some(1));
}

#[test]
fn users_and_sources_match_as_they_are_written() {
    let cidr = |text| Cidr::parse(text).expect("a network");
    let router = router(&[
        Rule { users: Some(vec!["ann@example.com".into(), "ben".into()]), ..Rule::to(1) },
        Rule { sources: Some(vec![cidr("10.0.0.0/8"), cidr("fd00::/8")]), ..Rule::to(2) },
        Rule { source_ports: Some(vec![(53, 53), (1000, 1999)]), ..Rule::to(3) },
    ]);
    let target = Target { host: Host::parse("example.com").expect("a host"), port: 443 };
    for (user, source, expected) in [
        ("ann@example.com", "192.0.2.1:1", Some(1)),
        ("ben", "10.0.0.1:53", Some(1)),
        ("Ben", "192.0.2.1:1", None),
        ("", "10.1.2.3:1", Some(2)),
        ("", "[::ffff:10.1.2.3]:1", Some(2)),
        ("", "[fd00::1]:1", Some(2)),
        ("", "11.1.2.3:1999", Some(3)),
        ("", "11.1.2.3:2000", None),
    ] {
        let source = source.parse().expect("an address");
        let flow = Flow { network: Network::Tcp, target: &target, inbound: "in", source, user };
        assert_eq!(router.pick(&flow), expected, "{user} {source}");
    }
}

#[test]
fn an_empty_list_matches_nothing() {
    let router =
        router(&[Rule { ports: Some(vec![]), ..Rule::to(1) }, Rule { domains: Some(vec![]), ..Rule::to(2) }]);
    assert_eq!(pick(&router, Network::Tcp, "example.com", 443, ""), None);
}

#[test]
fn a_broken_expression_names_its_rule() {
    let broken = Rule { domains: Some(vec![DomainPattern::Regexp("[".into())]), ..Rule::to(1) };
    let error = Router::new(&[Rule::to(0), broken]).expect_err("it does not compile");
    assert!(matches!(error, RouteError::Regexp { rule: 1, ref pattern, .. } if pattern == "["), "{error}");
}

#[test]
fn thousands_of_patterns_are_found() {
    let suffixes = (0..20_000).map(|i| DomainPattern::Suffix(format!("site{i}.example"))).collect();
    let networks = (0..=u16::MAX).map(|i| Cidr { addr: [(i >> 8) as u8, i as u8, 0, 0].into(), prefix: 24 });
    let router = router(&[
        Rule { domains: Some(suffixes), ..Rule::to(1) },
        Rule { ips: Some(networks.collect()), ..Rule::to(2) },
    ]);
    for i in (0..20_000).step_by(97) {
        assert_eq!(pick(&router, Network::Tcp, &format!("www.site{i}.example"), 443, ""), Some(1));
        assert_eq!(pick(&router, Network::Tcp, &format!("www.site{i}.examples"), 443, ""), None);
        let second = i % 256;
        assert_eq!(pick(&router, Network::Tcp, &format!("9.{second}.0.77"), 443, ""), Some(2));
        assert_eq!(pick(&router, Network::Tcp, &format!("9.{second}.1.77"), 443, ""), None);
    }
}
