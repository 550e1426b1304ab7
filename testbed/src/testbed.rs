//! The testbed as tests and the command use it: up, the members, down.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use futures::future::{join_all, try_join_all};
use serde_json::Value;

use crate::cluster;
use crate::down;
use crate::error::{Error, Result};
use crate::extras::{HUB, Hub, LAB, Lab};
use crate::home::{Home, Lease, Phase, State};
use crate::images::{self, Images};
use crate::member::Member;
use crate::net;
use crate::packages;
use crate::plan::plan;
use crate::process::processes;
use crate::programs::Programs;
use crate::shell::run;
use crate::spec::MemberSpec;

/// What to bring up.
#[derive(Clone, Debug)]
pub struct Options {
    /// The members.
    pub members: Vec<MemberSpec>,
    /// Whether to bring up an API server for a hub in production mode.
    pub hub: bool,
    /// Whether to bring up Consul.
    pub lab: bool,
    /// Whether to leave everything as it is when something fails, to look at it.
    pub keep: bool,
}

impl Default for Options {
    /// The five members, hub and lab.
    fn default() -> Self {
        Self { members: MemberSpec::story(), hub: true, lab: true, keep: false }
    }
}

/// Real clusters that run on this machine until [`Testbed::down`]; dropping it leaves them running.
#[derive(Debug)]
pub struct Testbed {
    home: Home,
    programs: Programs,
    state: State,
    /// Nobody else of this checkout uses the testbed while this is held.
    lease: Option<Lease>,
}

impl Testbed {
    /// Brings a testbed up and waits until everything in it is ready. What a crashed one left is taken away first.
    ///
    /// # Errors
    /// Not root, one is up already or in use, or something did not start: its last words are in the message, its logs
    /// are kept, everything else is taken away again (unless `keep`).
    pub async fn up(options: Options) -> Result<Self> {
        require_root()?;
        let home = Home::here();
        let lease = home.lease().await?;
        let up = home.state().is_ok_and(|state| state.is_some_and(|state| state.phase == Phase::Up));
        // After a restart of the machine the state says up and nothing is.
        if up && !processes(&home).is_empty() {
            return Err(Error::Refused("a testbed of this checkout is up: `cargo testbed down` takes it away".into()));
        }
        packages::ensure().await?;
        let programs = Programs::ensure(|_| {}).await?;
        let images = images::make(&programs)?;
        down::down(&home).await?;
        let block = net::choose_block(&home).await?;
        let members = plan(block, &options.members)?;
        let state = State {
            checkout: home.checkout.clone(),
            block,
            phase: Phase::Starting,
            members,
            hub: options.hub,
            lab: options.lab,
        };
        let _ = std::fs::remove_dir_all(home.failed());
        std::fs::create_dir_all(&home.dir).map_err(Error::on(&home.dir))?;
        home.save(&state)?;
        let mut testbed = Self { home, programs, state, lease: Some(lease) };
        match testbed.start(&images).await {
            Ok(()) => {
                testbed.state.phase = Phase::Up;
                testbed.home.save(&testbed.state)?;
                Ok(testbed)
            }
            Err(error) if options.keep => Err(error),
            Err(error) => {
                let kept = keep_logs(&testbed.home);
                down::down(&testbed.home).await?;
                Err(Error::Refused(format!("{error}\nlogs are kept in {}", kept.display())))
            }
        }
    }

    /// The testbed of this checkout that is up, for the caller alone.
    ///
    /// # Errors
    /// None is up, or another process uses it.
    pub async fn attach() -> Result<Self> {
        let lease = Home::here().lease().await?;
        let mut testbed = Self::look().await?;
        testbed.lease = Some(lease);
        Ok(testbed)
    }

    /// The testbed of this checkout that is up, whoever uses it: for the command line.
    ///
    /// # Errors
    /// None is up.
    pub async fn look() -> Result<Self> {
        require_root()?;
        let home = Home::here();
        let state = State::up(home.state()?)?;
        let programs = Programs::ensure(|_| {}).await?;
        Ok(Self { home, programs, state, lease: None })
    }

    /// Attaches to the one that is up if it has the members asked for, else brings one up.
    ///
    /// # Errors
    /// As [`Testbed::up`] and [`Testbed::attach`].
    pub async fn attach_or_up(options: Options) -> Result<Self> {
        match Home::here().state() {
            Ok(Some(state)) if state.phase == Phase::Up => {
                let there: Vec<&MemberSpec> = state.members.iter().map(|member| &member.spec).collect();
                let asked: Vec<&MemberSpec> = options.members.iter().collect();
                if there != asked || (options.hub && !state.hub) || (options.lab && !state.lab) {
                    let text =
                        "the testbed that is up has other members than asked: `cargo testbed down` takes it away";
                    return Err(Error::Refused(text.into()));
                }
                Self::attach().await
            }
            _ => Self::up(options).await,
        }
    }

    /// Takes it all away.
    ///
    /// # Errors
    /// Something would not go.
    pub async fn down(self) -> Result<()> {
        let block = self.state.block;
        down::down(&self.home).await?;
        let left = down::leftovers(&self.home, block).await?;
        if left.is_empty() { Ok(()) } else { Err(Error::Refused(format!("left behind: {}", left.join(", ")))) }
    }

    /// Takes away whatever this checkout's testbed is or left.
    ///
    /// # Errors
    /// Not root, in use by another process, or something would not go.
    pub async fn clear() -> Result<()> {
        require_root()?;
        let home = Home::here();
        let _lease = home.lease().await?;
        let block = home.state().ok().flatten().map(|state| state.block);
        down::down(&home).await?;
        let Some(block) = block else { return Ok(()) };
        let left = down::leftovers(&home, block).await?;
        if left.is_empty() { Ok(()) } else { Err(Error::Refused(format!("left behind: {}", left.join(", ")))) }
    }

    async fn start(&self, images: &Images) -> Result<()> {
        let State { block, members, .. } = &self.state;
        let block = *block;
        net::make_bridge(block, members).await?;
        let runtime: Value = serde_json::from_str(&run(&["ctr", "oci", "spec"]).await?)
            .map_err(|error| Error::Refused(format!("`ctr oci spec`: {error}")))?;
        let each = members.iter().map(|plan| {
            let runtime = &runtime;
            async move {
                net::make_namespace(block, plan.name(), plan.node()).await?;
                net::make_routes(plan, members).await?;
                let member = self.of(plan);
                member.write_files(runtime)?;
                member.boot().await?;
                // Images before pods: a failed pull is tried again only after ten seconds.
                let (client, ()) = futures::future::try_join(member.start(), member.bring_images(images)).await?;
                member.apply(&client).await?;
                member.settle(&client).await?;
                tracing::info!("{} is ready", plan.name());
                Ok(())
            }
        });
        let hub = async {
            if self.state.hub {
                net::make_namespace(block, HUB, block.hub()).await?;
                let hub = Hub { home: &self.home, programs: &self.programs, block };
                hub.write_files()?;
                hub.start().await?;
                tracing::info!("hub is ready");
            }
            Ok(())
        };
        let lab = async {
            if self.state.lab {
                net::make_namespace(block, LAB, block.lab()).await?;
                Lab { home: &self.home, programs: &self.programs, block }.start().await?;
                tracing::info!("lab is ready");
            }
            Ok(())
        };
        futures::future::try_join3(try_join_all(each), hub, lab).await?;
        Ok(())
    }

    fn of<'a>(&'a self, plan: &'a crate::plan::MemberPlan) -> Member<'a> {
        Member { home: &self.home, programs: &self.programs, plan }
    }

    /// Its members, in order.
    pub fn members(&self) -> impl Iterator<Item = Member<'_>> {
        self.state.members.iter().map(|plan| self.of(plan))
    }

    /// One member.
    ///
    /// # Errors
    /// There is none of that name.
    pub fn member(&self, name: &str) -> Result<Member<'_>> {
        self.members().find(|member| member.name() == name).ok_or_else(|| {
            let names: Vec<&str> = self.state.members.iter().map(|plan| plan.name()).collect();
            Error::Refused(format!("no member `{name}`; there are {}", names.join(", ")))
        })
    }

    /// The API server for a hub in production mode, if it was asked for.
    #[must_use]
    pub fn hub(&self) -> Option<Hub<'_>> {
        self.state.hub.then_some(Hub { home: &self.home, programs: &self.programs, block: self.state.block })
    }

    /// Consul, if it was asked for.
    #[must_use]
    pub fn lab(&self) -> Option<Lab<'_>> {
        self.state.lab.then_some(Lab { home: &self.home, programs: &self.programs, block: self.state.block })
    }

    /// An address in the root namespace that all members reach: where a hub under test listens.
    #[must_use]
    pub fn host(&self) -> Ipv4Addr {
        self.state.block.host()
    }

    /// kubectl in the clusters' version.
    #[must_use]
    pub fn kubectl(&self) -> PathBuf {
        self.programs.path("kubectl")
    }

    /// helm.
    #[must_use]
    pub fn helm(&self) -> PathBuf {
        self.programs.path("helm")
    }

    /// A program of the cache by name, `echo` for one.
    #[must_use]
    pub fn program(&self, name: &str) -> PathBuf {
        self.programs.path(name)
    }

    /// Its folder, gone after `down`: state, kubeconfigs, logs.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.home.dir
    }

    /// What its parts do now, a line each member.
    ///
    /// # Errors
    /// The machine can't be looked at.
    pub async fn status(&self) -> Result<Vec<Value>> {
        let found = processes(&self.home);
        let rows = self.members().map(|member| {
            let found = &found;
            async move {
                let api = async {
                    let client = cluster::client(&member.kubeconfig()).await.map_err(|error| error.to_string())?;
                    cluster::ready(&client).await?;
                    cluster::node_ready(&client, &member.plan.node_name()).await
                };
                let api = tokio::time::timeout(std::time::Duration::from_secs(3), api).await;
                let api = api.unwrap_or_else(|_| Err("no answer within 3 s".into()));
                let parts = crate::status::parts(found, member.name());
                serde_json::json!({
                    "name": member.name(), "ready": api.is_ok(), "message": api.err(), "parts": parts,
                    "linked": member.linked().await.unwrap_or(false), "cuts": member.cuts().await.unwrap_or_default(),
                })
            }
        });
        Ok(join_all(rows).await)
    }
}

fn require_root() -> Result<()> {
    if nix::unistd::geteuid().is_root() {
        return Ok(());
    }
    Err(Error::Refused(
        "the testbed makes network namespaces and mounts, so it needs root; all else runs without".into(),
    ))
}

/// Copies the logs of a failed start beside the folder.
fn keep_logs(home: &Home) -> PathBuf {
    let kept = home.failed();
    let folders = std::fs::read_dir(&home.dir).into_iter().flatten().flatten();
    for folder in folders.map(|entry| entry.path()).filter(|path| path.is_dir()) {
        let to = kept.join(folder.file_name().unwrap_or_default());
        let _ = std::fs::create_dir_all(&to);
        for log in std::fs::read_dir(folder.join("log")).into_iter().flatten().flatten() {
            let _ = std::fs::copy(log.path(), to.join(log.file_name()));
        }
    }
    kept
}
