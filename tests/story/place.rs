//! Place: a Bundle lands where its policy says, divided and overridden, is kept so, and goes without a trace.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::objects::{self, NAMESPACE};
use crate::said::{same, until};
use crate::world::{World, becomes, condition, list, text};

const SOON: Duration = Duration::from_secs(60);

pub(crate) async fn tell(world: &World) -> Result<()> {
    world.scene("Place");
    world.apply(&objects::store()).await?;
    world.apply(&objects::only(NAMESPACE, "spare", "dr")).await?;
    world.apply(&objects::only(NAMESPACE, "lonely", "dev")).await?;
    for (member, replicas) in [("prod-eu", 2), ("prod-us", 1)] {
        runs(world, member, "store", replicas, 60).await?;
    }
    absent(world, "dr", "deployment", NAMESPACE, "store").await?;
    world.proves("three copies divided 2 to 1: prod-eu 2, prod-us 1, none in dr");
    overridden(world).await?;
    applied(world).await?;
    told(world).await?;
    drift(world).await?;
    gone(world).await
}

/// Waits until a member runs so many ready copies.
pub(crate) async fn runs(world: &World, member: &str, name: &str, replicas: i64, within: u64) -> Result<()> {
    until(&format!("{member} runs {name} with {replicas} copies"), Duration::from_secs(within), async || {
        let found = world.member_get(member, "deployment", NAMESPACE, name).await?;
        let number = |pointer: &str| found.pointer(pointer).and_then(Value::as_i64).unwrap_or(0);
        let counts = (number("/spec/replicas"), number("/status/readyReplicas"));
        same("wanted and ready copies", &counts, &(replicas, replicas))
    })
    .await
}

async fn absent(world: &World, member: &str, kind: &str, namespace: &str, name: &str) -> Result<()> {
    until(&format!("{kind} {name} is not in {member}"), SOON, async || {
        let said = world.member(member, &["get", kind, "-n", namespace, name]).await?;
        ensure!(said.code != 0 && said.err.contains("NotFound"), "{said:?}");
        Ok(())
    })
    .await
}

async fn overridden(world: &World) -> Result<()> {
    for (member, word) in [("prod-eu", "eu"), ("prod-us", "us")] {
        let found = world.member_get(member, "deployment", NAMESPACE, "store").await?;
        same("REGION", &text(&found, "/spec/template/spec/containers/0/env/0/value"), &word)?;
    }
    world.proves("the override counts in prod-us alone");
    Ok(())
}

/// By server-side apply, under Atoll's own name, with everything that was missing there.
async fn applied(world: &World) -> Result<()> {
    let found = world
        .member("prod-eu", &["get", "deployment", "-n", NAMESPACE, "store", "-o", "json", "--show-managed-fields"]);
    let found = found.await?.json()?;
    let ours = |entry: &&Value| {
        entry["operation"] == "Apply" && entry["manager"].as_str().is_some_and(|m| m.starts_with("atoll"))
    };
    let managed = list(&found, "/metadata/managedFields");
    managed.iter().find(ours).with_context(|| format!("no field of it was applied by atoll: {managed:?}"))?;
    for member in ["prod-eu", "prod-us"] {
        until("the service is exported", SOON, async || {
            world.member_get(member, "serviceexports.multicluster.x-k8s.io", NAMESPACE, "store").await
        })
        .await?;
        world.member_get(member, "namespace", "", "atoll-system").await?;
    }
    world.proves("applied on the server's side; namespaces and the MCS kinds were brought; the service is exported");
    Ok(())
}

/// The Bundle's status says where it is and how it does.
async fn told(world: &World) -> Result<()> {
    let bundle = becomes(world, "the Bundle is Ready", 60, ("bundle", NAMESPACE, "store"), |bundle| {
        for kind in ["Accepted", "Placed", "Ready"] {
            let (status, reason, message) = condition(bundle, kind);
            ensure!(status == "True", "{kind}={status} {reason}: {message}");
        }
        same("prod-eu", &line(bundle, "prod-eu"), &("Ready".to_owned(), 2, 2))?;
        same("prod-us", &line(bundle, "prod-us"), &("Ready".to_owned(), 1, 1))
    })
    .await?;
    world.proves(format!("status per cluster came back: {}", text(&bundle, "/status/summary")));
    becomes(world, "the service of the set is imported", 60, ("serviceimport", NAMESPACE, "store"), |import| {
        // A set, in the order in which they came.
        let mut clusters: Vec<&str> =
            list(import, "/status/clusters").iter().map(|one| text(one, "/cluster")).collect();
        clusters.sort_unstable();
        same("its clusters", &clusters, &vec!["prod-eu", "prod-us"])
    })
    .await?;
    world.proves("the hub shows the ServiceImport of both");
    Ok(())
}

/// State, wanted and ready copies of a Bundle in one cluster.
pub(crate) fn line(bundle: &Value, cluster: &str) -> (String, i64, i64) {
    let all = list(bundle, "/status/clusters");
    let found = all.iter().find(|line| line["name"] == cluster).cloned().unwrap_or_default();
    let number = |field: &str| found[field].as_i64().unwrap_or(0);
    (text(&found, "/state").to_owned(), number("replicas"), number("ready"))
}

async fn drift(world: &World) -> Result<()> {
    world.member("prod-eu", &["scale", "deployment", "-n", NAMESPACE, "store", "--replicas=4"]).await?.ok()?;
    runs(world, "prod-eu", "store", 2, 60).await?;
    world.member("prod-us", &["delete", "service", "-n", NAMESPACE, "store"]).await?.ok()?;
    until("the service is back", SOON, async || world.member_get("prod-us", "service", NAMESPACE, "store").await)
        .await?;
    world.proves("what somebody changed or deleted in a member is as it should be again");
    Ok(())
}

/// Deletion removes what is ours and nothing else; a namespace goes only if we made it and nothing is left in it.
async fn gone(world: &World) -> Result<()> {
    for namespace in ["passing", "shared"] {
        world.apply(&objects::namespace(namespace)).await?;
        world.apply(&objects::only(namespace, "guest", "test")).await?;
    }
    let there = async |namespace: &str| {
        until("the guest is there", SOON, async || world.member_get("test", "deployment", namespace, "guest").await)
            .await
    };
    there("passing").await?;
    there("shared").await?;
    world.member("test", &["create", "configmap", "-n", "shared", "theirs", "--from-literal=a=b"]).await?.ok()?;
    for namespace in ["passing", "shared"] {
        world.kubectl(&["delete", "bundle", "-n", namespace, "guest"]).await?.ok()?;
        for kind in ["deployment", "service"] {
            absent(world, "test", kind, namespace, "guest").await?;
        }
    }
    absent(world, "test", "namespace", "", "passing").await?;
    world.member_get("test", "configmap", "shared", "theirs").await?;
    world.proves("a deleted Bundle takes what is its own and an empty namespace with it, and leaves what is others'");
    Ok(())
}
