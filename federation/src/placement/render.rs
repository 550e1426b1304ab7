//! What a Bundle becomes in one cluster: overrides applied, replicas set, digested. Pure.
//!
//! Input: a Bundle, a cluster, its share of the replicas. Output: final manifests in the order in which they are applied, or which
//! override or manifest is wrong. Source: JSON Patch (RFC 6902).

use std::collections::BTreeMap;

use atoll_api::guard;
use atoll_api::kinds::{AssignedObject, Bundle, BundleSpec, ClusterSpec, Override};
use atoll_api::topology::DesiredBundle;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::model::Resources;

/// Kinds whose `spec.replicas` is divided.
const DIVIDED: &[&str] = &["Deployment", "StatefulSet", "ReplicaSet"];

/// They are given out one by one.
pub const REPLICAS_MAX: i32 = 100_000;

/// Kinds in the order in which they are applied; others come last.
const ORDER: &[&str] = &[
    "Namespace",
    "CustomResourceDefinition",
    "ServiceAccount",
    "Secret",
    "ConfigMap",
    "PersistentVolumeClaim",
    "Role",
    "RoleBinding",
    "Service",
];

/// Why a Bundle can't be rendered. Its writer is at fault; a retry does not help.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadBundle {
    /// No manifest at all.
    #[error("`manifests` is empty")]
    Empty,
    /// A manifest without apiVersion, kind or name.
    #[error("manifest {0}: needs apiVersion, kind and metadata.name")]
    Manifest(usize),
    /// A manifest that no member's agent takes.
    #[error("manifest {0}: {1} `{2}`: {3}")]
    Refused(usize, String, String, String),
    /// Replicas that can't be divided.
    #[error("manifest {0}: {1} `{2}`: spec.replicas is {3}, and must be a whole number from 0 to {REPLICAS_MAX}")]
    Replicas(usize, String, String, String),
    /// Two manifests of one name.
    #[error("manifest {0}: {1} `{2}` is there twice")]
    Twice(usize, String, String),
    /// An override that can't be applied.
    #[error("override {0}, {1} `{2}`: {3}")]
    Override(usize, String, String, String),
    /// An override that matches no manifest.
    #[error("override {0}: matches no manifest")]
    NoTarget(usize),
}

fn kind(manifest: &Value) -> &str {
    manifest["kind"].as_str().unwrap_or_default()
}

fn name(manifest: &Value) -> &str {
    manifest["metadata"]["name"].as_str().unwrap_or_default()
}

/// The replicas of a divided workload; 1 where it does not say.
fn replicas_of(workload: &Value) -> Option<i32> {
    match &workload["spec"]["replicas"] {
        Value::Null => Some(1),
        given => given.as_i64().and_then(|n| i32::try_from(n).ok()).filter(|n| (0..=REPLICAS_MAX).contains(n)),
    }
}

/// Replicas to divide, the most of any workload, and what one of each workload requests together.
///
/// Where nothing is divided there are no replicas, and what runs requests nothing that placement counts.
pub fn demand(spec: &BundleSpec) -> (Option<i32>, Resources) {
    let workloads = spec.manifests.iter().filter(|m| DIVIDED.contains(&kind(m)));
    let mut replicas = None;
    let mut each = Resources::default();
    for workload in workloads {
        replicas = Some(replicas.unwrap_or(0).max(replicas_of(workload).unwrap_or(1)));
        each = each.plus(&Resources::of_pod(&workload["spec"]["template"]), 1);
    }
    (replicas, each)
}

/// What `bundle` becomes in the cluster `cluster`: `replicas` of each divided workload (as written when `None`).
///
/// # Errors
/// Which manifest or override is wrong.
pub fn render(
    bundle: &Bundle,
    cluster: &str,
    spec: &ClusterSpec,
    labels: &BTreeMap<String, String>,
    replicas: Option<i32>,
) -> Result<DesiredBundle, BadBundle> {
    check(&bundle.spec.manifests)?;
    let mut manifests = bundle.spec.manifests.clone();
    let (whole, _) = demand(&bundle.spec);
    if let (Some(share), Some(whole)) = (replicas, whole) {
        for workload in manifests.iter_mut().filter(|m| DIVIDED.contains(&kind(m))) {
            let own = replicas_of(workload).unwrap_or(1);
            workload["spec"]["replicas"] = portion(own, share, whole).into();
        }
    }
    for (i, change) in bundle.spec.overrides.iter().enumerate() {
        if change.clusters.matches(cluster, spec, labels) {
            patch(i, change, &mut manifests)?;
        }
    }
    let namespace = bundle.metadata.namespace.clone().unwrap_or_default();
    // Overrides may have changed any of it.
    named(&manifests)?;
    for (i, m) in manifests.iter().enumerate() {
        let refused = |why| BadBundle::Refused(i, kind(m).to_owned(), name(m).to_owned(), why);
        guard::foresee(m, &namespace).map_err(refused)?;
    }
    manifests.sort_by_key(|m| ORDER.iter().position(|k| *k == kind(m)).unwrap_or(ORDER.len()));
    let mut desired = DesiredBundle {
        dependencies: bundle.spec.dependencies.iter().map(|d| format!("{namespace}/{}", d.name)).collect(),
        namespace,
        name: bundle.metadata.name.clone().unwrap_or_default(),
        uid: bundle.metadata.uid.clone().unwrap_or_default(),
        revision: String::new(),
        epoch: 0,
        manifests,
        exports: bundle.spec.exports.clone(),
        suspend: bundle.spec.suspend,
    };
    desired.revision = digest(&serde_json::to_vec(&desired).expect("plain JSON"))[..16].to_owned();
    Ok(desired)
}

/// A workload's replicas where the Bundle's largest has `share` of `whole`; never zero where there is a share.
fn portion(own: i32, share: i32, whole: i32) -> i32 {
    if own == whole || whole <= 0 {
        return share;
    }
    let scaled = (i64::from(own) * i64::from(share) + i64::from(whole) - 1) / i64::from(whole);
    i32::try_from(scaled).unwrap_or(i32::MAX)
}

/// What only members take whose operators opted in to it; empty where every agent takes all.
pub fn only_where_allowed(bundle: &Bundle) -> String {
    let namespace = bundle.metadata.namespace.as_deref().unwrap_or_default();
    let told = bundle.spec.manifests.iter().enumerate().filter_map(|(i, m)| {
        let why = guard::foresee(m, namespace).ok().flatten()?;
        Some(format!(
            "manifest {i}: {} `{}`: only where the member's agent is told to allow it: {why}",
            kind(m),
            name(m)
        ))
    });
    told.collect::<Vec<_>>().join("; ")
}

fn named(manifests: &[Value]) -> Result<(), BadBundle> {
    let nameless =
        |m: &Value| m["apiVersion"].as_str().is_none_or(str::is_empty) || kind(m).is_empty() || name(m).is_empty();
    manifests.iter().position(nameless).map_or(Ok(()), |i| Err(BadBundle::Manifest(i)))
}

/// Whether manifests can be told apart and divided.
pub fn check(manifests: &[Value]) -> Result<(), BadBundle> {
    if manifests.is_empty() {
        return Err(BadBundle::Empty);
    }
    named(manifests)?;
    let mut seen = std::collections::BTreeSet::new();
    for (i, m) in manifests.iter().enumerate() {
        if !seen.insert((m["apiVersion"].as_str(), kind(m), m["metadata"]["namespace"].as_str(), name(m))) {
            return Err(BadBundle::Twice(i, kind(m).to_owned(), name(m).to_owned()));
        }
        if DIVIDED.contains(&kind(m)) && replicas_of(m).is_none() {
            let given = m["spec"]["replicas"].to_string();
            return Err(BadBundle::Replicas(i, kind(m).to_owned(), name(m).to_owned(), given));
        }
    }
    Ok(())
}

fn patch(i: usize, change: &Override, manifests: &mut [Value]) -> Result<(), BadBundle> {
    let target = |m: &&mut Value| {
        change.target.kind.as_deref().is_none_or(|k| k == kind(m))
            && change.target.name.as_deref().is_none_or(|n| n == name(m))
    };
    let mut any = false;
    for manifest in manifests.iter_mut().filter(target) {
        any = true;
        let bad = |why: String, m: &Value| BadBundle::Override(i, kind(m).to_owned(), name(m).to_owned(), why);
        let operations: json_patch::Patch =
            serde_json::from_value(Value::Array(change.patch.clone())).map_err(|e| bad(e.to_string(), manifest))?;
        json_patch::patch(manifest, &operations).map_err(|e| bad(e.to_string(), manifest))?;
    }
    if any { Ok(()) } else { Err(BadBundle::NoTarget(i)) }
}

/// The objects of a rendered Bundle by digest, for an Assignment.
pub fn objects(desired: &DesiredBundle) -> Vec<AssignedObject> {
    let object = |m: &Value| AssignedObject {
        api_version: m["apiVersion"].as_str().unwrap_or_default().to_owned(),
        kind: kind(m).to_owned(),
        name: name(m).to_owned(),
        digest: format!("sha256:{}", digest(&serde_json::to_vec(m).expect("plain JSON"))),
    };
    desired.manifests.iter().map(object).collect()
}

fn digest(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

#[cfg(test)]
mod tests {
    use atoll_api::selector::ClusterSelector;
    use serde_json::json;

    use super::*;

    fn bundle() -> Bundle {
        let deployment = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": {"replicas": 6,
            "template": {"spec": {"containers": [{"env": [{"name": "R", "value": "eu"}], "resources": {"requests": {"cpu": "100m"}}}]}}}});
        let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}});
        let us = Override {
            clusters: ClusterSelector { names: vec!["prod-us".into()], ..ClusterSelector::default() },
            target: atoll_api::kinds::OverrideTarget { kind: Some("Deployment".into()), name: None },
            patch: vec![
                json!({"op": "replace", "path": "/spec/template/spec/containers/0/env/0/value", "value": "us"}),
            ],
        };
        let spec = BundleSpec { manifests: vec![deployment, service], overrides: vec![us], ..BundleSpec::default() };
        let mut bundle = Bundle::new("web", spec);
        bundle.metadata.namespace = Some("shop".into());
        bundle
    }

    fn rendered(bundle: &Bundle, cluster: &str, replicas: Option<i32>) -> Result<DesiredBundle, BadBundle> {
        render(bundle, cluster, &ClusterSpec::default(), &BTreeMap::new(), replicas)
    }

    #[test]
    fn each_cluster_gets_its_share_its_overrides_and_its_own_revision() {
        let (eu, us) = (rendered(&bundle(), "prod-eu", Some(4)), rendered(&bundle(), "prod-us", Some(4)));
        let (eu, us) = (eu.expect("renders"), us.expect("renders"));
        let value =
            |d: &DesiredBundle| d.manifests[1]["spec"]["template"]["spec"]["containers"][0]["env"][0]["value"].clone();
        assert_eq!(eu.manifests[0]["kind"], "Service", "what others need goes first");
        assert_eq!(eu.manifests[1]["spec"]["replicas"], 4);
        assert_eq!((value(&eu), value(&us)), (json!("eu"), json!("us")));
        assert_ne!(eu.revision, us.revision);
        assert_eq!(eu.revision, rendered(&bundle(), "prod-eu", Some(4)).expect("renders").revision);
        assert_eq!(demand(&bundle().spec), (Some(6), Resources { cpu_milli: 100, memory_bytes: 0, pods: 1 }));
    }

    #[test]
    fn what_only_some_members_take_is_told_and_no_fault() {
        let mut bundle = bundle();
        assert_eq!(only_where_allowed(&bundle), "");
        let role =
            json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": "r"}});
        bundle.spec.manifests.push(role);
        assert!(rendered(&bundle, "prod-us", None).is_ok());
        let told = only_where_allowed(&bundle);
        assert!(told.starts_with("manifest 2: ClusterRole `r`: only where the member's agent is told"), "{told}");
    }

    #[test]
    fn what_is_wrong_is_named() {
        type Break = fn(&mut BundleSpec);
        let cases: [(&str, Break, &str); 10] = [
            ("no manifests", |s| s.manifests.clear(), "empty"),
            ("no kind", |s| drop(s.manifests[1].as_object_mut().map(|o| o.remove("kind"))), "manifest 1"),
            (
                "a foreign namespace",
                |s| s.manifests[1]["metadata"]["namespace"] = json!("bank"),
                "manifest 1: Service `web`: namespace bank is not the Bundle's own (shop)",
            ),
            (
                "a foreign namespace by an override",
                |s| {
                    s.overrides[0].patch =
                        vec![json!({"op": "add", "path": "/metadata/namespace", "value": "kube-system"})];
                },
                "Deployment `web`: namespace kube-system is not the Bundle's own",
            ),
            (
                "a name taken away by an override",
                |s| s.overrides[0].patch = vec![json!({"op": "remove", "path": "/metadata/name"})],
                "manifest 0: needs apiVersion, kind and metadata.name",
            ),
            (
                "too many replicas",
                |s| s.manifests[0]["spec"]["replicas"] = json!(2_000_000_000),
                "manifest 0: Deployment `web`: spec.replicas is 2000000000, and must be a whole number from 0 to 100000",
            ),
            ("fewer than none", |s| s.manifests[0]["spec"]["replicas"] = json!(-1), "spec.replicas is -1"),
            ("twice", |s| s.manifests.push(s.manifests[1].clone()), "twice"),
            (
                "a path that is not there",
                |s| s.overrides[0].patch = vec![json!({"op": "remove", "path": "/x"})],
                "override 0, Deployment",
            ),
            ("no target", |s| s.overrides[0].target.kind = Some("Job".into()), "override 0: matches no manifest"),
        ];
        for (case, break_it, want) in cases {
            let mut bundle = bundle();
            break_it(&mut bundle.spec);
            let refused = rendered(&bundle, "prod-us", None).expect_err(case).to_string();
            assert!(refused.contains(want), "{case}: {refused}");
        }
    }
}
