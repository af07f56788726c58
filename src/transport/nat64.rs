//! NAT64: how IPv4 is reached from a network that has IPv6 alone. Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The name that has an IPv6 address only where DNS64 makes one up, from which its prefix can be told (RFC 7050).
pub(super) const NAME: &str = "ipv4only.arpa";
/// The IPv4 addresses of that name.
const KNOWN: [Ipv4Addr; 2] = [Ipv4Addr::new(192, 0, 0, 170), Ipv4Addr::new(192, 0, 0, 171)];
/// Which octets hold the IPv4 address behind prefixes of 32, 40, 48, 56, 64 and 96 bits (RFC 6052, section 2.2).
const PLACES: [(usize, [usize; 4]); 6] = [
    (12, [12, 13, 14, 15]),
    (8, [9, 10, 11, 12]),
    (7, [7, 9, 10, 11]),
    (6, [6, 7, 9, 10]),
    (5, [5, 6, 7, 9]),
    (4, [4, 5, 6, 7]),
];

/// The prefix behind which a network has the IPv4 internet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Prefix {
    /// As many octets as it has, then zeros.
    octets: [u8; 16],
    /// Where an IPv4 address goes.
    places: [usize; 4],
}

impl Prefix {
    /// A prefix of 96 bits, as hosts give it. `None` if it is no IPv6 address.
    pub(super) fn of_96(prefix: IpAddr) -> Option<Self> {
        let IpAddr::V6(prefix) = prefix else { return None };
        Some(Self::new(prefix, PLACES[0]))
    }

    /// Tells the prefix by the addresses of [`NAME`]; `None` if none of them was made up.
    pub(super) fn learn(answers: &[IpAddr]) -> Option<Self> {
        answers.iter().find_map(|answer| {
            let IpAddr::V6(answer) = answer else { return None };
            let octets = answer.octets();
            let holds =
                |(_, places): &&(usize, [usize; 4])| KNOWN.contains(&places.map(|at| octets[at]).into());
            PLACES.iter().find(holds).map(|place| Self::new(*answer, *place))
        })
    }

    fn new(address: Ipv6Addr, (len, places): (usize, [usize; 4])) -> Self {
        let mut octets = address.octets();
        octets[len..].fill(0);
        Self { octets, places }
    }

    /// The IPv6 address by which an IPv4 address is reached.
    pub(super) fn synthesize(&self, ip: Ipv4Addr) -> Ipv6Addr {
        let mut octets = self.octets;
        for (place, octet) in self.places.into_iter().zip(ip.octets()) {
            octets[place] = octet;
        }
        octets.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_of_every_length_are_learned_and_used() {
        // The examples of RFC 6052, section 2.4, with 192.0.2.33 and what ipv4only.arpa has there.
        for (known, made) in [
            ("2001:db8:c000:aa::", "2001:db8:c000:221::"),
            ("2001:db8:1c0:0:aa::", "2001:db8:1c0:2:21::"),
            ("2001:db8:122:c000:0:aa00::", "2001:db8:122:c000:2:2100::"),
            ("2001:db8:122:3c0:0:ab::", "2001:db8:122:3c0:0:221::"),
            ("2001:db8:122:344:c0:0:ab00::", "2001:db8:122:344:c0:2:2100::"),
            ("2001:db8:122:344::192.0.0.171", "2001:db8:122:344::192.0.2.33"),
            ("64:ff9b::192.0.0.170", "64:ff9b::192.0.2.33"),
        ] {
            let answers = ["192.0.0.170", known].map(|text| text.parse().expect("literal"));
            let prefix = Prefix::learn(&answers).unwrap_or_else(|| panic!("{known}"));
            let made: Ipv6Addr = made.parse().expect("literal");
            assert_eq!(prefix.synthesize([192, 0, 2, 33].into()), made, "{known}");
        }
        for other in ["2001:db8::1", "192.0.0.170", "::"] {
            assert_eq!(Prefix::learn(&[other.parse().expect("literal")]), None);
        }
    }

    #[test]
    fn a_hosts_prefix_has_96_bits() {
        let prefix = Prefix::of_96("64:ff9b::".parse().expect("literal")).expect("IPv6");
        assert_eq!(prefix.synthesize([192, 0, 2, 1].into()).to_string(), "64:ff9b::c000:201");
        assert_eq!(Prefix::of_96([10, 0, 0, 1].into()), None);
    }
}
