//! The inbounds that run, and what a reload does to them.

use super::api::{ReloadReport, TunHandle, TunSettings};
use super::inbound::sockets;
use super::inbound::tun::{DEFAULT_MTU, Tun};
use super::listeners::{Change, Handed, Listeners};
use super::shard::{Live, Shard};
use super::workers::Workers;
use crate::addr::Cidr;
use crate::config::{self, Config, Icmp, Inbound, InboundProtocol, Listen, LogLevel, Socks};
use crate::error::Error;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::rc::Rc;
use std::sync::Arc;

/// The inbounds of an instance, on all of its shards. Dropping it stops them; flows of the first shard live on.
pub(super) struct Running {
    tun: Option<Rc<Tun>>,
    /// Those of the first shard.
    listeners: Listeners,
    /// The other shards.
    pub(super) workers: Workers,
    bound: Vec<Bound>,
    last_id: u64,
}

/// An inbound whose clients all shards accept.
struct Bound {
    inbound: Arc<Inbound>,
    /// The names of its sockets on each shard, one for each address.
    ids: Vec<u64>,
}

/// An inbound's sockets that are open and that nobody accepts from yet.
struct Opened {
    inbound: Arc<Inbound>,
    /// Of each address, with its name: a socket for each shard.
    addresses: Vec<(u64, Vec<TcpListener>)>,
}

impl Running {
    /// Starts the inbounds of the config in force. A tun handle needs no tun inbound in the config: it gets one with the
    /// default settings. A tun inbound without a handle waits for [`Running::set_tun`].
    ///
    /// # Errors
    /// The first inbound's that cannot start; those before it are stopped again, and the workers have ended.
    pub(super) async fn start(
        shard: &Rc<Shard>,
        workers: Workers,
        handle: Option<TunHandle>,
    ) -> Result<Self, Error> {
        let live = shard.live();
        let mut running =
            Self { tun: None, listeners: Listeners::default(), workers, bound: Vec::new(), last_id: 0 };
        let mut opened = Vec::new();
        for inbound in &live.config.inbounds {
            opened.extend(running.open(&live.config, inbound)?);
        }
        running.take_up(shard, None, opened, Vec::new()).await?;
        if let Some(handle) = handle {
            running.set_tun(shard, handle)?;
        } else if live.config.tun().is_some() {
            let text =
                format_args!("the tun inbound has no device yet: it carries nothing until it is given one");
            shard.shared.log(LogLevel::Warning, text);
        }
        Ok(running)
    }

    /// How many shards there are.
    pub(super) const fn shards(&self) -> usize {
        self.workers.len() + 1
    }

    /// Swaps the tun device under its flows, or starts the tun inbound on its first one.
    ///
    /// # Errors
    /// `TunIo` or `Misuse` if the descriptor is none that can be used; it is closed then and the old device stays.
    pub(super) fn set_tun(&mut self, shard: &Rc<Shard>, handle: TunHandle) -> Result<(), Error> {
        match &self.tun {
            Some(tun) => tun.replace(handle),
            None => {
                let tun = Tun::start(shard, &tun_inbound(&shard.live().config), handle)?;
                let (gone, ends) = (tun.gone(), Rc::clone(shard));
                shard.spawn(async move { ends.end(gone.await) });
                self.tun = Some(tun);
                Ok(())
            }
        }
    }

    /// Puts a config in force on all shards: all of it, or, on an error, nothing. New flows follow it; open ones keep what
    /// they have.
    ///
    /// # Errors
    /// `ConfigInvalid`; what a listener that cannot be opened says.
    pub(super) async fn reload(&mut self, shard: &Rc<Shard>, config: Config) -> Result<ReloadReport, Error> {
        let (config, old) = (Arc::new(config), shard.live());
        // Before anything is touched: it would come too late below.
        drop(Live::new(Arc::clone(&config))?);
        let added: Vec<&Inbound> =
            config.inbounds.iter().filter(|new| !old.config.inbounds.contains(new)).collect();
        let stays = |bound: &Bound| config.inbounds.contains(&bound.inbound);
        // A port that moves from one inbound to another must be free before it can be opened.
        let moves = |bound: &Bound| added.iter().any(|added| in_each_others_way(added, &bound.inbound));
        let freed: Vec<Bound> = self.bound.extract_if(.., |bound| !stays(bound) && moves(bound)).collect();
        if !freed.is_empty() {
            self.take_up(shard, None, Vec::new(), ids(&freed)).await?;
        }
        let gone: Vec<u64> = ids(self.bound.iter().filter(|bound| !stays(bound)));
        let opened = added.iter().map(|added| self.open(&config, added)).collect::<Result<Vec<_>, _>>();
        let result = match opened {
            Ok(opened) => {
                self.take_up(shard, Some(&config), opened.into_iter().flatten().collect(), gone).await
            }
            Err(error) => Err(error),
        };
        if let Err(error) = result {
            return Err(self.reopen(shard, freed, error).await);
        }
        self.bound.retain(stays);
        if let Some(tun) = &self.tun {
            tun.reload();
        }
        Ok(ReloadReport { tun_changed: tun_settings(&config) != tun_settings(&old.config) })
    }

    /// Opens an inbound's addresses, a socket for each shard; `None` if it does not listen.
    ///
    /// # Errors
    /// [`sockets::open`]'s, with the inbound's path.
    fn open(&mut self, config: &Config, inbound: &Inbound) -> Result<Option<Opened>, Error> {
        let Some(Listen { ip, ports: (first, last) }) = place(inbound) else { return Ok(None) };
        let what = format!("the {} inbound [{}]", name(inbound), inbound.tag);
        let mut addresses = Vec::new();
        for port in first..=last {
            let sockets = sockets::open(&what, SocketAddr::new(ip, port), self.shards());
            let sockets = sockets.map_err(|error| {
                let index = config.inbounds.iter().position(|other| other == inbound);
                error.with_path(index.map(|index| format!("inbounds[{index}].port")).unwrap_or_default())
            })?;
            self.last_id += 1;
            addresses.push((self.last_id, sockets));
        }
        Ok(Some(Opened { inbound: Arc::new(inbound.clone()), addresses }))
    }

    /// Has all shards take a change up, in two steps: what can fail is done on all of them before anything is in force on
    /// one.
    ///
    /// # Errors
    /// What one of them could not do; nothing has changed then.
    async fn take_up(
        &mut self,
        shard: &Rc<Shard>,
        config: Option<&Arc<Config>>,
        opened: Vec<Opened>,
        closed: Vec<u64>,
    ) -> Result<(), Error> {
        let change = || Change { config: config.cloned(), opened: Vec::new(), closed: closed.clone() };
        let mut changes: Vec<Change> = (0..self.shards()).map(|_| change()).collect();
        let mut bound = Vec::new();
        for Opened { inbound, addresses } in opened {
            let text = format!("{} [{}] listens on {}", name(&inbound), inbound.tag, range(&addresses));
            let ids = addresses.iter().map(|(id, _)| *id).collect();
            for change in &mut changes {
                change.opened.push(Handed { inbound: Arc::clone(&inbound), sockets: Vec::new() });
            }
            for (id, sockets) in addresses {
                for (change, socket) in changes.iter_mut().zip(sockets) {
                    change.opened.last_mut().expect("just pushed").sockets.push((id, socket));
                }
            }
            bound.push((Bound { inbound, ids }, text));
        }
        let own = changes.swap_remove(0).prepare()?;
        self.workers.prepare(changes).await?;
        if let Some(config) = config {
            shard.health.configure(config);
            shard.shared.gates.retain(config);
        }
        self.listeners.commit(shard, own).await;
        self.workers.commit().await;
        for (bound, text) in bound {
            shard.shared.log(LogLevel::Info, format_args!("{text}"));
            self.bound.push(bound);
        }
        Ok(())
    }

    /// Opens addresses again that were closed for a reload that has failed; returns its error, or a graver one.
    async fn reopen(&mut self, shard: &Rc<Shard>, freed: Vec<Bound>, mut error: Error) -> Error {
        let config = Arc::clone(&shard.live().config);
        for Bound { inbound, .. } in freed {
            let reopened = match self.open(&config, &inbound) {
                Ok(opened) => self.take_up(shard, None, Vec::from_iter(opened), Vec::new()).await,
                Err(error) => Err(error),
            };
            if let Err(lost) = reopened {
                let tag = &inbound.tag;
                shard.shared.log(LogLevel::Error, format_args!("[{tag}] is closed for good: {lost}"));
                error = lost.with_hint("another program took the port: reload once it is free");
            }
        }
        error
    }
}

/// What the host needs to set its tun device up; `None` without a tun inbound.
pub(super) fn tun_settings(config: &Config) -> Option<TunSettings> {
    let (_, tun) = config.tun()?;
    Some(TunSettings {
        mtu: tun.mtu.unwrap_or(DEFAULT_MTU),
        addresses: tun.addresses.clone(),
        routes: tun.routes.clone(),
        excluded_routes: tun.excluded_routes.clone(),
        dns: vec![tun.dns],
        allow_apps: tun.allow_apps.clone(),
        deny_apps: tun.deny_apps.clone(),
        metered: tun.metered,
    })
}

/// The config's tun inbound, or the default one.
fn tun_inbound(config: &Config) -> Inbound {
    match config.tun() {
        Some((inbound, _)) => inbound.clone(),
        None => Inbound { tag: "tun".into(), protocol: InboundProtocol::Tun(default_tun()) },
    }
}

/// The settings of a tun inbound that the config does not list: those of one that it lists without any.
fn default_tun() -> config::Tun {
    let cidr = |text| Cidr::parse(text).expect("a constant");
    config::Tun {
        mtu: None,
        addresses: vec![cidr("172.19.0.1/30"), cidr("fd19::1/126")],
        routes: vec![cidr("0.0.0.0/0"), cidr("::/0")],
        excluded_routes: Vec::new(),
        dns: IpAddr::from([172, 19, 0, 2]),
        allow_apps: Vec::new(),
        deny_apps: Vec::new(),
        metered: None,
        icmp: Icmp::Reply,
        reject_udp443: false,
    }
}

/// Whether two inbounds cannot listen at the same time: on one port, an address and all addresses exclude each other.
fn in_each_others_way(one: &Inbound, other: &Inbound) -> bool {
    let (Some(one), Some(other)) = (place(one), place(other)) else { return false };
    let alike = one.ip == other.ip || one.ip.is_unspecified() || other.ip.is_unspecified();
    let meet = one.ports.0.max(1) <= other.ports.1 && other.ports.0.max(1) <= one.ports.1;
    meet && alike
}

/// Where an inbound listens, for as long as the config names it.
fn place(inbound: &Inbound) -> Option<Listen> {
    match &inbound.protocol {
        InboundProtocol::Tun(_) => None,
        InboundProtocol::Socks(Socks { listen, .. }) => {
            Some(Listen { ip: listen.ip(), ports: (listen.port(), listen.port()) })
        }
        // Ports that change come and go by themselves.
        InboundProtocol::Vmess(settings) if settings.allocate.is_some() => None,
        InboundProtocol::Vmess(settings) => Some(settings.listen),
    }
}

fn ids<'a>(bound: impl IntoIterator<Item = &'a Bound>) -> Vec<u64> {
    bound.into_iter().flat_map(|bound| bound.ids.iter().copied()).collect()
}

/// What a person calls the addresses of an inbound, which differ in their ports.
fn range(addresses: &[(u64, Vec<TcpListener>)]) -> String {
    let address = |at: Option<&(u64, Vec<TcpListener>)>| at?.1.first()?.local_addr().ok();
    match (address(addresses.first()), address(addresses.last())) {
        (Some(first), Some(last)) if first != last => format!("{first} to {}", last.port()),
        (Some(only), _) => only.to_string(),
        _ => String::new(),
    }
}

/// The protocol's name.
const fn name(inbound: &Inbound) -> &'static str {
    match &inbound.protocol {
        InboundProtocol::Tun(_) => "tun",
        InboundProtocol::Socks(_) => "socks",
        InboundProtocol::Vmess(_) => "vmess",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::tests::config;
    use crate::error::ErrorKind;
    use std::net::{TcpListener, TcpStream};
    use tokio::task::LocalSet;

    fn socks(tag: &str, listen: impl Into<SocketAddr>) -> Inbound {
        let settings = Socks { listen: listen.into(), accounts: Vec::new(), udp: false, ip: None, level: 0 };
        Inbound { tag: tag.into(), protocol: InboundProtocol::Socks(settings) }
    }

    fn with(inbounds: Vec<Inbound>) -> Config {
        Config { inbounds, ..config() }
    }

    async fn start(shard: &Rc<Shard>) -> Result<Running, Error> {
        Running::start(shard, Workers::start([])?, None).await
    }

    fn free_port() -> u16 {
        TcpListener::bind("0.0.0.0:0").and_then(|listener| listener.local_addr()).expect("a port").port()
    }

    fn is_open(port: u16) -> bool {
        TcpStream::connect(("127.0.0.1", port)).is_ok()
    }

    #[tokio::test]
    async fn a_port_moves_from_all_addresses_to_one_and_back() {
        LocalSet::new()
            .run_until(async {
                let port = free_port();
                let (all, one) = (socks("all", ([0, 0, 0, 0], port)), socks("one", ([127, 0, 0, 1], port)));
                let shard = Shard::for_tests(with(vec![all.clone()]));
                let mut running = start(&shard).await.expect("started");
                for next in [one, all] {
                    running.reload(&shard, with(vec![next.clone()])).await.expect("reloaded");
                    assert_eq!(running.bound.len(), 1);
                    assert_eq!(*running.bound[0].inbound, next);
                    assert!(is_open(port));
                }
            })
            .await;
    }

    #[tokio::test]
    async fn a_reload_that_fails_leaves_every_listener_as_it_was() {
        LocalSet::new()
            .run_until(async {
                let (moving, staying, new) = (free_port(), free_port(), free_port());
                let held = TcpListener::bind("127.0.0.1:0").expect("a port");
                let taken = held.local_addr().expect("bound").port();
                let at = |tag: &str, port: u16| socks(tag, ([127, 0, 0, 1], port));
                let shard = Shard::for_tests(with(vec![at("a", moving), at("b", staying)]));
                let mut running = start(&shard).await.expect("started");
                let next = with(vec![at("b", staying), at("new", new), at("moved", moving), at("x", taken)]);
                let error = running.reload(&shard, next).await.expect_err("a port is in use");
                assert_eq!(error.kind, ErrorKind::ResourceLimit { what: "listening port" });
                assert_eq!(error.path, "inbounds[3].port");
                assert_eq!((is_open(moving), is_open(staying), is_open(new)), (true, true, false));
                let mut tags: Vec<_> = running.bound.iter().map(|bound| &*bound.inbound.tag).collect();
                tags.sort_unstable();
                assert_eq!(tags, ["a", "b"]);
                assert_eq!(&*shard.live().config.inbounds[0].tag, "a");
            })
            .await;
    }
}
