//! How texts of a config are shown: shortened, escaped, and never if they look like an id.

/// Most characters of a text that are shown.
const MOST: usize = 60;

/// The text in quotes. One that holds what looks like an id is only described.
pub(super) fn quote(text: &str) -> String {
    if holds_id(text) {
        return format!("a text of {} characters, not shown", text.chars().count());
    }
    format!("{:?}", shorten(text, MOST))
}

/// The text, or its first `most` characters and an ellipsis.
pub(super) fn shorten(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

/// Whether a text holds what looks like an id: 32 hexadecimal digits in a row, dashes aside.
pub(super) fn holds_id(text: &str) -> bool {
    let mut digits = 0;
    for byte in text.bytes() {
        match byte {
            _ if byte.is_ascii_hexdigit() => digits += 1,
            b'-' => {}
            _ => digits = 0,
        }
        if digits >= 32 {
            return true;
        }
    }
    false
}

/// The path of the member `key` of the object at `path`.
pub(super) fn join(path: &str, key: &str) -> String {
    let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'@');
    let plain = !key.is_empty() && key.len() <= MOST && key.bytes().all(legal) && !holds_id(key);
    match (plain, path.is_empty()) {
        (true, true) => key.to_owned(),
        (true, false) => format!("{path}.{key}"),
        (false, _) => format!("{path}[{}]", quote(key)),
    }
}

/// Offers the nearest known name, for the hint of a finding; empty if none is near.
pub(super) fn offer(near: Option<&str>) -> String {
    near.map_or_else(String::new, |name| format!("did you mean `{name}`?"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_never_shown() {
        for hidden in [
            "b831381d-6324-4d53-ad4f-8cda48b30811",
            "B831381D63244D53AD4F8CDA48B30811",
            "vmess://b831381d63244d53ad4f8cda48b30811@host",
        ] {
            assert!(!quote(hidden).contains("6324"), "{hidden}");
            assert!(!join("a", hidden).contains("6324"), "{hidden}");
        }
        assert_eq!(quote("a\"\n"), r#""a\"\n""#);
        assert!(quote(&"x".repeat(1_000_000)).len() < 70);
    }

    #[test]
    fn paths_hold_plain_keys_only() {
        assert_eq!(join("", "log"), "log");
        assert_eq!(join("a[0]", "b"), "a[0].b");
        assert_eq!(join("a", "b.c"), r#"a["b.c"]"#);
        assert_eq!(join("", ""), r#"[""]"#);
    }
}
