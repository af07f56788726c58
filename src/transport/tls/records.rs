//! The record layer once the handshake is over: keys, nonces and numbers of one direction. Pure.

use ring::aead::{
    AES_128_GCM, AES_256_GCM, Aad, Algorithm, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey,
};
use rustls::ConnectionTrafficSecrets;
use std::ops::Range;

/// Bytes of a record's header.
pub(super) const HEAD: usize = 5;
/// The most payload of a record.
pub(super) const MAX_PAYLOAD: usize = 16 * 1024;
/// The most bytes of a record behind its header.
const MAX_BODY: usize = MAX_PAYLOAD + 2048;
/// The most bytes of a record.
pub(super) const MAX_RECORD: usize = HEAD + MAX_BODY;
/// The most that a record adds to its payload: header, explicit nonce or content type, tag.
pub(super) const OVERHEAD: usize = HEAD + 8 + TAG;
const TAG: usize = 16;
/// How many records one AES key seals: the bound of RFC 8446, section 5.5, with room to spare.
const KEY_LIMIT: u64 = 1 << 23;

/// What a record holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Content {
    Alert,
    Handshake,
    Data,
}

impl Content {
    const fn byte(self) -> u8 {
        match self {
            Self::Alert => 21,
            Self::Handshake => 22,
            Self::Data => 23,
        }
    }

    const fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            21 => Some(Self::Alert),
            22 => Some(Self::Handshake),
            23 => Some(Self::Data),
            _ => None,
        }
    }
}

/// Why bytes are no record of this connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum RecordError {
    /// A length or type that no record has.
    #[error("this is no TLS record")]
    Malformed,
    /// It has been changed on the way, or is not the next one.
    #[error("a TLS record failed authentication")]
    Forged,
    /// More records than its keys may seal.
    #[error("a TLS 1.2 connection has used its keys up")]
    Spent,
    /// Secrets that ring has no cipher for.
    #[error("no such TLS cipher")]
    Cipher,
}

/// The keys of one direction and the number of its next record.
pub(super) struct Keys {
    key: LessSafeKey,
    iv: [u8; 12],
    seq: u64,
    form: Form,
}

/// What records look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// TLS 1.3: the content's type is sealed.
    Tls13,
    /// TLS 1.2 with AES-GCM: a part of the nonce travels along.
    Tls12Gcm,
    /// TLS 1.2 with ChaCha20-Poly1305.
    Tls12Chacha,
}

impl Keys {
    /// Takes the secrets of a direction.
    ///
    /// # Errors
    /// [`RecordError::Cipher`].
    pub(super) fn new(
        (seq, secrets): (u64, ConnectionTrafficSecrets),
        tls13: bool,
    ) -> Result<Self, RecordError> {
        let (algorithm, key, iv): (&'static Algorithm, _, _) = match &secrets {
            ConnectionTrafficSecrets::Aes128Gcm { key, iv } => (&AES_128_GCM, key, iv),
            ConnectionTrafficSecrets::Aes256Gcm { key, iv } => (&AES_256_GCM, key, iv),
            ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => (&CHACHA20_POLY1305, key, iv),
            _ => return Err(RecordError::Cipher),
        };
        let form = match algorithm {
            _ if tls13 => Form::Tls13,
            algorithm if *algorithm == CHACHA20_POLY1305 => Form::Tls12Chacha,
            _ => Form::Tls12Gcm,
        };
        let key = key.as_ref().get(..algorithm.key_len()).ok_or(RecordError::Cipher)?;
        let key = UnboundKey::new(algorithm, key).map_err(|_| RecordError::Cipher)?;
        let iv = iv.as_ref().try_into().map_err(|_| RecordError::Cipher)?;
        Ok(Self { key: LessSafeKey::new(key), iv, seq, form })
    }

    /// Whether its version is 1.3.
    pub(super) const fn is_tls13(&self) -> bool {
        matches!(self.form, Form::Tls13)
    }

    /// Whether other keys should follow.
    pub(super) const fn is_worn(&self) -> bool {
        self.seq >= KEY_LIMIT
    }

    /// Goes on with another record's number.
    #[cfg(test)]
    pub(super) const fn skip_to(&mut self, seq: u64) {
        self.seq = seq;
    }

    /// How far behind the start of a record its payload begins.
    pub(super) const fn offset(&self) -> usize {
        match self.form {
            Form::Tls12Gcm => HEAD + 8,
            Form::Tls13 | Form::Tls12Chacha => HEAD,
        }
    }

    /// Seals the payload of `len` bytes that lies at [`Keys::offset`] in `out`; the record's length.
    ///
    /// # Errors
    /// [`RecordError::Spent`]; `Malformed` if `out` is too small, which is the caller's fault.
    pub(super) fn seal(
        &mut self,
        out: &mut [u8],
        len: usize,
        content: Content,
    ) -> Result<usize, RecordError> {
        if self.form != Form::Tls13 && self.seq >= KEY_LIMIT * 2 {
            return Err(RecordError::Spent);
        }
        let start = self.offset();
        let (nonce, aad_seq) = (self.nonce(), self.seq.to_be_bytes());
        let sealed = if self.form == Form::Tls13 { len + 1 } else { len };
        let total = start + sealed + TAG;
        let size = u16::try_from(total - HEAD).map_err(|_| RecordError::Malformed)?.to_be_bytes();
        let outer = if self.form == Form::Tls13 { Content::Data } else { content };
        let head = [outer.byte(), 3, 3, size[0], size[1]];
        let record = out.get_mut(..total).ok_or(RecordError::Malformed)?;
        let (front, body) = record.split_at_mut(start);
        let (body, tag_room) = body.split_at_mut(sealed);
        let (front_head, explicit) = front.split_at_mut(HEAD);
        front_head.copy_from_slice(&head);
        if self.form == Form::Tls13 {
            body[len] = content.byte();
        }
        explicit.copy_from_slice(nonce.get(4..4 + explicit.len()).ok_or(RecordError::Malformed)?);
        let nonce = Nonce::assume_unique_for_key(nonce);
        let tag = match self.form {
            Form::Tls13 => self.key.seal_in_place_separate_tag(nonce, Aad::from(head), body),
            _ => {
                let aad = aad12(aad_seq, content.byte(), len);
                self.key.seal_in_place_separate_tag(nonce, Aad::from(aad), body)
            }
        };
        tag_room.copy_from_slice(tag.map_err(|_| RecordError::Malformed)?.as_ref());
        self.seq += 1;
        Ok(total)
    }

    /// Opens the record at `record` of `bytes` and moves its payload down to `to`, which is at or before it; what it holds
    /// and how much of it.
    ///
    /// # Errors
    /// [`RecordError`].
    pub(super) fn open(
        &mut self,
        bytes: &mut [u8],
        record: Range<usize>,
        to: usize,
    ) -> Result<(Content, usize), RecordError> {
        let start = record.start + self.offset();
        let head: [u8; HEAD] = bytes
            .get(record.start..record.start + HEAD)
            .and_then(|head| head.try_into().ok())
            .ok_or(RecordError::Malformed)?;
        let sealed = record.end.checked_sub(start).filter(|len| *len >= TAG).ok_or(RecordError::Malformed)?;
        let mut nonce = self.nonce();
        if self.form == Form::Tls12Gcm {
            let explicit = bytes.get(record.start + HEAD..start).ok_or(RecordError::Malformed)?;
            nonce[4..].copy_from_slice(explicit);
        }
        let seq = self.seq.to_be_bytes();
        let outer = Content::from_byte(head[0]).ok_or(RecordError::Malformed)?;
        if self.form == Form::Tls13 && outer != Content::Data {
            return Err(RecordError::Malformed);
        }
        let room = bytes.get_mut(to..record.end).ok_or(RecordError::Malformed)?;
        let nonce = Nonce::assume_unique_for_key(nonce);
        let behind = start - to..;
        let opened = match self.form {
            Form::Tls13 => self.key.open_within(nonce, Aad::from(head), room, behind),
            _ => self.key.open_within(nonce, Aad::from(aad12(seq, head[0], sealed - TAG)), room, behind),
        };
        let payload = opened.map_err(|_| RecordError::Forged)?;
        self.seq += 1;
        let (content, len) = if self.form == Form::Tls13 {
            // Zeros may follow the type.
            let last = payload.iter().rposition(|byte| *byte != 0).ok_or(RecordError::Malformed)?;
            let content = payload.get(last).copied().and_then(Content::from_byte);
            (content.ok_or(RecordError::Malformed)?, last)
        } else {
            (outer, payload.len())
        };
        if len > MAX_PAYLOAD {
            return Err(RecordError::Malformed);
        }
        Ok((content, len))
    }

    fn nonce(&self) -> [u8; 12] {
        let mut nonce = self.iv;
        for (byte, seq) in nonce.iter_mut().skip(4).zip(self.seq.to_be_bytes()) {
            *byte ^= seq;
        }
        nonce
    }
}

/// What TLS 1.2 authenticates beside the payload.
fn aad12(seq: [u8; 8], content: u8, len: usize) -> [u8; 13] {
    let [high, low] = u16::try_from(len).unwrap_or(u16::MAX).to_be_bytes();
    let mut aad = [0; 13];
    aad[..8].copy_from_slice(&seq);
    aad[8..].copy_from_slice(&[content, 3, 3, high, low]);
    aad
}

/// The length of the record at the start of `bytes`; `None` if its header is not whole.
///
/// # Errors
/// [`RecordError::Malformed`] if no record is that long or of such a version.
pub(super) fn record_len(bytes: &[u8]) -> Result<Option<usize>, RecordError> {
    let Some(&[_, major, _, high, low]) = bytes.first_chunk::<HEAD>() else { return Ok(None) };
    let body = usize::from(u16::from_be_bytes([high, low]));
    if major != 3 || !(TAG..=MAX_BODY).contains(&body) {
        return Err(RecordError::Malformed);
    }
    Ok(Some(HEAD + body))
}

#[cfg(test)]
mod tests;
