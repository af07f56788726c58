//! Heads of HTTP/1.1: found in what comes from a stranger, within a bound, taken apart, and written.
//!
//! [`head`] works on bytes at hand; what is here moves them over a carrier.

mod head;

pub(crate) use head::{
    Fields, HeadError, MAX_HEAD, Request, Response, parse_request, parse_response, write_head,
};

use super::Carrier;
use head::head_end;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::task::{Context, Poll, ready};

/// How much a read asks for.
const PIECE: usize = 1024;

/// Reads until a head is whole. Returns it and what came behind it in the same read.
///
/// # Errors
/// `UnexpectedEof` if the carrier ends before, `InvalidData` with a [`HeadError`]; the carrier's own.
pub(crate) async fn read_head<C: Carrier>(carrier: &mut C) -> io::Result<(Vec<u8>, Vec<u8>)> {
    let mut head = Vec::new();
    let len = poll_fn(|cx| poll_head(cx, carrier, &mut head, b"", MAX_HEAD)).await?;
    let behind = head.split_off(len);
    Ok((head, behind))
}

/// Reads behind `bytes` until there is a head of at most `limit` bytes in front, which must begin with `start`. Returns
/// the head's length; what came behind it stays in `bytes`.
///
/// # Errors
/// As [`read_head`].
pub(crate) fn poll_head<C: Carrier>(
    cx: &mut Context<'_>,
    carrier: &mut C,
    bytes: &mut Vec<u8>,
    start: &[u8],
    limit: usize,
) -> Poll<io::Result<usize>> {
    loop {
        ready!(carrier.poll_read_ready(cx))?;
        let old = bytes.len();
        bytes.resize(old + PIECE, 0);
        let read = carrier.poll_read(cx, bytes.get_mut(old..).unwrap_or_default());
        bytes.truncate(old + if let Poll::Ready(Ok(n)) = read { n } else { 0 });
        if ready!(read)? == 0 {
            return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
        }
        match head_end(bytes, old, start, limit) {
            Ok(Some(len)) => return Poll::Ready(Ok(len)),
            Ok(None) => {}
            Err(error) => return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, error))),
        }
    }
}

/// Writes all of `data` and flushes it.
///
/// # Errors
/// The carrier's own.
pub(crate) async fn write_all<C: Carrier>(carrier: &mut C, mut data: &[u8]) -> io::Result<()> {
    while !data.is_empty() {
        let n = poll_fn(|cx| carrier.poll_write(cx, &[IoSlice::new(data)])).await?;
        data = data.get(n..).unwrap_or_default();
    }
    poll_fn(|cx| carrier.poll_flush(cx)).await
}
