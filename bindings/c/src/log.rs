//! The process-wide log sink.

use crate::codes::{self, vmk_result};
use crate::error::vmk_error;
use crate::guard::{guard, misuse};
use crate::text;
use std::ffi::{c_char, c_void};
use std::mem::MaybeUninit;
use vmesskit::config::LogLevel;

/// Receives one log line: a `VMK_LOG_` level, and the text without an end of line, lent for the call. Called on any
/// thread, and on several at once; it must not unwind.
pub type vmk_log_fn = Option<unsafe extern "C" fn(userdata: *mut c_void, level: u32, text: *const c_char)>;

/// The sink behind the `log` crate.
struct Sink {
    callback: unsafe extern "C" fn(userdata: *mut c_void, level: u32, text: *const c_char),
    userdata: *mut c_void,
}

// SAFETY: the header says that the callback is called on any thread; `userdata` is only handed back.
unsafe impl Send for Sink {}
// SAFETY: as above.
unsafe impl Sync for Sink {}

impl log::Log for Sink {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &log::Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let level = match record.level() {
            log::Level::Error => codes::VMK_LOG_ERROR,
            log::Level::Warn => codes::VMK_LOG_WARNING,
            log::Level::Info => codes::VMK_LOG_INFO,
            log::Level::Debug | log::Level::Trace => codes::VMK_LOG_DEBUG,
        };
        let text = text::copy(&record.args().to_string());
        // SAFETY: a function of this type by the host's promise; the text outlives the call.
        unsafe { (self.callback)(self.userdata, level, text.as_ptr()) };
    }

    fn flush(&self) {}
}

/// Sends the log lines of every tunnel in the process to a callback, besides their `VMK_EVENT_LOG`. Once in a process,
/// before or after tunnels are made: `VMK_MISUSE` the second time. The callback and `userdata` stay for good.
///
/// level: a `VMK_LOG_`; lines that are less grave are left out. callback: not NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmk_set_log_sink(
    level: u32,
    callback: vmk_log_fn,
    userdata: *mut c_void,
    error: Option<&mut MaybeUninit<*mut vmk_error>>,
) -> vmk_result {
    guard(error, || {
        let filter = match codes::log_level(level)? {
            LogLevel::None => log::LevelFilter::Off,
            LogLevel::Error => log::LevelFilter::Error,
            LogLevel::Warning => log::LevelFilter::Warn,
            LogLevel::Info => log::LevelFilter::Info,
            LogLevel::Debug => log::LevelFilter::Debug,
        };
        let callback = callback.ok_or_else(|| misuse("callback is NULL"))?;
        log::set_boxed_logger(Box::new(Sink { callback, userdata }))
            .map_err(|_| misuse("the process has a log sink already"))?;
        log::set_max_level(filter);
        Ok(())
    })
}
