//! Empty queues kept for the next flow that moves data, so that a flow holds none while it is idle.

/// How many are kept.
const KEPT: usize = 16;

/// A few boxed values to be used again.
#[derive(Debug)]
pub(crate) struct Shelf<T>(Vec<Box<T>>);

impl<T: Default> Shelf<T> {
    /// A shelf that holds nothing.
    pub(crate) const fn new() -> Self {
        Self(Vec::new())
    }

    /// Takes one, or makes one.
    pub(crate) fn take(&mut self) -> Box<T> {
        self.0.pop().unwrap_or_default()
    }

    /// Puts one back, which must be as good as new.
    pub(crate) fn put(&mut self, value: Box<T>) {
        if self.0.len() < KEPT {
            self.0.push(value);
        }
    }
}
