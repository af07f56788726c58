//! A tunnel's life through the facade, awaited without any runtime, as Kotlin and Swift await it.

use std::future::Future;
use std::os::fd::{AsRawFd, IntoRawFd};
use std::os::unix::net::UnixDatagram;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use vmesskit_uniffi::{
    ErrorKind, Event, FdOwnership, Framing, LogLevel, NetworkInfo, NewUser, Options, Platform, PlatformError,
    State, TunHandle, Tunnel, TunnelError,
};

const QUIET: &str = r#"{"outbounds": [{"protocol": "blackhole"}]}"#;

/// Wakes the thread that waits.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(value) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return value;
        }
        thread::park();
    }
}

fn tunnel(config: &str) -> Arc<Tunnel> {
    Tunnel::new(config, Options::default(), None).expect("the config is good")
}

fn kind<T: std::fmt::Debug>(result: Result<T, TunnelError>) -> ErrorKind {
    let TunnelError::Failed { kind, .. } = result.expect_err("the call is refused");
    kind
}

#[test]
fn a_tunnel_starts_tells_and_stops() {
    let tunnel = tunnel(QUIET);
    assert_eq!(tunnel.status().state, State::Idle);
    block_on(tunnel.start(None)).expect("started");
    assert_eq!(tunnel.status().state, State::Connected);
    assert_eq!(kind(block_on(tunnel.start(None))), ErrorKind::AlreadyRunning);
    assert_eq!(block_on(tunnel.connections()), Ok(vec![]));
    assert_eq!(block_on(tunnel.close_connection(1)), Ok(false));
    assert!(!block_on(tunnel.reload(QUIET)).expect("reloaded").tun_changed);
    block_on(tunnel.stop(10_000)).expect("stopped");

    let mut last = None;
    while let Some(event) = block_on(tunnel.next_event()) {
        last = Some(event);
    }
    assert_eq!(last, Some(Event::StateChanged { state: State::Stopped { error: None } }));
    assert_eq!(kind(block_on(tunnel.start(None))), ErrorKind::Stopped);
}

#[test]
fn a_cancelled_wait_loses_no_event() {
    let tunnel = tunnel(QUIET);
    {
        let mut waiting = pin!(tunnel.next_event());
        assert!(waiting.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        tunnel.request_stop();
    }
    let stopped = Event::StateChanged { state: State::Stopped { error: None } };
    assert_eq!(block_on(tunnel.next_event()), Some(stopped));
    assert_eq!(block_on(tunnel.next_event()), None);
}

#[test]
fn an_owned_descriptor_is_closed_whatever_happens() {
    let (ours, theirs) = UnixDatagram::pair().expect("a pair");
    let tun = |fd, ownership| TunHandle { fd, mtu: Some(1500), ownership, framing: Framing::RawIp };
    let tunnel = tunnel(QUIET);
    let borrowed = tun(theirs.as_raw_fd(), FdOwnership::Borrowed);
    assert_eq!(kind(block_on(tunnel.set_tun(borrowed.into()))), ErrorKind::Misuse);
    ours.send(b"x").expect("the borrowed end is open");
    let owned = tun(theirs.into_raw_fd(), FdOwnership::Owned);
    assert_eq!(kind(block_on(tunnel.set_tun(owned.into()))), ErrorKind::Misuse);
    assert!(ours.send(b"x").is_err(), "the owned end is closed");

    let (ours, theirs) = UnixDatagram::pair().expect("a pair");
    let owned = tun(theirs.into_raw_fd(), FdOwnership::Owned);
    drop(tunnel.start(Some(owned.into())));
    assert!(ours.send(b"x").is_err(), "closed by a start that was cancelled before it ran");
}

#[test]
fn errors_carry_their_path_and_texts() {
    let config = r#"{"outbounds": [{"protocol": "nothing"}]}"#;
    let Err(TunnelError::Failed { kind, text, path, .. }) = Tunnel::new(config, Options::default(), None)
    else {
        panic!("the config is broken");
    };
    assert_eq!((kind, path.as_str()), (ErrorKind::ConfigInvalid, "outbounds[0].protocol"));
    assert!(!text.is_empty());
    let findings = vmesskit_uniffi::validate_config(config);
    assert_eq!(findings.first().map(|finding| finding.path.as_str()), Some("outbounds[0].protocol"));
}

#[test]
fn options_are_read() {
    let network = NetworkInfo {
        id: 1,
        index: 0,
        addresses: vec!["not an address".into()],
        dns: vec![],
        has_v4: true,
        has_v6: false,
        nat64_prefix: None,
        metered: false,
        validated: true,
        captive_portal: false,
    };
    let options = Options { network: Some(network), log: Some(LogLevel::Debug), ..Options::default() };
    assert_eq!(kind(Tunnel::new(QUIET, options, None).map(|_| ())), ErrorKind::Misuse);
}

/// Refuses every socket.
struct Refusing;

impl Platform for Refusing {
    fn protect_socket(&self, _fd: i32) -> Result<(), PlatformError> {
        Err(PlatformError::Refused { reason: "not now".into() })
    }

    fn resolve(&self, _: String, _: Option<NetworkInfo>) -> Result<Option<Vec<String>>, PlatformError> {
        Ok(None)
    }

    fn find_owner(
        &self,
        _: vmesskit_uniffi::Network,
        _: String,
        _: String,
    ) -> Result<Option<u32>, PlatformError> {
        Ok(None)
    }
}

#[test]
fn a_refused_socket_fails_the_check() {
    let config = r#"{"outbounds": [{"protocol": "vmess", "settings": {"vnext": [{"address": "127.0.0.1", "port": 9,
        "users": [{"id": "b831381d-6324-4d53-ad4f-8cda48b30811"}]}]}}]}"#;
    let tunnel =
        Tunnel::new(config, Options::default(), Some(Arc::new(Refusing))).expect("the config is good");
    block_on(tunnel.start(None)).expect("started");
    assert_eq!(kind(block_on(tunnel.check(10_000))), ErrorKind::ProtectFailed);
    block_on(tunnel.stop(10_000)).expect("stopped");
}

#[test]
fn users_need_a_vmess_inbound() {
    let tunnel = tunnel(QUIET);
    block_on(tunnel.start(None)).expect("started");
    let user = NewUser { id: "the id".into(), alter_id: 0, level: 0, email: "ann".into() };
    assert!(!format!("{user:?}").contains("the id"));
    assert_eq!(kind(tunnel.users("in")), ErrorKind::Misuse);
    assert_eq!(kind(tunnel.add_user("in", user)), ErrorKind::Misuse);
    assert_eq!(kind(tunnel.remove_user("in", "ann")), ErrorKind::Misuse);
    assert_eq!(tunnel.counters(true), []);
    block_on(tunnel.stop(10_000)).expect("stopped");
    assert_eq!(kind(tunnel.users("in")), ErrorKind::Stopped);
}

#[test]
fn what_is_not_built_yet_says_so() {
    let tunnel = tunnel(QUIET);
    assert_eq!(kind(tunnel.select_outbound("group", "tag")), ErrorKind::Unsupported);
}
