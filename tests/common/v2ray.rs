//! A V2Ray process of its own for a test.

use std::io::Write;
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// The user that every test's server knows.
pub(crate) const ID: &str = "b831381d-6324-4d53-ad4f-8cda48b30811";

/// A V2Ray process. It ends with this value.
pub(crate) struct V2ray(Child);

impl V2ray {
    /// Starts `v2ray` (or the program that the variable `V2RAY` names) as a VMess server on a port of loopback, with a
    /// freedom outbound, and waits until it listens. `None` where no V2Ray is installed.
    #[allow(dead_code, reason = "each test file uses a part of the helpers")]
    pub(crate) fn server(port: u16) -> Option<Self> {
        let config = format!(
            r#"{{
              "log": {{"loglevel": "none"}},
              "inbounds": [{{"protocol": "vmess", "listen": "127.0.0.1", "port": {port},
                             "settings": {{"clients": [{{"id": "{ID}", "alterId": 0}}]}}}}],
              "outbounds": [{{"protocol": "freedom"}}]
            }}"#
        );
        Self::with_config(&config, port)
    }

    /// The same as a client: a SOCKS inbound with UDP, before a VMess outbound to `server`; `user` is what the user's
    /// settings say besides the id.
    #[allow(dead_code, reason = "each test file uses a part of the helpers")]
    pub(crate) fn client(port: u16, server: u16, user: &str) -> Option<Self> {
        let config = format!(
            r#"{{
              "log": {{"loglevel": "none"}},
              "inbounds": [{{"protocol": "socks", "listen": "127.0.0.1", "port": {port}, "settings": {{"udp": true}}}}],
              "outbounds": [{{"protocol": "vmess", "settings": {{"vnext": [{{"address": "127.0.0.1", "port": {server},
                "users": [{{"id": "{ID}", {user}}}]}}]}}}}]
            }}"#
        );
        Self::with_config(&config, port)
    }

    /// The same with a config of the test's own that listens on `port`.
    #[allow(dead_code, reason = "each test file uses a part of the helpers")]
    #[expect(clippy::print_stderr, reason = "a test that does not run says so")]
    pub(crate) fn with_config(config: &str, port: u16) -> Option<Self> {
        let program = std::env::var("V2RAY").unwrap_or_else(|_| "v2ray".to_owned());
        let spawned = Command::new(program)
            .args(["-config", "stdin:"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let mut process = match spawned {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                eprintln!("skipped: V2Ray is not installed (the package v2ray, or the variable V2RAY)");
                return None;
            }
            spawned => Self(spawned.expect("V2Ray runs")),
        };
        let mut stdin = process.0.stdin.take().expect("it is piped");
        stdin.write_all(config.as_bytes()).expect("the config is read");
        drop(stdin);
        let start = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(start.elapsed() < Duration::from_secs(15), "V2Ray does not listen");
            assert!(process.0.try_wait().expect("a status").is_none(), "V2Ray has ended");
            sleep(Duration::from_millis(20));
        }
        Some(process)
    }
}

impl Drop for V2ray {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
