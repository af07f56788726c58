//! Events: in order, each to one waiter, none lost to a waiter that gave up.

#[path = "common/engine.rs"]
mod engine;

use engine::{DIRECT, LONG, events, eventually, tunnel};
use std::collections::HashSet;
use std::sync::Mutex;
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use vmesskit::config::LogLevel;
use vmesskit::{Event, NetworkInfo, NoPlatform, Options, State, Tunnel};

#[test]
fn a_waiter_that_gives_up_loses_nothing() {
    let tunnel = tunnel(DIRECT);
    let mut given_up = Box::pin(tunnel.next_event());
    let mut cx = Context::from_waker(Waker::noop());
    assert!(given_up.as_mut().poll(&mut cx).is_pending());
    assert_eq!(tunnel.next_event().wait(Some(Duration::from_millis(5))), None, "nothing happens");
    tunnel.start(None).wait(None).expect("answered").expect("started");
    drop(given_up);
    assert_eq!(tunnel.next_event().wait(Some(LONG)), Some(Some(Event::State(State::Starting))));
    tunnel.stop(LONG).wait(None).expect("answered").expect("stopped");
    assert!(matches!(events(&tunnel).last(), Some(Event::State(State::Stopped { error: None }))));
}

#[test]
fn many_waiters_share_the_events_and_all_see_the_end() {
    let tunnel = tunnel(DIRECT);
    let seen = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| {
                while let Some(event) = tunnel.next_event().wait(Some(LONG)).expect("an event or the end") {
                    seen.lock().expect("no panic").push(event);
                }
            });
        }
        tunnel.start(None).wait(None).expect("answered").expect("started");
        tunnel.stop(LONG).wait(None).expect("answered").expect("stopped");
    });
    let states: Vec<u32> = engine::states(&seen.into_inner().expect("no panic"));
    assert_eq!(states.iter().collect::<HashSet<_>>().len(), states.len(), "each once: {states:?}");
    assert_eq!(states.len(), 4);
}

#[test]
fn an_async_waiter_is_woken_on_the_host_thread() {
    struct Woken(Mutex<Vec<String>>);
    impl std::task::Wake for Woken {
        fn wake(self: std::sync::Arc<Self>) {
            let name = std::thread::current().name().unwrap_or_default().to_owned();
            self.0.lock().expect("no panic").push(name);
        }
    }
    let tunnel = tunnel(DIRECT);
    tunnel.start(None).wait(None).expect("answered").expect("started");
    while !matches!(tunnel.next_event().wait(Some(LONG)), Some(Some(Event::State(State::Connected)))) {}
    let woken = std::sync::Arc::new(Woken(Mutex::default()));
    let waker = Waker::from(std::sync::Arc::clone(&woken));
    let mut next = Box::pin(tunnel.next_event());
    assert_eq!(next.as_mut().poll(&mut Context::from_waker(&waker)), Poll::Pending);
    tunnel.set_clock_offset(-500);
    let thread = eventually("the waker", || woken.0.lock().expect("no panic").first().cloned());
    assert_eq!(thread, "vmk-host");
    let event = next.as_mut().poll(&mut Context::from_waker(&waker));
    assert_eq!(event, Poll::Ready(Some(Event::ClockSkew { seconds: 500 })));
    tunnel.stop(LONG).wait(None).expect("answered").expect("stopped");
}

#[test]
fn a_flapping_network_is_taken_up_once_and_its_absence_is_a_state() {
    let options = Options { log: Some(LogLevel::None), ..Options::default() };
    let tunnel = Tunnel::new(DIRECT, options, std::sync::Arc::new(NoPlatform)).expect("a good config");
    tunnel.start(None).wait(None).expect("answered").expect("started");
    let network = |id| NetworkInfo { id, has_v4: true, ..NetworkInfo::default() };
    for id in 1..=20 {
        tunnel.network_changed(None);
        tunnel.network_changed(Some(network(id)));
    }
    eventually("the network", || match tunnel.next_event().wait(Some(LONG)) {
        Some(Some(Event::NetworkChanged(taken))) => {
            assert_eq!(taken, network(20));
            Some(())
        }
        Some(Some(Event::State(state))) => {
            assert_ne!(state, State::NoNetwork, "it was gone for less than the time that changes gather in");
            None
        }
        other => panic!("{other:?}"),
    });
    tunnel.network_changed(None);
    assert_eq!(tunnel.next_event().wait(Some(LONG)), Some(Some(Event::State(State::NoNetwork))));
    tunnel.network_changed(Some(network(20)));
    assert_eq!(tunnel.next_event().wait(Some(LONG)), Some(Some(Event::State(State::Connected))));
    tunnel.stop(LONG).wait(None).expect("answered").expect("stopped");
}

#[test]
fn log_lines_follow_the_filter() {
    for (level, lines) in [(Some(LogLevel::Info), true), (Some(LogLevel::Error), false), (None, false)] {
        let options = Options { log: level, ..Options::default() };
        let tunnel = Tunnel::new(DIRECT, options, std::sync::Arc::new(NoPlatform)).expect("a good config");
        tunnel.start(None).wait(None).expect("answered").expect("started");
        tunnel.stop(LONG).wait(None).expect("answered").expect("stopped");
        let logged = events(&tunnel).iter().any(|event| matches!(event, Event::Log(_)));
        assert_eq!(logged, lines, "{level:?}");
    }
}
