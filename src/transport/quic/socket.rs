//! The socket below QUIC: what leaves it is disguised, what comes is opened, several datagrams a call where the system can.

use super::disguise::Disguise;
use crate::engine::SystemEntropy;
use crate::transport::packet_header::HeaderWriter;
use quinn::udp::{RecvMeta, Transmit, UdpSocketState};
use quinn::{AsyncUdpSocket, UdpPoller};
use std::fmt;
use std::future::{Future, pending};
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use tokio::io::Interest;
use tokio::net::UdpSocket;

/// How many runs of datagrams one call receives: each is up to 64 KiB of memory that is touched.
const RUNS: usize = 4;

/// How much the system holds for a socket each way.
const BUFFER: usize = 1 << 20;

/// A UDP socket for QUIC.
pub(super) struct QuicSocket {
    /// `None` once it is closed, which happens before quinn is through with it.
    io: Mutex<Option<Arc<UdpSocket>>>,
    local: SocketAddr,
    state: UdpSocketState,
    disguise: Disguise,
    sealing: Mutex<Sealing>,
}

/// What is needed to disguise.
struct Sealing {
    writer: HeaderWriter,
    entropy: SystemEntropy,
    out: Vec<u8>,
}

impl QuicSocket {
    /// Takes over a bound socket.
    ///
    /// # Errors
    /// The system's.
    pub(super) fn new(io: UdpSocket, disguise: Disguise) -> io::Result<Arc<Self>> {
        let state = UdpSocketState::new((&io).into())?;
        // What comes in a burst waits there; a system that allows less gives what it allows.
        let _ = state.set_recv_buffer_size((&io).into(), BUFFER);
        let _ = state.set_send_buffer_size((&io).into(), BUFFER);
        let mut entropy = SystemEntropy::new();
        let writer = disguise.writer(&mut entropy);
        Ok(Arc::new(Self {
            local: io.local_addr()?,
            state,
            io: Mutex::new(Some(Arc::new(io))),
            disguise,
            sealing: Mutex::new(Sealing { writer, entropy, out: Vec::new() }),
        }))
    }

    /// Closes the socket at once: nothing leaves and nothing comes any more.
    pub(super) fn close(&self) {
        lock(&self.io).take();
    }

    fn io(&self) -> Option<Arc<UdpSocket>> {
        lock(&self.io).clone()
    }

    /// Opens what has come into a buffer, one datagram or several of one length but for the last: QUIC's end up at its
    /// front, in the same form.
    pub(super) fn open(&self, bytes: &mut [u8], meta: &mut RecvMeta) {
        if self.disguise.overhead() == 0 {
            return;
        }
        let (len, stride) = (meta.len.min(bytes.len()), meta.stride.max(1));
        let (mut from, mut to, mut first) = (0, 0, None);
        while from < len {
            let end = len.min(from + stride);
            let opened = bytes.get_mut(from..end).and_then(|datagram| self.disguise.open(datagram));
            if let Some(opened) = opened {
                let size = opened.len();
                // What another sender mixed in among datagrams of one length has another one: nobody needs it.
                if to == 0 || first.is_some_and(|first| size <= first) {
                    first.get_or_insert(size);
                    bytes.copy_within(from + opened.start..from + opened.end, to);
                    to += size;
                }
            }
            from = end;
        }
        meta.len = to;
        meta.stride = first.unwrap_or(0);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl fmt::Debug for QuicSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QuicSocket").field("local", &self.local).finish_non_exhaustive()
    }
}

impl AsyncUdpSocket for QuicSocket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(Poller { socket: self, waiting: None })
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        // What is sent on a closed socket is lost, as it is on the way.
        let Some(io) = self.io() else { return Ok(()) };
        let send = |transmit: &Transmit<'_>| {
            io.try_io(Interest::WRITABLE, || self.state.send((&*io).into(), transmit))
        };
        if self.disguise.overhead() == 0 {
            return send(transmit);
        }
        let mut sealing = lock(&self.sealing);
        let Sealing { writer, entropy, out } = &mut *sealing;
        out.clear();
        let size = transmit.segment_size.unwrap_or(transmit.contents.len());
        for datagram in transmit.contents.chunks(size.max(1)) {
            self.disguise.seal(datagram, writer, entropy, out);
        }
        let segment_size = transmit.segment_size.map(|size| size + self.disguise.overhead());
        send(&Transmit { contents: out, segment_size, ..*transmit })
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        metas: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let Some(io) = self.io() else { return Poll::Pending };
        let runs = RUNS.min(bufs.len()).min(metas.len());
        let (Some(bufs), Some(metas)) = (bufs.get_mut(..runs), metas.get_mut(..runs)) else {
            return Poll::Pending;
        };
        loop {
            ready!(io.poll_recv_ready(cx))?;
            let received = io.try_io(Interest::READABLE, || self.state.recv((&*io).into(), bufs, metas));
            match received {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
                Ok(n) => {
                    for (bytes, meta) in bufs.iter_mut().zip(metas.iter_mut()).take(n) {
                        self.open(bytes, meta);
                    }
                    return Poll::Ready(Ok(n));
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.local)
    }

    fn may_fragment(&self) -> bool {
        self.state.may_fragment()
    }

    fn max_transmit_segments(&self) -> usize {
        self.state.max_gso_segments()
    }

    fn max_receive_segments(&self) -> usize {
        self.state.gro_segments()
    }
}

/// Waits for room in the socket, each for one task.
struct Poller {
    socket: Arc<QuicSocket>,
    waiting: Option<Pin<Box<dyn Future<Output = io::Result<()>> + Send + Sync>>>,
}

impl fmt::Debug for Poller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Poller").finish_non_exhaustive()
    }
}

impl UdpPoller for Poller {
    fn poll_writable(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let waiting = this.waiting.get_or_insert_with(|| {
            let io = this.socket.io();
            Box::pin(async move {
                match io {
                    Some(io) => io.writable().await,
                    None => pending().await,
                }
            })
        });
        let result = ready!(waiting.as_mut().poll(cx));
        this.waiting = None;
        Poll::Ready(result)
    }
}
