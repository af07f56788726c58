//! The list that every reader adds its findings to.

use super::diagnostic::{Diagnostic, Severity};
use std::cell::{Cell, RefCell};

/// Most errors, and most warnings, that are kept: a hostile config must not grow the list without end.
const MOST: usize = 200;

/// What has been found so far.
#[derive(Debug, Default)]
pub(super) struct Findings {
    list: RefCell<Vec<Diagnostic>>,
    errors: Cell<usize>,
    warnings: Cell<usize>,
}

impl Findings {
    /// Adds a finding; above [`MOST`] of its severity it is only counted.
    pub(super) fn push(&self, finding: Diagnostic) {
        let count = match finding.severity {
            Severity::Error => &self.errors,
            Severity::Warning => &self.warnings,
        };
        count.set(count.get() + 1);
        if count.get() <= MOST {
            self.list.borrow_mut().push(finding);
        }
    }

    /// Whether further warnings are only counted.
    pub(super) fn is_full(&self) -> bool {
        self.warnings.get() >= MOST
    }

    /// How many errors there are.
    pub(super) fn errors(&self) -> usize {
        self.errors.get()
    }

    /// All findings in the order in which they were made, with a last one that says how many were left out.
    pub(super) fn into_vec(self) -> Vec<Diagnostic> {
        let mut list = self.list.into_inner();
        let left_out = (self.errors.get() + self.warnings.get()).saturating_sub(list.len());
        if left_out > 0 {
            list.push(Diagnostic::warning(
                super::walk::TOP,
                format!("{left_out} more findings are not shown"),
            ));
        }
        list
    }
}
