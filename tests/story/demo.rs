//! The world of `atoll up`: the hub, DNS, gateway, agents and five demo members in one process, on loopback, without root.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::AtomicUsize;

use anyhow::{Context as _, Result, ensure};
use atoll_testbed::{packages, programs};
use serde_json::Value;
use tokio::time::Instant;

use crate::process::Process;
use crate::said;
use crate::world::{Access, Ground, MEMBERS, People, World, binary, folder, list, text};

/// The running `atoll up`.
#[derive(Debug)]
pub(crate) struct Demo {
    pub(crate) process: Process,
    home: PathBuf,
}

/// Starts it and waits for its ready line.
pub(crate) async fn begin() -> Result<World> {
    let atoll = binary()?;
    packages::ensure_some(&["/usr/bin/dig", "/usr/bin/curl"]).await?;
    let kubectl = programs::kubectl().await?;
    let dir = folder("demo")?;
    let home = dir.join("home");
    let words = [&*atoll.display().to_string(), "up", "-o", "json"].map(str::to_owned);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let process = Process::new("atoll-up", &dir, &words, &[("ATOLL_HOME", &home.display().to_string())]);
    let began = Instant::now();
    let line = process.start_and_read().await?;
    let ready: Value = serde_json::from_str(&line).with_context(|| format!("the ready line is no JSON: {line}"))?;
    ensure!(ready["ready"] == true, "the ready line: {line}");
    println!("demo: ready {:.0?} after its start: {line}", began.elapsed());

    let kubeconfig = PathBuf::from(text(&ready, "/kubeconfig"));
    let access = |context: &str| Access { kubeconfig: kubeconfig.clone(), context: Some(context.to_owned()) };
    let address = |field: &str| -> Result<SocketAddr> {
        text(&ready, field).parse().with_context(|| format!("{field} of the ready line: {line}"))
    };
    let told = list(&ready, "/members");
    let names: Vec<Value> = told.iter().map(|member| member["name"].clone()).collect();
    ensure!(MEMBERS.iter().all(|name| names.contains(&(*name).into())), "the members of the ready line are {names:?}");
    let own = |member: &Value| Access { kubeconfig: PathBuf::from(text(member, "/kubeconfig")), context: None };
    let members = told.iter().map(|member| (text(member, "/name").to_owned(), own(member))).collect();
    Ok(World {
        name: "demo",
        atoll,
        kubectl,
        people: People { admin: access("atoll"), dev: access("atoll-dev"), approver: access("atoll-approver") },
        dns: address("/dns")?,
        http: address("/http")?,
        https: address("/https")?,
        members,
        dir,
        ground: Ground::Demo(Box::new(Demo { process, home })),
        began,
        proved: AtomicUsize::new(0),
    })
}

impl Demo {
    /// `atoll demo break|heal WHAT`.
    pub(crate) async fn control(&self, world: &World, verb: &str, what: &str) -> Result<()> {
        self.process.check().await?;
        said::run(world.atoll_command(&["demo", verb, what])).await?.ok().map(drop)
    }

    /// Ctrl-C: it ends well and leaves nothing behind.
    pub(crate) async fn end(self) -> Result<()> {
        let status = self.process.interrupt().await?;
        ensure!(status.success(), "atoll up ended with {status}:\n{}", self.process.tail());
        let entries = std::fs::read_dir(&self.home).into_iter().flatten().flatten();
        let left: Vec<_> = entries.map(|entry| entry.path()).collect();
        ensure!(left.is_empty(), "atoll up left behind: {left:?}");
        Ok(())
    }
}
