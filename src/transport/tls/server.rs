//! A server's TLS: what all connections of an inbound share, on every shard.

use super::super::Carrier;
use super::super::accept::AcceptError;
use super::carrier::TlsCarrier;
use super::handshake::{self, Failed, Handshake};
use super::{Scratch, alpn, pem, provider, words};
use crate::config::{CertificateUsage, Tls};
use crate::error::{Error, ErrorKind};
use rustls::client::verify_server_name;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{
    ClientHello, NoServerSessionStorage, ParsedCertificate, ResolvesServerCert, UnbufferedServerConnection,
    WebPkiClientVerifier,
};
use rustls::sign::CertifiedKey;
use rustls::{RootCertStore, ServerConfig};
use std::sync::Arc;

/// How clients are answered.
#[derive(Debug)]
pub(in super::super) struct TlsServer {
    config: Arc<ServerConfig>,
}

impl TlsServer {
    /// Prepares an inbound's connections; reads files. `usual_alpn` is what the transport takes if the config says nothing
    /// else.
    ///
    /// # Errors
    /// `ConfigInvalid` with the path inside of the inbound; `Unsupported` for certificates that are to be issued.
    pub(in super::super) fn new(tls: &Tls, usual_alpn: &[&str]) -> Result<Self, Error> {
        if let Some((index, _)) = pem::of_usage(&tls.certificates, CertificateUsage::Issue).next() {
            return Err(Error::new(ErrorKind::Unsupported, "issuing certificates name by name")
                .with_hint("make the server's certificate, and use `encipherment`")
                .with_path(format!("{}[{index}].usage", pem::PATH)));
        }
        let provider = provider();
        let certificates = Certificates::new(tls, &provider)?;
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| internal(&error))?;
        let builder = match clients(tls, &provider)? {
            Some(clients) => builder.with_client_cert_verifier(clients),
            None => builder.with_no_client_auth(),
        };
        let mut config = builder.with_cert_resolver(Arc::new(certificates));
        config.alpn_protocols = match &tls.alpn {
            Some(names) => alpn(names),
            None => usual_alpn.iter().map(|name| name.as_bytes().to_vec()).collect(),
        };
        // Go's servers take a client that knows HTTP/1.1 alone where they have HTTP/2.
        let has = |name: &[u8]| config.alpn_protocols.iter().any(|known| known == name);
        if has(b"h2") && !has(b"http/1.1") {
            config.alpn_protocols.push(b"http/1.1".to_vec());
        }
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        if tls.session_resumption {
            config.ticketer = rustls::crypto::ring::Ticketer::new().map_err(|error| internal(&error))?;
            config.send_tls13_tickets = 1;
        }
        config.enable_secret_extraction = true;
        Ok(Self { config: Arc::new(config) })
    }

    /// What QUIC speaks TLS with.
    #[cfg(feature = "quic")]
    pub(in super::super) fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.config)
    }

    /// Makes the handshake with a client; the connection and the protocol that was agreed on.
    ///
    /// # Errors
    /// [`AcceptError`]; the client has been sent an alert.
    pub(in super::super) async fn accept<C: Carrier>(
        &self,
        scratch: &Scratch,
        carrier: C,
    ) -> Result<(TlsCarrier<C>, Option<Vec<u8>>), AcceptError> {
        let failed = |reason: String| AcceptError::new("TLS", reason);
        let connection = UnbufferedServerConnection::new(Arc::clone(&self.config))
            .map_err(|error| failed(error.to_string()))?;
        match Box::pin(handshake::run(carrier, Handshake::new(connection), scratch, None)).await {
            Ok(connected) => Ok(connected),
            Err(Failed::Tls(error)) => Err(failed(words::explain(&error).0)),
            Err(Failed::Io(error)) => Err(failed(error.to_string())),
            Err(Failed::Ours(error)) => Err(failed(error.to_string())),
        }
    }
}

fn internal(error: &rustls::Error) -> Error {
    Error::new(ErrorKind::Internal, "no TLS").with_reason(error.to_string())
}

/// Who may come, if clients need a certificate.
fn clients(tls: &Tls, provider: &Arc<CryptoProvider>) -> Result<Option<Arc<dyn ClientCertVerifier>>, Error> {
    let mut roots = RootCertStore::empty();
    let mut last = 0;
    for (index, certificate) in pem::of_usage(&tls.certificates, CertificateUsage::VerifyClient) {
        last = index;
        for issuer in pem::chain(index, certificate)? {
            roots.add(issuer).map_err(|error| pem::invalid(index, "certificateFile", error))?;
        }
    }
    if roots.is_empty() {
        return Ok(None);
    }
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
    Ok(Some(verifier.build().map_err(|error| pem::invalid(last, "certificateFile", error))?))
}

/// The certificates that a server shows, by the name that a client asks for.
#[derive(Debug)]
struct Certificates {
    all: Vec<Arc<CertifiedKey>>,
    /// Whether a name that none of them has is refused.
    strict: bool,
}

impl Certificates {
    fn new(tls: &Tls, provider: &CryptoProvider) -> Result<Self, Error> {
        let mut all = Vec::new();
        for (index, certificate) in pem::of_usage(&tls.certificates, CertificateUsage::Encipherment) {
            let (chain, key) = pem::identity(index, certificate)?;
            let certified = CertifiedKey::from_der(chain, key, provider);
            all.push(Arc::new(certified.map_err(|error| pem::invalid(index, "keyFile", error))?));
        }
        Ok(Self { all, strict: tls.reject_unknown_sni })
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let asked = hello.server_name().and_then(|name| ServerName::try_from(name).ok());
        let named = asked.and_then(|name| {
            self.all.iter().find(|certified| certified.cert.first().is_some_and(|leaf| has_name(leaf, &name)))
        });
        let shown = if self.strict { named } else { named.or(self.all.first()) };
        shown.map(Arc::clone)
    }
}

fn has_name(leaf: &CertificateDer<'_>, name: &ServerName<'_>) -> bool {
    ParsedCertificate::try_from(leaf).is_ok_and(|leaf| verify_server_name(&leaf, name).is_ok())
}

#[cfg(test)]
mod tests;
