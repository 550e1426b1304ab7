//! `atoll join`: beside the member with good, used, expired and foreign tokens; into it, until the pod has joined or can't.

use std::time::Duration;

use anyhow::{Context as _, Result};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use crate::world::World;

const NAMESPACE: &str = "atoll-system";

/// Waits until `look` finds something.
async fn until<T>(mut look: impl AsyncFnMut() -> Result<Option<T>>) -> Result<T> {
    let looking = async {
        loop {
            if let Some(found) = look().await? {
                return Ok(found);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), looking).await.context("not within 60 s")?
}

async fn token(world: &World, member: &str, flags: &[&str]) -> (String, String) {
    let ran = world.atoll(&[&["token", "create", member, "-o", "json"], flags].concat()).await;
    let made = ran.json();
    let word = |key: &str| made[key].as_str().unwrap_or_default().to_owned();
    (word("hub"), word("token"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_works_once_in_time_for_its_name() -> Result<()> {
    let world = World::with_hub().await?;
    let secrets: Api<Secret> = Api::namespaced(world.server.client(), NAMESPACE);
    let (hub, good) = token(&world, "self", &[]).await;
    let (_, expired) = token(&world, "late", &["--ttl", "1s"]).await;
    // Beside the API server that is the hub's own: it has never joined.
    let words = ["join", &hub, "--token", &good, "--foreground"];
    let mut agent = world.start(&words)?;
    until(async || Ok(secrets.get_opt("atoll-agent").await?)).await.context("the agent joins")?;
    let other = ["join", &hub, "--token", &expired, "--foreground"];
    world.atoll(&other).await.ended(3, "joined as `self` already");
    agent.kill().await?;
    secrets.delete("atoll-agent", &DeleteParams::default()).await?;
    world.atoll(&words).await.ended(3, "was used");
    let renamed = good.replacen(".self.", ".other.", 1);
    world.atoll(&["join", &hub, "--token", &renamed, "--foreground"]).await.ended(3, "token is for cluster");
    let end = jiff::Timestamp::now() + Duration::from_millis(1100);
    until(async || Ok((jiff::Timestamp::now() > end).then_some(()))).await?;
    world.atoll(&other).await.ended(3, "expired");
    Ok(())
}

/// Installs into the world's API server, whose kubelet is this function: it makes the pod that the Deployment asks for, with this
/// status, and, where the agent is to have joined, its Secret.
async fn install(world: &World, container: Value, joins: bool) -> Result<crate::world::Ran> {
    let client = world.server.client();
    let hub = "127.0.0.1:1";
    let token = atoll_api::token::JoinToken { cluster: "prod-eu".parse()?, ca_pin: [7; 32], secret: "s".repeat(32) };
    let token = token.to_string();
    let words = ["join", hub, "--token", &token, "--image", "atoll:x", "--timeout", "20s"];
    let command = world.atoll(&words);
    let kubelet = async {
        let deployments: Api<Deployment> = Api::namespaced(client.clone(), NAMESPACE);
        let deployment = until(async || Ok(deployments.get_opt("atoll-agent").await?)).await?;
        let template = deployment.spec.context("a spec")?.template;
        let mut pod = Pod { metadata: template.metadata.unwrap_or_default(), spec: template.spec, status: None };
        pod.metadata.name = Some("atoll-agent-0".into());
        let pods: Api<Pod> = Api::namespaced(client.clone(), NAMESPACE);
        pods.create(&PostParams::default(), &pod).await?;
        let status = json!({"status": {"containerStatuses": [container]}});
        pods.patch_status("atoll-agent-0", &PatchParams::default(), &Patch::Merge(&status)).await?;
        if joins {
            let secret =
                json!({"metadata": {"name": "atoll-agent"}, "stringData": {"cluster": "prod-eu", "tls.key": "x"}});
            let secrets: Api<Secret> = Api::namespaced(client.clone(), NAMESPACE);
            secrets.create(&PostParams::default(), &serde_json::from_value(secret)?).await?;
            let generation = deployment.metadata.generation;
            let status = json!({"status": {"observedGeneration": generation, "replicas": 1, "updatedReplicas": 1, "readyReplicas": 1}});
            deployments.patch_status("atoll-agent", &PatchParams::default(), &Patch::Merge(&status)).await?;
        }
        anyhow::Ok(())
    };
    let (ran, kubelet) = tokio::join!(command, kubelet);
    kubelet?;
    Ok(ran)
}

fn container(state: Value) -> Value {
    json!({"name": "agent", "image": "atoll:x", "imageID": "", "ready": false, "restartCount": 0, "state": state})
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_is_installed_is_waited_for() -> Result<()> {
    let world = World::new().await?;
    let running = container(json!({"running": {}}));
    install(&world, running, true).await?.ended(0, "prod-eu has joined");
    let token: Api<Secret> = Api::namespaced(world.server.client(), NAMESPACE);
    assert!(token.get_opt("atoll-token").await?.is_some());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_cannot_join_says_why() -> Result<()> {
    let no_image = json!({"waiting": {"reason": "ErrImagePull", "message": "no such host"}});
    let refused = json!({"terminated": {"exitCode": 3, "message": "atoll: hub refuses: token was used"}});
    for (state, code, says) in [(no_image, 1, "atoll image export"), (refused, 3, "token was used")] {
        let world = World::new().await?;
        install(&world, container(state), false).await?.ended(code, says);
    }
    Ok(())
}
