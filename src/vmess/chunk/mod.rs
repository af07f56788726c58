//! Bodies: how payload is cut into chunks, each sealed by itself, and put together again.
//!
//! A chunk is `size(2, or 18 sealed) data padding`; the size counts data, with its tag or checksum, and
//! padding. Each direction is a stream of its own with its own counters. [`Sealer`] and [`Opener`] serve either side of a
//! connection and either direction of it: what makes them a client's or a server's is the keys. Both work in
//! the caller's buffers, allocate nothing after they were made, and know nothing of sockets.

mod cipher;
mod framing;
mod opener;
mod sealer;

pub use framing::{Framing, FramingError};
pub use opener::{OpenError, Opened, Opener};
pub use sealer::{SealError, Sealer, TERMINATOR};

/// The largest size field that is read, and the most that is ever written: two bytes hold no more.
pub const MAX_SIZE: usize = 65_535;

/// The largest size field that is written to streams. sing-box reads no chunk of 32 KiB, older clients none
/// above 17.
pub const MAX_WRITTEN_SIZE: usize = 16_384;

/// Bytes of an AEAD tag.
const TAG: usize = 16;

/// Bytes of the checksum before a payload under AES-CFB.
const CHECKSUM: usize = 4;

/// The most padding behind a chunk.
const MAX_PADDING: usize = 63;
