//! The charts on the hub's real API server: what they bring is applied there, and hub, DNS server and gateway then run with the rights
//! that the chart gives their accounts, and no others. (There is no node here, so the chart's own pods stay Pending.)

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use tokio::process::Command;

use crate::bed::Bed;
use crate::objects;
use crate::said::{feed, run};
use crate::world::{World, text, write};

/// Applies the charts and writes `PART.kubeconfig` for each part.
pub(crate) async fn install(world: &World, bed: &Bed) -> Result<()> {
    world.apply(&objects::namespace("atoll-system")).await?;
    let kinds = template(bed, "atoll-crds", &[]).await?;
    world.apply(&kinds).await.context("apply the chart atoll-crds")?;
    let served = ["wait", "--for=condition=Established", "crd", "--all", "--timeout=60s"];
    world.kubectl(&served).await?.ok()?;
    let advertise = format!("hub.advertise={}:7443", bed.testbed.host());
    let all = template(bed, "atoll", &["--set", &advertise]).await?;
    let dry = world.kubectl_with(&["apply", "--dry-run=server", "-f", "-"], &[]);
    let said = feed(dry, &all).await?.ok().context("a dry run of the chart atoll")?;
    ensure!(said.lines().count() > 10, "the dry run said:\n{said}");
    feed(world.kubectl_with(&["apply", "-f", "-"], &[]), &all).await?.ok().context("apply the chart atoll")?;
    for part in ["hub", "dns", "gateway"] {
        account(world, part).await.with_context(|| format!("the account of {part}"))?;
    }
    println!("the charts are applied; hub, dns and gateway have the rights that they give");
    Ok(())
}

/// What a chart makes of its values.
async fn template(bed: &Bed, chart: &str, flags: &[&str]) -> Result<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("helm").join(chart);
    let mut command = Command::new(bed.testbed.helm());
    command.args(["template", chart]).arg(folder).args(flags);
    run(command).await?.ok()
}

/// A kubeconfig of a part's ServiceAccount.
async fn account(world: &World, part: &str) -> Result<()> {
    let name = format!("atoll-{part}");
    let token = world.kubectl(&["create", "token", &name, "-n", "atoll-system", "--duration=2h"]).await?.ok()?;
    let mut config =
        world.kubectl(&["config", "view", "--raw", "--flatten", "--minify", "-o", "json"]).await?.json()?;
    ensure!(!text(&config, "/users/0/name").is_empty(), "the administrator's kubeconfig has no user");
    config["users"][0]["user"] = json!({"token": token.trim()});
    write(&world.dir, &format!("{part}.kubeconfig"), &config.to_string()).map(drop)
}
