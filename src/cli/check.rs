//! `atoll check`: is everything there and well? Each line says what was looked at, and where it isn't well, what to do.
//!
//! Looks from here, as any user: the API server, our kinds, the hub's port, the clusters' conditions, what was placed, DNS, gateway.
//! Exit code 0: all well; 1: something isn't; 4: the API server can't be reached.

use std::time::Duration;

use atoll_api::kinds::{Bundle, Cluster, Condition, ReplicationRequest, RequestState, crds};
use atoll_federation::HubFacts;
use atoll_reach::{Connect as _, System, host_and_port, pinned};
use jiff::Timestamp;
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt as _};
use serde::Serialize;
use serde_json::json;
use tokio_rustls::TlsConnector;

use super::Globals;
use super::connect::Connection;
use super::failure::{Failure, Outcome, root_cause};
use super::run_files::Ready;

const DIAL_MAX: Duration = Duration::from_secs(5);
const AGAIN: Duration = Duration::from_secs(1);

/// Check that everything is there and well.
#[derive(Debug, clap::Args)]
pub(crate) struct Check {
    /// The DNS server to ask, address:port; default: that of the running `atoll up`
    #[arg(long, value_name = "ADDRESS")]
    dns: Option<String>,
    /// The gateway to ask, host:port; default: that of the running `atoll up`
    #[arg(long, value_name = "ADDRESS")]
    http: Option<String>,
    /// Look again until all is well, so long at most
    #[arg(long, value_name = "DURATION", value_parser = atoll_api::duration::parse)]
    wait: Option<Duration>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Mark {
    Ok,
    Failed,
    Skipped,
}

/// One thing that was looked at.
#[derive(Debug, Serialize)]
struct Line {
    id: &'static str,
    result: Mark,
    what: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    todo: Option<String>,
}

impl Line {
    fn ok(id: &'static str, what: impl Into<String>) -> Self {
        Self { id, result: Mark::Ok, what: what.into(), todo: None }
    }

    fn failed(id: &'static str, what: impl Into<String>, todo: impl Into<String>) -> Self {
        Self { id, result: Mark::Failed, what: what.into(), todo: Some(todo.into()) }
    }

    fn skipped(id: &'static str, what: impl Into<String>, todo: impl Into<String>) -> Self {
        Self { id, result: Mark::Skipped, what: what.into(), todo: Some(todo.into()) }
    }

    fn text(&self) -> String {
        let sign = match self.result {
            Mark::Ok => "✓",
            Mark::Failed => "✗",
            Mark::Skipped => "–",
        };
        let todo = self.todo.as_ref().map(|todo| format!("\n    → {todo}")).unwrap_or_default();
        format!("{sign} {}{todo}", self.what)
    }
}

impl Check {
    /// Runs it.
    pub(crate) async fn run(self, globals: &Globals) -> Outcome {
        let end = tokio::time::Instant::now() + self.wait.unwrap_or_default();
        let lines = loop {
            let looked = self.look(globals).await;
            let well = looked.as_ref().is_ok_and(|lines| lines.iter().all(|line| line.result != Mark::Failed));
            if well || tokio::time::Instant::now() >= end {
                break looked?;
            }
            tokio::time::sleep(AGAIN).await;
        };
        let failed = lines.iter().filter(|line| line.result == Mark::Failed).count();
        let document = json!({"ok": failed == 0, "checks": lines});
        globals.output.show(&document, || lines.iter().map(Line::text).collect::<Vec<_>>().join("\n"))?;
        if failed == 0 { Ok(()) } else { Err(Failure::negative()) }
    }

    async fn look(&self, globals: &Globals) -> Outcome<Vec<Line>> {
        let at = globals.hub().await?;
        let version =
            at.client.apiserver_version().await.map_err(Failure::api(format!("API server {}", at.url)))?.git_version;
        let mut lines = vec![Line::ok("api-server", format!("API server {} answers ({version})", at.url))];
        lines.push(definitions(&at.client).await);
        lines.push(hub(&at.client).await);
        lines.extend(clusters(&at).await);
        lines.extend(bundles(&at).await);
        lines.extend(requests(&at).await);
        let ready = Ready::find(globals).unwrap_or_default();
        lines.push(dns(self.dns.clone().or(ready.dns)).await);
        lines.push(gateway(self.http.clone().or(ready.http)).await);
        Ok(lines)
    }
}

async fn definitions(client: &Client) -> Line {
    let id = "definitions";
    let todo = "atoll crds --standard | kubectl apply --server-side -f - (or the chart atoll-crds)";
    match client.list_api_group_resources("atoll.dev/v1alpha1").await {
        Ok(served) => {
            let is_served = |plural: &String| served.resources.iter().any(|r| r.name == *plural);
            let missing: Vec<String> =
                crds().into_iter().map(|crd| crd.spec.names.plural).filter(|plural| !is_served(plural)).collect();
            match missing.as_slice() {
                [] => Line::ok(id, "our kinds are defined"),
                some => Line::failed(id, format!("not defined: {}", some.join(", ")), todo),
            }
        }
        Err(kube::Error::Api(status)) if status.code == 404 => Line::failed(id, "our kinds are not defined", todo),
        Err(error) => {
            Line::failed(id, format!("our kinds can't be listed: {}", root_cause(&error)), "look at the API server")
        }
    }
}

/// Reads what the hub says of itself and opens its port, trusting its own CA alone.
async fn hub(client: &Client) -> Line {
    let id = "hub";
    let facts = match HubFacts::read(client).await {
        Ok(facts) => facts,
        Err(error) => {
            let todo = "start `atoll hub`, and read ConfigMap atoll-system/atoll-hub as somebody who may";
            return Line::failed(id, format!("no hub is known here: {error}"), todo);
        }
    };
    let todo = "is it running, and is this its advertised address as seen from here (`advertise.hub`)?";
    match dial(&facts).await {
        Ok(()) => Line::ok(id, format!("the hub answers at {}", facts.advertise)),
        Err(why) => Line::failed(id, format!("the hub does not answer at {}: {why}", facts.advertise), todo),
    }
}

async fn dial(facts: &HubFacts) -> Result<(), String> {
    let (host, port) = host_and_port(&facts.advertise).ok_or("its address is not host:port")?;
    let work = async {
        let tcp = System::new(DIAL_MAX).connect(host, port).await.map_err(|e| e.to_string())?;
        let name = rustls_pki_types::ServerName::try_from(host.to_owned()).map_err(|e| e.to_string())?;
        let tls = TlsConnector::from(pinned(facts.pin, &[b"h2"]));
        tls.connect(name, tcp).await.map(drop).map_err(|e| e.to_string())
    };
    tokio::time::timeout(DIAL_MAX, work).await.unwrap_or_else(|_| Err("no answer within 5 s".into()))
}

async fn clusters(at: &Connection) -> Vec<Line> {
    let id = "clusters";
    let list = match Api::<Cluster>::all(at.client.clone()).list(&ListParams::default()).await {
        Ok(list) => list.items,
        Err(error) => {
            return vec![Line::failed(id, format!("clusters can't be listed: {}", root_cause(&error)), "see above")];
        }
    };
    if list.is_empty() {
        return vec![Line::skipped(
            id,
            "no cluster has joined",
            "atoll token create NAME prints the command that lets one in",
        )];
    }
    list.iter()
        .map(|cluster| {
            let name = cluster.name_any();
            let conditions = cluster.status.clone().unwrap_or_default().conditions;
            let bad = conditions.iter().find(|c| ["Ready", "DNSReady"].contains(&&*c.type_) && c.status != "True");
            match bad {
                Some(c) => Line::failed(
                    id,
                    format!("cluster {name} is not {}: {}", c.type_, c.message),
                    format!("atoll describe cluster {name}"),
                ),
                None if conditions.is_empty() => {
                    Line::failed(id, format!("nothing is known of cluster {name} yet"), "does the hub run?")
                }
                None => Line::ok(id, format!("cluster {name} is Ready")),
            }
        })
        .collect()
}

async fn bundles(at: &Connection) -> Vec<Line> {
    // Who may not list them is told nothing about them.
    let Ok(list) = Api::<Bundle>::all(at.client.clone()).list(&ListParams::default()).await else { return Vec::new() };
    let line = |bundle: &Bundle| {
        let name = format!("{}/{}", bundle.namespace().unwrap_or_default(), bundle.name_any());
        let status = bundle.status.clone().unwrap_or_default();
        match status.conditions.iter().find(|c: &&Condition| c.status != "True") {
            None => Line::ok("bundles", format!("bundle {name} runs: {}", status.summary)),
            Some(c) => Line::failed(
                "bundles",
                format!("bundle {name} is not {}: {}", c.type_, c.message),
                format!("atoll explain bundle {} -n {}", bundle.name_any(), bundle.namespace().unwrap_or_default()),
            ),
        }
    };
    list.items.iter().map(line).collect()
}

async fn requests(at: &Connection) -> Vec<Line> {
    let listed = Api::<ReplicationRequest>::all(at.client.clone()).list(&ListParams::default()).await;
    let waiting = listed.map(|list| list.items).unwrap_or_default().into_iter();
    let waiting = waiting.filter(|r| r.status.as_ref().is_some_and(|s| s.state == RequestState::PendingApproval));
    waiting
        .map(|r| {
            let (namespace, name) = (r.namespace().unwrap_or_default(), r.name_any());
            let since = super::output::age(r.creation_timestamp().map(|t| t.0), Timestamp::now());
            Line::skipped(
                "requests",
                format!("image request {namespace}/{name} waits for votes since {since}"),
                format!("atoll image approve {name} -n {namespace}"),
            )
        })
        .collect()
}

async fn dns(server: Option<String>) -> Line {
    let id = "dns";
    let Some(server) = server else { return Line::skipped(id, "no DNS server was asked", "name one with --dns") };
    match super::dns::is_there(&server).await {
        Ok(()) => Line::ok(id, format!("the DNS server at {server} answers")),
        Err(failure) => Line::failed(id, failure.message, "does `atoll dns` run, and is its port open for you?"),
    }
}

async fn gateway(address: Option<String>) -> Line {
    let id = "gateway";
    let Some(address) = address else { return Line::skipped(id, "no gateway was asked", "name one with --http") };
    // Any answer will do: which hosts it serves is not known here.
    match super::admin::fetch(&format!("http://{address}/")).await {
        Ok(_) => Line::ok(id, format!("the gateway at {address} answers")),
        Err(failure) => Line::failed(id, failure.message, "does `atoll gateway` run, and is its port open for you?"),
    }
}
