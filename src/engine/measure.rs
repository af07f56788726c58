//! Measuring servers without a tunnel. Not built yet.

use super::api::Platform;
use crate::error::{Error, ErrorKind};
use std::sync::Arc;
use std::time::Duration;

/// Fetches `url` through the first server of each config and tells how long each took, `parallel` at a time. Needs no
/// running tunnel. Not built yet.
///
/// # Errors
/// `Unsupported`.
pub fn measure(
    _configs: &[String],
    _url: &str,
    _timeout: Duration,
    _parallel: usize,
    _platform: Option<Arc<dyn Platform>>,
) -> Result<Vec<Result<Duration, Error>>, Error> {
    Err(Error::new(ErrorKind::Unsupported, "measuring servers is not built yet"))
}
