//! What stands before each packet on a tun descriptor: nothing, an address family, or a virtio-net header.

use super::stack::udp;
use super::stack::{Offload, PacketMeta, ip};
use crate::engine::api::Framing;
use std::net::SocketAddr;

/// The most bytes that stand before a packet.
pub(crate) const PREFIX_MAX: usize = 10;

/// `AF_INET` and `AF_INET6` as Darwin numbers them.
const DARWIN_FAMILIES: (u32, u32) = (2, 30);

/// Length of `struct virtio_net_hdr`; its fields are in machine order.
const VNET_LEN: usize = 10;
/// The transport checksum holds the pseudo header's sum only: to be completed.
const VNET_NEEDS_CSUM: u8 = 1;
/// The transport checksum has been verified.
const VNET_DATA_VALID: u8 = 2;
const VNET_GSO_NONE: u8 = 0;
const VNET_GSO_TCPV4: u8 = 1;
const VNET_GSO_TCPV6: u8 = 4;
/// Several datagrams of equal size behind one header.
const VNET_GSO_UDP_L4: u8 = 5;
/// A flag on the type: the segments carry congestion marks.
const VNET_GSO_ECN: u8 = 0x80;

/// What goes before a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Prefix {
    bytes: [u8; PREFIX_MAX],
    len: u8,
}

impl Prefix {
    /// The prefix of a packet that begins with `header`. An offload is expressed by [`Framing::VnetHdr`] alone.
    pub(crate) fn new(framing: Framing, header: &[u8], offload: Option<Offload>) -> Self {
        let mut bytes = [0; PREFIX_MAX];
        let is_v4 = header.first().is_some_and(|first| first >> 4 == 4);
        let len = match framing {
            Framing::RawIp => 0,
            Framing::DarwinUtun => {
                let family = if is_v4 { DARWIN_FAMILIES.0 } else { DARWIN_FAMILIES.1 };
                bytes[..4].copy_from_slice(&family.to_be_bytes());
                4
            }
            Framing::VnetHdr => {
                if let Some(offload) = offload {
                    bytes[0] = VNET_NEEDS_CSUM;
                    if let Some(size) = offload.segment_size {
                        bytes[1] = if is_v4 { VNET_GSO_TCPV4 } else { VNET_GSO_TCPV6 };
                        bytes[4..6].copy_from_slice(&size.to_ne_bytes());
                    }
                    bytes[2..4].copy_from_slice(&offload.header_len.to_ne_bytes());
                    bytes[6..8].copy_from_slice(&offload.transport_offset.to_ne_bytes());
                    bytes[8..10].copy_from_slice(&offload.checksum_offset.to_ne_bytes());
                }
                VNET_LEN as u8
            }
        };
        Self { bytes, len }
    }

    /// The bytes to write.
    pub(crate) fn as_slice(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

/// Takes the framing off what was read in one go and gives `take` the packet; for a bundle of datagrams, each as a
/// packet of its own. What is shorter than its framing is passed over.
pub(crate) fn strip(framing: Framing, read: &[u8], take: &mut impl FnMut(&[u8], PacketMeta)) {
    match framing {
        Framing::RawIp => take(read, PacketMeta::default()),
        Framing::DarwinUtun => {
            if let Some((_, packet)) = read.split_at_checked(4) {
                take(packet, PacketMeta::default());
            }
        }
        Framing::VnetHdr => {
            let Some((header, packet)) = read.split_first_chunk::<VNET_LEN>() else { return };
            let checksum_trusted = header[0] & (VNET_NEEDS_CSUM | VNET_DATA_VALID) != 0;
            let segment_size = usize::from(u16::from_ne_bytes([header[4], header[5]]));
            match header[1] & !VNET_GSO_ECN {
                VNET_GSO_UDP_L4 if segment_size > 0 => split_datagrams(packet, segment_size, take),
                VNET_GSO_NONE | VNET_GSO_UDP_L4 => take(packet, PacketMeta { checksum_trusted }),
                // What is still to be cut has no checksum yet.
                _ => take(packet, PacketMeta { checksum_trusted: true }),
            }
        }
    }
}

/// Makes packets of a bundle of datagrams: `size` bytes of payload each, the last one perhaps less.
fn split_datagrams(bundle: &[u8], size: usize, take: &mut impl FnMut(&[u8], PacketMeta)) {
    let Ok(packet) = ip::parse(bundle) else { return };
    let Some((header, data)) = packet.payload.split_at_checked(udp::HEADER) else { return };
    let [a, b, c, d, ..] = *header else { return };
    let source = SocketAddr::new(packet.src, u16::from_be_bytes([a, b]));
    let destination = SocketAddr::new(packet.dst, u16::from_be_bytes([c, d]));
    let mut whole = Vec::new();
    for piece in data.chunks(size) {
        let Some(udp_header) = udp::header(source, destination, piece) else { return };
        let mut header = ip::Header::new();
        header.push_ip(packet.src, packet.dst, packet.protocol, udp_header.len() + piece.len(), None);
        header.push(&udp_header);
        whole.clear();
        whole.extend_from_slice(header.as_slice());
        whole.extend_from_slice(piece);
        take(&whole, PacketMeta { checksum_trusted: true });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tun::stack::ip::Protocol;

    fn stripped(framing: Framing, read: &[u8]) -> Vec<(Vec<u8>, bool)> {
        let mut packets = Vec::new();
        strip(framing, read, &mut |packet: &[u8], meta: PacketMeta| {
            packets.push((packet.to_vec(), meta.checksum_trusted));
        });
        packets
    }

    #[test]
    fn each_framing_has_its_prefix() {
        let offload =
            Offload { transport_offset: 40, checksum_offset: 16, header_len: 60, segment_size: Some(1440) };
        assert_eq!(Prefix::new(Framing::RawIp, &[0x45], None).as_slice(), [0u8; 0]);
        assert_eq!(Prefix::new(Framing::DarwinUtun, &[0x45], None).as_slice(), [0, 0, 0, 2]);
        assert_eq!(Prefix::new(Framing::DarwinUtun, &[0x60], None).as_slice(), [0, 0, 0, 30]);
        assert_eq!(Prefix::new(Framing::VnetHdr, &[0x45], None).as_slice(), [0; 10]);
        let prefix = Prefix::new(Framing::VnetHdr, &[0x60], Some(offload));
        let numbers: Vec<u8> = [60u16, 1440, 40, 16].into_iter().flat_map(u16::to_ne_bytes).collect();
        assert_eq!(prefix.as_slice(), [&[1, 4][..], &numbers].concat());
        let prefix = Prefix::new(Framing::VnetHdr, &[0x45], Some(Offload { segment_size: None, ..offload }));
        assert_eq!(prefix.as_slice()[..2], [1, 0]);
    }

    #[test]
    fn prefixes_come_off_and_short_reads_are_passed_over() {
        assert_eq!(stripped(Framing::RawIp, b"packet"), [(b"packet".to_vec(), false)]);
        assert_eq!(stripped(Framing::DarwinUtun, b"\0\0\0\x02packet"), [(b"packet".to_vec(), false)]);
        assert_eq!(stripped(Framing::DarwinUtun, b"\0\0"), []);
        assert_eq!(stripped(Framing::VnetHdr, b"\0\0\0\0\0\0\0\0\0"), []);
        assert_eq!(stripped(Framing::VnetHdr, b"\x01\0\0\0\0\0\0\0\0\0packet"), [(b"packet".to_vec(), true)]);
        assert_eq!(
            stripped(Framing::VnetHdr, b"\0\x01\0\0\xb4\x05\0\0\0\0packet"),
            [(b"packet".to_vec(), true)]
        );
        assert_eq!(stripped(Framing::VnetHdr, b"\0\0\0\0\0\0\0\0\0\0packet"), [(b"packet".to_vec(), false)]);
    }

    #[test]
    fn a_bundle_of_datagrams_is_taken_apart() {
        let app: SocketAddr = "172.19.0.1:4000".parse().expect("addr");
        let host: SocketAddr = "9.9.9.9:443".parse().expect("addr");
        let data: Vec<u8> = (0..250).collect();
        let mut header = ip::Header::new();
        header.push_ip(app.ip(), host.ip(), Protocol::Udp, 8 + data.len(), None);
        header.push(&udp::header(app, host, &data).expect("short"));
        let vnet = [&[1, VNET_GSO_UDP_L4, 0, 0][..], &100u16.to_ne_bytes(), &[0; 4]].concat();
        let packets = stripped(Framing::VnetHdr, &[&vnet, header.as_slice(), &data].concat());
        assert_eq!(packets.len(), 3);
        let mut joined = Vec::new();
        for (packet, _) in &packets {
            let packet = ip::parse(packet).expect("legal");
            let datagram = udp::parse(packet.src, packet.dst, packet.payload, false).expect("legal");
            assert_eq!((datagram.source_port, datagram.destination_port), (4000, 443));
            joined.extend_from_slice(datagram.data);
        }
        assert_eq!(joined, data);
    }
}
