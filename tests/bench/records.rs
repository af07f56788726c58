//! Uploads through a VMess server with records of one size, on the codec alone, and prints what that cost.
//!
//! `records SERVER ID TARGET RECORD BYTES`. The target speaks the load generator's protocol: `U`, a length, the bytes,
//! an eight-byte answer. Prints one JSON line: bytes, Gbit/s, and this process's CPU seconds per GB.

use std::error::Error;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Instant, SystemTime, UNIX_EPOCH};
use vmesskit::addr::Target;
use vmesskit::buffer::{HEADROOM, TAILROOM};
use vmesskit::entropy::SeededEntropy;
use vmesskit::vmess::chunk::Opened;
use vmesskit::vmess::client::{self, Connection, Request};
use vmesskit::vmess::{Command, Id, Security};

/// Records that leave in one write, as the engine does it.
const BATCH: usize = 64 << 10;

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().collect();
    let [_, server, id, target, record, bytes] = args.as_slice() else {
        return Err("usage: records SERVER ID TARGET RECORD BYTES".into());
    };
    let (id, _) = Id::parse(id).ok_or("no id")?;
    let (record, bytes): (usize, usize) = (record.parse()?, bytes.parse()?);
    let target = Target::from(target.parse::<SocketAddr>()?);
    let mut stream = TcpStream::connect(server)?;
    stream.set_nodelay(true)?;

    let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
    let mut entropy = SeededEntropy::new(now.as_nanos() as u64);
    let request = Request::new(Command::Tcp, target, Security::Aes128Gcm, false, false, false);
    let made = client::connect(&id.cmd_key(), &request, now.as_secs() as i64, &mut entropy)?;
    let Connection { header, mut uplink, mut downlink } = made;

    let mut order = vec![b'U'];
    order.extend((bytes as u64).to_be_bytes());
    let mut wire = header;
    let mut slab = vec![0; HEADROOM + record.max(order.len()) + TAILROOM];
    slab[HEADROOM..HEADROOM + order.len()].copy_from_slice(&order);
    let sealed = uplink.seal(&mut slab, HEADROOM..HEADROOM + order.len(), &mut entropy)?;
    wire.extend_from_slice(&slab[sealed]);

    let start = Instant::now();
    let mut left = bytes;
    while left > 0 || !wire.is_empty() {
        while left > 0 && wire.len() < BATCH {
            let n = left.min(record);
            let sealed = uplink.seal(&mut slab, HEADROOM..HEADROOM + n, &mut entropy)?;
            wire.extend_from_slice(&slab[sealed]);
            left -= n;
        }
        stream.write_all(&wire)?;
        wire.clear();
    }

    let (mut input, mut at, mut answer) = (vec![0; 4096], 0, Vec::new());
    while answer.len() < 8 {
        let n = stream.read(&mut input[at..])?;
        if n == 0 {
            return Err("the server closed before the answer".into());
        }
        at += n;
        while let Opened::Data { payload, consumed } = downlink.open(&mut input[..at])? {
            answer.extend_from_slice(&input[payload]);
            input.copy_within(consumed..at, 0);
            at -= consumed;
        }
    }
    let seconds = start.elapsed().as_secs_f64();
    let gbps = bytes as f64 * 8e-9 / seconds;
    let cpu = cpu_seconds()? / (bytes as f64 / 1e9);
    #[expect(clippy::print_stdout, reason = "the one line that this program is for")]
    {
        println!("{{\"bytes\":{bytes},\"gbps\":{gbps:.4},\"cpu_per_gb\":{cpu:.4}}}");
    }
    Ok(())
}

/// User and system time of this process so far, in seconds (the kernel counts in ticks of 10 ms).
fn cpu_seconds() -> Result<f64, Box<dyn Error>> {
    let stat = fs::read_to_string("/proc/self/stat")?;
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |i: usize| fields.get(i).and_then(|field| field.parse::<f64>().ok()).unwrap_or_default();
    Ok((ticks(11) + ticks(12)) / 100.0)
}
