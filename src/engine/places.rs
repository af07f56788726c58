//! Where inbounds listen, on what, and what a person calls that.

use super::inbound::sockets::{Kind, Listener};
use crate::config::{Allocate, Inbound, InboundProtocol, Listen, SockOpt, Socks, Unix};

/// Where an inbound listens.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Place<'a> {
    /// On ports of an address.
    Ip(Listen),
    /// On a Unix domain socket.
    Unix(&'a Unix),
}

/// Whether two inbounds cannot listen at the same time: on one port, an address and all addresses exclude each other.
pub(super) fn in_each_others_way(one: &Inbound, other: &Inbound) -> bool {
    if kind(one) != kind(other) {
        return false;
    }
    let (one, other) = match (place(one), place(other)) {
        (Some(Place::Ip(one)), Some(Place::Ip(other))) => (one, other),
        (Some(Place::Unix(one)), Some(Place::Unix(other))) => return one.path == other.path,
        _ => return false,
    };
    let alike = one.ip == other.ip || one.ip.is_unspecified() || other.ip.is_unspecified();
    let meet = one.ports.0.max(1) <= other.ports.1 && other.ports.0.max(1) <= one.ports.1;
    meet && alike
}

/// Where an inbound listens, for as long as the config names it.
pub(super) fn place(inbound: &Inbound) -> Option<Place<'_>> {
    match &inbound.protocol {
        InboundProtocol::Tun(_) => None,
        InboundProtocol::Socks(Socks { listen, .. }) => {
            Some(Place::Ip(Listen { ip: listen.ip(), ports: (listen.port(), listen.port()) }))
        }
        // Ports that change come and go by themselves.
        InboundProtocol::Vmess(settings) if settings.allocate.is_some() => None,
        InboundProtocol::Vmess(settings) => {
            Some(settings.unix().map_or(Place::Ip(settings.listen), Place::Unix))
        }
    }
}

/// What an inbound's sockets are for.
pub(super) const fn kind(inbound: &Inbound) -> Kind {
    match &inbound.protocol {
        InboundProtocol::Vmess(settings) if settings.stream.transport.is_over_udp() => Kind::Udp,
        _ => Kind::Tcp,
    }
}

/// What is set on an inbound's sockets.
pub(super) fn options(inbound: &Inbound) -> SockOpt {
    match &inbound.protocol {
        InboundProtocol::Vmess(settings) => settings.stream.sockopt.clone(),
        _ => SockOpt::default(),
    }
}

/// How an inbound's ports change.
pub(super) const fn allocate(inbound: &Inbound) -> Option<Allocate> {
    match &inbound.protocol {
        InboundProtocol::Vmess(settings) => settings.allocate,
        _ => None,
    }
}

/// What a person calls the addresses of an inbound, which differ in their ports.
pub(super) fn range(addresses: &[(u64, Vec<Listener>)]) -> String {
    let socket =
        |at: Option<&'_ (u64, Vec<Listener>)>| at.and_then(|(_, sockets)| Some(sockets.first()?.to_string()));
    let last = addresses.last().and_then(|(_, sockets)| sockets.first()?.address());
    match (socket(addresses.first()), last) {
        (Some(first), Some(last)) if first != last.to_string() => format!("{first} to {}", last.port()),
        (first, _) => first.unwrap_or_default(),
    }
}

/// What a person calls an inbound.
pub(super) fn title(inbound: &Inbound) -> String {
    format!("the {} inbound [{}]", name(inbound), inbound.tag)
}

/// The protocol's name.
pub(super) const fn name(inbound: &Inbound) -> &'static str {
    match &inbound.protocol {
        InboundProtocol::Tun(_) => "tun",
        InboundProtocol::Socks(_) => "socks",
        InboundProtocol::Vmess(_) => "vmess",
    }
}
