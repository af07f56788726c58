//! The numbers of the C interface. They never change; new ones are added at the end.
//!
//! They travel as `uint32_t`, never as C enums, so that a value which one side does not know yet is only a number.

use crate::guard::{guard_or, misuse};
use crate::text::EMPTY;
use std::ffi::c_char;
use vmesskit::addr::Network;
use vmesskit::config::LogLevel;
use vmesskit::{Error, Framing, MemoryPressure, Stage};

/// What a function returns: `VMK_OK` or the number of what went wrong. A number unknown to the caller is an error.
pub type vmk_result = u32;

/// The version of this interface. It is raised when a program built for an older one would no longer work.
pub const VMK_ABI_VERSION: u32 = 1;

/// A `timeout_ms` that waits as long as it takes (for `vmk_tunnel_check` and `vmk_tunnel_stop`: 49 days).
pub const VMK_WAIT_FOREVER: u32 = u32::MAX;

/// It worked.
pub const VMK_OK: u32 = 0;
/// The config has errors; `vmk_error_path` says where.
pub const VMK_CONFIG_INVALID: u32 = 1;
/// No connection to the server could be made; `vmk_error_stage` says which step failed.
pub const VMK_SERVER_UNREACHABLE: u32 = 2;
/// The TLS handshake or the certificate failed.
pub const VMK_TLS_FAILED: u32 = 3;
/// The server closed without a valid answer, as it does for an unknown id or a wrong clock.
pub const VMK_AUTH_REJECTED: u32 = 4;
/// This device's clock is off by `vmk_error_seconds`.
pub const VMK_CLOCK_SKEW: u32 = 5;
/// `protect_socket` refused a socket.
pub const VMK_PROTECT_FAILED: u32 = 6;
/// Reading or writing the tun device failed.
pub const VMK_TUN_IO: u32 = 7;
/// The tun device is gone.
pub const VMK_TUN_GONE: u32 = 8;
/// A limit was reached; `vmk_error_what` names it.
pub const VMK_RESOURCE_LIMIT: u32 = 9;
/// The tunnel has been started before.
pub const VMK_ALREADY_RUNNING: u32 = 10;
/// The tunnel has been stopped, or there are no more events.
pub const VMK_STOPPED: u32 = 11;
/// Something took longer than it may; `vmk_error_what` names it.
pub const VMK_TIMEOUT: u32 = 12;
/// The call is not legal here, or an argument is NULL or out of its range.
pub const VMK_MISUSE: u32 = 13;
/// Not built into this version.
pub const VMK_UNSUPPORTED: u32 = 14;
/// A defect of the library.
pub const VMK_INTERNAL: u32 = 15;

/// No stage: the error is not `VMK_SERVER_UNREACHABLE`, or the stage is one that this header does not know.
pub const VMK_STAGE_NONE: u32 = 0;
/// The server's name was being resolved.
pub const VMK_STAGE_RESOLVE: u32 = 1;
/// The socket was being connected.
pub const VMK_STAGE_CONNECT: u32 = 2;
/// The TLS handshake was under way.
pub const VMK_STAGE_TLS: u32 = 3;
/// The HTTP upgrade, or what the transport has in its place, was under way.
pub const VMK_STAGE_UPGRADE: u32 = 4;
/// The VMess header had been sent, its answer had not come.
pub const VMK_STAGE_VMESS: u32 = 5;

/// Made, not started.
pub const VMK_STATE_IDLE: u32 = 0;
/// Start is under way.
pub const VMK_STATE_STARTING: u32 = 1;
/// Started; no server has answered yet.
pub const VMK_STATE_CONNECTING: u32 = 2;
/// A server has answered, or there is none to dial.
pub const VMK_STATE_CONNECTED: u32 = 3;
/// There is no network.
pub const VMK_STATE_NO_NETWORK: u32 = 4;
/// Running, with a fault that may pass.
pub const VMK_STATE_DEGRADED: u32 = 5;
/// Stop is under way.
pub const VMK_STATE_STOPPING: u32 = 6;
/// Over, for good.
pub const VMK_STATE_STOPPED: u32 = 7;

/// The state has changed: `vmk_event_state`, `vmk_event_reason` (degraded), `vmk_event_error` (stopped). Never
/// dropped; the last event of a tunnel is always `VMK_STATE_STOPPED`.
pub const VMK_EVENT_STATE: u32 = 1;
/// Log lines: `vmk_event_log_count`, `vmk_event_log_get`.
pub const VMK_EVENT_LOG: u32 = 2;
/// The network below has changed and has been taken up: `vmk_event_network`.
pub const VMK_EVENT_NETWORK_CHANGED: u32 = 3;
/// Several flows in a row have sent data to an outbound and received nothing: `vmk_event_outbound`, and the likely
/// causes, `vmk_event_cause_count`, `vmk_event_cause_get`.
pub const VMK_EVENT_OUTBOUND_UNHEALTHY: u32 = 4;
/// A server closed before a valid answer: `vmk_event_outbound` and the likely causes.
pub const VMK_EVENT_AUTH_REJECTED: u32 = 5;
/// This device's clock is off: `vmk_event_seconds`.
pub const VMK_EVENT_CLOCK_SKEW: u32 = 6;
/// A limit was reached: `vmk_event_reason` names it.
pub const VMK_EVENT_RESOURCE_LIMIT: u32 = 7;
/// Something is wrong that may pass: `vmk_event_reason`.
pub const VMK_EVENT_DEGRADED: u32 = 8;
/// The host was too slow; `vmk_event_count` events other than states were dropped.
pub const VMK_EVENT_EVENTS_DROPPED: u32 = 9;

/// The id is not known to the server, or its alterId differs.
pub const VMK_CAUSE_ID: u32 = 1;
/// This device's clock is off by more than VMess bears.
pub const VMK_CAUSE_CLOCK: u32 = 2;
/// The server is gone, or something between drops the traffic.
pub const VMK_CAUSE_SERVER_GONE: u32 = 3;
/// The server refuses the security that is configured.
pub const VMK_CAUSE_SECURITY: u32 = 4;
/// The target behind the server does not answer.
pub const VMK_CAUSE_TARGET: u32 = 5;

/// A finding with which the config works, but perhaps not as its writer thinks.
pub const VMK_SEVERITY_WARNING: u32 = 1;
/// A finding with which the config cannot be used.
pub const VMK_SEVERITY_ERROR: u32 = 2;

/// Nothing is logged.
pub const VMK_LOG_NONE: u32 = 0;
/// Errors.
pub const VMK_LOG_ERROR: u32 = 1;
/// And warnings.
pub const VMK_LOG_WARNING: u32 = 2;
/// And what happened.
pub const VMK_LOG_INFO: u32 = 3;
/// And host names, flow by flow.
pub const VMK_LOG_DEBUG: u32 = 4;

/// TCP: IP's own protocol number.
pub const VMK_PROTOCOL_TCP: u32 = 6;
/// UDP: IP's own protocol number.
pub const VMK_PROTOCOL_UDP: u32 = 17;

/// The descriptor stays the caller's; the library works on a duplicate.
pub const VMK_TUN_BORROWED: u32 = 0;
/// The descriptor is the library's from the call on, also when the call fails: it closes it.
pub const VMK_TUN_OWNED: u32 = 1;

/// One bare IP packet a read or write (Linux with `IFF_NO_PI`, Android).
pub const VMK_FRAMING_RAW_IP: u32 = 0;
/// Four bytes of address family before each packet (macOS and iOS utun).
pub const VMK_FRAMING_DARWIN_UTUN: u32 = 1;
/// A 10-byte virtio-net header before each packet; the host has set `IFF_VNET_HDR` and the offloads (Linux).
pub const VMK_FRAMING_VNET_HDR: u32 = 2;

/// Memory is as usual.
pub const VMK_MEMORY_NORMAL: u32 = 0;
/// Free what is not needed.
pub const VMK_MEMORY_LOW: u32 = 1;
/// Free what can be freed, or be ended.
pub const VMK_MEMORY_CRITICAL: u32 = 2;

/// Returns the `VMK_ABI_VERSION` that the library was built with. Compare it before any other call.
#[unsafe(no_mangle)]
pub extern "C" fn vmk_abi_version() -> u32 {
    VMK_ABI_VERSION
}

/// Returns the name of a result, such as `ConfigInvalid`; `Unknown` for a number that this library does not know.
/// Static: never freed.
#[unsafe(no_mangle)]
pub extern "C" fn vmk_result_name(result: vmk_result) -> *const c_char {
    let name = match result {
        VMK_OK => c"Ok",
        VMK_CONFIG_INVALID => c"ConfigInvalid",
        VMK_SERVER_UNREACHABLE => c"ServerUnreachable",
        VMK_TLS_FAILED => c"TlsFailed",
        VMK_AUTH_REJECTED => c"AuthRejected",
        VMK_CLOCK_SKEW => c"ClockSkew",
        VMK_PROTECT_FAILED => c"ProtectFailed",
        VMK_TUN_IO => c"TunIo",
        VMK_TUN_GONE => c"TunGone",
        VMK_RESOURCE_LIMIT => c"ResourceLimit",
        VMK_ALREADY_RUNNING => c"AlreadyRunning",
        VMK_STOPPED => c"Stopped",
        VMK_TIMEOUT => c"Timeout",
        VMK_MISUSE => c"Misuse",
        VMK_UNSUPPORTED => c"Unsupported",
        VMK_INTERNAL => c"Internal",
        _ => c"Unknown",
    };
    name.as_ptr()
}

/// Returns the name of a `VMK_STATE_`, such as `connecting`; `unknown` for a number that this library does not know.
/// Static: never freed.
#[unsafe(no_mangle)]
pub extern "C" fn vmk_state_name(state: u32) -> *const c_char {
    let name = match state {
        VMK_STATE_IDLE => c"idle",
        VMK_STATE_STARTING => c"starting",
        VMK_STATE_CONNECTING => c"connecting",
        VMK_STATE_CONNECTED => c"connected",
        VMK_STATE_NO_NETWORK => c"no network",
        VMK_STATE_DEGRADED => c"degraded",
        VMK_STATE_STOPPING => c"stopping",
        VMK_STATE_STOPPED => c"stopped",
        _ => c"unknown",
    };
    name.as_ptr()
}

/// Returns the name of a `VMK_STAGE_`, such as `connect`; empty for a number that this library does not know.
/// Static: never freed.
#[unsafe(no_mangle)]
pub extern "C" fn vmk_stage_name(stage: u32) -> *const c_char {
    match stage {
        VMK_STAGE_RESOLVE => c"resolve".as_ptr(),
        VMK_STAGE_CONNECT => c"connect".as_ptr(),
        VMK_STAGE_TLS => c"tls".as_ptr(),
        VMK_STAGE_UPGRADE => c"upgrade".as_ptr(),
        VMK_STAGE_VMESS => c"vmess".as_ptr(),
        _ => EMPTY,
    }
}

/// Returns the library's version, such as `0.1.0`. Static: never freed.
#[unsafe(no_mangle)]
pub extern "C" fn vmk_version() -> *const c_char {
    static VERSION: std::sync::LazyLock<std::ffi::CString> =
        std::sync::LazyLock::new(|| crate::text::copy(vmesskit::version()));
    guard_or(EMPTY, || VERSION.as_ptr())
}

/// The number of a stage.
pub(crate) fn stage(stage: Stage) -> u32 {
    match stage {
        Stage::Resolve => VMK_STAGE_RESOLVE,
        Stage::Connect => VMK_STAGE_CONNECT,
        Stage::Tls => VMK_STAGE_TLS,
        Stage::Upgrade => VMK_STAGE_UPGRADE,
        Stage::Vmess => VMK_STAGE_VMESS,
        _ => VMK_STAGE_NONE,
    }
}

/// The number of a log level.
pub(crate) fn log_level_code(level: LogLevel) -> u32 {
    match level {
        LogLevel::None => VMK_LOG_NONE,
        LogLevel::Error => VMK_LOG_ERROR,
        LogLevel::Warning => VMK_LOG_WARNING,
        LogLevel::Info => VMK_LOG_INFO,
        LogLevel::Debug => VMK_LOG_DEBUG,
    }
}

/// The log level of a number.
///
/// # Errors
/// `Misuse` for any other number.
pub(crate) fn log_level(code: u32) -> Result<LogLevel, Error> {
    Ok(match code {
        VMK_LOG_NONE => LogLevel::None,
        VMK_LOG_ERROR => LogLevel::Error,
        VMK_LOG_WARNING => LogLevel::Warning,
        VMK_LOG_INFO => LogLevel::Info,
        VMK_LOG_DEBUG => LogLevel::Debug,
        _ => return Err(misuse(format!("{code} is no VMK_LOG_ level"))),
    })
}

/// The number of a transport protocol.
pub(crate) fn protocol(network: Network) -> u32 {
    match network {
        Network::Tcp => VMK_PROTOCOL_TCP,
        Network::Udp => VMK_PROTOCOL_UDP,
    }
}

/// The framing of a number.
///
/// # Errors
/// `Misuse` for any other number.
pub(crate) fn framing(code: u32) -> Result<Framing, Error> {
    Ok(match code {
        VMK_FRAMING_RAW_IP => Framing::RawIp,
        VMK_FRAMING_DARWIN_UTUN => Framing::DarwinUtun,
        VMK_FRAMING_VNET_HDR => Framing::VnetHdr,
        _ => return Err(misuse(format!("{code} is no VMK_FRAMING_"))),
    })
}

/// The memory pressure of a number.
///
/// # Errors
/// `Misuse` for any other number.
pub(crate) fn memory_pressure(code: u32) -> Result<MemoryPressure, Error> {
    Ok(match code {
        VMK_MEMORY_NORMAL => MemoryPressure::Normal,
        VMK_MEMORY_LOW => MemoryPressure::Low,
        VMK_MEMORY_CRITICAL => MemoryPressure::Critical,
        _ => return Err(misuse(format!("{code} is no VMK_MEMORY_ level"))),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::CStr;
    use vmesskit::{CauseKind, ErrorKind, State};

    fn text(name: *const c_char) -> &'static str {
        // SAFETY: the names are static literals.
        unsafe { CStr::from_ptr(name) }.to_str().unwrap()
    }

    #[test]
    fn every_error_kind_has_the_number_and_name_of_the_core() {
        let kinds = [
            (VMK_CONFIG_INVALID, ErrorKind::ConfigInvalid),
            (VMK_SERVER_UNREACHABLE, ErrorKind::ServerUnreachable { stage: Stage::Connect }),
            (VMK_TLS_FAILED, ErrorKind::TlsFailed),
            (VMK_AUTH_REJECTED, ErrorKind::AuthRejected),
            (VMK_CLOCK_SKEW, ErrorKind::ClockSkew { seconds: 1 }),
            (VMK_PROTECT_FAILED, ErrorKind::ProtectFailed),
            (VMK_TUN_IO, ErrorKind::TunIo),
            (VMK_TUN_GONE, ErrorKind::TunGone),
            (VMK_RESOURCE_LIMIT, ErrorKind::ResourceLimit { what: "x" }),
            (VMK_ALREADY_RUNNING, ErrorKind::AlreadyRunning),
            (VMK_STOPPED, ErrorKind::Stopped),
            (VMK_TIMEOUT, ErrorKind::Timeout { what: "x" }),
            (VMK_MISUSE, ErrorKind::Misuse),
            (VMK_UNSUPPORTED, ErrorKind::Unsupported),
            (VMK_INTERNAL, ErrorKind::Internal),
        ];
        for (code, kind) in kinds {
            assert_eq!(code, kind.code());
            assert_eq!(text(vmk_result_name(code)), kind.name());
        }
        assert_eq!(text(vmk_result_name(VMK_INTERNAL + 1)), "Unknown");
    }

    #[test]
    fn every_state_has_the_number_and_name_of_the_core() {
        let states = [
            (VMK_STATE_IDLE, State::Idle),
            (VMK_STATE_STARTING, State::Starting),
            (VMK_STATE_CONNECTING, State::Connecting),
            (VMK_STATE_CONNECTED, State::Connected),
            (VMK_STATE_NO_NETWORK, State::NoNetwork),
            (VMK_STATE_DEGRADED, State::Degraded { reason: String::new() }),
            (VMK_STATE_STOPPING, State::Stopping),
            (VMK_STATE_STOPPED, State::Stopped { error: None }),
        ];
        for (code, state) in states {
            assert_eq!(code, state.code());
            assert_eq!(text(vmk_state_name(code)), state.to_string());
        }
    }

    #[test]
    fn every_stage_and_cause_has_the_name_and_number_of_the_core() {
        for known in [Stage::Resolve, Stage::Connect, Stage::Tls, Stage::Upgrade, Stage::Vmess] {
            assert_eq!(text(vmk_stage_name(stage(known))), known.name());
        }
        let causes = [
            (VMK_CAUSE_ID, CauseKind::Id),
            (VMK_CAUSE_CLOCK, CauseKind::Clock),
            (VMK_CAUSE_SERVER_GONE, CauseKind::ServerGone),
            (VMK_CAUSE_SECURITY, CauseKind::Security),
            (VMK_CAUSE_TARGET, CauseKind::Target),
        ];
        for (code, cause) in causes {
            assert_eq!(code, cause.code());
        }
    }

    #[test]
    fn numbers_go_both_ways() {
        for code in VMK_LOG_NONE..=VMK_LOG_DEBUG {
            assert_eq!(log_level_code(log_level(code).unwrap()), code);
        }
        assert!(log_level(5).is_err() && framing(3).is_err() && memory_pressure(3).is_err());
    }
}
