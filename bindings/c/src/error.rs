//! Errors as C sees them.

use crate::codes;
use crate::guard::guard_or;
use crate::text::{EMPTY, copy};
use std::ffi::{CString, c_char};
use vmesskit::{Error, ErrorKind};

/// What went wrong: opaque, read by the `vmk_error_` functions.
pub struct vmk_error {
    kind: ErrorKind,
    text: CString,
    hint: CString,
    reason: CString,
    path: CString,
    what: CString,
}

impl vmk_error {
    /// Copies an error of the core.
    pub(crate) fn new(error: &Error) -> Self {
        let what = match error.kind {
            ErrorKind::ResourceLimit { what } | ErrorKind::Timeout { what } => what,
            _ => "",
        };
        Self {
            kind: error.kind,
            text: copy(&error.text),
            hint: copy(&error.hint),
            reason: copy(&error.reason),
            path: copy(&error.path),
            what: copy(what),
        }
    }

    /// The number of its kind.
    pub(crate) fn code(&self) -> u32 {
        self.kind.code()
    }
}

/// Answers one of an error's texts, which lives as long as the error.
fn text_of(error: Option<&vmk_error>, field: impl FnOnce(&vmk_error) -> &CString) -> *const c_char {
    guard_or(EMPTY, || error.map_or(EMPTY, |error| field(error).as_ptr()))
}

/// Returns the error's number, a `VMK_` result; `VMK_OK` for NULL.
#[unsafe(no_mangle)]
pub extern "C" fn vmk_error_code(error: Option<&vmk_error>) -> codes::vmk_result {
    guard_or(codes::VMK_INTERNAL, || error.map_or(codes::VMK_OK, vmk_error::code))
}

/// Returns the name of its number, such as `ServerUnreachable`. Static: never freed.
#[unsafe(no_mangle)]
pub extern "C" fn vmk_error_name(error: Option<&vmk_error>) -> *const c_char {
    codes::vmk_result_name(vmk_error_code(error))
}

/// Returns what went wrong and where, for a person: one sentence. Borrowed from the error; empty for NULL.
#[unsafe(no_mangle)]
pub extern "C" fn vmk_error_text(error: Option<&vmk_error>) -> *const c_char {
    text_of(error, |error| &error.text)
}

/// Returns what to do about it; may be empty. Borrowed from the error.
#[unsafe(no_mangle)]
pub extern "C" fn vmk_error_hint(error: Option<&vmk_error>) -> *const c_char {
    text_of(error, |error| &error.hint)
}

/// Returns the technical reason below it (an error of the system, a peer's answer); may be empty. Borrowed from the
/// error.
#[unsafe(no_mangle)]
pub extern "C" fn vmk_error_reason(error: Option<&vmk_error>) -> *const c_char {
    text_of(error, |error| &error.reason)
}

/// Returns the JSON path of a `VMK_CONFIG_INVALID`, such as `outbounds[0].settings.vnext[0].port`; else empty.
/// Borrowed from the error.
#[unsafe(no_mangle)]
pub extern "C" fn vmk_error_path(error: Option<&vmk_error>) -> *const c_char {
    text_of(error, |error| &error.path)
}

/// Returns what ran out (`VMK_RESOURCE_LIMIT`) or was waited for (`VMK_TIMEOUT`); else empty. Borrowed from the error.
#[unsafe(no_mangle)]
pub extern "C" fn vmk_error_what(error: Option<&vmk_error>) -> *const c_char {
    text_of(error, |error| &error.what)
}

/// Returns the `VMK_STAGE_` at which a `VMK_SERVER_UNREACHABLE` failed; else `VMK_STAGE_NONE`.
#[unsafe(no_mangle)]
pub extern "C" fn vmk_error_stage(error: Option<&vmk_error>) -> u32 {
    guard_or(codes::VMK_STAGE_NONE, || match error.map(|error| error.kind) {
        Some(ErrorKind::ServerUnreachable { stage }) => codes::stage(stage),
        _ => codes::VMK_STAGE_NONE,
    })
}

/// Returns by how many seconds the clock is off in a `VMK_CLOCK_SKEW` (positive: it is fast); else 0.
#[unsafe(no_mangle)]
pub extern "C" fn vmk_error_seconds(error: Option<&vmk_error>) -> i64 {
    guard_or(0, || match error.map(|error| error.kind) {
        Some(ErrorKind::ClockSkew { seconds }) => seconds,
        _ => 0,
    })
}

/// Frees an error that was written to a `vmk_error **`. NULL is ignored. Never for an error that an event or a status
/// has lent.
#[unsafe(no_mangle)]
pub extern "C" fn vmk_error_free(error: Option<Box<vmk_error>>) {
    guard_or((), || drop(error));
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::CStr;
    use vmesskit::Stage;

    fn read(text: *const c_char) -> String {
        // SAFETY: an accessor's answer, borrowed from an error that is still there, or a literal.
        unsafe { CStr::from_ptr(text) }.to_str().unwrap().to_owned()
    }

    #[test]
    fn every_field_reaches_c() {
        let error = Error::new(ErrorKind::ConfigInvalid, "a")
            .with_hint("b")
            .with_reason("c")
            .with_path("outbounds[0]");
        let error = vmk_error::new(&error);
        let seen = [vmk_error_text, vmk_error_hint, vmk_error_reason, vmk_error_path, vmk_error_name]
            .map(|accessor| read(accessor(Some(&error))));
        assert_eq!(seen, ["a", "b", "c", "outbounds[0]", "ConfigInvalid"]);
    }

    #[test]
    fn the_details_of_a_kind_reach_c() {
        let with = |kind| vmk_error::new(&Error::new(kind, "text"));
        let stage = with(ErrorKind::ServerUnreachable { stage: Stage::Upgrade });
        assert_eq!(vmk_error_stage(Some(&stage)), codes::VMK_STAGE_UPGRADE);
        assert_eq!(vmk_error_seconds(Some(&with(ErrorKind::ClockSkew { seconds: -300 }))), -300);
        assert_eq!(read(vmk_error_what(Some(&with(ErrorKind::Timeout { what: "stop" })))), "stop");
        let plain = with(ErrorKind::TunGone);
        assert_eq!(vmk_error_stage(Some(&plain)), codes::VMK_STAGE_NONE);
        assert_eq!(vmk_error_seconds(Some(&plain)), 0);
    }

    #[test]
    fn no_error_is_neutral() {
        assert_eq!(vmk_error_code(None), codes::VMK_OK);
        assert_eq!(read(vmk_error_text(None)), "");
        vmk_error_free(None);
    }
}
