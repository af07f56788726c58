//! XUDP: datagrams in mux frames, each with its address, so that one local socket speaks to any number of peers (full
//! cone) and keeps its place at the server when its carrier is replaced.

use std::fmt;
use std::net::SocketAddr;
use zeroize::Zeroizing;

/// The number of the one session on a carrier of its own.
pub const SESSION: u16 = 0;

/// What a client calls a local source: the same number on a new carrier means the same socket at the server.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct GlobalId(pub [u8; Self::LEN]);

impl GlobalId {
    /// Bytes on the wire.
    pub const LEN: usize = 8;
}

impl fmt::Debug for GlobalId {
    /// Shows nothing of it: whoever knows it may take the socket over.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("GlobalId(hidden)")
    }
}

/// The secret that a client's global ids are derived with. Its `Debug` shows nothing.
pub struct BaseKey(Zeroizing<[u8; 32]>);

impl BaseKey {
    /// Takes 32 random bytes.
    pub fn new(key: [u8; 32]) -> Self {
        Self(Zeroizing::new(key))
    }

    /// What the source is called: as Xray has it, keyed BLAKE3 over `udp:IP:PORT`, the first 8 bytes. IPv6 addresses
    /// stand in brackets.
    pub fn global_id(&self, source: SocketAddr) -> GlobalId {
        let hash = blake3::keyed_hash(&self.0, format!("udp:{source}").as_bytes());
        let mut id = [0; GlobalId::LEN];
        id.iter_mut().zip(hash.as_bytes()).for_each(|(out, byte)| *out = *byte);
        GlobalId(id)
    }
}

impl fmt::Debug for BaseKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BaseKey(hidden)")
    }
}
