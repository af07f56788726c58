//! What happens to those who do not get in: everything they send is read and discarded, without a limit and without a
//! buffer, until the deadline that all of them share. Then comes our end, and never a reset, which what was left unread
//! would make of it.

use super::super::listener::read_now;
use super::Server;
use socket2::SockRef;
use std::cell::Cell;
use std::net::Shutdown;
use std::time::Duration;
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};

/// How many are read from at a time, a shard and inbound. The others find that their window fills.
const MAX_READ: usize = 1024;
/// How many reads a drain makes before others have their turn.
const BUDGET: usize = 4;
/// How long after our end what the client still sends is read: a reset would overtake our end else.
const LINGER: Duration = Duration::from_secs(2);

/// The drains under way.
#[derive(Debug, Default)]
pub(super) struct Drains(Cell<usize>);

/// One of those that are read from.
struct Place<'a>(&'a Drains);

impl Drains {
    fn enter(&self) -> Option<Place<'_>> {
        let reading = self.0.get();
        (reading < MAX_READ).then(|| {
            self.0.set(reading + 1);
            Place(self)
        })
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.0.set(self.0.0.get() - 1);
    }
}

/// Discards what a client sends until `deadline`, then ends the connection. If the client ends it first, so do we.
pub(super) async fn drain(server: &Server, stream: &TcpStream, deadline: Instant) {
    let over = match server.drains.enter() {
        Some(_place) => timeout_at(deadline, discard(server, stream)).await,
        None => timeout_at(deadline, until_closed(stream)).await,
    };
    if over.is_err() {
        end(server, stream).await;
    } else {
        discard_at_hand(server, stream);
    }
}

/// Ends a connection without a reset, whatever the client is still sending.
async fn end(server: &Server, stream: &TcpStream) {
    // Fails only on a connection that is over.
    if SockRef::from(stream).shutdown(Shutdown::Write).is_ok() {
        let _ = timeout(LINGER, discard(server, stream)).await;
    }
    discard_at_hand(server, stream);
}

/// Closes at once, with an end and not a reset as far as that is ours to choose.
pub(super) fn dismiss(server: &Server, stream: &TcpStream) {
    // Fails only on a connection that is over.
    let _ = SockRef::from(stream).shutdown(Shutdown::Write);
    discard_at_hand(server, stream);
}

/// Reads until the client has ended its direction, or the connection is broken.
async fn discard(server: &Server, stream: &TcpStream) {
    while stream.readable().await.is_ok() {
        if discard_some(server, stream) {
            return;
        }
        tokio::task::yield_now().await;
    }
}

/// Discards what is at hand, some reads of it; whether that was the end.
fn discard_some(server: &Server, stream: &TcpStream) -> bool {
    let mut scratch = server.scratch.borrow_mut();
    for _ in 0..BUDGET {
        match read_now(stream, &mut scratch) {
            Ok(Some(0)) | Err(_) => return true,
            Ok(Some(read)) if read == scratch.len() => {}
            Ok(_) => return false,
        }
    }
    false
}

/// Empties the socket before it is closed: closing it with unread bytes is a reset.
fn discard_at_hand(server: &Server, stream: &TcpStream) {
    let mut scratch = server.scratch.borrow_mut();
    // A client that sends faster than this does not see a clean end anyway.
    for _ in 0..1024 {
        if !matches!(stream.try_read(&mut scratch), Ok(1..)) {
            return;
        }
    }
}

/// Waits until the client has ended its direction, and reads nothing.
async fn until_closed(stream: &TcpStream) {
    while let Ok(ready) = stream.ready(Interest::READABLE).await {
        if ready.is_read_closed() {
            return;
        }
        // What has come is left where it is; what comes later wakes us again, until the window is full.
        let _ = stream.try_io(Interest::READABLE, || Err::<(), _>(std::io::ErrorKind::WouldBlock.into()));
    }
}
