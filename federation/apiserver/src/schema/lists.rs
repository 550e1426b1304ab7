//! Which lists of built-in kinds merge, and by which key: what the `+listType`, `+listMapKey`, `patchStrategy` and
//! `patchMergeKey` marks in Kubernetes' Go types say, which the derived schemas lack.
//! In: a definition's name and its schema; out: the schema with the `x-kubernetes-*` words put in.

use serde_json::{Value, json};

/// Fields by the last parts of their type's name: list type (`set` or the map's keys), then the patch's merge key.
#[rustfmt::skip]
const FIELDS: &[(&str, &str, &str, &str)] = &[
    ("meta.v1.ObjectMeta", "ownerReferences", "uid", "uid"),
    ("meta.v1.ObjectMeta", "finalizers", "set", "*"),
    ("core.v1.PodSpec", "containers", "name", "name"),
    ("core.v1.PodSpec", "initContainers", "name", "name"),
    ("core.v1.PodSpec", "ephemeralContainers", "name", "name"),
    ("core.v1.PodSpec", "volumes", "name", "name!"),
    ("core.v1.PodSpec", "imagePullSecrets", "name", "name"),
    ("core.v1.PodSpec", "hostAliases", "ip", "ip"),
    ("core.v1.PodSpec", "topologySpreadConstraints", "topologyKey,whenUnsatisfiable", "topologyKey"),
    ("core.v1.PodSpec", "resourceClaims", "name", "name!"),
    ("core.v1.PodSpec", "schedulingGates", "name", "name"),
    ("core.v1.Container", "ports", "containerPort,protocol", "containerPort"),
    ("core.v1.Container", "env", "name", "name"),
    ("core.v1.Container", "volumeMounts", "mountPath", "mountPath"),
    ("core.v1.Container", "volumeDevices", "devicePath", "devicePath"),
    ("core.v1.EphemeralContainer", "ports", "containerPort,protocol", "containerPort"),
    ("core.v1.EphemeralContainer", "env", "name", "name"),
    ("core.v1.EphemeralContainer", "volumeMounts", "mountPath", "mountPath"),
    ("core.v1.EphemeralContainer", "volumeDevices", "devicePath", "devicePath"),
    ("core.v1.ResourceRequirements", "claims", "name", ""),
    ("core.v1.PodStatus", "conditions", "type", "type"),
    ("core.v1.PodStatus", "podIPs", "ip", "ip"),
    ("core.v1.PodStatus", "hostIPs", "", "ip"),
    ("core.v1.PodStatus", "resourceClaimStatuses", "name", "name!"),
    ("core.v1.ServiceSpec", "ports", "port,protocol", "port"),
    ("core.v1.ServiceStatus", "conditions", "type", "type"),
    ("core.v1.ServiceAccount", "secrets", "name", "name"),
    ("core.v1.NodeSpec", "podCIDRs", "set", "*"),
    ("core.v1.NodeStatus", "conditions", "type", "type"),
    ("core.v1.NodeStatus", "addresses", "type", "type"),
    ("core.v1.NamespaceStatus", "conditions", "type", "type"),
    ("core.v1.PersistentVolumeClaimStatus", "conditions", "type", "type"),
    ("apps.v1.DeploymentStatus", "conditions", "type", "type"),
    ("apps.v1.ReplicaSetStatus", "conditions", "type", "type"),
    ("apps.v1.StatefulSetStatus", "conditions", "type", "type"),
    ("apps.v1.DaemonSetStatus", "conditions", "type", "type"),
    ("batch.v1.JobStatus", "conditions", "", "type"),
    ("discovery.v1.Endpoint", "addresses", "set", ""),
    ("policy.v1.PodDisruptionBudgetStatus", "conditions", "type", "type"),
    ("networking.v1.ServiceCIDRStatus", "conditions", "type", "type"),
    ("apiextensions.v1.CustomResourceDefinitionStatus", "conditions", "type", ""),
    ("apiregistration.v1.APIServiceStatus", "conditions", "type", "type"),
    ("admissionregistration.v1.MutatingWebhookConfiguration", "webhooks", "name", "name"),
    ("admissionregistration.v1.ValidatingWebhookConfiguration", "webhooks", "name", "name"),
    ("admissionregistration.v1.ValidatingWebhook", "matchConditions", "name", "name"),
    ("admissionregistration.v1.MutatingWebhook", "matchConditions", "name", "name"),
    ("admissionregistration.v1.ValidatingAdmissionPolicySpec", "matchConditions", "name", "name"),
    ("admissionregistration.v1.ValidatingAdmissionPolicySpec", "variables", "name", "name"),
];

/// Types whose objects are one value: their fields are never merged one by one.
#[rustfmt::skip]
const ATOMIC: &[&str] = &[
    "meta.v1.LabelSelector", "core.v1.LocalObjectReference", "core.v1.ObjectReference", "core.v1.SecretReference",
    "core.v1.ObjectFieldSelector", "core.v1.ResourceFieldSelector", "core.v1.NodeSelector",
    "core.v1.NodeSelectorTerm", "core.v1.TypedLocalObjectReference", "core.v1.SecretKeySelector",
    "core.v1.ConfigMapKeySelector", "core.v1.ConfigMapNodeConfigSource", "core.v1.TopologySelectorTerm",
    "core.v1.ScopeSelector", "core.v1.EndpointAddress", "core.v1.EndpointPort", "discovery.v1.EndpointPort",
    "rbac.v1.RoleRef", "rbac.v1.Subject", "meta.v1.OwnerReference",
];

/// Types that hold whatever object they hold.
const FREE: &[&str] = &["meta.v1.FieldsV1", "pkg.runtime.RawExtension"];

/// Types that are one thing or another.
const ANY: &[&str] = &[
    "apiextensions.v1.JSON",
    "apiextensions.v1.JSONSchemaPropsOrBool",
    "apiextensions.v1.JSONSchemaPropsOrArray",
    "apiextensions.v1.JSONSchemaPropsOrStringArray",
];

/// Maps that are one value.
const ATOMIC_MAPS: &[(&str, &str)] = &[("core.v1.ServiceSpec", "selector"), ("core.v1.PodSpec", "nodeSelector")];

/// Puts the words into the schema of one named definition.
pub(crate) fn annotate(name: &str, schema: &mut Value) {
    let is = |suffix: &str| name.strip_suffix(suffix).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
    if ATOMIC.iter().any(|suffix| is(suffix)) {
        schema["x-kubernetes-map-type"] = "atomic".into();
    }
    if ANY.iter().any(|suffix| is(suffix)) {
        let description = schema["description"].take();
        *schema = json!({"description": description});
    }
    if FREE.iter().any(|suffix| is(suffix)) {
        schema["x-kubernetes-preserve-unknown-fields"] = true.into();
    }
    for (of, field) in ATOMIC_MAPS {
        if is(of)
            && let Some(field) = schema.pointer_mut(&format!("/properties/{field}"))
        {
            field["x-kubernetes-map-type"] = "atomic".into();
        }
    }
    for (of, field, list, patch) in FIELDS {
        let field = schema.pointer_mut(&format!("/properties/{field}")).filter(|_| is(of));
        let Some(field) = field else { continue };
        match *list {
            "" => field["x-kubernetes-list-type"] = "atomic".into(),
            "set" => field["x-kubernetes-list-type"] = "set".into(),
            keys => {
                field["x-kubernetes-list-type"] = "map".into();
                field["x-kubernetes-list-map-keys"] = json!(keys.split(',').collect::<Vec<_>>());
            }
        }
        match *patch {
            "" => {}
            "*" => field["x-kubernetes-patch-strategy"] = "merge".into(),
            key => {
                let words = if key.ends_with('!') { "merge,retainKeys" } else { "merge" };
                field["x-kubernetes-patch-strategy"] = words.into();
                field["x-kubernetes-patch-merge-key"] = key.trim_end_matches('!').into();
            }
        }
    }
    if is("apps.v1.DeploymentSpec")
        && let Some(field) = schema.pointer_mut("/properties/strategy")
    {
        field["x-kubernetes-patch-strategy"] = "retainKeys".into();
    }
}
