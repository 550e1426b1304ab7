//! The world of the testbed: five real clusters and Consul; hub, DNS server and gateway as processes of their own in the root
//! namespace, the hub on its embedded store or on a real API server.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use atoll_testbed::{Options, Target, Testbed};
use tokio::process::Command;
use tokio::sync::OnceCell;
use tokio::time::Instant;

use crate::chart;
use crate::process::Process;
use crate::said::until;
use crate::world::{APEX, Access, Ground, MEMBERS, People, World, binary, folder, write};

/// Where the hub keeps its objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Store {
    /// In its own embedded API server.
    Embedded,
    /// In a real kube-apiserver.
    Kubernetes,
}

/// The testbed and what runs on it.
#[derive(Debug)]
pub(crate) struct Bed {
    pub(crate) testbed: Testbed,
    pub(crate) store: Store,
    processes: BTreeMap<&'static str, Process>,
    /// The agent that runs beside its member.
    agent: OnceCell<Process>,
}

/// Brings all of it up, with nobody joined yet.
pub(crate) async fn begin(store: Store) -> Result<World> {
    let atoll = binary()?;
    // What an earlier telling left when it was killed.
    Testbed::clear().await?;
    let began = Instant::now();
    let testbed = Testbed::up(Options { hub: store == Store::Kubernetes, ..Options::default() }).await?;
    println!("testbed: up in {:.1?}, {} members and Consul", began.elapsed(), MEMBERS.len());
    let name = if store == Store::Embedded { "testbed_embedded" } else { "testbed_kubernetes" };
    let dir = folder(name)?;
    let host = testbed.host();
    let people = match store {
        Store::Embedded => {
            let kubeconfig = dir.join("hub/kubeconfig");
            let access = |context: &str| Access { kubeconfig: kubeconfig.clone(), context: Some(context.to_owned()) };
            People { admin: access("atoll"), dev: access("atoll-dev"), approver: access("atoll-approver") }
        }
        Store::Kubernetes => {
            let hub = testbed.hub().context("asked for")?;
            let access = |kubeconfig: PathBuf| Access { kubeconfig, context: None };
            People {
                admin: access(hub.kubeconfig()),
                dev: access(hub.kubeconfig_of("dev", None)?),
                approver: access(hub.kubeconfig_of("approver", Some("approvers"))?),
            }
        }
    };
    let members = testbed
        .members()
        .map(|member| (member.name().to_owned(), Access { kubeconfig: member.kubeconfig(), context: None }));
    let members: BTreeMap<String, Access> = members.collect();
    let processes = processes(&atoll, &dir, store, host)?;
    let world = World {
        name,
        kubectl: testbed.kubectl(),
        atoll,
        dir,
        people,
        dns: SocketAddr::from((host, 5353)),
        http: SocketAddr::from((host, 8080)),
        https: SocketAddr::from((host, 8443)),
        members,
        ground: Ground::Bed(Box::new(Bed { testbed, store, processes, agent: OnceCell::new() })),
        began,
        proved: AtomicUsize::new(0),
    };
    match start(&world).await {
        Ok(()) => Ok(world),
        Err(error) => {
            world.last_words();
            world.end().await?;
            Err(error)
        }
    }
}

/// The processes of the root namespace, not started yet.
fn processes(
    atoll: &Path,
    dir: &Path,
    store: Store,
    host: std::net::Ipv4Addr,
) -> Result<BTreeMap<&'static str, Process>> {
    let home = dir.display();
    // On a real API server each has an account of its own; the embedded hub writes one kubeconfig.
    let account = |part: &str| match store {
        Store::Embedded => format!("{home}/hub/kubeconfig"),
        Store::Kubernetes => format!("{home}/{part}.kubeconfig"),
    };
    let standing = "standing: {region: eu-central, zone: eu-central-1a, clusterSet: prod}";
    let hub = match store {
        Store::Embedded => format!(
            "embedded: true\nlisten: {{api: '{host}:6443', hub: '{host}:7443', console: '{host}:7070', admin: '{host}:7071'}}\n"
        ),
        Store::Kubernetes => format!(
            "embedded: false\nkubeconfig: {}\nadvertise: {{webhook: '{host}:9443'}}\n\
             listen: {{hub: '{host}:7443', console: '{host}:7070', webhook: '{host}:9443', admin: '{host}:7071'}}\n",
            account("hub")
        ),
    };
    let dns = format!(
        "site: dns\nhub: '{host}:7443'\nkubeconfig: {}\n{standing}\n\
         listen: {{dns: '{host}:5353', dnsRelay: '{host}:7453', admin: '{host}:7072'}}\n",
        account("dns")
    );
    let gateway = format!(
        "site: gateway\nhub: '{host}:7443'\nkubeconfig: {}\n{standing}\nadvertise: {{addresses: [{host}]}}\n\
         listen: {{http: '{host}:8080', https: '{host}:8443', gatewayRelay: '{host}:7454', admin: '{host}:7073'}}\n",
        account("gateway")
    );
    let mut processes = BTreeMap::new();
    for (part, config) in [("hub", hub), ("dns", dns), ("gateway", gateway)] {
        let config = format!("apex: {APEX}\ndataDir: {home}/{part}\n{config}");
        let config = write(dir, &format!("{part}.yaml"), &config)?;
        let words = [&*atoll.display().to_string(), part, "--config", &config.display().to_string()].map(str::to_owned);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        processes
            .insert(part, Process::new(part, dir, &words, &[("ATOLL_HOME", &dir.join("home").display().to_string())]));
    }
    Ok(processes)
}

async fn start(world: &World) -> Result<()> {
    let Ground::Bed(bed) = &world.ground else { unreachable!("it is a bed") };
    if bed.store == Store::Kubernetes {
        chart::install(world, bed).await?;
    }
    bed.process("hub")?.start().await?;
    until("the hub is ready", Duration::from_secs(60), async || {
        bed.process("hub")?.check().await?;
        world.kubectl(&["get", "configmap", "-n", "atoll-system", "atoll-hub"]).await?.ok()
    })
    .await?;
    bed.process("dns")?.start().await?;
    bed.process("gateway")?.start().await?;
    until("the DNS server answers for the apex", Duration::from_secs(60), async || {
        bed.process("dns")?.check().await?;
        let answer = world.dig(APEX, "SOA").await?;
        ensure!(answer.status == "NOERROR" && !answer.answer.is_empty(), "{answer:?}");
        Ok(())
    })
    .await?;
    until("the gateway answers", Duration::from_secs(60), async || {
        bed.process("gateway")?.check().await?;
        crate::load::get(world.http, "nobody.example.com", "/").await?.status(404)
    })
    .await?;
    println!("hub, dns and gateway answer {:.1?} after the testbed's start", world.age());
    Ok(())
}

impl Bed {
    pub(crate) fn process(&self, part: &str) -> Result<&Process> {
        self.processes.get(part).with_context(|| format!("no process {part}"))
    }

    /// `atoll join --foreground`, from here on.
    pub(crate) async fn agent_beside(&self, world: &World, member: &str, hub: &str, token: &str) -> Result<()> {
        let access = world.members.get(member).context("a member")?;
        let words = ["join", hub, "--token", token, "--foreground"].map(str::to_owned);
        let words = [vec![world.atoll.display().to_string()], words.to_vec(), access.words()].concat();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let home = world.dir.join("home").display().to_string();
        let process = Process::new(&format!("agent-{member}"), &world.dir, &words, &[("ATOLL_HOME", &home)]);
        process.start().await?;
        self.agent.set(process).context("one agent beside its member is enough")
    }

    pub(crate) async fn cut(&self, member: &str) -> Result<()> {
        Ok(self.testbed.member(member)?.cut().await?)
    }

    pub(crate) async fn heal(&self, member: &str) -> Result<()> {
        Ok(self.testbed.member(member)?.heal(&Target::Link).await?)
    }

    /// A command in the network of one of a member's pods.
    pub(crate) async fn in_pod(&self, member: &str, pod: &str, program: &str) -> Result<Command> {
        Ok(self.testbed.member(member)?.command_in_pod(pod, program).await?)
    }

    /// Gives an archive to a member's containerd.
    pub(crate) async fn import(&self, member: &str, archive: &Path) -> Result<()> {
        Ok(self.testbed.member(member)?.import(archive).await?)
    }

    pub(crate) fn last_words(&self) {
        for process in self.processes.values().chain(self.agent.get()) {
            process.print_tail();
        }
    }

    /// Ends the processes and takes the testbed away.
    pub(crate) async fn end(self) -> Result<()> {
        for process in self.processes.values().chain(self.agent.get()) {
            process.kill().await?;
        }
        Ok(self.testbed.down().await?)
    }
}
