//! A server's reading of AEAD headers: noise, good ones and tampered ones, in any segmentation.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vmesskit::vmess::auth::{AuthCipher, CLOCK_TOLERANCE};
use vmesskit::vmess::envelope;
use vmesskit::vmess::gate::{Acceptor, Step};
use vmesskit::vmess::header::RequestHeader;
use vmesskit::vmess::server::HeaderKind;
use vmesskit_fuzz::{Cuts, Input, NOW, gate, user};

/// What a user sent.
struct Sent<'a> {
    by: u8,
    plain: &'a [u8],
    header: usize,
    punctual: bool,
    intact: bool,
}

fuzz_target!(|data: &[u8]| {
    let mut input = Input(data);
    let (mode, cuts, by) = (input.byte(), input.byte(), input.below(4));
    if mode & 1 == 0 {
        return hold(input.0, cuts, None);
    }
    let (sent, flip, body) =
        (i64::from(input.short() as i16) % 256, usize::from(input.short()), input.below(64));
    let (body, plain) = (input.take(body.into()), input.0);
    let key = user(by, 0).id.cmd_key();
    let auth_id = AuthCipher::new(&key).seal(NOW + sent, [mode; 4]);
    let mut wire = envelope::seal_request(&key, &auth_id, &[by; 8], plain);
    let header = wire.len();
    wire.extend_from_slice(body);
    let intact = mode & 2 == 0;
    if !intact {
        wire[flip % header] ^= mode.max(1);
    }
    // Of the users of `hold` there are three.
    let punctual = sent.unsigned_abs() <= CLOCK_TOLERANCE && by < 3;
    hold(&wire, cuts, Some(Sent { by, plain, header, punctual, intact }));
});

fn hold(wire: &[u8], cuts: u8, sent: Option<Sent<'_>>) {
    let users = || (0..3).map(|n| user(n, 0)).collect();
    let gate = gate(users());
    let mut acceptor = Acceptor::new();
    let mut last = None;
    let mut need = 0;
    for end in Cuts::ends(cuts, wire.len()) {
        let mut have = wire[..end].to_vec();
        match acceptor.step(&gate, &mut have, NOW) {
            Step::Need(more) => {
                assert!(more > end && more >= need && more < 1200, "asks for {more} at {end}");
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
    let whole = vmesskit_fuzz::gate(users());
    let at_once = Acceptor::new().step(&whole, &mut wire.to_vec(), NOW);
    match (&last, &at_once) {
        (None, Step::Need(more)) => assert!(*more > wire.len()),
        (Some(Step::Accepted(a)), Step::Accepted(b)) => {
            assert_eq!((&a.request, a.kind, a.index, a.consumed), (&b.request, b.kind, b.index, b.consumed));
        }
        (Some(Step::Refused(a)), Step::Refused(b)) => assert_eq!(a, b),
        (Some(Step::Invalid(a)), Step::Invalid(b)) => assert_eq!(a, b),
        other => panic!("the cuts matter: {other:?}"),
    }
    let Some(sent) = sent else {
        assert!(matches!(last, None | Some(Step::Refused(_))), "noise is nobody's");
        return;
    };
    // A header that is longer than any may be is refused like noise.
    if sent.punctual && sent.intact && sent.plain.len() <= 1024 {
        match (RequestHeader::decode(sent.plain), last) {
            (Ok(request), Some(Step::Accepted(accepted))) => {
                assert_eq!(accepted.request, request);
                assert_eq!((accepted.kind, accepted.index), (HeaderKind::Aead, usize::from(sent.by)));
                assert_eq!(accepted.consumed, sent.header);
            }
            (Err(error), Some(Step::Invalid(found))) => assert_eq!(error, found),
            other => panic!("a user's header: {other:?}"),
        }
    } else {
        assert!(matches!(last, None | Some(Step::Refused(_))), "tampered, expired, nobody's: {last:?}");
    }
    let again = Acceptor::new().step(&gate, &mut wire.to_vec(), NOW);
    assert!(matches!(again, Step::Refused(_) | Step::Need(_)), "a replay: {again:?}");
}
