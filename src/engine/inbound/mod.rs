//! Inbounds: where traffic comes in. Each protocol is one file or folder here.
//!
//! An inbound accepts flows, says where they come from and go to, and hands them to `dispatch`; it does not choose
//! outbounds and does not relay streams itself. [`sockets`] are what they listen on, [`listener`] how they accept, [`udp`] is
//! the life of a UDP flow.

pub(crate) mod listener;
pub(crate) mod sockets;
pub(crate) mod socks;
pub(crate) mod tun;
pub(crate) mod udp;
mod unix_listener;
pub(crate) mod vmess;
