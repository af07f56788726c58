//! WebSocket frames on the wire (RFC 6455, section 5): their heads, and the mask of a client's payload.

/// The most bytes of a frame's head.
pub(super) const MAX_HEAD: usize = 14;
/// The most payload of a control frame.
pub(super) const MAX_CONTROL: usize = 125;
/// The most payload of a frame that is taken: far above any peer's, so that a length made of garbage is found out.
pub(super) const MAX_FRAME: u64 = 1 << 24;

/// The bit of the first byte that ends a message.
const FIN: u8 = 0x80;
/// The bits of the first byte that belong to extensions, of which we ask for none.
const RESERVED: u8 = 0x70;
/// The bit of the second byte that says that the payload is masked.
const MASKED: u8 = 0x80;

/// What is wrong with a peer's frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FrameError {
    /// A bit of an extension is set.
    #[error("a WebSocket frame of an extension that was not agreed on")]
    Extension,
    /// A type that RFC 6455 does not know.
    #[error("a WebSocket frame of an unknown type")]
    UnknownType,
    /// A text frame.
    #[error("a WebSocket text frame")]
    Text,
    /// More payload than a frame may have.
    #[error("a WebSocket frame that is too long")]
    TooLong,
    /// A control frame with too much payload, or in pieces.
    #[error("a WebSocket control frame that is too long or in pieces")]
    BadControl,
    /// A client's frame without a mask, or a server's with one.
    #[error("a WebSocket frame masked as only the other side's are")]
    WrongMask,
    /// A continuation of nothing, or a message inside another one.
    #[error("a WebSocket frame out of its order")]
    OutOfOrder,
    /// The peer gave up, with this code.
    #[error("the peer ended the WebSocket with code {0}")]
    ClosedWith(u16),
}

impl FrameError {
    /// The same words, without the number.
    pub(crate) const fn words(self) -> &'static str {
        match self {
            Self::Extension => "a WebSocket frame of an extension that was not agreed on",
            Self::UnknownType => "a WebSocket frame of an unknown type",
            Self::Text => "a WebSocket text frame",
            Self::TooLong => "a WebSocket frame that is too long",
            Self::BadControl => "a WebSocket control frame that is too long or in pieces",
            Self::WrongMask => "a WebSocket frame masked as only the other side's are",
            Self::OutOfOrder => "a WebSocket frame out of its order",
            Self::ClosedWith(_) => "the peer gave the WebSocket up",
        }
    }
}

/// The type of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Opcode {
    /// More of the message before.
    Continuation,
    /// A binary message.
    Binary,
    /// The end of the peer's direction.
    Close,
    /// To be answered.
    Ping,
    /// The answer.
    Pong,
}

impl Opcode {
    const fn is_control(self) -> bool {
        matches!(self, Self::Close | Self::Ping | Self::Pong)
    }

    const fn code(self) -> u8 {
        match self {
            Self::Continuation => 0,
            Self::Binary => 2,
            Self::Close => 8,
            Self::Ping => 9,
            Self::Pong => 10,
        }
    }
}

/// The head of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    /// Whether the frame ends its message.
    pub(super) last: bool,
    /// The type.
    pub(super) opcode: Opcode,
    /// The key that the payload is masked with.
    pub(super) mask: Option<[u8; 4]>,
    /// How long the payload is.
    pub(super) len: u64,
}

impl Head {
    /// A whole message, or a control frame, of `len` bytes.
    pub(super) const fn whole(opcode: Opcode, len: u64, mask: Option<[u8; 4]>) -> Self {
        Self { last: true, opcode, mask, len }
    }

    /// Reads the head at the start of `bytes`, which hold no more than it; `None` if it is not whole.
    ///
    /// # Errors
    /// [`FrameError`] as soon as the bytes show it.
    pub(super) fn read(bytes: &[u8]) -> Result<Option<Self>, FrameError> {
        let [first, second, rest @ ..] = bytes else { return Ok(None) };
        if first & RESERVED != 0 {
            return Err(FrameError::Extension);
        }
        let (last, masked) = (first & FIN != 0, second & MASKED != 0);
        let opcode = match first & 0x0F {
            0 => Opcode::Continuation,
            1 => return Err(FrameError::Text),
            2 => Opcode::Binary,
            8 => Opcode::Close,
            9 => Opcode::Ping,
            10 => Opcode::Pong,
            _ => return Err(FrameError::UnknownType),
        };
        let short = second & !MASKED;
        if opcode.is_control() && (!last || usize::from(short) > MAX_CONTROL) {
            return Err(FrameError::BadControl);
        }
        let (len, rest) = match short {
            126 => match rest.split_first_chunk() {
                Some((len, rest)) => (u16::from_be_bytes(*len).into(), rest),
                None => return Ok(None),
            },
            127 => match rest.split_first_chunk() {
                Some((len, rest)) => (u64::from_be_bytes(*len), rest),
                None => return Ok(None),
            },
            short => (short.into(), rest),
        };
        if len > MAX_FRAME {
            return Err(FrameError::TooLong);
        }
        let mask = match (masked, rest.first_chunk()) {
            (false, _) => None,
            (true, Some(key)) => Some(*key),
            (true, None) => return Ok(None),
        };
        Ok(Some(Self { last, opcode, mask, len }))
    }

    /// Writes the head to the start of `out` and returns its length.
    pub(super) fn write(&self, out: &mut [u8; MAX_HEAD]) -> usize {
        let [first, second, long @ ..] = out;
        let masked = if self.mask.is_some() { MASKED } else { 0 };
        *first = self.opcode.code() | if self.last { FIN } else { 0 };
        let (short, wide) = match self.len {
            len @ 0..126 => (len as u8, 0),
            len @ 126..0x1_0000 => {
                long[..2].copy_from_slice(&(len as u16).to_be_bytes());
                (126, 2)
            }
            len => {
                long[..8].copy_from_slice(&len.to_be_bytes());
                (127, 8)
            }
        };
        *second = masked | short;
        let Some(key) = self.mask else { return 2 + wide };
        long[wide..wide + 4].copy_from_slice(&key);
        2 + wide + 4
    }
}

/// The mask of a frame's payload, turned to the byte that comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Mask([u8; 4]);

impl Mask {
    /// The mask of a payload's first byte on.
    pub(super) const fn new(key: [u8; 4]) -> Self {
        Self(key)
    }

    /// The key eight bytes wide.
    const fn wide(self) -> u64 {
        let [a, b, c, d] = self.0;
        u64::from_ne_bytes([a, b, c, d, a, b, c, d])
    }

    /// Turns on by `n` bytes.
    pub(super) const fn skip(&mut self, n: usize) {
        let [a, b, c, d] = self.0;
        self.0 = match n % 4 {
            0 => [a, b, c, d],
            1 => [b, c, d, a],
            2 => [c, d, a, b],
            _ => [d, a, b, c],
        };
    }

    /// Masks or unmasks the next bytes where they lie.
    pub(super) fn apply(&mut self, data: &mut [u8]) {
        if self.0 == [0; 4] {
            return;
        }
        let wide = self.wide();
        let (words, rest) = data.as_chunks_mut::<8>();
        for word in words {
            *word = (u64::from_ne_bytes(*word) ^ wide).to_ne_bytes();
        }
        for (byte, key) in rest.iter_mut().zip(self.0.iter().cycle()) {
            *byte ^= key;
        }
        self.skip(rest.len());
    }

    /// Masks the next bytes of `from` on their way to `to`, as many as both have; returns how many.
    pub(super) fn copy(&mut self, from: &[u8], to: &mut [u8]) -> usize {
        let wide = self.wide();
        let n = from.len().min(to.len());
        let (from, from_rest) = from.get(..n).unwrap_or_default().as_chunks::<8>();
        let (to, to_rest) = to.get_mut(..n).unwrap_or_default().as_chunks_mut::<8>();
        for (to, from) in to.iter_mut().zip(from) {
            *to = (u64::from_ne_bytes(*from) ^ wide).to_ne_bytes();
        }
        for ((to, from), key) in to_rest.iter_mut().zip(from_rest).zip(self.0.iter().cycle()) {
            *to = from ^ key;
        }
        self.skip(from_rest.len());
        n
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_of_every_size_come_back() {
        for len in [0, 1, 125, 126, 127, 255, 256, 65_535, 65_536, MAX_FRAME] {
            for mask in [None, Some([1, 2, 3, 4])] {
                for last in [true, false] {
                    let head = Head { last, opcode: Opcode::Binary, mask, len };
                    let mut out = [0; MAX_HEAD];
                    let n = head.write(&mut out);
                    assert_eq!(Head::read(&out[..n]), Ok(Some(head)));
                    (0..n).for_each(|cut| assert_eq!(Head::read(&out[..cut]), Ok(None), "{len} {cut}"));
                }
            }
        }
    }

    #[test]
    fn what_the_rfc_shows_is_read() {
        let hello = Head::read(&[0x82, 0x85, 0x37, 0xfa, 0x21, 0x3d]).expect("fine").expect("whole");
        let mut payload = [0x7f, 0x9f, 0x4d, 0x51, 0x58];
        Mask::new(hello.mask.expect("masked")).apply(&mut payload);
        assert_eq!((hello.len, &payload), (5, b"Hello"));
        let long = Head::read(&[0x82, 0x7F, 0, 0, 0, 0, 0, 1, 0, 0]).expect("fine").expect("whole");
        assert_eq!(long.len, 65_536);
    }

    #[test]
    fn what_is_no_frame_of_ours_is_told_at_once() {
        for (bytes, error) in [
            (&[0xC2, 0][..], FrameError::Extension),
            (&[0x81, 5], FrameError::Text),
            (&[0x83, 0], FrameError::UnknownType),
            (&[0x8B, 0], FrameError::UnknownType),
            (&[0x09, 0], FrameError::BadControl),
            (&[0x89, 126], FrameError::BadControl),
            (&[0x88, 0xFF], FrameError::BadControl),
            (&[0x82, 127, 0, 0, 0, 0, 1, 0, 0, 1], FrameError::TooLong),
            (&[0x82, 127, 0x80, 0, 0, 0, 0, 0, 0, 0], FrameError::TooLong),
        ] {
            assert_eq!(Head::read(bytes), Err(error), "{bytes:x?}");
        }
    }

    #[test]
    fn the_mask_is_its_own_inverse_in_any_pieces() {
        let data: Vec<u8> = (0..100).collect();
        let plain = |i: usize| [9, 8, 7, 6][i % 4];
        let expected: Vec<u8> = data.iter().enumerate().map(|(i, byte)| byte ^ plain(i)).collect();
        for cut in 0..=data.len() {
            let (mut mask, mut applied) = (Mask::new([9, 8, 7, 6]), data.clone());
            let (first, second) = applied.split_at_mut(cut);
            mask.apply(first);
            mask.apply(second);
            assert_eq!(applied, expected);
            let (mut mask, mut copied) = (Mask::new([9, 8, 7, 6]), vec![0; data.len()]);
            assert_eq!(mask.copy(&data[..cut], &mut copied), cut);
            assert_eq!(mask.copy(&data[cut..], &mut copied[cut..]), data.len() - cut);
            assert_eq!(copied, expected);
        }
        assert_eq!(Mask::new([1; 4]).copy(&[1, 2, 3], &mut [0; 2]), 2);
    }
}
