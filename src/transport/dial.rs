//! The dialler: from a target to a connected TCP socket, outside the tunnel, within one deadline.
//!
//! A name is resolved by the host if it offers that, else by our own DNS client; its addresses are tried as RFC 8305
//! says. Every failure tells which stage failed, after how long, and why.

use super::eyeballs;
use super::nat64::{self, Prefix};
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
/// How long a dial waits to learn how its network has IPv4.
const PREFIX_PATIENCE: Duration = Duration::from_secs(2);
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
    let given = shard.network.borrow().as_ref().and_then(|network| Prefix::of_96(network.nat64_prefix?));
    let mut usable = fit(shard, &found, strategy, given);
    if given.is_none()
        && needs_nat64(shard, &usable)
        && let Some(prefix) = learn_prefix(shard, deadline).await
    {
        usable = fit(shard, &found, strategy, Some(prefix));
    }
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

/// Whether nothing but IPv4 is at hand on a network that has IPv6 alone.
fn needs_nat64(shard: &Shard, usable: &[IpAddr]) -> bool {
    let v6_alone = shard.network.borrow().as_ref().is_some_and(|network| network.has_v6 && !network.has_v4);
    v6_alone && usable.iter().all(|ip| ip.is_ipv4() && !ip.is_loopback())
}

/// Asks for the prefix behind which the network has IPv4. The resolver remembers what it was told, and that it was told
/// nothing, until the network is another one.
async fn learn_prefix(shard: &Rc<Shard>, deadline: Instant) -> Option<Prefix> {
    let within = deadline.min(Instant::now() + PREFIX_PATIENCE);
    let answers = timeout_at(within, look_up(shard, nat64::NAME)).await.ok()?.ok()?;
    Prefix::learn(&answers)
}

/// Leaves out what the strategy or the network rules out, and reaches IPv4 through NAT64 where the network has it.
///
/// When the network's own word would leave nothing, it is not believed.
fn fit(shard: &Shard, found: &[IpAddr], strategy: DomainStrategy, nat64: Option<Prefix>) -> Vec<IpAddr> {
    let wanted: Vec<IpAddr> = found
        .iter()
        .copied()
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
        .filter_map(|ip| match (ip, nat64) {
            _ if ip.is_loopback() => Some(*ip),
            (IpAddr::V4(v4), Some(prefix)) if !network.has_v4 => Some(prefix.synthesize(*v4).into()),
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
        assert_eq!(fit(&shard, &both, DomainStrategy::Any, None), [ip("192.0.2.1")]);
        assert_eq!(fit(&shard, &both, DomainStrategy::Ipv6, None), [ip("2001:db8::1")]);
        let only_v6 = NetworkInfo { has_v6: true, ..NetworkInfo::default() };
        *shard.network.borrow_mut() = Some(only_v6);
        let prefix = Prefix::of_96(ip("64:ff9b::"));
        assert_eq!(fit(&shard, &both, DomainStrategy::Ipv4, prefix), [ip("64:ff9b::c000:201")]);
        assert_eq!(fit(&shard, &[ip("127.0.0.1")], DomainStrategy::Any, prefix), [ip("127.0.0.1")]);
        assert_eq!(fit(&shard, &both, DomainStrategy::Ipv4, None), [ip("192.0.2.1")], "not believed");
    }

    /// A DNS server that has one address for each name: an A record, an AAAA record, or neither.
    async fn dns(records: &'static [(&'static str, &'static str)]) -> SocketAddr {
        let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.expect("bind");
        let address = socket.local_addr().expect("address");
        tokio::task::spawn_local(async move {
            let mut query = [0; 512];
            loop {
                let (n, from) = socket.recv_from(&mut query).await.expect("a query");
                let end = 12 + query[12..n].iter().position(|byte| *byte == 0).expect("a name") + 5;
                let name = String::from_utf8_lossy(&query[13..end - 5]).to_ascii_lowercase();
                let name: String = name.chars().map(|c| if c.is_ascii_graphic() { c } else { '.' }).collect();
                let kind = query[end - 3];
                let found = records
                    .iter()
                    .find(|(known, value)| *known == name && (kind == 28) == value.contains(':'));
                let mut answer =
                    [&query[..2], &[0x81, 0x80, 0, 1, 0, u8::from(found.is_some()), 0, 0, 0, 0]].concat();
                answer.extend_from_slice(&query[12..end]);
                if let Some((_, value)) = found {
                    let octets = match ip(value) {
                        IpAddr::V4(v4) => v4.octets().to_vec(),
                        IpAddr::V6(v6) => v6.octets().to_vec(),
                    };
                    answer.extend([0xC0, 12, 0, kind, 0, 1, 0, 0, 0, 60, 0, octets.len() as u8]);
                    answer.extend(octets);
                }
                socket.send_to(&answer, from).await.expect("sent");
            }
        });
        address
    }

    #[tokio::test]
    async fn a_network_of_ipv6_alone_reaches_ipv4_by_the_prefix_that_it_tells() {
        let test = async {
            let server = dns(&[
                ("ipv4only.arpa", "2001:db8:64::192.0.0.170"),
                ("a.only.test", "192.0.2.1"),
                ("both.test", "2001:db8::1"),
            ])
            .await;
            let shard = shard();
            shard.resolver.set_port(server.port());
            let network = NetworkInfo { dns: vec![server.ip()], has_v6: true, ..NetworkInfo::default() };
            *shard.network.borrow_mut() = Some(network);
            let found = async |host: &str| {
                let host = Host::parse(host).expect("a host");
                resolve(&shard, &host, DomainStrategy::Any, soon()).await.expect("resolved")
            };
            assert_eq!(found("192.0.2.7").await, [ip("2001:db8:64::192.0.2.7")], "a literal");
            assert_eq!(found("a.only.test").await, [ip("2001:db8:64::192.0.2.1")], "a name with A alone");
            assert_eq!(found("both.test").await, [ip("2001:db8::1")], "IPv6 needs no help");
            assert_eq!(found("127.0.0.1").await, [ip("127.0.0.1")]);
        };
        tokio::task::LocalSet::new().run_until(test).await;
    }

    #[tokio::test]
    async fn a_network_without_nat64_is_tried_as_it_is() {
        let test = async {
            let server = dns(&[]).await;
            let shard = shard();
            shard.resolver.set_port(server.port());
            let network = NetworkInfo { dns: vec![server.ip()], has_v6: true, ..NetworkInfo::default() };
            *shard.network.borrow_mut() = Some(network);
            let found = resolve(&shard, &Host::Ip(ip("192.0.2.7")), DomainStrategy::Any, soon()).await;
            assert_eq!(found, Ok(vec![ip("192.0.2.7")]));
        };
        tokio::task::LocalSet::new().run_until(test).await;
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
