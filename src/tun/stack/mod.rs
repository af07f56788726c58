//! The userspace TCP/IP stack, without IO: it terminates the TCP connections of the local kernel and carries UDP.
//!
//! Shape of the machine (one owner, one thread):
//! * in: [`Stack::handle_packet`], [`Stack::handle_timeout`], and the calls that act on a flow;
//! * out: [`Stack::poll_event`] (what happened), [`Stack::transmit`] (packets for the device), [`Stack::poll_timeout`]
//!   (when to call back; `None` while nothing is due, so that an idle stack never wakes anybody).
//!
//! Payload moves in [`Buffer`]s: what the kernel sends is appended once to a buffer with headroom, so that it can be
//! sealed in place; what is sent to the kernel is held by reference until it has been acknowledged.

pub(crate) mod checksum;
pub(crate) mod fragment;
pub(crate) mod icmp;
pub(crate) mod ip;
mod machine;
pub(crate) mod outbox;
mod tcp;
pub(crate) mod udp;

pub use machine::Stack;

use crate::buffer::Buffer;
use std::net::{IpAddr, SocketAddr};

/// A TCP flow. Stays unique: a slot's next flow has another generation, and calls with an old id do nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FlowId {
    /// The slot, small and dense: fit to index a table.
    pub slot: u32,
    /// Counts the slot's uses.
    pub generation: u32,
}

/// How a stack is set up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The largest IP packet that the device takes, 1280 to 65,535; TSO super-segments do not count.
    pub mtu: usize,
    /// Whether echo requests are answered; otherwise they are dropped.
    pub icmp_echo: bool,
    /// Whether UDP to port 443 is refused, so that browsers fall back to TCP.
    pub reject_udp443: bool,
    /// The in-tunnel DNS address: TCP to its port 853 gets RST, so that opportunistic private DNS falls back.
    pub dns: Option<IpAddr>,
    /// The device's own addresses: nothing is dialled there.
    pub device_addresses: Vec<IpAddr>,
    /// Whether the device cuts large segments and completes checksums (`IFF_VNET_HDR`).
    pub offload: bool,
}

impl Config {
    /// A stack for a device with `mtu` and without offload, that answers echo requests and refuses nothing.
    pub const fn new(mtu: usize) -> Self {
        Self {
            mtu,
            icmp_echo: true,
            reject_udp443: false,
            dns: None,
            device_addresses: Vec::new(),
            offload: false,
        }
    }
}

/// What a stack has counted since it was made, and what it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// Packets that came.
    pub packets_in: u64,
    /// Packets that the device took.
    pub packets_out: u64,
    /// Packets that were damaged or cut off, and fragments that made no datagram.
    pub dropped_malformed: u64,
    /// Packets that are not carried: other protocols, ICMP, addresses that are never dialled.
    pub dropped_policy: u64,
    /// Packets of which something was discarded for lack of memory.
    pub dropped_memory: u64,
    /// TCP segments that were sent again.
    pub retransmits: u64,
    /// TCP flows now, half-open ones included.
    pub tcp_flows: usize,
    /// Half-open TCP flows now.
    pub half_open: usize,
}

/// What happened in the stack.
#[derive(Debug)]
pub enum Event {
    /// A SYN for a new flow came. Answer with [`Stack::accept`] or [`Stack::refuse`]; until then it is only remembered.
    TcpOpening {
        /// The flow.
        flow: FlowId,
        /// The app's end.
        source: SocketAddr,
        /// Where it wants to go.
        destination: SocketAddr,
    },
    /// The handshake is complete: the app is there, dial now.
    TcpEstablished(FlowId),
    /// [`Stack::recv`] has something new: data, the end, or a reset.
    TcpReadable(FlowId),
    /// [`Stack::send_room`] has grown after it was zero, or all is acknowledged.
    TcpWritable(FlowId),
    /// A datagram came.
    Udp {
        /// The app's end.
        source: SocketAddr,
        /// Where it goes.
        destination: SocketAddr,
        /// The payload, not empty.
        data: Buffer,
        /// Whether it must not be fragmented (always so on IPv6).
        dont_fragment: bool,
    },
}

/// What [`Stack::recv`] found. After `Fin` and `Reset` nothing else comes.
#[derive(Debug)]
pub enum Received {
    /// Payload in order. Its memory counts against the receive window until the buffer is taken.
    Data(Buffer),
    /// Nothing at the moment.
    Empty,
    /// The app has sent FIN and everything before it has been taken.
    Fin,
    /// The app has sent RST, the flow timed out, or its id is stale: the flow is gone.
    Reset,
}

/// How an opening flow or a datagram is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// TCP: RST. UDP: ICMP port unreachable.
    Refused,
    /// ICMP host (v4) or address (v6) unreachable.
    Unreachable,
    /// ICMP communication administratively prohibited.
    Prohibited,
    /// No answer at all.
    Silent,
}

/// Where packets go: the device, or a test.
pub trait PacketSink {
    /// Takes one packet: `header`, then every slice of `payload` in order. Checksums are complete unless
    /// `offload` is given.
    ///
    /// # Errors
    /// [`Blocked`] when the packet was not taken: it will be offered again at the next [`Stack::transmit`].
    fn send(&mut self, header: &[u8], payload: &[&[u8]], offload: Option<Offload>) -> Result<(), Blocked>;
}

/// The device takes no packet at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Blocked;

/// What the device is to do to a packet: the fields of a virtio-net header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Offload {
    /// Where the transport header starts, from the start of the IP header.
    pub transport_offset: u16,
    /// Where the checksum field lies, from the start of the transport header.
    pub checksum_offset: u16,
    /// The length of all headers.
    pub header_len: u16,
    /// For a packet to be cut: the payload bytes of each piece. `None` for a packet that goes as it is.
    pub segment_size: Option<u16>,
}

/// What the device says of a packet that it delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PacketMeta {
    /// The transport checksum needs no check: it was never computed (local traffic) or has been checked.
    pub checksum_trusted: bool,
}
