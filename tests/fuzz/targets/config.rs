//! Configs, which hosts pass on from whoever made them.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vmesskit::config::{Severity, parse};
use vmesskit::{format_config, to_share_link, validate_config};

fuzz_target!(|text: &str| {
    let parsed = parse(text);
    let fatal = parsed.diagnostics.iter().any(|finding| finding.severity == Severity::Error);
    assert_eq!(parsed.config.is_none(), fatal, "a config is refused for what is said");
    assert_eq!(validate_config(text), parsed.diagnostics);
    assert!(!format!("{:?}", parsed.config).is_empty());
    // Whatever it makes of it, it does not fall over it.
    let _ = to_share_link(text);
    let Ok(formatted) = format_config(text) else { return };
    assert_eq!(format_config(&formatted).as_ref(), Ok(&formatted), "formatting is done once");
    assert_eq!(parse(&formatted).config.is_none(), fatal, "formatting changes no meaning");
});
