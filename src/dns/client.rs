//! The resolver for server names, which must not go through the tunnel: our own client over protected sockets.
//!
//! It asks the servers that the host named for the network below; on a system that has none, those of the system's
//! resolv.conf, after its hosts file. The C library's resolver is never used: it blocks, and its sockets cannot be
//! protected.

use super::cache::Cache;
use super::exchange::{self, Families, unresolved};
use super::message::Name;
use super::system::SystemView;
use crate::engine::Shard;
use crate::engine::api::NetworkInfo;
use crate::error::{Error, ErrorKind};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::rc::Rc;
use std::sync::Arc;
use tokio::sync::watch;
use tokio::task::AbortHandle;

const DNS_PORT: u16 = 53;
/// How many names are looked up at a time, each with a socket or two.
const MAX_LOOKUPS: usize = 128;

type Outcome = Result<Arc<[IpAddr]>, Error>;

/// A shard's resolver. Lookups of the same name share one exchange; answers are remembered for their TTL.
pub(crate) struct Resolver {
    state: RefCell<State>,
    /// The servers' port; tests have another one.
    port: Cell<u16>,
}

#[derive(Default)]
struct State {
    cache: Cache,
    lookups: HashMap<Arc<str>, Lookup>,
    /// Counts networks: what was asked on an older one is not remembered.
    network: u64,
}

/// A lookup under way.
struct Lookup {
    outcome: watch::Receiver<Option<Outcome>>,
    task: AbortHandle,
}

impl Resolver {
    /// The addresses of `name`, at least one, outside the tunnel. An IP literal is its own address.
    ///
    /// # Errors
    /// `ServerUnreachable` at `Stage::Resolve` with the reason: no such name, no address, no answer, no server to ask;
    /// `ProtectFailed` if the host refuses a socket; `ResourceLimit` beyond 128 lookups at a time.
    pub(crate) async fn lookup(&self, shard: &Rc<Shard>, name: &str) -> Result<Vec<IpAddr>, Error> {
        if let Ok(ip) = name.parse() {
            return Ok(vec![ip]);
        }
        let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
        if let Some(known) = self.state.borrow().cache.get(shard.clock.now(), &name) {
            return if known.is_empty() { Err(absent()) } else { Ok(known.to_vec()) };
        }
        loop {
            let network = self.state.borrow().network;
            let mut outcome = self.join(shard, &name)?;
            let outcome = outcome.wait_for(Option::is_some).await.ok().and_then(|outcome| outcome.clone());
            match outcome {
                Some(outcome) => return outcome.map(|addresses| addresses.to_vec()),
                // The lookup was cut off by a change of the network: the new one is asked.
                None if self.state.borrow().network != network => {}
                None => return Err(Error::new(ErrorKind::Stopped, "the tunnel ended during a lookup")),
            }
        }
    }

    /// Forgets everything, because the network below is another one. Lookups under way start anew on it.
    pub(crate) fn clear(&self) {
        let lookups = {
            let mut state = self.state.borrow_mut();
            state.cache.clear();
            state.network += 1;
            std::mem::take(&mut state.lookups)
        };
        lookups.values().for_each(|lookup| lookup.task.abort());
    }

    /// Has servers asked on another port.
    #[cfg(test)]
    pub(crate) fn set_port(&self, port: u16) {
        self.port.set(port);
    }

    /// Joins the lookup of a name, or starts one. It is a task of its own: those who wait may come and go.
    fn join(&self, shard: &Rc<Shard>, name: &str) -> Result<watch::Receiver<Option<Outcome>>, Error> {
        let mut state = self.state.borrow_mut();
        if let Some(under_way) = state.lookups.get(name) {
            return Ok(under_way.outcome.clone());
        }
        if state.lookups.len() >= MAX_LOOKUPS {
            return Err(Error::new(
                ErrorKind::ResourceLimit { what: "lookups" },
                "too many names are being resolved",
            ));
        }
        let name: Arc<str> = name.into();
        let (sender, receiver) = watch::channel(None);
        let network = state.network;
        let (task, asked) = (Rc::clone(shard), Arc::clone(&name));
        let task = shard.spawn(async move {
            let result = resolve(&task, &asked).await;
            task.resolver.settle(&task, network, asked, &result);
            let outcome = match result {
                Ok((addresses, _)) if addresses.is_empty() => Err(absent()),
                Ok((addresses, _)) => Ok(addresses.into()),
                Err(error) => Err(error),
            };
            // Nobody may be waiting any more.
            sender.send_replace(Some(outcome));
        });
        state.lookups.insert(name, Lookup { outcome: receiver.clone(), task: task.abort_handle() });
        Ok(receiver)
    }

    fn settle(
        &self,
        shard: &Shard,
        network: u64,
        name: Arc<str>,
        result: &Result<(Vec<IpAddr>, u32), Error>,
    ) {
        let mut state = self.state.borrow_mut();
        if state.network != network {
            return;
        }
        state.lookups.remove(&name);
        if let Ok((addresses, ttl)) = result {
            state.cache.put(shard.clock.now(), name, addresses, *ttl);
        }
    }
}

impl Default for Resolver {
    fn default() -> Self {
        Self { state: RefCell::default(), port: Cell::new(DNS_PORT) }
    }
}

/// The addresses of a name (none: it has none) and their TTL in seconds.
async fn resolve(shard: &Rc<Shard>, name: &str) -> Result<(Vec<IpAddr>, u32), Error> {
    let port = shard.resolver.port.get();
    if name == "localhost" || name.ends_with(".localhost") {
        // RFC 6761, section 6.3: never asked of a server.
        return Ok((vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()], u32::MAX));
    }
    let network = shard.network.borrow().clone().filter(|network| !network.dns.is_empty());
    if let Some(network) = network {
        let servers: Vec<_> = network.dns.iter().map(|ip| server(*ip, port, network.index)).collect();
        return ask(shard, name, families(&network), &servers).await;
    }
    let owned = name.to_owned();
    let system = tokio::task::spawn_blocking(move || SystemView::read(&owned)).await.unwrap_or_default();
    if !system.hosts.is_empty() {
        return Ok((system.hosts, 0));
    }
    if system.servers.is_empty() {
        let hint = "give Platform.resolve or NetworkInfo.dns";
        return Err(unresolved("no DNS server is known").with_hint(hint));
    }
    let servers: Vec<_> = system.servers.iter().map(|ip| server(*ip, port, 0)).collect();
    let both = Families { v4: true, v6: true };
    if !name.contains('.') {
        for domain in &system.search {
            let found = ask(shard, &format!("{name}.{domain}"), both, &servers).await?;
            if !found.0.is_empty() {
                return Ok(found);
            }
        }
    }
    ask(shard, name, both, &servers).await
}

async fn ask(
    shard: &Rc<Shard>,
    name: &str,
    families: Families,
    servers: &[SocketAddr],
) -> Result<(Vec<IpAddr>, u32), Error> {
    let name = Name::from_text(name).ok_or_else(|| unresolved("the name is not a legal domain name"))?;
    let found = exchange::ask(shard, &name, families, servers).await?;
    Ok((found.addresses, found.ttl))
}

/// The address of a DNS server; a link-local one is on the network's own interface.
fn server(ip: IpAddr, port: u16, interface: u32) -> SocketAddr {
    match ip {
        IpAddr::V6(ip) if ip.is_unicast_link_local() => SocketAddrV6::new(ip, port, 0, interface).into(),
        ip => SocketAddr::new(ip, port),
    }
}

/// Which addresses are of use on a network: those of IPv4 also where it has IPv6 alone, since NAT64 may lead there. A host
/// that says nothing of it means both.
fn families(network: &NetworkInfo) -> Families {
    Families { v4: true, v6: network.has_v6 || !network.has_v4 }
}

fn absent() -> Error {
    unresolved("the name does not exist or has no address")
        .with_hint("check the server's address in the config")
}

#[cfg(test)]
mod tests {
    use super::super::exchange::tests::{Act, server as scripted, shard};
    use super::*;
    use crate::error::Stage;
    use std::time::{Duration, Instant};
    use tokio::task::{LocalSet, spawn_local};

    fn run(test: impl Future<Output = ()>) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        LocalSet::new().block_on(&runtime, test);
    }

    /// A shard on a network whose one DNS server acts so, and the count of its queries.
    async fn network(act: Act) -> (Rc<Shard>, Rc<Cell<usize>>) {
        let (addr, count) = scripted(act).await;
        let shard = shard();
        shard.resolver.port.set(addr.port());
        *shard.network.borrow_mut() = Some(NetworkInfo { dns: vec![addr.ip()], ..NetworkInfo::default() });
        (shard, count)
    }

    async fn lookup(shard: &Rc<Shard>, name: &str) -> Result<Vec<IpAddr>, Error> {
        shard.resolver.lookup(shard, name).await
    }

    #[test]
    fn lookups_of_one_name_share_an_exchange_and_its_memory() {
        run(async {
            let (shard, count) = network(Act::Late(20, 1)).await;
            let tasks: Vec<_> = ["Server.Example", "server.example.", "server.example"]
                .map(|name| {
                    spawn_local({
                        let shard = Rc::clone(&shard);
                        async move { lookup(&shard, name).await }
                    })
                })
                .into();
            for task in tasks {
                assert_eq!(task.await.expect("it ran").expect("found").len(), 2);
            }
            assert_eq!(lookup(&shard, "server.example").await.expect("found").len(), 2);
            assert_eq!(count.get(), 2, "A and AAAA, once");
            shard.resolver.clear();
            lookup(&shard, "server.example").await.expect("found");
            assert_eq!(count.get(), 4, "another network is asked again");
        });
    }

    #[test]
    fn a_lookup_outlives_the_one_who_asked_first() {
        run(async {
            let (shard, count) = network(Act::Late(20, 1)).await;
            let first = spawn_local({
                let shard = Rc::clone(&shard);
                async move { lookup(&shard, "server.example").await }
            });
            tokio::task::yield_now().await;
            first.abort();
            assert!(lookup(&shard, "server.example").await.is_ok());
            assert_eq!(count.get(), 2);
        });
    }

    #[test]
    fn a_lookup_moves_to_the_new_network() {
        run(async {
            let (shard, count) = network(Act::Silent).await;
            let (live, _) = scripted(Act::Answer(1, 60)).await;
            let early = spawn_local({
                let shard = Rc::clone(&shard);
                async move { lookup(&shard, "server.example").await }
            });
            while count.get() < 2 {
                tokio::task::yield_now().await;
            }
            let start = Instant::now();
            shard.resolver.port.set(live.port());
            shard.resolver.clear();
            assert_eq!(early.await.expect("it ran").expect("found").len(), 2);
            assert!(start.elapsed() < Duration::from_millis(900), "not after the old server's time");
        });
    }

    #[test]
    fn absence_is_an_error_and_is_remembered() {
        run(async {
            let (shard, count) = network(Act::Code(3)).await;
            for _ in 0..3 {
                let error = lookup(&shard, "server.example").await.expect_err("there is none");
                assert_eq!(error.kind, ErrorKind::ServerUnreachable { stage: Stage::Resolve });
                assert!(!error.to_string().contains("server.example"), "no name in a text");
            }
            assert!(count.get() <= 2);
        });
    }

    #[test]
    fn literals_and_localhost_ask_nobody() {
        run(async {
            let (shard, count) = network(Act::Silent).await;
            assert_eq!(lookup(&shard, "192.0.2.1").await, Ok(vec![[192, 0, 2, 1].into()]));
            assert!(lookup(&shard, "localhost").await.expect("known").iter().all(IpAddr::is_loopback));
            assert!(lookup(&shard, &"a".repeat(64)).await.is_err());
            assert_eq!(count.get(), 0);
        });
    }

    #[test]
    fn a_network_of_one_family_is_asked_for_that_one() {
        let info = |has_v4, has_v6| NetworkInfo { has_v4, has_v6, ..NetworkInfo::default() };
        assert_eq!(families(&info(true, false)), Families { v4: true, v6: false });
        assert_eq!(families(&info(false, true)), Families { v4: true, v6: true }, "NAT64 may lead there");
        assert_eq!(families(&info(false, false)), Families { v4: true, v6: true });
    }
}
