//! What happens to those who do not get in: everything they send is read and discarded, without a limit and without a
//! buffer, until the deadline that all of them share. Then comes our end, and never a reset, which what was left unread
//! would make of it.

use super::Server;
use crate::transport::Carrier;
use std::cell::Cell;
use std::future::poll_fn;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::task::unconstrained;
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
pub(super) async fn drain<C: Carrier>(server: &Server, carrier: &mut C, deadline: Instant) {
    let over = match server.drains.enter() {
        Some(_place) => timeout_at(deadline, discard(server, carrier)).await,
        // What comes is left where it is, until the window is full.
        None => timeout_at(deadline, carrier.closed()).await,
    };
    if over.is_err() {
        end(server, carrier).await;
    }
    discard_at_hand(server, carrier).await;
}

/// Ends a connection without a reset, whatever the client is still sending.
async fn end<C: Carrier>(server: &Server, carrier: &mut C) {
    let end = async {
        // Fails only on a connection that is over.
        if poll_fn(|cx| carrier.poll_close(cx)).await.is_ok() {
            discard(server, carrier).await;
        }
    };
    let _ = timeout(LINGER, end).await;
}

/// Closes at once, with an end and not a reset as far as that is ours to choose.
pub(super) async fn dismiss<C: Carrier>(server: &Server, carrier: &mut C) {
    // One that cannot take our end now has no time left for it.
    poll_fn(|cx| {
        let _ = carrier.poll_close(cx);
        Poll::Ready(())
    })
    .await;
    discard_at_hand(server, carrier).await;
}

/// Reads until the client has ended its direction, or the connection is broken.
async fn discard<C: Carrier>(server: &Server, carrier: &mut C) {
    while !poll_fn(|cx| discard_some(server, carrier, cx)).await {
        tokio::task::yield_now().await;
    }
}

/// Waits for something to discard, and discards some reads of it; whether that was the end.
fn discard_some<C: Carrier>(server: &Server, carrier: &mut C, cx: &mut Context<'_>) -> Poll<bool> {
    if ready!(carrier.poll_read_ready(cx)).is_err() {
        return Poll::Ready(true);
    }
    let mut scratch = server.scratch.borrow_mut();
    let mut some = false;
    for _ in 0..BUDGET {
        match carrier.poll_read(cx, &mut scratch) {
            Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(true),
            Poll::Ready(Ok(read)) if read == scratch.len() => some = true,
            Poll::Pending if !some => return Poll::Pending,
            _ => return Poll::Ready(false),
        }
    }
    Poll::Ready(false)
}

/// Empties the carrier before it is closed: closing a socket with unread bytes is a reset.
async fn discard_at_hand<C: Carrier>(server: &Server, carrier: &mut C) {
    let discard = poll_fn(|cx| {
        let mut scratch = server.scratch.borrow_mut();
        // A client that sends faster than this does not see a clean end anyway.
        for _ in 0..1024 {
            if !matches!(carrier.poll_read(cx, &mut scratch), Poll::Ready(Ok(1..))) {
                break;
            }
        }
        Poll::Ready(())
    });
    // In one go: what comes in between would be left unread.
    unconstrained(discard).await;
}
