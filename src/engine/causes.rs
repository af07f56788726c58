//! What is likely at fault when a server rejects or ignores us, and how sure that is.
//!
//! VMess servers tell nobody why: an unknown id, a clock that is off by more than 120 s and a refused security all look
//! alike. What tells them apart is what else is known, weighed here by hand.

use super::api::{Cause, CauseKind};
use crate::vmess::Security;

/// 2025-01-01: no device that runs this has a right clock before it.
const EARLIEST: i64 = 1_735_689_600;

/// What is known when an outbound fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Evidence {
    /// Whether a server of the outbound has ever answered.
    pub(super) answered: bool,
    /// The corrected UTC in seconds.
    pub(super) unix_secs: i64,
    /// Whether the host has corrected the clock.
    pub(super) corrected: bool,
}

/// The causes of a connection that the server closed before it answered, surest first.
pub(super) fn of_rejection(evidence: Evidence, security: Security) -> Vec<Cause> {
    let open = matches!(security, Security::None | Security::Zero);
    let weights = match (evidence.answered, open) {
        // It knew us before. Some servers close in the same way when the target cannot be reached.
        (true, _) => [
            (CauseKind::Target, 40),
            (CauseKind::ServerGone, 30),
            (CauseKind::Id, 15),
            (CauseKind::Clock, 15),
        ],
        (false, true) => [
            (CauseKind::Security, 45),
            (CauseKind::Id, 30),
            (CauseKind::Clock, 20),
            (CauseKind::ServerGone, 5),
        ],
        (false, false) => [
            (CauseKind::Id, 55),
            (CauseKind::Clock, 35),
            (CauseKind::ServerGone, 10),
            (CauseKind::Security, 0),
        ],
    };
    weigh(evidence, &weights)
}

/// The causes of flows that sent data and received nothing, surest first.
pub(super) fn of_silence(evidence: Evidence) -> Vec<Cause> {
    let weights = if evidence.answered {
        [(CauseKind::ServerGone, 60), (CauseKind::Target, 20), (CauseKind::Clock, 10), (CauseKind::Id, 10)]
    } else {
        // Servers swallow what they cannot authenticate, so that nobody finds out what they are.
        [(CauseKind::Id, 45), (CauseKind::Clock, 30), (CauseKind::ServerGone, 20), (CauseKind::Target, 5)]
    };
    weigh(evidence, &weights)
}

fn weigh(evidence: Evidence, weights: &[(CauseKind, u8)]) -> Vec<Cause> {
    let absurd = evidence.unix_secs < EARLIEST;
    let mut causes: Vec<Cause> = weights
        .iter()
        .filter(|(_, weight)| *weight > 0)
        .map(|&(kind, weight)| {
            let confidence = match kind {
                CauseKind::Clock if absurd => 95,
                CauseKind::Clock if evidence.corrected => weight / 4,
                _ if absurd => (weight / 10).max(1),
                _ => weight,
            };
            Cause { kind, confidence, text: text(kind).into() }
        })
        .collect();
    causes.sort_by_key(|cause| std::cmp::Reverse(cause.confidence));
    causes
}

fn text(kind: CauseKind) -> &'static str {
    match kind {
        CauseKind::Id => {
            "the server does not know the id, or its alterId is not 0: compare both with the server's config"
        }
        CauseKind::Clock => "this device's clock is off by more than 120 s: set the date, time and time zone",
        CauseKind::ServerGone => {
            "the server has gone, or something between drops the traffic: try another network or ask its operator"
        }
        CauseKind::Security => "the server refuses security none and zero: use auto",
        CauseKind::Target => "the target behind the server does not answer: try another",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEW: Evidence = Evidence { answered: false, unix_secs: EARLIEST + 1, corrected: false };

    fn surest(causes: &[Cause]) -> CauseKind {
        assert!(causes.windows(2).all(|two| two[0].confidence >= two[1].confidence), "{causes:?}");
        assert!(causes.iter().all(|cause| (1..=100).contains(&cause.confidence)), "{causes:?}");
        causes[0].kind
    }

    #[test]
    fn what_is_known_decides_what_is_likely() {
        let known = Evidence { answered: true, ..NEW };
        let asleep = Evidence { unix_secs: 86_400, ..NEW };
        let corrected = Evidence { corrected: true, ..NEW };
        assert_eq!(surest(&of_rejection(NEW, Security::Auto)), CauseKind::Id);
        assert_eq!(surest(&of_rejection(NEW, Security::Zero)), CauseKind::Security);
        assert_eq!(surest(&of_rejection(known, Security::Auto)), CauseKind::Target);
        assert_eq!(surest(&of_rejection(asleep, Security::None)), CauseKind::Clock);
        assert_eq!(surest(&of_silence(NEW)), CauseKind::Id);
        assert_eq!(surest(&of_silence(known)), CauseKind::ServerGone);
        assert_eq!(surest(&of_silence(asleep)), CauseKind::Clock);
        assert_eq!(of_rejection(corrected, Security::Auto)[2].kind, CauseKind::Clock);
    }
}
