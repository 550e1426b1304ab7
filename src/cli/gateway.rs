//! `atoll gateway explain`: where the gateway would send a request, asked of its admin port; what there is (`routes`, `upstreams`,
//! `connections`, `config`), asked there too; `drain`, `disable`, `enable`: labels of the Cluster that all gateways follow.

use std::net::IpAddr;

use atoll_api::kinds::Cluster;
use atoll_api::topology::{CLUSTER_TRAFFIC, endpoint_label};
use k8s_openapi::api::core::v1::Event;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Resource as _, ResourceExt as _};
use serde_json::{Value, json};

use super::Globals;
use super::failure::{Failure, Outcome};
use super::output::{note, yaml};
use super::run_files::Ready;

/// Say which route, cluster and endpoint a request would get.
#[derive(Debug, clap::Args)]
pub(crate) struct Explain {
    /// The host, for example shop.example.com
    #[arg(long, value_name = "H")]
    host: String,
    /// The path
    #[arg(long, value_name = "P", default_value = "/")]
    path: String,
    /// As if the client stood in this region
    #[arg(long, value_name = "REGION")]
    from: Option<String>,
    /// The gateway's admin port, host:port; default: that of the running `atoll up`, else 127.0.0.1:7071
    #[arg(long, value_name = "ADDRESS")]
    admin: Option<String>,
}

impl Explain {
    /// Runs it.
    pub(crate) async fn run(self, globals: &Globals) -> Outcome {
        if !self.path.starts_with('/') {
            return Err(Failure::usage(format!("--path `{}`: a path begins with /", self.path)));
        }
        let admin = Ready::admin(globals, self.admin);
        let query =
            [("host", Some(self.host.as_str())), ("path", Some(self.path.as_str())), ("from", self.from.as_deref())];
        let answer = asked(&admin, "/gateway/explain", &query).await?;
        globals.output.show(&answer, || yaml(&answer).unwrap_or_else(|_| answer.to_string()))
    }
}

/// Prints the schema of the webhook of balancers that others own.
pub(crate) fn provider_schema(globals: &Globals) -> Outcome {
    let schema = atoll_api::provider::schema();
    globals.output.show(&schema, || serde_json::to_string_pretty(&schema).unwrap_or_default())
}

/// Asks a gateway.
async fn asked(admin: &str, path: &str, query: &[(&str, Option<&str>)]) -> Outcome<Value> {
    super::admin::get(admin, path, query).await.map_err(|failure| match failure.code {
        4 => Failure::unreachable(format!(
            "{}: is a gateway's admin port there? --admin names another one",
            failure.message
        )),
        _ => failure,
    })
}

/// Asks for one view.
#[derive(Debug, clap::Args)]
pub(crate) struct View {
    /// The gateway's admin port, host:port; default: that of the running `atoll up`, else 127.0.0.1:7071
    #[arg(long, value_name = "ADDRESS")]
    admin: Option<String>,
}

impl View {
    /// Runs it.
    pub(crate) async fn run(self, globals: &Globals, what: &str) -> Outcome {
        let admin = Ready::admin(globals, self.admin);
        let answer = asked(&admin, &format!("/gateway/{what}"), &[]).await?;
        globals.output.show(&answer, || yaml(&answer).unwrap_or_else(|_| answer.to_string()))
    }
}

/// Takes something out of the gateways' hands, or gives it back.
#[derive(Debug, clap::Args)]
pub(crate) struct Hold {
    /// A CLUSTER, or CLUSTER/ADDRESS of one endpoint
    #[arg(value_name = "CLUSTER[/ADDRESS]")]
    target: String,
    /// Why, for those who come after
    #[arg(long, value_name = "TEXT", default_value = "")]
    reason: String,
}

impl Hold {
    /// Runs it: a label of the Cluster, which the gateways follow, and an Event that says who did it.
    pub(crate) async fn run(self, globals: &Globals, word: Option<&str>) -> Outcome {
        let (cluster, endpoint) = match self.target.split_once('/') {
            None => (self.target.as_str(), None),
            Some((cluster, ip)) => {
                let bad = |e| Failure::usage(format!("`{}`: `{ip}` is no address: {e}", self.target));
                (cluster, Some(ip.parse::<IpAddr>().map_err(bad)?))
            }
        };
        let label = endpoint.map_or_else(|| CLUSTER_TRAFFIC.to_owned(), endpoint_label);
        // Before it is taken out: then gateways list it no more.
        let stranger = match (endpoint, word) {
            (Some(ip), Some(_)) => stranger(globals, cluster, ip).await,
            _ => None,
        };
        let at = globals.hub().await?;
        let api: Api<Cluster> = Api::all(at.client.clone());
        let patch = json!({"metadata": {"labels": {label: word}}});
        let patched = api.patch(cluster, &PatchParams::default(), &Patch::Merge(&patch)).await;
        let patched = patched.map_err(|error| match error {
            kube::Error::Api(status) if status.code == 404 => {
                Failure::failed(format!("cluster `{cluster}`: there is none: `atoll get clusters` lists them"))
            }
            error => Failure::of_api(format!("cluster `{cluster}`"), &error),
        })?;
        if let Some(stranger) = stranger {
            note(stranger);
        }
        let verb = word.unwrap_or("enable");
        let said = format!(
            "{verb} {} for gateways{}{}",
            self.target,
            if self.reason.is_empty() { "" } else { ": " },
            self.reason
        );
        let (user, _) = super::image::who_am_i(&at.client).await?;
        record(&at.client, &patched, verb, &format!("{user}: {said}")).await?;
        let document: Value =
            json!({"cluster": cluster, "target": self.target, "traffic": word.unwrap_or("on"), "by": user});
        globals.output.show(&document, || said.clone())
    }
}

/// What is said where the gateway of this machine knows no such endpoint; elsewhere nobody can be asked.
async fn stranger(globals: &Globals, cluster: &str, ip: IpAddr) -> Option<String> {
    let admin = Ready::find(globals)?.admin?;
    let known = super::admin::get(&admin, "/gateway/upstreams", &[]).await.ok()?;
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let clusters = list(&known["upstreams"]).into_iter().flat_map(|upstream| list(&upstream["clusters"]));
    let endpoints = clusters.filter(|c| c["cluster"] == cluster).flat_map(|c| list(&c["endpoints"]));
    let mut addresses = endpoints.filter_map(|e| e["address"].as_str()?.parse::<std::net::SocketAddr>().ok());
    (!addresses.any(|at| at.ip() == ip)).then(|| {
        let lists = "`atoll gateway upstreams` lists them";
        format!("{cluster}/{ip}: the gateway at {admin} knows no such endpoint ({lists}); it holds should one come")
    })
}

/// Writes an Event about the Cluster.
async fn record(client: &kube::Client, cluster: &Cluster, verb: &str, message: &str) -> Outcome {
    let reason = match verb {
        "drain" => "TrafficDrained",
        "disable" => "TrafficDisabled",
        _ => "TrafficEnabled",
    };
    let now = jiff::Timestamp::now();
    let event = json!({
        "apiVersion": "v1", "kind": "Event",
        "metadata": {"namespace": "default", "generateName": format!("{}.", cluster.name_any())},
        "involvedObject": cluster.object_ref(&()), "type": "Normal", "reason": reason, "message": message,
        "reportingComponent": "atoll.dev/cli", "reportingInstance": "atoll", "action": verb,
        "firstTimestamp": now.to_string(), "lastTimestamp": now.to_string(), "count": 1,
    });
    let event: Event = serde_json::from_value(event).map_err(Failure::on("write an event"))?;
    let api: Api<Event> = Api::namespaced(client.clone(), "default");
    api.create(&PostParams::default(), &event)
        .await
        .map(drop)
        .map_err(Failure::api("write the event that says who did it"))
}
