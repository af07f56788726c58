//! Tun descriptors in, tun settings out.

use crate::codes::{self, VMK_TUN_BORROWED, VMK_TUN_OWNED, vmk_result};
use crate::error::vmk_error;
use crate::guard::{guard, guard_or, misuse, required};
use crate::sized::{self, Sized32};
use crate::text::{self, EMPTY};
use crate::tunnel::vmk_tunnel;
use rustix::io::{Errno, FdFlags, fcntl_getfd, fcntl_setfd};
use std::ffi::{CString, c_char};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd};
use vmesskit::{Error, ErrorKind, TunHandle, TunSettings};

/// A tun file descriptor and what may be done with it.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct vmk_tun {
    /// `sizeof(vmk_tun)`.
    pub size: u32,
    /// The descriptor.
    pub fd: i32,
    /// The device's MTU in bytes; 0: the one of `vmk_tunnel_tun_settings`.
    pub mtu: u32,
    /// `VMK_TUN_BORROWED` or `VMK_TUN_OWNED`.
    pub ownership: u32,
    /// A `VMK_FRAMING_`.
    pub framing: u32,
}

// SAFETY: integers in C layout.
unsafe impl Sized32 for vmk_tun {
    const NAME: &'static str = "vmk_tun";
    const MIN: usize = 8;
}

const _: () = assert!(size_of::<vmk_tun>() == 20, "no padding");

/// Takes a host's tun over, or a duplicate of it; NULL: none. Whatever fails from here on, an owned descriptor is
/// closed. The descriptor becomes close-on-exec.
///
/// # Errors
/// `Misuse` for a wrong size, a number that is no open descriptor, an ownership or framing that does not exist;
/// `ResourceLimit` if there is no descriptor left for a duplicate.
///
/// # Safety
/// `from` is NULL or a struct that begins with its size; an owned descriptor has no other owner.
pub(crate) unsafe fn take(from: *const vmk_tun) -> Result<Option<TunHandle>, Error> {
    if from.is_null() {
        return Ok(None);
    }
    // SAFETY: the caller's promise, handed on.
    let raw = unsafe { sized::read(from) }?;
    // SAFETY: the same promise.
    let fd = unsafe { take_fd(raw.fd, raw.ownership) }?;
    let framing = codes::framing(raw.framing)?;
    Ok(Some(TunHandle { fd, mtu: (raw.mtu != 0).then_some(raw.mtu), framing }))
}

/// Adopts a descriptor, or duplicates it. The one place where a number becomes a descriptor.
///
/// # Errors
/// As [`take`].
///
/// # Safety
/// With `VMK_TUN_OWNED` the descriptor has no other owner.
unsafe fn take_fd(fd: RawFd, ownership: u32) -> Result<OwnedFd, Error> {
    if !matches!(ownership, VMK_TUN_BORROWED | VMK_TUN_OWNED) {
        return Err(misuse(format!("tun.ownership is {ownership}")));
    }
    if fd < 0 {
        return Err(misuse(format!("tun.fd is {fd}")));
    }
    // SAFETY: not negative, and borrowed for the two calls below alone; a closed one makes them fail with EBADF.
    let lent = unsafe { BorrowedFd::borrow_raw(fd) };
    let flags = fcntl_getfd(lent).map_err(|error| refused(fd, error))?;
    if ownership == VMK_TUN_BORROWED {
        return rustix::io::fcntl_dupfd_cloexec(lent, 0).map_err(|error| refused(fd, error));
    }
    // SAFETY: open, as was just seen, and ours alone by the caller's promise.
    let owned = unsafe { OwnedFd::from_raw_fd(fd) };
    fcntl_setfd(&owned, flags | FdFlags::CLOEXEC).map_err(|error| refused(fd, error))?;
    Ok(owned)
}

/// Says why a descriptor cannot be taken.
fn refused(fd: RawFd, error: Errno) -> Error {
    let error_text = std::io::Error::from(error).to_string();
    if error == Errno::MFILE {
        let kind = ErrorKind::ResourceLimit { what: "file descriptors" };
        return Error::new(kind, "no file descriptor is left for the tun device").with_reason(error_text);
    }
    misuse(format!("tun.fd {fd} is no open file descriptor")).with_reason(error_text)
}

/// Addresses of the device with their prefixes, such as `172.19.0.1/30`.
pub const VMK_TUN_ADDRESSES: u32 = 1;
/// What to route into it, with prefixes.
pub const VMK_TUN_ROUTES: u32 = 2;
/// What to keep out of it, with prefixes.
pub const VMK_TUN_EXCLUDED_ROUTES: u32 = 3;
/// DNS servers to announce, without prefixes.
pub const VMK_TUN_DNS: u32 = 4;
/// Apps that alone use the tunnel (Android package names).
pub const VMK_TUN_ALLOW_APPS: u32 = 5;
/// Apps that do not use it.
pub const VMK_TUN_DENY_APPS: u32 = 6;

/// How many lists there are.
const LISTS: usize = 6;

/// How a host sets its tun device up: opaque, freed with `vmk_tun_settings_free`.
pub struct vmk_tun_settings {
    mtu: u32,
    metered: Option<bool>,
    lists: [Vec<CString>; LISTS],
}

impl vmk_tun_settings {
    /// Copies settings of the core.
    fn new(settings: &TunSettings) -> Self {
        fn texts<T: ToString>(list: &[T]) -> Vec<CString> {
            list.iter().map(|item| text::copy(&item.to_string())).collect()
        }
        Self {
            mtu: settings.mtu,
            metered: settings.metered,
            lists: [
                texts(&settings.addresses),
                texts(&settings.routes),
                texts(&settings.excluded_routes),
                texts(&settings.dns),
                texts(&settings.allow_apps),
                texts(&settings.deny_apps),
            ],
        }
    }

    /// A list by its number.
    fn list(&self, list: u32) -> Option<&[CString]> {
        self.lists.get((list as usize).checked_sub(1)?).map(Vec::as_slice)
    }
}

/// Reads how to set the tun device up: the only source for it.
///
/// out: receives the settings, to be freed with `vmk_tun_settings_free`; NULL if the config has no tun inbound.
#[unsafe(no_mangle)]
pub extern "C" fn vmk_tunnel_tun_settings(
    tunnel: Option<&vmk_tunnel>,
    out: Option<&mut MaybeUninit<*mut vmk_tun_settings>>,
    error: Option<&mut MaybeUninit<*mut vmk_error>>,
) -> vmk_result {
    guard(error, || {
        let out = required(out, "out")?;
        let settings = required(tunnel, "tunnel")?.tunnel().tun_settings();
        out.write(settings.map_or(std::ptr::null_mut(), |settings| {
            Box::into_raw(Box::new(vmk_tun_settings::new(&settings)))
        }));
        Ok(())
    })
}

/// Returns the MTU in bytes; 0 for NULL.
#[unsafe(no_mangle)]
pub extern "C" fn vmk_tun_settings_mtu(settings: Option<&vmk_tun_settings>) -> u32 {
    guard_or(0, || settings.map_or(0, |settings| settings.mtu))
}

/// Returns 1 if the tunnel is to count as metered, 0 if not, -1 if the config does not say.
#[unsafe(no_mangle)]
pub extern "C" fn vmk_tun_settings_metered(settings: Option<&vmk_tun_settings>) -> i32 {
    guard_or(-1, || settings.and_then(|settings| settings.metered).map_or(-1, i32::from))
}

/// Returns how many texts a list holds; 0 for NULL and for a list that does not exist.
///
/// list: `VMK_TUN_ADDRESSES` to `VMK_TUN_DENY_APPS`.
#[unsafe(no_mangle)]
pub extern "C" fn vmk_tun_settings_count(settings: Option<&vmk_tun_settings>, list: u32) -> usize {
    guard_or(0, || settings.and_then(|settings| settings.list(list)).map_or(0, <[_]>::len))
}

/// Returns one text of a list, borrowed from the settings; empty behind the end.
#[unsafe(no_mangle)]
pub extern "C" fn vmk_tun_settings_get(
    settings: Option<&vmk_tun_settings>,
    list: u32,
    index: usize,
) -> *const c_char {
    guard_or(EMPTY, || {
        settings.and_then(|settings| settings.list(list)?.get(index)).map_or(EMPTY, |text| text.as_ptr())
    })
}

/// Frees settings and every text borrowed from them. NULL is ignored.
#[unsafe(no_mangle)]
pub extern "C" fn vmk_tun_settings_free(settings: Option<Box<vmk_tun_settings>>) {
    guard_or((), || drop(settings));
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::{AsRawFd, IntoRawFd};
    use vmesskit::addr::Cidr;

    fn file() -> OwnedFd {
        std::fs::File::open("/dev/null").unwrap().into()
    }

    fn is_open(fd: RawFd) -> bool {
        std::path::Path::new(&format!("/proc/self/fd/{fd}")).exists()
    }

    fn tun(fd: RawFd, ownership: u32) -> vmk_tun {
        vmk_tun { size: 20, fd, mtu: 0, ownership, framing: codes::VMK_FRAMING_RAW_IP }
    }

    #[test]
    fn a_borrowed_descriptor_is_duplicated() {
        let ours = file();
        // SAFETY: `ours` stays the owner.
        let taken = unsafe { take(&tun(ours.as_raw_fd(), VMK_TUN_BORROWED)) }.unwrap().unwrap();
        assert_ne!(taken.fd.as_raw_fd(), ours.as_raw_fd());
        assert!(fcntl_getfd(&taken.fd).unwrap().contains(FdFlags::CLOEXEC));
        assert_eq!(taken.mtu, None);
    }

    #[test]
    fn an_owned_descriptor_is_adopted_and_closed_on_exec() {
        let fd = rustix::io::fcntl_dupfd_cloexec(file(), 900).unwrap();
        fcntl_setfd(&fd, FdFlags::empty()).unwrap();
        let fd = fd.into_raw_fd();
        // SAFETY: given up by `into_raw_fd`.
        let taken = unsafe { take(&tun(fd, VMK_TUN_OWNED)) }.unwrap().unwrap();
        assert_eq!(taken.fd.as_raw_fd(), fd);
        assert!(fcntl_getfd(&taken.fd).unwrap().contains(FdFlags::CLOEXEC));
    }

    #[test]
    fn an_owned_descriptor_is_closed_on_error_too() {
        let fd = rustix::io::fcntl_dupfd_cloexec(file(), 950).unwrap().into_raw_fd();
        let mut tun = tun(fd, VMK_TUN_OWNED);
        tun.framing = 77;
        // SAFETY: given up by `into_raw_fd`.
        assert_eq!(unsafe { take(&tun) }.unwrap_err().kind, ErrorKind::Misuse);
        assert!(!is_open(fd));
    }

    #[test]
    fn what_is_no_descriptor_is_misuse() {
        for (fd, ownership) in [
            (-1, VMK_TUN_BORROWED),
            (-1, VMK_TUN_OWNED),
            (999_999, VMK_TUN_BORROWED),
            (999_999, VMK_TUN_OWNED),
            (0, 2),
        ] {
            // SAFETY: none of them is open, or its ownership does not exist.
            assert_eq!(unsafe { take(&tun(fd, ownership)) }.unwrap_err().kind, ErrorKind::Misuse);
        }
    }

    #[test]
    fn a_struct_that_ends_with_the_descriptor_takes_the_defaults() {
        let ours = file();
        let mut tun = tun(ours.as_raw_fd(), VMK_TUN_OWNED);
        (tun.size, tun.mtu) = (8, 1500);
        // SAFETY: only the part that `size` covers is read, so it is borrowed.
        let taken = unsafe { take(&tun) }.unwrap().unwrap();
        assert_ne!(taken.fd.as_raw_fd(), ours.as_raw_fd());
        assert_eq!(taken.mtu, None);
    }

    #[test]
    fn settings_keep_every_list() {
        let cidr = |text| Cidr::parse(text).unwrap();
        let settings = TunSettings {
            mtu: 16000,
            addresses: vec![cidr("172.19.0.1/30")],
            routes: vec![cidr("0.0.0.0/0"), cidr("::/0")],
            excluded_routes: vec![cidr("10.0.0.0/8")],
            dns: vec!["172.19.0.2".parse().unwrap()],
            allow_apps: vec!["org.example".into()],
            deny_apps: vec![],
            metered: Some(false),
        };
        let settings = vmk_tun_settings::new(&settings);
        let read = |list, index| {
            // SAFETY: borrowed from `settings`, or a literal.
            unsafe { std::ffi::CStr::from_ptr(vmk_tun_settings_get(Some(&settings), list, index)) }
                .to_str()
                .unwrap()
        };
        assert_eq!(vmk_tun_settings_mtu(Some(&settings)), 16000);
        assert_eq!(vmk_tun_settings_metered(Some(&settings)), 0);
        let counts =
            [0, 1, 2, 3, 4, 5, 6, 7, u32::MAX].map(|list| vmk_tun_settings_count(Some(&settings), list));
        assert_eq!(counts, [0, 1, 2, 1, 1, 1, 0, 0, 0]);
        assert_eq!(read(VMK_TUN_ADDRESSES, 0), "172.19.0.1/30");
        assert_eq!(read(VMK_TUN_ROUTES, 1), "::/0");
        assert_eq!(read(VMK_TUN_EXCLUDED_ROUTES, 0), "10.0.0.0/8");
        assert_eq!(read(VMK_TUN_DNS, 0), "172.19.0.2");
        assert_eq!(read(VMK_TUN_ALLOW_APPS, 0), "org.example");
        assert_eq!(read(VMK_TUN_DENY_APPS, 0), "");
    }
}
