//! The state machine of a request, told step by step.

use std::collections::BTreeMap;

use atoll_api::copy::Root;
use atoll_api::kinds::{
    ApprovalGroup, ApprovalRule, RegistrySpec, ReplicationApprovalSpec, ReplicationPolicySpec, ReplicationRequestSpec,
    join_groups,
};

use super::*;

const CLOSURE: &str = "sha256:c";

struct World {
    request: ReplicationRequest,
    policy: Option<ReplicationPolicy>,
    registries: BTreeMap<String, Registry>,
    approvals: Vec<ReplicationApproval>,
    check: Option<CheckReport>,
    copy: Option<CopyReport>,
    age: Duration,
}

fn stamp(annotations: &mut Option<BTreeMap<String, String>>, pairs: &[(&str, &str)]) {
    *annotations = Some(pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect());
}

fn world() -> World {
    let spec = ReplicationRequestSpec { policy: "p".into(), images: vec!["shop/web:2".into()], withdrawn: false };
    let mut request = ReplicationRequest::new("web-2", spec);
    stamp(&mut request.metadata.annotations, &[(REQUESTER, "dev")]);
    let approval = ApprovalRule { groups: vec![ApprovalGroup { name: "approvers".into(), votes: 1 }] };
    let policy = ReplicationPolicySpec {
        from: "dev".into(),
        to: "prod-eu".into(),
        repositories: vec!["shop/*".into()],
        approval: Some(approval),
        ..ReplicationPolicySpec::default()
    };
    let registry = |name: &str| {
        let spec = RegistrySpec { cluster: Some(name.into()), url: "http://r".into(), ..RegistrySpec::default() };
        (name.to_owned(), Registry::new(name, spec))
    };
    let root = Root {
        repository: "shop/web".into(),
        to_repository: "shop/web".into(),
        tag: Some("2".into()),
        digest: "sha256:d".into(),
    };
    World {
        request,
        policy: Some(ReplicationPolicy::new("p", policy)),
        registries: BTreeMap::from([registry("dev"), registry("prod-eu")]),
        approvals: Vec::new(),
        check: Some(CheckReport { roots: vec![root], closure: CLOSURE.into(), ..CheckReport::default() }),
        copy: None,
        age: MISSING_MAX,
    }
}

impl World {
    fn vote(&mut self, voter: &str, groups: &str, decision: Decision, closure: &str) {
        let spec = ReplicationApprovalSpec { request: "web-2".into(), decision, closure: closure.into(), reason: None };
        let mut approval = ReplicationApproval::new(&format!("v{}", self.approvals.len()), spec);
        stamp(&mut approval.metadata.annotations, &[(VOTER, voter), (VOTER_GROUPS, groups)]);
        self.approvals.push(approval);
    }

    fn step(&self) -> Outcome {
        step(&Case {
            request: &self.request,
            policy: self.policy.as_ref(),
            registries: &self.registries,
            approvals: &self.approvals,
            check: self.check.as_ref(),
            copy: self.copy.as_ref(),
            age: self.age,
        })
    }

    fn state(&self) -> (RequestState, String) {
        let status = self.step().status;
        (status.state, status.message.unwrap_or_default())
    }
}

#[test]
fn a_request_is_checked_then_voted_on_then_copied() {
    let mut w = world();
    let report = w.check.take();
    assert_eq!(w.state().0, RequestState::PendingChecks);
    let (receiver, _) = w.step().check.expect("a check");
    assert_eq!(receiver.as_str(), "prod-eu", "the receiving side's agent");
    w.check = report;
    assert_eq!(w.state().0, RequestState::PendingApproval);
    assert_eq!(w.step().copy, None, "nothing is copied before the votes");
    w.vote("alice", "approvers,x", Decision::Approve, CLOSURE);
    assert_eq!(w.state().0, RequestState::Approved);
    assert_eq!(w.step().copy.expect("a copy").0.as_str(), "prod-eu");
    for (state, want) in [
        (CopyState::Copying, RequestState::Copying),
        (CopyState::Succeeded, RequestState::Succeeded),
        (CopyState::Stale, RequestState::Stale),
    ] {
        w.copy = Some(CopyReport { state, closure: CLOSURE.into(), ..CopyReport::default() });
        assert_eq!(w.state().0, want);
    }
}

#[test]
fn a_request_that_no_agent_ever_checks_expires() {
    let mut w = world();
    w.check = None;
    let (state, said) = w.state();
    assert_eq!(
        (state, said.as_str()),
        (RequestState::PendingChecks, "the images are being resolved by the agent of `prod-eu`")
    );
    w.age = UNDECIDED_MAX + Duration::from_secs(1);
    let outcome = w.step();
    assert_eq!((outcome.status.state, outcome.check), (RequestState::Expired, None));
    assert!(outcome.status.message.is_some_and(|m| m.contains("`prod-eu` did not resolve")));
}

#[test]
fn votes_that_do_not_count_say_why() {
    for (case, voter, groups, closure, want) in [
        ("the requester, even as an approver", "dev", "approvers", CLOSURE, "own request"),
        ("another closure", "alice", "approvers", "sha256:x", "closure"),
        (
            "an administrator of no group that decides",
            "root",
            "system:masters",
            CLOSURE,
            "groups that decide: approvers",
        ),
    ] {
        for decision in [Decision::Approve, Decision::Reject] {
            let mut w = world();
            w.vote(voter, groups, decision, closure);
            assert_eq!(w.state().0, RequestState::PendingApproval, "{case}");
            let refusal = w.step().votes["v0"].clone().expect_err(case);
            assert!(refusal.contains(want), "{case}: {refusal}");
        }
    }
    let mut w = world();
    w.vote("eve", &join_groups(["visitors,approvers"]), Decision::Approve, CLOSURE);
    let refusal = w.step().votes["v0"].clone().expect_err("a comma in a group's name makes no second group");
    assert!(refusal.contains("groups that decide"), "{refusal}");
    let mut w = world();
    w.vote("bob", "developers", Decision::Approve, CLOSURE);
    assert_eq!(w.state(), (RequestState::PendingApproval, "group `approvers`: 0 of 1 approvals".into()));
}

#[test]
fn a_rejected_request_copies_nothing_and_stays_rejected() {
    let mut w = world();
    w.vote("alice", "approvers", Decision::Reject, CLOSURE);
    let outcome = w.step();
    assert_eq!((outcome.status.state, outcome.copy), (RequestState::Rejected, None));
    w.request.status = Some(outcome.status);
    w.approvals.clear();
    w.vote("carol", "approvers", Decision::Approve, CLOSURE);
    assert_eq!(w.state().0, RequestState::Rejected);
}

#[test]
fn what_is_wrong_is_named() {
    type Break = fn(&mut World);
    let cases: [(&str, Break, &str); 5] = [
        ("no policy", |w| w.policy = None, "policy `p`"),
        (
            "a repository that is not allowed",
            |w| w.request.spec.images = vec!["other/web:2".into()],
            "repository `other/web`",
        ),
        ("no registry", |w| drop(w.registries.remove("dev")), "registry `dev`"),
        ("no stamp", |w| w.request.metadata.annotations = None, "not stamped"),
        (
            "a registry of no cluster",
            |w| w.registries.get_mut("prod-eu").expect("there").spec.cluster = None,
            "no cluster",
        ),
    ];
    for (case, break_it, want) in cases {
        let mut w = world();
        break_it(&mut w);
        let (state, message) = w.state();
        assert_eq!(state, RequestState::Failed, "{case}");
        assert!(message.contains(want), "{case}: {message}");
    }
}

#[test]
fn an_image_that_moved_since_the_check_is_stale() {
    let mut w = world();
    w.request.status = Some(w.step().status);
    w.check.as_mut().expect("there").closure = "sha256:moved".into();
    assert_eq!(w.state().0, RequestState::Stale);
}

#[test]
fn what_is_not_there_yet_is_waited_for() {
    let mut w = World { age: Duration::from_secs(1), ..world() };
    let policy = w.policy.take();
    let (state, message) = w.state();
    assert_eq!((state, message.as_str()), (RequestState::PendingChecks, "policy `p`: there is none in this namespace"));
    assert_eq!(w.step().checks[0].status, "False");
    w.policy = policy;
    assert_eq!(w.state().0, RequestState::PendingApproval);
    let found: Vec<_> = w.step().checks.into_iter().map(|c| (c.kind, c.status)).collect();
    assert_eq!(found, [("Allowed", "True"), ("Resolved", "True")]);
}
