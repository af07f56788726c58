//! What stands in the place of QUIC in a library that was built without it: nothing can be made of it.

use crate::config::{Quic, Tls};
use crate::engine::Shard;
use crate::error::{Error, ErrorKind};
use crate::transport::Carrier;
use crate::transport::accept::UdpClients;
use crate::transport::dial::DialError;
use crate::transport::protect::Wishes;
use crate::transport::tls::TlsClient;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use tokio::net::UdpSocket;
use tokio::time::Instant;

/// Whether this library has QUIC.
pub(super) const PRESENT: bool = false;

/// There is none.
pub(super) enum QuicClient {}

impl QuicClient {
    pub(super) fn new(_: &Quic, _: Rc<TlsClient>) -> Option<Self> {
        None
    }

    pub(super) fn network_changed(&self) {
        match *self {}
    }

    pub(super) async fn open(
        &self,
        _: &Rc<Shard>,
        _: &Wishes,
        _: Instant,
        _: &impl AsyncFn() -> Result<Vec<SocketAddr>, DialError>,
    ) -> Result<Box<dyn Carrier>, DialError> {
        match *self {}
    }
}

/// There is none.
#[derive(Debug)]
pub(super) enum QuicServer {}

impl QuicServer {
    pub(super) fn new(_: &Quic, _: Option<&Tls>) -> Result<Self, Error> {
        Err(Error::new(ErrorKind::Unsupported, "this library was built without QUIC"))
    }

    pub(super) fn listen(&self, _: &Rc<Shard>, _: UdpSocket) -> io::Result<Box<dyn UdpClients>> {
        match *self {}
    }
}

/// Of no use without QUIC.
pub(super) fn unverified() -> Tls {
    Tls::default()
}
