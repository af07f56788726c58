//! A server's handshakes with clients that are none: each ends with an alert, and leaves nothing behind.

use super::super::testing::{Issuer, Wire};
use super::*;
use crate::config::{Certificate, PemSource, Secret};
use std::task::{Context, Waker};

fn server() -> TlsServer {
    let (chain, key) = Issuer::new().issue(|_| {});
    let inline = |text: String| PemSource::Inline(Secret::new(text));
    let usage = CertificateUsage::Encipherment;
    let certificate = Certificate { usage, chain: inline(chain), key: inline(key) };
    let settings = Tls { certificates: vec![certificate], session_resumption: true, ..Tls::default() };
    TlsServer::new(&settings, &["h2"]).expect("good settings")
}

/// What the server says of a client that sends these bytes and then ends; and what it has answered.
async fn against(bytes: &[u8]) -> (AcceptError, Vec<u8>) {
    let wire = Wire::default();
    let (client, theirs) = wire.ends();
    wire.up.borrow_mut().forge(bytes);
    wire.up.borrow_mut().cut();
    let refused = server().accept(&Scratch::default(), theirs).await.err().expect("that is no client");
    drop(client);
    assert!(wire.is_free(), "the connection is gone");
    let answered = wire.down.borrow().seen.clone();
    (refused, answered)
}

#[tokio::test]
async fn clients_that_are_none_get_an_alert_or_their_end() {
    let endless = [&[22, 3, 1, 0x40, 0][..], &[1, 0xFF, 0xFF, 0xFF], &[0; 16_380]].concat().repeat(12);
    let cases: [(&[u8], bool); 9] = [
        (b"", false),
        (&[22, 3, 1], false),
        (&[22, 3, 1, 0, 200, 1, 0, 0, 196], false),
        (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", true),
        (b"SSH-2.0-OpenSSH_9.2\r\n", true),
        (&[0xFF; 600], true),
        (&[22, 3, 1, 0xFF, 0xFF, 1, 0, 0, 0], true),
        // A record of payload before any handshake.
        (&[23, 3, 3, 0, 4, 1, 2, 3, 4], true),
        // It is over before TLS has words for it.
        (&endless, false),
    ];
    for (bytes, told) in cases {
        let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(20)]);
        let (refused, answered) = against(bytes).await;
        assert!(refused.to_string().starts_with("TLS: "), "{shown:?}: {refused}");
        let alert = matches!(*answered, [21, 3, _, 0, 2, 2, _]);
        assert!(alert || (!told && answered.is_empty()), "{shown:?}: {answered:?}");
    }
}

#[tokio::test]
async fn a_client_that_says_nothing_is_waited_for_and_holds_little() {
    let (wire, server) = (Wire::default(), server());
    let (mut client, theirs) = wire.ends();
    let scratch = Scratch::default();
    let mut accepting = Box::pin(server.accept(&scratch, theirs));
    let mut cx = Context::from_waker(Waker::noop());
    assert!(accepting.as_mut().poll(&mut cx).is_pending());
    assert!(client.poll_read_ready(&mut cx).is_pending(), "it is told nothing");
    // The listener's deadline drops it.
    drop(accepting);
    assert!(client.poll_read_ready(&mut cx).is_ready(), "then comes the end");
}
