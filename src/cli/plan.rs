//! `atoll plan placement -f FILE` and `atoll plan failure CLUSTER…`: what would run where, and what DNS and gateways would
//! answer, by the hub's and their own rules over the objects as they are now. Changes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use atoll_api::kinds::{Assignment, Bundle, Cluster, PlacementPolicy};
use atoll_federation::placement::{Foreseen, World, foresee};
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt as _};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::Globals;
use super::failure::{Failure, Outcome};
use super::foresight::{Names, Shift, Shifts};
use super::output::columns;

/// Say what would run where.
#[derive(Debug, clap::Args)]
pub(crate) struct Plan {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Where Bundles of a file would run, with its PlacementPolicies
    Placement {
        /// YAML or JSON; - for stdin
        #[arg(short = 'f', long = "filename", value_name = "FILE")]
        file: PathBuf,
    },
    /// What would move if clusters failed together
    Failure {
        /// Clusters that are thought lost
        #[arg(required_unless_present = "region", value_name = "CLUSTER")]
        clusters: Vec<String>,
        /// And all clusters of this region
        #[arg(long, value_name = "REGION")]
        region: Vec<String>,
    },
}

impl Plan {
    /// Runs it.
    pub(crate) async fn run(self, globals: &Globals) -> Outcome {
        let at = globals.hub().await?;
        let mut world = gather(&at.client).await?;
        match self.verb {
            Verb::Placement { file } => {
                let objects = super::diff::documents(&file)?;
                let named = put(&mut world, objects, &at.namespace)?;
                let mut foreseen = foresee(&world, &BTreeSet::new());
                foreseen.retain(|f| named.contains(&(f.namespace.clone(), f.name.clone())));
                globals.output.show(&documents(&foreseen), || text(&foreseen, true))?;
                let wrong = foreseen.iter().any(|f| f.error.is_some() || f.unplaced > 0);
                if wrong { Err(Failure::negative()) } else { Ok(()) }
            }
            Verb::Failure { mut clusters, region } => {
                for name in &clusters {
                    if !world.clusters.iter().any(|c| c.name_any() == *name) {
                        return Err(Failure::failed(format!("cluster `{name}`: there is none")));
                    }
                }
                for region in &region {
                    let inside = world.clusters.iter().filter(|c| c.spec.region.as_ref() == Some(region));
                    let before = clusters.len();
                    clusters.extend(inside.map(|c| c.name_any()));
                    if clusters.len() == before {
                        return Err(Failure::failed(format!("region `{region}`: no cluster stands there")));
                    }
                }
                let lost: BTreeSet<String> = clusters.into_iter().collect();
                let shifts = Names::read(&at.client, &world.clusters).await?.without(&lost);
                let now = foresee(&world, &BTreeSet::new());
                let mut foreseen = foresee(&world, &lost);
                // What differs from now already would move anyhow; what stays is not worth a line.
                foreseen.retain(|f| f.before != f.after || f.unplaced > 0 || !now.contains(f));
                let mut document = documents(&foreseen);
                document["names"] = json!(shifts.names);
                document["routes"] = json!(shifts.routes);
                globals.output.show(&document, || failure_text(&foreseen, &shifts))
            }
        }
    }
}

/// A table for each of what moves: copies, names, routes.
fn failure_text(foreseen: &[Foreseen], shifts: &Shifts) -> String {
    let clusters = |all: &[String]| if all.is_empty() { "nobody".to_owned() } else { all.join(", ") };
    let row = |s: &Shift| {
        let why = s.why.last().cloned().unwrap_or_default();
        vec![s.what.clone(), s.from.clone(), clusters(&s.before), clusters(&s.after), why]
    };
    let mut tables = Vec::new();
    if !foreseen.is_empty() {
        tables.push(text(foreseen, false));
    }
    for (heading, shifts) in [("Name", &shifts.names), ("Route", &shifts.routes)] {
        if !shifts.is_empty() {
            tables.push(columns(&[heading, "From", "Now", "Then", "Why"], shifts.iter().map(row)));
        }
    }
    if tables.is_empty() { "nothing moves".to_owned() } else { tables.join("\n") }
}

async fn gather(client: &Client) -> Outcome<World> {
    Ok(World {
        clusters: list(client).await?,
        policies: list::<PlacementPolicy>(client).await?.into_iter().map(Arc::new).collect(),
        bundles: list(client).await?,
        assignments: list::<Assignment>(client).await?.into_iter().map(Arc::new).collect(),
    })
}

async fn list<K>(client: &Client) -> Outcome<Vec<K>>
where
    K: kube::Resource<DynamicType = ()> + Clone + std::fmt::Debug + DeserializeOwned,
{
    let what = format!("list {}", K::plural(&()));
    Ok(Api::<K>::all(client.clone()).list(&ListParams::default()).await.map_err(Failure::api(what))?.items)
}

/// Puts the objects of a file in the place of those of the same name. Returns the Bundles among them.
fn put(world: &mut World, objects: Vec<Value>, namespace: &str) -> Outcome<BTreeSet<(String, String)>> {
    let mut named = BTreeSet::new();
    for mut object in objects {
        let shown = format!(
            "{} `{}`",
            object["kind"].as_str().unwrap_or("?"),
            object["metadata"]["name"].as_str().unwrap_or("?")
        );
        let kind = object["kind"].as_str().unwrap_or_default().to_owned();
        if kind != "Cluster" && object["metadata"]["namespace"].is_null() {
            object["metadata"]["namespace"] = json!(namespace);
        }
        let wrong = |e: serde_json::Error| Failure::failed(format!("{shown}: {e}"));
        match kind.as_str() {
            "Bundle" => {
                let mut bundle: Bundle = serde_json::from_value(object).map_err(wrong)?;
                let key = (bundle.namespace().unwrap_or_default(), bundle.name_any());
                let same = |b: &Bundle| (b.namespace().unwrap_or_default(), b.name_any()) == key;
                if let Some(old) = world.bundles.iter().find(|b| same(b)) {
                    bundle.metadata.uid.clone_from(&old.metadata.uid);
                    bundle.status.clone_from(&old.status);
                }
                world.bundles.retain(|b| !same(b));
                world.bundles.push(bundle);
                named.insert(key);
            }
            "PlacementPolicy" => {
                let policy: PlacementPolicy = serde_json::from_value(object).map_err(wrong)?;
                world.policies.retain(|p| p.namespace() != policy.namespace() || p.name_any() != policy.name_any());
                world.policies.push(Arc::new(policy));
            }
            "Cluster" => {
                let mut cluster: Cluster = serde_json::from_value(object).map_err(wrong)?;
                let old = world.clusters.iter().find(|c| c.name_any() == cluster.name_any());
                cluster.status = old.and_then(|old| old.status.clone());
                world.clusters.retain(|c| c.name_any() != cluster.name_any());
                world.clusters.push(cluster);
            }
            _ => {}
        }
    }
    if named.is_empty() {
        return Err(Failure::usage("the file holds no Bundle"));
    }
    Ok(named)
}

fn documents(foreseen: &[Foreseen]) -> Value {
    let one = |f: &Foreseen| {
        json!({
            "namespace": f.namespace, "name": f.name, "before": f.before, "after": f.after, "unplaced": f.unplaced,
            "why": f.why, "error": f.error,
        })
    };
    json!({"bundles": foreseen.iter().map(one).collect::<Vec<_>>()})
}

/// A line for each cluster of each Bundle; `all`: also those that get nothing, with the reason.
fn text(foreseen: &[Foreseen], all: bool) -> String {
    let mut rows = Vec::new();
    for f in foreseen {
        let bundle = format!("{}/{}", f.namespace, f.name);
        if let Some(error) = &f.error {
            rows.push(vec![bundle, "-".into(), String::new(), String::new(), error.clone()]);
            continue;
        }
        let clusters: BTreeSet<&String> = f.before.keys().chain(f.after.keys()).chain(f.why.keys()).collect();
        for cluster in clusters {
            let count = |map: &BTreeMap<String, i32>| map.get(cluster).copied().unwrap_or(0);
            let (before, after) = (count(&f.before), count(&f.after));
            if all || before != after {
                let why = f.why.get(cluster).cloned().unwrap_or_default();
                rows.push(vec![bundle.clone(), cluster.clone(), before.to_string(), after.to_string(), why]);
            }
        }
        if f.unplaced > 0 {
            rows.push(vec![bundle, "nowhere".into(), String::new(), f.unplaced.to_string(), "no place".into()]);
        }
    }
    columns(&["Bundle", "Cluster", "Now", "Then", "Why"], rows)
}
