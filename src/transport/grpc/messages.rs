//! Payload in messages, as a stream's framing.

use crate::transport::h2::{Failure, Framing, grpc_status};
use crate::wire::hunk::{self, HunkError, Hunks, Step};
use http::HeaderMap;

impl From<HunkError> for Failure {
    fn from(error: HunkError) -> Self {
        Self::Protocol(format!("a gRPC message: {error}"))
    }
}

impl Framing for Hunks {
    const TRAILERS: bool = true;
    const PREFIX: usize = hunk::PREFIX;

    fn begin(out: &mut Vec<u8>, len: usize) {
        hunk::begin(out, len);
    }

    fn step(&mut self, wire: &[u8]) -> Result<Step, Failure> {
        Ok(Self::step(self, wire)?)
    }

    fn check_end(&self, trailers: Option<&HeaderMap>) -> Result<(), Failure> {
        if let Some(failed) = trailers.and_then(grpc_status) {
            return Err(failed);
        }
        if self.at_boundary() { Ok(()) } else { Err(Failure::Truncated) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_in_the_trailers_counts() {
        let trailers = |code: &'static str| {
            HeaderMap::from_iter([(
                http::HeaderName::from_static("grpc-status"),
                http::HeaderValue::from_static(code),
            )])
        };
        let hunks = Hunks::default();
        assert_eq!(Framing::check_end(&hunks, Some(&trailers("0"))), Ok(()));
        assert_eq!(Framing::check_end(&hunks, Some(&trailers("12"))), Err(Failure::Grpc(12, String::new())));
        assert_eq!(Framing::check_end(&hunks, Some(&trailers("x"))), Err(Failure::Grpc(2, String::new())));
    }
}
