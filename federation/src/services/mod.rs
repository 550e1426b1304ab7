//! Services of the cluster set: exports that members report become ServiceImports in the hub's API, conflicts go to the log and the
//! import's conditions.
//!
//! An import is for HTTPRoutes and people; DNS and gateway read the topology. Exports never cross a cluster set: where two sets export
//! one name, the import is that of the hub's default set, else of the first set by name, and says so in its label. Source:
//! KEP-1645 (the oldest export wins; Conflict says what differs).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use atoll_api::kinds::{
    CLUSTER_SET_LABEL, FIELD_MANAGER, ImportCluster, ServiceImport, ServiceImportPort, ServiceImportSpec,
    ServiceImportStatus, ServiceImportType,
};
use atoll_api::names::ClusterName;
use atoll_api::topology::{MemberService, ServicePort};
use jiff::Timestamp;
use kube::api::{DeleteParams, Patch, PatchParams};
use kube::{Api, ResourceExt as _};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::conditions::{Found, merge};
use crate::error::{Error, is_missing};
use crate::lead::make_namespace;
use crate::membership::{Membership, patch_status, verdicts};
use crate::pulse::Pulse;
use crate::topology::{Export, Published, exports};

const MANAGED_BY: &str = "app.kubernetes.io/managed-by";

/// The services controller.
pub(crate) struct Services {
    pub(crate) membership: Arc<Membership>,
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
    pub(crate) async fn run(self) {
        let m = &self.membership;
        let mut pulse = Pulse::new(vec![m.objects.changes(), m.sessions.changes()], Duration::from_secs(10));
        loop {
            let settled = self.topology.borrow().is_some();
            if settled {
                self.pass().await;
            }
            pulse.next().await;
        }
    }

    async fn pass(&self) {
        let m = &self.membership;
        let members = verdicts(m, Instant::now());
        let reported = m.sessions.reported();
        // Members that have not spoken since the hub started: what they export is what the imports say.
        let silent = |cluster: &str| {
            cluster.parse::<ClusterName>().is_ok_and(|c| members.contains_key(&c) && !reported.contains_key(&c))
        };
        let mut by_name: BTreeMap<(String, String), BTreeMap<String, Vec<Export>>> = BTreeMap::new();
        for ((set, namespace, name), found) in exports(&members, &reported) {
            by_name.entry((namespace, name)).or_default().insert(set, found);
        }
        let mut held: BTreeMap<(String, String), Arc<ServiceImport>> = m
            .objects
            .imports
            .state()
            .into_iter()
            .map(|i| ((i.namespace().unwrap_or_default(), i.name_any()), i))
            .collect();
        for (at, sets) in by_name {
            let old = held.get(&at).cloned();
            if let Some(mut wanted) = wanted(&sets, &self.default_set) {
                held.remove(&at);
                wanted.keep(old.as_deref(), silent);
                note(self.write(&at, old.as_deref(), wanted).await);
            }
        }
        for (at, old) in held {
            if !exporters(&old).any(silent) {
                note(self.remove(&at, &old).await);
            }
        }
    }

    async fn write(&self, at: &(String, String), old: Option<&ServiceImport>, wanted: Wanted) -> Result<(), Error> {
        let (namespace, name) = at;
        let api: Api<ServiceImport> = Api::namespaced(self.membership.client.clone(), namespace);
        let labelled = old.is_some_and(|o| o.labels().get(CLUSTER_SET_LABEL) == Some(&wanted.set));
        if old.is_none_or(|o| o.spec != wanted.spec) || !labelled {
            make_namespace(&self.membership.client, namespace).await?;
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

    async fn remove(&self, at: &(String, String), old: &ServiceImport) -> Result<(), Error> {
        if old.labels().get(MANAGED_BY).map(String::as_str) != Some(FIELD_MANAGER) {
            return Ok(());
        }
        let api: Api<ServiceImport> = Api::namespaced(self.membership.client.clone(), &at.0);
        match api.delete(&at.1, &DeleteParams::default()).await {
            Ok(_) => Ok(()),
            Err(e) if is_missing(&e) => Ok(()),
            Err(e) => Err(Error::api(format!("delete service import {}/{}", at.0, at.1))(e)),
        }
    }
}

/// One import that can't be written holds up no other; it is tried again at the next pass.
fn note(done: Result<(), Error>) {
    if let Err(error) = done {
        tracing::warn!(%error, "service import left as it is");
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

fn exporters(import: &ServiceImport) -> impl Iterator<Item = &str> {
    import.status.iter().flat_map(|s| &s.clusters).map(|c| c.cluster.as_str())
}

/// The import of the set that counts; nothing where nobody has a Service of that name.
fn wanted(sets: &BTreeMap<String, Vec<Export>>, default_set: &str) -> Option<Wanted> {
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
