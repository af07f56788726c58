//! The tunnel: made, started, told things, stopped.

use crate::codes::{self, vmk_result};
use crate::error::vmk_error;
use crate::event::vmk_event;
use crate::guard::{give, guard, guard_or, required, timed_out, timeout, wait};
use crate::network::{self, vmk_network_info};
use crate::options::vmk_options;
use crate::platform::{self, vmk_platform};
use crate::sized::{self, Sized32};
use crate::text::{self, EMPTY};
use crate::tun::{self, vmk_tun};
use std::ffi::{CString, c_char};
use std::mem::MaybeUninit;
use vmesskit::{CheckReport, Error, ErrorKind, Options, Tunnel};

/// A tunnel: opaque, made by `vmk_tunnel_new`, single-use. Its functions may be called on any thread, and several at
/// once; `vmk_tunnel_free` is the last.
pub struct vmk_tunnel {
    tunnel: Tunnel,
}

impl vmk_tunnel {
    /// The tunnel itself.
    pub(crate) fn tunnel(&self) -> &Tunnel {
        &self.tunnel
    }
}

/// Makes a tunnel, without doing any IO. Every config error that needs none is found here.
///
/// json: the config. options: copied; NULL: the defaults. platform: the host's callbacks, copied; NULL: none. From the
/// call on, also when it fails, `platform->release` tells when they are no longer needed (but for a `platform->size`
/// that is refused). out: receives the tunnel, to be freed with `vmk_tunnel_free`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmk_tunnel_new(
    json: *const c_char,
    options: Option<&vmk_options>,
    platform: *const vmk_platform,
    out: Option<&mut MaybeUninit<*mut vmk_tunnel>>,
    error: Option<&mut MaybeUninit<*mut vmk_error>>,
) -> vmk_result {
    guard(error, || {
        // SAFETY: NULL or a struct that begins with its size, and NULL or a text, as the header asks for.
        let (platform, json) = unsafe { (platform::take(platform)?, text::read(json, "json")) };
        let out = required(out, "out")?;
        let options = options.map_or_else(Options::default, |options| options.options().clone());
        give(out, vmk_tunnel { tunnel: Tunnel::new(json?, options, platform)? });
        Ok(())
    })
}

/// Frees a tunnel. If it runs, it is told to stop, and that is not waited for: call `vmk_tunnel_stop` before, where
/// nothing may be left behind. No other call on the tunnel may be under way. NULL is ignored.
#[unsafe(no_mangle)]
pub extern "C" fn vmk_tunnel_free(tunnel: Option<Box<vmk_tunnel>>) {
    guard_or((), || drop(tunnel));
}

/// Starts a tunnel, and returns when the tun device and the listeners are up; the network is not asked. A start that
/// does not end in time is cancelled, which is a stop.
///
/// tun: NULL for a proxy or a server alone. `VMK_ALREADY_RUNNING` the second time, `VMK_STOPPED` after a stop.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmk_tunnel_start(
    tunnel: Option<&vmk_tunnel>,
    tun: *const vmk_tun,
    timeout_ms: u32,
    error: Option<&mut MaybeUninit<*mut vmk_error>>,
) -> vmk_result {
    guard(error, || {
        // SAFETY: NULL or a struct that begins with its size, as the header asks for.
        let tun = unsafe { tun::take(tun) }?;
        wait(required(tunnel, "tunnel")?.tunnel.start(tun), timeout_ms, "start")
    })
}

/// Swaps the tun device under the live flows; the old one is closed after the new one is in place.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmk_tunnel_set_tun(
    tunnel: Option<&vmk_tunnel>,
    tun: *const vmk_tun,
    timeout_ms: u32,
    error: Option<&mut MaybeUninit<*mut vmk_error>>,
) -> vmk_result {
    guard(error, || {
        // SAFETY: NULL or a struct that begins with its size, as the header asks for.
        let tun = required(unsafe { tun::take(tun) }?, "tun")?;
        wait(required(tunnel, "tunnel")?.tunnel.set_tun(tun), timeout_ms, "set_tun")
    })
}

/// What a check proved: opaque, freed with `vmk_check_report_free`.
pub struct vmk_check_report {
    outbound: CString,
    latency_micros: u64,
}

impl From<CheckReport> for vmk_check_report {
    fn from(report: CheckReport) -> Self {
        let latency_micros = u64::try_from(report.latency.as_micros()).unwrap_or(u64::MAX);
        Self { outbound: text::copy(&report.outbound), latency_micros }
    }
}

/// Proves the path to the server: dials the first outbound that has one and waits for a valid answer.
///
/// out: receives the report, to be freed with `vmk_check_report_free`; may be NULL.
#[unsafe(no_mangle)]
pub extern "C" fn vmk_tunnel_check(
    tunnel: Option<&vmk_tunnel>,
    timeout_ms: u32,
    out: Option<&mut MaybeUninit<*mut vmk_check_report>>,
    error: Option<&mut MaybeUninit<*mut vmk_error>>,
) -> vmk_result {
    guard(error, || {
        let answer = required(tunnel, "tunnel")?.tunnel.check(timeout(timeout_ms));
        let report = answer.wait(None).unwrap_or_else(|| Err(timed_out("check")))?;
        if let Some(out) = out {
            give(out, report.into());
        }
        Ok(())
    })
}

/// Returns the tag of the outbound that was checked, borrowed from the report.
#[unsafe(no_mangle)]
pub extern "C" fn vmk_check_report_outbound(report: Option<&vmk_check_report>) -> *const c_char {
    guard_or(EMPTY, || report.map_or(EMPTY, |report| report.outbound.as_ptr()))
}

/// Returns the microseconds from the dial to the first valid answer.
#[unsafe(no_mangle)]
pub extern "C" fn vmk_check_report_latency_micros(report: Option<&vmk_check_report>) -> u64 {
    guard_or(0, || report.map_or(0, |report| report.latency_micros))
}

/// Frees a report. NULL is ignored.
#[unsafe(no_mangle)]
pub extern "C" fn vmk_check_report_free(report: Option<Box<vmk_check_report>>) {
    guard_or((), || drop(report));
}

/// Tells a tunnel to stop. Never blocks, and is legal anywhere, callbacks included (but not in signal handlers).
#[unsafe(no_mangle)]
pub extern "C" fn vmk_tunnel_request_stop(tunnel: Option<&vmk_tunnel>) -> vmk_result {
    tell(tunnel, |tunnel| {
        tunnel.request_stop();
        Ok(())
    })
}

/// Stops a tunnel, and returns when every descriptor, task and callback is gone. Legal at any time and any number of
/// times. A callback that does not return makes it `VMK_TIMEOUT`; it may be called again. `VMK_MISUSE` from a callback.
#[unsafe(no_mangle)]
pub extern "C" fn vmk_tunnel_stop(
    tunnel: Option<&vmk_tunnel>,
    timeout_ms: u32,
    error: Option<&mut MaybeUninit<*mut vmk_error>>,
) -> vmk_result {
    guard(error, || {
        let answer = required(tunnel, "tunnel")?.tunnel.stop(timeout(timeout_ms));
        answer.wait(None).unwrap_or_else(|| Err(timed_out("stop")))
    })
}

/// What a reload changed.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct vmk_reload_report {
    /// `sizeof(vmk_reload_report)`.
    pub size: u32,
    /// 1: the tun settings differ; set the device up again and call `vmk_tunnel_set_tun`. Else 0.
    pub tun_changed: u32,
}

// SAFETY: integers in C layout.
unsafe impl Sized32 for vmk_reload_report {
    const NAME: &'static str = "vmk_reload_report";
    const MIN: usize = 8;
}

/// Replaces the config, all or nothing. Flows that exist live on as they are.
///
/// json: the new config. out: its `size` is set by the caller; may be NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmk_tunnel_reload(
    tunnel: Option<&vmk_tunnel>,
    json: *const c_char,
    timeout_ms: u32,
    out: *mut vmk_reload_report,
    error: Option<&mut MaybeUninit<*mut vmk_error>>,
) -> vmk_result {
    guard(error, || {
        let tunnel = required(tunnel, "tunnel")?;
        // SAFETY: NULL or a text, and NULL or a struct that begins with its size, as the header asks for.
        unsafe {
            let json = text::read(json, "json")?;
            if !out.is_null() {
                sized::check(out)?;
            }
            let report = wait(tunnel.tunnel.reload(json), timeout_ms, "reload")?;
            if !out.is_null() {
                sized::write(out, &vmk_reload_report { size: 0, tun_changed: report.tun_changed.into() })?;
            }
        }
        Ok(())
    })
}

/// Chooses the outbound of a group. Not built yet: `VMK_UNSUPPORTED`.
///
/// group, tag: the group's name and the outbound's tag.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmk_tunnel_select_outbound(
    tunnel: Option<&vmk_tunnel>,
    group: *const c_char,
    tag: *const c_char,
    error: Option<&mut MaybeUninit<*mut vmk_error>>,
) -> vmk_result {
    guard(error, || {
        // SAFETY: NULL or texts, as the header asks for.
        let (group, tag) = unsafe { (text::read(group, "group")?, text::read(tag, "tag")?) };
        required(tunnel, "tunnel")?.tunnel.select_outbound(group, tag)
    })
}

/// Tells a tunnel something that needs no answer.
fn tell(tunnel: Option<&vmk_tunnel>, what: impl FnOnce(&Tunnel) -> Result<(), Error>) -> vmk_result {
    guard(None, || what(&required(tunnel, "tunnel")?.tunnel))
}

/// Tells which network is below the tunnel now. Only carriers that died with the old path are dropped.
///
/// network: copied; NULL: there is none.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmk_tunnel_network_changed(
    tunnel: Option<&vmk_tunnel>,
    network: *const vmk_network_info,
    error: Option<&mut MaybeUninit<*mut vmk_error>>,
) -> vmk_result {
    guard(error, || {
        // SAFETY: NULL or a struct that begins with its size, as the header asks for.
        let network = unsafe { network::read(network) }?;
        required(tunnel, "tunnel")?.tunnel.network_changed(network);
        Ok(())
    })
}

/// Corrects the clock: so many seconds are added to the system's UTC.
#[unsafe(no_mangle)]
pub extern "C" fn vmk_tunnel_set_clock_offset(tunnel: Option<&vmk_tunnel>, seconds: i64) -> vmk_result {
    tell(tunnel, |tunnel| {
        tunnel.set_clock_offset(seconds);
        Ok(())
    })
}

/// Tells that the device goes to sleep: timers rest. Traffic is never refused.
#[unsafe(no_mangle)]
pub extern "C" fn vmk_tunnel_pause(tunnel: Option<&vmk_tunnel>) -> vmk_result {
    tell(tunnel, |tunnel| {
        tunnel.pause();
        Ok(())
    })
}

/// Tells that the device is awake again: ages and deadlines are judged anew.
#[unsafe(no_mangle)]
pub extern "C" fn vmk_tunnel_wake(tunnel: Option<&vmk_tunnel>) -> vmk_result {
    tell(tunnel, |tunnel| {
        tunnel.wake();
        Ok(())
    })
}

/// Tells how short memory is.
///
/// level: a `VMK_MEMORY_`.
#[unsafe(no_mangle)]
pub extern "C" fn vmk_tunnel_memory_pressure(tunnel: Option<&vmk_tunnel>, level: u32) -> vmk_result {
    tell(tunnel, |tunnel| {
        tunnel.memory_pressure(codes::memory_pressure(level)?);
        Ok(())
    })
}

/// Waits for the next event. `VMK_TIMEOUT` if none came in time, `VMK_STOPPED` after the last one was handed out.
/// Events queue while nobody waits; one thread at a time gets each.
///
/// out: receives the event, to be freed with `vmk_event_free`.
#[unsafe(no_mangle)]
pub extern "C" fn vmk_tunnel_next_event(
    tunnel: Option<&vmk_tunnel>,
    timeout_ms: u32,
    out: Option<&mut MaybeUninit<*mut vmk_event>>,
    error: Option<&mut MaybeUninit<*mut vmk_error>>,
) -> vmk_result {
    guard(error, || {
        let out = required(out, "out")?;
        let limit = (timeout_ms != codes::VMK_WAIT_FOREVER).then(|| timeout(timeout_ms));
        match required(tunnel, "tunnel")?.tunnel.next_event().wait(limit) {
            Some(Some(event)) => {
                give(out, vmk_event::new(&event));
                Ok(())
            }
            Some(None) => {
                Err(Error::new(ErrorKind::Stopped, "the tunnel has stopped, there are no more events"))
            }
            None => Err(timed_out("next_event")),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_latency_is_told_in_microseconds() {
        let report = CheckReport { outbound: "proxy".into(), latency: Duration::from_millis(3) };
        assert_eq!(vmk_check_report_latency_micros(Some(&report.into())), 3000);
    }

    #[test]
    fn telling_no_tunnel_is_misuse() {
        assert_eq!(vmk_tunnel_pause(None), codes::VMK_MISUSE);
    }
}
