//! The tun side: IP packets of the local kernel, and the userspace stack that ends them.
//!
//! [`stack`] is pure: packets and time in, packets and events out. `device` is the file descriptor.

#[cfg(feature = "runtime")]
pub(crate) mod device;
#[cfg(feature = "runtime")]
mod framing;
pub mod stack;
