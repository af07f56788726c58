//! A peer that writes and reads single segments, with smoltcp's view of the wire.
#![allow(dead_code, reason = "each test uses its part")]

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    IpAddress, IpProtocol, Ipv4Packet, Ipv4Repr, Ipv6Packet, Ipv6Repr, TcpControl, TcpPacket, TcpRepr,
    TcpSeqNumber, TcpTimestampRepr,
};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use vmesskit::buffer::{Buffer, Pool};
use vmesskit::time::Moment;
use vmesskit::tun::stack::{
    Blocked, Config, Event, FlowId, Offload, PacketMeta, PacketSink, Received, Stack,
};

/// A segment as the peer sees it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Seg {
    pub(crate) src: u16,
    pub(crate) dst: u16,
    pub(crate) seq: u32,
    pub(crate) ack: Option<u32>,
    pub(crate) syn: bool,
    pub(crate) fin: bool,
    pub(crate) rst: bool,
    pub(crate) window: u16,
    pub(crate) mss: Option<u16>,
    pub(crate) scale: Option<u8>,
    pub(crate) sack_permitted: bool,
    pub(crate) sack: Vec<(u32, u32)>,
    pub(crate) data: Vec<u8>,
}

/// Collects packets; takes none while `blocked`.
#[derive(Default)]
pub(crate) struct Packets {
    pub(crate) list: Vec<Vec<u8>>,
    pub(crate) limit: Option<usize>,
}

impl PacketSink for Packets {
    fn send(&mut self, header: &[u8], payload: &[&[u8]], offload: Option<Offload>) -> Result<(), Blocked> {
        assert!(offload.is_none());
        if self.limit.is_some_and(|limit| self.list.len() >= limit) {
            return Err(Blocked);
        }
        self.list.push([header, &payload.concat()].concat());
        Ok(())
    }
}

/// A stack and the time.
pub(crate) struct Bench {
    pub(crate) now: Moment,
    pub(crate) stack: Stack,
    pub(crate) pool: Pool,
    pub(crate) app: IpAddr,
    pub(crate) remote: IpAddr,
}

/// An established flow from the app's side.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer {
    pub(crate) flow: FlowId,
    pub(crate) port: u16,
    /// The next sequence number of the app, and of the stack.
    pub(crate) seq: u32,
    pub(crate) ack: u32,
}

pub(crate) const REMOTE_PORT: u16 = 443;

impl Bench {
    pub(crate) fn new() -> Self {
        Self::with(Config::new(1500), 8 << 20)
    }

    pub(crate) fn with(config: Config, memory: usize) -> Self {
        let pool = Pool::new(memory);
        let stack = Stack::new(config, pool.clone(), 0x5eed);
        let (app, remote) = (IpAddr::from([172, 19, 0, 1]), IpAddr::from([93, 184, 216, 34]));
        Self { now: Moment::from_millis(5000), stack, pool, app, remote }
    }

    pub(crate) fn wait(&mut self, millis: u64) {
        self.now = self.now + Duration::from_millis(millis);
    }

    /// Lets the time pass up to the next deadline, acts on it, and returns what is sent then.
    pub(crate) fn expire(&mut self) -> Vec<Seg> {
        self.now = self.stack.poll_timeout().expect("something is due");
        self.stack.handle_timeout(self.now);
        self.drain()
    }

    /// A segment from the app.
    pub(crate) fn give(&mut self, seg: &Seg) {
        let packet = self.packet(seg);
        self.stack.handle_packet(self.now, &packet, PacketMeta::default());
    }

    /// What the stack sends now.
    pub(crate) fn drain(&mut self) -> Vec<Seg> {
        let mut packets = Packets::default();
        self.stack.transmit(self.now, &mut packets).expect("never blocked");
        packets.list.iter().map(|packet| self.read(packet)).collect()
    }

    /// Gives a segment and returns the answer.
    pub(crate) fn ask(&mut self, seg: &Seg) -> Vec<Seg> {
        self.give(seg);
        self.drain()
    }

    pub(crate) fn events(&mut self) -> Vec<Event> {
        std::iter::from_fn(|| self.stack.poll_event()).collect()
    }

    /// The flow that a SYN opens.
    pub(crate) fn open(&mut self, syn: &Seg) -> FlowId {
        self.give(syn);
        match self.stack.poll_event() {
            Some(Event::TcpOpening { flow, source, destination }) => {
                assert_eq!(source, SocketAddr::new(self.app, syn.src));
                assert_eq!(destination, SocketAddr::new(self.remote, syn.dst));
                flow
            }
            event => panic!("{event:?}"),
        }
    }

    /// Goes through the handshake.
    pub(crate) fn establish(&mut self, port: u16) -> Peer {
        self.establish_with(&Seg { scale: Some(7), sack_permitted: true, ..syn(port, 1000) })
    }

    pub(crate) fn establish_with(&mut self, syn: &Seg) -> Peer {
        let flow = self.open(syn);
        self.stack.accept(flow);
        let answer = self.drain();
        assert_eq!(answer.len(), 1, "{answer:?}");
        assert!(answer[0].syn && answer[0].ack == Some(syn.seq.wrapping_add(1)), "{answer:?}");
        let peer =
            Peer { flow, port: syn.src, seq: syn.seq.wrapping_add(1), ack: answer[0].seq.wrapping_add(1) };
        assert_eq!(self.ask(&peer.seg()), []);
        assert!(matches!(self.events()[..], [Event::TcpEstablished(id)] if id == flow));
        peer
    }

    pub(crate) fn buffer(&self, data: &[u8]) -> Buffer {
        self.pool.copy(data).expect("room")
    }

    /// Everything that can be taken, and what came last.
    pub(crate) fn take(&mut self, flow: FlowId) -> (Vec<u8>, Received) {
        let mut all = Vec::new();
        loop {
            match self.stack.recv(flow) {
                Received::Data(data) => all.extend_from_slice(&data),
                end => return (all, end),
            }
        }
    }

    pub(crate) fn packet(&self, seg: &Seg) -> Vec<u8> {
        let control = match (seg.syn, seg.fin, seg.rst) {
            (true, false, false) => TcpControl::Syn,
            (false, true, false) => TcpControl::Fin,
            (false, false, true) => TcpControl::Rst,
            _ => TcpControl::None,
        };
        let mut sack_ranges = [None; 3];
        for (range, block) in sack_ranges.iter_mut().zip(&seg.sack) {
            *range = Some(*block);
        }
        let repr = TcpRepr {
            src_port: seg.src,
            dst_port: seg.dst,
            control,
            seq_number: TcpSeqNumber(seg.seq as i32),
            ack_number: seg.ack.map(|ack| TcpSeqNumber(ack as i32)),
            window_len: seg.window,
            window_scale: seg.scale,
            max_seg_size: seg.mss,
            sack_permitted: seg.sack_permitted,
            sack_ranges,
            timestamp: None::<TcpTimestampRepr>,
            payload: &seg.data,
        };
        let checksums = ChecksumCapabilities::default();
        let mut tcp = vec![0; repr.buffer_len()];
        let (src, dst): (IpAddress, IpAddress) = (self.app.into(), self.remote.into());
        repr.emit(&mut TcpPacket::new_unchecked(&mut tcp), &src, &dst, &checksums);
        let mut ip = match (self.app, self.remote) {
            (IpAddr::V4(src_addr), IpAddr::V4(dst_addr)) => {
                let repr = Ipv4Repr {
                    src_addr,
                    dst_addr,
                    next_header: IpProtocol::Tcp,
                    payload_len: tcp.len(),
                    hop_limit: 64,
                };
                let mut ip = vec![0; repr.buffer_len()];
                repr.emit(&mut Ipv4Packet::new_unchecked(&mut ip), &checksums);
                ip
            }
            (IpAddr::V6(src_addr), IpAddr::V6(dst_addr)) => {
                let repr = Ipv6Repr {
                    src_addr,
                    dst_addr,
                    next_header: IpProtocol::Tcp,
                    payload_len: tcp.len(),
                    hop_limit: 64,
                };
                let mut ip = vec![0; repr.buffer_len()];
                repr.emit(&mut Ipv6Packet::new_unchecked(&mut ip));
                ip
            }
            _ => unreachable!("one family"),
        };
        ip.extend(tcp);
        ip
    }

    pub(crate) fn read(&self, packet: &[u8]) -> Seg {
        let (src, dst): (IpAddress, IpAddress) = (self.remote.into(), self.app.into());
        let payload = match self.app {
            IpAddr::V4(_) => {
                let ip = Ipv4Packet::new_checked(packet).expect("an IPv4 packet");
                assert!(ip.verify_checksum() && ip.dont_frag());
                assert_eq!((IpAddress::from(ip.src_addr()), IpAddress::from(ip.dst_addr())), (src, dst));
                assert_eq!(ip.next_header(), IpProtocol::Tcp);
                &packet[usize::from(ip.header_len())..]
            }
            IpAddr::V6(_) => &packet[40..],
        };
        let tcp = TcpPacket::new_checked(payload).expect("a segment");
        assert!(tcp.verify_checksum(&src, &dst));
        let repr = TcpRepr::parse(&tcp, &src, &dst, &ChecksumCapabilities::default()).expect("legal");
        Seg {
            src: repr.src_port,
            dst: repr.dst_port,
            seq: repr.seq_number.0 as u32,
            ack: repr.ack_number.map(|ack| ack.0 as u32),
            syn: repr.control == TcpControl::Syn,
            fin: repr.control == TcpControl::Fin,
            rst: repr.control == TcpControl::Rst,
            window: repr.window_len,
            mss: repr.max_seg_size,
            scale: repr.window_scale,
            sack_permitted: repr.sack_permitted,
            sack: repr.sack_ranges.into_iter().flatten().collect(),
            data: repr.payload.to_vec(),
        }
    }
}

/// A SYN from `port`, without window scale and SACK.
pub(crate) fn syn(port: u16, seq: u32) -> Seg {
    Seg { src: port, dst: REMOTE_PORT, seq, syn: true, window: 64_240, mss: Some(1460), ..Seg::default() }
}

impl Peer {
    /// A pure acknowledgement.
    pub(crate) fn seg(&self) -> Seg {
        Seg {
            src: self.port,
            dst: REMOTE_PORT,
            seq: self.seq,
            ack: Some(self.ack),
            window: 512,
            ..Seg::default()
        }
    }

    /// Data at the next sequence number.
    pub(crate) fn data(&mut self, data: &[u8]) -> Seg {
        let seg = Seg { data: data.to_vec(), ..self.seg() };
        self.seq = self.seq.wrapping_add(data.len() as u32);
        seg
    }

    pub(crate) fn fin(&mut self) -> Seg {
        let seg = Seg { fin: true, ..self.seg() };
        self.seq = self.seq.wrapping_add(1);
        seg
    }

    pub(crate) fn rst(&self, seq: u32) -> Seg {
        Seg { rst: true, ack: None, seq, ..self.seg() }
    }

    /// Takes note of what came in order, and returns the data.
    pub(crate) fn absorb(&mut self, segs: &[Seg]) -> Vec<u8> {
        let mut data = Vec::new();
        for seg in segs {
            if seg.seq == self.ack {
                data.extend_from_slice(&seg.data);
                self.ack = self.ack.wrapping_add(seg.data.len() as u32 + u32::from(seg.fin));
            }
        }
        data
    }
}
