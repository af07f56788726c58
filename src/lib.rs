//! VMessKit: the VMess tunnel core that VPN apps embed.

#![forbid(unsafe_code)]

pub mod addr;
pub mod buffer;
pub mod config;
pub mod dns;
#[cfg(feature = "runtime")]
mod engine;
pub mod entropy;
pub mod error;
pub mod route;
pub mod time;
#[cfg(feature = "runtime")]
mod transport;
pub mod tun;
pub mod vmess;

#[cfg(feature = "runtime")]
pub use engine::api::*;
#[cfg(feature = "runtime")]
pub use engine::instance::Tunnel;
#[cfg(feature = "runtime")]
pub use engine::pending::{NextEvent, Pending};
