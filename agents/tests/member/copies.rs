//! Image copies: what the agent checks itself.

use atoll_api::copy::{CheckJob, CheckReport, CopyJob, CopyReport, CopyState, Quorum, RegistryEndpoint, Vote};
use atoll_api::facts::Facts;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, PostParams};
use serde_json::json;

use crate::hub::Authority;
use crate::{Member, until};

fn endpoint(name: &str, credentials: Option<&str>) -> RegistryEndpoint {
    RegistryEndpoint {
        name: name.into(),
        url: format!("http://{name}.example:5000"),
        insecure: true,
        backend: "oci".into(),
        credentials: credentials.map(Into::into),
        cluster: None,
    }
}

fn job(voter: &str, credentials: Option<&str>) -> CopyJob {
    CopyJob {
        from: endpoint("dev", None),
        to: endpoint("prod", credentials),
        roots: vec![],
        closure: "sha256:c".into(),
        requester: "dev".into(),
        votes: vec![Vote {
            voter: voter.into(),
            groups: vec!["approvers".into()],
            approve: true,
            closure: "sha256:c".into(),
        }],
        quorum: vec![Quorum { group: "approvers".into(), votes: 1 }],
    }
}

#[tokio::test]
async fn only_what_is_approved_is_copied_with_the_members_own_credentials() {
    let authority = Authority::new();
    let mut wanted = Facts::default();
    wanted.put("copy/shop/approved", &job("alice", Some("prod-registry")));
    wanted.put("copy/shop/self-approved", &job("dev", Some("prod-registry")));
    wanted.put("copy/shop/elsewhere", &job("alice", Some("other-registry")));
    wanted.put("copy/shop/greedy", &job("alice", Some("atoll-agent")));
    wanted.put("copy/shop/keyless", &job("alice", Some("missing")));
    wanted.put(
        "check/shop/asked",
        &CheckJob { from: endpoint("dev", None), to: endpoint("prod", None), images: vec!["a".into()] },
    );
    let (member, hub, agent) = Member::joined(&authority, Facts::default()).await;
    let secrets: Api<Secret> = Api::namespaced(member.client(), "atoll-system");
    for (name, server) in [("prod-registry", "prod.example:5000"), ("other-registry", "other.example")] {
        let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name},
                            "stringData": {"username": "robot", "password": "p", "server": server}});
        secrets.create(&PostParams::default(), &serde_json::from_value(secret).unwrap()).await.unwrap();
    }
    hub.desired.send_replace(wanted);
    for (name, state, why) in [
        ("approved", CopyState::Succeeded, None),
        ("self-approved", CopyState::Failed, Some("not approved")),
        ("elsewhere", CopyState::Failed, Some("is for other.example")),
        ("greedy", CopyState::Failed, Some("the agent's own")),
        ("keyless", CopyState::Failed, Some("does not exist")),
    ] {
        until(&hub.status, name, |facts| {
            let report: Option<CopyReport> = facts.get(&format!("copy/shop/{name}"));
            report.is_some_and(|r| {
                r.state == state && why.is_none_or(|why| r.error.is_some_and(|error| error.contains(why)))
            })
        })
        .await;
    }
    until(&hub.status, "the check", |facts| {
        facts.get::<CheckReport>("check/shop/asked").is_some_and(|r| r.closure == "sha256:a")
    })
    .await;
    assert_eq!(*member.engine.keys.lock().unwrap(), [Some("robot".to_owned())], "the engine ran once");
    hub.desired.send_replace(Facts::default());
    until(&hub.status, "reports go with their jobs", Facts::is_empty).await;
    agent.stop().await.unwrap();
}
