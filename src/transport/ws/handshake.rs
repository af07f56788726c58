//! What WebSocket adds to the upgrade: the key and its answer, and early data.

use super::super::Carrier;
use super::super::behind::Behind;
use super::super::http1::{self, Request, Response};
use super::super::upgrade::{self, Refusal, UpgradeError, request_head};
use super::doubt;
use crate::config::Ws;
use crate::engine::Shard;
use base64::Engine;
use base64::alphabet::{STANDARD, URL_SAFE};
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use sha1::{Digest, Sha1};
use std::io;
use std::time::Duration;

/// What a server adds to a client's key (RFC 6455, section 1.3).
const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
/// The only version.
const VERSION: &str = "13";
/// The field in which Xray's clients have early data, whatever the server's config says.
const PROTOCOL: &str = "Sec-WebSocket-Protocol";
/// Base64 as peers write it: with padding or without.
const LENIENT: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
const LENIENT_URL_SAFE: GeneralPurpose = GeneralPurpose::new(&URL_SAFE, LENIENT);
const LENIENT_STANDARD: GeneralPurpose = GeneralPurpose::new(&STANDARD, LENIENT);

/// What a client sends and expects.
#[derive(Debug)]
pub(super) struct Handshake {
    settings: Ws,
    host: String,
    key: String,
}

impl Handshake {
    /// With a fresh key. `authority`: the host where the config has none.
    pub(super) fn new(settings: &Ws, authority: &str, shard: &Shard) -> Self {
        let mut key = [0; 16];
        shard.with_entropy(|entropy| entropy.fill(&mut key));
        let host = settings.host.as_deref().unwrap_or(authority).to_owned();
        Self { settings: settings.clone(), host, key: BASE64_STANDARD.encode(key) }
    }

    /// How many of the first bytes may go into the request.
    pub(super) const fn max_early_data(&self) -> usize {
        self.settings.max_early_data
    }

    /// How often an idle connection is to be pinged.
    pub(super) const fn heartbeat(&self) -> Option<Duration> {
        self.settings.heartbeat
    }

    /// The request, with the first bytes in it.
    pub(super) fn request(&self, early: &[u8]) -> Vec<u8> {
        let early = BASE64_URL_SAFE_NO_PAD.encode(early);
        let Ws { path, headers, early_data_header, .. } = &self.settings;
        let mut fields = vec![("Sec-WebSocket-Key", self.key.as_str()), ("Sec-WebSocket-Version", VERSION)];
        match early_data_header {
            Some(name) if !early.is_empty() => fields.push((name, &early)),
            Some(_) => {}
            None => return request_head(&format!("{path}{early}"), &self.host, headers, &fields),
        }
        request_head(path, &self.host, headers, &fields)
    }

    /// Checks what WebSocket needs of an answer.
    ///
    /// # Errors
    /// [`UpgradeError::Wrong`].
    pub(super) fn check(&self, answer: &Response) -> Result<(), UpgradeError> {
        if answer.fields.get("Sec-WebSocket-Accept") != Some(&accept_key(&self.key)) {
            return Err(UpgradeError::Wrong("it answers another WebSocket's key"));
        }
        if answer.fields.get("Sec-WebSocket-Extensions").is_some_and(|list| !list.is_empty()) {
            return Err(UpgradeError::Wrong("it uses an extension that was not asked for"));
        }
        Ok(())
    }
}

/// What a server learns of its client.
#[derive(Debug)]
pub(super) struct Client {
    /// The early data in its request.
    pub(super) early: Vec<u8>,
    /// Whether it throws away what it reads together with the 101.
    pub(super) loses: bool,
}

/// Takes a client's request and answers it.
///
/// # Errors
/// As [`upgrade::read_request`].
pub(super) async fn answer<C: Carrier>(carrier: &mut Behind<C>, settings: &Ws) -> io::Result<Client> {
    let takes = |target: &str| early_in_path(target, settings).is_some();
    let request = upgrade::read_request(carrier, settings.host.as_deref(), takes).await?;
    let Some(key) = request.fields.get("Sec-WebSocket-Key").filter(|key| !key.is_empty()) else {
        return Err(upgrade::refuse(carrier, Refusal::NoUpgrade).await);
    };
    if request.fields.get("Sec-WebSocket-Version") != Some(VERSION) {
        return Err(upgrade::refuse(carrier, Refusal::Version).await);
    }
    let (early, in_field) = early_data(&request, settings);
    let accept = accept_key(key);
    let mut fields =
        vec![("Connection", "Upgrade"), ("Upgrade", "websocket"), ("Sec-WebSocket-Accept", accept.as_str())];
    // A browser's client insists on the name of its protocol.
    let protocol = request.fields.get(PROTOCOL).filter(|_| in_field.is_some_and(|name| name == PROTOCOL));
    fields.extend(protocol.map(|value| (PROTOCOL, value)));
    // On its own, since clients lose what comes in the same read.
    let head = http1::write_head("HTTP/1.1 101 Switching Protocols", fields);
    http1::write_all(carrier, &head).await?;
    Ok(Client { early, loses: doubt::is_due(&request.fields) })
}

/// What a request's target has behind the path, where early data may be there; `None` if it is for another path.
fn early_in_path<'a>(target: &'a str, settings: &Ws) -> Option<&'a str> {
    if upgrade::is_path(target, &settings.path) {
        return Some("");
    }
    let in_path = settings.max_early_data > 0 && settings.early_data_header.is_none();
    target.strip_prefix(&settings.path).filter(|_| in_path)
}

/// The early data of a request, and the field it was in if it was in one.
fn early_data<'a>(request: &Request, settings: &'a Ws) -> (Vec<u8>, Option<&'a str>) {
    let in_path = early_in_path(&request.target, settings).unwrap_or_default();
    if let Some(early) = decode(in_path) {
        return (early, None);
    }
    let name = settings.early_data_header.as_deref().unwrap_or(PROTOCOL);
    let name = if name.eq_ignore_ascii_case(PROTOCOL) { PROTOCOL } else { name };
    match request.fields.get(name).and_then(decode) {
        Some(early) => (early, Some(name)),
        None => (Vec::new(), None),
    }
}

/// Decodes base64 of either alphabet; `None` if it is none, or nothing.
fn decode(text: &str) -> Option<Vec<u8>> {
    let early = LENIENT_URL_SAFE.decode(text).or_else(|_| LENIENT_STANDARD.decode(text)).ok()?;
    Some(early).filter(|early| !early.is_empty())
}

/// What a server answers to a client's key.
pub(super) fn accept_key(key: &str) -> String {
    BASE64_STANDARD.encode(Sha1::new().chain_update(key).chain_update(GUID).finalize())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::testing::{Script, shard};

    fn settings(max_early_data: usize, header: Option<&str>) -> Ws {
        Ws {
            path: "/ray".to_owned(),
            max_early_data,
            early_data_header: header.map(str::to_owned),
            ..Ws::default()
        }
    }

    async fn served(request: &str, settings: &Ws) -> (io::Result<Client>, String) {
        let (carrier, script) = Script::carrier();
        script.borrow_mut().feed(request.as_bytes());
        let mut carrier = Behind::new(carrier, Vec::new());
        let answered = answer(&mut carrier, settings).await;
        let written = String::from_utf8(script.borrow().written.clone()).expect("text");
        assert_eq!(script.borrow().writes.len(), 1);
        (answered, written)
    }

    fn request(target: &str, more: &str) -> String {
        format!(
            "GET {target} HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n{more}\r\n"
        )
    }

    #[test]
    fn the_key_of_the_rfc_has_its_answer() {
        assert_eq!(accept_key("dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[tokio::test]
    async fn early_data_is_found_wherever_clients_put_it() {
        let early: Vec<u8> = (0..=255).chain([251, 239, 190]).collect();
        let url = BASE64_URL_SAFE_NO_PAD.encode(&early);
        let padded = format!("{}==", BASE64_URL_SAFE_NO_PAD.encode(&early[..1]));
        let standard = BASE64_STANDARD.encode(&early);
        for (path, more, settings, expected, echo) in [
            (String::new(), format!("X-Early: {url}\r\n"), settings(2048, Some("x-early")), &early[..], ""),
            (String::new(), format!("X-Early: {padded}\r\n"), settings(1, Some("X-Early")), &early[..1], ""),
            (String::new(), format!("{PROTOCOL}: {url}\r\n"), settings(0, None), &early, &url),
            (
                String::new(),
                format!("sec-websocket-protocol: {standard}\r\n"),
                settings(64, Some("sec-websocket-protocol")),
                &early,
                &standard,
            ),
            (url.clone(), String::new(), settings(2048, None), &early, ""),
            (String::new(), String::new(), settings(2048, None), &[], ""),
            (String::new(), format!("{PROTOCOL}: no, base64\r\n"), settings(2048, None), &[], ""),
        ] {
            let (found, written) = served(&request(&format!("/ray{path}"), &more), &settings).await;
            assert_eq!(found.expect("taken").early, expected, "{more}");
            let echoed = if echo.is_empty() { String::new() } else { format!("{PROTOCOL}: {echo}\r\n") };
            assert_eq!(
                written,
                format!(
                    "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                     Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n{echoed}\r\n"
                )
            );
        }
    }

    #[tokio::test]
    async fn other_paths_versions_and_missing_keys_are_refused() {
        let none = settings(0, None);
        for (request, status) in [
            (request("/rayAAAA", ""), 404),
            (request("/", ""), 404),
            (request("/ray", "").replace("Version: 13", "Version: 8"), 426),
            (request("/ray", "").replace("Sec-WebSocket-Key", "X-Key"), 400),
        ] {
            let (found, written) = served(&request, &none).await;
            assert!(found.is_err() && written.starts_with(&format!("HTTP/1.1 {status} ")), "{written}");
        }
    }

    #[test]
    fn a_client_puts_early_data_where_it_is_told_to() {
        let shard = shard();
        let text = |settings: &Ws, early: &[u8]| {
            String::from_utf8(Handshake::new(settings, "name:81", &shard).request(early)).expect("text")
        };
        assert!(
            text(&settings(10, None), b"\xFB\xEF").starts_with("GET /ray--8 HTTP/1.1\r\nHost: name:81\r\n")
        );
        let header = settings(10, Some("X-E"));
        assert!(text(&header, b"\xFB\xEF").ends_with("\r\nX-E: --8\r\n\r\n"));
        assert!(!text(&header, b"").contains("X-E"));
        let named = Ws { host: Some("cdn.test".to_owned()), ..header };
        assert!(text(&named, b"").contains("\r\nHost: cdn.test\r\n"));
    }

    #[test]
    fn a_client_takes_the_answer_to_its_own_key_alone() {
        let shard = shard();
        let handshake = Handshake::new(&settings(0, None), "h", &shard);
        let answer = |fields: &str| {
            http1::parse_response(format!("HTTP/1.1 101 OK\r\n{fields}\r\n").as_bytes()).expect("a head")
        };
        let accept = format!("Sec-WebSocket-Accept: {}\r\n", accept_key(&handshake.key));
        assert_eq!(handshake.check(&answer(&accept)), Ok(()));
        let deflate = format!("{accept}Sec-WebSocket-Extensions: permessage-deflate\r\n");
        for wrong in ["", "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n", deflate.as_str()] {
            assert!(matches!(handshake.check(&answer(wrong)), Err(UpgradeError::Wrong(_))), "{wrong}");
        }
    }
}
