//! A certificate that a server without one of its own shows: self-signed, for a name that nobody verifies.

use super::INTERNAL_NAME;
use crate::config::{Certificate, CertificateUsage, PemSource, Secret, Tls};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::error::Unspecified;
use ring::rand::{SecureRandom, SystemRandom};
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair};
use std::fmt::Write;

/// Object identifiers, encoded.
const ECDSA_WITH_SHA256: &[u8] = &[0x06, 8, 0x2A, 0x86, 0x48, 0xCE, 0x3D, 4, 3, 2];
const EC_PUBLIC_KEY: &[u8] = &[0x06, 7, 0x2A, 0x86, 0x48, 0xCE, 0x3D, 2, 1];
const P256: &[u8] = &[0x06, 8, 0x2A, 0x86, 0x48, 0xCE, 0x3D, 3, 1, 7];
const COMMON_NAME: &[u8] = &[0x06, 3, 0x55, 4, 3];
const SUBJECT_ALT_NAME: &[u8] = &[0x06, 3, 0x55, 0x1D, 0x11];

/// Tags of ASN.1.
const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const OCTET_STRING: u8 = 0x04;
const UTF8_STRING: u8 = 0x0C;
const UTC_TIME: u8 = 0x17;
const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const DNS_NAME: u8 = 0x82;
const VERSION: u8 = 0xA0;
const EXTENSIONS: u8 = 0xA3;

/// What a server's TLS is where the config has none: a new key, and its certificate.
///
/// # Errors
/// If the system gives no randomness.
pub(super) fn tls() -> Result<Tls, Unspecified> {
    let (certificate, key) = self_signed()?;
    let inline = |label, der: &[u8]| PemSource::Inline(Secret::new(pem(label, der)));
    let certificate = Certificate {
        usage: CertificateUsage::Encipherment,
        chain: inline("CERTIFICATE", &certificate),
        key: inline("PRIVATE KEY", &key),
    };
    Ok(Tls { certificates: vec![certificate], session_resumption: true, ..Tls::default() })
}

/// A certificate and its key (PKCS #8).
fn self_signed() -> Result<(Vec<u8>, Vec<u8>), Unspecified> {
    let random = SystemRandom::new();
    let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &random)?;
    let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, pkcs8.as_ref(), &random)
        .map_err(|_| Unspecified)?;
    let mut serial = [0; 16];
    random.fill(&mut serial)?;
    // Positive, and with no byte to spare.
    serial[0] = serial[0] & 0x7F | 0x40;
    let name = der(
        SEQUENCE,
        &[&der(SET, &[&der(SEQUENCE, &[COMMON_NAME, &der(UTF8_STRING, &[INTERNAL_NAME.as_bytes()])])])],
    );
    let algorithm = der(SEQUENCE, &[ECDSA_WITH_SHA256]);
    let validity = der(SEQUENCE, &[&der(UTC_TIME, &[b"200101000000Z"]), &der(UTC_TIME, &[b"491231235959Z"])]);
    let public_key = der(
        SEQUENCE,
        &[&der(SEQUENCE, &[EC_PUBLIC_KEY, P256]), &der(BIT_STRING, &[&[0], key.public_key().as_ref()])],
    );
    let names = der(SEQUENCE, &[&der(DNS_NAME, &[INTERNAL_NAME.as_bytes()])]);
    let names = der(SEQUENCE, &[SUBJECT_ALT_NAME, &der(OCTET_STRING, &[&names])]);
    let body = der(
        SEQUENCE,
        &[
            &der(VERSION, &[&der(INTEGER, &[&[2]])]),
            &der(INTEGER, &[&serial]),
            &algorithm,
            &name,
            &validity,
            &name,
            &public_key,
            &der(EXTENSIONS, &[&der(SEQUENCE, &[&names])]),
        ],
    );
    let signature = key.sign(&random, &body)?;
    let certificate = der(SEQUENCE, &[&body, &algorithm, &der(BIT_STRING, &[&[0], signature.as_ref()])]);
    Ok((certificate, pkcs8.as_ref().to_vec()))
}

/// An element of DER.
fn der(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let content = parts.concat();
    let len = content.len().to_be_bytes();
    let len = len.iter().position(|byte| *byte != 0).and_then(|at| len.get(at..)).unwrap_or(&[0]);
    let mut out = vec![tag];
    if content.len() >= 0x80 {
        out.push(0x80 | len.len() as u8);
    }
    out.extend_from_slice(len);
    out.extend(content);
    out
}

fn pem(label: &str, der: &[u8]) -> String {
    let mut text = format!("-----BEGIN {label}-----\n");
    for line in STANDARD.encode(der).as_bytes().chunks(64) {
        text.push_str(std::str::from_utf8(line).unwrap_or_default());
        text.push('\n');
    }
    // Writing to a text does not fail.
    let _ = writeln!(text, "-----END {label}-----");
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::client::verify_server_name;
    use rustls::pki_types::{CertificateDer, ServerName};
    use rustls::server::ParsedCertificate;

    #[test]
    fn it_is_a_certificate_for_the_name() {
        let (certificate, _) = self_signed().expect("randomness");
        let certificate = CertificateDer::from(certificate);
        let parsed = ParsedCertificate::try_from(&certificate).expect("a certificate");
        let name = ServerName::try_from(INTERNAL_NAME).expect("a name");
        verify_server_name(&parsed, &name).expect("its name");
        assert_ne!(self_signed().expect("randomness").0, *certificate, "another key each time");
    }
}
