//! One shard: what the tasks of one thread share. Nothing in it is locked.

use super::api::NetworkInfo;
use super::shared::Shared;
use crate::buffer::Pool;
use crate::config::Config;
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

/// What the tasks of a shard share.
pub(crate) struct Shard {
    /// Payload memory.
    pub(crate) pool: Pool,
    /// The side of the instance that other threads see: counters, events, state, log.
    pub(crate) shared: Arc<Shared>,
    /// The network below, as the host last described it.
    pub(crate) network: RefCell<Option<NetworkInfo>>,
    /// The config and what was built from it; replaced whole by a reload, so flows keep theirs.
    pub(crate) live: RefCell<Rc<Live>>,
}

/// A config and the router and outbounds built from it.
pub(crate) struct Live {
    /// The values.
    pub(crate) config: Config,
}
