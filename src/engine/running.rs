//! The inbounds that run, and what a reload does to them.

use super::api::{ReloadReport, TunHandle, TunSettings};
use super::inbound::sockets::{self, Listener};
use super::inbound::tun::{DEFAULT_MTU, Tun};
use super::inbound::vmess::dynamic::{self, Door};
use super::listeners::{Change, Handed, Listeners};
use super::places::{Place, allocate, in_each_others_way, kind, name, options, place, range, title};
use super::shard::{Live, Shard};
use super::workers::Workers;
use crate::addr::Cidr;
use crate::config::{self, Config, Icmp, Inbound, InboundProtocol, Listen, LogLevel, VmessInbound};
use crate::error::{Error, ErrorKind};
use crate::transport::Reception;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::spawn_blocking;
use tokio::time::Instant;

/// How many ports in a row are tried for a free one.
const PORTS_TRIED: u32 = 1024;
/// How soon ports are taken again where none was free.
const PORTS_RETRY: Duration = Duration::from_secs(10);
/// What a port says that somebody else has.
const TAKEN: ErrorKind = ErrorKind::ResourceLimit { what: "listening port" };

/// The inbounds of an instance, on all of its shards. Dropping it stops them; flows of the first shard live on.
pub(super) struct Running {
    tun: Option<Rc<Tun>>,
    /// Those of the first shard.
    listeners: Listeners,
    /// The other shards.
    pub(super) workers: Workers,
    bound: Vec<Bound>,
    /// Inbounds whose ports change, and when others are due.
    changing: Vec<(Arc<Inbound>, Instant)>,
    last_id: u64,
}

/// An inbound whose clients all shards accept.
struct Bound {
    /// As in the config.
    inbound: Arc<Inbound>,
    /// With the one port that is taken at the moment, if ports change, and when that is closed.
    changing: Option<(Inbound, Instant)>,
    /// The names of its sockets on each shard, one for each address.
    ids: Vec<u64>,
    /// The same sockets once more, of each address one for each shard: a reload that leaves the place leaves them open,
    /// with the clients that wait there. None where ports change.
    sockets: Vec<Vec<Listener>>,
}

/// An inbound's sockets that are open and that nobody accepts from yet.
struct Opened {
    inbound: Arc<Inbound>,
    /// With the one port that is taken at the moment, if ports change.
    changing: Option<Inbound>,
    /// What its clients come on, if it is one that says so.
    reception: Option<Arc<Reception>>,
    /// Of each address, with its name: a socket for each shard.
    addresses: Vec<(u64, Vec<Listener>)>,
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
        let mut running = Self {
            tun: None,
            listeners: Listeners::default(),
            workers,
            bound: Vec::new(),
            changing: Vec::new(),
            last_id: 0,
        };
        let mut opened = Vec::new();
        for inbound in &live.config.inbounds {
            opened.extend(running.open(shard, &live.config, inbound)?);
        }
        running.take_up(shard, None, opened, Vec::new()).await?;
        running.schedule(&live.config);
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
        // An address that others take must be free before they can be opened, unless they listen on the very same one.
        let moves = |bound: &Bound| {
            let inherited = added.iter().any(|added| bound.leaves_sockets_to(added));
            !inherited && added.iter().any(|added| in_each_others_way(added, &bound.inbound))
        };
        let mut freed: Vec<Bound> =
            self.bound.extract_if(.., |bound| !stays(bound) && moves(bound)).collect();
        if !freed.is_empty() {
            freed.iter_mut().for_each(|bound| bound.sockets.clear());
            self.take_up(shard, None, Vec::new(), ids(&freed)).await?;
        }
        let gone: Vec<u64> = ids(self.bound.iter().filter(|bound| !stays(bound)));
        let opened =
            added.iter().map(|added| self.open(shard, &config, added)).collect::<Result<Vec<_>, _>>();
        let result = match opened {
            Ok(opened) => {
                self.take_up(shard, Some(&config), opened.into_iter().flatten().collect(), gone).await
            }
            Err(error) => Err(error),
        };
        if let Err(error) = result {
            return Err(self.reopen(shard, freed, error).await);
        }
        let closed: Vec<Bound> = self.bound.extract_if(.., |bound| !stays(bound)).collect();
        forget(shard, &closed);
        self.schedule(&config);
        if let Some(tun) = &self.tun {
            tun.reload();
        }
        Ok(ReloadReport { tun_changed: tun_settings(&config) != tun_settings(&old.config) })
    }

    /// Hands out what other inbounds' users are to be told of: where ports change, the newest ones.
    fn offer(&self, shard: &Rc<Shard>) {
        let live = shard.live();
        for inbound in &live.config.inbounds {
            let InboundProtocol::Vmess(settings) = &inbound.protocol else { continue };
            if !dynamic::is_offered(&live.config, &inbound.tag) {
                continue;
            }
            let own = || self.bound.iter().filter(|bound| *bound.inbound == *inbound);
            let newest = own().filter_map(|bound| bound.changing.as_ref().map(|(_, until)| *until)).max();
            // Nobody is told of a socket without a port.
            let own = || own().filter(|_| settings.unix().is_none());
            let door = |bound: &Bound| {
                let (served, until) =
                    bound.changing.as_ref().map_or((inbound, None), |(port, until)| (port, Some(*until)));
                let InboundProtocol::Vmess(port) = &served.protocol else { return None };
                let gate = shard.shared.gates.open(shard, &served.tag, port);
                (until == newest).then(|| Door::new(port.listen.ports, gate))
            };
            let doors = own().filter_map(door).collect();
            let next = settings
                .allocate
                .zip(newest)
                .and_then(|(allocate, until)| until.checked_sub(allocate.refresh));
            shard.shared.offers.put(&inbound.tag, settings.default, next, doors);
        }
    }

    /// When ports are to change next.
    pub(super) fn due(&self) -> Option<Instant> {
        let closings = self.bound.iter().filter_map(|bound| bound.changing.as_ref().map(|(_, until)| *until));
        self.changing.iter().map(|(_, due)| *due).chain(closings).min()
    }

    /// Takes other ports where that is due, and closes those whose time is over. Connections live on.
    pub(super) async fn change_ports(&mut self, shard: &Rc<Shard>) {
        let (now, config) = (Instant::now(), Arc::clone(&shard.live().config));
        let due: Vec<Arc<Inbound>> =
            self.changing.extract_if(.., |(_, due)| *due <= now).map(|(inbound, _)| inbound).collect();
        let mut opened = Vec::new();
        for inbound in due {
            let wait = match self.open(shard, &config, &inbound) {
                Ok(ports) => {
                    opened.extend(ports);
                    allocate(&inbound).map(|allocate| allocate.refresh)
                }
                Err(error) => {
                    shard.shared.log(LogLevel::Warning, format_args!("no other ports: {error}"));
                    None
                }
            };
            self.changing.push((inbound, now + wait.unwrap_or(PORTS_RETRY)));
        }
        let over = |bound: &mut Bound| bound.changing.as_ref().is_some_and(|(_, until)| *until <= now);
        let gone: Vec<Bound> = self.bound.extract_if(.., over).collect();
        if let Err(error) = self.take_up(shard, None, opened, ids(&gone)).await {
            shard.shared.log(LogLevel::Error, format_args!("the ports could not be changed: {error}"));
        }
        forget(shard, &gone);
    }

    /// Notes when ports change that do not yet.
    fn schedule(&mut self, config: &Config) {
        self.changing.retain(|(inbound, _)| config.inbounds.contains(inbound));
        for inbound in &config.inbounds {
            let known = self.changing.iter().any(|(known, _)| **known == *inbound);
            if let Some(allocate) = allocate(inbound).filter(|_| !known) {
                self.changing.push((Arc::new(inbound.clone()), Instant::now() + allocate.refresh));
            }
        }
    }

    /// Opens an inbound's addresses, a socket for each shard: one piece, or one for each port where they change, or none if
    /// it does not listen.
    ///
    /// # Errors
    /// [`sockets::open`]'s, with the inbound's path.
    fn open(&mut self, shard: &Shard, config: &Config, inbound: &Inbound) -> Result<Vec<Opened>, Error> {
        let located = |error: Error| {
            let index = config.inbounds.iter().position(|other| other == inbound);
            let inside = if error.path.is_empty() { "port" } else { error.path.as_str() };
            let path = index.map(|index| format!("inbounds[{index}].{inside}")).unwrap_or_default();
            error.with_path(path)
        };
        let reception = match &inbound.protocol {
            InboundProtocol::Vmess(settings) => Some(Reception::new(&settings.stream).map_err(located)?),
            _ => None,
        };
        let result = match (&inbound.protocol, place(inbound)) {
            (_, Some(place)) => match self.inherit(inbound) {
                Some(opened) => Ok(vec![opened]),
                None => self.open_all(inbound, place).map(|opened| vec![opened]),
            },
            (InboundProtocol::Vmess(settings), None) => self.open_some(shard, config, inbound, settings),
            (_, None) => Ok(Vec::new()),
        };
        let opened = result.map_err(located)?.into_iter();
        Ok(opened.map(|opened| Opened { reception: reception.clone(), ..opened }).collect())
    }

    /// Takes over the sockets of an inbound in the very same place; `None` if there is none, or no descriptor for them.
    fn inherit(&mut self, inbound: &Inbound) -> Option<Opened> {
        let bound = self.bound.iter().find(|bound| bound.leaves_sockets_to(inbound))?;
        let copies = bound.sockets.iter().map(|sockets| copies(sockets).ok()).collect::<Option<Vec<_>>>()?;
        let ids = self.last_id + 1..;
        self.last_id += copies.len() as u64;
        Some(Opened {
            inbound: Arc::new(inbound.clone()),
            changing: None,
            reception: None,
            addresses: ids.zip(copies).collect(),
        })
    }

    fn open_all(&mut self, inbound: &Inbound, place: Place<'_>) -> Result<Opened, Error> {
        let mut addresses = Vec::new();
        match place {
            Place::Ip(Listen { ip, ports: (first, last) }) => {
                for port in first..=last {
                    addresses.push(self.open_one(inbound, SocketAddr::new(ip, port))?);
                }
            }
            Place::Unix(settings) => {
                let sockets = sockets::open_unix(&title(inbound), settings, self.shards())?;
                self.last_id += 1;
                addresses.push((self.last_id, sockets));
            }
        }
        Ok(Opened { inbound: Arc::new(inbound.clone()), changing: None, reception: None, addresses })
    }

    /// Opens as many ports of the inbound's range as it has at a time, drawn at random among the free ones.
    fn open_some(
        &mut self,
        shard: &Shard,
        config: &Config,
        inbound: &Inbound,
        settings: &VmessInbound,
    ) -> Result<Vec<Opened>, Error> {
        let Listen { ip, ports: (first, last) } = settings.listen;
        let span = u32::from(last.saturating_sub(first)) + 1;
        let origin = Arc::new(inbound.clone());
        let mut opened = Vec::new();
        let wanted = settings.allocate.map_or(0, |allocate| allocate.concurrency).min(span);
        for _ in 0..wanted {
            let start = shard.with_entropy(|entropy| entropy.below(span));
            // The ports behind a taken one are as good.
            let ports =
                (0..span.min(PORTS_TRIED)).map(|step| first.saturating_add(((start + step) % span) as u16));
            let mut free =
                Err(Error::new(ErrorKind::ResourceLimit { what: "listening port" }, "no port is free"));
            for port in ports {
                free = self.open_one(inbound, SocketAddr::new(ip, port)).map(|sockets| (port, sockets));
                if free.as_ref().map_or_else(|error| error.kind != TAKEN, |_| true) {
                    break;
                }
            }
            let (port, sockets) = free?;
            let clients =
                shard.with_entropy(|entropy| dynamic::accounts(config, &inbound.tag, settings, entropy));
            let listen = Listen { ip, ports: (port, port) };
            let settings = VmessInbound { listen, clients, allocate: None, ..settings.clone() };
            let changing = Inbound { protocol: InboundProtocol::Vmess(settings), ..inbound.clone() };
            let inbound = Arc::clone(&origin);
            opened.push(Opened {
                inbound,
                changing: Some(changing),
                reception: None,
                addresses: vec![sockets],
            });
        }
        Ok(opened)
    }

    fn open_one(&mut self, inbound: &Inbound, address: SocketAddr) -> Result<(u64, Vec<Listener>), Error> {
        let options = options(inbound);
        let sockets = sockets::open(&title(inbound), kind(inbound), address, self.shards(), &options)?;
        self.last_id += 1;
        Ok((self.last_id, sockets))
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
        for Opened { inbound, changing, reception, addresses } in opened {
            let served = changing.clone().map_or_else(|| Arc::clone(&inbound), Arc::new);
            let text = format!("{} [{}] listens on {}", name(&inbound), inbound.tag, range(&addresses));
            let ids = addresses.iter().map(|(id, _)| *id).collect();
            let stays = place(&inbound).is_some();
            // Without descriptors for them a reload has to open the addresses anew.
            let sockets = addresses.iter().map_while(|(_, sockets)| copies(sockets).ok().filter(|_| stays));
            let sockets: Vec<_> = sockets.collect();
            let sockets = if sockets.len() == addresses.len() { sockets } else { Vec::new() };
            for change in &mut changes {
                let (inbound, reception) = (Arc::clone(&served), reception.clone());
                change.opened.push(Handed { inbound, reception, sockets: Vec::new() });
            }
            for (id, sockets) in addresses {
                for (change, socket) in changes.iter_mut().zip(sockets) {
                    change.opened.last_mut().expect("just pushed").sockets.push((id, socket));
                }
            }
            let until = allocate(&inbound).map(|allocate| Instant::now() + allocate.refresh * 2);
            bound.push((Bound { inbound, changing: changing.zip(until), ids, sockets }, text));
        }
        let own = changes.swap_remove(0).prepare()?;
        self.workers.prepare(changes).await?;
        if let Some(config) = config {
            shard.health.configure(config);
            shard.shared.gates.retain(config);
            shard.shared.offers.retain(config);
            let (shared, config) = (Arc::clone(&shard.shared), Arc::clone(config));
            // It fails only when the instance ends.
            let _ = spawn_blocking(move || shared.gates.follow(&config, &shared.users)).await;
        }
        let config = config.map_or_else(|| Arc::clone(&shard.live().config), Arc::clone);
        for (bound, _) in &bound {
            make_gate(shard, bound, &config).await;
        }
        self.listeners.commit(shard, own).await;
        self.workers.commit().await;
        for (bound, text) in bound {
            shard.shared.log(LogLevel::Info, format_args!("{text}"));
            self.bound.push(bound);
        }
        shard.shared.users.replace(shard.shared.gates.tables(&shard.live().config));
        self.offer(shard);
        Ok(())
    }

    /// Opens addresses again that were closed for a reload that has failed; returns its error, or a graver one.
    async fn reopen(&mut self, shard: &Rc<Shard>, freed: Vec<Bound>, mut error: Error) -> Error {
        let config = Arc::clone(&shard.live().config);
        for Bound { inbound, .. } in freed {
            let reopened = match self.open(shard, &config, &inbound) {
                Ok(opened) => self.take_up(shard, None, opened, Vec::new()).await,
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

impl Bound {
    /// Whether an inbound of a new config that replaces this one listens in the very same place.
    fn leaves_sockets_to(&self, added: &Inbound) -> bool {
        let same = || {
            kind(added) == kind(&self.inbound)
                && place(added) == place(&self.inbound)
                && options(added) == options(&self.inbound)
        };
        !self.sockets.is_empty() && place(added).is_some() && same()
    }
}

/// More descriptors of the same sockets.
fn copies(sockets: &[Listener]) -> io::Result<Vec<Listener>> {
    sockets.iter().map(Listener::try_clone).collect()
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

/// Makes the gate of what is about to be opened.
async fn make_gate(shard: &Rc<Shard>, bound: &Bound, config: &Config) {
    let InboundProtocol::Vmess(configured) = &bound.inbound.protocol else { return };
    let served = bound.changing.as_ref().map_or(&*bound.inbound, |(port, _)| port);
    let InboundProtocol::Vmess(settings) = &served.protocol else { return };
    // On a port without users of the config's own, all ids are new.
    let all_new = bound.changing.is_some() && configured.clients.is_empty();
    shard.shared.gates.prepare(shard, &served.tag, settings, config, all_new).await;
}

/// Forgets the gates of ports that are closed.
fn forget<'a>(shard: &Shard, closed: impl IntoIterator<Item = &'a Bound>) {
    for bound in closed {
        if let Some((Inbound { tag, protocol: InboundProtocol::Vmess(settings) }, _)) = &bound.changing {
            shard.shared.gates.close(tag, settings);
        }
    }
}

fn ids<'a>(bound: impl IntoIterator<Item = &'a Bound>) -> Vec<u64> {
    bound.into_iter().flat_map(|bound| bound.ids.iter().copied()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Allocate, Socks};
    use crate::engine::tests::config;
    use std::io::Write;
    use std::net::{TcpListener, TcpStream};
    use tokio::io::AsyncReadExt;
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

    #[tokio::test]
    async fn who_waits_to_be_accepted_outlives_a_reload() {
        LocalSet::new()
            .run_until(async {
                let at = |tag: &str, port: u16| socks(tag, ([127, 0, 0, 1], port));
                let (first, second) = (free_port(), free_port());
                let shard = Shard::for_tests(with(vec![at("a", first), at("b", second)]));
                let mut running = start(&shard).await.expect("started");
                // Nobody accepts before this task has to wait.
                let connect = |port: u16| TcpStream::connect(("127.0.0.1", port)).expect("it listens");
                let waiting: Vec<_> = [first, second].into_iter().cycle().take(20).map(connect).collect();
                let next = with(vec![at("c", second), at("d", first)]);
                running.reload(&shard, next).await.expect("reloaded");
                for mut client in waiting {
                    client.write_all(&[5, 1, 0]).expect("sent");
                    client.set_nonblocking(true).expect("a socket");
                    let mut client = tokio::net::TcpStream::from_std(client).expect("a runtime");
                    let mut answer = [0; 2];
                    client.read_exact(&mut answer).await.expect("an answer");
                    assert_eq!(answer, [5, 0]);
                }
                running.reload(&shard, with(Vec::new())).await.expect("reloaded");
                assert!(!is_open(first) && !is_open(second));
            })
            .await;
    }

    fn changing(first: u16) -> Inbound {
        let allocate = Some(Allocate { concurrency: 2, refresh: Duration::from_secs(300) });
        let settings = VmessInbound {
            listen: Listen { ip: [127, 0, 0, 1].into(), ports: (first, first.saturating_add(30)) },
            clients: Vec::new(),
            default: config::DefaultUser::default(),
            detour: None,
            disable_insecure_encryption: false,
            allocate,
            stream: <_>::default(),
        };
        Inbound { tag: "dynamic".into(), protocol: InboundProtocol::Vmess(settings) }
    }

    #[tokio::test(start_paused = true)]
    async fn ports_change_every_period_and_close_after_two() {
        LocalSet::new()
            .run_until(async {
                let first = free_port().min(65_000);
                let shard = Shard::for_tests(with(vec![changing(first)]));
                let mut running = start(&shard).await.expect("started");
                let open = || (first..=first + 30).filter(|port| is_open(*port)).count();
                assert_eq!((open(), running.bound.len()), (2, 2));
                for (minutes, expected) in [(5, 4), (10, 4), (15, 4)] {
                    let due = running.due().expect("ports change");
                    tokio::time::sleep_until(due).await;
                    running.change_ports(&shard).await;
                    assert_eq!(
                        (open(), running.bound.len()),
                        (expected, expected),
                        "after {minutes} minutes"
                    );
                }
                running.reload(&shard, with(Vec::new())).await.expect("reloaded");
                assert_eq!((open(), running.due()), (0, None));
            })
            .await;
    }
}
