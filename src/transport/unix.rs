//! Unix domain sockets as carriers: where they are, and how one is connected.
//!
//! The host is not asked to protect them: they leave the machine by no network. For the same reason `sockopt` and
//! `sendThrough` mean nothing to them.

use super::dial::DialError;
use super::protect;
use super::socket::{Socket, SocketCarrier, forward_socket};
use crate::config::Unix;
use crate::error::Stage;
use rustix::io::Errno;
use socket2::SockAddr;
use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::time::Duration;
use tokio::net::UnixStream;
use tokio::time::{Instant, sleep, timeout_at};

/// The room for a name in an address.
const NAME: usize = 108;
/// How soon a listener is asked again whose queue is full.
const FULL_WAIT: Duration = Duration::from_millis(20);

/// A connected Unix domain socket.
pub(crate) type UnixCarrier = SocketCarrier<UnixStream>;

forward_socket!(UnixStream {
    fn abort_on_drop(&self) {
        // There is no reset here. What is on top of it shows the peer that the stream was cut.
    }
});

/// The address of a socket as the config has it.
///
/// # Errors
/// `InvalidInput` if the path or name is too long.
pub(crate) fn address(settings: &Unix) -> io::Result<SockAddr> {
    if !is_abstract(settings) {
        return SockAddr::unix(&settings.path);
    }
    let path = settings.path.as_os_str().as_bytes();
    let mut name = vec![0];
    name.extend_from_slice(path.strip_prefix(b"@").unwrap_or(path));
    if settings.padding && name.len() < NAME {
        name.resize(NAME, 0);
    }
    SockAddr::unix(OsString::from_vec(name))
}

/// Whether the socket has a name and no file. As with V2Ray, an `@` in front says so too.
pub(crate) fn is_abstract(settings: &Unix) -> bool {
    let marked = settings.path.as_os_str().as_bytes().starts_with(b"@");
    settings.is_abstract || (marked && cfg!(any(target_os = "linux", target_os = "android")))
}

/// Connects to a listening socket.
///
/// # Errors
/// [`DialError`] with stage `connect`.
pub(super) async fn connect(settings: &Unix, deadline: Instant) -> Result<UnixStream, DialError> {
    let started = Instant::now();
    let failed = |kind, reason: &dyn std::fmt::Display| {
        let error = DialError::new(Stage::Connect, kind, started, reason);
        let hint =
            "check dsSettings.path, that the server runs, and that this process may write to its socket";
        DialError { error: error.error.with_hint(hint), ..error }
    };
    let address = address(settings).map_err(|error| failed(error.kind(), &error))?;
    let attempt = async {
        loop {
            match protect::unix_connect(&address).await {
                // The queue of those who wait to be accepted is full.
                Err(error) if Errno::from_io_error(&error) == Some(Errno::AGAIN) => sleep(FULL_WAIT).await,
                result => return result,
            }
        }
    };
    match timeout_at(deadline, attempt).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) => Err(failed(error.kind(), &error)),
        Err(_) => Err(failed(io::ErrorKind::TimedOut, &"no answer")),
    }
}
