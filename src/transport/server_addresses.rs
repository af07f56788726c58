//! The addresses of a configured server: looked up once for all flows that need them, and again when they have aged,
//! failed, or the network is another one.

use super::dial::{self, DialError};
use crate::addr::Target;
use crate::config::DomainStrategy;
use crate::engine::Shard;
use crate::time::Moment;
use std::cell::RefCell;
use std::net::IpAddr;
use std::rc::Rc;
use std::time::Duration;
use tokio::sync::OnceCell;
use tokio::time::Instant;

/// How long looked-up addresses are used.
const LIFETIME: Duration = Duration::from_secs(60);

#[derive(Debug)]
struct Found {
    at: Moment,
    addresses: Vec<IpAddr>,
}

/// A server's address as configured, and what it was resolved to.
#[derive(Debug)]
pub(super) struct ServerAddresses {
    target: Target,
    found: RefCell<Rc<OnceCell<Found>>>,
}

impl ServerAddresses {
    /// Nothing has been looked up.
    pub(super) fn new(target: Target) -> Self {
        Self { target, found: RefCell::default() }
    }

    /// The server as configured.
    pub(super) const fn target(&self) -> &Target {
        &self.target
    }

    /// The addresses to try, in order. Of several flows that ask at once, one looks up and the others wait for it.
    ///
    /// # Errors
    /// [`DialError`] with stage `resolve`.
    pub(super) async fn get(&self, shard: &Rc<Shard>, deadline: Instant) -> Result<Vec<IpAddr>, DialError> {
        let look_up = dial::resolve(shard, &self.target.host, DomainStrategy::Any, deadline);
        if self.target.host.ip().is_some() {
            return look_up.await;
        }
        let aged =
            self.found.borrow().get().is_some_and(|found| shard.clock.now().since(found.at) > LIFETIME);
        if aged {
            self.forget();
        }
        let cell = Rc::clone(&self.found.borrow());
        let found = cell
            .get_or_try_init(|| async {
                let addresses = look_up.await?;
                Ok(Found { at: shard.clock.now(), addresses })
            })
            .await?;
        Ok(found.addresses.clone())
    }

    /// Looks up again the next time.
    pub(super) fn forget(&self) {
        *self.found.borrow_mut() = Rc::default();
    }
}
