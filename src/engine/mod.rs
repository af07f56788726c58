//! The composer: it turns a config's values into running inbounds, outbounds and relays on a shard.
//!
//! * [`instance`] is the handle that hosts hold; [`runner`] the shard's thread behind it; they talk by [`mailbox`], and
//!   answers come back as [`pending`].
//! * [`shard`] is what the tasks of that thread share, [`shared`] what every thread may see: counters, events, state, log.
//! * [`users`] is what hosts see of the users of VMess inbounds, and how they change them.
//! * [`host`] keeps foreign code (the platform's callbacks, wakers) on threads of its own.
//! * [`inbound`] and [`outbound`] are where flows come in and go out; what is known of servers is judged by [`health`].

pub(crate) mod api;
mod budget;
mod causes;
mod check;
mod clock;
mod connections;
mod dispatch;
mod entropy;
mod events;
mod gates;
mod health;
mod host;
mod inbound;
pub(crate) mod instance;
mod mailbox;
mod measure;
mod network;
mod outbound;
pub(crate) mod pending;
mod relay;
mod runner;
mod running;
mod shard;
mod shared;
mod stats;
#[cfg(test)]
pub(crate) mod tests;
mod users;

pub use measure::measure;
pub(crate) use shard::Shard;
