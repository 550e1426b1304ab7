//! The command `cargo testbed`: up, down, env, status, build, and the faults. Answers on stdout, progress on stderr.
#![allow(clippy::print_stdout, reason = "a command answers on its standard output")]

use std::collections::BTreeSet;
use std::io::IsTerminal as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use atoll_testbed::conformance::{self, Conformance};
use atoll_testbed::programs::{Built, Programs};
use atoll_testbed::proxy::{Link, Protocol, Proxy};
use atoll_testbed::settle::Settle;
use atoll_testbed::{MemberSpec, Options, Target, Testbed, packages};
use clap::{Parser, Subcommand, ValueEnum};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::time::Instant;

/// Real Kubernetes clusters as plain processes, for tests. Needs root.
#[derive(Parser)]
#[command(name = "cargo testbed", version)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum Output {
    #[default]
    Text,
    Json,
}

#[derive(Subcommand)]
enum Verb {
    /// Install the packages and build the programs that lack, and print the time of each and where they are.
    Build {
        /// Also what single tests need: ExternalDNS, h2spec, pebble, the servers that filters of the gateway ask.
        #[arg(long)]
        all: bool,
    },
    /// Bring the clusters up and wait until all is ready.
    Up {
        /// Members, each `NAME[:cpu=2000][:memory=4096][:pods=60][:routed=false][:overlaps=OTHER][:registry=docker2|distribution3][:password=true]`.
        #[arg(long, default_value = "dev,test,prod-eu,prod-us,dr")]
        members: String,
        /// Leave out the real API server for a hub.
        #[arg(long)]
        no_hub: bool,
        /// Leave out Consul.
        #[arg(long)]
        no_lab: bool,
        /// Leave everything as it is when something fails.
        #[arg(long)]
        keep: bool,
    },
    /// Take everything away, also what a crash left.
    Down,
    /// Print kubeconfigs and addresses.
    Env {
        #[arg(short, default_value = "text")]
        output: Output,
    },
    /// Print what runs.
    Status {
        #[arg(short, default_value = "text")]
        output: Output,
    },
    /// End processes at once, as a loss of power does.
    Kill(Fault),
    /// Stop processes where they are.
    Pause(Fault),
    /// Let paused processes go on.
    Resume(Fault),
    /// Let packets vanish.
    Cut(Fault),
    /// Undo the faults of the target, or all of the member's.
    Heal(Fault),
    /// Run the Gateway API's conformance suite against a hub and a gateway in a cluster of their own.
    Conformance {
        /// `gateway`.
        #[arg(value_parser = ["gateway"])]
        what: String,
        /// The binary under test.
        #[arg(long, default_value = "target/debug/atoll")]
        atoll: PathBuf,
        /// Run these tests only, and write no report.
        #[arg(long, value_delimiter = ',')]
        tests: Vec<String>,
        /// Run two dozen tests of all that there is, and write no report.
        #[arg(long, conflicts_with = "tests")]
        smoke: bool,
        /// Profiles.
        #[arg(long, default_value = conformance::PROFILES)]
        profiles: String,
        /// Where the report goes.
        #[arg(long, default_value = "testbed/conformance/gateway.yaml")]
        report: PathBuf,
        /// Leave the cluster up for the next run.
        #[arg(long)]
        keep: bool,
    },
    /// Measure how soon the statuses of many routes are settled on a real kube-apiserver.
    Settle {
        /// How many.
        #[arg(long, default_value_t = 5000)]
        routes: usize,
        /// The binary under test.
        #[arg(long, default_value = "target/release/atoll")]
        atoll: PathBuf,
    },
    /// Carry TCP or UDP over a bad link until interrupted; each line on stdin changes the link.
    Proxy {
        /// Carry UDP, not TCP.
        #[arg(long)]
        udp: bool,
        /// Where to listen.
        listen: SocketAddr,
        /// Where to carry to.
        target: SocketAddr,
        /// `delay=100ms`, `loss=0.1`, `hold=target|client|both|none`.
        link: Vec<String>,
    },
}

#[derive(clap::Args)]
struct Fault {
    /// The member.
    member: String,
    /// `apiserver`, `dns`, `node`, `pod NAME` or `link`; nothing means all of it (cut: its link).
    target: Vec<String>,
}

#[tokio::main]
async fn main() -> ExitCode {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| "info,kube=off,kube_client=off,tower=off".into());
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_target(false).with_writer(std::io::stderr);
    log.with_ansi(std::io::stderr().is_terminal()).init();
    match run(Cli::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("testbed: {}", line(&error));
            ExitCode::FAILURE
        }
    }
}

/// An error and its causes; a cause that its effect has said already is left out.
fn line(error: &anyhow::Error) -> String {
    error.chain().skip(1).fold(error.to_string(), |said, cause| match cause.to_string() {
        cause if said.contains(&cause) => said,
        cause => format!("{said}: {cause}"),
    })
}

async fn run(cli: Cli) -> Result<()> {
    match cli.verb {
        Verb::Build { all } => build(all).await,
        Verb::Up { members, no_hub, no_lab, keep } => {
            let members = MemberSpec::parse_list(&members)?;
            up(Options { members, hub: !no_hub, lab: !no_lab, keep }).await
        }
        Verb::Down => Ok(Testbed::clear().await?),
        Verb::Env { output } => env(&Testbed::look().await?, output),
        Verb::Status { output } => status(&Testbed::look().await?, output).await,
        Verb::Kill(fault) => fault.apply(Word::Kill).await,
        Verb::Pause(fault) => fault.apply(Word::Pause).await,
        Verb::Resume(fault) => fault.apply(Word::Resume).await,
        Verb::Cut(fault) => fault.apply(Word::Cut).await,
        Verb::Heal(fault) => fault.apply(Word::Heal).await,
        Verb::Conformance { what: _, atoll, tests, smoke, profiles, report, keep } => {
            let atoll = std::path::absolute(atoll)?;
            let tests = if smoke { conformance::SMOKE.map(str::to_owned).to_vec() } else { tests };
            conform(&Conformance { atoll, tests, profiles, report, keep }).await
        }
        Verb::Settle { routes, atoll } => settle(&Settle { atoll: std::path::absolute(atoll)?, routes }).await,
        Verb::Proxy { udp, listen, target, link } => {
            let protocol = if udp { Protocol::Udp } else { Protocol::Tcp };
            let link: Link = link.join(" ").parse()?;
            carry(&Proxy::start(protocol, listen, target, link).await?).await
        }
    }
}

async fn carry(proxy: &Proxy) -> Result<()> {
    println!("{}", proxy.address());
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    let mut open = true;
    loop {
        tokio::select! {
            () = interrupted() => return Ok(()),
            line = lines.next_line(), if open => match line? {
                // Without an input it goes on as it is.
                None => open = false,
                Some(line) => match line.parse() {
                    Ok(link) => proxy.set(link),
                    Err(error) => eprintln!("testbed: {error}"),
                },
            },
        }
    }
}

async fn conform(conformance: &Conformance) -> Result<()> {
    let outcome = tokio::select! {
        outcome = conformance.run() => outcome?,
        () = interrupted() => bail!("interrupted; `cargo testbed down` takes the cluster away"),
    };
    for name in &outcome.failed {
        println!("failed  {name}");
    }
    let (passed, failed, skipped) = (outcome.passed.len(), outcome.failed.len(), outcome.skipped.len());
    println!("{passed} passed, {failed} failed, {skipped} skipped; log {}", outcome.log.display());
    if failed > 0 {
        bail!("{failed} tests failed");
    }
    Ok(())
}

async fn settle(settle: &Settle) -> Result<()> {
    let found = settle.run().await?;
    println!(
        "{} routes: created in {:.1} s, all settled after {:.1} s",
        settle.routes,
        found.created.as_secs_f64(),
        found.settled.as_secs_f64()
    );
    println!("{} statuses written; {:.1} s of the gateway's CPU", found.writes, found.gateway_cpu);
    println!("started again: ready after {:.1} s, {} statuses written", found.again.as_secs_f64(), found.again_writes);
    Ok(())
}

async fn build(all: bool) -> Result<()> {
    let started = Instant::now();
    packages::ensure().await?;
    println!("{:<12} {:>6.1} s", "packages", started.elapsed().as_secs_f32());
    let each = |built: &Built| {
        let how = if built.cached { "cached" } else { "built" };
        println!("{:<12} {:>6.1} s  {how}", built.name, built.took.as_secs_f32());
    };
    let programs = Programs::conformance(each).await?;
    if all {
        Programs::of_single_tests(each).await?;
    }
    println!("{:<12} {:>6.1} s", "all", started.elapsed().as_secs_f32());
    println!("{:<12} {}", "programs", programs.path("").display());
    Ok(())
}

async fn up(options: Options) -> Result<()> {
    let started = Instant::now();
    let testbed = tokio::select! {
        testbed = Testbed::up(options) => testbed?,
        _ = interrupted() => {
            tracing::warn!("interrupted: taking away what is there");
            Testbed::clear().await?;
            bail!("interrupted");
        }
    };
    println!("up in {:.1} s", started.elapsed().as_secs_f32());
    env(&testbed, Output::Text)
}

async fn interrupted() {
    let mut end =
        tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()).expect("signals can be had");
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = end.recv() => {}
    }
}

fn env(testbed: &Testbed, output: Output) -> Result<()> {
    let members: Vec<Value> = testbed.members().map(|member| {
        let (plan, registry) = (member.plan(), member.registry());
        json!({
            "name": member.name(), "kubeconfig": member.kubeconfig(), "node": member.node(), "dns": member.dns(),
            "pods": plan.pods(), "services": plan.services(), "routed": plan.routed(), "namespace": plan.namespace(),
            "registry": registry.address, "credentials": registry.credentials,
        })
    }).collect();
    let hub = testbed.hub().map(|hub| json!({"kubeconfig": hub.kubeconfig(), "address": hub.address()}));
    let lab = testbed.lab().map(|lab| json!({"dns": lab.dns(), "http": lab.http(), "address": lab.address()}));
    if output == Output::Json {
        let all = json!({
            "host": testbed.host(), "dir": testbed.dir(), "kubectl": testbed.kubectl(), "helm": testbed.helm(),
            "members": members, "hub": hub, "lab": lab,
        });
        println!("{all}");
        return Ok(());
    }
    println!("host       {}  (reachable from every member)", testbed.host());
    for member in testbed.members() {
        let routes = if member.plan().routed() { "" } else { "  no routes to pods and services" };
        println!(
            "{:<10} node {}  dns {}  registry {}{routes}",
            member.name(),
            member.node(),
            member.dns(),
            member.plan().registry()
        );
        println!("{:<10} export KUBECONFIG={}", "", member.kubeconfig().display());
    }
    if let Some(hub) = testbed.hub() {
        println!("{:<10} export KUBECONFIG={}", "hub", hub.kubeconfig().display());
    }
    if let Some(lab) = testbed.lab() {
        println!("{:<10} consul dns {}  http {}", "lab", lab.dns(), lab.http());
    }
    println!("{:<10} {}", "kubectl", testbed.kubectl().display());
    Ok(())
}

async fn status(testbed: &Testbed, output: Output) -> Result<()> {
    let rows = testbed.status().await?;
    if output == Output::Json {
        println!("{}", Value::Array(rows));
        return Ok(());
    }
    for row in rows {
        let parts = row["parts"].as_object().context("a status has parts")?;
        let mut said = vec![if row["ready"] == true { "ready" } else { "not ready" }.to_owned()];
        said.extend((row["linked"] != true).then(|| "link cut".to_owned()));
        let faulty = parts.iter().filter_map(|(part, word)| Some((part, word.as_str()?)));
        said.extend(faulty.filter(|(_, word)| *word != "running").map(|(part, word)| format!("{part} {word}")));
        // Chains of the packet filter, `cut-dns.output`.
        let chains = row["cuts"].as_array().into_iter().flatten().filter_map(Value::as_str);
        let cuts: BTreeSet<&str> = chains.filter_map(|chain| chain.strip_prefix("cut-")?.split('.').next()).collect();
        said.extend(cuts.iter().map(|cut| format!("{cut} cut")));
        said.extend(row["message"].as_str().map(str::to_owned));
        println!("{:<10} {}", row["name"].as_str().unwrap_or_default(), said.join(", "));
    }
    Ok(())
}

enum Word {
    Kill,
    Pause,
    Resume,
    Cut,
    Heal,
}

impl Fault {
    async fn apply(&self, word: Word) -> Result<()> {
        let target = Target::of_words(&self.target)?.unwrap_or(Target::Member);
        let testbed = Testbed::look().await?;
        let member = testbed.member(&self.member)?;
        match word {
            Word::Kill => member.kill(&target).await?,
            Word::Pause => member.pause(&target).await?,
            Word::Resume => member.resume(&target).await?,
            Word::Cut => member.cut_off(&target).await?,
            Word::Heal => member.heal(&target).await?,
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_that_was_said_is_not_said_again() {
        let error = anyhow::anyhow!("no such file").context("folder go: no such file").context("build");
        assert_eq!(line(&error), "build: folder go: no such file");
    }
}
