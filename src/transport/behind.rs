//! A carrier of which some bytes have been read already.

use super::Carrier;
use super::carrier::forward_carrier;
use std::io::{self, IoSliceMut};
use std::task::{Context, Poll};

/// A carrier that gives back first what was read of it beyond its opening: what came behind an HTTP head, a PROXY
/// header, or inside an upgrade.
pub(crate) struct Behind<C> {
    carrier: C,
    early: Vec<u8>,
    /// How much of `early` has been given back.
    taken: usize,
}

impl<C> Behind<C> {
    /// Puts `early` in front of what the carrier reads.
    pub(crate) const fn new(carrier: C, early: Vec<u8>) -> Self {
        Self { carrier, early, taken: 0 }
    }

    /// Puts bytes that were read of this carrier back in front of it; there are none in front of it now.
    pub(crate) fn put_back(&mut self, early: Vec<u8>) {
        (self.early, self.taken) = (early, 0);
    }

    /// Moves what was read early to `out`.
    fn take(&mut self, out: &mut [u8]) -> usize {
        let left = self.early.get(self.taken..).unwrap_or_default();
        let n = left.len().min(out.len());
        if let (Some(out), Some(left)) = (out.get_mut(..n), left.get(..n)) {
            out.copy_from_slice(left);
        }
        self.taken += n;
        if self.taken >= self.early.len() {
            (self.early, self.taken) = (Vec::new(), 0);
        }
        n
    }
}

impl<C: Carrier> Carrier for Behind<C> {
    fn poll_read_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.early.is_empty() { self.carrier.poll_read_ready(cx) } else { Poll::Ready(Ok(())) }
    }

    fn poll_read(&mut self, cx: &mut Context<'_>, out: &mut [u8]) -> Poll<io::Result<usize>> {
        if self.early.is_empty() { self.carrier.poll_read(cx, out) } else { Poll::Ready(Ok(self.take(out))) }
    }

    fn poll_read_vectored(
        &mut self,
        cx: &mut Context<'_>,
        out: &mut [IoSliceMut<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.early.is_empty() {
            return self.carrier.poll_read_vectored(cx, out);
        }
        let mut n = 0;
        for slice in out {
            n += self.take(slice);
        }
        Poll::Ready(Ok(n))
    }

    forward_carrier!(self, self.carrier; poll_write_ready poll_write poll_write_made poll_flush poll_drained poll_close reset closed local_ip abort);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::testing::{Script, noop_context};

    #[test]
    fn early_bytes_come_first_and_once() {
        let (carrier, script) = Script::carrier();
        script.borrow_mut().feed(b"later");
        let mut behind = Behind::new(carrier, b"early".to_vec());
        let mut out = [0; 3];
        let mut got = Vec::new();
        while behind.poll_read_ready(&mut noop_context()).is_ready() {
            let Poll::Ready(Ok(n)) = behind.poll_read(&mut noop_context(), &mut out) else {
                panic!("nothing")
            };
            got.extend_from_slice(&out[..n]);
        }
        assert_eq!((got.as_slice(), behind.early.capacity()), (&b"earlylater"[..], 0));
    }
}
