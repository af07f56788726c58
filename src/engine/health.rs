//! What is known of the servers: dials that failed, servers that closed or stayed silent, and what is likely behind it.
//!
//! Outbounds report, this judges: events, the state and the last error come from here. Silence is not failure: it ends no
//! flow, and it takes three silent flows in a row to say so. What is remembered is bounded by the config's outbounds.
//!
//! The shards of an instance share one judge, so that there is one truth: its lock is taken a few times in a flow's life,
//! never for its data.

use super::api::{Event, State};
use super::causes::{Evidence, of_rejection, of_silence};
use super::shared::Shared;
use crate::config::{Config, LogLevel, OutboundProtocol};
use crate::error::{Error, ErrorKind};
use crate::time::Moment;
use crate::vmess::Security;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// After how many failures in a row, without a success between, the state is `Degraded`.
const FAILURES: u32 = 3;
/// The same for rejections by a server that has answered before: several servers close in the same way when a target
/// cannot be reached.
const REJECTIONS_BY_KNOWN: u32 = 8;
/// After how many rejections in a row a server that has answered before is said to reject us.
const TOLD_OF_KNOWN: u32 = 3;
/// How many silent flows within [`WINDOW`] make an outbound unhealthy.
const SILENT: usize = 3;
/// The time within which silent flows count together.
const WINDOW: Duration = Duration::from_secs(30);
/// How often the same outbound's rejections become an event.
const PAUSE: Duration = Duration::from_secs(30);

/// Judges what outbounds report, and turns it into events, the state and the last error.
pub(crate) struct Health {
    shared: Arc<Shared>,
    known: Mutex<Known>,
}

/// What the judgement rests on.
struct Known {
    /// The outbounds that dial a server; others are of no interest here.
    servers: Vec<Server>,
    /// Whether the start is over: states before it are not ours to enter.
    running: bool,
    network: bool,
    /// When it was last told that something has run out.
    exhausted: Option<Moment>,
}

#[derive(Default)]
struct Server {
    outbound: Arc<str>,
    /// Whether it has ever answered.
    known: bool,
    /// Whether it has answered on the network below.
    answered: bool,
    /// Failures in a row.
    failures: u32,
    silent: Vec<Moment>,
    /// Whether the silence has been told.
    told: bool,
    /// When a rejection was last told.
    rejected: Option<Moment>,
    /// What is wrong with it.
    fault: Option<String>,
}

impl Health {
    /// Nothing is known yet.
    pub(crate) fn new(shared: Arc<Shared>, config: &Config) -> Self {
        let known = Known { servers: Vec::new(), running: false, network: true, exhausted: None };
        let health = Self { shared, known: Mutex::new(known) };
        health.configure(config);
        health
    }

    /// Takes up a config; outbounds that keep their tag keep what is known of them.
    pub(crate) fn configure(&self, config: &Config) {
        let mut known = self.lock();
        let mut old = std::mem::take(&mut known.servers);
        let dialling =
            config.outbounds.iter().filter(|out| matches!(out.protocol, OutboundProtocol::Vmess(_)));
        let servers = dialling.map(|outbound| {
            let kept = old.iter().position(|server| server.outbound == outbound.tag);
            kept.map_or_else(
                || Server { outbound: Arc::clone(&outbound.tag), ..Server::default() },
                |at| old.swap_remove(at),
            )
        });
        known.servers = servers.collect();
        self.settle(known);
    }

    /// The start is over: enters the first state of a running tunnel.
    pub(crate) fn start(&self) {
        let mut known = self.lock();
        known.running = true;
        self.settle(known);
    }

    /// A connection to a server of the outbound could not be made.
    pub(crate) fn dial_failed(&self, outbound: &str, error: &Error) {
        if error.kind == ErrorKind::Stopped {
            return;
        }
        if let ErrorKind::ResourceLimit { what } = error.kind {
            self.exhausted(what);
        }
        let reason = match error.kind {
            ErrorKind::ServerUnreachable { stage } => {
                format!("the server cannot be reached, at the stage {}", stage.name())
            }
            ErrorKind::ProtectFailed => "the host does not protect sockets".into(),
            ErrorKind::ResourceLimit { what } => format!("out of {what}"),
            _ => error.text.to_string(),
        };
        self.failed(outbound, error, &reason, FAILURES);
    }

    /// Something has run out: tells the host, at most twice a minute.
    pub(crate) fn exhausted(&self, what: &'static str) {
        let now = self.shared.clock.now();
        let mut known = self.lock();
        if known.exhausted.is_none_or(|told| now.since(told) >= PAUSE) {
            known.exhausted = Some(now);
            drop(known);
            self.shared.emit(Event::ResourceLimit { what: what.into() });
        }
    }

    /// A server of the outbound closed before a valid response header. `security` is what the request asked for.
    pub(crate) fn rejected(&self, outbound: &str, security: Security) {
        let now = self.shared.clock.now();
        let seen = self.with(outbound, |server| {
            let enough = !server.known || server.failures + 1 >= TOLD_OF_KNOWN;
            let due = enough && server.rejected.is_none_or(|told| now.since(told) >= PAUSE);
            if due {
                server.rejected = Some(now);
            }
            (server.known, due)
        });
        let Some((known, due)) = seen else { return };
        let error =
            Error::new(ErrorKind::AuthRejected, "the server closed the connection before it answered")
                .with_hint("compare the id, the security and the clock with the server's");
        let patience = if known { REJECTIONS_BY_KNOWN } else { FAILURES };
        self.failed(outbound, &error, "the server closes before it answers", patience);
        if due {
            let likely = of_rejection(self.evidence(known), security);
            self.shared.emit(Event::AuthRejected { outbound: outbound.into(), likely });
        }
    }

    /// A valid response header came.
    pub(crate) fn answered(&self, outbound: &str) {
        let changed = self.with(outbound, |server| {
            let changed = !server.answered || server.fault.is_some();
            (server.known, server.answered) = (true, true);
            (server.failures, server.fault, server.told, server.rejected) = (0, None, false, None);
            server.silent.clear();
            changed
        });
        if changed == Some(true) {
            self.settle(self.lock());
        }
    }

    /// A flow has sent data and ended, or waited 10 s, without any answer; or its carrier died unheard. Whether that was one
    /// too many, so that the outbound is said to be unhealthy from now on.
    pub(crate) fn silent(&self, outbound: &str) -> bool {
        let now = self.shared.clock.now();
        let told = self.with(outbound, |server| {
            server.silent.retain(|at| now.since(*at) < WINDOW);
            if server.told || server.silent.len() + 1 < SILENT {
                if !server.told {
                    server.silent.push(now);
                }
                return None;
            }
            (server.told, server.fault) = (true, Some("the server does not answer".into()));
            server.silent = Vec::new();
            Some(of_silence(self.evidence(server.known)))
        });
        let Some(Some(likely)) = told else { return false };
        self.shared.log(
            LogLevel::Warning,
            format_args!("outbound \"{outbound}\": three flows sent data and received nothing"),
        );
        self.shared.emit(Event::OutboundUnhealthy { outbound: outbound.into(), likely });
        self.settle(self.lock());
        true
    }

    /// The network below has changed, or is gone: what failed on the old one says nothing any more.
    pub(crate) fn network_changed(&self, present: bool) {
        let mut known = self.lock();
        let was = std::mem::replace(&mut known.network, present);
        for server in &mut known.servers {
            (server.failures, server.fault, server.told) = (0, None, false);
            server.silent.clear();
            server.answered &= was && present;
        }
        self.settle(known);
    }

    /// Enters the state that follows from what is known. It is entered before anybody can know better, and told after the
    /// lock is released.
    fn settle(&self, known: MutexGuard<'_, Known>) {
        if !known.running {
            return;
        }
        let (_, news) = self.shared.enter(known.state());
        drop(known);
        news.tell();
    }

    fn failed(&self, outbound: &str, error: &Error, reason: &str, patience: u32) {
        let failures = self.with(outbound, |server| {
            server.failures = server.failures.saturating_add(1);
            if server.failures >= patience && server.fault.is_none() {
                server.fault = Some(reason.to_owned());
            }
            server.failures
        });
        let Some(failures) = failures else { return };
        // A dead link fails all the time: say so ever more rarely.
        if failures.is_power_of_two() {
            self.shared.log(
                LogLevel::Warning,
                format_args!("outbound \"{outbound}\": {error}; failures in a row: {failures}"),
            );
        }
        self.shared.set_last_error(error.clone());
        self.settle(self.lock());
    }

    fn evidence(&self, answered: bool) -> Evidence {
        let clock = &self.shared.clock;
        Evidence { answered, unix_secs: clock.unix_secs(), corrected: clock.offset() != 0 }
    }

    fn with<R>(&self, outbound: &str, change: impl FnOnce(&mut Server) -> R) -> Option<R> {
        let mut known = self.lock();
        known.servers.iter_mut().find(|server| &*server.outbound == outbound).map(change)
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn state(&self) -> State {
        let fault = self.servers.iter().find_map(|server| server.fault.as_ref());
        match fault {
            _ if !self.network => State::NoNetwork,
            Some(reason) => State::Degraded { reason: reason.clone() },
            None if self.servers.is_empty() || self.servers.iter().any(|server| server.answered) => {
                State::Connected
            }
            None => State::Connecting,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::tests::{config, vmess_outbound};
    use crate::error::Stage;
    use std::task::{Poll, Waker};

    fn health() -> Health {
        let mut config = config();
        config.outbounds.insert(0, vmess_outbound("proxy"));
        let health = Health::new(Arc::new(Shared::new(LogLevel::None)), &config);
        health.start();
        health
    }

    fn events(health: &Health) -> Vec<Event> {
        std::iter::from_fn(|| match health.shared.poll_event(0, || Waker::noop().clone()) {
            Poll::Ready(event) => event,
            Poll::Pending => None,
        })
        .collect()
    }

    fn unreachable() -> Error {
        Error::new(
            ErrorKind::ServerUnreachable { stage: Stage::Connect },
            "the server refused the connection",
        )
    }

    #[test]
    fn three_failed_dials_degrade_and_one_answer_heals() {
        let health = health();
        assert_eq!(health.shared.state(), State::Connecting);
        (0..2).for_each(|_| health.dial_failed("proxy", &unreachable()));
        assert_eq!(health.shared.state(), State::Connecting, "two may be chance");
        assert_eq!(health.shared.status().last_error, Some(unreachable()));
        (0..1000).for_each(|_| health.dial_failed("proxy", &unreachable()));
        let reason = "the server cannot be reached, at the stage connect".to_owned();
        assert_eq!(health.shared.state(), State::Degraded { reason: reason.clone() });
        health.answered("proxy");
        let states = [State::Connecting, State::Degraded { reason }, State::Connected].map(Event::State);
        assert_eq!(events(&health), states);
    }

    #[test]
    fn silence_is_told_once_until_an_answer_comes() {
        let health = health();
        (0..2).for_each(|_| _ = health.silent("proxy"));
        health.answered("proxy");
        (0..2).for_each(|_| _ = health.silent("proxy"));
        let told =
            |events: &[Event]| events.iter().filter(|e| matches!(e, Event::OutboundUnhealthy { .. })).count();
        assert_eq!(told(&events(&health)), 0, "a success lies between");
        (0..100).for_each(|_| _ = health.silent("proxy"));
        assert_eq!(told(&events(&health)), 1);
        assert!(matches!(health.shared.state(), State::Degraded { .. }));
        health.answered("proxy");
        (0..3).for_each(|_| _ = health.silent("proxy"));
        assert_eq!(told(&events(&health)), 1);
        (0..9).for_each(|_| _ = health.silent("direct"));
        assert_eq!(told(&events(&health)), 0, "freedom has no server");
    }

    #[test]
    fn rejections_are_told_at_once_and_then_rarely() {
        let health = health();
        (0..50).for_each(|_| health.rejected("proxy", Security::Zero));
        let told: Vec<_> = events(&health)
            .into_iter()
            .filter_map(|event| match event {
                Event::AuthRejected { outbound, likely } => Some((outbound, likely)),
                _ => None,
            })
            .collect();
        assert_eq!((told.len(), &*told[0].0), (1, "proxy"));
        assert_eq!(told[0].1[0].kind, super::super::api::CauseKind::Security);
        assert_eq!(health.shared.status().last_error.map(|error| error.kind), Some(ErrorKind::AuthRejected));
    }

    #[test]
    fn a_server_that_answers_now_and_then_is_not_said_to_reject_us() {
        let health = health();
        for _ in 0..20 {
            health.answered("proxy");
            (0..2).for_each(|_| health.rejected("proxy", Security::Auto));
        }
        health.answered("proxy");
        assert_eq!(events(&health), [State::Connecting, State::Connected].map(Event::State));
        (0..7).for_each(|_| health.rejected("proxy", Security::Auto));
        let told = events(&health);
        assert!(matches!(&told[..], [Event::AuthRejected { .. }]), "{told:?}");
        health.rejected("proxy", Security::Auto);
        assert!(matches!(health.shared.state(), State::Degraded { .. }));
    }

    #[test]
    fn what_runs_out_is_told_rarely() {
        let health = health();
        let what = "file descriptors";
        let error = Error::new(ErrorKind::ResourceLimit { what }, "no file descriptor is free");
        (0..2).for_each(|_| health.dial_failed("proxy", &error));
        let told = events(&health);
        assert_eq!(told, [Event::State(State::Connecting), Event::ResourceLimit { what: what.into() }]);
    }

    #[test]
    fn a_lost_network_hides_faults_and_a_new_one_starts_afresh() {
        let health = health();
        health.answered("proxy");
        (0..3).for_each(|_| health.dial_failed("proxy", &unreachable()));
        health.network_changed(false);
        assert_eq!(health.shared.state(), State::NoNetwork);
        health.network_changed(true);
        assert_eq!(health.shared.state(), State::Connecting);
    }
}
