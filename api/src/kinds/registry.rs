//! Images: `Registry`, `ReplicationPolicy`, `ReplicationRequest`, `ReplicationApproval`.
//!
//! Who asked and who voted is stamped by the API server into annotations, never read from a field.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Condition, NameRef, PolicyStatus};

/// An OCI registry, its environment and the member it belongs to.
#[derive(CustomResource, Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "atoll.dev",
    version = "v1alpha1",
    kind = "Registry",
    status = "PolicyStatus",
    category = "atoll",
    printcolumn(name = "Environment", type_ = "string", json_path = ".spec.environment"),
    printcolumn(name = "Cluster", type_ = "string", json_path = ".spec.cluster"),
    printcolumn(name = "URL", type_ = "string", json_path = ".spec.url"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct RegistrySpec {
    /// Its environment.
    pub environment: String,
    /// The member it belongs to, whose agent copies into it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<String>,
    /// `http://host:port` or `https://host[:port]`.
    #[schemars(regex(pattern = r"^https?://[^/ ]+"))]
    pub url: String,
    /// Plain HTTP, or any certificate.
    #[serde(default)]
    pub insecure: bool,
    /// A row of the copy engine's table of backends.
    #[serde(default = "oci")]
    pub backend: String,
    /// A Secret in namespace atoll-system of the member whose agent copies, with `username` and `password`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials_ref: Option<NameRef>,
}

fn oci() -> String {
    "oci".into()
}

/// What flows where, under which approval rule.
#[derive(CustomResource, Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "atoll.dev",
    version = "v1alpha1",
    kind = "ReplicationPolicy",
    namespaced,
    status = "PolicyStatus",
    category = "atoll",
    printcolumn(name = "From", type_ = "string", json_path = ".spec.from"),
    printcolumn(name = "To", type_ = "string", json_path = ".spec.to"),
    printcolumn(name = "Direction", type_ = "string", json_path = ".spec.direction"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct ReplicationPolicySpec {
    /// A Registry.
    pub from: String,
    /// Another Registry.
    pub to: String,
    /// One way or both.
    #[serde(default)]
    pub direction: Direction,
    /// Repositories; `*` matches any characters.
    #[serde(default)]
    pub repositories: Vec<String>,
    /// Who must agree; absent: nobody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approval: Option<ApprovalRule>,
}

/// One way or both.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Direction {
    /// From `from` to `to`.
    #[default]
    OneWay,
    /// Either way.
    TwoWay,
}

/// Who must agree.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ApprovalRule {
    /// Votes by group of the authenticated voter; all must be reached.
    pub groups: Vec<ApprovalGroup>,
}

/// Votes of one group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ApprovalGroup {
    /// The group's name.
    pub name: String,
    /// How many different members must approve.
    pub votes: u32,
}

/// One frozen request to copy images.
#[derive(CustomResource, Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "atoll.dev",
    version = "v1alpha1",
    kind = "ReplicationRequest",
    namespaced,
    status = "ReplicationRequestStatus",
    shortname = "rr",
    category = "atoll",
    printcolumn(name = "Policy", type_ = "string", json_path = ".spec.policy"),
    printcolumn(name = "State", type_ = "string", json_path = ".status.state"),
    printcolumn(name = "Requester", type_ = "string", json_path = ".status.requester"),
    printcolumn(name = "Message", type_ = "string", json_path = ".status.message"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = Rule::new("!has(oldSelf.spec) || self.spec.policy == oldSelf.spec.policy && self.spec.images == oldSelf.spec.images")
        .message("what a request asks for never changes: make another request")
)]
#[serde(rename_all = "camelCase")]
pub struct ReplicationRequestSpec {
    /// A ReplicationPolicy of the same namespace.
    pub policy: String,
    /// `shop/web:2` or `shop/web@sha256:…`.
    #[schemars(length(min = 1, max = 100))]
    pub images: Vec<String>,
    /// Taken back by the requester.
    #[serde(default)]
    pub withdrawn: bool,
}

/// How far a request is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RequestState {
    /// The images are being resolved.
    #[default]
    PendingChecks,
    /// Waiting for votes.
    PendingApproval,
    /// Enough votes.
    Approved,
    /// Somebody voted against it.
    Rejected,
    /// Nobody decided in time.
    Expired,
    /// Taken back.
    Withdrawn,
    /// Handed to the receiving agent.
    Queued,
    /// Bytes are moving.
    Copying,
    /// Being read back.
    Verifying,
    /// Done.
    Succeeded,
    /// Given up.
    Failed,
    /// The tag moved since it was checked.
    Stale,
    /// Stopped.
    Cancelled,
}

impl RequestState {
    /// Whether nothing will change any more.
    pub fn is_final(self) -> bool {
        use RequestState::{Cancelled, Expired, Failed, Rejected, Stale, Succeeded, Withdrawn};
        matches!(self, Rejected | Expired | Withdrawn | Succeeded | Failed | Stale | Cancelled)
    }
}

/// What became of a request.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ReplicationRequestStatus {
    /// How far it is.
    pub state: RequestState,
    /// Why, for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// The authenticated user who asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requester: Option<String>,
    /// The images with the digests they had when checked.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub roots: Vec<RootStatus>,
    /// What a vote is for: `sha256:…` over everything that the roots reach.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub closure: Option<String>,
    /// Checks and their outcome.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub checks: Vec<Condition>,
    /// Votes that were cast, and whether they count.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub votes: Vec<VoteStatus>,
    /// Bytes and objects.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub copied: Option<CopiedStatus>,
}

/// A root as status shows it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct RootStatus {
    /// The image as asked for.
    pub image: String,
    /// `sha256:…`.
    pub digest: String,
}

/// A vote as status shows it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct VoteStatus {
    /// The authenticated user.
    pub voter: String,
    /// `Approve` or `Reject`.
    pub decision: String,
    /// Whether it counts.
    pub counts: bool,
    /// Why not, or what the voter said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Bytes and objects of a copy.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct CopiedStatus {
    /// Bytes moved.
    pub bytes: u64,
    /// Bytes that had to move.
    pub bytes_total: u64,
    /// Blobs that were there or could be mounted.
    pub skipped: u64,
}

/// One person's vote.
#[derive(CustomResource, Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "atoll.dev",
    version = "v1alpha1",
    kind = "ReplicationApproval",
    namespaced,
    status = "PolicyStatus",
    shortname = "ra",
    category = "atoll",
    printcolumn(name = "Request", type_ = "string", json_path = ".spec.request"),
    printcolumn(name = "Decision", type_ = "string", json_path = ".spec.decision"),
    printcolumn(name = "Voter", type_ = "string", json_path = ".metadata.annotations['atoll\\.dev/voter']"),
    printcolumn(name = "Counts", type_ = "string", json_path = ".status.conditions[?(@.type==\"Counts\")].status"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = Rule::new("!has(oldSelf.spec) || self.spec == oldSelf.spec").message("a vote never changes: delete it and vote again")
)]
#[serde(rename_all = "camelCase")]
pub struct ReplicationApprovalSpec {
    /// A ReplicationRequest of the same namespace.
    pub request: String,
    /// For or against.
    pub decision: Decision,
    /// The closure that the vote is for.
    pub closure: String,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// For or against.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Decision {
    /// For.
    Approve,
    /// Against.
    Reject,
}
