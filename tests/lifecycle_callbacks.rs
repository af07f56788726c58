//! What a host's callbacks may do to a tunnel, and what a tunnel does to them.

#[path = "common/engine.rs"]
mod engine;

use engine::{LONG, echo, eventually, exchange, free_address, socks, through_socks, tunnel_on, vmess};
use std::net::{IpAddr, TcpListener};
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Barrier, Mutex, OnceLock};
use std::time::{Duration, Instant};
use vmesskit::{ErrorKind, NetworkInfo, Platform, Refused, Stage, State, Tunnel};

/// What a callback does; it is given the tunnel that it belongs to.
type Act = Box<dyn Fn(&Tunnel) -> Result<(), Refused> + Send + Sync>;

struct Host {
    act: Act,
    tunnel: Arc<OnceLock<Tunnel>>,
    /// Dropped with the platform.
    _released: Arc<()>,
}

impl Platform for Host {
    fn protect_socket(&self, _socket: BorrowedFd<'_>) -> Result<(), Refused> {
        (self.act)(self.tunnel.get().expect("set before the start"))
    }

    fn resolve(&self, host: &str, _network: Option<&NetworkInfo>) -> Option<Result<Vec<IpAddr>, Refused>> {
        match host {
            "known.test" => Some(Ok(vec![[127, 0, 0, 1].into()])),
            _ => Some(Err(Refused { reason: "the host knows no such name".into() })),
        }
    }
}

/// A started tunnel to a server, whose `protect_socket` does `act`, and a witness of its platform's life.
fn started(
    server: (&str, u16),
    act: impl Fn(&Tunnel) -> Result<(), Refused> + Send + Sync + 'static,
) -> (Tunnel, Arc<()>) {
    let (own, released) = (Arc::new(OnceLock::new()), Arc::new(()));
    let host = Host { act: Box::new(act), tunnel: Arc::clone(&own), _released: Arc::clone(&released) };
    let tunnel = tunnel_on(&vmess(server.0, server.1), host);
    own.set(tunnel.clone()).expect("set once");
    tunnel.start(None).wait(Some(LONG)).expect("answered").expect("started");
    (tunnel, released)
}

fn check(tunnel: &Tunnel) -> vmesskit::Error {
    tunnel.check(LONG).wait(Some(LONG)).expect("answered").expect_err("it cannot succeed")
}

#[test]
fn a_refusal_fails_the_dial_and_stop_releases_the_platform() {
    let server = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = server.local_addr().expect("bound").port();
    let (tunnel, released) =
        started(("127.0.0.1", port), |_| Err(Refused { reason: "no permission".into() }));
    let error = check(&tunnel);
    assert_eq!((error.kind, &*error.reason), (ErrorKind::ProtectFailed, "no permission"));
    assert_eq!(tunnel.status().last_error.map(|error| error.kind), Some(ErrorKind::ProtectFailed));
    server.set_nonblocking(true).expect("a socket");
    assert!(server.accept().is_err(), "nothing was connected");
    assert_eq!(Arc::strong_count(&released), 2);
    tunnel.stop(LONG).wait(None).expect("answered").expect("stopped");
    assert_eq!(Arc::strong_count(&released), 1, "the platform is released");
}

#[test]
fn a_panic_in_a_callback_is_a_refusal() {
    let (tunnel, _) = started(("127.0.0.1", free_address().port()), |_| panic!("a host's defect"));
    assert_eq!(check(&tunnel).kind, ErrorKind::ProtectFailed);
    assert_eq!(check(&tunnel).kind, ErrorKind::ProtectFailed, "and the thread has survived it");
    assert_eq!(tunnel.stop(LONG).wait(None), Some(Ok(())));
}

#[test]
fn the_host_resolves_the_servers_name() {
    let (tunnel, _) = started(("known.test", free_address().port()), |_| Ok(()));
    assert_eq!(check(&tunnel).kind, ErrorKind::ServerUnreachable { stage: Stage::Connect });
    tunnel.stop(LONG).wait(None).expect("answered").expect("stopped");
    let (tunnel, _) = started(("unknown.test", 1), |_| Ok(()));
    let error = check(&tunnel);
    assert_eq!(error.kind, ErrorKind::ServerUnreachable { stage: Stage::Resolve });
    assert!(error.reason.contains("the host knows no such name"), "{error}");
    tunnel.stop(LONG).wait(None).expect("answered").expect("stopped");
}

#[test]
fn a_callback_may_ask_for_the_end_but_not_wait_for_it() {
    let seen = Arc::new(Mutex::new(None));
    let told = Arc::clone(&seen);
    let (tunnel, _) = started(("127.0.0.1", free_address().port()), move |tunnel| {
        let waited = tunnel.stop(LONG).wait(Some(LONG)).expect("answered");
        *told.lock().expect("no panic") = waited.err().map(|error| error.kind);
        tunnel.request_stop();
        Ok(())
    });
    let begun = Instant::now();
    drop(tunnel.check(LONG).wait(Some(LONG)).expect("answered"));
    eventually("the end", || matches!(tunnel.status().state, State::Stopped { error: None }).then_some(()));
    assert!(begun.elapsed() < Duration::from_secs(2), "no deadline was waited for");
    assert_eq!(*seen.lock().expect("no panic"), Some(ErrorKind::Misuse));
    assert_eq!(tunnel.stop(LONG).wait(None), Some(Ok(())));
}

#[test]
fn a_slow_callback_delays_no_flow_but_its_own() {
    struct Slow(AtomicBool);
    impl Platform for Slow {
        fn protect_socket(&self, _socket: BorrowedFd<'_>) -> Result<(), Refused> {
            if self.0.swap(true, SeqCst) {
                std::thread::sleep(Duration::from_millis(1500));
            }
            Ok(())
        }
    }
    let (echo, at) = (echo(), free_address());
    let tunnel = tunnel_on(&socks(at), Slow(AtomicBool::new(false)));
    tunnel.start(None).wait(Some(LONG)).expect("answered").expect("started");
    let mut established = through_socks(at, echo);
    let dialling = std::thread::spawn(move || {
        let begun = Instant::now();
        exchange(&mut through_socks(at, echo), b"late");
        begun.elapsed()
    });
    let mut slowest = Duration::ZERO;
    while !dialling.is_finished() {
        let begun = Instant::now();
        exchange(&mut established, b"on time");
        slowest = slowest.max(begun.elapsed());
    }
    assert!(
        dialling.join().expect("no panic") >= Duration::from_millis(1400),
        "the dial waited for the host"
    );
    assert!(slowest < Duration::from_millis(700), "an established flow waited for {slowest:?}");
    tunnel.stop(LONG).wait(None).expect("answered").expect("stopped");
}

#[test]
fn a_callback_that_hangs_cannot_hang_stop() {
    let gate = Arc::new(Barrier::new(2));
    let held = Arc::clone(&gate);
    let (tunnel, released) = started(("127.0.0.1", free_address().port()), move |_| {
        held.wait();
        Ok(())
    });
    let dial = tunnel.check(LONG);
    assert_eq!(dial.wait(Some(Duration::from_millis(100))), None, "the host hangs");
    for _ in 0..2 {
        let error =
            tunnel.stop(Duration::from_millis(50)).wait(Some(LONG)).expect("answered").expect_err("it hangs");
        assert_eq!(error.kind, ErrorKind::Timeout { what: "the host's protect_socket" });
        assert_eq!(tunnel.status().state, State::Stopping);
    }
    let patient = tunnel.stop(LONG);
    gate.wait();
    assert_eq!(patient.wait(Some(LONG)), Some(Ok(())));
    assert_eq!(tunnel.status().state, State::Stopped { error: None });
    assert_eq!(Arc::strong_count(&released), 1);
}
