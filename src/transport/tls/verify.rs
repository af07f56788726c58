//! Who may be at the other end: a server's certificate is judged by the system's list of issuers, by those of the config,
//! and by pins.

use super::pem;
use crate::config::{CertificateUsage, Tls};
use crate::error::Error;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, DigitallySignedStruct, OtherError, RootCertStore, SignatureScheme};
use sha2::{Digest, Sha256};
use std::sync::Arc;

/// A SHA-256 hash.
type Hash = [u8; 32];

/// Judges servers as the config says.
#[derive(Debug)]
pub(super) struct Judge {
    provider: Arc<CryptoProvider>,
    /// Judges by issuers; `None`: nobody does.
    issuers: Option<Arc<dyn ServerCertVerifier>>,
    /// Whether that may block.
    blocks: bool,
    chains: Vec<Hash>,
    certificates: Vec<Hash>,
    /// Whether a chain's pin is enough by itself.
    pin_suffices: bool,
}

/// The server's certificates are none of those that are pinned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the server's certificate is none of those that are pinned")]
struct NotPinned;

impl Judge {
    /// Prepares a judge; reads files.
    ///
    /// # Errors
    /// `ConfigInvalid` with the path of the certificate at fault.
    pub(super) fn new(tls: &Tls, provider: &Arc<CryptoProvider>) -> Result<Self, Error> {
        let own = own_issuers(tls)?;
        Ok(Self {
            provider: Arc::clone(provider),
            issuers: if tls.allow_insecure { None } else { issuers(tls, own, provider)? },
            blocks: cfg!(target_os = "ios") && !tls.allow_insecure && !tls.disable_system_root,
            chains: tls.pinned_chains.clone(),
            certificates: tls.pinned_certificates.clone(),
            pin_suffices: tls.insecure_if_pinned,
        })
    }

    /// Whether judging may block its thread, since the system does it, which may ask the network for revocations.
    pub(super) const fn blocks(&self) -> bool {
        self.blocks
    }

    /// A judge that has somebody else judge by issuers, who blocks.
    #[cfg(test)]
    pub(super) fn blocking(issuers: Arc<dyn ServerCertVerifier>, provider: &Arc<CryptoProvider>) -> Self {
        Self {
            provider: Arc::clone(provider),
            issuers: Some(issuers),
            blocks: true,
            chains: Vec::new(),
            certificates: Vec::new(),
            pin_suffices: false,
        }
    }

    /// Whether a pin takes the place of the issuers' word: Xray's, of a server's own certificate; or of an issuer, which
    /// alone is trusted then.
    fn judge_pinned(
        &self,
        leaf: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let is_pinned = |certificate: &&CertificateDer<'_>| self.certificates.contains(&hash(certificate));
        if is_pinned(&leaf) {
            return Ok(ServerCertVerified::assertion());
        }
        let mut roots = RootCertStore::empty();
        for issuer in between.iter().filter(is_pinned) {
            roots.add(issuer.clone().into_owned())?;
        }
        if roots.is_empty() {
            return Err(not_pinned());
        }
        let verifier =
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&self.provider));
        let verifier = verifier.build().map_err(|error| rustls::Error::General(error.to_string()))?;
        verifier.verify_server_cert(leaf, between, name, &[], now)
    }
}

impl ServerCertVerifier for Judge {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if !self.chains.is_empty() {
            if !self.chains.contains(&chain_hash(leaf, between)) {
                return Err(not_pinned());
            }
            if self.pin_suffices {
                return Ok(ServerCertVerified::assertion());
            }
        }
        if !self.certificates.is_empty() {
            return self.judge_pinned(leaf, between, name, now);
        }
        match &self.issuers {
            Some(issuers) => issuers.verify_server_cert(leaf, between, name, ocsp, now),
            None => Ok(ServerCertVerified::assertion()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

fn not_pinned() -> rustls::Error {
    CertificateError::Other(OtherError(Arc::new(NotPinned))).into()
}

fn hash(bytes: impl AsRef<[u8]>) -> Hash {
    Sha256::digest(bytes).into()
}

/// The hash of a chain as V2Ray has it: that of the first certificate, then each time of the last one and the next
/// certificate's.
fn chain_hash(leaf: &CertificateDer<'_>, between: &[CertificateDer<'_>]) -> Hash {
    between.iter().fold(hash(leaf), |above, certificate| {
        let mut digest = Sha256::new();
        digest.update(above);
        digest.update(hash(certificate));
        digest.finalize().into()
    })
}

/// The issuers that the config trusts.
fn own_issuers(tls: &Tls) -> Result<Vec<CertificateDer<'static>>, Error> {
    let mut own = Vec::new();
    for (index, certificate) in pem::of_usage(&tls.certificates, CertificateUsage::Verify) {
        own.extend(pem::chain(index, certificate)?);
    }
    Ok(own)
}

/// Who judges by issuers.
#[cfg(not(target_os = "ios"))]
fn issuers(
    tls: &Tls,
    own: Vec<CertificateDer<'static>>,
    provider: &Arc<CryptoProvider>,
) -> Result<Option<Arc<dyn ServerCertVerifier>>, Error> {
    // Most configs add nothing to the system's list, which is long: their servers share it.
    let roots = if own.is_empty() && !tls.disable_system_root {
        Arc::clone(system_roots())
    } else {
        let mut roots = if tls.disable_system_root {
            RootCertStore::empty()
        } else {
            RootCertStore::clone(system_roots())
        };
        add(&mut roots, tls, own)?;
        Arc::new(roots)
    };
    if roots.is_empty() {
        return Err(nobody());
    }
    let verifier = WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(provider));
    let verifier = verifier.build().map_err(|error| nobody().with_reason(error.to_string()))?;
    Ok(Some(verifier))
}

/// On iOS the system judges, with what it and the user trust; its list cannot be read.
#[cfg(target_os = "ios")]
fn issuers(
    tls: &Tls,
    own: Vec<CertificateDer<'static>>,
    provider: &Arc<CryptoProvider>,
) -> Result<Option<Arc<dyn ServerCertVerifier>>, Error> {
    use rustls_platform_verifier::Verifier;
    let unusable = |error: &dyn std::fmt::Display| nobody().with_reason(error.to_string());
    if tls.disable_system_root {
        let mut roots = RootCertStore::empty();
        add(&mut roots, tls, own)?;
        if roots.is_empty() {
            return Err(nobody());
        }
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
        return Ok(Some(verifier.build().map_err(|error| unusable(&error))?));
    }
    let verifier =
        Verifier::new_with_extra_roots(own, Arc::clone(provider)).map_err(|error| unusable(&error))?;
    Ok(Some(Arc::new(verifier)))
}

fn add(roots: &mut RootCertStore, tls: &Tls, own: Vec<CertificateDer<'static>>) -> Result<(), Error> {
    for certificate in own {
        roots.add(certificate).map_err(|error| {
            let first = pem::of_usage(&tls.certificates, CertificateUsage::Verify).next();
            pem::invalid(first.map_or(0, |(index, _)| index), "usage", error)
        })?;
    }
    Ok(())
}

fn nobody() -> Error {
    Error::new(
        crate::error::ErrorKind::ConfigInvalid,
        "no issuer of certificates is trusted, so no server can be",
    )
    .with_hint("add one to `certificates` with usage `verify`, or remove `disableSystemRoot`")
    .with_path("streamSettings.tlsSettings.disableSystemRoot")
}

/// The issuers that the system trusts. Read once: they are the same for all instances.
#[cfg(not(target_os = "ios"))]
fn system_roots() -> &'static Arc<RootCertStore> {
    static ROOTS: std::sync::OnceLock<Arc<RootCertStore>> = std::sync::OnceLock::new();
    ROOTS.get_or_init(|| Arc::new(read_roots()))
}

/// The system's list; Mozilla's where it has none.
#[cfg(not(any(target_os = "android", target_os = "ios")))]
fn read_roots() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    roots
}

/// Android's list, which is a folder; from 14 on one that is updated apart from the system. The system's own judgement would
/// need the virtual machine, which a tunnel that is started by a C host does not have.
#[cfg(target_os = "android")]
fn read_roots() -> RootCertStore {
    let folders = ["/apex/com.android.conscrypt/cacerts", "/system/etc/security/cacerts"];
    let lists = folders.map(|folder| roots_in(std::path::Path::new(folder)));
    lists.into_iter().find(|roots| !roots.is_empty()).unwrap_or_else(RootCertStore::empty)
}

/// The issuers in the files of a folder, with whatever stands around them; none of a folder that is not there.
#[cfg(any(test, target_os = "android"))]
fn roots_in(folder: &std::path::Path) -> RootCertStore {
    use rustls::pki_types::pem::PemObject;
    let mut roots = RootCertStore::empty();
    for file in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let Ok(pem) = std::fs::read(file.path()) else { continue };
        roots.add_parsable_certificates(CertificateDer::pem_slice_iter(&pem).flatten());
    }
    roots
}

#[cfg(all(test, not(any(target_os = "android", target_os = "ios"))))]
mod tests {
    use super::*;
    use crate::transport::tls::provider;

    #[test]
    fn the_systems_issuers_or_mozillas_are_trusted_and_shared() {
        assert!(system_roots().len() > 10, "{} issuers", system_roots().len());
        let judges = [(); 3].map(|()| Judge::new(&Tls::default(), &provider()).expect("issuers"));
        assert!(Arc::strong_count(system_roots()) > judges.len(), "one list for all");
    }

    #[test]
    fn a_folder_of_issuers_is_read_past_what_is_none() {
        let folder = std::env::temp_dir().join(format!("vmesskit-issuers-{}", std::process::id()));
        assert!(roots_in(&folder).is_empty());
        std::fs::create_dir_all(folder.join("empty")).expect("a directory");
        let issuers = [(); 2].map(|()| {
            let own = rcgen::generate_simple_self_signed(["issuer.test".to_owned()]).expect("an issuer");
            own.cert.pem()
        });
        std::fs::write(folder.join("5ed36f99.0"), format!("{}Certificate:\n    Data:\n", issuers[0]))
            .expect("written");
        std::fs::write(folder.join("5ed36f99.1"), &issuers[1]).expect("written");
        std::fs::write(folder.join("readme"), "nothing").expect("written");
        let found = roots_in(&folder).len();
        std::fs::remove_dir_all(&folder).expect("removed");
        assert_eq!(found, 2);
    }

    #[test]
    fn without_the_systems_issuers_there_must_be_others() {
        let tls = Tls { disable_system_root: true, ..Tls::default() };
        let error = Judge::new(&tls, &provider()).expect_err("nobody is trusted");
        assert_eq!(error.path, "streamSettings.tlsSettings.disableSystemRoot");
        assert!(Judge::new(&Tls { allow_insecure: true, ..tls }, &provider()).is_ok());
    }
}
