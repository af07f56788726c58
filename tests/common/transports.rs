//! Servers and clients on a transport, and certificates for them.

use super::socks_client::{exercise, free_port, start, stop};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use vmesskit::Tunnel;

/// The user that the tests' clients are.
pub(crate) const ID: &str = "b831381d-6324-4d53-ad4f-8cda48b30811";

/// What a client's outbound has for mux.
pub(crate) const MUX: &str = r#", "mux": {"enabled": true}"#;

/// An issuer of certificates.
pub(crate) struct Issuer(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key, PEM.
pub(crate) struct Identity {
    pub(crate) chain: String,
    pub(crate) key: String,
    /// The certificate itself.
    pub(crate) der: Vec<u8>,
}

#[allow(dead_code, reason = "each test file uses a part of the helpers")]
impl Issuer {
    /// A new one.
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        // Issuers are told apart by their names.
        params.distinguished_name.push(DnType::CommonName, format!("issuer {:x?}", key.public_key_raw()));
        Self(CertifiedIssuer::self_signed(params, key).expect("signed"))
    }

    /// Its own certificate, PEM.
    pub(crate) fn pem(&self) -> String {
        self.0.pem()
    }

    /// Its own certificate.
    pub(crate) fn der(&self) -> Vec<u8> {
        self.0.der().to_vec()
    }

    /// A certificate for these names.
    pub(crate) fn issue(&self, names: &[&str]) -> Identity {
        self.issue_until(names, 2036)
    }

    /// A certificate that is good until the beginning of a year.
    pub(crate) fn issue_until(&self, names: &[&str], year: i32) -> Identity {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).expect("names");
        params.not_before = rcgen::date_time_ymd(2016, 1, 1);
        params.not_after = rcgen::date_time_ymd(year, 1, 1);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.0).expect("signed");
        let chain = certificate.pem() + &self.pem();
        Identity { chain, key: key.serialize_pem(), der: certificate.der().to_vec() }
    }
}

/// A JSON text of a PEM text: the list of its lines.
pub(crate) fn lines(pem: &str) -> String {
    let lines: Vec<String> = pem.lines().map(|line| format!("{line:?}")).collect();
    format!("[{}]", lines.join(","))
}

/// `streamSettings` of a server with TLS; `network` are the members beside it, `tls` further ones inside.
#[allow(dead_code, reason = "each test file uses a part of the helpers")]
pub(crate) fn server_tls(network: &str, identity: &Identity, tls: &str) -> String {
    let (chain, key) = (lines(&identity.chain), lines(&identity.key));
    format!(
        r#"{{{network} "security": "tls", "tlsSettings": {{"certificates": [{{"certificate": {chain}, "key": {key}}}]{tls}}}}}"#
    )
}

/// `streamSettings` of a client that trusts an issuer alone.
#[allow(dead_code, reason = "each test file uses a part of the helpers")]
pub(crate) fn client_tls(network: &str, issuer: &Issuer, tls: &str) -> String {
    let issuer = lines(&issuer.pem());
    format!(
        r#"{{{network} "security": "tls", "tlsSettings": {{"disableSystemRoot": true,
            "certificates": [{{"usage": "verify", "certificate": {issuer}}}]{tls}}}}}"#
    )
}

/// A VMess server's config with one user, freedom behind it.
pub(crate) fn server_config(port: u16, stream: &str) -> String {
    format!(
        r#"{{"log": {{"loglevel": "none"}},
          "inbounds": [{{"protocol": "vmess", "tag": "door", "listen": "127.0.0.1", "port": {port},
            "settings": {{"clients": [{{"id": "{ID}"}}]}}, "streamSettings": {stream}}}],
          "outbounds": [{{"protocol": "freedom"}}]}}"#
    )
}

/// A config of a SOCKS inbound, with UDP, before a VMess outbound to `server`.
pub(crate) fn client_config(port: u16, server: u16, stream: &str, more: &str) -> String {
    format!(
        r#"{{"log": {{"loglevel": "none"}},
          "inbounds": [{{"protocol": "socks", "listen": "127.0.0.1", "port": {port}, "settings": {{"udp": true}}}}],
          "outbounds": [{{"protocol": "vmess", "settings": {{"vnext": [{{"address": "127.0.0.1", "port": {server},
            "users": [{{"id": "{ID}", "security": "aes-128-gcm"}}]}}]}}, "streamSettings": {stream}{more}}}]}}"#
    )
}

/// Our server on a transport.
pub(crate) fn server(stream: &str) -> (Tunnel, u16) {
    let port = free_port();
    (start(&server_config(port, stream)), port)
}

/// Our client on a transport; returns its SOCKS port.
pub(crate) fn client(server: u16, stream: &str, more: &str) -> (Tunnel, u16) {
    let port = free_port();
    (start(&client_config(port, server, stream, more)), port)
}

/// Moves streams and datagrams by our client on a transport, without mux and with it.
pub(crate) fn exercise_client(server: u16, stream: &str) {
    for mux in ["", MUX] {
        let (ours, socks) = client(server, stream, mux);
        exercise(socks, 5_000_000, mux.is_empty());
        stop(&ours);
    }
}
