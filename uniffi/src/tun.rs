//! Tun descriptors in, tun settings out.

use crate::error::TunnelError;
use crate::network::texts;
use rustix::io::{Errno, FdFlags, fcntl_getfd, fcntl_setfd};
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd};

/// Whose a descriptor is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, uniffi::Enum)]
pub enum FdOwnership {
    /// The caller's: the tunnel works on a duplicate.
    Borrowed,
    /// The tunnel's from the call on, also when the call fails: it closes it (`ParcelFileDescriptor.detachFd`).
    Owned,
}

/// How packets are framed on a tun file descriptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, uniffi::Enum)]
pub enum Framing {
    /// One bare IP packet a read or write (Android, Linux with `IFF_NO_PI`).
    RawIp,
    /// Four bytes of address family before each packet (macOS and iOS utun).
    DarwinUtun,
    /// A 10-byte virtio-net header before each packet; the host has set `IFF_VNET_HDR` and the offloads (Linux).
    VnetHdr,
}

impl From<Framing> for vmesskit::Framing {
    fn from(framing: Framing) -> Self {
        match framing {
            Framing::RawIp => Self::RawIp,
            Framing::DarwinUtun => Self::DarwinUtun,
            Framing::VnetHdr => Self::VnetHdr,
        }
    }
}

/// A tun file descriptor and what may be done with it.
#[derive(Debug, Clone, PartialEq, Eq, uniffi::Record)]
pub struct TunHandle {
    /// The descriptor.
    pub fd: i32,
    /// The device's MTU in bytes; absent: the one of the tun settings.
    pub mtu: Option<u32>,
    /// Whose it is.
    pub ownership: FdOwnership,
    /// How packets are framed on it.
    pub framing: Framing,
}

/// A tun that is taken over as the arguments of a call are read, so that it has an owner even if the call is cancelled
/// before it runs. Other languages see the record.
#[derive(Debug)]
pub struct Tun(Result<vmesskit::TunHandle, TunnelError>);

impl Tun {
    /// The tun, or why it could not be taken.
    ///
    /// # Errors
    /// As [`take`].
    pub(crate) fn get(self) -> Result<vmesskit::TunHandle, TunnelError> {
        self.0
    }
}

impl From<TunHandle> for Tun {
    fn from(tun: TunHandle) -> Self {
        Self(take(&tun))
    }
}

// SAFETY: reads what the record reads, under the record's own type.
unsafe impl<UT> uniffi::Lift<UT> for Tun
where
    TunHandle: uniffi::Lift<UT>,
{
    type FfiType = <TunHandle as uniffi::Lift<UT>>::FfiType;

    fn try_lift(value: Self::FfiType) -> uniffi::Result<Self> {
        <TunHandle as uniffi::Lift<UT>>::try_lift(value).map(Self::from)
    }

    fn try_read(buffer: &mut &[u8]) -> uniffi::Result<Self> {
        <TunHandle as uniffi::Lift<UT>>::try_read(buffer).map(Self::from)
    }
}

impl<UT> uniffi::TypeId<UT> for Tun
where
    TunHandle: uniffi::TypeId<UT>,
{
    const TYPE_ID_META: uniffi::MetadataBuffer = <TunHandle as uniffi::TypeId<UT>>::TYPE_ID_META;
}

/// Takes a host's tun over, or a duplicate of it. The descriptor becomes close-on-exec.
///
/// # Errors
/// `Misuse` for a number that is no open descriptor; `ResourceLimit` if there is none left for a duplicate.
pub(crate) fn take(tun: &TunHandle) -> Result<vmesskit::TunHandle, TunnelError> {
    Ok(vmesskit::TunHandle { fd: take_fd(tun.fd, tun.ownership)?, mtu: tun.mtu, framing: tun.framing.into() })
}

/// Adopts a descriptor, or duplicates it. The one place where a number becomes a descriptor.
///
/// # Errors
/// As [`take`].
fn take_fd(fd: i32, ownership: FdOwnership) -> Result<OwnedFd, TunnelError> {
    if fd < 0 {
        return Err(TunnelError::misuse(format!("tun.fd is {fd}")));
    }
    // SAFETY: not negative, and borrowed for the two calls below alone; a closed one makes them fail with EBADF.
    let lent = unsafe { BorrowedFd::borrow_raw(fd) };
    let flags = fcntl_getfd(lent).map_err(|error| refused(fd, error))?;
    if ownership == FdOwnership::Borrowed {
        return rustix::io::fcntl_dupfd_cloexec(lent, 0).map_err(|error| refused(fd, error));
    }
    // SAFETY: open, as was just seen, and given up by the host, as `FdOwnership::Owned` says.
    let owned = unsafe { OwnedFd::from_raw_fd(fd) };
    fcntl_setfd(&owned, flags | FdFlags::CLOEXEC).map_err(|error| refused(fd, error))?;
    Ok(owned)
}

/// Says why a descriptor cannot be taken.
fn refused(fd: i32, error: Errno) -> TunnelError {
    let reason = std::io::Error::from(error).to_string();
    let (kind, text) = if error == Errno::MFILE {
        let kind = vmesskit::ErrorKind::ResourceLimit { what: "file descriptors" };
        (kind, "no file descriptor is left for the tun device".to_owned())
    } else {
        (vmesskit::ErrorKind::Misuse, format!("tun.fd {fd} is no open file descriptor"))
    };
    vmesskit::Error::new(kind, text).with_reason(reason).into()
}

/// How a host sets its tun device up. The only source for it.
#[derive(Debug, Clone, PartialEq, Eq, uniffi::Record)]
pub struct TunSettings {
    /// The device's MTU in bytes.
    pub mtu: u32,
    /// The device's addresses with their prefixes, such as `172.19.0.1/30`.
    pub addresses: Vec<String>,
    /// What to route into it, with prefixes.
    pub routes: Vec<String>,
    /// What to keep out of it, with prefixes.
    pub excluded_routes: Vec<String>,
    /// The DNS servers to announce, without prefixes.
    pub dns: Vec<String>,
    /// Apps that alone use the tunnel (Android package names).
    pub allow_apps: Vec<String>,
    /// Apps that do not use it.
    pub deny_apps: Vec<String>,
    /// Whether it is to count as metered, if the config says so.
    pub metered: Option<bool>,
}

impl From<vmesskit::TunSettings> for TunSettings {
    fn from(settings: vmesskit::TunSettings) -> Self {
        Self {
            mtu: settings.mtu,
            addresses: texts(&settings.addresses),
            routes: texts(&settings.routes),
            excluded_routes: texts(&settings.excluded_routes),
            dns: texts(&settings.dns),
            allow_apps: settings.allow_apps,
            deny_apps: settings.deny_apps,
            metered: settings.metered,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::{AsRawFd, IntoRawFd};

    fn tun(fd: i32, ownership: FdOwnership) -> TunHandle {
        TunHandle { fd, mtu: Some(1500), ownership, framing: Framing::RawIp }
    }

    #[test]
    fn a_borrowed_descriptor_is_duplicated() {
        let ours = std::fs::File::open("/dev/null").unwrap();
        let taken = take(&tun(ours.as_raw_fd(), FdOwnership::Borrowed)).unwrap();
        assert_ne!(taken.fd.as_raw_fd(), ours.as_raw_fd());
        assert!(fcntl_getfd(&taken.fd).unwrap().contains(FdFlags::CLOEXEC));
    }

    #[test]
    fn an_owned_descriptor_is_adopted() {
        let fd = std::fs::File::open("/dev/null").unwrap();
        fcntl_setfd(&fd, FdFlags::empty()).unwrap();
        let fd = fd.into_raw_fd();
        let taken = take(&tun(fd, FdOwnership::Owned)).unwrap();
        assert_eq!((taken.fd.as_raw_fd(), taken.mtu), (fd, Some(1500)));
        assert!(fcntl_getfd(&taken.fd).unwrap().contains(FdFlags::CLOEXEC));
    }

    #[test]
    fn an_argument_owns_its_descriptor_from_the_moment_it_is_read() {
        let (ours, theirs) = std::os::unix::net::UnixDatagram::pair().unwrap();
        let mut bytes = Vec::new();
        let sent = tun(theirs.into_raw_fd(), FdOwnership::Owned);
        <TunHandle as uniffi::Lower<crate::UniFfiTag>>::write(sent, &mut bytes);
        let argument = <Tun as uniffi::Lift<crate::UniFfiTag>>::try_read(&mut &bytes[..]).unwrap();
        ours.send(b"x").unwrap();
        drop(argument);
        assert!(ours.send(b"x").is_err(), "nobody has polled anything");
    }

    #[test]
    fn what_is_no_descriptor_is_misuse() {
        for fd in [-1, i32::MIN, 999_999] {
            for ownership in [FdOwnership::Borrowed, FdOwnership::Owned] {
                let TunnelError::Failed { kind, .. } = take(&tun(fd, ownership)).unwrap_err();
                assert_eq!(kind, crate::ErrorKind::Misuse);
            }
        }
    }
}
