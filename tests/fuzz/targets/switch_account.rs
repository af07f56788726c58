//! The command in a response header: what decodes is written and read back.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vmesskit::vmess::command::SwitchAccount;
use vmesskit::vmess::fnv::fnv1a;

fuzz_target!(|data: &[u8]| {
    judge(data);
    // The same with a checksum that fits, which no mutation finds.
    judge(&[&fnv1a(data).to_be_bytes(), data].concat());
});

fn judge(payload: &[u8]) {
    let Some(account) = SwitchAccount::decode(payload) else { return };
    let again = account.encode();
    assert!(again.len() <= 255);
    let Some(back) = SwitchAccount::decode(&again) else { panic!("what was read can be written") };
    // A host that came with bytes to spare may not fit into a command.
    let fits = account.host.as_ref().is_none_or(|host| host.to_string().len() <= 228);
    assert!(back == if fits { account } else { SwitchAccount { host: None, ..account } });
}
