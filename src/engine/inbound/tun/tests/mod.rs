//! The tun inbound as a whole: a socket pair is the device, the other end is the kernel and its apps.

mod datagrams;
mod streams;

use super::Tun;
use crate::addr::{Cidr, Host};
use crate::config::{Config, Icmp, Inbound, InboundProtocol, Outbound, OutboundProtocol};
use crate::engine::Shard;
use crate::engine::api::{Framing, TunHandle};
use crate::engine::tests::config;
use crate::tun::stack::{ip, udp};
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, socketpair};
use std::future::Future;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Duration;

/// The MTU of the devices.
const MTU: usize = 1500;
/// The app's address and the DNS address in the tunnel.
const APP: &str = "172.19.0.1";
const DNS: &str = "172.19.0.2:53";

fn addr(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

/// An app's end with a port.
fn app(port: u16) -> SocketAddr {
    SocketAddr::new(APP.parse().expect("an address"), port)
}

fn run<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let limited =
        async { tokio::time::timeout(Duration::from_secs(20), test).await.expect("no test takes so long") };
    tokio::task::LocalSet::new().block_on(&runtime, limited)
}

/// A config whose freedom outbound leads every flow to a port of this machine.
fn redirecting(port: u16) -> Config {
    let mut config = config();
    if let OutboundProtocol::Freedom(freedom) = &mut config.outbounds[0].protocol {
        freedom.redirect = Some((Some(Host::Ip([127, 0, 0, 1].into())), port));
    }
    config
}

/// A config that sends everything to nowhere.
fn blackhole() -> Config {
    let protocol = OutboundProtocol::Blackhole { http: false };
    Config { outbounds: vec![Outbound::new("nowhere", protocol)], ..config() }
}

/// The other end of a device.
struct Kernel {
    fd: OwnedFd,
}

impl Kernel {
    /// Makes a device and its other end.
    fn pair() -> (TunHandle, Self) {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let (ours, fd) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).expect("a pair");
        (TunHandle { fd: ours, mtu: Some(MTU as u32), framing: Framing::RawIp }, Self { fd })
    }

    /// Sends a packet, if there is room.
    fn send(&self, packet: &[u8]) -> bool {
        rustix::net::send(&self.fd, packet, SendFlags::NOSIGNAL).is_ok()
    }

    /// The next packet, if there is one. Empty once the device is closed.
    fn try_receive(&self) -> Option<Vec<u8>> {
        let mut buffer = vec![0; 70_000];
        match rustix::net::recv(&self.fd, &mut buffer[..], RecvFlags::DONTWAIT) {
            Ok((len, _)) => {
                buffer.truncate(len);
                Some(buffer)
            }
            Err(Errno::AGAIN) => None,
            // Closed with packets in it that nobody had read.
            Err(Errno::CONNRESET) => Some(Vec::new()),
            Err(error) => panic!("the device: {error}"),
        }
    }

    /// Waits for the next packet. Others have their turn meanwhile.
    async fn receive(&self) -> Vec<u8> {
        loop {
            if let Some(packet) = self.try_receive() {
                return packet;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Sends a datagram, unfragmented and with DF.
    async fn send_datagram(&self, source: SocketAddr, destination: SocketAddr, data: &[u8]) {
        let mut header = ip::Header::new();
        header.push_ip(source.ip(), destination.ip(), ip::Protocol::Udp, udp::HEADER + data.len(), None);
        header.push(&udp::header(source, destination, data).expect("short"));
        let packet = [header.as_slice(), data].concat();
        while !self.send(&packet) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Waits for a datagram: its source, its destination and what it carries.
    async fn receive_datagram(&self) -> (SocketAddr, SocketAddr, Vec<u8>) {
        let bytes = self.receive().await;
        let packet = ip::parse(&bytes).expect("a legal packet");
        assert_eq!(packet.protocol, ip::Protocol::Udp);
        let datagram = udp::parse(packet.src, packet.dst, packet.payload, false).expect("a legal datagram");
        let source = SocketAddr::new(packet.src, datagram.source_port);
        (source, SocketAddr::new(packet.dst, datagram.destination_port), datagram.data.to_vec())
    }
}

/// A running tun inbound, its shard, and the other end of its device.
struct Bench {
    shard: Rc<Shard>,
    tun: Rc<Tun>,
    kernel: Kernel,
}

impl Bench {
    fn start(config: Config) -> Self {
        let shard = Shard::for_tests(config);
        let settings = crate::config::Tun {
            mtu: None,
            addresses: vec![Cidr::parse("172.19.0.1/30").expect("a network")],
            routes: Vec::new(),
            excluded_routes: Vec::new(),
            dns: addr(DNS).ip(),
            allow_apps: Vec::new(),
            deny_apps: Vec::new(),
            metered: None,
            icmp: Icmp::Reply,
            reject_udp443: true,
        };
        let inbound = Inbound { tag: "tun".into(), protocol: InboundProtocol::Tun(settings) };
        let (handle, kernel) = Kernel::pair();
        let tun = Tun::start(&shard, &inbound, handle).expect("a pair is a device");
        Self { shard, tun, kernel }
    }
}
