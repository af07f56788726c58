//! A server's reading of legacy headers: what follows a good signature, in any segmentation.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vmesskit::vmess::account::alter_ids;
use vmesskit::vmess::gate::{Acceptor, LEGACY_TOLERANCE, Step};
use vmesskit::vmess::header::{HeaderError, RequestHeader};
use vmesskit::vmess::legacy::{AUTH_LEN, seal_request};
use vmesskit::vmess::server::HeaderKind;
use vmesskit_fuzz::{Cuts, Input, NOW, gate, user};

fuzz_target!(|data: &[u8]| {
    let mut input = Input(data);
    let (cuts, by, own, sent) =
        (input.byte(), input.below(3), input.flag(), i64::from(input.short() as i16) % 256);
    // Only the second user has an alter id; the third is nobody.
    let users = || vec![user(0, 0), user(1, 1)];
    let id = user(by, 0).id;
    let signer = if own { id.clone() } else { alter_ids(&id, 1).next().expect("one") };
    let plain = input.0;
    let wire = seal_request(&id.cmd_key(), &signer, NOW + sent, plain);

    let gate = gate(users());
    let (mut acceptor, mut last, mut need) = (Acceptor::new(), None, 0);
    for end in Cuts::ends(cuts, wire.len()) {
        let mut have = wire[..end].to_vec();
        match acceptor.step(&gate, &mut have, NOW) {
            Step::Need(more) => {
                assert!(more > end && more >= need && more < 500, "asks for {more} at {end}");
                assert_eq!(have, &wire[..end], "nothing is changed before the end");
                need = more;
            }
            step => {
                assert!(end >= need, "ended at {end} without the {need} bytes it had asked for");
                last = Some(step);
                break;
            }
        }
    }
    if by != 1 || sent.abs() > LEGACY_TOLERANCE {
        // A stranger is heard up to where a sealed header would begin.
        assert_eq!(last.is_some(), wire.len() >= 42);
        assert!(matches!(last, None | Some(Step::Refused(_))), "nobody's: {last:?}");
        return;
    }
    match (RequestHeader::extent(plain), last) {
        (Ok(whole), None) => assert!(whole > plain.len()),
        (Ok(whole), Some(Step::Accepted(accepted))) => {
            assert_eq!(RequestHeader::decode(&plain[..whole]).as_ref(), Ok(&accepted.request));
            assert_eq!((accepted.kind, accepted.index), (HeaderKind::Legacy, 1));
            assert_eq!(accepted.consumed, AUTH_LEN + whole);
        }
        (Ok(whole), Some(Step::Refused(_))) => {
            assert!(whole <= plain.len() && RequestHeader::decode(&plain[..whole]).is_err());
            let again = Acceptor::new().step(&gate, &mut wire.clone(), NOW);
            assert!(matches!(again, Step::Refused(_) | Step::Need(42)), "tainted: {again:?}");
        }
        (Err(error), Some(Step::Refused(_))) => assert_eq!(error, HeaderError::Address),
        other => panic!("a legacy header: {other:?}"),
    }
});
