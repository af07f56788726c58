//! Events as C sees them.

use crate::codes::{VMK_STATE_IDLE, log_level_code, vmk_result};
use crate::error::vmk_error;
use crate::guard::{guard, guard_or, misuse, required};
use crate::network::{Lent, vmk_network_info};
use crate::sized::{self, Sized32};
use crate::text::{self, EMPTY};
use std::ffi::{CString, c_char};
use vmesskit::{Cause, Event, State};

/// What a tunnel tells its host: opaque, freed with `vmk_event_free`. Each accessor answers for the kinds named in the
/// `VMK_EVENT_` constants and is neutral (0, empty, NULL) for any other.
pub struct vmk_event {
    kind: u32,
    state: u32,
    outbound: CString,
    reason: CString,
    error: Option<vmk_error>,
    seconds: i64,
    dropped: u64,
    lines: Vec<(u32, i64, CString)>,
    causes: Vec<(u32, u32, CString)>,
    network: Option<Lent>,
}

impl vmk_event {
    /// Copies an event of the core.
    pub(crate) fn new(event: &Event) -> Self {
        let mut this = Self {
            kind: event.code(),
            state: VMK_STATE_IDLE,
            outbound: CString::default(),
            reason: CString::default(),
            error: None,
            seconds: 0,
            dropped: 0,
            lines: Vec::new(),
            causes: Vec::new(),
            network: None,
        };
        match event {
            Event::State(state) => {
                this.state = state.code();
                match state {
                    State::Degraded { reason } => this.reason = text::copy(reason),
                    State::Stopped { error } => this.error = error.as_ref().map(vmk_error::new),
                    _ => {}
                }
            }
            Event::Log(lines) => {
                let line = |line: &vmesskit::LogLine| {
                    (log_level_code(line.level), line.unix_millis, text::copy(&line.text))
                };
                this.lines = lines.iter().map(line).collect();
            }
            Event::NetworkChanged(network) => this.network = Some(Lent::new(network)),
            Event::OutboundUnhealthy { outbound, likely } | Event::AuthRejected { outbound, likely } => {
                let cause =
                    |cause: &Cause| (cause.kind.code(), cause.confidence.into(), text::copy(&cause.text));
                this.outbound = text::copy(outbound);
                this.causes = likely.iter().map(cause).collect();
            }
            Event::ClockSkew { seconds } => this.seconds = *seconds,
            Event::ResourceLimit { what } => this.reason = text::copy(what),
            Event::Degraded { reason } => this.reason = text::copy(reason),
            Event::EventsDropped { count } => this.dropped = *count,
            _ => {}
        }
        this
    }
}

/// One line of the log. The text is borrowed from the event.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct vmk_log_line {
    /// `sizeof(vmk_log_line)`.
    pub size: u32,
    /// A `VMK_LOG_` level.
    pub level: u32,
    /// When, in milliseconds since 1970 (UTC).
    pub unix_millis: i64,
    /// The text, without an end of line.
    pub text: *const c_char,
}

// SAFETY: integers and a raw pointer in C layout.
unsafe impl Sized32 for vmk_log_line {
    const NAME: &'static str = "vmk_log_line";
    const MIN: usize = 8;
}

/// A likely cause of a fault. The text is borrowed from the event.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct vmk_cause {
    /// `sizeof(vmk_cause)`.
    pub size: u32,
    /// A `VMK_CAUSE_`, perhaps one that the caller does not know.
    pub kind: u32,
    /// How sure, in percent.
    pub confidence: u32,
    /// Zero.
    pub reserved: u32,
    /// For a person: what it is and what to do.
    pub text: *const c_char,
}

// SAFETY: integers and a raw pointer in C layout.
unsafe impl Sized32 for vmk_cause {
    const NAME: &'static str = "vmk_cause";
    const MIN: usize = 8;
}

/// Returns the event's `VMK_EVENT_` kind, perhaps one that the caller does not know; 0 for NULL.
#[unsafe(no_mangle)]
pub extern "C" fn vmk_event_kind(event: Option<&vmk_event>) -> u32 {
    guard_or(0, || event.map_or(0, |event| event.kind))
}

/// Returns the `VMK_STATE_` of a `VMK_EVENT_STATE`.
#[unsafe(no_mangle)]
pub extern "C" fn vmk_event_state(event: Option<&vmk_event>) -> u32 {
    guard_or(VMK_STATE_IDLE, || event.map_or(VMK_STATE_IDLE, |event| event.state))
}

/// Returns the tag of the outbound concerned, borrowed from the event.
#[unsafe(no_mangle)]
pub extern "C" fn vmk_event_outbound(event: Option<&vmk_event>) -> *const c_char {
    guard_or(EMPTY, || event.map_or(EMPTY, |event| event.outbound.as_ptr()))
}

/// Returns what is wrong, or what ran out, for a person; borrowed from the event.
#[unsafe(no_mangle)]
pub extern "C" fn vmk_event_reason(event: Option<&vmk_event>) -> *const c_char {
    guard_or(EMPTY, || event.map_or(EMPTY, |event| event.reason.as_ptr()))
}

/// Returns why the tunnel has stopped, borrowed from the event; NULL if it was asked to.
#[unsafe(no_mangle)]
pub extern "C" fn vmk_event_error(event: Option<&vmk_event>) -> Option<&vmk_error> {
    guard_or(None, || event.and_then(|event| event.error.as_ref()))
}

/// Returns by how many seconds the clock is off; positive: it is fast.
#[unsafe(no_mangle)]
pub extern "C" fn vmk_event_seconds(event: Option<&vmk_event>) -> i64 {
    guard_or(0, || event.map_or(0, |event| event.seconds))
}

/// Returns how many events were dropped.
#[unsafe(no_mangle)]
pub extern "C" fn vmk_event_count(event: Option<&vmk_event>) -> u64 {
    guard_or(0, || event.map_or(0, |event| event.dropped))
}

/// Returns how many log lines there are.
#[unsafe(no_mangle)]
pub extern "C" fn vmk_event_log_count(event: Option<&vmk_event>) -> usize {
    guard_or(0, || event.map_or(0, |event| event.lines.len()))
}

/// Reads one log line, oldest first; `VMK_MISUSE` behind the end.
///
/// out: its `size` is set by the caller.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmk_event_log_get(
    event: Option<&vmk_event>,
    index: usize,
    out: *mut vmk_log_line,
) -> vmk_result {
    guard(None, || {
        let lines = &required(event, "event")?.lines;
        let (level, unix_millis, text) = lines.get(index).ok_or_else(|| misuse("index is behind the end"))?;
        let value = vmk_log_line { size: 0, level: *level, unix_millis: *unix_millis, text: text.as_ptr() };
        // SAFETY: NULL or a struct that begins with its size, as the header asks for.
        unsafe { sized::write(out, &value) }
    })
}

/// Returns how many likely causes there are.
#[unsafe(no_mangle)]
pub extern "C" fn vmk_event_cause_count(event: Option<&vmk_event>) -> usize {
    guard_or(0, || event.map_or(0, |event| event.causes.len()))
}

/// Reads one likely cause, surest first; `VMK_MISUSE` behind the end.
///
/// out: its `size` is set by the caller.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmk_event_cause_get(
    event: Option<&vmk_event>,
    index: usize,
    out: *mut vmk_cause,
) -> vmk_result {
    guard(None, || {
        let causes = &required(event, "event")?.causes;
        let (kind, confidence, text) = causes.get(index).ok_or_else(|| misuse("index is behind the end"))?;
        let value =
            vmk_cause { size: 0, kind: *kind, confidence: *confidence, reserved: 0, text: text.as_ptr() };
        // SAFETY: NULL or a struct that begins with its size, as the header asks for.
        unsafe { sized::write(out, &value) }
    })
}

/// Reads the network that was taken up; `VMK_MISUSE` for an event of another kind. Its texts are borrowed from the
/// event.
///
/// out: its `size` is set by the caller.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmk_event_network(
    event: Option<&vmk_event>,
    out: *mut vmk_network_info,
) -> vmk_result {
    guard(None, || {
        let network = required(event, "event")?.network.as_ref();
        let network = network.ok_or_else(|| misuse("the event holds no network"))?;
        // SAFETY: NULL or a struct that begins with its size, as the header asks for.
        unsafe { sized::write(out, network.info()) }
    })
}

/// Frees an event and all that is borrowed from it. NULL is ignored.
#[unsafe(no_mangle)]
pub extern "C" fn vmk_event_free(event: Option<Box<vmk_event>>) {
    guard_or((), || drop(event));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codes;
    use crate::error::{vmk_error_code, vmk_error_text};
    use std::ffi::CStr;
    use vmesskit::config::LogLevel;
    use vmesskit::{CauseKind, Error, ErrorKind, LogLine, NetworkInfo};

    fn read(text: *const c_char) -> String {
        // SAFETY: an accessor's answer, borrowed from an event that is still there, or a literal.
        unsafe { CStr::from_ptr(text) }.to_str().unwrap().to_owned()
    }

    #[test]
    fn a_stop_tells_why() {
        let error = Some(Error::new(ErrorKind::TunGone, "gone"));
        let event = vmk_event::new(&Event::State(State::Stopped { error }));
        let seen = Some(&event);
        assert_eq!(
            (vmk_event_kind(seen), vmk_event_state(seen)),
            (codes::VMK_EVENT_STATE, codes::VMK_STATE_STOPPED)
        );
        let error = vmk_event_error(seen);
        assert_eq!(
            (vmk_error_code(error), read(vmk_error_text(error))),
            (codes::VMK_TUN_GONE, "gone".into())
        );
    }

    #[test]
    fn log_lines_keep_their_order_level_and_time() {
        let line = |level, unix_millis, text: &str| LogLine { level, unix_millis, text: text.into() };
        let event = vmk_event::new(&Event::Log(vec![
            line(LogLevel::Error, -1, "first"),
            line(LogLevel::Debug, i64::MAX, "second"),
        ]));
        let mut out = vmk_log_line { size: 24, level: 9, unix_millis: 9, text: std::ptr::null() };
        // SAFETY: a whole struct with its size.
        assert_eq!(unsafe { vmk_event_log_get(Some(&event), 1, &mut out) }, codes::VMK_OK);
        assert_eq!(
            (out.level, out.unix_millis, read(out.text)),
            (codes::VMK_LOG_DEBUG, i64::MAX, "second".into())
        );
        // SAFETY: as above.
        assert_eq!(unsafe { vmk_event_log_get(Some(&event), 2, &mut out) }, codes::VMK_MISUSE);
        assert_eq!(vmk_event_log_count(Some(&event)), 2);
    }

    #[test]
    fn causes_come_with_their_confidence() {
        let likely = vec![Cause { kind: CauseKind::Clock, confidence: 70, text: "set it".into() }];
        for event in [
            Event::AuthRejected { outbound: "proxy".into(), likely: likely.clone() },
            Event::OutboundUnhealthy { outbound: "proxy".into(), likely },
        ] {
            let event = vmk_event::new(&event);
            let mut out = vmk_cause { size: 24, kind: 0, confidence: 0, reserved: 0, text: std::ptr::null() };
            // SAFETY: a whole struct with its size.
            assert_eq!(unsafe { vmk_event_cause_get(Some(&event), 0, &mut out) }, codes::VMK_OK);
            assert_eq!((out.kind, out.confidence), (codes::VMK_CAUSE_CLOCK, 70));
            assert_eq!(
                (read(out.text), read(vmk_event_outbound(Some(&event)))),
                ("set it".into(), "proxy".into())
            );
        }
    }

    #[test]
    fn the_plain_fields_reach_c() {
        let of = |event: &Event| vmk_event::new(event);
        assert_eq!(vmk_event_seconds(Some(&of(&Event::ClockSkew { seconds: -5 }))), -5);
        assert_eq!(vmk_event_count(Some(&of(&Event::EventsDropped { count: 3 }))), 3);
        assert_eq!(
            read(vmk_event_reason(Some(&of(&Event::ResourceLimit { what: "flows".into() })))),
            "flows"
        );
        assert_eq!(read(vmk_event_reason(Some(&of(&Event::Degraded { reason: "slow".into() })))), "slow");
        let degraded = of(&Event::State(State::Degraded { reason: "slow".into() }));
        assert_eq!(read(vmk_event_reason(Some(&degraded))), "slow");
    }

    #[test]
    fn a_network_is_lent() {
        let network =
            NetworkInfo { id: 4, dns: vec!["192.0.2.1".parse().unwrap()], ..NetworkInfo::default() };
        let event = vmk_event::new(&Event::NetworkChanged(network.clone()));
        let mut out = *event.network.as_ref().unwrap().info();
        // SAFETY: a whole struct with its size.
        assert_eq!(unsafe { vmk_event_network(Some(&event), &mut out) }, codes::VMK_OK);
        // SAFETY: borrowed from `event`.
        assert_eq!(unsafe { crate::network::read(&out) }.unwrap(), Some(network));
    }
}
