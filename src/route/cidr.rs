//! Sets of IP networks.

use crate::addr::Cidr;
use std::collections::HashSet;
use std::net::{IpAddr, Ipv6Addr};

/// A set of IP networks: one hash set of prefixes for each prefix length that occurs, so that a lookup costs as many
/// probes as there are different lengths, however many networks there are.
///
/// An IPv4-mapped IPv6 address counts as the IPv4 address, in networks and in lookups: a rule about 127.0.0.0/8 cannot
/// be passed by writing `::ffff:127.0.0.1`.
#[derive(Debug, Default)]
pub struct CidrSet {
    v4: Vec<Prefixes<u32>>,
    v6: Vec<Prefixes<u128>>,
}

#[derive(Debug)]
struct Prefixes<T> {
    mask: T,
    networks: HashSet<T>,
}

impl CidrSet {
    /// Makes a set of `networks`. Host bits are ignored.
    pub fn new(networks: &[Cidr]) -> Self {
        let mut set = Self::default();
        for network in networks {
            set.insert(network);
        }
        set
    }

    /// Whether `ip` lies in one of the networks.
    pub fn contains(&self, ip: IpAddr) -> bool {
        match ip.to_canonical() {
            IpAddr::V4(ip) => {
                let bits = u32::from(ip);
                self.v4.iter().any(|prefixes| prefixes.networks.contains(&(bits & prefixes.mask)))
            }
            IpAddr::V6(ip) => {
                let bits = u128::from(ip);
                self.v6.iter().any(|prefixes| prefixes.networks.contains(&(bits & prefixes.mask)))
            }
        }
    }

    fn insert(&mut self, network: &Cidr) {
        match (network.addr, network.prefix) {
            (IpAddr::V4(addr), prefix) => self.insert_v4(u32::from(addr), prefix),
            (IpAddr::V6(addr), prefix @ 96..) if is_mapped(addr) => {
                self.insert_v4(u128::from(addr) as u32, prefix - 96);
            }
            (IpAddr::V6(addr), prefix) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(prefix.min(128))).unwrap_or(0);
                insert(&mut self.v6, mask, u128::from(addr) & mask);
            }
        }
    }

    fn insert_v4(&mut self, addr: u32, prefix: u8) {
        let mask = u32::MAX.checked_shl(32 - u32::from(prefix.min(32))).unwrap_or(0);
        insert(&mut self.v4, mask, addr & mask);
    }
}

fn is_mapped(addr: Ipv6Addr) -> bool {
    addr.to_ipv4_mapped().is_some()
}

fn insert<T: Eq + std::hash::Hash>(lengths: &mut Vec<Prefixes<T>>, mask: T, network: T) {
    match lengths.iter_mut().find(|prefixes| prefixes.mask == mask) {
        Some(prefixes) => {
            prefixes.networks.insert(network);
        }
        None => lengths.push(Prefixes { mask, networks: HashSet::from([network]) }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entropy::{Entropy, SeededEntropy};
    use std::net::Ipv4Addr;

    fn set(networks: &[&str]) -> CidrSet {
        CidrSet::new(&networks.iter().map(|text| Cidr::parse(text).expect("a network")).collect::<Vec<_>>())
    }

    fn holds(set: &CidrSet, ip: &str) -> bool {
        set.contains(ip.parse().expect("an address"))
    }

    #[test]
    fn edges_of_networks() {
        let nets = set(&["10.1.2.3/8", "192.0.2.7", "fd00::/8", "2001:db8::1"]);
        for inside in ["10.0.0.0", "10.255.255.255", "192.0.2.7", "fd00::", "fdff::1", "2001:db8::1"] {
            assert!(holds(&nets, inside), "{inside}");
        }
        for outside in
            ["9.255.255.255", "11.0.0.0", "192.0.2.8", "fc00::", "fe00::", "2001:db8::2", "::a00:1"]
        {
            assert!(!holds(&nets, outside), "{outside}");
        }
    }

    #[test]
    fn everything_of_one_family_is_nothing_of_the_other() {
        assert!(holds(&set(&["0.0.0.0/0"]), "255.1.1.1") && !holds(&set(&["0.0.0.0/0"]), "::1"));
        assert!(holds(&set(&["::/0"]), "::1") && !holds(&set(&["::/0"]), "1.1.1.1"));
        assert!(!holds(&set(&[]), "1.1.1.1"));
    }

    #[test]
    fn mapped_addresses_are_ipv4() {
        assert!(holds(&set(&["127.0.0.0/8"]), "::ffff:127.0.0.1"));
        assert!(holds(&set(&["::ffff:127.0.0.0/104"]), "127.9.9.9"));
    }

    #[test]
    fn many_networks_agree_with_the_plain_definition() {
        let mut entropy = SeededEntropy::new(11);
        let v4 = |bits: u32| IpAddr::from(Ipv4Addr::from(bits));
        let networks: Vec<_> = (0..2000)
            .map(|_| Cidr { addr: v4(entropy.next_u32()), prefix: 8 + entropy.below(25) as u8 })
            .collect();
        let nets = CidrSet::new(&networks);
        let mut inside = 0;
        for round in 0..4000 {
            // Half of the addresses are a network's own with low bits changed, else few would match.
            let near = networks[round % networks.len()].addr;
            let IpAddr::V4(near) = near else { continue };
            let noise = entropy.next_u32();
            let ip = v4(if round % 2 == 0 { noise } else { u32::from(near) ^ (noise >> (noise & 31)) });
            let expected = networks.iter().any(|network| network.contains(ip));
            assert_eq!(nets.contains(ip), expected, "{ip}");
            inside += usize::from(expected);
        }
        assert!((500..3500).contains(&inside), "both outcomes occur: {inside}");
    }
}
