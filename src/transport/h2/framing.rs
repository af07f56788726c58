//! How payload lies in the DATA of a stream: as it is, or in messages.

use super::failure::Failure;
use crate::wire::hunk::Step;
use http::HeaderMap;

/// How payload lies in the DATA of a stream.
pub(in crate::transport) trait Framing {
    /// Whether our direction, at a server, ends with the trailers of gRPC instead of the last DATA.
    const TRAILERS: bool;

    /// The most bytes that it puts before a piece.
    const PREFIX: usize;

    /// Begins a message of `len` bytes of payload, never 0.
    fn begin(out: &mut Vec<u8>, len: usize);

    /// Takes apart the start of `wire`, which is not empty, as far as the end of the first payload in it. It will not be
    /// shown again what it has spoken of.
    ///
    /// # Errors
    /// [`Failure::Protocol`].
    fn step(&mut self, wire: &[u8]) -> Result<Step, Failure>;

    /// Judges the end of the peer's direction.
    ///
    /// # Errors
    /// [`Failure::Truncated`] inside a message, [`Failure::Grpc`] if the peer says that it failed.
    fn check_end(&self, trailers: Option<&HeaderMap>) -> Result<(), Failure>;
}

/// Payload as it is.
#[derive(Debug, Default)]
pub(in crate::transport) struct Bare;

impl Framing for Bare {
    const TRAILERS: bool = false;
    const PREFIX: usize = 0;

    fn begin(_: &mut Vec<u8>, _: usize) {}

    fn step(&mut self, wire: &[u8]) -> Result<Step, Failure> {
        Ok(Step { skip: 0, payload: wire.len() })
    }

    fn check_end(&self, _: Option<&HeaderMap>) -> Result<(), Failure> {
        Ok(())
    }
}
