//! The built-in kinds: one row each. Everything that differs between them and isn't behaviour is here.
//! A new kind is one row (and, for its own columns, one row in `table`).

use std::sync::{Arc, OnceLock};

use k8s_openapi::{
    api::{
        admissionregistration::v1 as admission, apps::v1 as apps, batch::v1 as batch, coordination::v1 as coordination,
        core::v1 as core, discovery::v1 as discovery, events::v1 as events, networking::v1 as networking,
        policy::v1 as policy, rbac::v1 as rbac, scheduling::v1 as scheduling, storage::v1 as storage,
    },
    apiextensions_apiserver::pkg::apis::apiextensions::v1 as extensions,
    kube_aggregator::pkg::apis::apiregistration::v1 as registration,
};

use super::{Resource, Scale, Source};
use crate::schema::{Derive, derive};

/// One built-in kind.
#[derive(Debug)]
pub(crate) struct Row {
    group: &'static str,
    version: &'static str,
    pub(crate) kind: &'static str,
    plural: &'static str,
    short: &'static [&'static str],
    flags: u8,
    pub(crate) derive: Derive,
}

const NAMESPACED: u8 = 1;
const STATUS: u8 = 2;
const GENERATION: u8 = 4;
const SCALE: u8 = 8;
const IN_ALL: u8 = 16;
/// A workload: namespaced, with status and generation, shown by `get all`.
const WORKLOAD: u8 = NAMESPACED | STATUS | GENERATION | IN_ALL;

const fn row(
    (group, version): (&'static str, &'static str),
    kind: &'static str,
    plural: &'static str,
    short: &'static [&'static str],
    flags: u8,
    derive: Derive,
) -> Row {
    Row { group, version, kind, plural, short, flags, derive }
}

const CORE: (&str, &str) = ("", "v1");
const APPS: (&str, &str) = ("apps", "v1");
const BATCH: (&str, &str) = ("batch", "v1");
const NETWORKING: (&str, &str) = ("networking.k8s.io", "v1");
const RBAC: (&str, &str) = ("rbac.authorization.k8s.io", "v1");
const ADMISSION: (&str, &str) = ("admissionregistration.k8s.io", "v1");

#[rustfmt::skip]
static ROWS: &[Row] = &[
    row(CORE, "Namespace", "namespaces", &["ns"], STATUS, derive::<core::Namespace>),
    row(CORE, "Node", "nodes", &["no"], STATUS, derive::<core::Node>),
    row(CORE, "Pod", "pods", &["po"], WORKLOAD, derive::<core::Pod>),
    row(CORE, "Service", "services", &["svc"], NAMESPACED | STATUS | IN_ALL, derive::<core::Service>),
    row(CORE, "Endpoints", "endpoints", &["ep"], NAMESPACED, derive::<core::Endpoints>),
    row(CORE, "ConfigMap", "configmaps", &["cm"], NAMESPACED, derive::<core::ConfigMap>),
    row(CORE, "Secret", "secrets", &[], NAMESPACED, derive::<core::Secret>),
    row(CORE, "Event", "events", &["ev"], NAMESPACED, derive::<core::Event>),
    row(CORE, "ServiceAccount", "serviceaccounts", &["sa"], NAMESPACED, derive::<core::ServiceAccount>),
    row(CORE, "PersistentVolumeClaim", "persistentvolumeclaims", &["pvc"], NAMESPACED | STATUS, derive::<core::PersistentVolumeClaim>),
    row(CORE, "PersistentVolume", "persistentvolumes", &["pv"], STATUS, derive::<core::PersistentVolume>),
    row(CORE, "LimitRange", "limitranges", &["limits"], NAMESPACED, derive::<core::LimitRange>),
    row(CORE, "ResourceQuota", "resourcequotas", &["quota"], NAMESPACED | STATUS, derive::<core::ResourceQuota>),
    row(CORE, "ReplicationController", "replicationcontrollers", &["rc"], WORKLOAD | SCALE, derive::<core::ReplicationController>),
    row(CORE, "PodTemplate", "podtemplates", &[], NAMESPACED, derive::<core::PodTemplate>),
    row(APPS, "Deployment", "deployments", &["deploy"], WORKLOAD | SCALE, derive::<apps::Deployment>),
    row(APPS, "ReplicaSet", "replicasets", &["rs"], WORKLOAD | SCALE, derive::<apps::ReplicaSet>),
    row(APPS, "StatefulSet", "statefulsets", &["sts"], WORKLOAD | SCALE, derive::<apps::StatefulSet>),
    row(APPS, "DaemonSet", "daemonsets", &["ds"], WORKLOAD, derive::<apps::DaemonSet>),
    row(APPS, "ControllerRevision", "controllerrevisions", &[], NAMESPACED, derive::<apps::ControllerRevision>),
    row(BATCH, "Job", "jobs", &[], WORKLOAD, derive::<batch::Job>),
    row(BATCH, "CronJob", "cronjobs", &["cj"], WORKLOAD, derive::<batch::CronJob>),
    row(("discovery.k8s.io", "v1"), "EndpointSlice", "endpointslices", &[], NAMESPACED, derive::<discovery::EndpointSlice>),
    row(NETWORKING, "Ingress", "ingresses", &["ing"], NAMESPACED | STATUS | GENERATION, derive::<networking::Ingress>),
    row(NETWORKING, "IngressClass", "ingressclasses", &[], GENERATION, derive::<networking::IngressClass>),
    row(NETWORKING, "NetworkPolicy", "networkpolicies", &["netpol"], NAMESPACED | GENERATION, derive::<networking::NetworkPolicy>),
    row(NETWORKING, "ServiceCIDR", "servicecidrs", &[], STATUS, derive::<networking::ServiceCIDR>),
    row(NETWORKING, "IPAddress", "ipaddresses", &["ip"], 0, derive::<networking::IPAddress>),
    row(("coordination.k8s.io", "v1"), "Lease", "leases", &[], NAMESPACED, derive::<coordination::Lease>),
    row(("events.k8s.io", "v1"), "Event", "events", &["ev"], NAMESPACED, derive::<events::Event>),
    row(RBAC, "Role", "roles", &[], NAMESPACED, derive::<rbac::Role>),
    row(RBAC, "RoleBinding", "rolebindings", &[], NAMESPACED, derive::<rbac::RoleBinding>),
    row(RBAC, "ClusterRole", "clusterroles", &[], 0, derive::<rbac::ClusterRole>),
    row(RBAC, "ClusterRoleBinding", "clusterrolebindings", &[], 0, derive::<rbac::ClusterRoleBinding>),
    row(("apiextensions.k8s.io", "v1"), "CustomResourceDefinition", "customresourcedefinitions", &["crd", "crds"], STATUS | GENERATION, derive::<extensions::CustomResourceDefinition>),
    row(("apiregistration.k8s.io", "v1"), "APIService", "apiservices", &[], STATUS, derive::<registration::APIService>),
    row(ADMISSION, "MutatingWebhookConfiguration", "mutatingwebhookconfigurations", &[], GENERATION, derive::<admission::MutatingWebhookConfiguration>),
    row(ADMISSION, "ValidatingWebhookConfiguration", "validatingwebhookconfigurations", &[], GENERATION, derive::<admission::ValidatingWebhookConfiguration>),
    row(ADMISSION, "ValidatingAdmissionPolicy", "validatingadmissionpolicies", &[], STATUS | GENERATION, derive::<admission::ValidatingAdmissionPolicy>),
    row(ADMISSION, "ValidatingAdmissionPolicyBinding", "validatingadmissionpolicybindings", &[], GENERATION, derive::<admission::ValidatingAdmissionPolicyBinding>),
    row(("policy", "v1"), "PodDisruptionBudget", "poddisruptionbudgets", &["pdb"], NAMESPACED | STATUS | GENERATION, derive::<policy::PodDisruptionBudget>),
    row(("storage.k8s.io", "v1"), "StorageClass", "storageclasses", &["sc"], 0, derive::<storage::StorageClass>),
    row(("scheduling.k8s.io", "v1"), "PriorityClass", "priorityclasses", &["pc"], GENERATION, derive::<scheduling::PriorityClass>),
];

/// The whole table.
pub(super) fn rows() -> &'static [Row] {
    ROWS
}

/// Groups whose kinds are asked but never stored (reviews).
pub(crate) fn groups_without_rows() -> &'static [(&'static str, &'static str)] {
    &[("authentication.k8s.io", "v1"), ("authorization.k8s.io", "v1")]
}

impl Row {
    pub(super) fn resource(&'static self) -> Arc<Resource> {
        let has = |flag: u8| self.flags & flag != 0;
        let path = |parts: &[&str]| parts.iter().map(|part| (*part).to_owned()).collect();
        // Both groups of Event show the same objects, kept in the older form.
        let home = if self.plural == "events" { CORE } else { (self.group, self.version) };
        Arc::new(Resource {
            group: self.group.into(),
            version: self.version.into(),
            plural: self.plural.into(),
            singular: self.kind.to_lowercase().into(),
            kind: self.kind.into(),
            list_kind: format!("{}List", self.kind).into(),
            short_names: self.short.iter().map(|s| (*s).into()).collect(),
            categories: if has(IN_ALL) { vec!["all".into()] } else { Vec::new() },
            namespaced: has(NAMESPACED),
            has_status: has(STATUS),
            counts_generation: has(GENERATION),
            scale: has(SCALE).then(|| Scale {
                spec: path(&["spec", "replicas"]),
                status: path(&["status", "replicas"]),
                selector: Some(path(&["spec", "selector"])),
            }),
            collection: format!("{}/{}", home.0, self.plural).into(),
            stored_as: super::api_version(home.0, home.1).into(),
            source: Source::Builtin(self),
            schema: OnceLock::new(),
        })
    }
}
