//! Raw TCP in the disguise of HTTP/1: a request's head before the first bytes up, an answer's head before the first
//! bytes down, and bare bytes from then on. What the heads say of the body is a lie.

use super::Carrier;
use super::accept::{AcceptError, send_away};
use super::behind::Behind;
use super::carrier::forward_carrier;
use super::http1::{self, HeadError, MAX_HEAD, write_head};
use super::upgrade::{ANSWER, UpgradeError};
use crate::config::{HttpField, HttpHeader, HttpRequest, HttpResponse};
use crate::engine::Shard;
use crate::entropy::Entropy;
use std::io::{self, IoSlice};
use std::task::{Context, Poll, ready};
use tokio::time::Instant;

/// The most slices of payload that share a write with the head.
const SHARED: usize = 15;
/// What a server says that closes before it has answered anything else.
const BAD_REQUEST: &[u8] =
    b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nCache-Control: private\r\nContent-Length: 0\r\n\r\n";
/// What it says to a request for a path that is none of its own.
const NOT_FOUND: &[u8] =
    b"HTTP/1.1 404 Not Found\r\nConnection: close\r\nCache-Control: private\r\nContent-Length: 0\r\n\r\n";

/// A carrier in disguise.
pub(crate) struct Disguised<C> {
    carrier: Behind<C>,
    /// What is left of the head that goes out before the first byte.
    outgoing: Vec<u8>,
    /// What is written instead if it is closed before.
    farewell: &'static [u8],
    /// The answer that a client waits for; `None` once its head is over.
    incoming: Option<Box<Answer>>,
}

/// An answer under way.
struct Answer {
    /// What has come of it.
    bytes: Vec<u8>,
    /// The status that the config gives a server's answers.
    status: String,
    started: Instant,
}

impl Answer {
    /// Judges the head in `bytes`. Servers of V2Ray's kind say 400, with nothing behind it, when what is behind the disguise
    /// has turned us away: that is left to those who know of it.
    fn check(&self) -> Result<(), UpgradeError> {
        let answer = http1::parse_response(&self.bytes).map_err(UpgradeError::NoHead)?;
        let fine = answer.status < 300 || self.status.parse() == Ok(answer.status);
        let rejected =
            answer.status == 400 && answer.fields.get("Content-Length").is_none_or(|len| len == "0");
        if fine || rejected { Ok(()) } else { Err(UpgradeError::refused(&answer)) }
    }
}

/// Disguises a client's end. Nothing is sent before the first write.
pub(crate) fn client<C: Carrier>(carrier: C, header: &HttpHeader, entropy: &mut dyn Entropy) -> Disguised<C> {
    let outgoing = request_head(&header.request, entropy);
    Disguised {
        carrier: Behind::new(carrier, Vec::new()),
        outgoing,
        farewell: b"",
        incoming: Some(Box::new(Answer {
            bytes: Vec::new(),
            status: header.response.status.clone(),
            started: Instant::now(),
        })),
    }
}

/// Reads a client's request and disguises the server's end.
///
/// # Errors
/// [`AcceptError`] if it is no request, or one for a path that is none of ours: the client has been answered then and sent
/// away.
pub(super) async fn accept<C: Carrier>(
    shard: &Shard,
    mut carrier: C,
    header: &HttpHeader,
) -> Result<Disguised<C>, AcceptError> {
    let refused = |error: &io::Error| (error.kind() == io::ErrorKind::InvalidData).then_some(BAD_REQUEST);
    let read = http1::read_head(&mut carrier).await.map_err(|error| (refused(&error), error));
    let checked = read.and_then(|(head, early)| match check_path(&head, &header.request.paths) {
        Ok(true) => Ok(early),
        Ok(false) => Err((Some(NOT_FOUND), invalid("a request for an unknown path"))),
        Err(error) => Err((Some(BAD_REQUEST), invalid(error))),
    });
    match checked {
        Ok(early) => Ok(Disguised {
            carrier: Behind::new(carrier, early),
            outgoing: shard.with_entropy(|entropy| response_head(&header.response, entropy)),
            farewell: BAD_REQUEST,
            incoming: None,
        }),
        Err((answer, error)) => {
            if let Some(answer) = answer
                && http1::write_all(&mut carrier, answer).await.is_ok()
            {
                send_away(carrier).await;
            }
            Err(AcceptError::new("HTTP header", error))
        }
    }
}

fn invalid(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

/// Whether a request is for one of the paths; its query does not count.
fn check_path(head: &[u8], paths: &[String]) -> Result<bool, HeadError> {
    let request = http1::parse_request(head)?;
    let path = request.target.split('?').next().unwrap_or_default();
    Ok(paths.iter().any(|known| known.split('?').next() == Some(path)))
}

fn request_head(request: &HttpRequest, entropy: &mut dyn Entropy) -> Vec<u8> {
    let path = pick(&request.paths, entropy);
    let first = format!("{} {path} HTTP/{}", request.method, request.version);
    with_fields(&first, &request.headers, entropy)
}

fn response_head(response: &HttpResponse, entropy: &mut dyn Entropy) -> Vec<u8> {
    let first = format!("HTTP/{} {} {}", response.version, response.status, response.reason);
    with_fields(&first, &response.headers, entropy)
}

fn with_fields(first: &str, fields: &[HttpField], entropy: &mut dyn Entropy) -> Vec<u8> {
    let fields: Vec<(&str, &str)> =
        fields.iter().map(|(name, values)| (name.as_str(), pick(values, entropy))).collect();
    write_head(first, fields)
}

/// One of several texts.
fn pick<'a>(texts: &'a [String], entropy: &mut dyn Entropy) -> &'a str {
    let count = u32::try_from(texts.len()).unwrap_or(u32::MAX);
    let index = if count > 1 { entropy.below(count) } else { 0 };
    texts.get(index as usize).map(String::as_str).unwrap_or_default()
}

impl<C: Carrier> Disguised<C> {
    /// Reads until the head of the answer is over; what came behind it stays in front of the carrier.
    fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(answer) = &mut self.incoming else { return Poll::Ready(Ok(())) };
        let failed = |answer: &Answer, error: UpgradeError| io::Error::other(error.into_dial(answer.started));
        match ready!(http1::poll_head(cx, &mut self.carrier, &mut answer.bytes, ANSWER, MAX_HEAD)) {
            Ok(len) => {
                let early = answer.bytes.split_off(len);
                answer.check().map_err(|error| failed(answer, error))?;
                self.carrier.put_back(early);
            }
            // Nothing at all is an end, which those above judge.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof && answer.bytes.is_empty() => {}
            Err(error) => {
                return Poll::Ready(Err(match UpgradeError::unread(&answer.bytes, &error) {
                    UpgradeError::Io(_) => error,
                    why => failed(answer, why),
                }));
            }
        }
        self.incoming = None;
        Poll::Ready(Ok(()))
    }
}

impl<C: Carrier> Carrier for Disguised<C> {
    fn poll_read_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_head(cx))?;
        self.carrier.poll_read_ready(cx)
    }

    fn poll_read(&mut self, cx: &mut Context<'_>, out: &mut [u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_head(cx))?;
        self.carrier.poll_read(cx, out)
    }

    fn poll_read_vectored(
        &mut self,
        cx: &mut Context<'_>,
        out: &mut [io::IoSliceMut<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_head(cx))?;
        self.carrier.poll_read_vectored(cx, out)
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        while !self.outgoing.is_empty() {
            let mut all = [IoSlice::new(&[]); SHARED + 1];
            let count = slices.len().min(SHARED);
            for (slot, slice) in all.iter_mut().zip([IoSlice::new(&self.outgoing)].iter().chain(slices)) {
                *slot = *slice;
            }
            let n = ready!(self.carrier.poll_write(cx, all.get(..=count).unwrap_or_default()))?;
            let head = n.min(self.outgoing.len());
            self.outgoing.drain(..head);
            if n > head {
                self.outgoing = Vec::new();
                return Poll::Ready(Ok(n - head));
            }
        }
        self.carrier.poll_write(cx, slices)
    }

    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.outgoing.is_empty() && !self.farewell.is_empty() {
            self.outgoing.clear();
            self.outgoing.extend_from_slice(std::mem::take(&mut self.farewell));
        }
        while !self.outgoing.is_empty() {
            let n = ready!(self.carrier.poll_write(cx, &[IoSlice::new(&self.outgoing)]))?;
            self.outgoing.drain(..n);
        }
        self.carrier.poll_close(cx)
    }

    forward_carrier!(self, self.carrier; poll_write_ready poll_flush poll_drained reset closed local_ip abort);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Transport;
    use crate::config::parse;
    use crate::entropy::SeededEntropy;
    use crate::error::{ErrorKind, Stage};
    use crate::transport::StreamError;
    use crate::transport::testing::{Script, noop_context, shard};

    fn header(request: &str) -> HttpHeader {
        let text = format!(
            r#"{{"outbounds": [{{"protocol": "freedom", "streamSettings": {{"tcpSettings": {{"header": {{"type": "http", "request": {request}}}}}}}}}]}}"#
        );
        let config = parse(&text).into_result().expect("fine");
        let Transport::Tcp(tcp) = &config.outbounds[0].stream.transport else { panic!("not tcp") };
        *tcp.header.clone().expect("a header")
    }

    fn entropy() -> SeededEntropy {
        SeededEntropy::new(7)
    }

    fn read_all<C: Carrier>(carrier: &mut C) -> Vec<u8> {
        let (mut got, mut out) = (Vec::new(), [0; 7]);
        while carrier.poll_read_ready(&mut noop_context()).is_ready() {
            match carrier.poll_read(&mut noop_context(), &mut out) {
                Poll::Ready(Ok(n)) if n > 0 => got.extend_from_slice(&out[..n]),
                _ => break,
            }
        }
        got
    }

    #[test]
    fn the_request_shares_a_write_with_the_first_bytes() {
        let (carrier, script) = Script::carrier();
        let mut ours =
            client(carrier, &header(r#"{"path": "/x", "headers": {"Host": "h"}}"#), &mut entropy());
        let slices = [IoSlice::new(b"vmess"), IoSlice::new(b" bytes")];
        assert!(matches!(ours.poll_write(&mut noop_context(), &slices), Poll::Ready(Ok(11))));
        assert_eq!(script.borrow().written, b"GET /x HTTP/1.1\r\nHost: h\r\n\r\nvmess bytes");
        assert_eq!(script.borrow().writes.len(), 1);
    }

    #[test]
    fn small_writes_lose_nothing() {
        for limit in 1..40 {
            let (carrier, script) = Script::carrier();
            script.borrow_mut().write_limit = limit;
            let mut ours = client(carrier, &header(r#"{"headers": {}}"#), &mut entropy());
            let mut data = &b"payload"[..];
            while !data.is_empty() {
                let Poll::Ready(Ok(n)) = ours.poll_write(&mut noop_context(), &[IoSlice::new(data)]) else {
                    panic!("blocked")
                };
                assert!(n > 0);
                data = &data[n..];
            }
            assert_eq!(script.borrow().written, b"GET / HTTP/1.1\r\n\r\npayload", "{limit}");
        }
    }

    #[test]
    fn the_answer_is_stripped_in_any_segmentation() {
        let wire = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nbare bytes";
        for limit in 1..wire.len() {
            let (carrier, script) = Script::carrier();
            script.borrow_mut().read_limit = limit;
            script.borrow_mut().feed(wire);
            let mut ours = client(carrier, &header("{}"), &mut entropy());
            assert_eq!(read_all(&mut ours), b"bare bytes", "{limit}");
        }
    }

    #[test]
    fn something_else_than_an_answer_has_its_error_and_words() {
        let long = [b"HTTP/1.1 200 OK\r\nX: ".as_slice(), &[b'x'; 9000]].concat();
        for (wire, words) in [
            (&b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"[..], "HTTP 404 Not Found"),
            (b"HTTP/1.1 301 Moved\r\nLocation: https://h/\r\n\r\n", "HTTP 301 Moved"),
            (b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno", "HTTP 403 Forbidden"),
            (
                b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/html\r\nContent-Length: 6\r\n\r\n<html>",
                "a web page",
            ),
            (b"SSH-2.0\r\n\r\n", "no HTTP"),
            (b"<!DOCTYPE html>", "no HTTP"),
            (b"\x15\x03\x01\x00\x02\x02\x46", "TLS"),
            (b"HTTP/1.1 200 OK\r\n", "within its answer"),
            (&long, "does not end"),
        ] {
            let (carrier, script) = Script::carrier();
            script.borrow_mut().feed(wire);
            script.borrow_mut().end(Ok(()));
            let mut ours = client(carrier, &header("{}"), &mut entropy());
            let Poll::Ready(Err(error)) = ours.poll_read_ready(&mut noop_context()) else { panic!("taken") };
            let StreamError::Setup(failed) = StreamError::from(error) else { panic!("not named: {words}") };
            assert_eq!(failed.error.kind, ErrorKind::ServerUnreachable { stage: Stage::Upgrade });
            assert!(failed.error.reason.contains(words), "{failed}");
        }
    }

    #[test]
    fn what_is_behind_the_disguise_judges_its_own_end() {
        for wire in [&b""[..], BAD_REQUEST] {
            let (carrier, script) = Script::carrier();
            script.borrow_mut().feed(wire);
            script.borrow_mut().end(Ok(()));
            let mut ours = client(carrier, &header("{}"), &mut entropy());
            assert_eq!(read_all(&mut ours), b"", "a proper end");
        }
        let (carrier, script) = Script::carrier();
        script.borrow_mut().end(Err(io::ErrorKind::ConnectionReset));
        let mut ours = client(carrier, &header("{}"), &mut entropy());
        let Poll::Ready(Err(error)) = ours.poll_read_ready(&mut noop_context()) else { panic!("taken") };
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    }

    #[tokio::test]
    async fn a_server_takes_its_paths_and_answers_the_others() {
        let header = header(r#"{"path": ["/a", "/b"]}"#);
        for (wire, answer) in [
            (&b"GET /b?x HTTP/1.1\r\nHost: h\r\n\r\nfirst"[..], ""),
            (b"GET /c HTTP/1.1\r\n\r\n", "HTTP/1.1 404"),
            (b"\x16\x03\x01\r\n\r\n", "HTTP/1.1 400"),
        ] {
            let (carrier, script) = Script::carrier();
            script.borrow_mut().feed(wire);
            if !answer.is_empty() {
                script.borrow_mut().end(Ok(()));
            }
            let accepted = accept(&shard(), carrier, &header).await;
            assert_eq!(accepted.is_ok(), answer.is_empty());
            if let Ok(mut theirs) = accepted {
                assert_eq!(read_all(&mut theirs), b"first");
                assert!(theirs.poll_write(&mut noop_context(), &[IoSlice::new(b"down")]).is_ready());
                let written = String::from_utf8(script.borrow().written.clone()).expect("text");
                assert!(
                    written.starts_with("HTTP/1.1 200 OK\r\n") && written.ends_with("\r\n\r\ndown"),
                    "{written}"
                );
            } else {
                assert!(script.borrow().written.starts_with(answer.as_bytes()));
            }
        }
    }

    #[tokio::test]
    async fn a_server_that_closes_before_it_answered_says_400() {
        let (carrier, script) = Script::carrier();
        script.borrow_mut().feed(b"GET / HTTP/1.1\r\n\r\n");
        let mut theirs = accept(&shard(), carrier, &header("{}")).await.expect("taken");
        assert!(theirs.poll_close(&mut noop_context()).is_ready());
        assert!(script.borrow().written.starts_with(b"HTTP/1.1 400") && script.borrow().closed);
    }
}
