//! Folds objects and reports into the facts of the topology. Pure.
//!
//! What a member says is taken for its own names only, and addresses that can't be a pod's (loopback, link-local, multicast,
//! unspecified) are left out, for any member may be hostile. Exports never leave their cluster set.

use std::collections::BTreeMap;
use std::net::IpAddr;

use atoll_api::facts::{Facts, key};
use atoll_api::kinds::{
    CLUSTER_SET_LABEL, DNSEndpoint, ServiceImport, ServiceImportPort, ServiceImportType, TrafficPolicy,
};
use atoll_api::names::{ClusterName, ServiceName};
use atoll_api::topology::{
    ClusterFacts, Endpoints, ExportFacts, FailingFacts, MemberService, RecordsFacts, ServiceFacts, ServicePort,
    Settings, Site, ZoneFacts, ZoneKeys,
};
use kube::ResourceExt as _;

use crate::membership::Judged;
use crate::zones::Entry;

/// Endpoints of one service in one member, at most.
const ENDPOINTS_MAX: usize = 10_000;

/// Everything that is folded.
pub(crate) struct Inputs<'a> {
    pub(crate) settings: Settings,
    pub(crate) loopback_members: bool,
    pub(crate) members: &'a BTreeMap<ClusterName, Judged>,
    pub(crate) reported: &'a BTreeMap<ClusterName, Facts>,
    pub(crate) zones: &'a [Entry],
    pub(crate) records: &'a [std::sync::Arc<DNSEndpoint>],
    pub(crate) traffic: &'a [std::sync::Arc<TrafficPolicy>],
    /// What a hub that has just started knows of the exports of members that have not reported yet.
    pub(crate) imports: &'a [std::sync::Arc<ServiceImport>],
    pub(crate) sites: &'a [Site],
    /// What health checks take out, by policy.
    pub(crate) failing: &'a BTreeMap<ServiceName, FailingFacts>,
    /// Round-trip times by region.
    pub(crate) rtt: &'a BTreeMap<String, BTreeMap<ClusterName, u32>>,
}

/// One export of a member, valid or not.
#[derive(Debug, Clone)]
pub(crate) struct Export {
    pub(crate) cluster: ClusterName,
    pub(crate) facts: ExportFacts,
    pub(crate) service: Option<MemberService>,
}

/// (set, namespace, name) → exports, the oldest first.
pub(crate) type Exports = BTreeMap<(String, String, String), Vec<Export>>;

/// The exports of all members by set and service.
pub(crate) fn exports(members: &BTreeMap<ClusterName, Judged>, reported: &BTreeMap<ClusterName, Facts>) -> Exports {
    let mut all = Exports::new();
    for (cluster, judged) in members {
        let Some(facts) = reported.get(cluster) else { continue };
        for (rest, json) in facts.under(key::EXPORT) {
            let (Some((namespace, name)), Ok(export)) = (rest.split_once('/'), serde_json::from_slice(json)) else {
                continue;
            };
            let service = facts.get(&format!("{}/{rest}", key::SERVICE));
            let at = (judged.cluster.spec.set().to_owned(), namespace.to_owned(), name.to_owned());
            all.entry(at).or_default().push(Export { cluster: cluster.clone(), facts: export, service });
        }
    }
    for exports in all.values_mut() {
        exports.sort_by(|a, b| (&a.facts.created, &a.cluster).cmp(&(&b.facts.created, &b.cluster)));
    }
    all
}

/// The facts of the topology.
pub(crate) fn fold(inputs: &Inputs<'_>) -> Facts {
    let mut out = Facts::default();
    out.put(key::SETTINGS, &inputs.settings);
    for (name, judged) in inputs.members {
        out.put(format!("{}/{name}", key::CLUSTER), &cluster(name, judged));
        if let Some(facts) = inputs.reported.get(name) {
            endpoints(name, facts, inputs, &mut out);
        }
    }
    for ((set, namespace, name), exports) in exports(inputs.members, inputs.reported) {
        if let Some(service) = service(&exports) {
            out.put(format!("{}/{set}/{namespace}/{name}", key::SERVICE), &service);
        }
    }
    remembered(inputs, &mut out);
    for Entry { zone, file, serial, keys } in inputs.zones {
        let facts = ZoneFacts { spec: zone.spec.clone(), file: file.clone(), serial: *serial };
        out.put(format!("{}/{}", key::ZONE, zone.name_any()), &facts);
        if *keys != ZoneKeys::default() {
            out.put(format!("{}/{}", key::ZONE_KEYS, zone.name_any()), keys);
        }
    }
    for records in inputs.records {
        out.put(
            format!("{}/{}/{}", key::RECORDS, records.namespace().unwrap_or_default(), records.name_any()),
            &RecordsFacts {
                endpoints: records.spec.endpoints.clone(),
                revision: records.metadata.generation.unwrap_or_default(),
            },
        );
    }
    for policy in inputs.traffic {
        out.put(
            format!("{}/{}/{}", key::TRAFFIC, policy.namespace().unwrap_or_default(), policy.name_any()),
            &policy.spec,
        );
    }
    for (policy, failing) in inputs.failing.iter().filter(|(_, failing)| !failing.is_empty()) {
        out.put(format!("{}/{}/{}", key::FAILING, policy.namespace, policy.name), failing);
    }
    for (region, rtt) in inputs.rtt.iter().filter(|(region, _)| !region.contains('/')) {
        out.put(format!("{}/{region}", key::RTT), rtt);
    }
    for site in inputs.sites {
        out.put(format!("{}/{}", key::SITE, site.instance), site);
    }
    out
}

/// Services of members that have not reported since the hub started: they are there, only nobody knows their endpoints yet. A name
/// that did not exist would be another answer than a member that is down.
fn remembered(inputs: &Inputs<'_>, out: &mut Facts) {
    for import in inputs.imports {
        let Some(set) = import.labels().get(CLUSTER_SET_LABEL) else { continue };
        let silent = |name: &str| {
            let name: Option<ClusterName> = name.parse().ok();
            name.is_some_and(|n| {
                let in_set = inputs.members.get(&n).is_some_and(|j| j.cluster.spec.set() == set);
                in_set && !inputs.reported.contains_key(&n)
            })
        };
        let exporters = import.status.iter().flat_map(|s| &s.clusters).map(|c| c.cluster.clone());
        let clusters: Vec<String> = exporters.filter(|c| silent(c)).collect();
        if clusters.is_empty() {
            continue;
        }
        let at = format!("{}/{set}/{}/{}", key::SERVICE, import.namespace().unwrap_or_default(), import.name_any());
        let mut service = out.get::<ServiceFacts>(&at).unwrap_or_else(|| ServiceFacts {
            clusters: Vec::new(),
            ports: import.spec.ports.iter().map(port).collect(),
            headless: import.spec.import_type == ServiceImportType::Headless,
        });
        service.clusters.extend(clusters);
        out.put(at, &service);
    }
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

fn cluster(name: &ClusterName, judged: &Judged) -> ClusterFacts {
    ClusterFacts {
        name: name.clone(),
        spec: judged.cluster.spec.clone(),
        labels: judged.cluster.labels().clone(),
        cidrs: judged.cidrs.clone(),
        nodes: judged.member.nodes.clone(),
        dns: judged.dns.clone(),
        ready: judged.verdict.ready,
        dns_ready: judged.verdict.dns_ready,
        overlaps: judged.verdict.overlaps,
    }
}

fn endpoints(cluster: &ClusterName, facts: &Facts, inputs: &Inputs<'_>, out: &mut Facts) {
    let loopback = inputs.loopback_members;
    for (rest, json) in facts.under(key::ENDPOINTS) {
        let Some((namespace, name)) = rest.split_once('/').filter(|(_, name)| !name.contains('/')) else { continue };
        let Ok(mut found) = serde_json::from_slice::<Endpoints>(json) else { continue };
        if let Some(service) = facts.get::<MemberService>(&format!("{}/{rest}", key::SERVICE)) {
            if found.cluster_ips.is_empty() {
                found.cluster_ips = service.cluster_ips;
            }
            if found.load_balancer.is_empty() {
                found.load_balancer = service.load_balancer;
            }
        }
        found.endpoints.retain(|e| is_pods(e.address, loopback));
        found.cluster_ips.retain(|a| is_pods(*a, loopback));
        found.endpoints.truncate(ENDPOINTS_MAX);
        take_out(inputs, cluster, (namespace, name), &mut found);
        out.put(format!("{}/{cluster}/{rest}", key::ENDPOINTS), &found);
    }
}

/// Marks the endpoints that the service's health checks take out.
fn take_out(inputs: &Inputs<'_>, cluster: &ClusterName, (namespace, name): (&str, &str), found: &mut Endpoints) {
    if inputs.failing.is_empty() {
        return;
    }
    let theirs = inputs.traffic.iter().filter(|t| t.namespace().as_deref() == Some(namespace));
    let theirs = theirs.filter(|t| t.spec.service.as_deref() == Some(name));
    for policy in theirs {
        let Some(failing) = inputs.failing.get(&ServiceName::new(namespace, policy.name_any())) else { continue };
        for endpoint in found.endpoints.iter_mut().filter(|e| e.ready) {
            endpoint.failing = failing.contains_key(&format!("{cluster}/{}", endpoint.address));
            endpoint.ready = !endpoint.failing;
        }
    }
}

/// Whether an address can be a pod's or a service's.
fn is_pods(address: IpAddr, loopback: bool) -> bool {
    let link_local = match address {
        IpAddr::V4(a) => a.is_link_local() || a.is_broadcast(),
        IpAddr::V6(a) => a.is_unicast_link_local() || a.to_ipv4_mapped().is_some(),
    };
    !(link_local || address.is_unspecified() || address.is_multicast() || (address.is_loopback() && !loopback))
}

/// A service of a set, as its oldest valid export has it (KEP-1645); nothing where none is valid.
fn service(exports: &[Export]) -> Option<ServiceFacts> {
    let valid: Vec<(&Export, &MemberService)> =
        exports.iter().filter(|e| e.facts.valid).filter_map(|e| Some((e, e.service.as_ref()?))).collect();
    let (_, oldest) = valid.first()?;
    Some(ServiceFacts {
        clusters: valid.iter().map(|(e, _)| e.cluster.to_string()).collect(),
        ports: oldest.ports.clone(),
        headless: oldest.cluster_ips.is_empty(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_cannot_be_a_pods_are_left_out() {
        for (address, fits, in_demo) in [
            ("10.1.2.3", true, true),
            ("fd00::1", true, true),
            ("127.1.2.3", false, true),
            ("::1", false, true),
            ("169.254.169.254", false, false),
            ("fe80::1", false, false),
            ("::ffff:127.0.0.1", false, false),
            ("0.0.0.0", false, false),
            ("224.0.0.1", false, false),
            ("255.255.255.255", false, false),
        ] {
            let address = address.parse().unwrap();
            assert_eq!((is_pods(address, false), is_pods(address, true)), (fits, in_demo), "{address}");
        }
    }

    #[test]
    fn a_service_is_what_its_oldest_valid_export_says() {
        let export = |cluster: &str, created: &str, valid: bool, ips: &[&str]| Export {
            cluster: cluster.parse().unwrap(),
            facts: ExportFacts { created: created.into(), valid },
            service: Some(MemberService {
                cluster_ips: ips.iter().map(|i| i.parse().unwrap()).collect(),
                ..MemberService::default()
            }),
        };
        let all = [
            export("c", "1", false, &["10.0.0.1"]),
            export("a", "2", true, &[]),
            export("b", "3", true, &["10.0.0.2"]),
        ];
        let service = service(&all).unwrap();
        assert!(service.headless);
        assert_eq!(service.clusters, ["a", "b"]);
    }
}
