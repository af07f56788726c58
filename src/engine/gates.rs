//! The gates of an instance's VMess inbounds: made once, and shared by every shard that listens for them.

use super::entropy::SystemEntropy;
use super::inbound::vmess::Homes;
use super::shard::Shard;
use super::users::{self, UserTable, UserTables};
use crate::config::{Config, Inbound, InboundProtocol, VmessClient, VmessInbound};
use crate::time::Moment;
use crate::vmess::gate::{Gate, GateLimits, REPLAY_ENTRY, User, Users};
use std::ops::Deref;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep};

/// Connections of which a gate remembers the auth ids at least, however little memory there is.
const LEAST_REPLAYS: usize = 1024;
/// Seconds for which auth ids are good, and more.
const MEMORY: i64 = 300;
/// How many limits of an inbound there are to tell.
const LIMITS: usize = 7;
/// From how long on an advance of the legacy signatures is done on another thread: flows wait for it else.
const LONG_ADVANCE: Duration = Duration::from_millis(2);

/// The longest that an advance is waited for: what is further away is a clock that has been set back.
const LONGEST_WAIT: i64 = 10_000;

/// A gate, and word of its changes. It is the [`Gate`] in all but the change of its users.
#[derive(Debug)]
pub(crate) struct SharedGate {
    gate: Gate,
    changed: Notify,
    /// Whether nobody listens at it any more.
    closed: AtomicBool,
    /// Where its clients' named UDP sources live.
    pub(crate) homes: Homes,
    /// When each limit was last told, whichever shard reached it.
    told: Mutex<[Option<Moment>; LIMITS]>,
}

impl SharedGate {
    /// Swaps the users, on every shard at once. What is remembered of those who stay, stays.
    pub(crate) fn set_users(&self, users: Vec<User>) {
        self.gate.set_users(Users::after(users, &self.gate.users()));
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
    fn users(&self) -> Vec<User> {
        self.gate.users().iter().cloned().collect()
    }

    fn set_users(&self, users: Vec<User>) {
        Self::set_users(self, users);
    }

    fn legacy_tag_limit(&self) -> usize {
        self.gate.legacy_tag_limit()
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
    /// Bytes that all of them together may remember replays in; 0: as many as they like.
    replay_bytes: AtomicUsize,
}

#[derive(Debug)]
struct Entry {
    tag: Arc<str>,
    settings: VmessInbound,
    gate: Arc<SharedGate>,
}

impl Gates {
    /// Sets how many bytes all gates together may remember replays in. Those that are open keep their limits until
    /// [`Gates::follow`].
    pub(crate) fn set_replay_bytes(&self, bytes: usize) {
        self.replay_bytes.store(bytes, Relaxed);
    }

    /// The limits of each gate of a config: an equal part of the memory for each port that may be open, a quarter of that
    /// for one user.
    pub(crate) fn limits(&self, config: &Config) -> GateLimits {
        let ports = config.inbounds.iter().map(|inbound| match &inbound.protocol {
            InboundProtocol::Vmess(VmessInbound { allocate: None, .. }) => 1,
            // Those that are followed by others are open for as long again.
            InboundProtocol::Vmess(VmessInbound { allocate: Some(allocate), .. }) => {
                2 * allocate.concurrency as usize
            }
            _ => 0,
        });
        let most = GateLimits { legacy_tags: config.vmesskit.legacy_tag_limit, ..GateLimits::default() };
        let replay_entries = match self.replay_bytes.load(Relaxed) {
            0 => return most,
            bytes => bytes / REPLAY_ENTRY / ports.sum::<usize>().max(1),
        };
        let replay_entries = replay_entries.clamp(LEAST_REPLAYS, most.replay_entries);
        GateLimits { replay_entries, replay_per_user: replay_entries / 4, ..most }
    }

    /// Makes the gate of an inbound that is about to be opened, unless it has one, on another thread: it takes what
    /// [`Gate::new`] takes. Where `all_new` ids have just been drawn, no auth id can have been used before, and those of
    /// clients whose clocks are slow are taken at once.
    pub(crate) async fn prepare(
        &self,
        shard: &Rc<Shard>,
        tag: &Arc<str>,
        settings: &VmessInbound,
        config: &Config,
        all_new: bool,
    ) {
        if self.find(tag, settings).is_some() {
            return;
        }
        let started = shard.clock.unix_secs().saturating_sub(if all_new { MEMORY } else { 0 });
        let (users, limits) = (users(&settings.clients), self.limits(config));
        let gate = spawn_blocking(move || make(users, limits, started)).await;
        // It fails only when the instance ends.
        if let Ok(gate) = gate {
            self.add(shard, tag, settings, gate);
        }
    }

    /// The gate of an inbound: the one that [`Gates::prepare`] has made, or another shard, or the inbound before a reload.
    pub(crate) fn open(&self, shard: &Rc<Shard>, tag: &Arc<str>, settings: &VmessInbound) -> Arc<SharedGate> {
        self.find(tag, settings).unwrap_or_else(|| {
            let limits = self.limits(&shard.live().config);
            let gate = make(users(&settings.clients), limits, shard.clock.unix_secs());
            self.add(shard, tag, settings, gate)
        })
    }

    fn find(&self, tag: &str, settings: &VmessInbound) -> Option<Arc<SharedGate>> {
        self.lock().iter().find(|entry| entry.is_of(tag, settings)).map(|entry| Arc::clone(&entry.gate))
    }

    /// Adds a gate, unless another shard was faster.
    fn add(
        &self,
        shard: &Rc<Shard>,
        tag: &Arc<str>,
        settings: &VmessInbound,
        gate: SharedGate,
    ) -> Arc<SharedGate> {
        let mut open = self.lock();
        if let Some(entry) = open.iter().find(|entry| entry.is_of(tag, settings)) {
            return Arc::clone(&entry.gate);
        }
        let gate = Arc::new(gate);
        open.push(Entry { tag: Arc::clone(tag), settings: settings.clone(), gate: Arc::clone(&gate) });
        drop(open);
        shard.spawn(keep_up(Rc::clone(shard), Arc::clone(&gate)));
        gate
    }

    /// Gives the gates that are open the users that a config names from now on; what came to them through the interface
    /// stays where it names the same ones as before. Takes what [`Gate::set_users`] takes: not for a thread that serves.
    pub(crate) fn follow(&self, config: &Config, tables: &UserTables) {
        let GateLimits { replay_entries, replay_per_user, .. } = self.limits(config);
        self.lock().iter().for_each(|entry| entry.gate.set_replay_limits(replay_entries, replay_per_user));
        for inbound in &config.inbounds {
            let InboundProtocol::Vmess(settings) = &inbound.protocol else { continue };
            tables.change(|| {
                let mut open = self.lock();
                let mine = |entry: &&mut Entry| entry.is_of(&inbound.tag, settings);
                let Some(entry) = open.iter_mut().find(mine) else { return };
                let gate = Arc::clone(&entry.gate);
                let before = std::mem::replace(&mut entry.settings, settings.clone());
                drop(open);
                gate.set_legacy_tag_limit(config.vmesskit.legacy_tag_limit);
                if before.clients != settings.clients {
                    gate.set_users(users(&settings.clients));
                }
            });
        }
    }

    /// The users of a config's inbounds that have a tag.
    pub(crate) fn tables(&self, config: &Config) -> Vec<users::Entry> {
        let open = self.lock();
        let table = |inbound: &Inbound| {
            let InboundProtocol::Vmess(settings) = &inbound.protocol else { return None };
            let table = if settings.allocate.is_some() {
                None
            } else {
                let entry = open.iter().find(|entry| entry.is_of(&inbound.tag, settings))?;
                Some(Arc::clone(&entry.gate) as Arc<dyn UserTable>)
            };
            Some((Arc::clone(&inbound.tag), table))
        };
        config.inbounds.iter().filter(|inbound| !inbound.tag.is_empty()).filter_map(table).collect()
    }

    /// Whether the inbound with this tag has a gate.
    #[cfg(test)]
    pub(crate) fn has(&self, tag: &str) -> bool {
        self.lock().iter().any(|entry| *entry.tag == *tag)
    }

    /// Forgets the gate of a port that is closed.
    pub(crate) fn close(&self, tag: &str, settings: &VmessInbound) {
        self.lock().retain(|entry| {
            let stays = !entry.is_of(tag, settings);
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
                    inbound.tag == entry.tag && (entry.is_at(settings) || settings.allocate.is_some())
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

impl Entry {
    fn is_of(&self, tag: &str, settings: &VmessInbound) -> bool {
        *self.tag == *tag && self.is_at(settings)
    }

    /// Whether it is the gate in front of the same place.
    fn is_at(&self, settings: &VmessInbound) -> bool {
        self.settings.listen == settings.listen && self.settings.unix() == settings.unix()
    }
}

fn make(users: Vec<User>, limits: GateLimits, started: i64) -> SharedGate {
    SharedGate {
        gate: Gate::new(Users::new(users), limits, started, &mut SystemEntropy::new()),
        changed: Notify::new(),
        closed: AtomicBool::new(false),
        homes: Homes::default(),
        told: Mutex::default(),
    }
}

/// The users that a config names.
fn users(clients: &[VmessClient]) -> Vec<User> {
    let user = |client: &VmessClient| User {
        id: client.id.clone(),
        alter_id: client.alter_id,
        level: client.level,
        email: client.email.as_str().into(),
        no_termination_signal: client.no_termination_signal,
    };
    clients.iter().map(user).collect()
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
        if let 1..=LONGEST_WAIT = wait {
            tokio::select! {
                () = sleep(Duration::from_millis(wait.unsigned_abs())) => {}
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
            let _ = spawn_blocking(move || gate.advance(now)).await;
        }
        took = began.elapsed();
    }
}
