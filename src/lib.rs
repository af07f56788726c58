//! VMessKit: the VMess tunnel core that VPN apps embed.

#![forbid(unsafe_code)]
#![cfg_attr(not(test), warn(clippy::disallowed_methods))]

pub mod addr;
pub mod buffer;
pub mod config;
pub mod dns;
#[cfg(feature = "runtime")]
mod engine;
pub mod entropy;
pub mod error;
pub mod mux;
pub mod route;
pub mod time;
#[cfg(feature = "runtime")]
mod transport;
pub mod tun;
pub mod vmess;
pub mod wire;

pub use config::{
    SubscribedServer, Subscription, format_config, parse_share_link, parse_subscription, to_share_link,
    validate_config,
};
#[cfg(feature = "runtime")]
pub use engine::api::*;
#[cfg(feature = "runtime")]
pub use engine::instance::Tunnel;
#[cfg(feature = "runtime")]
pub use engine::pending::{NextEvent, Pending};
#[cfg(feature = "runtime")]
pub use engine::{Measured, measure};
pub use error::{Error, ErrorKind, Stage};

/// The version of this library, such as `0.1.0`.
pub const fn version() -> &'static str {
    env!("CARGO_PKG_VERSION")
}
