//! DNS: the message helpers that forwarding and resolving need, and our own client for server names.
//!
//! [`message`] reads and writes messages, [`forward`] is the table by which many apps share one stream to a resolver,
//! [`cache`] remembers addresses, [`sntp`] is how time servers are asked; all of these are pure. `client` asks the network's own servers, outside the tunnel, by way
//! of `exchange` and `system`. Choosing a resolver for an app's query and moving its bytes is the inbound's work.

pub mod cache;
#[cfg(feature = "runtime")]
pub(crate) mod client;
#[cfg(feature = "runtime")]
mod exchange;
pub mod forward;
pub mod message;
pub mod sntp;
#[cfg(feature = "runtime")]
mod system;
