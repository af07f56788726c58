//! start, stop and the rest, in every order in which a host may call them.

#[path = "common/engine.rs"]
mod engine;

use engine::{DIRECT, LONG, ended, events, eventually, free_address, socks, states, tunnel};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;
use vmesskit::error::ErrorKind;
use vmesskit::{Event, NewUser, Options, State, Tunnel};

fn kind<T>(result: Result<T, vmesskit::error::Error>) -> Option<ErrorKind> {
    result.err().map(|error| error.kind)
}

#[test]
fn a_tunnel_is_started_once_and_stopped_as_often_as_one_likes() {
    let tunnel = tunnel(DIRECT);
    assert_eq!(tunnel.status().state, State::Idle);
    assert_eq!(tunnel.start(None).wait(Some(LONG)), Some(Ok(())));
    assert_eq!(tunnel.status().state, State::Connected, "nothing to dial");
    assert_eq!(kind(tunnel.start(None).wait(None).expect("at once")), Some(ErrorKind::AlreadyRunning));
    for _ in 0..3 {
        assert_eq!(tunnel.stop(LONG).wait(None), Some(Ok(())));
        assert_eq!(tunnel.status().state, State::Stopped { error: None });
    }
    assert_eq!(kind(tunnel.start(None).wait(None).expect("at once")), Some(ErrorKind::Stopped));
    let codes = states(&events(&tunnel));
    assert_eq!(codes, [1, 3, 6, 7], "starting, connected, stopping, stopped");
    assert_eq!(tunnel.next_event().wait(None), Some(None), "and nothing ever after");
}

#[test]
fn stop_before_start_is_the_end() {
    for asked_only in [false, true] {
        let tunnel = tunnel(DIRECT);
        if asked_only {
            tunnel.request_stop();
        } else {
            assert_eq!(tunnel.stop(LONG).wait(None), Some(Ok(())));
        }
        assert_eq!(events(&tunnel), [Event::State(State::Stopped { error: None })]);
        assert_eq!(kind(tunnel.start(None).wait(None).expect("at once")), Some(ErrorKind::Stopped));
    }
}

#[test]
fn commands_need_a_running_tunnel() {
    let tunnel = tunnel(DIRECT);
    assert_eq!(kind(tunnel.connections().wait(None).expect("at once")), Some(ErrorKind::Misuse));
    assert_eq!(kind(tunnel.reload(DIRECT).wait(None).expect("at once")), Some(ErrorKind::Misuse));
    let user = NewUser { id: "id".into(), email: "e".into(), ..NewUser::default() };
    assert_eq!(kind(tunnel.users("in")), Some(ErrorKind::Misuse));
    assert_eq!(kind(tunnel.add_user("in", &user)), Some(ErrorKind::Misuse));
    assert_eq!(kind(tunnel.remove_user("in", "e")), Some(ErrorKind::Misuse));
    tunnel.stop(LONG).wait(None).expect("answered").expect("stopped");
    assert_eq!(kind(tunnel.connections().wait(None).expect("at once")), Some(ErrorKind::Stopped));
    assert_eq!(kind(tunnel.check(LONG).wait(None).expect("at once")), Some(ErrorKind::Stopped));
    assert_eq!(kind(tunnel.close_connection(1).wait(None).expect("at once")), Some(ErrorKind::Stopped));
    assert_eq!(kind(tunnel.reload("{").wait(None).expect("at once")), Some(ErrorKind::ConfigInvalid));
    assert_eq!(kind(tunnel.users("in")), Some(ErrorKind::Stopped));
    assert_eq!(kind(tunnel.add_user("in", &user)), Some(ErrorKind::Stopped));
    assert_eq!(kind(tunnel.remove_user("in", "e")), Some(ErrorKind::Stopped));
    assert_eq!(tunnel.counters(true), []);
    // Signals to a tunnel that is over are lost, and that is all.
    tunnel.network_changed(None);
    tunnel.wake();
    tunnel.pause();
    tunnel.set_clock_offset(i64::MIN);
}

#[test]
fn a_start_that_is_given_up_is_a_stop() {
    let address = free_address();
    let tunnel = tunnel(&socks(address));
    drop(tunnel.start(None));
    assert_eq!(ended(&tunnel), State::Stopped { error: None });
    assert_eq!(tunnel.stop(LONG).wait(None), Some(Ok(())));
    TcpListener::bind(address).expect("the port is free again");
}

#[test]
fn a_start_that_cannot_be_undoes_everything_and_says_why() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let tunnel = tunnel(&socks(taken.local_addr().expect("bound")));
    let error = tunnel.start(None).wait(Some(LONG)).expect("answered").expect_err("the port is taken");
    let State::Stopped { error: Some(told) } = tunnel.status().state else { panic!("{:?}", tunnel.status()) };
    assert_eq!(told, error);
    assert_eq!(tunnel.status().last_error, Some(error));
    assert_eq!(tunnel.stop(LONG).wait(None), Some(Ok(())));
    assert_eq!(states(&events(&tunnel)), [1, 6, 7]);
}

#[test]
fn stop_overtakes_start() {
    for _ in 0..50 {
        let tunnel = tunnel(DIRECT);
        let start = tunnel.start(None);
        assert_eq!(tunnel.stop(LONG).wait(None), Some(Ok(())));
        assert!(matches!(kind(start.wait(None).expect("answered")), None | Some(ErrorKind::Stopped)));
        assert_eq!(states(&events(&tunnel)).last(), Some(&7));
    }
}

#[test]
fn everybody_who_stops_is_told() {
    let tunnel = tunnel(DIRECT);
    tunnel.start(None).wait(None).expect("answered").expect("started");
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| assert_eq!(tunnel.stop(LONG).wait(Some(LONG)), Some(Ok(()))));
        }
    });
}

#[test]
fn the_last_handle_only_signals() {
    let address = free_address();
    let tunnel = tunnel(&socks(address));
    tunnel.start(None).wait(None).expect("answered").expect("started");
    TcpStream::connect(address).expect("it listens");
    let second = tunnel.clone();
    drop(tunnel);
    second.connections().wait(None).expect("answered").expect("one handle is left");
    drop(second);
    eventually("the port", || TcpListener::bind(address).ok());
}

#[test]
fn limits_are_checked_when_the_tunnel_is_made() {
    let options = Options { memory_limit_bytes: Some(1 << 20), ..Options::default() };
    let made = Tunnel::new(DIRECT, options, std::sync::Arc::new(vmesskit::NoPlatform));
    assert_eq!(kind(made), Some(ErrorKind::Misuse));
    let options = Options { memory_limit_bytes: Some(4 << 20), ..Options::default() };
    let tunnel = Tunnel::new(DIRECT, options, std::sync::Arc::new(vmesskit::NoPlatform)).expect("enough");
    assert_eq!(tunnel.start(None).wait(Some(Duration::MAX)), Some(Ok(())));
    assert_eq!(tunnel.stop(Duration::MAX).wait(Some(Duration::MAX)), Some(Ok(())));
}
