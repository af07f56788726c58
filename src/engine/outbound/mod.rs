//! Outbounds: where flows go. Each protocol is one file here and implements one trait; [`build`] is the one table.

mod backoff;
mod blackhole;
mod detour;
mod freedom;
mod vmess;

use super::shard::Shard;
use crate::addr::Target;
use crate::config::{self, Level, OutboundProtocol};
use crate::error::{Error, ErrorKind};
use crate::time::Moment;
use crate::transport::protect::Wishes;
use crate::transport::{Datagrams, Stream};
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;

/// A future that lives on one shard.
pub(crate) type LocalFuture<T> = Pin<Box<dyn Future<Output = T>>>;

/// Why an outbound could not be opened, and what the app is to see of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OpenError {
    /// For events, logs and the status.
    pub(crate) error: Error,
    /// For the app behind the tun or SOCKS.
    pub(crate) answer: Answer,
}

/// What an app is told when its flow cannot be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The target refused: RST; SOCKS reply 5.
    Refused,
    /// There is no way to the target: ICMP unreachable; SOCKS reply 4 or 3.
    Unreachable,
    /// A rule or the policy forbids it: RST, ICMP prohibited; SOCKS reply 2.
    Forbidden,
    /// Anything else: RST; SOCKS reply 1.
    Failed,
}

/// A stream that an outbound has opened.
pub(crate) struct OpenedStream {
    /// The stream.
    pub(crate) stream: Box<dyn Stream>,
    /// The policy of the outbound's user.
    pub(crate) level: Level,
}

/// Which datagrams of a source share a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Cone {
    /// All of them.
    Any,
    /// Those to IPv4 addresses.
    Ipv4,
    /// Those to IPv6 addresses.
    Ipv6,
}

/// A way out. Objects are shared by all flows of a shard; a flow's state is in what they open.
pub(crate) trait Outbound {
    /// The tag, as configured.
    fn tag(&self) -> &Arc<str>;

    /// Whether opening a stream tells at once if the target is there (freedom). Then an inbound answers its app after
    /// opening; else it answers at once and dials afterwards.
    fn connects_target(&self) -> bool;

    /// Whether new flows are taken now: `false` while backing off from a server that does not answer.
    fn admits(&self, now: Moment) -> bool;

    /// Opens a TCP stream to `target`.
    fn open_stream(
        self: Rc<Self>,
        shard: Rc<Shard>,
        target: Target,
    ) -> LocalFuture<Result<OpenedStream, OpenError>>;

    /// Forgets what was learned of the network below, which has changed: back-off and looked-up addresses.
    fn network_changed(&self) {}

    /// Opens a UDP flow whose datagrams go to `target`.
    fn open_datagrams(
        self: Rc<Self>,
        shard: Rc<Shard>,
        target: Target,
    ) -> LocalFuture<Result<Box<dyn Datagrams>, OpenError>>;

    /// Whether datagrams to `target` may share a flow with those that the same source sends elsewhere, and whoever
    /// answers is heard (full cone). Then an inbound keys its flows by source and opens them with
    /// [`Outbound::open_cone`].
    fn cone(&self, _target: &Target) -> Option<Cone> {
        None
    }

    /// Opens a UDP flow of `source`, whose first datagram goes to `target` and later ones, where [`Outbound::cone`] says
    /// so, anywhere. What comes back bears the address that it came from, as far as that is known.
    fn open_cone(
        self: Rc<Self>,
        shard: Rc<Shard>,
        target: Target,
        _source: SocketAddr,
    ) -> LocalFuture<Result<Box<dyn Datagrams>, OpenError>> {
        self.open_datagrams(shard, target)
    }
}

/// Builds the running side of all outbounds, in their order: one that another is dialled through comes before it.
///
/// # Errors
/// [`build`]'s, with the path; `ConfigInvalid` if outbounds go through each other in a circle.
pub(crate) fn build_all(outbounds: &[config::Outbound]) -> Result<Vec<Rc<dyn Outbound>>, Error> {
    let mut built: Vec<Option<Rc<dyn Outbound>>> = vec![None; outbounds.len()];
    loop {
        let before = built.iter().flatten().count();
        for (index, outbound) in outbounds.iter().enumerate() {
            let via = outbound.via.map(|via| built.get(via).cloned().flatten());
            let place = built.get_mut(index).filter(|place| place.is_none());
            let (Some(place), None | Some(Some(_))) = (place, &via) else { continue };
            let made = build(outbound, via.flatten()).map_err(|error| {
                let path = format!("outbounds[{index}].{}", error.path);
                error.with_path(path.trim_end_matches('.'))
            });
            *place = Some(made?);
        }
        if built.iter().all(Option::is_some) {
            return Ok(built.into_iter().flatten().collect());
        }
        if let Some(index) = built.iter().position(Option::is_none)
            && built.iter().flatten().count() == before
        {
            return Err(Error::new(
                ErrorKind::ConfigInvalid,
                "this chain of outbounds comes back to its start, or leads to none",
            )
            .with_path(format!("outbounds[{index}].proxySettings.tag")));
        }
    }
}

/// Builds the running side of an outbound, which is dialled through `via`: reads its files, opens no socket. This is the
/// table of protocols.
///
/// # Errors
/// What is wrong with its files, or `Unsupported`; with the path inside of the outbound.
fn build(outbound: &config::Outbound, via: Option<Rc<dyn Outbound>>) -> Result<Rc<dyn Outbound>, Error> {
    let tag = Arc::clone(&outbound.tag);
    Ok(match (&outbound.protocol, via) {
        (OutboundProtocol::Vmess(settings), via) => Rc::new(vmess::Vmess::new(outbound, settings, via)?),
        (OutboundProtocol::Freedom(settings), Some(via)) => Rc::new(detour::Detour::new(tag, settings, via)),
        (OutboundProtocol::Freedom(settings), None) => {
            let wishes = Wishes { options: outbound.stream.sockopt.clone(), from: outbound.send_through };
            Rc::new(freedom::Freedom::new(tag, settings, wishes))
        }
        (OutboundProtocol::Blackhole { http }, _) => Rc::new(blackhole::Blackhole::new(tag, *http)),
    })
}

/// The policy of a level, as the config in force says.
fn level(shard: &Shard, level: u32) -> Level {
    shard.live().config.policy.levels.get(&level).copied().unwrap_or_default()
}
