//! What is wrong with a config, and where.

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
    /// The JSON path of the value: `outbounds[0].settings.vnext[0].port`. For text that is no JSON: `line 3, column 7`.
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
