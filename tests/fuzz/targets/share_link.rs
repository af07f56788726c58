//! Share links: what is read is a config, and what is written of it reads as the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vmesskit::config::parse;
use vmesskit::{format_config, parse_share_link, to_share_link};

fuzz_target!(|text: &str| {
    judge(text);
    for scheme in ["vmess://", "vmess://b831381d-6324-4d53-ad4f-8cda48b30811@"] {
        judge(&format!("{scheme}{text}"));
    }
});

fn judge(link: &str) {
    let Ok(config) = parse_share_link(link) else { return };
    assert_eq!(format_config(&config).as_ref(), Ok(&config), "a config in our form");
    let _ = parse(&config);
    // Not everything that a link's URI form says fits v2rayN's form: one round settles it.
    let Ok(written) = to_share_link(&config) else { return };
    let again = parse_share_link(&written).expect("what was written is read");
    assert_eq!(to_share_link(&again).as_ref(), Ok(&written), "written once, the same for ever");
}
