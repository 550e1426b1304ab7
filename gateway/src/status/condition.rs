//! Conditions: what is said now put into what was said before.

use std::sync::{Arc, LazyLock};

use atoll_api::kinds::Condition;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

/// Why what a route names is there, but not used as a whole.
pub(crate) const LEFT_OUT: &str = "AddressesRefused";

/// One condition as it is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub(crate) kind: &'static str,
    pub(crate) status: bool,
    pub(crate) reason: &'static str,
    pub(crate) message: String,
}

impl Verdict {
    pub(crate) fn new(kind: &'static str, status: bool, reason: &'static str, message: impl Into<String>) -> Self {
        Self { kind, status, reason, message: message.into() }
    }

    /// A route is served as it is written.
    pub(crate) fn served() -> Self {
        Self::new("Accepted", true, "Accepted", "the route is served")
    }

    /// Nothing that an object names is missing.
    pub(crate) fn resolved() -> Self {
        Self::new("ResolvedRefs", true, "ResolvedRefs", "everything that it names is there")
    }
}

/// What is said of most routes.
pub(crate) static SERVED: LazyLock<Arc<[Verdict]>> = LazyLock::new(|| [Verdict::served(), Verdict::resolved()].into());

/// The old conditions with `verdicts` put in. The time of a transition moves only with the status.
pub(super) fn merge(
    old: &[Condition],
    verdicts: impl IntoIterator<Item = Verdict>,
    generation: Option<i64>,
    now: Timestamp,
) -> Vec<Condition> {
    let mut all = old.to_vec();
    for verdict in verdicts {
        let status = if verdict.status { "True" } else { "False" };
        let held = all.iter().position(|c| c.type_ == verdict.kind);
        let since = held.map(|i| &all[i]).filter(|c| c.status == status).map(|c| c.last_transition_time.clone());
        let condition = Condition {
            type_: verdict.kind.to_owned(),
            status: status.to_owned(),
            reason: verdict.reason.to_owned(),
            message: verdict.message,
            observed_generation: generation,
            last_transition_time: since.unwrap_or_else(|| Time(whole_seconds(now))),
        };
        match held {
            Some(i) => all[i] = condition,
            None => all.push(condition),
        }
    }
    all
}

/// The same where nobody else says anything: what is no longer said goes.
pub(crate) fn replace(
    old: &[Condition],
    verdicts: Vec<Verdict>,
    generation: Option<i64>,
    now: Timestamp,
) -> Vec<Condition> {
    let said = |c: &&Condition| verdicts.iter().any(|v| v.kind == c.type_);
    let kept: Vec<Condition> = old.iter().filter(said).cloned().collect();
    merge(&kept, verdicts, generation, now)
}

/// Whether two lists say the same in whatever order: each who writes into one puts what is its own last.
pub(super) fn alike<T: PartialEq>(a: &[T], b: &[T]) -> bool {
    a.len() == b.len() && a.iter().all(|said| b.contains(said))
}

/// As API servers keep times: a finer one would differ from what is read back.
fn whole_seconds(now: Timestamp) -> Timestamp {
    Timestamp::from_second(now.as_second()).unwrap_or(now)
}
