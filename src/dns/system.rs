//! What a desktop system says about names: its hosts file and its resolv.conf.

use std::fs::File;
use std::io::{self, Read};
use std::net::IpAddr;

const HOSTS: &str = "/etc/hosts";
const RESOLV_CONF: &str = "/etc/resolv.conf";
/// How much of either file is read: long block lists come in hosts files, but not this long.
const MAX_FILE: u64 = 8 << 20;
/// How many servers and search domains are used, as in glibc.
const MAX_SERVERS: usize = 3;
const MAX_SEARCH: usize = 6;

/// What the system's files say about a name.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct SystemView {
    /// The addresses that the hosts file gives the name.
    pub(super) hosts: Vec<IpAddr>,
    /// The servers to ask.
    pub(super) servers: Vec<IpAddr>,
    /// Domains to append to a name without a dot.
    pub(super) search: Vec<String>,
}

impl SystemView {
    /// Reads the files, as far as they exist. Blocks on the disk.
    pub(super) fn read(name: &str) -> Self {
        let hosts = read(HOSTS).map(|text| hosts_entries(&text, name)).unwrap_or_default();
        if !hosts.is_empty() {
            return Self { hosts, ..Self::default() };
        }
        read(RESOLV_CONF).map(|text| Self::from_resolv_conf(&text)).unwrap_or_default()
    }

    /// Reads `nameserver`, `search` and `domain` lines; of the last two kinds the last one counts. A file without servers
    /// means one on this host.
    fn from_resolv_conf(text: &str) -> Self {
        let mut view = Self::default();
        for line in text.lines() {
            let mut words = line.split_ascii_whitespace();
            match words.next() {
                Some("nameserver") => {
                    view.servers.extend(words.next().and_then(|word| word.parse::<IpAddr>().ok()))
                }
                Some("search" | "domain") => {
                    let names = words.map(|word| word.trim_matches('.').to_ascii_lowercase());
                    view.search = names.filter(|name| !name.is_empty()).take(MAX_SEARCH).collect();
                }
                _ => {}
            }
        }
        view.servers.truncate(MAX_SERVERS);
        if view.servers.is_empty() {
            view.servers.push([127, 0, 0, 1].into());
        }
        view
    }
}

/// The addresses that a hosts file gives `name`.
fn hosts_entries(text: &str, name: &str) -> Vec<IpAddr> {
    let mut found = Vec::new();
    for line in text.lines() {
        let line = line.split_once('#').map_or(line, |(line, _)| line);
        let mut words = line.split_ascii_whitespace();
        let Some(address) = words.next() else { continue };
        if words.any(|word| word.trim_end_matches('.').eq_ignore_ascii_case(name)) {
            found.extend(address.parse::<IpAddr>().ok().filter(|address| !found.contains(address)));
        }
    }
    found
}

fn read(path: &str) -> io::Result<String> {
    let mut bytes = Vec::new();
    File::open(path)?.take(MAX_FILE).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn hosts_files_name_addresses() {
        let text = "# a comment\n127.0.0.1\tlocalhost\n::1 localhost ip6-localhost # localhost2\n\n\
                    192.0.2.1 Box.lan box\n192.0.2.1 box\nnonsense box\n0.0.0.0 box.example";
        assert_eq!(hosts_entries(text, "localhost"), [ip("127.0.0.1"), ip("::1")]);
        assert_eq!(hosts_entries(text, "box"), [ip("192.0.2.1")]);
        assert_eq!(hosts_entries(text, "box.lan"), [ip("192.0.2.1")]);
        assert!(hosts_entries(text, "localhost2").is_empty() && hosts_entries(text, "192.0.2.1").is_empty());
    }

    #[test]
    fn resolv_conf_names_servers() {
        let text = "; made by hand\nsearch old.example\nnameserver 192.0.2.53\nnameserver fe80::1%eth0\n\
                    nameserver 2001:db8::53 \nsearch Corp.Example. lan\noptions edns0\nnameserver 1.1.1.1\nnameserver 8.8.8.8";
        let view = SystemView::from_resolv_conf(text);
        assert_eq!(view.servers, [ip("192.0.2.53"), ip("2001:db8::53"), ip("1.1.1.1")]);
        assert_eq!(view.search, ["corp.example", "lan"]);
        assert_eq!(SystemView::from_resolv_conf("").servers, [ip("127.0.0.1")]);
    }

    #[test]
    fn this_system_knows_localhost() {
        let view = SystemView::read("localhost");
        assert!(view.hosts.iter().all(IpAddr::is_loopback));
    }
}
