//! The `freedom` outbound: flows go straight to their targets, past the tunnel.

use super::super::shard::Shard;
use super::{Answer, Cone, LocalFuture, OpenError, OpenedStream, Outbound, level};
use crate::addr::{Host, Target};
use crate::buffer::{Class, Pool, Turn};
use crate::config::{self, DomainStrategy};
use crate::time::Moment;
use crate::transport::dial::{self, DialError};
use crate::transport::protect::{self, Wishes};
use crate::transport::tcp::TcpPayload;
use crate::transport::{Datagram, Datagrams, StreamError};
use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll, ready};
use tokio::io::ReadBuf;
use tokio::net::UdpSocket;
use tokio::time::Instant;

/// The most datagrams that wait for a socket without room; the oldest goes first.
const MAX_WAITING: usize = 64;

/// A freedom outbound.
pub(super) struct Freedom {
    tag: Arc<str>,
    strategy: DomainStrategy,
    redirect: Option<(Option<Host>, u16)>,
    level: u32,
    wishes: Wishes,
}

impl Freedom {
    /// Makes the outbound.
    pub(super) fn new(tag: Arc<str>, settings: &config::Freedom, wishes: Wishes) -> Self {
        let config::Freedom { strategy, redirect, level } = settings.clone();
        Self { tag, strategy, redirect, level, wishes }
    }

    /// Where a flow to `target` really goes.
    fn redirected(&self, target: Target) -> Target {
        redirected(self.redirect.as_ref(), target)
    }

    /// Makes the socket of a UDP flow to `target`. `named`: what comes from there is called by that name.
    async fn direct(&self, shard: Rc<Shard>, target: Target, named: bool) -> Result<Direct, OpenError> {
        let real = self.redirected(target.clone());
        let started = Instant::now();
        let addresses = dial::resolve(&shard, &real.host, self.strategy, self.deadline(&shard))
            .await
            .map_err(|failed| answered(&shard, failed))?;
        let remote = SocketAddr::new(*addresses.first().expect("resolving yields at least one"), real.port);
        let socket = protect::udp_socket_unconnected(&shard, remote, &self.wishes)
            .await
            .map_err(|error| answered(&shard, DialError::socket(error, started)))?;
        let named = named || self.redirect.is_some();
        Ok(Direct { socket, shard, target, remote, named, waiting: VecDeque::new(), turn: Turn::default() })
    }

    fn deadline(&self, shard: &Shard) -> Instant {
        Instant::now() + dial::DEADLINE.min(level(shard, self.level).handshake)
    }
}

/// Where a flow to `target` really goes.
pub(super) fn redirected(redirect: Option<&(Option<Host>, u16)>, target: Target) -> Target {
    match redirect {
        Some((host, port)) => Target { host: host.clone().unwrap_or(target.host), port: *port },
        None => target,
    }
}

/// What the app is told of a failed dial.
fn answered(shard: &Shard, failed: DialError) -> OpenError {
    use io::ErrorKind::{AddrNotAvailable, ConnectionRefused, HostUnreachable, NetworkUnreachable, TimedOut};
    shard.shared.stats.dial_failures.fetch_add(1, Relaxed);
    let answer = match failed.kind {
        ConnectionRefused => Answer::Refused,
        HostUnreachable | NetworkUnreachable | AddrNotAvailable | TimedOut => Answer::Unreachable,
        io::ErrorKind::PermissionDenied => Answer::Forbidden,
        _ => Answer::Failed,
    };
    OpenError { error: failed.error, answer }
}

impl Outbound for Freedom {
    fn tag(&self) -> &Arc<str> {
        &self.tag
    }

    fn connects_target(&self) -> bool {
        true
    }

    fn admits(&self, _now: Moment) -> bool {
        true
    }

    fn open_stream(
        self: Rc<Self>,
        shard: Rc<Shard>,
        target: Target,
    ) -> LocalFuture<Result<OpenedStream, OpenError>> {
        Box::pin(async move {
            let target = self.redirected(target);
            let stream = dial::tcp(&shard, &target, self.strategy, &self.wishes, self.deadline(&shard))
                .await
                .map_err(|failed| answered(&shard, failed))?;
            shard.shared.stats.dials.fetch_add(1, Relaxed);
            let stream = Box::new(TcpPayload::from_tcp(stream, shard.pool.clone()));
            Ok(OpenedStream { stream, level: level(&shard, self.level) })
        })
    }

    /// A socket speaks to any address of its family. A name has a flow of its own, since its answers bear it.
    fn cone(&self, target: &Target) -> Option<Cone> {
        match target.host.ip() {
            Some(IpAddr::V4(_)) if self.redirect.is_none() => Some(Cone::Ipv4),
            Some(IpAddr::V6(_)) if self.redirect.is_none() => Some(Cone::Ipv6),
            _ => None,
        }
    }

    fn open_datagrams(
        self: Rc<Self>,
        shard: Rc<Shard>,
        target: Target,
    ) -> LocalFuture<Result<Box<dyn Datagrams>, OpenError>> {
        Box::pin(async move { Ok(Box::new(self.direct(shard, target, true).await?) as Box<dyn Datagrams>) })
    }

    fn open_cone(
        self: Rc<Self>,
        shard: Rc<Shard>,
        target: Target,
        _source: SocketAddr,
    ) -> LocalFuture<Result<Box<dyn Datagrams>, OpenError>> {
        Box::pin(async move { Ok(Box::new(self.direct(shard, target, false).await?) as Box<dyn Datagrams>) })
    }
}

/// A UDP flow on a socket of its own. Any peer of the socket's family may be sent to and may answer.
struct Direct {
    socket: UdpSocket,
    shard: Rc<Shard>,
    /// The flow's target, as the app names it, and the address that stands for it.
    target: Target,
    remote: SocketAddr,
    /// Whether what comes from there is called by the target's name.
    named: bool,
    /// Datagrams that the socket had no room for, oldest first.
    waiting: VecDeque<(Datagram, SocketAddr)>,
    turn: Turn,
}

impl Direct {
    /// The address that a datagram goes to; `None` if it cannot go anywhere from here.
    fn address(&self, to: &Target) -> Option<SocketAddr> {
        if *to == self.target {
            return Some(self.remote);
        }
        to.socket_addr().filter(|addr| addr.is_ipv4() == self.remote.is_ipv4())
    }

    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamError>> {
        while let Some((datagram, to)) = self.waiting.front() {
            // A datagram that the network does not want is lost, as datagrams may be; the flow goes on.
            if ready!(self.socket.poll_send_to(cx, &datagram.data, *to)).is_err() {
                self.lose();
            }
            self.waiting.pop_front();
        }
        Poll::Ready(Ok(()))
    }

    fn lose(&self) {
        self.shard.shared.stats.dropped.fetch_add(1, Relaxed);
    }
}

impl Datagrams for Direct {
    fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Datagram>, StreamError>> {
        loop {
            ready!(self.socket.poll_recv_ready(cx))?;
            let mut buffer = ready!(self.shard.pool.poll_take(cx, Class::Large, &mut self.turn));
            let mut bytes = ReadBuf::new(buffer.spare_mut());
            let from = match ready!(self.socket.poll_recv_from(cx, &mut bytes)) {
                Ok(from) => from,
                // What an earlier datagram ran into.
                Err(error) if is_passing(&error) => continue,
                Err(error) => return Poll::Ready(Err(error.into())),
            };
            let n = bytes.filled().len();
            if n == 0 {
                continue;
            }
            buffer.commit(n);
            let data = compacted(buffer, &self.shard.pool);
            let asked = self.named && same(from, self.remote);
            let remote = if asked { self.target.clone() } else { Target::from(plain(from)) };
            return Poll::Ready(Ok(Some(Datagram { data, remote })));
        }
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamError>> {
        self.poll_send(cx)
    }

    fn send(&mut self, datagram: Datagram) -> Result<(), StreamError> {
        let Some(to) = self.address(&datagram.remote) else {
            self.lose();
            return Ok(());
        };
        let blocked = |error: &io::Error| error.kind() == io::ErrorKind::WouldBlock;
        if self.waiting.is_empty() {
            match self.socket.try_send_to(&datagram.data, to) {
                Err(error) if blocked(&error) => {}
                Err(_) => {
                    self.lose();
                    return Ok(());
                }
                Ok(_) => return Ok(()),
            }
        }
        if self.waiting.len() >= MAX_WAITING {
            self.waiting.pop_front();
            self.lose();
        }
        self.waiting.push_back((datagram, to));
        Ok(())
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamError>> {
        self.poll_send(cx)
    }
}

/// Moves a datagram into the smallest buffer that takes it.
fn compacted(buffer: crate::buffer::Buffer, pool: &Pool) -> crate::buffer::Buffer {
    if buffer.len() > Class::Record.capacity() {
        return buffer;
    }
    pool.copy(&buffer).unwrap_or(buffer)
}

/// Whether an error of a UDP socket concerns one datagram and not the socket.
fn is_passing(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionRefused, ConnectionReset, HostUnreachable, NetworkUnreachable};
    matches!(error.kind(), ConnectionRefused | ConnectionReset | HostUnreachable | NetworkUnreachable)
}

/// Whether two addresses are the same end, scope and flow labels aside.
fn same(a: SocketAddr, b: SocketAddr) -> bool {
    plain(a) == plain(b)
}

/// An address without scope and flow labels, an IPv4 one as such.
fn plain(addr: SocketAddr) -> SocketAddr {
    SocketAddr::new(addr.ip().to_canonical(), addr.port())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::api::NetworkInfo;
    use crate::engine::outbound::{Outbound, build};
    use crate::error::{ErrorKind, Stage};
    use crate::transport::testing::{config, shard};
    use std::future::poll_fn;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio::task::LocalSet;

    fn freedom() -> Rc<dyn Outbound> {
        build(&config().outbounds[0], None).expect("nothing to read")
    }

    #[tokio::test]
    async fn a_stream_reaches_its_target() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let port = listener.local_addr().expect("address").port();
        let shard = shard();
        let redirect =
            config::Freedom { strategy: DomainStrategy::Ipv4, redirect: Some((None, port)), level: 0 };
        let freedom = Rc::new(Freedom::new("direct".into(), &redirect, Wishes::default()));
        let target = Target { host: Host::Ip([127, 0, 0, 1].into()), port: 1 };
        let opened = freedom.open_stream(Rc::clone(&shard), target).await;
        let mut stream = opened.unwrap_or_else(|failed| panic!("{failed:?}")).stream;
        let (mut theirs, _) = listener.accept().await.expect("accept");
        stream.send(shard.pool.copy(b"ping").expect("memory")).expect("sent");
        poll_fn(|cx| stream.poll_flush(cx)).await.expect("flushed");
        let mut got = [0; 4];
        theirs.read_exact(&mut got).await.expect("read");
        theirs.write_all(b"pong!").await.expect("written");
        let answer = poll_fn(|cx| stream.poll_recv(cx, 100)).await.expect("received").expect("data");
        assert_eq!((&got, &*answer), (b"ping", &b"pong!"[..]));
        assert_eq!(shard.shared.stats.dials.load(Relaxed), 1);
    }

    #[tokio::test]
    async fn failures_are_told_apart() {
        let shard = shard();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let closed = Target::from(listener.local_addr().expect("address"));
        drop(listener);
        let open = |target| freedom().open_stream(Rc::clone(&shard), target);
        let refused = open(closed).await.err().expect("nobody listens");
        assert_eq!(refused.answer, Answer::Refused);
        let nameless = Target { host: Host::parse("no.such.name.invalid").expect("host"), port: 80 };
        // No server answers there, so nothing leaves this machine.
        *shard.network.borrow_mut() =
            Some(NetworkInfo { dns: vec![[127, 0, 0, 1].into()], ..NetworkInfo::default() });
        let unknown = LocalSet::new().run_until(open(nameless)).await.err().expect("no such name");
        assert_eq!(unknown.error.kind, ErrorKind::ServerUnreachable { stage: Stage::Resolve });
        assert_eq!(
            (unknown.answer, shard.shared.stats.dial_failures.load(Relaxed)),
            (Answer::Unreachable, 2)
        );
    }

    #[tokio::test]
    async fn datagrams_go_to_and_come_from_several_peers() {
        let (a, b) = (UdpSocket::bind("127.0.0.1:0").await, UdpSocket::bind("127.0.0.1:0").await);
        let (a, b) = (a.expect("bind"), b.expect("bind"));
        let [to_a, to_b] = [&a, &b].map(|socket| Target::from(socket.local_addr().expect("address")));
        let shard = shard();
        let opened = freedom().open_datagrams(Rc::clone(&shard), to_a.clone()).await;
        let mut flow = opened.unwrap_or_else(|failed| panic!("{failed:?}"));
        for (socket, to) in [(&a, &to_a), (&b, &to_b)] {
            let data = shard.pool.copy(b"question").expect("memory");
            flow.send(Datagram { data, remote: to.clone() }).expect("sent");
            poll_fn(|cx| flow.poll_flush(cx)).await.expect("flushed");
            let mut bytes = [0; 32];
            let (n, from) = socket.recv_from(&mut bytes).await.expect("received");
            socket.send_to(&bytes[..n], from).await.expect("answered");
            let answer = poll_fn(|cx| flow.poll_recv(cx)).await.expect("received").expect("open");
            assert_eq!((&*answer.data, &answer.remote), (&b"question"[..], to));
            assert_eq!(answer.data.held(), Class::Small.slab_len());
        }
        let nowhere = Target { host: Host::parse("other.example").expect("host"), port: 1 };
        flow.send(Datagram { data: shard.pool.copy(b"x").expect("memory"), remote: nowhere })
            .expect("dropped");
        assert_eq!(shard.shared.stats.dropped.load(Relaxed), 1);
    }

    #[tokio::test]
    async fn a_burst_before_the_first_flush_is_sent_whole() {
        let peer = UdpSocket::bind("127.0.0.1:0").await.expect("bind");
        let target = Target::from(peer.local_addr().expect("address"));
        let shard = shard();
        let opened = freedom().open_datagrams(Rc::clone(&shard), target.clone()).await;
        let mut flow = opened.unwrap_or_else(|failed| panic!("{failed:?}"));
        for i in 0..10_u8 {
            let data = shard.pool.copy(&[i]).expect("memory");
            flow.send(Datagram { data, remote: target.clone() }).expect("sent");
        }
        poll_fn(|cx| flow.poll_flush(cx)).await.expect("flushed");
        for i in 0..10_u8 {
            let mut byte = [0];
            assert_eq!((peer.recv(&mut byte).await.expect("received"), byte), (1, [i]));
        }
    }
}
