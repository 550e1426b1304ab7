//! The real ExternalDNS with its rfc2136 provider: it creates, changes and removes records, with the TXT by which it knows its own.
//!
//! The program is a Go module that the testbed builds into its cache: `cargo test --test zones -- --ignored`, a step of `./check`.
//! Source: kubernetes-sigs/external-dns, docs/tutorials/rfc2136.

use std::path::Path;
use std::process::Stdio;

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::core::v1::Service;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use serde_json::json;
use tokio::process::{Child, Command};

use crate::stage::{SECRET, Stage};
use crate::world::until;

fn start(program: &Path, stage: &Stage) -> Result<Child> {
    let (address, port) = stage.dns();
    let log = std::fs::File::create(stage.place.at("external-dns.log"))?;
    let mut command = Command::new(program);
    command.args([
        "--provider=rfc2136",
        "--source=service",
        "--registry=txt",
        "--txt-owner-id=atoll-test",
        "--interval=1s",
    ]);
    command.args(["--policy=sync", "--domain-filter=example.com", "--rfc2136-zone=example.com", "--rfc2136-tsig-axfr"]);
    command.args([
        "--rfc2136-tsig-secret-alg=hmac-sha256",
        "--rfc2136-tsig-keyname=k1",
        "--metrics-address=127.0.0.1:0",
    ]);
    command.arg(format!("--rfc2136-tsig-secret={SECRET}"));
    command.arg(format!("--rfc2136-host={address}")).arg(format!("--rfc2136-port={port}"));
    command.arg(format!("--kubeconfig={}", stage.kubeconfig())).arg("--min-event-sync-interval=100ms");
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).kill_on_drop(true);
    Ok(command.spawn()?)
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a program of the testbed's: ./check has a step for it"]
async fn external_dns_creates_changes_and_removes_its_records() -> Result<()> {
    let program = atoll_testbed::programs::external_dns().await?;
    let stage = Stage::new().await?;
    stage.zone(json!({})).await?;
    let services: Api<Service> = Api::namespaced(stage.hub.clone(), "default");
    let service = json!({"apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "web", "annotations": {"external-dns.alpha.kubernetes.io/hostname": "app.example.com",
            "external-dns.alpha.kubernetes.io/ttl": "60"}},
        "spec": {"type": "ClusterIP", "clusterIP": "None", "externalIPs": ["192.0.2.201"], "ports": [{"port": 80}]}});
    services.create(&PostParams::default(), &serde_json::from_value(service)?).await?;
    let target = async |ip: &str| {
        let patch = json!({"metadata": {"annotations": {"external-dns.alpha.kubernetes.io/target": ip}}});
        services.patch("web", &PatchParams::default(), &Patch::Merge(&patch)).await
    };
    target("192.0.2.201").await?;
    let mut running = start(&program, &stage)?;
    let answers = async |what: &str, want: &str, owned: bool| {
        until(what, async || {
            let got = stage.dig(&["+short", "app.example.com"]).await?;
            let txt = stage.dig(&["+short", "TXT", "a-app.example.com"]).await?;
            let log = std::fs::read_to_string(stage.place.at("external-dns.log")).unwrap_or_default();
            let tail: String = log.lines().rev().take(6).collect::<Vec<_>>().join("\n");
            ensure!(got.trim() == want && txt.contains("owner=atoll-test") == owned, "{got} {txt}\n{tail}");
            Ok(())
        })
        .await;
    };
    answers("created", "192.0.2.201", true).await;
    target("192.0.2.202").await?;
    answers("changed", "192.0.2.202", true).await;
    services.delete("web", &DeleteParams::default()).await?;
    answers("removed", "", false).await;
    running.start_kill().context("it has ended")?;
    running.wait().await?;
    stage.end().await
}
