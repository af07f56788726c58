//! The tun file descriptor: packets read in batches, packets written as header and slices, in the host's framing.
//!
//! Anything that keeps packet boundaries will do: a tun device, a utun, one end of a `SOCK_SEQPACKET` or `SOCK_DGRAM`
//! pair.

use super::framing::{self, PREFIX_MAX, Prefix};
use super::stack::{Blocked, Offload, PacketMeta, PacketSink};
use crate::engine::api::{Framing, TunHandle};
use crate::error::{Error, ErrorKind};
use rustix::io::Errno;
use std::cell::{Cell, RefCell};
use std::io::IoSlice;
use std::os::fd::OwnedFd;
use std::time::Duration;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::Instant;

/// The largest packet that is read, with room for the framing before it.
pub(crate) const READ_BUFFER: usize = 65_535 + PREFIX_MAX;
/// How many slices of payload go out without a list on the heap.
const INLINE_SLICES: usize = 17;
/// How long a device that is out of buffers or down is left alone at first, and at most.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(2), Duration::from_millis(500));

/// A tun device.
#[derive(Debug)]
pub(crate) struct Device {
    fd: AsyncFd<OwnedFd>,
    framing: Framing,
    mtu: usize,
    is_socket: bool,
    /// Why the last packet was not taken.
    blocked: Cell<Option<Obstacle>>,
    back_off: Cell<Duration>,
    /// When a device that cannot tell is tried again. Kept here, because the wait may be cancelled and begun anew.
    retry_at: Cell<Option<Instant>>,
    /// Why the device cannot be used any more.
    gone: RefCell<Option<Error>>,
    refused: Cell<u64>,
}

/// Why the device takes no packet at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Obstacle {
    /// Its queue is full; it tells when there is room.
    Full,
    /// It is out of buffers, or down; it does not tell when that has passed.
    Unable,
}

impl Device {
    /// Takes a descriptor over: non-blocking, close-on-exec, registered with the thread's runtime. `mtu` is used if the
    /// handle gives none.
    ///
    /// # Errors
    /// `TunIo` if the descriptor is not fit for it; `Misuse` if the MTU is out of range.
    pub(crate) fn new(handle: TunHandle, mtu: usize) -> Result<Self, Error> {
        let mtu = handle.mtu.map_or(mtu, |mtu| mtu as usize);
        if !(1280..=65_535).contains(&mtu) {
            let text = format!("the tun device's MTU is {mtu}, it must be 1280 to 65535");
            return Err(Error::new(ErrorKind::Misuse, text));
        }
        let prepare = || -> Result<(), Errno> {
            let flags = rustix::fs::fcntl_getfl(&handle.fd)?;
            rustix::fs::fcntl_setfl(&handle.fd, flags | rustix::fs::OFlags::NONBLOCK)?;
            let flags = rustix::io::fcntl_getfd(&handle.fd)?;
            rustix::io::fcntl_setfd(&handle.fd, flags | rustix::io::FdFlags::CLOEXEC)
        };
        prepare().map_err(|errno| unfit(&errno.to_string()))?;
        let is_socket = rustix::net::sockopt::socket_type(&handle.fd).is_ok();
        let interest = Interest::READABLE | Interest::WRITABLE | Interest::ERROR;
        #[allow(deprecated, reason = "the new name asks for what an `OwnedFd` warrants: it stays open")]
        let fd = AsyncFd::with_interest(handle.fd, interest).map_err(|error| unfit(&error.to_string()))?;
        Ok(Self {
            fd,
            framing: handle.framing,
            mtu,
            is_socket,
            blocked: Cell::new(None),
            back_off: Cell::new(BACK_OFF.0),
            retry_at: Cell::new(None),
            gone: RefCell::new(None),
            refused: Cell::new(0),
        })
    }

    /// The device's MTU in bytes.
    pub(crate) fn mtu(&self) -> usize {
        self.mtu
    }

    /// Whether packets carry a virtio-net header, so that the kernel cuts segments and computes checksums.
    pub(crate) fn offloads(&self) -> bool {
        self.framing == Framing::VnetHdr
    }

    /// How many packets the device has refused for good, and so were dropped, since the last call.
    pub(crate) fn take_refused(&self) -> u64 {
        self.refused.take()
    }

    /// Waits until there is something to read, then reads up to `limit` packets into `buffer` and gives each to `take`.
    /// Returns how many there were; fewer than `limit` mean that no more was there.
    ///
    /// `buffer` has [`READ_BUFFER`] bytes. Cancelling the wait loses nothing.
    ///
    /// # Errors
    /// `TunGone` or `TunIo`: the device is of no use any more.
    pub(crate) async fn read_batch(
        &self,
        limit: usize,
        buffer: &mut [u8],
        mut take: impl FnMut(&[u8], PacketMeta),
    ) -> Result<usize, Error> {
        loop {
            let interest = Interest::READABLE | Interest::ERROR;
            let mut guard = self.fd.ready(interest).await.map_err(|error| gone(&error.to_string()))?;
            let mut count = 0;
            while count < limit {
                match rustix::io::read(guard.get_inner(), &mut *buffer) {
                    Ok(0) => return Err(gone("end of file")),
                    Ok(len) => {
                        count += 1;
                        framing::strip(self.framing, buffer.get(..len).unwrap_or_default(), &mut take);
                    }
                    // A device that is down may say EIO: it is a wait like any other.
                    Err(Errno::AGAIN | Errno::IO | Errno::NOBUFS) => {
                        guard.clear_ready();
                        break;
                    }
                    Err(Errno::INTR) => {}
                    Err(errno) => return Err(lost(errno)),
                }
            }
            if count > 0 {
                return Ok(count);
            }
        }
    }

    /// Waits until the device may take packets again, then lets `transmit` try; repeated until it is not blocked.
    /// Cancelling the wait loses nothing.
    ///
    /// # Errors
    /// `TunGone` or `TunIo`: the device is of no use any more.
    pub(crate) async fn unblock(
        &self,
        mut transmit: impl FnMut() -> Result<(), Blocked>,
    ) -> Result<(), Error> {
        loop {
            if let Some(error) = self.gone.borrow().clone() {
                return Err(error);
            }
            match self.blocked.get() {
                None => return Ok(()),
                Some(Obstacle::Full) => {
                    let guard = self.fd.ready(Interest::WRITABLE).await;
                    let mut guard = guard.map_err(|error| gone(&error.to_string()))?;
                    match transmit() {
                        // Perhaps there was nothing left to send.
                        Ok(()) => self.blocked.set(None),
                        Err(Blocked) if self.blocked.get() == Some(Obstacle::Full) => guard.clear_ready(),
                        Err(Blocked) => {}
                    }
                }
                Some(Obstacle::Unable) => {
                    let at = self.retry_at.get().unwrap_or_else(|| {
                        let pause = self.back_off.get();
                        self.back_off.set((pause * 2).min(BACK_OFF.1));
                        Instant::now() + pause
                    });
                    self.retry_at.set(Some(at));
                    tokio::time::sleep_until(at).await;
                    self.retry_at.set(None);
                    if transmit().is_ok() {
                        self.blocked.set(None);
                    }
                }
            }
        }
    }

    /// Whether the last packet was not taken, or the device is gone: [`Device::unblock`] has something to do.
    pub(crate) fn is_blocked(&self) -> bool {
        self.blocked.get().is_some()
    }

    fn write(&self, slices: &[IoSlice<'_>]) -> Result<usize, Errno> {
        #[cfg(any(target_os = "linux", target_os = "android"))]
        if self.is_socket {
            // A socket whose other end is closed would raise SIGPIPE.
            let flags = rustix::net::SendFlags::NOSIGNAL;
            let mut control = rustix::net::SendAncillaryBuffer::default();
            return rustix::net::sendmsg(self.fd.get_ref(), slices, &mut control, flags);
        }
        let _ = self.is_socket;
        rustix::io::writev(self.fd.get_ref(), slices)
    }
}

impl PacketSink for &Device {
    fn send(&mut self, header: &[u8], payload: &[&[u8]], offload: Option<Offload>) -> Result<(), Blocked> {
        if self.gone.borrow().is_some() {
            return Err(Blocked);
        }
        let prefix = Prefix::new(self.framing, header, offload);
        let mut inline = [IoSlice::new(&[]); INLINE_SLICES + 2];
        let long: Vec<IoSlice<'_>>;
        let slices = if payload.len() <= INLINE_SLICES {
            let list = [prefix.as_slice(), header].into_iter().chain(payload.iter().copied());
            for (slot, slice) in inline.iter_mut().zip(list) {
                *slot = IoSlice::new(slice);
            }
            &inline[usize::from(prefix.as_slice().is_empty())..payload.len() + 2]
        } else {
            let list = [prefix.as_slice(), header].into_iter().chain(payload.iter().copied());
            long = list.map(IoSlice::new).collect();
            &long[..]
        };
        loop {
            let obstacle = match self.write(slices) {
                Ok(_) => {
                    self.blocked.set(None);
                    self.back_off.set(BACK_OFF.0);
                    return Ok(());
                }
                Err(Errno::INTR) => continue,
                Err(Errno::AGAIN) => Obstacle::Full,
                Err(Errno::NOBUFS | Errno::NOMEM | Errno::IO) => Obstacle::Unable,
                // This packet will never be taken; the next one may.
                Err(Errno::INVAL | Errno::MSGSIZE) => {
                    self.refused.set(self.refused.get() + 1);
                    self.blocked.set(None);
                    return Ok(());
                }
                Err(errno) => {
                    *self.gone.borrow_mut() = Some(lost(errno));
                    Obstacle::Unable
                }
            };
            self.blocked.set(Some(obstacle));
            return Err(Blocked);
        }
    }
}

fn unfit(reason: &str) -> Error {
    Error::new(ErrorKind::TunIo, "the tun descriptor cannot be used")
        .with_hint("pass the descriptor of an open tun device")
        .with_reason(reason.to_owned())
}

fn gone(reason: &str) -> Error {
    Error::new(ErrorKind::TunGone, "the tun device is gone").with_reason(reason.to_owned())
}

/// The error of a device that has failed for good.
fn lost(errno: Errno) -> Error {
    let text = errno.to_string();
    #[cfg(any(target_os = "linux", target_os = "android"))]
    let removed = errno == Errno::BADFD;
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    let removed = false;
    match errno {
        // Linux answers EFAULT while it takes a device apart.
        Errno::BADF | Errno::FAULT | Errno::NODEV | Errno::NXIO => gone(&text),
        Errno::NOTCONN | Errno::CONNREFUSED | Errno::CONNRESET | Errno::PIPE | Errno::SHUTDOWN => gone(&text),
        _ if removed => gone(&text),
        _ => Error::new(ErrorKind::TunIo, "reading or writing the tun device failed").with_reason(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
    use std::future::Future;

    fn run<T>(future: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
        runtime.block_on(async {
            tokio::time::timeout(Duration::from_secs(10), future).await.expect("no test takes that long")
        })
    }

    fn pair(kind: SocketType, framing: Framing) -> (Device, OwnedFd) {
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None).expect("socketpair");
        (Device::new(TunHandle { fd: ours, mtu: Some(1500), framing }, 1400).expect("device"), theirs)
    }

    #[test]
    fn packets_pass_both_ways_with_their_boundaries() {
        run(async {
            for kind in [SocketType::SEQPACKET, SocketType::DGRAM] {
                let (device, app) = pair(kind, Framing::DarwinUtun);
                for packet in [&b"\0\0\0\x02one"[..], b"\0\0\0\x1etwo"] {
                    rustix::io::write(&app, packet).expect("room");
                }
                let mut packets = Vec::new();
                let mut buffer = vec![0; READ_BUFFER];
                let take = |packet: &[u8], _| packets.push(packet.to_vec());
                assert_eq!(device.read_batch(64, &mut buffer, take).await, Ok(2));
                assert_eq!(packets, [b"one", b"two"]);

                let many = vec![&b"ab"[..]; 40];
                for payload in [&many[..3], &many[..]] {
                    (&device).send(b"\x45head", payload, None).expect("room");
                    let len = rustix::io::read(&app, &mut buffer).expect("a packet");
                    assert_eq!(buffer[..len], [b"\0\0\0\x02\x45head", payload.concat().as_slice()].concat());
                }
            }
        });
    }

    #[test]
    fn a_full_queue_blocks_until_it_is_read() {
        run(async {
            let (device, app) = pair(SocketType::SEQPACKET, Framing::RawIp);
            let mut sent = 0u32;
            while (&device).send(&sent.to_be_bytes(), &[&[0; 1000]], None).is_ok() {
                sent += 1;
            }
            assert!(device.is_blocked() && sent > 0);
            let total = sent + 50;
            let reader = async {
                let mut buffer = vec![0; 2000];
                for n in 0..total {
                    while rustix::net::recv(&app, &mut buffer[..], rustix::net::RecvFlags::DONTWAIT)
                        == Err(Errno::AGAIN)
                    {
                        tokio::task::yield_now().await;
                    }
                    assert_eq!(buffer[..4], n.to_be_bytes());
                }
            };
            let writer = async {
                while sent < total {
                    let transmit = || {
                        while sent < total {
                            (&device).send(&sent.to_be_bytes(), &[&[0; 1000]], None)?;
                            sent += 1;
                        }
                        Ok(())
                    };
                    device.unblock(transmit).await.expect("the device lives");
                }
            };
            tokio::join!(writer, reader);
            assert!(!device.is_blocked());

            // With nothing left to send the device is as good as free.
            while (&device).send(b"more", &[&[0; 1000]], None).is_ok() {}
            rustix::net::recv(&app, &mut [0; 2000][..], rustix::net::RecvFlags::DONTWAIT).expect("a packet");
            assert_eq!(device.unblock(|| Ok(())).await, Ok(()));
            assert!(!device.is_blocked());
        });
    }

    #[test]
    fn a_closed_end_is_gone_and_never_a_spin() {
        run(async {
            let (device, app) = pair(SocketType::SEQPACKET, Framing::RawIp);
            drop(app);
            let mut buffer = vec![0; READ_BUFFER];
            let read = device.read_batch(64, &mut buffer, |_, _| {}).await;
            assert_eq!(read.map_err(|error| error.kind), Err(ErrorKind::TunGone));
            assert_eq!((&device).send(b"head", &[], None), Err(Blocked));
            let sent = device.unblock(|| Ok(())).await;
            assert_eq!(sent.map_err(|error| error.kind), Err(ErrorKind::TunGone));
        });
    }

    #[test]
    fn what_is_no_tun_is_refused_with_its_reason() {
        run(async {
            let file = std::fs::File::open("/").expect("a directory");
            let handle = TunHandle { fd: file.into(), mtu: None, framing: Framing::RawIp };
            let error = Device::new(handle, 1500).expect_err("epoll does not take it");
            assert_eq!(error.kind, ErrorKind::TunIo);
            assert!(!error.reason.is_empty());
            let (one, _other) =
                socketpair(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::empty(), None).expect("pair");
            let handle = TunHandle { fd: one, mtu: Some(500), framing: Framing::RawIp };
            assert_eq!(Device::new(handle, 1500).expect_err("too small").kind, ErrorKind::Misuse);
        });
    }
}
