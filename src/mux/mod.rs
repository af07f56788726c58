//! Mux.Cool and what rides on it: many flows in one VMess connection, and datagrams with addresses. Formats and the two
//! ends' bookkeeping alone; carriers, sockets and clocks are in `transport::mux` and the engine.
//!
//! A carrier is a VMess connection with command 3. Its byte stream is a row of frames ([`frame`]), read by a
//! [`Deframer`]; [`Client`] and [`Server`] know the sessions and say what a frame means. XUDP ([`xudp`]) is datagram
//! sessions whose frames carry addresses. Packetaddr ([`packetaddr`]) is no mux at all: a VMess UDP connection whose
//! chunks begin with an address.

pub mod client;
mod deframer;
pub mod frame;
pub mod packetaddr;
pub mod server;
pub mod xudp;

pub use client::Client;
pub use deframer::{Deframer, Item, Step};
pub use frame::{Frame, FrameError, Opening, Status};
pub use server::Server;
pub use xudp::GlobalId;

/// The name that marks a TCP request as a mux carrier, whatever its port.
pub const CARRIER_NAME: &str = "v1.mux.cool";

/// What a frame means to the end that has read it. The data that follows it goes where it says, or is discarded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// A new session, which the data is the first of.
    Open(Opening),
    /// A session's data; of a datagram, the address that came with it.
    Deliver(Option<crate::addr::Target>),
    /// The peer has ended the session, both ways; `error`: it says that something went wrong.
    End {
        /// The error bit. Some peers set it on every end.
        error: bool,
    },
    /// There is no such session: the peer is to be told so by an `End`.
    Refuse,
    /// Nothing.
    Ignore,
}
