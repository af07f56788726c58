//! A server's half of a connection: opens what comes up, makes the answer, seals what goes down.
//!
//! Who may ask, and whether the request is new, has been judged before a request gets here.

use super::cfb::Encryptor;
use super::chunk::{Framing, FramingError, Opener, Sealer};
use super::envelope;
use super::header::RequestHeader;
use super::response::ResponseHeader;

/// How a request header came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeaderKind {
    /// Sealed.
    Aead,
    /// Signed with MD5 and encrypted, by a user with alter ids.
    Legacy,
}

/// The server's half of one connection.
#[derive(Debug)]
pub struct Connection {
    /// The sealed response header. It goes out together with the first payload.
    pub header: Vec<u8>,
    /// Opens what the client sends.
    pub uplink: Uplink,
    /// Seals what the server sends.
    pub downlink: Downlink,
}

/// Opens what a client sends.
pub type Uplink = Opener;

/// Seals what a server sends.
pub type Downlink = Sealer;

/// Makes one connection's server half, whose uplink begins behind the request header.
///
/// `answer` is sent as it is; a command too long for the format is left out of it. With
/// `no_termination_signal` no terminating chunk ends the downlink, whatever the request's options say.
///
/// # Errors
/// [`FramingError`] if the request's security and options contradict each other.
pub fn accept(
    request: &RequestHeader,
    kind: HeaderKind,
    answer: &ResponseHeader<'_>,
    no_termination_signal: bool,
) -> Result<Connection, FramingError> {
    let framing = Framing::new(request.security, request.options, request.command)?;
    let downlink_framing = if no_termination_signal { framing.unterminated() } else { framing };
    let mut header = answer.encode().unwrap_or_else(|| answer.without_command());
    let (header, downlink) = match kind {
        HeaderKind::Aead => {
            let keys = request.keys.response();
            let downlink = Sealer::new(downlink_framing, &keys, &request.keys);
            (envelope::seal_response(&keys, &header), downlink)
        }
        HeaderKind::Legacy => {
            let keys = request.keys.legacy_response();
            let mut stream = Encryptor::new(&keys);
            stream.encrypt(&mut header);
            (header, Sealer::new(downlink_framing, &keys, &request.keys).behind_header(stream))
        }
    };
    // Xray writes an empty chunk behind its header when the app has not spoken for 100 ms, and goes on with payload. A
    // client that has nothing at all to say ends its carrier's direction, or says it twice.
    let uplink = Opener::new(framing, &request.keys, &request.keys).skipping_empty_start();
    Ok(Connection { header, uplink, downlink })
}
