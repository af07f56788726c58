//! The relay: one future that moves a connection's payload both ways until both directions have ended.
//!
//! A direction drains in batches until nothing is at hand, flushes once a batch, and yields after a budget so that no
//! flow starves the others. Ends pass on one by one (half-close); a failure aborts both sides, so that neither app nor
//! server can take a cut stream for a whole one. But what the server said before it failed reaches the app first: one that
//! answers early and closes while the app still sends resets the carrier behind its answer. All deadlines share one timer,
//! armed for the nearest of them and moved only when it fires or a nearer one comes up: an idle connection wakes nobody.
//!
//! The timer stands still while the device sleeps. Deadlines do not: whatever wakes a relay first after a sleep, a packet
//! or the host's `wake`, finds them passed.

use super::pace;
use crate::transport::{Stream, StreamError};
use std::future::Future;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::{Instant, Sleep, sleep_until};

/// The most payload that a direction moves before the relay yields.
const BUDGET: usize = 256 * 1024;
/// How long after accept the header goes out alone if the app says nothing: clients of SSH and SMTP wait for a banner.
pub(crate) const HEADER_ALONE: Duration = Duration::from_millis(50);
/// After so long without an answer a flow that has sent data counts as silent.
const SILENT: Duration = Duration::from_secs(10);
/// A flow that ends sooner than this after its first data, unanswered, says nothing about the server.
const TOO_SHORT: Duration = Duration::from_secs(1);
/// How long the app has to take what a server said before it failed.
const LAST_WORDS: Duration = Duration::from_secs(10);
/// An app that ends its direction when it has had its answer has rather closed than half-closed. Where the server cannot be
/// told of the one without the other, it is told of both after so long without more payload, at the latest.
const CLOSED: Duration = Duration::from_secs(5);
/// Less sleep than this is what reading two clocks one after the other looks like.
const NAP: Duration = Duration::from_millis(500);

/// How long a relay waits for what.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Terms {
    /// Silence both ways.
    pub(crate) conn_idle: Duration,
    /// Silence of the uplink once the downlink has ended; zero ends at once.
    pub(crate) uplink_only: Duration,
    /// Silence of the downlink once the uplink has ended; zero ends at once.
    pub(crate) downlink_only: Duration,
    /// When what the protocol must say first goes out without payload.
    pub(crate) header_alone: Instant,
}

/// What a relay tells while it runs.
pub(crate) trait Meter {
    /// So many bytes of payload went each way since the last call.
    fn moved(&self, uplink: usize, downlink: usize);

    /// The flow has sent data, and no answer has come for 10 s, or until it ended.
    fn silent(&self);

    /// Whether the connection is to be closed; registers the task to be woken for that.
    fn poll_closed(&self, cx: &mut Context<'_>) -> Poll<()>;

    /// How long the device has slept in all.
    fn slept(&self) -> Duration;
}

/// Which side of a relay failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    /// The app's.
    Local,
    /// The outbound's.
    Remote,
}

/// Why a relay ended before both directions had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RelayError {
    /// One side failed.
    #[error("{side:?}: {error}")]
    Stream {
        /// The side.
        side: Side,
        /// How.
        error: StreamError,
    },
    /// Nothing moved for too long.
    #[error("idle for too long ({0})")]
    Idle(&'static str),
    /// `close_connection`, or the end of the instance.
    #[error("closed on request")]
    Closed,
}

/// Moves payload between an app's end and an outbound's until both directions have ended.
///
/// A future with one field for everything, not an `async fn`: an idle flow pays for each byte of it. It fails with
/// [`RelayError`]; when it is ready both ends have been aborted as far as their peers must see that something is missing,
/// and it must not be polled again.
pub(crate) struct Relaying<M> {
    relay: Relay,
    meter: M,
    timer: Pin<Box<Sleep>>,
}

impl<M: Meter> Relaying<M> {
    /// Takes both ends; nothing is done before the first poll.
    pub(crate) fn new(local: Box<dyn Stream>, remote: Box<dyn Stream>, terms: Terms, meter: M) -> Self {
        let relay = Relay::new(local, remote, terms, meter.slept());
        let timer = Box::pin(sleep_until(relay.nearest()));
        Self { relay, meter, timer }
    }

    /// What it reports to.
    pub(crate) const fn meter(&self) -> &M {
        &self.meter
    }
}

impl<M: Meter + Unpin> Future for Relaying<M> {
    type Output = Result<(), RelayError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Self { relay, meter, timer } = self.get_mut();
        let result = relay.poll(cx, timer.as_mut(), meter);
        if let Poll::Ready(result) = &result {
            relay.close(result, meter);
        }
        result
    }
}

/// How far a direction has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Payload flows.
    Open,
    /// The source has ended, its end is being passed on.
    Ending,
    /// The end has been passed on.
    Done,
    /// The outbound has failed: nothing more moves.
    Broken,
}

/// One direction.
struct Direction {
    phase: Phase,
    /// Whether the destination holds payload that it has not passed on.
    unflushed: bool,
}

impl Direction {
    const fn new() -> Self {
        Self { phase: Phase::Open, unflushed: false }
    }

    /// Moves what is at hand and adds up in `moved` how much that was. `Err` tells whether it was the source that failed.
    fn pump(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut dyn Stream,
        destination: &mut dyn Stream,
        moved: &mut usize,
    ) -> Result<(), (bool, StreamError)> {
        let from_destination = |error| (false, error);
        if self.phase == Phase::Open && destination.poll_ready(cx).map_err(from_destination)?.is_ready() {
            let limit = destination.send_limit();
            while *moved < BUDGET {
                match source.poll_recv(cx, limit) {
                    Poll::Ready(Ok(Some(data))) => {
                        *moved += data.len();
                        self.unflushed = true;
                        destination.send(data).map_err(from_destination)?;
                    }
                    Poll::Ready(Ok(None)) => {
                        self.phase = Phase::Ending;
                        break;
                    }
                    Poll::Ready(Err(error)) => return Err((true, error)),
                    Poll::Pending => break,
                }
                if destination.poll_ready(cx).map_err(from_destination)?.is_pending() {
                    source.pass_turn();
                    break;
                }
            }
        } else {
            source.pass_turn();
        }
        if self.phase == Phase::Ending {
            if destination.poll_finish(cx).map_err(from_destination)?.is_ready() {
                self.phase = Phase::Done;
                self.unflushed = false;
            }
        } else if self.unflushed {
            self.unflushed = destination.poll_flush(cx).map_err(from_destination)?.is_pending();
        }
        if *moved >= BUDGET {
            // Comes back after the other tasks and the sockets had their turn; a plain wake-up would come before them.
            let _ = pin!(tokio::task::yield_now()).poll(cx);
        }
        Ok(())
    }
}

/// Whether the server has been heard of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    /// No data was sent, so none is due.
    NotDue,
    /// Data was first sent then.
    Due(Instant),
    /// It came, or its absence was told.
    Settled,
}

struct Relay {
    local: Box<dyn Stream>,
    remote: Box<dyn Stream>,
    terms: Terms,
    up: Direction,
    down: Direction,
    last_moved: Instant,
    /// What the timer is set to, once something has been waited for.
    armed: Option<Instant>,
    /// How long the device had slept at the last look. What it has slept since moves `last_moved` back.
    slept: Duration,
    /// Whether payload or the header alone has gone up.
    greeted: bool,
    /// Whether payload has come down since the last that went up.
    replied: bool,
    answer: Answer,
    /// How the outbound failed, while what came before that is on its way to the app.
    failure: Option<Box<StreamError>>,
}

impl Relay {
    fn new(local: Box<dyn Stream>, remote: Box<dyn Stream>, terms: Terms, slept: Duration) -> Self {
        let now = Instant::now();
        Self {
            local,
            remote,
            terms,
            up: Direction::new(),
            down: Direction::new(),
            last_moved: now,
            armed: None,
            slept,
            greeted: false,
            replied: false,
            answer: Answer::NotDue,
            failure: None,
        }
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        mut timer: Pin<&mut Sleep>,
        meter: &dyn Meter,
    ) -> Poll<Result<(), RelayError>> {
        if meter.poll_closed(cx).is_ready() {
            return Poll::Ready(Err(RelayError::Closed));
        }
        if self.has_slept(meter.slept())
            && let Some(over) = self.overdue(Instant::now())
        {
            return Poll::Ready(Err(over));
        }
        loop {
            let before = (self.up.phase, self.down.phase);
            let up = self.pump_up(cx, meter);
            self.outlive(up, false)?;
            let down = self.pump_down(cx, meter);
            self.outlive(down, true)?;
            if let Some(failure) = self.poll_last_words(cx) {
                return Poll::Ready(Err(failure));
            }
            let after = (self.up.phase, self.down.phase);
            if after == (Phase::Done, Phase::Done) {
                return Poll::Ready(Ok(()));
            }
            if before != after {
                // The limit that counts from here on is another one, and it counts from here.
                self.last_moved = Instant::now();
            }
            if self.poll_timer(cx, timer.as_mut(), meter)?.is_pending() {
                return Poll::Pending;
            }
        }
    }

    /// Goes on when the outbound has failed, for the app to have what came before. `down`: in its downlink.
    fn outlive(&mut self, result: Result<(), RelayError>, down: bool) -> Result<(), RelayError> {
        let Err(RelayError::Stream { side: Side::Remote, error }) = result else { return result };
        self.failure = Some(Box::new(error));
        self.up = Direction { phase: Phase::Broken, unflushed: false };
        if down {
            self.down.phase = Phase::Broken;
        }
        self.last_moved = Instant::now();
        Ok(())
    }

    /// The outbound's failure, once the app has all that came before.
    fn poll_last_words(&mut self, cx: &mut Context<'_>) -> Option<RelayError> {
        let error = self.failure.as_deref()?;
        let is_over = matches!(self.down.phase, Phase::Done | Phase::Broken);
        (is_over && self.local.poll_drained(cx).is_ready())
            .then(|| RelayError::Stream { side: Side::Remote, error: error.clone() })
    }

    fn pump_up(&mut self, cx: &mut Context<'_>, meter: &dyn Meter) -> Result<(), RelayError> {
        if !self.greeted && self.is_header_due(Instant::now()) {
            self.greeted = true;
            self.up.unflushed = true;
        }
        let mut moved = 0;
        let pumped = self.up.pump(cx, &mut *self.local, &mut *self.remote, &mut moved);
        if moved > 0 {
            self.greeted = true;
            self.replied = false;
            self.last_moved = Instant::now();
            meter.moved(moved, 0);
            pace::moved(moved);
            if self.answer == Answer::NotDue && !self.remote.answered() {
                self.answer = Answer::Due(self.last_moved);
            }
        }
        pumped.map_err(|(of_source, error)| {
            let side = if of_source { Side::Local } else { Side::Remote };
            RelayError::Stream { side, error }
        })
    }

    fn pump_down(&mut self, cx: &mut Context<'_>, meter: &dyn Meter) -> Result<(), RelayError> {
        let mut moved = 0;
        let pumped = self.down.pump(cx, &mut *self.remote, &mut *self.local, &mut moved);
        if moved > 0 {
            self.replied = true;
            self.last_moved = Instant::now();
            meter.moved(0, moved);
            pace::moved(moved);
        }
        if matches!(self.answer, Answer::Due(_)) && self.remote.answered() {
            self.answer = Answer::Settled;
            // Nothing is due at the silence's deadline any more, so it is not to wake anybody.
            self.armed = None;
        }
        pumped.map_err(|(of_source, error)| {
            let side = if of_source { Side::Remote } else { Side::Local };
            RelayError::Stream { side, error }
        })
    }

    /// The limit on silence in the present phase, and its name.
    fn idle_limit(&self) -> (Duration, &'static str) {
        match (self.up.phase, self.down.phase) {
            (Phase::Broken, _) => (LAST_WORDS, "the rest of the answer"),
            (Phase::Done, _) if self.replied && !self.remote.half_closes() => {
                (self.terms.downlink_only.min(CLOSED), "downlinkOnly")
            }
            (Phase::Done, _) => (self.terms.downlink_only, "downlinkOnly"),
            (_, Phase::Done) => (self.terms.uplink_only, "uplinkOnly"),
            _ => (self.terms.conn_idle, "connIdle"),
        }
    }

    /// Takes into account what the device has slept since the last look; `false` if it has not.
    fn has_slept(&mut self, slept: Duration) -> bool {
        let nap = slept.saturating_sub(self.slept);
        if nap < NAP {
            return false;
        }
        self.slept = slept;
        // Instants reach far below the system's start.
        self.last_moved = self.last_moved.checked_sub(nap).unwrap_or(self.last_moved);
        true
    }

    /// What ends the relay if nothing has moved for too long.
    fn overdue(&self, now: Instant) -> Option<RelayError> {
        let (limit, name) = self.idle_limit();
        let over = || match self.failure.as_deref() {
            Some(error) => RelayError::Stream { side: Side::Remote, error: error.clone() },
            None => RelayError::Idle(name),
        };
        (now >= self.last_moved + limit).then(over)
    }

    /// The nearest deadline.
    fn nearest(&self) -> Instant {
        let mut nearest = self.last_moved + self.idle_limit().0;
        if !self.greeted && self.up.phase == Phase::Open {
            nearest = nearest.min(self.terms.header_alone);
        }
        if let Answer::Due(since) = self.answer {
            nearest = nearest.min(since + SILENT);
        }
        nearest
    }

    /// Ready when the header is due and the uplink must be looked at again.
    fn poll_timer(
        &mut self,
        cx: &mut Context<'_>,
        mut timer: Pin<&mut Sleep>,
        meter: &dyn Meter,
    ) -> Poll<Result<(), RelayError>> {
        loop {
            let nearest = self.nearest();
            if self.armed.is_none_or(|armed| nearest < armed) {
                // A timer that is reset to a later time stays where it was and wakes the thread there for nothing.
                timer.set(sleep_until(nearest));
                self.armed = Some(nearest);
            }
            if timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            let now = Instant::now();
            if let Answer::Due(since) = self.answer
                && now >= since + SILENT
            {
                self.tell_silent(meter);
            }
            if let Some(over) = self.overdue(now) {
                return Poll::Ready(Err(over));
            }
            if self.is_header_due(now) {
                return Poll::Ready(Ok(()));
            }
            self.armed = None;
        }
    }

    /// Whether the app has said nothing for so long that the header goes out alone.
    fn is_header_due(&self, now: Instant) -> bool {
        !self.greeted && self.up.phase == Phase::Open && now >= self.terms.header_alone
    }

    fn tell_silent(&mut self, meter: &dyn Meter) {
        self.answer = Answer::Settled;
        meter.silent();
    }

    /// Lets both ends go. What has not ended properly is aborted; what has is left to the operating system to deliver.
    fn close(&mut self, result: &Result<(), RelayError>, meter: &dyn Meter) {
        let rejected = matches!(
            result,
            Err(RelayError::Stream { error: StreamError::Rejected, .. } | RelayError::Closed)
        );
        if let Answer::Due(since) = self.answer
            && !rejected
            && since.elapsed() >= TOO_SHORT
        {
            self.tell_silent(meter);
        }
        if result.is_ok() {
            return;
        }
        let idle = matches!(result, Err(RelayError::Idle(_)));
        let outlived = self.failure.is_some() && !matches!(result, Err(RelayError::Closed));
        let (up_done, down_done) = (self.up.phase == Phase::Done, self.down.phase == Phase::Done);
        // An end that was passed on may still be on its way in the kernel: an abort would cut it off.
        if !((idle || outlived) && down_done) {
            self.local.abort();
        }
        if !(idle && (up_done || down_done)) {
            self.remote.abort();
        }
    }
}

const _: () = assert!(size_of::<Relay>() <= 192);

#[cfg(test)]
mod tests;
