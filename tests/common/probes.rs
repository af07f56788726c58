//! What strangers and users send to a server's door, byte by byte.

use super::vmess_server::ID;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use vmesskit::addr::Target;
use vmesskit::entropy::{Entropy, SeededEntropy};
use vmesskit::vmess::auth::AuthCipher;
use vmesskit::vmess::envelope;
use vmesskit::vmess::fnv::fnv1a;
use vmesskit::vmess::header::RequestHeader;
use vmesskit::vmess::keys::BodyKeys;
use vmesskit::vmess::{CmdKey, Command, Id, Options, Security, account, legacy};

/// UTC now, in seconds.
pub(crate) fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs() as i64
}

/// The command key of the server's user.
pub(crate) fn cmd_key() -> CmdKey {
    Id::parse(ID).expect("an id").0.cmd_key()
}

/// A request header for `target`, sealed; `change` may spoil its plain form, whose checksum is made afterwards.
pub(crate) fn header(key: &CmdKey, at: i64, seed: u64, target: SocketAddr, change: fn(&mut [u8])) -> Vec<u8> {
    let mut entropy = SeededEntropy::new(seed);
    let plain = plain_header(&mut entropy, target, change);
    let (mut random, mut nonce) = ([0; 4], [0; 8]);
    entropy.fill(&mut random);
    entropy.fill(&mut nonce);
    let auth_id = AuthCipher::new(key).seal(at, random);
    envelope::seal_request(key, &auth_id, &nonce, &plain)
}

/// The same, signed by the first alter id of the server's user, as clients did before there were sealed headers.
#[allow(dead_code, reason = "each test file uses a part of the helpers")]
pub(crate) fn legacy_header(at: i64, seed: u64, target: SocketAddr, change: fn(&mut [u8])) -> Vec<u8> {
    let (id, _) = Id::parse(ID).expect("an id");
    let alter_id = account::alter_ids(&id, 1).next().expect("one");
    let plain = plain_header(&mut SeededEntropy::new(seed), target, change);
    legacy::seal_request(&id.cmd_key(), &alter_id, at, &plain)
}

fn plain_header(entropy: &mut SeededEntropy, target: SocketAddr, change: fn(&mut [u8])) -> Vec<u8> {
    let mut keys = BodyKeys { key: [0; 16], iv: [0; 16] };
    entropy.fill(&mut keys.key);
    entropy.fill(&mut keys.iv);
    let request = RequestHeader {
        keys,
        token: 7,
        options: Options(0x0D),
        security: Security::Aes128Gcm,
        command: Command::Tcp,
        target: Some(Target::from(target)),
    };
    let mut plain = Vec::new();
    request.encode(&[], &mut plain).expect("a legal header");
    change(&mut plain);
    let end = plain.len() - 4;
    let checksum = fnv1a(&plain[..end]).to_be_bytes();
    plain[end..].copy_from_slice(&checksum);
    plain
}

/// How a connection was ended by the server.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Seen {
    /// Bytes that came before the end.
    pub(crate) bytes: usize,
    /// Whether the end was a reset.
    pub(crate) reset: bool,
    /// How long after the connection was made it came.
    pub(crate) after: Duration,
}

/// Waits for the server's end of a connection that was made at `began`; meanwhile sends `trickle`, again and again.
pub(crate) fn watch(mut stream: TcpStream, began: Instant, trickle: &[u8]) -> Seen {
    stream.set_read_timeout(Some(Duration::from_millis(10))).expect("a timeout");
    stream.set_write_timeout(Some(Duration::from_millis(10))).expect("a timeout");
    let (mut bytes, mut scratch) = (0, [0; 4096]);
    loop {
        if !trickle.is_empty() {
            // A full window is no matter; a broken connection is seen by the read.
            let _ = stream.write(trickle);
        }
        let reset = match stream.read(&mut scratch) {
            Ok(0) => false,
            Ok(n) => {
                bytes += n;
                continue;
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => continue,
            Err(_) => true,
        };
        return Seen { bytes, reset, after: began.elapsed() };
    }
}

/// Sends `first` and watches; with `ends` our direction is ended behind it.
pub(crate) fn probe(port: u16, first: &[u8], trickle: &[u8], ends: bool) -> Seen {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("it listens");
    let began = Instant::now();
    stream.write_all(first).expect("sent");
    if ends {
        stream.shutdown(Shutdown::Write).expect("ended");
    }
    watch(stream, began, trickle)
}
