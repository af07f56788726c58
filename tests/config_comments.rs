//! Comments and byte order marks: what V2Ray's users write besides JSON.

use vmesskit::config::{Severity, parse, validate_config};

#[test]
fn comments_stand_wherever_blanks_may() {
    let plain = r#"{"outbounds":[{"protocol":"freedom","tag":"a//b#c/*d*/\"e"}]}"#;
    let expected = parse(plain).config.expect("no error");
    assert_eq!(&*expected.outbounds[0].tag, "a//b#c/*d*/\"e");
    for text in [
        format!("// first\n{plain}\n// last"),
        format!("# first\r\n{plain}# last"),
        format!("/* a * b / c ** */{plain}/**/"),
        plain.replacen(':', " /* { \" */ : // }\n", 1),
        plain.replace("[{", "[ # \"\n /* multi\nline // */ {"),
    ] {
        assert_eq!(parse(&text).diagnostics, [], "{text}");
        assert_eq!(parse(&text).config.as_ref(), Some(&expected), "{text}");
    }
}

#[test]
fn places_count_the_comments() {
    let path =
        |text: &str| validate_config(text).first().map(|finding| finding.path.clone()).expect("a finding");
    assert_eq!(path("/* ü\n*/ { x"), "line 2, column 6");
    assert_eq!(path("// a\n# b\n{\"a\": /* c */ }"), "line 3, column 15");
    assert_eq!(path("{ \"a\": 1 /* unclosed"), "line 1, column 10");
    assert_eq!(path("{ \"a\": \"line\nbreak\" }"), "line 2, column 1");
}

#[test]
fn a_byte_order_mark_is_forgiven() {
    let parsed = parse("\u{feff}{\"outbounds\": [{\"protocol\": \"freedom\"}]}");
    assert!(parsed.config.is_some());
    assert_eq!(parsed.diagnostics.len(), 1);
    assert_eq!(parsed.diagnostics[0].severity, Severity::Warning);
    assert!(parsed.diagnostics[0].text.contains("byte order mark"));
}

#[test]
fn formatting_keeps_every_number() {
    let text = "666666666666666666666666666666000000001693359781.66666\n";
    let once = vmesskit::format_config(text).expect("a number");
    assert_eq!(vmesskit::format_config(&once), Ok(once.clone()), "formatting is done once");
}
