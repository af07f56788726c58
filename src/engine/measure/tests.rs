//! An address behind TLS, for which a test needs an issuer of its own.

use super::*;
use crate::config::{Certificate, CertificateUsage, PemSource, Secret};
use rcgen::{CertificateParams, CertifiedIssuer, KeyPair};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;

/// A web server with TLS whose certificate is for `name`: its port and its issuer, PEM.
fn web(name: &str) -> (u16, String) {
    let mut params = CertificateParams::default();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("signed");
    let key = KeyPair::generate().expect("a key");
    let params = CertificateParams::new([name.to_owned()]).expect("a name");
    let certificate = params.signed_by(&key, &issuer).expect("signed");
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .expect("a certificate");
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("bound").port();
    let config = Arc::new(config);
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let connection = ServerConnection::new(Arc::clone(&config)).expect("a connection");
            let mut stream = BufReader::new(StreamOwned::new(connection, client));
            let mut line = String::new();
            // Who does not trust us ends here.
            if stream.read_line(&mut line).is_ok() && line.starts_with("GET / HTTP/1.1") {
                let _ = stream.get_mut().write_all(b"HTTP/1.1 204 No Content\r\n\r\n");
            }
        }
    });
    (port, issuer.pem())
}

#[test]
fn an_address_behind_tls_is_fetched_if_it_can_be_trusted() {
    let (port, issuer) = web("127.0.0.1");
    let (other, _) = web("127.0.0.1");
    let pem = PemSource::Inline(Secret::new(issuer));
    let certificate = Certificate { usage: CertificateUsage::Verify, chain: pem, key: PemSource::default() };
    let tls = Tls { certificates: vec![certificate], disable_system_root: true, ..Tls::default() };
    let measured = |port: u16| {
        let request = MeasureRequest {
            configs: vec![r#"{"outbounds": [{"protocol": "freedom"}]}"#.to_owned()],
            url: format!("https://127.0.0.1:{port}"),
            timeout: Duration::from_secs(20),
            parallel: 1,
        };
        let all = measure_trusting(request, None, tls.clone()).wait(None).expect("answered");
        all.expect("measured").remove(0)
    };
    assert!(measured(port).expect("trusted") > Duration::ZERO);
    let error = measured(other).expect_err("by another issuer");
    assert_eq!(error.kind, ErrorKind::TlsFailed);
    assert!(error.text.contains("address") && error.reason.contains("signature"), "{error}");
}
