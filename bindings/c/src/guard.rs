//! The edge of every function: NULL checks, the panic guard, out-parameters.

use crate::codes::{VMK_OK, vmk_result};
use crate::error::vmk_error;
use std::mem::MaybeUninit;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;
use vmesskit::{Error, ErrorKind, Pending};

/// An `error` parameter: `vmk_error **`, which may be NULL.
pub(crate) type ErrorOut<'a> = Option<&'a mut MaybeUninit<*mut vmk_error>>;

/// Runs a function's body. A failure is written to `error`, if it is wanted; a panic is `VMK_INTERNAL`.
pub(crate) fn guard(error: ErrorOut<'_>, body: impl FnOnce() -> Result<(), Error>) -> vmk_result {
    let result = catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|_| {
        Err(Error::new(ErrorKind::Internal, "a defect in the library: the call was given up")
            .with_hint("report it, with the log"))
    });
    match result {
        Ok(()) => VMK_OK,
        Err(failure) => {
            let code = failure.kind.code();
            if let Some(out) = error {
                // The panic hook of a host may itself panic; making the texts must not cross into C either.
                let made = catch_unwind(|| Box::into_raw(Box::new(vmk_error::new(&failure))));
                out.write(made.unwrap_or(std::ptr::null_mut()));
            }
            code
        }
    }
}

/// Runs an accessor's body; `neutral` is its answer if it panics.
pub(crate) fn guard_or<T>(neutral: T, body: impl FnOnce() -> T) -> T {
    catch_unwind(AssertUnwindSafe(body)).unwrap_or(neutral)
}

/// The argument, which must not be NULL.
///
/// # Errors
/// `Misuse`, naming it.
pub(crate) fn required<T>(argument: Option<T>, name: &str) -> Result<T, Error> {
    argument.ok_or_else(|| misuse(format!("{name} is NULL")))
}

/// Makes a `Misuse`.
pub(crate) fn misuse(text: impl Into<String>) -> Error {
    Error::new(ErrorKind::Misuse, text.into())
}

/// Hands an object to C, which frees it with the function of its type.
pub(crate) fn give<T>(out: &mut MaybeUninit<*mut T>, value: T) {
    out.write(Box::into_raw(Box::new(value)));
}

/// A `timeout_ms` as a duration; `VMK_WAIT_FOREVER` is about 49 days.
pub(crate) fn timeout(millis: u32) -> Duration {
    Duration::from_millis(millis.into())
}

/// Waits for an answer for at most `timeout_ms`; `what` names it.
///
/// # Errors
/// The answer's own, or `Timeout`.
pub(crate) fn wait<T>(
    answer: Pending<Result<T, Error>>,
    timeout_ms: u32,
    what: &'static str,
) -> Result<T, Error> {
    let limit = (timeout_ms != crate::codes::VMK_WAIT_FOREVER).then(|| timeout(timeout_ms));
    answer.wait(limit).unwrap_or_else(|| Err(timed_out(what)))
}

/// Makes a `Timeout`.
pub(crate) fn timed_out(what: &'static str) -> Error {
    Error::new(ErrorKind::Timeout { what }, format!("{what} did not end in time"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codes::VMK_INTERNAL;

    #[test]
    fn a_panic_becomes_an_internal_error() {
        let mut error = MaybeUninit::new(std::ptr::null_mut());
        assert_eq!(guard(Some(&mut error), || panic!("on purpose")), VMK_INTERNAL);
        // SAFETY: `guard` has written an error that nobody else owns.
        let error = unsafe { Box::from_raw(error.assume_init()) };
        assert_eq!(error.code(), VMK_INTERNAL);
    }

    #[test]
    fn success_leaves_the_error_alone() {
        let mut error = MaybeUninit::new(std::ptr::dangling_mut());
        assert_eq!(guard(Some(&mut error), || Ok(())), VMK_OK);
        // SAFETY: it was initialised above; the pointer is compared, not followed.
        assert_eq!(unsafe { error.assume_init() }, std::ptr::dangling_mut());
    }

    #[test]
    fn an_accessor_that_panics_answers_neutrally() {
        assert_eq!(guard_or(7, || panic!("on purpose")), 7);
    }
}
