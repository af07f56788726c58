//! Which connection a stream gets, and when connections end.

use super::*;
use crate::time::Moment;
use crate::transport::h2::driver::IDLE;
use tokio::time::{advance, sleep, timeout};

async fn ping(stream: &mut CarrierIo<Box<dyn Carrier>>) {
    stream.write_all(b"ping").await.expect("written");
    let mut got = [0; 4];
    stream.read_exact(&mut got).await.expect("echoed");
    assert_eq!(&got, b"ping");
}

#[tokio::test(start_paused = true)]
async fn streams_share_connections_up_to_a_bound() {
    on_shard(async |shard| {
        let (echoes, client) = (Echoes::new(&shard), Client::new(settings(), true));
        let dial = async || echoes.connect().await;
        let mut streams = Vec::new();
        for _ in 0..500 {
            streams.push(io(client.open(&shard, soon(), &dial).await.expect("open")));
        }
        for stream in &mut streams {
            ping(stream).await;
        }
        assert_eq!(echoes.made.get(), 3);
        streams.truncate(50);
        for _ in 0..50 {
            streams.push(io(client.open(&shard, soon(), &dial).await.expect("open")));
        }
        assert_eq!(echoes.made.get(), 3, "their places are taken again");
        while streams.len() < 32 * 200 {
            streams.push(io(client.open(&shard, soon(), &dial).await.expect("open")));
        }
        let full = client.open(&shard, soon(), &dial).await.err().expect("full");
        assert_eq!(full.error.kind, crate::error::ErrorKind::ResourceLimit { what: "streams" });
        assert_eq!(echoes.made.get(), 32);
        // One that ends meanwhile makes room for the one that waits.
        let ends = async {
            sleep(Duration::from_secs(1)).await;
            streams.pop();
        };
        let (waited, ()) = tokio::join!(client.open(&shard, soon(), &dial), ends);
        ping(&mut io(waited.expect("open"))).await;
    })
    .await;
}

/// A service whose streams end as those of a protocol do that knows its own end: the carrier's is not waited for.
async fn answer(mut stream: CarrierIo<Box<dyn Carrier>>) {
    let mut got = [0; 4];
    stream.read_exact(&mut got).await.expect("asked");
    stream.write_all(&got).await.expect("answered");
    stream.shutdown().await.expect("ended");
}

#[tokio::test]
async fn a_connection_outlives_thousands_of_streams_whose_ends_nobody_waits_for() {
    on_shard(async |shard| {
        let client = Client::new(settings(), true);
        let made = Cell::new(0);
        let dial = async || {
            made.set(made.get() + 1);
            let (ours, theirs) = duplex();
            let serving = Rc::clone(&shard);
            shard.spawn(async move {
                let accept = |carrier| drop(tokio::task::spawn_local(answer(io(carrier))));
                let _ = to_end(serve(&serving, theirs, &settings(), soon()).await, accept).await;
            });
            let ours: Box<dyn Carrier> = Box::new(ours);
            Ok(ours)
        };
        for _ in 0..3000 {
            let mut stream = io(client.open(&shard, soon(), &dial).await.expect("open"));
            ping(&mut stream).await;
            stream.shutdown().await.expect("ended");
        }
        assert_eq!(made.get(), 1);
        while !client.is_clean() {
            sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_never_ends_a_stream_is_not_waited_for() {
    on_shard(async |shard| {
        let client = Client::new(settings(), true);
        let (ours, theirs) = duplex();
        let held = RefCell::new(Vec::new());
        let serving = async {
            let served = serve(&shard, theirs, &settings(), soon()).await;
            let _ = to_end(served, |carrier| held.borrow_mut().push(carrier)).await;
        };
        let using = async {
            let ours = RefCell::new(Some(Box::new(ours) as Box<dyn Carrier>));
            let once = async || Ok(ours.take().expect("dialled once"));
            for _ in 0..150 {
                let mut stream = io(client.open(&shard, soon(), &once).await.expect("open"));
                stream.write_all(b"ping").await.expect("written");
                while held.borrow().is_empty() {
                    sleep(Duration::from_millis(1)).await;
                }
                // The head of the answer has come, and its end never does.
                let (mut theirs, mut got) = (held.borrow_mut().pop().expect("accepted"), [0; 4]);
                poll_fn(|cx| theirs.poll_write(cx, &[IoSlice::new(b"pong")])).await.expect("written");
                stream.read_exact(&mut got).await.expect("answered");
                stream.shutdown().await.expect("ended");
                std::mem::forget(theirs);
            }
            assert!(!client.is_clean());
            sleep(Duration::from_secs(3)).await;
            assert!(client.is_clean());
        };
        tokio::select! { () = serving => panic!("it ended"), () = using => {} }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn those_who_come_together_wait_for_one_dial_and_share_its_failure() {
    on_shard(async |shard| {
        let (echoes, client) = (Echoes::new(&shard), Client::new(settings(), true));
        let fails = Cell::new(true);
        let dials = Cell::new(0);
        let dial = async || {
            dials.set(dials.get() + 1);
            sleep(Duration::from_millis(20)).await;
            if fails.get() {
                let refused = io::ErrorKind::ConnectionRefused;
                return Err(DialError::new(crate::error::Stage::Connect, refused, Instant::now(), "refused"));
            }
            echoes.connect().await
        };
        let open = || client.open(&shard, soon(), &dial);
        let (a, b, c) = tokio::join!(open(), open(), open());
        assert_eq!(dials.get(), 1);
        for failed in [a, b, c] {
            assert_eq!(failed.err().expect("refused").kind, io::ErrorKind::ConnectionRefused);
        }
        fails.set(false);
        // Who dials gives up: the next one takes over.
        let (given_up, b) = tokio::join!(timeout(Duration::from_millis(5), open()), open());
        assert!(given_up.is_err());
        ping(&mut io(b.expect("open"))).await;
        assert_eq!(dials.get(), 3);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_closes_exactly_when_it_is_due() {
    on_shard(async |shard| {
        let (echoes, client) = (Echoes::new(&shard), Client::new(settings(), true));
        let dial = async || echoes.connect().await;
        let mut stream = io(client.open(&shard, soon(), &dial).await.expect("open"));
        ping(&mut stream).await;
        let end = echoes.ends.borrow_mut().remove(0);
        advance(IDLE * 10).await;
        ping(&mut stream).await;
        assert!(!end.is_finished(), "a stream is open");
        drop(stream);
        let idle = Instant::now();
        end.await.expect("served");
        assert!(idle.elapsed() >= IDLE && idle.elapsed() < IDLE + Duration::from_secs(1));
        ping(&mut io(client.open(&shard, soon(), &dial).await.expect("open"))).await;
        assert_eq!(echoes.made.get(), 2);
    })
    .await;
}

#[tokio::test]
async fn a_new_network_gets_new_connections_and_old_streams_live_on() {
    on_shard(async |shard| {
        let (echoes, client) = (Echoes::new(&shard), Client::new(settings(), true));
        let dial = async || echoes.connect().await;
        let mut old = io(client.open(&shard, soon(), &dial).await.expect("open"));
        ping(&mut old).await;
        client.network_changed();
        let mut new = io(client.open(&shard, soon(), &dial).await.expect("open"));
        ping(&mut new).await;
        ping(&mut old).await;
        assert_eq!(echoes.made.get(), 2);
        let end = echoes.ends.borrow_mut().remove(0);
        drop(old);
        end.await.expect("closed with its last stream");
        drop(new);
        client.network_changed();
        let end = echoes.ends.borrow_mut().remove(0);
        end.await.expect("closed at once");
    })
    .await;
}

#[tokio::test]
async fn a_dropped_client_closes_its_connections() {
    on_shard(async |shard| {
        let (echoes, client) = (Echoes::new(&shard), Client::new(settings(), true));
        let dial = async || echoes.connect().await;
        drop(client.open(&shard, soon(), &dial).await.expect("open"));
        drop(client);
        let end = echoes.ends.borrow_mut().remove(0);
        end.await.expect("closed");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_stale_connection_is_asked_first_and_replaced_if_it_is_dead() {
    on_shard(async |shard| {
        let (echoes, client) = (Echoes::new(&shard), Client::new(settings(), true));
        let dial = async || echoes.connect().await;
        ping(&mut io(client.open(&shard, soon(), &dial).await.expect("open"))).await;
        let age = || {
            client.pool.each_link(|link| link.hub.pulse.last.set(Moment::ZERO));
        };
        age();
        ping(&mut io(client.open(&shard, soon(), &dial).await.expect("open"))).await;
        assert_eq!(echoes.made.get(), 1, "it has answered");
        // The server's end is frozen: nothing is read or answered there any more.
        let (held, silent) = (client.open(&shard, soon(), &dial).await.expect("open"), {
            echoes.ends.borrow().iter().for_each(tokio::task::JoinHandle::abort);
            sleep(Duration::from_millis(1)).await;
            client.network_changed();
            let silent = async || {
                let (ours, theirs) = duplex();
                std::mem::forget(theirs);
                let ours: Box<dyn Carrier> = Box::new(ours);
                Ok(ours)
            };
            client
                .open(&shard, Instant::now() + Duration::from_secs(60), &silent)
                .await
                .expect("not asked yet")
        });
        age();
        let started = Instant::now();
        let mut fresh = io(client.open(&shard, soon(), &dial).await.expect("open"));
        assert!(started.elapsed() < Duration::from_secs(4));
        ping(&mut fresh).await;
        let mut silent = silent;
        let (error, _) = failed_read(&mut silent).await;
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        drop(held);
    })
    .await;
}
