//! Copy: an image travels from dev's registry to prod's once somebody else than its requester approved.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::kubectl::stamped;
use crate::objects::{self, NAMESPACE};
use crate::said::until;
use crate::stamps::{self, Clients};
use crate::world::{Access, World, becomes, condition, list, text};

const IMAGE: &str = "shop/web";

pub(crate) async fn tell(world: &World) -> Result<()> {
    world.scene("Copy");
    world.apply(&objects::roles()).await?;
    for to in ["prod-eu", "prod-us"] {
        world.apply(&objects::policy(to)).await?;
    }
    let prod = world.registry("prod-eu").await?;
    ensure!(prod.digest(IMAGE, "2").await?.is_none(), "{IMAGE}:2 is in prod-eu's registry already");
    ensure!(prod.credentials.is_some(), "prod-eu's registry asks for nothing");
    no_credentials_in_the_hub(world).await?;

    let people = &world.people;
    let clients = Clients {
        admin: client(&people.admin).await?,
        dev: client(&people.dev).await?,
        approver: client(&people.approver).await?,
    };
    stamps::hold(&clients).await;
    world.proves("who asked and who voted is stamped, whatever they say of themselves");
    stamped(world, &objects::request("to-eu", "prod-eu", "atoll.dev/requester: alice"), "replicationrequest", "to-eu")
        .await?;
    let request = state(world, "to-eu", "PendingApproval").await?;
    ensure!(text(&request, "/status/requester") == "dev", "the requester: {}", request["status"]);
    ensure!(!text(&request, "/status/closure").is_empty(), "no closure: {}", request["status"]);
    ensure!(prod.digest(IMAGE, "2").await?.is_none(), "nothing is copied before somebody approved");
    world.proves("dev's request waits for approval, its images resolved and frozen by digest");
    refused(world).await?;
    approved(world, &prod).await?;
    runs(world, &request).await?;
    rejected(world).await
}

/// The API as a person, by the same kubeconfig as `kubectl`'s.
async fn client(access: &Access) -> Result<kube::Client> {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let config = kube::config::Kubeconfig::read_from(&access.kubeconfig)?;
    let options = kube::config::KubeConfigOptions { context: access.context.clone(), ..Default::default() };
    Ok(kube::Client::try_from(kube::Config::from_custom_kubeconfig(config, &options).await?)?)
}

async fn state(world: &World, name: &str, wanted: &str) -> Result<serde_json::Value> {
    becomes(world, &format!("request {name} is {wanted}"), 60, ("replicationrequest", NAMESPACE, name), |request| {
        let state = text(request, "/status/state");
        ensure!(state == wanted, "state {state}: {}", text(request, "/status/message"));
        Ok(())
    })
    .await
}

async fn no_credentials_in_the_hub(world: &World) -> Result<()> {
    let secrets = world.kubectl(&["get", "secrets", "-A", "-o", "json"]).await?.json()?;
    let holds = |secret: &&serde_json::Value| secret.pointer("/data/password").is_some();
    let held: Vec<_> =
        list(&secrets, "/items").iter().filter(holds).map(|one| one["metadata"]["name"].clone()).collect();
    ensure!(held.is_empty(), "the hub holds passwords: {held:?}");
    world.proves("the hub holds no password of any registry");
    Ok(())
}

/// Who asked can't approve, administrators included.
async fn refused(world: &World) -> Result<()> {
    let approve = ["image", "approve", "to-eu", "-n", NAMESPACE];
    world.atoll_as(&world.people.dev, &approve).await?.refused(3, "own request")?;
    world.proves("the requester may not approve: refused with the reason, exit code 3");
    world.apply(&objects::request("own", "prod-eu", "")).await?;
    let request = state(world, "own", "PendingApproval").await?;
    world.atoll(&["image", "approve", "own", "-n", NAMESPACE]).await?.refused(3, "own request")?;
    let closure = text(&request, "/status/closure");
    world.apply(&objects::vote("own-admin", "own", closure, "")).await?;
    becomes(world, "the vote is judged", 30, ("replicationapproval", NAMESPACE, "own-admin"), |vote| {
        let (status, reason, message) = condition(vote, "Counts");
        ensure!(status == "False" && !message.is_empty(), "Counts={status} {reason}: {message}");
        Ok(())
    })
    .await?;
    state(world, "own", "PendingApproval").await?;
    world.proves("an administrator's vote does not count on the administrator's own request either");
    world.kubectl(&["delete", "replicationrequest", "-n", NAMESPACE, "own"]).await?.ok().map(drop)
}

async fn approved(world: &World, prod: &atoll_testbed::registry::Registry) -> Result<()> {
    world.atoll_as(&world.people.approver, &["image", "approve", "to-eu", "-n", NAMESPACE]).await?.ok()?;
    let done = state(world, "to-eu", "Succeeded").await?;
    let wanted = text(&done, "/status/roots/0/digest").to_owned();
    let found = prod.digest(IMAGE, "2").await?;
    ensure!(found.as_deref() == Some(&*wanted), "prod-eu's registry has {found:?}, the request {wanted}");
    let votes = list(&done, "/status/votes");
    let counts = votes.iter().any(|vote| vote["voter"] == "approver" && vote["counts"] == true);
    ensure!(counts, "whose vote counted: {votes:?}");
    voter(world, text(&done, "/status/closure")).await?;
    world.proves(format!("approved by `approver`, copied with prod-eu's own credentials, verified: {wanted}"));
    Ok(())
}

/// Who votes is stamped, too: `approver`, who says to be alice.
async fn voter(world: &World, closure: &str) -> Result<()> {
    let claim = "atoll.dev/voter: alice, atoll.dev/voter-groups: approvers";
    let said = world.apply_as(&world.people.approver, &objects::vote("claims", "to-eu", closure, claim)).await?;
    if said.code != 0 {
        world.proves("a vote that claims to be somebody else's is refused");
        return Ok(());
    }
    let vote = world.get("replicationapproval", NAMESPACE, "claims").await?;
    let voter = text(&vote, "/metadata/annotations/atoll.dev~1voter");
    ensure!(voter == "approver", "the voter is `{voter}`");
    world.proves("who votes is stamped by the API server, whatever the vote claims");
    Ok(())
}

/// A pod in prod runs from what was copied.
async fn runs(world: &World, request: &serde_json::Value) -> Result<()> {
    let digest = text(request, "/status/roots/0/digest");
    world.member_apply("prod-eu", &objects::pod_of_new_image()).await?;
    let pod = until("the pod runs", Duration::from_secs(60), async || {
        let pod = world.member_get("prod-eu", "pod", NAMESPACE, "web-2").await?;
        let (status, reason, message) = condition(&pod, "Ready");
        ensure!(status == "True", "Ready={status} {reason} {message}: {}", pod["status"]["containerStatuses"]);
        Ok(pod)
    })
    .await?;
    let image = text(&pod, "/status/containerStatuses/0/imageID").to_owned();
    ensure!(image.contains(digest), "it runs from {image}, not from {digest}");
    world.proves(format!("a pod in prod-eu runs from it: {image}"));
    world.member("prod-eu", &["delete", "pod", "-n", NAMESPACE, "web-2", "--wait=false"]).await?.ok().map(drop)
}

/// What somebody rejects is not copied.
async fn rejected(world: &World) -> Result<()> {
    let said = world.apply_as(&world.people.dev, &objects::request("to-us", "prod-us", "")).await?;
    said.ok().context("dev asks for prod-us")?;
    state(world, "to-us", "PendingApproval").await?;
    let words = ["image", "reject", "to-us", "-n", NAMESPACE, "--reason", "not now"];
    world.atoll_as(&world.people.approver, &words).await?.ok()?;
    state(world, "to-us", "Rejected").await?;
    let registry = world.registry("prod-us").await?;
    ensure!(registry.digest(IMAGE, "2").await?.is_none(), "a rejected image is in prod-us's registry");
    world.proves("a rejected request copies nothing");
    Ok(())
}
