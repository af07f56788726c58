//! The listeners of one shard, and the two steps in which every shard takes a change up: what can fail is prepared on
//! all of them before it is committed on any.

use super::inbound::listener::Listening;
use super::inbound::sockets::{Listener, Waiting};
use super::inbound::{socks, vmess};
use super::shard::{Live, Shard};
use crate::config::{Config, Inbound, InboundProtocol};
use crate::error::{Error, ErrorKind};
use crate::transport::Reception;
use std::collections::BTreeMap;
use std::io;
use std::rc::Rc;
use std::sync::Arc;

/// An inbound's listening sockets for one shard.
#[derive(Debug)]
pub(super) struct Handed {
    /// Whose clients come there.
    pub(super) inbound: Arc<Inbound>,
    /// What its clients come on, if it is one that says so.
    pub(super) reception: Option<Arc<Reception>>,
    /// The sockets, which listen, with their names in the instance: those that share an address among the shards have the
    /// same one.
    pub(super) sockets: Vec<(u64, Listener)>,
}

/// What a shard is to take up together with all others.
#[derive(Debug, Default)]
pub(super) struct Change {
    /// The config from now on; `None`: the one in force stays.
    pub(super) config: Option<Arc<Config>>,
    /// What it is to accept from.
    pub(super) opened: Vec<Handed>,
    /// The ids of what it accepts from no longer.
    pub(super) closed: Vec<u64>,
}

/// An inbound's sockets that can be waited for, by name.
type Named = Vec<(u64, Waiting)>;

/// A change of which everything that can fail is done.
pub(super) struct Prepared {
    live: Option<Live>,
    opened: Vec<(Arc<Inbound>, Option<Arc<Reception>>, Named)>,
    closed: Vec<u64>,
}

impl Change {
    /// Does what can fail. Nothing is in force yet, and dropping the result undoes it.
    ///
    /// # Errors
    /// `ConfigInvalid` if a rule cannot be used, `ResourceLimit` if a socket cannot be waited for.
    pub(super) fn prepare(self) -> Result<Prepared, Error> {
        let live = self.config.map(Live::new).transpose()?;
        let opened = self.opened.into_iter().map(|handed| {
            let sockets = handed.sockets.into_iter();
            let sockets = sockets.map(|(id, socket)| Ok((id, socket.register()?)));
            Ok((handed.inbound, handed.reception, sockets.collect::<io::Result<_>>()?))
        });
        let opened = opened.collect::<io::Result<_>>().map_err(|error| {
            let what = ErrorKind::ResourceLimit { what: "file descriptors" };
            Error::new(what, "a listening socket cannot be waited for").with_reason(error.to_string())
        })?;
        Ok(Prepared { live, opened, closed: self.closed })
    }
}

/// The listeners of one shard, by id. Dropping it stops them; connections that were accepted live on.
#[derive(Default)]
pub(super) struct Listeners {
    open: BTreeMap<u64, Listening>,
}

impl Listeners {
    /// Puts a change in force on its shard: the config first, then what it brings. Returns when the sockets that it takes
    /// away are closed.
    pub(super) async fn commit(&mut self, shard: &Rc<Shard>, change: Prepared) {
        if let Some(live) = change.live {
            shard.live.replace(Rc::new(live));
        }
        for (inbound, reception, sockets) in change.opened {
            let (ids, listeners): (Vec<_>, Vec<_>) = sockets.into_iter().unzip();
            self.open.extend(ids.into_iter().zip(accept(shard, &inbound, reception, listeners)));
        }
        for id in change.closed {
            if let Some(listening) = self.open.remove(&id) {
                listening.close().await;
            }
        }
    }
}

/// Accepts the clients of an inbound's sockets. This is the table of protocols that listen.
fn accept(
    shard: &Rc<Shard>,
    inbound: &Inbound,
    reception: Option<Arc<Reception>>,
    listeners: Vec<Waiting>,
) -> Vec<Listening> {
    match &inbound.protocol {
        InboundProtocol::Tun(_) => Vec::new(),
        InboundProtocol::Socks(settings) => {
            let listen = |listener| match listener {
                Waiting::Tcp(listener) => Some(socks::listen(shard, inbound, settings, listener)),
                // None is opened for it.
                Waiting::Udp(_) | Waiting::Unix(..) => None,
            };
            listeners.into_iter().filter_map(listen).collect()
        }
        InboundProtocol::Vmess(settings) => {
            let reception = reception.expect("made when its sockets were opened");
            vmess::listen(shard, inbound, settings, reception, listeners)
        }
    }
}
