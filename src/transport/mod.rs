//! What carries a protocol to a server and back: carriers, the dialler, and the adapter that seals them.
//!
//! * A [`Carrier`] is a reliable byte stream to a server: a socket, TLS or a WebSocket on top of one, a stream of HTTP/2,
//!   gRPC or QUIC, a conversation of mKCP, a stream of another outbound. Each implements that one small trait.
//! * A [`Stream`] carries a flow's payload in pooled buffers. Both ends of a relay are streams: the tun flow or SOCKS
//!   socket on one side, what an outbound opened on the other.
//! * [`Datagrams`] is the same for UDP.
//!
//! Routing, policy and accounting do not belong here.

mod accept;
mod behind;
mod carrier;
mod connect;
pub(crate) mod dial;
mod eyeballs;
mod grpc;
mod h2;
pub(crate) mod http1;
mod http_header;
mod httpupgrade;
mod io;
mod kcp;
pub(crate) mod mux;
mod nat64;
mod nested;
mod packet_header;
pub(crate) mod packets;
mod plain;
pub(crate) mod protect;
mod proxy_protocol;
mod queue;
#[cfg(feature = "quic")]
mod quic;
#[cfg(not(feature = "quic"))]
#[path = "quic/absent.rs"]
mod quic;
pub(crate) mod sealed;
mod server_addresses;
pub(crate) mod socket;
pub(crate) mod sockopt;
mod stream;
pub(crate) mod tcp;
#[cfg(test)]
pub(crate) mod testing;
mod through;
mod tls;
pub(crate) mod unix;
mod upgrade;
mod ws;

pub(crate) use accept::{Accepted, Arrivals, Clients, Reception, UdpClients};
pub(crate) use carrier::Carrier;
pub(crate) use connect::{Connected, Way};
pub(crate) use nested::{Explain, Nested, NestedTls};
pub(crate) use plain::Plain;
pub(crate) use stream::{Datagram, Datagrams, Stream, StreamError};
pub(crate) use tls::Scratch;
