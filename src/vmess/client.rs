//! A client's half of a connection: makes the request, seals what goes up, opens what comes down.

use super::answer::{Answer, Progress};
use super::auth::AuthCipher;
use super::chunk::{Framing, FramingError, OpenError, Opened, Opener, Sealer};
use super::command::SwitchAccount;
use super::envelope::{self, NONCE};
use super::header::{self, Command, HeaderError, Options, RequestHeader, Security};
use super::id::{CmdKey, Id};
use super::keys::BodyKeys;
use super::legacy;
use crate::addr::Target;
use crate::entropy::Entropy;
use zeroize::Zeroizing;

/// What a client asks of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// What is asked for.
    pub command: Command,
    /// Where to; unused with [`Command::Mux`].
    pub target: Target,
    /// How the bodies are protected, settled: never [`Security::Auto`].
    pub security: Security,
    /// The option bits.
    pub options: Options,
    /// Leaves out the terminating chunk of the uplink.
    pub no_termination_signal: bool,
}

impl Request {
    /// Makes a request with the options that go with its security.
    ///
    /// AEAD bodies are chunked, masked and padded, with sealed sizes on demand. `none` is chunked and masked
    /// for datagrams and, on demand (`none_chunked`), for streams, else bare; `zero` is chunked for datagrams
    /// and bare for streams. Neither has sealed sizes or padding, which peers read differently there.
    pub fn new(
        command: Command,
        target: Target,
        security: Security,
        authenticated_length: bool,
        none_chunked: bool,
        no_termination_signal: bool,
    ) -> Self {
        let masked = Options::CHUNK_STREAM.with(Options::CHUNK_MASKING);
        let packets = command == Command::Udp;
        let options = match security {
            Security::Aes128Gcm | Security::Chacha20Poly1305 | Security::Auto => {
                let padded = masked.with(Options::GLOBAL_PADDING);
                if authenticated_length { padded.with(Options::AUTHENTICATED_LENGTH) } else { padded }
            }
            Security::None if packets || none_chunked => masked,
            Security::Zero if packets => Options::CHUNK_STREAM,
            Security::None | Security::Zero => Options::default(),
            Security::Aes128Cfb => Options::CHUNK_STREAM,
        };
        Self { command, target, security, options, no_termination_signal }
    }
}

/// What a connection holds in this room, of the 5 KiB that an idle flow may take in all.
const _: () = assert!(size_of::<Uplink>() + size_of::<Downlink>() <= 1920);

/// Why a request could not be made. Nothing has been sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The security is not supported, or is `auto`, which must be settled before; or its options contradict
    /// each other.
    #[error(transparent)]
    Framing(#[from] FramingError),
    /// The header cannot be written: the target's name is not one that servers take.
    #[error(transparent)]
    Header(#[from] HeaderError),
}

/// The client's half of one connection.
#[derive(Debug)]
pub struct Connection {
    /// The sealed request header. It goes out together with the first chunk: some servers read but once.
    pub header: Vec<u8>,
    /// Seals what the client sends.
    pub uplink: Uplink,
    /// Opens what the server sends.
    pub downlink: Downlink,
}

/// Seals what a client sends.
pub type Uplink = Sealer;

/// Makes one connection's client half under an AEAD header. `unix_secs` is UTC now, as the server's clock
/// should have it.
///
/// # Errors
/// [`ConnectError`].
pub fn connect(
    cmd_key: &CmdKey,
    request: &Request,
    unix_secs: i64,
    entropy: &mut dyn Entropy,
) -> Result<Connection, ConnectError> {
    let drawn = Drawn::new(entropy);
    let (framing, plain) = plan(request, &drawn)?;
    let auth_id = AuthCipher::new(cmd_key).seal(unix_secs, drawn.auth_random);
    let header = envelope::seal_request(cmd_key, &auth_id, &drawn.nonce, &plain);
    let keys = drawn.keys.response();
    let answer = Answer::sealed(drawn.token, &keys);
    Ok(assemble(framing, request, &drawn.keys, &keys, header, answer))
}

/// Makes one connection's client half under a legacy header, signed with `auth_id` for exactly `unix_secs`.
///
/// `auth_id` is any of the alter ids that the server knows the user by, never the id itself: not every server
/// takes that.
///
/// # Errors
/// [`ConnectError`].
pub fn connect_legacy(
    cmd_key: &CmdKey,
    auth_id: &Id,
    request: &Request,
    unix_secs: i64,
    entropy: &mut dyn Entropy,
) -> Result<Connection, ConnectError> {
    let drawn = Drawn::new(entropy);
    let (framing, plain) = plan(request, &drawn)?;
    let header = legacy::seal_request(cmd_key, auth_id, unix_secs, &plain);
    let keys = drawn.keys.legacy_response();
    let answer = Answer::legacy(drawn.token, &keys);
    Ok(assemble(framing, request, &drawn.keys, &keys, header, answer))
}

/// How the bodies will look, and the request header before it is sealed, as secret as the keys in it.
fn plan(request: &Request, drawn: &Drawn) -> Result<(Framing, Zeroizing<Vec<u8>>), ConnectError> {
    let framing = Framing::new(request.security, request.options, request.command)?;
    let header = RequestHeader {
        keys: drawn.keys.clone(),
        token: drawn.token,
        options: request.options,
        security: request.security,
        command: request.command,
        target: (request.command != Command::Mux).then(|| request.target.clone()),
    };
    let mut plain = Zeroizing::new(Vec::with_capacity(header::MAX_LEN));
    header.encode(drawn.padding(), &mut plain)?;
    Ok((framing, plain))
}

/// Puts a connection together around its sealed header. The response direction's keys are `response`, which
/// the kind of header decides.
fn assemble(
    framing: Framing,
    request: &Request,
    keys: &BodyKeys,
    response: &BodyKeys,
    header: Vec<u8>,
    answer: Answer,
) -> Connection {
    let uplink_framing = if request.no_termination_signal { framing.unterminated() } else { framing };
    let opener = Opener::new(framing, response, keys);
    // sing-box sends an empty chunk with its response header where bodies are not protected.
    let opener = if framing.is_protected() { opener } else { opener.skipping_empty_start() };
    let downlink = Downlink { opener, answer, command: None };
    Connection { header, uplink: Sealer::new(uplink_framing, keys, keys), downlink }
}

/// Everything random in a request, drawn at once.
struct Drawn {
    keys: BodyKeys,
    token: u8,
    auth_random: [u8; 4],
    nonce: [u8; NONCE],
    padding: [u8; header::MAX_PADDING],
    padding_len: usize,
}

impl Drawn {
    fn new(entropy: &mut dyn Entropy) -> Self {
        let mut keys = BodyKeys { key: [0; 16], iv: [0; 16] };
        entropy.fill(&mut keys.key);
        entropy.fill(&mut keys.iv);
        let mut rest = [0; 2 + 4 + NONCE + header::MAX_PADDING];
        entropy.fill(&mut rest);
        let [token, padding_len, rest @ ..] = rest;
        let take = |at: usize| rest[at];
        Self {
            keys,
            token,
            auth_random: std::array::from_fn(take),
            nonce: std::array::from_fn(|i| take(4 + i)),
            padding: std::array::from_fn(|i| take(4 + NONCE + i)),
            padding_len: usize::from(padding_len) % (header::MAX_PADDING + 1),
        }
    }

    fn padding(&self) -> &[u8] {
        &self.padding[..self.padding_len]
    }
}

/// Opens what a server sends: the response header, then chunks.
#[derive(Debug)]
pub struct Downlink {
    opener: Opener,
    answer: Answer,
    command: Option<Box<SwitchAccount>>,
}

impl Downlink {
    /// Opens what is at the start of `input`, in place: see [`Opener::open`]. The response header is data
    /// without payload.
    ///
    /// # Errors
    /// [`OpenError::ForgedResponse`] and [`OpenError::MalformedResponse`] before the first chunk, then the
    /// opener's.
    pub fn open(&mut self, input: &mut [u8]) -> Result<Opened, OpenError> {
        if self.answered() {
            return self.opener.open(input);
        }
        match self.answer.open(input)? {
            Progress::Need(need) => Ok(Opened::Need(need)),
            Progress::Valid { consumed, command, stream } => {
                self.command = command;
                if let Some(stream) = stream {
                    self.opener.go_on_behind(stream);
                }
                Ok(Opened::Data { payload: consumed..consumed, consumed })
            }
        }
    }

    /// Whether a valid response header has come: the server knows the user.
    pub const fn answered(&self) -> bool {
        self.answer.is_valid()
    }

    /// Takes out the command that the response header carried, once.
    ///
    /// Under a legacy header nothing proves that the server sent it as it came but a checksum of 32 bits.
    pub fn take_command(&mut self) -> Option<SwitchAccount> {
        self.command.take().map(|command| *command)
    }

    /// Whether the end of the carrier would be a proper end of this stream now: see [`Opener::at_boundary`].
    pub const fn at_boundary(&self) -> bool {
        self.answered() && self.opener.at_boundary()
    }

    /// Whether the terminating chunk has come: see [`Opener::is_terminated`].
    pub const fn is_terminated(&self) -> bool {
        self.opener.is_terminated()
    }

    /// Whether payload has come without a terminating chunk: see [`Opener::lacks_terminator`].
    pub const fn lacks_terminator(&self) -> bool {
        self.opener.lacks_terminator()
    }

    /// Judges the end of the carrier.
    ///
    /// # Errors
    /// [`OpenError::Unanswered`] before the response header was whole, [`OpenError::Truncated`] inside a
    /// chunk; after an error, that error.
    pub fn check_end(&self) -> Result<(), OpenError> {
        self.answer.check_end()?;
        self.opener.check_end()
    }
}
