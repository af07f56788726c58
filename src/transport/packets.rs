//! Packetaddr at either end: each datagram of a flow begins with an address.

use super::stream::{Datagram, Datagrams, StreamError};
use crate::addr::Target;
use crate::buffer::{Buffer, Pool};
use crate::mux::packetaddr::{MAX_HEAD, decode, encode};
use std::net::{IpAddr, SocketAddr};
use std::task::{Context, Poll, ready};

/// A UDP flow to anywhere, on top of one that is bound to the marker.
pub(crate) struct Packets {
    below: Box<dyn Datagrams>,
    /// What the flow below is bound to.
    marker: Target,
    pool: Pool,
    head: Vec<u8>,
}

impl Packets {
    /// Takes the flow that is bound to the marker.
    pub(crate) fn new(below: Box<dyn Datagrams>, marker: Target, pool: Pool) -> Self {
        Self { below, marker, pool, head: Vec::with_capacity(MAX_HEAD) }
    }

    /// The payload behind its address; `None` if there is no memory.
    fn addressed(&mut self, to: SocketAddr, payload: &[u8]) -> Option<Buffer> {
        self.head.clear();
        encode(to, &mut self.head);
        // One copy: the address takes the place that the record's own fields need in front.
        let mut packet = self.pool.copy(&self.head)?;
        if packet.append(payload) < payload.len() {
            self.head.extend_from_slice(payload);
            packet = self.pool.copy(&self.head)?;
        }
        Some(packet)
    }
}

impl Datagrams for Packets {
    fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Datagram>, StreamError>> {
        loop {
            let Some(Datagram { mut data, .. }) = ready!(self.below.poll_recv(cx))? else {
                return Poll::Ready(Ok(None));
            };
            // What has no address, or nothing behind it, is nobody's.
            let Some((from, start)) = decode(&data).filter(|(_, start)| *start < data.len()) else {
                continue;
            };
            data.advance(start);
            return Poll::Ready(Ok(Some(Datagram { data, remote: Target::from(from) })));
        }
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamError>> {
        self.below.poll_ready(cx)
    }

    fn send(&mut self, datagram: Datagram) -> Result<(), StreamError> {
        let Some(to) = datagram.remote.socket_addr() else { return Ok(()) };
        let Some(data) = self.addressed(to, &datagram.data) else { return Ok(()) };
        self.below.send(Datagram { data, remote: self.marker.clone() })
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamError>> {
        self.below.poll_flush(cx)
    }

    fn local_ip(&self) -> Option<IpAddr> {
        self.below.local_ip()
    }
}
