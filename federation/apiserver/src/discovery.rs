//! Discovery: which groups, versions and resources there are, in the old form and the aggregated one.
//! Source: apidiscovery.k8s.io/v2, meta/v1 APIGroupList and APIResourceList.

use http::HeaderMap;
use serde_json::{Value, json};

use crate::{
    http::{Reply, accept},
    kinds::{Kinds, Resource, api_version},
    refusal::Refusal,
};

const VERBS: [&str; 8] = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];
const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
/// Asked by POST and never stored: group, plural, kind, whether namespaced.
const REVIEWS: [(&str, &str, &str, bool); 6] = [
    ("authentication.k8s.io", "selfsubjectreviews", "SelfSubjectReview", false),
    ("authentication.k8s.io", "tokenreviews", "TokenReview", false),
    ("authorization.k8s.io", "localsubjectaccessreviews", "LocalSubjectAccessReview", true),
    ("authorization.k8s.io", "selfsubjectaccessreviews", "SelfSubjectAccessReview", false),
    ("authorization.k8s.io", "selfsubjectrulesreviews", "SelfSubjectRulesReview", false),
    ("authorization.k8s.io", "subjectaccessreviews", "SubjectAccessReview", false),
];

/// Answers a discovery path, or 404.
pub(crate) fn serve(kinds: &Kinds, path: &str, headers: &HeaderMap) -> Result<Reply, Refusal> {
    let parts: Vec<&str> = path.trim_matches('/').split('/').filter(|part| !part.is_empty()).collect();
    let wants = accept::media(headers).any(|media| {
        accept::param(media, "g") == Some("apidiscovery.k8s.io")
            && accept::param(media, "v") == Some("v2")
            && accept::param(media, "as") == Some("APIGroupDiscoveryList")
    });
    match parts.as_slice() {
        ["api"] if wants => Ok(Reply { content: AGGREGATED, ..Reply::json(200, &aggregated(kinds, true)) }),
        ["apis"] if wants => Ok(Reply { content: AGGREGATED, ..Reply::json(200, &aggregated(kinds, false)) }),
        ["api"] => Ok(Reply::json(
            200,
            &json!({"kind": "APIVersions", "versions": ["v1"],
            "serverAddressByClientCIDRs": []}),
        )),
        ["apis"] => {
            let groups: Vec<Value> =
                kinds.groups().iter().filter(|(name, _)| !name.is_empty()).map(|(name, v)| group(name, v)).collect();
            Ok(Reply::json(200, &json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})))
        }
        ["apis", name] => {
            let groups = kinds.groups();
            let (name, versions) = groups.iter().find(|(n, _)| **n == **name).ok_or_else(Refusal::no_such_path)?;
            let mut value = group(name, versions);
            value["kind"] = "APIGroup".into();
            value["apiVersion"] = "v1".into();
            Ok(Reply::json(200, &value))
        }
        ["api", version] => resources(kinds, "", version),
        ["apis", name, version] => resources(kinds, name, version),
        [] => Ok(Reply::json(
            200,
            &json!({"paths": ["/api", "/apis", "/healthz", "/livez", "/openapi/v3", "/readyz", "/version"]}),
        )),
        _ => Err(Refusal::no_such_path()),
    }
}

fn group(name: &str, versions: &[Box<str>]) -> Value {
    let entry = |version: &str| json!({"groupVersion": api_version(name, version), "version": version});
    json!({"name": name, "versions": versions.iter().map(|v| entry(v)).collect::<Vec<_>>(),
        "preferredVersion": versions.first().map(|v| entry(v))})
}

fn resources(kinds: &Kinds, group: &str, version: &str) -> Result<Reply, Refusal> {
    let mut list = Vec::new();
    for resource in kinds.all.iter().filter(|r| *r.group == *group && *r.version == *version) {
        let mut entry = json!({
            "name": resource.plural, "singularName": resource.singular, "namespaced": resource.namespaced,
            "kind": resource.kind, "verbs": VERBS,
        });
        if !resource.short_names.is_empty() {
            entry["shortNames"] = json!(resource.short_names);
        }
        if !resource.categories.is_empty() {
            entry["categories"] = json!(resource.categories);
        }
        list.push(entry);
        for (name, group, version, kind, verbs) in subresources(resource) {
            let mut entry = json!({"name": format!("{}/{name}", resource.plural), "singularName": "",
                "namespaced": resource.namespaced, "kind": kind, "verbs": verbs});
            if !group.is_empty() {
                entry["group"] = group.into();
                entry["version"] = version.into();
            }
            list.push(entry);
        }
    }
    for (_, plural, kind, namespaced) in REVIEWS.iter().filter(|(g, ..)| *g == group && version == "v1") {
        list.push(json!({"name": plural, "singularName": kind.to_lowercase(), "namespaced": namespaced, "kind": kind,
            "verbs": ["create"]}));
    }
    if list.is_empty() {
        return Err(Refusal::no_such_path());
    }
    Ok(Reply::json(
        200,
        &json!({"kind": "APIResourceList", "apiVersion": "v1",
        "groupVersion": api_version(group, version), "resources": list}),
    ))
}

type Subresource = (&'static str, &'static str, &'static str, String, Vec<&'static str>);

fn subresources(resource: &Resource) -> Vec<Subresource> {
    let change = || vec!["get", "patch", "update"];
    let mut list = Vec::new();
    if resource.has_status {
        list.push(("status", "", "", resource.kind.to_string(), change()));
    }
    if resource.scale.is_some() {
        list.push(("scale", "autoscaling", "v1", "Scale".into(), change()));
    }
    if resource.is("", "pods") {
        list.push(("eviction", "policy", "v1", "Eviction".into(), vec!["create"]));
    }
    if resource.is("", "namespaces") {
        list.push(("finalize", "", "", "Namespace".into(), vec!["update"]));
    }
    list
}

fn aggregated(kinds: &Kinds, core: bool) -> Value {
    let groups = kinds.groups();
    let items: Vec<Value> = groups
        .iter()
        .filter(|(name, _)| name.is_empty() == core)
        .map(|(name, versions)| {
            let versions: Vec<Value> = versions
                .iter()
                .map(|version| {
                    json!({"version": version, "freshness": "Current",
                    "resources": aggregated_resources(kinds, name, version)})
                })
                .collect();
            let metadata = if name.is_empty() {
                json!({"creationTimestamp": null})
            } else {
                json!({"name": name, "creationTimestamp": null})
            };
            json!({"metadata": metadata, "versions": versions})
        })
        .collect();
    json!({"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": items})
}

fn aggregated_resources(kinds: &Kinds, group: &str, version: &str) -> Vec<Value> {
    let scope = |namespaced: bool| if namespaced { "Namespaced" } else { "Cluster" };
    let kind_of = |group: &str, version: &str, kind: &str| json!({"group": group, "version": version, "kind": kind});
    let stored = kinds.all.iter().filter(|r| *r.group == *group && *r.version == *version).map(|resource| {
        let mut entry = json!({
            "resource": resource.plural, "responseKind": kind_of(group, version, &resource.kind),
            "scope": scope(resource.namespaced), "singularResource": resource.singular, "verbs": VERBS,
        });
        if !resource.short_names.is_empty() {
            entry["shortNames"] = json!(resource.short_names);
        }
        if !resource.categories.is_empty() {
            entry["categories"] = json!(resource.categories);
        }
        let below: Vec<Value> = subresources(resource)
            .into_iter()
            .map(|(name, sub_group, sub_version, kind, verbs)| {
                let of = if sub_group.is_empty() { (group, version) } else { (sub_group, sub_version) };
                json!({"subresource": name, "responseKind": kind_of(of.0, of.1, &kind), "verbs": verbs})
            })
            .collect();
        if !below.is_empty() {
            entry["subresources"] = below.into();
        }
        entry
    });
    let reviews = REVIEWS.iter().filter(|(g, ..)| *g == group).map(|(_, plural, kind, namespaced)| {
        json!({"resource": plural, "responseKind": kind_of(group, version, kind), "scope": scope(*namespaced),
            "singularResource": kind.to_lowercase(), "verbs": ["create"]})
    });
    stored.chain(reviews).collect()
}
