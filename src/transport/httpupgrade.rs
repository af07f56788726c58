//! HTTPUpgrade: the upgrade of WebSocket without its key, then bare bytes both ways.
//!
//! A client waits for the 101: several servers throw away what comes in the same read as the request. A server keeps it.

use super::Carrier;
use super::accept::AcceptError;
use super::behind::Behind;
use super::dial::DialError;
use super::http1::{self, Fields};
use super::upgrade::{self, Upgrade, request_head};
use crate::config::HttpUpgrade;
use std::io;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// How long such a server has for that. Over a network it has more anyway.
const TAKEN_OVER: Duration = Duration::from_millis(10);

/// Upgrades a connected carrier. `authority`: the host to name where the config names none.
///
/// # Errors
/// [`DialError`] of stage `upgrade`.
pub(super) async fn connect<C: Carrier>(
    carrier: C,
    settings: &HttpUpgrade,
    authority: &str,
    deadline: Instant,
) -> Result<Behind<C>, DialError> {
    let started = Instant::now();
    let host = settings.host.as_deref().unwrap_or(authority);
    let request = request_head(&settings.path, host, &settings.headers, &[]);
    let mut carrier = Behind::new(carrier, Vec::new());
    let answer = Upgrade::new(request).run(&mut carrier, deadline).await;
    let answer = answer.map_err(|error| error.into_dial(started))?;
    if takes_over_late(&answer.fields) {
        sleep(TAKEN_OVER).await;
    }
    Ok(carrier)
}

/// Whether a server may lose the first byte that comes after its 101: sing-box's takes the connection from Go's HTTP server
/// when the 101 has gone already, and throws away what that one has read. It answers as that one does, with a date and with
/// `upgrade` as sing-box writes it, where others write their own answers and proxies name themselves.
fn takes_over_late(fields: &Fields) -> bool {
    fields.get("Connection") == Some("upgrade")
        && fields.get("Date").is_some()
        && fields.get("Server").is_none()
}

/// Takes a client's upgrade and answers it.
///
/// # Errors
/// [`AcceptError`]; the client has been answered and sent away.
pub(super) async fn accept<C: Carrier>(carrier: C, settings: &HttpUpgrade) -> Result<Behind<C>, AcceptError> {
    let mut carrier = Behind::new(carrier, Vec::new());
    match answer(&mut carrier, settings).await {
        Ok(()) => Ok(carrier),
        Err(error) => Err(upgrade::give_up(carrier, error).await),
    }
}

async fn answer<C: Carrier>(carrier: &mut Behind<C>, settings: &HttpUpgrade) -> io::Result<()> {
    let takes = |target: &str| upgrade::is_path(target, &settings.path);
    upgrade::read_request(carrier, settings.host.as_deref(), takes).await?;
    let fields = [("Connection", "Upgrade"), ("Upgrade", "websocket")];
    let head = http1::write_head("HTTP/1.1 101 Switching Protocols", fields);
    http1::write_all(carrier, &head).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{ErrorKind, Stage};
    use crate::transport::testing::{Script, ScriptCarrier, noop_context};
    use std::io::IoSlice;
    use std::rc::Rc;
    use std::task::Poll;

    fn settings(host: Option<&str>) -> HttpUpgrade {
        HttpUpgrade { path: "/up".to_owned(), host: host.map(str::to_owned), ..HttpUpgrade::default() }
    }

    fn read(carrier: &mut Behind<ScriptCarrier>) -> Vec<u8> {
        let (mut got, mut out) = (Vec::new(), [0; 3]);
        while let Poll::Ready(Ok(n @ 1..)) = carrier.poll_read(&mut noop_context(), &mut out) {
            got.extend_from_slice(&out[..n]);
        }
        got
    }

    async fn connected(
        answer: &[u8],
        end: bool,
    ) -> (Result<Behind<ScriptCarrier>, DialError>, String, usize) {
        let (carrier, script) = Script::carrier();
        script.borrow_mut().feed(answer);
        if end {
            script.borrow_mut().end(Ok(()));
        }
        let deadline = Instant::now() + Duration::from_secs(4);
        let connected = connect(carrier, &settings(None), "h:81", deadline).await;
        assert!(deadline + Duration::from_secs(1) > Instant::now());
        let request = String::from_utf8(script.borrow().written.clone()).expect("text");
        assert_eq!(script.borrow().writes.len(), 1);
        (connected, request, Rc::strong_count(&script))
    }

    #[tokio::test]
    async fn a_client_keeps_what_follows_the_answer() {
        let answer = b"HTTP/1.1 101 OK\r\nUPGRADE: WebSocket\r\nconnection: upgrade\r\n\r\nbehind it";
        let (carrier, request, _) = connected(answer, false).await;
        assert!(request.starts_with("GET /up HTTP/1.1\r\nHost: h:81\r\nUser-Agent: "), "{request}");
        assert!(request.ends_with("\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"), "{request}");
        let mut carrier = carrier.expect("upgraded");
        assert_eq!(read(&mut carrier), b"behind it");
        let written = carrier.poll_write(&mut noop_context(), &[IoSlice::new(b"bare")]);
        assert!(matches!(written, Poll::Ready(Ok(4))));
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_takes_over_late_has_time_for_that() {
        for (fields, waits) in [
            ("Connection: upgrade\r\nUpgrade: websocket\r\nDate: Mon, 23 Nov 2026 00:00:00 GMT\r\n", true),
            ("Connection: Upgrade\r\nUpgrade: websocket\r\n", false),
            (
                "Server: nginx\r\nDate: Mon, 23 Nov 2026 00:00:00 GMT\r\nConnection: upgrade\r\nUpgrade: websocket\r\n",
                false,
            ),
        ] {
            let answer = format!("HTTP/1.1 101 Switching Protocols\r\n{fields}\r\n");
            let started = Instant::now();
            assert!(connected(answer.as_bytes(), false).await.0.is_ok());
            assert_eq!(started.elapsed() >= TAKEN_OVER, waits, "{fields}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn every_failed_upgrade_ends_in_time_and_lets_the_carrier_go() {
        let long = [b"HTTP/1.1 101 ".as_slice(), &[b'x'; 9000]].concat();
        for (answer, end, words) in [
            (&b"HTTP/1.1 404 Not Found\r\n\r\n"[..], false, "HTTP 404 Not Found"),
            (b"HTTP/1.1 301 Moved\r\nLocation: https://h/\r\n\r\n", false, "HTTP 301 Moved"),
            (b"HTTP/1.1 403 Forbidden\r\nContent-Length: 4\r\n\r\nbody", false, "HTTP 403"),
            (b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n<html>", false, "a web page"),
            (b"HTTP/1.1 101 OK\r\n\r\n", false, "something else"),
            (b"<html>", false, "no HTTP"),
            (&long, false, "does not end"),
            (b"HTTP/1.1 101 OK\r\nUpgr", true, "within its answer"),
            (b"", true, "without an answer"),
            (b"", false, "no answer"),
        ] {
            let (failed, _, holders) = connected(answer, end).await;
            let Err(DialError { error, .. }) = failed else { panic!("taken") };
            assert_eq!(error.kind, ErrorKind::ServerUnreachable { stage: Stage::Upgrade });
            assert!(error.reason.contains(words), "{error}");
            assert_eq!(holders, 1, "the carrier is still held");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_keeps_early_bytes_and_answers_others() {
        let up = "Connection: Upgrade\r\nUpgrade: websocket\r\n\r\nearly";
        for (first, answer) in [
            ("GET /up HTTP/1.1\r\nHost: H:443", "HTTP/1.1 101 Switching Protocols\r\n"),
            ("GET /up?q HTTP/1.1\r\nHost: h", "HTTP/1.1 101 Switching Protocols\r\n"),
            ("GET /upp HTTP/1.1\r\nHost: h", "HTTP/1.1 404 Not Found\r\n"),
            ("GET /up HTTP/1.1\r\nHost: i", "HTTP/1.1 404 Not Found\r\n"),
            ("PUT /up HTTP/1.1\r\nHost: h", "HTTP/1.1 400 Bad Request\r\n"),
        ] {
            let (carrier, script) = Script::carrier();
            script.borrow_mut().feed(format!("{first}\r\n{up}").as_bytes());
            let accepted = accept(carrier, &settings(Some("h"))).await;
            let written = String::from_utf8(script.borrow().written.clone()).expect("text");
            assert!(written.starts_with(answer) && written.ends_with("\r\n\r\n"), "{written}");
            assert_eq!(accepted.is_ok(), answer.contains(" 101 "), "{first}");
            match accepted {
                Ok(mut carrier) => assert_eq!(read(&mut carrier), b"early"),
                Err(_) => assert!(script.borrow().closed && Rc::strong_count(&script) == 1),
            }
        }
    }
}
