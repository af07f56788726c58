//! UDP flows, their bounds, and the queries that share one.

use super::*;
use crate::dns::message::{self, Header, Name, TYPE_A};
use crate::engine::api::Event;
use crate::entropy::{Entropy, SeededEntropy};
use crate::time::Moment;
use crate::tun::stack::checksum;
use crate::tun::stack::fragment::Reassembler;
use std::sync::atomic::Ordering::Relaxed;
use std::task::Poll;
use tokio::net::UdpSocket;

/// A server that sends back what it gets.
async fn echo_server() -> u16 {
    let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a port");
    let port = socket.local_addr().expect("bound").port();
    tokio::task::spawn_local(async move {
        let mut buffer = vec![0; 70_000];
        while let Ok((len, from)) = socket.recv_from(&mut buffer).await {
            let _ = socket.send_to(&buffer[..len], from).await;
        }
    });
    port
}

/// A DNS server that answers every query with its own question and no record. Returns its address.
async fn name_server() -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a port");
    let address = socket.local_addr().expect("bound");
    tokio::task::spawn_local(async move {
        let mut buffer = vec![0; 2000];
        while let Ok((len, from)) = socket.recv_from(&mut buffer).await {
            buffer[2] |= 0x80;
            let _ = socket.send_to(&buffer[..len], from).await;
        }
    });
    address
}

fn query(id: u16, name: &str) -> Vec<u8> {
    message::query(id, &Name::from_text(name).expect("a legal name"), TYPE_A)
}

#[test]
fn datagrams_come_back_from_where_they_went() {
    run(async {
        let bench = Bench::start(redirecting(echo_server().await));
        for (port, destination) in [(4000, "9.9.9.9:7000"), (4000, "9.9.9.9:7001"), (4001, "1.1.1.1:7000")] {
            let data = format!("to {destination}").into_bytes();
            bench.kernel.send_datagram(app(port), addr(destination), &data).await;
            let back = bench.kernel.receive_datagram().await;
            assert_eq!(back, (addr(destination), app(port), data));
        }
        let stats = &bench.shard.shared.stats;
        assert_eq!((stats.udp_total.load(Relaxed), stats.udp_open.load(Relaxed)), (3, 3));
        assert_eq!(stats.uplink_bytes.load(Relaxed), stats.downlink_bytes.load(Relaxed));
        assert!(bench.shard.connections.close(1));
        while stats.udp_open.load(Relaxed) != 2 {
            tokio::task::yield_now().await;
        }
    });
}

#[test]
fn an_answer_over_the_mtu_comes_in_fragments() {
    run(async {
        let bench = Bench::start(redirecting(echo_server().await));
        let data: Vec<u8> = (0..4000u32).map(|n| n as u8).collect();
        bench.kernel.send_datagram(app(4000), addr("9.9.9.9:7000"), &data).await;
        let mut reassembler = Reassembler::new();
        let whole = loop {
            let packet = bench.kernel.receive().await;
            assert!(packet.len() <= MTU);
            let packet = ip::parse(&packet).expect("a legal packet");
            if let Some(whole) = reassembler.push(Moment::ZERO, &packet) {
                break whole;
            }
        };
        let datagram = udp::parse(whole.src, whole.dst, &whole.payload, false).expect("a legal datagram");
        assert_eq!(datagram.data, data);
    });
}

#[test]
fn a_new_flow_is_refused_before_those_that_exist_starve() {
    run(async {
        let bench = Bench::start(redirecting(echo_server().await));
        bench.kernel.send_datagram(app(4000), addr("9.9.9.9:7000"), b"one").await;
        assert_eq!(bench.kernel.receive_datagram().await.2, b"one");
        let pool = &bench.shard.pool;
        let mut hoard = Vec::new();
        while !pool.is_nearly_full() {
            hoard.push(pool.copy(b"held").expect("memory"));
        }
        bench.kernel.send_datagram(app(4000), addr("9.9.9.9:7001"), b"new").await;
        assert_eq!(icmp_error(&bench.kernel).await, (3, 3, 0, 7001));
        bench.kernel.send_datagram(app(4000), addr("9.9.9.9:7000"), b"two").await;
        assert_eq!(bench.kernel.receive_datagram().await.2, b"two");
    });
}

/// Type, code and the low half of the second word of an ICMP error, and the port that it is about.
async fn icmp_error(kernel: &Kernel) -> (u8, u8, u16, u16) {
    let bytes = kernel.receive().await;
    let packet = ip::parse(&bytes).expect("a legal packet");
    assert_eq!(packet.protocol, ip::Protocol::Icmp);
    let message = packet.payload;
    let quote = ip::parse(&message[8..]).expect("a whole header");
    let number = |bytes: &[u8]| u16::from_be_bytes([bytes[0], bytes[1]]);
    (message[0], message[1], number(&message[6..]), number(&quote.payload[2..]))
}

#[test]
fn what_is_refused_is_told_by_icmp() {
    run(async {
        let bench = Bench::start(blackhole());
        bench.kernel.send_datagram(app(4000), addr("9.9.9.9:443"), b"quic").await;
        assert_eq!(icmp_error(&bench.kernel).await, (3, 3, 0, 443), "by the policy");
        bench.kernel.send_datagram(app(4000), addr("172.19.0.2:99"), b"x").await;
        assert_eq!(icmp_error(&bench.kernel).await, (3, 3, 0, 99), "nothing but DNS is there");
        bench.kernel.send_datagram(app(4000), addr("9.9.9.9:7"), &[0; 1967]).await;
        assert_eq!(icmp_error(&bench.kernel).await, (3, 4, 1994, 7), "a server would cut it");
        bench.kernel.send_datagram(app(4000), addr("9.9.9.9:8"), &[0; 1966]).await;
        bench.kernel.send_datagram(app(4000), addr("224.0.0.251:5353"), b"mdns").await;
        bench.kernel.send_datagram(app(4000), addr("172.19.0.3:137"), b"netbios").await;
        bench.kernel.send_datagram(app(4000), addr("9.9.9.9:443"), b"quic").await;
        assert_eq!(icmp_error(&bench.kernel).await.3, 443, "nothing for those three");
        assert_eq!(bench.shard.shared.stats.udp_total.load(Relaxed), 1);
    });
}

#[test]
fn the_table_is_full_of_busy_flows_and_says_so() {
    run(async {
        let bench = Bench::start(blackhole());
        for port in 1000..1512 {
            bench.kernel.send_datagram(app(port), addr("9.9.9.9:7"), b"x").await;
        }
        bench.kernel.send_datagram(app(2000), addr("9.9.9.9:8"), b"x").await;
        assert_eq!(icmp_error(&bench.kernel).await, (3, 3, 0, 8));
        bench.kernel.send_datagram(app(1000), addr("9.9.9.9:7"), b"x").await;
        bench.kernel.send_datagram(app(2001), addr("9.9.9.9:9"), b"x").await;
        assert_eq!(icmp_error(&bench.kernel).await.3, 9, "a flow that is there goes on");
        assert_eq!(bench.shard.shared.stats.udp_open.load(Relaxed), 512);
    });
}

#[test]
fn a_hundred_look_ups_share_one_flow() {
    run(async {
        let mut config = config();
        config.dns_servers = vec![name_server().await];
        let bench = Bench::start(config);
        for n in 0..100u16 {
            let query = query(n / 2, &format!("host{n}.example"));
            bench.kernel.send_datagram(app(10_000 + n), addr(DNS), &query).await;
        }
        let mut answered = [false; 100];
        for _ in 0..100 {
            let (source, destination, data) = bench.kernel.receive_datagram().await;
            let n = destination.port() - 10_000;
            let header = Header::parse(&data).expect("a message");
            assert!(source == addr(DNS) && header.is_response() && header.id == n / 2);
            let question = message::Question::parse(&data).expect("a question");
            assert_eq!(question.name.to_string(), format!("host{n}.example"));
            answered[usize::from(n)] = true;
        }
        assert_eq!(answered, [true; 100]);
        let stats = &bench.shard.shared.stats;
        assert_eq!((stats.udp_total.load(Relaxed), stats.dns_queries.load(Relaxed)), (1, 100));
    });
}

#[test]
fn a_silent_server_is_followed_by_the_next() {
    run(async {
        let silent = UdpSocket::bind("127.0.0.1:0").await.expect("a port");
        let mut config = config();
        config.dns_servers = vec![silent.local_addr().expect("bound"), name_server().await];
        let bench = Bench::start(config);
        for id in [1, 2] {
            bench.kernel.send_datagram(app(5000), addr(DNS), &query(id, "a.example")).await;
        }
        let mut ids = Vec::new();
        for _ in 0..2 {
            let (_, _, data) = bench.kernel.receive_datagram().await;
            ids.push(Header::parse(&data).expect("a message").id);
        }
        ids.sort_unstable();
        assert_eq!(ids, [1, 2], "what was asked before is asked again");
        let mut asked = [0; 100];
        assert!(silent.try_recv(&mut asked).is_ok(), "the first server comes first");
        bench.kernel.send_datagram(app(5000), addr(DNS), &query(3, "b.example")).await;
        assert_eq!(Header::parse(&bench.kernel.receive_datagram().await.2).expect("a message").id, 3);
        assert_eq!(bench.shard.shared.stats.udp_total.load(Relaxed), 2);
    });
}

#[test]
fn what_is_no_query_goes_its_own_way() {
    run(async {
        let bench = Bench::start(redirecting(echo_server().await));
        bench.kernel.send_datagram(app(4000), addr("9.9.9.9:53"), b"not DNS at all").await;
        let back = bench.kernel.receive_datagram().await;
        assert_eq!(back, (addr("9.9.9.9:53"), app(4000), b"not DNS at all".to_vec()));
        assert_eq!(bench.shard.shared.stats.dns_queries.load(Relaxed), 0);
    });
}

#[test]
fn a_blocked_device_holds_what_it_can_and_the_host_is_told() {
    run(async {
        let bench = Bench::start(redirecting(echo_server().await));
        let stats = &bench.shard.shared.stats;
        let sent: u32 = 700;
        for n in 0..sent {
            let data = [&n.to_be_bytes()[..], &[7; 1000]].concat();
            bench.kernel.send_datagram(app(4000), addr("9.9.9.9:7000"), &data).await;
            while stats.downlink_bytes.load(Relaxed) < u64::from(n + 1) * 1004 {
                tokio::task::yield_now().await;
            }
        }
        let is_told = |event: &Event| matches!(event, Event::Degraded { .. });
        let waiter = bench.shard.shared.new_waiter();
        std::future::poll_fn(|cx| {
            loop {
                match bench.shard.shared.poll_event(waiter, || cx.waker().clone()) {
                    Poll::Ready(Some(event)) if is_told(&event) => return Poll::Ready(()),
                    Poll::Ready(Some(_)) => {}
                    Poll::Ready(None) | Poll::Pending => return Poll::Pending,
                }
            }
        })
        .await;
        for n in 0..sent {
            assert_eq!(bench.kernel.receive_datagram().await.2[..4], n.to_be_bytes());
        }
        bench.kernel.send_datagram(app(4000), addr("9.9.9.9:7000"), b"again").await;
        assert_eq!(bench.kernel.receive_datagram().await.2, b"again");
    });
}

#[test]
fn garbage_stops_nothing() {
    run(async {
        let server = name_server().await;
        let mut config = redirecting(server.port());
        config.dns_servers = vec![server];
        let bench = Bench::start(config);
        let mut entropy = SeededEntropy::new(12);
        let mut seeds = Vec::new();
        for (destination, data) in [(addr(DNS), query(1, "a.example")), (addr("9.9.9.9:9"), vec![7; 60])] {
            let mut header = ip::Header::new();
            let len = udp::HEADER + data.len();
            header.push_ip(app(1).ip(), destination.ip(), ip::Protocol::Udp, len, None);
            header.push(&udp::header(app(1), destination, &data).expect("short"));
            seeds.push([header.as_slice(), &data].concat());
        }
        for _ in 0..5000 {
            let mut packet = seeds[entropy.below(2) as usize].clone();
            for _ in 0..entropy.below(4) {
                let at = entropy.below(packet.len() as u32) as usize;
                packet[at] = entropy.next_u32() as u8;
            }
            // The checksums of IPv4 and, by its absence, of UDP are right, so that the damage goes deeper.
            packet[10..12].fill(0);
            let sum = checksum::of(&packet[..20]);
            packet[10..12].copy_from_slice(&sum.to_be_bytes());
            packet[26..28].fill(0);
            while !bench.kernel.send(&packet) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            while bench.kernel.try_receive().is_some() {}
        }
        bench.kernel.send_datagram(app(9), addr(DNS), &query(77, "last.example")).await;
        let is_last = |packet: &[u8]| {
            let packet = ip::parse(packet).ok().filter(|packet| packet.protocol == ip::Protocol::Udp);
            let datagram =
                packet.and_then(|packet| udp::parse(packet.src, packet.dst, packet.payload, false).ok());
            datagram.is_some_and(|datagram| datagram.destination_port == 9 && datagram.data[..2] == [0, 77])
        };
        while !is_last(&bench.kernel.receive().await) {}
    });
}
