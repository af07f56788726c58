//! Counters and connections.

use crate::codes::{self, vmk_result};
use crate::error::vmk_error;
use crate::guard::{give, guard, guard_or, misuse, required, wait};
use crate::sized::{self, Sized32};
use crate::text;
use crate::tunnel::vmk_tunnel;
use std::ffi::{CString, c_char};
use std::mem::MaybeUninit;
use vmesskit::{ConnectionInfo, Stats};

/// Counters since the start, and gauges. Bytes are payload, not packets.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct vmk_stats {
    /// `sizeof(vmk_stats)`.
    pub size: u32,
    /// Zero.
    pub reserved: u32,
    /// Payload bytes sent to the network.
    pub uplink_bytes: u64,
    /// Payload bytes received from the network.
    pub downlink_bytes: u64,
    /// IP packets read from the tun device.
    pub tun_packets_in: u64,
    /// IP packets written to the tun device.
    pub tun_packets_out: u64,
    /// Packets and datagrams dropped: malformed, over a bound, undeliverable.
    pub dropped: u64,
    /// TCP connections accepted so far.
    pub tcp_total: u64,
    /// TCP connections open now.
    pub tcp_open: u64,
    /// UDP flows made so far.
    pub udp_total: u64,
    /// UDP flows open now.
    pub udp_open: u64,
    /// DNS queries forwarded.
    pub dns_queries: u64,
    /// Connections made to servers.
    pub dials: u64,
    /// Dials that failed.
    pub dial_failures: u64,
    /// Bytes of payload buffers in use.
    pub buffer_bytes: u64,
    /// Bytes of memory of the whole process, as the operating system counts it; 0 if unknown.
    pub footprint_bytes: u64,
    /// Milliseconds since the start.
    pub uptime_millis: u64,
}

// SAFETY: integers in C layout.
unsafe impl Sized32 for vmk_stats {
    const NAME: &'static str = "vmk_stats";
    const MIN: usize = 8;
}

const _: () = assert!(size_of::<vmk_stats>() == 8 + 15 * 8, "no padding");

impl From<Stats> for vmk_stats {
    fn from(stats: Stats) -> Self {
        Self {
            size: 0,
            reserved: 0,
            uplink_bytes: stats.uplink_bytes,
            downlink_bytes: stats.downlink_bytes,
            tun_packets_in: stats.tun_packets_in,
            tun_packets_out: stats.tun_packets_out,
            dropped: stats.dropped,
            tcp_total: stats.tcp_total,
            tcp_open: stats.tcp_open,
            udp_total: stats.udp_total,
            udp_open: stats.udp_open,
            dns_queries: stats.dns_queries,
            dials: stats.dials,
            dial_failures: stats.dial_failures,
            buffer_bytes: stats.buffer_bytes,
            footprint_bytes: stats.footprint_bytes,
            uptime_millis: stats.uptime_millis,
        }
    }
}

/// Reads the counters. Never blocks.
///
/// out: its `size` is set by the caller.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmk_tunnel_stats(tunnel: Option<&vmk_tunnel>, out: *mut vmk_stats) -> vmk_result {
    guard(None, || {
        let stats = required(tunnel, "tunnel")?.tunnel().stats().into();
        // SAFETY: NULL or a struct that begins with its size, as the header asks for.
        unsafe { sized::write(out, &stats) }
    })
}

/// The connections that were open at one moment: opaque, freed with `vmk_connections_free`.
pub struct vmk_connections {
    connections: Vec<Connection>,
}

/// One connection and its texts for C.
struct Connection {
    info: ConnectionInfo,
    source: CString,
    target: CString,
    inbound: CString,
    outbound: CString,
}

impl From<ConnectionInfo> for Connection {
    fn from(info: ConnectionInfo) -> Self {
        Self {
            source: text::copy(&info.source.to_string()),
            target: text::copy(&info.target),
            inbound: text::copy(&info.inbound),
            outbound: text::copy(&info.outbound),
            info,
        }
    }
}

/// One connection. The texts are borrowed from the list.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct vmk_connection {
    /// `sizeof(vmk_connection)`.
    pub size: u32,
    /// A `VMK_PROTOCOL_`.
    pub protocol: u32,
    /// Its id, unique in the tunnel's life.
    pub id: u64,
    /// Payload bytes sent.
    pub uplink_bytes: u64,
    /// Payload bytes received.
    pub downlink_bytes: u64,
    /// Milliseconds since it was opened.
    pub age_millis: u64,
    /// The app's end, such as `172.19.0.1:40000`.
    pub source: *const c_char,
    /// Where it goes: `host:port`.
    pub target: *const c_char,
    /// The inbound's tag.
    pub inbound: *const c_char,
    /// The outbound's tag.
    pub outbound: *const c_char,
}

// SAFETY: integers and raw pointers in C layout.
unsafe impl Sized32 for vmk_connection {
    const NAME: &'static str = "vmk_connection";
    const MIN: usize = 16;
}

/// Lists the open connections.
///
/// out: receives the list, to be freed with `vmk_connections_free`.
#[unsafe(no_mangle)]
pub extern "C" fn vmk_tunnel_connections(
    tunnel: Option<&vmk_tunnel>,
    timeout_ms: u32,
    out: Option<&mut MaybeUninit<*mut vmk_connections>>,
    error: Option<&mut MaybeUninit<*mut vmk_error>>,
) -> vmk_result {
    guard(error, || {
        let out = required(out, "out")?;
        let answer = required(tunnel, "tunnel")?.tunnel().connections();
        let connections =
            wait(answer, timeout_ms, "connections")?.into_iter().map(Connection::from).collect();
        give(out, vmk_connections { connections });
        Ok(())
    })
}

/// Returns how many connections there are; 0 for NULL.
#[unsafe(no_mangle)]
pub extern "C" fn vmk_connections_count(connections: Option<&vmk_connections>) -> usize {
    guard_or(0, || connections.map_or(0, |list| list.connections.len()))
}

/// Reads one connection; `VMK_MISUSE` behind the end.
///
/// out: its `size` is set by the caller.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmk_connections_get(
    connections: Option<&vmk_connections>,
    index: usize,
    out: *mut vmk_connection,
) -> vmk_result {
    guard(None, || {
        let list = &required(connections, "connections")?.connections;
        let connection = list.get(index).ok_or_else(|| misuse("index is behind the end"))?;
        let value = vmk_connection {
            size: 0,
            protocol: codes::protocol(connection.info.network),
            id: connection.info.id,
            uplink_bytes: connection.info.uplink_bytes,
            downlink_bytes: connection.info.downlink_bytes,
            age_millis: connection.info.age_millis,
            source: connection.source.as_ptr(),
            target: connection.target.as_ptr(),
            inbound: connection.inbound.as_ptr(),
            outbound: connection.outbound.as_ptr(),
        };
        // SAFETY: NULL or a struct that begins with its size, as the header asks for.
        unsafe { sized::write(out, &value) }
    })
}

/// Frees a list and every text borrowed from it. NULL is ignored.
#[unsafe(no_mangle)]
pub extern "C" fn vmk_connections_free(connections: Option<Box<vmk_connections>>) {
    guard_or((), || drop(connections));
}

/// Closes one connection.
///
/// id: from `vmk_connection`. closed: receives 1, or 0 if there is no such connection (any more); may be NULL.
#[unsafe(no_mangle)]
pub extern "C" fn vmk_tunnel_close_connection(
    tunnel: Option<&vmk_tunnel>,
    id: u64,
    timeout_ms: u32,
    closed: Option<&mut MaybeUninit<u32>>,
    error: Option<&mut MaybeUninit<*mut vmk_error>>,
) -> vmk_result {
    guard(error, || {
        let answer = required(tunnel, "tunnel")?.tunnel().close_connection(id);
        let found = wait(answer, timeout_ms, "close_connection")?;
        if let Some(closed) = closed {
            closed.write(found.into());
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::CStr;
    use vmesskit::addr::Network;

    #[test]
    fn a_connection_reaches_c_whole() {
        let info = ConnectionInfo {
            id: 9,
            network: Network::Udp,
            source: "[2001:db8::1]:5".parse().unwrap(),
            target: "example.org:443".into(),
            inbound: "tun".into(),
            outbound: "proxy".into(),
            uplink_bytes: 1,
            downlink_bytes: 2,
            age_millis: 3,
        };
        let list = vmk_connections { connections: vec![info.into()] };
        let mut out = MaybeUninit::<vmk_connection>::zeroed();
        let size = size_of::<vmk_connection>() as u32;
        // SAFETY: a zeroed struct of integers and pointers is valid; its size is set before it is handed over.
        let out = unsafe {
            out.as_mut_ptr().cast::<u32>().write(size);
            assert_eq!(vmk_connections_get(Some(&list), 0, out.as_mut_ptr()), codes::VMK_OK);
            assert_eq!(vmk_connections_get(Some(&list), 1, out.as_mut_ptr()), codes::VMK_MISUSE);
            out.assume_init()
        };
        // SAFETY: borrowed from `list`.
        let texts =
            [out.source, out.target, out.inbound, out.outbound].map(|text| unsafe { CStr::from_ptr(text) });
        assert_eq!(texts, [c"[2001:db8::1]:5", c"example.org:443", c"tun", c"proxy"]);
        assert_eq!((out.size, out.protocol, out.id), (size, codes::VMK_PROTOCOL_UDP, 9));
        assert_eq!((out.uplink_bytes, out.downlink_bytes, out.age_millis), (1, 2, 3));
    }

    #[test]
    fn an_older_stats_struct_is_filled_as_far_as_it_goes() {
        let stats = Stats { uplink_bytes: 1, downlink_bytes: 2, tun_packets_in: 3, ..Stats::default() };
        let mut room = [u64::MAX; 4];
        room[0] = 24_u64.to_le();
        // SAFETY: the room holds the 24 bytes that it claims, and more.
        unsafe { sized::write(room.as_mut_ptr().cast::<vmk_stats>(), &stats.into()) }.unwrap();
        assert_eq!(room[1..], [1, 2, u64::MAX]);
    }
}
