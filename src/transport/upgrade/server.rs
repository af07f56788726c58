//! The server's end of an upgrade: what it asks of a request, and how it turns others away.

use super::super::Carrier;
use super::super::accept::{AcceptError, send_away};
use super::super::behind::Behind;
use super::super::http1::{self, HeadError, Request};
use super::is_upgrade;
use percent_encoding::percent_decode_str;
use std::future::poll_fn;
use std::io;

/// The most bytes of a request's head: early data makes it long.
const MAX_REQUEST: usize = 16_384;

/// Why a request is turned away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    /// It is for another path.
    #[error("a request for another path")]
    Path,
    /// It is for another host.
    #[error("a request for another host")]
    Host,
    /// It asks for no upgrade.
    #[error("a request without an upgrade")]
    NoUpgrade,
    /// It asks for another version of WebSocket.
    #[error("a request for another version of WebSocket")]
    Version,
    /// It is no request.
    #[error("{0}")]
    NoHead(HeadError),
}

impl Refusal {
    /// The answer, as web servers give it.
    const fn answer(self) -> &'static str {
        match self {
            Self::Path | Self::Host => "404 Not Found",
            Self::NoUpgrade | Self::NoHead(HeadError::Malformed) => "400 Bad Request",
            Self::Version => "426 Upgrade Required\r\nSec-WebSocket-Version: 13",
            Self::NoHead(HeadError::TooLong) => "431 Request Header Fields Too Large",
        }
    }
}

/// Reads a request that asks for an upgrade; what came behind it is put back in front of the carrier. `takes` judges
/// the path, as it was sent: with its query. A `host` is the only one that is taken.
///
/// # Errors
/// `InvalidData` with a [`Refusal`], which has been sent; the carrier's own.
pub(crate) async fn read_request<C: Carrier>(
    carrier: &mut Behind<C>,
    host: Option<&str>,
    takes: impl FnOnce(&str) -> bool,
) -> io::Result<Request> {
    let mut head = Vec::new();
    let read = poll_fn(|cx| http1::poll_head(cx, carrier, &mut head, b"", MAX_REQUEST)).await;
    let no_head = |error: &io::Error| Some(Refusal::NoHead(*error.get_ref()?.downcast_ref()?));
    let checked = match read {
        Ok(len) => {
            carrier.put_back(head.split_off(len));
            check(&head, host, takes)
        }
        Err(error) => Err(no_head(&error).ok_or(error)?),
    };
    match checked {
        Ok(request) => Ok(request),
        Err(refusal) => Err(refuse(carrier, refusal).await),
    }
}

fn check(head: &[u8], host: Option<&str>, takes: impl FnOnce(&str) -> bool) -> Result<Request, Refusal> {
    let request = http1::parse_request(head).map_err(Refusal::NoHead)?;
    if !takes(&request.target) {
        return Err(Refusal::Path);
    }
    if host.is_some_and(|host| !is_host(request.fields.get("Host").unwrap_or_default(), host)) {
        return Err(Refusal::Host);
    }
    if request.method != "GET" || !is_upgrade(&request.fields) {
        return Err(Refusal::NoUpgrade);
    }
    Ok(request)
}

/// Whether the host that a request names is `ours`, whatever its port.
fn is_host(named: &str, ours: &str) -> bool {
    let bare = match named.rsplit_once(':') {
        Some((bare, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => bare,
        _ => named,
    };
    named.eq_ignore_ascii_case(ours) || bare.eq_ignore_ascii_case(ours)
}

/// Whether a request's target names the path, its query aside.
pub(crate) fn is_path(target: &str, ours: &str) -> bool {
    let bare = |target: &str| target.split('?').next().unwrap_or_default().to_owned();
    let (target, ours) = (bare(target), bare(ours));
    target == ours || percent_decode_str(&target).eq(percent_decode_str(&ours))
}

/// Sends the answer of a refusal, and returns it as an error.
pub(crate) async fn refuse<C: Carrier>(carrier: &mut C, refusal: Refusal) -> io::Error {
    let answer = format!("HTTP/1.1 {}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", refusal.answer());
    match http1::write_all(carrier, answer.as_bytes()).await {
        Ok(()) => io::Error::new(io::ErrorKind::InvalidData, refusal),
        Err(error) => error,
    }
}

/// Makes an error of the acceptor's out of one from here; a client that has been answered is sent away.
pub(crate) async fn give_up<C: Carrier>(carrier: C, error: io::Error) -> AcceptError {
    if error.kind() == io::ErrorKind::InvalidData {
        send_away(carrier).await;
    }
    AcceptError::new("upgrade", error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::testing::Script;

    const UPGRADE: &str = "Connection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\n";

    async fn read(wire: &str, host: Option<&str>) -> (io::Result<Request>, String) {
        let (carrier, script) = Script::carrier();
        script.borrow_mut().feed(wire.as_bytes());
        let mut carrier = Behind::new(carrier, Vec::new());
        let read = read_request(&mut carrier, host, |target| is_path(target, "/a")).await;
        let written = String::from_utf8(script.borrow().written.clone()).expect("text");
        (read, written)
    }

    #[tokio::test]
    async fn requests_for_us_are_taken() {
        for (target, host) in [("/a", "H.test"), ("/a?x=y", "h.test:443"), ("/%61", "h.test")] {
            let (read, written) =
                read(&format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n{UPGRADE}\r\n"), Some("h.test"))
                    .await;
            assert_eq!((read.expect("taken").target.as_str(), written.as_str()), (target, ""));
        }
    }

    #[tokio::test]
    async fn others_get_an_answer() {
        let long = format!("GET /a HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(17_000));
        for (wire, status, refusal) in [
            (format!("GET /b HTTP/1.1\r\nHost: h\r\n{UPGRADE}\r\n"), 404, Refusal::Path),
            (format!("GET /A HTTP/1.1\r\nHost: h\r\n{UPGRADE}\r\n"), 404, Refusal::Path),
            (format!("GET /a HTTP/1.1\r\nHost: i\r\n{UPGRADE}\r\n"), 404, Refusal::Host),
            (format!("GET /a HTTP/1.1\r\n{UPGRADE}\r\n"), 404, Refusal::Host),
            (format!("POST /a HTTP/1.1\r\nHost: h\r\n{UPGRADE}\r\n"), 400, Refusal::NoUpgrade),
            ("GET /a HTTP/1.1\r\nHost: h\r\n\r\n".to_owned(), 400, Refusal::NoUpgrade),
            ("\u{16}\u{3}\u{1}\r\n\r\n".to_owned(), 400, Refusal::NoHead(HeadError::Malformed)),
            (long, 431, Refusal::NoHead(HeadError::TooLong)),
        ] {
            let (read, written) = read(&wire, Some("h")).await;
            let error = read.expect_err("taken");
            let found = error.get_ref().and_then(|inner| inner.downcast_ref::<Refusal>());
            assert_eq!((error.kind(), found), (io::ErrorKind::InvalidData, Some(&refusal)));
            assert!(written.starts_with(&format!("HTTP/1.1 {status} ")), "{written}");
        }
    }
}
