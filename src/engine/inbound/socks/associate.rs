//! UDP ASSOCIATE: a client's datagrams, for as long as its connection lives.

use super::Server;
use super::session::{read, refuse, write_all};
use super::wire::{DatagramHeader, Reply, parse_datagram};
use crate::addr::{Network, Target};
use crate::config::LogLevel;
use crate::engine::dispatch::{self, Flow};
use crate::engine::inbound::udp::{Table, UdpFlow};
use crate::engine::outbound::Outbound;
use crate::transport::Datagram;
use socket2::SockRef;
use std::cell::{Cell, RefCell};
use std::io::{self, IoSlice};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use tokio::io::Interest;
use tokio::net::{TcpStream, UdpSocket};

/// How many datagrams of one client are read before others have their turn.
const BATCH: usize = 64;
/// The largest datagram there is.
const MAX_DATAGRAM: usize = 65_535;

/// The associations of one listener, and their flows.
#[derive(Default)]
pub(super) struct Associations {
    flows: Rc<RefCell<Table<Source, Target>>>,
    serial: Cell<u64>,
    /// What sockets are read into; taken when the first datagram comes.
    scratch: RefCell<Vec<u8>>,
}

/// Who sends: one of an association's clients.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Source {
    association: u64,
    client: SocketAddr,
}

impl Associations {
    fn next_serial(&self) -> u64 {
        self.serial.set(self.serial.get() + 1);
        self.serial.get()
    }
}

/// Ends an association's flows with it.
struct Association<'a> {
    server: &'a Server,
    id: u64,
    socket: Rc<UdpSocket>,
    /// Datagrams from elsewhere are not the client's.
    client: IpAddr,
}

impl Drop for Association<'_> {
    fn drop(&mut self) {
        let id = self.id;
        self.server.associations.flows.borrow_mut().remove_sources(|source| source.association == id);
    }
}

/// Serves UDP ASSOCIATE until the client's connection ends.
pub(super) async fn serve(server: &Server, stream: TcpStream, source: SocketAddr) {
    if !server.udp {
        return refuse(&stream, &Reply::CommandUnknown.bytes()).await;
    }
    let (socket, announced) = match bind(server, &stream) {
        Ok(bound) => bound,
        Err(error) => {
            let tag = &server.tag;
            server
                .shard
                .shared
                .log(LogLevel::Warning, format_args!("socks [{tag}] cannot serve UDP: {error}"));
            return refuse(&stream, &Reply::Failed.bytes()).await;
        }
    };
    let association = Association {
        server,
        id: server.associations.next_serial(),
        socket: Rc::new(socket),
        client: source.ip(),
    };
    if write_all(&stream, &Reply::Succeeded.with_address(announced)).await.is_ok() {
        tokio::select! {
            () = until_closed(&stream) => {}
            () = association.receive() => {}
        }
    }
}

/// Makes the association's socket, on the address that the client reached us at; returns it and what to announce.
fn bind(server: &Server, stream: &TcpStream) -> io::Result<(UdpSocket, SocketAddr)> {
    let ours = stream.local_addr()?.ip().to_canonical();
    let socket = std::net::UdpSocket::bind((ours, 0))?;
    socket.set_nonblocking(true)?;
    let socket = UdpSocket::from_std(socket)?;
    let port = socket.local_addr()?.port();
    Ok((socket, SocketAddr::new(server.announced.unwrap_or(ours), port)))
}

/// Waits for the end of the connection. What the client says on it meanwhile means nothing.
async fn until_closed(stream: &TcpStream) {
    let mut waste = [0; 64];
    while matches!(read(stream, &mut waste).await, Ok(1..)) {}
}

impl Association<'_> {
    /// Reads the client's datagrams for ever.
    async fn receive(&self) {
        loop {
            if self.socket.readable().await.is_err() {
                return;
            }
            for _ in 0..BATCH {
                if !self.receive_one() {
                    break;
                }
            }
            tokio::task::yield_now().await;
        }
    }

    /// Reads one datagram and passes it on; `false` if none is there.
    fn receive_one(&self) -> bool {
        let Associations { scratch, .. } = &self.server.associations;
        let mut scratch = scratch.borrow_mut();
        if scratch.is_empty() {
            *scratch = vec![0; MAX_DATAGRAM];
        }
        match self.socket.try_recv_from(&mut scratch) {
            Ok((len, from)) => {
                let client = SocketAddr::new(from.ip().to_canonical(), from.port());
                if client.ip() == self.client
                    && self.forward(client, scratch.get(..len).unwrap_or_default()).is_none()
                {
                    self.server.shard.shared.stats.dropped.fetch_add(1, Relaxed);
                }
                true
            }
            // An answer of ours did not reach the client (ICMP); the socket lives on.
            Err(error) => error.kind() != io::ErrorKind::WouldBlock,
        }
    }

    /// Passes a datagram on to its flow; `None` if it is dropped.
    fn forward(&self, client: SocketAddr, datagram: &[u8]) -> Option<()> {
        let (target, start) = parse_datagram(datagram)?;
        if !is_deliverable(&target) {
            return None;
        }
        let Server { shard, associations, .. } = self.server;
        let data = shard.pool.copy(datagram.get(start..)?)?;
        let source = Source { association: self.id, client };
        if let Some(entry) = associations.flows.borrow().get(source, &target) {
            entry.flow.push(shard, data, target);
            return Some(());
        }
        let flow = Flow {
            network: Network::Udp,
            source: client,
            target: target.clone(),
            inbound: Arc::clone(&self.server.tag),
            accepted: shard.clock.now(),
            user: None,
        };
        let outbound = dispatch::route(shard, &flow);
        let cone = outbound.cone(&target);
        let mut flows = associations.flows.borrow_mut();
        if let Some(entry) = flows.join(source, &target, &outbound, cone) {
            entry.flow.push(shard, data, target);
            return Some(());
        }
        if !flows.make_room(flow.accepted) {
            return None;
        }
        let serial = flows.next_serial();
        let started = self.start(flow, &outbound, serial);
        started.push(shard, data, target.clone());
        flows.insert(serial, (source, &target), started, outbound, cone);
        Some(())
    }

    fn start(&self, flow: Flow, outbound: &Rc<dyn Outbound>, serial: u64) -> UdpFlow {
        let Server { shard, associations, .. } = self.server;
        let deliver = {
            let (shard, socket, client) = (Rc::clone(shard), Rc::clone(&self.socket), flow.source);
            move |datagram: Datagram| {
                if deliver(&socket, client, &datagram).is_none() {
                    shard.shared.stats.dropped.fetch_add(1, Relaxed);
                }
            }
        };
        let ended = {
            let flows = Rc::downgrade(&associations.flows);
            move |_| {
                let Some(flows) = flows.upgrade() else { return };
                flows.borrow_mut().remove(serial);
            }
        };
        UdpFlow::start(shard, flow, Rc::clone(outbound), deliver, ended)
    }
}

/// Sends a datagram to the client in one call, without a copy; `None` if it is lost, as datagrams may be.
fn deliver(socket: &UdpSocket, client: SocketAddr, datagram: &Datagram) -> Option<()> {
    let header = DatagramHeader::new(&datagram.remote)?;
    let slices = [IoSlice::new(header.as_bytes()), IoSlice::new(&datagram.data)];
    let to = client.into();
    socket.try_io(Interest::WRITABLE, || SockRef::from(socket).send_to_vectored(&slices, &to)).ok().map(drop)
}

/// Whether a datagram may go there: multicast, broadcast, link-local and unspecified addresses mean the client's own
/// network, which is not here.
fn is_deliverable(target: &Target) -> bool {
    match target.host.ip() {
        Some(IpAddr::V4(ip)) => !is_local_v4(ip),
        Some(IpAddr::V6(ip)) => !is_local_v6(ip),
        None => true,
    }
}

fn is_local_v4(ip: Ipv4Addr) -> bool {
    ip.is_unspecified() || ip.is_broadcast() || ip.is_multicast() || ip.is_link_local()
}

fn is_local_v6(ip: Ipv6Addr) -> bool {
    ip.is_unspecified() || ip.is_multicast() || ip.is_unicast_link_local()
}
