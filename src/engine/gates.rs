//! The gates of an instance's VMess inbounds: made once, and shared by every shard that listens for them.

use super::shard::Shard;
use super::users::UserTable;
use crate::config::{Config, InboundProtocol, VmessClient, VmessInbound};
use crate::time::Moment;
use crate::vmess::gate::{Gate, GateLimits, User, Users};
use std::ops::Deref;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};

/// Seconds for which auth ids are good, and more.
const MEMORY: i64 = 300;
/// How many limits of an inbound there are to tell.
const LIMITS: usize = 5;
/// From how long on an advance of the legacy signatures is done on another thread: flows wait for it else.
const LONG_ADVANCE: Duration = Duration::from_millis(2);

/// A gate, and word of its changes. It is the [`Gate`] in all but the change of its users.
#[derive(Debug)]
pub(crate) struct SharedGate {
    gate: Gate,
    legacy_tags: usize,
    changed: Notify,
    /// Whether nobody listens at it any more.
    closed: AtomicBool,
    /// When each limit was last told, whichever shard reached it.
    told: Mutex<[Option<Moment>; LIMITS]>,
}

impl SharedGate {
    /// Swaps the users, on every shard at once. What is remembered of those who stay, stays.
    pub(crate) fn set_users(&self, users: Users) {
        self.gate.set_users(users);
        self.changed.notify_one();
    }

    /// Whether a limit is to be told now: once in `every`.
    pub(crate) fn is_news(&self, limit: usize, now: Moment, every: Duration) -> bool {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(told) = told.get_mut(limit) else { return false };
        let news = told.is_none_or(|told| now.since(told) >= every);
        if news {
            *told = Some(now);
        }
        news
    }

    fn close(&self) {
        self.closed.store(true, Relaxed);
        self.changed.notify_one();
    }
}

impl UserTable for SharedGate {
    fn users(&self) -> Vec<VmessClient> {
        let client = |user: &User| VmessClient {
            id: user.id.clone(),
            alter_id: user.alter_id,
            level: user.level,
            email: user.email.as_ref().to_owned(),
            no_termination_signal: user.no_termination_signal,
        };
        self.gate.users().iter().map(client).collect()
    }

    fn set_users(&self, clients: Vec<VmessClient>) {
        Self::set_users(self, users(&clients));
    }

    fn legacy_tag_limit(&self) -> usize {
        self.legacy_tags
    }
}

impl Deref for SharedGate {
    type Target = Gate;

    fn deref(&self) -> &Gate {
        &self.gate
    }
}

/// The gates that are open, by inbound.
#[derive(Debug, Default)]
pub(crate) struct Gates {
    open: Mutex<Vec<Entry>>,
}

#[derive(Debug)]
struct Entry {
    tag: Arc<str>,
    settings: VmessInbound,
    gate: Arc<SharedGate>,
}

impl Gates {
    /// The gate of an inbound: the one that another shard, or the inbound before a reload, has made, else a new one. What
    /// came to its users through the interface stays until the config names other ones.
    pub(crate) fn open(&self, shard: &Rc<Shard>, tag: &Arc<str>, settings: &VmessInbound) -> Arc<SharedGate> {
        self.open_since(shard, tag, settings, shard.clock.unix_secs())
    }

    /// The same for a gate of which all ids are new: no auth id can have been used before it was made, so that it takes
    /// those of clients whose clocks are slow at once.
    pub(crate) fn open_new(
        &self,
        shard: &Rc<Shard>,
        tag: &Arc<str>,
        settings: &VmessInbound,
    ) -> Arc<SharedGate> {
        self.open_since(shard, tag, settings, shard.clock.unix_secs().saturating_sub(MEMORY))
    }

    fn open_since(
        &self,
        shard: &Rc<Shard>,
        tag: &Arc<str>,
        settings: &VmessInbound,
        started: i64,
    ) -> Arc<SharedGate> {
        let mut open = self.lock();
        let same = |entry: &&mut Entry| entry.tag == *tag && entry.settings.listen == settings.listen;
        if let Some(entry) = open.iter_mut().find(same) {
            if entry.settings.clients != settings.clients {
                entry.gate.set_users(users(&settings.clients));
            }
            entry.settings = settings.clone();
            return Arc::clone(&entry.gate);
        }
        let legacy_tags = shard.live().config.vmesskit.legacy_tag_limit;
        let limits = GateLimits { legacy_tags, ..GateLimits::default() };
        let gate =
            shard.with_entropy(|entropy| Gate::new(users(&settings.clients), limits, started, entropy));
        let closed = AtomicBool::new(false);
        let (changed, told) = (Notify::new(), Mutex::default());
        let gate = Arc::new(SharedGate { gate, legacy_tags, changed, closed, told });
        open.push(Entry { tag: Arc::clone(tag), settings: settings.clone(), gate: Arc::clone(&gate) });
        if settings.allocate.is_none() {
            shard.shared.users.put(tag, Arc::clone(&gate) as Arc<dyn UserTable>);
        }
        shard.spawn(keep_up(Rc::clone(shard), Arc::clone(&gate)));
        gate
    }

    /// Whether the inbound with this tag has a gate.
    #[cfg(test)]
    pub(crate) fn has(&self, tag: &str) -> bool {
        self.lock().iter().any(|entry| *entry.tag == *tag)
    }

    /// Forgets the gate of a port that is closed.
    pub(crate) fn close(&self, tag: &str, settings: &VmessInbound) {
        self.lock().retain(|entry| {
            let stays = *entry.tag != *tag || entry.settings.listen != settings.listen;
            if !stays {
                entry.gate.close();
            }
            stays
        });
    }

    /// Forgets the gates of inbounds that the config does not have any more.
    pub(crate) fn retain(&self, config: &Config) {
        self.lock().retain(|entry| {
            let stays = config.inbounds.iter().any(|inbound| match &inbound.protocol {
                InboundProtocol::Vmess(settings) => {
                    inbound.tag == entry.tag
                        && (settings.listen == entry.settings.listen || settings.allocate.is_some())
                }
                _ => false,
            });
            if !stays {
                entry.gate.close();
            }
            stays
        });
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Entry>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Prepares the users that a config names.
fn users(clients: &[VmessClient]) -> Users {
    let user = |client: &VmessClient| User {
        id: client.id.clone(),
        alter_id: client.alter_id,
        level: client.level,
        email: client.email.as_str().into(),
        no_termination_signal: client.no_termination_signal,
    };
    Users::new(clients.iter().map(user).collect())
}

/// Keeps a gate's legacy signatures up to the time, for as long as it is open. Without legacy users it sleeps.
async fn keep_up(shard: Rc<Shard>, gate: Arc<SharedGate>) {
    let mut took = Duration::MAX;
    while !gate.closed.load(Relaxed) {
        let Some(due) = gate.next_advance() else {
            gate.changed.notified().await;
            continue;
        };
        let wait = due.saturating_mul(1000).saturating_sub(shard.clock.unix_millis());
        if let Ok(millis @ 1..) = u64::try_from(wait) {
            tokio::select! {
                () = sleep(Duration::from_millis(millis)) => {}
                () = gate.changed.notified() => took = Duration::MAX,
            }
            continue;
        }
        let now = shard.clock.unix_secs();
        let began = Instant::now();
        if took < LONG_ADVANCE {
            gate.advance(now);
        } else {
            let gate = Arc::clone(&gate);
            // It fails only when the instance ends.
            let _ = tokio::task::spawn_blocking(move || gate.advance(now)).await;
        }
        took = began.elapsed();
    }
}
