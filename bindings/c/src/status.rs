//! The state of a tunnel.

use crate::codes::{VMK_STATE_IDLE, vmk_result};
use crate::error::vmk_error;
use crate::guard::{give, guard, guard_or, required};
use crate::text::{self, EMPTY};
use crate::tunnel::vmk_tunnel;
use std::ffi::{CString, c_char};
use std::mem::MaybeUninit;
use vmesskit::{State, Status};

/// The state, since when, and the newest error: opaque, freed with `vmk_status_free`.
pub struct vmk_status {
    state: u32,
    since_millis: u64,
    reason: CString,
    last_error: Option<vmk_error>,
}

impl From<Status> for vmk_status {
    fn from(status: Status) -> Self {
        let reason = match &status.state {
            State::Degraded { reason } => reason,
            _ => "",
        };
        // Why a tunnel has stopped is the newest error there is.
        let last_error = match &status.state {
            State::Stopped { error: Some(error) } => Some(error),
            _ => status.last_error.as_ref(),
        };
        Self {
            state: status.state.code(),
            since_millis: u64::try_from(status.since.as_millis()).unwrap_or(u64::MAX),
            reason: text::copy(reason),
            last_error: last_error.map(vmk_error::new),
        }
    }
}

/// Reads the state. Never blocks.
///
/// out: receives the status, to be freed with `vmk_status_free`.
#[unsafe(no_mangle)]
pub extern "C" fn vmk_tunnel_status(
    tunnel: Option<&vmk_tunnel>,
    out: Option<&mut MaybeUninit<*mut vmk_status>>,
    error: Option<&mut MaybeUninit<*mut vmk_error>>,
) -> vmk_result {
    guard(error, || {
        let out = required(out, "out")?;
        give(out, required(tunnel, "tunnel")?.tunnel().status().into());
        Ok(())
    })
}

/// Returns the `VMK_STATE_`.
#[unsafe(no_mangle)]
pub extern "C" fn vmk_status_state(status: Option<&vmk_status>) -> u32 {
    guard_or(VMK_STATE_IDLE, || status.map_or(VMK_STATE_IDLE, |status| status.state))
}

/// Returns for how many milliseconds it has been so.
#[unsafe(no_mangle)]
pub extern "C" fn vmk_status_since_millis(status: Option<&vmk_status>) -> u64 {
    guard_or(0, || status.map_or(0, |status| status.since_millis))
}

/// Returns what is wrong in `VMK_STATE_DEGRADED`, borrowed from the status; else empty.
#[unsafe(no_mangle)]
pub extern "C" fn vmk_status_reason(status: Option<&vmk_status>) -> *const c_char {
    guard_or(EMPTY, || status.map_or(EMPTY, |status| status.reason.as_ptr()))
}

/// Returns the newest error, borrowed from the status; NULL if there was none.
#[unsafe(no_mangle)]
pub extern "C" fn vmk_status_last_error(status: Option<&vmk_status>) -> Option<&vmk_error> {
    guard_or(None, || status.and_then(|status| status.last_error.as_ref()))
}

/// Frees a status and all that is borrowed from it. NULL is ignored.
#[unsafe(no_mangle)]
pub extern "C" fn vmk_status_free(status: Option<Box<vmk_status>>) {
    guard_or((), || drop(status));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codes;
    use crate::error::vmk_error_code;
    use std::time::Duration;
    use vmesskit::{Error, ErrorKind};

    #[test]
    fn state_age_reason_and_error_reach_c() {
        let status: vmk_status = Status {
            state: State::Degraded { reason: "slow".into() },
            since: Duration::from_millis(1500),
            last_error: Some(Error::new(ErrorKind::TunIo, "x")),
        }
        .into();
        let seen = Some(&status);
        assert_eq!(
            (vmk_status_state(seen), vmk_status_since_millis(seen)),
            (codes::VMK_STATE_DEGRADED, 1500)
        );
        assert_eq!(status.reason.as_c_str(), c"slow");
        assert_eq!(vmk_error_code(vmk_status_last_error(seen)), codes::VMK_TUN_IO);
    }
}
