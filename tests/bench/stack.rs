//! What the stack costs without a device: payload through it in each direction, at several MTUs.
//!
//! A sink that counts stands for the device, and a peer that acknowledges at once for the local kernel, so the figures
//! are those of the stack alone: headers, checksums, queues and the one copy of an upload.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;
use std::net::Ipv4Addr;
use std::time::Duration;
use vmesskit::buffer::{Class, Pool};
use vmesskit::time::Moment;
use vmesskit::tun::stack::{
    Blocked, Config, Event, FlowId, Offload, PacketMeta, PacketSink, Received, Stack,
};

const APP: Ipv4Addr = Ipv4Addr::new(172, 19, 0, 1);
const REMOTE: Ipv4Addr = Ipv4Addr::new(93, 184, 216, 34);
const MTUS: [usize; 4] = [1500, 9000, 16_000, 65_000];
/// Payload of one round.
const ROUND: usize = 512 * 1024;

/// Remembers the end of what it was sent.
#[derive(Default)]
struct Sink {
    next: u32,
    packets: u64,
}

impl PacketSink for Sink {
    fn send(&mut self, header: &[u8], payload: &[&[u8]], _: Option<Offload>) -> Result<(), Blocked> {
        let len: usize = payload.iter().map(|slice| slice.len()).sum();
        let seq = u32::from_be_bytes([header[24], header[25], header[26], header[27]]);
        self.next = seq.wrapping_add(len as u32 + u32::from(header[33] & 3 != 0));
        self.packets += 1;
        black_box(payload);
        Ok(())
    }
}

struct Setup {
    stack: Stack,
    pool: Pool,
    sink: Sink,
    flow: FlowId,
    now: Moment,
    seq: u32,
    packet: Vec<u8>,
}

/// A segment without checksums: the device vouches for them.
fn write(packet: &mut Vec<u8>, port: u16, seq: u32, ack: u32, flags: u8, options: &[u8], payload: usize) {
    let len = 40 + options.len() + payload;
    packet.clear();
    packet.extend([0x45, 0]);
    packet.extend((len as u16).to_be_bytes());
    packet.extend([0, 0, 0x40, 0, 64, 6, 0, 0]);
    packet.extend(APP.octets());
    packet.extend(REMOTE.octets());
    let mut sum: u32 = packet.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum();
    sum = (sum & 0xffff) + (sum >> 16);
    packet[10..12].copy_from_slice(&(!(sum as u16)).to_be_bytes());
    packet.extend(port.to_be_bytes());
    packet.extend(443u16.to_be_bytes());
    packet.extend(seq.to_be_bytes());
    packet.extend(ack.to_be_bytes());
    packet.extend([(5 + options.len() as u8 / 4) << 4, flags, 0xff, 0xff, 0, 0, 0, 0]);
    packet.extend(options);
    packet.resize(len, 7);
}

impl Setup {
    fn new(mtu: usize, offload: bool, idle: u16) -> Self {
        let pool = Pool::new(64 << 20);
        let config = Config { offload, ..Config::new(mtu) };
        let now = Moment::from_millis(10_000);
        let mut setup = Self {
            stack: Stack::new(config, pool.clone(), 7),
            pool,
            sink: Sink::default(),
            flow: FlowId { slot: 0, generation: 0 },
            now,
            seq: 0,
            packet: Vec::new(),
        };
        for port in 0..=idle {
            setup.establish(20_000 + port, mtu);
        }
        setup
    }

    fn give(&mut self) {
        self.stack.handle_packet(self.now, &self.packet, PacketMeta { checksum_trusted: true });
    }

    fn transmit(&mut self) {
        self.stack.transmit(self.now, &mut self.sink).expect("never blocked");
    }

    fn establish(&mut self, port: u16, mtu: usize) {
        let [high, low] = (mtu as u16 - 40).to_be_bytes();
        write(&mut self.packet, port, 99, 0, 2, &[2, 4, high, low, 1, 3, 3, 7, 1, 1, 4, 2], 0);
        self.give();
        let Some(Event::TcpOpening { flow, .. }) = self.stack.poll_event() else { panic!("no flow") };
        self.stack.accept(flow);
        self.transmit();
        self.seq = 100;
        (self.flow, self.packet) = (flow, std::mem::take(&mut self.packet));
        write(&mut self.packet, port, 100, self.sink.next, 0x10, &[], 0);
        self.give();
        while self.stack.poll_event().is_some() {}
    }

    /// Sends one round of records of 2 kB that share slabs, as a V2Ray server's do, and acknowledges it.
    fn download(&mut self, port: u16) {
        self.now = self.now + Duration::from_micros(400);
        let mut left = ROUND;
        while left > 0 {
            let mut slab = self.pool.take(Class::Large).expect("room");
            let n = 61_440.min(left);
            slab.commit(n);
            for start in (0..n).step_by(2048) {
                self.stack.send(self.flow, slab.slice(start..(start + 2048).min(n)));
            }
            left -= n;
            self.transmit();
            // The kernel acknowledges every batch.
            write(&mut self.packet, port, self.seq, self.sink.next, 0x10, &[], 0);
            self.give();
        }
        while self.stack.poll_event().is_some() {}
    }

    /// Takes one round in full segments, in batches of 64, as the driver does.
    fn upload(&mut self, port: u16, mtu: usize) {
        self.now = self.now + Duration::from_micros(400);
        let mut left = ROUND;
        while left > 0 {
            for _ in 0..64 {
                let n = (mtu - 40).min(left);
                if n == 0 {
                    break;
                }
                write(&mut self.packet, port, self.seq, self.sink.next, 0x10, &[], n);
                self.give();
                self.seq = self.seq.wrapping_add(n as u32);
                left -= n;
                if self.pool.used() > 400_000 {
                    break;
                }
            }
            while self.stack.poll_event().is_some() {}
            while let Received::Data(data) = self.stack.recv(self.flow) {
                black_box(&data);
            }
            let next = self.sink.next;
            self.transmit();
            self.sink.next = next;
        }
    }
}

fn bench(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("stack");
    group.throughput(Throughput::Bytes(ROUND as u64)).warm_up_time(Duration::from_millis(500));
    group.measurement_time(Duration::from_secs(2)).sample_size(20);
    for mtu in MTUS {
        group.bench_with_input(BenchmarkId::new("download", mtu), &mtu, |bencher, mtu| {
            let mut setup = Setup::new(*mtu, false, 0);
            bencher.iter(|| setup.download(20_000));
        });
        group.bench_with_input(BenchmarkId::new("upload", mtu), &mtu, |bencher, mtu| {
            let mut setup = Setup::new(*mtu, false, 0);
            bencher.iter(|| setup.upload(20_000, *mtu));
        });
    }
    group.bench_function("download/offload", |bencher| {
        let mut setup = Setup::new(1500, true, 0);
        bencher.iter(|| setup.download(20_000));
    });
    group.bench_function("download/1500 beside 1000 idle", |bencher| {
        let mut setup = Setup::new(1500, false, 1000);
        bencher.iter(|| setup.download(21_000));
    });
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
