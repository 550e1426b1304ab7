//! The commands as people run them: the binary against an API server of its own, exit codes, one document on stdout, and what bad
//! input is told.

#[path = "commands/export.rs"]
mod export;
#[path = "commands/join.rs"]
mod join;
#[path = "commands/pages.rs"]
mod pages;
#[path = "commands/world.rs"]
mod world;

use atoll_api::token::JoinToken;
use serde_json::json;
use world::{World, atoll};

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_one_line_that_can_be_pasted() -> anyhow::Result<()> {
    let world = World::with_hub().await?;
    let ran = world.atoll(&["token", "create", "prod-eu", "--region", "eu-central"]).await;
    ran.ended(0, "atoll join 127.0.0.1:");
    assert_eq!(ran.out.lines().count(), 1, "{}", ran.out);
    let words: Vec<&str> = ran.out.split_whitespace().collect();
    let ["atoll", "join", _, "--token", token] = words.as_slice() else { panic!("{}", ran.out) };
    assert_eq!(token.parse::<JoinToken>()?.cluster.as_str(), "prod-eu");
    let made = world.atoll(&["token", "create", "dev", "-o", "json"]).await;
    assert_eq!(made.json()["cluster"], "dev");
    let listed = world.atoll(&["token", "list", "-o", "json"]).await.json();
    assert_eq!(listed.as_array().map(Vec::len), Some(2));
    assert!(!listed.to_string().contains(made.json()["token"].as_str().unwrap_or("?")), "a list shows no token");
    world.atoll(&["token", "revoke", "dev"]).await.ended(0, "1 revoked");
    assert_eq!(world.atoll(&["token", "list", "-o", "json"]).await.json().as_array().map(Vec::len), Some(1));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_cannot_be_made_says_why() -> anyhow::Result<()> {
    let world = World::new().await?;
    world.atoll(&["token", "create", "svc"]).await.ended(2, "svc");
    world.atoll(&["token", "create", "Prod"]).await.ended(2, "Prod");
    world.atoll(&["token", "create", "dev", "--ttl", "soon"]).await.ended(2, "soon");
    world.atoll(&["token", "create", "dev", "--ttl", "25h"]).await.ended(2, "24h");
    world.atoll(&["token", "create", "dev"]).await.ended(1, "has a hub run");
    world.atoll_as("atoll-dev", &["token", "create", "dev"]).await.ended(3, "forbidden");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_join_with_bad_input_says_what_is_bad() -> anyhow::Result<()> {
    let world = World::new().await?;
    let token = JoinToken { cluster: "dev".parse()?, ca_pin: [7; 32], secret: "s".repeat(32) }.to_string();
    let hub = "127.0.0.1:1";
    world.atoll(&["join", hub, "--token", "rubbish"]).await.ended(2, "atoll1.CLUSTER.PIN.SECRET");
    world.atoll(&["join", "hub", "--token", &token]).await.ended(2, "host:port");
    world.atoll(&["join", hub]).await.ended(2, "no token");
    world.atoll(&["join", hub, "--token-file", "/nowhere"]).await.ended(2, "/nowhere");
    let home = &world.dir.path().join("home");
    let join = |kubeconfig: String| {
        let token = token.clone();
        async move { atoll(home, &["join", hub, "--token", &token, "--foreground", "--kubeconfig", &kubeconfig]).await }
    };
    join("/nowhere/config".into()).await.ended(1, "/nowhere/config");
    join(world.file("rubbish", "not: [a kubeconfig")).await.ended(1, "rubbish");
    join(world.file("empty", "apiVersion: v1\nkind: Config\n")).await.ended(1, "empty");
    join(world.file("dead", DEAD)).await.ended(4, "127.0.0.1:1");
    atoll(home, &["join", hub, "--token", &token]).await.ended(1, "no kubeconfig");
    world.atoll(&["join", hub, "--token", &token, "--context", "other"]).await.ended(1, "context: other");
    Ok(())
}

/// A kubeconfig of a server that is not there.
const DEAD: &str = "{apiVersion: v1, kind: Config, current-context: x, \
    clusters: [{name: x, cluster: {server: 'http://127.0.0.1:1'}}], users: [{name: x, user: {}}], \
    contexts: [{name: x, context: {cluster: x, user: x}}]}\n";

#[tokio::test(flavor = "multi_thread")]
async fn nobody_votes_on_their_own_request() -> anyhow::Result<()> {
    let world = World::new().await?;
    world.waiting_request("web-1", "dev").await?;
    world.waiting_request("web-2", "admin").await?;
    let approve = |who: &'static str, name: &'static str| {
        let world = &world;
        async move { world.atoll_as(who, &["image", "approve", name, "-n", "shop"]).await }
    };
    approve("atoll-dev", "web-1").await.ended(3, "nobody votes on their own request").ended(3, "`approvers`");
    approve("atoll", "web-2").await.ended(3, "nobody votes on their own request");
    approve("atoll-dev", "web-2").await.ended(3, "forbidden");
    approve("atoll", "web-9").await.ended(1, "web-9");
    approve("atoll-approver", "web-1").await.ended(0, "shop/web-1 approved by approver: the hub has not said yet");
    let votes = world.atoll(&["get", "replicationapprovals", "-n", "shop", "-o", "json"]).await.json();
    assert_eq!(votes["items"].as_array().map(Vec::len), Some(1), "{votes}");
    assert_eq!(votes["items"][0]["metadata"]["annotations"]["atoll.dev/voter"], "approver");
    assert_eq!(votes["items"][0]["spec"]["closure"], format!("sha256:{}", "0".repeat(64)));
    let again = world.atoll_as("atoll-approver", &["image", "reject", "web-1", "-n", "shop"]).await;
    again.ended(1, "has voted Approve already");
    // What the hub says of a vote is what the command says.
    for (counts, reason, code, says) in [
        (
            "False",
            "`approver` is in none of the groups that decide: owners",
            3,
            "does not count: `approver` is in none",
        ),
        ("True", "", 0, "approved by approver: the vote counts; it is PendingApproval now"),
    ] {
        world.judge_vote("web-1-approver", counts, reason).await?;
        approve("atoll-approver", "web-1").await.ended(code, says);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_are_made_planned_and_shown() -> anyhow::Result<()> {
    let world = World::new().await?;
    let shop = |args: &[&'static str]| {
        let mut all = args.to_vec();
        all.extend(["-n", "shop"]);
        all
    };
    let made = world.atoll_as("atoll-dev", &shop(&["image", "request", "shop/web:2", "--policy", "dev-to-prod"])).await;
    made.ended(0, "request shop/web-2 made");
    let second = shop(&["image", "request", "shop/web:2", "-p", "dev-to-prod", "-o", "json"]);
    assert_eq!(world.atoll_as("atoll-dev", &second).await.json()["metadata"]["name"], "web-2-2");
    world.atoll(&shop(&["image", "status"])).await.ended(0, "web-2-2").ended(0, "PendingChecks");
    world.atoll(&shop(&["image", "status", "web-2"])).await.ended(0, "dev-to-prod");
    world.atoll(&shop(&["image", "history"])).await.ended(0, "nothing happened");
    let plan = shop(&["image", "plan", "dev-to-prod", "shop/web:2", "bank/db:1"]);
    world.atoll(&plan).await.ended(1, "registry `prod-eu` is not there").ended(1, "`bank/db:1` is none");
    world.atoll(&shop(&["image", "plan", "none", "shop/web:2"])).await.ended(1, "shop/none");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_answer_is_told_from_who_refuses() -> anyhow::Result<()> {
    let world = World::new().await?;
    let home = &world.dir.path().join("home");
    let dead = world.file("dead", DEAD);
    for args in [
        &["get", "clusters"][..],
        &["check"],
        &["token", "create", "dev"],
        &["image", "approve", "x"],
        &["wait", "cluster/dev"],
        &["plan", "failure", "dev"],
    ] {
        let mut all = vec!["--kubeconfig", dead.as_str()];
        all.extend(args);
        atoll(home, &all).await.ended(4, "can't be reached");
    }
    atoll(home, &["get", "clusters"]).await.ended(1, "no kubeconfig");
    let broken = world.file("broken", "clusters: [yaml");
    for (file, why) in [("/nowhere/k", "No such file"), (broken.as_str(), "line 1"), (dead.as_str(), "none")] {
        let ran = atoll(home, &["get", "clusters", "--kubeconfig", file, "--context", "none"]).await;
        ran.ended(1, &format!("atoll: kubeconfig {file}: ")).ended(1, why);
        assert_eq!(ran.err.lines().count(), 1, "{}", ran.err);
    }
    world.atoll_as("atoll-dev", &["get", "secrets"]).await.ended(3, "forbidden");
    atoll(home, &["dns", "query", "x.example", "--server", "127.0.0.1:1"]).await.ended(4, "127.0.0.1:1");
    atoll(home, &["gateway", "explain", "--host", "h", "--admin", "127.0.0.1:1"]).await.ended(4, "127.0.0.1:1");
    Ok(())
}

#[tokio::test]
async fn what_is_typed_wrongly_is_usage() {
    let home = std::env::temp_dir();
    for args in [
        &[][..],
        &["nonsense"],
        &["get"],
        &["get", "clusters", "-o", "csv"],
        &["token"],
        &["image", "export"],
        &["image", "export", "/dev/null", "--name", "x"],
        &["plan", "failure"],
        &["dns", "query", "x", "NONSENSE"],
        &["dns", "query", "x", "--ecs", "1.2.3.4"],
        &["gateway", "explain", "--host", "h", "--path", "p"],
        &["describe", "bundle"],
    ] {
        let ran = atoll(&home, args).await;
        assert_eq!(ran.code, 2, "{args:?}: {}{}", ran.out, ran.err);
        assert!(ran.out.is_empty() && !ran.err.is_empty(), "{args:?}: usage goes to stderr");
    }
    atoll(&home, &["--help"]).await.ended(0, "Exit codes:").ended(0, "plan");
    atoll(&home, &["--version"]).await.ended(0, "atoll ");
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_are_shown_as_text_and_as_one_document() -> anyhow::Result<()> {
    let world = World::new().await?;
    world.apply_all(&[cluster("prod-eu", "True"), cluster("dr", "False"), bundle(2)]).await?;
    world.atoll(&["get", "clusters"]).await.ended(0, "NAME").ended(0, "prod-eu");
    world.atoll(&["get", "cl", "prod-eu", "-o", "name"]).await.ended(0, "cluster.atoll.dev/prod-eu");
    let both = world.atoll(&["get", "clusters", "prod-eu", "dr"]).await;
    both.ended(0, "prod-eu").ended(0, "dr");
    // What stands in another column is no name.
    world.atoll(&["get", "clusters", "prod-eu", "prod"]).await.ended(1, "`prod`: there is none");
    world.atoll(&["get", "cluster/none"]).await.ended(1, "cluster `none`: there is none");
    world.atoll(&["get", "nonsense"]).await.ended(1, "no kind `nonsense`");
    world.atoll(&["get", "bundles", "-A"]).await.ended(0, "NAMESPACE").ended(0, "shop");
    world.atoll(&["get", "bundles"]).await.ended(0, "no bundles in namespace default");
    world.atoll(&["get", "namespaces", "-o", "name"]).await.ended(0, "namespace/shop");
    world.atoll(&["describe", "cluster", "dr"]).await.ended(0, "Conditions:").ended(0, "lost");
    world.atoll(&["explain", "cluster", "dr"]).await.ended(0, "lost");
    world.atoll(&["explain", "bundle", "web", "-n", "shop"]).await.ended(0, "not been placed yet");
    world.atoll(&["explain", "bundle.spec.placement.division"]).await.ended(0, "Weighted");
    world.atoll(&["explain", "bundle.spec.nonsense"]).await.ended(1, "there are: ");
    world.atoll(&["wait", "cluster/prod-eu", "--timeout", "5s"]).await.ended(0, "Ready is True");
    world.atoll(&["wait", "cluster/dr", "--timeout", "1s"]).await.ended(1, "lost");
    for args in [
        &["get", "clusters"][..],
        &["get", "cluster", "prod-eu"],
        &["get", "clusters,bundles", "-A"],
        &["describe", "cluster", "prod-eu"],
        &["explain", "cluster", "prod-eu"],
        &["explain", "zone.spec"],
        &["events", "-A"],
        &["version"],
        &["crds", "--standard"],
        &["token", "list"],
        &["image", "status", "-A"],
        &["plan", "failure", "prod-eu"],
        &["wait", "cluster/prod-eu"],
    ] {
        let mut all = args.to_vec();
        all.extend(["-o", "json"]);
        let ran = world.atoll(&all).await;
        assert_eq!(ran.code, 0, "{args:?}: {}", ran.err);
        ran.json();
    }
    let check = world.atoll(&["check", "-o", "json"]).await;
    assert_eq!((check.code, check.json()["ok"].as_bool()), (1, Some(false)), "no hub runs here");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_would_change_and_move_is_said_beforehand() -> anyhow::Result<()> {
    let world = World::new().await?;
    world.apply_all(&[cluster("prod-eu", "True"), cluster("dr", "True"), bundle(2)]).await?;
    let same = world.file("same.yaml", &bundle(2).to_string());
    let more = world.file("more.yaml", &bundle(50).to_string());
    world.atoll(&["diff", "-f", &same]).await.ended(0, "");
    world.atoll(&["diff", "-f", &more]).await.ended(1, "+").ended(1, "replicas: 50");
    world.atoll(&["diff", "-f", "/nowhere"]).await.ended(1, "/nowhere");
    world.atoll(&["plan", "placement", "-f", &same]).await.ended(0, "prod-eu");
    // 4 processors there, 1 for each replica.
    world.atoll(&["plan", "placement", "-f", &more]).await.ended(1, "no place");
    let lost = world.atoll(&["plan", "failure", "prod-eu", "-o", "json"]).await.json();
    assert_eq!(lost["bundles"][0]["after"], json!({"dr": 2}), "{lost}");
    world.atoll(&["plan", "failure", "none"]).await.ended(1, "cluster `none`");
    let clusters = world.atoll(&["get", "bundle", "web", "-n", "shop", "-o", "json"]).await.json();
    assert_eq!(clusters["spec"]["manifests"][0]["spec"]["replicas"], 2, "nothing was changed");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hub_that_runs_is_found_by_check() -> anyhow::Result<()> {
    let world = World::with_hub().await?;
    let checks = world.atoll(&["check", "-o", "json"]).await;
    let by_id = |id: &str| {
        let found = checks.json()["checks"].as_array().into_iter().flatten().find(|c| c["id"] == id).cloned();
        found.unwrap_or_default()["result"].clone()
    };
    assert_eq!((by_id("api-server"), by_id("definitions"), by_id("hub")), (json!("ok"), json!("ok"), json!("ok")));
    checks.ended(0, "no cluster has joined");
    Ok(())
}

#[tokio::test]
async fn the_chart_of_definitions_is_what_the_command_prints() -> anyhow::Result<()> {
    let generate = concat!(env!("CARGO_MANIFEST_DIR"), "/helm/generate");
    let mut command = tokio::process::Command::new(generate);
    let output = command.arg("--check").env("ATOLL_BIN", env!("CARGO_BIN_EXE_atoll")).output().await?;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

fn cluster(name: &str, ready: &str) -> serde_json::Value {
    let condition = json!({"type": "Ready", "status": ready, "reason": "Test", "lastTransitionTime": "2026-01-01T00:00:00Z",
        "message": if ready == "True" { "beats" } else { "lost" }});
    json!({"apiVersion": "atoll.dev/v1alpha1", "kind": "Cluster", "metadata": {"name": name}, "spec": {"environment": "prod"},
        "status": {"conditions": [condition], "free": {"cpu": "4", "memory": "8Gi", "pods": "100"}}})
}

fn bundle(replicas: i32) -> serde_json::Value {
    let container = json!({"name": "web", "image": "shop/web:1", "resources": {"requests": {"cpu": "1"}}});
    json!({"apiVersion": "atoll.dev/v1alpha1", "kind": "Bundle", "metadata": {"name": "web", "namespace": "shop"}, "spec": {
        "placement": {"affinityGroups": [["prod-eu"], ["dr"]], "division": {"mode": "Weighted"}},
        "manifests": [{"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": {
            "replicas": replicas, "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [container]}}}}]}})
}
