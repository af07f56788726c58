//! Hosts that refuse, panic, dawdle and hang.

use super::*;
use std::net::UdpSocket;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Barrier, Mutex};
use std::thread;
use tokio::time::Instant;

type Protect = Box<dyn Fn(std::os::fd::BorrowedFd<'_>) -> Result<(), Refused> + Send + Sync>;
type Resolve = Box<dyn Fn(&str) -> Option<Result<Vec<IpAddr>, Refused>> + Send + Sync>;

struct Scripted {
    protect: Protect,
    resolve: Resolve,
}

impl Platform for Scripted {
    fn protect_socket(&self, socket: std::os::fd::BorrowedFd<'_>) -> Result<(), Refused> {
        (self.protect)(socket)
    }

    fn resolve(&self, host: &str, _network: Option<&NetworkInfo>) -> Option<Result<Vec<IpAddr>, Refused>> {
        (self.resolve)(host)
    }
}

fn protecting(
    protect: impl Fn(std::os::fd::BorrowedFd<'_>) -> Result<(), Refused> + Send + Sync + 'static,
) -> HostLink {
    link(Scripted { protect: Box::new(protect), resolve: Box::new(|_| None) })
}

fn resolving(
    resolve: impl Fn(&str) -> Option<Result<Vec<IpAddr>, Refused>> + Send + Sync + 'static,
) -> HostLink {
    link(Scripted { protect: Box::new(|_| Ok(())), resolve: Box::new(resolve) })
}

fn link(platform: Scripted) -> HostLink {
    HostLink::open(Arc::new(platform), true, Arc::default()).expect("a thread")
}

fn socket() -> UdpSocket {
    UdpSocket::bind("127.0.0.1:0").expect("a port")
}

fn refused(reason: &str) -> Refused {
    Refused { reason: reason.into() }
}

/// Ends the threads and waits for them.
async fn over(link: HostLink) {
    link.close();
    timeout(Duration::from_secs(20), link.gone()).await.expect("the threads end");
}

fn kind<T>(result: Result<T, Error>) -> Option<ErrorKind> {
    result.err().map(|error| error.kind)
}

#[tokio::test]
async fn the_host_thread_is_asked_about_the_same_socket() {
    let (socket, seen) = (socket(), Arc::new(Mutex::new(None)));
    let told = Arc::clone(&seen);
    let link = protecting(move |fd| {
        let socket = UdpSocket::from(fd.try_clone_to_owned().expect("a descriptor"));
        let name = thread::current().name().unwrap_or_default().to_owned();
        *told.lock().expect("no panic") = Some((socket.local_addr().expect("bound"), name));
        Ok(())
    });
    assert_eq!(link.protect(&socket).await, Ok(()));
    let expected = (socket.local_addr().expect("bound"), "vmk-host".to_owned());
    assert_eq!(seen.lock().expect("no panic").take(), Some(expected));
    over(link).await;
}

#[tokio::test]
async fn refusals_and_panics_fail_the_dial() {
    let asked = AtomicUsize::new(0);
    let link = protecting(move |_| match asked.fetch_add(1, SeqCst) {
        0 => Err(refused("not today")),
        1 => panic!("a host's defect"),
        _ => Ok(()),
    });
    let error = link.protect(&socket()).await.expect_err("refused");
    assert_eq!((error.kind, &*error.reason), (ErrorKind::ProtectFailed, "not today"));
    assert_eq!(kind(link.protect(&socket()).await), Some(ErrorKind::ProtectFailed));
    assert_eq!(link.protect(&socket()).await, Ok(()), "the thread has survived");
    over(link).await;
}

#[tokio::test]
async fn a_host_that_hangs_costs_a_dial_two_seconds_and_no_descriptor() {
    let (gate, inside) = (Arc::new(Barrier::new(2)), Arc::new(AtomicUsize::new(0)));
    let (held, entered) = (Arc::clone(&gate), Arc::clone(&inside));
    let link = protecting(move |_| {
        if entered.fetch_add(1, SeqCst) == 0 {
            held.wait();
        }
        Ok(())
    });
    let (started, sockets) = (Instant::now(), [socket(), socket()]);
    let (first, second) = tokio::join!(link.protect(&sockets[0]), link.protect(&sockets[1]));
    assert_eq!((kind(first), kind(second)), (Some(ErrorKind::ProtectFailed), Some(ErrorKind::ProtectFailed)));
    assert!((Duration::from_secs(2)..Duration::from_secs(8)).contains(&started.elapsed()));
    assert_eq!(link.stuck_in(), "the host's protect_socket");
    link.close();
    assert!(timeout(Duration::from_millis(20), link.gone()).await.is_err(), "it is still in the callback");
    gate.wait();
    over(link).await;
    assert_eq!(inside.load(SeqCst), 1, "the second was given up before its turn");
}

#[tokio::test]
async fn too_many_sockets_are_refused_at_once() {
    let gate = Arc::new(Barrier::new(2));
    let held = Arc::clone(&gate);
    let link = protecting(move |_| {
        held.wait();
        Err(refused(""))
    });
    let socket = socket();
    let link = std::rc::Rc::new(link);
    let local = tokio::task::LocalSet::new();
    local
        .run_until(async {
            let ask = |_| {
                let (link, socket) = (std::rc::Rc::clone(&link), socket.try_clone().expect("a descriptor"));
                tokio::task::spawn_local(async move { kind(link.protect(&socket).await) })
            };
            let dials: Vec<_> = (0..200).map(ask).collect();
            for _ in 0..20 {
                tokio::task::yield_now().await;
            }
            let told = dials.iter().filter(|dial| dial.is_finished()).count();
            assert!((70..=73).contains(&told), "{told} were refused at once");
            dials.iter().for_each(tokio::task::JoinHandle::abort);
        })
        .await;
    drop(local);
    link.close();
    gate.wait();
    timeout(Duration::from_secs(20), link.gone()).await.expect("the thread ends");
}

#[tokio::test]
async fn names_are_resolved_two_at_a_time() {
    let gate = Arc::new(Barrier::new(2));
    let link = resolving(move |name| {
        gate.wait();
        assert_eq!(thread::current().name(), Some("vmk-help"));
        Some(if name == "a" { Ok(vec![[10, 0, 0, 1].into()]) } else { Err(refused("no such name")) })
    });
    let (found, failed) = tokio::join!(link.resolve("a"), link.resolve("b"));
    assert_eq!(found, Some(Ok(vec![[10, 0, 0, 1].into()])));
    let error = failed.expect("offered").expect_err("refused");
    assert_eq!(error.kind, ErrorKind::ServerUnreachable { stage: Stage::Resolve });
    assert_eq!(error.reason, "no such name");
    over(link).await;
}

#[tokio::test]
async fn a_host_that_does_not_offer_to_resolve_is_asked_once() {
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&asked);
    let link = resolving(move |_| {
        counted.fetch_add(1, SeqCst);
        None
    });
    assert_eq!((link.resolve("a").await, link.resolve("b").await), (None, None));
    assert_eq!(asked.load(SeqCst), 1);
    over(link).await;
}

#[tokio::test]
async fn a_look_up_that_panics_finds_nothing_or_hangs_fails() {
    let gate = Arc::new(Barrier::new(2));
    let held = Arc::clone(&gate);
    let link = resolving(move |name| match name {
        "panic" => panic!("a host's defect"),
        "hang" => {
            held.wait();
            Some(Ok(vec![[10, 0, 0, 1].into()]))
        }
        _ => Some(Ok(Vec::new())),
    });
    let unresolved = Some(ErrorKind::ServerUnreachable { stage: Stage::Resolve });
    assert_eq!(kind(link.resolve("panic").await.expect("offered")), unresolved);
    assert_eq!(kind(link.resolve("nothing").await.expect("offered")), unresolved);
    let hung = link.resolve("hang").await.expect("offered");
    assert_eq!(kind(hung), Some(ErrorKind::Timeout { what: "resolve" }));
    assert_eq!(link.stuck_in(), "the host's resolve");
    gate.wait();
    over(link).await;
}
