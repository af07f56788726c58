//! V2Ray's QUIC transport: every connection is one bidirectional stream of a QUIC connection, which a client's flows to one
//! server share. quinn speaks QUIC; what is ours is the disguise of its datagrams, and who holds which connection.
//!
//! * [`disguise`] is pure: what V2Ray puts around a datagram, a header that looks like another protocol's and a seal.
//! * [`socket`] and [`runtime`] are what quinn stands on here: a socket that disguises, and tasks of the shard.
//! * [`stream`] is a stream as a carrier.
//! * [`client`], [`link`] dial and share connections; [`server`] takes them.
//! * [`certificate`] is what a server shows that has none, as V2Ray's does: nobody verifies it.
//!
//! The versions are QUIC's own and, for V2Rays of its time, the drafts 29 to 32 before it.

mod certificate;
mod client;
mod disguise;
mod link;
mod options;
mod runtime;
mod server;
mod socket;
mod stream;
#[cfg(test)]
mod tests;

/// Whether this library has QUIC.
pub(super) const PRESENT: bool = true;

pub(super) use client::{QuicClient, unverified};
pub(super) use server::QuicServer;

/// The name that a server without a certificate of its own shows, and that nobody verifies.
const INTERNAL_NAME: &str = "quic.internal.v2ray.com";
/// What a server takes above TLS if the config says nothing else, as V2Ray's.
const ALPN: &[&str] = &["h2", "http/1.1"];
