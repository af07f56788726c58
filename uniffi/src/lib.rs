//! The Kotlin and Swift facade of VMessKit: a translation table over the crate `vmesskit`, with no logic of its own.
//!
//! The generated bindings in `bindings/kotlin` and `bindings/swift` are made of this crate by `scripts/gen-bindings`.
//! Asynchronous functions await answers that need no runtime: the tunnel's own threads give them, and after `stop`
//! nothing stays behind. Addresses and networks travel as texts, times as milliseconds.

#![allow(
    clippy::result_large_err,
    reason = "errors go across the language border, never along the data path"
)]

mod config;
mod error;
mod event;
mod log;
mod network;
mod platform;
mod stats;
mod status;
mod tun;
mod tunnel;
mod users;

pub use config::*;
pub use error::*;
pub use event::*;
pub use network::*;
pub use platform::*;
pub use stats::*;
pub use status::*;
pub use tun::*;
pub use tunnel::*;
pub use users::*;

uniffi::setup_scaffolding!();
