//! Reads frames from a byte stream that may be cut anywhere.

use super::frame::{Frame, FrameError, MAX_META, MIN_META};

/// Takes a carrier's bytes in any pieces and finds the frames. Holds at most one frame's head.
#[derive(Debug, Default)]
pub struct Deframer {
    head: Vec<u8>,
    /// Data of the present frame that has not come yet.
    left: usize,
}

/// What a piece of input began with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// How many bytes of the input are done with.
    pub consumed: usize,
    /// What was found; `None`: everything was consumed and more must come.
    pub item: Option<Item>,
}

/// What a carrier's bytes are made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    /// A frame's head; as much data as it says follows in [`Item::Data`].
    Frame(Frame),
    /// A piece of its data: the last so many of the bytes consumed.
    Data {
        /// Bytes.
        len: usize,
        /// Whether the frame's data is complete with it.
        last: bool,
    },
}

impl Deframer {
    /// Looks at the start of `input`. To be called with what was not consumed until nothing is left; an input that is
    /// empty yields nothing.
    ///
    /// # Errors
    /// [`FrameError`]; the carrier cannot be read on.
    pub fn next(&mut self, input: &[u8]) -> Result<Step, FrameError> {
        if self.left > 0 {
            let len = self.left.min(input.len());
            self.left -= len;
            let item = (len > 0).then_some(Item::Data { len, last: self.left == 0 });
            return Ok(Step { consumed: len, item });
        }
        let mut consumed = 0;
        loop {
            let need = self.need()?;
            let missing = need.saturating_sub(self.head.len());
            if missing == 0 {
                return Ok(Step { consumed, item: Some(Item::Frame(self.frame()?)) });
            }
            let rest = input.get(consumed..).unwrap_or_default();
            let taken = rest.get(..missing).unwrap_or(rest);
            self.head.extend_from_slice(taken);
            consumed += taken.len();
            if taken.len() < missing {
                return Ok(Step { consumed, item: None });
            }
        }
    }

    /// Whether nothing of a frame is pending: the carrier may end here.
    pub const fn at_boundary(&self) -> bool {
        self.head.is_empty() && self.left == 0
    }

    /// Bytes of the head as far as it is known; once they are there, more may turn out to be needed.
    fn need(&self) -> Result<usize, FrameError> {
        let Some(len) = self.head.first_chunk::<2>() else { return Ok(2) };
        let len = usize::from(u16::from_be_bytes(*len));
        if !(MIN_META..=MAX_META).contains(&len) {
            return Err(FrameError::Length(len));
        }
        let has_data = self.head.get(5).is_some_and(|option| option & 1 != 0);
        Ok(2 + len + if has_data { 2 } else { 0 })
    }

    /// The frame of a whole head.
    fn frame(&mut self) -> Result<Frame, FrameError> {
        let len = self.head.first_chunk().map_or(0, |len| usize::from(u16::from_be_bytes(*len)));
        let (meta, data) = self.head.get(2..).and_then(|rest| rest.split_at_checked(len)).unwrap_or_default();
        let mut frame = Frame::decode(meta)?;
        frame.data = data.first_chunk().map(|len| u16::from_be_bytes(*len));
        self.left = usize::from(frame.data.unwrap_or(0));
        self.head.clear();
        Ok(frame)
    }
}
