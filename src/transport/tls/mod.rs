//! TLS 1.2 and 1.3 on top of a carrier. rustls makes the handshake ([`handshake`]); then the keys move to [`records`], and
//! [`carrier`] seals and opens records in the memory of whoever writes and reads, so that an idle connection holds no buffer.
//!
//! [`client`] and [`server`] prepare what all connections of an outbound or inbound share, [`verify`] judges certificates,
//! [`pem`] reads them, and [`words`] says what went wrong.

mod carrier;
mod client;
mod handshake;
mod pem;
mod records;
mod server;
#[cfg(test)]
mod testing;
mod verify;
mod words;

pub(super) use client::TlsClient;
pub(super) use server::TlsServer;
#[cfg(feature = "quic")]
pub(super) use words::{alert_received, alert_sent};

use rustls::crypto::CryptoProvider;
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

/// Memory that the carriers of one shard seal in, and open in where their reader gives them too little; taken once one of
/// them needs it.
#[derive(Clone, Default)]
pub(crate) struct Scratch(Rc<RefCell<Vec<u8>>>);

impl Scratch {
    /// Lends at least `len` bytes.
    fn lend<R>(&self, len: usize, work: impl FnOnce(&mut [u8]) -> R) -> R {
        let Ok(mut bytes) = self.0.try_borrow_mut() else {
            // A connection inside of another one: that one is at work now.
            return work(&mut vec![0; len]);
        };
        if bytes.len() < len {
            bytes.resize(len, 0);
        }
        work(&mut bytes)
    }
}

/// The cryptography of all connections.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// Protocol names as TLS has them.
fn alpn(names: &[String]) -> Vec<Vec<u8>> {
    names.iter().map(|name| name.as_bytes().to_vec()).collect()
}
