//! The host's callbacks.

use crate::codes::{self, vmk_result};
use crate::guard::{guard, misuse, required};
use crate::network::{self, Lent, vmk_network_info};
use crate::sized::{self, Sized32};
use crate::text;
use std::ffi::{c_char, c_int, c_void};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::Arc;
use vmesskit::addr::Network;
use vmesskit::{Error, NetworkInfo, NoPlatform, Platform, Refused};

/// Keeps a socket out of the tunnel (`VpnService.protect`, `SO_MARK`, `SO_BINDTODEVICE`), before it connects or binds.
/// Returns 0 if it did; with anything else the dial fails with `VMK_PROTECT_FAILED`. The descriptor is lent for the
/// call. After 2 s a late answer is discarded.
pub type vmk_protect_socket_fn = Option<unsafe extern "C" fn(userdata: *mut c_void, fd: c_int) -> c_int>;

/// Resolves a server's name outside the tunnel: adds addresses with `vmk_addresses_add` and returns 0; anything else
/// means that it failed. `host` and `network` (NULL: unknown) and `addresses` are lent for the call. After 5 s a late
/// answer is discarded.
pub type vmk_resolve_fn = Option<
    unsafe extern "C" fn(
        userdata: *mut c_void,
        host: *const c_char,
        network: *const vmk_network_info,
        addresses: *mut vmk_addresses,
    ) -> c_int,
>;

/// Finds the app that owns a flow: writes its uid and returns 0, or anything else if it is unknown. `protocol` is a
/// `VMK_PROTOCOL_`, the ends are texts such as `192.0.2.1:443`. Asked only when a rule needs it; none does yet.
pub type vmk_find_owner_fn = Option<
    unsafe extern "C" fn(
        userdata: *mut c_void,
        protocol: u32,
        source: *const c_char,
        destination: *const c_char,
        uid: *mut u32,
    ) -> c_int,
>;

/// Told once that no callback will be called any more and `userdata` may go: when the tunnel has stopped, or was never
/// made.
pub type vmk_release_fn = Option<unsafe extern "C" fn(userdata: *mut c_void)>;

/// The host's callbacks. They are called on threads of the tunnel's own, `protect_socket` and `resolve` perhaps at the
/// same time; they must not unwind, nor call `vmk_tunnel_stop` (that is `VMK_MISUSE`), but may call
/// `vmk_tunnel_request_stop`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct vmk_platform {
    /// `sizeof(vmk_platform)`.
    pub size: u32,
    /// Zero.
    pub reserved: u32,
    /// Handed to every callback; the library never looks at it.
    pub userdata: *mut c_void,
    /// NULL: no socket needs protection.
    pub protect_socket: vmk_protect_socket_fn,
    /// NULL: the library asks the network's DNS servers itself.
    pub resolve: vmk_resolve_fn,
    /// NULL: owners are unknown.
    pub find_owner: vmk_find_owner_fn,
    /// May be NULL.
    pub release: vmk_release_fn,
}

// SAFETY: integers, a raw pointer and nullable function pointers in C layout; zero is valid for each.
unsafe impl Sized32 for vmk_platform {
    const NAME: &'static str = "vmk_platform";
    const MIN: usize = 8 + 2 * size_of::<usize>();
}

const _: () = assert!(size_of::<vmk_platform>() == 8 + 5 * size_of::<usize>(), "no padding");

/// Where `resolve` puts the addresses that it finds: opaque, lent for the call.
#[derive(Default)]
pub struct vmk_addresses {
    found: Vec<IpAddr>,
}

/// Adds an address that `resolve` has found; `VMK_MISUSE` if it is none.
///
/// address: a text such as `192.0.2.1` or `2001:db8::1`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmk_addresses_add(
    addresses: Option<&mut vmk_addresses>,
    address: *const c_char,
) -> vmk_result {
    guard(None, || {
        let addresses = required(addresses, "addresses")?;
        // SAFETY: NULL or a text, as the header asks for.
        let address = unsafe { text::read(address, "address") }?;
        if addresses.found.len() >= MOST_ADDRESSES {
            return Err(misuse("too many addresses"));
        }
        addresses.found.push(network::parse(address, "address")?);
        Ok(())
    })
}

/// The most addresses that one name may have.
const MOST_ADDRESSES: usize = 64;

/// The callbacks behind the core's trait. Dropping it releases them.
struct Callbacks(vmk_platform);

// SAFETY: the header says that callbacks are called on any thread; `userdata` is only handed back.
unsafe impl Send for Callbacks {}
// SAFETY: as above.
unsafe impl Sync for Callbacks {}

/// Takes a host's callbacks over; NULL: there are none.
///
/// # Errors
/// `Misuse` for a wrong size; then `release` is not called.
///
/// # Safety
/// `from` is NULL or a struct that begins with its size, whose functions keep to their types.
pub(crate) unsafe fn take(from: *const vmk_platform) -> Result<Arc<dyn Platform>, Error> {
    if from.is_null() {
        return Ok(Arc::new(NoPlatform));
    }
    // SAFETY: the caller's promise, handed on.
    Ok(Arc::new(Callbacks(unsafe { sized::read(from) }?)))
}

impl Platform for Callbacks {
    fn protect_socket(&self, socket: BorrowedFd<'_>) -> Result<(), Refused> {
        let Some(protect_socket) = self.0.protect_socket else { return Ok(()) };
        // SAFETY: a function of this type by the host's promise; the descriptor is open until it returns.
        match unsafe { protect_socket(self.0.userdata, socket.as_raw_fd()) } {
            0 => Ok(()),
            code => Err(Refused { reason: format!("protect_socket returned {code}") }),
        }
    }

    fn resolve(&self, host: &str, network: Option<&NetworkInfo>) -> Option<Result<Vec<IpAddr>, Refused>> {
        let resolve = self.0.resolve?;
        let host = text::copy(host);
        let network = network.map(Lent::new);
        let info = network.as_ref().map_or(std::ptr::null(), |lent| std::ptr::from_ref(lent.info()));
        let mut addresses = vmk_addresses::default();
        // SAFETY: a function of this type by the host's promise; all that it is lent outlives the call.
        let code = unsafe { resolve(self.0.userdata, host.as_ptr(), info, &raw mut addresses) };
        Some(match code {
            0 => Ok(addresses.found),
            code => Err(Refused { reason: format!("resolve returned {code}") }),
        })
    }

    fn find_owner(&self, network: Network, source: SocketAddr, destination: SocketAddr) -> Option<u32> {
        let find_owner = self.0.find_owner?;
        let (source, destination) = (text::copy(&source.to_string()), text::copy(&destination.to_string()));
        let protocol = codes::protocol(network);
        let mut uid = 0;
        // SAFETY: a function of this type by the host's promise; all that it is lent outlives the call.
        let code = unsafe {
            find_owner(self.0.userdata, protocol, source.as_ptr(), destination.as_ptr(), &raw mut uid)
        };
        (code == 0).then_some(uid)
    }
}

impl Drop for Callbacks {
    fn drop(&mut self) {
        if let Some(release) = self.0.release {
            // SAFETY: a function of this type by the host's promise, called once.
            unsafe { release(self.0.userdata) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    /// What the callbacks below have seen.
    #[derive(Default)]
    struct Seen {
        answer: c_int,
        fds: Vec<c_int>,
        released: u32,
    }

    unsafe extern "C" fn protect_socket(userdata: *mut c_void, fd: c_int) -> c_int {
        // SAFETY: the tests hand a `Seen` over and call from one thread.
        let seen = unsafe { &mut *userdata.cast::<Seen>() };
        seen.fds.push(fd);
        seen.answer
    }

    unsafe extern "C" fn resolve(
        _userdata: *mut c_void,
        host: *const c_char,
        network: *const vmk_network_info,
        addresses: *mut vmk_addresses,
    ) -> c_int {
        // SAFETY: what the library lends is as the header says.
        unsafe {
            assert_eq!(text::read(host, "host").unwrap(), "server.example");
            assert_eq!(network::read(network).unwrap().unwrap().id, 7);
            assert_eq!(vmk_addresses_add(addresses.as_mut(), c"no address".as_ptr()), codes::VMK_MISUSE);
            vmk_addresses_add(addresses.as_mut(), c"192.0.2.9".as_ptr()) as c_int
        }
    }

    unsafe extern "C" fn find_owner(
        _userdata: *mut c_void,
        protocol: u32,
        source: *const c_char,
        _destination: *const c_char,
        uid: *mut u32,
    ) -> c_int {
        // SAFETY: what the library lends is as the header says.
        unsafe {
            assert_eq!(text::read(source, "source").unwrap(), "[2001:db8::1]:5");
            uid.write(10_000 + protocol);
        }
        0
    }

    unsafe extern "C" fn release(userdata: *mut c_void) {
        // SAFETY: as in `protect_socket`.
        unsafe { &mut *userdata.cast::<Seen>() }.released += 1;
    }

    fn table(seen: &mut Seen) -> vmk_platform {
        vmk_platform {
            size: size_of::<vmk_platform>() as u32,
            reserved: 0,
            userdata: std::ptr::from_mut(seen).cast(),
            protect_socket: Some(protect_socket),
            resolve: Some(resolve),
            find_owner: Some(find_owner),
            release: Some(release),
        }
    }

    #[test]
    fn protect_socket_is_asked_and_may_refuse() {
        let mut seen = Seen::default();
        let file = std::fs::File::open("/dev/null").unwrap();
        // SAFETY: a whole table with functions of the right types.
        let platform = unsafe { take(&table(&mut seen)) }.unwrap();
        assert_eq!(platform.protect_socket(file.as_fd()), Ok(()));
        seen.answer = -1;
        assert_eq!(platform.protect_socket(file.as_fd()).unwrap_err().reason, "protect_socket returned -1");
        assert_eq!(seen.fds, [file.as_raw_fd(); 2]);
    }

    #[test]
    fn resolve_and_find_owner_answer() {
        let mut seen = Seen::default();
        // SAFETY: as above.
        let platform = unsafe { take(&table(&mut seen)) }.unwrap();
        let network = NetworkInfo { id: 7, ..NetworkInfo::default() };
        let found = platform.resolve("server.example", Some(&network)).unwrap().unwrap();
        assert_eq!(found, ["192.0.2.9".parse::<IpAddr>().unwrap()]);
        let (source, destination) = ("[2001:db8::1]:5".parse().unwrap(), "192.0.2.1:6".parse().unwrap());
        assert_eq!(platform.find_owner(Network::Udp, source, destination), Some(10_017));
    }

    #[test]
    fn release_is_called_once_with_the_last_owner() {
        let mut seen = Seen::default();
        // SAFETY: as above.
        let platform = unsafe { take(&table(&mut seen)) }.unwrap();
        drop(Arc::clone(&platform));
        assert_eq!(seen.released, 0);
        drop(platform);
        assert_eq!(seen.released, 1);
    }

    #[test]
    fn a_table_that_ends_before_resolve_offers_no_more() {
        let mut seen = Seen::default();
        let mut table = table(&mut seen);
        table.size = (8 + 2 * size_of::<usize>()) as u32;
        // SAFETY: as above; only the part that `size` covers is read.
        let platform = unsafe { take(&table) }.unwrap();
        assert!(platform.resolve("server.example", None).is_none());
        drop(platform);
        assert_eq!(seen.released, 0);
    }
}
