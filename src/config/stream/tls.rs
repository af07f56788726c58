//! `tlsSettings`: names, certificates, pins.

use super::super::transport::{Certificate, CertificateUsage, PemSource, Secret, Tls};
use super::super::walk::{Node, Object, given};
use super::Side;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use std::path::PathBuf;

const KEYS: &[&str] = &[
    "serverName",
    "allowInsecure",
    "alpn",
    "certificates",
    "disableSystemRoot",
    "enableSessionResumption",
    "pinnedPeerCertificateChainSha256",
    "allowInsecureIfPinnedPeerCertificate",
    "pinnedPeerCertSha256",
    "verifyPeerCertByName",
    "verifyPeerCertInNames",
    "rejectUnknownSni",
    "verifyClientCertificate",
    "allowInsecureCiphers",
    "fingerprint",
    "minVersion",
    "maxVersion",
    "cipherSuites",
    "curvePreferences",
    "echConfigList",
    "echServerKeys",
    "echForceQuery",
    "masterKeyLog",
];

/// What works without: the key, and what happens instead.
const IGNORED: &[(&str, &str)] = &[
    ("fingerprint", "the ClientHello is rustls' own"),
    ("minVersion", "TLS 1.2 and 1.3 are offered"),
    ("maxVersion", "TLS 1.2 and 1.3 are offered"),
    ("cipherSuites", "the strong suites of TLS 1.2 and 1.3 are offered"),
    ("curvePreferences", "X25519, P-256 and P-384 are offered"),
    ("allowInsecureCiphers", "weak ciphers are never used"),
    ("masterKeyLog", "keys are never written down"),
];

/// Reads `tlsSettings`, which may be absent. `None` after an error.
pub(super) fn read(node: Option<&Node<'_>>, side: Side) -> Option<Tls> {
    let default = Tls { session_resumption: true, ..Tls::default() };
    let Some(node) = node else {
        return Some(default);
    };
    let object = node.object(KEYS)?;
    let alpn = given(object.get("alpn").map(|node| node.texts()));
    let certificates = certificates(&object, side);
    let chains =
        given(object.get("pinnedPeerCertificateChainSha256").map(|node| pins(&node, from_base64, BASE64)));
    let pinned = given(object.get("pinnedPeerCertSha256").map(|node| pins(&node, from_hex, HEX)));
    for (key, effect) in IGNORED {
        if let Some(node) = object.get(key).filter(|node| !node.is_empty()) {
            node.ignored(&format!("`{key}`"), effect);
        }
    }
    for key in ["echConfigList", "echServerKeys", "echForceQuery"] {
        if let Some(node) = object.get(key).filter(|node| !node.is_empty()) {
            node.unsupported("an encrypted ClientHello", "remove the key");
        }
    }
    let allow_insecure = object.flag("allowInsecure", false);
    if let Some(node) = object.get("allowInsecure").filter(|_| allow_insecure && side == Side::Outbound) {
        node.warning("the server's certificate is not verified: anybody on the way can read and change everything", |finding| {
            finding.hint("remove it; for a certificate of your own use `pinnedPeerCertificateChainSha256`, or `certificates` with usage `verify`")
        });
    }
    let names = object.text("serverName");
    let verify_name = [object.text("verifyPeerCertByName"), object.text("verifyPeerCertInNames")];
    if let Some(node) = object.get("verifyPeerCertByName").filter(|node| !node.is_empty()) {
        node.ignored(
            "verifying another name than is asked for",
            "`serverName` is both asked for and verified",
        );
    }
    let name =
        if names.is_empty() { verify_name.into_iter().find(|name| !name.is_empty()) } else { Some(names) };
    let alpn: Option<Vec<String>> = alpn?.map(|texts| texts.into_iter().map(|(text, _)| text).collect());
    if let Some(node) = object.get("alpn")
        && alpn.iter().flatten().any(|name| name.is_empty() || name.len() > 255)
    {
        node.error("not a protocol's name", |finding| {
            finding.allowed("names of 1 to 255 bytes, such as h2, http/1.1")
        });
        return None;
    }
    Some(Tls {
        server_name: name.map(str::to_owned),
        alpn: alpn.filter(|names| !names.is_empty()),
        allow_insecure,
        certificates: certificates?,
        disable_system_root: object.flag("disableSystemRoot", false),
        session_resumption: object.flag("enableSessionResumption", true),
        pinned_chains: chains?.unwrap_or_default(),
        pinned_certificates: pinned?.unwrap_or_default(),
        insecure_if_pinned: object.flag("allowInsecureIfPinnedPeerCertificate", false),
        reject_unknown_sni: object.flag("rejectUnknownSni", false),
    })
}

/// Reads `certificates`. A server without one to show is an error.
fn certificates(object: &Object<'_>, side: Side) -> Option<Vec<Certificate>> {
    let entries = given(object.get("certificates").map(|node| node.entries()))?.unwrap_or_default();
    let read: Vec<_> = entries.iter().map(certificate).collect();
    let certificates: Vec<Certificate> = read.into_iter().collect::<Option<_>>()?;
    let shows = |certificate: &Certificate| {
        matches!(certificate.usage, CertificateUsage::Encipherment | CertificateUsage::Issue)
    };
    if side == Side::Inbound && !certificates.iter().any(shows) {
        object.missing(
            "certificates",
            "a server's certificate: [{ \"certificateFile\": ..., \"keyFile\": ... }]",
        );
        return None;
    }
    Some(certificates)
}

fn certificate(node: &Node<'_>) -> Option<Certificate> {
    const KEYS: &[&str] = &[
        "usage",
        "certificateFile",
        "keyFile",
        "certificate",
        "key",
        "ocspStapling",
        "oneTimeLoading",
        "buildChain",
    ];
    const USAGES: &[(&str, CertificateUsage)] = &[
        ("encipherment", CertificateUsage::Encipherment),
        ("verify", CertificateUsage::Verify),
        ("issue", CertificateUsage::Issue),
        ("verifyclient", CertificateUsage::VerifyClient),
        ("", CertificateUsage::Encipherment),
    ];
    let object = node.object(KEYS)?;
    let usage = given(object.get("usage").map(|node| node.choice("usage", USAGES)));
    let (chain, key) = (pem(&object, "certificateFile", "certificate"), pem(&object, "keyFile", "key"));
    for name in ["ocspStapling", "oneTimeLoading", "buildChain"] {
        if let Some(node) = object.get(name).filter(|node| !node.is_empty()) {
            node.ignored(
                &format!("`{name}`"),
                "the certificate is read once, at the start, and sent as it is",
            );
        }
    }
    let usage = usage?.unwrap_or(CertificateUsage::Encipherment);
    let certificate = Certificate { usage, chain: chain?, key: key? };
    let needs_key = matches!(usage, CertificateUsage::Encipherment | CertificateUsage::Issue);
    if certificate.chain == PemSource::Absent {
        object.missing("certificateFile", "the path of a PEM file, or `certificate` with its lines");
        return None;
    }
    if needs_key && certificate.key == PemSource::Absent {
        object.missing("keyFile", "the path of a PEM file, or `key` with its lines");
        return None;
    }
    Some(certificate)
}

/// Reads a PEM text: the path under `file`, or the lines under `inline`.
fn pem(object: &Object<'_>, file: &'static str, inline: &'static str) -> Option<PemSource> {
    let path = object.text(file);
    if !path.is_empty() {
        return Some(PemSource::File(PathBuf::from(path)));
    }
    let Some(node) = object.secret(inline) else { return Some(PemSource::Absent) };
    let text = match node.value().as_str() {
        Some(text) => text.to_owned(),
        None => {
            let lines: Option<Vec<&str>> = node.entries()?.iter().map(|node| node.text()).collect();
            lines?.join("\n")
        }
    };
    if !text.contains("-----BEGIN ") {
        node.error("this is no PEM", |finding| {
            finding.allowed("the lines of a PEM text, from -----BEGIN ...----- to -----END ...-----")
        });
        return None;
    }
    Some(PemSource::Inline(Secret::new(text)))
}

const BASE64: &str = "SHA-256 hashes in base64";
const HEX: &str = "SHA-256 hashes in hexadecimal, 64 digits each";

/// Reads a list of hashes.
fn pins(node: &Node<'_>, read: fn(&str) -> Option<Vec<u8>>, allowed: &str) -> Option<Vec<[u8; 32]>> {
    let mut pins = Vec::new();
    let mut fine = true;
    for (text, node) in node.texts()? {
        for part in text.split('~').filter(|part| !part.is_empty()) {
            match read(part).and_then(|bytes| bytes.try_into().ok()) {
                Some(pin) => pins.push(pin),
                None => {
                    fine = false;
                    node.error("this is no hash", |finding| finding.allowed(allowed));
                }
            }
        }
    }
    fine.then_some(pins)
}

fn from_base64(text: &str) -> Option<Vec<u8>> {
    STANDARD.decode(text).or_else(|_| STANDARD_NO_PAD.decode(text)).ok()
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digits: Vec<u8> = text
        .bytes()
        .filter(|byte| *byte != b':')
        .map(|byte| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok()))
        .collect::<Option<_>>()?;
    let (pairs, rest) = digits.as_chunks::<2>();
    rest.is_empty().then(|| pairs.iter().map(|[high, low]| high << 4 | low).collect())
}
