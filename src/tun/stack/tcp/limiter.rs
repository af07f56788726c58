//! A bound on how many challenge acknowledgements are sent (RFC 5961 section 7).

use crate::time::Moment;
use std::time::Duration;

/// How many may be sent in one second.
const BURST: u32 = 100;

/// Counts what was sent in the second that runs.
#[derive(Debug)]
pub(crate) struct Limiter {
    since: Moment,
    sent: u32,
}

impl Limiter {
    /// A limiter that has counted nothing.
    pub(crate) const fn new() -> Self {
        Self { since: Moment::ZERO, sent: 0 }
    }

    /// Whether one more may be sent; if so, it is counted.
    pub(crate) fn allows(&mut self, now: Moment) -> bool {
        if now.since(self.since) >= Duration::from_secs(1) {
            (self.since, self.sent) = (now, 0);
        }
        self.sent = self.sent.saturating_add(1);
        self.sent <= BURST
    }
}
