//! The composer: it turns a config's values into running inbounds, outbounds and relays on a shard.
//!
//! * [`instance`] is the handle that hosts hold; [`runner`] the shard's thread behind it; they talk by [`mailbox`], and
//!   answers come back as [`pending`].
//! * A server's shard has others beside it, a thread each: [`workers`] to the first one, a [`worker`] to itself. What they
//!   accept from is in [`listeners`].
//! * [`shard`] is what the tasks of a thread share, [`shared`] what every thread may see: counters, events, state, log.
//! * [`users`] is what hosts see of the users of VMess inbounds, and how they change them.
//! * [`host`] keeps foreign code (the platform's callbacks, wakers) on threads of its own.
//! * [`inbound`] and [`outbound`] are where flows come in and go out; what is known of servers is judged by [`health`],
//!   what of our clock by [`skew`].

pub(crate) mod api;
mod budget;
mod causes;
mod check;
pub(crate) mod clock;
mod connections;
mod crew;
mod dispatch;
mod entropy;
mod events;
mod gates;
mod health;
mod host;
mod inbound;
pub(crate) mod instance;
mod listeners;
mod mailbox;
mod measure;
mod network;
mod outbound;
mod pace;
pub(crate) mod pending;
mod places;
mod relay;
mod runner;
mod running;
mod shard;
mod shared;
mod skew;
mod stats;
#[cfg(test)]
pub(crate) mod tests;
mod users;
mod worker;
mod workers;

#[cfg(feature = "quic")]
pub(crate) use entropy::SystemEntropy;
pub(crate) use host::HostLink;
pub use measure::{Measured, measure};
pub(crate) use outbound::{OpenError, Outbound};
pub(crate) use shard::Shard;
