//! What became of the certificates that were asked for: a condition for each Gateway and ListenerSet, Events where something is wrong. Pure.
//!
//! Only the replica that orders knows; the others know nothing, and leave what is said as it is.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use atoll_api::topology::BalancerProblem;
use jiff::Timestamp;

use super::wanted::Wanted;
use crate::objects::Name;
use crate::status::{Verdict, Warning};

/// The condition that says it.
pub(crate) const CONDITION: &str = "atoll.dev/CertificatesCurrent";
/// Problems that one condition tells.
const TOLD_MAX: usize = 5;

/// What kind of object asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Gateway,
    Set,
    Ingress,
}

/// Who asks for a certificate.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Owner {
    pub(crate) kind: Kind,
    pub(crate) name: Name,
    pub(crate) uid: Option<String>,
}

impl Kind {
    fn versioned(self) -> (&'static str, &'static str) {
        match self {
            Self::Gateway => ("gateway.networking.k8s.io/v1", "Gateway"),
            Self::Set => ("gateway.networking.k8s.io/v1", "ListenerSet"),
            Self::Ingress => ("networking.k8s.io/v1", "Ingress"),
        }
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} `{}/{}`", self.kind.versioned().1, self.name.0, self.name.1)
    }
}

/// How one certificate stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum State {
    /// It is there, and needs nothing.
    Current,
    /// It is being ordered; said where there is none yet, or it does not fit.
    Ordering,
    /// What is wrong, when it is tried again, whether there is one all the same.
    Failing { why: String, again: Option<Timestamp>, is_there: bool },
}

/// Everything that is known of it; nothing before this replica orders.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Standing {
    owners: Option<BTreeMap<(Kind, Name), Verdict>>,
    pub(crate) warnings: Vec<Warning>,
}

impl Standing {
    /// Nobody asks for anything.
    pub(crate) fn nothing() -> Self {
        Self { owners: Some(BTreeMap::new()), warnings: Vec::new() }
    }

    /// Of these certificates.
    pub(super) fn of<'a>(all: impl Iterator<Item = (&'a Wanted, State)>) -> Self {
        let mut by_owner: BTreeMap<&Owner, Vec<(&Name, State)>> = BTreeMap::new();
        for (wanted, state) in all {
            for owner in &wanted.owners {
                by_owner.entry(owner).or_default().push((&wanted.secret, state.clone()));
            }
        }
        let warnings = by_owner.iter().flat_map(|(owner, states)| {
            let failing = states.iter().filter_map(|(secret, state)| match state {
                State::Failing { why, .. } => Some(warning(owner, secret, why)),
                _ => None,
            });
            failing.collect::<Vec<_>>()
        });
        let warnings = warnings.collect();
        let owners = by_owner.iter().map(|(owner, states)| ((owner.kind, owner.name.clone()), verdict(states)));
        Self { owners: Some(owners.collect()), warnings }
    }

    /// The condition of a Gateway or a ListenerSet; nothing: it is to say nothing.
    ///
    /// # Errors
    /// It is not known here: what was said stays.
    pub(crate) fn verdict(&self, kind: Kind, name: &Name) -> Result<Option<Verdict>, ()> {
        let owners = self.owners.as_ref().ok_or(())?;
        Ok(owners.get(&(kind, name.clone())).cloned())
    }

    /// Of which Gateways and ListenerSets something else is said than before.
    pub(crate) fn differs(&self, before: &Self) -> BTreeSet<(Kind, Name)> {
        let none = BTreeMap::new();
        let (now, then) = (self.owners.as_ref().unwrap_or(&none), before.owners.as_ref().unwrap_or(&none));
        now.keys().chain(then.keys()).filter(|key| now.get(*key) != then.get(*key)).cloned().collect()
    }
}

fn verdict(states: &[(&Name, State)]) -> Verdict {
    let failing = states.iter().filter_map(|(secret, state)| match state {
        State::Failing { why, again, is_there } => Some((secret, (why, *again), *is_there)),
        _ => None,
    });
    let failing: Vec<_> = failing.collect();
    if let Some((_, _, first)) = failing.first() {
        let all_there = *first && failing.iter().all(|(_, _, there)| *there);
        let told = failing.iter().take(TOLD_MAX).map(|((at, name), (why, again), _)| {
            let again = again.map(|at| format!("; tried again at {at:.0}")).unwrap_or_default();
            format!("Secret `{at}/{name}`: {why}{again}")
        });
        let more = failing.len().saturating_sub(TOLD_MAX);
        let more = if more > 0 { format!("; and {more} more") } else { String::new() };
        let message = told.collect::<Vec<_>>().join("; ") + &more;
        return Verdict::new(CONDITION, false, if all_there { "RenewalFails" } else { "NotIssued" }, message);
    }
    let ordering: Vec<_> = states.iter().filter(|(_, state)| *state == State::Ordering).map(|(name, _)| name).collect();
    match ordering.first() {
        Some((at, name)) => {
            let more = ordering.len() - 1;
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            Verdict::new(CONDITION, false, "Ordering", format!("Secret `{at}/{name}`{more}: being ordered"))
        }
        None => Verdict::new(CONDITION, true, "Issued", format!("{} certificates are issued", states.len())),
    }
}

/// What an Event tells: without the time, each would be another one.
fn warning(owner: &Owner, secret: &Name, why: &str) -> Warning {
    Warning {
        kind: owner.kind.versioned(),
        namespace: owner.name.0.clone(),
        name: owner.name.1.clone(),
        uid: owner.uid.clone(),
        problem: BalancerProblem {
            reason: "CertificateNotIssued".to_owned(),
            message: format!("Secret `{}/{}`: {why}", secret.0, secret.1),
        },
    }
}
