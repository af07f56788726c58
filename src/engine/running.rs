//! The inbounds that run, and what a reload does to them.

use super::api::{ReloadReport, TunHandle, TunSettings};
use super::inbound::listener::Listening;
use super::inbound::socks;
use super::inbound::tun::{DEFAULT_MTU, Tun};
use super::inbound::vmess;
use super::shard::{Live, Shard};
use crate::addr::Cidr;
use crate::config::{self, Config, Icmp, Inbound, InboundProtocol, Listen, LogLevel, Socks};
use crate::error::Error;
use std::net::IpAddr;
use std::rc::Rc;

/// The inbounds of an instance. Dropping it stops them; flows live on.
pub(super) struct Running {
    tun: Option<Rc<Tun>>,
    listeners: Vec<(Inbound, Listening)>,
}

impl Running {
    /// Starts the inbounds of the config in force. A tun handle needs no tun inbound in the config: it gets one with the
    /// default settings. A tun inbound without a handle waits for [`Running::set_tun`].
    ///
    /// # Errors
    /// The first inbound's that cannot start; those before it are stopped again.
    pub(super) fn start(shard: &Rc<Shard>, handle: Option<TunHandle>) -> Result<Self, Error> {
        let live = shard.live();
        let mut running = Self { tun: None, listeners: Vec::new() };
        for inbound in &live.config.inbounds {
            running.listeners.extend(listen(shard, inbound)?);
        }
        if let Some(handle) = handle {
            running.set_tun(shard, handle)?;
        } else if live.config.tun().is_some() {
            let text =
                format_args!("the tun inbound has no device yet: it carries nothing until it is given one");
            shard.shared.log(LogLevel::Warning, text);
        }
        Ok(running)
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

    /// Puts a config in force: all of it, or, on an error, nothing. New flows follow it; open ones keep what they have.
    ///
    /// # Errors
    /// `ConfigInvalid`; what a listener that cannot be opened says.
    pub(super) async fn reload(&mut self, shard: &Rc<Shard>, config: Config) -> Result<ReloadReport, Error> {
        let live = Live::new(config)?;
        let old = shard.live();
        let added: Vec<&Inbound> =
            live.config.inbounds.iter().filter(|new| !old.config.inbounds.contains(new)).collect();
        // A port that moves from one inbound to another must be free before it can be opened.
        let mut freed = Vec::new();
        for (inbound, listening) in std::mem::take(&mut self.listeners) {
            let moves = added.iter().any(|added| in_each_others_way(added, &inbound));
            if moves && !live.config.inbounds.contains(&inbound) {
                listening.close().await;
                freed.push(inbound);
            } else {
                self.listeners.push((inbound, listening));
            }
        }
        let mut opened = Vec::new();
        for inbound in added {
            match listen(shard, inbound) {
                Ok(listening) => opened.extend(listening),
                Err(error) => {
                    for (_, listening) in opened {
                        Listening::close(listening).await;
                    }
                    let index = live.config.inbounds.iter().position(|new| new == inbound);
                    let error = error.with_path(format!("inbounds[{}].port", index.unwrap_or_default()));
                    return Err(self.reopen(shard, &freed, error));
                }
            }
        }
        self.listeners.extend(opened);
        let tun_changed = tun_settings(&live.config) != tun_settings(&old.config);
        shard.health.configure(&live.config);
        shard.shared.gates.retain(&live.config);
        shard.live.replace(Rc::new(live));
        if let Some(tun) = &self.tun {
            tun.reload();
        }
        let live = shard.live();
        let stays = |(inbound, _): &(Inbound, Listening)| live.config.inbounds.contains(inbound);
        let (kept, gone): (Vec<_>, Vec<_>) = std::mem::take(&mut self.listeners).into_iter().partition(stays);
        self.listeners = kept;
        for (_, listening) in gone {
            listening.close().await;
        }
        Ok(ReloadReport { tun_changed })
    }

    /// Opens listeners again that were closed for a reload that has failed; returns its error, or a graver one.
    fn reopen(&mut self, shard: &Rc<Shard>, freed: &[Inbound], mut error: Error) -> Error {
        for inbound in freed {
            match listen(shard, inbound) {
                Ok(listening) => self.listeners.extend(listening),
                Err(lost) => {
                    let tag = &inbound.tag;
                    shard.shared.log(LogLevel::Error, format_args!("[{tag}] is closed for good: {lost}"));
                    error = lost.with_hint("another program took the port: reload once it is free");
                }
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

fn listen(shard: &Rc<Shard>, inbound: &Inbound) -> Result<Option<(Inbound, Listening)>, Error> {
    match &inbound.protocol {
        InboundProtocol::Tun(_) => Ok(None),
        InboundProtocol::Socks(settings) => {
            socks::listen(shard, inbound, settings).map(|listening| Some((inbound.clone(), listening)))
        }
        InboundProtocol::Vmess(settings) => {
            vmess::listen(shard, inbound, settings, false).map(|listening| Some((inbound.clone(), listening)))
        }
    }
}

/// Whether two inbounds cannot listen at the same time: on one port, an address and all addresses exclude each other.
fn in_each_others_way(one: &Inbound, other: &Inbound) -> bool {
    let (Some(one), Some(other)) = (listen_of(one), listen_of(other)) else { return false };
    let alike = one.ip == other.ip || one.ip.is_unspecified() || other.ip.is_unspecified();
    let meet = one.ports.0.max(1) <= other.ports.1 && other.ports.0.max(1) <= one.ports.1;
    meet && alike
}

fn listen_of(inbound: &Inbound) -> Option<Listen> {
    match &inbound.protocol {
        InboundProtocol::Tun(_) => None,
        InboundProtocol::Socks(Socks { listen, .. }) => {
            Some(Listen { ip: listen.ip(), ports: (listen.port(), listen.port()) })
        }
        InboundProtocol::Vmess(settings) => Some(settings.listen),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::tests::config;
    use crate::error::ErrorKind;
    use std::net::{SocketAddr, TcpListener, TcpStream};
    use tokio::task::LocalSet;

    fn socks(tag: &str, listen: impl Into<SocketAddr>) -> Inbound {
        let settings = Socks { listen: listen.into(), accounts: Vec::new(), udp: false, ip: None, level: 0 };
        Inbound { tag: tag.into(), protocol: InboundProtocol::Socks(settings) }
    }

    fn with(inbounds: Vec<Inbound>) -> Config {
        Config { inbounds, ..config() }
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
                let mut running = Running::start(&shard, None).expect("started");
                for next in [one, all] {
                    running.reload(&shard, with(vec![next.clone()])).await.expect("reloaded");
                    assert_eq!(running.listeners.len(), 1);
                    assert_eq!(running.listeners[0].0, next);
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
                let mut running = Running::start(&shard, None).expect("started");
                let next = with(vec![at("b", staying), at("new", new), at("moved", moving), at("x", taken)]);
                let error = running.reload(&shard, next).await.expect_err("a port is in use");
                assert_eq!(error.kind, ErrorKind::ResourceLimit { what: "listening port" });
                assert_eq!(error.path, "inbounds[3].port");
                assert_eq!((is_open(moving), is_open(staying), is_open(new)), (true, true, false));
                let mut tags: Vec<_> = running.listeners.iter().map(|(inbound, _)| &*inbound.tag).collect();
                tags.sort_unstable();
                assert_eq!(tags, ["a", "b"]);
                assert_eq!(&*shard.live().config.inbounds[0].tag, "a");
            })
            .await;
    }
}
