//! The composer: it turns a config's values into running inbounds, outbounds and relays on a shard.

pub(crate) mod api;
mod outbound;
mod shard;
mod shared;
