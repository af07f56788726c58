//! Without descriptors a start fails and says so; with them again the next tunnel starts.
//!
//! Alone in its file, because the limit belongs to the whole process.

#[path = "common/engine.rs"]
mod engine;

use engine::{DIRECT, LONG, free_address, socks, threads_and_fds, tunnel};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use vmesskit::{ErrorKind, State};

#[test]
fn a_start_without_descriptors_fails_and_leaves_nothing_behind() {
    let config = socks(free_address());
    let before = threads_and_fds();
    let whole = getrlimit(Resource::Nofile);
    // Ever a little more, so that the start fails at each of its steps in turn.
    let mut failures = 0;
    for current in 0..1000 {
        let tunnel = tunnel(&config);
        setrlimit(Resource::Nofile, Rlimit { current: Some(current), maximum: whole.maximum })
            .expect("lowered");
        let started = tunnel.start(None).wait(Some(LONG)).expect("answered");
        setrlimit(Resource::Nofile, whole).expect("raised again");
        let Err(error) = started else {
            tunnel.stop(LONG).wait(None).expect("answered").expect("stopped");
            break;
        };
        assert!(matches!(error.kind, ErrorKind::ResourceLimit { .. }), "{error}");
        assert_eq!(tunnel.status().state, State::Stopped { error: Some(error) });
        assert_eq!(threads_and_fds(), before, "with descriptors up to {current}");
        failures += 1;
    }
    assert!(failures > 5, "each step of the start has failed once: {failures}");
    let tunnel = tunnel(DIRECT);
    tunnel.start(None).wait(Some(LONG)).expect("answered").expect("started");
    tunnel.stop(LONG).wait(None).expect("answered").expect("stopped");
    assert_eq!(threads_and_fds(), before);
}
