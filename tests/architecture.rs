//! The rings hold: the pure ring uses no clock, no randomness, no socket and nothing of the runtime ring, and rooms know
//! only the rooms below them. `cargo check --no-default-features` shows the same of tokio; this also sees std.

use std::fs;
use std::path::{Path, PathBuf};

/// The pure rooms, and the rooms that each may use besides the foundation.
const PURE: &[(&str, &[&str])] = &[
    ("src/vmess", &["vmess"]),
    ("src/tun/stack", &["tun"]),
    ("src/route", &["route", "config"]),
    ("src/config", &["config", "vmess"]),
    ("src/dns/message.rs", &["dns"]),
    ("src/dns/forward.rs", &["dns"]),
    ("src/dns/cache.rs", &["dns"]),
    ("src/dns/sntp.rs", &["dns"]),
    ("src/wire", &["wire"]),
];
/// What everybody may use.
const FOUNDATION: &[&str] = &["addr", "buffer", "entropy", "error", "time"];
/// What no pure room may name.
const FORBIDDEN: &[&str] = &[
    "tokio",
    "getrandom",
    "rustix",
    "socket2",
    "std::time::Instant",
    "Instant::now",
    "SystemTime",
    "std::thread",
    "std::fs",
    "std::env",
    "TcpStream",
    "UdpSocket",
    "TcpListener",
];

fn sources(path: &Path, found: &mut Vec<PathBuf>) {
    if path.is_dir() {
        for entry in fs::read_dir(path).expect("a folder of the source").flatten() {
            sources(&entry.path(), found);
        }
    } else if path.extension().is_some_and(|extension| extension == "rs") {
        found.push(path.to_owned());
    }
}

/// The lines of a file outside comments and tests.
fn code(path: &Path) -> Vec<(usize, String)> {
    let text = fs::read_to_string(path).expect("a source file");
    let body = text.split("\n#[cfg(test)]\nmod tests").next().unwrap_or_default();
    let lines = body.lines().enumerate().filter(|(_, line)| !line.trim_start().starts_with("//"));
    lines.map(|(i, line)| (i + 1, line.to_owned())).collect()
}

#[test]
fn the_pure_ring_is_pure_and_arrows_point_down() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (mut faults, mut seen) = (Vec::new(), 0);
    for (room, allowed) in PURE {
        let mut files = Vec::new();
        sources(&root.join(room), &mut files);
        assert!(!files.is_empty(), "{room} has no sources: is this list out of date?");
        for file in files.iter().filter(|file| !file.ends_with("tests.rs")) {
            seen += 1;
            for (number, line) in code(file) {
                let name = file.strip_prefix(root).expect("below the root").display();
                faults.extend(
                    FORBIDDEN
                        .iter()
                        .filter(|word| line.contains(**word))
                        .map(|word| format!("{name}:{number}: `{word}` does not belong in the pure ring")),
                );
                for used in line.split("crate::").skip(1) {
                    let used: String =
                        used.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
                    let is_module = used.starts_with(char::is_lowercase);
                    if is_module && !FOUNDATION.contains(&used.as_str()) && !allowed.contains(&used.as_str())
                    {
                        faults.push(format!("{name}:{number}: `crate::{used}` is not below this room"));
                    }
                }
            }
        }
    }
    assert!(seen > 30, "only {seen} files looked at");
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}
