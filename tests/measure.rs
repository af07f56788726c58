//! Measuring without a tunnel: a figure or a typed error for each config, in order, and nothing left behind.

#[path = "common/engine.rs"]
mod engine;
#[path = "common/socks_client.rs"]
#[allow(dead_code, reason = "each test file uses a part of the helpers")]
mod socks_client;
#[path = "common/vmess_server.rs"]
mod vmess_server;

use engine::{DIRECT, LONG, eventually, threads_and_fds, vmess};
use socks_client::{free_port, stop};
use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, TcpListener};
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};
use vmess_server::{ID, server};
use vmesskit::{Error, ErrorKind, MeasureRequest, Measured, Platform, Refused, Stage, measure};

/// A web server that answers every request with `answer`, and counts them.
fn web(answer: &'static str) -> (u16, Arc<AtomicU32>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("bound").port();
    let count = Arc::new(AtomicU32::new(0));
    let asked = Arc::clone(&count);
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let asked = Arc::clone(&asked);
            thread::spawn(move || {
                let mut lines = BufReader::new(client.try_clone().expect("a descriptor")).lines();
                let first = lines.next().expect("a line").expect("text");
                assert_eq!(first, "GET /generate_204?x HTTP/1.1");
                let fields: Vec<String> =
                    lines.map_while(Result::ok).take_while(|line| !line.is_empty()).collect();
                assert!(fields.iter().any(|field| field.starts_with("Host: 127.0.0.1:")), "{fields:?}");
                asked.fetch_add(1, Relaxed);
                // The client may have gone already: it has its own say.
                let _ = (&client).write_all(answer.as_bytes());
            });
        }
    });
    (port, count)
}

const NO_CONTENT: &str = "HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n";

fn request(configs: &[&str], web: u16) -> MeasureRequest {
    MeasureRequest {
        configs: configs.iter().map(|config| (*config).to_owned()).collect(),
        url: format!("http://127.0.0.1:{web}/generate_204?x"),
        timeout: Duration::from_secs(10),
        parallel: 4,
    }
}

fn measured(request: MeasureRequest, platform: Option<Arc<dyn Platform>>) -> Result<Measured, Error> {
    measure(request, platform).wait(Some(LONG * 3)).expect("answered")
}

#[test]
fn each_config_gets_its_own_figure_or_error() {
    let (port, dead) = (free_port(), free_port());
    let theirs = server(port, "", "{}");
    let (web, asked) = web(NO_CONTENT);
    let good = vmess("127.0.0.1", port);
    let muxed = good.replacen(r#""protocol""#, r#""mux": {"enabled": true}, "protocol""#, 1);
    let behind = good.replacen("[{", r#"[{"protocol": "blackhole", "tag": "first"}, {"#, 1);
    let stranger = good.replace(ID, "00000000-1111-2222-3333-444444444444");
    let configs = [
        &good,
        &vmess("127.0.0.1", dead),
        r#"{"outbounds": [{"protocol": "nothing"}]}"#,
        &stranger,
        &muxed,
        DIRECT,
        r#"{"outbounds": [{"protocol": "blackhole"}]}"#,
        &behind,
    ];
    let mut asking = request(&configs, web);
    asking.timeout = Duration::from_secs(3);
    let all = measured(asking, None).expect("measured");
    assert_eq!(all.len(), configs.len());
    for good in [0, 4, 5, 7] {
        let latency = all[good].as_ref().unwrap_or_else(|error| panic!("{good}: {error}"));
        assert!(*latency > Duration::ZERO && *latency < Duration::from_secs(3), "{good}: {latency:?}");
    }
    assert_eq!(asked.load(Relaxed), 4);
    let error = |at: usize| all[at].clone().expect_err("it cannot be measured");
    assert_eq!(error(1).kind, ErrorKind::ServerUnreachable { stage: Stage::Connect });
    assert_eq!((error(2).kind, error(2).path.as_str()), (ErrorKind::ConfigInvalid, "outbounds[0].protocol"));
    // A server that does not know us says nothing for a while, or closes.
    let kind = error(3).kind;
    assert!(matches!(kind, ErrorKind::Timeout { what: "measure" } | ErrorKind::AuthRejected), "{kind:?}");
    assert_eq!(error(6).kind, ErrorKind::Misuse);
    for error in [1, 2, 3, 6].map(error) {
        assert!(!error.text.is_empty() && !format!("{error}").contains(ID), "{error}");
    }
    stop(&theirs);
}

#[test]
fn a_server_is_not_blamed_for_the_address_behind_it() {
    let port = free_port();
    let theirs = server(port, "", "{}");
    let config = vmess("127.0.0.1", port);
    let (nonsense, _) = web("SSH-2.0-nonsense\r\n\r\n");
    let (cut, _) = web("HTTP/1.1 200 ");
    for (web, text) in [(nonsense, "no HTTP"), (cut, "behind it did not"), (free_port(), "")] {
        let all = measured(request(&[&config], web), None).expect("measured");
        let error = all[0].clone().expect_err("no answer");
        // Where the target cannot be reached the server ends before it has answered, as for a stranger.
        assert!(!matches!(error.kind, ErrorKind::Timeout { .. } | ErrorKind::Internal), "{error}");
        assert!(error.text.contains(text), "{error}");
    }
    let (busy, _) = web("HTTP/1.1 503 Service Unavailable\r\n\r\n");
    let all = measured(request(&[&config], busy), None).expect("measured");
    assert!(all[0].is_ok(), "any status is an answer: {all:?}");
    stop(&theirs);
}

#[test]
fn what_is_asked_wrongly_is_misuse() {
    let good = request(&[], 1);
    for wrong in [
        MeasureRequest { url: "ftp://a".to_owned(), ..good.clone() },
        MeasureRequest { timeout: Duration::ZERO, ..good.clone() },
        MeasureRequest { parallel: 0, ..good.clone() },
        MeasureRequest { parallel: 129, ..good.clone() },
    ] {
        assert_eq!(measured(wrong, None).map_err(|error| error.kind), Err(ErrorKind::Misuse));
    }
    assert_eq!(measured(good.clone(), None), Ok(vec![]));
    let secret = MeasureRequest { configs: vec!["secret".to_owned()], ..good };
    assert!(!format!("{secret:?}").contains("secret"));
}

/// A platform whose answers a test chooses.
struct Host {
    refuses: bool,
    resolved: AtomicU32,
    /// What `protect_socket` waits for.
    until: Mutex<Option<Receiver<()>>>,
}

fn host(refuses: bool, until: Option<Receiver<()>>) -> Arc<Host> {
    Arc::new(Host { refuses, resolved: AtomicU32::new(0), until: Mutex::new(until) })
}

impl Platform for Host {
    fn protect_socket(&self, _socket: BorrowedFd<'_>) -> Result<(), Refused> {
        if let Some(until) = self.until.lock().expect("no panic").as_ref() {
            // The end of the other side is as good.
            let _ = until.recv();
        }
        if self.refuses { Err(Refused { reason: "not today".to_owned() }) } else { Ok(()) }
    }

    fn resolve(&self, name: &str, _: Option<&vmesskit::NetworkInfo>) -> Option<Result<Vec<IpAddr>, Refused>> {
        assert_eq!(name, "server.test");
        self.resolved.fetch_add(1, Relaxed);
        Some(Ok(vec![[127, 0, 0, 1].into()]))
    }
}

#[test]
fn the_host_is_asked() {
    let port = free_port();
    let theirs = server(port, "", "{}");
    let (web, _) = web(NO_CONTENT);
    let named = vmess("server.test", port);
    let willing = host(false, None);
    let all = measured(request(&[&named], web), Some(Arc::clone(&willing) as _)).expect("measured");
    assert!(all[0].is_ok(), "{all:?}");
    assert_eq!((willing.resolved.load(Relaxed), Arc::strong_count(&willing)), (1, 1), "asked, and released");
    let all = measured(request(&[&named, DIRECT], web), Some(host(true, None))).expect("measured");
    for result in all {
        let error = result.expect_err("refused");
        assert_eq!((error.kind, &*error.reason), (ErrorKind::ProtectFailed, "not today"));
    }
    stop(&theirs);
}

#[test]
fn a_stuck_callback_keeps_a_thread_but_not_the_answer() {
    let (free, stuck) = channel();
    let (web, _) = web(NO_CONTENT);
    let host = host(false, Some(stuck));
    let began = Instant::now();
    let all = measured(request(&[DIRECT], web), Some(Arc::clone(&host) as _)).expect("measured");
    assert_eq!(all[0].clone().map_err(|error| error.kind), Err(ErrorKind::ProtectFailed));
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
    assert!(Arc::strong_count(&host) > 1);
    drop(free);
    eventually("the release of the platform", || (Arc::strong_count(&host) == 1).then_some(()));
}

#[test]
fn many_are_measured_at_a_time_and_nothing_stays() {
    let (port, dead) = (free_port(), free_port());
    let theirs = server(port, "", "{}");
    let (web, asked) = web(NO_CONTENT);
    let (good, gone) = (vmess("127.0.0.1", port), vmess("127.0.0.1", dead));
    let round = || {
        let configs: Vec<&str> = (0..60).map(|n| if n % 3 == 0 { &*gone } else { &*good }).collect();
        let all =
            measured(MeasureRequest { parallel: 16, ..request(&configs, web) }, None).expect("measured");
        for (n, result) in all.iter().enumerate() {
            assert_eq!(result.is_err(), n % 3 == 0, "{n}: {result:?}");
        }
    };
    round();
    assert_eq!(asked.load(Relaxed), 40);
    // The server's own ends of the connections, and the web server's threads, go a little later.
    let settled = |(threads, fds): (usize, usize)| {
        eventually("the ends of what was measured", || {
            let now = threads_and_fds();
            (now.0 <= threads && now.1 <= fds).then_some(())
        });
    };
    thread::sleep(Duration::from_millis(300));
    let before = threads_and_fds();
    for _ in 0..3 {
        round();
    }
    settled(before);
    stop(&theirs);
}

#[test]
fn giving_the_answer_up_ends_the_measuring() {
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let config = vmess("127.0.0.1", silent.local_addr().expect("bound").port());
    let host = host(false, None);
    let mut asking = request(&[&*config; 8], 1);
    asking.timeout = Duration::from_secs(3600);
    let answer = measure(asking, Some(Arc::clone(&host) as _));
    let (client, _) = silent.accept().expect("dialled");
    assert!(answer.wait(Some(Duration::from_millis(50))).is_none());
    eventually("the release of the platform", || (Arc::strong_count(&host) == 1).then_some(()));
    drop(client);
}
