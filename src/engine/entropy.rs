//! The operating system's randomness, read in blocks.

use crate::entropy::Entropy;
use zeroize::Zeroize;

/// How much is drawn from the system at a time: the padding of about a hundred records.
const BLOCK: usize = 4096;

/// The operating system's generator, fit for keys. Small draws come from a block that is wiped as it is used.
pub(crate) struct SystemEntropy {
    block: [u8; BLOCK],
    used: usize,
}

impl SystemEntropy {
    /// Makes a source; nothing is drawn yet.
    pub(crate) const fn new() -> Self {
        Self { block: [0; BLOCK], used: BLOCK }
    }
}

impl Entropy for SystemEntropy {
    /// # Panics
    /// If the operating system has no randomness to give: no safe key can be made then.
    fn fill(&mut self, out: &mut [u8]) {
        if out.len() > BLOCK / 4 {
            return draw(out);
        }
        if BLOCK - self.used < out.len() {
            draw(&mut self.block);
            self.used = 0;
        }
        let piece = &mut self.block[self.used..self.used + out.len()];
        out.copy_from_slice(piece);
        piece.zeroize();
        self.used += out.len();
    }
}

impl Drop for SystemEntropy {
    fn drop(&mut self) {
        self.block.zeroize();
    }
}

#[expect(clippy::disallowed_methods, reason = "the one place that asks the system for randomness")]
fn draw(out: &mut [u8]) {
    getrandom::fill(out).expect("the system's random generator works once the system is up");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_of_every_size_differ_and_leave_nothing_behind() {
        let mut source = SystemEntropy::new();
        let mut seen = std::collections::HashSet::new();
        for len in [16, 33, 63, 64, 65, 300, 16, 16, 64, 64, 64, 64] {
            let mut out = vec![0; len];
            source.fill(&mut out);
            assert!(seen.insert(out[..16].to_vec()), "repeated");
        }
        assert!(source.block[..source.used].iter().all(|byte| *byte == 0), "used bytes are wiped");
    }
}
