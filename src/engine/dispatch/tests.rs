//! Flows served through real outbounds on loopback.

use super::*;
use crate::addr::Host;
use crate::config::{self, Config, Outbound as Settings, OutboundProtocol, Rule, VmessServer};
use crate::engine::outbound::LocalFuture;
use crate::engine::tests::vmess_user;
use crate::transport::Plain;
use crate::transport::tcp::TcpPayload;
use crate::transport::testing::{Script, config};
use std::cell::RefCell;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::LocalSet;

fn flow(shard: &Shard, target: impl Into<Target>) -> Flow {
    Flow {
        network: Network::Tcp,
        source: ([127, 0, 0, 1], 4000).into(),
        target: target.into(),
        inbound: "in".into(),
        accepted: shard.clock.now(),
        user: None,
    }
}

/// An app's end and what it sees.
fn app(shard: &Shard) -> (Box<dyn Stream>, Rc<RefCell<Script>>) {
    let (carrier, script) = Script::carrier();
    (Box::new(Plain::new(carrier, shard.pool.clone())), script)
}

fn blackhole(http: bool) -> Settings {
    Settings::new("hole", OutboundProtocol::Blackhole { http })
}

fn vmess(targets: &[SocketAddr]) -> Settings {
    let server = |target: &SocketAddr| VmessServer { target: (*target).into(), users: vec![vmess_user()] };
    let protocol = OutboundProtocol::Vmess(config::Vmess {
        servers: targets.iter().map(server).collect(),
        packet_encoding: Default::default(),
    });
    Settings::new("proxy", protocol)
}

fn with_outbounds(outbounds: Vec<Settings>) -> Rc<Shard> {
    Shard::for_tests(Config { outbounds, ..config() })
}

async fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let addr = listener.local_addr().expect("address");
    (listener, addr)
}

/// An address that refuses.
async fn closed_port() -> SocketAddr {
    listener().await.1
}

#[tokio::test]
async fn rules_pick_the_outbound_and_the_first_is_the_default() {
    let to_hole = Rule { ports: Some(vec![(25, 25)]), ..Rule::to(1) };
    let outbounds = vec![config().outbounds[0].clone(), blackhole(false)];
    let shard = Shard::for_tests(Config { outbounds, rules: vec![to_hole], ..config() });
    let tag = |port: u16| {
        let outbound = route(&shard, &flow(&shard, SocketAddr::from(([192, 0, 2, 1], port))));
        outbound.tag().to_string()
    };
    assert_eq!((tag(25), tag(26)), ("hole".into(), "direct".into()));
}

#[tokio::test]
async fn a_flow_is_served_counted_and_listed_while_it_lasts() {
    LocalSet::new()
        .run_until(async {
            let (listener, addr) = listener().await;
            let shard = with_outbounds(config().outbounds);
            let (local, script) = app(&shard);
            let flow = flow(&shard, addr);
            let outbound = route(&shard, &flow);
            script.borrow_mut().feed(b"ping");
            let task = shard.spawn(serve_stream(Rc::clone(&shard), flow, outbound, local));
            let (mut theirs, _) = listener.accept().await.expect("accept");
            let mut got = [0; 4];
            theirs.read_exact(&mut got).await.expect("read");
            let list = shard.connections.list(shard.clock.now());
            assert_eq!((list.len(), &*list[0].outbound, list[0].uplink_bytes), (1, "direct", 4));
            let mut bound = Vec::new();
            shard.connections.close_where(|local| {
                bound.push(local);
                false
            });
            assert_eq!(bound, [Some(addr.ip())]);
            theirs.write_all(b"pong!").await.expect("written");
            drop(theirs);
            script.borrow_mut().end(Ok(()));
            task.await.expect("served");
            assert_eq!((&*script.borrow().written, script.borrow().closed), (&b"pong!"[..], true));
            assert_eq!((shard.connections.list(Moment::ZERO).len(), shard.pool.used()), (0, 0));
            let stats = &shard.shared.stats;
            assert_eq!((stats.uplink_bytes.load(Relaxed), stats.downlink_bytes.load(Relaxed)), (4, 5));
        })
        .await;
}

#[tokio::test]
async fn a_closed_connection_ends_while_it_is_opened_and_while_it_runs() {
    LocalSet::new()
        .run_until(async {
            let (listener, addr) = listener().await;
            let shard = with_outbounds(config().outbounds);
            for accept in [false, true] {
                let (local, script) = app(&shard);
                let flow = flow(&shard, addr);
                let outbound = route(&shard, &flow);
                let task = shard.spawn(serve_stream(Rc::clone(&shard), flow, outbound, local));
                tokio::task::yield_now().await;
                let theirs = if accept { Some(listener.accept().await.expect("accept")) } else { None };
                let id = shard.connections.list(shard.clock.now())[0].id;
                assert!(shard.connections.close(id));
                task.await.expect("served");
                assert!(script.borrow().aborted && !script.borrow().closed);
                drop(theirs);
            }
        })
        .await;
}

/// An outbound that never gets anywhere, and tells when it is given up.
struct Stuck(Arc<str>, Rc<RefCell<u32>>);

struct Given(Rc<RefCell<u32>>);

impl Drop for Given {
    fn drop(&mut self) {
        *self.0.borrow_mut() += 1;
    }
}

impl Outbound for Stuck {
    fn tag(&self) -> &Arc<str> {
        &self.0
    }

    fn connects_target(&self) -> bool {
        false
    }

    fn admits(&self, _: Moment) -> bool {
        true
    }

    fn open_stream(self: Rc<Self>, _: Rc<Shard>, _: Target) -> LocalFuture<Result<OpenedStream, OpenError>> {
        let given = Given(Rc::clone(&self.1));
        Box::pin(async move {
            let _given = given;
            std::future::pending().await
        })
    }

    fn open_datagrams(
        self: Rc<Self>,
        _: Rc<Shard>,
        _: Target,
    ) -> LocalFuture<Result<Box<dyn crate::transport::Datagrams>, OpenError>> {
        Box::pin(std::future::pending())
    }
}

#[tokio::test]
async fn an_app_that_resets_while_the_server_is_dialled_ends_the_dial_and_one_that_ends_does_not() {
    LocalSet::new()
        .run_until(async {
            let (listener, addr) = listener().await;
            let shard = with_outbounds(config().outbounds);
            let given = Rc::new(RefCell::new(0));
            for early in [false, true] {
                let mut theirs = tokio::net::TcpStream::connect(addr).await.expect("connect");
                let (ours, _) = listener.accept().await.expect("accept");
                let local = Box::new(TcpPayload::from_tcp(ours, shard.pool.clone()));
                let outbound: Rc<dyn Outbound> = Rc::new(Stuck("stuck".into(), Rc::clone(&given)));
                let flow = flow(&shard, addr);
                let task = shard.spawn(serve_stream(Rc::clone(&shard), flow, outbound, local));
                if early {
                    theirs.write_all(&[7; 100]).await.expect("written");
                }
                theirs.shutdown().await.expect("ended");
                tokio::time::sleep(Duration::from_millis(20)).await;
                assert!(!task.is_finished(), "the app still reads");
                theirs.set_zero_linger().expect("linger");
                drop(theirs);
                tokio::time::timeout(Duration::from_secs(5), task).await.expect("in time").expect("served");
                assert_eq!(*given.borrow(), u32::from(early) + 1);
            }
            assert!(shard.connections.is_empty());
        })
        .await;
}

#[tokio::test]
async fn a_server_that_cannot_be_reached_aborts_the_app_and_then_is_left_alone() {
    LocalSet::new()
        .run_until(async {
            let shard = with_outbounds(vec![vmess(&[closed_port().await])]);
            for expected in [true, false] {
                let (local, script) = app(&shard);
                let flow = flow(&shard, SocketAddr::from(([192, 0, 2, 1], 443)));
                let outbound = route(&shard, &flow);
                assert!(outbound.admits(shard.clock.now()));
                serve_stream(Rc::clone(&shard), flow, Rc::clone(&outbound), local).await;
                assert!(script.borrow().aborted);
                assert_eq!(outbound.admits(shard.clock.now()), expected);
            }
            assert_eq!(shard.shared.stats.dial_failures.load(Relaxed), 2);
            let live = shard.live();
            live.outbounds[0].network_changed();
            assert!(live.outbounds[0].admits(shard.clock.now()), "another network, another chance");
        })
        .await;
}

#[tokio::test]
async fn servers_take_turns_and_stand_in_for_each_other() {
    LocalSet::new()
        .run_until(async {
            let ((a, to_a), (b, to_b)) = (listener().await, listener().await);
            let shard = with_outbounds(vec![vmess(&[to_a, to_b, closed_port().await])]);
            let mut served = [0, 0];
            for _ in 0..6 {
                let outbound = Rc::clone(&shard.live().outbounds[0]);
                let target = Target { host: Host::Domain("example.com".into()), port: 443 };
                assert!(outbound.open_stream(Rc::clone(&shard), target).await.is_ok());
                tokio::select! {
                    _ = a.accept() => served[0] += 1,
                    _ = b.accept() => served[1] += 1,
                }
            }
            // The third one's turns fall to the first.
            assert_eq!(served, [4, 2]);
        })
        .await;
}

#[tokio::test]
async fn a_rejecting_server_is_reported_and_the_app_aborted() {
    LocalSet::new()
        .run_until(async {
            let (listener, addr) = listener().await;
            let shard = with_outbounds(vec![vmess(&[addr])]);
            let (local, script) = app(&shard);
            script.borrow_mut().feed(b"hello");
            let flow = flow(&shard, SocketAddr::from(([192, 0, 2, 1], 443)));
            let outbound = route(&shard, &flow);
            let task = shard.spawn(serve_stream(Rc::clone(&shard), flow, outbound, local));
            let (mut theirs, _) = listener.accept().await.expect("accept");
            let mut header = [0; 200];
            assert!(theirs.read(&mut header).await.expect("read") > 100, "header and payload at once");
            drop(theirs);
            task.await.expect("served");
            assert!(script.borrow().aborted && script.borrow().written.is_empty());
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_blackhole_says_403_to_a_request_or_closes_after_a_while() {
    LocalSet::new()
        .run_until(async {
            for http in [true, false] {
                let shard = with_outbounds(vec![blackhole(http)]);
                let (local, script) = app(&shard);
                let flow = flow(&shard, SocketAddr::from(([192, 0, 2, 1], 80)));
                let outbound = route(&shard, &flow);
                script.borrow_mut().feed(b"GET / HTTP/1.1\r\n\r\n");
                let started = Instant::now();
                serve_stream(Rc::clone(&shard), flow, outbound, local).await;
                let script = script.borrow();
                assert_eq!(script.written.starts_with(b"HTTP/1.1 403 "), http);
                assert!(script.closed && !script.aborted);
                assert_eq!(started.elapsed() >= Duration::from_secs(1), !http);
            }
        })
        .await;
}

#[tokio::test]
async fn the_task_of_a_flow_is_small() {
    let shard = with_outbounds(config().outbounds);
    let (local, _) = app(&shard);
    let flow = flow(&shard, SocketAddr::from(([192, 0, 2, 1], 443)));
    let outbound = route(&shard, &flow);
    let size = size_of_val(&serve_stream(Rc::clone(&shard), flow, outbound, local));
    assert!(size <= 520, "{size} bytes");
}
