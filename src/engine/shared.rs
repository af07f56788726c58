//! The side of an instance that every thread sees.

/// Counters, events, state and log of one instance.
pub(crate) struct Shared {}
