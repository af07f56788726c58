//! A client's first bytes: who it is and what it asks for.

use super::{Limit, Server};
use crate::buffer::Buffer;
use crate::config::LogLevel;
use crate::transport::Carrier;
use crate::vmess::gate::{Accepted, Acceptor, Step};
use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll, ready};
use zeroize::Zeroizing;

/// The most that is read at a time while the header is not whole: what comes with it, the first record as a rule, is kept
/// only once the client has proved itself.
const PIECE: usize = 4096;

/// What came of a greeting.
pub(super) enum Greeting {
    /// A user's request, and what was read behind it.
    Known(Box<Accepted>, Buffer),
    /// The client has not proved itself, and is not to learn that.
    Stranger,
    /// A user's request that cannot be served.
    Invalid,
    /// The client has ended the connection.
    Gone,
}

/// Reads until the client is known not to be, or to be, a user. Holds no more than what a header can still need.
pub(super) async fn greet<C: Carrier>(server: &Server, carrier: &mut C) -> Greeting {
    let mut acceptor = Acceptor::new();
    let mut input = Zeroizing::new(Vec::new());
    let mut needed = 1;
    loop {
        match poll_fn(|cx| poll_read(server, carrier, &mut input, cx)).await {
            Ok(0) | Err(_) => return Greeting::Gone,
            Ok(_) => {}
        }
        if input.len() < needed {
            continue;
        }
        match acceptor.step(&server.gate, &mut input, server.shard.clock.unix_secs()) {
            Step::Need(more) => needed = more,
            Step::Accepted(accepted) => {
                let early = match input.get(accepted.consumed..).unwrap_or_default() {
                    [] => Buffer::empty(),
                    rest => match server.shard.pool.copy(rest) {
                        Some(early) => early,
                        None => {
                            server.tell(Limit::Memory);
                            return Greeting::Invalid;
                        }
                    },
                };
                return Greeting::Known(accepted, early);
            }
            Step::Refused(refusal) => {
                server.tell_refusal(refusal);
                return Greeting::Stranger;
            }
            Step::Invalid(error) => {
                let tag = &server.tag;
                let text = format_args!("vmess [{tag}]: a user's request is invalid: {error}");
                server.shard.shared.log(LogLevel::Debug, text);
                return Greeting::Invalid;
            }
        }
    }
}

/// Appends what is at hand.
fn poll_read<C: Carrier>(
    server: &Server,
    carrier: &mut C,
    input: &mut Vec<u8>,
    cx: &mut Context<'_>,
) -> Poll<io::Result<usize>> {
    ready!(carrier.poll_read_ready(cx))?;
    let mut scratch = server.scratch.borrow_mut();
    let piece = scratch.get_mut(..PIECE).unwrap_or_default();
    let read = ready!(carrier.poll_read(cx, piece))?;
    input.extend_from_slice(piece.get(..read).unwrap_or_default());
    Poll::Ready(Ok(read))
}
