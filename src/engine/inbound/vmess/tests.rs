//! The inbound's parts by themselves.

use super::*;
use crate::config::{Config, DefaultUser, InboundProtocol, Level, Listen, VmessClient};
use crate::engine::tests::config;
use crate::vmess::{Command, Id};
use std::collections::BTreeMap;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::LocalSet;

fn client(byte: u8, alter_id: u16) -> VmessClient {
    let id = Id::from_bytes([byte; 16]);
    VmessClient { id, alter_id, level: 0, email: String::new(), no_termination_signal: false }
}

fn settings(clients: Vec<VmessClient>) -> VmessInbound {
    VmessInbound {
        listen: Listen { ip: [127, 0, 0, 1].into(), ports: (0, 0) },
        clients,
        default: DefaultUser::default(),
        detour: None,
        disable_insecure_encryption: false,
        allocate: None,
        stream: <_>::default(),
    }
}

fn inbound(settings: &VmessInbound) -> Inbound {
    Inbound { tag: "door".into(), protocol: InboundProtocol::Vmess(settings.clone()) }
}

fn with(settings: &VmessInbound) -> Config {
    Config { inbounds: vec![inbound(settings)], ..config() }
}

fn server(shard: &Rc<Shard>, settings: &VmessInbound) -> Rc<Server> {
    Server::new(shard, &inbound(settings), settings, Reception::new(&settings.stream).expect("bare"))
}

async fn on_a_shard(config: Config, test: impl AsyncFnOnce(Rc<Shard>)) {
    LocalSet::new().run_until(test(Shard::for_tests(config))).await;
}

#[tokio::test]
async fn what_every_connection_holds_for_ever_is_small() {
    let settings = settings(vec![]);
    on_a_shard(with(&settings), async |shard| {
        let server = server(&shard, &settings);
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let address = listener.local_addr().expect("address");
        let stream = TcpStream::connect(address).await.expect("connected");
        let serving = session::arrive(server, stream, address, Instant::now());
        assert!(size_of_val(&*serving) <= 384, "{} bytes", size_of_val(&*serving));
    })
    .await;
}

/// A header of the client that [`client`] makes.
fn hello(byte: u8, target: SocketAddr) -> Vec<u8> {
    use crate::vmess::client::{Request, connect};
    let key = Id::from_bytes([byte; 16]).cmd_key();
    let security = crate::vmess::Security::Aes128Gcm;
    let request = Request::new(Command::Tcp, target.into(), security, false, false, false);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    let connection =
        connect(&key, &request, now.as_secs() as i64, &mut crate::entropy::SeededEntropy::new(byte.into()));
    connection.expect("a legal request").header
}

#[tokio::test]
async fn strangers_crowd_no_user_out() {
    let settings = settings(vec![client(7, 0)]);
    on_a_shard(with(&settings), async |shard| {
        const SLOTS: usize = 20;
        shard.shared.descriptors.leave(SLOTS);
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let door = listener.local_addr().expect("address");
        let target = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let inbound = inbound(&settings);
        let _listening = listen(
            &shard,
            &inbound,
            &settings,
            Reception::new(&settings.stream).expect("bare"),
            [Waiting::Tcp(listener)],
        );
        let mut flood = Vec::new();
        for n in 0..5 * SLOTS {
            let stranger = TcpStream::connect(door).await.expect("it listens");
            // Silent, slow and refused ones alike.
            let sent = stranger.try_write(&[7; 50][..n % 3 * 25]);
            assert!(sent.is_ok());
            flood.push(stranger);
        }
        let mut user = TcpStream::connect(door).await.expect("it listens");
        user.write_all(&hello(7, target.local_addr().expect("address"))).await.expect("sent");
        let served = tokio::time::timeout(Duration::from_secs(5), target.accept()).await;
        let _served = served.expect("in time").expect("served");

        // Those who came first were ended first, and properly; the others wait on.
        let mut seen = Vec::new();
        for stranger in &mut flood {
            let read = tokio::time::timeout(Duration::from_millis(20), stranger.read(&mut [0; 1])).await;
            seen.push(match read {
                Ok(read) => {
                    assert_eq!(read.ok(), Some(0), "an end, no reset");
                    true
                }
                Err(_) => false,
            });
        }
        let ended = seen.iter().filter(|ended| **ended).count();
        assert!(seen.is_sorted_by_key(|ended| !ended), "oldest first: {seen:?}");
        assert!((SLOTS / 4..SLOTS).contains(&(flood.len() - ended)), "{ended} of {}", flood.len());
        // Without a flood nobody is hurried.
        drop(flood);
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!(shard.shared.strangers.load(std::sync::atomic::Ordering::Relaxed), 0);
        let mut alone = TcpStream::connect(door).await.expect("it listens");
        let waits = tokio::time::timeout(Duration::from_millis(200), alone.read(&mut [0; 1])).await;
        assert!(waits.is_err(), "no end before the deadline");
    })
    .await;
}

#[tokio::test]
async fn a_gate_outlives_a_reload_and_takes_its_users() {
    let before = settings(vec![client(1, 0)]);
    on_a_shard(with(&before), async |shard| {
        let gate = Arc::clone(&server(&shard, &before).gate);
        let secret = gate.drain_secret_millis();
        let after = settings(vec![client(1, 0), client(2, 0)]);
        shard.shared.gates.follow(&with(&after), &shard.shared.users);
        let again = server(&shard, &after);
        assert!(Arc::ptr_eq(&gate, &again.gate));
        assert_eq!((gate.users().len(), gate.drain_secret_millis()), (2, secret));
        assert!(shard.shared.gates.has("door") && !shard.shared.gates.has("other"));

        // Who came through the interface stays while the config's users are the same.
        let user = |byte| crate::vmess::gate::User {
            id: Id::from_bytes([byte; 16]),
            alter_id: 0,
            level: 0,
            email: "".into(),
            no_termination_signal: false,
        };
        gate.set_users(vec![user(1), user(2), user(3)]);
        shard.shared.gates.follow(&with(&after), &shard.shared.users);
        assert_eq!(server(&shard, &after).gate.users().len(), 3);

        shard.shared.gates.retain(&with(&after));
        assert!(shard.shared.gates.has("door"));
        shard.shared.gates.retain(&config());
        assert!(!shard.shared.gates.has("door"));
    })
    .await;
}

#[tokio::test]
async fn ports_share_the_memory_for_replays() {
    use crate::config::Allocate;
    let one = with(&settings(vec![client(1, 0)]));
    on_a_shard(one.clone(), async |shard| {
        let gates = &shard.shared.gates;
        let limits = |config| {
            let limits = gates.limits(config);
            (limits.replay_entries, limits.replay_per_user)
        };
        assert_eq!(limits(&one), (1 << 20, 1 << 18), "without a limit");
        gates.set_replay_bytes(16 << 20);
        assert_eq!(limits(&one), ((16 << 20) / 105, (16 << 20) / 105 / 4));
        let allocate = Some(Allocate { concurrency: 3, refresh: Duration::from_secs(300) });
        let changing = VmessInbound { allocate, ..settings(Vec::new()) };
        let mut seven = one.clone();
        seven.inbounds.extend(with(&changing).inbounds);
        assert_eq!(limits(&seven).0, (16 << 20) / 105 / 7, "one port, and three with three that follow");
        gates.set_replay_bytes(1);
        assert_eq!(limits(&seven).0, 1024, "some must be");
        gates.set_replay_bytes(usize::MAX);
        assert_eq!(limits(&one), (1 << 20, 1 << 18));
    })
    .await;
}

#[tokio::test]
async fn legacy_signatures_keep_up_with_the_time_and_nobody_ticks_without_any() {
    let legacy = settings(vec![client(1, 4)]);
    on_a_shard(with(&legacy), async |shard| {
        let gate = Arc::clone(&server(&shard, &legacy).gate);
        let due = gate.next_advance().expect("a legacy user");
        // The signatures of the next hour come with the clock.
        shard.clock.set_offset(3600);
        while gate.next_advance().is_some_and(|next| next < due + 3600) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        // Set back, it comes to the table at once too, and not when it has caught up.
        shard.clock.set_offset(0);
        while gate.next_advance().is_some_and(|next| next > due + 3000) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        gate.set_users(Vec::new());
        assert_eq!(gate.next_advance(), None);
    })
    .await;
}

#[tokio::test]
async fn a_clock_that_was_set_back_is_told_once() {
    let settings = settings(vec![]);
    on_a_shard(with(&settings), async |shard| {
        let server = server(&shard, &settings);
        let refusal = Refusal { clock_set_back: Some(3600), ..Refusal::default() };
        server.tell_refusal(Refusal::default());
        server.tell_refusal(refusal);
        server.tell_refusal(refusal);
        let next = || shard.shared.poll_event(0, || std::task::Waker::noop().clone());
        assert_eq!(next(), std::task::Poll::Ready(Some(Event::ClockSkew { seconds: -3600 })));
        assert_eq!(next(), std::task::Poll::Pending);
    })
    .await;
}

#[tokio::test]
async fn the_servers_secret_shortens_a_short_wait_by_little() {
    for seconds in [0, 1, 4, 60, 600] {
        let settings = settings(vec![]);
        let mut config = with(&settings);
        let handshake = Duration::from_secs(seconds);
        config.policy.server_levels = BTreeMap::from([(0, Level { handshake, ..Level::server() })]);
        on_a_shard(config, async |shard| {
            let server = server(&shard, &settings);
            let (patience, secret) = (server.patience(), server.gate.drain_secret_millis());
            let most = handshake.mul_f64(1.0 / 6.0).min(Duration::from_millis(secret));
            assert!(patience <= handshake && patience >= handshake - most, "{handshake:?}: {patience:?}");
        })
        .await;
    }
}
