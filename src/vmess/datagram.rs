//! UDP on top of chunks: one datagram is one chunk, both ways, and no chunk is empty.
//!
//! Nothing is split or merged, and no address is inside: the connection stands for one destination. What
//! limits a datagram is not the format but its readers, which cut what is too long for their buffers.

use super::chunk::MAX_SIZE;

/// Bytes of the longest datagram that every server delivers whole. V2Ray's buffer is 2048 bytes, chunk
/// included.
///
/// V2Ray also loses step for the rest of a flow when a datagram longer than this has to go from it to its
/// client. Which answers come back, a client steers by what it asks for.
pub const SAFE_PAYLOAD: usize = 1966;

/// Bytes of the longest datagram that a chunk takes under any security and options. sing-box cuts from 15,000
/// on, Xray from 8192.
pub const MAX_UDP_PAYLOAD: usize = MAX_SIZE - 16 - 63;

/// Whether a datagram of `len` bytes can be sent as a chunk. Empty ones cannot: an empty chunk is the end.
pub const fn fits(len: usize) -> bool {
    0 < len && len <= MAX_UDP_PAYLOAD
}

/// Whether every server delivers a datagram of `len` bytes whole.
pub const fn is_safe(len: usize) -> bool {
    0 < len && len <= SAFE_PAYLOAD
}
