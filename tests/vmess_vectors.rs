//! The codec against known answers: computed independently of it, and proven against V2Ray.
//!
//! `body` has a file of tests of its own. `mux` and `packetaddr` belong to the mux part, `mkcp` to the
//! transports; of `behaviour_seed` nothing is built: our server does not drain a number of bytes.

#[path = "common/vmess_peer.rs"]
mod peer;

use peer::{Script, command, list, number, options, security, text, unhex, unhex_array, vectors};
use serde_json::Value;
use shake::{ExtendableOutput, Shake128, Update, XofReader};
use vmesskit::addr::{Host, Target};
use vmesskit::vmess::auth::AuthCipher;
use vmesskit::vmess::client::{Request, connect, connect_legacy};
use vmesskit::vmess::fnv::fnv1a;
use vmesskit::vmess::header::RequestHeader;
use vmesskit::vmess::keys::{BodyKeys, chacha_key};
use vmesskit::vmess::legacy::{self, AUTH_LEN, HeaderCipher};
use vmesskit::vmess::response::ResponseHeader;
use vmesskit::vmess::server::{self, HeaderKind};
use vmesskit::vmess::{CmdKey, Id, account, envelope, kdf};

#[test]
fn identities() {
    let vectors = vectors();
    let identities = list(&vectors["identity"]);
    assert_eq!(identities.len(), 5);
    for identity in identities {
        let (id, _) = Id::parse(text(&identity["id"])).expect("legal id");
        assert_eq!(id.as_bytes(), &unhex_array(&identity["uuid_bytes"]));
        assert_eq!(id.cmd_key().as_bytes(), &unhex_array(&identity["cmd_key"]));
        let alter_ids: Vec<Id> = account::alter_ids(&id, 4).collect();
        let known: Vec<Id> = list(&identity["alter_ids"])
            .iter()
            .map(|alter_id| Id::from_bytes(unhex_array(alter_id)))
            .collect();
        assert_eq!(alter_ids, known);
    }
}

#[test]
fn key_derivation() {
    let vectors = vectors();
    let mut seen = [0; 4];
    for case in list(&vectors["kdf"]) {
        let material = unhex(text(&case["key"]));
        let encoding = case["path_encoding"].as_str().unwrap_or("ascii");
        let path: Vec<Vec<u8>> = list(&case["path"])
            .iter()
            .enumerate()
            .map(|(i, element)| match (encoding, i) {
                ("ascii", _) | ("first ascii, rest hex", 0) => text(element).as_bytes().to_vec(),
                _ => unhex(text(element)),
            })
            .collect();
        seen[path.len()] += 1;
        let derived = match path.as_slice() {
            // Level 0 alone is never used; as a path of one, it is what pre-hashes a long element.
            [] => continue,
            [salt] => kdf::derive(&material, salt),
            [salt, auth_id, nonce] => kdf::derive_for(&material, salt, auth_id, nonce),
            other => panic!("no use has a path of {}", other.len()),
        };
        assert_eq!(derived, unhex_array(&case["out"]), "{case}");
    }
    assert_eq!(seen, [1, 7, 0, 5]);
}

#[test]
fn salts_are_the_published_ones() {
    let vectors = vectors();
    let salts: Vec<&str> = list(&vectors["kdf"]).iter().filter_map(|case| case["path"][0].as_str()).collect();
    for salt in [
        kdf::AUTH_ID,
        kdf::REQUEST_LENGTH_KEY,
        kdf::REQUEST_LENGTH_NONCE,
        kdf::REQUEST_KEY,
        kdf::REQUEST_NONCE,
        kdf::RESPONSE_LENGTH_KEY,
        kdf::RESPONSE_LENGTH_NONCE,
        kdf::RESPONSE_KEY,
        kdf::RESPONSE_NONCE,
        kdf::CHUNK_LENGTH,
    ] {
        assert!(salts.iter().any(|known| known.as_bytes() == salt), "{}", String::from_utf8_lossy(salt));
    }
}

#[test]
fn auth_ids() {
    let vectors = vectors();
    let cases = list(&vectors["auth_id"]);
    assert_eq!(cases.len(), 3);
    for case in cases {
        let cmd_key = CmdKey::from_bytes(unhex_array(&case["cmd_key"]));
        let time = number(&case["time"]).try_into().expect("small");
        let cipher = AuthCipher::new(&cmd_key);
        let auth_id = cipher.seal(time, unhex_array(&case["rand4"]));
        assert_eq!(auth_id, unhex_array(&case["auth_id"]));
        assert_eq!(cipher.open(&auth_id), Some(time));
        let key: [u8; 16] = kdf::prefix(kdf::derive(cmd_key.as_bytes(), kdf::AUTH_ID));
        assert_eq!(key, unhex_array(&case["aes_key"]));
    }
}

#[test]
fn legacy_signatures() {
    let vectors = vectors();
    let cases = list(&vectors["legacy_auth"]);
    assert_eq!(cases.len(), 3);
    for case in cases {
        let id = Id::from_bytes(unhex_array(&case["uid"]));
        let time = number(&case["time"]).try_into().expect("small");
        assert_eq!(legacy::auth(&id, time), unhex_array(&case["auth"]));
    }
}

#[test]
fn checksums_and_stretched_keys() {
    let vectors = vectors();
    for case in list(&vectors["fnv1a32"]) {
        assert_eq!(fnv1a(&unhex(text(&case["in"]))).to_be_bytes(), unhex_array(&case["out"]));
    }
    let case = &vectors["chacha_key"][0];
    assert_eq!(*chacha_key(&unhex_array(&case["in"])), unhex_array(&case["out"]));
    let case = &vectors["shake_u16"];
    let mut shake = Shake128::default();
    shake.update(&unhex(text(&case["seed"])));
    let mut output = [0; 32];
    shake.finalize_xof().read(&mut output);
    let known: Vec<u8> = list(&case["first_16"]).iter().flat_map(|word| unhex(text(word))).collect();
    assert_eq!(output.as_slice(), known);
}

/// The response direction's keys of the vectors, under an AEAD header or a legacy one.
fn known_response_keys(vectors: &Value, aead: bool) -> (BodyKeys, BodyKeys) {
    let case = list(&vectors["response_keys"]).iter().find(|case| case["aead"] == aead).expect("both");
    let keys = |key: &str, iv: &str| BodyKeys { key: unhex_array(&case[key]), iv: unhex_array(&case[iv]) };
    (keys("req_key", "req_iv"), keys("resp_key", "resp_iv"))
}

#[test]
fn response_keys() {
    let vectors = vectors();
    let (request, response) = known_response_keys(&vectors, true);
    assert_eq!(request.response(), response);
    let (request, response) = known_response_keys(&vectors, false);
    assert_eq!(request.legacy_response(), response);
}

/// What other projects' tests publish, as far as this part of the protocol has it.
#[test]
fn upstream_answers() {
    let vectors = vectors();
    let answers = list(&vectors["upstream_known_answers"]);
    let known = |what: &str| {
        let found = answers.iter().find(|answer| text(&answer["what"]).starts_with(what));
        unhex(text(&found.unwrap_or_else(|| panic!("no answer to {what}"))["value"]))
    };
    let cmd_key = CmdKey::from_bytes(*b"1234567890123456");
    let header = envelope::seal_request(&cmd_key, &[0; 16], &[0; 8], &[0; 16]);
    assert_eq!(header, known("sealed header"));
    let path: [&[u8]; 3] =
        [b"Demo Path for KDF Value Test", b"Demo Path for KDF Value Test2", b"Demo Path for KDF Value Test3"];
    let derived = kdf::derive_for(b"Demo Key for KDF Value Test", path[0], path[1], path[2]);
    assert_eq!(derived.as_slice(), known("KDF('Demo Key"));
    assert_eq!(kdf::derive(b"test", kdf::AUTH_ID).as_slice(), known("KDF('test', 'AES Auth ID Encryption')"));
    let derived =
        kdf::derive_for(b"test", kdf::RESPONSE_LENGTH_KEY, kdf::RESPONSE_LENGTH_NONCE, kdf::RESPONSE_KEY);
    assert_eq!(derived.as_slice(), known("KDF('test', 'AEAD Resp Header Len Key'"));
    assert_eq!(fnv1a(&[0]).to_be_bytes().as_slice(), known("FNV1a32(00)"));
    assert_eq!(fnv1a(b"hello").to_be_bytes().as_slice(), known("FNV1a32('hello')"));
    assert_eq!(crc32fast::hash(&[0; 40]).to_be_bytes().as_slice(), known("CRC32(40 zero bytes)"));
    let (id, _) = Id::parse("2418d087-648d-4990-86e8-19dca1d006d3").expect("uuid");
    assert_eq!(id.as_bytes().as_slice(), known("parse 2418d087"));
}

fn request_header(case: &Value) -> RequestHeader {
    let target = case["host"].as_str().map(|host| {
        let port = number(&case["port"]).try_into().expect("a port");
        Target::new(Host::parse(host).expect("legal host"), port)
    });
    RequestHeader {
        keys: BodyKeys { key: unhex_array(&case["body_key"]), iv: unhex_array(&case["body_iv"]) },
        token: number(&case["v"]).try_into().expect("a byte"),
        options: options(case),
        security: security(case),
        command: command(case),
        target,
    }
}

#[test]
fn request_headers() {
    let vectors = vectors();
    let cases = list(&vectors["request_header"]);
    assert_eq!(cases.len(), 6);
    for case in cases {
        let header = request_header(case);
        let mut plain = Vec::new();
        header.encode(&unhex(text(&case["padding"])), &mut plain).expect("legal header");
        assert_eq!(plain, unhex(text(&case["plain"])), "{}", case["name"]);
        assert_eq!(RequestHeader::decode(&plain), Ok(header));

        let (id, _) = Id::parse(text(&case["uuid"])).expect("uuid");
        let cmd_key = id.cmd_key();
        let time = number(&case["time"]).try_into().expect("small");
        let auth_id = AuthCipher::new(&cmd_key).seal(time, unhex_array(&case["rand4"]));
        let nonce = unhex_array(&case["nonce8"]);
        let wire = envelope::seal_request(&cmd_key, &auth_id, &nonce, &plain);
        assert_eq!(wire, unhex(text(&case["aead_wire"])), "{}", case["name"]);

        let length = wire[16..34].try_into().expect("18 bytes");
        let len = envelope::open_request_length(&cmd_key, &auth_id, &nonce, length).expect("authentic");
        assert_eq!(len, plain.len());
        let mut sealed = wire[42..].to_vec();
        assert_eq!(envelope::open_request(&cmd_key, &auth_id, &nonce, &mut sealed), Ok(plain.as_slice()));

        let alter_id = Id::from_bytes(unhex_array(&case["legacy_auth_uid"]));
        let mut wire = legacy::seal_request(&cmd_key, &alter_id, time, &plain);
        assert_eq!(wire, unhex(text(&case["legacy_wire"])), "{}", case["name"]);
        HeaderCipher::new(&cmd_key, time).decrypt(&mut wire[AUTH_LEN..]);
        assert_eq!(wire[AUTH_LEN..], plain);
    }
}

/// The same headers through the client's front door, with the randomness of the vectors.
#[test]
fn connections_make_the_known_headers() {
    let vectors = vectors();
    for case in list(&vectors["request_header"]) {
        let header = request_header(case);
        let padding = unhex(text(&case["padding"]));
        let mut random = [header.keys.key, header.keys.iv].concat();
        random.extend_from_slice(&[header.token, padding.len() as u8]);
        random.extend(unhex(text(&case["rand4"])));
        random.extend(unhex(text(&case["nonce8"])));
        random.extend_from_slice(&padding);
        random.resize(32 + 2 + 4 + 8 + 15, 0);
        let (id, _) = Id::parse(text(&case["uuid"])).expect("uuid");
        let request = Request {
            command: header.command,
            target: header.target.unwrap_or_else(|| Target::new(Host::Ip([0; 4].into()), 0)),
            security: header.security,
            options: header.options,
            no_termination_signal: false,
        };
        let time = number(&case["time"]).try_into().expect("small");
        let key = id.cmd_key();
        let made = connect(&key, &request, time, &mut Script(random.clone())).expect("legal");
        assert_eq!(made.header, unhex(text(&case["aead_wire"])), "{}", case["name"]);
        let alter_id = Id::from_bytes(unhex_array(&case["legacy_auth_uid"]));
        let made = connect_legacy(&key, &alter_id, &request, time, &mut Script(random)).expect("legal");
        assert_eq!(made.header, unhex(text(&case["legacy_wire"])), "{}", case["name"]);
    }
}

#[test]
fn response_headers() {
    let vectors = vectors();
    let (request_keys, keys) = known_response_keys(&vectors, true);
    let cases = list(&vectors["response_header"]);
    assert_eq!(cases.len(), 3);
    for case in cases {
        let plain = unhex(text(&case["plain"]));
        let header = ResponseHeader::decode(&plain).expect("legal header");
        assert_eq!(header.encode().as_ref(), Some(&plain));
        let mut wire = envelope::seal_response(&keys, &plain);
        assert_eq!(wire, unhex(text(&case["aead_wire"])), "{}", case["name"]);
        let length = wire[..18].try_into().expect("18 bytes");
        assert_eq!(envelope::open_response_length(&keys, length), Ok(plain.len()));
        assert_eq!(envelope::open_response(&keys, &mut wire[18..]), Ok(plain.as_slice()));

        // Through the server's front door.
        let request = RequestHeader {
            keys: request_keys.clone(),
            ..request_header(&list(&vectors["request_header"])[0])
        };
        for (kind, known) in [(HeaderKind::Aead, "aead_wire"), (HeaderKind::Legacy, "legacy_wire")] {
            let made = server::accept(&request, kind, &header, false).expect("legal");
            assert_eq!(made.header, unhex(text(&case[known])), "{}", case["name"]);
        }
    }
}
