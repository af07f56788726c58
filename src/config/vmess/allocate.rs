//! `allocate`: whether an inbound listens on all of its ports, or on some that change.

use crate::config::diagnostic::Diagnostic;
use crate::config::model::Allocate;
use crate::config::walk::{Node, Object};
use std::time::Duration;

/// What V2Ray takes where the config does not say: so many ports, so many minutes.
const PORTS: u32 = 3;
const MINUTES: u32 = 5;

/// How the ports of a range are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Strategy {
    /// All of them, for ever.
    Always,
    /// Some of them, new ones every few minutes.
    Random,
    /// As another program says; V2Ray too knows the name alone.
    External,
}

/// Reads `allocate` for an inbound with a range of ports; `Some(None)` is every port, `None` an error.
pub(in crate::config) fn read(node: &Node<'_>, ports: Option<(u16, u16)>) -> Option<Option<Allocate>> {
    const STRATEGIES: &[(&str, Strategy)] = &[
        ("always", Strategy::Always),
        ("random", Strategy::Random),
        ("external", Strategy::External),
        ("", Strategy::Always),
    ];
    let object = node.object(&["strategy", "concurrency", "refresh"])?;
    let strategy = match object.get("strategy") {
        Some(node) => node.choice("strategy", STRATEGIES),
        None => Some(Strategy::Always),
    };
    let numbers = ["concurrency", "refresh"].map(|key| object.get(key).map(|node| node.number_u32()));
    if numbers.contains(&Some(None)) {
        return None;
    }
    let [concurrency, refresh] = numbers.map(Option::flatten);
    match strategy? {
        Strategy::Always => {
            for key in ["concurrency", "refresh"] {
                if let Some(node) = object.get(key) {
                    node.no_effect("`strategy` is not `random`");
                }
            }
            Some(None)
        }
        Strategy::External => {
            if let Some(node) = object.get("strategy") {
                node.unsupported("an outside allocator of ports", "use `random` or `always`");
            }
            None
        }
        Strategy::Random => random(&object, ports?, concurrency, refresh).map(Some),
    }
}

/// Reads the numbers of the strategy `random`. V2Ray looks for free ports for ever if it is to take all there are, and
/// only notices that if `concurrency` is written down.
fn random(
    object: &Object<'_>,
    (first, last): (u16, u16),
    concurrency: Option<u32>,
    refresh: Option<u32>,
) -> Option<Allocate> {
    let ports = u32::from(last.saturating_sub(first)) + 1;
    let count = concurrency.unwrap_or(PORTS);
    let mut whole = true;
    if count == 0 || count >= ports {
        let taken = match concurrency {
            Some(count) => format!("{count}"),
            None => format!("{count}, the default"),
        };
        let finding = Diagnostic::error(
            object.path_of("concurrency"),
            format!("`concurrency` ports cannot be taken at random from {ports}"),
        );
        let finding = match ports {
            1 => finding.hint("write a range under `port`, such as \"10000-20000\""),
            _ => finding.allowed(format!("1 to {}", ports - 1)).hint("widen the range under `port`"),
        };
        object.report(finding.found(taken));
        whole = false;
    }
    let minutes = refresh.unwrap_or(MINUTES);
    if minutes == 0 {
        if let Some(node) = object.get("refresh") {
            node.error("ports that change all the time serve nobody", |finding| {
                finding.allowed("minutes, 1 or more")
            });
        }
        whole = false;
    }
    let refresh = Duration::from_secs(u64::from(minutes) * 60);
    whole.then_some(Allocate { concurrency: count, refresh })
}
