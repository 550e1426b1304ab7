//! Image: the whole life of ReplicationRequests, from a real registry to another by the receiving member's agent.

use std::sync::Arc;

use atoll_api::kinds::{ReplicationApproval, ReplicationRequest, ReplicationRequestStatus, RequestState};
use atoll_demo::Member;
use k8s_openapi::api::core::v1::Event;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::{Value, json};

use crate::stamps::{Clients, hold};
use crate::world::{Agent, World, eventually};

/// dev has `shop/web:2`, prod-eu has not; dev may ask, approvers may approve.
struct Scene {
    world: World,
    prod: Arc<Member>,
    agents: Vec<Agent>,
}

impl Scene {
    async fn start() -> Self {
        let world = World::start().await;
        let (dev, a) = world.joined("dev", |spec| spec.images.push(("shop/web".into(), "2".into()))).await;
        let key = atoll_registry::Credentials { username: "agent".into(), password: "s3cret".into() };
        let (prod, b) = world.joined("prod-eu", |spec| spec.registry_credentials = Some(key)).await;
        let registry = |member: &Member, secret: Value| {
            json!({"apiVersion": "atoll.dev/v1alpha1", "kind": "Registry", "metadata": {"name": member.name()},
                "spec": {"environment": "x", "cluster": member.name(), "url": member.registry().0, "insecure": true, "credentialsRef": secret}})
        };
        world.apply(registry(&dev, Value::Null)).await;
        world.apply(registry(&prod, json!({"name": atoll_demo::REGISTRY_SECRET}))).await;
        world.people("shop").await;
        world
            .apply(json!({"apiVersion": "atoll.dev/v1alpha1", "kind": "ReplicationPolicy", "metadata": {"name": "dev-to-prod", "namespace": "shop"},
                "spec": {"from": "dev", "to": "prod-eu", "repositories": ["shop/*"], "approval": {"groups": [{"name": "approvers", "votes": 1}]}}}))
            .await;
        Self { world, prod, agents: vec![a, b] }
    }

    /// A client of a person; everybody here is a developer and an approver.
    fn person(&self, name: &str) -> Client {
        self.world.server.client_as(name, &["developers", "approvers"])
    }

    async fn ask(&self, name: &str, image: &str) {
        let spec = json!({"policy": "dev-to-prod", "images": [image]});
        let request = json!({"apiVersion": "atoll.dev/v1alpha1", "kind": "ReplicationRequest", "metadata": {"name": name}, "spec": spec});
        let requests: Api<ReplicationRequest> = Api::namespaced(self.person("dev"), "shop");
        requests.create(&PostParams::default(), &serde_json::from_value(request).unwrap()).await.unwrap();
    }

    async fn vote(&self, who: &str, request: &str, decision: &str, closure: &str) {
        let spec = json!({"request": request, "decision": decision, "closure": closure, "reason": "because"});
        let vote = json!({"apiVersion": "atoll.dev/v1alpha1", "kind": "ReplicationApproval", "metadata": {"name": format!("{request}-{who}")}, "spec": spec});
        let votes: Api<ReplicationApproval> = Api::namespaced(self.person(who), "shop");
        votes.create(&PostParams::default(), &serde_json::from_value(vote).unwrap()).await.unwrap();
    }

    async fn until(
        &self,
        request: &str,
        what: &str,
        want: impl Fn(&ReplicationRequestStatus) -> bool,
    ) -> ReplicationRequestStatus {
        let requests: Api<ReplicationRequest> = Api::namespaced(self.world.client(), "shop");
        eventually(&format!("{request}: {what}"), async || {
            let status = requests.get(request).await.unwrap().status.unwrap_or_default();
            if want(&status) { Ok(status) } else { Err(status) }
        })
        .await
    }

    fn arrived(&self) -> bool {
        self.prod.images().manifest("shop/web", "2").is_some()
    }
}

#[tokio::test]
async fn a_request_waits_is_approved_by_another_person_copied_and_audited() {
    let s = Scene::start().await;
    s.ask("web-2", "shop/web:2").await;
    let waits = s.until("web-2", "waits", |r| r.state == RequestState::PendingApproval).await;
    assert_eq!(waits.requester.as_deref(), Some("dev"));
    let closure = waits.closure.unwrap();
    assert!(closure.starts_with("sha256:") && waits.roots[0].digest.starts_with("sha256:"));
    let checks: Vec<(&str, &str)> = waits.checks.iter().map(|c| (c.type_.as_str(), c.status.as_str())).collect();
    assert_eq!(checks, [("Allowed", "True"), ("Resolved", "True")]);
    // One's own vote, and one for something else, do not count, and say why.
    s.vote("dev", "web-2", "Approve", &closure).await;
    s.vote("mallory", "web-2", "Approve", "sha256:other").await;
    let refused = s.until("web-2", "both are judged", |r| r.votes.len() == 2).await;
    assert_eq!(refused.state, RequestState::PendingApproval);
    let reason =
        |voter: &str| refused.votes.iter().find(|v| v.voter == voter && !v.counts).unwrap().reason.clone().unwrap();
    assert_eq!(reason("dev"), "nobody's vote counts on their own request");
    assert!(reason("mallory").contains("is for closure sha256:other"));
    let own: Api<ReplicationApproval> = Api::namespaced(s.world.client(), "shop");
    eventually("the vote itself says so", async || {
        let status = own.get("web-2-dev").await.unwrap().status.unwrap_or_default();
        let counts = status.conditions.iter().find(|c| c.type_ == "Counts" && c.status == "False");
        counts.map(|c| assert!(c.message.contains("own request"))).ok_or(status.conditions.len())
    })
    .await;
    assert!(!s.arrived());
    // Another's does.
    s.vote("alice", "web-2", "Approve", &closure).await;
    let done = s.until("web-2", "copied", |r| r.state.is_final()).await;
    assert_eq!((done.state, done.message.as_deref()), (RequestState::Succeeded, Some("copied and verified by digest")));
    assert!(s.arrived() && done.copied.unwrap().bytes > 0);
    let events: Api<Event> = Api::namespaced(s.world.client(), "shop");
    let told = eventually("audited", async || {
        let all = events.list(&Default::default()).await.unwrap().items;
        let last = all.into_iter().find(|e| e.reason.as_deref() == Some("Succeeded"));
        last.and_then(|e| e.message).ok_or("no event yet")
    })
    .await;
    assert!(told.contains("requested by dev") && told.contains("Approve by alice"), "{told}");
    s.world.end(s.agents).await;
}

#[tokio::test]
async fn requests_that_are_rejected_withdrawn_or_wrong_copy_nothing_and_say_why() {
    let s = Scene::start().await;
    s.ask("no", "shop/web:2").await;
    let closure = s.until("no", "waits", |r| r.state == RequestState::PendingApproval).await.closure.unwrap();
    s.vote("alice", "no", "Reject", &closure).await;
    let no = s.until("no", "final", |r| r.state.is_final()).await;
    assert_eq!((no.state, no.message.as_deref()), (RequestState::Rejected, Some("rejected by `alice`")));
    // A vote that comes late changes nothing.
    s.vote("bob", "no", "Approve", &closure).await;
    s.ask("back", "shop/web:2").await;
    s.until("back", "waits", |r| r.state == RequestState::PendingApproval).await;
    let requests: Api<ReplicationRequest> = Api::namespaced(s.person("dev"), "shop");
    let withdraw = json!({"spec": {"withdrawn": true}});
    requests.patch("back", &PatchParams::default(), &Patch::Merge(&withdraw)).await.unwrap();
    assert_eq!(s.until("back", "final", |r| r.state.is_final()).await.state, RequestState::Withdrawn);
    for (name, image, says) in [
        ("missing", "shop/web:9", "not found"),
        ("nonsense", "shop/We b", "is no repository"),
        ("forbidden", "bank/vault:1", "does not allow repository `bank/vault`"),
    ] {
        s.ask(name, image).await;
        let failed = s.until(name, "final", |r| r.state.is_final()).await;
        assert_eq!(failed.state, RequestState::Failed, "{name}");
        assert!(failed.message.as_deref().unwrap().contains(says), "{name}: {:?}", failed.message);
    }
    // What was asked for can't be changed under the voters' hands.
    let other = json!({"spec": {"images": ["shop/web:1"]}});
    let refused = requests.patch("no", &PatchParams::default(), &Patch::Merge(&other)).await.unwrap_err().to_string();
    assert!(refused.contains("no"), "{refused}");
    assert_eq!(s.until("no", "final", |r| r.state.is_final()).await.state, RequestState::Rejected);
    assert!(!s.arrived());
    s.world.end(s.agents).await;
}

#[tokio::test]
async fn the_embedded_api_server_stamps_who_asked_and_who_voted() {
    let world = World::start().await;
    let as_user = |name: &str, group: &str| world.server.client_as(name, &[group]);
    let clients = Clients {
        admin: world.client(),
        dev: as_user("dev", "developers"),
        approver: as_user("approver", "approvers"),
    };
    hold(&clients).await;
    world.end([]).await;
}
