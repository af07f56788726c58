//! Payload comes whole and in order, whatever the network does, and at a fair pace.

use super::*;

/// Sends `len` bytes each way; how long it took.
fn exchange(weather: Weather, seed: u64, len: usize, shape: Shape) -> Duration {
    let mut net = Net::new(weather, seed, shape);
    let start = net.now;
    let sent = [noise(len, seed), noise(len / 2, seed + 1)];
    let (mut written, mut got) = ([0, 0], [Vec::new(), Vec::new()]);
    let deadline = start + Duration::from_secs(600);
    while got[1].len() < sent[0].len() || got[0].len() < sent[1].len() {
        for end in 0..2 {
            written[end] += net.write(end, &sent[end][written[end]..]);
            let (piece, state) = net.read(end);
            assert_eq!(state, Read::Nothing);
            got[end].extend(piece);
        }
        assert!(net.step(deadline), "it does not get on: {:?} of {len}, {:?}", got[1].len(), net.ends);
    }
    assert!(got[1] == sent[0] && got[0] == sent[1]);
    let took = net.now.since(start);
    net.run(Duration::from_secs(5));
    assert_eq!((net.ends[0].held(), net.ends[1].held()), (0, 0), "an idle conversation holds nothing");
    took
}

#[test]
fn a_clear_network_is_used() {
    let took = exchange(CLEAR, 1, 4 << 20, shape());
    assert!(took < Duration::from_millis(500), "{took:?} for 4 MB at 20 ms");
}

#[test]
fn nothing_is_lost_repeated_or_out_of_order() {
    for seed in 0..12 {
        let percent = [0, 1, 5, 20][seed as usize % 4];
        let weather =
            Weather { loss: percent, repeats: 10 - percent / 2, delay: 1 + seed as u32 * 7, jitter: 40 };
        let took = exchange(weather, seed, 1 << 20, shape());
        assert!(took < Duration::from_secs(20), "{took:?} in {weather:?}");
    }
}

#[test]
fn half_of_everything_may_be_lost() {
    let weather = Weather { loss: 50, repeats: 0, delay: 20, jitter: 10 };
    let took = exchange(weather, 3, 200_000, shape());
    assert!(took < Duration::from_secs(60), "{took:?}");
}

#[test]
fn congestion_control_and_the_least_settings_work_too() {
    let weather = Weather { loss: 5, repeats: 5, delay: 10, jitter: 5 };
    exchange(weather, 4, 500_000, Shape { congestion: true, ..shape() });
    let least = Terms {
        mtu: 576,
        tti: Duration::from_millis(10),
        uplink_capacity: 0,
        downlink_capacity: 0,
        read_buffer: 512 << 10,
        write_buffer: 512 << 10,
        ..terms()
    };
    exchange(weather, 5, 200_000, Shape::new(&least, 41, 29));
}

#[test]
fn a_reader_that_rests_holds_the_writer_and_loses_nothing() {
    let mut net = Net::new(CLEAR, 6, shape());
    let sent = noise(8 << 20, 6);
    let mut written = 0;
    for _ in 0..200 {
        written += net.write(0, &sent[written..]);
        net.run(Duration::from_millis(20));
    }
    assert!(written < sent.len() && net.ends[1].held() < 3 << 20, "{written}");
    net.run(Duration::from_secs(60));
    let mut got = Vec::new();
    let deadline = net.now + Duration::from_secs(60);
    while got.len() < sent.len() {
        written += net.write(0, &sent[written..]);
        got.extend(net.read(1).0);
        assert!(net.step(deadline), "{}", got.len());
    }
    assert!(got == sent);
}

#[test]
fn little_memory_slows_down_and_loses_nothing() {
    let mut net = Net::new(Weather { loss: 3, repeats: 3, delay: 5, jitter: 5 }, 7, shape());
    net.most = 6000;
    let sent = noise(300_000, 7);
    let (mut written, mut got) = (0, Vec::new());
    let deadline = net.now + Duration::from_secs(300);
    while got.len() < sent.len() {
        written += net.write(0, &sent[written..]);
        got.extend(net.read(1).0);
        assert!(net.ends.iter().all(|end| end.held() <= 6000 + 1400), "it holds to what it may");
        assert!(net.step(deadline), "{} {:?}", got.len(), net.ends);
    }
    assert!(got == sent);
}

#[test]
fn an_idle_conversation_speaks_every_nine_seconds() {
    let mut net = Net::new(CLEAR, 8, shape());
    net.write(0, b"hello");
    net.run(Duration::from_secs(1));
    assert_eq!(net.read(1).0, b"hello");
    let before = net.sent;
    net.run(Duration::from_secs(90));
    assert_eq!(net.sent - before, 20, "ten of each");
    assert_eq!(net.read(0).1, Read::Nothing);
}

#[test]
fn a_short_exchange_takes_few_datagrams() {
    let mut net = Net::new(CLEAR, 9, shape());
    net.write(0, b"question");
    net.run(Duration::from_millis(15));
    assert_eq!(net.read(1).0, b"question");
    net.write(1, b"answer");
    net.run(Duration::from_secs(2));
    assert_eq!(net.read(0).0, b"answer");
    // Two with payload, their acknowledgements, and the word that these have come.
    assert!(net.sent <= 6, "{}", net.sent);
}

#[test]
fn a_peer_that_was_silent_for_a_while_is_back_at_once() {
    let mut net = Net::new(CLEAR, 10, shape());
    let sent = noise(4 << 20, 10);
    let (mut written, mut got) = (0, Vec::new());
    let start = net.now;
    let deadline = start + Duration::from_secs(12);
    while got.len() < sent.len() {
        // With hundreds of segments on their way.
        let passed = net.now.since(start).as_millis();
        net.weather.loss = if (70..5000).contains(&passed) { 100 } else { 0 };
        written += net.write(0, &sent[written..]);
        got.extend(net.read(1).0);
        assert!(net.step(deadline), "{} of {written}", got.len());
    }
    assert!(got == sent && net.now.since(start) > Duration::from_secs(5));
    assert!(net.now.since(start) < Duration::from_secs(8), "{:?}", net.now.since(start));
}
