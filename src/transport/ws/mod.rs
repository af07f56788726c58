//! WebSocket (RFC 6455): an upgrade, then binary messages whose borders carry no meaning.
//!
//! The frames are our own work. Libraries for them gather a message in memory of theirs and hand it over whole, which is a
//! second copy and a buffer a connection; here payload is found where the caller had it read to, and masked on its way out.
//!
//! * [`frame`]: heads and the mask. [`deframe`] and [`framer`]: the two directions. [`carrier`]: both of them on a carrier.
//! * [`handshake`]: what WebSocket adds to the upgrade.
//! * [`early`]: a client whose upgrade waits for the first bytes and takes them along. [`doubt`]: what some of those make a
//!   server wait for.

mod carrier;
mod deframe;
mod doubt;
mod early;
mod frame;
mod framer;
mod handshake;
#[cfg(test)]
mod tests;

pub(crate) use frame::FrameError;

use super::Carrier;
use super::accept::AcceptError;
use super::behind::Behind;
use super::dial::DialError;
use super::upgrade::{self, Upgrade};
use crate::config::Ws;
use crate::engine::Shard;
use carrier::WsCarrier;
use early::Delayed;
use handshake::{Client, Handshake};
use std::rc::Rc;
use tokio::time::Instant;

/// Opens a WebSocket on a connected carrier. `authority`: the host to name where the config names none.
///
/// With early data nothing is sent yet: the first write starts the upgrade, which then has as long as was left until the
/// deadline; its failure is an error of the carrier with a [`DialError`] inside.
///
/// # Errors
/// [`DialError`] of stage `upgrade`.
pub(super) async fn connect<C: Carrier + 'static>(
    carrier: C,
    settings: &Ws,
    authority: &str,
    shard: &Rc<Shard>,
    deadline: Instant,
) -> Result<Box<dyn Carrier>, DialError> {
    let handshake = Handshake::new(settings, authority, shard);
    let mut carrier = Behind::new(carrier, Vec::new());
    if settings.max_early_data > 0 {
        return Ok(Box::new(Delayed::new(carrier, handshake, Rc::clone(shard), deadline)));
    }
    let started = Instant::now();
    let answer = Upgrade::new(handshake.request(&[])).run(&mut carrier, deadline).await;
    answer.and_then(|answer| handshake.check(&answer)).map_err(|error| error.into_dial(started))?;
    Ok(Box::new(WsCarrier::client(carrier, Rc::clone(shard), settings.heartbeat)))
}

/// Takes a client's upgrade and answers it. Early data comes out of the carrier first.
///
/// # Errors
/// [`AcceptError`]; the client has been answered and sent away.
pub(super) async fn accept<C: Carrier + 'static>(
    carrier: C,
    settings: &Ws,
    shard: &Rc<Shard>,
) -> Result<Box<dyn Carrier>, AcceptError> {
    let mut carrier = Behind::new(carrier, Vec::new());
    let Client { early, loses } = match handshake::answer(&mut carrier, settings).await {
        Ok(client) => client,
        Err(error) => return Err(upgrade::give_up(carrier, error).await),
    };
    // Nothing can follow the 101 closely before a client without early data has said what it wants.
    let carrier = WsCarrier::server(carrier, Rc::clone(shard), loses && !early.is_empty());
    if early.is_empty() {
        return Ok(Box::new(carrier));
    }
    Ok(Box::new(Behind::new(carrier, early)))
}
