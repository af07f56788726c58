//! The response header as a client meets it: sealed by itself, or under a legacy header the start of a stream.

use super::cfb::Decryptor;
use super::chunk::OpenError;
use super::command::{SWITCH_ACCOUNT, SwitchAccount};
use super::envelope::{self, SEALED_LENGTH, TAG};
use super::keys::BodyKeys;
use super::response::{MAX_LEN, MIN_LEN, ResponseHeader};

/// What is known of the response header of one connection. What it takes to read one is boxed: a connection
/// lives on without.
#[derive(Debug)]
pub(super) struct Answer {
    token: u8,
    state: State,
}

#[derive(Debug)]
enum State {
    /// To come under these keys; its bytes on the wire, once they are known.
    Sealed { keys: Box<BodyKeys>, total: Option<usize> },
    /// To come in this stream; its first bytes, once they are decrypted.
    Legacy { stream: Box<Decryptor>, head: Option<[u8; MIN_LEN]> },
    /// It has come, and was valid.
    Valid,
    /// It was not.
    Failed(OpenError),
}

/// How far [`Answer::open`] got.
pub(super) enum Progress {
    /// At least so many bytes must be at hand.
    Need(usize),
    /// The header was valid and has been `consumed` bytes long.
    Valid {
        /// Where what follows begins.
        consumed: usize,
        /// The command in it.
        command: Option<Box<SwitchAccount>>,
        /// The stream that it was encrypted with, if it was.
        stream: Option<Box<Decryptor>>,
    },
}

impl Answer {
    /// Awaits the answer to the request with `token` under an AEAD header; `keys` are the response direction's.
    pub(super) fn sealed(token: u8, keys: &BodyKeys) -> Self {
        Self { token, state: State::Sealed { keys: Box::new(keys.clone()), total: None } }
    }

    /// Awaits the answer to the request with `token` under a legacy header; `keys` are the response direction's.
    pub(super) fn legacy(token: u8, keys: &BodyKeys) -> Self {
        Self { token, state: State::Legacy { stream: Box::new(Decryptor::new(keys)), head: None } }
    }

    /// Whether it has come, and was valid.
    pub(super) const fn is_valid(&self) -> bool {
        matches!(self.state, State::Valid)
    }

    /// Reads what is at the start of `input`, in place. Not to be called again once it was valid.
    ///
    /// # Errors
    /// [`OpenError::ForgedResponse`], [`OpenError::MalformedResponse`]; the same again after that.
    pub(super) fn open(&mut self, input: &mut [u8]) -> Result<Progress, OpenError> {
        let progress = match self.state {
            State::Failed(error) => Err(error),
            State::Legacy { .. } => self.open_legacy(input),
            State::Sealed { .. } | State::Valid => self.open_sealed(input),
        };
        if let Err(error) = progress {
            self.state = State::Failed(error);
        }
        progress
    }

    /// Judges the end of the carrier.
    ///
    /// # Errors
    /// [`OpenError::Unanswered`] before the header was whole; after an error, that error.
    pub(super) const fn check_end(&self) -> Result<(), OpenError> {
        match self.state {
            State::Valid => Ok(()),
            State::Failed(error) => Err(error),
            State::Sealed { .. } | State::Legacy { .. } => Err(OpenError::Unanswered),
        }
    }

    fn open_sealed(&mut self, input: &mut [u8]) -> Result<Progress, OpenError> {
        let State::Sealed { keys, total } = &mut self.state else { return Ok(nothing()) };
        let total = match *total {
            Some(total) => total,
            None => {
                let Some(&sealed) = input.first_chunk::<SEALED_LENGTH>() else {
                    return Ok(Progress::Need(SEALED_LENGTH));
                };
                let len =
                    envelope::open_response_length(keys, sealed).map_err(|_| OpenError::ForgedResponse)?;
                if !(MIN_LEN..=MAX_LEN).contains(&len) {
                    return Err(OpenError::MalformedResponse);
                }
                *total.insert(SEALED_LENGTH + len + TAG)
            }
        };
        let Some(sealed) = input.get_mut(SEALED_LENGTH..total) else { return Ok(Progress::Need(total)) };
        let plain = envelope::open_response(keys, sealed).map_err(|_| OpenError::ForgedResponse)?;
        let header = ResponseHeader::decode(plain).ok_or(OpenError::MalformedResponse)?;
        if header.token != self.token {
            return Err(OpenError::MalformedResponse);
        }
        self.state = State::Valid;
        Ok(Progress::Valid { consumed: total, command: command(&header), stream: None })
    }

    /// Here nothing but the token tells an answer from noise, so a wrong one is no answer at all.
    fn open_legacy(&mut self, input: &mut [u8]) -> Result<Progress, OpenError> {
        let State::Legacy { stream, head } = &mut self.state else { return Ok(nothing()) };
        let head = match *head {
            Some(head) => head,
            None => {
                let Some(&(mut first)) = input.first_chunk::<MIN_LEN>() else {
                    return Ok(Progress::Need(MIN_LEN));
                };
                // On the side: the input must not be seen half decrypted.
                stream.decrypt(&mut first);
                *head.insert(first)
            }
        };
        let [token, options, code, len] = head;
        if token != self.token {
            return Err(OpenError::ForgedResponse);
        }
        let total = MIN_LEN + usize::from(len);
        let Some(payload) = input.get_mut(MIN_LEN..total) else { return Ok(Progress::Need(total)) };
        stream.decrypt(payload);
        let command = command(&ResponseHeader { token, options, command: code, payload });
        let stream = match std::mem::replace(&mut self.state, State::Valid) {
            State::Legacy { stream, .. } => Some(stream),
            _ => None,
        };
        Ok(Progress::Valid { consumed: total, command, stream })
    }
}

const fn nothing() -> Progress {
    Progress::Valid { consumed: 0, command: None, stream: None }
}

/// The command in a response header. One that is unknown or broken is none, as for every peer.
fn command(header: &ResponseHeader<'_>) -> Option<Box<SwitchAccount>> {
    if header.command != SWITCH_ACCOUNT {
        return None;
    }
    SwitchAccount::decode(header.payload).map(Box::new)
}
