//! Certificates and keys, read when an instance starts.

use crate::config::{Certificate, CertificateUsage, PemSource};
use crate::error::{Error, ErrorKind};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::fmt;
use std::fs;
use zeroize::Zeroizing;

/// Where certificates are in an inbound or outbound.
pub(super) const PATH: &str = "streamSettings.tlsSettings.certificates";

/// A chain and the key of its first certificate.
pub(super) type Identity = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

/// The certificates of a usage, with their places in the config.
pub(super) fn of_usage(
    certificates: &[Certificate],
    usage: CertificateUsage,
) -> impl Iterator<Item = (usize, &Certificate)> {
    certificates.iter().enumerate().filter(move |(_, certificate)| certificate.usage == usage)
}

/// Reads a chain, which has at least one certificate.
///
/// # Errors
/// `ConfigInvalid` with the path inside of the inbound or outbound.
pub(super) fn chain(index: usize, certificate: &Certificate) -> Result<Vec<CertificateDer<'static>>, Error> {
    let key = key_of(&certificate.chain, "certificateFile", "certificate");
    let pem = read(index, key, &certificate.chain)?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    match chain {
        Ok(chain) if !chain.is_empty() => Ok(chain),
        Ok(_) => Err(invalid(index, key, "there is no certificate in it")),
        Err(error) => Err(invalid(index, key, error)),
    }
}

/// Reads a chain and its key.
///
/// # Errors
/// As [`chain`].
pub(super) fn identity(index: usize, certificate: &Certificate) -> Result<Identity, Error> {
    let chain = chain(index, certificate)?;
    let name = key_of(&certificate.key, "keyFile", "key");
    let pem = read(index, name, &certificate.key)?;
    let key = PrivateKeyDer::from_pem_slice(pem.as_bytes()).map_err(|error| invalid(index, name, error))?;
    Ok((chain, key))
}

const fn key_of(source: &PemSource, file: &'static str, inline: &'static str) -> &'static str {
    match source {
        PemSource::File(_) => file,
        PemSource::Inline(_) | PemSource::Absent => inline,
    }
}

fn read(index: usize, key: &str, source: &PemSource) -> Result<Zeroizing<String>, Error> {
    match source {
        PemSource::Absent => Ok(Zeroizing::default()),
        PemSource::Inline(text) => Ok(Zeroizing::new(text.expose().to_owned())),
        PemSource::File(path) => {
            fs::read_to_string(path).map(Zeroizing::new).map_err(|error| invalid(index, key, error))
        }
    }
}

/// What is wrong with one of the two texts of a certificate.
pub(super) fn invalid(index: usize, key: &str, reason: impl fmt::Display) -> Error {
    Error::new(ErrorKind::ConfigInvalid, "a certificate or its key cannot be used")
        .with_reason(reason.to_string())
        .with_path(format!("{PATH}[{index}].{key}"))
}
