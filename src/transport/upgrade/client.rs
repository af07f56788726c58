//! The client's end of an upgrade: its request, the wait for the 101, and words for everything else that may come.

use super::super::Carrier;
use super::super::behind::Behind;
use super::super::dial::DialError;
use super::super::http1::{self, HeadError, MAX_HEAD, Response};
use super::is_upgrade;
use crate::error::Stage;
use percent_encoding::{CONTROLS, utf8_percent_encode};
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::task::{Context, Poll, ready};
use tokio::time::{Instant, timeout_at};

/// What an answer begins with.
pub(crate) const ANSWER: &[u8] = b"HTTP/1.";
/// Who asks, where the config does not say: servers behind a CDN are often shut to nameless programs.
const USER_AGENT: &str = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36";
/// Fields that are the upgrade's own, whatever the config says.
const OURS: [&str; 6] = [
    "Host",
    "Connection",
    "Upgrade",
    "Sec-WebSocket-Key",
    "Sec-WebSocket-Version",
    "Sec-WebSocket-Extensions",
];
/// The most characters of a server's reason that are repeated.
const MAX_REASON: usize = 60;

/// Why an upgrade failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum UpgradeError {
    /// The answer has another status than the one wanted.
    #[error("the server answered HTTP {status}{reason}{}", if *.page { ", a web page" } else { "" })]
    Refused {
        /// The status.
        status: u16,
        /// The server's words for it, with a blank before them; may be empty.
        reason: String,
        /// Whether a web page follows.
        page: bool,
    },
    /// The answer is a 101 that grants something else.
    #[error("the server answered HTTP 101, but {0}")]
    Wrong(&'static str),
    /// What came is no head of an answer.
    #[error("the answer is {0}")]
    NoHead(HeadError),
    /// What came is TLS.
    #[error("the server speaks TLS")]
    Tls,
    /// The connection ended before an answer.
    #[error("the server closed the connection without an answer")]
    Closed,
    /// The connection ended within the answer.
    #[error("the server closed the connection within its answer")]
    Cut,
    /// Nothing, or not enough, came in time.
    #[error("no answer")]
    Silent,
    /// The connection failed.
    #[error("the connection failed: {0}")]
    Io(io::ErrorKind),
    /// What the connection rides on could not be set up after all: another outbound, whose first answer came now.
    #[error("{0}")]
    Below(Box<DialError>),
}

impl UpgradeError {
    /// Why an answer could not be read, of which this much has come.
    pub(crate) fn unread(incoming: &[u8], error: &io::Error) -> Self {
        let head_error = error.get_ref().and_then(|inner| inner.downcast_ref::<HeadError>());
        match (head_error, error.kind()) {
            // An alert or a handshake record.
            (Some(_), _) if matches!(*incoming, [0x15 | 0x16, 3, ..]) => Self::Tls,
            (Some(error), _) => Self::NoHead(*error),
            (None, io::ErrorKind::UnexpectedEof) if incoming.is_empty() => Self::Closed,
            (None, io::ErrorKind::UnexpectedEof) => Self::Cut,
            (None, _) => below(error),
        }
    }

    /// What an answer says that is none of those wanted.
    pub(crate) fn refused(answer: &Response) -> Self {
        let words = answer.reason.chars().filter(|c| !c.is_control()).take(MAX_REASON);
        let reason: String = std::iter::once(' ').chain(words).collect();
        Self::Refused {
            status: answer.status,
            reason: reason.trim_end().to_owned(),
            page: answer.fields.get("Content-Type").is_some_and(|kind| kind.starts_with("text/html")),
        }
    }

    /// What to do about it.
    const fn hint(&self) -> &'static str {
        match self {
            Self::Refused { status, page, .. } => match status {
                200..=299 if *page => "check the path: this is a web page",
                300..=399 => "check the address, the port, and whether TLS belongs there",
                404 => "check the path and the host",
                401 | 403 => {
                    "check the host and the path, and whether a CDN in front of the server lets this network in"
                }
                502..=504 | 520..=530 => "check that the server behind the CDN or proxy runs",
                _ => "check the path, the host, and that the server expects this transport",
            },
            Self::Wrong(_) | Self::Closed | Self::Cut => "check that the server expects this transport",
            Self::NoHead(_) => "check the port, and that the server expects this transport",
            Self::Tls => "turn TLS on",
            Self::Silent => "check the port, and whether TLS belongs there",
            Self::Io(_) | Self::Below(_) => "",
        }
    }

    /// The operating system's nearest word for it.
    const fn kind(&self) -> io::ErrorKind {
        match self {
            Self::Refused { .. } | Self::Wrong(_) | Self::NoHead(_) | Self::Tls => io::ErrorKind::InvalidData,
            Self::Closed | Self::Cut => io::ErrorKind::UnexpectedEof,
            Self::Silent => io::ErrorKind::TimedOut,
            Self::Io(kind) => *kind,
            Self::Below(failed) => failed.kind,
        }
    }

    /// The same as the dialler's error, for an upgrade that began at `started`.
    pub(crate) fn into_dial(self, started: Instant) -> DialError {
        if let Self::Below(failed) = self {
            return *failed;
        }
        let mut failed = DialError::new(Stage::Upgrade, self.kind(), started, &self);
        failed.error = failed.error.with_hint(self.hint());
        failed
    }
}

/// Writes a request's head. `extra`: what the transport adds; `headers`: what the config does.
pub(crate) fn request_head(
    path: &str,
    host: &str,
    headers: &[(String, String)],
    extra: &[(&str, &str)],
) -> Vec<u8> {
    let target = utf8_percent_encode(path, CONTROLS);
    let is_named = |name: &str| headers.iter().any(|(given, _)| given.eq_ignore_ascii_case(name));
    let is_ours = |name: &str| {
        let mut reserved = OURS.into_iter().chain(extra.iter().map(|(name, _)| *name));
        reserved.any(|ours| ours.eq_ignore_ascii_case(name))
    };
    let agent = (!is_named("User-Agent")).then_some(("User-Agent", USER_AGENT));
    let given = headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    let upgrade = [("Connection", "Upgrade"), ("Upgrade", "websocket")];
    let fields = [("Host", host)]
        .into_iter()
        .chain(agent)
        .chain(given.filter(|(name, _)| !is_ours(name)))
        .chain(upgrade)
        .chain(extra.iter().copied());
    http1::write_head(&format!("GET {target} HTTP/1.1"), fields)
}

/// An upgrade under way.
#[derive(Debug)]
pub(crate) struct Upgrade {
    /// What is left of the request.
    outgoing: Vec<u8>,
    /// What has come of the answer.
    incoming: Vec<u8>,
}

impl Upgrade {
    /// Nothing has been sent of `request`.
    pub(crate) const fn new(request: Vec<u8>) -> Self {
        Self { outgoing: request, incoming: Vec::new() }
    }

    /// Writes what is left of the request.
    pub(crate) fn poll_request<C: Carrier>(
        &mut self,
        cx: &mut Context<'_>,
        carrier: &mut C,
    ) -> Poll<io::Result<()>> {
        while !self.outgoing.is_empty() {
            let n = ready!(carrier.poll_write(cx, &[IoSlice::new(&self.outgoing)]))?;
            if n == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.outgoing.drain(..n);
        }
        self.outgoing = Vec::new();
        carrier.poll_flush(cx)
    }

    /// Writes the request and waits for the 101; what comes behind that is put back in front of the carrier.
    pub(crate) fn poll<C: Carrier>(
        &mut self,
        cx: &mut Context<'_>,
        carrier: &mut Behind<C>,
    ) -> Poll<Result<Response, UpgradeError>> {
        ready!(self.poll_request(cx, carrier)).map_err(|error| below(&error))?;
        let read = ready!(http1::poll_head(cx, carrier, &mut self.incoming, ANSWER, MAX_HEAD));
        let len = read.map_err(|error| UpgradeError::unread(&self.incoming, &error))?;
        let behind = self.incoming.split_off(len);
        let head = std::mem::take(&mut self.incoming);
        carrier.put_back(behind);
        let answer = http1::parse_response(&head).map_err(UpgradeError::NoHead)?;
        Poll::Ready(check(answer))
    }

    /// Runs to the end.
    ///
    /// # Errors
    /// [`UpgradeError`], `Silent` at the deadline.
    pub(crate) async fn run<C: Carrier>(
        mut self,
        carrier: &mut Behind<C>,
        deadline: Instant,
    ) -> Result<Response, UpgradeError> {
        timeout_at(deadline, poll_fn(|cx| self.poll(cx, carrier))).await.unwrap_or(Err(UpgradeError::Silent))
    }
}

/// A failure of the connection.
fn below(error: &io::Error) -> UpgradeError {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<DialError>()) {
        Some(failed) => UpgradeError::Below(Box::new(failed.clone())),
        None => UpgradeError::Io(error.kind()),
    }
}

/// Checks what both transports need of an answer.
fn check(answer: Response) -> Result<Response, UpgradeError> {
    if answer.status != 101 {
        return Err(UpgradeError::refused(&answer));
    }
    if !is_upgrade(&answer.fields) {
        return Err(UpgradeError::Wrong("upgrades to something else"));
    }
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;
    use crate::transport::testing::{Script, noop_context};

    fn answered(wire: &[u8], end: Option<io::ErrorKind>) -> Poll<Result<Response, UpgradeError>> {
        let (carrier, script) = Script::carrier();
        script.borrow_mut().feed(wire);
        if let Some(kind) = end {
            let ok = kind == io::ErrorKind::UnexpectedEof;
            script.borrow_mut().end(if ok { Ok(()) } else { Err(kind) });
        }
        let mut carrier = Behind::new(carrier, Vec::new());
        Upgrade::new(b"GET / HTTP/1.1\r\n\r\n".to_vec()).poll(&mut noop_context(), &mut carrier)
    }

    #[test]
    fn every_wrong_answer_has_its_error_and_words() {
        const EOF: io::ErrorKind = io::ErrorKind::UnexpectedEof;
        let long = [b"HTTP/1.1 101 OK\r\nX: ".as_slice(), &[b'x'; 9000], b"\r\n\r\n"].concat();
        let plain =
            |status, reason: &str| UpgradeError::Refused { status, reason: reason.into(), page: false };
        let html = b"HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\n\r\n<html>";
        for (wire, error, words) in [
            (&b"HTTP/1.1 404 Not Found\r\n\r\n"[..], plain(404, " Not Found"), "HTTP 404 Not Found"),
            (b"HTTP/1.1 301 Moved\r\nLocation: https://h/\r\n\r\n", plain(301, " Moved"), "HTTP 301 Moved"),
            (b"HTTP/1.1 403 Forbidden\r\n\r\nno, go away", plain(403, " Forbidden"), "HTTP 403 Forbidden"),
            (b"HTTP/1.0 503 \r\n\r\n", plain(503, ""), "answered HTTP 503"),
            (html, UpgradeError::Refused { status: 200, reason: " OK".into(), page: true }, "a web page"),
            (b"<!DOCTYPE html><html>", UpgradeError::NoHead(HeadError::Malformed), "no HTTP"),
            (b"SSH-2.0-x\r\n", UpgradeError::NoHead(HeadError::Malformed), "no HTTP"),
            (b"\x15\x03\x01\x00\x02\x02\x46", UpgradeError::Tls, "TLS"),
            (b"HTTP/1.1 banana\r\n\r\n", UpgradeError::NoHead(HeadError::Malformed), "no HTTP"),
            (&long, UpgradeError::NoHead(HeadError::TooLong), "does not end"),
            (b"", UpgradeError::Closed, "without an answer"),
            (b"HTTP/1.1 101 Switching", UpgradeError::Cut, "within its answer"),
            (
                b"HTTP/1.1 101 OK\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n",
                UpgradeError::Wrong("upgrades to something else"),
                "something else",
            ),
        ] {
            let Poll::Ready(Err(found)) = answered(wire, Some(EOF)) else { panic!("taken: {wire:?}") };
            assert_eq!(found, error);
            let dial = found.into_dial(Instant::now()).error;
            assert_eq!(dial.kind, ErrorKind::ServerUnreachable { stage: Stage::Upgrade });
            assert!(dial.reason.contains(words) && !dial.hint.is_empty(), "{dial}");
        }
        let reset = answered(b"", Some(io::ErrorKind::ConnectionReset));
        assert_eq!(reset, Poll::Ready(Err(UpgradeError::Io(io::ErrorKind::ConnectionReset))));
        assert!(answered(b"HTTP/1.1 101 OK\r\n", None).is_pending());
    }

    #[test]
    fn the_config_may_name_fields_but_not_the_upgrades_own() {
        let given = [("user-agent", "me"), ("connection", "close"), ("X-Own", "1"), ("x-early", "no")];
        let given = given.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let head = request_head("/a/ä?b", "h:8080", &given, &[("X-Early", "yes")]);
        assert_eq!(
            String::from_utf8(head).expect("text"),
            "GET /a/%C3%A4?b HTTP/1.1\r\nHost: h:8080\r\nuser-agent: me\r\nX-Own: 1\r\nConnection: Upgrade\r\n\
             Upgrade: websocket\r\nX-Early: yes\r\n\r\n"
        );
    }
}
