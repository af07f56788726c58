//! What a server answers, as its client reads it: the response header under both kinds of request header, its command, and
//! the body behind it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vmesskit::entropy::SeededEntropy;
use vmesskit::vmess::account::alter_ids;
use vmesskit::vmess::client::{Connection, Request, connect, connect_legacy};
use vmesskit::vmess::command::{SWITCH_ACCOUNT, SwitchAccount};
use vmesskit::vmess::gate::{Acceptor, Step};
use vmesskit::vmess::response::ResponseHeader;
use vmesskit::vmess::server::{HeaderKind, accept};
use vmesskit::vmess::{client, envelope};
use vmesskit_fuzz::{Input, NOW, gate, receive, somewhere, user};

fuzz_target!(|data: &[u8]| {
    let mut input = Input(data);
    let kind = if input.flag() { HeaderKind::Legacy } else { HeaderKind::Aead };
    let (security, options, command) = (input.security(), input.options(), input.command());
    let request = Request { command, target: somewhere(), security, options, no_termination_signal: false };
    let id = user(0, 0).id;
    let connection = || -> Option<Connection> {
        let mut entropy = SeededEntropy::new(1);
        let alter_id = alter_ids(&id, 1).next().expect("one");
        match kind {
            HeaderKind::Aead => connect(&id.cmd_key(), &request, NOW, &mut entropy).ok(),
            HeaderKind::Legacy => connect_legacy(&id.cmd_key(), &alter_id, &request, NOW, &mut entropy).ok(),
        }
    };
    // Padding without masking.
    let (Some(first), Some(second)) = (connection(), connection()) else { return };
    let alter_id = if kind == HeaderKind::Legacy { 1 } else { 0 };
    let Step::Accepted(accepted) =
        Acceptor::new().step(&gate(vec![user(0, alter_id)]), &mut first.header.clone(), NOW)
    else {
        panic!("a client's header is taken")
    };
    let header = accepted.request;
    let (cuts, mode, token) = (input.byte(), input.below(4), input.byte());
    let token = if token < 0xF0 { header.token } else { token };
    let mut said = None;
    let wire = match mode {
        // Noise.
        0 => input.0.to_vec(),
        // A header that was sealed and says anything.
        1 if kind == HeaderKind::Aead => envelope::seal_response(&header.keys.response(), input.0),
        // A good one with any command, and noise for a body.
        _ => {
            let (code, len) = (input.below(3), input.byte());
            let payload = input.take(len.into());
            let answer = ResponseHeader { token, options: 0, command: code, payload };
            let server = accept(&header, kind, &answer, false).expect("the client asked for it");
            said = Some((code, payload));
            [&server.header, input.0].concat()
        }
    };
    let check = |mut downlink: client::Downlink, cuts| {
        let received = receive(&mut downlink, &wire, cuts);
        if let Some((code, payload)) = said.filter(|_| token == header.token) {
            assert!(downlink.answered(), "a good answer: {:?}", received.error);
            let command = SwitchAccount::decode(payload).filter(|_| code == SWITCH_ACCOUNT);
            assert_eq!(downlink.take_command(), command);
        }
        assert!(downlink.answered() || received.bytes.is_empty());
        received
    };
    assert_eq!(check(first.downlink, cuts), check(second.downlink, 0), "the cuts do not matter");
});
