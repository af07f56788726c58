//! When the carrier's own end follows the end of our payload.
//!
//! V2Ray and Xray take the terminating chunk for the end of the uplink, others wait for the carrier's FIN. But sing-box,
//! from 1.13 on, closes both directions when that comes, and the answer is lost. Such a server gives itself away: its
//! response header comes alone, as soon as its target is connected, where others send it with the first payload. So the
//! FIN waits until the server has shown which kind it is, and on this kind for the end of the downlink.

use super::opening::Opening;
use crate::vmess::client::Downlink;
use std::future::Future;
use std::pin::Pin;
use std::task::Context;
use std::time::Duration;
use tokio::time::{Instant, Sleep, sleep};

/// How long after our last payload the server has to show which kind it is.
const SHOWS_WITHIN: Duration = Duration::from_secs(1);
/// After so long without payload from it, a server whose header came alone gets the FIN all the same, if an answer is due:
/// earlier versions pass it on, and their target may be waiting for it. An app that has had its answer has rather closed
/// than half-closed, so there the first wait is all.
const SILENT: Duration = Duration::from_secs(10);

/// How far the end of our direction has come.
pub(super) enum Closing {
    /// Our payload has not ended.
    Open,
    /// It has, and the FIN waits.
    Held {
        timer: Pin<Box<Sleep>>,
        /// Whether our last payload was still without an answer.
        unreplied: bool,
        /// Whether the response header is known to have come alone.
        alone: bool,
        /// Whether payload has come since the timer was set.
        moved: bool,
    },
    /// The carrier may be closed.
    Due,
    /// The carrier has been closed.
    Closed,
}

impl Closing {
    /// Our payload has ended, and everything has been written. `unreplied`: no payload has come since the last of ours.
    pub(super) fn begin(&mut self, unreplied: bool) {
        if matches!(self, Self::Open) {
            *self =
                Self::Held { timer: Box::pin(sleep(SHOWS_WITHIN)), unreplied, alone: false, moved: false };
        }
    }

    /// Whether the carrier is to be closed now; registers the task to be woken when time alone makes it so. `moved`:
    /// payload has come since the last call.
    pub(super) fn is_due(&mut self, cx: &mut Context<'_>, opening: &Opening<Downlink>, moved: bool) -> bool {
        if let Self::Held { timer, unreplied, alone, moved: moved_since } = self {
            *moved_since |= moved;
            if opening.answered_alone() && !*alone {
                *alone = true;
                *moved_since |= *unreplied;
            }
            let shown = opening.is_over() || (opening.answered() && !*alone);
            if shown || is_over(timer, moved_since, cx) {
                *self = Self::Due;
            }
        }
        matches!(self, Self::Due)
    }
}

/// Whether the time is up; if something moved meanwhile it starts anew.
fn is_over(timer: &mut Pin<Box<Sleep>>, moved: &mut bool, cx: &mut Context<'_>) -> bool {
    while timer.as_mut().poll(cx).is_ready() {
        if !std::mem::take(moved) {
            return true;
        }
        timer.as_mut().reset(Instant::now() + SILENT);
    }
    false
}
