//! The reading end of a body.

use super::CHECKSUM;
use super::framing::{Framing, Lane};
use crate::vmess::cfb::Decryptor;
use crate::vmess::fnv::fnv1a;
use crate::vmess::keys::BodyKeys;
use std::ops::Range;

/// What [`Opener::open`] made of the bytes at hand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Opened {
    /// At least so many bytes must be at hand, counted from the start of the input, before a call can get
    /// further.
    ///
    /// The next call's input begins with the same bytes.
    Need(usize),
    /// The first `consumed` bytes are done. The payload lies in `payload`; it is empty if these bytes held
    /// none.
    Data {
        /// Where in the input the payload lies.
        payload: Range<usize>,
        /// Where the next call's input begins.
        consumed: usize,
    },
    /// The terminating chunk: nothing follows in this direction. What does is consumed and ignored.
    End {
        /// Where the next call's input begins.
        consumed: usize,
    },
}

/// Why bytes from the peer could not be opened. The direction is dead then: every later call says the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Malformed: a chunk's size is less than the tag and padding that it must have.
    #[error("a chunk is smaller than its tag and padding")]
    Undersized,
    /// Unauthenticated: a chunk, or its sealed size, was not sealed under this connection's keys, or fails
    /// the checksum that stands for a tag under AES-CFB.
    #[error("a chunk does not authenticate")]
    Forged,
    /// The stream ended inside a chunk.
    #[error("the stream ended inside a chunk")]
    Truncated,
    /// The stream ended before the response header did.
    #[error("the stream ended before its response header")]
    Unanswered,
    /// Unauthenticated: the response header was not sealed under this connection's keys, or is no VMess at
    /// all.
    #[error("the response header does not authenticate")]
    ForgedResponse,
    /// Malformed: the response header is authentic and senseless, or answers another request.
    #[error("the response header is malformed")]
    MalformedResponse,
}

/// Where in a chunk the reader is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Before a size field.
    Size,
    /// Behind a size field that has been read: bytes of the whole chunk, and of its padding.
    Body { total: usize, padding: usize },
    /// Behind the terminating chunk.
    Ended,
    /// Behind an error.
    Failed(OpenError),
}

/// Opens one direction of a connection, chunk by chunk, in the buffer that it was read into.
///
/// One per direction; what it holds is under a kilobyte, and no call allocates.
#[derive(Debug)]
pub struct Opener {
    lane: Lane,
    /// The stream that everything goes through, under AES-CFB. Boxed, as it is rare.
    cfb: Option<Box<Decryptor>>,
    state: State,
    /// Bytes of an unfinished chunk were at hand when more were last asked for.
    partial: bool,
    /// An empty chunk that comes now is skipped.
    skips_empty: bool,
    /// A chunk with payload has come.
    begun: bool,
}

impl Opener {
    /// Makes the reading end of the direction whose body keys are `keys`; `request` are the request
    /// direction's.
    pub fn new(framing: Framing, keys: &BodyKeys, request: &BodyKeys) -> Self {
        let lane = Lane::new(framing, keys, request);
        let cfb = framing.is_cfb().then(|| Box::new(Decryptor::new(keys)));
        Self { lane, cfb, state: State::Size, partial: false, skips_empty: false, begun: false }
    }

    /// Goes on in a stream that has decrypted a response header, if this body is one: a legacy header and an
    /// AES-CFB body behind it share theirs.
    pub(in crate::vmess) fn go_on_behind(&mut self, header: Box<Decryptor>) {
        if let Some(cfb) = &mut self.cfb {
            *cfb = header;
        }
    }

    /// Skips an empty chunk at the very start of the stream, where it would be the end: some peers send one with
    /// their header, to have that on its way before there is payload.
    #[must_use]
    pub fn skipping_empty_start(self) -> Self {
        Self { skips_empty: true, ..self }
    }

    /// How this direction's bytes look.
    pub const fn framing(&self) -> Framing {
        self.lane.framing
    }

    /// Opens the chunk at the start of `input`, in place.
    ///
    /// `input` begins with the first byte not yet consumed. A size field is decoded once, as soon as it is
    /// whole, so an input may grow byte by byte. Without chunks everything at hand is payload. A chunk holds
    /// at most 65,569 bytes.
    ///
    /// # Errors
    /// [`OpenError::Undersized`] and [`OpenError::Forged`].
    pub fn open(&mut self, input: &mut [u8]) -> Result<Opened, OpenError> {
        let opened = self.advance(input);
        match opened {
            Err(error) => self.state = State::Failed(error),
            Ok(Opened::Need(_)) => self.partial = !input.is_empty(),
            Ok(_) => self.partial = false,
        }
        opened
    }

    /// Whether the end of the carrier would be a proper end of this stream now, terminating chunk or not.
    ///
    /// True between chunks, once [`Opener::open`] has seen everything that has come.
    pub const fn at_boundary(&self) -> bool {
        match self.state {
            State::Size => !self.partial,
            State::Ended => true,
            State::Body { .. } | State::Failed(_) => false,
        }
    }

    /// Whether the terminating chunk has come.
    pub const fn is_terminated(&self) -> bool {
        matches!(self.state, State::Ended)
    }

    /// Whether payload has come without the terminating chunk that may follow it.
    ///
    /// At the end of the carrier that is a cut if the peer is known to send terminating chunks, which not all do. It is
    /// none before the first payload: V2Ray ends an empty stream with its response header alone.
    pub const fn lacks_terminator(&self) -> bool {
        self.begun && self.lane.framing.is_terminated() && !self.is_terminated()
    }

    /// Judges the end of the carrier.
    ///
    /// # Errors
    /// [`OpenError::Truncated`] inside a chunk; after an error, that error.
    pub const fn check_end(&self) -> Result<(), OpenError> {
        match self.state {
            State::Failed(error) => Err(error),
            _ if self.at_boundary() => Ok(()),
            _ => Err(OpenError::Truncated),
        }
    }

    #[inline]
    fn advance(&mut self, input: &mut [u8]) -> Result<Opened, OpenError> {
        let framing = self.lane.framing;
        let (total, padding) = match self.state {
            State::Body { total, padding } => (total, padding),
            State::Size if framing.is_chunked() => {
                let Some(head) = input.get(..framing.head_len()) else {
                    return Ok(Opened::Need(framing.head_len()));
                };
                let (size, padding) = self.read_size(head).ok_or(OpenError::Forged)?;
                if size < framing.overhead() + padding {
                    return Err(OpenError::Undersized);
                }
                (framing.head_len() + size, padding)
            }
            State::Size if input.is_empty() => return Ok(Opened::Need(1)),
            State::Size => {
                if let Some(cfb) = &mut self.cfb {
                    cfb.decrypt(input);
                }
                return Ok(Opened::Data { payload: 0..input.len(), consumed: input.len() });
            }
            State::Ended => return Ok(Opened::End { consumed: input.len() }),
            State::Failed(error) => return Err(error),
        };
        // At least head and overhead: a size that says less has been refused.
        let sealed = framing.head_len()..total - padding;
        let payload = framing.lead()..sealed.end - framing.tag_len();
        // The padding of the terminating chunk means nothing and is not waited for.
        let needed = if payload.is_empty() && !self.skips_empty { sealed.end } else { total };
        if input.len() < needed {
            self.state = State::Body { total, padding };
            return Ok(Opened::Need(needed));
        }
        if let (Some(aead), Some(data)) = (&mut self.lane.body, input.get_mut(sealed.clone())) {
            aead.open(data).ok_or(OpenError::Forged)?;
        }
        if let Some(cfb) = &mut self.cfb {
            let end = total.min(input.len());
            let chunk = input.get_mut(sealed.start..end).unwrap_or_default();
            open_encrypted(cfb, chunk, sealed.len()).ok_or(OpenError::Forged)?;
        }
        let skipped = std::mem::take(&mut self.skips_empty);
        if payload.is_empty() && !skipped {
            self.state = State::Ended;
            return Ok(Opened::End { consumed: input.len() });
        }
        self.state = State::Size;
        self.begun |= !payload.is_empty();
        Ok(Opened::Data { payload, consumed: total })
    }
    /// As [`Lane::read_size`]. Under AES-CFB on the side: the input must not be seen half decrypted.
    #[inline]
    fn read_size(&mut self, head: &[u8]) -> Option<(usize, usize)> {
        let Some(cfb) = &mut self.cfb else { return self.lane.read_size(head) };
        let mut field: [u8; 2] = head.try_into().ok()?;
        cfb.decrypt(&mut field);
        self.lane.read_size(&field)
    }
}

/// Decrypts what follows the size field of a chunk, `len` bytes of data and what padding there is, in place.
/// `None` if the checksum does not fit.
#[inline(never)]
fn open_encrypted(cfb: &mut Decryptor, chunk: &mut [u8], len: usize) -> Option<()> {
    cfb.decrypt(chunk);
    let (checksum, payload) = chunk.get(..len)?.split_first_chunk::<CHECKSUM>()?;
    (fnv1a(payload) == u32::from_be_bytes(*checksum)).then_some(())
}
