//! A change of the network below: what it ends, and what it gives another chance.

use super::api::{Event, NetworkInfo};
use super::shard::Shard;
use super::workers::Workers;
use crate::config::LogLevel;
use std::net::IpAddr;
use std::time::Duration;

/// How long changes gather: operating systems report a switch in several steps.
pub(super) const DEBOUNCE: Duration = Duration::from_millis(250);

/// Takes up the network that the host has described; `None`: there is none. `known` is the last one that there was: it may
/// come back, and what was connected over it lives on until another one is there. The other shards follow.
pub(super) fn take_up(
    shard: &Shard,
    workers: &Workers,
    known: &mut Option<NetworkInfo>,
    network: Option<NetworkInfo>,
) {
    if *shard.network.borrow() == network && network.is_some() {
        return;
    }
    shard.host.set_network(network.clone());
    workers.network_changed(known.as_ref(), network.as_ref());
    follow(shard, known.as_ref(), network.clone());
    shard.health.network_changed(network.is_some());
    let Some(network) = network else {
        return shard.shared.log(LogLevel::Info, format_args!("no network"));
    };
    *known = Some(network.clone());
    shard.shared.emit(Event::NetworkChanged(network));
}

/// What a change means for one shard: its own connections and what its outbounds have learned. `old` is the last network
/// that there was.
pub(super) fn follow(shard: &Shard, old: Option<&NetworkInfo>, network: Option<NetworkInfo>) {
    shard.network.replace(network.clone());
    shard.resolver.clear();
    shard.live().outbounds.iter().for_each(|outbound| outbound.network_changed());
    if let (Some(old), Some(network)) = (old, network) {
        let closed = shard.connections.close_where(|local| is_dead(local, old, &network));
        shard
            .shared
            .log(LogLevel::Info, format_args!("the network has changed; connections closed: {closed}"));
    }
}

/// Whether a connection that is bound to our address `local`, if that is known, has lost its path.
fn is_dead(local: Option<IpAddr>, old: &NetworkInfo, new: &NetworkInfo) -> bool {
    match local {
        Some(local) if local.is_loopback() || new.addresses.contains(&local) => false,
        Some(local) if old.addresses.contains(&local) && !new.addresses.is_empty() => true,
        _ => leaves_nothing(old, new),
    }
}

/// Whether no connection made over `old` can live on: none of our addresses on it is left. What is not known to be bound
/// to an address that went away beside others may live; TCP finds out for itself within 30 s.
fn leaves_nothing(old: &NetworkInfo, new: &NetworkInfo) -> bool {
    if old.addresses.is_empty() || new.addresses.is_empty() {
        return old.id != new.id;
    }
    !old.addresses.iter().any(|address| new.addresses.contains(address))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::Network;
    use crate::engine::connections::{Connection, Opening};
    use crate::transport::testing::shard;
    use std::task::{Context, Waker};

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

    #[test]
    fn a_connection_dies_with_the_address_that_it_is_bound_to() {
        let (old, new) =
            (network(1, &["192.168.1.2", "2001:db8::1"]), network(1, &["192.168.1.2", "2001:db8::2"]));
        let dead = |local: &str, new: &NetworkInfo| is_dead(local.parse().ok(), &old, new);
        assert!(dead("2001:db8::1", &new), "a temporary address has gone");
        assert!(!dead("192.168.1.2", &new));
        assert!(!dead("unknown", &new));
        let other = network(2, &["10.0.0.9"]);
        assert!(dead("192.168.1.2", &other) && dead("192.168.7.7", &other) && dead("unknown", &other));
        assert!(!dead("127.0.0.1", &other), "no network is below the loopback");
        assert!(!dead("192.168.1.2", &network(1, &[])), "the same network, less well described");
    }

    #[tokio::test]
    async fn a_network_in_between_that_is_none_hides_no_change() {
        let shard = shard();
        let opening = Opening {
            network: Network::Tcp,
            source: ([10, 0, 0, 1], 5).into(),
            target: std::net::SocketAddr::from(([192, 0, 2, 1], 443)).into(),
            inbound: "tun".into(),
            outbound: "proxy".into(),
            accepted: shard.clock.now(),
            tally: Default::default(),
        };
        let connection = shard.connections.register(&shard.shared, opening);
        let closed = || poll_immediate(&connection);
        let none = Workers::start([]).expect("no thread");
        let (wifi, mut known) = (network(1, &["192.168.1.2"]), None);
        take_up(&shard, &none, &mut known, Some(wifi.clone()));
        take_up(&shard, &none, &mut known, None);
        take_up(&shard, &none, &mut known, Some(wifi));
        assert!(!closed(), "the same one has come back");
        take_up(&shard, &none, &mut known, None);
        take_up(&shard, &none, &mut known, Some(network(2, &["10.0.0.9"])));
        assert!(closed());
    }

    fn poll_immediate(connection: &Connection) -> bool {
        connection.poll_closed(&mut Context::from_waker(Waker::noop())).is_ready()
    }
}
