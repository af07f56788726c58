//! The dialler: from a target to a connected TCP socket, outside the tunnel, within one deadline.
//!
//! A name is resolved by the host if it offers that, else by our own DNS client; its addresses are tried as RFC 8305
//! says. Every failure tells which stage failed, after how long, and why.

use super::eyeballs;
use super::protect::{self, SocketError, Wishes};
use crate::addr::{Host, Target};
use crate::config::DomainStrategy;
use crate::engine::Shard;
use crate::error::{Error, ErrorKind, Stage};
use std::borrow::Cow;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

/// The most that resolving and connecting may take together. The policy's `handshake` shortens it, never lengthens it:
/// a phone's user has given up by then, and four SYNs have gone unanswered.
pub(crate) const DEADLINE: Duration = Duration::from_secs(10);
/// The most addresses of one name that are tried.
const MAX_ADDRESSES: usize = 8;

/// Why a dial failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{error}")]
pub(crate) struct DialError {
    /// For events, logs and the status.
    pub(crate) error: Error,
    /// What the operating system said of the last stage, as far as it did.
    pub(crate) kind: io::ErrorKind,
}

impl DialError {
    /// A failure of `stage`, `started` ago. The texts name no host.
    pub(crate) fn new(
        stage: Stage,
        kind: io::ErrorKind,
        started: Instant,
        reason: impl fmt::Display,
    ) -> Self {
        let (step, hint) = match stage {
            Stage::Resolve => ("its name could not be resolved", "check the address and the network's DNS"),
            Stage::Connect => {
                ("it could not be connected", "check the address and port, and that the server runs")
            }
            Stage::Tls => ("the TLS handshake failed", ""),
            Stage::Upgrade => ("the upgrade failed", ""),
            Stage::Vmess => ("it does not answer", ""),
        };
        let seconds = started.elapsed().as_secs_f32();
        let error =
            Error::new(ErrorKind::ServerUnreachable { stage }, format!("{step} (after {seconds:.1} s)"))
                .with_hint(hint)
                .with_reason(reason.to_string());
        Self { error, kind }
    }

    /// A failure that is no server's.
    pub(crate) fn refused(error: Error) -> Self {
        Self { error, kind: io::ErrorKind::Other }
    }

    /// A failure of making or connecting a socket.
    pub(crate) fn socket(error: SocketError, started: Instant) -> Self {
        match error {
            SocketError::Io { kind, text } => Self::new(Stage::Connect, kind, started, text),
            other => Self::refused(other.into()),
        }
    }
}

/// Resolves and connects `target`.
///
/// # Errors
/// [`DialError`]: `ServerUnreachable` with its stage, `ProtectFailed` or `ResourceLimit`.
pub(crate) async fn tcp(
    shard: &Rc<Shard>,
    target: &Target,
    strategy: DomainStrategy,
    wishes: &Wishes,
    deadline: Instant,
) -> Result<TcpStream, DialError> {
    let addresses = resolve(shard, &target.host, strategy, deadline).await?;
    tcp_addresses(shard, &addresses, target.port, wishes, deadline).await
}

/// Connects to the first of `addresses` that answers.
///
/// # Errors
/// [`DialError`] of the attempt that failed first.
pub(crate) async fn tcp_addresses(
    shard: &Rc<Shard>,
    addresses: &[IpAddr],
    port: u16,
    wishes: &Wishes,
    deadline: Instant,
) -> Result<TcpStream, DialError> {
    let started = Instant::now();
    let remotes: Vec<SocketAddr> = addresses.iter().map(|ip| SocketAddr::new(*ip, port)).collect();
    let mut wishes = Cow::Borrowed(wishes);
    if remotes.len() > 1 && wishes.options.tcp_fast_open.is_some() {
        // A connect that waits for payload says nothing of who answers first.
        wishes.to_mut().options.tcp_fast_open = None;
    }
    let attempts = eyeballs::race(&remotes, |remote| protect::tcp_connect(shard, remote, &wishes));
    match timeout_at(deadline, attempts).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(Some(error))) => Err(DialError::socket(error, started)),
        Ok(Err(None)) => Err(DialError::new(
            Stage::Connect,
            io::ErrorKind::NetworkUnreachable,
            started,
            "no address is usable",
        )),
        Err(_) => Err(DialError::new(Stage::Connect, io::ErrorKind::TimedOut, started, "no answer")),
    }
}

/// The addresses to try for `host`, in order, fit for the network below: 1 to 8 of them.
///
/// # Errors
/// [`DialError`] with stage `resolve`.
pub(crate) async fn resolve(
    shard: &Rc<Shard>,
    host: &Host,
    strategy: DomainStrategy,
    deadline: Instant,
) -> Result<Vec<IpAddr>, DialError> {
    let started = Instant::now();
    let found = match host {
        Host::Ip(ip) => vec![*ip],
        Host::Domain(name) => match timeout_at(deadline, look_up(shard, name)).await {
            Ok(Ok(addresses)) => addresses,
            // The host's refusal, a limit or the end of the tunnel are no fault of the name.
            Ok(Err(error))
                if !matches!(error.kind, ErrorKind::ServerUnreachable { .. } | ErrorKind::Timeout { .. }) =>
            {
                return Err(DialError::refused(error));
            }
            Ok(Err(error)) => {
                let reason = if error.reason.is_empty() { error.text } else { error.reason };
                return Err(DialError::new(Stage::Resolve, io::ErrorKind::HostUnreachable, started, reason));
            }
            Err(_) => {
                return Err(DialError::new(Stage::Resolve, io::ErrorKind::TimedOut, started, "no answer"));
            }
        },
    };
    let strategy = if host.ip().is_some() { DomainStrategy::Any } else { strategy };
    let mut usable = fit(shard, found, strategy);
    if usable.is_empty() {
        let reason = "the name has no address of a usable family";
        return Err(DialError::new(Stage::Resolve, io::ErrorKind::HostUnreachable, started, reason));
    }
    usable = eyeballs::interleave(&usable);
    usable.truncate(MAX_ADDRESSES);
    Ok(usable)
}

async fn look_up(shard: &Rc<Shard>, name: &str) -> Result<Vec<IpAddr>, Error> {
    match shard.host.resolve(name).await {
        Some(answer) => answer,
        None => shard.resolver.lookup(shard, name).await,
    }
}

/// Leaves out what the strategy or the network rules out, and reaches IPv4 through NAT64 where the network says so.
///
/// When the network's own word would leave nothing, it is not believed.
fn fit(shard: &Rc<Shard>, found: Vec<IpAddr>, strategy: DomainStrategy) -> Vec<IpAddr> {
    let wanted: Vec<IpAddr> = found
        .into_iter()
        .filter(|ip| match strategy {
            DomainStrategy::Any => true,
            DomainStrategy::Ipv4 => ip.is_ipv4(),
            DomainStrategy::Ipv6 => ip.is_ipv6(),
        })
        .collect();
    let network = shard.network.borrow();
    let Some(network) = network.as_ref() else { return wanted };
    let reachable: Vec<IpAddr> = wanted
        .iter()
        .filter_map(|ip| match (ip, network.nat64_prefix) {
            _ if ip.is_loopback() => Some(*ip),
            (IpAddr::V4(v4), Some(IpAddr::V6(prefix))) if !network.has_v4 => {
                let mut octets = prefix.octets();
                octets[12..].copy_from_slice(&v4.octets());
                Some(IpAddr::from(octets))
            }
            (IpAddr::V4(_), _) => network.has_v4.then_some(*ip),
            (IpAddr::V6(_), _) => network.has_v6.then_some(*ip),
        })
        .collect();
    if reachable.is_empty() { wanted } else { reachable }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::api::NetworkInfo;
    use crate::transport::testing::shard;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("literal")
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(2)
    }

    #[tokio::test]
    async fn a_literal_needs_no_resolver_and_ignores_the_strategy() {
        let found = resolve(&shard(), &Host::Ip(ip("192.0.2.1")), DomainStrategy::Ipv6, soon()).await;
        assert_eq!(found, Ok(vec![ip("192.0.2.1")]));
    }

    #[tokio::test]
    async fn the_networks_families_are_respected_but_never_leave_nothing() {
        let shard = shard();
        let both = vec![ip("2001:db8::1"), ip("192.0.2.1")];
        let only_v4 = NetworkInfo { has_v4: true, ..NetworkInfo::default() };
        *shard.network.borrow_mut() = Some(only_v4);
        assert_eq!(fit(&shard, both.clone(), DomainStrategy::Any), [ip("192.0.2.1")]);
        assert_eq!(fit(&shard, both.clone(), DomainStrategy::Ipv6), [ip("2001:db8::1")]);
        let nat64 =
            NetworkInfo { has_v6: true, nat64_prefix: Some(ip("64:ff9b::")), ..NetworkInfo::default() };
        *shard.network.borrow_mut() = Some(nat64);
        assert_eq!(fit(&shard, both, DomainStrategy::Ipv4), [ip("64:ff9b::c000:201")]);
        assert_eq!(fit(&shard, vec![ip("127.0.0.1")], DomainStrategy::Any), [ip("127.0.0.1")]);
    }

    #[tokio::test]
    async fn a_refused_connect_says_stage_time_and_reason() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
        let target = Target::from(listener.local_addr().expect("address"));
        drop(listener);
        let failed = tcp(&shard(), &target, DomainStrategy::Any, &Wishes::default(), soon())
            .await
            .expect_err("nobody listens");
        assert_eq!(failed.kind, io::ErrorKind::ConnectionRefused);
        assert_eq!(failed.error.kind, ErrorKind::ServerUnreachable { stage: Stage::Connect });
        assert!(
            failed.error.text.contains("after 0.") && failed.error.reason.contains("refused"),
            "{failed}"
        );
    }

    #[tokio::test]
    async fn a_connect_that_nobody_answers_ends_at_the_deadline() {
        // A listener whose queue is full leaves SYNs unanswered.
        let socket =
            socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("socket");
        socket.bind(&"127.0.0.1:0".parse::<SocketAddr>().expect("literal").into()).expect("bind");
        socket.listen(0).expect("listen");
        let addr = socket.local_addr().expect("address").as_socket().expect("ip");
        let shard = shard();
        let mut held = Vec::new();
        for _ in 0..4 {
            let deadline = Instant::now() + Duration::from_millis(150);
            match tcp(&shard, &addr.into(), DomainStrategy::Any, &Wishes::default(), deadline).await {
                Ok(stream) => held.push(stream),
                Err(failed) => {
                    assert_eq!(
                        (failed.kind, failed.error.reason.as_ref()),
                        (io::ErrorKind::TimedOut, "no answer")
                    );
                    return;
                }
            }
        }
        panic!("{} connections through a full queue", held.len());
    }
}
