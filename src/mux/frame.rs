//! Frames: `u16 metaLen || meta || [u16 dataLen || data]`, the data part exactly when the meta says so.

use super::xudp::GlobalId;
use crate::addr::{Network, Target};
use crate::vmess::address::{self, Input};

/// Bytes of the shortest meta: id, status, option.
pub const MIN_META: usize = 4;
/// Bytes of the longest meta. Whoever sends a longer one is dropped.
pub const MAX_META: usize = 512;
/// The most data of a stream that we put into a frame; V2Ray cuts there too.
pub const MAX_STREAM_DATA: usize = 8192;
/// The most data of a datagram that we put into a frame: V2Ray drops a carrier on which more comes.
pub const MAX_DATAGRAM_DATA: usize = 2048;
/// The same for a peer that speaks XUDP, which V2Ray does not: Xray reads so much.
pub const MAX_XUDP_DATA: usize = 8192;
/// Bytes of the longest frame that we write, data aside.
pub const MAX_HEAD: usize = 2 + MIN_META + 1 + 2 + 2 + 255 + GlobalId::LEN + 2;

const DATA: u8 = 0x01;
const ERROR: u8 = 0x02;
const TCP: u8 = 1;
const UDP: u8 = 2;

/// What a frame is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// A new session.
    New,
    /// More of a session.
    Keep,
    /// The end of a session, both ways.
    End,
    /// Nothing; keeps something on the way awake.
    KeepAlive,
}

/// Why a carrier cannot be read on. Its end is the only answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// The meta is shorter or longer than one can be.
    #[error("a mux frame's meta is {0} bytes long")]
    Length(usize),
    /// The meta ends before what it should hold, or names an unknown address type.
    #[error("a mux frame's meta is malformed")]
    Malformed,
    /// The status is none of those known.
    #[error("a mux frame's status is {0}")]
    Status(u8),
    /// A session is opened that is open.
    #[error("a mux session is opened twice")]
    Reopened,
}

/// What opens a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opening {
    /// Whether it carries a stream or datagrams.
    pub network: Network,
    /// Where it goes; `None`: to a name that is none.
    pub target: Option<Target>,
    /// What the sender calls its local source, if it does.
    pub global_id: Option<GlobalId>,
}

/// A frame without its data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// The session's number.
    pub id: u16,
    /// What it is for.
    pub status: Status,
    /// The error bit.
    pub error: bool,
    /// Of a `New`: what it opens.
    pub opening: Option<Opening>,
    /// Of a `Keep`: the address that its datagram goes to or comes from, if it names one.
    pub remote: Option<Target>,
    /// How much data follows; `None` if no data part does.
    pub data: Option<u16>,
}

impl Frame {
    /// A frame that opens a session.
    pub const fn new(id: u16, opening: Opening, data: Option<u16>) -> Self {
        Self { id, status: Status::New, error: false, opening: Some(opening), remote: None, data }
    }

    /// A frame of a session's data.
    pub const fn keep(id: u16, remote: Option<Target>, data: u16) -> Self {
        Self { id, status: Status::Keep, error: false, opening: None, remote, data: Some(data) }
    }

    /// A frame that ends a session.
    pub const fn end(id: u16, error: bool) -> Self {
        Self { id, status: Status::End, error, opening: None, remote: None, data: None }
    }

    /// Appends everything but the data, at most [`MAX_HEAD`] bytes.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&[0; 2]);
        out.extend_from_slice(&self.id.to_be_bytes());
        out.push(match self.status {
            Status::New => 1,
            Status::Keep => 2,
            Status::End => 3,
            Status::KeepAlive => 4,
        });
        let data = if self.data.is_some() { DATA } else { 0 };
        let error = if self.error { ERROR } else { 0 };
        out.push(data | error);
        if let Some(Opening { network, target: Some(target), global_id }) = &self.opening {
            out.push(if *network == Network::Tcp { TCP } else { UDP });
            address::encode(target, out);
            out.extend_from_slice(global_id.as_ref().map_or(&[], |id| &id.0));
        } else if let Some(remote) = &self.remote {
            out.push(UDP);
            address::encode(remote, out);
        }
        let len = (out.len() - start - 2) as u16;
        if let Some(place) = out.get_mut(start..start + 2) {
            place.copy_from_slice(&len.to_be_bytes());
        }
        if let Some(data) = self.data {
            out.extend_from_slice(&data.to_be_bytes());
        }
    }

    /// Reads a meta. The length of the data comes behind it and is set by whoever reads that; here it is 0 if there is a
    /// data part. What follows the known fields is padding.
    ///
    /// # Errors
    /// [`FrameError::Malformed`] and [`FrameError::Status`].
    pub fn decode(meta: &[u8]) -> Result<Self, FrameError> {
        let mut input = Input(meta);
        let id = u16::from_be_bytes(input.take().ok_or(FrameError::Malformed)?);
        let [status, option] = input.take().ok_or(FrameError::Malformed)?;
        let data = (option & DATA != 0).then_some(0);
        let mut frame =
            Self { id, status: Status::Keep, error: option & ERROR != 0, opening: None, remote: None, data };
        match status {
            1 => {
                frame.status = Status::New;
                frame.opening = Some(opening(input, data.is_some()).ok_or(FrameError::Malformed)?);
            }
            2 => {
                if let Some([UDP]) = input.take() {
                    frame.remote = input.target().map_err(|_| FrameError::Malformed)?;
                }
            }
            3 => frame.status = Status::End,
            4 => frame.status = Status::KeepAlive,
            status => return Err(FrameError::Status(status)),
        }
        Ok(frame)
    }
}

/// What opens a session: network, address, and behind that, if there is data too, who asks.
fn opening(mut input: Input<'_>, has_data: bool) -> Option<Opening> {
    let network = match input.take()? {
        [TCP] => Network::Tcp,
        [UDP] => Network::Udp,
        _ => return None,
    };
    let target = input.target().ok()?;
    let named = network == Network::Udp && has_data;
    let global_id = input.take().filter(|id| named && *id != [0; GlobalId::LEN]).map(GlobalId);
    Some(Opening { network, target, global_id })
}
