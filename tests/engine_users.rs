//! The users of a running server, as a host sees and changes them.

#[path = "common/engine.rs"]
mod engine;

use engine::{LONG, free_address, tunnel};
use std::thread;
use vmesskit::error::ErrorKind;
use vmesskit::{NewUser, Tunnel};

fn config(port: u16, outbound: &str) -> String {
    format!(
        r#"{{"inbounds": [{{"protocol": "vmess", "tag": "server", "listen": "127.0.0.1", "port": {port}, "settings": {{
                "clients": [{{"id": "b831381d-6324-4d53-ad4f-8cda48b30811", "level": 2, "email": "Ann"}}]}}}}],
             "outbounds": [{{"protocol": "{outbound}"}}]}}"#
    )
}

fn user(name: &str) -> NewUser {
    NewUser { id: name.into(), email: name.into(), ..NewUser::default() }
}

fn emails(tunnel: &Tunnel) -> Vec<String> {
    let users = tunnel.users("server").expect("an inbound");
    users.into_iter().map(|user| user.email).collect()
}

#[test]
fn users_of_the_config_and_added_ones_are_alike() {
    let port = free_address().port();
    let tunnel = tunnel(&config(port, "freedom"));
    tunnel.start(None).wait(Some(LONG)).expect("answered").expect("started");
    assert_eq!(tunnel.users("server").expect("an inbound")[0].level, 2);
    tunnel.add_user("server", &user("ben")).expect("a new user");
    assert_eq!(emails(&tunnel), ["Ann", "ben"]);
    let error = tunnel.add_user("server", &user("ANN")).expect_err("an e-mail that is taken");
    assert_eq!((error.kind, error.path.as_str()), (ErrorKind::ConfigInvalid, "email"));
    let reload = tunnel.reload(&config(port, "blackhole")).wait(Some(LONG)).expect("answered");
    reload.expect("reloaded");
    assert_eq!(emails(&tunnel), ["Ann", "ben"], "the inbound has not changed");
    assert_eq!(tunnel.remove_user("server", "ann"), Ok(true));
    assert_eq!(emails(&tunnel), ["ben"]);
    tunnel.stop(LONG).wait(None).expect("answered").expect("stopped");
}

#[test]
fn several_threads_change_users_at_once() {
    let tunnel = tunnel(&config(free_address().port(), "freedom"));
    tunnel.start(None).wait(Some(LONG)).expect("answered").expect("started");
    thread::scope(|scope| {
        for thread in 0..4 {
            let tunnel = &tunnel;
            scope.spawn(move || {
                for index in 0..10 {
                    let name = format!("{thread}-{index}");
                    tunnel.add_user("server", &user(&name)).expect("a new user");
                    if index % 2 == 0 {
                        assert_eq!(tunnel.remove_user("server", &name), Ok(true));
                    }
                }
            });
        }
    });
    assert_eq!(emails(&tunnel).len(), 1 + 4 * 5);
    tunnel.stop(LONG).wait(None).expect("answered").expect("stopped");
}

#[test]
fn inbounds_whose_users_cannot_be_changed_say_so() {
    let (main, other) = (free_address().port(), free_address().port());
    let first = free_address().port().min(65_000);
    let tunnel = tunnel(&format!(
        r#"{{"inbounds": [
             {{"protocol": "vmess", "tag": "main", "listen": "127.0.0.1", "port": {main},
               "settings": {{"clients": [], "detour": {{"to": "changing"}}}}}},
             {{"protocol": "vmess", "listen": "127.0.0.1", "port": {other}, "settings": {{"clients": []}}}},
             {{"protocol": "vmess", "tag": "changing", "listen": "127.0.0.1", "port": "{first}-{}",
               "allocate": {{"strategy": "random", "concurrency": 2}}, "settings": {{}}}}],
           "outbounds": [{{"protocol": "freedom"}}]}}"#,
        first + 20
    ));
    tunnel.start(None).wait(Some(LONG)).expect("answered").expect("started");
    for (tag, hint) in [("changing", "detour"), ("", "needs one"), ("other", "needs one")] {
        let error = tunnel.add_user(tag, &user("ben")).expect_err("refused");
        assert!(error.kind == ErrorKind::Misuse && error.hint.contains(hint), "[{tag}]: {error:?}");
        assert!(tunnel.users(tag).is_err() && tunnel.remove_user(tag, "ben").is_err());
    }
    tunnel.add_user("main", &user("ben")).expect("a new user");
    tunnel.stop(LONG).wait(None).expect("answered").expect("stopped");
}
