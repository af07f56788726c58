//! The options of a tunnel: opaque, so that new ones need no new struct.

use crate::codes::{self, vmk_result};
use crate::error::vmk_error;
use crate::guard::{guard, guard_or, required};
use crate::network::{self, vmk_network_info};
use std::mem::MaybeUninit;
use vmesskit::Options;

/// How a tunnel is started: opaque, made by `vmk_options_new`. Not for two threads at once.
#[derive(Default)]
pub struct vmk_options {
    options: Options,
}

impl vmk_options {
    /// The options themselves.
    pub(crate) fn options(&self) -> &Options {
        &self.options
    }
}

/// Makes options that leave everything to the defaults. Freed with `vmk_options_free`.
#[unsafe(no_mangle)]
pub extern "C" fn vmk_options_new() -> *mut vmk_options {
    guard_or(std::ptr::null_mut(), || Box::into_raw(Box::default()))
}

/// Frees options. NULL is ignored. A tunnel keeps its own copy, so they may go once it is made.
#[unsafe(no_mangle)]
pub extern "C" fn vmk_options_free(options: Option<Box<vmk_options>>) {
    guard_or((), || drop(options));
}

/// Sets the most memory, in bytes, that the tunnel's buffers and tables may take; 0 restores the default (the config's
/// `memoryLimit`, else 32 MiB on iOS and 64 MiB elsewhere). At least 4 MiB.
#[unsafe(no_mangle)]
pub extern "C" fn vmk_options_set_memory_limit(
    options: Option<&mut vmk_options>,
    bytes: u64,
    error: Option<&mut MaybeUninit<*mut vmk_error>>,
) -> vmk_result {
    guard(error, || {
        required(options, "options")?.options.memory_limit_bytes = (bytes != 0).then_some(bytes);
        Ok(())
    })
}

/// Sets which log lines become events: a `VMK_LOG_` level instead of the config's `loglevel`.
#[unsafe(no_mangle)]
pub extern "C" fn vmk_options_set_log_level(
    options: Option<&mut vmk_options>,
    level: u32,
    error: Option<&mut MaybeUninit<*mut vmk_error>>,
) -> vmk_result {
    guard(error, || {
        let options = required(options, "options")?;
        options.options.log = Some(codes::log_level(level)?);
        Ok(())
    })
}

/// Sets the network at the start; copied. NULL: unknown, the default.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmk_options_set_network(
    options: Option<&mut vmk_options>,
    network: *const vmk_network_info,
    error: Option<&mut MaybeUninit<*mut vmk_error>>,
) -> vmk_result {
    guard(error, || {
        let options = required(options, "options")?;
        // SAFETY: NULL or a struct that begins with its size, as the header asks for.
        options.options.network = unsafe { network::read(network) }?;
        Ok(())
    })
}
