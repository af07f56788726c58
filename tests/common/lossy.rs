//! A network between a client and a server on UDP: some datagrams get lost, some come twice, some come late.

use std::collections::HashMap;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

/// The network. It ends with this value.
pub(crate) struct Lossy {
    /// Where the clients are to send.
    pub(crate) port: u16,
    over: Arc<AtomicBool>,
}

impl Lossy {
    /// A network before a server on loopback that harms so many of a hundred datagrams in each of its ways.
    pub(crate) fn new(server: u16, percent: u32) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let front = Arc::new(socket());
        let port = front.local_addr().expect("bound").port();
        let ended = Arc::clone(&over);
        thread::spawn(move || {
            let mut clients: HashMap<SocketAddr, (Arc<UdpSocket>, Way)> = HashMap::new();
            let mut bytes = [0; 2048];
            while !ended.load(Relaxed) {
                let Ok((len, from)) = front.recv_from(&mut bytes) else { continue };
                let seed = clients.len() as u32 + 1;
                let (back, way) = clients.entry(from).or_insert_with(|| {
                    let back = Arc::new(socket());
                    back.connect(("127.0.0.1", server)).expect("connected");
                    let (theirs, ours, ended) = (Arc::clone(&back), Arc::clone(&front), Arc::clone(&ended));
                    thread::spawn(move || {
                        let (mut way, mut bytes) = (Way::new(seed + 1000, percent), [0; 2048]);
                        while !ended.load(Relaxed) {
                            let Ok(len) = theirs.recv(&mut bytes) else { continue };
                            way.pass(&bytes[..len], |datagram| drop(ours.send_to(datagram, from)));
                        }
                    });
                    (back, Way::new(seed, percent))
                });
                way.pass(&bytes[..len], |datagram| drop(back.send(datagram)));
            }
        });
        Self { port, over }
    }
}

impl Drop for Lossy {
    fn drop(&mut self) {
        self.over.store(true, Relaxed);
    }
}

fn socket() -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    socket.set_read_timeout(Some(Duration::from_millis(200))).expect("set");
    socket
}

/// One direction for one client.
struct Way {
    noise: u32,
    percent: u32,
    late: Option<Vec<u8>>,
}

impl Way {
    fn new(seed: u32, percent: u32) -> Self {
        Self { noise: seed, percent, late: None }
    }

    fn pass(&mut self, datagram: &[u8], send: impl Fn(&[u8])) {
        self.noise = self.noise.wrapping_mul(1_103_515_245).wrapping_add(12_345);
        let (fate, percent) = ((self.noise >> 16) % 100, self.percent);
        if fate >= percent {
            send(datagram);
        }
        if (percent..2 * percent).contains(&fate) {
            send(datagram);
        }
        if let Some(late) = self.late.take() {
            send(&late);
        }
        if (2 * percent..3 * percent).contains(&fate) {
            self.late = Some(datagram.to_vec());
        }
    }
}
