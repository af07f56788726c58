//! The inbounds that run, and what a reload does to them.

use super::api::{ReloadReport, TunHandle, TunSettings};
use super::inbound::socks::{self, Listening};
use super::inbound::tun::{DEFAULT_MTU, Tun};
use super::shard::{Live, Shard};
use crate::addr::Cidr;
use crate::config::{self, Config, Icmp, Inbound, InboundProtocol};
use crate::error::Error;
use std::net::{IpAddr, SocketAddr};
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
        let wanted: Vec<SocketAddr> = added.iter().filter_map(|inbound| address(inbound)).collect();
        let mut freed = Vec::new();
        for (inbound, listening) in std::mem::take(&mut self.listeners) {
            let moves = address(&inbound).is_some_and(|at| wanted.contains(&at));
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
                    for inbound in &freed {
                        self.listeners.extend(listen(shard, inbound)?);
                    }
                    return Err(error);
                }
            }
        }
        self.listeners.extend(opened);
        let tun_changed = tun_settings(&live.config) != tun_settings(&old.config);
        shard.health.configure(&live.config);
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
    }
}

fn address(inbound: &Inbound) -> Option<SocketAddr> {
    match &inbound.protocol {
        InboundProtocol::Tun(_) => None,
        InboundProtocol::Socks(settings) => Some(settings.listen),
    }
}
