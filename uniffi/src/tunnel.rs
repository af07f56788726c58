//! The tunnel: made, started, told things, stopped.

use crate::error::TunnelError;
use crate::event::{Event, LogLevel};
use crate::network::NetworkInfo;
use crate::platform::{self, Platform};
use crate::stats::{ConnectionInfo, Stats};
use crate::status::Status;
use crate::tun::{Tun, TunSettings};
use crate::users::{Counter, NewUser, UserInfo};
use std::sync::Arc;
use std::time::Duration;

/// How a tunnel is started.
#[derive(Debug, Clone, Default, PartialEq, Eq, uniffi::Record)]
pub struct Options {
    /// The most memory, in bytes, that the tunnel's buffers and tables may take; absent: the config's `memoryLimit`,
    /// else 32 MiB on iOS and 64 MiB elsewhere. At least 4 MiB.
    #[uniffi(default = None)]
    pub memory_limit_bytes: Option<u64>,
    /// The network at the start, if the host knows it.
    #[uniffi(default = None)]
    pub network: Option<NetworkInfo>,
    /// Which log lines become events; absent: the config's `loglevel`.
    #[uniffi(default = None)]
    pub log: Option<LogLevel>,
}

/// How short memory is, as the operating system says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, uniffi::Enum)]
pub enum MemoryPressure {
    /// As usual.
    Normal,
    /// Free what is not needed.
    Low,
    /// Free what can be freed, or be ended.
    Critical,
}

impl From<MemoryPressure> for vmesskit::MemoryPressure {
    fn from(level: MemoryPressure) -> Self {
        match level {
            MemoryPressure::Normal => Self::Normal,
            MemoryPressure::Low => Self::Low,
            MemoryPressure::Critical => Self::Critical,
        }
    }
}

/// What a check proved.
#[derive(Debug, Clone, PartialEq, Eq, uniffi::Record)]
pub struct CheckReport {
    /// The tag of the outbound that was checked.
    pub outbound: String,
    /// Microseconds from the dial to the first valid answer.
    pub latency_micros: u64,
}

/// What a reload changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, uniffi::Record)]
pub struct ReloadReport {
    /// The tun settings differ: set the device up again and call `setTun`.
    pub tun_changed: bool,
}

/// A tunnel. Single-use: after `stop` it cannot be started again. Its functions may be called on any thread.
#[derive(uniffi::Object)]
pub struct Tunnel {
    inner: vmesskit::Tunnel,
}

#[uniffi::export]
impl Tunnel {
    /// Makes a tunnel, without doing any IO. Every config error that needs none is found here.
    ///
    /// # Errors
    /// `ConfigInvalid` with the first error's path; `Misuse` for options out of their range.
    #[uniffi::constructor]
    pub fn new(
        config: &str,
        options: Options,
        platform: Option<Arc<dyn Platform>>,
    ) -> Result<Arc<Self>, TunnelError> {
        crate::log::install();
        let options = vmesskit::Options {
            memory_limit_bytes: options.memory_limit_bytes,
            network: options.network.map(TryInto::try_into).transpose()?,
            log: options.log.map(Into::into),
        };
        let inner = vmesskit::Tunnel::new(config, options, platform::adapt(platform))?;
        Ok(Arc::new(Self { inner }))
    }

    /// How to set the tun device up; `null` if the config has no tun inbound.
    pub fn tun_settings(&self) -> Option<TunSettings> {
        self.inner.tun_settings().map(TunSettings::from)
    }

    /// Tells the tunnel to stop. Never blocks, and is legal anywhere, callbacks included.
    pub fn request_stop(&self) {
        self.inner.request_stop();
    }

    /// Chooses the outbound of a group. Not built yet.
    ///
    /// # Errors
    /// `Unsupported`.
    pub fn select_outbound(&self, group: &str, tag: &str) -> Result<(), TunnelError> {
        Ok(self.inner.select_outbound(group, tag)?)
    }

    /// Tells which network is below the tunnel now; `null`: none.
    ///
    /// # Errors
    /// `Misuse` for an address that is none.
    pub fn network_changed(&self, network: Option<NetworkInfo>) -> Result<(), TunnelError> {
        self.inner.network_changed(network.map(TryInto::try_into).transpose()?);
        Ok(())
    }

    /// Corrects the clock: so many seconds are added to the system's UTC.
    pub fn set_clock_offset(&self, seconds: i64) {
        self.inner.set_clock_offset(seconds);
    }

    /// Tells that the device goes to sleep: timers rest. Traffic is never refused.
    pub fn pause(&self) {
        self.inner.pause();
    }

    /// Tells that the device is awake again.
    pub fn wake(&self) {
        self.inner.wake();
    }

    /// Tells how short memory is.
    pub fn memory_pressure(&self, level: MemoryPressure) {
        self.inner.memory_pressure(level.into());
    }

    /// The state, since when, and the newest error. Never blocks.
    pub fn status(&self) -> Status {
        self.inner.status().into()
    }

    /// The counters. Never blocks.
    pub fn stats(&self) -> Stats {
        self.inner.stats().into()
    }

    /// The counters that the config's policy asks for: of users, inbounds and outbounds, under V2Ray's names. `reset` sets
    /// them to 0 in the same step, without losing a byte. Never blocks.
    ///
    /// A counter is there from its first connection on; one that has stayed at 0 from one reset to the next, without a
    /// connection, is gone until there is one again.
    pub fn counters(&self, reset: bool) -> Vec<Counter> {
        self.inner.counters(reset).into_iter().map(Counter::from).collect()
    }

    /// The users of a VMess inbound, by its tag: those of the config and those that were added.
    ///
    /// # Errors
    /// `Misuse` if no VMess inbound has the tag, and before the start; `Stopped`.
    pub fn users(&self, inbound: &str) -> Result<Vec<UserInfo>, TunnelError> {
        Ok(self.inner.users(inbound)?.into_iter().map(UserInfo::from).collect())
    }

    /// Adds a user to a VMess inbound, who may connect from then on. The user stays until removed, and until a reload
    /// gives the inbound other clients. Takes some milliseconds where there are thousands of users.
    ///
    /// # Errors
    /// `ConfigInvalid` with the path `id`, `alterId` or `email`: that is not valid, or another user's; `Misuse` if no VMess
    /// inbound has the tag, and before the start; `Stopped`.
    pub fn add_user(&self, inbound: &str, user: NewUser) -> Result<(), TunnelError> {
        Ok(self.inner.add_user(inbound, &user.into())?)
    }

    /// Removes a user of a VMess inbound by e-mail, without regard to case; false if there is none of it. Connections that
    /// the user has open live on, and no new one is served.
    ///
    /// # Errors
    /// `Misuse` if the e-mail is empty or no VMess inbound has the tag, and before the start; `Stopped`.
    pub fn remove_user(&self, inbound: &str, email: &str) -> Result<bool, TunnelError> {
        Ok(self.inner.remove_user(inbound, email)?)
    }
}

#[uniffi::export]
impl Tunnel {
    /// Starts, and returns when the tun device and the listeners are up; the network is not asked. A start that is
    /// cancelled is a stop. No tun: a proxy or a server alone.
    ///
    /// # Errors
    /// `AlreadyRunning` the second time, `Stopped` after a stop, and what the tun device and the listeners meet.
    pub async fn start(&self, tun: Option<Tun>) -> Result<(), TunnelError> {
        let tun = tun.map(Tun::get).transpose()?;
        Ok(self.inner.start(tun).await?)
    }

    /// Swaps the tun device under the live flows; the old one is closed after the new one is in place.
    ///
    /// # Errors
    /// As `start`.
    pub async fn set_tun(&self, tun: Tun) -> Result<(), TunnelError> {
        Ok(self.inner.set_tun(tun.get()?).await?)
    }

    /// Proves the path to the server: dials the first outbound that has one and waits for a valid answer.
    ///
    /// # Errors
    /// What the dial meets, or `Timeout`.
    pub async fn check(&self, timeout_millis: u32) -> Result<CheckReport, TunnelError> {
        let report = self.inner.check(Duration::from_millis(timeout_millis.into())).await?;
        let latency_micros = u64::try_from(report.latency.as_micros()).unwrap_or(u64::MAX);
        Ok(CheckReport { outbound: report.outbound, latency_micros })
    }

    /// Stops, and returns when every descriptor, task and callback is gone. Any number of times.
    ///
    /// # Errors
    /// `Timeout` if a callback does not return; `Misuse` from a callback.
    pub async fn stop(&self, timeout_millis: u32) -> Result<(), TunnelError> {
        Ok(self.inner.stop(Duration::from_millis(timeout_millis.into())).await?)
    }

    /// Replaces the config, all or nothing. Flows that exist live on as they are.
    ///
    /// # Errors
    /// `ConfigInvalid`, and what new listeners meet.
    pub async fn reload(&self, config: &str) -> Result<ReloadReport, TunnelError> {
        let report = self.inner.reload(config).await?;
        Ok(ReloadReport { tun_changed: report.tun_changed })
    }

    /// The open connections.
    ///
    /// # Errors
    /// `Stopped`.
    pub async fn connections(&self) -> Result<Vec<ConnectionInfo>, TunnelError> {
        let connections = self.inner.connections().await?;
        Ok(connections.into_iter().map(ConnectionInfo::from).collect())
    }

    /// Closes one connection; false if there is none (any more) with the id.
    ///
    /// # Errors
    /// `Stopped`.
    pub async fn close_connection(&self, id: u64) -> Result<bool, TunnelError> {
        Ok(self.inner.close_connection(id).await?)
    }

    /// Waits for the next event; `null` after the last one. Events queue while nobody waits, and cancelling loses
    /// none. One collector at a time: each event is handed out once.
    pub async fn next_event(&self) -> Option<Event> {
        self.inner.next_event().await.map(Event::from)
    }
}
