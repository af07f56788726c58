//! Both ends of TLS in memory, and the wire between them, which a test can look at, cut and forge.

use super::carrier::TlsCarrier;
use super::handshake::{self, Handshake};
use super::{Scratch, provider};
use crate::transport::Carrier;
use crate::transport::http1::write_all;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::client::UnbufferedClientConnection;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::server::UnbufferedServerConnection;
use rustls::{
    ClientConfig, RootCertStore, ServerConfig, SupportedCipherSuite, SupportedProtocolVersion, version,
};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

/// The name that certificates are for.
pub(super) const NAME: &str = "vpn.test";

/// One direction of a wire.
#[derive(Default)]
pub(super) struct Way {
    bytes: VecDeque<u8>,
    ended: bool,
    waker: Option<Waker>,
    /// Everything that was ever written.
    pub(super) seen: Vec<u8>,
    /// The most bytes that one read returns; 0: as many as there are.
    pub(super) read_limit: usize,
    /// Whether writes block.
    pub(super) blocked: bool,
}

impl Way {
    /// Puts bytes on the wire that its writer has not written.
    pub(super) fn forge(&mut self, bytes: &[u8]) {
        self.bytes.extend(bytes);
        self.wake();
    }

    /// Ends the direction, as a FIN does.
    pub(super) fn cut(&mut self) {
        self.ended = true;
        self.wake();
    }

    /// Takes off the wire what has not been read.
    pub(super) fn take(&mut self) -> Vec<u8> {
        self.bytes.drain(..).collect()
    }

    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

/// A wire: what the client writes, and what the server writes.
#[derive(Clone, Default)]
pub(super) struct Wire {
    pub(super) up: Rc<RefCell<Way>>,
    pub(super) down: Rc<RefCell<Way>>,
}

impl Wire {
    /// The client's end and the server's.
    pub(super) fn ends(&self) -> (WireEnd, WireEnd) {
        let end = |incoming: &Rc<_>, outgoing: &Rc<_>| WireEnd {
            incoming: Rc::clone(incoming),
            outgoing: Rc::clone(outgoing),
        };
        (end(&self.down, &self.up), end(&self.up, &self.down))
    }

    /// Whether nobody else holds the wire any more.
    pub(super) fn is_free(&self) -> bool {
        Rc::strong_count(&self.up) == 1 && Rc::strong_count(&self.down) == 1
    }
}

/// An end of a wire.
pub(super) struct WireEnd {
    incoming: Rc<RefCell<Way>>,
    outgoing: Rc<RefCell<Way>>,
}

impl Carrier for WireEnd {
    fn poll_read_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut way = self.incoming.borrow_mut();
        if way.bytes.is_empty() && !way.ended {
            way.waker = Some(cx.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_read(&mut self, cx: &mut Context<'_>, out: &mut [u8]) -> Poll<io::Result<usize>> {
        if self.poll_read_ready(cx).is_pending() {
            return Poll::Pending;
        }
        let mut way = self.incoming.borrow_mut();
        let limit = if way.read_limit == 0 { usize::MAX } else { way.read_limit };
        let n = way.bytes.len().min(out.len()).min(limit);
        for (room, byte) in out.iter_mut().zip(way.bytes.drain(..n)) {
            *room = byte;
        }
        Poll::Ready(Ok(n))
    }

    fn poll_write(&mut self, _cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let mut way = self.outgoing.borrow_mut();
        if way.blocked {
            return Poll::Pending;
        }
        let bytes: Vec<u8> = slices.iter().flat_map(|slice| slice.iter().copied()).collect();
        way.seen.extend_from_slice(&bytes);
        way.forge(&bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_close(&mut self, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.outgoing.borrow_mut().cut();
        Poll::Ready(Ok(()))
    }

    fn abort(&mut self) {}
}

impl Drop for WireEnd {
    fn drop(&mut self) {
        self.outgoing.borrow_mut().cut();
    }
}

/// An issuer of certificates.
pub(super) struct Issuer(CertifiedIssuer<'static, KeyPair>);

impl Issuer {
    /// A new one.
    pub(super) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        params.distinguished_name.push(DnType::CommonName, format!("issuer {:x?}", key.public_key_raw()));
        Self(CertifiedIssuer::self_signed(params, key).expect("signed"))
    }

    /// Its own certificate, PEM.
    pub(super) fn pem(&self) -> String {
        self.0.pem()
    }

    /// A certificate for [`NAME`] that `change` may change before it is signed, and its key, PEM.
    pub(super) fn issue(&self, change: impl FnOnce(&mut CertificateParams)) -> (String, String) {
        let (certificate, key) = self.sign(change);
        (certificate.pem(), key.serialize_pem())
    }

    fn sign(&self, change: impl FnOnce(&mut CertificateParams)) -> (rcgen::Certificate, KeyPair) {
        let mut params = CertificateParams::new(vec![NAME.to_owned()]).expect("a name");
        change(&mut params);
        let key = KeyPair::generate().expect("a key");
        (params.signed_by(&key, &self.0).expect("signed"), key)
    }
}

/// Both ends of a connection.
pub(super) struct Pair {
    pub(super) client: TlsCarrier<WireEnd>,
    pub(super) server: TlsCarrier<WireEnd>,
    pub(super) wire: Wire,
}

/// The ciphers of TLS 1.3 and 1.2 that there are.
pub(super) fn suites() -> Vec<SupportedCipherSuite> {
    use rustls::crypto::ring::cipher_suite::*;
    vec![
        TLS13_AES_128_GCM_SHA256,
        TLS13_AES_256_GCM_SHA384,
        TLS13_CHACHA20_POLY1305_SHA256,
        TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
        TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
        TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
    ]
}

/// Makes a handshake with a cipher, in pieces of `read_limit` bytes, to its last byte.
pub(super) async fn pair(suite: SupportedCipherSuite, read_limit: usize) -> Pair {
    let versions: &[&SupportedProtocolVersion] =
        if suite.tls13().is_some() { &[&version::TLS13] } else { &[&version::TLS12] };
    let mut provider = (*provider()).clone();
    provider.cipher_suites = vec![suite];
    let provider = Arc::new(provider);
    let issuer = Issuer::new();
    let (certificate, key) = issuer.sign(|_| {});
    let mut roots = RootCertStore::empty();
    roots.add(issuer.0.der().clone()).expect("an issuer");
    let client = ClientConfig::builder_with_provider(Arc::clone(&provider)).with_protocol_versions(versions);
    let mut client = client.expect("versions").with_root_certificates(roots).with_no_client_auth();
    client.enable_secret_extraction = true;
    let chain: Vec<CertificateDer<'static>> = vec![certificate.der().clone()];
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let server = ServerConfig::builder_with_provider(provider).with_protocol_versions(versions);
    let server = server.expect("versions").with_no_client_auth().with_single_cert(chain, key);
    let mut server = server.expect("a certificate and its key");
    server.enable_secret_extraction = true;

    let wire = Wire::default();
    wire.up.borrow_mut().read_limit = read_limit;
    wire.down.borrow_mut().read_limit = read_limit;
    let (below_client, below_server) = wire.ends();
    let name = ServerName::try_from(NAME).expect("a name");
    let client = UnbufferedClientConnection::new(Arc::new(client), name).expect("a client");
    let server = UnbufferedServerConnection::new(Arc::new(server)).expect("a server");
    let scratch = Scratch::default();
    let client = async {
        let run = handshake::run(below_client, Handshake::new(client), &scratch, None).await;
        let (mut client, _) = run.unwrap_or_else(|error| panic!("{error:?}"));
        poll_fn(|cx| client.poll_flush(cx)).await.expect("flushed");
        client
    };
    let server = handshake::run(below_server, Handshake::new(server), &scratch, None);
    let (client, server) = tokio::join!(client, server);
    let (server, _) = server.unwrap_or_else(|error| panic!("{error:?}"));
    Pair { client, server, wire }
}

/// A pair with the first cipher of TLS 1.3, or of TLS 1.2.
pub(super) async fn pair_of(tls13: bool) -> Pair {
    let suite = suites().into_iter().find(|suite| suite.tls13().is_some() == tls13).expect("there is one");
    pair(suite, 0).await
}

/// Writes all of `bytes`.
pub(super) async fn send(carrier: &mut impl Carrier, bytes: &[u8]) {
    write_all(carrier, bytes).await.expect("written");
}

/// Reads exactly `n` bytes with a buffer of `room`.
pub(super) async fn receive(carrier: &mut impl Carrier, n: usize, room: usize) -> Vec<u8> {
    let (mut got, mut out) = (Vec::new(), vec![0; room]);
    while got.len() < n {
        let read = read(carrier, &mut out).await.expect("read");
        assert!(read > 0, "an end after {} of {n} bytes", got.len());
        got.extend_from_slice(&out[..read]);
    }
    got
}

/// Reads once.
pub(super) async fn read(carrier: &mut impl Carrier, out: &mut [u8]) -> io::Result<usize> {
    poll_fn(|cx| {
        std::task::ready!(carrier.poll_read_ready(cx))?;
        carrier.poll_read(cx, out)
    })
    .await
}
