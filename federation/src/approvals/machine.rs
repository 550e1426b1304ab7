//! The state machine of a ReplicationRequest. Pure: objects and reports in, status and the receiving agent's job out.
//!
//! Nobody's vote counts on their own request, administrators included; a vote counts only for the closure that was checked; a final
//! state never changes. Who asked and who voted is read from the stamped annotations alone.

use std::collections::BTreeMap;
use std::time::Duration;

use atoll_api::copy::{
    CheckJob, CheckReport, CopyJob, CopyReport, CopyState, NotApproved, Quorum, RegistryEndpoint, Vote, approved,
    has_say,
};
use atoll_api::kinds::{
    CopiedStatus, Decision, REQUESTER, Registry, ReplicationApproval, ReplicationPolicy, ReplicationRequest,
    ReplicationRequestStatus, RequestState, RootStatus, VOTER, VOTER_GROUPS, VoteStatus, split_groups,
};
use atoll_api::names::ClusterName;
use atoll_api::repositories::{fits, repository};
use kube::ResourceExt as _;

use crate::conditions::Found;

/// A request that nobody decided is Expired after this long.
pub const UNDECIDED_MAX: Duration = Duration::from_secs(7 * 24 * 3600);

/// A policy or registry that is not there may be about to be made, by the same `kubectl apply` perhaps: so long it is waited for.
pub const MISSING_MAX: Duration = Duration::from_secs(60);

/// Everything that a step looks at.
#[derive(Debug, Clone, Copy)]
pub struct Case<'a> {
    /// The request.
    pub request: &'a ReplicationRequest,
    /// Its policy, where there is one of that name.
    pub policy: Option<&'a ReplicationPolicy>,
    /// Registries by name.
    pub registries: &'a BTreeMap<String, Registry>,
    /// Every vote of the namespace for this request.
    pub approvals: &'a [ReplicationApproval],
    /// What the receiving agent says of the check.
    pub check: Option<&'a CheckReport>,
    /// What the receiving agent says of the copy.
    pub copy: Option<&'a CopyReport>,
    /// How old the request is.
    pub age: Duration,
}

/// What a step comes to.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// The new status.
    pub status: ReplicationRequestStatus,
    /// The receiving member and the check that it is to keep reporting until the request is decided and done.
    pub check: Option<(ClusterName, CheckJob)>,
    /// The receiving member and the copy that was approved, until it is done.
    pub copy: Option<(ClusterName, CopyJob)>,
    /// What was checked, and what came of it.
    pub(crate) checks: Vec<Found>,
    /// For each approval by name: whether it counts, and why not.
    pub votes: BTreeMap<String, Result<(), String>>,
}

/// The next step of `case`.
pub fn step(case: &Case<'_>) -> Outcome {
    let mut status = case.request.status.clone().unwrap_or_default();
    status.requester = annotation(&case.request.metadata.annotations, REQUESTER).map(str::to_owned);
    let mut outcome = Outcome { status, check: None, copy: None, checks: Vec::new(), votes: BTreeMap::new() };
    if outcome.status.state.is_final() {
        return outcome;
    }
    if let Err((state, message)) = advance(case, &mut outcome) {
        outcome.status.state = state;
        outcome.status.message = Some(message);
        if state.is_final() {
            (outcome.check, outcome.copy) = (None, None);
        }
    }
    outcome
}

type Stop = (RequestState, String);

/// One straight line; `Err` is where it stops for now or for good.
fn advance(case: &Case<'_>, outcome: &mut Outcome) -> Result<(), Stop> {
    if case.request.spec.withdrawn {
        return Err((RequestState::Withdrawn, "withdrawn".into()));
    }
    // Who and what.
    let requester = outcome
        .status
        .requester
        .clone()
        .ok_or_else(|| failed("the requester is not stamped: is the hub's webhook installed?"))?;
    let ends = ends(case);
    outcome.checks.push(match &ends {
        Ok(ends) => Found::new("Allowed", true, "PolicyAllows", format!("policy `{}`", ends.policy.name_any())),
        Err((_, why)) => Found::new("Allowed", false, "NotAllowed", why.clone()),
    });
    let ends = ends?;
    let receiver = receiver(ends.to, ends.receiving)?;
    let (from, to) = (endpoint(ends.from, ends.sending), endpoint(ends.to, ends.receiving));
    let check = CheckJob { from: from.clone(), to: to.clone(), images: case.request.spec.images.clone() };
    outcome.check = Some((receiver.clone(), check));
    // Check: the receiving agent resolves the images before anybody votes.
    let Some(report) = case.check.filter(|r| r.error.is_some() || !r.closure.is_empty()) else {
        if case.age > UNDECIDED_MAX {
            let why = format!("the agent of `{receiver}` did not resolve the images within 7 days");
            return Err((RequestState::Expired, why));
        }
        let why = format!("the images are being resolved by the agent of `{receiver}`");
        return Err((RequestState::PendingChecks, why));
    };
    outcome.checks.push(resolved(report, ends.to));
    if let Some(error) = &report.error {
        return Err(failed(format!("check: {error}")));
    }
    freeze(case, report, &mut outcome.status)?;
    let closure = outcome.status.closure.clone().unwrap_or_default();
    // Vote.
    let quorum = quorum(ends.policy);
    let votes = count(case, &requester, &closure, &quorum, outcome);
    match approved(&quorum, &votes, &requester, &closure) {
        Ok(()) => {}
        Err(no @ NotApproved::Rejected(_)) => return Err((RequestState::Rejected, no.to_string())),
        Err(_) if case.age > UNDECIDED_MAX => {
            return Err((RequestState::Expired, "nobody decided within 7 days".into()));
        }
        Err(no) => return Err((RequestState::PendingApproval, no.to_string())),
    }
    // Copy: the receiving agent checks the votes again.
    let roots = report.roots.clone();
    let job = CopyJob { from, to, roots, closure: closure.clone(), requester, votes, quorum };
    outcome.copy = Some((receiver, job));
    let Some(copy) = case.copy.filter(|c| c.closure == closure) else {
        return Err((RequestState::Approved, "handed to the receiving agent".into()));
    };
    outcome.status.copied =
        Some(CopiedStatus { bytes: copy.bytes, bytes_total: copy.bytes_total, skipped: copy.skipped });
    Err(copied(copy))
}

/// Where a copy stands.
fn copied(copy: &CopyReport) -> Stop {
    let message = copy.error.clone().unwrap_or_default();
    match copy.state {
        CopyState::Queued => (RequestState::Queued, "waiting for its turn".into()),
        CopyState::Copying => (RequestState::Copying, format!("{} of {} bytes", copy.bytes, copy.bytes_total)),
        CopyState::Verifying => (RequestState::Verifying, "everything is there and is read back".into()),
        CopyState::Succeeded => (RequestState::Succeeded, "copied and verified by digest".into()),
        CopyState::Failed => (RequestState::Failed, message),
        CopyState::Stale => (RequestState::Stale, message),
    }
}

/// What the receiving agent found, for those who vote.
fn resolved(report: &CheckReport, to: &str) -> Found {
    match &report.error {
        Some(error) => Found::new("Resolved", false, "CheckFailed", error.clone()),
        None => Found::new(
            "Resolved",
            true,
            "Resolved",
            format!(
                "{} objects, {} bytes, {} of them not in `{to}` yet",
                report.objects, report.bytes, report.bytes_missing
            ),
        ),
    }
}

fn failed(why: impl Into<String>) -> Stop {
    (RequestState::Failed, why.into())
}

/// Between what a request copies.
struct Ends<'a> {
    policy: &'a ReplicationPolicy,
    from: &'a str,
    sending: &'a Registry,
    to: &'a str,
    receiving: &'a Registry,
}

/// The policy and the two registries, where they are there and the policy allows it.
fn ends<'a>(case: &Case<'a>) -> Result<Ends<'a>, Stop> {
    let spec = &case.request.spec;
    let missing = |why: String| match case.age < MISSING_MAX {
        true => (RequestState::PendingChecks, why),
        false => failed(why),
    };
    let policy =
        case.policy.ok_or_else(|| missing(format!("policy `{}`: there is none in this namespace", spec.policy)))?;
    for image in &spec.images {
        let repository = repository(image);
        if !policy.spec.repositories.iter().any(|pattern| fits(pattern, repository)) {
            return Err(failed(format!(
                "image `{image}`: policy `{}` does not allow repository `{repository}`",
                spec.policy
            )));
        }
    }
    let registry =
        |name: &str| case.registries.get(name).ok_or_else(|| missing(format!("registry `{name}`: there is none")));
    let (from, to) = (policy.spec.from.as_str(), policy.spec.to.as_str());
    Ok(Ends { policy, from, sending: registry(from)?, to, receiving: registry(to)? })
}

fn receiver(name: &str, registry: &Registry) -> Result<ClusterName, Stop> {
    let cluster = registry
        .spec
        .cluster
        .as_deref()
        .ok_or_else(|| failed(format!("registry `{name}`: belongs to no cluster, so no agent can copy into it")))?;
    cluster.parse().map_err(|e| failed(format!("registry `{name}`: {e}")))
}

fn endpoint(name: &str, registry: &Registry) -> RegistryEndpoint {
    let spec = &registry.spec;
    RegistryEndpoint {
        name: name.to_owned(),
        url: spec.url.clone(),
        insecure: spec.insecure,
        backend: spec.backend.clone(),
        credentials: spec.credentials_ref.as_ref().map(|r| r.name.clone()),
        cluster: spec.cluster.as_deref().and_then(|c| c.parse().ok()),
    }
}

/// What was checked is what is voted on: it is written once.
fn freeze(case: &Case<'_>, report: &CheckReport, status: &mut ReplicationRequestStatus) -> Result<(), Stop> {
    match &status.closure {
        Some(frozen) if *frozen != report.closure => {
            return Err((RequestState::Stale, "an image changed at the source since it was checked".into()));
        }
        Some(_) => {}
        None => {
            status.closure = Some(report.closure.clone());
            status.roots = case
                .request
                .spec
                .images
                .iter()
                .zip(&report.roots)
                .map(|(image, root)| RootStatus { image: image.clone(), digest: root.digest.clone() })
                .collect();
        }
    }
    Ok(())
}

/// The votes as the agent will see them; whether each counts goes to the status.
fn count(case: &Case<'_>, requester: &str, closure: &str, quorum: &[Quorum], outcome: &mut Outcome) -> Vec<Vote> {
    let mut votes = Vec::new();
    outcome.status.votes.clear();
    for approval in case.approvals {
        let name = approval.metadata.name.clone().unwrap_or_default();
        let voter = annotation(&approval.metadata.annotations, VOTER);
        let groups = annotation(&approval.metadata.annotations, VOTER_GROUPS).unwrap_or_default();
        let groups = split_groups(groups);
        let refusal = match voter {
            None => Some("the voter is not stamped: is the hub's webhook installed?".to_owned()),
            Some(voter) if voter == requester => Some("nobody's vote counts on their own request".to_owned()),
            Some(_) if approval.spec.closure != closure => {
                Some(format!("is for closure {}, the request's is {closure}", approval.spec.closure))
            }
            Some(voter) if !has_say(quorum, &groups) => {
                let who: Vec<&str> = quorum.iter().map(|q| q.group.as_str()).collect();
                Some(format!("`{voter}` is in none of the groups that decide: {}", who.join(", ")))
            }
            Some(_) => None,
        };
        let approve = approval.spec.decision == Decision::Approve;
        outcome.status.votes.push(VoteStatus {
            voter: voter.unwrap_or_default().to_owned(),
            decision: if approve { "Approve" } else { "Reject" }.into(),
            counts: refusal.is_none(),
            reason: refusal.clone().or_else(|| approval.spec.reason.clone()),
        });
        outcome.votes.insert(name, refusal.map_or(Ok(()), Err));
        let Some(voter) = voter else { continue };
        votes.push(Vote { voter: voter.to_owned(), groups, approve, closure: approval.spec.closure.clone() });
    }
    votes
}

fn quorum(policy: &ReplicationPolicy) -> Vec<Quorum> {
    let groups = policy.spec.approval.iter().flat_map(|rule| &rule.groups);
    groups.map(|g| Quorum { group: g.name.clone(), votes: g.votes }).collect()
}

fn annotation<'a>(annotations: &'a Option<BTreeMap<String, String>>, key: &str) -> Option<&'a str> {
    annotations.as_ref()?.get(key).map(String::as_str).filter(|value| !value.is_empty())
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
