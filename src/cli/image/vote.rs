//! `atoll image approve|reject NAME`: one person's vote on one frozen request.
//!
//! The vote is for the closure that was checked. Nobody votes on their own request: that is said here in time, and held by
//! the hub and by the receiving agent in any case.

use std::time::Duration;

use atoll_api::kinds::{
    Condition, Decision, REQUESTER, ReplicationApproval, ReplicationApprovalSpec, ReplicationPolicy,
    ReplicationRequest, RequestState,
};
use kube::api::PostParams;
use kube::{Api, ResourceExt as _};
use tokio::time::Instant;

use super::{Globals, read_request, who_am_i};
use crate::cli::connect::Connection;
use crate::cli::failure::{Failure, Outcome};
use crate::cli::output::note;

/// So long the images may take to be resolved before a vote.
const CHECK_MAX: Duration = Duration::from_secs(20);
/// So long the hub may take to say whether a vote counts.
const JUDGED_MAX: Duration = Duration::from_secs(5);
const AGAIN: Duration = Duration::from_millis(200);

/// Vote for a request.
#[derive(Debug, clap::Args)]
pub(crate) struct Approve {
    /// The request's name
    name: String,
    /// Why, for the record
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

/// Vote against a request.
#[derive(Debug, clap::Args)]
pub(crate) struct Reject {
    /// The request's name
    name: String,
    /// Why, for the record
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

impl Approve {
    /// Runs it.
    pub(crate) async fn run(self, globals: &Globals) -> Outcome {
        vote(globals, &self.name, Decision::Approve, self.reason).await
    }
}

impl Reject {
    /// Runs it.
    pub(crate) async fn run(self, globals: &Globals) -> Outcome {
        vote(globals, &self.name, Decision::Reject, self.reason).await
    }
}

async fn vote(globals: &Globals, name: &str, decision: Decision, reason: Option<String>) -> Outcome {
    let at = globals.hub().await?;
    let shown = format!("request `{}/{name}`", at.namespace);
    let (me, groups) = who_am_i(&at.client).await?;
    let request = read_request(&at, name).await?;
    not_mine(&at, &request, &me).await?;
    let closure = frozen(&at, request).await?;
    let spec = ReplicationApprovalSpec { request: name.to_owned(), decision, closure, reason };
    let votes: Api<ReplicationApproval> = Api::namespaced(at.client.clone(), &at.namespace);
    let vote = ReplicationApproval::new(&vote_name(name, &me), spec.clone());
    let made = match votes.create(&PostParams::default(), &vote).await {
        Ok(made) => made,
        Err(kube::Error::Api(status)) if status.code == 409 => {
            let old = votes.get(&vote.name_any()).await.map_err(Failure::api(&shown))?;
            if old.spec.decision != decision || old.spec.closure != spec.closure {
                let has = format!("{:?}", old.spec.decision);
                return Err(Failure::failed(format!("{shown}: `{me}` has voted {has} already, and a vote stands")));
            }
            old
        }
        Err(error) => {
            let failure = Failure::of_api(format!("vote on {shown}"), &error);
            let who = format!("{}; you are `{me}` of {}", failure.message, groups.join(", "));
            return Err(Failure { message: who, ..failure });
        }
    };
    let made = judged(&votes, made).await?;
    let counted = match counts(&made) {
        Some(c) if c.status == "False" => {
            return Err(Failure::refused(format!("{shown}: the vote of `{me}` does not count: {}", c.message)));
        }
        Some(_) => "the vote counts",
        None => "the hub has not said yet whether the vote counts, `atoll image status` shows it",
    };
    let verb = if decision == Decision::Approve { "approved" } else { "rejected" };
    let now = read_request(&at, name).await?.status.unwrap_or_default();
    globals
        .output
        .show(&made, || format!("{}/{name} {verb} by {me}: {counted}; it is {:?} now", at.namespace, now.state))
}

/// Refuses a vote on one's own request, with the reason and who may vote.
async fn not_mine(at: &Connection, request: &ReplicationRequest, me: &str) -> Outcome {
    let annotations = request.metadata.annotations.as_ref();
    let Some(requester) = annotations.and_then(|a| a.get(REQUESTER)) else { return Ok(()) };
    if requester != me {
        return Ok(());
    }
    let policies: Api<ReplicationPolicy> = Api::namespaced(at.client.clone(), &at.namespace);
    let policy = policies.get_opt(&request.spec.policy).await.ok().flatten();
    let rule = policy.and_then(|policy| policy.spec.approval).unwrap_or_default();
    let groups: Vec<String> = rule.groups.iter().map(|g| format!("`{}`", g.name)).collect();
    let who = match groups.as_slice() {
        [] => "somebody else".to_owned(),
        some => format!("somebody else of group {}", some.join(", ")),
    };
    Err(Failure::refused(format!(
        "request `{}/{}` was made by `{me}`: nobody votes on their own request; {who} has to",
        at.namespace,
        request.name_any(),
    )))
}

/// The closure that the vote is for, once the images are resolved.
async fn frozen(at: &Connection, mut request: ReplicationRequest) -> Outcome<String> {
    let name = request.name_any();
    let shown = format!("request `{}/{name}`", at.namespace);
    let end = Instant::now() + CHECK_MAX;
    let mut told = false;
    loop {
        let status = request.status.clone().unwrap_or_default();
        let message = status.message.clone().unwrap_or_default();
        match (status.state, status.closure) {
            (state, _) if state.is_final() => {
                return Err(Failure::failed(format!("{shown}: it is {state:?} already: {message}")));
            }
            (RequestState::PendingApproval, Some(closure)) => return Ok(closure),
            (state, Some(_)) if state != RequestState::PendingChecks => {
                return Err(Failure::failed(format!("{shown}: it is {state:?}, there is nothing to vote on any more")));
            }
            _ => {}
        }
        if Instant::now() >= end {
            return Err(Failure::failed(format!(
                "{shown}: its images are not resolved yet: {message}; try again later"
            )));
        }
        if !told {
            note(format!("{shown}: waiting until its images are resolved"));
            told = true;
        }
        tokio::time::sleep(AGAIN).await;
        request = read_request(at, &name).await?;
    }
}

fn counts(vote: &ReplicationApproval) -> Option<&Condition> {
    vote.status.as_ref()?.conditions.iter().find(|c| c.type_ == "Counts")
}

async fn judged(votes: &Api<ReplicationApproval>, mut vote: ReplicationApproval) -> Outcome<ReplicationApproval> {
    let end = Instant::now() + JUDGED_MAX;
    while counts(&vote).is_none() && Instant::now() < end {
        tokio::time::sleep(AGAIN).await;
        vote = votes.get(&vote.name_any()).await.map_err(Failure::api("read the vote"))?;
    }
    Ok(vote)
}

/// One vote a person and request: a second one finds the first.
fn vote_name(request: &str, me: &str) -> String {
    use sha2::Digest as _;
    let plain: String =
        me.to_lowercase().chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).take(40).collect();
    let plain = plain.trim_matches('-');
    if plain == me {
        return format!("{request}-{plain}");
    }
    // Two names may look alike once they are made fit for an object.
    let digest = sha2::Sha256::digest(me);
    format!("{request}-{plain}-{:02x}{:02x}{:02x}{:02x}", digest[0], digest[1], digest[2], digest[3]).replace("--", "-")
}

#[cfg(test)]
mod tests {
    use super::vote_name;

    #[test]
    fn a_vote_is_named_after_request_and_voter() {
        assert_eq!(vote_name("web-1", "approver"), "web-1-approver");
        let (a, b) = (vote_name("web-1", "ann@example.com"), vote_name("web-1", "ann-example.com"));
        assert_ne!(a, b);
        assert!(a.starts_with("web-1-ann-example-com-"), "{a}");
    }
}
