//! The relay between two scripted ends, on paused time.

use super::*;
use crate::buffer::{Buffer, Pool};
use crate::engine::Shard;
use crate::transport::Plain;
use crate::transport::sealed::{SealedStream, Witness};
use crate::transport::testing::{Script, ScriptCarrier, Server, request, shard};
use crate::vmess::{Command, Security};
use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::task::Waker;
use tokio::task::{JoinHandle, LocalSet};

/// Counts what it is told, and may close.
#[derive(Default)]
struct Told {
    up: Cell<usize>,
    down: Cell<usize>,
    silent: Cell<u32>,
    slept: Cell<Duration>,
    polls: Cell<u32>,
    closed: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl Meter for Rc<Told> {
    fn moved(&self, uplink: usize, downlink: usize) {
        self.up.set(self.up.get() + uplink);
        self.down.set(self.down.get() + downlink);
    }

    fn silent(&self) {
        self.silent.set(self.silent.get() + 1);
    }

    fn poll_closed(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.polls.set(self.polls.get() + 1);
        *self.waker.borrow_mut() = Some(cx.waker().clone());
        if self.closed.get() { Poll::Ready(()) } else { Poll::Pending }
    }

    fn slept(&self) -> Duration {
        self.slept.get()
    }
}

struct Nobody;

impl Witness for Nobody {
    fn answered(&self) {}
    fn rejected(&self) {}
    fn lost(&self) {}
    fn terminated(&self) {}
    fn terminates(&self) -> bool {
        false
    }
}

type Shared = Rc<RefCell<Script>>;

/// A relay under way between an app and a server, both scripted.
struct Bench {
    app: Shared,
    server: Shared,
    told: Rc<Told>,
    started: Instant,
    task: JoinHandle<Result<(), RelayError>>,
}

fn terms() -> Terms {
    Terms {
        conn_idle: Duration::from_secs(300),
        uplink_only: Duration::from_secs(2),
        downlink_only: Duration::from_secs(5),
        header_alone: Instant::now() + HEADER_ALONE,
    }
}

fn start(terms: Terms, remote: impl FnOnce(ScriptCarrier, Rc<Shard>) -> Box<dyn Stream>) -> Bench {
    let ((app_end, app), (server_end, server)) = (Script::carrier(), Script::carrier());
    let shard = shard();
    let local = Box::new(Plain::new(app_end, shard.pool.clone()));
    let remote = remote(server_end, shard);
    let told = Rc::new(Told::default());
    let meter = Rc::clone(&told);
    let task = tokio::task::spawn_local(Relaying::new(local, remote, terms, meter));
    Bench { app, server, told, started: Instant::now(), task }
}

fn plain(terms: Terms) -> Bench {
    start(terms, |carrier, shard| Box::new(Plain::new(carrier, Pool::clone(&shard.pool))))
}

fn sealed(terms: Terms) -> Bench {
    start(terms, |carrier, shard| {
        let connection = request(Command::Tcp, Security::Aes128Gcm);
        Box::new(SealedStream::new(carrier, shard, connection, Rc::new(Nobody)))
    })
}

/// Lets everything that can run, run.
async fn settle() {
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
}

impl Bench {
    async fn ended(self) -> (Result<(), RelayError>, Duration) {
        let result = self.task.await.expect("no panic");
        (result, self.started.elapsed())
    }
}

async fn run(test: impl Future<Output = ()>) {
    LocalSet::new().run_until(test).await;
}

#[tokio::test(start_paused = true)]
async fn a_header_that_has_gone_is_not_waited_for() {
    run(async {
        let bench = sealed(terms());
        bench.app.borrow_mut().feed(b"at once");
        settle().await;
        let polls = bench.told.polls.get();
        tokio::time::advance(HEADER_ALONE * 2).await;
        settle().await;
        assert_eq!(
            (bench.server.borrow().writes.len(), bench.told.polls.get()),
            (1, polls),
            "woken for nothing"
        );
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn both_directions_flow_and_ends_pass_on_one_by_one() {
    run(async {
        let bench = plain(terms());
        bench.app.borrow_mut().feed(b"question");
        bench.app.borrow_mut().end(Ok(()));
        settle().await;
        assert_eq!((&*bench.server.borrow().written, bench.server.borrow().closed), (&b"question"[..], true));
        assert!(!bench.app.borrow().closed, "half-closed");
        bench.server.borrow_mut().feed(&[7; 100_000]);
        bench.server.borrow_mut().end(Ok(()));
        let (app, server, told) = (bench.app.clone(), bench.server.clone(), bench.told.clone());
        assert_eq!(bench.ended().await.0, Ok(()));
        assert_eq!((app.borrow().written.len(), app.borrow().closed), (100_000, true));
        assert_eq!((told.up.get(), told.down.get()), (8, 100_000));
        assert!(!app.borrow().aborted && !server.borrow().aborted);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_blocked_end_stops_the_other_from_being_read() {
    run(async {
        let bench = plain(terms());
        bench.server.borrow_mut().write_room = 0;
        bench.app.borrow_mut().feed(&[1; 1_000_000]);
        settle().await;
        let taken: usize = bench.app.borrow().reads.iter().sum();
        assert!(taken < 400_000, "{taken} bytes taken in");
        for _ in 0..1000 {
            bench.server.borrow_mut().open_writes(5000);
            settle().await;
        }
        assert_eq!(bench.server.borrow().written.len(), 1_000_000);
        bench.task.abort();
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_failure_aborts_both_sides_and_passes_no_end_on() {
    for (at_app, kind) in [
        (true, io::ErrorKind::ConnectionReset),
        (false, io::ErrorKind::ConnectionReset),
        (false, io::ErrorKind::UnexpectedEof),
    ] {
        run(async {
            let bench = plain(terms());
            let (app, server) = (bench.app.clone(), bench.server.clone());
            let (failing, side) = if at_app { (&app, Side::Local) } else { (&server, Side::Remote) };
            failing.borrow_mut().end(Err(kind));
            let (result, _) = bench.ended().await;
            assert!(matches!(result, Err(RelayError::Stream { side: at, .. }) if at == side), "{result:?}");
            assert!(app.borrow().aborted && server.borrow().aborted);
            assert!(!app.borrow().closed && !server.borrow().closed);
        })
        .await;
    }
}

/// A server that answers early and takes no more, because of `how`, while the app sends.
async fn answered_early(bench: &Bench, how: io::ErrorKind, answer: &[u8]) {
    bench.app.borrow_mut().write_room = 0;
    settle().await;
    bench.server.borrow_mut().write_error = Some(how);
    bench.app.borrow_mut().feed(&[1; 100_000]);
    bench.server.borrow_mut().feed(answer);
    bench.server.borrow_mut().end(Ok(()));
    settle().await;
    assert!(!bench.app.borrow().aborted, "what came is still on its way");
    bench.app.borrow_mut().open_writes(usize::MAX);
}

#[tokio::test(start_paused = true)]
async fn an_early_answer_reaches_the_app_before_the_failure_that_follows_it() {
    for (how, whole) in [(io::ErrorKind::BrokenPipe, true), (io::ErrorKind::ConnectionReset, false)] {
        run(async {
            let bench = plain(terms());
            answered_early(&bench, how, &[7; 90_000]).await;
            let (app, server) = (bench.app.clone(), bench.server.clone());
            let (result, _) = bench.ended().await;
            assert!(matches!(result, Err(RelayError::Stream { side: Side::Remote, .. })), "{result:?}");
            assert_eq!(app.borrow().written, [7; 90_000]);
            // Only an answer that is known to be whole ends properly.
            assert_eq!((app.borrow().closed, app.borrow().aborted), (whole, !whole), "{how}");
            assert!(server.borrow().aborted);
        })
        .await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_early_sealed_answer_is_whole_when_its_end_says_so() {
    use io::ErrorKind::{BrokenPipe, ConnectionReset};
    for (how, terminated, whole) in
        [(BrokenPipe, false, true), (ConnectionReset, true, true), (ConnectionReset, false, false)]
    {
        run(async {
            let bench = sealed(terms());
            bench.app.borrow_mut().feed(b"question");
            settle().await;
            let mut server = Server::accept(&bench.server.borrow().written);
            let mut wire = server.answer();
            wire.extend(server.seal(b"too much"));
            if terminated {
                wire.extend(server.finish());
            }
            answered_early(&bench, how, &wire).await;
            let app = bench.app.clone();
            assert!(bench.ended().await.0.is_err());
            assert_eq!(app.borrow().written, b"too much");
            assert_eq!((app.borrow().closed, app.borrow().aborted), (whole, !whole), "{how} {terminated}");
        })
        .await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_app_that_does_not_take_the_last_words_is_not_waited_for_for_ever() {
    run(async {
        let bench = plain(terms());
        answered_early(&bench, io::ErrorKind::ConnectionReset, &[7; 1000]).await;
        bench.app.borrow_mut().write_room = 0;
        let app = bench.app.clone();
        let (result, took) = bench.ended().await;
        let error = StreamError::Reset;
        assert_eq!(result, Err(RelayError::Stream { side: Side::Remote, error }));
        assert!(app.borrow().aborted && took == LAST_WORDS, "{took:?}");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn silence_ends_it_exactly_after_the_limit_of_its_phase() {
    run(async {
        // Both directions open; traffic puts the limit off.
        let bench = plain(terms());
        tokio::time::sleep(Duration::from_secs(200)).await;
        bench.app.borrow_mut().feed(b"x");
        let (app, server) = (bench.app.clone(), bench.server.clone());
        let (result, took) = bench.ended().await;
        assert_eq!((result, took.as_secs()), (Err(RelayError::Idle("connIdle")), 500));
        assert!(app.borrow().aborted && server.borrow().aborted);
        // The uplink has ended: the app must see that the answer is cut.
        let bench = plain(terms());
        bench.app.borrow_mut().end(Ok(()));
        let (app, server) = (bench.app.clone(), bench.server.clone());
        let (result, took) = bench.ended().await;
        assert_eq!((result, took.as_secs()), (Err(RelayError::Idle("downlinkOnly")), 5));
        assert!(app.borrow().aborted && !server.borrow().aborted);
        // The downlink has ended: what it brought must still reach the app.
        let bench = plain(terms());
        bench.server.borrow_mut().feed(b"bye");
        bench.server.borrow_mut().end(Ok(()));
        let app = bench.app.clone();
        let (result, took) = bench.ended().await;
        assert_eq!((result, took.as_secs()), (Err(RelayError::Idle("uplinkOnly")), 2));
        assert!(app.borrow().closed && !app.borrow().aborted);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_limit_of_zero_ends_at_once() {
    run(async {
        let bench = plain(Terms { uplink_only: Duration::ZERO, ..terms() });
        bench.server.borrow_mut().end(Ok(()));
        assert!(bench.ended().await.1 < Duration::from_millis(1));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn the_header_waits_50_ms_for_payload_and_then_goes_alone() {
    run(async {
        let bench = sealed(terms());
        tokio::time::sleep(Duration::from_millis(49)).await;
        assert!(bench.server.borrow().written.is_empty());
        tokio::time::sleep(Duration::from_millis(2)).await;
        assert!(Server::accept(&bench.server.borrow().written).chunks.is_empty());
        bench.task.abort();

        let bench = sealed(terms());
        tokio::time::sleep(Duration::from_millis(30)).await;
        bench.app.borrow_mut().feed(b"early");
        settle().await;
        assert_eq!(Server::accept(&bench.server.borrow().written).payload(), b"early");
        assert_eq!(bench.server.borrow().writes.len(), 1);
        bench.task.abort();

        // The dial took longer: nothing is waited for any more.
        let bench = sealed(Terms { header_alone: Instant::now(), ..terms() });
        settle().await;
        assert_eq!(bench.server.borrow().writes.len(), 1);
        bench.task.abort();
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn an_unanswered_flow_is_told_once_after_10_seconds_and_lives_on() {
    run(async {
        let bench = sealed(terms());
        bench.app.borrow_mut().feed(b"anybody?");
        tokio::time::sleep(Duration::from_millis(9_900)).await;
        assert_eq!(bench.told.silent.get(), 0);
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert_eq!(bench.told.silent.get(), 1);
        let mut server = Server::accept(&bench.server.borrow().written);
        let mut wire = server.answer();
        wire.extend(server.seal(b"late"));
        bench.server.borrow_mut().feed(&wire);
        settle().await;
        assert_eq!(bench.app.borrow().written, b"late");
        let told = bench.told.clone();
        bench.app.borrow_mut().end(Err(io::ErrorKind::ConnectionReset));
        assert!(bench.ended().await.0.is_err());
        assert_eq!(told.silent.get(), 1);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn an_answered_flow_is_not_woken_for_its_silence() {
    run(async {
        let bench = sealed(terms());
        bench.app.borrow_mut().feed(b"data");
        settle().await;
        let mut server = Server::accept(&bench.server.borrow().written);
        let mut wire = server.answer();
        wire.extend(server.seal(b"at once"));
        bench.server.borrow_mut().feed(&wire);
        settle().await;
        let polls = bench.told.polls.get();
        tokio::time::sleep(SILENT * 2).await;
        assert_eq!((bench.told.polls.get(), bench.told.silent.get()), (polls, 0));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn only_a_flow_that_waited_for_an_answer_is_silent() {
    run(async {
        for (wait, answered, silent) in [(3000, false, 1), (200, false, 0), (3000, true, 0)] {
            let bench = sealed(terms());
            bench.app.borrow_mut().feed(b"data");
            settle().await;
            if answered {
                let answer = Server::accept(&bench.server.borrow().written).answer();
                bench.server.borrow_mut().feed(&answer);
            }
            tokio::time::sleep(Duration::from_millis(wait)).await;
            bench.app.borrow_mut().end(Err(io::ErrorKind::ConnectionReset));
            let told = bench.told.clone();
            assert!(bench.ended().await.0.is_err());
            assert_eq!(told.silent.get(), silent, "after {wait} ms, answered: {answered}");
        }
        // A server that closes is not silent, it rejects.
        let bench = sealed(terms());
        bench.app.borrow_mut().feed(b"data");
        tokio::time::sleep(Duration::from_secs(3)).await;
        bench.server.borrow_mut().end(Ok(()));
        let (told, app) = (bench.told.clone(), bench.app.clone());
        let error = StreamError::Rejected;
        assert_eq!(bench.ended().await.0, Err(RelayError::Stream { side: Side::Remote, error }));
        assert!(told.silent.get() == 0 && app.borrow().aborted);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn closing_from_outside_aborts_both_ends() {
    run(async {
        let bench = plain(terms());
        settle().await;
        bench.told.closed.set(true);
        let waker = bench.told.waker.borrow_mut().take();
        waker.expect("registered").wake();
        let (app, server) = (bench.app.clone(), bench.server.clone());
        assert_eq!(bench.ended().await.0, Err(RelayError::Closed));
        assert!(app.borrow().aborted && server.borrow().aborted);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_flood_yields_to_other_tasks() {
    run(async {
        let bench = plain(terms());
        bench.app.borrow_mut().feed(&vec![1; 4_000_000]);
        let told = bench.told.clone();
        let other = tokio::task::spawn_local(async move {
            let mut seen = Vec::new();
            for _ in 0..10 {
                seen.push(told.up.get());
                tokio::task::yield_now().await;
            }
            seen
        });
        let seen = other.await.expect("no panic");
        let steps = seen.windows(2).filter(|pair| pair[0] < pair[1]).count();
        assert!(steps >= 3, "the other task had its turns in between: {seen:?}");
        settle().await;
        assert_eq!(bench.server.borrow().written.len(), 4_000_000);
        bench.task.abort();
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn stalled_flows_leave_memory_for_those_that_move() {
    run(async {
        let pool = Pool::new(4 << 20);
        let flow = |payload: usize, app_takes: usize| {
            let ((app_end, app), (server_end, server)) = (Script::carrier(), Script::carrier());
            server.borrow_mut().feed(&vec![3; payload]);
            app.borrow_mut().write_room = app_takes;
            let local = Box::new(Plain::new(app_end, pool.clone()));
            let remote = Box::new(Plain::new(server_end, pool.clone()));
            let task =
                tokio::task::spawn_local(Relaying::new(local, remote, terms(), Rc::new(Told::default())));
            (task, app)
        };
        let stalled: Vec<_> = (0..250).map(|_| flow(150_000, 0)).collect();
        for _ in 0..20 {
            settle().await;
        }
        assert!(pool.used() > pool.limit() / 2 && pool.used() < pool.limit(), "{pool:?}");
        let (moving, app) = flow(150_000, usize::MAX);
        for _ in 0..20 {
            settle().await;
        }
        assert_eq!(app.borrow().written.len(), 150_000);
        moving.abort();
        stalled.iter().for_each(|(task, _)| task.abort());
        settle().await;
        assert_eq!(pool.used(), 0);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn sleep_counts_as_silence_for_what_wakes_the_relay_first() {
    run(async {
        let bench = plain(terms());
        bench.app.borrow_mut().feed(b"x");
        settle().await;
        bench.told.slept.set(Duration::from_secs(290));
        bench.app.borrow_mut().feed(b"x");
        settle().await;
        assert_eq!(bench.told.up.get(), 2, "short of the limit");
        bench.told.slept.set(Duration::from_secs(591));
        let (app, server) = (bench.app.clone(), bench.server.clone());
        app.borrow_mut().feed(b"first after the gap");
        let (result, after) = bench.ended().await;
        assert_eq!((result, after), (Err(RelayError::Idle("connIdle")), Duration::ZERO));
        assert!(app.borrow().aborted && server.borrow().aborted);
        assert_eq!(&*server.borrow().written, b"xx");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn the_timer_is_moved_up_by_what_was_slept() {
    run(async {
        let bench = plain(terms());
        bench.told.slept.set(Duration::from_secs(200));
        let waker = bench.told.waker.borrow_mut().take();
        settle().await;
        waker.or_else(|| bench.told.waker.borrow_mut().take()).expect("polled").wake();
        let (result, after) = bench.ended().await;
        assert_eq!((result, after.as_secs()), (Err(RelayError::Idle("connIdle")), 100));
    })
    .await;
}

/// A stream whose peer hears of no half-close.
struct Whole(Plain<ScriptCarrier>);

impl Stream for Whole {
    fn poll_recv(&mut self, cx: &mut Context<'_>, max: usize) -> Poll<Result<Option<Buffer>, StreamError>> {
        self.0.poll_recv(cx, max)
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamError>> {
        self.0.poll_ready(cx)
    }

    fn send(&mut self, data: Buffer) -> Result<(), StreamError> {
        self.0.send(data)
    }

    fn send_limit(&self) -> usize {
        self.0.send_limit()
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamError>> {
        self.0.poll_flush(cx)
    }

    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamError>> {
        self.0.poll_flush(cx)
    }

    fn half_closes(&self) -> bool {
        false
    }

    fn abort(&mut self) {
        self.0.abort();
    }
}

#[tokio::test(start_paused = true)]
async fn an_app_that_has_had_its_answer_has_closed_where_no_half_close_is_heard() {
    for (answered, limit) in [(true, CLOSED), (false, Duration::from_secs(30))] {
        run(async {
            let terms = Terms { downlink_only: Duration::from_secs(30), ..terms() };
            let bench =
                start(terms, |carrier, shard| Box::new(Whole(Plain::new(carrier, Pool::clone(&shard.pool)))));
            bench.server.borrow_mut().feed(b"banner");
            settle().await;
            bench.app.borrow_mut().feed(b"question");
            settle().await;
            if answered {
                bench.server.borrow_mut().feed(b"answer");
                settle().await;
            }
            bench.app.borrow_mut().end(Ok(()));
            let (app, server) = (Rc::clone(&bench.app), Rc::clone(&bench.server));
            let (result, took) = bench.ended().await;
            assert_eq!((result, took.as_secs()), (Err(RelayError::Idle("downlinkOnly")), limit.as_secs()));
            // The server sees a proper end, and an app that is still there that something is missing.
            assert_eq!((app.borrow().aborted, server.borrow().aborted), (true, false));
        })
        .await;
    }
}
