//! ICMP and ICMPv6: echo requests read, replies and errors built. Nothing else is spoken.
//!
//! An error quotes the packet that it is about: its IP header, made again from the addresses, and its ports. That is all
//! that a kernel looks at to find the socket.

use super::Refusal;
use super::checksum::{self, Checksum};
use super::ip::{self, Header, Protocol};
use crate::time::Moment;
use smoltcp::wire::{Icmpv4Message, Icmpv4Packet, Icmpv6Message, Icmpv6Packet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// Length of the header of echo messages and errors.
pub(crate) const HEADER: usize = 8;
/// Bytes of the transport header that an error quotes.
const QUOTED: usize = 8;

/// An echo request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Echo<'a> {
    /// The identifier and the sequence number, as they came.
    pub(crate) id_and_sequence: [u8; 4],
    /// What is to come back.
    pub(crate) data: &'a [u8],
}

/// What an error message says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Error {
    /// Nobody listens on the port.
    PortUnreachable,
    /// There is no way to the host (v4) or address (v6).
    HostUnreachable,
    /// Communication is administratively prohibited.
    Prohibited,
    /// The packet is larger than this MTU and must not be cut.
    TooBig(u16),
}

impl Error {
    /// The error that stands for a refusal; none for a silent one.
    pub(crate) const fn of(how: Refusal) -> Option<Self> {
        match how {
            Refusal::Refused => Some(Self::PortUnreachable),
            Refusal::Unreachable => Some(Self::HostUnreachable),
            Refusal::Prohibited => Some(Self::Prohibited),
            Refusal::Silent => None,
        }
    }

    /// Type and code in ICMP.
    const fn v4(self) -> (u8, u8) {
        match self {
            Self::PortUnreachable => (3, 3),
            Self::HostUnreachable => (3, 1),
            Self::Prohibited => (3, 13),
            Self::TooBig(_) => (3, 4),
        }
    }

    /// Type and code in ICMPv6.
    const fn v6(self) -> (u8, u8) {
        match self {
            Self::PortUnreachable => (1, 4),
            Self::HostUnreachable => (1, 3),
            Self::Prohibited => (1, 1),
            Self::TooBig(_) => (2, 0),
        }
    }
}

/// The packet that an error is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum About {
    /// A datagram.
    Udp,
    /// A TCP segment with this sequence number, which the kernel checks.
    Tcp {
        /// The sequence number.
        sequence: u32,
    },
}

/// The ICMP that goes with an address family.
pub(crate) const fn protocol(ip: IpAddr) -> Protocol {
    match ip {
        IpAddr::V4(_) => Protocol::Icmp,
        IpAddr::V6(_) => Protocol::Icmpv6,
    }
}

/// Reads an echo request; `None` if the message is anything else, or damaged.
pub(crate) fn parse_echo(src: IpAddr, dst: IpAddr, message: &[u8], trusted: bool) -> Option<Echo<'_>> {
    let is_request = match src {
        IpAddr::V4(_) => {
            let packet = Icmpv4Packet::new_checked(message).ok()?;
            packet.msg_type() == Icmpv4Message::EchoRequest && packet.msg_code() == 0
        }
        IpAddr::V6(_) => {
            let packet = Icmpv6Packet::new_checked(message).ok()?;
            packet.msg_type() == Icmpv6Message::EchoRequest && packet.msg_code() == 0
        }
    };
    let mut sum = sum_of(src, dst, message.len());
    sum.add(message);
    if !is_request || !(trusted || sum.is_valid()) {
        return None;
    }
    let (head, data) = message.split_at_checked(HEADER)?;
    Some(Echo { id_and_sequence: *head.last_chunk()?, data })
}

/// Builds the header of the reply from `src` to `dst` that carries the request's data.
pub(crate) fn echo_reply(src: IpAddr, dst: IpAddr, request: &Echo<'_>) -> [u8; HEADER] {
    let [a, b, c, d] = request.id_and_sequence;
    let kind = if src.is_ipv4() { 0 } else { 129 };
    let mut bytes = [kind, 0, 0, 0, a, b, c, d];
    let mut sum = sum_of(src, dst, HEADER + request.data.len());
    sum.add(&bytes);
    sum.add(request.data);
    bytes[2..4].copy_from_slice(&sum.finish().to_be_bytes());
    bytes
}

/// Builds an error about a packet from `source` to `destination`, to be sent from the destination's address
/// back to the source's. `None` if the two are not of one family.
pub(crate) fn error(
    error: Error,
    about: About,
    source: SocketAddr,
    destination: SocketAddr,
) -> Option<Header> {
    let mtu = match error {
        Error::TooBig(mtu) => mtu,
        _ => 0,
    };
    let mut quote = [0; QUOTED];
    quote[..2].copy_from_slice(&source.port().to_be_bytes());
    quote[2..4].copy_from_slice(&destination.port().to_be_bytes());
    let protocol = match about {
        About::Udp => {
            quote[4..6].copy_from_slice(&(QUOTED as u16).to_be_bytes());
            Protocol::Udp
        }
        About::Tcp { sequence } => {
            quote[4..].copy_from_slice(&sequence.to_be_bytes());
            Protocol::Tcp
        }
    };
    let mut message = Header::new();
    let (kind, code) = if source.is_ipv4() { error.v4() } else { error.v6() };
    let [high, low] = mtu.to_be_bytes();
    message.push(&[kind, code, 0, 0, 0, 0, high, low]);
    match (source.ip(), destination.ip()) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            message.push(&ip::v4(src, dst, protocol, QUOTED, None));
            message.push(&quote);
            message.set_u16(2, checksum::of(message.as_slice()));
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            message.push(&ip::v6(src, dst, protocol.number(), QUOTED));
            message.push(&quote);
            let mut sum = sum_of(dst.into(), src.into(), message.as_slice().len());
            sum.add(message.as_slice());
            message.set_u16(2, sum.finish());
        }
        _ => return None,
    }
    Some(message)
}

/// A checksum that has begun as ICMP of this family does: ICMPv6 alone covers a pseudo header.
fn sum_of(src: IpAddr, dst: IpAddr, len: usize) -> Checksum {
    match src {
        IpAddr::V4(_) => Checksum::new(),
        IpAddr::V6(_) => Checksum::pseudo(src, dst, Protocol::Icmpv6.number(), len),
    }
}

/// Bounds how many errors are sent: a burst of 50, then one every 10 ms.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limiter {
    tokens: u32,
    /// Until when the tokens have been topped up.
    filled: Moment,
}

impl Limiter {
    const BURST: u32 = 50;
    const INTERVAL: Duration = Duration::from_millis(10);

    /// A full bucket.
    pub(crate) const fn new() -> Self {
        Self { tokens: Self::BURST, filled: Moment::ZERO }
    }

    /// Whether one more may be sent now; if so, it counts as sent.
    pub(crate) fn allows(&mut self, now: Moment) -> bool {
        let due = now.since(self.filled).as_nanos() / Self::INTERVAL.as_nanos();
        match u32::try_from(due) {
            Ok(due) if self.tokens.saturating_add(due) < Self::BURST => {
                self.tokens += due;
                self.filled = self.filled + Self::INTERVAL * due;
            }
            _ => (self.tokens, self.filled) = (Self::BURST, now),
        }
        let allowed = self.tokens > 0;
        self.tokens = self.tokens.saturating_sub(1);
        allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entropy::{Entropy, SeededEntropy};
    use smoltcp::wire::{Icmpv4DstUnreachable, Icmpv6DstUnreachable};

    const V4: [&str; 2] = ["172.19.0.1:4000", "9.9.9.9:443"];
    const V6: [&str; 2] = ["[fd19::1]:4000", "[2001:db8::9]:443"];

    fn ends(texts: [&str; 2]) -> (SocketAddr, SocketAddr) {
        (texts[0].parse().expect("addr"), texts[1].parse().expect("addr"))
    }

    #[test]
    fn echo_requests_are_answered_and_nothing_else() {
        for texts in [V4, V6] {
            let (app, host) = ends(texts);
            let (app, host) = (app.ip(), host.ip());
            let mut request = vec![if app.is_ipv4() { 8 } else { 128 }, 0, 0, 0, 1, 2, 3, 4];
            request.extend(b"ping data of an odd length!");
            let mut sum = sum_of(app, host, request.len());
            sum.add(&request);
            let sum = sum.finish().to_be_bytes();
            request[2..4].copy_from_slice(&sum);
            let echo = parse_echo(app, host, &request, false).expect("a request");
            let reply = [&echo_reply(host, app, &echo)[..], echo.data].concat();
            assert_eq!((reply[0], &reply[4..]), (if app.is_ipv4() { 0 } else { 129 }, &request[4..]));
            match (host, app) {
                (IpAddr::V4(_), _) => {
                    assert!(Icmpv4Packet::new_checked(&reply[..]).expect("legal").verify_checksum());
                }
                (IpAddr::V6(host), IpAddr::V6(app)) => {
                    assert!(
                        Icmpv6Packet::new_checked(&reply[..]).expect("legal").verify_checksum(&host, &app)
                    );
                }
                _ => unreachable!("one family"),
            }
            assert_eq!(parse_echo(host, app, &reply, true), None, "a reply is no request");
            request[20] ^= 1;
            assert_eq!(parse_echo(app, host, &request, false), None, "damaged");
            assert_eq!(parse_echo(app, host, &request[..7], true), None, "cut off");
        }
    }

    #[test]
    fn errors_quote_the_addresses_and_ports() {
        let (app, host) = ends(V4);
        let message = error(Error::TooBig(1994), About::Udp, app, host).expect("one family");
        let packet = Icmpv4Packet::new_checked(message.as_slice()).expect("legal");
        assert!(packet.verify_checksum());
        assert_eq!(packet.msg_code(), u8::from(Icmpv4DstUnreachable::FragRequired));
        assert_eq!(message.as_slice()[6..8], 1994u16.to_be_bytes());
        let quote = ip::parse(&message.as_slice()[8..]).expect("a whole header");
        assert_eq!((quote.src, quote.dst, quote.protocol), (app.ip(), host.ip(), Protocol::Udp));
        assert_eq!(quote.payload, [0x0f, 0xa0, 1, 0xbb, 0, 8, 0, 0]);

        let tcp = About::Tcp { sequence: 0x0102_0304 };
        let message = error(Error::HostUnreachable, tcp, app, host).expect("one family");
        let quote = ip::parse(&message.as_slice()[8..]).expect("a whole header");
        assert_eq!((quote.protocol, quote.payload), (Protocol::Tcp, &[0x0f, 0xa0, 1, 0xbb, 1, 2, 3, 4][..]));

        let (app, host) = ends(V6);
        let message = error(Error::TooBig(2014), About::Udp, app, host).expect("one family");
        let packet = Icmpv6Packet::new_checked(message.as_slice()).expect("legal");
        assert_eq!((packet.msg_type(), packet.pkt_too_big_mtu()), (Icmpv6Message::PktTooBig, 2014));
        let (IpAddr::V6(app_ip), IpAddr::V6(host_ip)) = (app.ip(), host.ip()) else { unreachable!("v6") };
        assert!(packet.verify_checksum(&host_ip, &app_ip));
        let message = error(Error::PortUnreachable, About::Udp, app, host).expect("one family");
        let packet = Icmpv6Packet::new_checked(message.as_slice()).expect("legal");
        assert_eq!(packet.msg_code(), u8::from(Icmpv6DstUnreachable::PortUnreachable));
        assert!(error(Error::Prohibited, About::Udp, ends(V4).0, host).is_none(), "mixed families");
    }

    #[test]
    fn the_limiter_lets_a_burst_through_and_then_a_trickle() {
        let mut limiter = Limiter::new();
        let burst = |limiter: &mut Limiter, now| (0..200).filter(|_| limiter.allows(now)).count();
        assert_eq!(burst(&mut limiter, Moment::from_millis(1)), 50);
        assert_eq!(burst(&mut limiter, Moment::from_millis(106)), 10);
        assert_eq!(burst(&mut limiter, Moment::from_millis(110)), 0);
        assert_eq!(burst(&mut limiter, Moment::from_millis(1_000_000)), 50);
        assert_eq!(burst(&mut limiter, Moment::ZERO), 0, "a clock that stands does not fill it");
    }

    #[test]
    fn no_input_panics() {
        let mut entropy = SeededEntropy::new(8);
        let ips = [ends(V4).0.ip(), ends(V6).0.ip()];
        for _ in 0..50_000 {
            let mut bytes = vec![0; entropy.below(64) as usize];
            entropy.fill(&mut bytes);
            if let Some(first) = bytes.first_mut() {
                *first = [8, 128, 1, *first][entropy.below(4) as usize];
            }
            let ip = ips[entropy.below(2) as usize];
            if let Some(echo) = parse_echo(ip, ip, &bytes, true) {
                assert_eq!(echo.data.len() + HEADER, bytes.len());
            }
        }
    }
}
