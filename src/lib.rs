//! VMessKit: the VMess tunnel core that VPN apps embed.

#![forbid(unsafe_code)]

pub mod addr;
pub mod buffer;
pub mod config;
#[cfg(feature = "runtime")]
mod engine;
pub mod entropy;
pub mod error;
pub mod time;
#[cfg(feature = "runtime")]
mod transport;
pub mod tun;
pub mod vmess;
