//! The request header's plain form: what decodes is written and read back, and its length is known as it comes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vmesskit::vmess::Security;
use vmesskit::vmess::fnv::fnv1a;
use vmesskit::vmess::header::{HeaderError, RequestHeader};

fuzz_target!(|data: &[u8]| {
    judge(data);
    // The same with a checksum that fits, which no mutation finds.
    let mut plain = data.to_vec();
    if let Ok(whole) = RequestHeader::extent(&plain) {
        plain.resize(plain.len().max(whole), 0);
        if let Ok(whole) = RequestHeader::extent(&plain)
            && let Some((covered, _)) =
                plain.get_mut(..whole).and_then(|plain| plain.split_last_chunk_mut::<4>())
        {
            let checksum = fnv1a(covered).to_be_bytes();
            plain[whole - 4..whole].copy_from_slice(&checksum);
            assert_ne!(RequestHeader::decode(&plain), Err(HeaderError::Checksum));
            judge(&plain);
        }
    }
});

fn judge(plain: &[u8]) {
    let decoded = RequestHeader::decode(plain);
    match RequestHeader::extent(plain) {
        Err(error) => {
            assert_eq!(error, HeaderError::Address);
            assert_eq!(decoded, Err(error));
        }
        Ok(need) if need > plain.len() => assert_eq!(decoded, Err(HeaderError::Truncated)),
        Ok(whole) => {
            assert_ne!(decoded, Err(HeaderError::Truncated));
            assert_eq!(RequestHeader::decode(&plain[..whole]), decoded, "what is behind is ignored");
            let (mut have, mut steps) = (0, 0);
            while have < whole {
                let need = RequestHeader::extent(&plain[..have]).expect("the whole has an extent");
                assert!(have < need && need <= whole, "{need} after {have} of {whole}");
                (have, steps) = (need, steps + 1);
            }
            assert!(steps <= 4);
        }
    }
    let Ok(header) = decoded else { return };
    assert!(!matches!(header.security, Security::Auto | Security::Zero));
    let mut again = Vec::new();
    header.encode(&[7; 9], &mut again).expect("what was read can be written");
    assert_eq!(RequestHeader::decode(&again), Ok(header));
}
