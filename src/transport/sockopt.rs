//! `sockopt`: what the config sets on dialled sockets and on listeners.
//!
//! What changes where packets go must be set or is an error; what merely tunes is left out where the system has it not.

use crate::config::SockOpt;
use crate::error::{Error, ErrorKind};
use rustix::io::Errno;
use socket2::{Socket, TcpKeepalive};
use std::io;
use std::time::Duration;

/// An option of the config that the system refused to set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{name}: {errno}")]
pub(crate) struct Refused {
    /// Where it is in an inbound or outbound.
    name: &'static str,
    errno: Errno,
}

impl Refused {
    /// A refusal of what is at a path inside of an inbound or outbound.
    pub(super) fn new(name: &'static str, error: &io::Error) -> Self {
        Self { name, errno: Errno::from_io_error(error).unwrap_or(Errno::INVAL) }
    }
}

impl From<Refused> for Error {
    fn from(refused: Refused) -> Self {
        let hint = match (refused.errno, refused.name) {
            (Errno::PERM | Errno::ACCESS, MARK) => {
                "marks need CAP_NET_ADMIN: run as root, give the program that capability, or remove the option"
            }
            (Errno::PERM | Errno::ACCESS, _) => {
                "this needs CAP_NET_RAW: run as root, give the program that capability, or remove the option"
            }
            (Errno::NODEV, _) => "there is no such device: `ip link` lists them",
            (Errno::ADDRNOTAVAIL, _) => {
                "this machine does not have the address, or not of the server's family"
            }
            _ => "remove the option",
        };
        Self::new(ErrorKind::ConfigInvalid, "a socket cannot be made as the config says")
            .with_reason(io::Error::from(refused.errno).to_string())
            .with_hint(hint)
            .with_path(refused.name)
    }
}

const MARK: &str = "streamSettings.sockopt.mark";
#[cfg(any(target_os = "linux", target_os = "android"))]
const DEVICE: &str = "streamSettings.sockopt.interface";
/// The path of the address that sockets are bound to.
pub(super) const SEND_THROUGH: &str = "sendThrough";

/// Sets the options that decide where packets go, before the socket is bound or connected.
///
/// # Errors
/// [`Refused`]; marks and devices need privileges on most systems.
#[cfg_attr(not(any(target_os = "linux", target_os = "android")), expect(unused_variables))]
pub(crate) fn steer(socket: &Socket, options: &SockOpt) -> Result<(), Refused> {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    {
        if let Some(mark) = options.mark {
            socket.set_mark(mark).map_err(|error| Refused::new(MARK, &error))?;
        }
        if let Some(device) = &options.device {
            let bound = socket.bind_device(Some(device.as_bytes()));
            bound.map_err(|error| Refused::new(DEVICE, &error))?;
        }
    }
    Ok(())
}

/// Sets the options of TCP that merely tune; `user_timeout` holds where the config says nothing.
#[cfg_attr(not(any(target_os = "linux", target_os = "android")), expect(unused_variables))]
pub(crate) fn tune(socket: &Socket, options: &SockOpt, user_timeout: Option<Duration>) {
    if let Some(keepalive) = keepalive(options) {
        let _ = socket.set_tcp_keepalive(&keepalive);
    }
    #[cfg(any(target_os = "linux", target_os = "android"))]
    {
        if let Some(timeout) = options.user_timeout.or(user_timeout) {
            let _ = socket.set_tcp_user_timeout(Some(timeout));
        }
        if let Some(congestion) = &options.congestion {
            let _ = rustix::net::sockopt::set_tcp_congestion(socket, congestion);
        }
    }
}

/// Has the next connect wait for the first payload, which then travels in the SYN if the server has let us before
/// (RFC 7413). Whether it does is the system's affair: it may be switched off there.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(super) fn open_fast(socket: &Socket) {
    let _ = nix::sys::socket::setsockopt(socket, nix::sys::socket::sockopt::TcpFastOpenConnect, &true);
}

/// How an idle connection is probed, if that is wished for.
fn keepalive(options: &SockOpt) -> Option<TcpKeepalive> {
    let keepalive = TcpKeepalive::new();
    match (options.keepalive_idle, options.keepalive_interval) {
        (None, None) => None,
        (Some(idle), None) => Some(keepalive.with_time(idle)),
        (None, Some(interval)) => Some(keepalive.with_interval(interval)),
        (Some(idle), Some(interval)) => Some(keepalive.with_time(idle).with_interval(interval)),
    }
}
