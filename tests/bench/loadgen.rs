//! A load generator and its server, for comparing tunnels: plain threads, no dependency, one JSON line a run.
//!
//! ```text
//! loadgen serve ADDR...                       serves until it is ended
//! loadgen get  TARGET VIA FLOWS BYTES         downloads BYTES in each of FLOWS connections
//! loadgen put  TARGET VIA FLOWS BYTES         uploads
//! loadgen hold TARGET VIA COUNT SECONDS       opens COUNT connections, one small answer each, and keeps them idle
//! loadgen stall TARGET VIA COUNT SECONDS      opens COUNT connections that ask for much and read nothing
//! loadgen rate TARGET VIA WORKERS SECONDS     connects, asks 1 KiB, closes, again and again
//! loadgen ping TARGET VIA SECONDS             asks 1 KiB on one connection, again and again
//! ```
//! `VIA` is `direct` or the address of a SOCKS5 server. Requests on a connection are `D` or `U` and a big-endian `u64`:
//! send me so many bytes, or take so many and answer with eight.

use std::env;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

const PIECE: usize = 256 << 10;

fn main() -> ExitCode {
    let args: Vec<String> = env::args().skip(1).collect();
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("loadgen: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &[String]) -> io::Result<()> {
    let text = |i: usize| args.get(i).map(String::as_str).unwrap_or_default();
    let number = |i: usize| text(i).parse::<f64>().map_err(|_| usage());
    let target = || text(1).parse::<SocketAddr>().map_err(|_| usage());
    match text(0) {
        "serve" => serve(&args[1..]),
        "get" => transfer(target()?, text(2), number(3)? as usize, number(4)? as u64, b'D'),
        "put" => transfer(target()?, text(2), number(3)? as usize, number(4)? as u64, b'U'),
        "hold" => hold(target()?, text(2), number(3)? as usize, number(4)?, 1),
        "stall" => hold(target()?, text(2), number(3)? as usize, number(4)?, 1 << 30),
        "rate" => rate(target()?, text(2), number(3)? as usize, number(4)?),
        "ping" => ping(target()?, text(2), number(3)?),
        _ => Err(usage()),
    }
}

fn usage() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "usage: loadgen serve|get|put|hold|stall|rate|ping ...")
}

/// Opens a connection to `target`, through a SOCKS5 server if `via` names one.
fn connect(target: SocketAddr, via: &str) -> io::Result<TcpStream> {
    if via == "direct" {
        let stream = TcpStream::connect(target)?;
        stream.set_nodelay(true)?;
        return Ok(stream);
    }
    let mut stream = TcpStream::connect(via)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    stream.write_all(&[5, 1, 0])?;
    let mut method = [0; 2];
    stream.read_exact(&mut method)?;
    let mut request = vec![5, 1, 0];
    match target {
        SocketAddr::V4(addr) => {
            request.push(1);
            request.extend(addr.ip().octets());
        }
        SocketAddr::V6(addr) => {
            request.push(4);
            request.extend(addr.ip().octets());
        }
    }
    request.extend(target.port().to_be_bytes());
    stream.write_all(&request)?;
    let mut reply = [0; 4];
    stream.read_exact(&mut reply)?;
    if method != [5, 0] || reply[1] != 0 {
        return Err(io::Error::new(io::ErrorKind::ConnectionRefused, "the SOCKS server refused"));
    }
    let mut bound = vec![0; if reply[3] == 4 { 18 } else { 6 }];
    stream.read_exact(&mut bound)?;
    stream.set_read_timeout(None)?;
    Ok(stream)
}

fn request(stream: &mut TcpStream, kind: u8, bytes: u64) -> io::Result<()> {
    let mut head = [kind; 9];
    head[1..].copy_from_slice(&bytes.to_be_bytes());
    stream.write_all(&head)
}

fn drain(stream: &mut TcpStream, mut left: u64, piece: &mut [u8]) -> io::Result<()> {
    while left > 0 {
        let want = piece.len().min(left as usize);
        match stream.read(&mut piece[..want])? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            n => left -= n as u64,
        }
    }
    Ok(())
}

fn fill(stream: &mut TcpStream, mut left: u64, piece: &[u8]) -> io::Result<()> {
    while left > 0 {
        let n = piece.len().min(left as usize);
        stream.write_all(&piece[..n])?;
        left -= n as u64;
    }
    Ok(())
}

fn serve(addrs: &[String]) -> io::Result<()> {
    let mut accepting = Vec::new();
    for addr in addrs {
        let listener = TcpListener::bind(addr)?;
        accepting.push(thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let worker = thread::Builder::new().stack_size(64 << 10);
                let _ = worker.spawn(move || answer(stream));
            }
        }));
    }
    for thread in accepting {
        let _ = thread.join();
    }
    Ok(())
}

fn answer(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut piece = Vec::new();
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head)?;
        let bytes = u64::from_be_bytes(head[1..].try_into().expect("eight bytes"));
        piece.resize(PIECE.min(bytes as usize).max(piece.len()), 0x5A);
        match head[0] {
            b'D' => fill(&mut stream, bytes, &piece)?,
            _ => {
                drain(&mut stream, bytes, &mut piece)?;
                stream.write_all(&bytes.to_be_bytes())?;
            }
        }
    }
}

fn transfer(target: SocketAddr, via: &str, flows: usize, bytes: u64, kind: u8) -> io::Result<()> {
    let mut streams = (0..flows).map(|_| connect(target, via)).collect::<io::Result<Vec<_>>>()?;
    let start = Instant::now();
    let threads: Vec<_> = streams
        .drain(..)
        .map(|mut stream| {
            thread::spawn(move || -> io::Result<()> {
                let mut piece = vec![0x5A; PIECE];
                request(&mut stream, kind, bytes)?;
                match kind {
                    b'D' => drain(&mut stream, bytes, &mut piece),
                    _ => fill(&mut stream, bytes, &piece).and_then(|()| stream.read_exact(&mut [0; 8])),
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().expect("a flow's thread")?;
    }
    let (total, seconds) = (bytes * flows as u64, start.elapsed().as_secs_f64());
    println!("{{\"bytes\":{total},\"seconds\":{seconds:.4},\"gbps\":{:.4}}}", total as f64 * 8e-9 / seconds);
    Ok(())
}

fn hold(target: SocketAddr, via: &str, count: usize, seconds: f64, ask: u64) -> io::Result<()> {
    let (mut held, mut failed) = (Vec::new(), 0);
    for _ in 0..count {
        let opened = connect(target, via).and_then(|mut stream| {
            stream.set_read_timeout(Some(Duration::from_secs(5)))?;
            request(&mut stream, b'D', ask)?;
            if ask == 1 {
                stream.read_exact(&mut [0; 1])?;
            }
            Ok(stream)
        });
        match opened {
            Ok(stream) => held.push(stream),
            Err(_) => failed += 1,
        }
    }
    println!("{{\"held\":{},\"failed\":{failed}}}", held.len());
    io::stdout().flush()?;
    thread::sleep(Duration::from_secs_f64(seconds));
    Ok(())
}

fn rate(target: SocketAddr, via: &str, workers: usize, seconds: f64) -> io::Result<()> {
    let (done, failed) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let (over, times) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Vec::new())));
    let threads: Vec<_> = (0..workers)
        .map(|_| {
            let (done, failed, over, times) = (done.clone(), failed.clone(), over.clone(), times.clone());
            let via = via.to_owned();
            thread::spawn(move || {
                let mut piece = [0; 1024];
                while !over.load(Ordering::Relaxed) {
                    let start = Instant::now();
                    let once = connect(target, &via).and_then(|mut stream| {
                        stream.set_read_timeout(Some(Duration::from_secs(3)))?;
                        request(&mut stream, b'D', 1024)?;
                        drain(&mut stream, 1024, &mut piece)
                    });
                    match once {
                        Ok(()) => {
                            done.fetch_add(1, Ordering::Relaxed);
                            times.lock().expect("no panic in here").push(start.elapsed());
                        }
                        Err(_) => {
                            failed.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                }
            })
        })
        .collect();
    let start = Instant::now();
    thread::sleep(Duration::from_secs_f64(seconds));
    over.store(true, Ordering::Relaxed);
    for thread in threads {
        let _ = thread.join();
    }
    let (done, failed, seconds) = (done.load(Ordering::Relaxed), failed.load(Ordering::Relaxed), start.elapsed());
    let per_second = done as f64 / seconds.as_secs_f64();
    let quantiles = quantiles(&mut times.lock().expect("no panic in here"));
    println!("{{\"done\":{done},\"failed\":{failed},\"per_second\":{per_second:.1},{quantiles}}}");
    Ok(())
}

fn ping(target: SocketAddr, via: &str, seconds: f64) -> io::Result<()> {
    let mut stream = connect(target, via)?;
    let (mut piece, mut times, start) = ([0; 1024], Vec::new(), Instant::now());
    while start.elapsed().as_secs_f64() < seconds {
        let once = Instant::now();
        request(&mut stream, b'D', 1024)?;
        drain(&mut stream, 1024, &mut piece)?;
        times.push(once.elapsed());
    }
    println!("{{\"done\":{},{}}}", times.len(), quantiles(&mut times));
    Ok(())
}

fn quantiles(times: &mut [Duration]) -> String {
    times.sort_unstable();
    let at = |share: f64| {
        let index = (times.len() as f64 * share) as usize;
        times.get(index.min(times.len().saturating_sub(1))).map_or(0.0, |time| time.as_secs_f64() * 1e6)
    };
    format!("\"p50_us\":{:.1},\"p99_us\":{:.1}", at(0.5), at(0.99))
}
