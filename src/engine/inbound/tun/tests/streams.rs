//! TCP flows from an app in smoltcp's hands, and what becomes of the device.

use super::*;
use crate::error::ErrorKind;
use smoltcp::iface::{Interface, PollResult, SocketHandle, SocketSet};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::tcp;
use smoltcp::time::Instant;
use smoltcp::wire::{HardwareAddress, IpAddress, IpCidr, Ipv4Address};
use std::sync::atomic::Ordering::Relaxed;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;

/// A server that sends back what it gets, and closes when its peer does.
async fn echo_server() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("bound").port();
    tokio::task::spawn_local(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::task::spawn_local(async move {
                let (mut from, mut to) = stream.split();
                let _ = tokio::io::copy(&mut from, &mut to).await;
                let _ = to.shutdown().await;
            });
        }
    });
    port
}

/// smoltcp's view of the device.
struct Phy(Rc<Kernel>);

struct Received(Vec<u8>);

struct Sending<'a>(&'a Kernel);

impl RxToken for Received {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

impl TxToken for Sending<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let mut packet = vec![0; len];
        let result = f(&mut packet);
        // What does not fit is lost, as on any device.
        self.0.send(&packet);
        result
    }
}

impl Device for Phy {
    type RxToken<'a> = Received;
    type TxToken<'a> = Sending<'a>;

    fn receive(&mut self, _: Instant) -> Option<(Received, Sending<'_>)> {
        let packet = self.0.try_receive().filter(|packet| !packet.is_empty())?;
        Some((Received(packet), Sending(&self.0)))
    }

    fn transmit(&mut self, _: Instant) -> Option<Sending<'_>> {
        Some(Sending(&self.0))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = MTU;
        capabilities
    }
}

/// An app with one connection.
struct Client {
    phy: Phy,
    interface: Interface,
    sockets: SocketSet<'static>,
    handle: SocketHandle,
}

impl Client {
    fn connect(kernel: Kernel, destination: &str) -> Self {
        let mut phy = Phy(Rc::new(kernel));
        let settings = smoltcp::iface::Config::new(HardwareAddress::Ip);
        let mut interface = Interface::new(settings, &mut phy, Instant::now());
        let address = IpAddress::from(app(0).ip());
        interface.update_ip_addrs(|list| list.push(IpCidr::new(address, 30)).expect("room"));
        interface.routes_mut().add_default_ipv4_route(Ipv4Address::new(172, 19, 0, 2)).expect("room");
        let buffer = || tcp::SocketBuffer::new(vec![0; 65_535]);
        let mut sockets = SocketSet::new(Vec::new());
        let handle = sockets.add(tcp::Socket::new(buffer(), buffer()));
        let destination = addr(destination);
        let socket = sockets.get_mut::<tcp::Socket<'_>>(handle);
        socket
            .connect(interface.context(), (IpAddress::from(destination.ip()), destination.port()), 40_000)
            .expect("a new socket");
        Self { phy, interface, sockets, handle }
    }

    /// Lets the app and everybody else work until `done` says so.
    async fn until(&mut self, mut done: impl FnMut(&mut tcp::Socket<'static>) -> bool) {
        loop {
            let moved = self.interface.poll(Instant::now(), &mut self.phy, &mut self.sockets);
            if done(self.sockets.get_mut::<tcp::Socket<'_>>(self.handle)) {
                self.interface.poll(Instant::now(), &mut self.phy, &mut self.sockets);
                return;
            }
            if moved == PollResult::None {
                tokio::time::sleep(Duration::from_millis(1)).await;
            } else {
                tokio::task::yield_now().await;
            }
        }
    }

    /// Sends `data`, expects it back, and calls `midway` once when half of it is there.
    async fn echo(&mut self, data: &[u8], midway: impl FnOnce(&mut Phy)) {
        let (mut sent, mut back) = (0, Vec::new());
        let mut midway = Some(midway);
        while back.len() < data.len() {
            let target = if midway.is_some() { data.len() / 2 } else { data.len() };
            self.until(|socket| {
                if socket.can_send() && sent < data.len() {
                    sent += socket.send_slice(&data[sent..]).expect("open");
                }
                while socket.can_recv() {
                    let received = socket.recv(|bytes| (bytes.len(), bytes.to_vec()));
                    back.extend(received.expect("open"));
                }
                back.len() >= target
            })
            .await;
            if let Some(midway) = midway.take() {
                midway(&mut self.phy);
            }
        }
        assert!(back == data, "what came back differs");
    }
}

fn payload(len: u32) -> Vec<u8> {
    (0..len).map(|n| (n ^ (n >> 8)) as u8).collect()
}

#[test]
fn a_stream_comes_back_whole_and_both_ends_close() {
    run(async {
        let Bench { shard, tun: _tun, kernel } = Bench::start(redirecting(echo_server().await));
        let mut client = Client::connect(kernel, "9.9.9.9:80");
        client.until(|socket| socket.may_send()).await;
        let data = payload(500_000);
        client.echo(&data, |_| ()).await;
        client
            .until(|socket| {
                socket.close();
                !socket.is_open() || socket.state() == tcp::State::TimeWait
            })
            .await;
        let stats = &shard.shared.stats;
        client.until(|_| stats.tcp_open.load(Relaxed) == 0).await;
        assert_eq!(stats.tcp_total.load(Relaxed), 1);
        assert_eq!(
            (stats.uplink_bytes.load(Relaxed), stats.downlink_bytes.load(Relaxed)),
            (500_000, 500_000)
        );
        assert!(stats.tun_packets_in.load(Relaxed) > 300 && stats.tun_packets_out.load(Relaxed) > 300);
        client.until(|_| shard.pool.used() == 0).await;
    });
}

#[test]
fn a_target_that_refuses_is_a_reset() {
    run(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("bound").port();
        drop(listener);
        let Bench { shard: _shard, tun: _tun, kernel } = Bench::start(redirecting(port));
        let mut client = Client::connect(kernel, "9.9.9.9:80");
        client.until(|socket| !socket.is_open()).await;
    });
}

/// A listener whose queue is full, so that connections to it hang; and those that fill it.
async fn hanging() -> (socket2::Socket, u16, Vec<tokio::net::TcpStream>) {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
    socket.bind(&addr("127.0.0.1:0").into()).expect("bound");
    socket.listen(0).expect("listening");
    let address = socket.local_addr().ok().and_then(|local| local.as_socket()).expect("bound");
    let mut held = Vec::new();
    let connect =
        || tokio::time::timeout(Duration::from_millis(200), tokio::net::TcpStream::connect(address));
    while let Ok(connected) = connect().await {
        held.push(connected.expect("connected"));
    }
    (socket, address.port(), held)
}

#[test]
fn an_app_that_resets_while_the_server_is_dialled_ends_the_dial() {
    run(async {
        let (_listener, port, _held) = hanging().await;
        let mut config = config();
        config.outbounds[0].protocol = vmess_to(port);
        let Bench { shard, tun: _tun, kernel } = Bench::start(config);
        let mut client = Client::connect(kernel, "9.9.9.9:80");
        client.until(|socket| socket.may_send()).await;
        client.until(|socket| socket.send_slice(b"early").is_ok()).await;
        let stats = &shard.shared.stats;
        client.until(|_| stats.tcp_open.load(Relaxed) == 1).await;
        client.until(|socket| socket.send_queue() == 0).await;
        let started = tokio::time::Instant::now();
        client
            .until(|socket| {
                socket.abort();
                stats.tcp_open.load(Relaxed) == 0
            })
            .await;
        assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
        assert_eq!((stats.dial_failures.load(Relaxed), shard.pool.used()), (0, 0));
    });
}

/// A VMess outbound whose server is on this machine.
fn vmess_to(port: u16) -> OutboundProtocol {
    let user = crate::config::VmessUser {
        id: crate::vmess::Id::from_bytes([7; 16]),
        alter_id: 0,
        security: crate::vmess::Security::Auto,
        level: 0,
        email: String::new(),
        authenticated_length: false,
        no_termination_signal: false,
    };
    let target = addr(&format!("127.0.0.1:{port}")).into();
    let servers = vec![crate::config::VmessServer { target, users: vec![user] }];
    OutboundProtocol::Vmess(crate::config::Vmess { servers, packet_encoding: Default::default() })
}

#[test]
fn dns_over_tls_to_the_address_in_the_tunnel_is_refused_and_dns_over_tcp_is_not() {
    run(async {
        let Bench { shard: _shard, tun: _tun, kernel } = Bench::start(redirecting(echo_server().await));
        let mut client = Client::connect(kernel, "172.19.0.2:853");
        client.until(|socket| !socket.is_open()).await;
        let Bench { shard: _shard, tun: _tun, kernel } = Bench::start(redirecting(echo_server().await));
        let mut client = Client::connect(kernel, "172.19.0.2:53");
        client.until(|socket| socket.may_send()).await;
    });
}

#[test]
fn a_flow_lives_on_when_the_device_is_another() {
    run(async {
        let Bench { shard: _shard, tun, kernel } = Bench::start(redirecting(echo_server().await));
        let mut client = Client::connect(kernel, "9.9.9.9:80");
        client.until(|socket| socket.may_send()).await;
        let (handle, next) = Kernel::pair();
        let mut old = None;
        let swap = |phy: &mut Phy| {
            tun.replace(handle).expect("a pair is a device");
            old = Some(std::mem::replace(&mut phy.0, Rc::new(next)));
        };
        client.echo(&payload(400_000), swap).await;
        // The old device is closed, after what it still held.
        let old = old.expect("swapped");
        while !old.receive().await.is_empty() {}
    });
}

#[test]
fn a_device_that_is_gone_is_told_and_a_new_one_may_come() {
    run(async {
        let Bench { shard: _shard, tun, kernel } = Bench::start(redirecting(echo_server().await));
        let gone = tun.gone();
        drop(kernel);
        assert_eq!(gone.await.kind, ErrorKind::TunGone);
        let (handle, kernel) = Kernel::pair();
        tun.replace(handle).expect("a pair is a device");
        let mut client = Client::connect(kernel, "9.9.9.9:80");
        client.until(|socket| socket.may_send()).await;
        client.echo(&payload(10_000), |_| ()).await;
    });
}

#[test]
fn a_tun_that_is_dropped_lets_everything_go() {
    run(async {
        let Bench { shard, tun, kernel } = Bench::start(redirecting(echo_server().await));
        let mut client = Client::connect(kernel, "9.9.9.9:80");
        client.until(|socket| socket.may_send()).await;
        client.echo(&payload(1000), |_| ()).await;
        client.phy.0.send_datagram(app(9), addr("9.9.9.9:9"), b"x").await;
        let stats = &shard.shared.stats;
        client.until(|_| stats.udp_open.load(Relaxed) == 1).await;
        drop(tun);
        while !client.phy.0.receive().await.is_empty() {}
        while stats.tcp_open.load(Relaxed) + stats.udp_open.load(Relaxed) > 0 {
            tokio::task::yield_now().await;
        }
    });
}
