//! C strings: in as UTF-8, out as NUL-terminated copies.

use crate::guard::{guard_or, misuse};
use std::ffi::{CStr, CString, c_char};
use std::mem::MaybeUninit;
use vmesskit::Error;

/// What accessors answer when there is no text.
pub(crate) const EMPTY: *const c_char = c"".as_ptr();

/// Reads a C string.
///
/// # Errors
/// `Misuse` for NULL and for bytes that are no UTF-8; `name` is the parameter's.
///
/// # Safety
/// `text` is NULL or a NUL-terminated string that outlives `'a` unchanged.
pub(crate) unsafe fn read<'a>(text: *const c_char, name: &str) -> Result<&'a str, Error> {
    if text.is_null() {
        return Err(misuse(format!("{name} is NULL")));
    }
    // SAFETY: not NULL, and NUL-terminated by the caller's promise.
    let text = unsafe { CStr::from_ptr(text) };
    text.to_str().map_err(|error| misuse(format!("{name} is not UTF-8")).with_reason(error.to_string()))
}

/// Reads a C string that may be absent.
///
/// # Errors
/// As [`read`], but NULL is `None`.
///
/// # Safety
/// As [`read`].
pub(crate) unsafe fn read_optional<'a>(text: *const c_char, name: &str) -> Result<Option<&'a str>, Error> {
    if text.is_null() {
        return Ok(None);
    }
    // SAFETY: the caller's promise, handed on.
    unsafe { read(text, name) }.map(Some)
}

/// Copies a text for C. A NUL inside, which C could not see past, becomes U+FFFD.
pub(crate) fn copy(text: &str) -> CString {
    CString::new(text).unwrap_or_else(|_| {
        CString::new(text.replace('\0', "\u{fffd}")).expect("every NUL has just been replaced")
    })
}

/// Hands a text to C, which frees it with `vmk_string_free`.
pub(crate) fn give(out: &mut MaybeUninit<*mut c_char>, text: &str) {
    out.write(copy(text).into_raw());
}

/// Frees a string that the library has handed over with ownership (`char **out`). NULL is ignored.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmk_string_free(text: *mut c_char) {
    guard_or((), || {
        if !text.is_null() {
            // SAFETY: by the caller's promise it came from `give` and was not freed before.
            drop(unsafe { CString::from_raw(text) });
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_inner_nul_is_replaced() {
        assert_eq!(copy("a\0b").to_str(), Ok("a\u{fffd}b"));
    }

    #[test]
    fn bytes_that_are_no_utf8_are_refused() {
        // SAFETY: a literal.
        let error = unsafe { read(c"\xff".as_ptr(), "json") }.unwrap_err();
        assert_eq!(error.text, "json is not UTF-8");
    }
}
