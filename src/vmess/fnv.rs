//! FNV-1a, 32 bits: the checksum inside headers and commands. It detects accidents, not forgery.

/// The checksum of no bytes.
const OFFSET: u32 = 0x811C_9DC5;
const PRIME: u32 = 0x0100_0193;

/// Hashes `data`.
pub fn fnv1a(data: &[u8]) -> u32 {
    data.iter().fold(OFFSET, |hash, &byte| (hash ^ u32::from(byte)).wrapping_mul(PRIME))
}
