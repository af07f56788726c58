//! The writing end of a body.

use super::framing::{Framing, Lane};
use super::{CHECKSUM, MAX_PADDING, MAX_SIZE, MAX_WRITTEN_SIZE, TAG};
use crate::entropy::Entropy;
use crate::vmess::cfb::Encryptor;
use crate::vmess::fnv::fnv1a;
use crate::vmess::keys::BodyKeys;
use std::fmt;
use std::ops::Range;

/// Bytes of the longest terminating chunk: sealed size, tag, padding.
pub const TERMINATOR: usize = 2 + TAG + TAG + MAX_PADDING;

/// Why a payload was not sealed. Each is a mistake of the caller, and none has touched the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SealError {
    /// An empty payload, which would mean the end of the stream.
    #[error("an empty payload cannot be sealed")]
    Empty,
    /// A payload longer than a chunk can be.
    #[error("a payload of {len} bytes is longer than the {limit} that a chunk takes")]
    TooLong {
        /// Its length in bytes.
        len: usize,
        /// The most that would have passed.
        limit: usize,
    },
    /// Too little room before or behind the payload, or a payload outside the buffer.
    #[error("the buffer has no room around the payload")]
    NoRoom,
    /// The terminating chunk has been written.
    #[error("the stream has been finished")]
    Finished,
}

/// Seals one direction of a connection, chunk by chunk.
///
/// One per direction; what it holds is under a kilobyte, and no call allocates.
#[derive(Debug)]
pub struct Sealer {
    lane: Lane,
    /// The stream that everything goes through, under AES-CFB. Boxed, as it is rare.
    cfb: Option<Box<Encryptor>>,
    padding: Padding,
    finished: bool,
}

impl Sealer {
    /// Makes the writing end of the direction whose body keys are `keys`; `request` are the request
    /// direction's.
    pub fn new(framing: Framing, keys: &BodyKeys, request: &BodyKeys) -> Self {
        let cfb = framing.is_cfb().then(|| Box::new(Encryptor::new(keys)));
        Self { lane: Lane::new(framing, keys, request), cfb, padding: Padding::new(), finished: false }
    }

    /// Goes on in a stream that has encrypted a response header, if this body is one: a legacy header and an
    /// AES-CFB body behind it share theirs.
    #[must_use]
    pub(in crate::vmess) fn behind_header(self, header: Encryptor) -> Self {
        Self { cfb: self.cfb.map(|_| Box::new(header)), ..self }
    }

    /// How this direction's bytes look.
    pub const fn framing(&self) -> Framing {
        self.lane.framing
    }

    /// The longest payload that keeps a chunk's size at 16,384, which every peer reads: 16,305 bytes where
    /// chunks are sealed and padded, 16,368 without padding. [`MAX_SIZE`] where there are no chunks.
    pub const fn max_payload(&self) -> usize {
        if self.lane.framing.is_chunked() {
            MAX_WRITTEN_SIZE - self.lane.framing.checksum_len() - self.lane.framing.max_tail()
        } else {
            MAX_SIZE
        }
    }

    /// The longest payload that [`Sealer::seal`] takes, whoever reads it.
    const fn limit(&self) -> usize {
        let framing = self.lane.framing;
        if framing.is_chunked() { MAX_SIZE - framing.checksum_len() - framing.max_tail() } else { usize::MAX }
    }

    /// Seals `slab[payload]` in place and returns where in `slab` the chunk lies.
    ///
    /// The size field goes before the payload, tag and padding behind it: [`HEADROOM`] and [`TAILROOM`] free
    /// bytes are always enough. Without chunks the payload stays where it is.
    ///
    /// # Errors
    /// Any [`SealError`]. The stream has not moved then, so the same or another payload can follow.
    ///
    /// [`HEADROOM`]: crate::buffer::HEADROOM
    /// [`TAILROOM`]: crate::buffer::TAILROOM
    pub fn seal(
        &mut self,
        slab: &mut [u8],
        payload: Range<usize>,
        entropy: &mut dyn Entropy,
    ) -> Result<Range<usize>, SealError> {
        if self.finished {
            return Err(SealError::Finished);
        }
        let len = payload.end.checked_sub(payload.start).ok_or(SealError::NoRoom)?;
        if len == 0 {
            return Err(SealError::Empty);
        }
        // Judged before anything is drawn: a refusal must not put the masks out of step.
        if len > self.limit() {
            return Err(SealError::TooLong { len, limit: self.limit() });
        }
        self.chunk(slab, payload, entropy).ok_or(SealError::NoRoom)
    }

    /// Writes the terminating chunk to the start of `out` and returns its length.
    ///
    /// `None` when this stream ends without one: its carrier's end is its own. `None` again after the first
    /// call.
    pub fn finish(&mut self, out: &mut [u8; TERMINATOR], entropy: &mut dyn Entropy) -> Option<usize> {
        let framing = self.lane.framing;
        if self.finished || !framing.is_terminated() {
            self.finished = true;
            return None;
        }
        self.finished = true;
        let lead = framing.lead();
        self.chunk(out, lead..lead, entropy).map(|chunk| chunk.end)
    }

    /// Seals a payload of legal length, empty for the end; `None` without effect if there is no room.
    fn chunk(
        &mut self,
        slab: &mut [u8],
        payload: Range<usize>,
        entropy: &mut dyn Entropy,
    ) -> Option<Range<usize>> {
        let framing = self.lane.framing;
        let start = payload.start.checked_sub(framing.lead())?;
        let room = slab.get_mut(start..payload.end.checked_add(framing.max_tail())?)?;
        if !framing.is_chunked() {
            if let Some(cfb) = &mut self.cfb {
                cfb.encrypt(room);
            }
            return Some(payload);
        }
        let (head, rest) = room.split_at_mut(framing.head_len());
        let (data, tail) = rest.split_at_mut(framing.checksum_len() + payload.len());
        let (tag, padding) = tail.split_at_mut(framing.tag_len());
        let padding = padding.get_mut(..self.lane.draw_padding())?;
        let size = data.len() + tag.len() + padding.len();
        self.lane.write_size(u16::try_from(size).ok()?, head);
        if let Some(aead) = &mut self.lane.body {
            tag.copy_from_slice(&aead.seal(data));
        }
        self.padding.fill(padding, entropy);
        let len = head.len() + size;
        if let Some(cfb) = &mut self.cfb {
            seal_encrypted(cfb, room.get_mut(..len)?, framing.head_len(), payload.len())?;
        }
        Some(start..start + len)
    }
}

/// Writes the checksum of a chunk's payload, which lies behind it, and encrypts the whole chunk in place.
#[inline(never)]
fn seal_encrypted(cfb: &mut Encryptor, chunk: &mut [u8], at: usize, len: usize) -> Option<()> {
    let (checksum, payload) = chunk.get_mut(at..)?.split_first_chunk_mut::<CHECKSUM>()?;
    *checksum = fnv1a(payload.get(..len)?).to_be_bytes();
    cfb.encrypt(chunk);
    Some(())
}

/// Random bytes for paddings, fetched for several chunks at a time: a source may cost a system call.
struct Padding {
    bytes: [u8; 2 * (MAX_PADDING + 1)],
    used: u8,
}

impl Padding {
    const fn new() -> Self {
        let bytes = [0; 2 * (MAX_PADDING + 1)];
        Self { used: bytes.len() as u8, bytes }
    }

    #[inline]
    fn fill(&mut self, out: &mut [u8], entropy: &mut dyn Entropy) {
        if out.is_empty() {
            return;
        }
        if self.bytes.len() - usize::from(self.used) < out.len() {
            entropy.fill(&mut self.bytes);
            self.used = 0;
        }
        let end = usize::from(self.used) + out.len();
        out.copy_from_slice(&self.bytes[usize::from(self.used)..end]);
        self.used = end as u8;
    }
}

impl fmt::Debug for Padding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Padding(..)")
    }
}
