//! A plain SOCKS5 client, servers to reach through it, and a tunnel in front of them.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::thread;
use std::time::Duration;
use vmesskit::{NoPlatform, Options, Tunnel};

/// How long a test waits for anything.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A port of 127.0.0.1 that nobody uses at the moment.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port").port()
}

/// Starts a tunnel without a tun device.
pub(crate) fn start(config: &str) -> Tunnel {
    let tunnel = Tunnel::new(config, Options::default(), Arc::new(NoPlatform)).expect("a good config");
    tunnel.start(None).wait(Some(PATIENCE)).expect("in time").expect("started");
    tunnel
}

/// Stops a tunnel, which must be gone when this returns.
pub(crate) fn stop(tunnel: &Tunnel) {
    tunnel.stop(PATIENCE).wait(Some(PATIENCE)).expect("in time").expect("stopped");
}

/// A TCP server that sends everything back and ends when its client does.
pub(crate) fn tcp_echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let address = listener.local_addr().expect("address");
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            thread::spawn(move || {
                let mut back = stream.try_clone().expect("a second handle");
                let _ = io::copy(&mut stream, &mut back);
                let _ = back.shutdown(std::net::Shutdown::Write);
            });
        }
    });
    address
}

/// A UDP server that sends everything back.
pub(crate) fn udp_echo() -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("bind");
    let address = socket.local_addr().expect("address");
    thread::spawn(move || {
        let mut bytes = [0; 65_535];
        while let Ok((len, from)) = socket.recv_from(&mut bytes) {
            let _ = socket.send_to(&bytes[..len], from);
        }
    });
    address
}

/// An address on the wire: type, address, port.
pub(crate) fn wire(host: &str, port: u16) -> Vec<u8> {
    let mut out = match host.parse() {
        Ok(IpAddr::V4(ip)) => [&[1][..], &ip.octets()].concat(),
        Ok(IpAddr::V6(ip)) => [&[4][..], &ip.octets()].concat(),
        Err(_) => [&[3, host.len() as u8][..], host.as_bytes()].concat(),
    };
    out.extend_from_slice(&port.to_be_bytes());
    out
}

/// Says hello, with a user name and password if given; the error is the server's answer.
pub(crate) fn greet(port: u16, account: Option<(&str, &str)>) -> Result<TcpStream, Vec<u8>> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("connected");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream.set_nodelay(true).expect("an option");
    let method = if account.is_some() { 2 } else { 0 };
    stream.write_all(&[5, 1, method]).expect("sent");
    exact(&mut stream, &[5, method])?;
    if let Some((user, pass)) = account {
        let user = [&[1, user.len() as u8][..], user.as_bytes()].concat();
        let pass = [&[pass.len() as u8][..], pass.as_bytes()].concat();
        stream.write_all(&[user, pass].concat()).expect("sent");
        exact(&mut stream, &[1, 0])?;
    }
    Ok(stream)
}

/// Sends a request and reads its reply: the code and the bound address.
pub(crate) fn request(stream: &mut TcpStream, command: u8, host: &str, port: u16) -> (u8, SocketAddr) {
    stream.write_all(&[&[5, command, 0][..], &wire(host, port)].concat()).expect("sent");
    let mut reply = [0; 10];
    stream.read_exact(&mut reply).expect("a reply");
    assert_eq!((reply[0], reply[3]), (5, 1), "{reply:?}");
    let ip: [u8; 4] = reply[4..8].try_into().expect("four bytes");
    (reply[1], SocketAddr::new(ip.into(), u16::from_be_bytes([reply[8], reply[9]])))
}

/// Connects to a target through the server.
pub(crate) fn connect(port: u16, host: &str, target: u16) -> TcpStream {
    let mut stream = greet(port, None).expect("no password asked");
    assert_eq!(request(&mut stream, 1, host, target).0, 0, "{host}:{target}");
    stream
}

/// Sends `len` bytes while reading what comes back, ends, and checks that it was the same up to the server's own end.
pub(crate) fn exchange(stream: TcpStream, len: usize, seed: u32) {
    let mut stream = exchange_open(stream, len, seed);
    stream.shutdown(std::net::Shutdown::Write).expect("ended");
    assert_eq!(stream.read_to_end(&mut Vec::new()).expect("a proper end"), 0);
}

/// Sends `len` bytes while reading as many, checks that they are the same, and leaves the connection open.
pub(crate) fn exchange_open(mut stream: TcpStream, len: usize, seed: u32) -> TcpStream {
    let sent: Vec<u8> = (0..len as u32).map(|i| (i.wrapping_mul(seed | 1) >> 7) as u8).collect();
    let mut back = stream.try_clone().expect("a second handle");
    let reader = thread::spawn(move || {
        let mut got = vec![0; len];
        back.read_exact(&mut got).map(|()| got)
    });
    stream.write_all(&sent).expect("sent");
    let got = reader.join().expect("a reader").expect("received");
    assert!(
        got == sent,
        "{} of {len} bytes came back right",
        got.iter().zip(&sent).filter(|(a, b)| a == b).count()
    );
    stream
}

/// Moves streams, the largest of them of `most` bytes, and datagrams through a SOCKS inbound. `ends`: the streams are ended,
/// one direction after the other; not where they have both ends at once, as the sessions of mux do.
pub(crate) fn exercise(socks: u16, most: usize, ends: bool) {
    let (tcp, udp) = (tcp_echo().port(), udp_echo().port());
    for (len, seed) in [(1, 1), (4096, 2), (100_000, 3), (most, 4)] {
        let stream = connect(socks, "127.0.0.1", tcp);
        if ends {
            exchange(stream, len, seed);
        } else {
            exchange_open(stream, len, seed);
        }
    }
    let association = Association::new(socks);
    for len in [1, 512, 1400] {
        let payload = vec![len as u8; len];
        association.send("127.0.0.1", udp, &payload);
        assert!(association.receive().ends_with(&payload), "{len}");
    }
}

/// A client's UDP association. The connection holds it open.
pub(crate) struct Association {
    pub(crate) control: TcpStream,
    pub(crate) relay: SocketAddr,
    pub(crate) socket: UdpSocket,
}

impl Association {
    /// Asks for one.
    pub(crate) fn new(port: u16) -> Self {
        let mut control = greet(port, None).expect("no password asked");
        let (code, relay) = request(&mut control, 3, "0.0.0.0", 0);
        assert_eq!(code, 0);
        let socket = UdpSocket::bind("127.0.0.1:0").expect("bind");
        socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        Self { control, relay, socket }
    }

    /// Sends a payload to a target.
    pub(crate) fn send(&self, host: &str, port: u16, payload: &[u8]) {
        let datagram = [&[0, 0, 0][..], &wire(host, port), payload].concat();
        self.socket.send_to(&datagram, self.relay).expect("sent");
    }

    /// The next datagram, header and all.
    pub(crate) fn receive(&self) -> Vec<u8> {
        let mut bytes = vec![0; 65_535];
        let (len, from) = self.socket.recv_from(&mut bytes).expect("received");
        assert_eq!(from, self.relay);
        bytes.truncate(len);
        bytes
    }
}

fn exact(stream: &mut TcpStream, expected: &[u8]) -> Result<(), Vec<u8>> {
    let mut got = vec![0; expected.len()];
    stream.read_exact(&mut got).expect("an answer");
    if got == expected { Ok(()) } else { Err(got) }
}
