//! The sending direction: frames around the caller's bytes, which are never kept.
//!
//! A frame is begun with a promise of how long it will be, from what the caller has at hand. A server's payload goes down
//! to the carrier where it lies, behind the frame's head. A client's is masked on its way into the carrier's own memory, where
//! that is TLS, or else into memory that is borrowed for the length of the call; what the carrier did not take is masked anew when the caller offers it again, as it does with what was not
//! written. So a blocked connection holds nothing here.

use super::super::Carrier;
use super::super::queue::class_for;
use super::deframe::Role;
use super::frame::{Head, MAX_HEAD, Mask, Opcode};
use crate::buffer::{Class, Pool};
use crate::engine::Shard;
use std::io::{self, IoSlice};
use std::task::{Context, Poll, ready};

/// The most payload of a frame that we send.
const MAX_PAYLOAD: usize = 65_536;
/// The most slices of payload that one write takes.
const MAX_SLICES: usize = 63;
/// How much is masked at a time when the pool has no memory.
const SPARE: usize = 1024;

/// The frame under way.
#[derive(Debug)]
pub(super) struct Framer {
    role: Role,
    head: [u8; MAX_HEAD],
    /// Which bytes of `head` have not gone.
    head_left: (u8, u8),
    mask: Mask,
    /// How much of the promised payload has not gone.
    left: usize,
    /// Whether the carrier took less than it was offered the last time.
    slow: bool,
}

impl Framer {
    /// Nothing has been sent. `role` is ours.
    pub(super) const fn new(role: Role) -> Self {
        Self { role, head: [0; MAX_HEAD], head_left: (0, 0), mask: Mask::new([0; 4]), left: 0, slow: false }
    }

    /// Whether payload that was promised is missing.
    pub(super) const fn is_inside(&self) -> bool {
        self.left > 0
    }

    /// Writes a prefix of `slices` as frames, and returns its length.
    pub(super) fn poll_write<C: Carrier>(
        &mut self,
        cx: &mut Context<'_>,
        carrier: &mut C,
        slices: &[IoSlice<'_>],
        shard: &Shard,
    ) -> Poll<io::Result<usize>> {
        if self.left == 0 {
            let offered: usize = slices.iter().take(MAX_SLICES).map(|slice| slice.len()).sum();
            if offered == 0 {
                return Poll::Ready(Ok(0));
            }
            self.begin(offered.min(MAX_PAYLOAD), shard);
        }
        loop {
            let of_head = self.head().len();
            let n = match self.role {
                Role::Client => ready!(self.write_masked(cx, carrier, slices, &shard.pool))?,
                Role::Server => ready!(self.write_bare(cx, carrier, slices))?,
            };
            self.head_left.0 += n.min(of_head) as u8;
            let payload = n.saturating_sub(of_head);
            self.left -= payload;
            self.mask.skip(payload);
            if n == 0 || payload > 0 {
                return Poll::Ready(Ok(payload));
            }
        }
    }

    /// Begins a frame.
    fn begin(&mut self, len: usize, shard: &Shard) {
        let key = (self.role == Role::Client).then(|| mask_key(shard));
        let n = Head::whole(Opcode::Binary, len as u64, key).write(&mut self.head);
        self.head_left = (0, n as u8);
        self.mask = Mask::new(key.unwrap_or_default());
        self.left = len;
    }

    fn head(&self) -> &[u8] {
        self.head.get(self.head_left.0.into()..self.head_left.1.into()).unwrap_or_default()
    }

    /// Writes what is left of the head and of the payload, as far as `slices` have it.
    fn write_bare<C: Carrier>(
        &self,
        cx: &mut Context<'_>,
        carrier: &mut C,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut all = [IoSlice::new(&[]); MAX_SLICES + 1];
        let mut count = 0;
        for (slot, piece) in all.iter_mut().zip(self.pieces(slices)) {
            *slot = IoSlice::new(piece);
            count += 1;
        }
        carrier.poll_write(cx, all.get(..count).unwrap_or_default())
    }

    /// The head and the payload that belongs to this frame.
    fn pieces<'a>(&'a self, slices: &'a [IoSlice<'_>]) -> impl Iterator<Item = &'a [u8]> {
        let mut left = self.left;
        let payload = slices.iter().map(move |slice| {
            let piece = slice.get(..left).unwrap_or(slice);
            left -= piece.len();
            piece
        });
        std::iter::once(self.head()).chain(payload).filter(|piece| !piece.is_empty())
    }

    /// Does the same with the payload masked.
    fn write_masked<C: Carrier>(
        &mut self,
        cx: &mut Context<'_>,
        carrier: &mut C,
        slices: &[IoSlice<'_>],
        pool: &Pool,
    ) -> Poll<io::Result<usize>> {
        let offered: usize = self.pieces(slices).map(<[u8]>::len).sum();
        let mut mask_into = |room: &mut [u8]| {
            self.mask_into(slices, room);
        };
        if let Some(written) = carrier.poll_write_made(cx, offered, &mut mask_into) {
            return written;
        }
        // A carrier that took less than it was offered is about to block, and masking much for nothing costs.
        let most = if self.slow { Class::Record } else { Class::Large };
        let mut borrowed = pool.take(class_for(offered).min(most)).or_else(|| pool.take(Class::Small));
        let mut spare = [0; SPARE];
        let out = borrowed.as_mut().map_or(spare.as_mut_slice(), |buffer| buffer.spare_mut());
        let len = self.mask_into(slices, out);
        let written = carrier.poll_write(cx, &[IoSlice::new(out.get(..len).unwrap_or_default())]);
        self.slow = !matches!(&written, Poll::Ready(Ok(n)) if *n == len);
        written
    }

    /// Writes the head and the masked payload to `out`, as far as they fit.
    fn mask_into(&self, slices: &[IoSlice<'_>], out: &mut [u8]) -> usize {
        let mut mask = self.mask;
        let head = self.head().len();
        let mut len = 0;
        for (index, piece) in self.pieces(slices).enumerate() {
            let room = out.get_mut(len..).unwrap_or_default();
            if index == 0 && head > 0 {
                // Memory for less than a head is never borrowed.
                room.get_mut(..head).unwrap_or_default().copy_from_slice(piece);
                len += head;
            } else {
                len += mask.copy(piece, room);
            }
        }
        len
    }
}

/// A fresh key, which nobody who supplies payload can foresee.
pub(super) fn mask_key(shard: &Shard) -> [u8; 4] {
    shard.with_entropy(|entropy| entropy.next_u32()).to_ne_bytes()
}
