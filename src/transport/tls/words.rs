//! What went wrong with TLS, in words that name no host.

use super::super::dial::DialError;
use crate::error::{Error, ErrorKind};
use rustls::{AlertDescription, CertificateError, InvalidMessage};
use std::io;
use tokio::time::Instant;

/// A handshake that failed, `started` ago.
pub(super) fn failed(error: &rustls::Error, started: Instant) -> DialError {
    let seconds = started.elapsed().as_secs_f32();
    let (reason, hint) = explain(error);
    let text = format!("the TLS handshake failed (after {seconds:.1} s)");
    let error = Error::new(ErrorKind::TlsFailed, text).with_hint(hint).with_reason(reason);
    DialError { error, kind: io::ErrorKind::InvalidData }
}

/// A failure of TLS inside of QUIC, of which no more is left than the alert that we sent, as QUIC numbers it, and a text.
/// `None` if it is no alert.
#[cfg(feature = "quic")]
pub(in super::super) fn alert_sent(code: u64, reason: &str, started: Instant) -> Option<DialError> {
    let error = match alert(code)? {
        AlertDescription::UnknownCA => CertificateError::UnknownIssuer,
        AlertDescription::CertificateExpired if reason.contains("not valid yet") => {
            CertificateError::NotValidYet
        }
        AlertDescription::CertificateExpired => CertificateError::Expired,
        AlertDescription::CertificateRevoked => CertificateError::Revoked,
        AlertDescription::BadCertificate if reason.contains("not valid for name") => {
            CertificateError::NotValidForName
        }
        AlertDescription::NoApplicationProtocol => {
            return Some(failed(&rustls::Error::NoApplicationProtocol, started));
        }
        alert => {
            let failed = failed(&rustls::Error::AlertReceived(alert), started);
            let reason = reason.rsplit(": ").next().unwrap_or_default().to_owned();
            return Some(DialError { error: failed.error.with_hint("").with_reason(reason), ..failed });
        }
    };
    Some(failed(&rustls::Error::InvalidCertificate(error), started))
}

/// A failure of TLS inside of QUIC that the server has told us by an alert, as QUIC numbers it. `None` if it is none.
#[cfg(feature = "quic")]
pub(in super::super) fn alert_received(code: u64, started: Instant) -> Option<DialError> {
    Some(failed(&rustls::Error::AlertReceived(alert(code)?), started))
}

/// The alert that an error code of QUIC's stands for (RFC 9001, section 4.8).
#[cfg(feature = "quic")]
fn alert(code: u64) -> Option<AlertDescription> {
    let number = code.checked_sub(0x100).and_then(|code| u8::try_from(code).ok())?;
    Some(AlertDescription::from(number))
}

/// What an error means, and what may help.
pub(super) fn explain(error: &rustls::Error) -> (String, &'static str) {
    match error {
        rustls::Error::InvalidCertificate(error) => certificate(error),
        rustls::Error::AlertReceived(alert) => {
            (format!("the server answered with the TLS alert {}", name(*alert)), hint(*alert))
        }
        rustls::Error::NoCertificatesPresented => ("the server showed no certificate".into(), ""),
        rustls::Error::NoApplicationProtocol => (
            "both ends have no protocol in common (alpn)".into(),
            "compare `alpn` on both ends, or remove it",
        ),
        rustls::Error::InvalidMessage(
            InvalidMessage::InvalidContentType | InvalidMessage::UnknownProtocolVersion,
        ) => (
            "the server does not speak TLS on this port".into(),
            "check the port, or set `security` to `none`",
        ),
        rustls::Error::PeerIncompatible(what) => (
            format!("the other end offers nothing that is safe ({what:?})"),
            "TLS 1.2 with AES-GCM or ChaCha20-Poly1305 is the least that is needed",
        ),
        other => (other.to_string(), ""),
    }
}

fn certificate(error: &CertificateError) -> (String, &'static str) {
    match error {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => (
            "the server's certificate has expired".into(),
            "renew it on the server; if it is new, check this device's date",
        ),
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            ("the server's certificate is not valid yet".into(), "check this device's date")
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => (
            "the server's certificate is for another name".into(),
            "set `serverName` to a name that the certificate has",
        ),
        CertificateError::UnknownIssuer => (
            "the server's certificate is by an issuer that is not trusted".into(),
            "send the whole chain; for a certificate of your own use `certificates` with usage `verify`, or pin it",
        ),
        CertificateError::Revoked => ("the server's certificate has been revoked".into(), ""),
        CertificateError::BadSignature => ("the server's certificate has a wrong signature".into(), ""),
        CertificateError::Other(other) => (other.to_string(), ""),
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            ("the server's certificate is not for servers".into(), "")
        }
        other => (format!("the server's certificate is not acceptable ({})", spaced(other)), ""),
    }
}

/// The first word of a Debug form, which names the case and no host.
fn spaced(what: &impl std::fmt::Debug) -> String {
    let text = format!("{what:?}");
    text.split([' ', '(', '{']).next().unwrap_or_default().to_owned()
}

/// An alert as RFC 8446 writes it.
pub(super) fn name(alert: AlertDescription) -> String {
    let camel = match alert {
        AlertDescription::Unknown(number) => return format!("number {number}"),
        AlertDescription::UnknownCA => "UnknownCa".into(),
        AlertDescription::UnrecognisedName => "UnrecognizedName".into(),
        AlertDescription::UserCanceled => "UserCanceled".into(),
        AlertDescription::UnknownPSKIdentity => "UnknownPskIdentity".into(),
        other => format!("{other:?}"),
    };
    let mut name = String::with_capacity(camel.len() + 4);
    for letter in camel.chars() {
        if letter.is_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.extend(letter.to_lowercase());
    }
    name
}

const fn hint(alert: AlertDescription) -> &'static str {
    match alert {
        AlertDescription::NoApplicationProtocol => "compare `alpn` on both ends, or remove it",
        AlertDescription::UnrecognisedName | AlertDescription::AccessDenied => {
            "the server does not know this name: check `serverName`"
        }
        AlertDescription::CertificateRequired | AlertDescription::BadCertificate => {
            "the server wants a client's certificate that it knows"
        }
        AlertDescription::ProtocolVersion | AlertDescription::HandshakeFailure => {
            "TLS 1.2 with AES-GCM or ChaCha20-Poly1305 is the least that is needed"
        }
        _ => "",
    }
}
