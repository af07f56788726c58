//! How conversations end, and that nobody takes a cut for an end.

use super::*;
use crate::transport::kcp::conversation::Loss;

const ROUGH: Weather = Weather { loss: 20, repeats: 10, delay: 20, jitter: 20 };

#[test]
fn what_was_written_comes_before_the_end() {
    for seed in 0..20 {
        let mut net = Net::new(if seed % 2 == 0 { CLEAR } else { ROUGH }, seed, shape());
        let sent = noise(100_000, seed);
        assert_eq!(net.write(0, &sent), sent.len());
        let now = net.now;
        net.ends[0].close(now);
        let (mut got, mut end) = (Vec::new(), Read::Nothing);
        let until = net.now + Duration::from_secs(25);
        while end == Read::Nothing && net.step(until) {
            let (piece, state) = net.read(1);
            got.extend(piece);
            end = state;
        }
        assert_eq!((got == sent, end), (true, Read::End), "{seed}");
        assert_eq!(net.write(1, b"too late"), 8, "as behind a FIN");
        assert!(net.ends[1].is_drained());
        let now = net.now;
        net.ends[1].close(now);
        net.run(Duration::from_secs(5));
        assert!(net.ends.iter().all(Conversation::is_over), "{seed}: {:?}", net.ends);
        assert_eq!(net.ends[0].deadline(), None);
    }
}

#[test]
fn an_abort_is_never_an_end() {
    for seed in 0..20 {
        let mut net = Net::new(if seed % 2 == 0 { CLEAR } else { ROUGH }, seed, shape());
        net.write(0, b"some of it");
        net.run(Duration::from_secs(2));
        let now = net.now;
        net.ends[0].abort(now);
        net.run(Duration::from_secs(35));
        let (got, end) = net.read(1);
        assert_eq!(got, b"some of it");
        assert!(matches!(end, Read::Cut | Read::Lost(Loss::Silent)), "{end:?}");
        assert!(net.ends[0].is_over());
    }
}

#[test]
fn a_peer_that_has_gone_is_an_error_after_thirty_seconds() {
    let mut net = Net::new(CLEAR, 1, shape());
    net.write(0, b"hello");
    net.run(Duration::from_secs(1));
    net.weather.loss = 100;
    net.write(0, b"anybody?");
    let before = net.now;
    while net.ends[0].ended() == Read::Nothing {
        assert!(net.step(before + Duration::from_secs(60)));
    }
    let took = net.now.since(before);
    assert!(Duration::from_secs(28) < took && took <= Duration::from_secs(30), "{took:?}");
    assert_eq!(net.read(0).1, Read::Lost(Loss::Silent));
    assert!(net.ends[0].is_over() && net.ends[0].is_drained());
}

#[test]
fn one_that_gives_up_what_it_could_not_send_says_that_something_is_missing() {
    let mut net = Net::new(CLEAR, 2, shape());
    net.write(0, b"hello");
    net.run(Duration::from_secs(1));
    net.write(0, b"lost");
    let now = net.now;
    net.ends[0].close(now);
    // Everything but the signs of life is lost.
    net.swallows = |datagram| datagram[2] == 1;
    net.run(Duration::from_secs(18));
    let (got, end) = net.read(1);
    assert_eq!((&got[..], end), (&b"hello"[..], Read::Cut));
}

#[test]
fn both_may_close_at_once() {
    let mut net = Net::new(CLEAR, 3, shape());
    net.write(0, b"a");
    net.write(1, b"b");
    let now = net.now;
    net.ends.iter_mut().for_each(|end| end.close(now));
    net.run(Duration::from_secs(2));
    assert!(net.ends.iter().all(Conversation::is_over));
}

#[test]
fn nobody_is_told_of_an_end_more_often_than_he_spoke() {
    let mut net = Net::new(CLEAR, 4, shape());
    net.write(0, b"a stranger");
    net.run(Duration::from_millis(10));
    net.weather.loss = 100;
    let (now, before) = (net.now, net.sent);
    net.ends[1].close(now);
    let mut datagram = Vec::new();
    let mut said = 0;
    while net.ends[1].say(now, MOST, &mut datagram) {
        said += 1;
        datagram.clear();
    }
    assert!(said <= 2 && net.ends[1].is_over() && net.sent == before, "{said}");
}
