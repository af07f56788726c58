//! A client's TLS: what all connections to a server share.

use super::super::Carrier;
use super::super::dial::DialError;
use super::carrier::TlsCarrier;
use super::handshake::{self, Failed, Handshake};
use super::verify::Judge;
use super::{alpn, pem, provider, words};
use crate::addr::Host;
use crate::config::{CertificateUsage, Tls};
use crate::engine::Shard;
use crate::error::{Error, ErrorKind, Stage};
use rustls::ClientConfig;
use rustls::client::{Resumption, UnbufferedClientConnection};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::ServerName;
#[cfg(feature = "quic")]
use rustls::{
    DigitallySignedStruct, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    pki_types::{CertificateDer, UnixTime},
};
use std::cell::RefCell;
use std::io;
use std::sync::Arc;
use tokio::time::{Instant, timeout_at};

/// How many sessions of a server are remembered.
const SESSIONS: usize = 16;

/// How a server is spoken to.
pub(in super::super) struct TlsClient {
    config: RefCell<Arc<ClientConfig>>,
    name: ServerName<'static>,
    resumes: bool,
    #[cfg(feature = "quic")]
    judge: Arc<Judge>,
    /// Whether judging a certificate may block: the systems that do it themselves ask the network.
    blocks: bool,
}

impl TlsClient {
    /// Prepares the connections to a server at `host`; reads files. `usual_alpn` is what the transport offers if the config
    /// says nothing else.
    ///
    /// # Errors
    /// `ConfigInvalid` with the path inside of the outbound.
    pub(in super::super) fn new(tls: &Tls, host: &Host, usual_alpn: &[&str]) -> Result<Self, Error> {
        let provider = provider();
        let judge = Judge::new(tls, &provider)?;
        Self::with_judge(tls, host, usual_alpn, judge, provider)
    }

    fn with_judge(
        tls: &Tls,
        host: &Host,
        usual_alpn: &[&str],
        judge: Judge,
        provider: Arc<CryptoProvider>,
    ) -> Result<Self, Error> {
        let (blocks, judge) = (judge.blocks(), Arc::new(judge));
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| Error::new(ErrorKind::Internal, "no TLS").with_reason(error.to_string()))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::<Judge>::clone(&judge));
        let mut config = match pem::of_usage(&tls.certificates, CertificateUsage::Encipherment).next() {
            None => builder.with_no_client_auth(),
            Some((index, certificate)) => {
                let (chain, key) = pem::identity(index, certificate)?;
                let config = builder.with_client_auth_cert(chain, key);
                config.map_err(|error| pem::invalid(index, "keyFile", error))?
            }
        };
        config.alpn_protocols = match &tls.alpn {
            Some(names) => alpn(names),
            None => usual_alpn.iter().map(|name| name.as_bytes().to_vec()).collect(),
        };
        config.enable_secret_extraction = true;
        let client = Self {
            config: RefCell::new(Arc::new(config)),
            name: server_name(tls, host)?,
            resumes: tls.session_resumption,
            #[cfg(feature = "quic")]
            judge,
            blocks,
        };
        client.forget_sessions();
        Ok(client)
    }

    /// Forgets the sessions that could be resumed: on another network they would tell who we are.
    pub(in super::super) fn forget_sessions(&self) {
        let mut config = ClientConfig::clone(&self.config.borrow());
        config.resumption =
            if self.resumes { Resumption::in_memory_sessions(SESSIONS) } else { Resumption::disabled() };
        self.config.replace(Arc::new(config));
    }

    /// What QUIC speaks TLS with, as it is at the moment, and the name that it asks for. Where judging a certificate may
    /// block, that is left to [`TlsClient::judge`]: QUIC's handshakes are made on the shard's thread.
    #[cfg(feature = "quic")]
    pub(in super::super) fn parts(&self) -> (Arc<ClientConfig>, String) {
        let mut config = Arc::clone(&self.config.borrow());
        if self.blocks {
            let later = Arc::new(Later(Arc::clone(&self.judge)));
            Arc::make_mut(&mut config).dangerous().set_certificate_verifier(later);
        }
        (config, self.name.to_str().into_owned())
    }

    /// Judges what a server has shown inside of QUIC, if that was left for later. Until then it must be told nothing.
    ///
    /// # Errors
    /// `TlsFailed`; what the host's threads say.
    #[cfg(feature = "quic")]
    pub(in super::super) async fn judge(
        &self,
        shard: &Shard,
        chain: Vec<CertificateDer<'static>>,
        started: Instant,
    ) -> Result<(), DialError> {
        if !self.blocks {
            return Ok(());
        }
        let (judge, name) = (Arc::clone(&self.judge), self.name.clone());
        let work = move || {
            let (leaf, between) = chain.split_first().ok_or(rustls::Error::NoCertificatesPresented)?;
            judge.verify_server_cert(leaf, between, &name, &[], UnixTime::now()).map(drop)
        };
        let judged = shard.host.work(work).await.map_err(DialError::refused)?;
        judged.map_err(|error| words::failed(&error, started))
    }

    /// Has certificates judged as if that could block.
    #[cfg(all(test, feature = "quic"))]
    pub(in super::super) fn block(&mut self) {
        self.blocks = true;
    }

    /// Makes the handshake; the connection and the protocol that was agreed on. Our last message is held back until the
    /// first write, as far as the version allows.
    ///
    /// # Errors
    /// `TlsFailed`, or `ServerUnreachable` at the stage `tls`.
    pub(in super::super) async fn connect<C: Carrier>(
        &self,
        shard: &Shard,
        carrier: C,
        deadline: Instant,
    ) -> Result<(TlsCarrier<C>, Option<Vec<u8>>), DialError> {
        let started = Instant::now();
        let unreachable = |kind, reason: &str| DialError::new(Stage::Tls, kind, started, reason);
        let config = Arc::clone(&self.config.borrow());
        let connection = UnbufferedClientConnection::new(config, self.name.clone())
            .map_err(|error| words::failed(&error, started))?;
        let desk = self.blocks.then_some(&*shard.host);
        let handshake = Handshake::new(connection);
        let handshake = Box::pin(handshake::run(carrier, handshake, &shard.tls_scratch, desk));
        match timeout_at(deadline, handshake).await {
            Ok(Ok(connected)) => Ok(connected),
            Ok(Err(Failed::Tls(error))) => Err(words::failed(&error, started)),
            Ok(Err(Failed::Io(error))) if error.kind() == io::ErrorKind::UnexpectedEof => {
                Err(unreachable(error.kind(), "the server closed the connection"))
            }
            Ok(Err(Failed::Io(error))) => {
                Err(carried(error).unwrap_or_else(|error| unreachable(error.kind(), &error.to_string())))
            }
            Ok(Err(Failed::Ours(error))) => Err(DialError::refused(error)),
            Err(_) => Err(unreachable(io::ErrorKind::TimedOut, "no answer")),
        }
    }
}

/// Takes every certificate for now, from whoever has its key.
#[cfg(feature = "quic")]
#[derive(Debug)]
struct Later(Arc<Judge>);

#[cfg(feature = "quic")]
impl ServerCertVerifier for Later {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

/// The failure of a set-up that an error of the carrier below carries, if it does.
fn carried(error: io::Error) -> Result<DialError, io::Error> {
    error.downcast::<DialError>()
}

/// The name that is asked for and verified: the config's, else the server's address.
fn server_name(tls: &Tls, host: &Host) -> Result<ServerName<'static>, Error> {
    let invalid = |name: &str| {
        Error::new(ErrorKind::ConfigInvalid, "no name or address that a certificate could have")
            .with_reason(format!("found {name:?}"))
            .with_path("streamSettings.tlsSettings.serverName")
    };
    match (&tls.server_name, host) {
        (Some(name), _) => ServerName::try_from(name.clone()).map_err(|_| invalid(name)),
        (None, Host::Ip(ip)) => Ok(ServerName::IpAddress((*ip).into())),
        (None, Host::Domain(name)) => ServerName::try_from(name.to_string()).map_err(|_| invalid(name)),
    }
}

#[cfg(test)]
mod tests;
