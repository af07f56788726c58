//! The codec's server half against a real V2Ray client, where one is installed: plain sockets, no engine.
//!
//! What the client sends is echoed, so every connection runs both directions. An answer moves the client to an
//! account of its own, which it takes up with AES-CFB as V2Ray does: the only way to make it speak that.

#[path = "common/vmess_peer.rs"]
mod peer;

use peer::{ID, finish, seal};
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::process::{Child, Command as Program, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use vmesskit::entropy::{Entropy, SeededEntropy};
use vmesskit::vmess::auth::{AuthCipher, within_tolerance};
use vmesskit::vmess::chunk::Opened;
use vmesskit::vmess::command::{SWITCH_ACCOUNT, SwitchAccount};
use vmesskit::vmess::envelope::{self, REQUEST_PREFIX, TAG};
use vmesskit::vmess::header::RequestHeader;
use vmesskit::vmess::legacy::{AUTH_LEN, AuthKey, HeaderCipher};
use vmesskit::vmess::response::ResponseHeader;
use vmesskit::vmess::server::{self, Connection, HeaderKind};
use vmesskit::vmess::{CmdKey, Id, Options, Security, account};

const LOCAL: Ipv4Addr = Ipv4Addr::LOCALHOST;
const MOVED: &str = "66ad4540-b58c-4ad2-9926-ea63445a9b57";

fn id(text: &str) -> Id {
    Id::parse(text).expect("a UUID").0
}

fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs().try_into().expect("small")
}

/// One user of a server, with what it takes to know its headers.
struct User {
    key: CmdKey,
    signers: Vec<AuthKey>,
}

impl User {
    fn new(text: &str, alter_ids: u16) -> Self {
        let signers = account::alter_ids(&id(text), alter_ids).map(|id| AuthKey::new(&id)).collect();
        Self { key: id(text).cmd_key(), signers }
    }

    /// Reads a header that may have come in part: its kind, what it says, how long it is.
    fn read(&self, wire: &[u8]) -> Option<(HeaderKind, RequestHeader, usize)> {
        let auth = wire.first_chunk::<AUTH_LEN>()?;
        if let Some(time) = AuthCipher::new(&self.key).open(auth) {
            assert!(within_tolerance(time, now()));
            let length = wire.get(16..34)?.try_into().expect("18 bytes");
            let nonce = wire.get(34..REQUEST_PREFIX)?.try_into().expect("8 bytes");
            let len = envelope::open_request_length(&self.key, auth, &nonce, length).expect("authentic");
            let total = REQUEST_PREFIX + len + TAG;
            let mut sealed = wire.get(REQUEST_PREFIX..total)?.to_vec();
            let plain = envelope::open_request(&self.key, auth, &nonce, &mut sealed).expect("authentic");
            return Some((HeaderKind::Aead, RequestHeader::decode(plain).expect("legal"), total));
        }
        let signed = |time: &i64| self.signers.iter().any(|signer| signer.auth(*time) == *auth);
        let time = (now() - 60..=now() + 60).find(signed).expect("a user's header");
        let mut plain = wire[AUTH_LEN..].to_vec();
        HeaderCipher::new(&self.key, time).decrypt(&mut plain);
        let len = RequestHeader::extent(&plain).expect("legal");
        let header = RequestHeader::decode(plain.get(..len)?).expect("legal");
        Some((HeaderKind::Legacy, header, AUTH_LEN + len))
    }
}

/// What a server saw of a connection.
type Seen = (HeaderKind, Security, Options);

/// Serves one user on a port of its own, echoing, and reports every connection.
fn serve(user: User, moved_to: Option<SwitchAccount>, seen: Sender<Seen>) -> u16 {
    let listener = TcpListener::bind((LOCAL, 0)).expect("a free port");
    let port = listener.local_addr().expect("bound").port();
    thread::spawn(move || {
        thread::scope(|scope| {
            for carrier in listener.incoming().flatten() {
                // A client that goes away early is its own test's failure.
                scope.spawn(|| echo(carrier, &user, moved_to.as_ref(), &seen).ok());
            }
        });
    });
    port
}

fn echo(
    mut carrier: TcpStream,
    user: &User,
    moved_to: Option<&SwitchAccount>,
    seen: &Sender<Seen>,
) -> io::Result<()> {
    carrier.set_read_timeout(Some(Duration::from_secs(20)))?;
    let (mut input, mut piece) = (Vec::new(), [0; 5000]);
    let (kind, request, len) = loop {
        let n = carrier.read(&mut piece)?;
        assert_ne!(n, 0, "closed before its header");
        input.extend_from_slice(&piece[..n]);
        if let Some(read) = user.read(&input) {
            break read;
        }
    };
    input.drain(..len);
    // Nobody asks where a client stayed.
    seen.send((kind, request.security, request.options)).ok();
    let payload = moved_to.map(SwitchAccount::encode).unwrap_or_default();
    let code = if payload.is_empty() { 0 } else { SWITCH_ACCOUNT };
    let answer = ResponseHeader { command: code, payload: &payload, ..ResponseHeader::accept(request.token) };
    let made = server::accept(&request, kind, &answer, false).expect("a legal framing");
    let Connection { mut header, mut uplink, mut downlink } = made;
    let mut entropy = SeededEntropy::new(1);
    loop {
        match uplink.open(&mut input).expect("authentic") {
            Opened::Data { payload, consumed } => {
                for part in input[payload].chunks(1900) {
                    header.extend(seal(&mut downlink, part, &mut entropy));
                    carrier.write_all(&std::mem::take(&mut header))?;
                }
                input.drain(..consumed);
            }
            Opened::Need(_) => {
                let n = carrier.read(&mut piece)?;
                if n == 0 {
                    break;
                }
                input.extend_from_slice(&piece[..n]);
            }
            Opened::End { .. } => break,
        }
    }
    carrier.write_all(&finish(&mut downlink, &mut entropy))?;
    carrier.shutdown(Shutdown::Write)
}

/// A V2Ray client of this test's own; it ends with the value.
struct Client {
    child: Child,
    socks: u16,
}

impl Client {
    /// Starts one; `None` if V2Ray is not installed.
    fn start(port: u16, alter_ids: u16, security: &str) -> Option<Self> {
        let socks =
            TcpListener::bind((LOCAL, 0)).and_then(|free| free.local_addr()).expect("a free port").port();
        let config = format!(
            r#"{{"log": {{"loglevel": "error"}},
                "inbounds": [{{"listen": "127.0.0.1", "port": {socks}, "protocol": "socks"}}],
                "outbounds": [{{"protocol": "vmess", "settings": {{"vnext": [{{"address": "127.0.0.1",
                    "port": {port}, "users": [{{"id": "{ID}", "alterId": {alter_ids}, "security": "{security}"}}]}}]}}}}]}}"#
        );
        let mut program = Program::new("v2ray");
        program.args(["-config", "stdin:"]).stdin(Stdio::piped()).stdout(Stdio::null());
        let mut child = match program.spawn() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            other => other.expect("v2ray starts"),
        };
        child.stdin.take().expect("piped").write_all(config.as_bytes()).expect("v2ray reads");
        let client = Self { child, socks };
        let up = (0..400).any(|_| {
            thread::sleep(Duration::from_millis(25));
            TcpStream::connect((LOCAL, socks)).is_ok()
        });
        assert!(up, "v2ray does not listen");
        Some(client)
    }

    /// Sends a payload through the client and takes its echo.
    fn echo(&self, payload: &[u8]) {
        let mut app = TcpStream::connect((LOCAL, self.socks)).expect("v2ray listens");
        app.set_read_timeout(Some(Duration::from_secs(20))).expect("a legal timeout");
        let mut reply = [0; 12];
        app.write_all(&[5, 1, 0]).and_then(|()| app.read_exact(&mut reply[..2])).expect("greeted");
        app.write_all(&[5, 1, 0, 1, 203, 0, 113, 7, 0, 80]).expect("asked");
        app.read_exact(&mut reply[..10]).expect("accepted");
        let mut writer = app.try_clone().expect("a descriptor");
        let mut back = vec![0; payload.len()];
        thread::scope(|scope| {
            scope.spawn(|| writer.write_all(payload).expect("v2ray reads"));
            app.read_exact(&mut back).expect("the echo");
        });
        assert!(back == payload, "the echo differs");
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.child.kill().and_then(|()| self.child.wait()).expect("our own child");
    }
}

fn payload() -> Vec<u8> {
    let mut payload = vec![0; 100_000];
    SeededEntropy::new(2).fill(&mut payload);
    payload
}

#[allow(clippy::print_stderr, reason = "says that it was skipped")]
fn skipped() {
    eprintln!("SKIPPED: v2ray is not installed");
}

#[test]
fn every_header_and_security_that_it_can_be_told_to_use() {
    for (alter_ids, kind) in [(0, HeaderKind::Aead), (4, HeaderKind::Legacy)] {
        for (name, security, options) in [
            ("aes-128-gcm", Security::Aes128Gcm, 0x0D),
            ("chacha20-poly1305", Security::Chacha20Poly1305, 0x0D),
            ("none", Security::None, 0x05),
        ] {
            let (sender, seen) = channel();
            let port = serve(User::new(ID, alter_ids), None, sender);
            let Some(client) = Client::start(port, alter_ids, name) else { return skipped() };
            client.echo(&payload());
            assert_eq!(seen.recv(), Ok((kind, security, Options(options))));
        }
    }
}

#[test]
fn an_account_that_it_is_given_is_taken_up_with_aes_cfb() {
    for (alter_ids, kind) in [(0, HeaderKind::Aead), (3, HeaderKind::Legacy)] {
        let (sender, moved): (_, Receiver<Seen>) = channel();
        let port = serve(User::new(MOVED, alter_ids), None, sender);
        let account =
            SwitchAccount { host: None, port, id: id(MOVED), alter_ids, level: 0, valid_minutes: 5 };
        let (sender, _stayed) = channel();
        let main = serve(User::new(ID, 0), Some(account), sender);
        let Some(client) = Client::start(main, 0, "aes-128-gcm") else { return skipped() };
        // It takes turns between the server that it was told of and this.
        (0..4).for_each(|_| client.echo(&payload()));
        let seen: Vec<Seen> = moved.try_iter().collect();
        assert_eq!(seen.first(), Some(&(kind, Security::Aes128Cfb, Options(0x01))), "{seen:?}");
    }
}
