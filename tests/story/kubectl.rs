//! kubectl on the hub's API: the verbs that people use, for kinds of ours; and who asked and voted is stamped by the server.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::time::timeout;

use crate::objects::{self, NAMESPACE};
use crate::said::run;
use crate::world::{World, text};

/// A Zone that is changed by each verb in turn.
fn zone(negative_ttl: u32) -> String {
    format!(
        "apiVersion: atoll.dev/v1alpha1\nkind: Zone\nmetadata: {{name: verbs}}\n\
         spec: {{apex: verbs.example, soa: {{negativeTtl: {negative_ttl}}}}}\n"
    )
}

pub(crate) async fn tell(world: &World) -> Result<()> {
    world.scene("kubectl");
    let mut watch = watch(world).await?;
    // A watch shows what changes once it has begun, which takes a moment: change the Zone until it does.
    let mut line = None;
    for ttl in 10..30 {
        world.apply(&zone(ttl)).await?;
        if let Ok(said) = timeout(Duration::from_secs(1), watch.1.next_line()).await {
            line = said?;
            break;
        }
    }
    ensure!(line.as_deref() == Some("zone.atoll.dev/verbs"), "the watch said {line:?}");
    watch.0.kill().await?;
    let table = world.kubectl(&["get", "zones"]).await?.ok()?;
    let columns: Vec<&str> = table.lines().next().unwrap_or_default().split_whitespace().collect();
    ensure!(columns == ["NAME", "APEX", "ACCEPTED", "AGE"], "the columns are {columns:?}");
    world.kubectl(&["wait", "zone/verbs", "--for=condition=Accepted", "--timeout=20s"]).await?.ok()?;
    let told = world.kubectl(&["describe", "zone", "verbs"]).await?.ok()?;
    ensure!(told.contains("verbs.example") && told.contains("Accepted"), "describe said:\n{told}");
    let ttl = async || anyhow::Ok(world.get("zone", "default", "verbs").await?["spec"]["soa"]["negativeTtl"].clone());
    let patch = ["patch", "zone", "verbs", "--type=merge", "-p", "{\"spec\":{\"soa\":{\"negativeTtl\":31}}}"];
    world.kubectl(&patch).await?.ok()?;
    ensure!(ttl().await? == 31, "patched, but it is {}", ttl().await?);
    let editor = [("KUBE_EDITOR", "sed -i s/31$/32/")];
    run(world.kubectl_with(&["edit", "zone", "verbs"], &editor)).await?.ok()?;
    ensure!(ttl().await? == 32, "edited, but it is {}", ttl().await?);
    world.proves("get, -w, describe, apply, edit, patch, wait");
    let kinds = world.kubectl(&["api-resources", "--api-group=atoll.dev", "-o", "name"]).await?.ok()?;
    ensure!(kinds.lines().count() == 12 && kinds.contains("bundles.atoll.dev"), "api-resources said:\n{kinds}");
    let told = world.kubectl(&["explain", "cluster.spec.environment"]).await?.ok()?;
    ensure!(told.contains("environment <string>"), "explain said:\n{told}");
    goes(world).await?;
    world.kubectl(&["get", "zone", "verbs"]).await?.refused(1, "NotFound")?;
    world.proves(
        "api-resources, explain, delete; a finalizer holds an object back, and who may not delete it is refused",
    );
    bad_objects(world).await
}

/// Applied by the client this time, held by a finalizer, let go.
async fn goes(world: &World) -> Result<()> {
    let file = crate::world::write(&world.dir, "zone.yaml", &zone(40))?.display().to_string();
    world.kubectl(&["apply", "-f", &file]).await?.ok()?;
    world.kubectl_as(&world.people.dev, &["delete", "zone", "verbs"]).await?.refused(1, "Forbidden")?;
    let hold = r#"[{"op": "test", "path": "/spec/soa/negativeTtl", "value": 40},
        {"op": "add", "path": "/metadata/finalizers", "value": ["atoll.dev/held"]}]"#;
    world.kubectl(&["patch", "zone", "verbs", "--type=json", "-p", hold]).await?.ok()?;
    world.kubectl(&["delete", "zone", "verbs", "--wait=false"]).await?.ok()?;
    let held = world.get("zone", "default", "verbs").await?;
    ensure!(held["metadata"]["deletionTimestamp"].is_string(), "not on its way out: {}", held["metadata"]);
    let release = "{\"metadata\":{\"finalizers\":null}}";
    world.kubectl(&["patch", "zone", "verbs", "--type=merge", "-p", release]).await?.ok()?;
    world.kubectl(&["wait", "zone/verbs", "--for=delete", "--timeout=20s"]).await?.ok()?;
    Ok(())
}

/// `kubectl get zones -w`, and its lines.
async fn watch(
    world: &World,
) -> Result<(tokio::process::Child, tokio::io::Lines<BufReader<tokio::process::ChildStdout>>)> {
    let words = ["get", "zones", "--watch-only", "-o", "name"];
    let mut command = world.kubectl_with(&words, &[]);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true).spawn()?;
    let lines = BufReader::new(child.stdout.take().context("stdout is piped")?).lines();
    Ok((child, lines))
}

/// What fails its schema or names what there is not is rejected alone, with the reason.
async fn bad_objects(world: &World) -> Result<()> {
    let bad = zone(30).replace("apex: verbs.example", "apex: 7");
    world.apply_as(&world.people.admin, &bad).await?.refused(1, "spec.apex")?;
    let name = objects::names_only("svc", "dev", "{domain: x, servers: []}");
    ensure!(world.apply_as(&world.people.admin, &name).await?.code != 0, "a Cluster may not be called `svc`");
    let policy = format!(
        "apiVersion: atoll.dev/v1alpha1\nkind: TrafficPolicy\nmetadata: {{name: bad, namespace: {NAMESPACE}}}\n\
         spec: {{service: web, strategy: [{{policy: by-the-moon}}]}}\n"
    );
    world.apply(&policy).await?;
    crate::world::becomes(world, "it is rejected", 30, ("trafficpolicy", NAMESPACE, "bad"), |policy| {
        let (status, _, message) = crate::world::condition(policy, "Accepted");
        ensure!(status == "False" && message.contains("by-the-moon"), "Accepted={status}: {message}");
        Ok(())
    })
    .await?;
    world.kubectl(&["delete", "trafficpolicy", "-n", NAMESPACE, "bad"]).await?.ok()?;
    world.proves("an object that fails its schema is refused; an unknown plugin is a condition that names it");
    Ok(())
}

/// Applied by the user `dev`, who says to be somebody else: the server's word counts, and nobody can change it.
pub(crate) async fn stamped(world: &World, manifest: &str, kind: &str, name: &str) -> Result<()> {
    let said = world.apply_as(&world.people.dev, manifest).await?;
    if said.code == 0 {
        let object = world.get(kind, NAMESPACE, name).await?;
        let user = text(&object, "/metadata/annotations/atoll.dev~1requester");
        ensure!(user == "dev", "the requester is `{user}`");
    } else {
        let plain = manifest.replace("atoll.dev/requester: alice", "");
        ensure!(plain != manifest, "the manifest claims nothing: {manifest}");
        world.apply_as(&world.people.dev, &plain).await?.ok()?;
    }
    for access in [&world.people.dev, &world.people.admin] {
        for key in ["atoll.dev/requester", "atoll.dev/requester-groups"] {
            let pair = format!("{key}=alice");
            let words = ["annotate", "--overwrite", kind, "-n", NAMESPACE, name, &pair];
            let said = world.kubectl_as(access, &words).await?;
            let object = world.get(kind, NAMESPACE, name).await?;
            let found = object["metadata"]["annotations"][key].as_str().unwrap_or_default();
            ensure!(found != "alice", "{key} was changed by `{}`", said.line);
        }
    }
    let object = world.get(kind, NAMESPACE, name).await?;
    let user = text(&object, "/metadata/annotations/atoll.dev~1requester");
    ensure!(user == "dev", "the requester is `{user}`");
    world.proves("who asked is stamped by the API server; nobody can set or change it");
    Ok(())
}
