//! Routing rules: conditions and the outbound that they choose.
//!
//! A condition that this version cannot judge is an error: a rule without it would match what it must not.

use super::diagnostic::Diagnostic;
use super::model::{DomainPattern, Rule};
use super::nearest::{MOST_COMPARED, nearest};
use super::shown::quote;
use super::walk::{Node, Object};
use crate::addr::{Cidr, Network};
use std::collections::HashSet;
use std::sync::Arc;

const KEYS: &[&str] = &["domainStrategy", "domainMatcher", "rules", "balancers", "settings", "strategy"];

const RULE_KEYS: &[&str] = &[
    "type",
    "domain",
    "domains",
    "ip",
    "port",
    "network",
    "inboundTag",
    "outboundTag",
    "balancerTag",
    "source",
    "sourcePort",
    "user",
    "protocol",
    "attrs",
    "domainMatcher",
    "ruleTag",
];

/// Conditions of V2Ray that this version does not judge.
const FOREIGN: [(&str, &str); 2] =
    [("protocol", "a condition on the sniffed protocol"), ("attrs", "a condition on HTTP attributes")];

/// What rules may refer to, by their tags.
#[derive(Debug)]
pub(super) struct Tags {
    /// The inbounds' tags.
    pub(super) inbounds: Vec<Arc<str>>,
    /// The outbounds' tags, in the config's order.
    pub(super) outbounds: Vec<Arc<str>>,
    /// The e-mails of the inbounds' users.
    pub(super) users: HashSet<String>,
}

/// Reads all rules, in their order.
pub(super) fn read(top: &Object<'_>, tags: &Tags) -> Vec<Rule> {
    let Some(object) = top.section("routing", KEYS) else { return Vec::new() };
    let mut nodes = object.entries("rules");
    let old = object.get("settings").and_then(|node| {
        node.warning("an old key", |finding| finding.hint("move its content up into `routing`"));
        node.object(&["domainStrategy", "rules"])
    });
    nodes.extend(old.iter().flat_map(|object| object.entries("rules")));
    let rules: Vec<Rule> = nodes.iter().filter_map(|node| rule(node, tags)).collect();
    let by_address = rules.iter().any(|rule| rule.ips.is_some());
    for object in std::iter::once(&object).chain(&old) {
        if let Some(node) = object.get("domainStrategy") {
            check_strategy(&node, by_address);
        }
    }
    if let Some(node) = object.get("balancers").filter(|node| !node.is_empty()) {
        node.unsupported("a balancer", "name one outbound in each rule's `outboundTag`");
    }
    rules
}

/// Checks `domainStrategy`: names are never resolved for the sake of a rule.
fn check_strategy(node: &Node<'_>, by_address: bool) {
    const STRATEGIES: &[(&str, bool)] =
        &[("AsIs", false), ("IPIfNonMatch", true), ("IPOnDemand", true), ("UseIP", true), ("", false)];
    if node.choice("domain strategy", STRATEGIES) != Some(true) {
        return;
    }
    let what = "resolving names to match rules";
    if by_address {
        node.unsupported(what, "set it to `AsIs`: rules with `ip` then match targets given by address alone");
    } else {
        node.ignored(what, "no rule asks for an address");
    }
}

/// Reads a rule. `None` after an error.
fn rule(node: &Node<'_>, tags: &Tags) -> Option<Rule> {
    let object = node.object(RULE_KEYS)?;
    let kind =
        object.required("type", "field").and_then(|node| node.choice("type of rule", &[("field", ())]));
    let mut whole = kind.is_some();
    let mut foreign = false;
    for (key, what) in FOREIGN {
        if let Some(node) = object.get(key).filter(|node| !node.is_empty()) {
            node.unsupported(what, "remove the rule, or the condition if the rule may match without it");
            foreign = true;
        }
    }
    let outbound = outbound(&object, tags);
    let mut rule = Rule::to(outbound.unwrap_or_default());
    let domains = [object.get("domain"), object.get("domains")];
    for node in domains.iter().flatten() {
        whole &= gather(&mut rule.domains, list(node, domain));
    }
    if let Some(node) = object.get("ip") {
        whole &= gather(&mut rule.ips, list(&node, address));
    }
    if let Some(node) = object.get("port") {
        whole &= gather(&mut rule.ports, ports(&node));
    }
    if let Some(node) = object.get("network") {
        whole &= gather(&mut rule.networks, list(&node, network));
    }
    if let Some(node) = object.get("inboundTag") {
        whole &= gather(&mut rule.inbound_tags, list(&node, |text, node| inbound_tag(text, node, tags)));
    }
    if let Some(node) = object.get("user") {
        whole &= gather(&mut rule.users, list(&node, |text, node| user(text, node, tags)));
    }
    if let Some(node) = object.get("source") {
        whole &= gather(&mut rule.sources, list(&node, address));
    }
    if let Some(node) = object.get("sourcePort") {
        whole &= gather(&mut rule.source_ports, ports(&node));
    }
    let empty = rule == Rule::to(rule.outbound);
    if whole && empty && !foreign {
        node.error("the rule has no condition", |finding| {
            finding
                .allowed("at least one of domain, ip, port, network, inboundTag, user, source, sourcePort")
                .hint("a rule for all is not needed: the first outbound is the default")
        });
    }
    (whole && !empty && !foreign && outbound.is_some()).then_some(rule)
}

/// Finds the outbound that the rule names.
fn outbound(rule: &Object<'_>, tags: &Tags) -> Option<usize> {
    let tag = rule.get("outboundTag").filter(|node| !node.value().as_str().is_some_and(str::is_empty));
    let balancer = rule.get("balancerTag");
    let Some(node) = tag else {
        match balancer {
            Some(node) => node.unsupported("a balancer", "name one outbound in `outboundTag`"),
            None => rule.missing("outboundTag", &quoted(&tags.outbounds)),
        }
        return None;
    };
    if let Some(node) = balancer {
        node.no_effect("`outboundTag` counts");
    }
    let text = node.text()?.trim();
    let index = tags.outbounds.iter().position(|tag| **tag == *text);
    if index.is_none() {
        let near = nearest(text, tags.outbounds.iter().map(|tag| &**tag));
        let allowed = quoted(&tags.outbounds);
        node.error("no outbound has this tag", |finding| finding.allowed(allowed).hint(offer_tag(near)));
    }
    index
}

/// Adds what was read to a condition; an empty list is no condition. False after an error.
fn gather<T>(condition: &mut Option<Vec<T>>, read: Option<Vec<T>>) -> bool {
    match read {
        Some(entries) if entries.is_empty() => true,
        Some(entries) => {
            condition.get_or_insert_default().extend(entries);
            true
        }
        None => false,
    }
}

/// Reads each text of a list. `None` if one is wrong.
fn list<T>(node: &Node<'_>, mut read: impl FnMut(&str, &Node<'_>) -> Option<T>) -> Option<Vec<T>> {
    let errors = node.errors();
    let texts = node.texts()?;
    if texts.is_empty() && node.errors() == errors {
        node.no_effect("the list is empty");
    }
    let entries: Vec<Option<T>> = texts.iter().map(|(text, node)| read(text, node)).collect();
    if node.errors() > errors { None } else { entries.into_iter().collect() }
}

/// Reads a pattern for names.
fn domain(text: &str, node: &Node<'_>) -> Option<DomainPattern> {
    let (form, pattern) = text.split_once(':').unwrap_or(("", text));
    let lower = || pattern.to_lowercase();
    let read = match form.to_ascii_lowercase().as_str() {
        "" | "keyword" => DomainPattern::Substring(lower()),
        "domain" => DomainPattern::Suffix(lower().trim_matches('.').to_owned()),
        "full" => DomainPattern::Full(lower().trim_end_matches('.').to_owned()),
        "regexp" => {
            if let Err(error) = regex_lite::Regex::new(pattern) {
                let reason = error.to_string();
                let reason = reason.lines().last().unwrap_or_default().trim();
                node.error(format!("the regular expression is not valid: {reason}"), |finding| finding);
                return None;
            }
            DomainPattern::Regexp(pattern.to_owned())
        }
        "dotless" if pattern.contains('.') => {
            node.error("a pattern of names without dots cannot hold a dot", |finding| finding);
            return None;
        }
        "dotless" => {
            return Some(DomainPattern::Regexp(format!("^[^.]*{}[^.]*$", regex_lite::escape(&lower()))));
        }
        "geosite" | "ext" | "ext-domain" | "ext-site" => {
            node.unsupported("a list of names from a file", "write the names as `domain:example.com`");
            return None;
        }
        _ => {
            let allowed = "a part of a name, or domain:, full:, regexp:, keyword:, dotless: and a text";
            node.error("unknown form of a pattern", |finding| finding.allowed(allowed));
            return None;
        }
    };
    let blank = match &read {
        DomainPattern::Substring(text) | DomainPattern::Suffix(text) => text.is_empty(),
        DomainPattern::Full(text) | DomainPattern::Regexp(text) => text.is_empty(),
    };
    if blank {
        node.error("the pattern is empty", |finding| finding.allowed("a text"));
        return None;
    }
    Some(read)
}

/// Reads a network of addresses.
fn address(text: &str, node: &Node<'_>) -> Option<Cidr> {
    let lower = text.to_ascii_lowercase();
    let listed = ["geoip:", "ext:", "ext-ip:"].iter().any(|form| lower.starts_with(form));
    if listed {
        let hint = match lower.as_str() {
            "geoip:private" => {
                "write 10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16, 127.0.0.0/8, 169.254.0.0/16, fc00::/7, fe80::/10, ::1"
            }
            _ => "write the networks, such as 10.0.0.0/8",
        };
        node.unsupported("a list of addresses from a file", hint);
        return None;
    }
    let cidr = Cidr::parse(text);
    if cidr.is_none() {
        let allowed = "addresses or networks such as 10.0.0.0/8 or fd00::/8";
        node.error("not a network", |finding| finding.allowed(allowed).hint("names belong under `domain`"));
    }
    cidr
}

/// Reads the transport protocol.
fn network(text: &str, node: &Node<'_>) -> Option<Network> {
    let network =
        [Network::Tcp, Network::Udp].into_iter().find(|network| network.name().eq_ignore_ascii_case(text));
    if network.is_none() {
        node.error("unknown network", |finding| finding.allowed("tcp, udp"));
    }
    network
}

/// Reads an inbound's tag; one that no inbound has is warned about. `tun` may be added when the tunnel is
/// started.
fn inbound_tag(text: &str, node: &Node<'_>, tags: &Tags) -> Option<Arc<str>> {
    if text != "tun" && !tags.inbounds.iter().any(|tag| **tag == *text) {
        let near = nearest(text, tags.inbounds.iter().map(|tag| &**tag));
        let allowed = quoted(&tags.inbounds);
        node.warning("no inbound has this tag", |finding| finding.allowed(allowed).hint(offer_tag(near)));
    }
    Some(text.into())
}

/// Reads a user's e-mail; one that no user has is warned about. Users may be added while the server runs.
fn user(text: &str, node: &Node<'_>, tags: &Tags) -> Option<String> {
    if text.is_empty() {
        node.error("the e-mail is empty", |finding| finding.allowed("the e-mail of a vmess inbound's user"));
        return None;
    }
    if !tags.users.contains(text) {
        let near = match tags.users.len() {
            0..=MOST_COMPARED => nearest(text, tags.users.iter().map(String::as_str)),
            _ => None,
        };
        node.warning("no user of an inbound has this e-mail", |finding| {
            finding.allowed("an e-mail as it is written there").hint(offer_tag(near))
        });
    }
    Some(text.to_owned())
}

/// Reads ports: a number, or a text such as `53,80-90`.
fn ports(node: &Node<'_>) -> Option<Vec<(u16, u16)>> {
    const ALLOWED: &str = "a number, or a text such as \"53,80-90\", with ports from 0 to 65535";
    let Some(text) = node.value().as_str() else {
        if node.value().is_number() {
            return node.number_u16(0).map(|port| vec![(port, port)]);
        }
        node.error("wrong type", |finding| finding.allowed(ALLOWED));
        return None;
    };
    let mut ports = Vec::new();
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let (low, high) = part.split_once('-').unwrap_or((part, part));
        match (low.trim().parse(), high.trim().parse()) {
            (Ok(low), Ok(high)) if low <= high => ports.push((low, high)),
            _ if part.starts_with("env:") => {
                node.unsupported("a port from an environment variable", "write the number");
                return None;
            }
            _ => {
                node.error(format!("{} is no port and no range", quote(part)), |finding| {
                    finding.allowed(ALLOWED)
                });
                return None;
            }
        }
    }
    if ports.is_empty() {
        node.error("no port is given", |finding| finding.allowed(ALLOWED));
        return None;
    }
    Some(ports)
}

/// Offers the nearest tag, for the hint of a finding; empty if none is near.
fn offer_tag(near: Option<&str>) -> String {
    near.map_or_else(String::new, |tag| format!("did you mean {}?", quote(tag)))
}

/// The tags in quotes, for a person.
fn quoted(tags: &[Arc<str>]) -> String {
    let mut named: Vec<String> = Vec::new();
    for tag in tags.iter().filter(|tag| !tag.is_empty()).map(|tag| format!("{tag:?}")) {
        if named.len() < 12 && !named.contains(&tag) {
            named.push(tag);
        }
    }
    if named.is_empty() { "no tag: none is given".to_owned() } else { named.join(", ") }
}

/// Reports `sniffing` that is on, which this version does not do: rules by name would match less than they
/// should.
pub(super) fn check_sniffing(sniffing: &Node<'_>, inbound_tag: &str, rules: &[Rule]) {
    let concerns = |rule: &&Rule| {
        let tagged =
            rule.inbound_tags.as_ref().is_none_or(|tags| tags.iter().any(|tag| **tag == *inbound_tag));
        rule.domains.is_some() && tagged
    };
    if rules.iter().any(|rule| concerns(&rule)) {
        let hint = "turn it off: rules with `domain` then match only targets that are given by name";
        sniffing.unsupported("sniffing, which rules with `domain` need,", hint);
    } else {
        sniffing.ignored(
            "sniffing",
            "targets stay as the apps give them; no rule of this inbound asks for a name",
        );
    }
}

/// Reports top-level sections that steer traffic or serve something, and that this version does not have.
pub(super) fn check_foreign_sections(top: &Object<'_>) {
    if let Some(node) = top.get("reverse")
        && let Some(object) = node.object(&["bridges", "portals"])
    {
        for key in ["bridges", "portals"] {
            if let Some(node) = object.get(key).filter(|node| !node.is_empty()) {
                node.unsupported("a reverse proxy", "remove it");
            }
        }
    }
    if let Some(node) = top.get("api")
        && let Some(object) = node.object(&["tag", "services", "listen"])
    {
        match object.get("services").filter(|node| !node.is_empty()) {
            Some(node) => {
                node.unsupported("the gRPC interface (`api`)", "remove it; the host has the counters")
            }
            None => node.no_effect("no service is listed"),
        }
    }
    for key in
        ["fakedns", "observatory", "burstObservatory", "browserForwarder", "services", "geodata", "metrics"]
    {
        if let Some(node) = top.get(key).filter(|node| !node.is_empty()) {
            let finding = Diagnostic::warning(
                node.path(),
                format!("`{key}` is not supported by this version and ignored"),
            );
            top.report(finding);
        }
    }
}
