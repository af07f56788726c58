//! The numbers of a conversation that follow from its settings.

use std::time::Duration;

/// How many segments V2Ray sends before it looks again, for each that its capacity allows a step of its clock.
const STEPS: u32 = 20;

/// What one end of a conversation keeps to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    /// The most bytes of segments in a datagram.
    pub(super) room: usize,
    /// The most bytes of payload in a segment.
    pub(super) payload: usize,
    /// The step of V2Ray's clock: what its acknowledgements may wait.
    pub(super) step: Duration,
    /// How many segments the uplink bears in a step.
    pub(super) uplink: u32,
    /// How many segments are on their way at most.
    pub(super) in_flight: u32,
    /// How many segments the peer is told that it may have on its way.
    pub(super) window: u32,
    /// How many segments ahead of the next one to be read are kept.
    pub(super) ahead: usize,
    /// The most bytes that wait to be read.
    pub(super) read_buffer: usize,
    /// The most bytes that wait to be acknowledged.
    pub(super) write_buffer: usize,
    /// Whether losses slow us down.
    pub(super) congestion: bool,
}

/// The settings that shape a conversation.
#[derive(Debug, Clone, Copy)]
pub(super) struct Terms {
    /// The most bytes of a datagram.
    pub(super) mtu: u16,
    /// The step of the clock.
    pub(super) tti: Duration,
    /// MB a second.
    pub(super) uplink_capacity: u32,
    /// MB a second.
    pub(super) downlink_capacity: u32,
    /// Whether losses slow us down.
    pub(super) congestion: bool,
    /// Bytes.
    pub(super) read_buffer: usize,
    /// Bytes.
    pub(super) write_buffer: usize,
}

impl Shape {
    /// The shape of a conversation whose datagrams have `overhead` bytes around the segments, or `counted`, as V2Ray counts.
    pub(super) fn new(terms: &Terms, overhead: usize, counted: usize) -> Self {
        let mtu = u32::from(terms.mtu).max(1);
        let steps = 1000 / u32::try_from(terms.tti.as_millis()).unwrap_or(u32::MAX).clamp(1, 1000);
        let per_step = |capacity: u32| {
            let segments = u64::from(capacity) * (1 << 20) / u64::from(mtu) / u64::from(steps);
            u32::try_from(segments).unwrap_or(u32::MAX).clamp(8, 1 << 16)
        };
        let segments =
            |bytes: usize| u32::try_from(bytes / mtu as usize).unwrap_or(u32::MAX).clamp(8, 1 << 16);
        let (uplink, kept) = (per_step(terms.uplink_capacity), segments(terms.read_buffer));
        Self {
            room: usize::from(terms.mtu).saturating_sub(overhead),
            // Not above V2Ray's, whose datagrams are longer than the MTU by the nonce that it does not count.
            payload: usize::from(terms.mtu)
                .saturating_sub(overhead.max(counted) + super::segment::DATA_OVERHEAD)
                .max(1),
            step: terms.tti,
            uplink,
            in_flight: (uplink * STEPS).min(segments(terms.write_buffer)),
            window: per_step(terms.downlink_capacity).min(kept),
            ahead: kept as usize,
            read_buffer: terms.read_buffer,
            write_buffer: terms.write_buffer,
            congestion: terms.congestion,
        }
    }
}
