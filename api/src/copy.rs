//! What is said of an image copy: the job, its report, and the trait behind which the agent finds the copy engine.
//!
//! The hub puts a [`CheckJob`], later a [`CopyJob`] into the desired facts of the *receiving* member; that member's agent checks the
//! approvals itself, hands the job to the [`Copy`] it was given and reports. The hub never holds the destination's credentials.

use std::{future::Future, pin::Pin};

use serde::{Deserialize, Serialize};

use crate::names::ClusterName;

/// One registry as a copy sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RegistryEndpoint {
    /// The Registry object's name.
    pub name: String,
    /// `http://host:port` or `https://host[:port]`, optionally with a path prefix.
    pub url: String,
    /// Plain HTTP, or any certificate.
    #[serde(default)]
    pub insecure: bool,
    /// A row of the copy engine's table of backends.
    pub backend: String,
    /// The Secret in namespace atoll-system of the receiving member with `username` and `password`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials: Option<String>,
    /// The member that the registry belongs to, when it has to be reached by way of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<ClusterName>,
}

/// One image that is to be copied, frozen: the tag as asked and the digest it had when the request was checked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Root {
    /// The repository at the source, for example `shop/web`.
    pub repository: String,
    /// The repository at the destination.
    pub to_repository: String,
    /// The tag, where one was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
    /// `sha256:…` of the manifest.
    pub digest: String,
}

/// Asks the receiving agent to resolve the images and to list their closure, before anybody votes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CheckJob {
    /// Where from.
    pub from: RegistryEndpoint,
    /// Where to.
    pub to: RegistryEndpoint,
    /// Images as asked for: `shop/web:2` or `shop/web@sha256:…`.
    pub images: Vec<String>,
}

/// What a check found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "camelCase")]
pub struct CheckReport {
    /// The images, resolved.
    pub roots: Vec<Root>,
    /// `sha256:…` over everything that the roots reach: what a vote is for.
    pub closure: String,
    /// How many blobs and manifests, in all.
    pub objects: u64,
    /// How many bytes, in all.
    pub bytes: u64,
    /// How many bytes are missing at the destination.
    pub bytes_missing: u64,
    /// Why the check failed, where it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// One vote as the hub saw it, for the agent's own check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Vote {
    /// The authenticated user.
    pub voter: String,
    /// The user's groups.
    pub groups: Vec<String>,
    /// Whether the vote is for it.
    pub approve: bool,
    /// The closure that was voted for.
    pub closure: String,
}

/// How many votes of which group a policy asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Quorum {
    /// A group of the authenticated voter.
    pub group: String,
    /// How many different members of it must approve.
    pub votes: u32,
}

/// An approved copy, with all that the agent needs to check the approval itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CopyJob {
    /// Where from.
    pub from: RegistryEndpoint,
    /// Where to.
    pub to: RegistryEndpoint,
    /// The frozen roots.
    pub roots: Vec<Root>,
    /// The closure that was approved.
    pub closure: String,
    /// Who asked: their own vote never counts.
    pub requester: String,
    /// Every vote.
    pub votes: Vec<Vote>,
    /// What the policy asks for; empty where it asks for no approval.
    pub quorum: Vec<Quorum>,
}

/// Why an approval does not hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotApproved {
    /// Somebody said no.
    #[error("rejected by `{0}`")]
    Rejected(String),
    /// A group has too few votes.
    #[error("group `{group}`: {have} of {need} approvals")]
    TooFew {
        /// The group.
        group: String,
        /// Votes that count.
        have: u32,
        /// Votes asked for.
        need: u32,
    },
}

/// Whether members of `groups` have a say: those of the groups whose approval is asked for, for and against.
#[must_use]
pub fn has_say(quorum: &[Quorum], groups: &[String]) -> bool {
    quorum.is_empty() || quorum.iter().any(|q| groups.contains(&q.group))
}

/// Whether `votes` for `closure` satisfy `quorum`. Nobody's vote counts on their own request; a vote for another closure, or of somebody
/// who has no say, does not count; one person counts once a group.
///
/// # Errors
/// Which vote is against it or which group has too few.
pub fn approved(quorum: &[Quorum], votes: &[Vote], requester: &str, closure: &str) -> Result<(), NotApproved> {
    let counts = |v: &&Vote| v.closure == closure && v.voter != requester && has_say(quorum, &v.groups);
    if let Some(no) = votes.iter().filter(counts).find(|v| !v.approve) {
        return Err(NotApproved::Rejected(no.voter.clone()));
    }
    for q in quorum {
        let mut voters: Vec<&str> =
            votes.iter().filter(counts).filter(|v| v.groups.contains(&q.group)).map(|v| v.voter.as_str()).collect();
        voters.sort_unstable();
        voters.dedup();
        let have = u32::try_from(voters.len()).unwrap_or(u32::MAX);
        if have < q.votes {
            return Err(NotApproved::TooFew { group: q.group.clone(), have, need: q.votes });
        }
    }
    Ok(())
}

/// How far a copy is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
pub enum CopyState {
    /// Waiting for its turn.
    #[default]
    Queued,
    /// Bytes are moving.
    Copying,
    /// Everything is there; being read back.
    Verifying,
    /// Done, by digest.
    Succeeded,
    /// Given up; the report says why.
    Failed,
    /// The tag moved at the source since the approval.
    Stale,
}

/// What the agent says of a copy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "camelCase")]
pub struct CopyReport {
    /// How far it is.
    pub state: CopyState,
    /// The closure that this is about.
    pub closure: String,
    /// Bytes moved so far.
    pub bytes: u64,
    /// Bytes that had to move.
    pub bytes_total: u64,
    /// Blobs mounted or already there.
    pub skipped: u64,
    /// Why it failed, where it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// User name and password for a registry, read by the agent from its own member.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The user.
    pub username: String,
    /// The password; never printed.
    pub password: String,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Credentials({}, …)", self.username)
    }
}

/// Credentials of both ends, either optional.
#[derive(Debug, Clone, Default)]
pub struct Keys {
    /// For the source.
    pub from: Option<Credentials>,
    /// For the destination.
    pub to: Option<Credentials>,
}

/// A boxed future, so that this trait needs no runtime.
pub type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The copy engine as the agent sees it. Dropping the future cancels; what was uploaded stays and is found again.
pub trait Copy: Send + Sync {
    /// Resolves images and lists what is missing. Never fails: a failure is in the report.
    fn check<'a>(&'a self, job: &'a CheckJob, keys: Keys) -> Boxed<'a, CheckReport>;
    /// Copies and verifies; `progress` hears of every step. Never fails: a failure is in the report.
    fn copy<'a>(
        &'a self,
        job: &'a CopyJob,
        keys: Keys,
        progress: &'a (dyn Fn(CopyReport) + Send + Sync),
    ) -> Boxed<'a, CopyReport>;
}
