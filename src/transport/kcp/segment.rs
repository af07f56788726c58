//! What datagrams carry: segments of one conversation, one behind the other. The forms are V2Ray's mKCP.
//!
//! Every segment begins with the conversation's number (`u16`), its kind and a byte of options; all numbers are big-endian.

/// Bytes of a data segment before its payload.
pub(super) const DATA_OVERHEAD: usize = 18;
/// Bytes of an acknowledgement before its numbers.
pub(super) const ACK_OVERHEAD: usize = 17;
/// The most numbers of one acknowledgement.
pub(super) const MAX_ACKS: usize = 128;
/// Bytes of a command.
pub(super) const COMMAND_LEN: usize = 16;

const ACK: u8 = 0;
const DATA: u8 = 1;
const TERMINATE: u8 = 2;
const PING: u8 = 3;
/// The option of a sender that has closed the conversation and still sends what it has.
const CLOSING: u8 = 1;

/// One segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Segment<'a> {
    /// Which of the conversations between two addresses.
    pub(super) conversation: u16,
    /// Whether its sender has closed the conversation.
    pub(super) is_closing: bool,
    /// What it says.
    pub(super) body: Body<'a>,
}

/// What a segment says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Body<'a> {
    /// Payload.
    Data {
        /// When it was sent, in milliseconds of its sender's.
        timestamp: u32,
        /// Its place; the first one's is 0.
        number: u32,
        /// The first number that its sender knows of no acknowledgement for.
        sending_next: u32,
        /// The bytes.
        payload: &'a [u8],
    },
    /// What has come.
    Ack {
        /// The first number that is not taken yet.
        receiving_window: u32,
        /// The first number that has not come; all before it have.
        receiving_next: u32,
        /// The timestamp of the latest segment among those that are acknowledged.
        timestamp: u32,
        /// Those that have come, as they are on the wire.
        numbers: &'a [[u8; 4]],
    },
    /// A sign of life, or the end.
    Command {
        /// Whether it is the end.
        terminates: bool,
        /// As in data.
        sending_next: u32,
        /// As in an acknowledgement.
        receiving_next: u32,
        /// After how many milliseconds its sender sends anew what has not been acknowledged.
        resend_after: u32,
    },
}

impl<'a> Segment<'a> {
    /// Takes the first segment off `bytes`; `None` at the end, and where what follows is no whole segment.
    pub(super) fn read(bytes: &mut &'a [u8]) -> Option<Self> {
        let mut rest = *bytes;
        let conversation = u16::from_be_bytes(take(&mut rest)?);
        let [kind, options] = take(&mut rest)?;
        let mut number = || take(&mut rest).map(u32::from_be_bytes);
        let body = match kind {
            DATA => {
                let (timestamp, place, sending_next) = (number()?, number()?, number()?);
                let len = usize::from(u16::from_be_bytes(take(&mut rest)?));
                let (payload, behind) = rest.split_at_checked(len)?;
                rest = behind;
                Body::Data { timestamp, number: place, sending_next, payload }
            }
            ACK => {
                let (receiving_window, receiving_next, timestamp) = (number()?, number()?, number()?);
                let [count] = take(&mut rest)?;
                let (numbers, behind) = rest.split_at_checked(usize::from(count) * 4)?;
                rest = behind;
                let (numbers, _) = numbers.as_chunks();
                Body::Ack { receiving_window, receiving_next, timestamp, numbers }
            }
            TERMINATE | PING => {
                let (sending_next, receiving_next, resend_after) = (number()?, number()?, number()?);
                Body::Command { terminates: kind == TERMINATE, sending_next, receiving_next, resend_after }
            }
            _ => return None,
        };
        *bytes = rest;
        Some(Self { conversation, is_closing: options & CLOSING != 0, body })
    }

    /// Appends it. Payloads above 65,535 bytes and more than 255 numbers do not fit, and are cut.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        out.extend(self.conversation.to_be_bytes());
        let kind = match self.body {
            Body::Data { .. } => DATA,
            Body::Ack { .. } => ACK,
            Body::Command { terminates: true, .. } => TERMINATE,
            Body::Command { .. } => PING,
        };
        out.extend([kind, u8::from(self.is_closing) * CLOSING]);
        let mut numbers = |numbers: [u32; 3]| numbers.iter().for_each(|n| out.extend(n.to_be_bytes()));
        match self.body {
            Body::Data { timestamp, number, sending_next, payload } => {
                numbers([timestamp, number, sending_next]);
                let len = u16::try_from(payload.len()).unwrap_or(u16::MAX);
                out.extend(len.to_be_bytes());
                out.extend(&payload[..usize::from(len)]);
            }
            Body::Ack { receiving_window, receiving_next, timestamp, numbers: acked } => {
                numbers([receiving_window, receiving_next, timestamp]);
                let count = u8::try_from(acked.len()).unwrap_or(u8::MAX);
                out.push(count);
                out.extend(acked[..usize::from(count)].as_flattened());
            }
            Body::Command { sending_next, receiving_next, resend_after, .. } => {
                numbers([sending_next, receiving_next, resend_after]);
            }
        }
    }
}

/// Takes the first `N` bytes off.
fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (head, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(*head)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(segment: Segment<'_>) -> Vec<u8> {
        let mut out = Vec::new();
        segment.write(&mut out);
        out
    }

    fn samples() -> [Segment<'static>; 4] {
        const NUMBERS: &[[u8; 4]] = &[[0, 0, 0, 1], [0, 0, 1, 0]];
        let bodies = [
            Body::Data { timestamp: 1000, number: 7, sending_next: 5, payload: b"abc" },
            Body::Ack { receiving_window: 800, receiving_next: 6, timestamp: 9, numbers: NUMBERS },
            Body::Command { terminates: true, sending_next: 1, receiving_next: 2, resend_after: 3 },
            Body::Command { terminates: false, sending_next: 1, receiving_next: 2, resend_after: 3 },
        ];
        bodies.map(|body| Segment { conversation: 0x1234, is_closing: false, body })
    }

    #[test]
    fn a_data_segment_is_as_v2ray_writes_it() {
        let body = Body::Data { timestamp: 1000, number: 0, sending_next: 0, payload: b"abc" };
        let wire = written(Segment { conversation: 0x1234, is_closing: false, body });
        assert_eq!(wire.len(), DATA_OVERHEAD + 3);
        assert_eq!(wire[..8], [0x12, 0x34, 1, 0, 0, 0, 3, 0xE8]);
        assert_eq!(wire[8..], [0, 0, 0, 0, 0, 0, 0, 0, 0, 3, b'a', b'b', b'c']);
    }

    #[test]
    fn segments_are_read_one_behind_the_other_and_never_cut() {
        let mut wire = Vec::new();
        let closing = samples().map(|segment| Segment { is_closing: true, ..segment });
        samples().iter().chain(&closing).for_each(|segment| segment.write(&mut wire));
        let mut rest = &wire[..];
        for segment in samples().iter().chain(&closing) {
            assert_eq!(Segment::read(&mut rest), Some(*segment));
        }
        assert_eq!(Segment::read(&mut rest), None);
        for segment in samples() {
            let wire = written(segment);
            for len in 0..wire.len() {
                let (mut cut, before) = (&wire[..len], &wire[..len]);
                assert_eq!(Segment::read(&mut cut), None);
                assert_eq!(cut, before, "nothing is taken off");
            }
        }
        assert_eq!(
            Segment::read(&mut &[0, 1, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0][..]),
            None,
            "no such kind"
        );
    }
}
