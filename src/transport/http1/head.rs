//! Heads as bytes at hand: where they end, what is in them, and how they are written. Pure.

/// The most bytes of a head.
pub(crate) const MAX_HEAD: usize = 8192;
/// The most fields of a head.
const MAX_FIELDS: usize = 64;

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
    /// The names, in their order, as they were sent.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(name, _)| name.as_str())
    }

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

/// The length of the head at the start of `bytes`, with the empty line that ends it; `None` if it is not whole. It must begin
/// with `start` and has at most `limit` bytes. The first `seen` bytes are known to hold no end.
///
/// # Errors
/// [`HeadError`].
pub(crate) fn head_end(
    bytes: &[u8],
    seen: usize,
    start: &[u8],
    limit: usize,
) -> Result<Option<usize>, HeadError> {
    if bytes.iter().zip(start).any(|(byte, expected)| byte != expected) {
        return Err(HeadError::Malformed);
    }
    // The end may lie across the border to what came before.
    let from = seen.saturating_sub(3);
    let end = bytes.get(from..).unwrap_or_default().windows(4).position(|window| window == b"\r\n\r\n");
    match end.map(|at| from + at + 4) {
        Some(len) if len <= limit => Ok(Some(len)),
        None if bytes.len() < limit => Ok(None),
        _ => Err(HeadError::TooLong),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_ends_at_its_empty_line_within_the_bound() {
        let head_len = |bytes: &[u8]| head_end(bytes, 0, b"", MAX_HEAD);
        assert_eq!(head_len(b"GET / HTTP/1.1\r\n\r\nrest"), Ok(Some(18)));
        assert_eq!(head_len(b"GET / HTTP/1.1\r\n\r"), Ok(None));
        assert_eq!(head_len(&[b'a'; MAX_HEAD]), Err(HeadError::TooLong));
        let mut late = vec![b'a'; MAX_HEAD];
        late.extend_from_slice(b"\r\n\r\n");
        assert_eq!(head_len(&late), Err(HeadError::TooLong));
        assert_eq!(head_end(b"GET /\r\n\r\n", 8, b"GE", 99), Ok(Some(9)), "across what was seen");
        assert_eq!(head_end(b"GET /", 0, b"HTTP", 99), Err(HeadError::Malformed));
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
