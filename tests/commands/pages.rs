//! What README and docs/ say, tried: each command of the README against `atoll up`, each manifest against an API server.

use std::time::Duration;

use anyhow::{Context as _, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::{AsyncBufReadExt as _, BufReader};

use crate::world::{World, command};

/// Every port is whatever is free.
const FREE: &str = "listen: {api: '127.0.0.1:0', hub: '127.0.0.1:0', dns: '127.0.0.1:0', http: '127.0.0.1:0', \
    https: '127.0.0.1:0', console: '127.0.0.1:0', dnsRelay: '127.0.0.1:0', gatewayRelay: '127.0.0.1:0', admin: '127.0.0.1:0'}\n";

/// Lines of the shell blocks of a page that are commands of ours, with what their comment says.
fn commands_of(page: &str) -> Vec<(Vec<&str>, &str)> {
    let blocks = page.split("```sh\n").skip(1).filter_map(|rest| rest.split("```").next());
    let lines = blocks.flat_map(str::lines).map(|line| line.split_once(" #").unwrap_or((line, "")));
    lines
        .filter_map(|(line, comment)| Some((line.strip_prefix("atoll ")?.split_whitespace().collect(), comment)))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_commands_of_the_readme_work_as_they_stand() -> Result<()> {
    let readme = include_str!("../../README.md");
    let section = readme.split("## Try it").nth(1).and_then(|rest| rest.split("\n## ").next()).context("Try it")?;
    let dir = tempfile::tempdir()?;
    let (home, config) = (dir.path().join("home"), dir.path().join("up.yaml"));
    std::fs::write(&config, FREE)?;
    let mut up = command(&home);
    let mut up = up.args(["up", "-o", "json", "--config"]).arg(&config).stdout(std::process::Stdio::piped()).spawn()?;
    let mut ready = BufReader::new(up.stdout.take().context("stdout")?).lines();
    let line = tokio::time::timeout(Duration::from_secs(60), ready.next_line()).await.context("ready in time")??;
    assert!(line.is_some_and(|line| line.contains("\"ready\":true")));
    // What runs a moment after the start runs well a moment later; people are slower than this test.
    crate::world::atoll(&home, &["check", "--wait", "60s"]).await.ended(0, "cluster prod-eu is Ready");
    let commands = commands_of(section);
    assert!(commands.len() >= 8, "{commands:?}");
    for (words, comment) in commands {
        let ran = crate::world::atoll(&home, &words).await;
        let wanted = if comment.contains("refused") { 3 } else { 0 };
        assert_eq!(ran.code, wanted, "atoll {}: {}{}", words.join(" "), ran.out, ran.err);
    }
    let pid = i32::try_from(up.id().context("it runs")?)?;
    kill(Pid::from_raw(pid), Signal::SIGINT)?;
    assert!(tokio::time::timeout(Duration::from_secs(30), up.wait()).await.context("ends in time")??.success());
    assert!(!home.exists(), "nothing is left");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_manifests_of_the_pages_are_taken() -> Result<()> {
    let world = World::new().await?;
    let page = include_str!("../../docs/getting-started.md");
    let blocks = page.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next());
    let heres = page.split("<<'YAML'\n").skip(1).filter_map(|rest| rest.split("\nYAML").next());
    let manifests: Vec<&str> = blocks.chain(heres).filter(|block| block.contains("apiVersion:")).collect();
    assert!(manifests.len() >= 4, "{manifests:?}");
    for (i, text) in manifests.into_iter().enumerate() {
        let file = world.file(&format!("page-{i}.yaml"), text);
        // All of it is new: that is what differs.
        world.atoll(&["diff", "-f", &file]).await.ended(1, "+++");
    }
    Ok(())
}
