//! Configs: V2Ray's JSON and share links in, resolved values and diagnostics out.
//!
//! [`parse`] reads a config text into a [`Config`]: plain values with every default applied and every reference checked.
//! Nothing here opens, starts or asks anything.

mod diagnostic;
mod model;

pub use diagnostic::{Diagnostic, Severity};
pub use model::*;
