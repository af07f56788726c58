//! What transports put around the protocol's bytes, as far as that is our own work: readers and writers without IO, which
//! the transports run.

pub mod hunk;
