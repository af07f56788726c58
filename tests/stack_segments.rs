//! What single segments do to an open flow: order, acknowledgements, loss, resets, and what is not believed.

#[path = "common/wire.rs"]
mod wire;

use vmesskit::buffer::{Class, HEADROOM, TAILROOM};
use vmesskit::tun::stack::{Event, Received};
use wire::{Bench, Packets, Peer, Seg, syn};

#[test]
fn one_batch_is_answered_with_one_ack() {
    let mut bench = Bench::new();
    let mut peer = bench.establish(50_000);
    for n in 0..10 {
        bench.give(&peer.data(&[n; 1460]));
    }
    assert_eq!(bench.events().len(), 1, "one event too");
    let (data, _) = bench.take(peer.flow);
    assert_eq!(data.len(), 10 * 1460);
    let answer = bench.drain();
    assert_eq!((answer.len(), answer[0].ack), (1, Some(peer.seq)));
    assert!(bench.drain().is_empty());
}

#[test]
fn an_ack_rides_on_data() {
    let mut bench = Bench::new();
    let mut peer = bench.establish(50_000);
    bench.give(&peer.data(b"question"));
    bench.stack.send(peer.flow, bench.buffer(b"answer"));
    let answer = bench.drain();
    assert_eq!((answer.len(), answer[0].ack, &answer[0].data[..]), (1, Some(peer.seq), &b"answer"[..]));
}

#[test]
fn received_buffers_can_be_sealed_in_place() {
    let mut bench = Bench::new();
    let mut peer = bench.establish(50_000);
    let mut sizes = Vec::new();
    for _ in 0..200 {
        bench.give(&peer.data(&[7; 1460]));
        while let Received::Data(mut buffer) = bench.stack.recv(peer.flow) {
            sizes.push(buffer.held());
            let (slab, range) = buffer.parts_mut().expect("uniquely owned");
            assert!(range.start >= HEADROOM && slab.len() - range.end >= TAILROOM);
        }
        bench.drain();
    }
    assert_eq!(sizes[0], Class::Small.slab_len(), "a flow begins small");
    assert_eq!(sizes[199], Class::Record.slab_len(), "one that moves gets full records");
    bench.wait(1000);
    bench.give(&peer.data(&[7; 1460]));
    let Received::Data(buffer) = bench.stack.recv(peer.flow) else { panic!("no data") };
    assert_eq!(buffer.held(), Class::Small.slab_len(), "one that was idle begins anew");
}

#[test]
fn segments_out_of_order_are_reported_and_put_in_place() {
    let mut bench = Bench::new();
    let mut peer = bench.establish(50_000);
    let parts: Vec<_> = (0..6).map(|n| peer.data(&[n; 100])).collect();
    let at = |n: usize| parts[n].seq;
    let sack = |bench: &mut Bench, n: usize| bench.ask(&parts[n]).remove(0);
    let answer = sack(&mut bench, 2);
    assert_eq!((answer.ack, answer.sack), (Some(at(0)), vec![(at(2), at(3))]));
    let answer = sack(&mut bench, 4);
    assert_eq!(answer.sack, [(at(4), at(5)), (at(2), at(3))], "the newest first");
    let answer = sack(&mut bench, 3);
    assert_eq!(answer.sack, [(at(2), at(5))]);
    assert!(matches!(bench.stack.recv(peer.flow), Received::Empty));
    let answer = sack(&mut bench, 0);
    assert_eq!((answer.ack, answer.sack), (Some(at(1)), vec![(at(2), at(5))]));
    // One that covers a gap and what lies around it.
    let wide = Seg { data: [[0; 100], [1; 100], [2; 100]].concat(), ..parts[0].clone() };
    let answer = bench.ask(&wide).remove(0);
    assert_eq!((answer.ack, answer.sack), (Some(at(5)), vec![]));
    sack(&mut bench, 5);
    let (data, _) = bench.take(peer.flow);
    let expected: Vec<u8> = (0..6u8).flat_map(|n| [n; 100]).collect();
    assert!(data == expected);
    assert_eq!(bench.pool.used(), 0);
}

#[test]
fn what_overlaps_is_taken_once() {
    // Every order of overlapping pieces gives the same stream.
    let pieces = [(0u32, 40u32), (30, 60), (10, 20), (50, 120), (90, 200), (120, 130), (0, 200), (199, 200)];
    for rotation in 0..pieces.len() {
        let mut bench = Bench::new();
        let peer = bench.establish(50_000);
        let base = peer.seq;
        for n in 0..pieces.len() {
            let (start, end) = pieces[(n * 3 + rotation) % pieces.len()];
            let data: Vec<u8> = (start..end).map(|at| at as u8).collect();
            bench.ask(&Seg { seq: base + start, data, ..peer.seg() });
        }
        let (data, _) = bench.take(peer.flow);
        assert_eq!(data, (0..200u32).map(|at| at as u8).collect::<Vec<_>>());
        assert_eq!(bench.pool.used(), 0);
    }
}

#[test]
fn a_peer_without_sack_gets_an_ack_for_every_segment_that_shows_a_gap() {
    let mut bench = Bench::new();
    let mut peer = bench.establish_with(&syn(50_000, 1000));
    peer.data(&[0; 100]);
    for _ in 0..3 {
        bench.give(&peer.data(&[1; 100]));
    }
    let answer = bench.drain();
    assert_eq!(answer.len(), 3);
    assert!(answer.iter().all(|seg| seg.ack == Some(1001) && seg.sack.is_empty()));
}

#[test]
fn a_hole_that_sack_shows_is_filled_at_once_and_alone() {
    let mut bench = Bench::new();
    let mut peer = bench.establish(50_000);
    bench.stack.send(peer.flow, bench.buffer(&[5; 14_600]));
    let sent = bench.drain();
    assert_eq!(sent.len(), 10);
    // The second and the fifth are lost.
    let first = peer.ack.wrapping_add(1460);
    let sack = vec![(sent[2].seq, sent[4].seq)];
    assert_eq!(
        bench.ask(&Seg { ack: Some(first), sack, ..peer.seg() }),
        [],
        "two segments may be reordering"
    );
    let sack = vec![(sent[5].seq, sent[8].seq), (sent[2].seq, sent[4].seq)];
    let again = bench.ask(&Seg { ack: Some(first), sack: sack.clone(), ..peer.seg() });
    assert_eq!(again.iter().map(|seg| seg.seq).collect::<Vec<_>>(), [sent[1].seq, sent[4].seq]);
    assert!(again.iter().all(|seg| seg.data.len() == 1460));
    assert_eq!(bench.ask(&Seg { ack: Some(first), sack, ..peer.seg() }), [], "each hole once");
    peer.ack = sent[9].seq.wrapping_add(1460);
    assert_eq!(bench.ask(&peer.seg()), []);
    assert!(bench.stack.all_acked(peer.flow));
    assert_eq!((bench.stack.counters().retransmits, bench.pool.used()), (2, 0));
}

#[test]
fn a_retransmission_that_is_lost_is_repeated_without_a_timeout() {
    let mut bench = Bench::new();
    let peer = bench.establish(50_000);
    bench.stack.send(peer.flow, bench.buffer(&[5; 14_600]));
    let sent = bench.drain();
    let seen = |sack| Seg { sack: vec![sack], ..peer.seg() };
    let again = bench.ask(&seen((sent[1].seq, sent[9].seq + 1460)));
    assert_eq!((again.len(), again[0].seq), (1, sent[0].seq));
    bench.stack.send(peer.flow, bench.buffer(&[5; 14_600]));
    let fresh = bench.drain();
    assert_eq!(fresh[0].seq, sent[9].seq + 1460, "new data goes on meanwhile");
    assert_eq!(bench.ask(&seen((sent[1].seq, fresh[1].seq + 1460))), []);
    let again = bench.ask(&seen((sent[1].seq, fresh[2].seq + 1460)));
    assert_eq!((again.len(), again[0].seq), (1, sent[0].seq), "what was sent after it has arrived");
    bench.ask(&Seg { ack: Some(fresh[9].seq + 1460), ..peer.seg() });
    assert!(bench.stack.all_acked(peer.flow));
}

#[test]
fn a_timeout_does_not_resend_what_was_reported() {
    let mut bench = Bench::new();
    let peer = bench.establish(50_000);
    bench.stack.send(peer.flow, bench.buffer(&[5; 7300]));
    let sent = bench.drain();
    bench.ask(&Seg { sack: vec![(sent[1].seq, sent[3].seq)], ..peer.seg() });
    assert_eq!(bench.expire()[0].seq, sent[0].seq);
    let again = bench.ask(&Seg { ack: Some(sent[3].seq), ..peer.seg() });
    assert_eq!(again.iter().map(|seg| seg.seq).collect::<Vec<_>>(), [sent[3].seq, sent[4].seq]);
}

#[test]
fn three_duplicates_resend_one_segment_and_partial_acks_the_next() {
    let mut bench = Bench::new();
    let mut peer = bench.establish_with(&syn(50_000, 1000));
    bench.stack.send(peer.flow, bench.buffer(&[5; 14_600]));
    peer.seq = 1001;
    let full = Seg { window: 64_240, ..peer.seg() };
    let sent = bench.ask(&full);
    assert_eq!(sent.len(), 10);
    assert_eq!(bench.ask(&full), []);
    assert_eq!(bench.ask(&full), []);
    let again = bench.ask(&full);
    assert_eq!((again.len(), again[0].seq), (1, sent[0].seq));
    let partial = Seg { ack: Some(sent[3].seq), ..full };
    let again = bench.ask(&partial);
    assert_eq!((again.len(), again[0].seq), (1, sent[3].seq));
}

#[test]
fn a_timeout_resends_slowly_and_grows() {
    let mut bench = Bench::new();
    let peer = bench.establish(50_000);
    bench.stack.send(peer.flow, bench.buffer(&[5; 14_600]));
    let sent = bench.drain();
    let mut waits = Vec::new();
    for _ in 0..4 {
        let before = bench.now;
        let again = bench.expire();
        waits.push(bench.now.since(before).as_millis());
        assert_eq!((again.len(), again[0].seq), (1, sent[0].seq));
    }
    assert_eq!(waits, [1000, 2000, 4000, 8000]);
    let again = bench.ask(&Seg { ack: Some(sent[1].seq), ..peer.seg() });
    assert_eq!(again.iter().map(|seg| seg.seq).collect::<Vec<_>>(), [sent[1].seq, sent[2].seq]);
    bench.ask(&Seg { ack: Some(sent[9].seq + 1460), ..peer.seg() });
    assert_eq!((bench.stack.poll_timeout(), bench.pool.used()), (None, 0));
}

#[test]
fn the_timeout_follows_the_measured_round_trip() {
    let mut bench = Bench::new();
    let mut peer = bench.establish(50_000);
    for _ in 0..30 {
        bench.stack.send(peer.flow, bench.buffer(&[5; 100]));
        let sent = bench.drain();
        peer.absorb(&sent);
        bench.wait(500);
        bench.ask(&peer.seg());
    }
    bench.stack.send(peer.flow, bench.buffer(&[5; 100]));
    bench.drain();
    let wait = bench.stack.poll_timeout().expect("armed").since(bench.now).as_millis();
    assert!((500..700).contains(&wait), "{wait} ms");
}

#[test]
fn an_app_that_never_answers_is_given_up() {
    let mut bench = Bench::new();
    let peer = bench.establish(50_000);
    bench.stack.send(peer.flow, bench.buffer(&[5; 100]));
    bench.drain();
    let mut tries = 0;
    while bench.stack.poll_timeout().is_some() {
        tries += bench.expire().len();
    }
    assert_eq!(tries, 12);
    assert!(matches!(bench.events()[..], [Event::TcpReadable(id)] if id == peer.flow));
    assert!(matches!(bench.stack.recv(peer.flow), Received::Reset));
    assert_eq!(bench.pool.used(), 0);
}

#[test]
fn rst_counts_at_the_exact_number_only() {
    let mut bench = Bench::new();
    let peer = bench.establish(50_000);
    let challenge = bench.ask(&peer.rst(peer.seq + 1));
    assert!(challenge.len() == 1 && !challenge[0].rst && challenge[0].ack == Some(peer.seq));
    assert_eq!(bench.ask(&peer.rst(peer.seq - 1)), []);
    assert_eq!(bench.ask(&peer.rst(peer.seq + 100_000)), []);
    assert!(bench.events().is_empty());
    assert_eq!(bench.ask(&peer.rst(peer.seq)), []);
    assert!(matches!(bench.events()[..], [Event::TcpReadable(id)] if id == peer.flow));
    assert!(matches!(bench.stack.recv(peer.flow), Received::Reset));
    assert_eq!(bench.stack.counters().tcp_flows, 0);
}

#[test]
fn a_tuple_that_is_used_anew_frees_the_old_flow() {
    let mut bench = Bench::new();
    let peer = bench.establish(50_000);
    let again = syn(50_000, 0x7000_0000);
    let challenge = bench.ask(&again);
    assert!(challenge.len() == 1 && !challenge[0].syn && challenge[0].ack == Some(peer.seq));
    // A kernel that knows nothing of the old flow answers with RST at the number that we acknowledged.
    bench.give(&peer.rst(challenge[0].ack.expect("an ack")));
    assert!(matches!(bench.events()[..], [Event::TcpReadable(id)] if id == peer.flow));
    let flow = bench.open(&again);
    assert!(flow != peer.flow);
}

#[test]
fn challenges_are_bounded() {
    let mut bench = Bench::new();
    let peer = bench.establish(50_000);
    let mut count = 0;
    for _ in 0..500 {
        count += bench.ask(&peer.rst(peer.seq + 5)).len();
    }
    assert_eq!(count, 100);
    bench.wait(1000);
    assert_eq!(bench.ask(&peer.rst(peer.seq + 5)).len(), 1);
}

#[test]
fn acknowledgements_of_what_was_never_sent_are_not_believed() {
    let mut bench = Bench::new();
    let mut peer = bench.establish(50_000);
    bench.stack.send(peer.flow, bench.buffer(b"hello"));
    bench.drain();
    for ack in [peer.ack + 6, peer.ack + 0x4000_0000, peer.ack - 0x10_0000] {
        let lie = Seg { ack: Some(ack), data: b"injected".to_vec(), ..peer.seg() };
        let answer = bench.ask(&lie);
        assert!(answer.len() == 1 && answer[0].ack == Some(peer.seq), "{answer:?}");
    }
    assert!(matches!(bench.stack.recv(peer.flow), Received::Empty) && !bench.stack.all_acked(peer.flow));
    peer.ack += 5;
    bench.give(&peer.seg());
    assert!(bench.stack.all_acked(peer.flow));
}

#[test]
fn keepalive_probes_are_answered() {
    let mut bench = Bench::new();
    let peer = bench.establish(50_000);
    for data in [vec![], vec![0]] {
        let answer = bench.ask(&Seg { seq: peer.seq - 1, data, ..peer.seg() });
        assert!(answer.len() == 1 && answer[0].ack == Some(peer.seq) && answer[0].data.is_empty());
    }
    assert!(bench.events().is_empty() && bench.stack.poll_timeout().is_none());
}

#[test]
fn urgent_data_is_data() {
    let mut bench = Bench::new();
    let mut peer = bench.establish(50_000);
    let mut packet = bench.packet(&peer.data(b"urgent"));
    packet[33] |= 0x20;
    packet[39] = 3;
    let meta = vmesskit::tun::stack::PacketMeta { checksum_trusted: true };
    bench.stack.handle_packet(bench.now, &packet, meta);
    assert_eq!(bench.take(peer.flow).0, b"urgent");
}

#[test]
fn damaged_segments_change_nothing_unless_the_device_vouches_for_them() {
    let mut bench = Bench::new();
    let mut peer = bench.establish(50_000);
    let mut packet = bench.packet(&peer.data(b"payload"));
    *packet.last_mut().expect("not empty") ^= 1;
    bench.stack.handle_packet(bench.now, &packet, vmesskit::tun::stack::PacketMeta::default());
    assert!(bench.drain().is_empty());
    assert_eq!(bench.stack.counters().dropped_malformed, 1);
    let meta = vmesskit::tun::stack::PacketMeta { checksum_trusted: true };
    bench.stack.handle_packet(bench.now, &packet, meta);
    assert_eq!(bench.take(peer.flow).0, b"payloae");
}

#[test]
fn a_blocked_device_loses_nothing() {
    let mut bench = Bench::new();
    let mut peer = bench.establish(50_000);
    bench.stack.send(peer.flow, bench.buffer(&[3; 30_000]));
    bench.stack.finish(peer.flow);
    let mut data = Vec::new();
    for limit in [0, 1, 0, 5, 7, 0, 100] {
        let mut packets = Packets { limit: Some(limit), ..Packets::default() };
        let blocked = bench.stack.transmit(bench.now, &mut packets).is_err();
        assert_eq!(blocked, limit < 100);
        let segs: Vec<_> = packets.list.iter().map(|packet| bench.read(packet)).collect();
        data.extend(peer.absorb(&segs));
    }
    assert!(data == [3; 30_000]);
    bench.give(&peer.seg());
    assert!(bench.stack.all_acked(peer.flow));
}

#[test]
fn stale_ids_do_nothing() {
    let mut bench = Bench::new();
    let peer = bench.establish(50_000);
    bench.stack.abort(peer.flow);
    assert!(bench.drain()[0].rst);
    let next = bench.establish(50_001);
    assert_eq!(next.flow.slot, peer.flow.slot);
    let stale = peer.flow;
    bench.stack.send(stale, bench.buffer(b"x"));
    bench.stack.finish(stale);
    bench.stack.abort(stale);
    bench.stack.release(stale);
    bench.stack.accept(stale);
    bench.stack.refuse(stale, vmesskit::tun::stack::Refusal::Refused);
    assert!(matches!(bench.stack.recv(stale), Received::Reset));
    assert!(bench.stack.send_room(stale) == 0 && bench.stack.all_acked(stale));
    assert_eq!(bench.drain(), []);
    assert_eq!(bench.stack.counters().tcp_flows, 1);
    assert_eq!(bench.pool.used(), 0);
    let unknown = vmesskit::tun::stack::FlowId { slot: 99, generation: 0 };
    assert!(matches!(bench.stack.recv(unknown), Received::Reset));
}

#[test]
fn records_travel_by_reference_and_small_ones_are_copied_together() {
    let mut bench = Bench::new();
    let mut peer = bench.establish(50_000);
    let mut slab = bench.pool.take(Class::Large).expect("room");
    slab.append(&[9; 60_000]);
    let held = bench.pool.used();
    for n in 0..10 {
        bench.stack.send(peer.flow, slab.slice(n * 2000..(n + 1) * 2000));
    }
    drop(slab);
    assert_eq!(bench.pool.used(), held, "one slab, however many records");
    assert_eq!(bench.stack.send_room(peer.flow), bench.pool.share() - held);
    let sent = bench.drain();
    assert_eq!(sent.len(), 14, "20,000 bytes in full segments");
    peer.absorb(&sent);
    bench.give(&peer.seg());
    assert_eq!(bench.pool.used(), 0);
    for _ in 0..100 {
        bench.stack.send(peer.flow, bench.buffer(&[1; 40]));
    }
    assert_eq!(bench.pool.used(), Class::Small.slab_len());
    let sent = bench.drain();
    assert_eq!(sent.iter().map(|seg| seg.data.len()).collect::<Vec<_>>(), [1460, 1460, 1080]);
}

#[test]
fn the_mtu_may_change_under_a_flow() {
    let mut bench = Bench::new();
    let mut peer = bench.establish_with(&Seg { mss: Some(9000), ..syn(50_000, 1000) });
    let ack = Seg { window: 60_000, ..peer.seg() };
    bench.give(&ack);
    bench.stack.set_mtu(1280, false);
    bench.stack.send(peer.flow, bench.buffer(&[1; 4000]));
    let sizes = |segs: &[Seg]| segs.iter().map(|seg| seg.data.len()).collect::<Vec<_>>();
    let sent = bench.drain();
    assert_eq!(sizes(&sent), [1240, 1240, 1240, 280]);
    peer.absorb(&sent);
    bench.give(&Seg { window: 60_000, ..peer.seg() });
    bench.stack.set_mtu(16_000, false);
    bench.stack.send(peer.flow, bench.buffer(&[1; 10_000]));
    assert_eq!(sizes(&bench.drain()), [9000, 1000], "the peer's MSS bounds it too");
}

#[test]
fn a_writer_hears_of_room_and_of_the_last_ack_when_it_asked() {
    let mut bench = Bench::new();
    let mut peer = bench.establish(50_000);
    let fill = |bench: &mut Bench, peer: &Peer| {
        while bench.stack.send_room(peer.flow) > 0 {
            bench.stack.send(peer.flow, bench.buffer(&[1; 16_000]));
        }
    };
    fill(&mut bench, &peer);
    let sent = bench.drain();
    assert_eq!(sent.len(), 44, "full segments of a window of 65,536 bytes, and no sliver");
    peer.absorb(&sent);
    assert!(bench.events().is_empty());
    bench.give(&peer.seg());
    assert!(matches!(bench.events()[..], [Event::TcpWritable(id)] if id == peer.flow));
    bench.give(&peer.seg());
    assert!(bench.events().is_empty(), "told once");
    assert!(!bench.stack.all_acked(peer.flow));
    loop {
        let sent = bench.drain();
        if sent.is_empty() {
            break;
        }
        peer.absorb(&sent);
        bench.give(&peer.seg());
    }
    assert!(matches!(bench.events()[..], [Event::TcpWritable(_)]));
    assert!(bench.stack.all_acked(peer.flow));
}
