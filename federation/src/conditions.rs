//! Conditions as Kubernetes keeps them: the time of a transition moves only when the status does. Pure.

use atoll_api::kinds::Condition;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

/// So many faults are named in a condition.
const NAMED_MAX: usize = 10;

/// One condition as a controller sees it now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) kind: &'static str,
    /// `True`, `False` or `Unknown`.
    pub(crate) status: &'static str,
    /// One word in CamelCase.
    pub(crate) reason: &'static str,
    pub(crate) message: String,
}

impl Found {
    pub(crate) fn new(kind: &'static str, holds: bool, reason: &'static str, message: impl Into<String>) -> Self {
        Self { kind, status: if holds { "True" } else { "False" }, reason, message: message.into() }
    }

    pub(crate) fn unknown(kind: &'static str, reason: &'static str, message: impl Into<String>) -> Self {
        Self { kind, status: "Unknown", reason, message: message.into() }
    }
}

/// What is wrong in one sentence: at most [`NAMED_MAX`] of it, and how much more there is.
pub(crate) fn listed(mut faults: Vec<String>) -> String {
    let more = faults.len().saturating_sub(NAMED_MAX);
    faults.truncate(NAMED_MAX);
    if more > 0 {
        faults.push(format!("and {more} more"));
    }
    faults.join("; ")
}

/// The old conditions with `found` put in. A condition that says the same stays as it is.
pub(crate) fn merge(
    old: &[Condition],
    found: impl IntoIterator<Item = Found>,
    generation: Option<i64>,
    now: Timestamp,
) -> Vec<Condition> {
    let mut all = old.to_vec();
    for f in found {
        let held = all.iter().position(|c| c.type_ == f.kind);
        let transition = held.map(|i| &all[i]).filter(|c| c.status == f.status).map(|c| c.last_transition_time.clone());
        let condition = Condition {
            type_: f.kind.into(),
            status: f.status.into(),
            reason: f.reason.into(),
            message: f.message,
            observed_generation: generation,
            last_transition_time: transition.unwrap_or(Time(now)),
        };
        match held {
            Some(i) => all[i] = condition,
            None => all.push(condition),
        }
    }
    all
}

/// The status of one condition.
pub(crate) fn status_of<'a>(conditions: &'a [Condition], kind: &str) -> Option<&'a str> {
    conditions.iter().find(|c| c.type_ == kind).map(|c| c.status.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_a_transition_moves_only_with_the_status() {
        let (first, later): (Timestamp, Timestamp) =
            ("2026-01-01T00:00:00Z".parse().unwrap(), "2026-01-02T00:00:00Z".parse().unwrap());
        let old = merge(&[], [Found::new("Ready", true, "Beats", "")], Some(1), first);
        let same = merge(&old, [Found::new("Ready", true, "Beats", "still")], Some(1), later);
        assert_eq!(same[0].last_transition_time.0, first);
        assert_eq!(same[0].message, "still");
        let turned = merge(&same, [Found::unknown("Ready", "Silent", "")], Some(1), later);
        assert_eq!((turned.len(), turned[0].last_transition_time.0), (1, later));
    }
}
