//! No text makes the readers panic, run for long or grow without end.

use std::time::{Duration, Instant};
use vmesskit::config::{
    Parsed, Severity, format_config, parse, parse_share_link, to_share_link, validate_config,
};

const ID: &str = "b831381d-6324-4d53-ad4f-8cda48b30811";

const SEED: &str = r#"{ // comment
    "log": {"loglevel": "info"}, # another
    "inbounds": [{"protocol": "tun", "settings": {"mtu": 9000, "addresses": ["10.0.0.1/24"], "dns": "10.0.0.2", "apps": {"allow": ["a.b"]}}},
        {"protocol": "socks", "port": "1080", "listen": "127.0.0.1", "tag": "s", "settings": {"auth": "password", "accounts": [{"user": "u", "pass": "p"}]},
         "sniffing": {"enabled": false, "destOverride": ["http"]}, "allocate": {"strategy": "always"}},
        {"protocol": "vmess", "port": "100-110", "tag": "v", "allocate": {"strategy": "random", "concurrency": 2, "refresh": 5}, "settings": {
            "clients": [{"id": "b831381d-6324-4d53-ad4f-8cda48b30812", "alterId": 1, "email": "e", "level": 0}], "default": {"level": 0}, "detour": {"to": "w"}}}],
    "outbounds": [{"protocol": "vmess", "tag": "p", "settings": {"vnext": [{"address": "a.com", "port": 443,
        "users": [{"id": "b831381d-6324-4d53-ad4f-8cda48b30811", "security": "auto", "alterId": 0, "experiments": "AuthenticatedLength"}]}]},
        "streamSettings": {"network": "tcp", "security": "none", "sockopt": {"mark": 0}}, "mux": {"enabled": true, "concurrency": 9, "xudpConcurrency": -1}},
        {"protocol": "freedom", "tag": "d", "settings": {"redirect": "1.1.1.1:53"}}, {"protocol": "blackhole", "settings": {"response": {"type": "none"}}}],
    "routing": {"rules": [{"type": "field", "domain": ["regexp:^a+$", "full:b", "dotless:c"], "ip": ["10.0.0.0/8"], "port": "1-2,3", "user": ["e"], "source": ["::1"], "sourcePort": 7, "outboundTag": "d"}]},
    "dns": {"servers": ["1.1.1.1", {"address": "::2", "port": 53}]}, "policy": {"levels": {"0": {"connIdle": 3}}}, "stats": {},
    /* the end */ "vmesskit": {"memoryLimit": 8000000, "legacyTagLimit": 600, "sntp": {"server": "a.b:1"}} }"#;

/// A small generator of random numbers (xorshift), the same each run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound.max(1) as u64).expect("below a usize")
    }
}

/// Reads a text in every way and checks what always holds.
fn read(text: &str) -> Parsed {
    let parsed = parse(text);
    let errors = parsed.diagnostics.iter().filter(|finding| finding.severity == Severity::Error).count();
    assert_eq!(parsed.config.is_none(), errors > 0, "{text}");
    assert!(parsed.diagnostics.len() <= 401);
    for finding in &parsed.diagnostics {
        assert!(!finding.path.is_empty() && !finding.text.is_empty(), "{finding:?}");
        assert!(finding.to_string().len() < 4000, "{finding}");
        assert!(!finding.to_string().contains('\n'), "{finding:?}");
    }
    if let Some(config) = &parsed.config {
        assert!(!config.outbounds.is_empty() && !config.dns_servers.is_empty());
        assert!(config.rules.iter().all(|rule| rule.outbound < config.outbounds.len()));
        let formatted = format_config(text).expect("json");
        assert_eq!(parse(&formatted).config.as_ref(), Some(config));
    }
    let _ = to_share_link(text);
    parsed
}

#[test]
fn mutated_configs_never_panic() {
    const SPLICES: [&str; 16] = [
        "{",
        "}",
        "[",
        "]",
        "\"",
        ",",
        ":",
        "null",
        "-1",
        "1e400",
        "\\u0000",
        "/*",
        "#",
        "\u{feff}",
        "99999999999999999999",
        "\\ud800",
    ];
    let seed: Vec<char> = SEED.chars().collect();
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut good = 0;
    for _ in 0..4000 {
        let mut text = seed.clone();
        for _ in 0..=random.below(4) {
            let at = random.below(text.len());
            match random.below(5) {
                0 => drop(text.remove(at)),
                1 => text[at] = char::from(u8::try_from(random.below(128)).expect("ascii")),
                2 => drop(text.splice(at..at, SPLICES[random.below(SPLICES.len())].chars())),
                3 => {
                    let end = (at + random.below(40)).min(text.len());
                    text.drain(at..end);
                }
                _ => {
                    let end = (at + random.below(40)).min(text.len());
                    let copy: Vec<char> = text[at..end].to_vec();
                    let to = random.below(text.len());
                    text.splice(to..to, copy);
                }
            }
        }
        let text: String = text.into_iter().collect();
        good += usize::from(read(&text).config.is_some());
    }
    assert!(good > 100, "mutations that leave a good config are tested too: {good}");
}

#[test]
fn values_of_every_type_anywhere_never_panic() {
    let seed: serde_json::Value = serde_json::from_str(&format_config(SEED).expect("json")).expect("json");
    let mut pointers = Vec::new();
    collect(&seed, String::new(), &mut pointers);
    assert!(pointers.len() > 60);
    let values = [
        "null",
        "true",
        "0",
        "-1",
        "1.5",
        "18446744073709551615",
        "\"\"",
        "\"\\u0000\"",
        "\"a,b\"",
        "[]",
        "[[]]",
        "{}",
        "[null, 1, \"x\"]",
        "{\"a\": 1}",
    ];
    for pointer in &pointers {
        for value in values {
            let mut changed = seed.clone();
            *changed.pointer_mut(pointer).expect("the place") = serde_json::from_str(value).expect("json");
            read(&changed.to_string());
        }
    }
}

/// The JSON pointers of all values.
fn collect(value: &serde_json::Value, pointer: String, into: &mut Vec<String>) {
    match value {
        serde_json::Value::Object(map) => {
            map.iter().for_each(|(key, value)| collect(value, format!("{pointer}/{key}"), into))
        }
        serde_json::Value::Array(list) => {
            list.iter()
                .enumerate()
                .for_each(|(index, value)| collect(value, format!("{pointer}/{index}"), into));
        }
        _ => {}
    }
    into.push(pointer);
}

#[test]
fn mutated_links_never_panic() {
    use base64::Engine as _;
    let object = format!(
        r#"{{"v":"2","ps":"x","add":"a.com","port":"443","id":"{ID}","net":"ws","path":"/a?ed=1","tls":"tls"}}"#
    );
    let uri = format!("vmess://{ID}@[::1]:443?type=ws&path=%2Fa&security=tls&alpn=h2%2Cx#%E5%AE%B6");
    let mut random = Random(7);
    let mut good = 0;
    for round in 0..4000 {
        let seed = if round % 2 == 0 { &object } else { &uri };
        let mut text: Vec<char> = seed.chars().collect();
        for _ in 0..=random.below(3) {
            let at = random.below(text.len());
            match random.below(3) {
                0 => drop(text.remove(at)),
                1 => {
                    text[at] =
                        char::from_u32(u32::try_from(random.below(0x300)).expect("small")).unwrap_or('x')
                }
                _ => text.truncate(at.max(1)),
            }
        }
        let text: String = text.into_iter().collect();
        let link = if round % 2 == 0 {
            format!("vmess://{}", base64::engine::general_purpose::STANDARD.encode(text))
        } else {
            text
        };
        if let Ok(config) = parse_share_link(&link) {
            good += 1;
            read(&config);
            let again = to_share_link(&config).expect("what was read can be written");
            assert!(parse_share_link(&again).is_ok(), "{link}");
        }
    }
    assert!(good > 500, "links that stay good are tested too: {good}");
}

#[test]
fn huge_and_deep_texts_are_refused_or_read_in_time() {
    let start = Instant::now();
    let with = |member: &str| format!(r#"{{"outbounds": [{{"protocol": "freedom"}}], {member}}}"#);
    let deep =
        |open: &str, close: &str, depth: usize| format!("{}{}", open.repeat(depth), close.repeat(depth));
    assert!(read(&deep("[", "]", 100_000)).config.is_none());
    assert!(read(&deep("{\"a\":", "}", 100_000)).config.is_none());
    assert!(
        read(&with(&format!("\"a\": {}", deep("[", "]", 100)))).config.is_some(),
        "an unknown key may hold anything"
    );
    let long = "x".repeat(10 << 20);
    assert!(read(&with(&format!("\"{long}\": 1"))).config.is_some());
    assert!(read(&with(&format!("\"log\": {{\"loglevel\": \"{long}\"}}"))).config.is_some());
    assert!(read(&with(&format!("\"dns\": {{\"servers\": [\"{long}\"]}}"))).config.is_none());
    assert!(read(&format!("{{\"outbounds\": [{{\"protocol\": \"{long}\"}}]}}")).config.is_none());
    assert!(read(&format!("/*{long}")).config.is_none());
    assert!(read(&format!("{{}}#{long}")).config.is_none());
    let many: String = (0..50_000).map(|n| format!("\"k{n}\": 1, ")).collect();
    assert!(read(&with(&format!("{many} \"log\": {{}}"))).config.is_some());
    let many = "{},".repeat(50_000);
    let findings = validate_config(&format!("{{\"outbounds\": [{many} {{}}]}}"));
    assert!(findings.last().expect("findings").text.contains("more findings"));
    assert!(parse_share_link(&format!("vmess://{long}")).is_err());
    assert!(start.elapsed() < Duration::from_secs(60), "{:?}", start.elapsed());
}

#[test]
fn odd_characters_are_data() {
    for text in [
        "\0",
        "{\0}",
        "\u{feff}",
        "{\"\\u0000\": 1}",
        "\"\\ud800\"",
        "{\"outbounds\": [{\"protocol\": \"free\\u0000dom\"}]}",
        "\r\r\n",
        "/",
        "\"",
        "\\",
    ] {
        assert!(read(text).config.is_none(), "{text:?}");
    }
    let tagged =
        read("{\"outbounds\": [{\"protocol\": \"freedom\", \"tag\": \"a\\u0000\\nb\u{202e}\"}]}").config;
    assert_eq!(&*tagged.expect("a tag may hold anything").outbounds[0].tag, "a\0\nb\u{202e}");
}
