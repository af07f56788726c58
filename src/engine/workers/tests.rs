//! Several shards as one tunnel. SOCKS listeners stand for any that listen.

use super::*;
use crate::config::{Config, DomainPattern, Rule};
use crate::engine::api::{NoPlatform, Options, State};
use crate::engine::health::Health;
use crate::engine::host::HostLink;
use crate::engine::instance::Tunnel;
use crate::engine::shared::Shared;
use crate::engine::tests::config;
use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread::{sleep, spawn};
use std::time::{Duration, Instant};

const LONG: Duration = Duration::from_secs(20);

fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port")
}

fn listening(addresses: &[SocketAddr]) -> String {
    let inbounds: Vec<String> = addresses
        .iter()
        .map(|at| {
            format!(
                r#"{{"protocol": "socks", "tag": "{at}", "listen": "{}", "port": {}}}"#,
                at.ip(),
                at.port()
            )
        })
        .collect();
    format!(r#"{{"inbounds": [{}], "outbounds": [{{"protocol": "freedom"}}]}}"#, inbounds.join(","))
}

fn started(config: &str, shards: usize) -> Tunnel {
    let tunnel = Tunnel::new(config, Options::default(), Arc::new(NoPlatform)).expect("a good config");
    let tunnel = tunnel.with_shards(shards);
    tunnel.start(None).wait(Some(LONG)).expect("answered").expect("started");
    tunnel
}

fn stop(tunnel: &Tunnel) {
    assert_eq!(tunnel.stop(LONG).wait(Some(LONG)), Some(Ok(())));
}

/// A server that sends back what it gets.
fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound");
    spawn(move || {
        for client in listener.incoming().flatten() {
            spawn(move || {
                let (mut from, mut to) = (client.try_clone().expect("a descriptor"), client);
                let _ = std::io::copy(&mut from, &mut to);
            });
        }
    });
    address
}

fn through(inbound: SocketAddr, target: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(inbound).expect("it listens");
    stream.set_read_timeout(Some(LONG)).expect("a socket");
    let SocketAddr::V4(target) = target else { panic!("an IPv4 target") };
    let connect = [&[5, 1, 0, 5, 1, 0, 1][..], &target.ip().octets(), &target.port().to_be_bytes()].concat();
    stream.write_all(&connect).expect("the request");
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).expect("the answer");
    assert_eq!((&answer[..2], &answer[2..4]), (&[5, 0][..], &[5, 0][..]), "accepted and connected");
    stream
}

fn eventually(what: &str, look: impl Fn() -> bool) {
    let deadline = Instant::now() + LONG;
    while !look() {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        sleep(Duration::from_millis(2));
    }
}

fn accepted(tunnel: &Tunnel) -> Vec<ConnectionInfo> {
    tunnel.connections().wait(Some(LONG)).expect("answered").expect("running")
}

#[test]
fn one_tunnel_serves_on_all_shards() {
    let (inbound, target) = (free_address(), echo());
    let tunnel = started(&listening(&[inbound]), 3);
    let mut clients: Vec<TcpStream> = (0..48).map(|_| through(inbound, target)).collect();
    for client in &mut clients {
        client.write_all(b"hello").expect("sent");
        let mut back = [0; 5];
        client.read_exact(&mut back).expect("echoed");
        assert_eq!(&back, b"hello");
    }
    let list = accepted(&tunnel);
    let ids: BTreeSet<u64> = list.iter().map(|connection| connection.id).collect();
    assert_eq!((list.len(), ids.len()), (48, 48), "each has an id of its own");
    assert!(list.is_sorted_by_key(|connection| connection.id));
    assert_eq!(tunnel.stats().tcp_open, 48);
    eventually("the counters", || tunnel.stats().downlink_bytes == 48 * 5);

    for id in &ids {
        assert_eq!(tunnel.close_connection(*id).wait(Some(LONG)), Some(Ok(true)), "whichever shard has it");
    }
    assert_eq!(tunnel.close_connection(9999).wait(Some(LONG)), Some(Ok(false)));
    for client in &mut clients {
        // A reset or an end: it is over.
        assert!(matches!(client.read(&mut [0]), Ok(0) | Err(_)));
    }
    eventually("the end of all", || tunnel.stats().tcp_open == 0);
    stop(&tunnel);
    assert!(TcpStream::connect(inbound).is_err(), "no shard listens any more");
}

#[test]
fn a_reload_moves_all_shards_or_none() {
    let (first, second, target) = (free_address(), free_address(), echo());
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let tunnel = started(&listening(&[first]), 3);
    let mut old = through(first, target);
    let error = tunnel.reload(&listening(&[second, taken.local_addr().expect("bound")])).wait(Some(LONG));
    let error = error.expect("answered").expect_err("a port is taken");
    assert_eq!(error.path, "inbounds[1].port");
    (0..12).for_each(|_| drop(through(first, target)));
    assert!(TcpStream::connect(second).is_err());

    tunnel.reload(&listening(&[second])).wait(Some(LONG)).expect("answered").expect("reloaded");
    assert!(TcpStream::connect(first).is_err(), "closed on every shard");
    (0..12).for_each(|_| drop(through(second, target)));
    old.write_all(b"x").expect("it lives on");
    old.read_exact(&mut [0]).expect("echoed");
    // From one address to all of them and back: the port must be free on every shard in between.
    let all = SocketAddr::from(([0, 0, 0, 0], second.port()));
    for next in [all, second] {
        tunnel.reload(&listening(&[next])).wait(Some(LONG)).expect("answered").expect("reloaded");
        (0..12).for_each(|_| drop(through(second, target)));
    }
    stop(&tunnel);
}

#[test]
fn a_start_that_fails_leaves_nothing() {
    let (free, taken) = (free_address(), TcpListener::bind("127.0.0.1:0").expect("a port"));
    let config = listening(&[free, taken.local_addr().expect("bound")]);
    let tunnel = Tunnel::new(&config, Options::default(), Arc::new(NoPlatform)).expect("a good config");
    let tunnel = tunnel.with_shards(4);
    let error = tunnel.start(None).wait(Some(LONG)).expect("answered").expect_err("a port is taken");
    assert_eq!(
        (error.kind, &*error.path),
        (ErrorKind::ResourceLimit { what: "listening port" }, "inbounds[1].port")
    );
    assert!(matches!(tunnel.status().state, State::Stopped { .. }));
    TcpListener::bind(free).expect("free again");
}

/// Two workers with nothing on them.
fn idle(config: &Arc<Config>) -> Workers {
    let shared = Arc::new(Shared::new(crate::config::LogLevel::None));
    let host = HostLink::open(Arc::new(NoPlatform), false, Arc::clone(&shared.host)).expect("a thread");
    let (host, health) = (Arc::new(host), Arc::new(Health::new(Arc::clone(&shared), config)));
    let seed = || Seed {
        config: Arc::clone(config),
        pool_bytes: LEAST_POOL,
        network: None,
        shared: Arc::clone(&shared),
        host: Arc::clone(&host),
        health: Arc::clone(&health),
    };
    Workers::start([seed(), seed()]).expect("threads")
}

#[tokio::test]
async fn a_workers_panic_and_its_fatal_error_reach_the_first_shard() {
    let config = Arc::new(config());
    let mut workers = idle(&config);
    workers.prepare(vec![Change::default(), Change::default()]).await.expect("nothing to do");
    let lost = || Error::new(ErrorKind::TunGone, "a test's");
    workers.orders[1].send(Order::Fail(lost()));
    assert_eq!(workers.failure().await, lost());
    workers.orders[0].send(Order::Panic);
    assert_eq!(workers.failure().await.kind, ErrorKind::Internal);
    workers.dismiss();
    workers.gone().await;
}

#[tokio::test]
async fn what_one_cannot_prepare_none_has_prepared() {
    let good = Arc::new(config());
    let rule = Rule { domains: Some(vec![DomainPattern::Regexp("(".into())]), ..Rule::to(0) };
    let bad = Arc::new(Config { rules: vec![rule], ..config() });
    let mut workers = idle(&good);
    let change = |config: &Arc<Config>| Change { config: Some(Arc::clone(config)), ..Change::default() };
    let error = workers.prepare(vec![change(&good), change(&bad)]).await.expect_err("not a pattern");
    assert_eq!(error.kind, ErrorKind::ConfigInvalid);
    workers.commit().await;
    workers.prepare(vec![change(&good), change(&good)]).await.expect("they live on");
    workers.commit().await;
}
