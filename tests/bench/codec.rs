//! The codec beside the bare AEAD that it is made of, at the same sizes in the same run.
//!
//! `raw` is one call of the AEAD on a buffer in place. `chunk` adds what VMess does for every chunk of a TCP
//! stream as clients send it: masked size, random padding, framing. What is compared is throughput of
//! payload, once by Criterion and once in turns (`ratios`): a busy machine slows both sides of a pair alike.
//! `connect` is what a new connection costs.
#![allow(clippy::print_stdout, reason = "a benchmark's output is its purpose")]

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use ring::aead::{AES_128_GCM, Aad, Algorithm, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use std::hint::black_box;
use std::time::{Duration, Instant};
use vmesskit::addr::{Host, Target};
use vmesskit::buffer::{HEADROOM, TAILROOM};
use vmesskit::entropy::SeededEntropy;
use vmesskit::vmess::chunk::{Framing, Opened, Opener, Sealer};
use vmesskit::vmess::client::{Request, connect};
use vmesskit::vmess::keys::BodyKeys;
use vmesskit::vmess::{Command, Id, Options, Security};

const KEYS: BodyKeys = BodyKeys { key: [1; 16], iv: [2; 16] };
const SIZES: [usize; 3] = [2048, 8192, 16_305];
const CIPHERS: [(Security, &Algorithm); 2] =
    [(Security::Aes128Gcm, &AES_128_GCM), (Security::Chacha20Poly1305, &CHACHA20_POLY1305)];

/// The bare AEAD.
struct Raw {
    key: LessSafeKey,
    count: u64,
}

impl Raw {
    fn new(algorithm: &'static Algorithm) -> Self {
        let key = UnboundKey::new(algorithm, &[1; 32][..algorithm.key_len()]).expect("right length");
        Self { key: LessSafeKey::new(key), count: 0 }
    }

    fn nonce(&mut self) -> Nonce {
        self.count += 1;
        let mut bytes = [0; 12];
        bytes[4..].copy_from_slice(&self.count.to_be_bytes());
        Nonce::assume_unique_for_key(bytes)
    }

    fn seal(&mut self, data: &mut [u8]) {
        let nonce = self.nonce();
        black_box(&self.key.seal_in_place_separate_tag(nonce, Aad::empty(), data).expect("sealed"));
    }

    fn open(&mut self, sealed: &mut [u8]) {
        let nonce = self.nonce();
        black_box(self.key.open_in_place(nonce, Aad::empty(), sealed).expect("opened"));
    }

    /// Messages one behind the other, as many as [`Chunks::stream`] has.
    fn stream(&mut self, size: usize) -> Vec<u8> {
        let mut wire = Vec::new();
        self.count = 0;
        for _ in 0..messages(size) {
            let mut data = vec![0; size];
            let nonce = self.nonce();
            self.key.seal_in_place_append_tag(nonce, Aad::empty(), &mut data).expect("sealed");
            wire.extend(data);
        }
        wire
    }

    fn open_stream(&mut self, wire: &mut [u8], size: usize) {
        self.count = 0;
        wire.chunks_exact_mut(size + 16).for_each(|sealed| self.open(sealed));
    }
}

/// Chunks of a TCP stream.
struct Chunks {
    sealer: Sealer,
    entropy: SeededEntropy,
}

impl Chunks {
    fn new(security: Security) -> Self {
        let sealer = Sealer::new(framing(security), &KEYS, &KEYS);
        Self { sealer, entropy: SeededEntropy::new(1) }
    }

    fn seal(&mut self, slab: &mut [u8], size: usize) {
        black_box(self.sealer.seal(slab, HEADROOM..HEADROOM + size, &mut self.entropy).expect("sealed"));
    }

    /// Chunks one behind the other, the first of their stream.
    fn stream(security: Security, size: usize) -> Vec<u8> {
        let mut this = Self::new(security);
        let mut slab = slab(size);
        let mut wire = Vec::new();
        for _ in 0..messages(size) {
            let payload = HEADROOM..HEADROOM + size;
            let chunk = this.sealer.seal(&mut slab, payload, &mut this.entropy).expect("sealed");
            wire.extend_from_slice(&slab[chunk]);
        }
        wire
    }

    fn open_stream(opener: &mut Opener, wire: &mut [u8]) {
        let mut rest = wire;
        while !rest.is_empty() {
            let opened = opener.open(rest).expect("opened");
            let Opened::Data { payload, consumed } = opened else { panic!("{opened:?}") };
            black_box(&rest[payload]);
            rest = &mut rest[consumed..];
        }
    }
}

fn framing(security: Security) -> Framing {
    Framing::new(security, Options(0x0D), Command::Tcp).expect("what clients send")
}

fn slab(size: usize) -> Vec<u8> {
    vec![0; HEADROOM + size + TAILROOM]
}

/// How many messages of `size` make a read of 64 KiB.
fn messages(size: usize) -> usize {
    65_536 / size
}

fn seal(criterion: &mut Criterion) {
    for (security, algorithm) in CIPHERS {
        let mut group = criterion.benchmark_group(format!("seal-{}", security.name()));
        for size in SIZES {
            group.throughput(Throughput::Bytes(size as u64));
            let (mut raw, mut data) = (Raw::new(algorithm), vec![0; size]);
            group.bench_function(format!("raw/{size}"), |bencher| bencher.iter(|| raw.seal(&mut data)));
            let (mut chunks, mut slab) = (Chunks::new(security), slab(size));
            group.bench_function(format!("chunk/{size}"), |bencher| {
                bencher.iter(|| chunks.seal(&mut slab, size))
            });
        }
        group.finish();
    }
}

fn open(criterion: &mut Criterion) {
    for (security, algorithm) in CIPHERS {
        let mut group = criterion.benchmark_group(format!("open-{}", security.name()));
        for size in SIZES {
            group.throughput(Throughput::Bytes((messages(size) * size) as u64));
            let mut raw = Raw::new(algorithm);
            let wire = raw.stream(size);
            group.bench_function(format!("raw/{size}"), |bencher| {
                bencher.iter_batched_ref(
                    || wire.clone(),
                    |wire| raw.open_stream(wire, size),
                    BatchSize::SmallInput,
                );
            });
            let wire = Chunks::stream(security, size);
            group.bench_function(format!("chunk/{size}"), |bencher| {
                bencher.iter_batched_ref(
                    || (Opener::new(framing(security), &KEYS, &KEYS), wire.clone()),
                    |(opener, wire)| Chunks::open_stream(opener, wire),
                    BatchSize::SmallInput,
                );
            });
        }
        group.finish();
    }
}

/// Times both in turns and returns the median of `raw / chunk`: 1 when framing costs nothing.
fn ratio(mut raw: impl FnMut() -> Duration, mut chunk: impl FnMut() -> Duration) -> f64 {
    let mut ratios: Vec<f64> = (0..401).map(|_| raw().as_secs_f64() / chunk().as_secs_f64()).collect();
    ratios.sort_by(f64::total_cmp);
    ratios[ratios.len() / 2]
}

fn timed(work: impl FnOnce()) -> Duration {
    let start = Instant::now();
    work();
    start.elapsed()
}

/// Prints how much of the bare AEAD's throughput the codec keeps.
fn ratios(_: &mut Criterion) {
    for (security, algorithm) in CIPHERS {
        for size in SIZES {
            let (mut raw, mut data) = (Raw::new(algorithm), vec![0; size]);
            let (mut chunks, mut slab) = (Chunks::new(security), slab(size));
            let rounds = 8 * messages(size);
            let sealing = ratio(
                || timed(|| (0..rounds).for_each(|_| raw.seal(&mut data))),
                || timed(|| (0..rounds).for_each(|_| chunks.seal(&mut slab, size))),
            );
            let (bare, framed) = (raw.stream(size), Chunks::stream(security, size));
            let mut input = Vec::new();
            let mut other = Vec::new();
            let opening = ratio(
                || {
                    input.clone_from(&bare);
                    timed(|| raw.open_stream(&mut input, size))
                },
                || {
                    other.clone_from(&framed);
                    let mut opener = Opener::new(framing(security), &KEYS, &KEYS);
                    timed(|| Chunks::open_stream(&mut opener, &mut other))
                },
            );
            println!("ratio {:<17} {size:>5} bytes: seal {sealing:.3}, open {opening:.3}", security.name());
        }
    }
}

fn connections(criterion: &mut Criterion) {
    let (id, _) = Id::parse("b831381d-6324-4d53-ad4f-8cda48b30811").expect("uuid");
    let cmd_key = id.cmd_key();
    let target = Target::new(Host::parse("example.com").expect("legal"), 443);
    let request = Request::new(Command::Tcp, target, Security::Aes128Gcm, false, false, false);
    let mut entropy = SeededEntropy::new(1);
    criterion.bench_function("connect", |bencher| {
        bencher.iter(|| connect(&cmd_key, black_box(&request), 1_700_000_000, &mut entropy).expect("legal"));
    });
}

criterion_group!(benches, ratios, connections, seal, open);
criterion_main!(benches);
