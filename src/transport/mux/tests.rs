//! A client's carrier joined to a server's, in memory.

use super::*;
use crate::addr::Host;
use crate::entropy::{Entropy, SeededEntropy};
use crate::mux::client::MAX_TOTAL;
use crate::transport::testing::{Pipe, Twin, shard};
use crate::transport::{Datagram, Datagrams, Stream};
use std::future::{Future, poll_fn};
use std::task::Poll;
use tokio::task::{JoinHandle, LocalSet, spawn_local, yield_now};
use tokio::time::{Instant, sleep, timeout};

/// Both ends of a carrier.
struct Pair {
    shard: Rc<Shard>,
    client: Rc<Link>,
    accepted: Rc<RefCell<VecDeque<Accepted>>>,
    runs: [JoinHandle<Result<(), StreamError>>; 2],
    kill: Twin,
}

impl Pair {
    fn new(concurrency: u16) -> Self {
        let shard = shard();
        let link = Link::client(&shard, concurrency);
        Self::joined(shard, link, usize::MAX)
    }

    /// `cut`: the most bytes that either end reads at once.
    fn joined(shard: Rc<Shard>, client: Rc<Link>, cut: usize) -> Self {
        let (mut ours, mut theirs) = Pipe::pair(&shard.pool);
        (ours.cut, theirs.cut) = (cut, cut);
        let kill = ours.twin();
        let accepted = Rc::<RefCell<VecDeque<_>>>::default();
        let into = Rc::clone(&accepted);
        let server = run(Link::server(&shard), Box::new(theirs), move |session| {
            into.borrow_mut().push_back(session);
        });
        let runs = [spawn_local(run(Rc::clone(&client), Box::new(ours), drop)), spawn_local(server)];
        Self { shard, client, accepted, runs, kill }
    }

    fn open(&self) -> Option<Session> {
        self.client.open(&opening(Network::Tcp))
    }

    async fn accept(&self) -> Accepted {
        eventually(|| self.accepted.borrow_mut().pop_front()).await
    }

    fn buffer(&self, bytes: &[u8]) -> Buffer {
        self.shard.pool.copy(bytes).expect("memory")
    }
}

fn run_test(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .expect("a runtime");
    let bounded = async { timeout(Duration::from_secs(3600), test).await.expect("it ends") };
    LocalSet::new().block_on(&runtime, bounded);
}

fn opening(network: Network) -> Opening {
    let target = Target { host: Host::parse("target.example").expect("a host"), port: 7 };
    Opening { network, target: Some(target), global_id: None }
}

async fn eventually<T>(mut look: impl FnMut() -> Option<T>) -> T {
    for _ in 0..100_000 {
        if let Some(found) = look() {
            return found;
        }
        yield_now().await;
    }
    panic!("waited in vain");
}

/// Lets everything happen that needs no time.
async fn settle() {
    for _ in 0..100 {
        yield_now().await;
    }
}

async fn send(stream: &mut Session, data: Buffer) -> Result<(), StreamError> {
    poll_fn(|cx| stream.poll_ready(cx)).await?;
    stream.send(data)
}

async fn recv(stream: &mut Session) -> Result<Option<Buffer>, StreamError> {
    poll_fn(|cx| stream.poll_recv(cx, 65_536)).await
}

async fn finish(stream: &mut Session) {
    poll_fn(|cx| stream.poll_finish(cx)).await.expect("finished");
}

/// Sends back whatever comes, and ends when the other side does.
async fn echo(mut stream: Session) {
    while let Some(data) = recv(&mut stream).await.expect("data or the end") {
        send(&mut stream, data).await.expect("sent");
    }
    finish(&mut stream).await;
}

#[test]
fn many_streams_pass_at_once_however_the_carrier_is_cut() {
    for cut in [1, 5, 1000, usize::MAX] {
        run_test(async move {
            let shard = shard();
            let link = Link::client(&shard, 64);
            let pair = Pair::joined(shard, link, cut);
            let total = if cut < 100 { 5000 } else { 300_000 };
            let mut clients = Vec::new();
            for seed in 0..20 {
                let mut payload = vec![0; total];
                SeededEntropy::new(seed).fill(&mut payload);
                let mut session = pair.open().expect("room");
                let pool = pair.shard.pool.clone();
                clients.push(spawn_local(async move {
                    let mut got = Vec::new();
                    for piece in payload.chunks(4000) {
                        send(&mut session, pool.copy(piece).expect("memory")).await.expect("sent");
                        got.extend_from_slice(&recv(&mut session).await.expect("data").expect("more"));
                    }
                    while got.len() < payload.len() {
                        got.extend_from_slice(&recv(&mut session).await.expect("data").expect("more"));
                    }
                    assert!(got == payload);
                }));
            }
            for _ in 0..20 {
                let Accepted { session, network, target, .. } = pair.accept().await;
                assert_eq!((network, target.port), (Network::Tcp, 7));
                spawn_local(echo(session));
            }
            for client in clients {
                client.await.expect("the same came back");
            }
            settle().await;
            assert_eq!(pair.shard.pool.used(), 0, "idle carriers hold nothing");
        });
    }
}

#[test]
fn what_opens_a_session_goes_with_its_first_data_or_alone() {
    run_test(async {
        let pair = Pair::new(8);
        let (mut quick, mut silent) = (pair.open().expect("room"), pair.open().expect("room"));
        let unused = pair.open().expect("room");
        settle().await;
        assert!(pair.accepted.borrow().is_empty(), "nothing was said");
        drop(unused);
        send(&mut quick, pair.buffer(b"hello")).await.expect("sent");
        let mut served = pair.accept().await.session;
        assert_eq!(&*recv(&mut served).await.expect("data").expect("more"), b"hello");
        poll_fn(|cx| silent.poll_flush(cx)).await.expect("sent");
        let mut banner = pair.accept().await.session;
        send(&mut banner, pair.buffer(b"220")).await.expect("sent");
        assert_eq!(&*recv(&mut silent).await.expect("data").expect("more"), b"220");
        assert!(pair.accepted.borrow().is_empty(), "what was never used was never opened");
    });
}

#[test]
fn a_clients_end_waits_and_a_servers_goes_at_once() {
    run_test(async {
        let pair = Pair::new(8);
        let mut app = pair.open().expect("room");
        send(&mut app, pair.buffer(b"question")).await.expect("sent");
        finish(&mut app).await;
        let mut served = pair.accept().await.session;
        assert_eq!(&*recv(&mut served).await.expect("data").expect("more"), b"question");
        settle().await;
        assert!(served.port.ended().is_none(), "an End would cut the answer off");
        send(&mut served, pair.buffer(b"answer")).await.expect("sent");
        finish(&mut served).await;
        assert_eq!(&*recv(&mut app).await.expect("data").expect("more"), b"answer");
        assert_eq!(recv(&mut app).await.map(|data| data.is_none()), Ok(true), "a proper end");
        // What the app says from here on goes nowhere, and does no harm.
        send(&mut app, pair.buffer(b"more")).await.expect("taken");

        let mut app = pair.open().expect("room");
        send(&mut app, pair.buffer(b"question")).await.expect("sent");
        let mut served = pair.accept().await.session;
        finish(&mut app).await;
        drop(app);
        assert_eq!(&*recv(&mut served).await.expect("data").expect("more"), b"question");
        assert_eq!(recv(&mut served).await.map(|data| data.is_none()), Ok(true));
        assert_eq!(served.send(pair.buffer(b"late")), Err(StreamError::Reset), "nobody reads it");
    });
}

#[test]
fn an_abort_ends_the_session_alone() {
    run_test(async {
        let pair = Pair::new(8);
        let (mut one, mut other) = (pair.open().expect("room"), pair.open().expect("room"));
        for session in [&mut one, &mut other] {
            send(session, pair.buffer(b"x")).await.expect("sent");
        }
        let (mut first, second) = (pair.accept().await.session, pair.accept().await.session);
        spawn_local(echo(second));
        one.abort();
        drop(one);
        assert_eq!(recv(&mut first).await.map(|data| data.map(|data| data.len())), Ok(Some(1)));
        assert_eq!(recv(&mut first).await.map(|data| data.is_none()), Ok(true));
        assert_eq!(&*recv(&mut other).await.expect("data").expect("more"), b"x");
        send(&mut other, pair.buffer(b"y")).await.expect("sent");
        assert_eq!(&*recv(&mut other).await.expect("data").expect("more"), b"y");
    });
}

#[test]
fn a_dead_carrier_resets_its_sessions() {
    run_test(async {
        let mut pair = Pair::new(8);
        let mut app = pair.open().expect("room");
        send(&mut app, pair.buffer(b"x")).await.expect("sent");
        let mut served = pair.accept().await.session;
        assert_eq!(recv(&mut served).await.map(|data| data.map(|data| data.len())), Ok(Some(1)));
        pair.kill.abort();
        assert_eq!(recv(&mut app).await.err(), Some(StreamError::Reset));
        assert_eq!(recv(&mut served).await.err(), Some(StreamError::Reset));
        timeout(Duration::from_secs(1), served.reset()).await.expect("told");
        for run in &mut pair.runs {
            assert_eq!(run.await.expect("no panic"), Err(StreamError::Reset));
        }
        assert!(pair.open().is_none() && pair.client.is_spent());
    });
}

#[test]
fn what_came_before_a_write_failed_is_delivered() {
    run_test(async {
        let mut pair = Pair::new(8);
        let (mut app, mut other) = (pair.open().expect("room"), pair.open().expect("room"));
        for session in [&mut app, &mut other] {
            send(session, pair.buffer(b"x")).await.expect("sent");
        }
        let (mut served, _beside) = (pair.accept().await.session, pair.accept().await.session);
        // Both are under way when the client finds out: the answer, and more of a question that nobody takes.
        send(&mut served, pair.buffer(b"answer")).await.expect("sent");
        finish(&mut served).await;
        pair.kill.deafen();
        send(&mut other, pair.buffer(b"y")).await.expect("queued");
        assert_eq!(&*recv(&mut app).await.expect("data").expect("more"), b"answer");
        assert_eq!(recv(&mut app).await.map(|data| data.is_none()), Ok(true), "its proper end");
        assert_eq!(recv(&mut other).await.err(), Some(StreamError::Reset), "it had none");
        assert_eq!((&mut pair.runs[0]).await.expect("no panic"), Err(StreamError::Reset));
        assert!(pair.open().is_none());
    });
}

#[test]
fn a_stalled_session_holds_so_much_and_then_the_carrier() {
    run_test(async {
        let pair = Pair::new(8);
        let (mut stalled, mut moving) = (pair.open().expect("room"), pair.open().expect("room"));
        for session in [&mut stalled, &mut moving] {
            send(session, pair.buffer(b"go")).await.expect("sent");
        }
        let (mut fountain, beside) = (pair.accept().await.session, pair.accept().await.session);
        let pool = pair.shard.pool.clone();
        let sent = Rc::new(Cell::new(0));
        let count = Rc::clone(&sent);
        spawn_local(async move {
            while send(&mut fountain, pool.copy(&[7; 8000]).expect("memory")).await.is_ok() {
                count.set(count.get() + 8000);
            }
        });
        spawn_local(echo(beside));
        assert_eq!(&*recv(&mut moving).await.expect("data").expect("more"), b"go");
        settle().await;
        settle().await;
        let held = sent.get();
        assert!((200_000..600_000).contains(&held), "{held} bytes are under way");
        assert!(pair.shard.pool.used() < 1 << 20, "{} bytes of memory", pair.shard.pool.used());
        assert!(pair.client.is_full() && pair.open().is_none(), "it takes nobody on");
        // Up it moves on all the same.
        send(&mut moving, pair.buffer(b"up")).await.expect("sent");
        // And down too, once the reader is back.
        let mut got = 0;
        while got < held {
            got += recv(&mut stalled).await.expect("data").expect("more").len();
        }
        assert_eq!(&*recv(&mut moving).await.expect("data").expect("more"), b"up");
        // A reader that leaves for good frees the carrier as well.
        settle().await;
        assert!(pair.client.is_full());
        drop(stalled);
        send(&mut moving, pair.buffer(b"on")).await.expect("sent");
        assert_eq!(&*recv(&mut moving).await.expect("data").expect("more"), b"on");
        assert!(pair.open().is_some());
    });
}

#[test]
fn carriers_without_a_session_end_exactly_when_due() {
    run_test(async {
        let mut pair = Pair::new(8);
        let app = pair.open().expect("room");
        sleep(Duration::from_secs(40)).await;
        assert!(!pair.runs[0].is_finished(), "a session keeps it");
        drop(app);
        let start = Instant::now();
        assert_eq!((&mut pair.runs[0]).await.expect("no panic"), Ok(()));
        assert_eq!(start.elapsed().as_secs(), CLIENT_IDLE.as_secs());
        assert_eq!((&mut pair.runs[1]).await.expect("no panic"), Ok(()));
        assert!(pair.open().is_none());

        let mut lonely = Pair::new(8);
        let busy = lonely.open().expect("room");
        let start = Instant::now();
        assert_eq!((&mut lonely.runs[1]).await.expect("no panic"), Ok(()));
        assert_eq!(start.elapsed().as_secs(), SERVER_IDLE.as_secs(), "a server waits longer");
        drop(busy);
    });
}

#[test]
fn a_spent_carrier_ends_with_its_last_session() {
    run_test(async {
        let mut pair = Pair::new(128);
        for _ in 0..MAX_TOTAL - 1 {
            drop(pair.open().expect("room"));
        }
        let last = pair.open().expect("room");
        assert!(pair.open().is_none() && pair.client.is_spent());
        drop(last);
        let start = Instant::now();
        assert_eq!((&mut pair.runs[0]).await.expect("no panic"), Ok(()));
        assert_eq!(start.elapsed().as_secs(), 0);

        let mut retired = Pair::new(8);
        let app = retired.open().expect("room");
        retired.client.retire();
        assert!(retired.open().is_none());
        settle().await;
        assert!(!retired.runs[0].is_finished());
        drop(app);
        assert_eq!((&mut retired.runs[0]).await.expect("no panic"), Ok(()));
    });
}

#[test]
fn datagrams_pass_whole_with_their_addresses() {
    run_test(async {
        let shard = shard();
        let (link, session) = Link::alone(&shard, opening(Network::Udp));
        let pair = Pair::joined(shard, link, 7);
        let target = opening(Network::Udp).target.expect("one");
        let elsewhere = Target { host: Host::parse("192.0.2.7").expect("a host"), port: 9 };
        let mut app = session.into_datagrams(target.clone(), true);
        for (to, len) in [(&target, 1), (&elsewhere, 1400), (&target, 8192), (&elsewhere, 8193)] {
            let data = pair.shard.pool.copy(&vec![len as u8; len]).expect("memory");
            app.send(Datagram { data, remote: to.clone() }).expect("sent or dropped");
        }
        let Accepted { session, network, target: asked, .. } = pair.accept().await;
        assert_eq!((network, &asked, session.port.id), (Network::Udp, &target, 0));
        let mut served = session.into_datagrams(asked, true);
        let outlet = served.outlet();
        for (to, len) in [(&target, 1), (&elsewhere, 1400), (&target, 8192)] {
            let got = poll_fn(|cx| served.poll_recv(cx)).await.expect("received").expect("open");
            assert_eq!((&got.remote, got.data.len(), got.data[0]), (to, len, len as u8));
            outlet.send(got.data, elsewhere.clone());
            let back = poll_fn(|cx| app.poll_recv(cx)).await.expect("received").expect("open");
            assert_eq!((&back.remote, back.data.len()), (&elsewhere, len));
        }
        assert_eq!(pair.shard.shared.stats.dropped.load(std::sync::atomic::Ordering::Relaxed), 1);
        drop(app);
        let end = poll_fn(|cx| served.poll_recv(cx)).await;
        assert!(matches!(end, Ok(None)), "{end:?}");
    });
}

/// V2Ray's mux, at either end, drops the carrier on which a longer datagram comes.
#[test]
fn without_xudp_datagrams_are_as_short_as_v2ray_needs_them() {
    run_test(async {
        let pair = Pair::new(8);
        let app = pair.client.open(&opening(Network::Udp)).expect("room");
        let mut app = app.into_datagrams(flow_target(), false);
        for len in [2049, 2048] {
            let data = pair.buffer(&vec![1; len]);
            app.send(Datagram { data, remote: flow_target() }).expect("sent or dropped");
        }
        let Accepted { session, target, .. } = pair.accept().await;
        let mut served = session.into_datagrams(target, true);
        let got = poll_fn(|cx| served.poll_recv(cx)).await.expect("received").expect("open");
        assert_eq!(got.data.len(), 2048);
        for len in [2049, 2048] {
            served.outlet().send(pair.buffer(&vec![2; len]), flow_target());
        }
        let back = poll_fn(|cx| app.poll_recv(cx)).await.expect("received").expect("open");
        assert_eq!(back.data.len(), 2048);
        assert_eq!(pair.shard.shared.stats.dropped.load(std::sync::atomic::Ordering::Relaxed), 2);
    });
}

#[test]
fn datagrams_that_nobody_reads_do_not_hold_up_the_carrier() {
    run_test(async {
        let pair = Pair::new(8);
        let flow = pair.client.open(&opening(Network::Udp)).expect("room");
        let mut flow = flow.into_datagrams(opening(Network::Udp).target.expect("one"), false);
        let mut stream = pair.open().expect("room");
        for i in 0..1000_u32 {
            poll_fn(|cx| flow.poll_ready(cx)).await.expect("open");
            let data = pair.buffer(&i.to_be_bytes());
            flow.send(Datagram { data, remote: flow_target() }).expect("sent");
        }
        send(&mut stream, pair.buffer(b"x")).await.expect("sent");
        let mut unread = pair.accept().await.session.into_datagrams(flow_target(), false);
        spawn_local(echo(pair.accept().await.session));
        assert_eq!(&*recv(&mut stream).await.expect("data").expect("more"), b"x");
        let oldest = poll_fn(|cx| unread.poll_recv(cx)).await.expect("received").expect("open");
        assert_eq!(*oldest.data, 936_u32.to_be_bytes(), "the newest 64 wait");
    });
}

fn flow_target() -> Target {
    opening(Network::Udp).target.expect("one")
}

#[test]
fn garbage_ends_the_carrier_and_unknown_sessions_are_refused() {
    run_test(async {
        let shard = shard();
        let (mut ours, theirs) = Pipe::pair(&shard.pool);
        let mut server = spawn_local(run(Link::server(&shard), Box::new(theirs), drop));
        let wire = [&[0, 4, 0, 9, 2, 1, 0, 3][..], b"abc", &[0, 4, 0, 0, 4, 1, 0, 1, 7]].concat();
        ours.send(shard.pool.copy(&wire).expect("memory")).expect("sent");
        let answer = poll_fn(|cx| ours.poll_recv(cx, 99)).await.expect("received").expect("open");
        assert_eq!(*answer, [0, 4, 0, 9, 3, 0], "an End, and nothing for a KeepAlive");
        settle().await;
        assert!(!server.is_finished());
        ours.send(shard.pool.copy(&[0, 4, 0, 9, 9, 0]).expect("memory")).expect("sent");
        let end = (&mut server).await.expect("no panic");
        assert_eq!(end, Err(StreamError::Protocol("a mux frame is malformed")));
        let end = poll_fn(|cx| Poll::Ready(ours.poll_recv(cx, 99))).await;
        assert!(matches!(end, Poll::Ready(Err(StreamError::Reset))));
    });
}

#[test]
fn what_has_drained_is_not_cut_off_by_an_abort() {
    run_test(async {
        let pair = Pair::new(1);
        let mut ours = pair.open().expect("room");
        send(&mut ours, pair.buffer(b"question")).await.expect("sent");
        let mut theirs = pair.accept().await.session;
        send(&mut theirs, pair.buffer(&[7; 50_000])).await.expect("sent");
        assert!(poll_fn(|cx| Poll::Ready(theirs.poll_drained(cx))).await.is_pending());
        poll_fn(|cx| theirs.poll_drained(cx)).await;
        theirs.abort();
        let mut got = 0;
        while let Ok(Some(piece)) = recv(&mut ours).await {
            got += piece.len();
        }
        assert_eq!(got, 50_000);
    });
}

#[test]
fn a_peer_that_opens_and_never_reads_is_not_read_for_ever() {
    run_test(async {
        let shard = shard();
        let (mut ours, theirs) = Pipe::pair(&shard.pool);
        let link = Link::server(&shard);
        // Every session ends as soon as it begins.
        spawn_local(run(Rc::clone(&link), Box::new(theirs), |accepted| {
            let mut session = accepted.session;
            session.abort();
        }));
        let (mut sent, mut id) = (0, 0_u16);
        while sent < 1000 {
            let mut frames = Vec::new();
            for _ in 0..1000 {
                id = id.wrapping_add(1);
                Frame::new(id, opening(Network::Tcp), None).encode(&mut frames);
            }
            let ready = timeout(Duration::from_secs(1), poll_fn(|cx| ours.poll_ready(cx))).await;
            let Ok(ready) = ready else { break };
            ready.expect("it takes more");
            ours.send(shard.pool.copy(&frames).expect("memory")).expect("sent");
            sent += 1;
            settle().await;
        }
        assert!(sent < 1000, "a million sessions");
        let waiting = link.state.borrow().outgoing.len();
        assert!(waiting <= MAX_ENDS + 256 + MAX_REFUSALS, "{waiting} frames wait");
        // Once the peer reads, it is read again.
        let mut told = 0;
        while let Ok(answers) =
            timeout(Duration::from_secs(1), poll_fn(|cx| ours.poll_recv(cx, 65_536))).await
        {
            told += answers.expect("no failure").map_or(0, |bytes| bytes.len());
        }
        assert!(told > 6 * MAX_ENDS && link.state.borrow().outgoing.is_empty());
        assert!(poll_fn(|cx| Poll::Ready(ours.poll_ready(cx))).await.is_ready());
    });
}
