//! Services of members that have not reported since the hub started: they are there, only nobody knows their endpoints yet. A name that
//! did not exist would be another answer than a member that is down. Pure.
//!
//! In: the ServiceImports, which an earlier hub wrote, and who is silent. Out: what they add to the services of a set.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use atoll_api::kinds::{CLUSTER_SET_LABEL, ServiceImport, ServiceImportPort, ServiceImportType};
use atoll_api::names::{ClusterName, ServiceName};
use atoll_api::topology::{ServiceFacts, ServicePort};
use kube::ResourceExt as _;

use super::held::Held;
use super::offers::Standing;

/// What imports say of silent members.
#[derive(Default)]
pub(super) struct Remembered {
    imports: Held<ServiceImport>,
    /// The set of a service, and what it is there by the silent members alone.
    services: BTreeMap<ServiceName, (String, ServiceFacts)>,
}

type Members = BTreeMap<ClusterName, Standing>;

impl Remembered {
    /// Takes the imports. Names in `touched` are to be folded anew.
    pub(super) fn imports(
        &mut self,
        imports: Vec<Arc<ServiceImport>>,
        members: &Members,
        touched: &mut BTreeSet<ServiceName>,
    ) {
        for (name, import) in self.imports.look(imports) {
            let found = import.and_then(|import| recall(&import, members));
            self.put(name, found, touched);
        }
    }

    /// Takes who is silent now.
    pub(super) fn members(&mut self, members: &Members, touched: &mut BTreeSet<ServiceName>) {
        if self.services.is_empty() && !members.values().any(|m| m.is_silent) {
            return;
        }
        let all = self.imports.values().map(|import| {
            let name = ServiceName::new(import.namespace().unwrap_or_default(), import.name_any());
            (name, recall(import, members))
        });
        let all: Vec<_> = all.collect();
        for (name, found) in all {
            self.put(name, found, touched);
        }
    }

    fn put(&mut self, name: ServiceName, found: Option<(String, ServiceFacts)>, touched: &mut BTreeSet<ServiceName>) {
        if self.services.get(&name) != found.as_ref() {
            match found {
                Some(found) => drop(self.services.insert(name.clone(), found)),
                None => drop(self.services.remove(&name)),
            }
            touched.insert(name);
        }
    }

    /// What a service is in `set`, silent members included.
    pub(super) fn with(&self, name: &ServiceName, set: &str, found: Option<ServiceFacts>) -> Option<ServiceFacts> {
        let Some((_, silent)) = self.services.get(name).filter(|(of, _)| of == set) else { return found };
        Some(match found {
            Some(mut found) => {
                found.clusters.extend(silent.clusters.iter().cloned());
                found
            }
            None => silent.clone(),
        })
    }
}

/// The set of an import, and the service as its silent members have it; nothing where nobody is silent.
fn recall(import: &ServiceImport, members: &Members) -> Option<(String, ServiceFacts)> {
    let set = import.labels().get(CLUSTER_SET_LABEL)?;
    let silent = |name: &str| {
        let name: Option<ClusterName> = name.parse().ok();
        name.and_then(|n| members.get(&n)).is_some_and(|m| m.is_silent && m.set == *set)
    };
    let exporters = import.status.iter().flat_map(|s| &s.clusters).map(|c| c.cluster.clone());
    let clusters: Vec<String> = exporters.filter(|c| silent(c)).collect();
    let service = ServiceFacts {
        clusters,
        ports: import.spec.ports.iter().map(port).collect(),
        headless: import.spec.import_type == ServiceImportType::Headless,
    };
    (!service.clusters.is_empty()).then(|| (set.clone(), service))
}

fn port(port: &ServiceImportPort) -> ServicePort {
    ServicePort {
        name: port.name.clone().unwrap_or_default(),
        protocol: port.protocol.clone().unwrap_or_else(|| "TCP".into()),
        port: u16::try_from(port.port).unwrap_or_default(),
        app_protocol: port.app_protocol.clone(),
        node_port: None,
    }
}
