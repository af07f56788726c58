//! What the unit tests of several rooms of the engine share.

use crate::addr::{Host, Target};
use crate::config::{
    Config, DomainStrategy, Freedom, LogLevel, Outbound, OutboundProtocol, PacketEncoding, Policy, Vmess,
    VmessServer, VmessUser, Vmesskit,
};
use crate::vmess::{Id, Security};

/// A config with one freedom outbound tagged `direct`, and nothing else.
pub(crate) fn config() -> Config {
    let freedom = Freedom { strategy: DomainStrategy::Any, redirect: None, level: 0 };
    Config {
        log_level: LogLevel::Debug,
        inbounds: Vec::new(),
        outbounds: vec![Outbound::new("direct", OutboundProtocol::Freedom(freedom))],
        rules: Vec::new(),
        dns_servers: vec![([1, 1, 1, 1], 53).into()],
        policy: Policy::default(),
        vmesskit: Vmesskit::default(),
    }
}

/// A VMess outbound to a port of this machine where nobody listens.
pub(crate) fn vmess_outbound(tag: &str) -> Outbound {
    let target = Target::new(Host::Ip([127, 0, 0, 1].into()), 1);
    let servers = vec![VmessServer { target, users: vec![vmess_user()] }];
    Outbound::new(tag, OutboundProtocol::Vmess(Vmess { servers, packet_encoding: PacketEncoding::None }))
}

/// A user that any server may have.
pub(crate) fn vmess_user() -> VmessUser {
    VmessUser {
        id: Id::from_bytes([7; 16]),
        alter_id: 0,
        security: Security::Auto,
        level: 0,
        email: String::new(),
        authenticated_length: false,
        no_termination_signal: false,
    }
}
