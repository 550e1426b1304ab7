//! Everything that runs in one `atoll up`, and how it starts, breaks, heals and ends.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use atoll_api::names::ServiceName;
use atoll_demo::Member;
use atoll_federation::{Hub, Published};
use atoll_reach::{Accept, RelayTable, listener};
use futures::future::{join_all, try_join_all};
use kube::Client;
use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::control::Action;
use super::members::{self, Members, Spec};
use super::ports::{At, DnsPorts, GatewayPorts, HubPorts, Ports};
use super::rundir::RunDir;
use super::seed;
use super::view::View;
use crate::admin::{self, Admin, Slot};
use crate::bind;
use crate::config::Config;
use crate::embedded::Embedded;
use crate::files;
use crate::run::{DnsParts, GatewayParts, HubParts, Part, run_dns, run_gateway, run_hub, settings};
use crate::telemetry::Metrics;

/// So long a start waits for the members after everything else.
const SETTLE_MAX: Duration = Duration::from_secs(3);

/// The parts' ports until they are started.
struct Bound {
    hub: HubPorts,
    dns: DnsPorts,
    gateway: GatewayPorts,
    admin: std::net::TcpListener,
}

/// The hub and its API server.
struct RunningHub {
    api: Part,
    hub: Part,
    topology: watch::Receiver<Option<Published>>,
}

/// All of it.
pub(super) struct Federation {
    config: Config,
    at: At,
    bound: Option<Bound>,
    dir: PathBuf,
    kubeconfig: PathBuf,
    embedded: Arc<Embedded>,
    metrics: Metrics,
    dns_slot: Slot<atoll_dns::Server>,
    gateway_slot: Slot<atoll_gateway::Server>,
    view: Arc<View>,
    shutdown: CancellationToken,
    /// Ends after the rest, so that the others find their API server until their end.
    api_end: CancellationToken,
    hub: Option<RunningHub>,
    dns: Option<Part>,
    gateway: Option<Part>,
    admin: Option<Part>,
    members: Members,
    agents: Vec<Part>,
}

impl Federation {
    pub(super) fn new(demo: bool, config: Config, ports: Ports, run_dir: &RunDir, shutdown: CancellationToken) -> Self {
        let Ports { at, hub, dns, gateway, admin } = ports;
        let (dns_slot, gateway_slot) = (Slot::default(), Slot::default());
        Self {
            view: Arc::new(View::new(demo, &config, at, &dns_slot, &gateway_slot)),
            config,
            at,
            bound: Some(Bound { hub, dns, gateway, admin }),
            dir: run_dir.path().to_owned(),
            kubeconfig: run_dir.kubeconfig(),
            embedded: Arc::new(Embedded::over(run_dir.path().join("hub.redb"))),
            metrics: Metrics::default(),
            dns_slot,
            gateway_slot,
            shutdown,
            api_end: CancellationToken::new(),
            hub: None,
            dns: None,
            gateway: None,
            admin: None,
            members: Members::default(),
            agents: Vec::new(),
        }
    }

    pub(super) fn shutdown(&self) -> &CancellationToken {
        &self.shutdown
    }

    pub(super) fn config(&self) -> &Config {
        &self.config
    }

    pub(super) fn at(&self) -> &At {
        &self.at
    }

    pub(super) fn members(&self) -> &Members {
        &self.members
    }

    /// host:port under which the hub is found.
    fn hub_advertised(&self) -> String {
        Config::advertised(&self.config.advertise.hub, self.at.hub)
    }

    /// Starts everything; returns when DNS, gateway, hub and members answer.
    pub(super) async fn start(&mut self, specs: Vec<Spec>, run_dir: &RunDir) -> anyhow::Result<()> {
        let Bound { hub, dns, gateway, admin } = self.bound.take().context("started twice")?;
        let starting = start_members(&specs, &self.shutdown);
        self.open().await?;
        tracing::debug!("store and kinds are there");
        run_dir.link();
        self.dns = Some(self.start_dns(dns)?);
        self.gateway = Some(self.start_gateway(gateway)?);
        self.admin = Some(self.start_admin(listener(admin)?));
        let client = self.embedded.client();
        let seeding = async {
            let first = seed::base(&client, &specs).await?;
            if first {
                seed::shop(&client, &self.config, &specs, run_dir.path()).await?;
            }
            anyhow::Ok(first)
        };
        let (running, first) = tokio::join!(self.start_hub(hub), seeding);
        self.hub = Some(running?);
        let first = first?;
        tracing::debug!("hub is up");
        self.join_members(&client, specs, starting).await?;
        if first && seed::copies(self.members.names()) {
            seed::request(&self.embedded).await?;
        }
        if first {
            seed::made(&client).await?;
        }
        tracing::debug!("members have begun to join");
        self.wait_parts().await?;
        self.wait_members(first).await;
        Ok(())
    }

    /// Gives the members a moment to be Ready and, where the shop was made now, to answer in it, and DNS and gateway one to have heard so: whoever
    /// pastes the first command then gets an answer. A member that takes longer is no reason to keep quiet.
    async fn wait_members(&self, shop: bool) {
        let Some(running) = &self.hub else { return };
        let mut topology = running.topology.clone();
        let web = ServiceName::new(seed::SHOP, "web");
        let are_there = topology.wait_for(|published| {
            let topology = published.as_ref().map(|p| &p.topology);
            topology.is_some_and(|t| {
                self.members.names().all(|name| {
                    let ready = t.clusters.get(name).is_some_and(|c| c.ready && c.dns_ready);
                    ready && (!shop || t.endpoints_in(name.as_str(), &web).is_some_and(|e| e.ready() > 0))
                })
            })
        });
        let settled = async {
            let version = are_there.await.ok().and_then(|published| Some(published.as_ref()?.version));
            let dns = || self.dns_slot.load().as_ref().map(|server| server.version());
            let gateway = || self.gateway_slot.load().as_ref().and_then(|server| server.version());
            while dns() < version || gateway() < version {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        if tokio::time::timeout(SETTLE_MAX, settled).await.is_err() {
            tracing::warn!("not every demo member is ready yet");
        }
    }

    /// Waits for the members and joins each as soon as it is there.
    async fn join_members(&mut self, hub: &Client, specs: Vec<Spec>, starting: Starting) -> anyhow::Result<()> {
        let address = self.hub_advertised();
        let (metrics, shutdown) = (&self.metrics, &self.shutdown);
        let joining = specs.into_iter().zip(starting).map(|(spec, starting)| {
            let address = &address;
            async move {
                let member = Arc::new(starting.await??);
                seed::registry(hub, &spec, &member).await?;
                let agent = members::join(hub, address, spec.name.clone(), &member, metrics, shutdown).await?;
                anyhow::Ok((spec.name, member, agent))
            }
        });
        for (name, member, agent) in try_join_all(joining).await? {
            self.members.add(name, member);
            self.agents.push(agent);
        }
        Ok(())
    }

    async fn wait_parts(&mut self) -> anyhow::Result<()> {
        loop {
            let dns = self.dns_slot.load().as_ref().is_some_and(|s| s.is_ready());
            let gateway = self.gateway_slot.load().as_ref().is_some_and(|s| s.is_ready());
            if dns && gateway {
                return Ok(());
            }
            let (dns, gateway) = (self.dns.as_mut().context("DNS server")?, self.gateway.as_mut().context("gateway")?);
            tokio::select! {
                () = tokio::time::sleep(Duration::from_millis(5)) => {}
                ended = dns.ended() => return ended.and(Err(anyhow!("the DNS server ended"))),
                ended = gateway.ended() => return ended.and(Err(anyhow!("the gateway ended"))),
            }
        }
    }

    /// Opens the store and writes the kubeconfig.
    async fn open(&self) -> anyhow::Result<()> {
        self.embedded.open().await?;
        let url = format!("https://{}", Config::advertised(&self.config.advertise.api, self.at.api));
        files::write_private(&self.kubeconfig, self.embedded.kubeconfig(&url).await?.as_bytes())
    }

    /// Starts the hub over its open API server; returns when it is up.
    async fn start_hub(&self, ports: HubPorts) -> anyhow::Result<RunningHub> {
        let advertised = Config::advertised(&self.config.advertise.api, self.at.api);
        let names = files::names(&advertised, self.at.api);
        let (embedded, api_port) = (Arc::clone(&self.embedded), tokio::net::TcpListener::from_std(ports.api)?);
        let api = Part::vital("API server", &self.api_end, &self.shutdown, |end| async move {
            embedded.serve(api_port, &names, end).await
        });
        let (started, up) = oneshot::channel::<Hub>();
        let config =
            atoll_federation::Config { loopback_members: true, ..settings(&self.config, &self.hub_advertised()) };
        let parts = HubParts {
            config,
            client: self.embedded.client(),
            listener: listener(ports.hub)?,
            webhook: None,
            console: Some(listener(ports.console)?),
            metrics: self.metrics.clone(),
            view: self.view.clone(),
            started,
        };
        let mut hub = Part::vital("hub", &self.shutdown, &self.shutdown, |end| run_hub(parts, end));
        let up = tokio::select! {
            biased;
            Ok(up) = up => up,
            ended = hub.ended() => return ended.and(Err(anyhow!("the hub ended"))),
        };
        Ok(RunningHub { api, hub, topology: up.topology })
    }

    fn start_dns(&self, ports: DnsPorts) -> anyhow::Result<Part> {
        let parts = DnsParts {
            instance: "dns".into(),
            hub: self.hub_advertised(),
            client: self.embedded.client(),
            port: ports.dns,
            encrypted: ports.encrypted,
            relay: listener(ports.relay)?,
            dir: Some(self.dir.join("dns")),
            metrics: self.metrics.clone(),
            slot: Arc::clone(&self.dns_slot),
        };
        let config = self.config.clone();
        Ok(Part::vital("DNS server", &self.shutdown, &self.shutdown, |end| async move {
            run_dns(&config, parts, end).await
        }))
    }

    fn start_gateway(&self, ports: GatewayPorts) -> anyhow::Result<Part> {
        let parts = GatewayParts {
            instance: "gateway".into(),
            hub: self.hub_advertised(),
            client: self.embedded.client(),
            http: listener(ports.http)?,
            https: listener(ports.https)?,
            relay: listener(ports.relay)?,
            dir: Some(self.dir.join("gateway")),
            metrics: self.metrics.clone(),
            leaves: CancellationToken::new(),
            slot: Arc::clone(&self.gateway_slot),
            relays: RelayTable::default(),
            listen: Arc::new(bind::Fresh),
        };
        let config = self.config.clone();
        Ok(Part::vital("gateway", &self.shutdown, &self.shutdown, |end| async move {
            run_gateway(&config, parts, end).await
        }))
    }

    fn start_admin(&self, port: Box<dyn Accept>) -> Part {
        let (dns, gateway) = (Arc::clone(&self.dns_slot), Arc::clone(&self.gateway_slot));
        let dns_ready: admin::Check = Box::new(move || dns.load().as_ref().is_some_and(|s| s.is_ready()));
        let gateway_ready: admin::Check = Box::new(move || gateway.load().as_ref().is_some_and(|s| s.is_ready()));
        let admin = Admin {
            metrics: self.metrics.clone(),
            checks: vec![("dns", dns_ready), ("gateway", gateway_ready)],
            dns: Some(Arc::clone(&self.dns_slot)),
            gateway: Some(Arc::clone(&self.gateway_slot)),
        };
        Part::vital("admin port", &self.shutdown, &self.shutdown, |end| admin::serve(port, admin, end))
    }

    /// Breaks or heals a member or a part; says what was done.
    pub(super) async fn set_broken(&mut self, action: Action, what: &str) -> anyhow::Result<String> {
        match (what, action) {
            ("hub", Action::Break) => {
                let RunningHub { api, hub, .. } = self.hub.take().context("the hub is broken already")?;
                let ended = hub.end().await;
                api.end().await.and(ended)?;
                Ok("the hub and its API server are stopped".into())
            }
            ("hub", Action::Heal) => {
                if self.hub.is_some() {
                    bail!("the hub runs");
                }
                let ports = HubPorts::again(&self.at)?;
                self.embedded.open().await?;
                self.hub = Some(self.start_hub(ports).await?);
                Ok("the hub and its API server run again".into())
            }
            ("dns", Action::Break) => {
                self.dns.take().context("the DNS server is broken already")?.end().await?;
                Ok("the DNS server is stopped".into())
            }
            ("dns", Action::Heal) => {
                if self.dns.is_some() {
                    bail!("the DNS server runs");
                }
                self.dns = Some(self.start_dns(DnsPorts::again(&self.config, &self.at)?)?);
                Ok("the DNS server runs again".into())
            }
            ("gateway", Action::Break) => {
                self.gateway.take().context("the gateway is broken already")?.end().await?;
                Ok("the gateway is stopped".into())
            }
            ("gateway", Action::Heal) => {
                if self.gateway.is_some() {
                    bail!("the gateway runs");
                }
                self.gateway = Some(self.start_gateway(GatewayPorts::again(&self.at)?)?);
                Ok("the gateway runs again".into())
            }
            (name, action) => self.cut(action, name),
        }
    }

    fn cut(&self, action: Action, name: &str) -> anyhow::Result<String> {
        let Some(member) = self.members.get(name) else {
            let known: Vec<&str> = self.members.names().map(|n| n.as_str()).chain(["hub", "dns", "gateway"]).collect();
            bail!("`{name}` is no demo member: there are {}", known.join(", "));
        };
        match action {
            Action::Break => {
                member.break_it();
                Ok(format!("{name} is cut off"))
            }
            Action::Heal => {
                member.heal();
                Ok(format!("{name} is connected again"))
            }
        }
    }

    /// Ends everything, the API server last.
    pub(super) async fn end(mut self) -> anyhow::Result<()> {
        self.shutdown.cancel();
        let mut parts: Vec<Part> = self.agents.drain(..).collect();
        parts.extend([self.dns.take(), self.gateway.take(), self.admin.take()].into_iter().flatten());
        let api = self.hub.take().map(|RunningHub { api, hub, .. }| {
            parts.push(hub);
            api
        });
        let mut ended = join_all(parts.into_iter().map(Part::end)).await;
        join_all(self.members.iter().map(|(_, m)| m.closed())).await;
        self.api_end.cancel();
        if let Some(api) = api {
            ended.push(api.end().await);
        }
        self.embedded.close().await;
        ended.into_iter().collect()
    }
}

/// Members on their way up; who is not waited for to the end is not started.
type Starting = Vec<AbortOnDropHandle<Result<Member, atoll_demo::Error>>>;

fn start_members(specs: &[Spec], shutdown: &CancellationToken) -> Starting {
    let start = |spec: &Spec| {
        let (member, shutdown) = (spec.member.clone(), shutdown.clone());
        AbortOnDropHandle::new(tokio::spawn(async move { Member::start(member, &shutdown).await }))
    };
    specs.iter().map(start).collect()
}
