//! Sequence numbers: 32 bits that wrap, compared within half of the circle.

use std::ops::{Add, Sub};

/// A TCP sequence number (RFC 9293 section 3.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Seq(pub(crate) u32);

impl Seq {
    /// How far `self` lies behind `earlier`, negative if before it.
    pub(crate) const fn offset(self, earlier: Self) -> i32 {
        self.0.wrapping_sub(earlier.0) as i32
    }

    /// Bytes from `earlier` up to `self`; zero if `self` is not later.
    pub(crate) const fn since(self, earlier: Self) -> u32 {
        let offset = self.offset(earlier);
        if offset > 0 { offset as u32 } else { 0 }
    }

    /// Whether `self` is earlier than `other`.
    pub(crate) const fn before(self, other: Self) -> bool {
        self.offset(other) < 0
    }

    /// Whether `self` is later than `other`.
    pub(crate) const fn after(self, other: Self) -> bool {
        self.offset(other) > 0
    }

    /// The later of two.
    pub(crate) const fn max(self, other: Self) -> Self {
        if self.before(other) { other } else { self }
    }

    /// The earlier of two.
    pub(crate) const fn min(self, other: Self) -> Self {
        if self.after(other) { other } else { self }
    }
}

impl Add<u32> for Seq {
    type Output = Self;

    fn add(self, n: u32) -> Self {
        Self(self.0.wrapping_add(n))
    }
}

impl Sub<u32> for Seq {
    type Output = Self;

    fn sub(self, n: u32) -> Self {
        Self(self.0.wrapping_sub(n))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_survives_the_wrap() {
        let table = [
            (0, 1, true),
            (1, 0, false),
            (5, 5, false),
            (u32::MAX, 0, true),
            (0, u32::MAX, false),
            (0xffff_ff00, 0x100, true),
            (0, 0x7fff_ffff, true),
            (0x7fff_ffff, 0xffff_fffe, true),
        ];
        for (a, b, before) in table {
            assert_eq!(Seq(a).before(Seq(b)), before, "{a} {b}");
            assert_eq!(Seq(b).after(Seq(a)), before, "{a} {b}");
            if before {
                assert_eq!((Seq(a).max(Seq(b)), Seq(a).min(Seq(b))), (Seq(b), Seq(a)));
                assert_eq!(Seq(b).since(Seq(a)), b.wrapping_sub(a));
                assert_eq!(Seq(a).since(Seq(b)), 0);
            }
        }
        assert_eq!((Seq(u32::MAX) + 2, Seq(1) - 2), (Seq(1), Seq(u32::MAX)));
    }
}
