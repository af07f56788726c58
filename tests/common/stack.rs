//! A stack and a smoltcp host at the two ends of a link that loses, repeats and reorders, under a clock of its own.
#![allow(dead_code, reason = "each test uses its part")]

use smoltcp::iface::{Config as IfaceConfig, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::tcp;
use smoltcp::time::Instant;
use smoltcp::wire::{HardwareAddress, IpAddress, IpCidr, Ipv4Address, Ipv6Address};
use std::collections::{BTreeMap, BinaryHeap, HashMap, VecDeque};
use std::net::IpAddr;
use std::time::Duration;
use vmesskit::buffer::{Class, Pool};
use vmesskit::entropy::{Entropy, SeededEntropy};
use vmesskit::time::Moment;
use vmesskit::tun::stack::{
    Blocked, Config, Event, FlowId, Offload, PacketMeta, PacketSink, Received, Stack,
};

pub(crate) const APP4: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(172, 19, 0, 1));
pub(crate) const REMOTE4: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(93, 184, 216, 34));
pub(crate) const APP6: IpAddr = IpAddr::V6(std::net::Ipv6Addr::new(0xfd19, 0, 0, 0, 0, 0, 0, 1));
pub(crate) const REMOTE6: IpAddr = IpAddr::V6(std::net::Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1));

/// The byte at `position` of the stream named `salt`.
pub(crate) fn pattern(salt: u64, position: u64) -> u8 {
    let word = (salt ^ (position >> 3)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (word ^ (word >> 29)).to_be_bytes()[(position & 7) as usize]
}

/// `len` bytes of a stream, from `position` on.
pub(crate) fn stretch(salt: u64, position: u64, len: usize) -> Vec<u8> {
    (position..position + len as u64).map(|at| pattern(salt, at)).collect()
}

/// How bad the link is, in percent, each way.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Impairment {
    pub(crate) loss: u32,
    pub(crate) repeat: u32,
    pub(crate) reorder: u32,
}

pub(crate) const CLEAN: Impairment = Impairment { loss: 0, repeat: 0, reorder: 0 };
pub(crate) const ROUGH: Impairment = Impairment { loss: 4, repeat: 3, reorder: 10 };

/// Says of a packet whether it is dropped.
pub(crate) type Filter = Box<dyn FnMut(&[u8]) -> bool>;

/// One direction of the link.
pub(crate) struct Line {
    entropy: SeededEntropy,
    pub(crate) impairment: Impairment,
    waiting: BinaryHeap<std::cmp::Reverse<(Moment, u64, Vec<u8>)>>,
    count: u64,
    /// Drops the packets for which it says so.
    pub(crate) filter: Option<Filter>,
    pub(crate) dropped: u64,
}

impl Line {
    fn new(seed: u64, impairment: Impairment) -> Self {
        let (entropy, waiting) = (SeededEntropy::new(seed), BinaryHeap::new());
        Self { entropy, impairment, waiting, count: 0, filter: None, dropped: 0 }
    }

    fn push(&mut self, now: Moment, packet: Vec<u8>) {
        if self.filter.as_mut().is_some_and(|drops| drops(&packet)) {
            self.dropped += 1;
            return;
        }
        let copies = 1 + u32::from(self.entropy.below(100) < self.impairment.repeat);
        for _ in 0..copies {
            if self.entropy.below(100) < self.impairment.loss {
                self.dropped += 1;
                continue;
            }
            let late = self.entropy.below(100) < self.impairment.reorder;
            let micros = if late { 100 + u64::from(self.entropy.below(2000)) } else { 100 };
            self.count += 1;
            let due = now + Duration::from_micros(micros);
            self.waiting.push(std::cmp::Reverse((due, self.count, packet.clone())));
        }
    }

    fn next(&self) -> Option<Moment> {
        self.waiting.peek().map(|entry| entry.0.0)
    }

    fn pop(&mut self, now: Moment) -> Option<Vec<u8>> {
        if self.next()? > now {
            return None;
        }
        self.waiting.pop().map(|entry| entry.0.2)
    }
}

/// Cuts super-segments as a device would, completes checksums, and collects packets.
#[derive(Default)]
pub(crate) struct Collector {
    pub(crate) packets: Vec<Vec<u8>>,
    /// Refuses packets once it holds this many.
    pub(crate) limit: Option<usize>,
}

impl PacketSink for Collector {
    fn send(&mut self, header: &[u8], payload: &[&[u8]], offload: Option<Offload>) -> Result<(), Blocked> {
        if self.limit.is_some_and(|limit| self.packets.len() >= limit) {
            return Err(Blocked);
        }
        let data = payload.concat();
        match offload {
            None => self.packets.push([header, &data].concat()),
            Some(offload) => self.cut(header, &data, offload),
        }
        Ok(())
    }
}

impl Collector {
    fn cut(&mut self, header: &[u8], data: &[u8], offload: Offload) {
        assert_eq!(header.len(), usize::from(offload.header_len));
        let size = offload.segment_size.map_or(data.len(), usize::from);
        let (transport, pieces) = (usize::from(offload.transport_offset), data.chunks(size));
        let last = pieces.len() - 1;
        let partial = u16::from_be_bytes([header[transport + 16], header[transport + 17]]);
        let full_len = (header.len() - transport + data.len()) as u32;
        for (n, piece) in pieces.enumerate() {
            let mut packet = [header, piece].concat();
            let seq = u32::from_be_bytes(packet[transport + 4..transport + 8].try_into().expect("4"));
            packet[transport + 4..transport + 8].copy_from_slice(&(seq + (n * size) as u32).to_be_bytes());
            if n != last {
                packet[transport + 13] &= !0x09;
            }
            let len = packet.len();
            if packet[0] >> 4 == 4 {
                packet[2..4].copy_from_slice(&(len as u16).to_be_bytes());
                packet[10..12].fill(0);
                let sum = !fold(words(&packet[..transport]));
                packet[10..12].copy_from_slice(&sum.to_be_bytes());
            } else {
                packet[4..6].copy_from_slice(&((len - 40) as u16).to_be_bytes());
            }
            // The field holds the pseudo header's sum for the whole; each piece has another length.
            packet[transport + 16..transport + 18].fill(0);
            let pseudo = u32::from(partial) + u32::from(!fold(full_len)) + (len - transport) as u32;
            let sum = !fold(fold(pseudo) as u32 + u32::from(fold(words(&packet[transport..]))));
            packet[transport + 16..transport + 18].copy_from_slice(&sum.to_be_bytes());
            self.packets.push(packet);
        }
    }
}

fn words(data: &[u8]) -> u32 {
    let sum: u64 = data
        .chunks(2)
        .map(|pair| u64::from(pair[0]) << 8 | u64::from(pair.get(1).copied().unwrap_or(0)))
        .sum();
    (sum & 0xffff) as u32 + ((sum >> 16) & 0xffff) as u32 + (sum >> 32) as u32
}

fn fold(sum: u32) -> u16 {
    let sum = (sum & 0xffff) + (sum >> 16);
    ((sum & 0xffff) + (sum >> 16)) as u16
}

/// smoltcp's side of the wire.
struct Port {
    mtu: usize,
    inbound: VecDeque<Vec<u8>>,
    outbound: Vec<Vec<u8>>,
}

impl Device for Port {
    type RxToken<'a> = Inbound;
    type TxToken<'a> = Outbound<'a>;

    fn receive(&mut self, _: Instant) -> Option<(Inbound, Outbound<'_>)> {
        let packet = self.inbound.pop_front()?;
        Some((Inbound(packet), Outbound(&mut self.outbound)))
    }

    fn transmit(&mut self, _: Instant) -> Option<Outbound<'_>> {
        Some(Outbound(&mut self.outbound))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = self.mtu;
        capabilities
    }
}

struct Inbound(Vec<u8>);
struct Outbound<'a>(&'a mut Vec<Vec<u8>>);

impl RxToken for Inbound {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

impl TxToken for Outbound<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let mut packet = vec![0; len];
        let result = f(&mut packet);
        self.0.push(packet);
        result
    }
}

/// What one end does with its flow.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Script {
    /// How many bytes it sends in all.
    pub(crate) send: u64,
    /// Whether it closes its direction after that.
    pub(crate) close: bool,
    /// Whether it reads what comes.
    pub(crate) read: bool,
    /// Closes only after the other end has.
    pub(crate) close_last: bool,
}

impl Script {
    pub(crate) const fn sends(bytes: u64) -> Self {
        Self { send: bytes, close: true, read: true, close_last: false }
    }
}

/// What one end has seen and done.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Progress {
    pub(crate) sent: u64,
    pub(crate) received: u64,
    pub(crate) fin: bool,
    pub(crate) closed: bool,
    pub(crate) reset: bool,
    pub(crate) established: bool,
}

pub(crate) struct AppFlow {
    pub(crate) handle: SocketHandle,
    pub(crate) salt: u64,
    pub(crate) script: Script,
    pub(crate) progress: Progress,
}

#[derive(Debug)]
pub(crate) struct ServerFlow {
    pub(crate) salt: u64,
    pub(crate) script: Script,
    pub(crate) progress: Progress,
    pub(crate) released: bool,
}

/// Both ends, the link, and the clock.
pub(crate) struct World {
    pub(crate) now: Moment,
    pub(crate) stack: Stack,
    pub(crate) pool: Pool,
    pub(crate) up: Line,
    pub(crate) down: Line,
    iface: Interface,
    port: Port,
    pub(crate) sockets: SocketSet<'static>,
    pub(crate) apps: Vec<AppFlow>,
    pub(crate) servers: HashMap<FlowId, ServerFlow>,
    /// What the server does, by the app's port.
    pub(crate) scripts: BTreeMap<u16, Script>,
    entropy: SeededEntropy,
    /// The sizes of the server's records: 1 to this.
    pub(crate) record: usize,
    /// Releases a server flow once both directions are done.
    pub(crate) release: bool,
    /// The most memory that was out at any time.
    pub(crate) peak: usize,
    next_port: u16,
    v6: bool,
    sink_limit: Option<usize>,
}

impl World {
    pub(crate) fn new(seed: u64, mtu: usize, v6: bool, impairment: Impairment) -> Self {
        Self::with(seed, Config::new(mtu), 16 << 20, v6, impairment)
    }

    pub(crate) fn with(seed: u64, config: Config, memory: usize, v6: bool, impairment: Impairment) -> Self {
        let pool = Pool::new(memory);
        let mut port = Port { mtu: config.mtu, inbound: VecDeque::new(), outbound: Vec::new() };
        let mut iface_config = IfaceConfig::new(HardwareAddress::Ip);
        iface_config.random_seed = seed;
        let mut iface = Interface::new(iface_config, &mut port, Instant::ZERO);
        iface.update_ip_addrs(|list| {
            for ip in [APP4, APP6] {
                list.push(IpCidr::new(ip.into(), 30)).expect("room");
            }
        });
        iface.routes_mut().add_default_ipv4_route(Ipv4Address::new(172, 19, 0, 2)).expect("room");
        let gateway = Ipv6Address::new(0xfd19, 0, 0, 0, 0, 0, 0, 2);
        iface.routes_mut().add_default_ipv6_route(gateway).expect("room");
        Self {
            now: Moment::from_millis(1000),
            stack: Stack::new(config, pool.clone(), seed),
            pool,
            up: Line::new(seed ^ 1, impairment),
            down: Line::new(seed ^ 2, impairment),
            iface,
            port,
            sockets: SocketSet::new(Vec::new()),
            apps: Vec::new(),
            servers: HashMap::new(),
            scripts: BTreeMap::new(),
            entropy: SeededEntropy::new(seed ^ 3),
            record: 5000,
            release: true,
            peak: 0,
            next_port: 40_000,
            v6,
            sink_limit: None,
        }
    }

    /// Opens a flow; `buffer` is the size of smoltcp's buffers.
    pub(crate) fn connect(&mut self, buffer: usize, app: Script, server: Script) -> usize {
        let mut socket = tcp::Socket::new(
            tcp::SocketBuffer::new(vec![0; buffer]),
            tcp::SocketBuffer::new(vec![0; buffer]),
        );
        socket.set_ack_delay(None);
        let remote: IpAddress = if self.v6 { REMOTE6 } else { REMOTE4 }.into();
        let local: IpAddress = if self.v6 { APP6 } else { APP4 }.into();
        let port = self.next_port;
        self.next_port += 1;
        socket.connect(self.iface.context(), (remote, 443), (local, port)).expect("connects");
        let handle = self.sockets.add(socket);
        self.scripts.insert(port, server);
        let progress = Progress::default();
        self.apps.push(AppFlow { handle, salt: u64::from(port), script: app, progress });
        self.apps.len() - 1
    }

    pub(crate) fn socket(&mut self, app: usize) -> &mut tcp::Socket<'static> {
        self.sockets.get_mut(self.apps[app].handle)
    }

    /// The server's end of an app's flow.
    pub(crate) fn server(&self, app: usize) -> Option<(FlowId, &ServerFlow)> {
        let salt = self.apps[app].salt;
        self.servers.iter().find(|(_, server)| server.salt == salt).map(|(id, server)| (*id, server))
    }

    /// Runs until `done` holds; panics if it does not within `limit` of the world's time.
    pub(crate) fn run_until(&mut self, limit: Duration, mut done: impl FnMut(&mut Self) -> bool) {
        let end = self.now + limit;
        while !done(self) {
            assert!(self.now < end, "not done in {limit:?}: {}", self.describe());
            self.step(end);
        }
    }

    /// Runs for a time.
    pub(crate) fn run_for(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.step(end);
        }
    }

    /// Runs until every app and server has done what its script says.
    pub(crate) fn run_to_the_end(&mut self, limit: Duration) {
        self.run_until(limit, |world| world.is_done());
    }

    pub(crate) fn is_done(&self) -> bool {
        self.apps.iter().all(|app| {
            let Some((_, server)) =
                self.server(self.apps.iter().position(|a| a.salt == app.salt).unwrap_or(0))
            else {
                return false;
            };
            app.progress.received == server.script.send
                && server.progress.received == app.script.send
                && server.progress.fin == app.script.close
                && app.progress.fin == server.script.close
        })
    }

    pub(crate) fn describe(&self) -> String {
        let apps: Vec<_> = self.apps.iter().map(|app| app.progress).take(4).collect();
        let servers: Vec<_> = self.servers.values().take(4).collect();
        format!("now {:?} apps {apps:?} servers {servers:?} {:?}", self.now, self.stack.counters())
    }

    fn step(&mut self, end: Moment) {
        let now = self.now;
        let instant = Instant::from_micros((now.as_nanos() / 1000) as i64);
        let mut busy = self.iface.poll(instant, &mut self.port, &mut self.sockets)
            == smoltcp::iface::PollResult::SocketStateChanged;
        busy |= self.run_apps();
        self.iface.poll(instant, &mut self.port, &mut self.sockets);
        for packet in std::mem::take(&mut self.port.outbound) {
            self.up.push(now, packet);
        }
        while let Some(packet) = self.up.pop(now) {
            self.stack.handle_packet(now, &packet, PacketMeta::default());
            busy = true;
        }
        if self.stack.poll_timeout().is_some_and(|due| due <= now) {
            self.stack.handle_timeout(now);
            assert!(self.stack.poll_timeout().is_none_or(|due| due > now), "a timeout that stays due");
            busy = true;
        }
        while let Some(event) = self.stack.poll_event() {
            self.on_event(event);
        }
        busy |= self.run_servers();
        self.peak = self.peak.max(self.pool.used());
        let mut collector = Collector { packets: Vec::new(), limit: self.sink_limit };
        let _ = self.stack.transmit(now, &mut collector);
        for packet in collector.packets {
            assert!(packet.len() <= self.port.mtu, "a packet of {} bytes", packet.len());
            self.down.push(now, packet);
        }
        while let Some(packet) = self.down.pop(now) {
            self.port.inbound.push_back(packet);
            busy = true;
        }
        let tick = now + Duration::from_micros(50);
        self.now = if busy {
            tick
        } else {
            let peer = self
                .iface
                .poll_at(instant, &self.sockets)
                .map(|at| Moment::from_nanos(at.total_micros() as u64 * 1000));
            let next = [self.up.next(), self.down.next(), self.stack.poll_timeout(), peer];
            next.into_iter().flatten().min().unwrap_or(end).max(tick).min(end)
        };
    }

    fn run_apps(&mut self) -> bool {
        let mut busy = false;
        for app in &mut self.apps {
            let socket = self.sockets.get_mut::<tcp::Socket<'_>>(app.handle);
            let (script, progress, salt) = (app.script, &mut app.progress, app.salt);
            progress.established |= socket.may_send() && socket.state() == tcp::State::Established;
            if !progress.established {
                progress.reset |= !socket.is_open();
                continue;
            }
            while progress.sent < script.send && socket.can_send() {
                let n = (script.send - progress.sent).min(20_000) as usize;
                let data = stretch(salt, progress.sent, n);
                let sent = socket.send_slice(&data).unwrap_or(0);
                busy |= sent > 0;
                progress.sent += sent as u64;
                if sent < n {
                    break;
                }
            }
            while script.read && socket.can_recv() {
                let taken = socket
                    .recv(|data| {
                        for (n, byte) in data.iter().enumerate() {
                            let expected = pattern(!salt, progress.received + n as u64);
                            assert_eq!(*byte, expected, "download differs");
                        }
                        (data.len(), data.len())
                    })
                    .expect("can receive");
                busy |= taken > 0;
                progress.received += taken as u64;
            }
            if !socket.may_recv() && !socket.can_recv() {
                match socket.state() {
                    tcp::State::CloseWait
                    | tcp::State::LastAck
                    | tcp::State::Closing
                    | tcp::State::TimeWait => {
                        progress.fin = true;
                    }
                    tcp::State::Closed if !progress.fin => progress.reset = true,
                    _ => {}
                }
            }
            let may_close = !script.close_last || progress.fin;
            if progress.sent == script.send && script.close && may_close && !progress.closed {
                progress.closed = true;
                socket.close();
            }
        }
        busy
    }

    fn on_event(&mut self, event: Event) {
        match event {
            Event::TcpOpening { flow, source, destination } => {
                assert_eq!(destination.port(), 443);
                let script = self.scripts[&source.port()];
                let (salt, progress) = (u64::from(source.port()), Progress::default());
                self.servers.insert(flow, ServerFlow { salt, script, progress, released: false });
                self.stack.accept(flow);
            }
            Event::TcpEstablished(flow) => {
                self.servers.get_mut(&flow).expect("was opened").progress.established = true;
            }
            Event::TcpReadable(_) | Event::TcpWritable(_) | Event::Udp { .. } => {}
        }
    }

    fn run_servers(&mut self) -> bool {
        let mut busy = false;
        for (flow, server) in &mut self.servers {
            let (script, progress, salt) = (server.script, &mut server.progress, server.salt);
            if !progress.established || server.released {
                continue;
            }
            while script.read && !progress.fin && !progress.reset {
                match self.stack.recv(*flow) {
                    Received::Data(mut buffer) => {
                        assert!(!buffer.is_empty());
                        let (_, range) = buffer.parts_mut().expect("uniquely owned");
                        assert!(range.start >= vmesskit::buffer::HEADROOM);
                        assert!(buffer.len() <= 16_305);
                        for (n, byte) in buffer.iter().enumerate() {
                            let expected = pattern(salt, progress.received + n as u64);
                            assert_eq!(*byte, expected, "upload differs");
                        }
                        progress.received += buffer.len() as u64;
                        busy = true;
                    }
                    Received::Empty => break,
                    Received::Fin => (progress.fin, busy) = (true, true),
                    Received::Reset => (progress.reset, busy) = (true, true),
                }
            }
            while progress.sent < script.send && self.stack.send_room(*flow) > 0 {
                let n =
                    (1 + u64::from(self.entropy.below(self.record as u32))).min(script.send - progress.sent);
                let Some(mut buffer) = self.pool.take(if n > 4096 { Class::Large } else { Class::Small })
                else {
                    break;
                };
                assert_eq!(buffer.append(&stretch(!salt, progress.sent, n as usize)), n as usize);
                self.stack.send(*flow, buffer);
                progress.sent += n;
                busy = true;
            }
            let may_close = !script.close_last || progress.fin;
            if progress.sent == script.send && script.close && may_close && !progress.closed {
                progress.closed = true;
                self.stack.finish(*flow);
                busy = true;
            }
            if self.release && progress.closed && progress.fin && self.stack.all_acked(*flow) {
                server.released = true;
                self.stack.release(*flow);
            }
        }
        busy
    }
}
