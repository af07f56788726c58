//! The host's callbacks.

use crate::network::{self, NetworkInfo};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::Arc;
use vmesskit::{NoPlatform, Refused};

/// The transport protocol of a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, uniffi::Enum)]
pub enum Network {
    /// A byte stream.
    Tcp,
    /// Datagrams.
    Udp,
}

impl From<vmesskit::addr::Network> for Network {
    fn from(network: vmesskit::addr::Network) -> Self {
        match network {
            vmesskit::addr::Network::Tcp => Self::Tcp,
            vmesskit::addr::Network::Udp => Self::Udp,
        }
    }
}

/// What a callback throws.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, uniffi::Error)]
pub enum PlatformError {
    /// It refused, or failed.
    #[error("{reason}")]
    Refused {
        /// Why; may be empty.
        reason: String,
    },
}

impl From<uniffi::UnexpectedUniFFICallbackError> for PlatformError {
    /// An exception of any other type is a refusal too.
    fn from(error: uniffi::UnexpectedUniFFICallbackError) -> Self {
        Self::Refused { reason: error.reason }
    }
}

impl From<PlatformError> for Refused {
    fn from(error: PlatformError) -> Self {
        let PlatformError::Refused { reason } = error;
        Self { reason }
    }
}

/// The host's callbacks, implemented in Kotlin or Swift. They are called on threads of the tunnel's own, `protectSocket`
/// and `resolve` perhaps at the same time. They must not call `stop` (that is `Misuse`), but may call `requestStop`.
#[uniffi::export(with_foreign)]
pub trait Platform: Send + Sync {
    /// Keeps a socket out of the tunnel (`VpnService.protect`) before it connects or binds. The descriptor is lent for
    /// the call. After 2 s a late answer is discarded.
    ///
    /// # Errors
    /// Any makes the dial fail with `ProtectFailed`.
    fn protect_socket(&self, fd: i32) -> Result<(), PlatformError>;

    /// Resolves a server's name outside the tunnel. `null`: not offered, the tunnel asks the network's DNS itself.
    /// After 5 s a late answer is discarded.
    ///
    /// # Errors
    /// Any means that the name does not resolve.
    fn resolve(
        &self,
        host: String,
        network: Option<NetworkInfo>,
    ) -> Result<Option<Vec<String>>, PlatformError>;

    /// Which app (uid) owns a flow; `null`: unknown. Asked only when a rule needs it; none does yet.
    ///
    /// # Errors
    /// Any means that it is unknown.
    fn find_owner(
        &self,
        network: Network,
        source: String,
        destination: String,
    ) -> Result<Option<u32>, PlatformError>;
}

/// The host's callbacks behind the core's trait.
struct Callbacks(Arc<dyn Platform>);

/// Adapts a host's callbacks, or none.
pub(crate) fn adapt(platform: Option<Arc<dyn Platform>>) -> Arc<dyn vmesskit::Platform> {
    match platform {
        Some(platform) => Arc::new(Callbacks(platform)),
        None => Arc::new(NoPlatform),
    }
}

impl vmesskit::Platform for Callbacks {
    fn protect_socket(&self, socket: BorrowedFd<'_>) -> Result<(), Refused> {
        Ok(self.0.protect_socket(socket.as_raw_fd())?)
    }

    fn resolve(
        &self,
        host: &str,
        network: Option<&vmesskit::NetworkInfo>,
    ) -> Option<Result<Vec<IpAddr>, Refused>> {
        let found = match self.0.resolve(host.into(), network.map(NetworkInfo::from)) {
            Ok(found) => found?,
            Err(error) => return Some(Err(error.into())),
        };
        let parse = |text: &String| {
            network::address(text).map_err(|error| Refused { reason: format!("resolve answered: {error}") })
        };
        Some(found.iter().map(parse).collect())
    }

    fn find_owner(
        &self,
        network: vmesskit::addr::Network,
        source: SocketAddr,
        destination: SocketAddr,
    ) -> Option<u32> {
        self.0.find_owner(network.into(), source.to_string(), destination.to_string()).ok().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    /// Answers with what it was made with.
    struct Host {
        protect: Result<(), PlatformError>,
        found: Result<Option<Vec<String>>, PlatformError>,
    }

    impl Platform for Host {
        fn protect_socket(&self, fd: i32) -> Result<(), PlatformError> {
            assert!(fd >= 0);
            self.protect.clone()
        }

        fn resolve(&self, _: String, _: Option<NetworkInfo>) -> Result<Option<Vec<String>>, PlatformError> {
            self.found.clone()
        }

        fn find_owner(&self, _: Network, _: String, _: String) -> Result<Option<u32>, PlatformError> {
            Err(refusal())
        }
    }

    fn refusal() -> PlatformError {
        PlatformError::Refused { reason: "no".into() }
    }

    fn adapted(
        protect: Result<(), PlatformError>,
        found: Result<Option<Vec<String>>, PlatformError>,
    ) -> Arc<dyn vmesskit::Platform> {
        adapt(Some(Arc::new(Host { protect, found })))
    }

    #[test]
    fn a_refusal_keeps_its_reason() {
        let file = std::fs::File::open("/dev/null").unwrap();
        let platform = adapted(Err(refusal()), Err(refusal()));
        assert_eq!(platform.protect_socket(file.as_fd()), Err(Refused { reason: "no".into() }));
        assert_eq!(platform.resolve("host", None), Some(Err(Refused { reason: "no".into() })));
        assert_eq!(adapted(Ok(()), Ok(None)).protect_socket(file.as_fd()), Ok(()));
    }

    #[test]
    fn names_resolve_or_are_not_offered() {
        let found = vec!["192.0.2.1".to_owned(), "2001:db8::1".to_owned()];
        let addresses = found.iter().map(|text| text.parse().unwrap()).collect();
        assert_eq!(adapted(Ok(()), Ok(Some(found))).resolve("host", None), Some(Ok(addresses)));
        assert_eq!(adapted(Ok(()), Ok(None)).resolve("host", None), None);
        let broken = adapted(Ok(()), Ok(Some(vec!["nowhere".into()]))).resolve("host", None);
        assert_eq!(broken.unwrap().unwrap_err().reason, "resolve answered: \"nowhere\" is no IP address");
    }

    #[test]
    fn an_owner_that_cannot_be_asked_is_unknown() {
        let (source, destination) = ("192.0.2.1:1".parse().unwrap(), "192.0.2.2:2".parse().unwrap());
        assert_eq!(
            adapted(Ok(()), Ok(None)).find_owner(vmesskit::addr::Network::Tcp, source, destination),
            None
        );
    }
}
