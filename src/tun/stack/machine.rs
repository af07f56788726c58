//! The stack itself: packets are told apart here, and everything that waits for the device meets again.

use super::fragment::Reassembler;
use super::icmp;
use super::ip::{self, Malformed, Protocol};
use super::outbox::Outbox;
use super::tcp::Tcp;
use super::udp;
use super::{Blocked, Config, Counters, Event, FlowId, PacketMeta, PacketSink, Received, Refusal};
use crate::buffer::{Buffer, Pool};
use crate::time::Moment;
use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};

/// The port of DNS over TLS.
const DNS_OVER_TLS: u16 = 853;
/// The most datagrams that wait in events.
const MAX_DATAGRAMS: usize = 1024;

/// A userspace TCP/IP stack: see the module's description for its shape.
///
/// Every flow that was announced ends with [`Stack::refuse`], [`Stack::abort`], [`Stack::release`], or with
/// [`Received::Reset`]; until then its slot stays taken. Calls with a stale id do nothing.
#[derive(Debug)]
pub struct Stack {
    config: Config,
    tcp: Tcp,
    outbox: Outbox,
    reassembler: Reassembler,
    events: VecDeque<Event>,
    /// Datagrams among the events.
    datagrams: usize,
    /// The time of the last call that said it.
    now: Moment,
    packets_in: u64,
    malformed: u64,
    policy: u64,
    no_memory: u64,
}

impl Stack {
    /// Makes a stack whose payload lives in `pool`. Sequence numbers and hashes depend on `seed`, which must be secret.
    pub fn new(config: Config, pool: Pool, seed: u64) -> Self {
        let tcp = Tcp::new(pool, config.mtu, config.offload, seed);
        let outbox = Outbox::new(config.mtu, (seed >> 32) as u32);
        Self {
            config,
            tcp,
            outbox,
            reassembler: Reassembler::new(),
            events: VecDeque::new(),
            datagrams: 0,
            now: Moment::ZERO,
            packets_in: 0,
            malformed: 0,
            policy: 0,
            no_memory: 0,
        }
    }

    /// Takes one IP packet, up to 64 KiB. What is not understood is dropped and counted.
    pub fn handle_packet(&mut self, now: Moment, packet: &[u8], meta: PacketMeta) {
        self.now = now;
        self.packets_in += 1;
        let handled = ip::parse(packet).and_then(|packet| {
            let trusted = meta.checksum_trusted;
            if packet.fragment.is_none() {
                return self.handle_transport(&packet, trusted);
            }
            let Some(whole) = self.reassembler.push(now, &packet) else { return Ok(()) };
            // A checksum over pieces was computed by nobody but the sender of the whole.
            let packet = ip::Packet {
                src: whole.src,
                dst: whole.dst,
                protocol: whole.protocol,
                payload: &whole.payload,
                dont_fragment: false,
                fragment: None,
            };
            self.handle_transport(&packet, false)
        });
        if handled.is_err() {
            self.malformed += 1;
        }
    }

    /// Acts on everything that is due.
    pub fn handle_timeout(&mut self, now: Moment) {
        self.now = now;
        self.reassembler.expire(now);
        self.tcp.handle_timeout(now, &mut self.events);
    }

    /// When [`Stack::handle_timeout`] has something to do; `None` while nothing is due.
    pub fn poll_timeout(&self) -> Option<Moment> {
        [self.tcp.poll_timeout(), self.reassembler.poll_timeout()].into_iter().flatten().min()
    }

    /// The next thing that happened.
    pub fn poll_event(&mut self) -> Option<Event> {
        let event = self.events.pop_front()?;
        match &event {
            Event::Udp { .. } => self.datagrams -= 1,
            event => self.tcp.on_told(event),
        }
        if self.events.is_empty() && self.events.capacity() > 1024 {
            self.events = VecDeque::new();
        }
        Some(event)
    }

    /// Sends everything that may go now, with one ACK a flow.
    ///
    /// # Errors
    /// [`Blocked`] when the device is; what is left goes with the next call.
    pub fn transmit(&mut self, now: Moment, sink: &mut dyn PacketSink) -> Result<(), Blocked> {
        self.now = now;
        self.outbox.transmit(sink)?;
        self.tcp.transmit(now, sink)
    }

    /// Sends everything of one flow that may go now.
    ///
    /// # Errors
    /// [`Blocked`] when the device is; what is left goes with the next call.
    pub fn transmit_flow(
        &mut self,
        now: Moment,
        flow: FlowId,
        sink: &mut dyn PacketSink,
    ) -> Result<(), Blocked> {
        self.now = now;
        self.tcp.transmit_flow(now, flow, sink)
    }

    /// Accepts an opening flow: SYN-ACK goes with the next [`Stack::transmit`].
    pub fn accept(&mut self, flow: FlowId) {
        self.tcp.accept(flow);
    }

    /// Refuses a flow whose handshake is not complete; it is gone then.
    pub fn refuse(&mut self, flow: FlowId, how: Refusal) {
        let refused = self.tcp.refuse(flow, how == Refusal::Refused);
        if let Some((source, destination, sequence)) = refused
            && how != Refusal::Refused
            && let Some(error) = icmp::Error::of(how)
        {
            self.outbox.error(self.now, error, icmp::About::Tcp { sequence }, source, destination);
        }
    }

    /// Takes the next buffer that came in order, uniquely owned and with room before and behind the data. Taking it
    /// reopens the window.
    pub fn recv(&mut self, flow: FlowId) -> Received {
        self.tcp.recv(flow)
    }

    /// Bytes of held memory ([`Buffer::held`]) that [`Stack::send`] should add at most. After zero,
    /// [`Event::TcpWritable`] tells when there is room again.
    pub fn send_room(&self, flow: FlowId) -> usize {
        self.tcp.send_room(flow)
    }

    /// Queues data for the app, by reference until it is acknowledged. Data after [`Stack::finish`] is dropped.
    pub fn send(&mut self, flow: FlowId, data: Buffer) {
        self.tcp.send(flow, data);
    }

    /// Sends FIN after everything that is queued.
    pub fn finish(&mut self, flow: FlowId) {
        self.tcp.finish(flow);
    }

    /// Tears a flow down with RST; it is gone then.
    pub fn abort(&mut self, flow: FlowId) {
        self.tcp.abort(flow);
    }

    /// Forgets a flow. What is queued is still sent, then FIN; data that comes from now on is answered with RST.
    pub fn release(&mut self, flow: FlowId) {
        self.tcp.release(self.now, flow);
    }

    /// Whether a flow is gone: reset by either side, or released. [`Event::TcpReadable`] tells when.
    pub fn is_gone(&self, flow: FlowId) -> bool {
        self.tcp.is_gone(flow)
    }

    /// Whether everything sent, FIN included, has been acknowledged. After a no, [`Event::TcpWritable`] tells when.
    pub fn all_acked(&self, flow: FlowId) -> bool {
        self.tcp.all_acked(flow)
    }

    /// Queues a datagram from `source` (the remote end) to `destination` (the app), in fragments if it must be.
    pub fn send_datagram(&mut self, source: SocketAddr, destination: SocketAddr, data: Buffer) {
        self.outbox.datagram(source, destination, data);
    }

    /// Tells the app at `source` with ICMP that its datagrams to `destination` are refused.
    pub fn reject_udp(&mut self, now: Moment, source: SocketAddr, destination: SocketAddr, how: Refusal) {
        self.outbox.reject(now, source, destination, how);
    }

    /// Tells the app at `source` with ICMP that its datagram to `destination` was larger than `mtu`.
    pub fn reject_udp_too_big(&mut self, now: Moment, source: SocketAddr, destination: SocketAddr, mtu: u16) {
        self.outbox.too_big(now, source, destination, mtu);
    }

    /// What was counted.
    pub fn counters(&self) -> Counters {
        Counters {
            packets_in: self.packets_in,
            packets_out: self.outbox.sent() + self.tcp.env.packets_out,
            dropped_malformed: self.malformed + self.reassembler.dropped(),
            dropped_policy: self.policy,
            dropped_memory: self.no_memory + self.tcp.env.starved + self.outbox.dropped(),
            retransmits: self.tcp.env.retransmits,
            tcp_flows: self.tcp.flows(),
            half_open: self.tcp.half_open(),
        }
    }

    /// Takes up another config, all but the number of flows; flows go on.
    pub fn reconfigure(&mut self, config: Config) {
        self.set_mtu(config.mtu, config.offload);
        self.config = config;
    }

    /// Sets whether echo requests are answered and UDP to port 443 is refused.
    pub fn set_answers(&mut self, icmp_echo: bool, reject_udp443: bool) {
        (self.config.icmp_echo, self.config.reject_udp443) = (icmp_echo, reject_udp443);
    }

    /// Takes up another device's MTU and offload; flows go on.
    pub fn set_mtu(&mut self, mtu: usize, offload: bool) {
        (self.config.mtu, self.config.offload) = (mtu, offload);
        (self.tcp.env.mtu, self.tcp.env.offload) = (mtu, offload);
        self.outbox.set_mtu(mtu);
    }

    fn handle_transport(&mut self, packet: &ip::Packet<'_>, trusted: bool) -> Result<(), Malformed> {
        let (src, dst) = (packet.src, packet.dst);
        let is_ours = self.config.device_addresses.contains(&dst);
        if !ip::is_source(src) || !ip::is_dialable(dst) || is_ours {
            self.policy += 1;
            return Ok(());
        }
        match packet.protocol {
            Protocol::Tcp => {
                let dns = self.config.dns;
                let is_refused = |to: SocketAddr| to.port() == DNS_OVER_TLS && dns == Some(to.ip());
                self.tcp.handle(self.now, (src, dst), packet.payload, trusted, is_refused, &mut self.events)
            }
            Protocol::Udp => self.handle_datagram(packet, trusted),
            Protocol::Icmp | Protocol::Icmpv6
                if self.config.icmp_echo && packet.protocol == icmp::protocol(dst) =>
            {
                self.outbox.echo(src, dst, packet.payload, trusted, &self.tcp.env.pool);
                Ok(())
            }
            _ => {
                self.policy += 1;
                Ok(())
            }
        }
    }

    fn handle_datagram(&mut self, packet: &ip::Packet<'_>, trusted: bool) -> Result<(), Malformed> {
        let (src, dst): (IpAddr, IpAddr) = (packet.src, packet.dst);
        let datagram = udp::parse(src, dst, packet.payload, trusted)?;
        let source = SocketAddr::new(src, datagram.source_port);
        let destination = SocketAddr::new(dst, datagram.destination_port);
        if self.config.reject_udp443 && destination.port() == 443 {
            self.policy += 1;
            self.outbox.reject(self.now, source, destination, Refusal::Refused);
            return Ok(());
        }
        if datagram.data.is_empty() {
            self.policy += 1;
            return Ok(());
        }
        let data = match self.datagrams {
            0..MAX_DATAGRAMS => self.tcp.env.pool.copy(datagram.data),
            _ => None,
        };
        let Some(data) = data else {
            self.no_memory += 1;
            return Ok(());
        };
        self.datagrams += 1;
        let dont_fragment = packet.dont_fragment;
        self.events.push_back(Event::Udp { source, destination, data, dont_fragment });
        Ok(())
    }
}
