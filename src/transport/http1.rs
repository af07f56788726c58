//! Heads of HTTP/1.1: found in what comes from a stranger, within a bound, taken apart, and written.
//!
//! Everything here works on bytes at hand; [`read_head`] and [`write_all`] alone touch a carrier.

use super::Carrier;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::task::{Context, Poll, ready};

/// The most bytes of a head.
pub(crate) const MAX_HEAD: usize = 8192;
/// The most fields of a head.
const MAX_FIELDS: usize = 64;
/// How much a read asks for.
const PIECE: usize = 1024;

/// Why bytes are no head.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum HeadError {
    /// It has no end within the bound.
    #[error("an HTTP head that does not end")]
    TooLong,
    /// It is no HTTP.
    #[error("this is no HTTP")]
    Malformed,
}

/// The head of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Request {
    /// The method.
    pub(crate) method: String,
    /// The target: path and query as they were sent.
    pub(crate) target: String,
    /// The fields.
    pub(crate) fields: Fields,
}

/// The head of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Response {
    /// The status.
    pub(crate) status: u16,
    /// The reason; may be empty.
    pub(crate) reason: String,
    /// The fields.
    pub(crate) fields: Fields,
}

/// Fields of a head, in their order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Fields(Vec<(String, String)>);

impl Fields {
    /// The value of the first field of this name, in any case.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// Whether a field of this name lists the word, in any case.
    pub(crate) fn lists(&self, name: &str, word: &str) -> bool {
        let values = self.0.iter().filter(|(field, _)| field.eq_ignore_ascii_case(name));
        values.flat_map(|(_, value)| value.split(',')).any(|value| value.trim().eq_ignore_ascii_case(word))
    }
}

/// The length of the head at the start of `bytes`, with the empty line that ends it; `None` if it is not whole.
///
/// # Errors
/// [`HeadError::TooLong`] if there is no end within the bound.
pub(crate) fn head_len(bytes: &[u8]) -> Result<Option<usize>, HeadError> {
    let within = bytes.get(..MAX_HEAD).unwrap_or(bytes);
    match within.windows(4).position(|window| window == b"\r\n\r\n") {
        Some(at) => Ok(Some(at + 4)),
        None if bytes.len() >= MAX_HEAD => Err(HeadError::TooLong),
        None => Ok(None),
    }
}

/// Takes the head of a request apart.
///
/// # Errors
/// [`HeadError::Malformed`].
pub(crate) fn parse_request(head: &[u8]) -> Result<Request, HeadError> {
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut request = httparse::Request::new(&mut fields);
    if !request.parse(head).is_ok_and(|parsed| parsed.is_complete()) {
        return Err(HeadError::Malformed);
    }
    let (Some(method), Some(target)) = (request.method, request.path) else {
        return Err(HeadError::Malformed);
    };
    Ok(Request { method: method.to_owned(), target: target.to_owned(), fields: owned(request.headers) })
}

/// Takes the head of an answer apart.
///
/// # Errors
/// [`HeadError::Malformed`].
pub(crate) fn parse_response(head: &[u8]) -> Result<Response, HeadError> {
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut response = httparse::Response::new(&mut fields);
    if !response.parse(head).is_ok_and(|parsed| parsed.is_complete()) {
        return Err(HeadError::Malformed);
    }
    let Some(status) = response.code else { return Err(HeadError::Malformed) };
    let reason = response.reason.unwrap_or_default().to_owned();
    Ok(Response { status, reason, fields: owned(response.headers) })
}

fn owned(fields: &[httparse::Header<'_>]) -> Fields {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    Fields(fields.iter().map(|field| (field.name.to_owned(), text(field.value))).collect())
}

/// Writes a head: its first line, then its fields.
pub(crate) fn write_head<'a>(first: &str, fields: impl IntoIterator<Item = (&'a str, &'a str)>) -> Vec<u8> {
    let mut head = format!("{first}\r\n");
    for (name, value) in fields {
        head.push_str(name);
        head.push_str(": ");
        head.push_str(value);
        head.push_str("\r\n");
    }
    head.push_str("\r\n");
    head.into_bytes()
}

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
        if bytes.iter().zip(start).any(|(byte, expected)| byte != expected) {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, HeadError::Malformed)));
        }
        // The end may lie across the border to what came before.
        let from = old.saturating_sub(3);
        let end = bytes.get(from..).unwrap_or_default().windows(4).position(|window| window == b"\r\n\r\n");
        match end.map(|at| from + at + 4) {
            Some(len) if len <= limit => return Poll::Ready(Ok(len)),
            None if bytes.len() < limit => {}
            _ => return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, HeadError::TooLong))),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_ends_at_its_empty_line_within_the_bound() {
        assert_eq!(head_len(b"GET / HTTP/1.1\r\n\r\nrest"), Ok(Some(18)));
        assert_eq!(head_len(b"GET / HTTP/1.1\r\n\r"), Ok(None));
        assert_eq!(head_len(&[b'a'; MAX_HEAD]), Err(HeadError::TooLong));
        let mut late = vec![b'a'; MAX_HEAD];
        late.extend_from_slice(b"\r\n\r\n");
        assert_eq!(head_len(&late), Err(HeadError::TooLong));
    }

    #[test]
    fn heads_are_taken_apart() {
        let head = write_head("GET /a?b HTTP/1.1", [("Host", "h"), ("Connection", "keep-alive, Upgrade")]);
        let request = parse_request(&head).expect("whole");
        assert_eq!((request.method.as_str(), request.target.as_str()), ("GET", "/a?b"));
        assert_eq!(request.fields.get("hOST"), Some("h"));
        assert!(request.fields.lists("connection", "upgrade") && !request.fields.lists("connection", "up"));
        let response = parse_response(b"HTTP/1.1 101 Switching Protocols\r\nA: b\r\n\r\n").expect("whole");
        assert_eq!((response.status, response.reason.as_str()), (101, "Switching Protocols"));
        for garbage in [&b"\r\n\r\n"[..], b"SSH-2.0-x\r\n\r\n", b"GET /\r\n\r\n", &[0xFF; 40]] {
            assert_eq!(parse_request(garbage), Err(HeadError::Malformed));
            assert_eq!(parse_response(garbage).err(), Some(HeadError::Malformed));
        }
    }
}
