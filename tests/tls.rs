//! TLS below VMess: our client before our server, V2Ray at either end, and `openssl s_client` before our server.

#[path = "common/socks_client.rs"]
#[allow(dead_code, reason = "each test file uses a part of the helpers")]
mod socks_client;
#[path = "common/transports.rs"]
#[allow(dead_code, reason = "each test file uses a part of the helpers")]
mod transports;
#[path = "common/v2ray.rs"]
mod v2ray;

use socks_client::*;
use std::ffi::OsStr;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use transports::{Issuer, MUX, client, client_config, client_tls, server, server_config, server_tls};
use v2ray::V2ray;
use vmesskit::{Error, ErrorKind, NoPlatform, Options, Stage, Tunnel};

#[test]
fn our_two_ends_understand_each_other() {
    let issuer = Issuer::new();
    let (theirs, port) = server(&server_tls("", &issuer.issue(&["127.0.0.1", "vpn.test"]), ""));
    for tls in ["", r#", "serverName": "vpn.test", "enableSessionResumption": false"#] {
        let (ours, socks) = client(port, &client_tls("", &issuer, tls), "");
        exercise(socks, 5_000_000, true);
        stop(&ours);
    }
    let (ours, socks) = client(port, &client_tls("", &issuer, r#", "serverName": "vpn.test""#), MUX);
    let echo = tcp_echo().port();
    let open: Vec<_> =
        (1..5).map(|seed| exchange_open(connect(socks, "127.0.0.1", echo), 1_000_000, seed)).collect();
    drop(open);
    stop(&ours);
    stop(&theirs);
}

#[test]
fn our_client_speaks_to_v2ray() {
    let (issuer, port) = (Issuer::new(), free_port());
    let stream = server_tls("", &issuer.issue(&["vpn.test"]), "");
    let Some(_theirs) = V2ray::with_config(&server_config(port, &stream), port) else { return };
    let (ours, socks) = client(port, &client_tls("", &issuer, r#", "serverName": "vpn.test""#), "");
    exercise(socks, 5_000_000, true);
    stop(&ours);
}

#[test]
fn v2ray_speaks_to_our_server() {
    let (issuer, socks) = (Issuer::new(), free_port());
    let (ours, port) = server(&server_tls("", &issuer.issue(&["vpn.test"]), ""));
    let stream = client_tls("", &issuer, r#", "serverName": "vpn.test""#);
    let Some(_theirs) = V2ray::with_config(&client_config(socks, port, &stream, ""), socks) else { return };
    exercise(socks, 5_000_000, true);
    stop(&ours);
}

/// Runs `openssl s_client` against a port and gives back all it says.
fn openssl(port: u16, more: &[&str]) -> Option<String> {
    let address = format!("127.0.0.1:{port}");
    let spawned = Command::new("openssl")
        .args(["s_client", "-connect", &address, "-servername", "vpn.test"])
        .args(more)
        .stdin(Stdio::null())
        .output();
    let output = spawned.ok()?;
    Some(String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
}

#[test]
fn openssl_gets_every_version_cipher_and_protocol() {
    let issuer = Issuer::new();
    let (ours, port) = server(&server_tls("", &issuer.issue(&["vpn.test"]), ""));
    let cases: [(&[&str], &[&str]); 8] = [
        (&["-tls1_3", "-ciphersuites", "TLS_AES_128_GCM_SHA256"], &["TLSv1.3", "TLS_AES_128_GCM_SHA256"]),
        (&["-tls1_3", "-ciphersuites", "TLS_AES_256_GCM_SHA384"], &["TLS_AES_256_GCM_SHA384"]),
        (&["-tls1_3", "-ciphersuites", "TLS_CHACHA20_POLY1305_SHA256"], &["TLS_CHACHA20_POLY1305_SHA256"]),
        (
            &["-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-GCM-SHA256"],
            &["TLSv1.2", "ECDHE-ECDSA-AES128-GCM-SHA256"],
        ),
        (&["-tls1_2", "-cipher", "ECDHE-ECDSA-CHACHA20-POLY1305"], &["ECDHE-ECDSA-CHACHA20-POLY1305"]),
        (&["-alpn", "h2,http/1.1"], &["ALPN protocol: h2"]),
        (&["-alpn", "http/1.1"], &["CONNECTED", "Verify return code"]),
        (&["-alpn", "smtp"], &["no application protocol"]),
    ];
    for (args, expected) in cases {
        let Some(said) = openssl(port, args) else { return };
        let said_small = said.to_lowercase();
        for word in expected {
            assert!(said_small.contains(&word.to_lowercase()), "{args:?}: no {word:?} in\n{said}");
        }
    }
    stop(&ours);
}

#[test]
fn a_stranger_to_tls_gets_an_alert_and_one_to_vmess_gets_silence() {
    let issuer = Issuer::new();
    let (ours, port) = server(&server_tls("", &issuer.issue(&["vpn.test"]), ""));
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("connected");
    stream.write_all(b"GET / HTTP/1.1\r\nHost: vpn.test\r\n\r\n").expect("sent");
    stream.set_read_timeout(Some(PATIENCE)).expect("an option");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("an end, and no reset");
    assert!(matches!(*answer, [21, 3, _, 0, 2, 2, _]), "{answer:?}");
    stop(&ours);
}

/// What a check says of a client whose settings are these, before a server whose certificate is that.
fn check(theirs: &str, ours: &str) -> Result<(), Error> {
    let (server, port) = server(theirs);
    let (client, _) = client(port, ours, "");
    let checked = client.check(PATIENCE).wait(Some(PATIENCE)).expect("in time");
    stop(&client);
    stop(&server);
    checked.map(|_| ())
}

/// Whether the handshake went through: whatever came then was no failure of TLS.
fn is_through(checked: &Result<(), Error>) -> bool {
    checked.as_ref().map_or_else(|error| error.kind != ErrorKind::TlsFailed, |()| true)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn what_is_wrong_with_a_certificate_is_said_in_words() {
    let (issuer, other) = (Issuer::new(), Issuer::new());
    let asks = r#", "serverName": "vpn.test""#;
    let good = server_tls("", &issuer.issue(&["vpn.test"]), "");
    let expired = server_tls("", &issuer.issue_until(&["vpn.test"], 2020), "");
    let elsewhere = server_tls("", &issuer.issue(&["other.test"]), "");
    let strict = server_tls("", &issuer.issue(&["other.test"]), r#", "rejectUnknownSni": true"#);
    let smtp = format!(r#"{asks}, "alpn": ["smtp"]"#);
    let cases = [
        (&expired, client_tls("", &issuer, asks), "has expired"),
        (&elsewhere, client_tls("", &issuer, asks), "for another name"),
        (&good, client_tls("", &issuer, ""), "for another name"),
        (&good, client_tls("", &other, asks), "issuer that is not trusted"),
        (&good, client_tls("", &issuer, &smtp), "no_application_protocol"),
        (&strict, client_tls("", &issuer, asks), "access_denied"),
    ];
    for (theirs, ours, words) in cases {
        let error = check(theirs, &ours).expect_err(words);
        assert_eq!(error.kind, ErrorKind::TlsFailed, "{error}");
        assert!(error.reason.contains(words), "{words}: {error:?}");
        assert!(error.text.contains("TLS handshake failed (after 0."), "{error:?}");
        assert!(!format!("{error:?}").contains(".test"), "a name in {error:?}");
    }
}

#[test]
fn pins_and_allow_insecure_take_the_place_of_issuers_as_they_say() {
    let (issuer, other) = (Issuer::new(), Issuer::new());
    let own = issuer.issue(&["other.test"]);
    let sha = |bytes: &[u8]| ring::digest::digest(&ring::digest::SHA256, bytes).as_ref().to_vec();
    let chain = sha(&[sha(&own.der), sha(&issuer.der())].concat());
    let base64 = |bytes: &[u8]| base64::Engine::encode(&base64::engine::general_purpose::STANDARD, bytes);
    let theirs = server_tls("", &own, "");
    let tls = |settings: String| format!(r#"{{"security": "tls", "tlsSettings": {{{settings}}}}}"#);
    let pinned = |bytes: &[u8]| tls(format!(r#""pinnedPeerCertSha256": "{}""#, hex(&sha(bytes))));
    let chained = |more: &str| {
        tls(format!(
            r#""pinnedPeerCertificateChainSha256": ["{}"], "serverName": "vpn.test"{more}"#,
            base64(&chain)
        ))
    };
    let cases = [
        (tls(r#""allowInsecure": true"#.into()), ""),
        (pinned(&own.der), ""),
        (pinned(&other.der()), "none of those that are pinned"),
        // A pinned issuer is trusted, but for its names alone.
        (pinned(&issuer.der()), "for another name"),
        (chained(""), "issuer that is not trusted"),
        (chained(r#", "allowInsecureIfPinnedPeerCertificate": true"#), ""),
    ];
    for (ours, words) in cases {
        let checked = check(&theirs, &ours);
        match checked {
            _ if words.is_empty() => assert!(is_through(&checked), "{ours}: {checked:?}"),
            Ok(()) => panic!("{ours}: it went through"),
            Err(error) => assert!(error.reason.contains(words), "{words}: {error:?}"),
        }
    }
}

#[test]
fn servers_that_do_not_speak_tls_are_told_apart() {
    use std::net::TcpListener;
    let issuer = Issuer::new();
    let ours = client_tls("", &issuer, r#", "serverName": "vpn.test""#);
    for (answer, kind, words) in [
        (&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..], ErrorKind::TlsFailed, "does not speak TLS"),
        (b"", ErrorKind::ServerUnreachable { stage: Stage::Tls }, "closed the connection"),
        (&[21, 3, 3, 0, 2, 2, 40], ErrorKind::TlsFailed, "alert handshake_failure"),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        let port = listener.local_addr().expect("address").port();
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let _ = stream.read(&mut [0; 4096]);
                let _ = stream.write_all(answer);
            }
        });
        let (client, _) = client(port, &ours, "");
        let error = client.check(PATIENCE).wait(Some(PATIENCE)).expect("in time").expect_err(words);
        assert_eq!(error.kind, kind, "{error:?}");
        assert!(error.reason.contains(words), "{error:?}");
        stop(&client);
    }
}

#[test]
fn files_that_cannot_be_used_are_named_with_their_path_at_the_start() {
    let port = free_port();
    let stream = r#"{"security": "tls", "tlsSettings": {"certificates": [
        {"certificateFile": "/nowhere/a.pem", "keyFile": "/nowhere/a.key"}]}}"#;
    let tunnel = Tunnel::new(&server_config(port, stream), Options::default(), Arc::new(NoPlatform));
    let started = tunnel.expect("a good config").start(None).wait(Some(PATIENCE)).expect("in time");
    let error = started.expect_err("no file");
    let path = "inbounds[0].streamSettings.tlsSettings.certificates[0].certificateFile";
    assert_eq!((error.kind, error.path.as_str()), (ErrorKind::ConfigInvalid, path), "{error}");
}

/// OpenSSL's server and its port; `None` where there is no such program. Another test may take the port before it does.
fn openssl_listens(chain: &Path, key: &Path) -> Option<(u16, Child)> {
    for _ in 0..5 {
        let port = free_port();
        let mut openssl = Command::new("openssl")
            .args(["s_server", "-quiet", "-msg", "-early_data", "-no_anti_replay"])
            // On this address alone: on others connections of other tests linger.
            .args(["-accept", &format!("127.0.0.1:{port}")])
            .args([OsStr::new("-cert"), chain.as_os_str(), OsStr::new("-key"), key.as_os_str()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .ok()?;
        let started = std::time::Instant::now();
        while openssl.try_wait().expect("a child").is_none() {
            if TcpStream::connect(("127.0.0.1", port)).is_ok() {
                return Some((port, openssl));
            }
            assert!(started.elapsed() < PATIENCE, "openssl listens");
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }
    panic!("openssl finds no port");
}

#[test]
fn sessions_are_resumed_with_openssl_and_nothing_is_sent_early() {
    let issuer = Issuer::new();
    let own = issuer.issue(&["vpn.test"]);
    let files = std::env::temp_dir().join(format!("vmesskit-tls-{}", std::process::id()));
    std::fs::create_dir_all(&files).expect("a directory");
    let (chain, key) = (files.join("chain.pem"), files.join("key.pem"));
    std::fs::write(&chain, &own.chain).expect("written");
    std::fs::write(&key, &own.key).expect("written");
    // It offers to take early data, by tickets that stand any end of a connection.
    let Some((port, mut openssl)) = openssl_listens(&chain, &key) else { return };
    let mut said = openssl.stdout.take().expect("piped");
    let log = std::thread::spawn(move || {
        let mut log = Vec::new();
        let _ = said.read_to_end(&mut log);
        String::from_utf8_lossy(&log).into_owned()
    });
    let (ours, _) = client(port, &client_tls("", &issuer, r#", "serverName": "vpn.test""#), "");
    for _ in 0..2 {
        // It is no VMess server, and says nothing.
        let limit = std::time::Duration::from_millis(700);
        let error = ours.check(limit).wait(Some(PATIENCE)).expect("in time").expect_err("no answer");
        assert_eq!(error.kind, ErrorKind::Timeout { what: "check" }, "{error:?}");
    }
    stop(&ours);
    openssl.kill().expect("killed");
    openssl.wait().expect("gone");
    let log = log.join().expect("read");
    let _ = std::fs::remove_dir_all(&files);
    let certificates = log.matches(", Certificate\n").count();
    let hellos = log.matches("ClientHello").count();
    assert!(hellos >= 2 && certificates == 1, "{hellos} hellos, {certificates} certificates\n{log}");
    assert!(!log.contains("EndOfEarlyData"), "{log}");
}

#[test]
fn a_stream_that_is_cut_without_a_word_is_no_end_for_the_app() {
    let issuer = Issuer::new();
    let (theirs, port) = server(&server_tls("", &issuer.issue(&["vpn.test"]), ""));
    // On the way to the server there is somebody who ends connections in the middle, as if that were all.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
    let between = listener.local_addr().expect("address").port();
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let server = TcpStream::connect(("127.0.0.1", port)).expect("connected");
            let (mut up, mut down) =
                (client.try_clone().expect("a copy"), server.try_clone().expect("a copy"));
            let (mut to_server, mut to_client) = (server, client);
            std::thread::spawn(move || std::io::copy(&mut up, &mut to_server));
            std::thread::spawn(move || {
                let _ = std::io::copy(&mut (&mut down).take(300_000), &mut to_client);
                let _ = to_client.shutdown(std::net::Shutdown::Write);
                // Until the other end has had its say.
                let _ = std::io::copy(&mut down, &mut std::io::sink());
            });
        }
    });
    let source = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
    let target = source.local_addr().expect("address").port();
    std::thread::spawn(move || {
        for mut stream in source.incoming().flatten() {
            let _ = stream.write_all(&[7; 4_000_000]);
        }
    });
    let (ours, socks) = client(between, &client_tls("", &issuer, r#", "serverName": "vpn.test""#), "");
    let mut app = connect(socks, "127.0.0.1", target);
    app.set_read_timeout(Some(PATIENCE)).expect("an option");
    let mut got = Vec::new();
    let error = app.read_to_end(&mut got).expect_err("it was cut off");
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "after {} bytes", got.len());
    assert!(got.len() < 300_000 && got.iter().all(|byte| *byte == 7));
    stop(&ours);
    stop(&theirs);
}
