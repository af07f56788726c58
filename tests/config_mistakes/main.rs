//! Every mistake in a config is found, with its path, its gravity and a text that helps: tables of one mistake each.

mod inbounds;
mod outbounds;
mod routing;
mod sections;
mod servers;

use vmesskit::config::Severity::{Error, Warning};
use vmesskit::config::{Severity, parse};

const ID: &str = "b831381d-6324-4d53-ad4f-8cda48b30811";

/// A mistake and what is expected of it: the text, the gravity, the path, and a part of the line that shows it.
type Row<'t> = (&'t str, Severity, &'t str, &'t str);

/// Puts each text in place of the `*` of `frame`, `$` standing for an id, and looks for the expected finding, whose
/// path begins with `prefix`.
fn check(frame: &str, prefix: &str, rows: &[Row<'_>]) {
    for (text, severity, path, part) in rows {
        let path = format!("{prefix}{path}");
        let config = frame.replace('*', text).replace('$', ID);
        let parsed = parse(&config);
        let found =
            parsed.diagnostics.iter().find(|finding| finding.path == path && finding.severity == *severity);
        let shown = || parsed.diagnostics.iter().map(|finding| format!("\n  {finding}")).collect::<String>();
        let finding = found.unwrap_or_else(|| panic!("{config}\nno {severity:?} at {path}, but:{}", shown()));
        assert!(finding.to_string().contains(part), "{config}\n{part:?} is not in:{}", shown());
        assert!(!shown().contains(ID), "an id is shown:{}", shown());
        let errors = parsed.diagnostics.iter().filter(|finding| finding.severity == Error).count();
        assert_eq!(parsed.config.is_none(), errors > 0, "{config}{}", shown());
        if *severity == Warning {
            assert_eq!(errors, 0, "{config}{}", shown());
        } else {
            assert_eq!(errors, 1, "one mistake is one error: {config}{}", shown());
        }
    }
}
