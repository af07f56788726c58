//! Listening Unix domain sockets, and the files that they are found by.

use crate::config::Unix;
use crate::error::{Error, ErrorKind};
use crate::transport::unix;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use socket2::{Domain, SockAddr, Socket, Type};
use std::fmt;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// How many connections wait to be accepted at most, if the system allows as many.
const BACKLOG: i32 = 4096;

/// The file of a listening socket. Dropping it removes the file, unless it has become another one.
#[derive(Debug)]
pub(crate) struct SocketFile {
    path: PathBuf,
    /// The device and the number of the file.
    identity: (u64, u64),
}

impl SocketFile {
    /// The file that a socket has just been bound to.
    fn of(path: &Path) -> io::Result<Self> {
        Ok(Self { path: path.to_owned(), identity: identity(path)? })
    }
}

impl fmt::Display for SocketFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.path.display().fmt(f)
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|identity| identity == self.identity) {
            // Whoever may not remove it leaves a file behind that the next one to listen there replaces.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Listens on a socket; its file, if it has one, has the permissions that the process's umask leaves. A file that another
/// process has left behind is replaced, one of a process that still listens is not. `what` names the inbound to a person.
///
/// # Errors
/// `ResourceLimit` if somebody listens there or no descriptor is free, `ConfigInvalid` if the path cannot be used; with a
/// hint and the path inside of the inbound.
pub(crate) fn open(what: &str, settings: &Unix) -> Result<(UnixListener, Option<Arc<SocketFile>>), Error> {
    try_open(settings).map_err(|error| explain(what, settings, &error))
}

fn try_open(settings: &Unix) -> io::Result<(UnixListener, Option<Arc<SocketFile>>)> {
    let address = unix::address(settings)?;
    if unix::is_abstract(settings) {
        return Ok((listen(&address)?, None));
    }
    // Two that find the same file left behind must not both replace it: the second one would replace the first one's.
    let _lock = lock_folder(&settings.path);
    let listener = match listen(&address) {
        Err(error) if is_in_use(&error) && is_left_behind(&settings.path, &address) => {
            fs::remove_file(&settings.path)?;
            listen(&address)?
        }
        result => result?,
    };
    Ok((listener, Some(Arc::new(SocketFile::of(&settings.path)?))))
}

fn listen(address: &SockAddr) -> io::Result<UnixListener> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Locks the folder of a file until the result is dropped; `None` if that cannot be done.
fn lock_folder(path: &Path) -> Option<File> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let folder = File::open(folder).ok()?;
    flock(&folder, FlockOperation::LockExclusive).ok()?;
    Some(folder)
}

/// Whether a file is a socket that nobody listens on.
fn is_left_behind(path: &Path, address: &SockAddr) -> bool {
    let is_socket = fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket());
    let asked = || {
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        // Where the queue is full somebody listens: that is not waited for.
        socket.set_nonblocking(true)?;
        socket.connect(address)
    };
    is_socket && asked().is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
}

fn is_in_use(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::AddrInUse
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let file = fs::symlink_metadata(path)?;
    Ok((file.dev(), file.ino()))
}

fn explain(what: &str, settings: &Unix, error: &io::Error) -> Error {
    let (kind, hint) = match Errno::from_io_error(error) {
        Some(Errno::ADDRINUSE) => (
            ErrorKind::ResourceLimit { what: "listening socket" },
            "another program listens there, or the file is no socket: choose another path",
        ),
        Some(Errno::ACCESS | Errno::PERM | Errno::ROFS) => {
            (ErrorKind::ConfigInvalid, "this process may not create the file: choose another folder")
        }
        Some(Errno::NOENT | Errno::NOTDIR) => {
            (ErrorKind::ConfigInvalid, "the folder does not exist: create it, or choose another one")
        }
        Some(Errno::MFILE | Errno::NFILE) => {
            (ErrorKind::ResourceLimit { what: "file descriptors" }, "raise the process's limit of open files")
        }
        None if error.kind() == io::ErrorKind::InvalidInput => {
            (ErrorKind::ConfigInvalid, "the path is too long for a socket: the system takes about 100 bytes")
        }
        _ => (ErrorKind::ConfigInvalid, "check dsSettings.path"),
    };
    Error::new(kind, format!("{what} cannot listen on {}", settings.path.display()))
        .with_path("streamSettings.dsSettings.path")
        .with_reason(error.to_string())
        .with_hint(hint)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;

    fn at(name: &str) -> (PathBuf, Unix) {
        let folder = std::env::temp_dir().join(format!("vmesskit-unix-{}-{name}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder");
        let settings = Unix { path: folder.join("door"), ..Unix::default() };
        (folder, settings)
    }

    #[test]
    fn a_file_left_behind_is_replaced_and_removed_in_the_end() {
        let (folder, settings) = at("left");
        drop(UnixListener::bind(&settings.path).expect("bound"));
        assert!(UnixStream::connect(&settings.path).is_err(), "a file without a listener");
        let listening = open("a", &settings).expect("replaced");
        UnixStream::connect(&settings.path).expect("it listens");
        drop(listening);
        assert!(!settings.path.exists());
        fs::remove_dir_all(folder).expect("removed");
    }

    #[test]
    fn what_is_somebody_elses_is_left_alone() {
        let (folder, settings) = at("used");
        let theirs = UnixListener::bind(&settings.path).expect("bound");
        let error = open("b", &settings).expect_err("in use");
        assert_eq!(error.kind, ErrorKind::ResourceLimit { what: "listening socket" });
        UnixStream::connect(&settings.path).expect("theirs still listens");
        drop(theirs);
        fs::remove_file(&settings.path).expect("removed");
        fs::write(&settings.path, "precious").expect("written");
        open("b", &settings).expect_err("no socket");
        assert_eq!(fs::read(&settings.path).expect("still there"), b"precious");
        fs::remove_file(&settings.path).expect("removed");

        let ours = open("b", &settings).expect("free");
        fs::remove_file(&settings.path).expect("removed");
        let _theirs = UnixListener::bind(&settings.path).expect("bound");
        drop(ours);
        assert!(settings.path.exists(), "it is not ours any more");
        fs::remove_dir_all(folder).expect("removed");
    }

    #[test]
    fn paths_that_cannot_be_used_are_explained() {
        let (folder, settings) = at("paths");
        let missing = Unix { path: folder.join("none/door"), ..Unix::default() };
        let long = Unix { path: folder.join("long".repeat(40)), ..Unix::default() };
        for (settings, hint) in [(missing, "folder does not exist"), (long, "too long")] {
            let error = open("c", &settings).expect_err("no such place");
            assert_eq!(
                (error.kind, &*error.path),
                (ErrorKind::ConfigInvalid, "streamSettings.dsSettings.path")
            );
            assert!(error.hint.contains(hint), "{}", error.hint);
        }
        drop(settings);
        fs::remove_dir_all(folder).expect("removed");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn abstract_names_are_told_apart_by_their_padding() {
        let name = format!("vmesskit-{}", std::process::id());
        let plain = Unix { path: name.into(), is_abstract: true, padding: false };
        let padded = Unix { padding: true, ..plain.clone() };
        let _both = [open("d", &plain).expect("free"), open("d", &padded).expect("free")];
        open("d", &plain).expect_err("in use");
        let marked = Unix { path: format!("@{}", plain.path.display()).into(), ..Unix::default() };
        open("d", &marked).expect_err("the same name");
    }
}
