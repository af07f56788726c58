//! The messages of gRPC that payload lies in: `u8 0, u32 length`, then a protobuf message whose field 1 is payload.
//!
//! `Hunk { bytes data = 1 }` and Xray's `MultiHunk { repeated bytes data = 1 }` look the same here. The reader takes any
//! number of fields and passes over those that it does not know; it keeps nothing but where it is. The writer makes one
//! field a message and never an empty one: some peers read nothing else.

/// The most bytes of a message. Peers take 4 MiB themselves.
pub const MAX_MESSAGE: usize = 16 << 20;
/// The most bytes that [`begin`] writes for up to 2 MiB of payload.
pub const PREFIX: usize = 9;
/// The most bytes of a varint.
const MAX_VARINT: u32 = 10;
/// Field 1, a string of bytes.
const DATA: u8 = 0x0A;

/// Why bytes are no messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HunkError {
    /// The message is compressed, which nobody has agreed on.
    #[error("it is compressed")]
    Compressed,
    /// The message is longer than [`MAX_MESSAGE`].
    #[error("it is too long")]
    TooLong,
    /// A number has more than ten bytes.
    #[error("a number has no end")]
    EndlessNumber,
    /// A field's number is 0.
    #[error("a field has no number")]
    Unnumbered,
    /// A field's type is none of protobuf's that are in use.
    #[error("a field of unknown type")]
    UnknownType,
    /// A field is longer than what is left of its message.
    #[error("a field is longer than its message")]
    Overlong,
    /// The message ends inside a field.
    #[error("it ends inside a field")]
    Cut,
}

/// What comes next in a stream's bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// So many bytes are no payload.
    pub skip: usize,
    /// So many bytes behind them are payload.
    pub payload: usize,
}

/// Reads messages, in any segmentation.
#[derive(Debug, Default)]
pub struct Hunks {
    state: State,
    /// What is left of the message.
    left: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// In the five bytes before a message, of which so many have come.
    Prefix { have: usize, length: u32 },
    /// In a field's number and type.
    Tag(Varint),
    /// In a number that means nothing to us.
    Number(Varint),
    /// In the length of a field; whether it is payload.
    Length(Varint, bool),
    /// In a field of which so much is left; whether it is payload.
    Field(usize, bool),
}

impl Default for State {
    fn default() -> Self {
        Self::Prefix { have: 0, length: 0 }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Varint {
    value: u64,
    count: u32,
}

impl Varint {
    /// Takes another byte; the value once it is whole.
    fn push(&mut self, byte: u8) -> Result<Option<u64>, HunkError> {
        if self.count >= MAX_VARINT {
            return Err(HunkError::EndlessNumber);
        }
        let bits = u64::from(byte & 0x7F);
        self.value |= bits.checked_shl(self.count.saturating_mul(7)).unwrap_or(0);
        self.count += 1;
        Ok((byte & 0x80 == 0).then_some(self.value))
    }
}

impl Hunks {
    /// Takes apart the start of `wire` as far as the end of the first payload in it; both counts are 0 only of nothing. It
    /// must not be shown again what it has spoken of.
    ///
    /// # Errors
    /// [`HunkError`], after which it is not to be asked again.
    pub fn step(&mut self, wire: &[u8]) -> Result<Step, HunkError> {
        let mut skip = 0;
        while let Some(rest) = wire.get(skip..).filter(|rest| !rest.is_empty()) {
            let State::Field(length, payload) = self.state else {
                self.push(rest.first().copied().unwrap_or_default())?;
                skip += 1;
                continue;
            };
            let n = length.min(rest.len());
            self.left = self.left.saturating_sub(n);
            self.state = match length - n {
                0 => State::Tag(Varint::default()),
                length => State::Field(length, payload),
            };
            self.check_left()?;
            if payload {
                return Ok(Step { skip, payload: n });
            }
            skip += n;
        }
        Ok(Step { skip, payload: 0 })
    }

    /// Whether a stream may end here: between two messages.
    pub fn at_boundary(&self) -> bool {
        self.state == State::default()
    }

    /// Takes one byte that is no part of a field's content.
    fn push(&mut self, byte: u8) -> Result<(), HunkError> {
        if let State::Prefix { have, length } = self.state {
            if have == 0 && byte != 0 {
                return Err(HunkError::Compressed);
            }
            let length = length << 8 | u32::from(byte);
            self.state = State::Prefix { have: have + 1, length };
            if have == 4 {
                self.left = usize::try_from(length).unwrap_or(usize::MAX);
                if self.left > MAX_MESSAGE {
                    return Err(HunkError::TooLong);
                }
                self.state = if self.left == 0 { State::default() } else { State::Tag(Varint::default()) };
            }
            return Ok(());
        }
        self.left = self.left.saturating_sub(1);
        match &mut self.state {
            State::Tag(varint) => {
                if let Some(tag) = varint.push(byte)? {
                    self.state = self.field(tag)?;
                }
            }
            State::Number(varint) => {
                if varint.push(byte)?.is_some() {
                    self.state = State::Tag(Varint::default());
                }
            }
            State::Length(varint, payload) => {
                let payload = *payload;
                if let Some(length) = varint.push(byte)? {
                    let length = usize::try_from(length).unwrap_or(usize::MAX);
                    self.state = self.content(length, payload)?;
                }
            }
            State::Prefix { .. } | State::Field(..) => {}
        }
        self.check_left()
    }

    /// What follows a field's number and type.
    fn field(&self, tag: u64) -> Result<State, HunkError> {
        match (tag >> 3, tag & 7) {
            (0, _) => Err(HunkError::Unnumbered),
            (_, 0) => Ok(State::Number(Varint::default())),
            (_, 1) => self.content(8, false),
            (number, 2) => Ok(State::Length(Varint::default(), number == 1)),
            (_, 5) => self.content(4, false),
            _ => Err(HunkError::UnknownType),
        }
    }

    /// A field's content of so many bytes.
    fn content(&self, length: usize, payload: bool) -> Result<State, HunkError> {
        match length {
            length if length > self.left => Err(HunkError::Overlong),
            0 => Ok(State::Tag(Varint::default())),
            length => Ok(State::Field(length, payload)),
        }
    }

    /// The next message begins where this one ends, and that is between two fields.
    fn check_left(&mut self) -> Result<(), HunkError> {
        match self.state {
            _ if self.left > 0 => Ok(()),
            State::Tag(Varint { count: 0, .. }) => {
                self.state = State::default();
                Ok(())
            }
            _ => Err(HunkError::Cut),
        }
    }
}

/// Begins a message of `len` bytes of payload, which are to follow.
///
/// # Panics
/// If they are 4 GiB or more.
pub fn begin(out: &mut Vec<u8>, len: usize) {
    let len = u32::try_from(len).expect("a piece is far shorter than 4 GiB");
    let mut varint = [0; 5];
    let mut count = 0;
    let mut rest = len;
    for slot in &mut varint {
        count += 1;
        *slot = (rest & 0x7F) as u8;
        rest >>= 7;
        if rest == 0 {
            break;
        }
        *slot |= 0x80;
    }
    let message = len.saturating_add(1).saturating_add(count);
    out.push(0);
    out.extend_from_slice(&message.to_be_bytes());
    out.push(DATA);
    out.extend(varint.iter().take(usize::try_from(count).unwrap_or(0)));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entropy::{Entropy, SeededEntropy};

    /// All payload in `wire`, given in pieces of `cut` bytes.
    fn read(wire: &[u8], cut: usize) -> Result<(Vec<u8>, Hunks), HunkError> {
        let (mut hunks, mut got) = (Hunks::default(), Vec::new());
        for mut piece in wire.chunks(cut) {
            while !piece.is_empty() {
                let step = hunks.step(piece)?;
                assert!(step.skip + step.payload > 0 && step.skip + step.payload <= piece.len());
                got.extend_from_slice(&piece[step.skip..step.skip + step.payload]);
                piece = &piece[step.skip + step.payload..];
            }
        }
        Ok((got, hunks))
    }

    fn message(body: &[u8]) -> Vec<u8> {
        let mut wire = vec![0];
        wire.extend_from_slice(&u32::try_from(body.len()).expect("short").to_be_bytes());
        wire.extend_from_slice(body);
        wire
    }

    fn hunk(payload: &[u8]) -> Vec<u8> {
        let mut wire = Vec::new();
        begin(&mut wire, payload.len());
        wire.extend_from_slice(payload);
        wire
    }

    #[test]
    fn the_writer_makes_exactly_one_shape() {
        assert_eq!(hunk(b"abc"), *b"\x00\x00\x00\x00\x05\x0a\x03abc");
        assert_eq!(hunk(&[7; 127])[..7], *b"\x00\x00\x00\x00\x81\x0a\x7f");
        assert_eq!(hunk(&[7; 300])[..8], *b"\x00\x00\x00\x01\x2f\x0a\xac\x02");
        assert_eq!(hunk(&[7; 16_384]).len(), 16_384 + PREFIX);
        assert_eq!(hunk(&[7; 65_536])[..9], *b"\x00\x00\x01\x00\x04\x0a\x80\x80\x04");
    }

    #[test]
    fn the_reader_takes_any_fields_in_any_segmentation() {
        let mut wire = hunk(b"one");
        wire.extend(message(b""));
        // An unknown number, two unknown fixed ones, an unknown string, two data fields, an empty one.
        wire.extend(message(
            b"\x10\x96\x01\x1912345678\x251234\x9a\x06\x02xx\x0a\x03two\x0a\x00\x0a\x05three",
        ));
        wire.extend(message(b"\x0a\x00"));
        wire.extend(hunk(&[9; 300]));
        let expected = [&b"onetwothree"[..], &[9; 300]].concat();
        for cut in 1..=wire.len() {
            let (got, hunks) = read(&wire, cut).expect("fine");
            assert!(got == expected && hunks.at_boundary(), "{cut}");
        }
    }

    #[test]
    fn an_end_inside_a_message_is_a_truncation() {
        let wire = hunk(b"payload");
        for len in 1..wire.len() {
            let (_, hunks) = read(&wire[..len], 3).expect("fine so far");
            assert!(!hunks.at_boundary(), "{len}");
        }
    }

    #[test]
    fn what_is_no_message_is_refused() {
        use HunkError::*;
        for (wire, error) in [
            (b"\x01\x00\x00\x00\x03\x0a\x01x".to_vec(), Compressed),
            (b"\x00\xff\xff\xff\xff".to_vec(), TooLong),
            (b"\x00\x01\x00\x00\x01".to_vec(), TooLong),
            (message(b"\x0a\x05four"), Overlong),
            (message(b"\x0a"), Cut),
            (message(b"\x08"), Cut),
            (message(b"\x19123"), Overlong),
            (message(b"\x02\x01x"), Unnumbered),
            (message(b"\x0b\x0c"), UnknownType),
            (message(b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01x"), Overlong),
            (message(b"\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01"), EndlessNumber),
        ] {
            for cut in [1, 2, 100] {
                assert_eq!(read(&wire, cut).err(), Some(error), "{wire:?}");
            }
        }
        assert!(read(&[&b"\x00\x01\x00\x00\x00"[..], b"\x0a"].concat(), 9).is_ok(), "the bound itself");
    }

    #[test]
    fn garbage_never_makes_more_of_itself() {
        let mut entropy = SeededEntropy::new(5);
        for _ in 0..20_000 {
            let mut wire = vec![0; entropy.below(60) as usize];
            entropy.fill(&mut wire);
            // Most of it gets past the prefix.
            for byte in wire.iter_mut().take(4) {
                *byte = 0;
            }
            let cut = 1 + entropy.below(20) as usize;
            if let Ok((got, hunks)) = read(&wire, cut) {
                assert!(got.len() <= wire.len() && hunks.left <= MAX_MESSAGE);
            }
        }
    }
}
