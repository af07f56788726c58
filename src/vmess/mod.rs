//! The VMess protocol as a pure machine: bytes in, bytes out. No socket, no clock, no randomness of its own.
//!
//! A connection is a request header, a response header and two independent chunk streams. [`client`] holds a
//! client's half, [`server`] a server's. What both share: [`id`] and [`kdf`] (identity and key
//! derivation), [`auth`] (auth ids), [`account`] and
//! [`legacy`] (the older MD5 header), [`header`] and [`response`] (the headers' plain forms), [`envelope`]
//! (their sealing), [`keys`] (what the header's keys become), [`chunk`] (framing and sealing of bodies),
//! [`datagram`] (UDP on top of chunks), [`command`] (what a response may ask for). Who may connect at all is
//! [`gate`]'s to say.
//!
//! Source of the wire format: V2Ray's documentation and behaviour; `tests/data/vmess-vectors.json` holds
//! known answers.

pub mod account;
pub(crate) mod address;
mod answer;
pub mod auth;
mod cfb;
pub mod chunk;
pub mod client;
pub mod command;
pub mod datagram;
pub mod envelope;
pub mod fnv;
pub mod gate;
pub mod header;
pub mod id;
pub mod kdf;
pub mod keys;
pub mod legacy;
pub mod response;
mod security;
pub mod server;

pub use header::{Command, Options, Security, hardware_aes};
pub use id::{CmdKey, Id};
