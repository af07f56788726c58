//! Reads the header of one connection, however it is cut, and says whose it is.
//!
//! A header begins with 16 bytes that are an AEAD auth id or a legacy signature; both are looked for before
//! anything else happens. Then it is read to its end in the form that was found.
//!
//! A stranger is not told from a replay, an expired auth id or a forged length: all of them are asked for the
//! 42 bytes up to the sealed header and refused there, after the same work: every user's key tried, one legacy
//! look-up, four key derivations and two opens. A forged header and a bad legacy header are refused where their
//! last byte was due, after no less. None of this shows outside, since the refused are kept waiting to one
//! deadline; it leaves nothing to measure by other means.

use super::sessions::History;
use super::users::Found;
use super::{Gate, Roster, Users};
use crate::vmess::CmdKey;
use crate::vmess::auth::AuthId;
use crate::vmess::envelope::{self, NONCE, REQUEST_PREFIX, SEALED_LENGTH, TAG};
use crate::vmess::gate::replay::Verdict;
use crate::vmess::header::{self, HeaderError, RequestHeader};
use crate::vmess::legacy::{AUTH_LEN, HeaderCipher};
use crate::vmess::server::HeaderKind;
use std::fmt;
use std::hint::black_box;
use std::sync::Arc;
use zeroize::{Zeroize, Zeroizing};

/// Bytes of the longest request header that is read, without its tag. Clients send fewer than 400.
pub const MAX_HEADER: usize = 1024;

/// What reading on has come to.
#[derive(Debug)]
pub enum Step {
    /// So many bytes are needed in all before anything can change.
    Need(usize),
    /// A user's request.
    Accepted(Box<Accepted>),
    /// Nobody that this server knows, as far as the peer may know: whatever the reason, keep silent until the
    /// shared deadline.
    Refused(Refusal),
    /// A user's header, authenticated, that says what no server takes: close.
    Invalid(HeaderError),
}

/// A user's request.
#[derive(Debug)]
pub struct Accepted {
    /// What is asked for, and the session's keys.
    pub request: RequestHeader,
    /// How the header came: the answer takes the same form.
    pub kind: HeaderKind,
    /// The users as they are now.
    pub user: Arc<Users>,
    /// Who of them it is.
    pub index: usize,
    /// Bytes of the header: what is behind them is the body.
    pub consumed: usize,
}

/// What of a refusal is the operator's to know, never the peer's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Refusal {
    /// The user, by position, who has made as many connections as one may: `ResourceLimit`.
    pub quota_of: Option<usize>,
    /// The memory of what was seen is full: `ResourceLimit`.
    pub memory_full: bool,
    /// By how many seconds this clock has been set back: users are refused until it has caught up, `ClockSkew`.
    pub clock_set_back: Option<i64>,
}

/// One connection's header reader.
#[derive(Debug)]
pub struct Acceptor {
    state: State,
}

/// What is known of the peer.
enum State {
    /// Nothing: the auth id or signature is awaited.
    Begun,
    /// Its auth id was looked for; the sealed length is awaited, whoever it is.
    Claimed { roster: Arc<Roster>, claim: Result<Found, Refused> },
    /// A user's length was opened: the sealed header is awaited, so many bytes in all.
    Sized { roster: Arc<Roster>, found: Found, total: usize },
    /// A user's legacy signature: the header is read as it comes.
    Legacy(Box<Legacy>),
    /// It is over.
    Ended(Refusal),
}

/// A claim that will be refused, and how many times keys were tried for it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Refused {
    pub(super) refusal: Refusal,
    pub(super) tried: usize,
}

/// A legacy header that is being read.
struct Legacy {
    roster: Arc<Roster>,
    index: usize,
    auth: [u8; AUTH_LEN],
    cipher: HeaderCipher,
    /// What has been deciphered.
    plain: Zeroizing<Vec<u8>>,
}

impl Acceptor {
    /// A reader that has seen nothing.
    pub const fn new() -> Self {
        Self { state: State::Begun }
    }

    /// Reads on. `input` is everything that came so far; `unix_secs` is UTC now.
    ///
    /// Nothing is consumed before [`Step::Accepted`], and `input` is changed only by the step that ends it: the
    /// header of an accepted request is overwritten, as it held the session's keys. After the end every step is
    /// a refusal.
    pub fn step(&mut self, gate: &Gate, input: &mut [u8], unix_secs: i64) -> Step {
        loop {
            let state = std::mem::replace(&mut self.state, State::Ended(Refusal::default()));
            match state.read(gate, input, unix_secs) {
                Read::On(state) => self.state = state,
                Read::Wait(state, need) => {
                    self.state = state;
                    return Step::Need(need);
                }
                Read::End(step) => {
                    if let Step::Refused(refusal) = &step {
                        self.state = State::Ended(*refusal);
                    }
                    return step;
                }
            }
        }
    }
}

impl Default for Acceptor {
    fn default() -> Self {
        Self::new()
    }
}

/// What one state made of the input.
enum Read {
    On(State),
    Wait(State, usize),
    End(Step),
}

impl State {
    fn read(self, gate: &Gate, input: &mut [u8], now: i64) -> Read {
        match self {
            Self::Begun => match input.first_chunk::<AUTH_LEN>() {
                Some(first) => Read::On(recognise(gate, first, now)),
                None => Read::Wait(self, AUTH_LEN),
            },
            Self::Claimed { roster, claim } => match Prefix::of(input) {
                Some(prefix) => match prefix.open_length(gate, &roster, claim, now) {
                    Ok((found, total)) => Read::On(Self::Sized { roster, found, total }),
                    Err(refusal) => Read::End(Step::Refused(refusal)),
                },
                None => Read::Wait(Self::Claimed { roster, claim }, REQUEST_PREFIX),
            },
            Self::Sized { roster, found, total } => match Prefix::of(input).zip(input.get_mut(..total)) {
                Some((prefix, sealed)) => Read::End(prefix.open_header(gate, &roster, found, sealed, now)),
                None => Read::Wait(Self::Sized { roster, found, total }, total),
            },
            Self::Legacy(mut legacy) => match legacy.read(input) {
                Ok(header) => Read::End(legacy.judge(gate, header, input, now)),
                Err(need) => Read::Wait(Self::Legacy(legacy), need),
            },
            Self::Ended(refusal) => Read::End(Step::Refused(refusal)),
        }
    }
}

/// Looks for whoever made the first bytes: as an auth id, then as a legacy signature.
fn recognise(gate: &Gate, first: &[u8; AUTH_LEN], now: i64) -> State {
    let roster = gate.roster();
    let refused = match gate.find(&roster, first, now) {
        Ok(found) => {
            let claim = remember(&gate.history, &roster, found, first, now);
            return State::Claimed { roster, claim };
        }
        Err(refused) => refused,
    };
    match Legacy::new(gate, &roster, first, now) {
        Ok(legacy) => State::Legacy(Box::new(legacy)),
        Err(refusal) => {
            let clock_set_back = refused.refusal.clock_set_back.or(refusal.clock_set_back);
            let refusal = Refusal { clock_set_back, ..refusal };
            State::Claimed { roster, claim: Err(Refused { refusal, ..refused }) }
        }
    }
}

/// Remembers an auth id as soon as it is known to be a user's: it opens nothing a second time, whatever comes
/// behind it.
fn remember(
    history: &History,
    roster: &Roster,
    found: Found,
    auth_id: &AuthId,
    now: i64,
) -> Result<Found, Refused> {
    let verdict = roster.users.get(found.index).map(|user| history.auth_id(&user.id, auth_id, now));
    match refusal_of(verdict.unwrap_or(Verdict::Seen), found.index) {
        None => Ok(found),
        Some(refusal) => Err(Refused { refusal, tried: found.tried }),
    }
}

fn refusal_of(verdict: Verdict, index: usize) -> Option<Refusal> {
    match verdict {
        Verdict::New => None,
        Verdict::Seen => Some(Refusal::default()),
        Verdict::Quota => Some(Refusal { quota_of: Some(index), ..Refusal::default() }),
        Verdict::Full => Some(Refusal { memory_full: true, ..Refusal::default() }),
    }
}

/// What an AEAD header begins with.
struct Prefix {
    auth_id: AuthId,
    length: [u8; SEALED_LENGTH],
    nonce: [u8; NONCE],
}

impl Prefix {
    fn of(input: &[u8]) -> Option<Self> {
        let (auth_id, rest) = input.split_first_chunk()?;
        let (length, rest) = rest.split_first_chunk()?;
        let nonce = rest.first_chunk()?;
        Some(Self { auth_id: *auth_id, length: *length, nonce: *nonce })
    }

    /// Opens the length with the user's key, or a stranger's with a key that is nobody's: how long prefix and
    /// header are in all.
    fn open_length(
        &self,
        gate: &Gate,
        roster: &Roster,
        claim: Result<Found, Refused>,
        now: i64,
    ) -> Result<(Found, usize), Refusal> {
        let (refusal, tried) = match claim {
            Ok(found) => {
                let key = roster.users.cmd_key(found.index).unwrap_or(&gate.stranger);
                match envelope::open_request_length(key, &self.auth_id, &self.nonce, self.length) {
                    Ok(len) if len <= MAX_HEADER => return Ok((found, REQUEST_PREFIX + len + TAG)),
                    Ok(_) | Err(_) => (Refusal::default(), found.tried),
                }
            }
            Err(Refused { refusal, tried }) => {
                self.feign_length(&gate.stranger);
                (refusal, tried)
            }
        };
        roster.spend_rest(&self.auth_id, tried, now);
        self.feign_header(&gate.stranger);
        Err(refusal)
    }

    fn open_header(&self, gate: &Gate, roster: &Roster, found: Found, input: &mut [u8], now: i64) -> Step {
        let consumed = input.len();
        let key = roster.users.cmd_key(found.index).unwrap_or(&gate.stranger);
        let sealed = input.get_mut(REQUEST_PREFIX..).unwrap_or_default();
        let opened =
            envelope::open_request(key, &self.auth_id, &self.nonce, sealed).map(RequestHeader::decode);
        input.zeroize();
        let step = match opened {
            Ok(Ok(request)) => accept(gate, roster, found.index, HeaderKind::Aead, request, consumed, now),
            Ok(Err(error)) => Step::Invalid(error),
            Err(_) => Step::Refused(Refusal::default()),
        };
        if let Step::Refused(_) = step {
            roster.spend_rest(&self.auth_id, found.tried, now);
        }
        step
    }

    /// What opening the length costs.
    fn feign_length(&self, stranger: &CmdKey) {
        let opened = envelope::open_request_length(stranger, &self.auth_id, &self.nonce, self.length);
        black_box(opened.is_ok());
    }

    /// What opening a header costs.
    fn feign_header(&self, stranger: &CmdKey) {
        let mut sealed = [0; 64 + TAG];
        let opened = envelope::open_request(stranger, &self.auth_id, &self.nonce, &mut sealed);
        black_box(opened.is_ok());
    }
}

/// Lets a request in whose header is whole and good, unless its session is known or its user is gone.
fn accept(
    gate: &Gate,
    roster: &Roster,
    index: usize,
    kind: HeaderKind,
    request: RequestHeader,
    consumed: usize,
    now: i64,
) -> Step {
    let Some((user, index)) = gate.position(roster, index) else {
        return Step::Refused(Refusal::default());
    };
    let verdict = user.get(index).map(|user| gate.history.session(&user.id, &request.keys, now));
    match refusal_of(verdict.unwrap_or(Verdict::Seen), index) {
        None => Step::Accepted(Box::new(Accepted { request, kind, user, index, consumed })),
        Some(refusal) => Step::Refused(refusal),
    }
}

impl Legacy {
    fn new(gate: &Gate, roster: &Arc<Roster>, auth: &[u8; AUTH_LEN], now: i64) -> Result<Self, Refusal> {
        let signer = gate.find_legacy(roster, auth, now)?;
        let index = roster.users.position(signer.id).ok_or_else(Refusal::default)?;
        let cmd_key = roster.users.cmd_key(index).ok_or_else(Refusal::default)?;
        Ok(Self {
            roster: Arc::clone(roster),
            index,
            auth: *auth,
            cipher: HeaderCipher::new(cmd_key, signer.sent),
            plain: Zeroizing::new(Vec::with_capacity(header::MAX_LEN)),
        })
    }

    /// Deciphers as much as is known to belong to the header. `Ok` when it is whole or hopeless, else how many
    /// bytes are needed in all.
    fn read(&mut self, input: &[u8]) -> Result<Result<RequestHeader, HeaderError>, usize> {
        loop {
            let have = self.plain.len();
            let need = match RequestHeader::extent(&self.plain) {
                Ok(need) if need == have => return Ok(RequestHeader::decode(&self.plain)),
                Ok(need) => need,
                Err(error) => return Ok(Err(error)),
            };
            let more = input.get(AUTH_LEN + have..AUTH_LEN + need).ok_or(AUTH_LEN + need)?;
            self.plain.extend_from_slice(more);
            self.cipher.decrypt(self.plain.get_mut(have..).unwrap_or_default());
        }
    }

    /// Lets a good header in. Anything else taints the signature and is refused: the checksum is no proof that
    /// it was the user who wrote what is wrong.
    fn judge(&self, gate: &Gate, header: Result<RequestHeader, HeaderError>, input: &[u8], now: i64) -> Step {
        let consumed = AUTH_LEN + self.plain.len();
        let step = match header {
            Ok(request) => accept(gate, &self.roster, self.index, HeaderKind::Legacy, request, consumed, now),
            Err(_) => Step::Refused(Refusal::default()),
        };
        if let Step::Refused(refusal) = &step {
            // A limit is not the header's fault.
            if let (true, Some(user)) = (*refusal == Refusal::default(), self.roster.users.get(self.index)) {
                gate.history.taint(&user.id, &self.auth, now);
            }
            if let Some(prefix) = Prefix::of(input) {
                prefix.feign_length(&gate.stranger);
                prefix.feign_header(&gate.stranger);
            }
        }
        step
    }
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Begun => "Begun",
            Self::Claimed { .. } => "Claimed",
            Self::Sized { .. } => "Sized",
            Self::Legacy(_) => "Legacy",
            Self::Ended(_) => "Ended",
        })
    }
}
