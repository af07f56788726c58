//! Whether our clock is wrong: asked of the configured time server once a server has refused us, never before.
//!
//! What comes of it is told to the host. It corrects what we send only where the config says so, only to servers that have
//! refused us, and lives no longer than the instance: a forged time would make auth ids that can be replayed later.

use super::api::Event;
use super::shard::Shard;
use crate::config::{DomainStrategy, LogLevel, Sntp};
use crate::dns::sntp::{self, SntpError};
use crate::time::Moment;
use crate::transport::{dial, protect};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// From how many seconds on a wrong clock is told: VMess bears 120 s, of which the client's own jitter takes 30.
pub(crate) const SKEW: u64 = 90;
/// How often the time server is asked at most.
const PAUSE: Duration = Duration::from_secs(300);
/// How long a question may take, with the look-up of the server's name.
const PATIENCE: Duration = Duration::from_secs(5);
/// How many packets of an answer are looked at: forged ones must not keep us busy.
const PACKETS: usize = 16;

/// What an instance has found out about its clock. All shards share it.
#[derive(Debug, Default)]
pub(crate) struct Skew(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    asked: Option<Moment>,
    truth: Option<Truth>,
}

/// What UTC was at one moment of the monotonic clock, which a change of the device's date does not move.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Truth {
    at: Moment,
    unix_millis: i64,
}

impl Skew {
    /// UTC in seconds as the time server has it, if it was asked and may correct us. The host's own correction wins.
    pub(crate) fn unix_secs(&self, shard: &Shard) -> Option<i64> {
        let may = shard.live().config.vmesskit.sntp.as_ref().is_some_and(|sntp| sntp.correct);
        let truth = self.lock().truth.filter(|_| may && shard.clock.offset() == 0)?;
        let passed = i64::try_from(shard.clock.now().since(truth.at).as_millis()).unwrap_or(i64::MAX);
        Some(truth.unix_millis.saturating_add(passed) / 1000)
    }

    /// By how many seconds the clock that servers are told is wrong (positive: it is fast), if a time server was asked and
    /// it is by so much that they refuse us.
    pub(crate) fn wrong_by(&self, shard: &Shard) -> Option<i64> {
        if self.unix_secs(shard).is_some() {
            return None;
        }
        let truth = self.lock().truth?;
        let passed = i64::try_from(shard.clock.now().since(truth.at).as_millis()).unwrap_or(i64::MAX);
        let wrong = shard.clock.unix_millis().saturating_sub(truth.unix_millis.saturating_add(passed)) / 1000;
        (wrong.unsigned_abs() >= SKEW).then_some(wrong)
    }

    /// Whether it is time to ask; then it is counted as asked.
    fn is_due(&self, now: Moment) -> bool {
        let mut known = self.lock();
        let due = known.asked.is_none_or(|asked| now.since(asked) >= PAUSE);
        if due {
            known.asked = Some(now);
        }
        due
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A server has refused us: asks the time server, if one is configured and was not asked lately.
pub(crate) fn suspect(shard: &Rc<Shard>) {
    let Some(sntp) = shard.live().config.vmesskit.sntp.clone() else { return };
    if !shard.shared.skew.is_due(shard.clock.now()) {
        return;
    }
    let asks = Rc::clone(shard);
    shard.spawn(async move {
        let shared = &asks.shared;
        match timeout_at(Instant::now() + PATIENCE, ask(&asks, &sntp)).await {
            Ok(Ok((truth, skew))) => {
                shared.skew.lock().truth = Some(truth);
                let seconds = skew / 1000;
                shared.log(LogLevel::Info, format_args!("the clock is {seconds} s fast, a time server says"));
                if seconds.unsigned_abs() >= SKEW {
                    shared.emit(Event::ClockSkew { seconds });
                }
            }
            Ok(Err(text)) => shared.log(LogLevel::Info, format_args!("the time server: {text}")),
            Err(_) => shared.log(LogLevel::Info, format_args!("the time server does not answer")),
        }
    });
}

/// Asks once, over a protected socket. What is no answer is passed over: anybody can send that.
async fn ask(shard: &Rc<Shard>, sntp: &Sntp) -> Result<(Truth, i64), String> {
    let deadline = Instant::now() + PATIENCE;
    let found = dial::resolve(shard, &sntp.server.host, DomainStrategy::Any, deadline).await;
    let ip = found.map_err(|failed| failed.error.to_string())?.first().copied().ok_or("it has no address")?;
    let remote = SocketAddr::new(ip, sntp.server.port);
    let socket = protect::udp_socket(shard, remote).await.map_err(|error| error.to_string())?;
    let mut nonce = [0; 8];
    shard.with_entropy(|entropy| entropy.fill(&mut nonce));
    let nonce = u64::from_be_bytes(nonce);
    let (began, before) = (shard.clock.now(), shard.clock.unix_millis());
    socket.send(&sntp::query(nonce)).await.map_err(|error| error.to_string())?;
    let mut packet = [0; 128];
    for _ in 0..PACKETS {
        let len = socket.recv(&mut packet).await.map_err(|error| error.to_string())?;
        let now = shard.clock.now();
        match sntp::answer(packet.get(..len).unwrap_or_default(), nonce) {
            Ok(server) => {
                // What our clock shows now may have been set meanwhile; what has passed is known.
                let passed = i64::try_from(now.since(began).as_millis()).unwrap_or(i64::MAX);
                let skew = sntp::skew(server, before, before.saturating_add(passed));
                let truth = Truth { at: now, unix_millis: server.saturating_add(passed / 2) };
                return Ok((truth, skew));
            }
            Err(error @ (SntpError::Refused | SntpError::Unsynchronised)) => return Err(error.to_string()),
            Err(_) => {}
        }
    }
    Err("it sends nothing but noise".into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Vmesskit};
    use crate::engine::tests::config;
    use std::task::{Poll, Waker};
    use tokio::net::UdpSocket;
    use tokio::task::{LocalSet, yield_now};
    use tokio::time::timeout;

    /// What a time server that is `ahead` of us by so many seconds answers.
    fn answer_to(query: &[u8], ahead: i64, shard: &Shard) -> Vec<u8> {
        let mut packet = vec![0; sntp::LEN];
        (packet[0], packet[1]) = (0x24, 2);
        packet[24..32].copy_from_slice(&query[40..48]);
        let seconds = (shard.clock.unix_secs() + ahead + 2_208_988_800) as u64;
        packet[32..40].copy_from_slice(&(seconds << 32).to_be_bytes());
        packet[40..48].copy_from_slice(&(seconds << 32).to_be_bytes());
        packet
    }

    /// Suspects the clock; the server sends `noise` before an answer that is `ahead`. The seconds that were told.
    async fn told(correct: bool, ahead: i64, noise: &[&[u8]]) -> (Rc<Shard>, Option<i64>, UdpSocket) {
        let server = UdpSocket::bind("127.0.0.1:0").await.expect("a port");
        let target = server.local_addr().expect("bound").into();
        let sntp = Some(Sntp { server: target, correct });
        let shard =
            Shard::for_tests(Config { vmesskit: Vmesskit { sntp, ..Vmesskit::default() }, ..config() });
        assert_eq!(shard.shared.skew.unix_secs(&shard), None, "nobody was asked yet");
        suspect(&shard);
        suspect(&shard);
        let mut query = [0; 99];
        let (len, from) = server.recv_from(&mut query).await.expect("asked");
        assert_eq!(len, sntp::LEN);
        for packet in noise {
            server.send_to(packet, from).await.expect("sent");
        }
        server.send_to(&answer_to(&query[..len], ahead, &shard), from).await.expect("sent");
        let known = async {
            while shard.shared.skew.lock().truth.is_none() {
                yield_now().await;
            }
        };
        timeout(Duration::from_secs(20), known).await.expect("it answers");
        yield_now().await;
        let mut seconds = None;
        while let Poll::Ready(Some(event)) = shard.shared.poll_event(0, || Waker::noop().clone()) {
            if let Event::ClockSkew { seconds: told } = event {
                seconds = Some(told);
            }
        }
        (shard, seconds, server)
    }

    #[tokio::test]
    async fn a_wrong_clock_is_told_and_corrected_only_if_asked_for() {
        LocalSet::new()
            .run_until(async {
                let forged = [0x24; 48];
                for correct in [false, true] {
                    let (shard, seconds, server) = told(correct, 500, &[b"short", &forged]).await;
                    let seconds = seconds.expect("told");
                    assert!((-501..=-499).contains(&seconds), "{seconds}");
                    let corrected =
                        shard.shared.skew.unix_secs(&shard).map(|at| at - shard.clock.unix_secs());
                    assert!(corrected.is_some_and(|ahead| (499..=501).contains(&ahead)) == correct);
                    shard.clock.set_offset(7);
                    assert_eq!(shard.shared.skew.unix_secs(&shard), None, "the host knows better");
                    assert!(server.try_recv(&mut [0; 48]).is_err(), "asked once");
                }
                let (_, seconds, _) = told(true, 60, &[]).await;
                assert_eq!(seconds, None, "VMess bears a minute");
            })
            .await;
    }
}
