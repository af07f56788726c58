//! Clients that throw away what they read together with the 101.
//!
//! With early data the target's answer may leave right behind the 101, and both come in one read of the client's. V2Ray and
//! its like keep what is behind the head; mihomo and sing-box read it into a buffer that they drop. So payload for those
//! waits until they have shown that they read on: by a frame of their own, such as the answer to a ping.

use super::super::http1::Fields;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tokio::time::{Sleep, sleep};

/// How long a client has to answer the ping. If that was thrown away too, it has been reading on for long by then.
const PATIENCE: Duration = Duration::from_millis(500);

/// Whether a client throws away what it reads together with the 101, by how it writes its request: mihomo has the key's
/// name as Go spells it, and sing-box, alone with the library it uses, has key and version next to each other in front of
/// its other fields.
pub(super) fn is_due(fields: &Fields) -> bool {
    let names: Vec<&str> = fields.names().collect();
    let as_go_spells_it = names.contains(&"Sec-Websocket-Key");
    let of_that_library = names.windows(2).any(|pair| pair == ["Sec-WebSocket-Version", "Sec-WebSocket-Key"]);
    as_go_spells_it || of_that_library
}

/// Payload waits.
#[derive(Default)]
pub(super) struct Doubt {
    /// Runs once the ping is on its way.
    timer: Option<Pin<Box<Sleep>>>,
    /// Who wants to write.
    writer: Option<Waker>,
}

impl Doubt {
    /// Whether the ping has still to be sent.
    pub(super) const fn asks(&self) -> bool {
        self.timer.is_none()
    }

    /// The ping is on its way.
    pub(super) fn asked(&mut self) {
        self.timer = Some(Box::pin(sleep(PATIENCE)));
    }

    /// Waits for the end of the time that the client has.
    pub(super) fn poll_over(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.writer = Some(cx.waker().clone());
        self.timer.as_mut().map_or(Poll::Pending, |timer| timer.as_mut().poll(cx))
    }

    /// The client has shown that it reads on, or that it is gone.
    pub(super) fn settle(self) {
        if let Some(writer) = self.writer {
            writer.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::http1::parse_request;
    use super::*;

    #[test]
    fn those_who_lose_bytes_are_known_by_their_requests() {
        let mihomo = "Host: h\r\nUser-Agent: Go-http-client/1.1\r\nConnection: Upgrade\r\nSec-Websocket-Key: k\r\n\
            Sec-Websocket-Protocol: AAAA\r\nSec-Websocket-Version: 13\r\nUpgrade: websocket\r\n";
        let sing = "Host: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
            Sec-WebSocket-Key: k\r\nSec-WebSocket-Protocol: AAAA\r\nUser-Agent: Go-http-client/1.1\r\n";
        let xray = "Host: h\r\nUser-Agent: Mozilla/5.0\r\nConnection: Upgrade\r\nSec-Fetch-Mode: websocket\r\n\
            Sec-WebSocket-Key: k\r\nSec-WebSocket-Protocol: AAAA\r\nSec-WebSocket-Version: 13\r\nUpgrade: websocket\r\n";
        for (fields, due) in [(mihomo, true), (sing, true), (xray, false)] {
            let request = parse_request(format!("GET / HTTP/1.1\r\n{fields}\r\n").as_bytes()).expect("whole");
            assert_eq!(is_due(&request.fields), due, "{fields}");
        }
    }
}
