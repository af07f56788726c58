//! Connections behind their handshake: what moves, what changes their keys, how they end, and what is no TLS.

use super::*;
use crate::transport::testing::noop_context;
use crate::transport::tls::testing::{Pair, WireEnd, pair, pair_of, read, receive, send, suites};

const ROOM: usize = 20_000;

fn bytes(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i % 251) as u8).collect()
}

/// What one read says.
async fn outcome(carrier: &mut TlsCarrier<WireEnd>) -> io::Result<usize> {
    read(carrier, &mut [0; ROOM]).await
}

/// Has the server send a message that is no payload.
async fn say(server: &mut TlsCarrier<WireEnd>, content: Content, message: &[u8]) {
    server.queue(content, message).expect("sealed");
    std::future::poll_fn(|cx| server.poll_flush(cx)).await.expect("flushed");
}

/// Has the server go on with other keys, and ask the client to do so as well or not.
async fn update(server: &mut TlsCarrier<WireEnd>, asks: bool) {
    say(server, Content::Handshake, &[24, 0, 0, 1, asks.into()]).await;
    let secrets = server.kernel.update_tx().expect("TLS 1.3");
    server.tx = Keys::new(secrets, true).expect("a cipher");
}

#[tokio::test]
async fn every_version_and_cipher_moves_bytes_in_any_segmentation() {
    for suite in suites() {
        for (limit, room) in [(0, ROOM), (1, 100), (7, ROOM), (1500, 3), (0, 700)] {
            let len = if limit == 1 { 5000 } else { 100_000 };
            let sent = bytes(len);
            let Pair { mut client, mut server, .. } = pair(suite, limit).await;
            send(&mut client, &sent).await;
            assert!(receive(&mut server, len, room).await == sent, "up: {suite:?} {limit} {room}");
            send(&mut server, &sent).await;
            assert!(receive(&mut client, len, room).await == sent, "down: {suite:?} {limit} {room}");
        }
    }
}

#[tokio::test]
async fn an_idle_connection_holds_no_memory() {
    let Pair { mut client, mut server, .. } = pair_of(true).await;
    send(&mut client, &bytes(50_000)).await;
    receive(&mut server, 50_000, 100).await;
    // With its first payload leave the tickets.
    send(&mut server, b"down").await;
    receive(&mut client, 4, ROOM).await;
    for end in [&client, &server] {
        let held = [&end.unsent.bytes, &end.tail, &end.plain.bytes, &end.message].map(|held| held.capacity());
        assert_eq!(held, [0; 4]);
    }
}

#[tokio::test]
async fn no_record_holds_more_than_any_may() {
    for tls13 in [true, false] {
        let Pair { mut client, wire, .. } = pair_of(tls13).await;
        wire.up.borrow_mut().take();
        send(&mut client, &bytes(100_000)).await;
        let sent = wire.up.borrow_mut().take();
        let (mut at, mut records) = (0, 0);
        while at < sent.len() {
            let len = record_len(&sent[at..]).expect("a record").expect("whole");
            assert!(len <= HEAD + MAX_PAYLOAD + 256, "{len}");
            (at, records) = (at + len, records + 1);
        }
        assert_eq!((at, records), (sent.len(), 7));
    }
}

#[tokio::test]
async fn either_end_may_go_on_with_other_keys() {
    let Pair { mut client, mut server, .. } = pair_of(true).await;
    for asks in [false, true, true, false] {
        update(&mut server, asks).await;
        send(&mut server, b"down").await;
        assert_eq!(receive(&mut client, 4, ROOM).await, b"down");
        send(&mut client, b"up").await;
        assert_eq!(receive(&mut server, 2, ROOM).await, b"up");
    }
}

#[tokio::test]
async fn keys_that_have_sealed_enough_are_replaced_or_given_up() {
    let Pair { mut client, mut server, .. } = pair_of(true).await;
    client.tx.skip_to(u64::MAX >> 1);
    server.rx.skip_to(u64::MAX >> 1);
    send(&mut client, b"up").await;
    assert_eq!(receive(&mut server, 2, ROOM).await, b"up");
    assert!(!client.tx.is_worn() && !server.rx.is_worn(), "both have other keys");

    let Pair { mut client, .. } = pair_of(false).await;
    client.tx.skip_to(u64::MAX >> 1);
    let refused = client.poll_write(&mut noop_context(), &[IoSlice::new(b"x")]);
    assert!(matches!(refused, Poll::Ready(Err(error)) if error.to_string().contains("used its keys up")));
}

#[tokio::test]
async fn a_peer_that_asks_for_keys_and_reads_nothing_gets_one_answer() {
    let Pair { mut client, mut server, wire } = pair_of(true).await;
    wire.up.borrow_mut().blocked = true;
    for _ in 0..1000 {
        update(&mut server, true).await;
    }
    send(&mut server, b"down").await;
    assert_eq!(receive(&mut client, 4, ROOM).await, b"down");
    assert!(client.unsent.bytes.len() < 64, "{} bytes wait", client.unsent.bytes.len());
    wire.up.borrow_mut().blocked = false;
    send(&mut client, b"up").await;
    assert_eq!(receive(&mut server, 2, ROOM).await, b"up");
}

#[tokio::test]
async fn empty_records_are_no_end_and_messages_may_come_in_parts() {
    for tls13 in [true, false] {
        let Pair { mut client, mut server, .. } = pair_of(tls13).await;
        for _ in 0..100 {
            say(&mut server, Content::Data, b"").await;
        }
        if tls13 {
            say(&mut server, Content::Handshake, &[24, 0]).await;
            say(&mut server, Content::Handshake, &[0, 1, 0]).await;
            let secrets = server.kernel.update_tx().expect("TLS 1.3");
            server.tx = Keys::new(secrets, true).expect("a cipher");
        } else {
            // We do not negotiate again, and need not say so.
            say(&mut server, Content::Handshake, &[0, 0, 0, 0]).await;
        }
        send(&mut server, b"payload").await;
        assert_eq!(receive(&mut client, 7, ROOM).await, b"payload", "TLS 1.3: {tls13}");
    }
}

#[tokio::test]
async fn close_notify_without_a_fin_is_the_end_of_one_direction() {
    for tls13 in [true, false] {
        let Pair { mut client, mut server, .. } = pair_of(tls13).await;
        send(&mut server, b"last").await;
        std::future::poll_fn(|cx| server.poll_close(cx)).await.expect("closed");
        assert_eq!(receive(&mut client, 4, ROOM).await, b"last");
        for _ in 0..2 {
            assert_eq!(outcome(&mut client).await.expect("a proper end"), 0);
        }
        send(&mut client, b"still up").await;
        assert_eq!(receive(&mut server, 8, ROOM).await, b"still up");
        let late = server.poll_write(&mut noop_context(), &[IoSlice::new(b"x")]);
        assert!(matches!(late, Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::BrokenPipe));
    }
}

#[tokio::test]
async fn a_fin_without_close_notify_is_no_end() {
    for tls13 in [true, false] {
        for cut in [0, 3, 30] {
            let Pair { mut client, mut server, wire } = pair_of(tls13).await;
            send(&mut server, b"first").await;
            assert_eq!(receive(&mut client, 5, ROOM).await, b"first");
            send(&mut server, &[7; 100]).await;
            let sealed = wire.down.borrow_mut().take();
            wire.down.borrow_mut().forge(&sealed[..cut]);
            wire.down.borrow_mut().cut();
            let error = outcome(&mut client).await.expect_err("it was cut off");
            assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof, "TLS 1.3: {tls13}, {cut} bytes");
        }
    }
}

#[tokio::test]
async fn what_is_no_record_of_the_connection_ends_it_and_the_peer_is_told() {
    let oversized = [&[23, 3, 3, 0x48, 1][..], &[0; 100]].concat();
    for tls13 in [true, false] {
        for (forged, words, alert) in [
            (&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..], "no TLS record", "decode_error"),
            (&oversized, "no TLS record", "decode_error"),
            (&[23, 3, 3, 0, 1, 0], "no TLS record", "decode_error"),
            (&[20, 3, 3, 0, 40].repeat(9), "no TLS record", "decode_error"),
            (&[&[23, 3, 3, 0, 40][..], &[9; 40]].concat(), "failed authentication", "bad_record_mac"),
        ] {
            let Pair { mut client, mut server, wire } = pair_of(tls13).await;
            wire.down.borrow_mut().forge(forged);
            let error = outcome(&mut client).await.expect_err(words);
            assert_eq!(error.kind(), io::ErrorKind::InvalidData);
            assert!(error.to_string().contains(words), "{words}: {error}");
            assert!(outcome(&mut client).await.is_err(), "it stays ended");
            let told = outcome(&mut server).await.expect_err(alert).to_string();
            assert!(told.contains(alert), "{alert}: {told}");
            drop((client, server));
            assert!(wire.is_free());
        }
    }
}

#[tokio::test]
async fn a_changed_byte_anywhere_is_found() {
    // A header, seven bytes and their type, a tag.
    for at in 0..5 + 8 + 16 {
        let Pair { mut client, mut server, wire } = pair_of(true).await;
        wire.down.borrow_mut().take();
        send(&mut server, b"payload").await;
        let mut sealed = wire.down.borrow_mut().take();
        sealed[at] ^= 0x20;
        wire.down.borrow_mut().forge(&sealed);
        wire.down.borrow_mut().cut();
        let error = outcome(&mut client).await.expect_err("changed");
        // A longer length waits for what never comes; the version's second byte means nothing, but is authenticated.
        let kinds = [io::ErrorKind::InvalidData, io::ErrorKind::UnexpectedEof];
        assert!(kinds.contains(&error.kind()), "byte {at}: {error}");
    }
}

#[tokio::test]
async fn alerts_are_told_by_name_and_warnings_end_nothing() {
    for tls13 in [true, false] {
        for (alert, words) in
            [(40, "handshake_failure"), (49, "access_denied"), (80, "internal_error"), (199, "number 199")]
        {
            let Pair { mut client, mut server, .. } = pair_of(tls13).await;
            say(&mut server, Content::Alert, &[1, 90]).await;
            say(&mut server, Content::Alert, &[2, alert]).await;
            let error = outcome(&mut client).await.expect_err(words);
            assert!(error.to_string().contains(words), "{error}");
        }
    }
}

#[tokio::test]
async fn messages_out_of_turn_and_without_an_end_are_refused() {
    let mut endless = vec![4, 1, 0, 1];
    endless.resize(200, 0);
    for tls13 in [true, false] {
        for message in
            [&[1, 0, 0, 1, 0][..], &[24, 0, 0, 1, 2], &[24, 0, 0, 2, 0, 0], &[20, 0, 0, 0], &endless]
        {
            let Pair { mut client, mut server, .. } = pair_of(tls13).await;
            say(&mut server, Content::Handshake, message).await;
            let error = outcome(&mut client).await.expect_err("refused");
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{message:?}: {error}");
            let told = outcome(&mut server).await.expect_err("an alert").to_string();
            assert!(told.contains("unexpected_message") || told.contains("decode_error"), "{told}");
        }
    }
}
