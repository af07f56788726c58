//! How flows end: FIN from either side, both at once, TIME-WAIT, release, and what comes late.

#[path = "common/wire.rs"]
mod wire;

use vmesskit::tun::stack::{Event, Received};
use wire::{Bench, Peer, Seg, syn};

/// Closes from our side first and leaves the flow in TIME-WAIT.
fn to_time_wait(bench: &mut Bench, port: u16) -> Peer {
    let mut peer = bench.establish(port);
    bench.stack.finish(peer.flow);
    let fin = bench.drain();
    peer.absorb(&fin);
    let last = bench.ask(&peer.fin());
    assert!(last.len() == 1 && last[0].ack == Some(peer.seq));
    assert!(matches!(bench.stack.recv(peer.flow), Received::Fin));
    bench.stack.release(peer.flow);
    bench.events();
    peer
}

#[test]
fn the_app_closes_first() {
    let mut bench = Bench::new();
    let mut peer = bench.establish(50_000);
    bench.give(&peer.data(b"last words"));
    let answer = bench.ask(&peer.fin());
    assert_eq!((answer.len(), answer[0].ack, answer[0].fin), (1, Some(peer.seq), false));
    let (data, end) = bench.take(peer.flow);
    assert!(data == b"last words" && matches!(end, Received::Fin));
    // The other direction lives on.
    bench.stack.send(peer.flow, bench.buffer(b"answer"));
    peer.absorb(&bench.drain());
    bench.stack.finish(peer.flow);
    let fin = bench.drain();
    assert!(fin.len() == 1 && fin[0].fin);
    peer.absorb(&fin);
    assert!(!bench.stack.all_acked(peer.flow));
    bench.give(&peer.seg());
    assert!(bench.stack.all_acked(peer.flow));
    bench.stack.release(peer.flow);
    assert_eq!((bench.stack.counters().tcp_flows, bench.stack.poll_timeout()), (0, None), "no TIME-WAIT");
    assert_eq!(bench.drain(), []);
}

#[test]
fn fin_goes_with_the_last_data() {
    let mut bench = Bench::new();
    let mut peer = bench.establish(50_000);
    bench.stack.send(peer.flow, bench.buffer(&[1; 2000]));
    bench.stack.finish(peer.flow);
    bench.stack.send(peer.flow, bench.buffer(b"too late"));
    let sent = bench.drain();
    assert_eq!(
        sent.iter().map(|seg| (seg.data.len(), seg.fin)).collect::<Vec<_>>(),
        [(1460, false), (540, true)]
    );
    peer.absorb(&sent);
    bench.give(&peer.seg());
    assert!(bench.stack.all_acked(peer.flow));
    // The app still talks.
    bench.give(&peer.data(b"more"));
    assert_eq!(bench.take(peer.flow).0, b"more");
}

#[test]
fn a_lost_fin_is_sent_again_with_or_without_data() {
    for data in [0, 700, 5000] {
        let mut bench = Bench::new();
        let mut peer = bench.establish(50_000);
        if data > 0 {
            bench.stack.send(peer.flow, bench.buffer(&vec![1; data]));
        }
        bench.stack.finish(peer.flow);
        let sent = bench.drain();
        let last = sent.last().expect("something").clone();
        assert!(last.fin);
        peer.absorb(&sent[..sent.len() - 1]);
        bench.give(&peer.seg());
        let again = bench.expire();
        assert_eq!(again, [last], "{data}");
        peer.absorb(&again);
        bench.give(&peer.seg());
        assert!(bench.stack.all_acked(peer.flow));
        assert_eq!(bench.stack.poll_timeout(), None);
    }
}

#[test]
fn both_close_at_once() {
    let mut bench = Bench::new();
    let mut peer = bench.establish(50_000);
    bench.stack.finish(peer.flow);
    let fin = bench.drain();
    // The app's FIN crosses ours.
    let answer = bench.ask(&peer.fin());
    assert!(answer.len() == 1 && answer[0].ack == Some(peer.seq) && !answer[0].fin);
    peer.absorb(&fin);
    assert_eq!(bench.ask(&peer.seg()), []);
    assert!(bench.stack.poll_timeout().is_some(), "TIME-WAIT");
    assert!(matches!(bench.take(peer.flow).1, Received::Fin));
    bench.stack.release(peer.flow);
    assert_eq!(bench.stack.counters().tcp_flows, 0);
}

#[test]
fn fin_out_of_order_waits_for_its_place() {
    let mut bench = Bench::new();
    let mut peer = bench.establish(50_000);
    let data = peer.data(&[4; 500]);
    bench.ask(&peer.fin());
    assert!(matches!(bench.stack.recv(peer.flow), Received::Empty));
    let answer = bench.ask(&data);
    assert_eq!(answer[0].ack, Some(peer.seq));
    let (read, end) = bench.take(peer.flow);
    assert!(read.len() == 500 && matches!(end, Received::Fin));
    assert!(matches!(bench.stack.recv(peer.flow), Received::Fin), "again and again");
}

#[test]
fn what_was_not_read_outlives_the_close() {
    let mut bench = Bench::new();
    let mut peer = bench.establish(50_000);
    bench.give(&peer.data(&[4; 500]));
    bench.stack.finish(peer.flow);
    peer.absorb(&bench.drain());
    bench.ask(&peer.fin());
    bench.events();
    // Both ends are closed; the four-tuple is free for a new flow at once.
    let flow = bench.open(&syn(50_000, peer.seq + 100_000));
    let (read, end) = bench.take(peer.flow);
    assert!(read.len() == 500 && matches!(end, Received::Fin) && flow != peer.flow);
    assert_eq!(bench.stack.counters().tcp_flows, 2);
    bench.stack.release(peer.flow);
    assert_eq!((bench.stack.counters().tcp_flows, bench.pool.used()), (1, 0));
}

#[test]
fn time_wait_answers_for_two_seconds() {
    let mut bench = Bench::new();
    let peer = to_time_wait(&mut bench, 50_000);
    let fin = Seg { fin: true, seq: peer.seq - 1, ..peer.seg() };
    let answer = bench.ask(&fin);
    assert!(answer.len() == 1 && answer[0].ack == Some(peer.seq) && answer[0].seq == peer.ack);
    assert_eq!(bench.ask(&peer.seg()), [], "a pure ACK needs no answer");
    let answer = bench.ask(&syn(50_000, peer.seq - 50));
    assert!(answer.len() == 1 && !answer[0].syn && answer[0].ack == Some(peer.seq), "an old SYN");
    assert_eq!(bench.stack.poll_timeout().expect("due").since(bench.now).as_millis(), 2000);
    assert_eq!(bench.expire(), []);
    assert_eq!(bench.stack.poll_timeout(), None);
    assert!(bench.ask(&fin)[0].rst, "forgotten");
}

#[test]
fn a_higher_syn_opens_at_once_in_time_wait() {
    let mut bench = Bench::new();
    let peer = to_time_wait(&mut bench, 50_000);
    let flow = bench.open(&syn(50_000, peer.seq + 1));
    bench.stack.accept(flow);
    let answer = bench.drain();
    let ahead = answer[0].seq.wrapping_sub(peer.ack) as i32;
    assert!(answer[0].syn && ahead > 0, "our numbers go on above the old ones");
    assert_eq!(bench.stack.poll_timeout().expect("the SYN-ACK's").since(bench.now).as_millis(), 1000);
}

#[test]
fn rst_ends_time_wait() {
    let mut bench = Bench::new();
    let peer = to_time_wait(&mut bench, 50_000);
    bench.ask(&peer.rst(peer.seq - 1));
    assert!(bench.stack.poll_timeout().is_some());
    bench.ask(&peer.rst(peer.seq));
    assert_eq!(bench.stack.poll_timeout(), None);
}

#[test]
fn time_wait_is_bounded() {
    let mut bench = Bench::new();
    let first = to_time_wait(&mut bench, 1000);
    for n in 1..=4096 {
        to_time_wait(&mut bench, 1000 + n);
    }
    assert!(bench.ask(&Seg { fin: true, seq: first.seq - 1, ..first.seg() })[0].rst, "the oldest went");
    let second = Seg { src: 1001, fin: true, seq: first.seq - 1, ..first.seg() };
    assert!(!bench.ask(&second)[0].rst);
    assert_eq!(bench.stack.counters().tcp_flows, 0);
    bench.expire();
    assert_eq!(bench.stack.poll_timeout(), None);
}

#[test]
fn a_released_flow_closes_by_itself() {
    let mut bench = Bench::new();
    let mut peer = bench.establish(50_000);
    bench.give(&peer.data(b"never read"));
    bench.stack.send(peer.flow, bench.buffer(b"goodbye"));
    bench.stack.release(peer.flow);
    bench.events();
    let sent = bench.drain();
    assert!(sent.len() == 1 && sent[0].fin && sent[0].data == b"goodbye");
    assert!(matches!(bench.stack.recv(peer.flow), Received::Reset), "forgotten");
    peer.absorb(&sent);
    bench.give(&peer.seg());
    assert_eq!(bench.pool.used(), 0);
    bench.ask(&peer.fin());
    assert_eq!(bench.stack.counters().tcp_flows, 0);
    assert!(bench.events().is_empty(), "nobody is told");
}

#[test]
fn data_for_a_released_flow_is_answered_with_rst() {
    let mut bench = Bench::new();
    let mut peer = bench.establish(50_000);
    bench.stack.release(peer.flow);
    peer.absorb(&bench.drain());
    let answer = bench.ask(&peer.data(b"anybody there?"));
    assert!(answer.len() == 1 && answer[0].rst && answer[0].seq == peer.ack);
    assert_eq!((bench.stack.counters().tcp_flows, bench.stack.poll_timeout()), (0, None));
}

#[test]
fn a_released_flow_does_not_wait_for_ever() {
    let mut bench = Bench::new();
    let mut peer = bench.establish(50_000);
    bench.stack.release(peer.flow);
    peer.absorb(&bench.drain());
    bench.give(&peer.seg());
    let before = bench.now;
    let answer = bench.expire();
    assert_eq!(bench.now.since(before).as_secs(), 30);
    assert!(answer.len() == 1 && answer[0].rst);
    assert_eq!((bench.stack.counters().tcp_flows, bench.stack.poll_timeout()), (0, None));
}

#[test]
fn a_half_closed_flow_waits_for_its_owner_without_a_timer() {
    let mut bench = Bench::new();
    let mut peer = bench.establish(50_000);
    bench.stack.finish(peer.flow);
    peer.absorb(&bench.drain());
    bench.give(&peer.seg());
    assert_eq!(bench.stack.poll_timeout(), None);
    bench.give(&peer.data(b"still here"));
    assert_eq!(bench.take(peer.flow).0, b"still here");
}

#[test]
fn abort_sends_one_rst() {
    let mut bench = Bench::new();
    let mut peer = bench.establish(50_000);
    bench.give(&peer.data(b"unread"));
    bench.stack.send(peer.flow, bench.buffer(&[0; 100]));
    bench.stack.abort(peer.flow);
    let answer = bench.drain();
    assert!(
        answer.len() == 1 && answer[0].rst && answer[0].seq == peer.ack && answer[0].ack == Some(peer.seq)
    );
    assert_eq!((bench.pool.used(), bench.stack.counters().tcp_flows), (0, 0));
    let events = bench.events();
    assert!(events.iter().all(|event| matches!(event, Event::TcpReadable(_))), "{events:?}");
    assert!(bench.ask(&peer.seg())[0].rst, "nothing is left of it");
}
