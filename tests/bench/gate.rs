//! What the gate of a server costs, beside the bare ciphers that it is made of, in the same run.
//!
//! `stranger` is a whole header of noise, from the first byte to the refusal, and `stranger-to-one` what of that
//! does not depend on how many users there are. `bare` decrypts one AES block under as many keys as there are
//! users, by the cipher that the gate uses, and `instructions` by those of the CPU alone. `legacy` is the same
//! noise at a server with next to no legacy signatures and with as many as the default limit takes. `accept` is a
//! user's header, and what the user's place among the others costs. `advance` is a second of a full table.
#![allow(clippy::print_stdout, reason = "a benchmark's output is its purpose")]

use aes::Aes128Dec;
use aes::cipher::{BlockCipherDecrypt, KeyInit};
use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use std::hint::black_box;
use std::time::{Duration, Instant};
use vmesskit::addr::{Host, Target};
use vmesskit::entropy::{Entropy, SeededEntropy};
use vmesskit::vmess::auth::AuthCipher;
use vmesskit::vmess::gate::{Acceptor, Gate, GateLimits, Step, User, Users};
use vmesskit::vmess::header::RequestHeader;
use vmesskit::vmess::keys::BodyKeys;
use vmesskit::vmess::{Command, Id, Options, Security, envelope};

const NOW: i64 = 1_700_000_000;
const USERS: u32 = 10_000;
/// As many ids as the default limit takes, 72 times 101.
const LEGACY: (u32, u16) = (72, 100);

fn user(n: u32, alter_id: u16) -> User {
    let mut id = [0x5A; 16];
    id[..4].copy_from_slice(&n.to_be_bytes());
    let email = format!("user{n}@example.com").into();
    User { id: Id::from_bytes(id), alter_id, level: 0, email, no_termination_signal: false }
}

fn gate(users: u32, alter_id: u16) -> Gate {
    let users = Users::new((0..users).map(|n| user(n, alter_id)).collect());
    // Memory enough for all that the benchmark accepts in its one second.
    let limits = GateLimits { replay_entries: 1 << 24, replay_per_user: 1 << 24, ..GateLimits::default() };
    Gate::new(users, limits, NOW - 1000, &mut SeededEntropy::new(1))
}

/// One AES block under each of many keys.
enum Bare {
    #[cfg(target_arch = "x86_64")]
    Instructions(Vec<instructions::RoundKeys>),
    Crate(Vec<Aes128Dec>),
}

impl Bare {
    /// By the instructions themselves, if there are any.
    fn instructions(keys: u32) -> Option<Self> {
        #[cfg(target_arch = "x86_64")]
        if std::arch::is_x86_feature_detected!("aes") {
            return Some(Self::Instructions(instructions::keys(keys)));
        }
        let _none_here = keys;
        None
    }

    /// By the ciphers of the `aes` crate, one a key.
    fn new(keys: u32) -> Self {
        let key = |n: u32| {
            let mut key = [7; 16];
            key[..4].copy_from_slice(&n.to_be_bytes());
            Aes128Dec::new((&key).into())
        };
        Self::Crate((0..keys).map(key).collect())
    }

    fn decrypt(&self, block: &[u8; 16]) {
        match self {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: this variant is made only where the CPU has AES instructions.
            Self::Instructions(keys) => unsafe { instructions::decrypt(keys, block) },
            Self::Crate(ciphers) => {
                for cipher in ciphers {
                    let mut block = *block;
                    cipher.decrypt_block((&mut block).into());
                    black_box(block);
                }
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod instructions {
    use std::arch::x86_64::{
        __m128i, _mm_aesdec_si128, _mm_aesdeclast_si128, _mm_set_epi64x, _mm_setzero_si128, _mm_xor_si128,
    };
    use std::hint::black_box;

    pub(super) type RoundKeys = [__m128i; 11];

    /// Any numbers do for round keys: they all take the same time.
    pub(super) fn keys(count: u32) -> Vec<RoundKeys> {
        // SAFETY: SSE2 is a part of x86-64.
        let key = |n: u32, round: i64| unsafe { _mm_set_epi64x(i64::from(n), round) };
        (0..count).map(|n| std::array::from_fn(|round| key(n, round as i64))).collect()
    }

    #[target_feature(enable = "aes")]
    pub(super) fn decrypt(keys: &[RoundKeys], block: &[u8; 16]) {
        let half = |at: usize| i64::from_le_bytes(std::array::from_fn(|n| block[at + n]));
        let (block, mut all) = (_mm_set_epi64x(half(8), half(0)), _mm_setzero_si128());
        for [first, rounds @ .., last] in keys {
            let start = _mm_xor_si128(block, *first);
            let state = rounds.iter().fold(start, |state, key| _mm_aesdec_si128(state, *key));
            all = _mm_xor_si128(all, _mm_aesdeclast_si128(state, *last));
        }
        black_box(all);
    }
}

fn noise(entropy: &mut SeededEntropy) -> [u8; 100] {
    let mut noise = [0; 100];
    entropy.fill(&mut noise);
    noise
}

fn refuse(gate: &Gate, noise: &mut [u8]) {
    let step = Acceptor::new().step(gate, noise, NOW);
    assert!(matches!(step, Step::Refused(_)), "noise is nobody's");
}

/// A header of user `n`; another `serial` makes another auth id.
fn hello(n: u32, serial: u32, entropy: &mut SeededEntropy) -> Vec<u8> {
    let key = user(n, 0).id.cmd_key();
    let mut keys = BodyKeys { key: [0; 16], iv: [0; 16] };
    entropy.fill(&mut keys.key);
    let request = RequestHeader {
        keys,
        token: 1,
        options: Options(0x0D),
        security: Security::Aes128Gcm,
        command: Command::Tcp,
        target: Some(Target::new(Host::parse("example.com").expect("legal"), 443)),
    };
    let mut plain = Vec::new();
    request.encode(&[], &mut plain).expect("legal");
    let auth_id = AuthCipher::new(&key).seal(NOW, serial.to_be_bytes());
    envelope::seal_request(&key, &auth_id, &[0; 8], &plain)
}

fn timed(work: impl FnOnce()) -> Duration {
    let start = Instant::now();
    work();
    start.elapsed()
}

/// Times both in turns and returns the median of `ours / theirs`.
fn ratio(mut ours: impl FnMut() -> Duration, mut theirs: impl FnMut() -> Duration) -> f64 {
    let mut ratios: Vec<f64> = (0..401).map(|_| ours().as_secs_f64() / theirs().as_secs_f64()).collect();
    ratios.sort_by(f64::total_cmp);
    ratios[ratios.len() / 2]
}

/// Prints what a stranger costs beside the bare cipher, and beside the smallest table of signatures.
fn ratios(_: &mut Criterion) {
    let (entropy, other) = (&mut SeededEntropy::new(1), &mut SeededEntropy::new(2));
    let (many, bare) = (gate(USERS, 0), Bare::new(USERS));
    let mut beside = |bare: &Bare| {
        ratio(
            || {
                let mut noise = noise(entropy);
                timed(|| refuse(&many, &mut noise))
            },
            || {
                let mut block = [0; 16];
                other.fill(&mut block);
                timed(|| bare.decrypt(&block))
            },
        )
    };
    println!("ratio stranger among {USERS} users / {USERS} bare AES blocks: {:.2}", beside(&bare));
    if let Some(bare) = Bare::instructions(USERS) {
        println!("ratio stranger among {USERS} users / the AES instructions alone: {:.2}", beside(&bare));
    }
    let (large, small) = (gate(LEGACY.0, LEGACY.1), gate(LEGACY.0, 1));
    let mut probe = |gate: &Gate| {
        let mut all: Vec<_> = (0..100).map(|_| noise(entropy)).collect();
        timed(|| all.iter_mut().for_each(|noise| refuse(gate, noise)))
    };
    let mut large_times: Vec<_> = Vec::new();
    let mut small_times: Vec<_> = Vec::new();
    for _ in 0..401 {
        large_times.push(probe(&large));
        small_times.push(probe(&small));
    }
    large_times.sort();
    small_times.sort();
    let tags = |gate: &Gate| gate.users().legacy_tags_needed();
    println!(
        "ratio noise at {} legacy tags / at {}: {:.2}",
        tags(&large),
        tags(&small),
        large_times[200].as_secs_f64() / small_times[200].as_secs_f64()
    );
}

fn strangers(criterion: &mut Criterion) {
    let mut entropy = SeededEntropy::new(3);
    let (many, bare) = (gate(USERS, 0), Bare::new(USERS));
    let mut group = criterion.benchmark_group(format!("among-{USERS}"));
    group.bench_function("bare", |bencher| bencher.iter(|| bare.decrypt(black_box(&[3; 16]))));
    if let Some(bare) = Bare::instructions(USERS) {
        group.bench_function("instructions", |bencher| bencher.iter(|| bare.decrypt(black_box(&[3; 16]))));
    }
    group.bench_function("stranger", |bencher| {
        bencher.iter_batched_ref(|| noise(&mut entropy), |noise| refuse(&many, noise), BatchSize::SmallInput);
    });
    let one = gate(1, 0);
    group.bench_function("stranger-to-one", |bencher| {
        bencher.iter_batched_ref(|| noise(&mut entropy), |noise| refuse(&one, noise), BatchSize::SmallInput);
    });
    group.finish();
    let mut group = criterion.benchmark_group("legacy");
    for alter_id in [1, LEGACY.1] {
        let gate = gate(LEGACY.0, alter_id);
        let tags = gate.users().legacy_tags_needed();
        group.bench_function(format!("stranger-at-{tags}"), |bencher| {
            bencher.iter_batched_ref(
                || noise(&mut entropy),
                |noise| refuse(&gate, noise),
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

fn accepts(criterion: &mut Criterion) {
    let mut entropy = SeededEntropy::new(4);
    let (many, mut serial) = (gate(USERS, 0), 0);
    let mut group = criterion.benchmark_group("accept");
    for (name, users) in [("the-last-user-again", 1), ("any-user", USERS)] {
        group.bench_function(name, |bencher| {
            bencher.iter_batched_ref(
                || {
                    serial += 1;
                    hello(entropy.below(users), serial, &mut entropy)
                },
                |wire| assert!(matches!(Acceptor::new().step(&many, wire, NOW), Step::Accepted(_))),
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

fn advance(criterion: &mut Criterion) {
    let gate = gate(LEGACY.0, LEGACY.1);
    let mut now = NOW;
    criterion.bench_function("advance-2-seconds", |bencher| {
        bencher.iter(|| {
            now += 2;
            gate.advance(now);
        });
    });
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20).measurement_time(Duration::from_secs(2)).warm_up_time(Duration::from_millis(500));
    targets = ratios, strangers, accepts, advance
}
criterion_main!(benches);
