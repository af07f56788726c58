//! Routing: which outbound a flow takes, by the config's rules.
//!
//! A [`Router`] is made once per config and asked once per flow; thousands of patterns cost a handful of hash lookups.
//! Pure: nothing is resolved here, so a rule with addresses never matches a target that is a name.

mod cidr;
mod domain;

pub use cidr::CidrSet;
pub use domain::DomainSet;

use crate::addr::{Network, Target};
use crate::config::Rule;
use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;

/// Why rules cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RouteError {
    /// A regular expression does not compile.
    #[error("rule {rule}: the expression {pattern:?} does not compile: {reason}")]
    Regexp {
        /// The index of the rule.
        rule: usize,
        /// The expression.
        pattern: String,
        /// What is wrong with it.
        reason: String,
    },
}

/// What a rule can ask of a flow.
#[derive(Debug, Clone, Copy)]
pub struct Flow<'a> {
    /// The transport protocol.
    pub network: Network,
    /// Where the flow goes.
    pub target: &'a Target,
    /// The tag of the inbound that it came through.
    pub inbound: &'a str,
    /// Where it comes from.
    pub source: SocketAddr,
    /// The e-mail of the VMess inbound's user whose flow it is; empty for a user without one, and for none.
    pub user: &'a str,
}

/// A config's rules, ready to be asked.
#[derive(Debug, Default)]
pub struct Router {
    rules: Vec<Matcher>,
}

impl Router {
    /// Makes a router of `rules`, in their order.
    ///
    /// # Errors
    /// [`RouteError::Regexp`]; a config that was parsed without errors has no such rule.
    pub fn new(rules: &[Rule]) -> Result<Self, RouteError> {
        let rules = rules.iter().enumerate().map(|(index, rule)| Matcher::new(index, rule));
        Ok(Self { rules: rules.collect::<Result<_, _>>()? })
    }

    /// The index of the outbound that the first matching rule names; `None` if no rule matches, which means the first
    /// outbound.
    pub fn pick(&self, flow: &Flow<'_>) -> Option<usize> {
        self.rules.iter().find(|rule| rule.matches(flow)).map(|rule| rule.outbound)
    }
}

/// One rule: every condition that is there must hold.
#[derive(Debug)]
struct Matcher {
    inbounds: Option<HashSet<Arc<str>>>,
    users: Option<HashSet<String>>,
    sources: Option<CidrSet>,
    source_ports: Option<PortSet>,
    networks: Option<NetworkSet>,
    ports: Option<PortSet>,
    ips: Option<CidrSet>,
    domains: Option<DomainSet>,
    outbound: usize,
}

impl Matcher {
    fn new(index: usize, rule: &Rule) -> Result<Self, RouteError> {
        let domains = rule.domains.as_deref().map(DomainSet::new).transpose();
        Ok(Self {
            inbounds: rule.inbound_tags.as_ref().map(|tags| tags.iter().cloned().collect()),
            users: rule.users.as_ref().map(|users| users.iter().cloned().collect()),
            sources: rule.sources.as_deref().map(CidrSet::new),
            source_ports: rule.source_ports.as_deref().map(PortSet::new),
            networks: rule.networks.as_deref().map(NetworkSet::new),
            ports: rule.ports.as_deref().map(PortSet::new),
            ips: rule.ips.as_deref().map(CidrSet::new),
            domains: domains.map_err(|(pattern, reason)| RouteError::Regexp {
                rule: index,
                pattern,
                reason,
            })?,
            outbound: rule.outbound,
        })
    }

    /// The cheap conditions come first.
    fn matches(&self, flow: &Flow<'_>) -> bool {
        let host = &flow.target.host;
        self.networks.is_none_or(|networks| networks.contains(flow.network))
            && self.inbounds.as_ref().is_none_or(|tags| tags.contains(flow.inbound))
            && self.users.as_ref().is_none_or(|users| users.contains(flow.user))
            && self.source_ports.as_ref().is_none_or(|ports| ports.contains(flow.source.port()))
            && self.sources.as_ref().is_none_or(|set| set.contains(flow.source.ip()))
            && self.ports.as_ref().is_none_or(|ports| ports.contains(flow.target.port))
            && self.ips.as_ref().is_none_or(|ips| host.ip().is_some_and(|ip| ips.contains(ip)))
            && self.domains.as_ref().is_none_or(|set| host.domain().is_some_and(|name| set.contains(name)))
    }
}

#[derive(Debug, Clone, Copy)]
struct NetworkSet {
    tcp: bool,
    udp: bool,
}

impl NetworkSet {
    fn new(networks: &[Network]) -> Self {
        Self { tcp: networks.contains(&Network::Tcp), udp: networks.contains(&Network::Udp) }
    }

    fn contains(self, network: Network) -> bool {
        match network {
            Network::Tcp => self.tcp,
            Network::Udp => self.udp,
        }
    }
}

/// Inclusive port ranges, sorted and disjoint.
#[derive(Debug)]
struct PortSet(Vec<(u16, u16)>);

impl PortSet {
    fn new(ranges: &[(u16, u16)]) -> Self {
        let mut sorted: Vec<_> = ranges.iter().copied().filter(|(low, high)| low <= high).collect();
        sorted.sort_unstable();
        let mut merged: Vec<(u16, u16)> = Vec::with_capacity(sorted.len());
        for (low, high) in sorted {
            match merged.last_mut() {
                Some(last) if low <= last.1 => last.1 = last.1.max(high),
                _ => merged.push((low, high)),
            }
        }
        Self(merged)
    }

    fn contains(&self, port: u16) -> bool {
        let behind = self.0.partition_point(|(low, _)| *low <= port);
        behind.checked_sub(1).and_then(|at| self.0.get(at)).is_some_and(|(_, high)| port <= *high)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn port_ranges_merge_and_match_at_their_ends() {
        let ports = PortSet::new(&[(80, 90), (53, 53), (85, 100), (65_535, 65_535), (0, 0), (9, 3)]);
        assert_eq!(ports.0, [(0, 0), (53, 53), (80, 100), (65_535, 65_535)]);
        let inside = [0, 53, 80, 100, 65_535];
        let outside = [1, 5, 52, 54, 79, 101, 65_534];
        assert!(inside.iter().all(|port| ports.contains(*port)));
        assert!(outside.iter().all(|port| !ports.contains(*port)));
        assert!(!PortSet::new(&[]).contains(0));
    }
}
