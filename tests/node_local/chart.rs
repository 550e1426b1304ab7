//! The chart on a real node: the agent and the node-local DNS as its pods, of the image that `atoll image export` writes. A pod of that node asks
//! it, with the hub and the DNS server dead and the link cut, and after its own restart in that state.

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tokio::process::Command;

use super::{ATOLL, FEDERATED, NODE, OWN, PATIENCE, SocketAddr, Stage, feed, reverse, run, until};

const IMAGE: &str = "atoll:chart";
const PART: [&str; 2] = ["-l", "app.kubernetes.io/component=node"];

/// Tells it, from hub and DNS server that run already.
pub(super) async fn tell(stage: &Stage<'_>, coredns: SocketAddr) -> Result<()> {
    let (hub, dns) = stage.federation().await?;
    let _other = stage.join("prod-us").await?;
    install(stage).await?;
    stage.share().await?;
    let at = SocketAddr::new(NODE.parse()?, 53);
    stage.serves(at, "the chart's pod on the node").await?;
    let theirs = stage.ask(coredns, OWN).await?.some()?;
    let ours = stage.ask(at, OWN).await?.some()?;
    ensure!(ours == theirs, "{ours:?}, CoreDNS says {theirs:?}");
    let pointed = stage.question(at, &reverse(theirs[0]), "PTR").await?;
    ensure!(pointed.answer.iter().any(|r| r.data == format!("{OWN}.")), "{pointed:?}");
    let first = pod(stage).await?;
    stage.saw("pods of the node are answered by the pod that the chart put there");

    hub.kill().await?;
    dns.kill().await?;
    stage.eu.cut().await?;
    stage.alone(at, "with hub and DNS server dead and the link cut").await?;
    // The member's own API server is on its own side of the cut.
    let namespaced = ["delete", "pod", "-n", "atoll-system", "--wait=true", "--timeout=60s"];
    run(stage.inside(&[&namespaced[..], &PART].concat())).await?.ok()?;
    until("another pod is there and answers", PATIENCE * 2, async || {
        let next = pod(stage).await?;
        ensure!(next != first, "{next} is the one before");
        stage.ask(at, OWN).await?.some()?;
        stage.ask(at, FEDERATED).await?.some()
    })
    .await?;
    stage.alone(at, "after a restart of the pod in that state").await?;

    let gone = ["delete", "daemonset", "-n", "atoll-system", "--wait=true", "--cascade=foreground", "--timeout=60s"];
    run(stage.inside(&[&gone[..], &PART].concat())).await?.ok()?;
    until("its address is gone with it", PATIENCE, async || {
        let left = stage.eu.exec(&["ip", "-o", "address", "show", "dev", "lo"]).await?;
        ensure!(!left.contains(NODE), "{left}");
        Ok(())
    })
    .await?;
    stage.saw("without the DaemonSet nothing of it is left on the node");
    Ok(())
}

/// Brings the image and the chart into prod-eu, which joins by the chart's agent.
async fn install(stage: &Stage<'_>) -> Result<()> {
    let archive = stage.dir.join("atoll.tar");
    let mut export = Command::new(ATOLL);
    export.args(["image", "export"]).arg(&archive).args(["--name", IMAGE]);
    run(export).await?.ok()?;
    stage.eu.import(&archive).await?;
    let token = stage.token("prod-eu").await?;
    run(stage.member(&["create", "namespace", "atoll-system"])).await?.ok()?;
    let secret = format!("--from-literal=token={token}");
    run(stage.member(&["create", "secret", "generic", "atoll-token", "-n", "atoll-system", &secret])).await?.ok()?;
    let (name, tag) = IMAGE.split_once(':').context("a tag")?;
    let hub = format!("agent.hub={}:7443", stage.testbed.host());
    let image = format!("image.repository={name},image.tag={tag},image.pullPolicy=Never");
    let only = "hub.enabled=false,dns.enabled=false,gateway.enabled=false,agent.enabled=true,node.enabled=true";
    let chart = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("helm/atoll");
    let mut template = Command::new(stage.testbed.helm());
    template.args(["template", "atoll"]).arg(chart);
    // The node's files are this machine's: what one hub said there is no start for the next.
    let data = format!("node.hostPath={}", stage.dir.join("node-data").display());
    template.args([
        "--set",
        only,
        "--set",
        &hub,
        "--set",
        &image,
        "--set",
        &data,
        "--set",
        "agent.tokenSecret=atoll-token",
    ]);
    let objects = run(template).await?.ok()?;
    feed(stage.member(&["apply", "-f", "-"]), &objects).await?.ok()?;
    stage.ready("prod-eu").await?;
    until("the DaemonSet is there", PATIENCE, async || pod(stage).await.with_context(|| format!("of\n{objects}")))
        .await?;
    stage.saw("the chart's agent has joined prod-eu, its node-local DNS runs as a pod");
    Ok(())
}

/// The pod on the node, once it is ready.
async fn pod(stage: &Stage<'_>) -> Result<String> {
    let words = ["get", "pods", "-n", "atoll-system", "-o", "json"];
    let said = run(stage.inside(&[&words[..], &PART].concat())).await?.ok()?;
    let pods: Value = serde_json::from_str(&said)?;
    let is_ready = |pod: &&Value| {
        let conditions = pod["status"]["conditions"].as_array().cloned().unwrap_or_default();
        pod["metadata"]["deletionTimestamp"].is_null()
            && conditions.iter().any(|c| c["type"] == "Ready" && c["status"] == "True")
    };
    let found = pods["items"].as_array().into_iter().flatten().find(is_ready);
    let found = found.with_context(|| format!("no ready pod: {}", pods["items"][0]["status"]))?;
    found["metadata"]["name"].as_str().map(str::to_owned).context("its name")
}
