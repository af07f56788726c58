//! Outgoing packets that belong to no TCP flow: datagrams, echo replies and ICMP errors, in order and bounded.

use super::fragment;
use super::ip::{Header, Protocol, V4_HEADER, V6_HEADER};
use super::{Blocked, PacketSink, Refusal};
use super::{icmp, udp};
use crate::buffer::{Buffer, Pool};
use crate::time::Moment;
use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};

/// The most packets that wait for the device.
const MAX_PACKETS: usize = 1024;
/// The most bytes of payload that wait for the device.
const MAX_BYTES: usize = 1 << 20;

/// One outgoing packet: complete headers, then payload that may be shared with other packets.
#[derive(Debug)]
pub(crate) struct Out {
    /// The IP header and whatever stands between it and the payload.
    pub(crate) header: Header,
    /// The rest of the packet.
    pub(crate) payload: Buffer,
}

/// The queue of such packets. What does not fit is dropped and counted.
#[derive(Debug)]
pub(crate) struct Outbox {
    queue: VecDeque<Out>,
    bytes: usize,
    mtu: usize,
    /// Names the next datagram that is cut into fragments.
    next_id: u32,
    limiter: icmp::Limiter,
    dropped: u64,
    sent: u64,
}

impl Outbox {
    /// Makes an empty queue for a device with `mtu`; `seed` starts the fragment ids.
    pub(crate) fn new(mtu: usize, seed: u32) -> Self {
        let limiter = icmp::Limiter::new();
        Self { queue: VecDeque::new(), bytes: 0, mtu, next_id: seed, limiter, dropped: 0, sent: 0 }
    }

    /// Takes up the MTU of another device.
    pub(crate) fn set_mtu(&mut self, mtu: usize) {
        self.mtu = mtu;
    }

    /// How many packets were dropped: at the bound, by the limit on ICMP, or because they cannot be built.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped
    }

    /// How many packets the device has taken.
    pub(crate) fn sent(&self) -> u64 {
        self.sent
    }

    /// Queues a datagram from `source` (the remote end) to `destination` (the app), in fragments if it must.
    pub(crate) fn datagram(&mut self, source: SocketAddr, destination: SocketAddr, data: Buffer) {
        match udp::header(source, destination, &data) {
            Some(header) => self.push(source.ip(), destination.ip(), Protocol::Udp, &header, data),
            None => self.dropped += 1,
        }
    }

    /// Answers an echo request that came from `src` to `dst`; any other ICMP message is dropped.
    pub(crate) fn echo(&mut self, src: IpAddr, dst: IpAddr, message: &[u8], trusted: bool, pool: &Pool) {
        let Some(request) = icmp::parse_echo(src, dst, message, trusted) else {
            self.dropped += 1;
            return;
        };
        match pool.copy(request.data) {
            Some(data) => {
                let header = icmp::echo_reply(dst, src, &request);
                self.push(dst, src, icmp::protocol(dst), &header, data);
            }
            None => self.dropped += 1,
        }
    }

    /// Tells the app at `source` that its datagram to `destination` was refused. `Silent` says nothing.
    pub(crate) fn reject(&mut self, now: Moment, source: SocketAddr, destination: SocketAddr, how: Refusal) {
        if let Some(error) = icmp::Error::of(how) {
            self.error(now, error, icmp::About::Udp, source, destination);
        }
    }

    /// Tells the app at `source` that its datagram to `destination` was larger than `mtu` lets pass.
    pub(crate) fn too_big(&mut self, now: Moment, source: SocketAddr, destination: SocketAddr, mtu: u16) {
        self.error(now, icmp::Error::TooBig(mtu), icmp::About::Udp, source, destination);
    }

    /// Sends an ICMP error about a packet from `source` to `destination`, rate-limited.
    pub(crate) fn error(
        &mut self,
        now: Moment,
        error: icmp::Error,
        about: icmp::About,
        source: SocketAddr,
        destination: SocketAddr,
    ) {
        if !self.limiter.allows(now) {
            self.dropped += 1;
            return;
        }
        match icmp::error(error, about, source, destination) {
            Some(message) => {
                let mut header = Header::new();
                let (from, to) = (destination.ip(), source.ip());
                header.push_ip(from, to, icmp::protocol(from), message.as_slice().len(), None);
                header.push(message.as_slice());
                self.enqueue(Out { header, payload: Buffer::empty() });
            }
            None => self.dropped += 1,
        }
    }

    /// Hands packets to `sink` until none is left.
    ///
    /// # Errors
    /// [`Blocked`] when the sink is; what is left stays queued.
    pub(crate) fn transmit(&mut self, sink: &mut dyn PacketSink) -> Result<(), Blocked> {
        while let Some(out) = self.queue.front() {
            sink.send(out.header.as_slice(), &[&out.payload], None)?;
            self.sent += 1;
            self.bytes -= out.payload.len();
            self.queue.pop_front();
        }
        if self.queue.capacity() > 64 {
            self.queue.shrink_to(16);
        }
        Ok(())
    }

    /// Queues a packet of `transport` (8 bytes: UDP or echo header) and `data`, in fragments if it passes the MTU.
    fn push(&mut self, src: IpAddr, dst: IpAddr, protocol: Protocol, transport: &[u8; 8], data: Buffer) {
        let ip_header = if src.is_ipv4() { V4_HEADER } else { V6_HEADER };
        if ip_header + transport.len() + data.len() <= self.mtu {
            let mut header = Header::new();
            header.push_ip(src, dst, protocol, transport.len() + data.len(), None);
            header.push(transport);
            self.enqueue(Out { header, payload: data });
            return;
        }
        let pieces = fragment::cut(transport.len() + data.len(), self.mtu, src.is_ipv6(), self.next_id);
        self.next_id = self.next_id.wrapping_add(1);
        let Some(pieces) = pieces.filter(|pieces| self.has_room(pieces.len(), data.len())) else {
            self.dropped += 1;
            return;
        };
        for (info, range) in pieces {
            let mut header = Header::new();
            header.push_ip(src, dst, protocol, range.len(), Some(info));
            let (mut start, end) = (range.start, range.end);
            if start == 0 {
                header.push(transport);
                start = transport.len();
            }
            let payload = data.slice(start - transport.len()..end - transport.len());
            self.enqueue(Out { header, payload });
        }
    }

    fn has_room(&self, packets: usize, bytes: usize) -> bool {
        self.queue.len() + packets <= MAX_PACKETS && self.bytes + bytes <= MAX_BYTES
    }

    fn enqueue(&mut self, out: Out) {
        if self.has_room(1, out.payload.len()) {
            self.bytes += out.payload.len();
            self.queue.push_back(out);
        } else {
            self.dropped += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Offload;
    use super::super::fragment::Reassembler;
    use super::super::ip;
    use super::*;

    /// Keeps what it is given, and blocks after `room` packets.
    struct Sink {
        packets: Vec<Vec<u8>>,
        room: usize,
    }

    impl PacketSink for Sink {
        fn send(&mut self, header: &[u8], payload: &[&[u8]], _: Option<Offload>) -> Result<(), Blocked> {
            if self.packets.len() == self.room {
                return Err(Blocked);
            }
            self.packets.push([header, &payload.concat()].concat());
            Ok(())
        }
    }

    fn ends(v6: bool) -> (SocketAddr, SocketAddr) {
        if v6 {
            ("[2001:db8::7]:53".parse().expect("addr"), "[fd19::1]:4000".parse().expect("addr"))
        } else {
            ("8.8.8.8:53".parse().expect("addr"), "172.19.0.1:4000".parse().expect("addr"))
        }
    }

    #[test]
    fn a_datagram_over_the_mtu_arrives_in_fragments_that_join() {
        let pool = Pool::new(1 << 20);
        let data: Vec<u8> = (0..9000u32).map(|n| n as u8).collect();
        for v6 in [false, true] {
            let (remote, app) = ends(v6);
            let mut outbox = Outbox::new(1500, 77);
            outbox.datagram(remote, app, pool.copy(&data).expect("room"));
            let mut sink = Sink { packets: Vec::new(), room: 100 };
            outbox.transmit(&mut sink).expect("room");
            assert_eq!(sink.packets.len(), 7);
            let mut reassembler = Reassembler::new();
            let mut whole = None;
            for bytes in &sink.packets {
                assert!(bytes.len() <= 1500);
                let packet = ip::parse(bytes).expect("legal");
                whole = whole.or(reassembler.push(Moment::ZERO, &packet));
            }
            let whole = whole.expect("all parts came");
            let datagram = udp::parse(remote.ip(), app.ip(), &whole.payload, false).expect("checksum");
            assert_eq!((datagram.source_port, datagram.destination_port), (53, 4000));
            assert_eq!(datagram.data, data);
        }
        assert_eq!(pool.used(), 0);
    }

    #[test]
    fn a_blocked_device_keeps_the_order_and_the_bound_holds() {
        let pool = Pool::new(64 << 20);
        let (remote, app) = ends(false);
        let mut outbox = Outbox::new(1500, 0);
        for n in 0..2000u32 {
            outbox.datagram(remote, app, pool.copy(&n.to_be_bytes()).expect("room"));
        }
        assert_eq!((outbox.queue.len() as u64 + outbox.dropped(), outbox.queue.len()), (2000, MAX_PACKETS));
        let mut sink = Sink { packets: Vec::new(), room: 10 };
        assert_eq!(outbox.transmit(&mut sink), Err(Blocked));
        assert_eq!((outbox.queue.len(), outbox.sent()), (MAX_PACKETS - 10, 10));
        sink.room = usize::MAX;
        outbox.transmit(&mut sink).expect("room");
        for (n, packet) in sink.packets.iter().enumerate() {
            assert_eq!(packet[28..], (n as u32).to_be_bytes());
        }
        assert_eq!(pool.used(), 0);
    }
}
