//! How soon the statuses of many routes are settled on a real kube-apiserver, and what that costs.
//!
//! ```text
//! etcd, kube-apiserver (the testbed's hub) ◄── atoll hub, atoll gateway
//!        ▲ routes are created, eight at a time       │ one status each
//!        └───────────────── a watch counts ◄─────────┘
//! ```
//! In: the atoll binary, how many routes. Out: times, writes, CPU. Never judges them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures::{StreamExt as _, TryStreamExt as _, stream};
use kube::api::{Api, DynamicObject, PostParams};
use kube::core::{ApiResource, GroupVersionKind};
use kube::runtime::watcher::{self, Event};
use kube::{Client, ResourceExt as _};
use serde_json::{Value, json};
use tokio::process::{Child, Command};
use tokio::time::Instant;

use crate::cluster::apply;
use crate::conformance::spawn;
use crate::error::{Error, Result};
use crate::home::write;
use crate::shell::{run, wait};
use crate::testbed::{Options, Testbed};

/// Routes that are created at once.
const AT_ONCE: usize = 8;
/// Longer than that is no measure.
const PATIENCE: Duration = Duration::from_secs(240);
const READY: Duration = Duration::from_secs(60);
/// Of /proc: 100 a second, on Linux always.
const TICKS: f64 = 100.0;

/// What to measure.
#[derive(Clone, Debug)]
pub struct Settle {
    /// The binary under test.
    pub atoll: PathBuf,
    /// How many routes.
    pub routes: usize,
}

/// What it came to.
#[derive(Clone, Copy, Debug)]
pub struct Settled {
    /// Until the last route was created.
    pub created: Duration,
    /// From the first create until the last status.
    pub settled: Duration,
    /// Statuses that were written.
    pub writes: usize,
    /// Seconds of CPU of the gateway meanwhile.
    pub gateway_cpu: f64,
    /// From the start of a gateway of which nothing was known, with all routes there, until it serves.
    pub again: Duration,
    /// Statuses that this one wrote: none differs.
    pub again_writes: usize,
}

impl Settle {
    /// Brings an API server up, measures, takes it away.
    ///
    /// # Errors
    /// Something does not start, or nothing settles within four minutes.
    pub async fn run(&self) -> Result<Settled> {
        let testbed = Testbed::up(Options { members: Vec::new(), hub: true, lab: false, keep: false }).await?;
        let measured = self.on(&testbed).await;
        testbed.down().await?;
        measured
    }

    async fn on(&self, testbed: &Testbed) -> Result<Settled> {
        let hub = testbed.hub().ok_or_else(|| Error::Refused("the hub was asked for".into()))?;
        let (host, dir) = (testbed.host(), testbed.dir().join("settle"));
        let parts = Parts { atoll: &self.atoll, dir: &dir, kubeconfig: hub.kubeconfig(), host: host.to_string() };
        let _hub = parts.start("hub", 7071).await?;
        let mut gateway = parts.start("gateway", 7073).await?;
        let client = hub.kube().await?;
        for object in entry() {
            apply(&client, &object).await?;
        }
        let mut statuses = Statuses::of(&client);
        let (before, began) = (cpu(&gateway)?, Instant::now());
        let creating = async {
            self.create(&client).await?;
            Ok(began.elapsed())
        };
        let (created, ()) = futures::future::try_join(creating, statuses.until(self.routes)).await?;
        let (settled, gateway_cpu) = (began.elapsed(), cpu(&gateway)? - before);
        let writes = statuses.writes;
        gateway.kill().await.map_err(Error::io("end the gateway"))?;
        let began = Instant::now();
        let _again = parts.start("gateway", 7073).await?;
        let again = began.elapsed();
        // What it would write it writes within its first rounds.
        statuses.idle(Duration::from_secs(10)).await?;
        Ok(Settled { created, settled, writes, gateway_cpu, again, again_writes: statuses.writes - writes })
    }

    async fn create(&self, client: &Client) -> Result<()> {
        let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), "settle", &routes());
        let one = |at: usize| {
            let api = api.clone();
            async move {
                let route = serde_json::from_value(route(at)).expect("it is an object");
                api.create(&PostParams::default(), &route).await.map_err(Error::kube(format!("create route {at}")))
            }
        };
        stream::iter(0..self.routes).map(one).buffer_unordered(AT_ONCE).try_for_each(|_| async { Ok(()) }).await
    }
}

/// How hub and gateway are started.
struct Parts<'a> {
    atoll: &'a Path,
    dir: &'a Path,
    kubeconfig: PathBuf,
    host: String,
}

impl Parts<'_> {
    async fn start(&self, part: &str, admin: u16) -> Result<Child> {
        let (host, dir, kubeconfig) = (&self.host, self.dir.display(), self.kubeconfig.display());
        let own = match part {
            "hub" => format!(
                "embedded: false\nlisten: {{hub: '{host}:7443', console: '127.0.0.1:7070', admin: '127.0.0.1:{admin}'}}\n"
            ),
            _ => format!(
                "site: gateway\nhub: '{host}:7443'\nlisten: {{http: '127.0.0.1:8080', https: '127.0.0.1:8443', \
                 gatewayRelay: '127.0.0.1:7454', admin: '127.0.0.1:{admin}'}}\n"
            ),
        };
        let config = self.dir.join(format!("{part}.yaml"));
        write(&config, format!("apex: settle.test\ndataDir: {dir}/{part}\nkubeconfig: {kubeconfig}\n{own}"))?;
        let mut command = Command::new(self.atoll);
        command.arg(part).arg("--config").arg(&config).env("ATOLL_HOME", self.dir.join("home")).kill_on_drop(true);
        let child = spawn(command, &self.dir.join(format!("{part}.log")), part)?;
        let url = format!("http://127.0.0.1:{admin}/readyz");
        wait(&format!("{part} is ready"), READY, || async {
            let asked = run(&["curl", "--silent", "--fail", "--max-time", "2", &url]).await;
            asked.map(drop).map_err(|error| error.to_string())
        })
        .await?;
        Ok(child)
    }
}

/// What is seen of routes' statuses.
struct Statuses {
    events: stream::BoxStream<'static, watcher::Result<Event<DynamicObject>>>,
    well: BTreeSet<String>,
    writes: usize,
}

impl Statuses {
    fn of(client: &Client) -> Self {
        let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), "settle", &routes());
        let events = watcher::watcher(api, watcher::Config::default()).boxed();
        Self { events, well: BTreeSet::new(), writes: 0 }
    }

    /// Waits until so many routes are accepted and resolved, of the generation that they have.
    async fn until(&mut self, count: usize) -> Result<()> {
        let end = Instant::now() + PATIENCE;
        while self.well.len() < count {
            let next = tokio::time::timeout_at(end, self.events.next()).await;
            let event = next.map_err(|_| Error::Late {
                what: "statuses of all routes".to_owned(),
                seconds: PATIENCE.as_secs(),
                last: format!("{} are well", self.well.len()),
            })?;
            self.see(event)?;
        }
        Ok(())
    }

    /// Looks on for a while.
    async fn idle(&mut self, time: Duration) -> Result<()> {
        let end = Instant::now() + time;
        while let Ok(event) = tokio::time::timeout_at(end, self.events.next()).await {
            self.see(event)?;
        }
        Ok(())
    }

    fn see(&mut self, event: Option<watcher::Result<Event<DynamicObject>>>) -> Result<()> {
        let event = event.ok_or_else(|| Error::Refused("the watch of routes ended".into()))?;
        let event = event.map_err(|error| Error::Refused(format!("the watch of routes: {error}")))?;
        if let Event::Apply(route) | Event::InitApply(route) = event
            && route.data["status"]["parents"].as_array().is_some_and(|parents| !parents.is_empty())
        {
            self.writes += 1;
            if is_well(&route) {
                self.well.insert(route.name_any());
            }
        }
        Ok(())
    }
}

fn is_well(route: &DynamicObject) -> bool {
    let conditions = route.data["status"]["parents"][0]["conditions"].as_array().cloned().unwrap_or_default();
    let is = |kind: &str| {
        conditions.iter().any(|condition| {
            condition["type"] == kind
                && condition["status"] == "True"
                && condition["observedGeneration"].as_i64() == route.metadata.generation
        })
    };
    is("Accepted") && is("ResolvedRefs")
}

/// Seconds of CPU of a process since it began.
fn cpu(child: &Child) -> Result<f64> {
    let pid = child.id().ok_or_else(|| Error::Refused("the gateway ended".into()))?;
    let path = PathBuf::from(format!("/proc/{pid}/stat"));
    let said = std::fs::read_to_string(&path).map_err(Error::on(&path))?;
    // After the name, which may hold anything: utime and stime are the 12th and 13th.
    let fields = said.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace();
    Ok(fields.skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / TICKS)
}

fn routes() -> ApiResource {
    ApiResource::from_gvk(&GroupVersionKind::gvk("gateway.networking.k8s.io", "v1", "HTTPRoute"))
}

/// A Gateway, and a Service with an endpoint.
fn entry() -> [Value; 4] {
    let meta = |name: &str| json!({"name": name, "namespace": "settle"});
    [
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "settle"}}),
        json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway", "metadata": meta("main"),
            "spec": {"gatewayClassName": "atoll", "listeners": [{"name": "http", "port": 80, "protocol": "HTTP"}]}}),
        json!({"apiVersion": "v1", "kind": "Service", "metadata": meta("web"), "spec": {"ports": [{"name": "http", "port": 80}]}}),
        json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {"name": "web", "namespace": "settle", "labels": {"kubernetes.io/service-name": "web"}},
            "ports": [{"name": "http", "port": 80, "protocol": "TCP"}],
            "endpoints": [{"addresses": ["10.255.0.1"], "conditions": {"ready": true}}]}),
    ]
}

/// One of many: a host and two rules.
fn route(at: usize) -> Value {
    let rule = |path: String| json!({"matches": [{"path": {"type": "PathPrefix", "value": path}}], "backendRefs": [{"name": "web", "port": 80}]});
    json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
        "metadata": {"name": format!("r-{at}"), "namespace": "settle"},
        "spec": {"parentRefs": [{"name": "main"}], "hostnames": [format!("r-{at}.settle.test")],
            "rules": [rule("/".to_owned()), rule(format!("/api/{at}"))]}})
}
