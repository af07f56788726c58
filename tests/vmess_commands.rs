//! What a server's answer asks of a client: the account to go on with, and nothing that is not whole.

#[path = "common/vmess_peer.rs"]
mod peer;

use peer::{KINDS, Server, alter_id, connect_as, example, receive, seal};
use vmesskit::entropy::SeededEntropy;
use vmesskit::vmess::chunk::{OpenError, Opened};
use vmesskit::vmess::client::{Connection, Request};
use vmesskit::vmess::command::{SWITCH_ACCOUNT, SwitchAccount};
use vmesskit::vmess::response::ResponseHeader;
use vmesskit::vmess::server::HeaderKind;
use vmesskit::vmess::{Command, Security};

const SECURITIES: [Security; 4] =
    [Security::Aes128Gcm, Security::Chacha20Poly1305, Security::Aes128Cfb, Security::None];

fn account() -> SwitchAccount {
    SwitchAccount { host: None, port: 12_345, id: alter_id(), alter_ids: 4, level: 1, valid_minutes: 5 }
}

fn connection(kind: HeaderKind, security: Security) -> Connection {
    let request = Request::new(Command::Tcp, example(), security, false, false, false);
    connect_as(kind, &request, &mut SeededEntropy::new(1))
}

/// Answers with a command, sends a chunk behind it, and returns what the client takes out of it.
fn command(kind: HeaderKind, security: Security, code: u8, payload: &[u8]) -> Option<SwitchAccount> {
    let Connection { header, mut downlink, .. } = connection(kind, security);
    let answer = |header: &vmesskit::vmess::header::RequestHeader| ResponseHeader {
        command: code,
        payload,
        ..ResponseHeader::accept(header.token)
    };
    let mut server = Server::accept_as(kind, &header, answer);
    let mut wire = server.answer();
    wire.extend(seal(&mut server.downlink, b"and on", &mut SeededEntropy::new(2)));
    let opened = downlink.open(&mut wire).expect("a valid answer");
    let Opened::Data { payload, consumed } = opened else { panic!("{opened:?}") };
    assert!(payload.is_empty() && downlink.answered());
    let taken = downlink.take_command();
    assert_eq!(downlink.take_command(), None, "handed out twice");
    let received = receive(downlink, &wire[consumed..], || 5).expect("a stream");
    assert_eq!(received.bytes(), b"and on", "{kind:?} {security:?}");
    taken
}

#[test]
fn an_account_is_handed_out_once_and_the_stream_goes_on() {
    let payload = account().encode();
    for (kind, security) in KINDS.into_iter().flat_map(|kind| SECURITIES.map(|security| (kind, security))) {
        assert_eq!(command(kind, security, SWITCH_ACCOUNT, &payload), Some(account()));
    }
}

#[test]
fn what_is_no_whole_account_is_passed_over() {
    let whole = account().encode();
    let mut flipped = whole.clone();
    flipped[9] ^= 1;
    let long = [0; 255];
    for (code, payload) in [
        (0, whole.as_slice()),
        (2, &whole),
        (SWITCH_ACCOUNT, &whole[..whole.len() - 1]),
        (SWITCH_ACCOUNT, &flipped),
        (SWITCH_ACCOUNT, &[]),
        (SWITCH_ACCOUNT, &long),
    ] {
        for kind in KINDS {
            assert_eq!(command(kind, Security::Aes128Cfb, code, payload), None, "{code} {payload:02x?}");
        }
    }
}

/// A server never sends what it would have to cut.
#[test]
fn a_command_too_long_for_the_format_is_left_out() {
    for kind in KINDS {
        assert_eq!(command(kind, Security::Aes128Cfb, SWITCH_ACCOUNT, &[7; 256]), None);
    }
}

#[test]
fn answers_come_in_any_pieces_and_end_early_as_unanswered() {
    let payload = account().encode();
    for kind in KINDS {
        let header = connection(kind, Security::Aes128Gcm).header;
        let server = Server::accept_as(kind, &header, |header| ResponseHeader {
            command: SWITCH_ACCOUNT,
            payload: &payload,
            ..ResponseHeader::accept(header.token)
        });
        let wire = server.answer();
        for len in 0..wire.len() {
            let mut downlink = connection(kind, Security::Aes128Gcm).downlink;
            let mut input = wire[..len].to_vec();
            let opened = downlink.open(&mut input);
            assert!(matches!(opened, Ok(Opened::Need(n)) if n > len && n <= wire.len()), "{len}: {opened:?}");
            assert_eq!(downlink.check_end(), Err(OpenError::Unanswered));
            assert_eq!((downlink.answered(), downlink.take_command()), (false, None));
            input.extend_from_slice(&wire[len..]);
            assert!(
                matches!(downlink.open(&mut input), Ok(Opened::Data { consumed, .. }) if consumed == wire.len())
            );
            assert_eq!(downlink.take_command(), Some(account()));
        }
    }
}

/// Under a legacy header nothing is authentic: the token alone tells an answer from noise.
#[test]
fn a_legacy_answer_to_another_request_is_no_answer() {
    let header = connection(HeaderKind::Legacy, Security::Aes128Gcm).header;
    for bit in 0..8 {
        let server = Server::accept_as(HeaderKind::Legacy, &header, |header| {
            ResponseHeader::accept(header.token ^ 1 << bit)
        });
        let mut downlink = connection(HeaderKind::Legacy, Security::Aes128Gcm).downlink;
        assert_eq!(downlink.open(&mut server.answer()), Err(OpenError::ForgedResponse));
        assert_eq!(downlink.open(&mut []), Err(OpenError::ForgedResponse));
        assert_eq!(downlink.check_end(), Err(OpenError::ForgedResponse));
    }
}
