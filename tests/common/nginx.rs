//! An nginx process of its own for a test.

use std::fs;
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// An nginx process and its folder. Both end with this value.
pub(crate) struct Nginx {
    process: Child,
    folder: PathBuf,
}

impl Nginx {
    /// Starts nginx with one server that listens on a port of loopback: `http2` and, with a certificate and its key, TLS;
    /// `location` is what it does with every request. `None` where nginx is not installed.
    #[expect(clippy::print_stderr, reason = "a test that does not run says so")]
    pub(crate) fn start(port: u16, identity: Option<(&str, &str)>, location: &str) -> Option<Self> {
        let folder = std::env::temp_dir().join(format!("vmesskit-nginx-{}-{port}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder");
        let at = folder.display();
        let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .iter()
            .map(|kind| format!("{kind}_temp_path {at}/{kind};"))
            .collect();
        let tls = identity.map(|(chain, key)| {
            fs::write(folder.join("chain.pem"), chain).expect("written");
            fs::write(folder.join("key.pem"), key).expect("written");
            format!("ssl_certificate {at}/chain.pem; ssl_certificate_key {at}/key.pem;")
        });
        let (ssl, tls) = (if tls.is_some() { "ssl" } else { "" }, tls.unwrap_or_default());
        // Where it runs as root, its workers shall read the folder too.
        let user = if fs::metadata("/root").is_ok_and(|_| fs::read_dir("/root").is_ok()) {
            "user root;"
        } else {
            ""
        };
        let config = format!(
            "{user} daemon off; worker_processes 1; pid {at}/pid; error_log {at}/error.log;
            events {{ worker_connections 1024; }}
            http {{ access_log off; {temporary} {tls} client_max_body_size 0; http2_max_concurrent_streams 512;
            server {{ listen 127.0.0.1:{port} {ssl} http2; location / {{ {location} }} }} }}"
        );
        fs::write(folder.join("nginx.conf"), config).expect("written");
        let spawned = Command::new("nginx")
            .env("PATH", std::env::var("PATH").unwrap_or_default() + ":/usr/sbin")
            .arg("-p")
            .arg(&folder)
            .arg("-c")
            .arg(folder.join("nginx.conf"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let process = match spawned {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                eprintln!("skipped: nginx is not installed (the package nginx-light)");
                return None;
            }
            spawned => spawned.expect("nginx runs"),
        };
        let mut nginx = Self { process, folder };
        let start = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            let ended = nginx.process.try_wait().expect("a status").is_some();
            assert!(!ended && start.elapsed() < Duration::from_secs(15), "nginx does not listen");
            sleep(Duration::from_millis(20));
        }
        Some(nginx)
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // It passes this on to its workers, which a kill would leave behind.
        let told = Command::new("kill").arg("-TERM").arg(self.process.id().to_string()).status();
        if !told.is_ok_and(|status| status.success()) {
            let _ = self.process.kill();
        }
        let _ = self.process.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}
