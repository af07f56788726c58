//! A UDP flow against an outbound that a test scripts.

use super::*;
use crate::addr::Network;
use crate::engine::outbound::{Answer, LocalFuture, OpenError, OpenedStream, Outbound};
use crate::engine::shard::Live;
use crate::error::{Error, ErrorKind};
use crate::transport::testing::shard;
use std::sync::Arc;
use tokio::task::{LocalSet, yield_now};

/// What the outbound is to do, and what it has been given.
#[derive(Default)]
struct Script {
    /// `None`: opening takes for ever.
    open: Option<bool>,
    blocked: bool,
    sent: Vec<Vec<u8>>,
    incoming: VecDeque<Result<Option<Datagram>, StreamError>>,
    waker: Option<Waker>,
}

#[derive(Clone)]
struct Scripted {
    tag: Arc<str>,
    script: Rc<RefCell<Script>>,
    admits: bool,
}

impl Scripted {
    fn change(&self, change: impl FnOnce(&mut Script)) {
        change(&mut self.script.borrow_mut());
        let waker = self.script.borrow_mut().waker.take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Waits for the script's next change.
    fn wait<T>(&self, cx: &Context<'_>) -> Poll<T> {
        self.script.borrow_mut().waker = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl Outbound for Scripted {
    fn tag(&self) -> &Arc<str> {
        &self.tag
    }

    fn connects_target(&self) -> bool {
        false
    }

    fn admits(&self, _now: Moment) -> bool {
        self.admits
    }

    fn open_stream(self: Rc<Self>, _: Rc<Shard>, _: Target) -> LocalFuture<Result<OpenedStream, OpenError>> {
        unreachable!("only datagrams here")
    }

    fn open_datagrams(
        self: Rc<Self>,
        _: Rc<Shard>,
        _: Target,
    ) -> LocalFuture<Result<Box<dyn Datagrams>, OpenError>> {
        Box::pin(poll_fn(move |cx| {
            let open = self.script.borrow().open;
            match open {
                Some(true) => Poll::Ready(Ok(Box::new((*self).clone()) as Box<dyn Datagrams>)),
                Some(false) => {
                    let error = Error::new(ErrorKind::Internal, "scripted");
                    Poll::Ready(Err(OpenError { error, answer: Answer::Failed }))
                }
                None => self.wait(cx),
            }
        }))
    }
}

impl Datagrams for Scripted {
    fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Datagram>, StreamError>> {
        let next = self.script.borrow_mut().incoming.pop_front();
        match next {
            Some(next) => Poll::Ready(next),
            None => self.wait(cx),
        }
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamError>> {
        if self.script.borrow().blocked { self.wait(cx) } else { Poll::Ready(Ok(())) }
    }

    fn send(&mut self, datagram: Datagram) -> Result<(), StreamError> {
        self.script.borrow_mut().sent.push(datagram.data.to_vec());
        Ok(())
    }

    fn poll_flush(&mut self, _: &mut Context<'_>) -> Poll<Result<(), StreamError>> {
        Poll::Ready(Ok(()))
    }
}

/// Something that ends a flow.
type End = fn(&Bench);

/// A flow with everything that a test looks at.
struct Bench {
    shard: Rc<Shard>,
    outbound: Scripted,
    flow: UdpFlow,
    delivered: Rc<RefCell<Vec<Vec<u8>>>>,
    ended: Rc<Cell<bool>>,
}

fn target() -> Target {
    Target::new(std::net::IpAddr::from([192, 0, 2, 1]), 53)
}

impl Bench {
    fn new(admits: bool) -> Self {
        let shard = shard();
        let outbound = Scripted { tag: "scripted".into(), script: Rc::default(), admits };
        let config = shard.live().config.clone();
        let live =
            Live { outbounds: vec![Rc::new(outbound.clone())], ..Live::new(config).expect("a config") };
        *shard.live.borrow_mut() = Rc::new(live);
        let (delivered, ended) = (Rc::<RefCell<Vec<_>>>::default(), Rc::new(Cell::new(false)));
        let flow = Flow {
            network: Network::Udp,
            source: "127.0.0.1:9".parse().expect("literal"),
            target: target(),
            inbound: "socks".into(),
            accepted: shard.clock.now(),
            user: None,
        };
        let (into, end) = (Rc::clone(&delivered), Rc::clone(&ended));
        let deliver = move |datagram: Datagram| into.borrow_mut().push(datagram.data.to_vec());
        let chosen = dispatch::route(&shard, &flow);
        let flow = UdpFlow::start(&shard, flow, chosen, deliver, move |_| end.set(true));
        Self { shard, outbound, flow, delivered, ended }
    }

    fn push(&self, payload: &[u8]) {
        self.flow.push(&self.shard, self.shard.pool.copy(payload).expect("memory"), target());
    }

    fn incoming(&self, payload: &[u8]) -> Result<Option<Datagram>, StreamError> {
        Ok(Some(Datagram { data: self.shard.pool.copy(payload).expect("memory"), remote: target() }))
    }

    fn wakes(&self) {
        self.shard.connections.wake_all();
    }

    fn dropped(&self) -> u64 {
        self.shard.shared.stats.dropped.load(Relaxed)
    }
}

fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    LocalSet::new().block_on(&runtime, test);
}

async fn settle() {
    for _ in 0..20 {
        yield_now().await;
    }
}

#[test]
fn what_comes_before_the_opening_waits_for_it() {
    run(async {
        let bench = Bench::new(true);
        bench.push(b"one");
        bench.push(b"two");
        settle().await;
        assert!(bench.outbound.script.borrow().sent.is_empty());
        bench.outbound.change(|script| script.open = Some(true));
        settle().await;
        bench.push(b"three");
        settle().await;
        assert_eq!(bench.outbound.script.borrow().sent, [&b"one"[..], b"two", b"three"]);
        let answer = bench.incoming(b"answer");
        bench.outbound.change(|script| script.incoming.push_back(answer));
        settle().await;
        assert_eq!(*bench.delivered.borrow(), [b"answer"]);
        let list = bench.shard.connections.list(bench.shard.clock.now());
        assert_eq!((list.len(), list[0].uplink_bytes, list[0].downlink_bytes), (1, 11, 6));
        assert_eq!((bench.dropped(), bench.ended.get()), (0, false));
    });
}

#[test]
fn a_blocked_carrier_drops_the_oldest() {
    run(async {
        let bench = Bench::new(true);
        bench.outbound.change(|script| (script.open, script.blocked) = (Some(true), true));
        for n in 0..100_u8 {
            bench.push(&[n]);
        }
        settle().await;
        assert_eq!(bench.dropped(), 36);
        bench.outbound.change(|script| script.blocked = false);
        settle().await;
        assert_eq!(bench.outbound.script.borrow().sent, (36..100_u8).map(|n| vec![n]).collect::<Vec<_>>());
    });
}

#[test]
fn what_has_waited_too_long_for_a_blocked_carrier_is_dropped() {
    run(async {
        let bench = Bench::new(true);
        bench.outbound.change(|script| (script.open, script.blocked) = (Some(true), true));
        settle().await;
        bench.push(b"old");
        tokio::time::sleep(MAX_WAIT + Duration::from_millis(20)).await;
        bench.push(b"new");
        bench.outbound.change(|script| script.blocked = false);
        settle().await;
        assert_eq!(
            (bench.outbound.script.borrow().sent.clone(), bench.dropped()),
            (vec![b"new".to_vec()], 1)
        );
    });
}

#[test]
fn a_flood_both_ways_passes_whole() {
    run(async {
        let bench = Bench::new(true);
        bench.outbound.change(|script| script.open = Some(true));
        for n in 0..1000_u32 {
            bench.push(&n.to_be_bytes());
            let answer = bench.incoming(&n.to_be_bytes());
            bench.outbound.change(|script| script.incoming.push_back(answer));
            if n % 50 == 49 {
                yield_now().await;
            }
        }
        settle().await;
        let all: Vec<_> = (0..1000_u32).map(|n| n.to_be_bytes().to_vec()).collect();
        assert!(*bench.delivered.borrow() == all && bench.outbound.script.borrow().sent == all);
        assert_eq!(bench.shard.pool.used(), 0);
    });
}

#[test]
fn every_end_is_told_once_and_leaves_no_connection() {
    run(async {
        let ends: [(bool, End); 5] = [
            (true, |bench| bench.outbound.change(|script| script.open = Some(false))),
            (true, |bench| {
                bench
                    .outbound
                    .change(|script| (script.open, script.incoming) = (Some(true), [Ok(None)].into()));
            }),
            (true, |bench| {
                let reset = [Err(StreamError::Reset)].into();
                bench.outbound.change(|script| (script.open, script.incoming) = (Some(true), reset));
            }),
            (true, |bench| {
                bench.shard.connections.close_all();
            }),
            (false, |_| {}),
        ];
        for (index, (admits, end)) in ends.into_iter().enumerate() {
            let bench = Bench::new(admits);
            bench.push(b"x");
            settle().await;
            assert_eq!(bench.ended.get(), !admits, "end {index}");
            end(&bench);
            settle().await;
            assert!(bench.ended.get() && bench.shard.connections.is_empty(), "end {index}");
        }
    });
}

#[test]
fn a_dropped_flow_is_gone_without_a_word() {
    run(async {
        let Bench { shard, outbound, flow, ended, .. } = Bench::new(true);
        outbound.change(|script| script.open = Some(true));
        settle().await;
        assert_eq!(shard.connections.len(), 1);
        drop(flow);
        settle().await;
        assert!(shard.connections.is_empty() && !ended.get());
    });
}

#[test]
fn what_comes_after_a_long_silence_does_not_revive_a_flow() {
    run(async {
        for wake in [Bench::wakes as End, |bench: &Bench| bench.push(b"late")] {
            let bench = Bench::new(true);
            bench.outbound.script.borrow_mut().open = Some(true);
            bench.push(b"first");
            settle().await;
            // As if the device had slept since: no timer of the runtime has fired.
            let now = bench.shard.clock.now();
            bench.flow.state.active.set(now - IDLE_UNANSWERED);
            wake(&bench);
            settle().await;
            assert!(bench.ended.get());
            assert_eq!(bench.outbound.script.borrow().sent, [b"first"]);
            assert_eq!(bench.shard.connections.len(), 0);
        }
    });
}
