//! Packets from the device into the TCP/IP stack, between the calls of whoever drives it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use vmesskit::buffer::Pool;
use vmesskit::time::Moment;
use vmesskit::tun::stack::{
    Blocked, Config, Event, FlowId, Offload, PacketMeta, PacketSink, Received, Refusal, Stack,
};
use vmesskit_fuzz::Input;

const MEMORY: usize = 1 << 20;
const MTU: usize = 1500;

/// The device: it is blocked for as long as it is told to be.
struct Device {
    blocked: bool,
    /// The last segment's sequence number, for the app to acknowledge.
    seq: u32,
}

impl PacketSink for Device {
    fn send(&mut self, header: &[u8], payload: &[&[u8]], offload: Option<Offload>) -> Result<(), Blocked> {
        if self.blocked {
            return Err(Blocked);
        }
        let len = header.len() + payload.iter().map(|piece| piece.len()).sum::<usize>();
        assert!(offload.is_none() && len <= MTU);
        match header.first().map(|first| first >> 4) {
            Some(4) => {
                assert_eq!(usize::from(u16::from_be_bytes([header[2], header[3]])), len);
                if header[9] == 6 {
                    self.seq = u32::from_be_bytes([header[24], header[25], header[26], header[27]]);
                }
            }
            Some(6) => assert_eq!(usize::from(u16::from_be_bytes([header[4], header[5]])) + 40, len),
            version => panic!("IP version {version:?}"),
        }
        Ok(())
    }
}

fuzz_target!(|data: &[u8]| {
    let mut input = Input(data);
    let pool = Pool::new(MEMORY);
    let mut config = Config::new(MTU);
    config.reject_udp443 = input.flag();
    config.device_addresses = vec![IpAddr::from([172, 19, 0, 1])];
    let mut stack = Stack::new(config, pool.clone(), 1);
    let (mut now, mut device) = (Moment::from_millis(5000), Device { blocked: false, seq: 0 });
    let mut flows: Vec<FlowId> = Vec::new();
    while !input.is_empty() {
        let op = input.byte();
        let flow = flows.get(usize::from(op >> 4) % flows.len().max(1)).copied();
        match (op & 0x0F, flow) {
            (0, _) => {
                let meta = PacketMeta { checksum_trusted: input.flag() };
                let len = input.byte();
                stack.handle_packet(now, input.take(len.into()), meta);
            }
            // What no mutation finds soon: a segment of one of a few connections, in the window.
            (1..=4, _) => {
                let packet = segment(&mut input, device.seq);
                stack.handle_packet(now, &packet, PacketMeta { checksum_trusted: true });
            }
            (5, _) => now = now + Duration::from_millis(u64::from(input.byte()) * 8),
            (6, _) => device.blocked = !device.blocked,
            (7, Some(flow)) => stack.accept(flow),
            (8, Some(flow)) => {
                let room = stack.send_room(flow);
                if let Some(buffer) = pool.copy(&vec![op; usize::from(input.short()).min(room).min(4000)]) {
                    stack.send(flow, buffer);
                }
            }
            (9, Some(flow)) => while let Received::Data(_) = stack.recv(flow) {},
            (10, Some(flow)) => stack.finish(flow),
            (11, Some(flow)) => stack.abort(flow),
            (12, Some(flow)) => stack.release(flow),
            (13, Some(flow)) => stack.refuse(flow, Refusal::Unreachable),
            (14, _) => {
                let (source, destination) = ([172, 19, 0, 1], [93, 184, 216, 34]);
                let ends = [source, destination].map(|ip| SocketAddr::from((ip, 53)));
                if let Some(buffer) = pool.copy(&vec![op; usize::from(input.short()) % 3000]) {
                    stack.send_datagram(ends[1], ends[0], buffer);
                }
                stack.reject_udp(now, ends[0], ends[1], Refusal::Refused);
            }
            _ => {}
        }
        stack.handle_timeout(now);
        assert!(stack.poll_timeout().is_none_or(|due| due > now), "what is due has been done");
        while let Some(event) = stack.poll_event() {
            match event {
                Event::TcpOpening { flow, .. } => {
                    flows.push(flow);
                    if op & 0x80 == 0 {
                        stack.accept(flow);
                    }
                }
                Event::Udp { data, .. } => assert!(!data.is_empty()),
                _ => {}
            }
        }
        let _ = stack.transmit(now, &mut device);
        assert!(pool.used() <= MEMORY);
    }
    for flow in flows {
        stack.release(flow);
        assert!(matches!(stack.recv(flow), Received::Reset));
    }
});

/// A segment from one of four ports, with flags, an acknowledgement and a sequence number near what is expected.
fn segment(input: &mut Input<'_>, acked: u32) -> Vec<u8> {
    let (port, flags, near, ahead, options) =
        (input.below(4), input.byte(), input.short(), input.byte(), input.below(4));
    let (window, data) = (input.short(), input.byte());
    let data = input.take(data.into());
    let header = 20 + usize::from(options) * 4;
    let seq = 1000 + u32::from(near);
    let ack = acked.wrapping_add(u32::from(ahead));
    let mut packet = vec![0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, 6, 0, 0, 172, 19, 0, 1, 93, 184, 216, 34];
    packet.extend_from_slice(&[0xC3, port, 1, 187]);
    packet.extend_from_slice(&seq.to_be_bytes());
    packet.extend_from_slice(&ack.to_be_bytes());
    packet.extend_from_slice(&[(header as u8 / 4) << 4, flags]);
    packet.extend_from_slice(&window.to_be_bytes());
    packet.extend_from_slice(&[0; 4]);
    let mut option = input.take(header - 20).to_vec();
    option.resize(header - 20, 0);
    packet.extend_from_slice(&option);
    packet.extend_from_slice(data);
    let len = (packet.len() as u16).to_be_bytes();
    packet[2..4].copy_from_slice(&len);
    let sum =
        packet[..20].chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum::<u32>();
    let sum = (sum & 0xFFFF) + (sum >> 16);
    let checksum = !((sum & 0xFFFF) + (sum >> 16)) as u16;
    packet[10..12].copy_from_slice(&checksum.to_be_bytes());
    packet
}
