//! Whose the tun's descriptor is at every moment, and what its end means. A socket pair stands in for the device: each
//! datagram is a packet.

#[path = "common/engine.rs"]
mod engine;

use engine::{DIRECT, LONG, ended, free_address, socks, tunnel, tunnel_on};
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::net::UnixDatagram;
use std::sync::Arc;
use std::time::Duration;
use vmesskit::{ErrorKind, Event, Framing, NoPlatform, Options, State, TunHandle, Tunnel};

/// A handle for the tunnel and the other end of its device.
fn device() -> (TunHandle, UnixDatagram) {
    let (ours, theirs) = UnixDatagram::pair().expect("a pair");
    theirs.set_read_timeout(Some(LONG)).expect("a socket");
    (TunHandle { fd: ours.into(), mtu: Some(1500), framing: Framing::RawIp }, theirs)
}

/// The Internet checksum (RFC 1071).
fn checksum(bytes: &[u8]) -> [u8; 2] {
    let mut sum: u32 =
        bytes.chunks(2).map(|two| u32::from(two[0]) << 8 | u32::from(*two.get(1).unwrap_or(&0))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    (!(sum as u16)).to_be_bytes()
}

/// An ICMP echo request from an app.
fn ping(number: u8) -> Vec<u8> {
    let mut icmp = vec![8, 0, 0, 0, 0, 1, 0, number, 1, 2, 3, 4];
    let sum = checksum(&icmp);
    icmp[2..4].copy_from_slice(&sum);
    let mut packet = vec![0x45, 0, 0, 32, 0, 0, 0, 0, 64, 1, 0, 0];
    packet.extend(Ipv4Addr::new(172, 19, 0, 1).octets());
    packet.extend(Ipv4Addr::new(203, 0, 113, 9).octets());
    let sum = checksum(&packet);
    packet[10..12].copy_from_slice(&sum);
    packet.extend(icmp);
    packet
}

/// Whether the tunnel answers a ping on this device.
fn answers(device: &UnixDatagram, number: u8) -> io::Result<bool> {
    device.send(&ping(number))?;
    let mut packet = [0; 100];
    let len = device.recv(&mut packet)?;
    Ok(len == 32 && packet[20] == 0 && packet[27] == number)
}

/// Whether the tunnel's end of a device is closed.
fn is_closed(device: &UnixDatagram) -> bool {
    matches!(device.send(&[0]), Err(error) if error.kind() != io::ErrorKind::WouldBlock)
}

#[test]
fn a_tun_serves_until_stop_closes_it() {
    // The config need not list a tun inbound.
    let tunnel = tunnel(DIRECT);
    let (handle, device) = device();
    tunnel.start(Some(handle)).wait(Some(LONG)).expect("answered").expect("started");
    assert!(answers(&device, 1).expect("an answer"));
    assert_eq!(tunnel.stop(LONG).wait(None), Some(Ok(())));
    assert!(is_closed(&device));
}

#[test]
fn another_tun_takes_the_place_of_the_first() {
    let tunnel = tunnel(DIRECT);
    tunnel.start(None).wait(Some(LONG)).expect("answered").expect("started without a tun");
    let mut old: Option<UnixDatagram> = None;
    for number in 1..=3 {
        let (handle, device) = device();
        assert_eq!(tunnel.set_tun(handle).wait(Some(LONG)), Some(Ok(())));
        assert!(answers(&device, number).expect("an answer"));
        assert!(old.is_none_or(|old| is_closed(&old)), "the old one is closed");
        old = Some(device);
    }
    tunnel.stop(LONG).wait(None).expect("answered").expect("stopped");
}

#[test]
fn the_end_of_the_tun_is_the_end_of_the_tunnel() {
    let tunnel = tunnel(DIRECT);
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().expect("a pair");
    let handle = TunHandle { fd: ours.into(), mtu: None, framing: Framing::RawIp };
    tunnel.start(Some(handle)).wait(Some(LONG)).expect("answered").expect("started");
    drop(theirs);
    let State::Stopped { error: Some(error) } = ended(&tunnel) else { panic!("{:?}", tunnel.status()) };
    assert_eq!(error.kind, ErrorKind::TunGone);
    assert_eq!(tunnel.stop(LONG).wait(None), Some(Ok(())));
}

#[test]
fn a_descriptor_is_closed_on_every_error() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let (handle, device) = device();
    let failing = tunnel(&socks(taken.local_addr().expect("bound")));
    assert!(failing.start(Some(handle)).wait(Some(LONG)).expect("answered").is_err());
    assert!(is_closed(&device), "the start failed");
    let (handle, device) = self::device();
    assert!(failing.start(Some(handle)).wait(Some(LONG)).expect("answered").is_err());
    assert!(is_closed(&device), "it is over");
    let (handle, device) = self::device();
    assert!(failing.set_tun(handle).wait(Some(LONG)).expect("answered").is_err());
    assert!(is_closed(&device), "it is over");

    let idle = tunnel_on(&socks(free_address()), NoPlatform);
    let (handle, device) = self::device();
    let error = idle.set_tun(handle).wait(Some(LONG)).expect("answered").expect_err("not started");
    assert_eq!(error.kind, ErrorKind::Misuse);
    assert!(is_closed(&device), "before the start");
    let (handle, device) = self::device();
    drop(idle.start(Some(handle)));
    assert_eq!(idle.stop(Duration::from_secs(5)).wait(None), Some(Ok(())));
    assert!(is_closed(&device), "the start was given up");
}

#[test]
fn a_tun_inbound_without_a_device_is_told() {
    let config = r#"{"inbounds": [{"protocol": "tun"}], "outbounds": [{"protocol": "freedom"}]}"#;
    let tunnel = Tunnel::new(config, Options::default(), Arc::new(NoPlatform)).expect("a good config");
    tunnel.start(None).wait(Some(LONG)).expect("in time").expect("started");
    tunnel.request_stop();
    let mut told = false;
    while let Some(event) = tunnel.next_event().wait(Some(LONG)).expect("in time") {
        told |= matches!(event, Event::Log(lines) if lines.iter().any(|line| line.text.contains("no device yet")));
    }
    assert!(told);
}
