//! What one inbound hands out of another (`detour`): a port and an account for each user, by e-mail.
//!
//! The other inbound may be one whose ports change (`allocate`); then each port has accounts of its own, and what is handed
//! out is good until the next ports are taken.

use crate::config::{Config, DefaultUser, InboundProtocol, VmessClient, VmessInbound};
use crate::engine::gates::SharedGate;
use crate::engine::shared::Shared;
use crate::entropy::Entropy;
use crate::vmess::Id;
use crate::vmess::command::SwitchAccount;
use crate::vmess::gate::{User, Users, check_legacy_tags};
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::task::spawn_blocking;
use tokio::time::Instant;

/// How many accounts one port has at most; users beyond get none.
const ACCOUNTS: usize = 1 << 16;
/// To how many users one more is added at once, which prepares nobody else's keys but copies them: 0.1 ms.
const AT_ONCE: usize = 1024;
/// For how many minutes an account is good whose port stays: what V2Ray's server says, 9999, in one byte.
const FOR_GOOD: u64 = 255;

/// What the inbounds of an instance have to hand out, by tag; all shards share it. Its lock is taken once a connection, and
/// only where a `detour` is configured.
#[derive(Debug, Default)]
pub(crate) struct Offers(Mutex<HashMap<Arc<str>, Offer>>);

/// What one inbound hands out.
#[derive(Debug)]
struct Offer {
    default: DefaultUser,
    /// When the ports are followed by others; `None`: they stay.
    next: Option<Instant>,
    doors: Vec<Door>,
}

/// One gate and the ports in front of it.
#[derive(Debug)]
pub(crate) struct Door {
    ports: (u16, u16),
    gate: Arc<SharedGate>,
    /// The users that `by_email` was made from.
    users: Arc<Users>,
    /// The places of users by their e-mails, in lower case.
    by_email: HashMap<String, usize>,
    /// E-mails of those who are being added.
    coming: HashSet<Arc<str>>,
}

impl Offers {
    /// From now on the inbound hands these doors out, until others follow at `next`.
    pub(crate) fn put(&self, tag: &Arc<str>, default: DefaultUser, next: Option<Instant>, doors: Vec<Door>) {
        let offer = Offer { default, next, doors };
        self.lock().insert(Arc::clone(tag), offer);
    }

    /// Forgets the inbounds that no `detour` of the config names any more.
    pub(crate) fn retain(&self, config: &Config) {
        self.lock().retain(|tag, _| is_offered(config, tag));
    }

    /// What a user of another inbound gets of the one with this tag: its account there, if it has one, else one that is
    /// made for it. `None` if there is nothing to hand out, or not yet: where an account takes long to make, since a table
    /// of legacy signatures or many users' keys belong to it, that is done on another thread, and the user's next
    /// connection is told.
    pub(crate) fn hand_out(
        &self,
        shared: &Arc<Shared>,
        tag: &str,
        email: &str,
        entropy: &mut dyn Entropy,
    ) -> Option<SwitchAccount> {
        let mut offers = self.lock();
        let offer = offers.get_mut(tag)?;
        let valid_minutes = offer.minutes();
        let picked = entropy.below(u32::try_from(offer.doors.len()).ok().filter(|len| *len > 0)?);
        let default = offer.default;
        let door = offer.doors.get_mut(picked as usize)?;
        let user = door.user(shared, email, default, entropy)?;
        Some(SwitchAccount {
            host: None,
            port: door.port(entropy),
            id: user.id.clone(),
            alter_ids: user.alter_id,
            level: u8::try_from(user.level).unwrap_or(u8::MAX),
            valid_minutes,
        })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Arc<str>, Offer>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Offer {
    /// For how many minutes what is handed out now is good, as V2Ray counts them: one that has begun counts whole. The ports stay open for as long again.
    fn minutes(&self) -> u8 {
        let left = self.next.map(|next| next.saturating_duration_since(Instant::now()));
        let minutes = left.map_or(FOR_GOOD, |left| left.as_secs().div_ceil(60));
        minutes.clamp(1, FOR_GOOD) as u8
    }
}

impl Door {
    /// A gate and the first and the last port in front of it.
    pub(crate) fn new(ports: (u16, u16), gate: Arc<SharedGate>) -> Self {
        let users = gate.users();
        let by_email = index(&users);
        Self { ports, gate, users, by_email, coming: HashSet::new() }
    }

    fn port(&self, entropy: &mut dyn Entropy) -> u16 {
        let (first, last) = self.ports;
        let drawn = entropy.below(u32::from(last.saturating_sub(first)) + 1);
        first.saturating_add(u16::try_from(drawn).unwrap_or(0))
    }

    /// The user with an e-mail; made if there is none. `None` while that is being done, and if there are too many.
    fn user(
        &mut self,
        shared: &Arc<Shared>,
        email: &str,
        default: DefaultUser,
        entropy: &mut dyn Entropy,
    ) -> Option<User> {
        let users = self.gate.users();
        // They come and go through the interface too.
        if !Arc::ptr_eq(&users, &self.users) {
            self.by_email = index(&users);
            self.users = users;
            self.coming.clear();
        }
        let email = email.to_lowercase();
        if let Some(user) = self.by_email.get(&email).and_then(|at| self.users.get(*at)) {
            return Some(user.clone());
        }
        if self.users.len() + self.coming.len() >= ACCOUNTS || self.coming.contains(&*email) {
            return None;
        }
        let user = User {
            id: new_id(entropy),
            alter_id: default.alter_id,
            level: default.level,
            email: email.as_str().into(),
            no_termination_signal: false,
        };
        if user.alter_id == 0 && self.users.len() < AT_ONCE {
            return add(shared, &self.gate, user);
        }
        self.coming.insert(Arc::clone(&user.email));
        let (shared, gate) = (Arc::clone(shared), Arc::clone(&self.gate));
        spawn_blocking(move || add(&shared, &gate, user));
        None
    }
}

/// Adds a user to a gate, unless it has one with the same e-mail, which has come in between. Returns the one that it has
/// then.
fn add(shared: &Shared, gate: &SharedGate, mut user: User) -> Option<User> {
    shared.users.change(|| {
        let users = gate.users();
        if let Some(known) = users.iter().find(|known| known.email.to_lowercase() == *user.email) {
            return Some(known.clone());
        }
        let alter_ids = users.iter().chain([&user]).map(|user| user.alter_id);
        if check_legacy_tags(alter_ids, gate.legacy_tag_limit()).is_err() {
            // Every server takes the other header of everybody.
            user.alter_id = 0;
        }
        gate.set_users(users.iter().chain([&user]).cloned().collect());
        Some(user)
    })
}

/// Whether a `detour` of the config names an inbound with this tag.
pub(crate) fn is_offered(config: &Config, tag: &str) -> bool {
    !tag.is_empty() && detours_to(config, tag).next().is_some()
}

/// The accounts that a port begins with: those that the config names, and one for each user who will be told of it. Making
/// them one by one when they are asked for would prepare the others' keys each time.
pub(crate) fn accounts(
    config: &Config,
    tag: &str,
    settings: &VmessInbound,
    entropy: &mut dyn Entropy,
) -> Vec<VmessClient> {
    let mut clients = settings.clients.clone();
    let configured = clients.len();
    let mut known: HashMap<String, ()> =
        clients.iter().map(|client| (client.email.to_lowercase(), ())).collect();
    for client in detours_to(config, tag).flat_map(|inbound| &inbound.clients) {
        let email = client.email.to_lowercase();
        if clients.len() < ACCOUNTS && known.insert(email.clone(), ()).is_none() {
            clients.push(VmessClient {
                id: new_id(entropy),
                alter_id: settings.default.alter_id,
                level: settings.default.level,
                email,
                no_termination_signal: false,
            });
        }
    }
    // All ports that are open at a time share the limit, each being followed before it is closed.
    let ports = settings.allocate.map_or(1, |allocate| 2 * allocate.concurrency as usize);
    let limit = config.vmesskit.legacy_tag_limit / ports.max(1);
    if check_legacy_tags(clients.iter().map(|client| client.alter_id), limit).is_err() {
        clients.iter_mut().skip(configured).for_each(|client| client.alter_id = 0);
    }
    clients
}

fn detours_to<'a>(config: &'a Config, tag: &'a str) -> impl Iterator<Item = &'a VmessInbound> {
    config.inbounds.iter().filter_map(move |inbound| match &inbound.protocol {
        InboundProtocol::Vmess(settings) if settings.detour.as_deref() == Some(tag) => Some(settings),
        _ => None,
    })
}

fn index(users: &Users) -> HashMap<String, usize> {
    // Of several with one e-mail, which only the empty one can be, the first counts.
    let places = users.iter().enumerate().rev();
    places.map(|(at, user)| (user.email.to_lowercase(), at)).collect()
}

fn new_id(entropy: &mut dyn Entropy) -> Id {
    let mut id = [0; 16];
    entropy.fill(&mut id);
    Id::from_bytes(id)
}

#[cfg(test)]
mod tests;
