//! What is wrong with a config, and where.

use crate::error::{Error, ErrorKind};
use std::fmt;

/// How grave a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// The config works, but perhaps not as its writer thinks.
    Warning,
    /// The config cannot be used.
    Error,
}

/// One finding in a config.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// How grave it is.
    pub severity: Severity,
    /// The JSON path of the value: `outbounds[0].settings.vnext[0].port`. For text that is no JSON: `line 3,
    /// column 7`.
    pub path: String,
    /// What is wrong, for a person: one sentence.
    pub text: String,
    /// The value found, shortened, never a secret; may be empty.
    pub found: String,
    /// What is allowed there; may be empty.
    pub allowed: String,
    /// What to do, such as the nearest known name; may be empty.
    pub hint: String,
}

impl Diagnostic {
    /// Makes an error with a path and a text.
    pub(super) fn error(path: impl Into<String>, text: impl Into<String>) -> Self {
        Self::new(Severity::Error, path.into(), text.into())
    }

    /// Makes a warning with a path and a text.
    pub(super) fn warning(path: impl Into<String>, text: impl Into<String>) -> Self {
        Self::new(Severity::Warning, path.into(), text.into())
    }

    fn new(severity: Severity, path: String, text: String) -> Self {
        Self { severity, path, text, found: String::new(), allowed: String::new(), hint: String::new() }
    }

    /// Adds the value found.
    #[must_use]
    pub(super) fn found(mut self, found: impl Into<String>) -> Self {
        self.found = found.into();
        self
    }

    /// Adds what is allowed.
    #[must_use]
    pub(super) fn allowed(mut self, allowed: impl Into<String>) -> Self {
        self.allowed = allowed.into();
        self
    }

    /// Adds what to do.
    #[must_use]
    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = hint.into();
        self
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Warning => "warning",
            Severity::Error => "error",
        };
        write!(f, "{severity}: {}: {}", self.path, self.text)?;
        if !self.found.is_empty() {
            write!(f, "; found {}", self.found)?;
        }
        if !self.allowed.is_empty() {
            write!(f, "; allowed: {}", self.allowed)?;
        }
        if !self.hint.is_empty() {
            write!(f, "; {}", self.hint)?;
        }
        Ok(())
    }
}

impl From<Diagnostic> for Error {
    /// Makes a `ConfigInvalid` of a finding: what was found and what is allowed become the reason.
    fn from(finding: Diagnostic) -> Self {
        let reason = match (finding.found.is_empty(), finding.allowed.is_empty()) {
            (true, true) => String::new(),
            (false, true) => format!("found {}", finding.found),
            (true, false) => format!("allowed: {}", finding.allowed),
            (false, false) => format!("found {}; allowed: {}", finding.found, finding.allowed),
        };
        Self::new(ErrorKind::ConfigInvalid, finding.text)
            .with_reason(reason)
            .with_hint(finding.hint)
            .with_path(finding.path)
    }
}

/// Makes an [`Error`] of the first finding that is an error; `None` if there are only warnings.
pub fn first_error(findings: &[Diagnostic]) -> Option<Error> {
    findings.iter().find(|finding| finding.severity == Severity::Error).cloned().map(Error::from)
}
