//! A connection behind its handshake, as a carrier on a carrier.
//!
//! Records are opened in the reader's memory, whose payload moves down over the headers, and sealed in memory that the
//! shard's connections share: one copy up, none down. Of its own a connection holds only what a socket would not take yet,
//! the start of a record whose rest has not come, and payload for which the reader had no room.

use super::super::Carrier;
use super::super::carrier::forward_carrier;
use super::Scratch;
use super::handshake::{Kernel, Secrets};
use super::records::{Content, HEAD, Keys, MAX_PAYLOAD, MAX_RECORD, OVERHEAD, RecordError, record_len};
use super::words;
use rustls::{AlertDescription, ExtractedSecrets};
use std::io::{self, IoSlice};
use std::task::{Context, Poll, ready};

/// How many records one write makes before others have their turn.
const BATCH: usize = 4;
/// The most bytes of messages behind the handshake.
const MAX_MESSAGE: usize = 64 * 1024;

/// A TLS connection.
pub(in super::super) struct TlsCarrier<C> {
    below: C,
    tx: Keys,
    rx: Keys,
    kernel: Box<Kernel>,
    scratch: Scratch,
    /// Sealed bytes that `below` has not taken.
    unsent: Left,
    /// Whether they wait for the first payload, to leave with it.
    held: bool,
    /// The start of a record whose rest has not come.
    tail: Vec<u8>,
    /// Payload that no reader has had room for.
    plain: Left,
    /// The start of a message behind the handshake.
    message: Vec<u8>,
    end: End,
    closed: bool,
    /// Whether word of other keys waits among the sealed bytes.
    updating: bool,
}

/// How the peer's direction ended.
#[derive(Debug, Clone, PartialEq, Eq)]
enum End {
    Open,
    /// By close_notify.
    Proper,
    /// By an alert or a broken rule; in words.
    Failed(String),
}

/// Bytes of which some have gone.
#[derive(Default)]
struct Left {
    bytes: Vec<u8>,
    at: usize,
}

impl Left {
    fn new(bytes: Vec<u8>) -> Self {
        Self { bytes, at: 0 }
    }

    fn rest(&self) -> &[u8] {
        self.bytes.get(self.at..).unwrap_or_default()
    }

    fn is_empty(&self) -> bool {
        self.at >= self.bytes.len()
    }

    /// Takes `n` off; gives the memory back with the last one.
    fn advance(&mut self, n: usize) {
        self.at += n;
        if self.is_empty() {
            *self = Self::default();
        }
    }
}

impl<C> TlsCarrier<C> {
    /// Takes over from the handshake.
    ///
    /// # Errors
    /// [`RecordError::Cipher`].
    pub(super) fn new(
        below: C,
        kernel: Kernel,
        secrets: ExtractedSecrets,
        tls13: bool,
        scratch: Scratch,
    ) -> Result<Self, RecordError> {
        Ok(Self {
            below,
            tx: Keys::new(secrets.tx, tls13)?,
            rx: Keys::new(secrets.rx, tls13)?,
            kernel: Box::new(kernel),
            scratch,
            unsent: Left::default(),
            held: false,
            tail: Vec::new(),
            plain: Left::default(),
            message: Vec::new(),
            end: End::Open,
            closed: false,
            updating: false,
        })
    }

    /// Takes what was read behind the handshake: records, and payload that has been opened already.
    pub(super) fn begin_with(&mut self, mut records: Vec<u8>, early: Vec<u8>, ended: bool) {
        records.shrink_to_fit();
        self.tail = records;
        self.plain = Left::new(early);
        if ended {
            self.end = End::Proper;
        }
    }

    /// Keeps bytes for the first write.
    pub(super) fn hold_back(&mut self, bytes: Vec<u8>) {
        self.held = !bytes.is_empty();
        // An empty one may have room for a whole flight, which would stay as long as the connection.
        self.unsent = if self.held { Left::new(bytes) } else { Left::default() };
    }

    /// Seals a short message behind what waits to be sent.
    fn queue(&mut self, content: Content, message: &[u8]) -> Result<(), RecordError> {
        let (old, start) = (self.unsent.bytes.len(), self.tx.offset());
        self.unsent.bytes.resize(old + message.len() + OVERHEAD, 0);
        let record = self.unsent.bytes.get_mut(old..).unwrap_or_default();
        let room = record.get_mut(start..start + message.len()).ok_or(RecordError::Malformed)?;
        room.copy_from_slice(message);
        let len = self.tx.seal(record, message.len(), content)?;
        self.unsent.bytes.truncate(old + len);
        Ok(())
    }

    /// Tells the peer that we go on with other keys.
    fn update_tx(&mut self) -> io::Result<()> {
        // KeyUpdate, update_not_requested.
        self.queue(Content::Handshake, &[24, 0, 0, 1, 0]).map_err(invalid)?;
        let secrets: Secrets = self.kernel.update_tx().map_err(invalid)?;
        self.tx = Keys::new(secrets, true).map_err(invalid)?;
        Ok(())
    }

    /// Opens every whole record in `bytes`, whose payload moves to its start. Returns how much payload there is and how
    /// much has been used of `bytes`.
    fn open(&mut self, bytes: &mut [u8]) -> (usize, usize) {
        let (mut to, mut at) = (0, 0);
        while self.end == End::Open {
            let len = match record_len(bytes.get(at..).unwrap_or_default()) {
                Ok(Some(len)) if at + len <= bytes.len() => len,
                Ok(_) => break,
                Err(error) => {
                    self.fail(error);
                    break;
                }
            };
            match self.rx.open(bytes, at..at + len, to) {
                Ok((Content::Data, len)) => to += len,
                Ok((content, len)) => {
                    let message = bytes.get(to..to + len).unwrap_or_default();
                    self.heed(content, message);
                }
                Err(error) => self.fail(error),
            }
            at += len;
        }
        (to, at)
    }

    /// Gives the connection up, and tells the peer.
    fn fail(&mut self, error: RecordError) {
        self.end = End::Failed(error.to_string());
        let alert = if error == RecordError::Forged { 20 } else { 50 };
        // It is over either way.
        let _ = self.queue(Content::Alert, &[2, alert]);
    }

    /// Does what something else than payload asks for.
    fn heed(&mut self, content: Content, bytes: &[u8]) {
        if content == Content::Alert {
            match *bytes {
                [_, 0] => self.end = End::Proper,
                // user_canceled is followed by close_notify.
                [_, 90] => {}
                [1, 100] => {}
                [_, alert] => {
                    let name = words::name(AlertDescription::from(alert));
                    self.end = End::Failed(format!("the peer sent the TLS alert {name}"));
                }
                _ => self.fail(RecordError::Malformed),
            }
            return;
        }
        self.message.extend_from_slice(bytes);
        while let Some(&[kind, high, middle, low]) = self.message.first_chunk::<4>() {
            let len = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
            if len > MAX_MESSAGE {
                return self.fail(RecordError::Malformed);
            }
            if self.message.len() < 4 + len {
                return;
            }
            let rest = self.message.split_off(4 + len);
            let message = std::mem::replace(&mut self.message, rest);
            if let Err(error) = self.obey(kind, message.get(4..).unwrap_or_default()) {
                self.end = End::Failed(error.to_string());
                let _ = self.queue(Content::Alert, &[2, 10]);
                return;
            }
        }
        if self.message.is_empty() {
            self.message = Vec::new();
        }
    }

    /// Does what a message behind the handshake asks for.
    fn obey(&mut self, kind: u8, body: &[u8]) -> io::Result<()> {
        match (kind, body) {
            // A session ticket; one that cannot be used is none.
            (4, ticket) if self.rx.is_tls13() => drop(self.kernel.take_ticket(ticket)),
            (24, [asked @ (0 | 1)]) if self.rx.is_tls13() => {
                let secrets = self.kernel.update_rx().map_err(invalid)?;
                self.rx = Keys::new(secrets, true).map_err(invalid)?;
                // One answer stands for several (RFC 8446, 4.6.3): a peer that asks on and on and reads nothing must
                // not grow what waits for it.
                if *asked == 1 && !self.updating {
                    self.update_tx()?;
                    self.updating = true;
                }
            }
            // HelloRequest: we do not negotiate again, and TLS 1.2 lets us not answer.
            (0, []) if !self.rx.is_tls13() => {}
            _ => return Err(invalid("a TLS message out of turn")),
        }
        Ok(())
    }

    /// What a reader gets once there is no more payload.
    fn ended(&self) -> Option<io::Result<usize>> {
        match &self.end {
            End::Open => None,
            End::Proper => Some(Ok(0)),
            End::Failed(words) => Some(Err(invalid(words.clone()))),
        }
    }
}

fn invalid(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

impl<C: Carrier> TlsCarrier<C> {
    fn poll_unsent(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.unsent.is_empty() {
            let n = ready!(self.below.poll_write(cx, &[IoSlice::new(self.unsent.rest())]))?;
            self.unsent.advance(n);
        }
        self.held = false;
        self.updating = false;
        Poll::Ready(Ok(()))
    }

    /// Reads once behind what there is of a record, and opens what is whole: in `out` if any record fits there, else in the
    /// scratch memory.
    fn poll_open(&mut self, cx: &mut Context<'_>, out: &mut [u8]) -> Poll<io::Result<usize>> {
        if out.len() >= MAX_RECORD {
            return self.poll_open_in(cx, out);
        }
        let scratch = self.scratch.clone();
        scratch.lend(MAX_RECORD, |memory| {
            let room = memory.get_mut(..MAX_RECORD).unwrap_or_default();
            let n = ready!(self.poll_open_in(cx, room))?;
            let (now, later) = room.get(..n).unwrap_or_default().split_at(n.min(out.len()));
            if let Some(out) = out.get_mut(..now.len()) {
                out.copy_from_slice(now);
            }
            self.plain = Left::new(later.to_vec());
            Poll::Ready(Ok(now.len()))
        })
    }

    fn poll_open_in(&mut self, cx: &mut Context<'_>, room: &mut [u8]) -> Poll<io::Result<usize>> {
        let old = self.tail.len();
        let (front, behind) =
            room.split_at_mut_checked(old).ok_or_else(|| invalid(RecordError::Malformed))?;
        // What came with the handshake may be whole already.
        let whole = matches!(record_len(&self.tail), Ok(Some(len)) if len <= old);
        let n = if whole { 0 } else { ready!(self.below.poll_read(cx, behind))? };
        if n == 0 && !whole {
            return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
        }
        front.copy_from_slice(&self.tail);
        let bytes = room.get_mut(..old + n).unwrap_or_default();
        let (payload, used) = self.open(bytes);
        let rest = bytes.get(used..).unwrap_or_default();
        self.tail.clear();
        match rest {
            [] => self.tail = Vec::new(),
            _ if self.end != End::Open => {}
            rest => self.tail.extend_from_slice(rest),
        }
        Poll::Ready(Ok(payload))
    }

    /// Waits until a record can be sealed.
    fn poll_sealable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.held {
            ready!(self.poll_unsent(cx))?;
        }
        if self.closed {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        if self.tx.is_tls13() && self.tx.is_worn() {
            self.update_tx()?;
            ready!(self.poll_unsent(cx))?;
        }
        Poll::Ready(Ok(()))
    }

    /// Seals what `fill` puts into the scratch memory, and writes it. `fill` returns how much that is, and so does this,
    /// with whether everything has gone.
    fn poll_record(
        &mut self,
        cx: &mut Context<'_>,
        fill: impl FnOnce(&mut [u8]) -> usize,
    ) -> io::Result<(usize, bool)> {
        let scratch = self.scratch.clone();
        let start = self.tx.offset();
        scratch.lend(MAX_RECORD, |memory| {
            let room = memory.get_mut(start..start + MAX_PAYLOAD).unwrap_or_default();
            let len = fill(room);
            let total = self.tx.seal(memory, len, Content::Data).map_err(invalid)?;
            let record = memory.get(..total).unwrap_or_default();
            if self.held {
                self.held = false;
                self.unsent.bytes.extend_from_slice(record);
                return Ok((len, matches!(self.poll_unsent(cx)?, Poll::Ready(()))));
            }
            let written = match self.below.poll_write(cx, &[IoSlice::new(record)]) {
                Poll::Ready(written) => written?,
                Poll::Pending => 0,
            };
            if written < total {
                self.unsent = Left::new(record.get(written..).unwrap_or_default().to_vec());
            }
            Ok((len, written == total))
        })
    }
}

/// Copies what the slices hold from `at` on; how much it was.
fn gather(slices: &[IoSlice<'_>], mut at: usize, mut room: &mut [u8]) -> usize {
    let whole = room.len();
    for slice in slices {
        let Some(rest) = slice.get(at..) else {
            at -= slice.len();
            continue;
        };
        at = 0;
        let n = rest.len().min(room.len());
        let (now, later) = std::mem::take(&mut room).split_at_mut(n);
        now.copy_from_slice(rest.get(..n).unwrap_or_default());
        room = later;
        if room.is_empty() {
            break;
        }
    }
    whole - room.len()
}

impl<C: Carrier> Carrier for TlsCarrier<C> {
    fn poll_read_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let whole = matches!(record_len(&self.tail), Ok(Some(len)) if len <= self.tail.len());
        if whole || !self.plain.is_empty() || self.end != End::Open {
            return Poll::Ready(Ok(()));
        }
        self.below.poll_read_ready(cx)
    }

    fn poll_read(&mut self, cx: &mut Context<'_>, out: &mut [u8]) -> Poll<io::Result<usize>> {
        loop {
            if !self.plain.is_empty() {
                let n = self.plain.rest().len().min(out.len());
                if let (Some(out), Some(plain)) = (out.get_mut(..n), self.plain.rest().get(..n)) {
                    out.copy_from_slice(plain);
                }
                self.plain.advance(n);
                return Poll::Ready(Ok(n));
            }
            if !self.unsent.is_empty() && !self.held {
                // An alert or an update of keys, as far as it goes. A peer that takes no more may have answered before.
                if let Poll::Ready(Err(_)) = self.poll_unsent(cx) {
                    self.unsent = Left::default();
                }
            }
            if let Some(ended) = self.ended() {
                return Poll::Ready(ended);
            }
            if out.is_empty() {
                return Poll::Ready(Ok(0));
            }
            match ready!(self.poll_open(cx, out))? {
                0 => {}
                n => return Poll::Ready(Ok(n)),
            }
        }
    }

    fn poll_write_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.held {
            ready!(self.poll_unsent(cx))?;
        }
        self.below.poll_write_ready(cx)
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        ready!(self.poll_sealable(cx))?;
        let all: usize = slices.iter().map(|slice| slice.len()).sum();
        let mut taken = 0;
        for _ in 0..BATCH {
            if taken == all {
                break;
            }
            let (len, gone) = self.poll_record(cx, |room| gather(slices, taken, room))?;
            taken += len;
            if !gone {
                break;
            }
        }
        Poll::Ready(Ok(taken))
    }

    fn poll_write_made(
        &mut self,
        cx: &mut Context<'_>,
        len: usize,
        make: &mut dyn FnMut(&mut [u8]),
    ) -> Option<Poll<io::Result<usize>>> {
        match self.poll_sealable(cx) {
            Poll::Ready(Ok(())) => {}
            Poll::Ready(Err(error)) => return Some(Poll::Ready(Err(error))),
            Poll::Pending => return Some(Poll::Pending),
        }
        let sealed = self.poll_record(cx, |room| {
            let len = len.min(room.len());
            make(room.get_mut(..len).unwrap_or_default());
            len
        });
        Some(Poll::Ready(sealed.map(|(len, _)| len)))
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_unsent(cx))?;
        self.below.poll_flush(cx)
    }

    fn poll_drained(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        // What cannot be sent any more need not be waited for.
        let _ = ready!(self.poll_unsent(cx));
        self.below.poll_drained(cx)
    }

    /// Says close_notify. The socket stays as it is: a FIN would make some peers close both directions.
    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.closed {
            self.closed = true;
            self.queue(Content::Alert, &[1, 0]).map_err(invalid)?;
        }
        self.poll_flush(cx)
    }

    forward_carrier!(self, self.below; reset closed local_ip abort);
}

const _: () = assert!(HEAD == 5 && OVERHEAD <= MAX_RECORD - MAX_PAYLOAD);

#[cfg(test)]
mod tests;
