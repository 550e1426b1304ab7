//! The members' side of DNS on real clusters: the agent tells CoreDNS of Atoll and takes it back without a trace, and a node-local DNS answers
//! the pods of its node, also with the hub gone, the link cut, and after a start in that state.
//!
//! ```text
//!   hub, DNS server (root namespace)  ◄── link ──  agent of prod-eu ── stub ──► ConfigMap coredns ──► CoreDNS ◄── pod
//!                                     ◄─ follows ─ node-local DNS at 169.254.20.10 (prod-eu's node) ◄── pod
//! ```
//!
//! Needs root and the testbed's programs: `cargo test --test node_local -- --ignored`, a step of `./check`.
#![allow(clippy::print_stdout, reason = "what was seen is said on the standard output")]

#[path = "node_local/chart.rs"]
mod chart;
#[path = "story/dig.rs"]
#[allow(dead_code, reason = "each test program uses its part of it")]
mod dig;
#[path = "story/process.rs"]
#[allow(dead_code, reason = "each test program uses its part of it")]
mod process;
#[path = "story/said.rs"]
#[allow(dead_code, reason = "each test program uses its part of it")]
mod said;

use std::net::{IpAddr, SocketAddr};
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use atoll_testbed::{Member, MemberSpec, Options, Target, Testbed};
use dig::{Answer, Question};
use futures::FutureExt as _;
use process::Process;
use said::{feed, run, until};
use tokio::process::{Child, Command};
use tokio::sync::OnceCell;
use tokio::time::Instant;

const ATOLL: &str = env!("CARGO_BIN_EXE_atoll");
const NODE: &str = "169.254.20.10";
const PATIENCE: Duration = Duration::from_secs(60);
/// Of the own cluster; federated by the apex and by the specification; below another member.
const OWN: &str = "echo.echo.svc.cluster.local";
const FEDERATED: &str = "web.echo.svc.atoll.internal";
const CLUSTERSET: &str = "web.echo.svc.clusterset.local";
const BELOW: &str = "web.echo.svc.prod-us.atoll.internal";

#[tokio::test]
#[ignore = "needs root: cargo test --test node_local -- --ignored"]
async fn pods_resolve_by_coredns_and_by_their_node() -> Result<()> {
    staged(false).await
}

#[tokio::test]
#[ignore = "needs root: cargo test --test node_local -- --ignored"]
async fn the_chart_runs_the_node_local_dns_as_a_pod_of_each_node() -> Result<()> {
    staged(true).await
}

/// One testbed at a time: it takes the machine's network names.
static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

async fn staged(by_chart: bool) -> Result<()> {
    let _alone = ALONE.lock().await;
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let members = MemberSpec::parse_list("prod-eu,prod-us")?;
    let testbed = Testbed::up(Options { members, hub: false, lab: false, keep: false }).await?;
    let dir = tempfile::tempdir()?;
    // A failure shall not leave clusters behind.
    let told = AssertUnwindSafe(tell(&testbed, dir.path(), by_chart)).catch_unwind().await;
    let down = testbed.down().await;
    told.unwrap_or_else(|failed| std::panic::resume_unwind(failed))?;
    Ok(down?)
}

struct Stage<'t> {
    testbed: &'t Testbed,
    dir: &'t Path,
    eu: Member<'t>,
    dns: SocketAddr,
    pod: OnceCell<String>,
    began: Instant,
}

async fn tell(testbed: &Testbed, dir: &Path, by_chart: bool) -> Result<()> {
    let eu = testbed.member("prod-eu")?;
    let coredns = SocketAddr::from((eu.plan().dns(), 53));
    let dns = SocketAddr::from((testbed.host(), 5353));
    let stage = Stage { testbed, dir, eu, dns, pod: OnceCell::new(), began: Instant::now() };
    if by_chart {
        return chart::tell(&stage, coredns).await;
    }
    let before = stage.corefile().await?;
    ensure!(before.starts_with(".:53 {"), "{before}");
    let (hub, dns) = stage.federation().await?;
    let mut agent = stage.join("prod-eu").await?;
    let _other = stage.join("prod-us").await?;
    stage.share().await?;

    let mut node = stage.run("node", &stage.node_config()?)?;
    until("CoreDNS is told", PATIENCE, async || {
        stage.mount().await?;
        stage.ask(coredns, FEDERATED).await?.some()
    })
    .await?;
    stage.serves(coredns, "CoreDNS, told by the agent").await?;
    let told = stage.corefile().await?;
    ensure!(told.ends_with(&before) && told.starts_with("# atoll: begin"), "the Corefile:\n{told}");
    let cluster =
        stage.hub(&["get", "cluster", "prod-eu", "-o", "jsonpath={.status.conditions[?(@.type=='StubApplied')]}"]);
    let condition = run(cluster).await?.ok()?;
    ensure!(condition.contains("\"status\":\"True\"") && condition.contains("Applied"), "{condition}");
    let events =
        run(stage.member(&["get", "events", "-n", "kube-system", "-o", "jsonpath={.items[*].reason}"])).await?.ok()?;
    ensure!(events.contains("AtollStubApplied"), "events: {events}");
    stage.saw("condition and Event say that the stub was applied");

    let at = SocketAddr::new(NODE.parse()?, 53);
    stage.serves(at, "the node-local DNS").await?;
    let theirs = stage.ask(coredns, OWN).await?.some()?;
    let ours = stage.ask(at, OWN).await?;
    ensure!(ours.some()? == theirs, "{ours:?}, CoreDNS says {theirs:?}");
    let far = stage.ask(at, BELOW).await?.some()?;
    ensure!(far == stage.ask(stage.dns, BELOW).await?.some()?, "{far:?}");
    let reverse = reverse(theirs[0]);
    let pointed = stage.question(at, &reverse, "PTR").await?;
    ensure!(pointed.answer.iter().any(|r| r.data == format!("{OWN}.")), "{pointed:?}");
    stage.saw("own names, another member's and reverse names are those of CoreDNS and of the DNS server");

    hub.kill().await?;
    dns.kill().await?;
    stage.eu.cut().await?;
    stage.alone(at, "with hub and DNS server dead and the link cut").await?;
    interrupt(&mut node).await?;
    let left = stage.eu.exec(&["ip", "-o", "address", "show", "dev", "lo"]).await?;
    ensure!(!left.contains(NODE), "the address stays behind: {left}");
    node = stage.run("node", &stage.node_config()?)?;
    until("it answers after a start in that state", PATIENCE, async || stage.ask(at, OWN).await?.some()).await?;
    stage.alone(at, "after a start in that state").await?;

    stage.eu.heal(&Target::Link).await?;
    hub.start().await?;
    dns.start().await?;
    agent.kill().await?;
    let config = stage.file("off.yaml", &stage.agent_config("stub: {resolver: coredns, enabled: false}"))?;
    agent = stage.run("agent", &config)?;
    until("the Corefile is as it was", PATIENCE, async || {
        let now = stage.corefile().await?;
        ensure!(now == before, "{now}");
        Ok(())
    })
    .await?;
    until("CoreDNS knows nothing of Atoll", PATIENCE, async || {
        stage.mount().await?;
        let answer = stage.ask(coredns, FEDERATED).await?;
        ensure!(answer.addresses().is_empty(), "{answer:?}");
        Ok(())
    })
    .await?;
    stage.saw("switched off, nothing of it is left");

    agent.kill().await?;
    let config = stage.file("on.yaml", &stage.agent_config("stub: {resolver: coredns}"))?;
    agent = stage.run("agent", &config)?;
    until("told again", PATIENCE, async || {
        let now = stage.corefile().await?;
        ensure!(now != before, "not yet");
        Ok(())
    })
    .await?;
    run(stage.hub(&["delete", "cluster", "prod-eu"])).await?.ok()?;
    until("who is no member any more has its Corefile as it was", PATIENCE, async || {
        let now = stage.corefile().await?;
        ensure!(now == before, "{now}\n{}", stage.log("prod-eu", "agent"));
        Ok(())
    })
    .await?;
    stage.saw("so is nothing when the member leaves");
    node.kill().await?;
    agent.kill().await?;
    Ok(())
}

impl Stage<'_> {
    fn saw(&self, what: &str) {
        println!("[{:5.1} s] {what}", self.began.elapsed().as_secs_f32());
    }

    fn file(&self, name: &str, text: &str) -> Result<PathBuf> {
        let path = self.dir.join(name);
        std::fs::write(&path, text)?;
        Ok(path)
    }

    /// Hub and DNS server, each in a process of its own.
    async fn federation(&self) -> Result<(Process, Process)> {
        let (host, dir) = (self.testbed.host(), self.dir.display());
        let hub = format!(
            "embedded: true\ndataDir: {dir}/hub\n\
             listen: {{api: '{host}:6443', hub: '{host}:7443', console: '{host}:7070', admin: '{host}:7071'}}\n"
        );
        let dns = format!(
            "site: dns\nhub: '{host}:7443'\ndataDir: {dir}/dns\nkubeconfig: {dir}/hub/kubeconfig\n\
             listen: {{dns: '{host}:5353', dnsRelay: '{host}:7453', admin: '{host}:7072'}}\n"
        );
        let process = |part: &str, config: &Path| {
            Process::new(part, self.dir, &[ATOLL, part, "--config", &config.display().to_string()], &[])
        };
        let hub = process("hub", &self.file("hub.yaml", &hub)?);
        hub.start().await?;
        until("the hub is ready", PATIENCE, async || {
            hub.check().await?;
            run(self.hub(&["get", "configmap", "-n", "atoll-system", "atoll-hub"])).await?.ok()
        })
        .await?;
        let dns = process("dns", &self.file("dns.yaml", &dns)?);
        dns.start().await?;
        Ok((hub, dns))
    }

    /// A token for a member.
    async fn token(&self, name: &str) -> Result<String> {
        let words =
            ["token", "create", name, "--environment", "prod", "--region", if name == "prod-eu" { "eu" } else { "us" }];
        let mut command = Command::new(ATOLL);
        command.args(words).args(["--kubeconfig", &self.dir.join("hub/kubeconfig").display().to_string()]);
        let line = run(command).await?.ok()?;
        line.split_whitespace().last().map(str::to_owned).context("a token")
    }

    /// Until a member counts.
    async fn ready(&self, name: &str) -> Result<()> {
        until(&format!("{name} is Ready"), PATIENCE, async || {
            let ready = "jsonpath={.status.conditions[?(@.type=='Ready')].status}";
            let said = run(self.hub(&["get", "cluster", name, "-o", ready])).await?.ok()?;
            ensure!(said == "True", "Ready: {said}\n{}", self.log(name, "agent"));
            Ok(())
        })
        .await?;
        self.saw(&format!("{name} has joined"));
        Ok(())
    }

    /// Lets a member in, with an agent in its network: that of prod-eu tells CoreDNS and lets nodes follow.
    async fn join(&self, name: &str) -> Result<Child> {
        self.file(&format!("{name}.token"), &self.token(name).await?)?;
        let more = if name == "prod-eu" { "nodeDns: true, stub: {resolver: coredns}" } else { "cluster: prod-us" };
        let config = self.agent_config(more).replace("NAME", name);
        let config = self.file(&format!("{name}.yaml"), &config)?;
        let agent = self.run_in(name, "agent", &config)?;
        self.ready(name).await?;
        Ok(agent)
    }

    fn agent_config(&self, more: &str) -> String {
        let (host, dir) = (self.testbed.host(), self.dir.display());
        format!(
            "hub: '{host}:7443'\nlisten: {{admin: '127.0.0.1:7075'}}\nagent: {{tokenFile: {dir}/NAME.token, {more}}}\n"
        )
    }

    fn node_config(&self) -> Result<PathBuf> {
        let (host, dir) = (self.testbed.host(), self.dir.display());
        let text = format!(
            "hub: '{host}:7443'\ndataDir: {dir}/node\nlisten: {{admin: '127.0.0.1:7076'}}\n\
             agent: {{cluster: prod-eu, dns: {{listen: '{NODE}:53', alone: true}}}}\n"
        );
        self.file("node.yaml", &text)
    }

    /// An agent's process on the node of prod-eu.
    fn run(&self, part: &str, config: &Path) -> Result<Child> {
        self.run_in("prod-eu", part, config)
    }

    fn run_in(&self, member: &str, part: &str, config: &Path) -> Result<Child> {
        let member = self.testbed.member(member)?;
        let log = self.dir.join(format!("{}-{part}.log", member.name()));
        let log = std::fs::File::options().create(true).append(true).open(log)?;
        let mut command = member.command(ATOLL);
        command.args(["agent", "--config", &config.display().to_string()]);
        command.args(["--kubeconfig", &member.kubeconfig().display().to_string()]);
        command.stdout(log.try_clone()?).stderr(log).stdin(Stdio::null());
        Ok(command.spawn()?)
    }

    fn log(&self, member: &str, part: &str) -> String {
        let text = std::fs::read_to_string(self.dir.join(format!("{member}-{part}.log"))).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }

    /// `kubectl` at the hub.
    fn hub(&self, words: &[&str]) -> Command {
        let mut command = Command::new(self.testbed.kubectl());
        command.arg("--kubeconfig").arg(self.dir.join("hub/kubeconfig")).args(words).env("HOME", self.dir);
        command
    }

    /// `kubectl` at prod-eu.
    fn member(&self, words: &[&str]) -> Command {
        let mut command = Command::new(self.testbed.kubectl());
        command.arg("--kubeconfig").arg(self.eu.kubeconfig()).args(words).env("HOME", self.dir);
        command
    }

    /// The same from inside its network, which a cut leaves alone.
    fn inside(&self, words: &[&str]) -> Command {
        let mut command = self.eu.command(self.testbed.kubectl());
        command.arg("--kubeconfig").arg(self.eu.kubeconfig()).args(words).env("HOME", self.dir);
        command
    }

    /// A Service over the echo pods of both members, exported.
    async fn share(&self) -> Result<()> {
        let objects = "apiVersion: v1\nkind: Namespace\nmetadata: {name: echo}\n---\n\
            apiVersion: atoll.dev/v1alpha1\nkind: Bundle\nmetadata: {name: web, namespace: echo}\nspec:\n  placement: {}\n  \
            exports: [web]\n  manifests:\n  - apiVersion: v1\n    kind: Service\n    metadata: {name: web}\n    spec:\n      \
            selector: {app: echo}\n      ports: [{name: http, port: 80, targetPort: 8080}]\n";
        feed(self.hub(&["apply", "-f", "-"]), objects).await?.ok()?;
        until("the DNS server gives the service", PATIENCE, async || self.ask(self.dns, FEDERATED).await?.some())
            .await?;
        until("and its part in prod-us", PATIENCE, async || self.ask(self.dns, BELOW).await?.some()).await?;
        self.saw("a service of both members is shared");
        Ok(())
    }

    async fn corefile(&self) -> Result<String> {
        run(self.member(&["get", "configmap", "-n", "kube-system", "coredns", "-o", "jsonpath={.data.Corefile}"]))
            .await?
            .ok()
    }

    /// A kubelet looks at what is mounted each minute, and when something about the pod changes.
    async fn mount(&self) -> Result<()> {
        let stamp = format!("looked={}", self.began.elapsed().as_millis());
        let words = ["annotate", "pod", "-n", "kube-system", "-l", "k8s-app=kube-dns", "--overwrite", &stamp];
        run(self.member(&words)).await?.ok().map(drop)
    }

    /// `dig` in the network of one of prod-eu's pods.
    async fn question(&self, server: SocketAddr, name: &str, kind: &str) -> Result<Answer> {
        let network = self.pod.get_or_try_init(|| self.network()).await?;
        let mut command = Command::new("nsenter");
        command.args([network, "--", "dig"]);
        dig::dig(command, server, &Question { name, kind, tcp: false, source: None }).await
    }

    /// The network of one of its pods, as `nsenter` takes it: found once, since nobody is asked for it while the link is cut.
    async fn network(&self) -> Result<String> {
        let first = ["get", "pods", "-n", "echo", "-l", "app=echo", "-o", "jsonpath={.items[0].metadata.name}"];
        let pod = format!("echo/{}", run(self.member(&first)).await?.ok()?);
        let command = self.eu.command_in_pod(&pod, "dig").await?;
        let mut words = command.as_std().get_args();
        Ok(words.next().context("its network")?.to_string_lossy().into_owned())
    }

    async fn ask(&self, server: SocketAddr, name: &str) -> Result<Answer> {
        self.question(server, name, "A").await
    }

    /// That a pod gets every kind of name there.
    async fn serves(&self, server: SocketAddr, what: &str) -> Result<()> {
        for name in [OWN, FEDERATED, CLUSTERSET, BELOW] {
            until(&format!("{what} answers for {name}"), PATIENCE, async || {
                let said = self.ask(server, name).await.and_then(|answer| answer.some());
                said.with_context(|| format!("{}\n{}", self.log("prod-eu", "agent"), self.log("prod-eu", "node")))
            })
            .await?;
        }
        self.saw(&format!("{what} answers a pod for its own cluster, the apex, clusterset.local and another member"));
        Ok(())
    }

    /// That a pod gets what a member that is cut off can know.
    async fn alone(&self, server: SocketAddr, when: &str) -> Result<()> {
        for name in [OWN, FEDERATED, CLUSTERSET] {
            self.ask(server, name).await?.some().with_context(|| format!("{when}: {}", self.log("prod-eu", "node")))?;
        }
        let nobody = self.ask(server, "none.echo.svc.atoll.internal").await?;
        ensure!(nobody.status == "NXDOMAIN", "{nobody:?}");
        self.saw(&format!("{when} the node answers for its own cluster, the apex and clusterset.local"));
        Ok(())
    }
}

async fn interrupt(child: &mut Child) -> Result<()> {
    let pid = child.id().context("it runs")?;
    ensure!(Command::new("kill").args(["-INT", &pid.to_string()]).status().await?.success());
    let ended = tokio::time::timeout(Duration::from_secs(20), child.wait()).await??;
    ensure!(ended.success(), "{ended}");
    Ok(())
}

/// The name of an address.
fn reverse(ip: IpAddr) -> String {
    hickory_proto::rr::Name::from(ip).to_ascii()
}
