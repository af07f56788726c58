//! mKCP: V2Ray's reliable streams over UDP.
//!
//! Bytes and time in, bytes and deadlines out: [`segment`] is what datagrams carry, [`wrapper`] what is around it,
//! [`conversation`] one end of a stream with its halves [`sending`] and [`receiving`]; [`shape`] is what follows from the
//! settings. None of these has a socket or a clock.
//!
//! [`hub`] runs the conversations of a socket: one at a client, those of all clients at a server. [`carrier`] is what a
//! protocol has of one.

mod carrier;
mod conversation;
mod driver;
mod hub;
mod receiving;
mod round_trip;
mod segment;
mod sending;
mod shape;
#[cfg(test)]
mod tests;
mod wrapper;

use super::dial::DialError;
use super::protect::{self, Wishes};
use super::{Carrier, UdpClients};
use crate::config::{Kcp, Secret};
use crate::engine::Shard;
use crate::error::Stage;
use carrier::KcpCarrier;
use driver::Driver;
use hub::Hub;
use shape::{Shape, Terms};
use socket2::SockRef;
use std::cell::{Cell, RefCell};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::task::{Context, Poll};
use tokio::net::UdpSocket;
use tokio::time::{Instant, timeout_at};
use wrapper::Wrapping;

/// How much a client's socket holds each way, if the system allows as much.
const SOCKET_BUFFER: usize = 1 << 20;

/// What the conversations of one config have in common.
#[derive(Debug, Clone)]
struct Manner {
    wrapping: Wrapping,
    shape: Shape,
}

impl Manner {
    fn new(settings: &Kcp) -> Self {
        let wrapping = Wrapping::new(settings.header, settings.seed.as_ref().map(Secret::expose));
        let terms = Terms {
            mtu: settings.mtu,
            tti: settings.tti,
            uplink_capacity: settings.uplink_capacity,
            downlink_capacity: settings.downlink_capacity,
            congestion: settings.congestion,
            read_buffer: settings.read_buffer,
            write_buffer: settings.write_buffer,
        };
        let shape = Shape::new(&terms, wrapping.overhead(), wrapping.counted());
        Self { wrapping, shape }
    }
}

/// The client's side of a config: a socket for each conversation.
#[derive(Debug)]
pub(super) struct Client {
    manner: Manner,
    /// The number of the last conversation; the first one's is random.
    last: Cell<Option<u16>>,
}

impl Client {
    /// Prepares conversations; opens nothing.
    pub(super) fn new(settings: &Kcp) -> Self {
        Self { manner: Manner::new(settings), last: Cell::new(None) }
    }

    /// Begins a conversation with a server. Nobody answers to that: a server that is not there shows by its silence.
    ///
    /// # Errors
    /// [`DialError`] if there is no socket to be had to any of the addresses.
    pub(super) async fn connect(
        &self,
        shard: &Rc<Shard>,
        addresses: &[IpAddr],
        port: u16,
        wishes: &Wishes,
        deadline: Instant,
    ) -> Result<Box<dyn Carrier>, DialError> {
        let started = Instant::now();
        let failed = |kind, reason: &str| DialError::new(Stage::Connect, kind, started, reason);
        let mut failure = failed(io::ErrorKind::NetworkUnreachable, "no address is usable");
        for (at, address) in addresses.iter().enumerate() {
            let remote = SocketAddr::new(*address, port);
            match timeout_at(deadline, protect::udp_connect(shard, remote, wishes)).await {
                Ok(Ok(socket)) => return Ok(self.begin(shard, socket, remote)),
                Ok(Err(error)) if at == 0 => failure = DialError::socket(error, started),
                Ok(Err(_)) => {}
                Err(_) => return Err(failed(io::ErrorKind::TimedOut, "no answer")),
            }
        }
        Err(failure)
    }

    fn begin(&self, shard: &Rc<Shard>, socket: UdpSocket, remote: SocketAddr) -> Box<dyn Carrier> {
        let buffers = SockRef::from(&socket);
        // A system that allows less gives what it allows.
        let _ = (buffers.set_recv_buffer_size(SOCKET_BUFFER), buffers.set_send_buffer_size(SOCKET_BUFFER));
        let random = || shard.with_entropy(|entropy| entropy.below(1 << 16) as u16);
        let number = self.last.get().unwrap_or_else(random).wrapping_add(1);
        self.last.set(Some(number));
        let local = socket.local_addr().ok().map(|local| local.ip());
        let mut hub = Hub::new(shard, &self.manner, socket, Some(remote));
        let id = hub.begin((remote, number));
        let hub = Rc::new(RefCell::new(hub));
        shard.spawn(Driver::new(&hub));
        Box::new(KcpCarrier::new(hub, id, local))
    }
}

/// Takes the clients of a UDP socket.
pub(super) fn listen(shard: &Rc<Shard>, settings: &Kcp, socket: UdpSocket) -> Box<dyn UdpClients> {
    let hub = Rc::new(RefCell::new(Hub::new(shard, &Manner::new(settings), socket, None)));
    shard.spawn(Driver::new(&hub));
    Box::new(Clients(hub))
}

struct Clients(Rc<RefCell<Hub>>);

impl UdpClients for Clients {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<(Box<dyn Carrier>, SocketAddr)> {
        let arrival = self.0.borrow_mut().poll_arrival(cx);
        arrival.map(|(id, source)| {
            let carrier: Box<dyn Carrier> = Box::new(KcpCarrier::new(Rc::clone(&self.0), id, None));
            (carrier, source)
        })
    }
}

impl Drop for Clients {
    fn drop(&mut self) {
        self.0.borrow_mut().shut();
    }
}
