//! The proof of the path to the server: a tiny request through it, timed to the first valid answer.

use super::api::CheckReport;
use super::shard::Shard;
use super::skew;
use crate::addr::Target;
use crate::buffer::{Class, Turn};
use crate::config::OutboundProtocol;
use crate::error::{Error, ErrorKind, Stage};
use crate::transport::{Stream, StreamError};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;
use tokio::time::timeout;

/// A DNS query over TCP (RFC 1035, 4.2.2): 17 bytes, id 0x564d, recursion desired, the root's name servers. Any DNS
/// server answers it, and what makes a VMess server send its response header is an answer from its target.
const QUERY: [u8; 19] = [0, 17, 0x56, 0x4d, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 1];

/// Opens a stream through the first VMess outbound and waits for the server's answer.
///
/// # Errors
/// `Misuse` if no outbound dials a server; `Timeout` after `limit`; what the dial says; `AuthRejected` if the server closes
/// before a valid answer; `ClockSkew` in place of these two if a time server has said that our clock is wrong.
pub(super) async fn check(shard: Rc<Shard>, limit: Duration) -> Result<CheckReport, Error> {
    let live = shard.live();
    let mut outbounds = live.config.outbounds.iter().zip(&live.outbounds);
    let Some((config, outbound)) =
        outbounds.find(|(config, _)| matches!(config.protocol, OutboundProtocol::Vmess(_)))
    else {
        return Err(Error::new(ErrorKind::Misuse, "there is nothing to check: no outbound dials a server"));
    };
    let target = live
        .config
        .dns_servers
        .first()
        .map_or_else(|| Target::from(FALLBACK), |server| Target::from(*server));
    let started = shard.clock.now();
    let ask = async {
        let opened =
            Rc::clone(outbound).open_stream(Rc::clone(&shard), target).await.map_err(|fail| fail.error)?;
        let mut stream = opened.stream;
        let answer = exchange(&shard, &mut *stream).await;
        stream.abort();
        answer.map_err(describe)
    };
    match timeout(limit, ask).await {
        Ok(Ok(())) => {
            Ok(CheckReport { outbound: config.tag.to_string(), latency: shard.clock.now().since(started) })
        }
        Ok(Err(error)) => {
            let error = if error.kind == ErrorKind::AuthRejected { explained(&shard, error) } else { error };
            shard.shared.set_last_error(error.clone());
            Err(error)
        }
        Err(_) => {
            shard.health.silent(&config.tag);
            skew::suspect(&shard);
            let kind = ErrorKind::Timeout { what: "check" };
            let error = Error::new(kind, "the server did not answer in time")
                .with_hint("compare the id and the clock with the server's, or try another network");
            let error = explained(&shard, error);
            shard.shared.set_last_error(error.clone());
            Err(error)
        }
    }
}

/// What is asked if the config names no DNS server, which it always does.
const FALLBACK: std::net::SocketAddr =
    std::net::SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::new(1, 1, 1, 1)), 53);

/// A refusal, or silence, which is how servers refuse: by our clock, if that is known to be wrong.
fn explained(shard: &Shard, error: Error) -> Error {
    let Some(seconds) = shard.shared.skew.wrong_by(shard) else { return error };
    let way = if seconds > 0 { "fast" } else { "slow" };
    let text =
        format!("this device's clock is {} s {way}, and the server refuses it", seconds.unsigned_abs());
    Error::new(ErrorKind::ClockSkew { seconds }, text)
        .with_hint("set the device's date and time automatically")
        .with_reason(error.text)
}

/// Sends the query and waits for a valid response header, whatever follows it: the target is not what is checked.
async fn exchange(shard: &Shard, stream: &mut dyn Stream) -> Result<(), StreamError> {
    poll_fn(|cx| stream.poll_ready(cx)).await?;
    let mut turn = Turn::default();
    let mut query = poll_fn(|cx| shard.pool.poll_take(cx, Class::Small, &mut turn)).await;
    query.append(&QUERY);
    stream.send(query)?;
    poll_fn(|cx| {
        let flushed = stream.poll_flush(cx);
        // What is received tells better how it stands than what could not be sent.
        match (stream.poll_recv(cx, 4096), flushed) {
            _ if stream.answered() => Poll::Ready(Ok(())),
            (Poll::Pending, Poll::Ready(Err(error))) => Poll::Ready(Err(error)),
            (received, _) => received.map_ok(|_| ()),
        }
    })
    .await
}

/// What a stream's end before the server's answer means.
pub(super) fn describe(error: StreamError) -> Error {
    if let StreamError::Setup(failed) = error {
        return failed.error;
    }
    let kind = match &error {
        StreamError::Rejected => ErrorKind::AuthRejected,
        StreamError::Timeout(what) => ErrorKind::Timeout { what },
        StreamError::Closed => ErrorKind::Stopped,
        _ => ErrorKind::ServerUnreachable { stage: Stage::Vmess },
    };
    let text = match &error {
        StreamError::Rejected => "the server closed the connection before it answered",
        StreamError::Closed => "the check was ended",
        _ => "the connection to the server broke before it answered",
    };
    Error::new(kind, text).with_reason(error.to_string())
}
