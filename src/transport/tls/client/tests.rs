//! A client's handshakes: sessions that are resumed and forgotten, verification that blocks, and servers that are none.

use super::super::server::TlsServer;
use super::super::testing::{Issuer, NAME, Wire, WireEnd, read, receive, send};
use super::super::{Scratch, carrier::TlsCarrier};
use super::*;
use crate::config::{Certificate, PemSource, Secret};
use crate::error::Stage;
use crate::transport::testing::shard;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::{DigitallySignedStruct, SignatureScheme};
use std::rc::Rc;
use std::sync::Mutex;
use std::time::Duration;

fn inline(text: &str) -> PemSource {
    PemSource::Inline(Secret::new(text))
}

/// Settings of a server with a certificate that `change` has changed.
fn server_settings(issuer: &Issuer, change: impl FnOnce(&mut rcgen::CertificateParams)) -> Tls {
    let (chain, key) = issuer.issue(change);
    let usage = CertificateUsage::Encipherment;
    let certificate = Certificate { usage, chain: inline(&chain), key: inline(&key) };
    Tls { certificates: vec![certificate], session_resumption: true, ..Tls::default() }
}

/// Settings of a client that trusts an issuer alone.
fn client_settings(issuer: &Issuer) -> Tls {
    let usage = CertificateUsage::Verify;
    let certificate = Certificate { usage, chain: inline(&issuer.pem()), key: PemSource::Absent };
    Tls {
        certificates: vec![certificate],
        disable_system_root: true,
        session_resumption: true,
        ..Tls::default()
    }
}

fn host() -> Host {
    Host::parse(NAME).expect("a name")
}

fn client(tls: &Tls) -> TlsClient {
    TlsClient::new(tls, &host(), &["h2", "http/1.1"]).expect("good settings")
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(20)
}

/// Both ends of a connection whose first bytes have gone both ways, with what was on the wire.
async fn connect(
    shard: &Rc<Shard>,
    client: &TlsClient,
    server: &TlsServer,
) -> Result<(TlsCarrier<WireEnd>, TlsCarrier<WireEnd>, Wire), DialError> {
    let wire = Wire::default();
    let (ours, theirs) = wire.ends();
    let ours = async {
        let (mut ours, _) = client.connect(shard, ours, soon()).await?;
        send(&mut ours, b"up").await;
        Ok(ours)
    };
    let theirs = async {
        let (mut theirs, _) = server.accept(&Scratch::default(), theirs).await.ok()?;
        assert_eq!(receive(&mut theirs, 2, 100).await, b"up");
        send(&mut theirs, b"down").await;
        Some(theirs)
    };
    let (ours, theirs) = tokio::join!(ours, theirs);
    let (mut ours, theirs) = (ours?, theirs.expect("both ends agree"));
    assert_eq!(receive(&mut ours, 4, 20_000).await, b"down");
    Ok((ours, theirs, wire))
}

/// The extensions of a ClientHello or ServerHello, which is in the first record.
fn extensions(hello: &[u8]) -> Vec<u16> {
    let short = |at: usize| usize::from(u16::from_be_bytes([hello[at], hello[at + 1]]));
    assert!(hello[0] == 22 && matches!(hello[5], 1 | 2), "a hello");
    // Record header, message header, version, random, session id.
    let mut at = 5 + 4 + 2 + 32;
    at += 1 + usize::from(hello[at]);
    if hello[5] == 1 {
        at += 2 + short(at);
        at += 1 + usize::from(hello[at]);
    } else {
        at += 3;
    }
    let end = at + 2 + short(at);
    at += 2;
    let mut found = Vec::new();
    while at < end {
        found.push(short(at) as u16);
        at += 4 + short(at + 2);
    }
    found
}

const PRE_SHARED_KEY: u16 = 41;
const EARLY_DATA: u16 = 42;

#[tokio::test]
async fn sessions_are_resumed_until_the_network_changes_and_nothing_is_sent_early() {
    let (shard, issuer) = (shard(), Issuer::new());
    let server = TlsServer::new(&server_settings(&issuer, |_| {}), &[]).expect("good settings");
    let (resuming, fresh) =
        (client(&client_settings(&issuer)), Tls { session_resumption: false, ..client_settings(&issuer) });
    let fresh = client(&fresh);
    for (client, resumed) in
        [(&resuming, false), (&resuming, true), (&resuming, true), (&fresh, false), (&fresh, false)]
    {
        let (_ours, _theirs, wire) = connect(&shard, client, &server).await.expect("connected");
        let (asked, answered) = (extensions(&wire.up.borrow().seen), extensions(&wire.down.borrow().seen));
        assert_eq!(asked.contains(&PRE_SHARED_KEY), resumed);
        assert_eq!(answered.contains(&PRE_SHARED_KEY), resumed, "the server agrees");
        assert!(!asked.contains(&EARLY_DATA) && !answered.contains(&EARLY_DATA));
    }
    resuming.forget_sessions();
    let (_ours, _theirs, wire) = connect(&shard, &resuming, &server).await.expect("connected");
    assert!(!extensions(&wire.up.borrow().seen).contains(&PRE_SHARED_KEY), "forgotten");
}

#[tokio::test]
async fn a_certificate_whose_revocations_cannot_be_had_is_good() {
    let (shard, issuer) = (shard(), Issuer::new());
    let with_crl = |params: &mut rcgen::CertificateParams| {
        let uris = vec!["http://127.0.0.1:1/nothing.crl".to_owned()];
        params.crl_distribution_points = vec![rcgen::CrlDistributionPoint { uris }];
    };
    let server = TlsServer::new(&server_settings(&issuer, with_crl), &[]).expect("good settings");
    connect(&shard, &client(&client_settings(&issuer)), &server).await.expect("no list, no failure");
}

/// Takes every certificate, after a while, and remembers on which threads.
#[derive(Debug)]
struct Slow {
    threads: Mutex<Vec<String>>,
    verdict: Verdict,
}

#[derive(Debug, Clone, Copy)]
enum Verdict {
    Good,
    Expired,
    Panics,
}

impl ServerCertVerifier for Slow {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let thread = std::thread::current().name().unwrap_or_default().to_owned();
        self.threads.lock().expect("unpoisoned").push(thread);
        std::thread::sleep(Duration::from_millis(300));
        match self.verdict {
            Verdict::Good => Ok(ServerCertVerified::assertion()),
            Verdict::Expired => Err(rustls::CertificateError::Expired.into()),
            Verdict::Panics => panic!("a verifier that was not set up"),
        }
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}

#[tokio::test]
async fn verification_that_blocks_keeps_nobody_else_waiting() {
    let (shard, issuer) = (shard(), Issuer::new());
    let server = TlsServer::new(&server_settings(&issuer, |_| {}), &[]).expect("good settings");
    for verdict in [Verdict::Good, Verdict::Expired, Verdict::Panics] {
        let slow = Arc::new(Slow { threads: Mutex::default(), verdict });
        let judge = Judge::blocking(Arc::<Slow>::clone(&slow), &provider());
        let client = TlsClient::with_judge(&client_settings(&issuer), &host(), &[], judge, provider());
        let client = client.expect("good settings");
        let mut ticks = 0;
        let ticking = async {
            loop {
                tokio::time::sleep(Duration::from_millis(10)).await;
                ticks += 1;
            }
        };
        let connected = tokio::select! {
            connected = connect(&shard, &client, &server) => connected.map(drop),
            () = ticking => unreachable!("it ticks on"),
        };
        let kind = connected.map_err(|failed| failed.error.kind);
        match verdict {
            Verdict::Good => assert_eq!(kind, Ok(())),
            Verdict::Expired => assert_eq!(kind, Err(ErrorKind::TlsFailed)),
            Verdict::Panics => assert_eq!(kind, Err(ErrorKind::Internal)),
        }
        assert!(ticks >= 3, "the shard's thread was free: {ticks} ticks");
        assert_eq!(*slow.threads.lock().expect("unpoisoned"), ["vmk-help"]);
    }
}

/// What a client says of a server that writes these bytes once it has heard from it, and then ends or not.
async fn against(answer: &[u8], ends: bool) -> DialError {
    let (shard, issuer, wire) = (shard(), Issuer::new(), Wire::default());
    let client = client(&client_settings(&issuer));
    let (ours, mut theirs) = wire.ends();
    let deadline = Instant::now() + Duration::from_millis(400);
    let server = async {
        read(&mut theirs, &mut [0; 4096]).await.expect("a hello");
        if !answer.is_empty() {
            send(&mut theirs, answer).await;
        }
        if ends {
            wire.down.borrow_mut().cut();
        }
        theirs
    };
    let (failed, theirs) = tokio::join!(client.connect(&shard, ours, deadline), server);
    let failed = failed.err().expect("that is no server");
    drop(theirs);
    assert!(wire.is_free(), "the connection is gone");
    assert!(!failed.error.to_string().contains(NAME), "no name in {failed}");
    failed
}

/// The first flight of a good server, which the client of `against` never asked for.
async fn flight() -> Vec<u8> {
    let (shard, issuer) = (shard(), Issuer::new());
    let server = TlsServer::new(&server_settings(&issuer, |_| {}), &[]).expect("good settings");
    let (_, _, wire) = connect(&shard, &client(&client_settings(&issuer)), &server).await.expect("connected");
    wire.down.borrow().seen.clone()
}

#[tokio::test]
async fn servers_that_are_none_are_told_apart_within_the_deadline() {
    let flight = flight().await;
    let unreachable = ErrorKind::ServerUnreachable { stage: Stage::Tls };
    let endless = [&[22, 3, 3, 0x40, 0][..], &[2, 0xFF, 0xFF, 0xFF], &[0; 16_380]].concat().repeat(9);
    let cases: [(&[u8], bool, ErrorKind, &str); 13] = [
        (b"", false, unreachable, "no answer"),
        (b"", true, unreachable, "closed the connection"),
        (&flight[..3], true, unreachable, "closed the connection"),
        (&flight[..60], true, unreachable, "closed the connection"),
        (&flight[..60], false, unreachable, "no answer"),
        (
            b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n",
            true,
            ErrorKind::TlsFailed,
            "does not speak TLS",
        ),
        (b"SSH-2.0-OpenSSH_9.2\r\n", false, ErrorKind::TlsFailed, "does not speak TLS"),
        (&[0xFF; 2000], false, ErrorKind::TlsFailed, ""),
        (&[21, 3, 3, 0, 2, 2, 112], true, ErrorKind::TlsFailed, "unrecognized_name"),
        (&[21, 3, 3, 0, 2, 2, 70], true, ErrorKind::TlsFailed, "protocol_version"),
        (&[22, 3, 3, 0xFF, 0xFF, 0, 0, 0, 0], false, ErrorKind::TlsFailed, ""),
        (&endless, false, ErrorKind::TlsFailed, ""),
        // Somebody else's answer: another key.
        (&flight, false, ErrorKind::TlsFailed, ""),
    ];
    for (answer, ends, kind, words) in cases {
        let begun = Instant::now();
        let failed = against(answer, ends).await;
        let shown = String::from_utf8_lossy(&answer[..answer.len().min(20)]);
        assert_eq!(failed.error.kind, kind, "{shown:?}: {failed:?}");
        assert!(failed.error.reason.contains(words), "{words}: {failed:?}");
        assert!(failed.error.text.contains("(after 0."), "{failed:?}");
        assert!(begun.elapsed() < Duration::from_secs(3), "within its deadline");
    }
}

#[tokio::test]
async fn a_certificate_that_nobody_issued_is_refused() {
    let (shard, issuer) = (shard(), Issuer::new());
    let params = rcgen::CertificateParams::new(vec![NAME.to_owned()]).expect("a name");
    let key = rcgen::KeyPair::generate().expect("a key");
    let own = params.self_signed(&key).expect("signed");
    let usage = CertificateUsage::Encipherment;
    let certificate = Certificate { usage, chain: inline(&own.pem()), key: inline(&key.serialize_pem()) };
    let server = TlsServer::new(&Tls { certificates: vec![certificate], ..Tls::default() }, &[]);
    let failed = connect(&shard, &client(&client_settings(&issuer)), &server.expect("good settings")).await;
    let error = failed.err().expect("refused").error;
    assert_eq!(error.kind, ErrorKind::TlsFailed);
    assert!(error.reason.contains("issuer that is not trusted"), "{error:?}");
}
