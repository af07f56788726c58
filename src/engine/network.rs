//! A change of the network below: what it ends, and what it gives another chance.

use super::api::{Event, NetworkInfo};
use super::shard::Shard;
use crate::config::LogLevel;
use std::time::Duration;

/// How long changes gather: operating systems report a switch in several steps.
pub(super) const DEBOUNCE: Duration = Duration::from_millis(250);

/// Takes up the network that the host has described; `None`: there is none.
pub(super) fn take_up(shard: &Shard, network: Option<NetworkInfo>) {
    if *shard.network.borrow() == network && network.is_some() {
        return;
    }
    let old = shard.network.replace(network.clone());
    shard.host.set_network(network.clone());
    shard.resolver.clear();
    shard.live().outbounds.iter().for_each(|outbound| outbound.network_changed());
    shard.health.network_changed(network.is_some());
    let Some(network) = network else {
        return shard.shared.log(LogLevel::Info, format_args!("no network"));
    };
    if old.is_some_and(|old| leaves_nothing(&old, &network)) {
        let closed = shard.connections.close_all();
        shard.shared.log(LogLevel::Info, format_args!("another network; connections closed: {closed}"));
    }
    shard.shared.emit(Event::NetworkChanged(network));
}

/// Whether no connection made over `old` can live on: none of our addresses on it is left. A temporary address that went
/// away beside others says nothing: TCP finds out for itself within 30 s.
fn leaves_nothing(old: &NetworkInfo, new: &NetworkInfo) -> bool {
    if old.addresses.is_empty() || new.addresses.is_empty() {
        return old.id != new.id;
    }
    !old.addresses.iter().any(|address| new.addresses.contains(address))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(id: u64, addresses: &[&str]) -> NetworkInfo {
        let addresses = addresses.iter().map(|text| text.parse().expect("an address")).collect();
        NetworkInfo { id, addresses, ..NetworkInfo::default() }
    }

    #[test]
    fn only_a_path_without_its_addresses_is_dead() {
        let wifi = network(1, &["192.168.1.2", "2001:db8::1"]);
        assert!(!leaves_nothing(&wifi, &network(1, &["192.168.1.2", "2001:db8::2"])), "a temporary address");
        assert!(!leaves_nothing(&wifi, &network(2, &["192.168.1.2"])), "the address is still ours");
        assert!(leaves_nothing(&wifi, &network(2, &["10.0.0.9"])));
        assert!(leaves_nothing(&wifi, &network(1, &["10.0.0.9"])), "roamed");
        assert!(leaves_nothing(&network(1, &[]), &network(2, &[])));
        assert!(!leaves_nothing(&network(1, &[]), &network(1, &["10.0.0.9"])), "details came late");
    }
}
