//! Accounts and ports as they are handed out; how ports change is tested where they are opened.

use super::*;
use crate::config::{Allocate, Inbound, Listen};
use crate::engine::Shard;
use crate::engine::tests::config as plain;
use crate::entropy::SeededEntropy;
use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;
use tokio::task::LocalSet;

fn client(email: &str) -> VmessClient {
    VmessClient {
        id: Id::from_bytes([email.len() as u8; 16]),
        alter_id: 0,
        level: 0,
        email: email.into(),
        no_termination_signal: false,
    }
}

fn settings(ports: (u16, u16), emails: &[&str]) -> VmessInbound {
    VmessInbound {
        listen: Listen { ip: [127, 0, 0, 1].into(), ports },
        clients: emails.iter().map(|email| client(email)).collect(),
        default: DefaultUser { alter_id: 4, level: 2 },
        detour: None,
        disable_insecure_encryption: false,
        allocate: None,
        stream: <_>::default(),
    }
}

fn config() -> Config {
    let main = VmessInbound { detour: Some("next".into()), ..settings((1, 1), &["A@x", "b@x", ""]) };
    let allocate = Some(Allocate { concurrency: 1, refresh: Duration::from_secs(300) });
    let next = VmessInbound { allocate, ..settings((1000, 1009), &["B@X"]) };
    let inbound =
        |tag: &str, settings| Inbound { tag: tag.into(), protocol: InboundProtocol::Vmess(settings) };
    Config { inbounds: vec![inbound("main", main), inbound("next", next)], ..plain() }
}

fn offered(shard: &Rc<Shard>, settings: &VmessInbound, next: Option<Instant>) -> Arc<SharedGate> {
    let gate = shard.shared.gates.open(shard, &"next".into(), settings);
    let door = Door::new(settings.listen.ports, Arc::clone(&gate));
    shard.shared.offers.put(&"next".into(), settings.default, next, vec![door]);
    gate
}

fn asked(shard: &Rc<Shard>, tag: &str, email: &str) -> Option<SwitchAccount> {
    shard.with_entropy(|entropy| shard.shared.offers.hand_out(&shard.shared, tag, email, entropy))
}

/// What a user is told, at the latest once its account has been made.
async fn told(shard: &Rc<Shard>, email: &str) -> SwitchAccount {
    for _ in 0..1000 {
        if let Some(account) = asked(shard, "next", email) {
            return account;
        }
        // Time on another thread: the clock here may stand still.
        spawn_blocking(|| std::thread::sleep(Duration::from_millis(5))).await.expect("no panic");
    }
    panic!("nothing is handed out");
}

#[tokio::test]
async fn a_user_gets_its_own_account_and_one_of_the_ports() {
    LocalSet::new()
        .run_until(async {
            let shard = Shard::for_tests(config());
            let settings = settings((1000, 1003), &["b@x"]);
            let gate = offered(&shard, &settings, None);
            let known = told(&shard, "B@x").await;
            assert_eq!((known.id, known.alter_ids, known.level), (client("b@x").id, 0, 0), "the config's");
            let ports: BTreeSet<u16> =
                (0..200).filter_map(|_| asked(&shard, "next", "b@x")).map(|account| account.port).collect();
            assert_eq!(ports, BTreeSet::from([1000, 1001, 1002, 1003]));

            // Its legacy signatures are not computed on the thread that serves.
            assert_eq!(asked(&shard, "next", "C@x"), None);
            let new = told(&shard, "C@x").await;
            assert_eq!((new.alter_ids, new.level, new.valid_minutes), (4, 2, 255), "the default's");
            assert_eq!(told(&shard, "c@X").await.id, new.id, "made once");
            assert_ne!(told(&shard, "").await.id, new.id);
            assert_eq!(gate.users().len(), 3);
            gate.set_users(Vec::new());
            assert_ne!(told(&shard, "c@x").await.id, new.id, "it was taken away meanwhile");
            assert_eq!(asked(&shard, "other", "b@x"), None);
            shard.shared.offers.retain(&plain());
            assert_eq!(asked(&shard, "next", "b@x"), None);
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn minutes_run_out_with_the_ports() {
    LocalSet::new()
        .run_until(async {
            let shard = Shard::for_tests(config());
            let next = Instant::now() + Duration::from_secs(300);
            offered(&shard, &settings((1000, 1003), &[]), Some(next));
            let mut minutes = Vec::new();
            for _ in 0..6 {
                minutes.push(told(&shard, "b@x").await.valid_minutes);
                tokio::time::advance(Duration::from_secs(59)).await;
            }
            assert_eq!(minutes, [5, 5, 4, 3, 2, 1], "one that has begun counts");
        })
        .await;
}

#[test]
fn a_port_begins_with_an_account_for_everybody_who_will_be_told_of_it() {
    let (config, mut entropy) = (config(), SeededEntropy::new(3));
    let InboundProtocol::Vmess(next) = &config.inbounds[1].protocol else { panic!("a server") };
    let made = accounts(&config, "next", next, &mut entropy);
    let emails: Vec<&str> = made.iter().map(|client| &*client.email).collect();
    assert_eq!(emails, ["B@X", "a@x", ""], "the config's own first, and nobody twice");
    assert_eq!((made[1].alter_id, made[1].level), (4, 2));
    assert_ne!(made[1].id, made[2].id);
    assert!(is_offered(&config, "next") && !is_offered(&config, "main") && !is_offered(&config, ""));
}
