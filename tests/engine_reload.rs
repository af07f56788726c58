//! Reload: all or nothing, and open connections live on.

#[path = "common/engine.rs"]
mod engine;

use engine::{DIRECT, LONG, echo, exchange, free_address, socks, through_socks, tunnel};
use std::net::{SocketAddr, TcpListener, TcpStream};
use vmesskit::{ErrorKind, Event, ReloadReport, Tunnel};

fn reload(tunnel: &Tunnel, config: &str) -> Result<ReloadReport, vmesskit::Error> {
    tunnel.reload(config).wait(Some(LONG)).expect("answered")
}

fn two_inbounds(first: SocketAddr, second: SocketAddr) -> String {
    let inbound = |at: SocketAddr| {
        format!(r#"{{"protocol": "socks", "listen": "{}", "port": {}}}"#, at.ip(), at.port())
    };
    format!(
        r#"{{"inbounds": [{}, {}], "outbounds": [{{"protocol": "freedom"}}]}}"#,
        inbound(first),
        inbound(second)
    )
}

#[test]
fn listeners_follow_the_config_and_connections_live_on() {
    let (echo, old, new) = (echo(), free_address(), free_address());
    let tunnel = tunnel(&socks(old));
    tunnel.start(None).wait(Some(LONG)).expect("answered").expect("started");
    let mut before = through_socks(old, echo);
    exchange(&mut before, b"before");
    assert_eq!(reload(&tunnel, &socks(new)), Ok(ReloadReport { tun_changed: false }));
    exchange(&mut before, b"an open connection lives on");
    exchange(&mut through_socks(new, echo), b"the new port serves");
    TcpListener::bind(old).expect("the old port is free");
    // The same port with other settings: it must be closed before it can be opened.
    let without_udp = socks(new).replace("true", "false");
    assert!(reload(&tunnel, &without_udp).is_ok());
    exchange(&mut through_socks(new, echo), b"still");
    assert!(reload(&tunnel, DIRECT).is_ok());
    assert!(TcpStream::connect(new).is_err(), "no inbound is left");
    exchange(&mut before, b"and still");
    tunnel.stop(LONG).wait(None).expect("answered").expect("stopped");
}

#[test]
fn a_config_that_cannot_be_put_in_force_changes_nothing() {
    let (echo, old, free) = (echo(), free_address(), free_address());
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let tunnel = tunnel(&socks(old));
    tunnel.start(None).wait(Some(LONG)).expect("answered").expect("started");
    let error = reload(&tunnel, &two_inbounds(free, taken.local_addr().expect("bound"))).expect_err("taken");
    assert_ne!(error.kind, ErrorKind::ConfigInvalid);
    TcpListener::bind(free).expect("what was opened on the way is closed again");
    assert_eq!(reload(&tunnel, "{}").expect_err("no outbound").kind, ErrorKind::ConfigInvalid);
    exchange(&mut through_socks(old, echo), b"as before");
    // The inbound that had to make room for its successor comes back too.
    let moved = two_inbounds(old, taken.local_addr().expect("bound"));
    assert!(reload(&tunnel, &moved).is_err());
    exchange(&mut through_socks(old, echo), b"as before");
    tunnel.stop(LONG).wait(None).expect("answered").expect("stopped");
}

#[test]
fn a_change_of_the_tun_is_reported() {
    let config = |mtu| {
        format!(
            r#"{{"inbounds": [{{"protocol": "tun", "settings": {{"mtu": {mtu}}}}}],
                "outbounds": [{{"protocol": "freedom"}}]}}"#
        )
    };
    let tunnel = tunnel(&config(1500));
    assert_eq!(tunnel.tun_settings().map(|settings| settings.mtu), Some(1500));
    tunnel.start(None).wait(Some(LONG)).expect("answered").expect("started");
    assert_eq!(reload(&tunnel, &config(1500)), Ok(ReloadReport { tun_changed: false }));
    assert_eq!(reload(&tunnel, &config(9000)), Ok(ReloadReport { tun_changed: true }));
    assert_eq!(tunnel.tun_settings().map(|settings| settings.mtu), Some(9000));
    assert!(reload(&tunnel, "[").is_err());
    assert_eq!(tunnel.tun_settings().map(|settings| settings.mtu), Some(9000));
    assert_eq!(reload(&tunnel, DIRECT), Ok(ReloadReport { tun_changed: true }));
    assert_eq!(tunnel.tun_settings(), None);
    tunnel.stop(LONG).wait(None).expect("answered").expect("stopped");
}

#[test]
fn a_memory_limit_that_cannot_change_under_way_is_told() {
    let tunnel = tunnel(DIRECT);
    tunnel.start(None).wait(Some(LONG)).expect("answered").expect("started");
    let limited = r#"{"outbounds": [{"protocol": "freedom"}], "vmesskit": {"memoryLimit": 8388608}}"#;
    assert!(reload(&tunnel, limited).is_ok());
    assert!(reload(&tunnel, limited).is_ok());
    tunnel.stop(LONG).wait(None).expect("answered").expect("stopped");
    let mut told = 0;
    while let Some(event) = tunnel.next_event().wait(Some(LONG)).expect("in time") {
        if let Event::Log(lines) = event {
            told += lines.iter().filter(|line| line.text.contains("memoryLimit")).count();
        }
    }
    assert_eq!(told, 1, "a limit that stays is no news");
}
