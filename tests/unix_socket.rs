//! VMess over Unix domain sockets: our two ends, V2Ray at either end, and the socket's file.

#[path = "common/socks_client.rs"]
#[allow(dead_code, reason = "each test file uses a part of the helpers")]
mod socks_client;
#[path = "common/transports.rs"]
#[allow(dead_code, reason = "each test file uses a part of the helpers")]
mod transports;
#[path = "common/v2ray.rs"]
mod v2ray;

use socks_client::*;
use std::io::Read;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};
use transports::{
    Issuer, MUX, client, client_config, client_tls, exercise_client, server_config, server_tls,
};
use v2ray::V2ray;
use vmesskit::{ErrorKind, NoPlatform, Options, Tunnel};

/// A folder for a test's sockets, removed with this value.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("vmesskit-ds-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a folder");
        Self(path)
    }

    fn socket(&self) -> PathBuf {
        self.0.join("vmess.sock")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The members of `streamSettings` that name a socket.
fn network(path: &str, more: &str) -> String {
    format!(r#""network": "domainsocket", "dsSettings": {{"path": "{path}"{more}}}"#)
}

fn text(path: &Path) -> String {
    path.to_str().expect("text").to_owned()
}

#[test]
fn our_two_ends_understand_each_other() {
    let folder = Folder::new("pair");
    let (path, name) = (text(&folder.socket()), format!("vmesskit-pair-{}", std::process::id()));
    for (path, more) in
        [(&path, ""), (&name, r#", "abstract": true"#), (&name, r#", "abstract": true, "padding": true"#)]
    {
        let stream = format!("{{{}}}", network(path, more));
        let theirs = start(&server_config(0, &stream));
        exercise_client(1, &stream);
        stop(&theirs);
    }
    assert!(!folder.socket().exists(), "the file goes with the server");
}

#[test]
fn tls_lies_above_the_socket() {
    let (folder, issuer) = (Folder::new("tls"), Issuer::new());
    let network = network(&text(&folder.socket()), "") + ",";
    let theirs = start(&server_config(0, &server_tls(&network, &issuer.issue(&["vpn.test"]), "")));
    exercise_client(1, &client_tls(&network, &issuer, r#", "serverName": "vpn.test""#));
    stop(&theirs);
}

#[test]
fn our_client_speaks_to_v2ray() {
    let (folder, issuer) = (Folder::new("ours"), Issuer::new());
    let name = format!("vmesskit-ours-{}", std::process::id());
    for (index, more) in
        ["", r#", "abstract": true"#, r#", "abstract": true, "padding": true"#].into_iter().enumerate()
    {
        let path = if more.is_empty() { text(&folder.socket()) } else { format!("{name}-{index}") };
        let network = network(&path, more) + ",";
        let (theirs, ours) = match index {
            // TLS once.
            0 => (
                server_tls(&network, &issuer.issue(&["vpn.test"]), ""),
                client_tls(&network, &issuer, r#", "serverName": "vpn.test""#),
            ),
            _ => {
                let stream = format!(r#"{{{network} "security": "none"}}"#);
                (stream.clone(), stream)
            }
        };
        // V2Ray wants a port, on which it does not listen: another inbound shows that it runs.
        let door = free_port();
        let beside =
            format!(r#""inbounds": [{{"protocol": "socks", "listen": "127.0.0.1", "port": {door}}},"#);
        let config = server_config(1, &theirs).replace(r#""inbounds": ["#, &beside);
        let Some(_v2ray) = V2ray::with_config(&config, door) else { return };
        exercise_client(1, &ours);
    }
}

#[test]
fn v2ray_speaks_to_our_server() {
    let folder = Folder::new("theirs");
    let name = format!("vmesskit-theirs-{}", std::process::id());
    for (index, more) in
        ["", r#", "abstract": true"#, r#", "abstract": true, "padding": true"#].into_iter().enumerate()
    {
        let path = if more.is_empty() { text(&folder.socket()) } else { format!("{name}-{index}") };
        let stream = format!("{{{}}}", network(&path, more));
        let ours = start(&server_config(0, &stream));
        for mux in ["", MUX] {
            let socks = free_port();
            let Some(_v2ray) = V2ray::with_config(&client_config(socks, 1, &stream, mux), socks) else {
                return;
            };
            exercise(socks, 5_000_000, mux.is_empty());
        }
        stop(&ours);
    }
}

#[test]
fn a_server_that_is_gone_is_an_error_at_once() {
    let folder = Folder::new("gone");
    let stream = format!("{{{}}}", network(&text(&folder.socket()), ""));
    let (ours, socks) = client(1, &stream, "");
    let started = Instant::now();
    refused(socks);
    let theirs = start(&server_config(0, &stream));
    exercise(socks, 5_000_000, true);
    stop(&theirs);
    refused(socks);
    assert!(started.elapsed() < Duration::from_secs(20));
    stop(&ours);
}

/// Opens a connection through a tunnel that cannot reach its server.
fn refused(socks: u16) {
    use std::io::Write;
    let mut app = connect(socks, "127.0.0.1", 9);
    app.write_all(b"hello").and_then(|()| app.read(&mut [0; 9])).expect_err("nobody listens");
}

#[test]
fn a_reload_keeps_the_socket_and_moves_it() {
    let folder = Folder::new("reload");
    let (first, second) = (folder.socket(), folder.0.join("other.sock"));
    let config = |path: &Path, tag: &str| {
        let stream = format!("{{{}}}", network(&text(path), ""));
        server_config(0, &stream).replace("door", tag)
    };
    let tunnel = start(&config(&first, "one"));
    let waiting = UnixStream::connect(&first).expect("it listens");
    let reload =
        |config: &str| tunnel.reload(config).wait(Some(PATIENCE)).expect("answered").expect("reloaded");
    reload(&config(&first, "two"));
    UnixStream::connect(&first).expect("it still listens");
    reload(&config(&second, "two"));
    let started = Instant::now();
    while first.exists() {
        assert!(started.elapsed() < PATIENCE, "the old file stays");
        sleep(Duration::from_millis(10));
    }
    UnixStream::connect(&second).expect("it listens");
    let another =
        Tunnel::new(&config(&second, "x"), Options::default(), Arc::new(NoPlatform)).expect("created");
    let error =
        another.start(None).wait(Some(PATIENCE)).expect("answered").expect_err("somebody listens there");
    assert_eq!(error.kind, ErrorKind::ResourceLimit { what: "listening socket" });
    assert_eq!(error.path, "inbounds[0].streamSettings.dsSettings.path");
    drop(waiting);
    stop(&tunnel);
    assert!(!second.exists());
}
