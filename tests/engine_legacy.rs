//! Which header a configured user gets: AEAD without alter ids, the legacy one with them, through the whole
//! engine to a server that is played here.

#[path = "common/engine.rs"]
mod engine;

use engine::{LONG, free_address, through_socks, tunnel};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use vmesskit::buffer::{HEADROOM, TAILROOM};
use vmesskit::entropy::SeededEntropy;
use vmesskit::vmess::auth::AuthCipher;
use vmesskit::vmess::chunk::Opened;
use vmesskit::vmess::header::RequestHeader;
use vmesskit::vmess::legacy::{AUTH_LEN, AuthKey, HeaderCipher};
use vmesskit::vmess::response::ResponseHeader;
use vmesskit::vmess::server::{self, HeaderKind};
use vmesskit::vmess::{Id, Security, account};

const ID: &str = "b831381d-6324-4d53-ad4f-8cda48b30811";
const TARGET: &str = "203.0.113.7:81";

fn id() -> Id {
    Id::parse(ID).expect("a UUID").0
}

fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs().try_into().expect("small")
}

/// The time that an auth value was signed for, if one of the first `alter_ids` did, within seconds of now.
fn signed_at(auth: &[u8], alter_ids: u16) -> Option<i64> {
    let keys: Vec<AuthKey> = account::alter_ids(&id(), alter_ids).map(|id| AuthKey::new(&id)).collect();
    (now() - 5..=now()).find(|&time| keys.iter().any(|key| key.auth(time) == auth))
}

/// A connection from the engine, as a server that knows the user sees it.
struct Accepted {
    carrier: TcpStream,
    header: RequestHeader,
    connection: server::Connection,
    /// What has come of the body.
    input: Vec<u8>,
}

/// Reads a legacy request, and no byte beyond it.
fn accept_legacy(mut carrier: TcpStream, alter_ids: u16) -> Accepted {
    let mut auth = [0; AUTH_LEN];
    carrier.read_exact(&mut auth).expect("a signature");
    let time = signed_at(&auth, alter_ids).expect("signed with an alter id, for now");
    let (mut cipher, mut plain) = (HeaderCipher::new(&id().cmd_key(), time), Vec::new());
    while let missing @ 1.. = RequestHeader::extent(&plain).expect("legal") - plain.len() {
        let mut more = vec![0; missing];
        carrier.read_exact(&mut more).expect("a header");
        cipher.decrypt(&mut more);
        plain.append(&mut more);
    }
    let header = RequestHeader::decode(&plain).expect("a legal header");
    let answer = ResponseHeader::accept(header.token);
    let connection = server::accept(&header, HeaderKind::Legacy, &answer, false).expect("a legal framing");
    Accepted { carrier, header, connection, input: Vec::new() }
}

impl Accepted {
    /// The next payload.
    fn receive(&mut self) -> Vec<u8> {
        loop {
            let opened = self.connection.uplink.open(&mut self.input).expect("authentic");
            match opened {
                Opened::Data { payload, consumed } => {
                    let payload = self.input[payload].to_vec();
                    self.input.drain(..consumed);
                    return payload;
                }
                Opened::Need(_) => {
                    let mut more = [0; 4096];
                    let n = self.carrier.read(&mut more).expect("readable");
                    assert_ne!(n, 0, "closed");
                    self.input.extend_from_slice(&more[..n]);
                }
                Opened::End { .. } => panic!("ended"),
            }
        }
    }

    /// Sends the answer and a payload behind it.
    fn send(&mut self, payload: &[u8]) {
        let mut slab = vec![0; HEADROOM + payload.len() + TAILROOM];
        let range = HEADROOM..HEADROOM + payload.len();
        slab[range.clone()].copy_from_slice(payload);
        let mut wire = std::mem::take(&mut self.connection.header);
        let sealed = self.connection.downlink.seal(&mut slab, range, &mut SeededEntropy::new(1));
        wire.extend_from_slice(&slab[sealed.expect("legal")]);
        self.carrier.write_all(&wire).expect("written");
    }
}

fn config(inbound: SocketAddr, server: SocketAddr, user: &str) -> String {
    format!(
        r#"{{"inbounds": [{{"protocol": "socks", "listen": "127.0.0.1", "port": {}}}],
             "outbounds": [{{"protocol": "vmess", "tag": "proxy", "settings": {{"vnext": [{{"address": "127.0.0.1",
                 "port": {}, "users": [{{"id": "{ID}", {user}}}]}}]}}}}],
             "vmesskit": {{"allowCfb": true}}}}"#,
        inbound.port(),
        server.port(),
    )
}

/// Connects through an engine with one user, says `hello`, and hands the carrier to `serve`.
fn run(user: &str, serve: impl FnOnce(TcpStream, &mut TcpStream)) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let inbound = free_address();
    let tunnel = tunnel(&config(inbound, listener.local_addr().expect("bound"), user));
    tunnel.start(None).wait(Some(LONG)).expect("in time").expect("started");
    let mut app = through_socks(inbound, TARGET.parse().expect("an address"));
    app.write_all(b"hello").expect("written");
    let (carrier, _) = listener.accept().expect("a connection");
    carrier.set_read_timeout(Some(LONG)).expect("a timeout");
    serve(carrier, &mut app);
    tunnel.stop(Duration::from_secs(1)).wait(Some(LONG)).expect("in time").expect("stopped");
}

#[test]
fn users_with_alter_ids_sign_with_one_of_them_and_the_flow_works() {
    for (security, code) in [
        (Security::Aes128Gcm, Security::Aes128Gcm),
        (Security::Chacha20Poly1305, Security::Chacha20Poly1305),
        (Security::None, Security::None),
        (Security::Zero, Security::None),
        (Security::Aes128Cfb, Security::Aes128Cfb),
    ] {
        for alter_ids in [1, 4, 65_535] {
            let user = format!(r#""alterId": {alter_ids}, "security": "{}""#, security.name());
            run(&user, |carrier, app| {
                // Which of very many alter ids is drawn is the client's to choose: it keeps to the first ones.
                let mut accepted = accept_legacy(carrier, alter_ids.min(64));
                let target = accepted.header.target.as_ref().map(ToString::to_string);
                assert_eq!((target.as_deref(), accepted.header.security), (Some(TARGET), code));
                assert_eq!(accepted.receive(), b"hello");
                accepted.send(b"welcome");
                let mut got = [0; 7];
                app.read_exact(&mut got).expect("the answer");
                assert_eq!(&got, b"welcome", "{user}");
            });
        }
    }
}

#[test]
fn users_without_alter_ids_get_the_aead_header() {
    for user in [r#""alterId": 0"#, r#""level": 0"#] {
        run(user, |mut carrier, _| {
            let mut auth_id = [0; 16];
            carrier.read_exact(&mut auth_id).expect("an auth id");
            let time = AuthCipher::new(&id().cmd_key()).open(&auth_id).expect("made with this user's key");
            assert!((now() - time).abs() <= 5, "{time}");
        });
    }
}
