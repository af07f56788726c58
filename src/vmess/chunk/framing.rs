//! What a request's security and options mean for the bytes of its bodies.

use super::cipher::{Algorithm, CountingAead, MaskStream};
use super::{CHECKSUM, MAX_PADDING, TAG};
use crate::vmess::header::{Command, Options, Security};
use crate::vmess::keys::BodyKeys;

/// A combination of security and options that no body can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FramingError {
    /// A security that is not built in, or `auto`, which is none.
    #[error("security `{}` is not supported", .0.name())]
    Unsupported(Security),
    /// Padding without masking.
    #[error("padding was asked for without masking")]
    PaddingWithoutMasking,
}

/// What a security does to a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Protection {
    /// Nothing.
    Bare,
    /// Seals each chunk's data.
    Aead(Algorithm),
    /// Encrypts everything, sizes and paddings too, as one stream; chunks carry a checksum.
    Cfb,
}

/// How the bodies of one connection look; the same for both directions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Framing {
    protection: Protection,
    chunked: bool,
    terminated: bool,
    masked: bool,
    padded: bool,
    sealed_sizes: bool,
}

impl Framing {
    /// Works out the framing of a request.
    ///
    /// AEAD bodies are always chunked; without [`Options::CHUNK_STREAM`] they only lack the terminating
    /// chunk. Sizes are sealed in AEAD bodies alone, and an unprotected stream takes no padding, whatever the
    /// options say, as in V2Ray.
    ///
    /// # Errors
    /// [`FramingError::Unsupported`] for `auto`; [`FramingError::PaddingWithoutMasking`].
    pub const fn new(security: Security, options: Options, command: Command) -> Result<Self, FramingError> {
        let protection = match security {
            Security::Aes128Gcm => Protection::Aead(Algorithm::Aes128Gcm),
            Security::Chacha20Poly1305 => Protection::Aead(Algorithm::Chacha20Poly1305),
            Security::Aes128Cfb => Protection::Cfb,
            Security::None | Security::Zero => Protection::Bare,
            Security::Auto => return Err(FramingError::Unsupported(security)),
        };
        let (masked, padded) =
            (options.contains(Options::CHUNK_MASKING), options.contains(Options::GLOBAL_PADDING));
        if padded && !masked {
            return Err(FramingError::PaddingWithoutMasking);
        }
        let terminated = options.contains(Options::CHUNK_STREAM);
        let (bare, aead) =
            (matches!(protection, Protection::Bare), matches!(protection, Protection::Aead(_)));
        let chunked = aead || terminated;
        Ok(Self {
            protection,
            chunked,
            terminated,
            masked,
            padded: chunked && padded && (!bare || matches!(command, Command::Udp)),
            sealed_sizes: aead && options.contains(Options::AUTHENTICATED_LENGTH),
        })
    }

    /// The same framing with no terminating chunk written.
    #[must_use]
    pub const fn unterminated(self) -> Self {
        Self { terminated: false, ..self }
    }

    /// Whether the body is cut into chunks at all; if not, it is bare payload.
    pub const fn is_chunked(self) -> bool {
        self.chunked
    }

    /// Whether a terminating chunk ends what is written.
    pub const fn is_terminated(self) -> bool {
        self.terminated
    }

    /// Whether data is protected in any way.
    pub const fn is_protected(self) -> bool {
        !matches!(self.protection, Protection::Bare)
    }

    /// Whether the body is one AES-CFB stream.
    pub(super) const fn is_cfb(self) -> bool {
        matches!(self.protection, Protection::Cfb)
    }

    const fn algorithm(self) -> Option<Algorithm> {
        match self.protection {
            Protection::Aead(algorithm) => Some(algorithm),
            Protection::Bare | Protection::Cfb => None,
        }
    }

    /// Bytes of a chunk's size field.
    pub const fn head_len(self) -> usize {
        match (self.chunked, self.sealed_sizes) {
            (false, _) => 0,
            (true, false) => 2,
            (true, true) => 2 + TAG,
        }
    }

    /// Bytes that a chunk's data has beyond its payload: a checksum before it or a tag behind it.
    pub const fn overhead(self) -> usize {
        self.checksum_len() + self.tag_len()
    }

    /// Bytes between a chunk's size field and its payload.
    pub(super) const fn checksum_len(self) -> usize {
        if self.is_cfb() && self.chunked { CHECKSUM } else { 0 }
    }

    /// Bytes of a tag behind a chunk's payload.
    pub(super) const fn tag_len(self) -> usize {
        if matches!(self.protection, Protection::Aead(_)) { TAG } else { 0 }
    }

    /// Bytes that a chunk has before its payload.
    pub(super) const fn lead(self) -> usize {
        self.head_len() + self.checksum_len()
    }

    /// The most bytes that a chunk has behind its payload: tag and padding.
    pub const fn max_tail(self) -> usize {
        self.tag_len() + if self.padded { MAX_PADDING } else { 0 }
    }
}

/// The state of one direction that its writer and its reader have in common.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) framing: Framing,
    pub(super) body: Option<CountingAead>,
    /// Boxed: half a kilobyte that few connections need.
    sizes: Option<Box<CountingAead>>,
    masks: Option<MaskStream>,
}

impl Lane {
    /// Makes the state of a direction with the body keys `keys`; `request` are the request direction's.
    pub(super) fn new(framing: Framing, keys: &BodyKeys, request: &BodyKeys) -> Self {
        let sealed = framing.algorithm().filter(|_| framing.sealed_sizes);
        Self {
            framing,
            body: framing.algorithm().map(|algorithm| CountingAead::new(algorithm, keys)),
            sizes: sealed.map(|algorithm| Box::new(CountingAead::new(algorithm, &request.chunk_length()))),
            masks: (framing.chunked && framing.masked).then(|| MaskStream::new(&keys.iv)),
        }
    }

    /// Draws the length of the next chunk's padding. Comes before the size of the same chunk.
    #[inline]
    pub(super) fn draw_padding(&mut self) -> usize {
        match &mut self.masks {
            Some(masks) if self.framing.padded => usize::from(masks.next_u16()) % (MAX_PADDING + 1),
            _ => 0,
        }
    }

    /// Writes the size field of a chunk with `size` bytes of data and padding, of which the tag is a part.
    #[inline]
    pub(super) fn write_size(&mut self, size: u16, head: &mut [u8]) {
        if let Some(aead) = &mut self.sizes {
            let (field, tag) = head.split_at_mut(2);
            field.copy_from_slice(&size.saturating_sub(TAG as u16).to_be_bytes());
            tag.copy_from_slice(&aead.seal(field));
        } else {
            head.copy_from_slice(&(size ^ self.draw_mask()).to_be_bytes());
        }
    }

    /// Reads a size field: bytes of data and padding, and of padding alone. `None` if it does not
    /// authenticate.
    #[inline]
    pub(super) fn read_size(&mut self, head: &[u8]) -> Option<(usize, usize)> {
        if let Some(aead) = &mut self.sizes {
            let mut sealed: [u8; 2 + TAG] = head.try_into().ok()?;
            let &mut [high, low] = aead.open(&mut sealed)? else { return None };
            return Some((usize::from(u16::from_be_bytes([high, low])) + TAG, self.draw_padding()));
        }
        let field: [u8; 2] = head.try_into().ok()?;
        let padding = self.draw_padding();
        Some((usize::from(u16::from_be_bytes(field) ^ self.draw_mask()), padding))
    }

    #[inline]
    fn draw_mask(&mut self) -> u16 {
        self.masks.as_mut().map_or(0, MaskStream::next_u16)
    }
}
