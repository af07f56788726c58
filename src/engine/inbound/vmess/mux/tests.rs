//! A server's mux with a freedom outbound behind it, and a client's carrier in front.

use super::*;
use crate::Event;
use crate::addr::{Host, Target};
use crate::config::{DefaultUser, Inbound, InboundProtocol, Level, Listen, VmessInbound};
use crate::mux::{GlobalId, Opening};
use crate::transport::mux::{DatagramSession, Session};
use crate::transport::testing::{Pipe, Twin, shard};
use crate::transport::{Datagram, Datagrams, Reception};
use std::future::{Future, poll_fn};
use std::net::Ipv4Addr;
use std::task::{Poll, Waker};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UdpSocket};
use tokio::task::{LocalSet, spawn_local};
use tokio::time::{pause, sleep, timeout};

fn run_test(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let bounded = async { timeout(Duration::from_secs(200), test).await.expect("it ends") };
    LocalSet::new().block_on(&runtime, bounded);
}

fn server() -> Rc<Server> {
    server_on(&shard())
}

/// The same inbound's server on another shard of the same instance.
fn sibling(server: &Server) -> Rc<Server> {
    let shard = &server.shard;
    let live = crate::engine::shard::Live::new(Arc::clone(&shard.live().config)).expect("a good config");
    let (host, health) = (Arc::clone(&shard.host), Arc::clone(&shard.health));
    server_on(&crate::engine::Shard::new(Arc::clone(&shard.shared), host, health, live, 16 << 20))
}

fn server_on(shard: &Rc<crate::engine::Shard>) -> Rc<Server> {
    let settings = VmessInbound {
        listen: Listen { ip: Ipv4Addr::LOCALHOST.into(), ports: (1, 1) },
        clients: Vec::new(),
        default: DefaultUser::default(),
        detour: None,
        disable_insecure_encryption: false,
        allocate: None,
        stream: <_>::default(),
    };
    let inbound = Inbound { tag: "in".into(), protocol: InboundProtocol::Vmess(settings.clone()) };
    Server::new(shard, &inbound, &settings, Reception::new(&settings.stream).expect("bare"))
}

fn id(last: u8) -> Id {
    Id::parse(&format!("b831381d-6324-4d53-ad4f-8cda48b308{last:02x}")).expect("an id").0
}

fn user() -> Rc<FlowUser> {
    Rc::new(FlowUser { email: "".into(), level: Level::default(), traffic: None })
}

/// Serves a client's carrier.
fn carry(server: &Rc<Server>, link: &Rc<Link>, owner: Id) -> Twin {
    let (ours, theirs) = Pipe::pair(&server.shard.pool);
    let kill = ours.twin();
    spawn_local(run(Rc::clone(link), Box::new(ours), drop));
    let source = "192.0.2.1:5".parse().expect("an address");
    spawn_local(serve(Rc::clone(server), Box::new(theirs), owner, user(), source));
    kill
}

fn opening(network: Network, target: &Target, global_id: Option<u8>) -> Opening {
    Opening { network, target: Some(target.clone()), global_id: global_id.map(|byte| GlobalId([byte; 8])) }
}

/// A client's XUDP flow on a carrier of its own.
fn source(server: &Rc<Server>, target: &Target, global_id: Option<u8>, owner: Id) -> (DatagramSession, Twin) {
    let (link, session) = Link::alone(&server.shard, opening(Network::Udp, target, global_id));
    let kill = carry(server, &link, owner);
    (session.into_datagrams(target.clone(), true), kill)
}

async fn peer() -> (UdpSocket, Target) {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a socket");
    let target = Target::from(socket.local_addr().expect("bound"));
    (socket, target)
}

fn send(server: &Server, flow: &mut DatagramSession, payload: &[u8], to: &Target) {
    let data = server.shard.pool.copy(payload).expect("memory");
    flow.send(Datagram { data, remote: to.clone() }).expect("sent");
}

async fn recv(flow: &mut DatagramSession) -> Option<(Vec<u8>, Target)> {
    let datagram = poll_fn(|cx| flow.poll_recv(cx)).await.expect("no failure")?;
    Some((datagram.data.to_vec(), datagram.remote))
}

/// Receives a datagram; tells what it was and whence it came.
async fn heard(socket: &UdpSocket) -> (Vec<u8>, SocketAddr) {
    let mut bytes = vec![0; 2048];
    let (len, from) = socket.recv_from(&mut bytes).await.expect("received");
    bytes.truncate(len);
    (bytes, from)
}

#[test]
fn streams_go_to_their_targets_one_by_one() {
    run_test(async {
        let server = server();
        let link = Link::client(&server.shard, 8);
        let _kill = carry(&server, &link, id(1));
        for text in [&b"one"[..], b"two"] {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a listener");
            let target = Target::from(listener.local_addr().expect("bound"));
            let mut app: Session = link.open(&opening(Network::Tcp, &target, None)).expect("room");
            app.send(server.shard.pool.copy(text).expect("memory")).expect("sent");
            let (mut there, _) = listener.accept().await.expect("dialled");
            let mut got = [0; 3];
            there.read_exact(&mut got).await.expect("received");
            assert_eq!(got, text);
            there.write_all(b"answer").await.expect("sent");
            drop(there);
            let data = poll_fn(|cx| app.poll_recv(cx, 99)).await.expect("data").expect("more");
            assert_eq!(&*data, b"answer");
            assert!(poll_fn(|cx| app.poll_recv(cx, 99)).await.expect("a proper end").is_none());
        }
    });
}

#[test]
fn without_descriptors_for_them_sessions_are_refused_and_the_host_is_told() {
    run_test(async {
        let server = server();
        server.shard.shared.descriptors.leave(0);
        let link = Link::client(&server.shard, 8);
        let _kill = carry(&server, &link, id(1));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a listener");
        let target = Target::from(listener.local_addr().expect("bound"));
        let mut app = link.open(&opening(Network::Tcp, &target, None)).expect("room");
        poll_fn(|cx| app.poll_flush(cx)).await.expect("sent");
        assert!(poll_fn(|cx| app.poll_recv(cx, 99)).await.expect("an End").is_none());

        let (peer, target) = peer().await;
        let (mut flow, _kill) = source(&server, &target, None, id(1));
        send(&server, &mut flow, b"lost", &target);
        let heard = timeout(Duration::from_millis(200), peer.recv_from(&mut [0; 9])).await;
        assert!(heard.is_err(), "no socket is opened for it");

        let mut told = Vec::new();
        while let Poll::Ready(Some(event)) = server.shard.shared.poll_event(1, || Waker::noop().clone()) {
            told.extend(matches!(&event, Event::ResourceLimit { .. }).then_some(event));
        }
        let what = "file descriptors for another flow at [in]".into();
        assert_eq!(told, [Event::ResourceLimit { what }], "once");
    });
}

#[test]
fn a_target_that_refuses_ends_its_session_alone() {
    run_test(async {
        let server = server();
        let link = Link::client(&server.shard, 8);
        let _kill = carry(&server, &link, id(1));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a listener");
        let closed = Target::from(listener.local_addr().expect("bound"));
        drop(listener);
        let mut app = link.open(&opening(Network::Tcp, &closed, None)).expect("room");
        poll_fn(|cx| app.poll_flush(cx)).await.expect("sent");
        assert!(poll_fn(|cx| app.poll_recv(cx, 99)).await.expect("an End").is_none());
        assert!(!link.is_spent());
    });
}

#[test]
fn a_source_speaks_to_many_and_hears_all() {
    run_test(async {
        let server = server();
        let ((a, to_a), (b, to_b), (c, to_c)) = (peer().await, peer().await, peer().await);
        let (mut flow, _kill) = source(&server, &to_a, None, id(1));
        send(&server, &mut flow, b"to a", &to_a);
        send(&server, &mut flow, b"to b", &to_b);
        let ((at_a, from_a), (at_b, from_b)) = (heard(&a).await, heard(&b).await);
        assert_eq!((&*at_a, &*at_b), (&b"to a"[..], &b"to b"[..]));
        assert_eq!(from_a, from_b, "it is one socket");
        for (socket, from) in [(&b, &to_b), (&c, &to_c), (&a, &to_a)] {
            socket.send_to(b"hello", from_a).await.expect("sent");
            assert_eq!(recv(&mut flow).await, Some((b"hello".to_vec(), from.clone())));
        }
    });
}

#[test]
fn answers_from_a_name_bear_its_address() {
    run_test(async {
        let server = server();
        let (a, to_a) = peer().await;
        let named = Target { host: Host::parse("localhost").expect("a host"), port: to_a.port };
        let (mut flow, _kill) = source(&server, &named, None, id(1));
        send(&server, &mut flow, b"hi", &named);
        let (_, from) = heard(&a).await;
        a.send_to(b"ho", from).await.expect("sent");
        assert_eq!(recv(&mut flow).await, Some((b"ho".to_vec(), to_a)));
    });
}

#[test]
fn a_named_source_keeps_its_socket_and_the_new_carrier_takes_it() {
    run_test(async {
        let server = server();
        let (a, to_a) = peer().await;
        let (mut first, kill) = source(&server, &to_a, Some(7), id(1));
        send(&server, &mut first, b"1", &to_a);
        let (_, from) = heard(&a).await;
        // While the first carrier lives the second one takes over, and the first session ends.
        let (mut second, kill_second) = source(&server, &to_a, Some(7), id(1));
        send(&server, &mut second, b"2", &to_a);
        assert_eq!(heard(&a).await, (b"2".to_vec(), from));
        assert_eq!(recv(&mut first).await, None, "an End");
        a.send_to(b"answer", from).await.expect("sent");
        assert_eq!(recv(&mut second).await, Some((b"answer".to_vec(), to_a.clone())));
        drop(kill);
        // After the carrier's death the socket waits for the next one.
        kill_second.abort();
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        let (mut third, _kill) = source(&server, &to_a, Some(7), id(1));
        send(&server, &mut third, b"3", &to_a);
        assert_eq!(heard(&a).await, (b"3".to_vec(), from));
        // Another user's source of the same name is another one.
        let (mut other, _kill) = source(&server, &to_a, Some(7), id(2));
        send(&server, &mut other, b"4", &to_a);
        let (data, elsewhere) = heard(&a).await;
        assert!(data == b"4" && elsewhere != from);
    });
}

#[test]
fn a_named_source_is_taken_over_from_another_shard() {
    run_test(async {
        let home = server();
        let away = sibling(&home);
        let (a, to_a) = peer().await;
        let (mut first, _kill_first) = source(&home, &to_a, Some(7), id(1));
        send(&home, &mut first, b"1", &to_a);
        let (_, from) = heard(&a).await;
        let (mut second, kill_second) = source(&away, &to_a, Some(7), id(1));
        send(&away, &mut second, b"2", &to_a);
        assert_eq!(heard(&a).await, (b"2".to_vec(), from), "from the same socket");
        assert_eq!(recv(&mut first).await, None, "an End");
        a.send_to(b"answer", from).await.expect("sent");
        assert_eq!(recv(&mut second).await, Some((b"answer".to_vec(), to_a.clone())));
        // The carrier on the other shard dies: the socket stays for the next one, wherever that comes to.
        kill_second.abort();
        let (third_shard, fourth_shard) = (sibling(&home), &home);
        let (mut third, _kill_third) = source(&third_shard, &to_a, Some(7), id(1));
        send(&third_shard, &mut third, b"3", &to_a);
        assert_eq!(heard(&a).await, (b"3".to_vec(), from));
        let (mut fourth, _kill_fourth) = source(fourth_shard, &to_a, Some(7), id(1));
        send(fourth_shard, &mut fourth, b"4", &to_a);
        assert_eq!(heard(&a).await, (b"4".to_vec(), from));
        assert_eq!(recv(&mut third).await, None, "an End");
        // Another user's source of the same name is another one.
        let (mut other, _kill_other) = source(&away, &to_a, Some(7), id(2));
        send(&away, &mut other, b"5", &to_a);
        let (data, elsewhere) = heard(&a).await;
        assert!(data == b"5" && elsewhere != from);
    });
}

#[test]
fn a_named_source_ends_at_home_when_its_session_does_elsewhere() {
    run_test(async {
        let home = server();
        let away = sibling(&home);
        let (a, to_a) = peer().await;
        let (mut first, _kill_first) = source(&home, &to_a, Some(7), id(1));
        send(&home, &mut first, b"1", &to_a);
        heard(&a).await;
        let (mut second, _kill_second) = source(&away, &to_a, Some(7), id(1));
        send(&away, &mut second, b"2", &to_a);
        heard(&a).await;
        assert!(home.sources.is_held(&id(1)) && !away.sources.is_held(&id(1)));
        drop(second);
        while home.sources.is_held(&id(1)) {
            tokio::task::yield_now().await;
        }
        // The name is free: the shard that sees it next is its home.
        let (mut third, _kill_third) = source(&away, &to_a, Some(7), id(1));
        send(&away, &mut third, b"3", &to_a);
        heard(&a).await;
        assert!(!home.sources.is_held(&id(1)) && away.sources.is_held(&id(1)));
        // A server that is gone is nobody's home.
        drop((home, first));
        let heir = sibling(&away);
        drop(third);
        while away.sources.is_held(&id(1)) {
            tokio::task::yield_now().await;
        }
        let (mut fourth, _kill_fourth) = source(&heir, &to_a, Some(7), id(1));
        send(&heir, &mut fourth, b"4", &to_a);
        heard(&a).await;
        assert!(heir.sources.is_held(&id(1)));
    });
}

#[test]
fn a_named_source_is_kept_for_a_minute() {
    run_test(async {
        let server = server();
        let (a, to_a) = peer().await;
        let (mut flow, kill) = source(&server, &to_a, Some(9), id(1));
        send(&server, &mut flow, b"1", &to_a);
        heard(&a).await;
        assert_eq!(server.shard.connections.len(), 1);
        kill.abort();
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        assert_eq!(server.shard.connections.len(), 1);
        pause();
        sleep(Duration::from_secs(59)).await;
        assert!(server.sources.is_held(&id(1)));
        sleep(Duration::from_secs(2)).await;
        assert!(!server.sources.is_held(&id(1)));
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        assert_eq!(server.shard.connections.len(), 0);
        // One that ends properly is not kept at all.
        let (mut flow, _kill) = source(&server, &to_a, Some(9), id(1));
        send(&server, &mut flow, b"2", &to_a);
        heard(&a).await;
        assert!(server.sources.is_held(&id(1)));
        drop(flow);
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        assert!(!server.sources.is_held(&id(1)));
    });
}
