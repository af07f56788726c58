//! Segments that no honest peer sends.

use super::*;
use crate::transport::kcp::segment::Body;

fn hear(end: &mut Conversation, now: Moment, body: Body<'_>) {
    end.hear(&Segment { conversation: 7, is_closing: false, body }, now, MOST);
}

fn command(terminates: bool, sending_next: u32, receiving_next: u32) -> Body<'static> {
    Body::Command { terminates, sending_next, receiving_next, resend_after: u32::MAX }
}

#[test]
fn garbage_neither_panics_nor_grows() {
    for seed in 0..300 {
        let (mut entropy, mut net) = (SeededEntropy::new(seed), Net::new(CLEAR, seed, shape()));
        net.write(0, &noise(20_000, seed));
        for _ in 0..300 {
            let mut near = || match entropy.below(4) {
                0 => entropy.next_u32(),
                1 => entropy.below(40),
                2 => 0_u32.wrapping_sub(entropy.below(4)),
                _ => entropy.below(2000),
            };
            let (a, b, c) = (near(), near(), near());
            let numbers: Vec<[u8; 4]> = (0..a % 9).map(|_| near().to_be_bytes()).collect();
            let payload = vec![1; b as usize % 2000];
            let body = match c % 5 {
                0 | 1 => Body::Data { timestamp: a, number: b, sending_next: c, payload: &payload },
                2 => Body::Ack { receiving_window: a, receiving_next: b, timestamp: c, numbers: &numbers },
                3 => command(false, a, b),
                _ => command(a % 64 == 0, b, c),
            };
            let is_closing = a % 97 == 0;
            net.ends[0].hear(&Segment { conversation: 7, is_closing, body }, net.now, 100_000);
            assert!(net.ends[0].held() <= 100_000 + 21_400);
            let mut datagram = Vec::new();
            while net.ends[0].say(net.now, 100_000, &mut datagram) {
                assert!(datagram.len() <= 1344);
                datagram.clear();
            }
            net.now = net.now + Duration::from_millis(u64::from(a % 100));
            if a % 7 == 0 {
                net.read(0);
            }
        }
    }
}

#[test]
fn what_was_never_sent_cannot_be_acknowledged() {
    let mut net = Net::new(CLEAR, 1, shape());
    net.write(0, &noise(3000, 1));
    let end = &mut net.ends[0];
    for number in [0, 2, 1000, u32::MAX] {
        let numbers = [number.to_be_bytes()];
        let body = Body::Ack { receiving_window: 0, receiving_next: number, timestamp: 0, numbers: &numbers };
        hear(end, net.now, body);
        hear(end, net.now, command(false, number, number));
    }
    assert!(!end.is_drained());
    net.run(Duration::from_secs(1));
    assert_eq!(net.read(1).0, noise(3000, 1));
}

#[test]
fn another_conversations_segments_are_no_business_of_ours() {
    let mut net = Net::new(CLEAR, 2, shape());
    let segment = Segment { conversation: 8, is_closing: true, body: command(true, 0, 0) };
    net.ends[0].hear(&segment, net.now, MOST);
    assert_eq!(net.read(0).1, Read::Nothing);
    assert!(net.ends[0].writable(MOST).is_some());
}

#[test]
fn a_window_that_never_opens_is_asked_for_and_not_more() {
    let mut net = Net::new(CLEAR, 3, shape());
    net.write(0, &noise(200_000, 3));
    let ack = Body::Ack { receiving_window: 32, receiving_next: 32, timestamp: 0, numbers: &[] };
    let mut said = 0;
    let mut datagram = Vec::new();
    for _ in 0..100 {
        while net.ends[0].say(net.now, MOST, &mut datagram) {
            said += 1;
            datagram.clear();
        }
        // It acknowledges the first window and stays there.
        hear(&mut net.ends[0], net.now, ack);
        net.now = net.now + Duration::from_millis(100);
    }
    assert!(said < 32 + 100, "{said}");
}

#[test]
fn empty_segments_are_no_end() {
    let mut net = Net::new(CLEAR, 4, shape());
    for number in 0..5 {
        let payload: &[u8] = if number == 4 { b"x" } else { b"" };
        let body = Body::Data { timestamp: 0, number, sending_next: 0, payload };
        hear(&mut net.ends[1], net.now, body);
        assert_eq!(net.read(1), (payload.to_vec(), Read::Nothing));
    }
}
