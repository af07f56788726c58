//! The receiving direction: payload found in a read's bytes, where they lie, and what control frames ask for.

use super::frame::{FrameError, Head, MAX_HEAD, Mask, Opcode};

/// Which end of a WebSocket we are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// Masks what it sends.
    Client,
    /// Does not.
    Server,
}

/// How the peer's direction ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// By a close frame that tells of no fault.
    Closed,
    /// By a close frame that does, or by something that is no frame of ours.
    Failed(FrameError),
}

/// What the next byte belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Head,
    Data,
    Control(Opcode),
}

/// Close codes that tell of no fault: done, going away, and none at all (RFC 6455, section 7.4).
const FAULTLESS: [u16; 3] = [1000, 1001, 1005];

/// Takes frames apart. Holds nothing but a head or a control frame that is not whole yet.
#[derive(Debug)]
pub(super) struct Deframer {
    role: Role,
    part: Part,
    head: [u8; MAX_HEAD],
    head_len: u8,
    /// Whether a message goes on in the next data frame.
    unfinished: bool,
    mask: Mask,
    /// How much of the frame's payload is still to come.
    left: usize,
    /// The payload of a control frame.
    control: Vec<u8>,
    ping: Option<Vec<u8>>,
    end: Option<End>,
}

impl Deframer {
    /// Nothing has come yet. `role` is ours.
    pub(super) const fn new(role: Role) -> Self {
        Self {
            role,
            part: Part::Head,
            head: [0; MAX_HEAD],
            head_len: 0,
            unfinished: false,
            mask: Mask::new([0; 4]),
            left: 0,
            control: Vec::new(),
            ping: None,
            end: None,
        }
    }

    /// Moves the payload in `wire`, unmasked, to its start, and returns how much it is. What comes behind the peer's end
    /// is ignored.
    pub(super) fn open(&mut self, wire: &mut [u8]) -> usize {
        let (mut at, mut payload) = (0, 0);
        while at < wire.len() && self.end.is_none() {
            let here = wire.get_mut(at..).unwrap_or_default();
            match self.part {
                Part::Head => at += self.take_head(here),
                Part::Data => {
                    let n = self.left.min(here.len());
                    self.mask.apply(here.get_mut(..n).unwrap_or_default());
                    if at > payload {
                        wire.copy_within(at..at + n, payload);
                    }
                    (at, payload) = (at + n, payload + n);
                    self.took(n);
                }
                Part::Control(opcode) => {
                    let n = self.left.min(here.len());
                    let piece = here.get_mut(..n).unwrap_or_default();
                    self.mask.apply(piece);
                    self.control.extend_from_slice(piece);
                    at += n;
                    self.took(n);
                    self.check_control(opcode);
                }
            }
        }
        payload
    }

    /// Takes the bytes of a head; returns how many.
    fn take_head(&mut self, wire: &[u8]) -> usize {
        for (index, byte) in wire.iter().enumerate() {
            let len = usize::from(self.head_len);
            if let Some(slot) = self.head.get_mut(len) {
                *slot = *byte;
                self.head_len += 1;
            }
            match Head::read(self.head.get(..=len).unwrap_or_default()) {
                Ok(None) => {}
                Ok(Some(head)) => {
                    self.head_len = 0;
                    self.begin(&head);
                    return index + 1;
                }
                Err(error) => {
                    self.end = Some(End::Failed(error));
                    return index + 1;
                }
            }
        }
        wire.len()
    }

    /// Begins a frame's payload.
    fn begin(&mut self, head: &Head) {
        let masked = self.role == Role::Server;
        let in_order = match head.opcode {
            Opcode::Continuation => self.unfinished,
            Opcode::Binary => !self.unfinished,
            _ => true,
        };
        if head.mask.is_some() != masked {
            self.end = Some(End::Failed(FrameError::WrongMask));
        } else if !in_order {
            self.end = Some(End::Failed(FrameError::OutOfOrder));
        }
        self.mask = Mask::new(head.mask.unwrap_or_default());
        self.left = usize::try_from(head.len).unwrap_or(usize::MAX);
        self.part = match head.opcode {
            Opcode::Continuation | Opcode::Binary => {
                self.unfinished = !head.last;
                Part::Data
            }
            control => Part::Control(control),
        };
        self.took(0);
        self.check_control(head.opcode);
    }

    /// Counts payload; behind the last of it comes a head.
    fn took(&mut self, n: usize) {
        self.left -= n;
        if self.left == 0 {
            self.part = Part::Head;
        }
    }

    /// Does what a control frame says, once it is whole.
    fn check_control(&mut self, opcode: Opcode) {
        if self.left > 0 || self.end.is_some() {
            return;
        }
        match opcode {
            Opcode::Continuation | Opcode::Binary => return,
            Opcode::Ping => self.ping = Some(std::mem::take(&mut self.control)),
            Opcode::Pong => {}
            Opcode::Close => {
                let code = self.control.first_chunk().map(|code| u16::from_be_bytes(*code));
                self.end = Some(match code.filter(|code| !FAULTLESS.contains(code)) {
                    Some(code) => End::Failed(FrameError::ClosedWith(code)),
                    None => End::Closed,
                });
            }
        }
        self.control = Vec::new();
    }

    /// The payload of the last ping that has not been answered.
    pub(super) const fn take_ping(&mut self) -> Option<Vec<u8>> {
        self.ping.take()
    }

    /// Whether there is a ping to be answered.
    pub(super) const fn has_ping(&self) -> bool {
        self.ping.is_some()
    }

    /// How the peer's direction ended, if it has.
    pub(super) const fn end(&self) -> Option<End> {
        self.end
    }

    /// Whether the carrier may end here: between two messages.
    pub(super) fn is_between_messages(&self) -> bool {
        self.part == Part::Head && self.head_len == 0 && !self.unfinished
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entropy::{Entropy, SeededEntropy};

    fn frame(first: u8, mask: Option<[u8; 4]>, payload: &[u8]) -> Vec<u8> {
        let head = Head::whole(Opcode::Binary, payload.len() as u64, mask);
        let mut out = [0; MAX_HEAD];
        let n = head.write(&mut out);
        out[0] = first;
        let mut wire = out[..n].to_vec();
        let mut payload = payload.to_vec();
        Mask::new(mask.unwrap_or_default()).apply(&mut payload);
        wire.extend(payload);
        wire
    }

    fn read(deframer: &mut Deframer, wire: &[u8], piece: usize) -> Vec<u8> {
        let mut got = Vec::new();
        for piece in wire.chunks(piece) {
            let mut piece = piece.to_vec();
            let n = deframer.open(&mut piece);
            got.extend_from_slice(&piece[..n]);
        }
        got
    }

    #[test]
    fn messages_fragments_and_control_frames_join_in_any_segmentation() {
        for (role, mask) in [(Role::Client, None), (Role::Server, Some([7, 0, 255, 3]))] {
            let long = vec![b'l'; 70_000];
            let wire = [
                frame(0x82, mask, b"one "),
                frame(0x82, mask, b""),
                frame(0x02, mask, b"two "),
                frame(0x89, mask, b"are you there"),
                frame(0x00, mask, b"three "),
                frame(0x8A, mask, b"unasked"),
                frame(0x80, mask, b"four "),
                frame(0x82, mask, &long),
                frame(0x88, mask, &[]),
                b"ignored".to_vec(),
            ]
            .concat();
            let expected = [b"one two three four ".to_vec(), long].concat();
            for piece in (1..20).chain([100, 4096, 70_050, wire.len()]) {
                let mut deframer = Deframer::new(role);
                assert!(read(&mut deframer, &wire, piece) == expected, "{role:?} {piece}");
                assert_eq!(deframer.take_ping().as_deref(), Some(&b"are you there"[..]));
                assert_eq!((deframer.end(), deframer.take_ping()), (Some(End::Closed), None));
            }
        }
    }

    #[test]
    fn what_came_before_a_fault_is_kept() {
        let fine = frame(0x82, None, b"fine");
        for (wire, error) in [
            (frame(0x81, None, b"text"), FrameError::Text),
            (frame(0x80, None, b"lost"), FrameError::OutOfOrder),
            (frame(0x82, Some([1; 4]), b"mask"), FrameError::WrongMask),
            ([frame(0x02, None, b""), frame(0x82, None, b"")].concat(), FrameError::OutOfOrder),
            (frame(0x88, None, &[3, 0xEA]), FrameError::ClosedWith(1002)),
            (frame(0x88, None, b"\x03\xF3why"), FrameError::ClosedWith(1011)),
        ] {
            let mut deframer = Deframer::new(Role::Client);
            assert_eq!(read(&mut deframer, &[fine.clone(), wire].concat(), 1000), b"fine");
            assert_eq!(deframer.end(), Some(End::Failed(error)));
        }
        let mut server = Deframer::new(Role::Server);
        assert_eq!(read(&mut server, &fine, 1000), b"");
        assert_eq!(server.end(), Some(End::Failed(FrameError::WrongMask)));
    }

    #[test]
    fn close_codes_without_a_fault_are_an_end() {
        for payload in [&[][..], &[1], &[3, 0xE8], &[3, 0xE9, b'x'], &[3, 0xED]] {
            let mut deframer = Deframer::new(Role::Client);
            read(&mut deframer, &frame(0x88, None, payload), 1);
            assert_eq!(deframer.end(), Some(End::Closed), "{payload:?}");
        }
    }

    #[test]
    fn a_carrier_may_end_between_messages_alone() {
        let wire = [frame(0x82, None, b"a"), frame(0x02, None, b"b"), frame(0x80, None, b"c")].concat();
        let whole: Vec<usize> = (0..=wire.len())
            .filter(|cut| {
                let mut deframer = Deframer::new(Role::Client);
                read(&mut deframer, &wire[..*cut], 100);
                deframer.is_between_messages()
            })
            .collect();
        assert_eq!(whole, [0, 3, 9]);
    }

    #[test]
    fn garbage_ends_in_an_error_or_a_frame_and_never_panics() {
        let mut entropy = SeededEntropy::new(11);
        for round in 0..20_000_u32 {
            let role = if round % 2 == 0 { Role::Client } else { Role::Server };
            let mut wire = vec![0; entropy.below(60) as usize];
            entropy.fill(&mut wire);
            if let Some(first) = wire.first_mut().filter(|_| round % 3 > 0) {
                *first = [0x82, 0x02, 0x89, 0x88][entropy.below(4) as usize];
            }
            let piece = 1 + entropy.below(60) as usize;
            let (mut split, mut whole) = (Deframer::new(role), Deframer::new(role));
            assert_eq!(read(&mut split, &wire, piece), read(&mut whole, &wire, 1000));
            assert_eq!(split.end(), whole.end());
            assert!(whole.control.len() <= 125 && whole.ping.as_ref().is_none_or(|ping| ping.len() <= 125));
        }
    }
}
