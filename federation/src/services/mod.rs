//! Services of the cluster set: exports that members report become ServiceImports in the hub's API, with conflicts in their
//! conditions.
//!
//! An import is for HTTPRoutes and people; DNS and gateway read the topology. Exports never cross a cluster set: where two sets export
//! one name, the import is that of the hub's default set, else of the first set by name, and says so in its label. Source:
//! KEP-1645 (the oldest export wins; Conflict says what differs).

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use atoll_api::kinds::{
    CLUSTER_SET_LABEL, FIELD_MANAGER, ImportCluster, MANAGED_BY, ServiceImport, ServiceImportPort, ServiceImportSpec,
    ServiceImportStatus, ServiceImportType,
};
use atoll_api::names::ServiceName;
use atoll_api::topology::{MemberService, ServicePort};
use futures::{StreamExt as _, stream};
use jiff::Timestamp;
use kube::api::{DeleteParams, Patch, PatchParams};
use kube::runtime::reflector::{ObjectRef, Store};
use kube::{Api, Client, ResourceExt as _};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout_at};

use crate::conditions::{Found, merge};
use crate::error::{Error, is_missing};
use crate::lead::make_namespace;
use crate::membership::patch_status;
use crate::topology::{BySet, Export, Offers, Published};

/// Changes that come so close together are looked at together.
const GAP: Duration = Duration::from_millis(30);
/// All imports are looked at so often, in case that somebody else changed one.
const WHOLE_EVERY: Duration = Duration::from_secs(30);
/// What could not be written is tried again after so long.
const AGAIN: Duration = Duration::from_secs(5);
/// Imports that are written at once.
const AT_ONCE_MAX: usize = 8;

/// The services controller.
pub(crate) struct Services {
    pub(crate) client: Client,
    pub(crate) imports: Store<ServiceImport>,
    pub(crate) offers: Arc<Offers>,
    pub(crate) default_set: String,
    /// `None` until the hub has settled: before that nothing is written, for half of the exports is no news.
    pub(crate) topology: watch::Receiver<Option<Published>>,
}

/// One import as it is to be.
#[derive(Debug, Clone, PartialEq)]
struct Wanted {
    set: String,
    spec: ServiceImportSpec,
    clusters: Vec<ImportCluster>,
    conflict: Option<String>,
}

impl Services {
    /// Runs until cancelled.
    pub(crate) async fn run(mut self) {
        if self.topology.wait_for(Option::is_some).await.is_err() {
            return;
        }
        let mut changes = self.offers.changes();
        let mut whole_at = Instant::now();
        let mut again = BTreeSet::new();
        loop {
            changes.mark_unchanged();
            let mut names = self.offers.moved();
            names.append(&mut again);
            if Instant::now() >= whole_at {
                names.extend(self.offers.names());
                names.extend(self.imports.state().iter().map(|import| name_of(import)));
                whole_at = Instant::now() + WHOLE_EVERY;
            }
            let done = stream::iter(names).map(|name| self.one(name)).buffer_unordered(AT_ONCE_MAX);
            again = done.filter_map(async |failed| failed).collect().await;
            let until = if again.is_empty() { whole_at } else { Instant::now() + AGAIN };
            if let Ok(Err(_)) = timeout_at(until, changes.changed()).await {
                // Its owner has gone, and so will we.
                return;
            }
            sleep(GAP).await;
        }
    }

    /// Looks at one name. Gives it back where it could not be written: it is tried again, and holds up no other.
    async fn one(&self, name: ServiceName) -> Option<ServiceName> {
        let silent = self.offers.silent();
        let silent = |cluster: &str| silent.contains(cluster);
        let at = ObjectRef::new(&name.name).within(&name.namespace);
        let old = self.imports.get(&at);
        let done = match (wanted(&self.offers.exports(&name), &self.default_set), &old) {
            (Some(mut wanted), old) => {
                wanted.keep(old.as_deref(), silent);
                self.write(&name, old.as_deref(), wanted).await
            }
            (None, Some(old)) if !exporters(old).any(silent) => self.remove(&name, old).await,
            (None, _) => Ok(()),
        };
        let error = done.err()?;
        tracing::warn!(%error, "service import left as it is");
        Some(name)
    }

    async fn write(&self, at: &ServiceName, old: Option<&ServiceImport>, wanted: Wanted) -> Result<(), Error> {
        let ServiceName { namespace, name } = at;
        let api: Api<ServiceImport> = Api::namespaced(self.client.clone(), namespace);
        let labelled = old.is_some_and(|o| o.labels().get(CLUSTER_SET_LABEL) == Some(&wanted.set));
        if old.is_none_or(|o| o.spec != wanted.spec) || !labelled {
            make_namespace(&self.client, namespace).await?;
            let mut import = ServiceImport::new(name, wanted.spec.clone());
            let labels = [(CLUSTER_SET_LABEL, wanted.set.as_str()), (MANAGED_BY, FIELD_MANAGER)];
            import.metadata.labels = Some(labels.map(|(k, v)| (k.to_owned(), v.to_owned())).into());
            let params = PatchParams::apply(FIELD_MANAGER).force();
            api.patch(name, &params, &Patch::Apply(&import))
                .await
                .map_err(Error::api(format!("write service import {namespace}/{name}")))?;
        }
        let before = old.and_then(|o| o.status.clone()).unwrap_or_default();
        let conflict = match wanted.conflict {
            Some(why) => Found::new("Conflict", true, "PortConflict", why),
            None => Found::new("Conflict", false, "NoConflicts", ""),
        };
        let ready = Found::new("Ready", true, "Exported", "");
        let generation = old.and_then(|o| o.metadata.generation);
        let conditions = merge(&before.conditions, [ready, conflict], generation, Timestamp::now());
        let status = ServiceImportStatus { clusters: wanted.clusters, conditions };
        if old.and_then(|o| o.status.as_ref()) != Some(&status) {
            let done = patch_status(&api, name, &status).await;
            done.map_err(Error::api(format!("write status of service import {namespace}/{name}")))?;
        }
        Ok(())
    }

    async fn remove(&self, at: &ServiceName, old: &ServiceImport) -> Result<(), Error> {
        if old.labels().get(MANAGED_BY).map(String::as_str) != Some(FIELD_MANAGER) {
            return Ok(());
        }
        let api: Api<ServiceImport> = Api::namespaced(self.client.clone(), &at.namespace);
        match api.delete(&at.name, &DeleteParams::default()).await {
            Ok(_) => Ok(()),
            Err(e) if is_missing(&e) => Ok(()),
            Err(e) => Err(Error::api(format!("delete service import {at}"))(e)),
        }
    }
}

impl Wanted {
    /// Silent members of the same set stay among the exporters, where they were.
    fn keep(&mut self, old: Option<&ServiceImport>, silent: impl Fn(&str) -> bool) {
        let same_set = |o: &&ServiceImport| o.labels().get(CLUSTER_SET_LABEL) == Some(&self.set);
        let before: Vec<&str> = old.filter(same_set).into_iter().flat_map(exporters).collect();
        if !before.iter().any(|c| silent(c)) {
            return;
        }
        let spoke = std::mem::take(&mut self.clusters);
        let (kept, new): (Vec<_>, Vec<_>) = spoke.into_iter().partition(|c| before.contains(&c.cluster.as_str()));
        let stays = |c: &&&str| silent(c) || kept.iter().any(|k| k.cluster == **c);
        self.clusters = before.iter().filter(stays).map(|c| ImportCluster { cluster: (*c).to_owned() }).collect();
        self.clusters.extend(new);
    }
}

fn name_of(import: &ServiceImport) -> ServiceName {
    ServiceName::new(import.namespace().unwrap_or_default(), import.name_any())
}

fn exporters(import: &ServiceImport) -> impl Iterator<Item = &str> {
    import.status.iter().flat_map(|s| &s.clusters).map(|c| c.cluster.as_str())
}

/// The import of the set that counts; nothing where nobody has a Service of that name.
fn wanted(sets: &BySet, default_set: &str) -> Option<Wanted> {
    let of = |set: &String| {
        let valid: Vec<(&Export, &MemberService)> =
            sets.get(set)?.iter().filter(|e| e.facts.valid).filter_map(|e| Some((e, e.service.as_ref()?))).collect();
        (!valid.is_empty()).then(|| (set.clone(), valid))
    };
    let (set, valid) = of(&default_set.to_owned()).or_else(|| sets.keys().find_map(of))?;
    let oldest = valid[0].1;
    let headless = |s: &MemberService| s.cluster_ips.is_empty();
    let differing: Vec<&str> = valid
        .iter()
        .filter(|(_, s)| {
            s.ports.iter().map(plain).ne(oldest.ports.iter().map(plain)) || headless(s) != headless(oldest)
        })
        .map(|(e, _)| e.cluster.as_str())
        .collect();
    Some(Wanted {
        set,
        spec: ServiceImportSpec {
            import_type: if headless(oldest) { ServiceImportType::Headless } else { ServiceImportType::ClusterSetIP },
            ports: oldest.ports.iter().map(import_port).collect(),
            ..ServiceImportSpec::default()
        },
        clusters: valid.iter().map(|(e, _)| ImportCluster { cluster: e.cluster.to_string() }).collect(),
        conflict: (!differing.is_empty()).then(|| {
            format!(
                "ports or type differ in {}; those of the oldest export, in `{}`, count",
                differing.join(", "),
                valid[0].0.cluster
            )
        }),
    })
}

fn plain(port: &ServicePort) -> (&str, &str, u16) {
    (&port.name, &port.protocol, port.port)
}

fn import_port(port: &ServicePort) -> ServiceImportPort {
    ServiceImportPort {
        name: Some(port.name.clone()).filter(|n| !n.is_empty()),
        protocol: Some(port.protocol.clone()).filter(|p| !p.is_empty()),
        app_protocol: port.app_protocol.clone(),
        port: port.port.into(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use atoll_api::topology::ExportFacts;

    use super::*;

    fn export(cluster: &str, created: &str, port: u16) -> Export {
        let ports = vec![ServicePort { name: "http".into(), protocol: "TCP".into(), port, ..ServicePort::default() }];
        let cluster_ips = vec!["10.0.0.1".parse().unwrap()];
        Export {
            cluster: cluster.parse().unwrap(),
            facts: ExportFacts { created: created.into(), valid: true },
            service: Some(MemberService { ports, cluster_ips, ..MemberService::default() }),
        }
    }

    #[test]
    fn the_default_set_counts_and_sets_are_never_mixed() {
        let sets = BTreeMap::from([
            ("dev".to_owned(), vec![export("dev", "1", 80)]),
            ("prod".to_owned(), vec![export("eu", "2", 80), export("us", "3", 8080)]),
        ]);
        let import = wanted(&sets, "prod").unwrap();
        assert_eq!(import.clusters.iter().map(|c| c.cluster.as_str()).collect::<Vec<_>>(), ["eu", "us"]);
        assert!(import.conflict.unwrap().contains("differ in us"));
        let import = wanted(&sets, "other").unwrap();
        assert_eq!((import.set.as_str(), import.clusters.len(), import.conflict), ("dev", 1, None));
    }
}
