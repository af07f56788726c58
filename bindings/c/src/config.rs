//! Configs, share links, subscriptions and measuring: what needs no tunnel.

use crate::codes::{VMK_SEVERITY_ERROR, VMK_SEVERITY_WARNING, vmk_result};
use crate::error::vmk_error;
use crate::guard::{give, guard, guard_or, misuse, required, timed_out, timeout};
use crate::platform::{self, vmk_platform};
use crate::sized::{self, Sized32};
use crate::text::{self, EMPTY};
use std::ffi::{CString, c_char};
use std::mem::MaybeUninit;
use std::time::Duration;
use vmesskit::config::{Diagnostic, Severity};
use vmesskit::{Error, MeasureRequest};

/// What was found in a config: opaque, freed with `vmk_diagnostics_free`.
pub struct vmk_diagnostics {
    findings: Vec<Finding>,
}

/// One finding, its texts for C.
struct Finding {
    severity: u32,
    path: CString,
    text: CString,
    found: CString,
    allowed: CString,
    hint: CString,
}

impl From<&Diagnostic> for Finding {
    fn from(diagnostic: &Diagnostic) -> Self {
        Self {
            severity: match diagnostic.severity {
                Severity::Warning => VMK_SEVERITY_WARNING,
                Severity::Error => VMK_SEVERITY_ERROR,
            },
            path: text::copy(&diagnostic.path),
            text: text::copy(&diagnostic.text),
            found: text::copy(&diagnostic.found),
            allowed: text::copy(&diagnostic.allowed),
            hint: text::copy(&diagnostic.hint),
        }
    }
}

/// One finding in a config. The texts are borrowed from the list.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct vmk_diagnostic {
    /// `sizeof(vmk_diagnostic)`.
    pub size: u32,
    /// A `VMK_SEVERITY_`.
    pub severity: u32,
    /// The JSON path: `outbounds[0].settings.vnext[0].port`. For text that is no JSON: `line 3, column 7`.
    pub path: *const c_char,
    /// What is wrong, for a person.
    pub text: *const c_char,
    /// The value found, shortened, never a secret; may be empty.
    pub found: *const c_char,
    /// What is allowed there; may be empty.
    pub allowed: *const c_char,
    /// What to do, such as the nearest known name; may be empty.
    pub hint: *const c_char,
}

// SAFETY: integers and raw pointers in C layout.
unsafe impl Sized32 for vmk_diagnostic {
    const NAME: &'static str = "vmk_diagnostic";
    const MIN: usize = 8;
}

/// Checks a config (V2Ray's JSON, comments allowed) without doing any IO. `VMK_OK` means that it was checked: the list
/// may hold errors.
///
/// json: the config. out: receives the findings, to be freed with `vmk_diagnostics_free`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmk_validate_config(
    json: *const c_char,
    out: Option<&mut MaybeUninit<*mut vmk_diagnostics>>,
    error: Option<&mut MaybeUninit<*mut vmk_error>>,
) -> vmk_result {
    guard(error, || {
        let out = required(out, "out")?;
        // SAFETY: NULL or a text, as the header asks for.
        let json = unsafe { text::read(json, "json") }?;
        let findings = vmesskit::validate_config(json).iter().map(Finding::from).collect();
        give(out, vmk_diagnostics { findings });
        Ok(())
    })
}

/// Returns how many findings there are; 0 for NULL.
#[unsafe(no_mangle)]
pub extern "C" fn vmk_diagnostics_count(diagnostics: Option<&vmk_diagnostics>) -> usize {
    guard_or(0, || diagnostics.map_or(0, |list| list.findings.len()))
}

/// Returns how many of them are errors; 0 for NULL.
#[unsafe(no_mangle)]
pub extern "C" fn vmk_diagnostics_errors(diagnostics: Option<&vmk_diagnostics>) -> usize {
    let is_error = |finding: &&Finding| finding.severity == VMK_SEVERITY_ERROR;
    guard_or(0, || diagnostics.map_or(0, |list| list.findings.iter().filter(is_error).count()))
}

/// Reads one finding; `VMK_MISUSE` behind the end.
///
/// out: its `size` is set by the caller.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmk_diagnostics_get(
    diagnostics: Option<&vmk_diagnostics>,
    index: usize,
    out: *mut vmk_diagnostic,
) -> vmk_result {
    guard(None, || {
        let list = required(diagnostics, "diagnostics")?;
        let finding = list.findings.get(index).ok_or_else(|| misuse("index is behind the end"))?;
        let value = vmk_diagnostic {
            size: 0,
            severity: finding.severity,
            path: finding.path.as_ptr(),
            text: finding.text.as_ptr(),
            found: finding.found.as_ptr(),
            allowed: finding.allowed.as_ptr(),
            hint: finding.hint.as_ptr(),
        };
        // SAFETY: NULL or a struct that begins with its size, as the header asks for.
        unsafe { sized::write(out, &value) }
    })
}

/// Frees the findings and every text borrowed from them. NULL is ignored.
#[unsafe(no_mangle)]
pub extern "C" fn vmk_diagnostics_free(diagnostics: Option<Box<vmk_diagnostics>>) {
    guard_or((), || drop(diagnostics));
}

/// Translates a text by a function of the core.
///
/// # Safety
/// `input` is NULL or a text.
unsafe fn translate(
    input: *const c_char,
    name: &str,
    out: Option<&mut MaybeUninit<*mut c_char>>,
    error: Option<&mut MaybeUninit<*mut vmk_error>>,
    by: impl FnOnce(&str) -> Result<String, Error>,
) -> vmk_result {
    guard(error, || {
        let out = required(out, "out")?;
        // SAFETY: the caller's promise, handed on.
        let input = unsafe { text::read(input, name) }?;
        text::give(out, &by(input)?);
        Ok(())
    })
}

/// Writes a config in a uniform layout.
///
/// json: the config. out: receives the text, to be freed with `vmk_string_free`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmk_format_config(
    json: *const c_char,
    out: Option<&mut MaybeUninit<*mut c_char>>,
    error: Option<&mut MaybeUninit<*mut vmk_error>>,
) -> vmk_result {
    // SAFETY: NULL or a text, as the header asks for.
    unsafe { translate(json, "json", out, error, vmesskit::format_config) }
}

/// Makes a config of a `vmess://` share link.
///
/// uri: the link. out: receives the config as JSON, to be freed with `vmk_string_free`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmk_parse_share_link(
    uri: *const c_char,
    out: Option<&mut MaybeUninit<*mut c_char>>,
    error: Option<&mut MaybeUninit<*mut vmk_error>>,
) -> vmk_result {
    // SAFETY: NULL or a text, as the header asks for.
    unsafe { translate(uri, "uri", out, error, vmesskit::parse_share_link) }
}

/// Makes a `vmess://` share link of a config's first VMess outbound.
///
/// json: the config. out: receives the link, which holds the id, to be freed with `vmk_string_free`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmk_to_share_link(
    json: *const c_char,
    out: Option<&mut MaybeUninit<*mut c_char>>,
    error: Option<&mut MaybeUninit<*mut vmk_error>>,
) -> vmk_result {
    // SAFETY: NULL or a text, as the header asks for.
    unsafe { translate(json, "json", out, error, vmesskit::to_share_link) }
}

/// What a subscription holds: opaque, freed with `vmk_subscription_free`.
pub struct vmk_subscription {
    servers: Vec<(CString, CString)>,
    diagnostics: vmk_diagnostics,
}

/// Reads a subscription's body: links, a line each, as they are or as base64 of the whole; or JSON: a list of links, of
/// v2rayN's objects, of V2Ray's configs or VMess outbounds, one such config, or sing-box's config. What cannot be read
/// is a finding; `VMK_CONFIG_INVALID` means that the body is none of that. At most 5000 servers of at most 4 MiB are
/// read.
///
/// bytes: the body, `length` bytes. out: receives what it holds, to be freed with `vmk_subscription_free`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmk_parse_subscription(
    bytes: *const u8,
    length: usize,
    out: Option<&mut MaybeUninit<*mut vmk_subscription>>,
    error: Option<&mut MaybeUninit<*mut vmk_error>>,
) -> vmk_result {
    guard(error, || {
        let out = required(out, "out")?;
        if bytes.is_null() || length > isize::MAX as usize {
            return Err(misuse("bytes is NULL, or length is no length"));
        }
        // SAFETY: not NULL, a length that can be, and so many readable bytes, as the header asks for.
        let bytes = unsafe { std::slice::from_raw_parts(bytes, length) };
        let found = vmesskit::parse_subscription(bytes)?;
        let servers = found.servers.iter();
        let servers = servers.map(|server| (text::copy(&server.name), text::copy(&server.config))).collect();
        let findings = found.diagnostics.iter().map(Finding::from).collect();
        give(out, vmk_subscription { servers, diagnostics: vmk_diagnostics { findings } });
        Ok(())
    })
}

/// Returns how many servers there are; 0 for NULL.
#[unsafe(no_mangle)]
pub extern "C" fn vmk_subscription_count(subscription: Option<&vmk_subscription>) -> usize {
    guard_or(0, || subscription.map_or(0, |found| found.servers.len()))
}

/// Returns a server's name for people, borrowed from the subscription; empty behind the end.
#[unsafe(no_mangle)]
pub extern "C" fn vmk_subscription_name(
    subscription: Option<&vmk_subscription>,
    index: usize,
) -> *const c_char {
    let name = |found: &vmk_subscription| Some(found.servers.get(index)?.0.as_ptr());
    guard_or(EMPTY, || subscription.and_then(name).unwrap_or(EMPTY))
}

/// Returns a server's complete config as JSON, borrowed from the subscription; empty behind the end.
#[unsafe(no_mangle)]
pub extern "C" fn vmk_subscription_config(
    subscription: Option<&vmk_subscription>,
    index: usize,
) -> *const c_char {
    let config = |found: &vmk_subscription| Some(found.servers.get(index)?.1.as_ptr());
    guard_or(EMPTY, || subscription.and_then(config).unwrap_or(EMPTY))
}

/// Returns what could not be read, borrowed from the subscription; NULL for NULL. A path is `line 3`, or a JSON path in
/// the body, perhaps with one inside of the server's config behind it.
#[unsafe(no_mangle)]
pub extern "C" fn vmk_subscription_diagnostics(
    subscription: Option<&vmk_subscription>,
) -> Option<&vmk_diagnostics> {
    guard_or(None, || subscription.map(|found| &found.diagnostics))
}

/// Frees what a subscription holds, and every text borrowed from it. NULL is ignored.
#[unsafe(no_mangle)]
pub extern "C" fn vmk_subscription_free(subscription: Option<Box<vmk_subscription>>) {
    guard_or((), || drop(subscription));
}

/// What was measured of several configs: opaque, freed with `vmk_measurements_free`.
pub struct vmk_measurements {
    measurements: Vec<Result<u64, vmk_error>>,
}

/// What `vmk_measure` is asked to do.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct vmk_measure_request {
    /// `sizeof(vmk_measure_request)`.
    pub size: u32,
    /// How many configs there are.
    pub configs_count: u32,
    /// The configs as JSON.
    pub configs: *const *const c_char,
    /// What to fetch through each: an `http://` or `https://` address.
    pub url: *const c_char,
    /// The host's callbacks, or NULL; taken over as by `vmk_tunnel_new`.
    pub platform: *const vmk_platform,
    /// How long each may take; not 0.
    pub timeout_ms: u32,
    /// How many at a time, 1 to 128.
    pub parallel: u32,
}

// SAFETY: integers and raw pointers in C layout.
unsafe impl Sized32 for vmk_measure_request {
    const NAME: &'static str = "vmk_measure_request";
    const MIN: usize = size_of::<Self>();
}

/// Fetches an address through each config and tells how long it took. Needs no running tunnel; one thread of its own
/// measures all, and is gone when this returns. Of each config the first outbound that dials a server is measured, or,
/// without one, the first freedom. Blocks until all have ended, `timeout_ms` for each round of `parallel`.
///
/// out: receives the figures in the configs' order, to be freed with `vmk_measurements_free`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmk_measure(
    request: *const vmk_measure_request,
    out: Option<&mut MaybeUninit<*mut vmk_measurements>>,
    error: Option<&mut MaybeUninit<*mut vmk_error>>,
) -> vmk_result {
    guard(error, || {
        // SAFETY: NULL or a struct that begins with its size, as the header asks for.
        let request = unsafe { sized::read(request) }?;
        // SAFETY: NULL or a struct that begins with its size, as the header asks for.
        let platform = unsafe { platform::take(request.platform) }?;
        let out = required(out, "out")?;
        // SAFETY: NULL or a text, and NULL or so many texts, as the header asks for.
        let (url, configs) = unsafe { (text::read(request.url, "url")?, configs(&request)?) };
        let asked = MeasureRequest {
            configs,
            url: url.to_owned(),
            timeout: timeout(request.timeout_ms),
            parallel: request.parallel as usize,
        };
        let measured = vmesskit::measure(asked, Some(platform)).wait(None);
        let measured = measured.unwrap_or_else(|| Err(timed_out("measure")))?.into_iter();
        let micros = |latency: Duration| u64::try_from(latency.as_micros()).unwrap_or(u64::MAX - 1);
        let measurements =
            measured.map(|one| one.map(micros).map_err(|error| vmk_error::new(&error))).collect();
        give(out, vmk_measurements { measurements });
        Ok(())
    })
}

/// Copies the configs of a request.
///
/// # Errors
/// `Misuse` for NULL and for what is no UTF-8.
///
/// # Safety
/// `request.configs` is NULL or points to `configs_count` pointers, each NULL or a text.
unsafe fn configs(request: &vmk_measure_request) -> Result<Vec<String>, Error> {
    let count = request.configs_count as usize;
    if count == 0 {
        return Ok(Vec::new());
    }
    if request.configs.is_null() {
        return Err(misuse("configs is NULL"));
    }
    if count > isize::MAX as usize / size_of::<*const c_char>() {
        return Err(misuse("configs_count is no count"));
    }
    // SAFETY: not NULL, and so many pointers by the caller's promise.
    let texts = unsafe { std::slice::from_raw_parts(request.configs, count) };
    // SAFETY: each NULL or a text by the caller's promise.
    texts.iter().map(|json| Ok(unsafe { text::read(*json, "a config") }?.to_owned())).collect()
}

/// Returns how many figures there are; 0 for NULL.
#[unsafe(no_mangle)]
pub extern "C" fn vmk_measurements_count(measurements: Option<&vmk_measurements>) -> usize {
    guard_or(0, || measurements.map_or(0, |list| list.measurements.len()))
}

/// Returns the microseconds from the dial to the head of the HTTP answer; `UINT64_MAX` if the config failed, and behind
/// the end.
#[unsafe(no_mangle)]
pub extern "C" fn vmk_measurements_latency_micros(
    measurements: Option<&vmk_measurements>,
    index: usize,
) -> u64 {
    guard_or(u64::MAX, || match measurements.and_then(|list| list.measurements.get(index)) {
        Some(Ok(micros)) => *micros,
        Some(Err(_)) | None => u64::MAX,
    })
}

/// Returns why a config failed, borrowed from the list; NULL if it did not, and behind the end.
#[unsafe(no_mangle)]
pub extern "C" fn vmk_measurements_error(
    measurements: Option<&vmk_measurements>,
    index: usize,
) -> Option<&vmk_error> {
    guard_or(None, || measurements.and_then(|list| list.measurements.get(index)?.as_ref().err()))
}

/// Frees the figures. NULL is ignored.
#[unsafe(no_mangle)]
pub extern "C" fn vmk_measurements_free(measurements: Option<Box<vmk_measurements>>) {
    guard_or((), || drop(measurements));
}
